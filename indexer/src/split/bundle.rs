//! One object a split: the segment's files one after the other, a footer that says what they are,
//! and a trailer of fixed size to find the footer by.
//!
//! ```text
//! file … file │ footer (JSON) │ its length (u32 LE) │ its CRC-32 (u32 LE) │ magic (8 bytes)
//! ```
//! A [`Bundle`] is also the directory that tantivy reads the files from, as slices of one mapped
//! file, so that nothing is unpacked.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use broker::{Error, Kind, Offset, Partition, Result, ResultExt, Timestamp};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    Directory, DirectoryLock, FileHandle, FileSlice, Lock, MmapDirectory, WatchCallback, WatchHandle,
    WritePtr,
};

const MAGIC: &[u8; 8] = b"HWSPLIT1";
/// The version of footer and fields; another one is not read.
pub(crate) const FORMAT: u32 = 2;
/// The bytes after the footer.
pub(crate) const TRAILER_BYTES: usize = 16;

/// What a split covers, and where its files lie.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Footer {
    pub(crate) format: u32,
    /// `dataset/version`.
    pub(crate) stream: String,
    pub(crate) incarnation: u64,
    pub(crate) partition: Partition,
    /// The first offset covered; no record need be at it.
    pub(crate) first_offset: Offset,
    /// The offset after the last covered one.
    pub(crate) end_offset: Offset,
    /// The number of events.
    pub(crate) count: u32,
    /// The first event's time.
    pub(crate) time_min: Timestamp,
    /// The last event's time.
    pub(crate) time_max: Timestamp,
    /// What its keys and values hold, uncompressed.
    #[serde(default)]
    pub(crate) bytes: u64,
    /// Whether it was put together from other splits.
    #[serde(default)]
    pub(crate) is_merged: bool,
    /// Whether every value was read as JSON when it was indexed, so that nobody has to look again.
    #[serde(default)]
    pub(crate) is_json: bool,
    pub(crate) files: Vec<PackedFile>,
}

/// A file within the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackedFile {
    name: String,
    start: u64,
    length: u64,
    crc32: u32,
}

impl Footer {
    /// The offsets covered.
    pub(crate) fn offsets(&self) -> Range<Offset> {
        self.first_offset..self.end_offset
    }

    /// Reads the footer at the end of an object's last bytes; `None` if there are too few of them.
    /// `name` is for the error.
    pub(crate) fn read(name: &str, tail: &[u8]) -> Result<Option<Footer>> {
        let damaged = |what: &str| Error::corrupt(format!("split {name}: {what}"));
        let Some((rest, trailer)) = tail.split_last_chunk::<TRAILER_BYTES>() else {
            return Err(damaged("the object is too short"));
        };
        let word =
            |at: usize| u32::from_le_bytes([trailer[at], trailer[at + 1], trailer[at + 2], trailer[at + 3]]);
        let (length, crc32) = (word(0) as usize, word(4));
        if &trailer[8..] != MAGIC {
            return Err(damaged("the magic number is missing"));
        }
        let Some(start) = rest.len().checked_sub(length) else { return Ok(None) };
        let json = &rest[start..];
        if crc32fast::hash(json) != crc32 {
            return Err(damaged("the footer's checksum does not match"));
        }
        let footer: Footer =
            serde_json::from_slice(json).map_err(|_| damaged("the footer cannot be read"))?;
        if footer.format != FORMAT {
            return Err(damaged(&format!("format {} is not known here", footer.format)));
        }
        Ok(Some(footer))
    }
}

/// What a footer and a trailer take at most, usually.
const FOOTER_BYTES: usize = 4 << 10;

/// Packs files into an object.
pub(super) struct Packer {
    footer: Footer,
    bytes: Vec<u8>,
}

impl Packer {
    /// For files of `bytes` bytes together.
    pub(super) fn new(footer: Footer, bytes: usize) -> Self {
        Self { footer, bytes: Vec::with_capacity(bytes + FOOTER_BYTES) }
    }

    pub(super) fn add(&mut self, name: &str, file: &[u8]) {
        self.footer.files.push(PackedFile {
            name: name.to_owned(),
            start: self.bytes.len() as u64,
            length: file.len() as u64,
            crc32: crc32fast::hash(file),
        });
        self.bytes.extend_from_slice(file);
    }

    pub(super) fn finish(mut self) -> Result<(Bytes, Footer)> {
        let json = serde_json::to_vec(&self.footer).or_error(Kind::Internal, "encode a split's footer")?;
        let length = u32::try_from(json.len()).or_error(Kind::Internal, "encode a split's footer")?;
        self.bytes.extend_from_slice(&json);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&crc32fast::hash(&json).to_le_bytes());
        self.bytes.extend_from_slice(MAGIC);
        Ok((self.bytes.into(), self.footer))
    }
}

/// An opened object: its footer and its files, all checked.
#[derive(Clone)]
pub(super) struct Bundle {
    pub(super) footer: Arc<Footer>,
    files: Arc<BTreeMap<PathBuf, FileSlice>>,
}

impl Bundle {
    /// Maps a file and checks every byte of it. `Corrupt`, naming the split, if one is not as it
    /// was written.
    pub(super) fn open(path: &Path) -> Result<Bundle> {
        let name = path.file_name().unwrap_or_default();
        let folder = path.parent().unwrap_or(Path::new("."));
        let directory = MmapDirectory::open(folder).or_error(Kind::Unavailable, "open the split cache")?;
        let file = directory.open_read(Path::new(name)).or_error(Kind::Unavailable, "map a cached split")?;
        Self::check(&name.to_string_lossy(), &file)
    }

    fn check(name: &str, file: &FileSlice) -> Result<Bundle> {
        let bytes = file.read_bytes().or_error(Kind::Unavailable, "read a cached split")?;
        let damaged = |what: &str| Error::corrupt(format!("split {name}: {what}"));
        let footer = Footer::read(name, &bytes)?.ok_or_else(|| damaged("the object is too short"))?;
        let mut files = BTreeMap::new();
        for packed in &footer.files {
            let start = usize::try_from(packed.start).map_err(|_| damaged("a file is out of bounds"))?;
            let end = usize::try_from(packed.length).ok().and_then(|length| start.checked_add(length));
            let range = end.and_then(|end| bytes.get(start..end).map(|content| (start..end, content)));
            let (range, content) = range.ok_or_else(|| damaged("a file is out of bounds"))?;
            if crc32fast::hash(content) != packed.crc32 {
                return Err(damaged(&format!("the checksum of {} does not match", packed.name)));
            }
            files.insert(PathBuf::from(&packed.name), file.slice(range));
        }
        Ok(Bundle { footer: Arc::new(footer), files: Arc::new(files) })
    }

    fn file(&self, path: &Path) -> Result<&FileSlice, OpenReadError> {
        self.files.get(path).ok_or_else(|| OpenReadError::FileDoesNotExist(path.to_owned()))
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bundle").field(&self.footer.stream).field(&self.footer.first_offset).finish()
    }
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "a split is never changed")
}

impl Directory for Bundle {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        Ok(Arc::new(self.file(path)?.clone()))
    }

    fn open_read(&self, path: &Path) -> Result<FileSlice, OpenReadError> {
        self.file(path).cloned()
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        Err(DeleteError::IoError { io_error: Arc::new(read_only()), filepath: path.to_owned() })
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        Ok(self.files.contains_key(path))
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        Err(OpenWriteError::wrap_io_error(read_only(), path.to_owned()))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        let bytes = self.file(path)?.read_bytes();
        let bytes = bytes.map_err(|error| OpenReadError::wrap_io_error(error, path.to_owned()))?;
        Ok(bytes.to_vec())
    }

    fn atomic_write(&self, _path: &Path, _data: &[u8]) -> io::Result<()> {
        Err(read_only())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    /// Nobody changes a split, so there is nothing to keep others from.
    fn acquire_lock(&self, _lock: &Lock) -> Result<DirectoryLock, LockError> {
        Ok(DirectoryLock::from(Box::new(())))
    }

    fn watch(&self, _watch_callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}
