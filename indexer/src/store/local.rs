//! A folder as an object store that keeps what it has acknowledged.
//!
//! The local store of crate `object_store` never calls fsync, so that an object may be gone, or
//! empty under its final name, after a power cut. Here an object is written beside its place under
//! a name that no listing shows, synced, given its name in one step that fails if the name is
//! taken, and every folder up to the root is synced before the put returns. A put that finds the
//! name taken syncs what it found, since its caller is about to rely on it. Folders that a delete
//! leaves empty go with it.

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use broker::{Kind, Result, ResultExt};
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, UploadPart,
};

/// The folder of unfinished files, within the root.
const STAGING: &str = ".staging";
/// An unfinished file that was not touched for so long was left by a crash.
const LEFT_BEHIND: Duration = Duration::from_secs(3_600);
/// How often a file is named whose folder vanishes.
const NAMING_ATTEMPTS_MAX: u32 = 100;

/// Objects as files in a folder; see the module.
#[derive(Debug)]
pub struct LocalObjects {
    files: LocalFileSystem,
    root: Arc<PathBuf>,
    staged: Arc<AtomicU64>,
}

impl LocalObjects {
    /// Opens a folder, makes it where it is missing, and removes what a crash left unfinished.
    pub fn open(folder: &FilePath) -> Result<Self> {
        let doing = "open the object folder";
        let staging = folder.join(STAGING);
        fs::create_dir_all(&staging).or_error(Kind::Unavailable, doing)?;
        let root = folder.canonicalize().or_error(Kind::Unavailable, doing)?;
        for folder in root.ancestors() {
            // Folders above ours may be closed to us; then they were not made by us either.
            if sync_folder(folder).is_err() {
                break;
            }
        }
        remove_left_behind(&root.join(STAGING)).or_error(Kind::Unavailable, doing)?;
        let files = LocalFileSystem::new_with_prefix(&root).or_error(Kind::Unavailable, doing)?;
        let files = files.with_automatic_cleanup(true);
        Ok(Self { files, root: Arc::new(root), staged: Arc::default() })
    }
}

impl fmt::Display for LocalObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalObjects({})", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for LocalObjects {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let replace = match options.mode {
            PutMode::Create => false,
            PutMode::Overwrite => true,
            PutMode::Update(_) => {
                let operation = "an update of a certain version".to_owned();
                return Err(object_store::Error::NotImplemented { operation, implementer: self.to_string() });
            }
        };
        let put = Put {
            root: Arc::clone(&self.root),
            staged: Arc::clone(&self.staged),
            path: self.files.path_to_filesystem(location)?,
            location: location.clone(),
        };
        tokio::task::spawn_blocking(move || put.run(&payload, replace)).await?
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let path = self.files.path_to_filesystem(location)?;
        let upload = self.files.put_multipart_opts(location, options).await?;
        Ok(Box::new(SyncedUpload { upload, root: Arc::clone(&self.root), path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        let mut listed = self.files.list_with_delimiter(prefix).await?;
        listed.common_prefixes.retain(|folder| folder.as_ref() != STAGING);
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        let copied = self.files.copy_opts(from, to, options).await;
        if matches!(copied, Ok(()) | Err(object_store::Error::AlreadyExists { .. })) {
            let (root, path) = (Arc::clone(&self.root), self.files.path_to_filesystem(to)?);
            tokio::task::spawn_blocking(move || sync_object(&root, &path)).await?.map_err(generic)?;
        }
        copied
    }
}

struct Put {
    root: Arc<PathBuf>,
    staged: Arc<AtomicU64>,
    path: PathBuf,
    location: Path,
}

impl Put {
    fn run(&self, payload: &PutPayload, replace: bool) -> object_store::Result<PutResult> {
        let (file, staging) = self.create_staged().map_err(generic)?;
        let named = write(file, payload).and_then(|()| self.name(&staging, replace));
        if named.is_err() || !replace {
            // What cannot be removed now is removed when the folder is opened next.
            fs::remove_file(&staging).unwrap_or_default();
        }
        match named.map_err(generic)? {
            Named::Ours => Ok(PutResult { e_tag: None, version: None }),
            Named::Taken => {
                let (path, source) = (self.location.to_string(), io::Error::from(ErrorKind::AlreadyExists));
                Err(object_store::Error::AlreadyExists { path, source: source.into() })
            }
        }
    }

    /// A new file that no other put uses, in this process or another, and that listings leave out
    /// because its name ends in `#` and digits.
    fn create_staged(&self) -> io::Result<(File, PathBuf)> {
        loop {
            let number = self.staged.fetch_add(1, Ordering::Relaxed);
            let path = self.root.join(STAGING).join(format!("{}-{number}#1", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => return Ok((created?, path)),
            }
        }
    }

    /// Names the staged file, and syncs the name, whoever gave it. A delete may take away the folder
    /// or the object that stood in the way at any moment; then all is tried again.
    fn name(&self, staging: &FilePath, replace: bool) -> io::Result<Named> {
        let mut attempt = 1;
        loop {
            match self.try_name(staging, replace) {
                Err(error) if error.kind() == ErrorKind::NotFound && attempt < NAMING_ATTEMPTS_MAX => {
                    attempt += 1;
                }
                named => return named,
            }
        }
    }

    fn try_name(&self, staging: &FilePath, replace: bool) -> io::Result<Named> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(|error| match error.kind() {
                // Another put made the folder and a delete removed it before it was looked at.
                ErrorKind::AlreadyExists => io::Error::new(ErrorKind::NotFound, error),
                _ => error,
            })?;
        }
        let named =
            if replace { fs::rename(staging, &self.path) } else { fs::hard_link(staging, &self.path) };
        match named {
            Ok(()) => match sync_folders(&self.root, &self.path) {
                // Whoever removed the folder had removed the object: it was put, and is gone.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(Named::Ours),
                synced => synced.map(|()| Named::Ours),
            },
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                sync_object(&self.root, &self.path).map(|()| Named::Taken)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whose object has the name.
enum Named {
    Ours,
    Taken,
}

fn write(mut file: File, payload: &PutPayload) -> io::Result<()> {
    payload.iter().try_for_each(|bytes| file.write_all(bytes))?;
    file.sync_all()
}

/// An upload in parts that is synced when it is complete. Unlike a put it always replaces.
#[derive(Debug)]
struct SyncedUpload {
    upload: Box<dyn MultipartUpload>,
    root: Arc<PathBuf>,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        self.upload.put_part(part)
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let result = self.upload.complete().await?;
        let (root, path) = (Arc::clone(&self.root), self.path.clone());
        tokio::task::spawn_blocking(move || sync_object(&root, &path)).await?.map_err(generic)?;
        Ok(result)
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.upload.abort().await
    }
}

fn sync_object(root: &FilePath, path: &FilePath) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    sync_folders(root, path)
}

/// Syncs every folder from the file's to the root, those that somebody else made just now too.
fn sync_folders(root: &FilePath, path: &FilePath) -> io::Result<()> {
    for folder in path.ancestors().skip(1) {
        sync_folder(folder)?;
        if folder == root {
            break;
        }
    }
    Ok(())
}

fn sync_folder(folder: &FilePath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Ages are told by the clock that sets the files' times: the age of a file made just now is zero.
fn remove_left_behind(staging: &FilePath) -> io::Result<()> {
    let probe = staging.join(format!("{}-now#1", std::process::id()));
    let now = File::create(&probe)?.metadata()?.modified()?;
    for entry in fs::read_dir(staging)? {
        let entry = entry?;
        // Another process may finish its file at this moment.
        let Ok(modified) = entry.metadata().and_then(|file| file.modified()) else { continue };
        let age = now.duration_since(modified).unwrap_or_default();
        if entry.path() == probe || age > LEFT_BEHIND {
            fs::remove_file(entry.path()).unwrap_or_default();
        }
    }
    Ok(())
}

fn generic(error: io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "LocalObjects", source: error.into() }
}
