//! The tree on disk: opening it alone, writing durably, reading with short ranges.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SledOptions;
use super::block::{Block, Header};
use super::key::{self, PartitionKey};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::topic::{Cleanup, TopicConfig};

/// Version 1 was never released.
const FORMAT_VERSION: &[u8] = b"2";
const LOCK_FILE: &str = "lock";
/// sled lets go of its file from a thread of its own, a moment after it was dropped.
const REOPEN_PATIENCE: Duration = Duration::from_secs(10);
const REOPEN_STEP: Duration = Duration::from_millis(5);

/// The database with the files that make it durable and ours alone.
///
/// The fields are dropped in this order: the database before the lock.
pub(super) struct Store {
    db: sled::Db,
    file: File,
    _lock: File,
}

impl Store {
    /// Opens or makes the database. `Conflict` if another process has it open.
    pub(super) fn open(options: &SledOptions) -> Result<Store> {
        let directory = &options.directory;
        std::fs::create_dir_all(directory)
            .or_error(Kind::Unavailable, &format!("create {}", directory.display()))?;
        let lock = lock(directory)?;
        let db = open_db(options)?;
        let file = File::open(directory.join("db")).or_error(Kind::Unavailable, "open sled's file")?;
        let store = Store { db, file, _lock: lock };
        store.check_format(directory)?;
        sync_names(directory).or_error(Kind::Unavailable, "sync the log's directory")?;
        Ok(store)
    }

    fn check_format(&self, directory: &Path) -> Result<()> {
        match self.get(key::FORMAT)? {
            Some(version) if &version[..] == FORMAT_VERSION => Ok(()),
            Some(_) => {
                let message =
                    format!("{} was written by another version of the log's format", directory.display());
                Err(Error::new(Kind::Unavailable, message))
            }
            None => {
                let mut batch = sled::Batch::default();
                batch.insert(key::FORMAT, FORMAT_VERSION);
                self.commit(batch)
            }
        }
    }

    /// Writes all or nothing. Durable when it returns: sled's own flush only hands the pages to the
    /// kernel on Linux, so the file is synced after it.
    pub(super) fn commit(&self, batch: sled::Batch) -> Result<()> {
        self.db.apply_batch(batch).map_err(|error| sled_error(error, "write to the log"))?;
        self.db.flush().map_err(|error| sled_error(error, "flush the log"))?;
        self.file.sync_data().or_error(Kind::Unavailable, "sync the log's file")
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>> {
        self.db.get(key).map_err(|error| sled_error(error, "read from the log"))
    }

    /// The keys and values that begin with `prefix`, in order.
    pub(super) fn scan(
        &self,
        prefix: &[u8],
    ) -> impl Iterator<Item = Result<(sled::IVec, sled::IVec)>> + use<> {
        let entries = self.db.scan_prefix(prefix);
        entries.map(|entry| entry.map_err(|error| sled_error(error, "read from the log")))
    }

    /// The first key after `key`.
    pub(super) fn key_after(&self, key: &[u8]) -> Result<Option<sled::IVec>> {
        let found = self.db.get_gt(key).map_err(|error| sled_error(error, "read from the log"))?;
        Ok(found.map(|(key, _)| key))
    }

    /// The header of the block that begins at `base`.
    pub(super) fn header(&self, at: PartitionKey, base: u64) -> Result<Option<Header>> {
        let Some(piece) = self.get(&key::block(at, base, 0))? else { return Ok(None) };
        let header = Header::decode(at, &piece)?;
        if header.base != base {
            return Err(Error::corrupt("the block stands at another offset than its header says"));
        }
        Ok(Some(header))
    }

    /// The header of the last block that begins at or before `offset`.
    pub(super) fn header_before(&self, at: PartitionKey, offset: u64) -> Result<Option<Header>> {
        let last = self.keys(at, 0..=offset).next_back();
        self.header_of(at, last)
    }

    /// The header of a partition's first block.
    pub(super) fn first_header(&self, at: PartitionKey) -> Result<Option<Header>> {
        let first = self.keys(at, 0..=u64::MAX).next();
        self.header_of(at, first)
    }

    fn keys(
        &self,
        at: PartitionKey,
        bases: RangeInclusive<u64>,
    ) -> impl DoubleEndedIterator<Item = sled::Result<sled::IVec>> + use<> {
        let range = key::block(at, *bases.start(), 0)..=key::block(at, *bases.end(), u16::MAX);
        self.db.range(range).keys()
    }

    fn header_of(&self, at: PartitionKey, key: Option<sled::Result<sled::IVec>>) -> Result<Option<Header>> {
        let Some(key) = key else { return Ok(None) };
        let key = key.map_err(|error| sled_error(error, "read from the log"))?;
        let base = key::block_base(&key).ok_or_else(|| Error::corrupt("a block's key is cut off"))?;
        match self.header(at, base)? {
            Some(header) => Ok(Some(header)),
            None => Err(Error::corrupt(format!("the first piece of the block at offset {base} is missing"))),
        }
    }

    /// The block that begins at `base`.
    pub(super) fn block(&self, at: PartitionKey, base: u64) -> Result<Option<Block>> {
        let range = key::block(at, base, 0)..=key::block(at, base, u16::MAX);
        let pieces: sled::Result<Vec<sled::IVec>> = self.db.range(range).values().collect();
        let pieces = pieces.map_err(|error| sled_error(error, "read from the log"))?;
        if pieces.is_empty() {
            return Ok(None);
        }
        let block = Block::assemble(at, &pieces)?;
        if block.header.base != base {
            return Err(Error::corrupt("the block stands at another offset than its header says"));
        }
        Ok(Some(block))
    }

    /// The next offset that a group wants from each partition of a topic.
    pub(super) fn progress(&self, prefix: &[u8]) -> Result<Vec<(PartitionKey, u64)>> {
        let entries = self.scan(prefix).map(|entry| {
            let (key, value) = entry?;
            progress_entry(&key, &value).ok_or_else(|| Error::corrupt("a group's progress cannot be read"))
        });
        entries.collect()
    }
}

fn progress_entry(key: &[u8], value: &[u8]) -> Option<(PartitionKey, u64)> {
    Some((key::progress_at(key)?, u64::from_be_bytes(value.try_into().ok()?)))
}

fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK_FILE);
    let doing = format!("open {}", path.display());
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.or_error(Kind::Unavailable, &doing)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = format!("the log in {} is in use by another process", directory.display());
            Err(Error::new(Kind::Conflict, message))
        }
        Err(TryLockError::Error(error)) => Err(error).or_error(Kind::Unavailable, "lock the log's directory"),
    }
}

pub(super) fn open_db(options: &SledOptions) -> Result<sled::Db> {
    let config =
        sled::Config::new().path(&options.directory).cache_capacity(options.cache_bytes).flush_every_ms(None);
    let mut waited = Duration::ZERO;
    loop {
        match config.open() {
            Ok(db) => return Ok(db),
            Err(sled::Error::Io(error)) if is_lock_held(&error) && waited < REOPEN_PATIENCE => {
                std::thread::sleep(REOPEN_STEP);
                waited += REOPEN_STEP;
            }
            Err(error) => return Err(sled_error(error, "open the log")),
        }
    }
}

fn is_lock_held(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().contains("could not acquire lock")
}

/// Makes the files' names durable, and sled's configuration, which it never syncs itself.
fn sync_names(directory: &Path) -> io::Result<()> {
    File::open(directory.join("conf"))?.sync_all()?;
    File::open(directory)?.sync_all()?;
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

fn sled_error(error: sled::Error, doing: &str) -> Error {
    let kind = match &error {
        sled::Error::Corruption { .. } | sled::Error::CollectionNotFound(_) => Kind::Corrupt,
        sled::Error::Io(_) => Kind::Unavailable,
        _ => Kind::Internal,
    };
    Error::new(kind, doing).with_source(error)
}

/// A topic's description as it is stored.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredTopic {
    pub(super) id: u32,
    partitions: u32,
    cleanup: StoredCleanup,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredCleanup {
    Trim { age_ms_max: Option<u64>, bytes_max: Option<u64> },
    Compact,
    Keep,
}

impl StoredTopic {
    pub(super) fn new(id: u32, config: &TopicConfig) -> Self {
        let cleanup = match config.cleanup {
            Cleanup::Trim { age_max, bytes_max } => StoredCleanup::Trim {
                age_ms_max: age_max.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
                bytes_max,
            },
            Cleanup::Compact => StoredCleanup::Compact,
            Cleanup::Keep => StoredCleanup::Keep,
        };
        Self { id, partitions: config.partitions, cleanup }
    }

    pub(super) fn config(&self) -> TopicConfig {
        let cleanup = match self.cleanup {
            StoredCleanup::Trim { age_ms_max, bytes_max } => {
                Cleanup::Trim { age_max: age_ms_max.map(Duration::from_millis), bytes_max }
            }
            StoredCleanup::Compact => Cleanup::Compact,
            StoredCleanup::Keep => Cleanup::Keep,
        };
        TopicConfig { partitions: self.partitions, cleanup }
    }
}
