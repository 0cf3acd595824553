//! The tables on disk: a tree of the store for each, with the rows, what ends when, and how far the log is in it.
//!
//! Keys of a tree: [`LANE`] and a partition; [`ROW`] and a key; [`PIECE`], a key's length, the key and a number;
//! [`END`], a time and a key. Everything is written by one worker, in batches that hold the progress with the rows,
//! and can be made anew from the log: damage is answered by beginning anew.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{Error, Kind, Offset, Result, ResultExt as _, Timestamp};
use bytes::Bytes;
use tokio::sync::watch;
use tracing::warn;

use super::read::Through;
use super::row::{Head, Row};

const FORMAT: (&[u8], &[u8]) = (b"format", b"2");
const LANE: u8 = 0;
const ROW: u8 = 1;
const END: u8 = 2;
const PIECE: u8 = 3;
/// How many rows are written, or taken away, at once: readers wait meanwhile.
const BATCH_ROWS_MAX: usize = 256;
/// How often what was written is handed to the disk, in milliseconds. What is lost is read from the log again.
const FLUSH_MILLIS: u64 = 1_000;
/// How often a row that is written again while it is read is looked for.
const READS_MAX: usize = 100;
/// Into how many spans a row's life is cut: it is noted down once a span at most when it ends.
const SPANS: i64 = 64;
/// How long another database of this process may take to let go of its files.
const REOPEN_PATIENCE: Duration = Duration::from_secs(10);
const REOPEN_STEP: Duration = Duration::from_millis(5);

/// How far the log is in a table, of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lane {
    /// The processed offset that is read next.
    pub(super) next: Offset,
    /// The raw offset after that of the last record.
    pub(super) origin: Offset,
    /// The latest arrival so far.
    pub(super) clock: i64,
}

/// All tables of this process. Nothing is opened before there is one.
pub(super) struct Store {
    directory: PathBuf,
    cache_bytes: u64,
    opened: Mutex<Opened>,
}

#[derive(Default)]
struct Opened {
    db: Option<sled::Db>,
    trees: HashMap<String, Arc<Tree>>,
}

impl Store {
    pub(super) fn new(directory: PathBuf, cache_bytes: u64) -> Self {
        Self { directory, cache_bytes, opened: Mutex::default() }
    }

    /// The tree of that name, which is made where it is missing. Blocks.
    pub(super) fn tree(&self, id: &str, ttl: Option<Duration>) -> Result<Arc<Tree>> {
        let mut opened = self.opened();
        if let Some(tree) = opened.trees.get(id) {
            return Ok(Arc::clone(tree));
        }
        let db = self.db(&mut opened)?;
        let tree = db.open_tree(id).map_err(|error| failed(error, "open a table"))?;
        let tree = Arc::new(Tree::open(tree, ttl)?);
        opened.trees.insert(id.to_owned(), Arc::clone(&tree));
        Ok(tree)
    }

    /// The same, if it is open already.
    pub(super) fn opened_tree(&self, id: &str) -> Option<Arc<Tree>> {
        self.opened().trees.get(id).cloned()
    }

    /// Removes every tree that is not named. Blocks.
    pub(super) fn keep(&self, ids: impl Fn(&str) -> bool) -> Result<()> {
        let mut opened = self.opened();
        if opened.db.is_none() && !self.directory.exists() {
            return Ok(());
        }
        let db = self.db(&mut opened)?;
        for name in db.tree_names() {
            let is_default = name == b"__sled__default";
            let id = String::from_utf8_lossy(&name);
            if !is_default && !ids(&id) {
                opened.trees.remove(&*id);
                db.drop_tree(&name).map_err(|error| failed(error, "remove a table"))?;
            }
        }
        Ok(())
    }

    /// Hands everything to the disk. Blocks.
    pub(super) fn flush(&self) -> Result<()> {
        let db = self.opened().db.clone();
        db.map_or(Ok(()), |db| db.flush().map(drop).map_err(|error| failed(error, "flush the tables")))
    }

    fn db(&self, opened: &mut Opened) -> Result<sled::Db> {
        if let Some(db) = &opened.db {
            return Ok(db.clone());
        }
        let db = match self.open() {
            Err(error) if error.kind() == Kind::Corrupt => {
                warn!(%error, "the tables are damaged and are made anew from the log");
                let removed = std::fs::remove_dir_all(&self.directory);
                removed.or_error(Kind::Unavailable, "remove damaged tables")?;
                self.open()?
            }
            opened => opened?,
        };
        Ok(opened.db.insert(db).clone())
    }

    fn open(&self) -> Result<sled::Db> {
        let made = std::fs::create_dir_all(&self.directory);
        made.or_error(Kind::Unavailable, &format!("create {}", self.directory.display()))?;
        let config = sled::Config::new()
            .path(&self.directory)
            .cache_capacity(self.cache_bytes)
            .flush_every_ms(Some(FLUSH_MILLIS));
        let mut waited = Duration::ZERO;
        let db = loop {
            match config.open() {
                Ok(db) => break db,
                // It is let go of by a thread, a moment after it was closed.
                Err(sled::Error::Io(error))
                    if error.to_string().contains("could not acquire lock") && waited < REOPEN_PATIENCE =>
                {
                    std::thread::sleep(REOPEN_STEP);
                    waited += REOPEN_STEP;
                }
                Err(error) => return Err(failed(error, "open the tables")),
            }
        };
        match db.get(FORMAT.0).map_err(|error| failed(error, "open the tables"))? {
            Some(version) if version == FORMAT.1 => {}
            None if db.tree_names().len() == 1 => {
                db.insert(FORMAT.0, FORMAT.1).map_err(|error| failed(error, "open the tables"))?;
            }
            _ => return Err(Error::corrupt("the tables were written in another format")),
        }
        Ok(db)
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One table.
pub(super) struct Tree {
    tree: sled::Tree,
    lanes: Mutex<BTreeMap<u32, Lane>>,
    /// How long a span of a row's life is, in microseconds; none where rows live for ever.
    span: Option<i64>,
    changed: watch::Sender<()>,
}

/// Some rows in the order of their keys.
pub(crate) struct Listed {
    pub(crate) rows: Vec<(Vec<u8>, Row)>,
    /// The key after which to go on, where there may be more.
    pub(crate) after: Option<Vec<u8>>,
}

impl Tree {
    fn open(tree: sled::Tree, ttl: Option<Duration>) -> Result<Self> {
        let mut lanes = BTreeMap::new();
        for entry in tree.scan_prefix([LANE]) {
            let (key, value) = entry.map_err(|error| failed(error, "read a table"))?;
            let (partition, lane) =
                lane(&key, &value).ok_or_else(|| Error::corrupt("a table's progress cannot be read"))?;
            lanes.insert(partition, lane);
        }
        let span = ttl.map(|ttl| i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX) / SPANS);
        let span = span.map(|span| span.max(1_000_000));
        Ok(Self { tree, lanes: Mutex::new(lanes), span, changed: watch::Sender::new(()) })
    }

    /// How far the log is in it, by partition; those that were never begun are left out.
    pub(super) fn lanes(&self) -> BTreeMap<u32, Lane> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the log is as far in it as that.
    pub(super) fn is_at(&self, lanes: &BTreeMap<u32, Lane>) -> bool {
        *self.lanes.lock().unwrap_or_else(PoisonError::into_inner) == *lanes
    }

    /// Whether its rows end.
    pub(super) fn has_ends(&self) -> bool {
        self.span.is_some()
    }

    pub(super) fn lane(&self, partition: u32) -> Lane {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.get(&partition).copied().unwrap_or_default()
    }

    /// The raw offset after that of the last record, of each partition.
    pub(super) fn origins(&self, partitions: u32) -> Vec<Through> {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = |partition: u32| lanes.get(&partition).map_or(0, |lane| lane.origin.0);
        (0..partitions).map(|partition| Through { partition, offset: origin(partition) }).collect()
    }

    /// Tells of every write.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The row of a key, if it is there. May block for a read from the disk.
    pub(super) fn get(&self, key: &[u8], now: Timestamp) -> Result<Option<Row>> {
        Ok(self.find(key)?.filter(|row| row.lives(now)))
    }

    /// What is kept of a key, also if it ended or was taken away.
    fn find(&self, key: &[u8]) -> Result<Option<Row>> {
        for _ in 0..READS_MAX {
            let found = self.tree.get(row_key(key)).map_err(|error| failed(error, "read a table"))?;
            let Some(found) = found else { return Ok(None) };
            if let Some(row) = self.whole(key, &found)? {
                return Ok(Some(row));
            }
        }
        Err(Error::unavailable("the row changes too often to be read"))
    }

    /// A row with all its values; none if it was written again meanwhile.
    fn whole(&self, key: &[u8], found: &sled::IVec) -> Result<Option<Row>> {
        let Head { mut row, pieces, first } = Head::decode(found)?;
        if row.value.is_none() || pieces == 0 {
            row.value = row.value.map(|_| Bytes::copy_from_slice(first));
            return Ok(Some(row));
        }
        let mut value = first.to_vec();
        for number in 0..pieces {
            let piece =
                self.tree.get(piece_key(key, number)).map_err(|error| failed(error, "read a table"))?;
            let Some(piece) = piece else { return Ok(None) };
            match piece.strip_prefix(&row.mark()) {
                Some(piece) => value.extend_from_slice(piece),
                None => return Ok(None),
            }
        }
        row.value = Some(value.into());
        Ok(Some(row))
    }

    /// Up to `limit` rows whose keys begin with `prefix`, those after `after`. No more than `looked_max` are looked at
    /// and about `bytes_max` taken. Blocks.
    pub(super) fn list(
        &self,
        (prefix, after): (&[u8], Option<&[u8]>),
        now: Timestamp,
        (limit, looked_max, bytes_max): (usize, usize, usize),
    ) -> Result<Listed> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(row_key(after)),
            _ => Bound::Included(row_key(prefix)),
        };
        let (mut rows, mut looked, mut bytes) = (Vec::new(), 0, 0);
        for entry in self.tree.range::<Vec<u8>, _>((start, Bound::Unbounded)) {
            let (key, found) = entry.map_err(|error| failed(error, "read a table"))?;
            let Some(key) = key.strip_prefix(&[ROW]).filter(|key| key.starts_with(prefix)) else { break };
            looked += 1;
            let row = match self.whole(key, &found)? {
                Some(row) => Some(row).filter(|row| row.lives(now)),
                None => self.get(key, now)?,
            };
            if let Some(row) = row {
                bytes += row.value.as_ref().map_or(0, Bytes::len);
                rows.push((key.to_vec(), row));
            }
            if rows.len() >= limit || looked >= looked_max || bytes >= bytes_max {
                return Ok(Listed { rows, after: Some(key.to_vec()) });
            }
        }
        Ok(Listed { rows, after: None })
    }

    /// Up to `limit` rows, about `bytes_max`, in the order of their keys, those after `after`, also those that ended or
    /// were taken away. Blocks.
    pub(super) fn rows_after(
        &self,
        after: Option<&[u8]>,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Vec<u8>, Row)>> {
        let start = after.map_or(Bound::Included(vec![ROW]), |after| Bound::Excluded(row_key(after)));
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for entry in self.tree.range::<Vec<u8>, _>((start, Bound::Unbounded)) {
            let (key, found) = entry.map_err(|error| failed(error, "read a table"))?;
            let Some(key) = key.strip_prefix(&[ROW]) else { break };
            let row = match self.whole(key, &found)? {
                Some(row) => Some(row),
                None => self.find(key)?,
            };
            bytes += key.len() + row.as_ref().and_then(|row| row.value.as_ref()).map_or(0, Bytes::len);
            rows.extend(row.map(|row| (key.to_vec(), row)));
            if rows.len() >= limit || bytes >= bytes_max {
                break;
            }
        }
        Ok(rows)
    }

    /// Writes rows that are later than those that are there, and how far the log is in the table with the last of
    /// them. Blocks.
    pub(super) fn apply(&self, rows: &HashMap<Bytes, Row>, lanes: &BTreeMap<u32, Lane>) -> Result<()> {
        let mut batch = sled::Batch::default();
        // Neighbours lie on one page.
        let mut rows: Vec<(&Bytes, &Row)> = rows.iter().collect();
        rows.sort_unstable_by_key(|(key, _)| *key);
        for (index, (key, row)) in rows.into_iter().enumerate() {
            if index > 0 && index % BATCH_ROWS_MAX == 0 {
                self.write(std::mem::take(&mut batch))?;
            }
            self.put(&mut batch, key, row)?;
        }
        for (partition, lane) in lanes {
            let mut value = lane.next.0.to_be_bytes().to_vec();
            value.extend(lane.origin.0.to_be_bytes());
            value.extend(lane.clock.to_be_bytes());
            batch.insert(lane_key(*partition), value);
        }
        self.write(batch)?;
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).extend(lanes);
        self.changed.send_replace(());
        Ok(())
    }

    fn put(&self, batch: &mut sled::Batch, key: &[u8], row: &Row) -> Result<()> {
        let at = row_key(key);
        let before = self.tree.get(&at).map_err(|error| failed(error, "read a table"))?;
        let before = before.as_deref().map(Head::decode).transpose()?;
        if before.as_ref().is_some_and(|before| before.row.stamp >= row.stamp) {
            return Ok(());
        }
        let (first, pieces) = row.encode();
        let had = before.as_ref().map_or(0, |before| before.pieces);
        let has = u16::try_from(pieces.len()).unwrap_or(u16::MAX);
        for (number, piece) in (0..).zip(pieces) {
            batch.insert(piece_key(key, number), [&row.mark(), piece].concat());
        }
        (has..had).for_each(|number| batch.remove(piece_key(key, number)));
        batch.insert(at, first);
        let noted = before.and_then(|before| self.end_key(key, &before.row));
        if let Some(end) = self.end_key(key, row).filter(|end| noted.as_ref() != Some(end)) {
            batch.insert(end, &[]);
        }
        Ok(())
    }

    /// Everything that is kept, rows and what belongs to them.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.tree.len()
    }

    fn write(&self, batch: sled::Batch) -> Result<()> {
        self.tree.apply_batch(batch).map_err(|error| failed(error, "write to a table"))
    }

    /// Where it is noted down that a row ends: at the end of a span, so that a row that is written often is noted
    /// down seldom.
    fn end_key(&self, key: &[u8], row: &Row) -> Option<Vec<u8>> {
        let (span, expires) = (self.span?, row.expires?);
        let end = expires.micros().max(0).div_euclid(span).saturating_add(1).saturating_mul(span);
        let mut at = vec![END];
        at.extend(end.to_be_bytes());
        at.extend_from_slice(key);
        Some(at)
    }

    /// Takes away rows that have ended, some of them. Answers whether there may be more. Blocks.
    pub(super) fn sweep(&self, now: Timestamp) -> Result<bool> {
        if self.span.is_none() {
            return Ok(false);
        }
        let (from, mut to) = (vec![END], vec![END]);
        to.extend(now.micros().max(0).to_be_bytes());
        let (mut batch, mut looked) = (sled::Batch::default(), 0);
        for entry in self.tree.range(from..to).take(BATCH_ROWS_MAX) {
            let (end, _) = entry.map_err(|error| failed(error, "read a table"))?;
            looked += 1;
            let key = end.get(9..).unwrap_or_default();
            let found = self.tree.get(row_key(key)).map_err(|error| failed(error, "read a table"))?;
            if let Some(found) = found {
                let Head { row, pieces, .. } = Head::decode(&found)?;
                if row.expires.is_some_and(|expires| expires <= now) {
                    batch.remove(row_key(key));
                    (0..pieces).for_each(|number| batch.remove(piece_key(key, number)));
                }
            }
            batch.remove(end);
        }
        if looked > 0 {
            self.write(batch)?;
        }
        Ok(looked == BATCH_ROWS_MAX)
    }
}

fn row_key(key: &[u8]) -> Vec<u8> {
    let mut at = Vec::with_capacity(1 + key.len());
    at.push(ROW);
    at.extend_from_slice(key);
    at
}

fn piece_key(key: &[u8], number: u16) -> Vec<u8> {
    let mut at = vec![PIECE];
    at.extend(u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
    at.extend_from_slice(key);
    at.extend(number.to_be_bytes());
    at
}

fn lane_key(partition: u32) -> Vec<u8> {
    let mut at = vec![LANE];
    at.extend(partition.to_be_bytes());
    at
}

fn lane(key: &[u8], value: &[u8]) -> Option<(u32, Lane)> {
    let partition = u32::from_be_bytes(key.get(1..)?.try_into().ok()?);
    let word = |at: usize| Some(u64::from_be_bytes(value.get(at..at + 8)?.try_into().ok()?));
    let lane = Lane { next: Offset(word(0)?), origin: Offset(word(8)?), clock: word(16)?.cast_signed() };
    Some((partition, lane))
}

fn failed(error: sled::Error, doing: &str) -> Error {
    let kind = match &error {
        sled::Error::Corruption { .. } | sled::Error::CollectionNotFound(_) => Kind::Corrupt,
        sled::Error::Io(_) => Kind::Unavailable,
        _ => Kind::Internal,
    };
    Error::new(kind, doing).with_source(error)
}
