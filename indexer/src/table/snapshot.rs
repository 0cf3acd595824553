//! Snapshots of tables in object storage: what a table is made from that is made anew, before the log that came
//! after. They are compact: each key is there once, and not at all once its row has ended.
//!
//! A snapshot holds rows as they were while it was written, and says how far the log was in the table before. Rows that
//! are later than that come once more from the log, and change nothing. Its parts are objects, and it is there once
//! the object is there that lists them. Names are new each time, so that several processes may write snapshots of one
//! table.
//!
//! ```text
//!   tables/CONFIDENTIALITY/DATASET/VERSION.LIFE.TABLE.DEFINITION/
//!     BEGUN-RANDOM/PART   { length u32, zstd( rows ) }…
//!     BEGUN-RANDOM.list   CRC-32 as hexadecimal digits, JSON
//!   rows: { key length u32, key, row length u32, row }…
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use broker::catalog::Stream;
use broker::{Error, Kind, Offset, Result, ResultExt as _, Timestamp};
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tracing::{info, warn};
use uuid::Uuid;

use super::row::Row;
use super::store::{Lane, Tree};
use crate::index::blocking;
use crate::store;

const FOLDER: &str = "tables";
/// The end of the name of the object that lists a snapshot's parts.
const LIST: &str = ".list";
const LEVEL: i32 = 3;
/// A part ends once it has so many bytes.
const PART_BYTES: usize = 8 << 20;
/// Rows are compressed together until they are so many, or have so many bytes.
const FRAME_ROWS: usize = 1_000;
const FRAME_BYTES: usize = 1 << 20;
/// More than is compressed together: one large row more than that.
const RAW_BYTES_MAX: usize = 4 << 20;
/// How many snapshots of a table are kept: the latest, and one more for who reads it at this moment.
const KEPT: usize = 2;
/// How old something is that belongs to no table, or to no snapshot, before it is removed: another process may know
/// more tables, and may be writing.
const STRAY_AGE: Duration = Duration::from_secs(3_600);
/// How many digits a checksum has.
const SUM_DIGITS: usize = 8;

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contents {
    /// When it was begun, in microseconds.
    pub(super) begun: i64,
    pub(super) rows: u64,
    /// By partition: next, origin and clock.
    lanes: BTreeMap<u32, (u64, u64, i64)>,
    /// The CRC-32 of each part.
    parts: Vec<u32>,
}

impl Contents {
    /// How far the log is in it.
    pub(super) fn lanes(&self) -> BTreeMap<u32, Lane> {
        let lane = |(next, origin, clock)| Lane { next: Offset(next), origin: Offset(origin), clock };
        self.lanes.iter().map(|(partition, parts)| (*partition, lane(*parts))).collect()
    }

    /// How many records are in it, about.
    pub(super) fn records(&self) -> u64 {
        self.lanes.values().map(|(next, ..)| next).sum()
    }

    fn to_text(&self) -> Result<String> {
        let json = serde_json::to_string(self).or_error(Kind::Internal, "write a snapshot")?;
        Ok(format!("{:0SUM_DIGITS$x} {json}", crc32fast::hash(json.as_bytes())))
    }

    /// None if this was not made by [`Contents::to_text`].
    fn from_text(text: &[u8]) -> Option<Self> {
        let (sum, json) = text.split_at_checked(SUM_DIGITS)?;
        let json = json.strip_prefix(b" ")?;
        let is_whole = sum == format!("{:0SUM_DIGITS$x}", crc32fast::hash(json)).as_bytes();
        serde_json::from_slice(json).ok().filter(|_| is_whole)
    }
}

/// Where snapshots are.
#[derive(Clone)]
pub(super) struct Snapshots {
    objects: Arc<dyn ObjectStore>,
}

impl Snapshots {
    pub(super) fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects }
    }

    /// Those of a table, the latest first.
    async fn list(&self, of: &str) -> Result<Vec<Path>> {
        let listed = self.objects.list_with_delimiter(Some(&folder(of))).await;
        let listed = listed.or_error(Kind::Unavailable, "list snapshots of a table")?;
        let mut found: Vec<Path> = listed.objects.into_iter().map(|object| object.location).collect();
        found.retain(|location| location.as_ref().ends_with(LIST));
        found.sort_by(|a, b| b.cmp(a));
        Ok(found)
    }

    /// What the latest says of itself; none where there is none that can be read.
    pub(super) async fn latest(&self, of: &str) -> Result<Option<Contents>> {
        for location in self.list(of).await? {
            if let Some(contents) = readable(&location, self.contents(&location).await)? {
                return Ok(Some(contents));
            }
        }
        Ok(None)
    }

    async fn contents(&self, location: &Path) -> Result<Contents> {
        let text = self.get(location).await?;
        Contents::from_text(&text)
            .ok_or_else(|| Error::corrupt("what a snapshot says of itself cannot be read"))
    }

    async fn get(&self, location: &Path) -> Result<Bytes> {
        let failed = |error| store::error("read", location, error);
        self.objects.get(location).await.map_err(failed)?.bytes().await.map_err(failed)
    }

    async fn put(&self, location: &Path, bytes: Bytes) -> Result<()> {
        let put = self.objects.put(location, bytes.into()).await;
        put.map(drop).map_err(|error| store::error("put", location, error))
    }

    /// Writes all rows of a table that have not ended, and removes older snapshots of it.
    pub(super) async fn write(&self, of: &str, tree: Arc<Tree>, now: Timestamp) -> Result<Contents> {
        let name = format!("{:017}-{}", now.micros(), Uuid::new_v4().simple());
        // What is read after this may be later, and then comes once more.
        let lanes = tree.lanes();
        let lanes =
            lanes.iter().map(|(partition, lane)| (*partition, (lane.next.0, lane.origin.0, lane.clock)));
        let mut contents =
            Contents { begun: now.micros(), rows: 0, lanes: lanes.collect(), parts: Vec::new() };
        let (sender, made) = mpsc::channel(1);
        let writing = blocking(move || write_rows(&tree, now, Parts { sender, held: Vec::new() }));
        let putting = async {
            // Gone with it, so that nobody waits to be read from when this has failed.
            let (mut made, mut parts) = (made, Vec::new());
            while let Some(part) = made.recv().await {
                let part: Bytes = part;
                let sum = crc32fast::hash(&part);
                self.put(&part_location(of, &name, parts.len()), part).await?;
                parts.push(sum);
            }
            Ok::<_, Error>(parts)
        };
        let (written, put) = tokio::join!(writing, putting);
        (contents.parts, contents.rows) = (put?, written?);
        let location = folder(of).join(format!("{name}{LIST}"));
        self.put(&location, contents.to_text()?.into()).await?;
        info!(%location, rows = contents.rows, parts = contents.parts.len(), "wrote a snapshot of a table");
        for old in self.list(of).await?.into_iter().skip(KEPT) {
            self.remove_snapshot(&old).await?;
        }
        Ok(contents)
    }

    /// Puts the rows of the latest snapshot that is whole into a table, and how far the log is in it. Answers whether
    /// there is one.
    pub(super) async fn load(&self, of: &str, tree: &Arc<Tree>) -> Result<bool> {
        for location in self.list(of).await? {
            let Some(contents) = readable(&location, self.contents(&location).await)? else { continue };
            let loaded = self.load_rows((of, &location), &contents, tree).await;
            if readable(&location, loaded)?.is_some() {
                info!(%location, rows = contents.rows, "made a table from its snapshot");
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn load_rows(
        &self,
        (of, location): (&str, &Path),
        contents: &Contents,
        tree: &Arc<Tree>,
    ) -> Result<()> {
        let (name, mut rows) = (name_of(location).unwrap_or_default(), 0);
        for (index, sum) in contents.parts.iter().enumerate() {
            let part = self.get(&part_location(of, name, index)).await?;
            let (tree, sum) = (Arc::clone(tree), *sum);
            rows += blocking(move || {
                let is_whole = crc32fast::hash(&part) == sum;
                if is_whole { read_rows(&part, &tree) } else { Err(damaged()) }
            })
            .await?;
        }
        if rows != contents.rows {
            return Err(damaged());
        }
        let (tree, lanes) = (Arc::clone(tree), contents.lanes());
        blocking(move || {
            let is_further = |partition: &u32, lane: &Lane| tree.lane(*partition).next < lane.next;
            let further = lanes.into_iter().filter(|(partition, lane)| is_further(partition, lane));
            tree.apply(&HashMap::new(), &further.collect())
        })
        .await
    }

    /// Removes what is left of tables that there are no more, and of snapshots that were never finished, some time
    /// after it was written.
    pub(super) async fn clear(&self, wanted: &BTreeSet<String>, now: Timestamp) -> Result<()> {
        let all = self.objects.list(Some(&Path::from(FOLDER))).try_collect::<Vec<_>>().await;
        let all = all.or_error(Kind::Unavailable, "list snapshots of tables")?;
        let whole: BTreeSet<String> = all
            .iter()
            .filter_map(|object| object.location.as_ref().strip_suffix(LIST))
            .map(str::to_owned)
            .collect();
        let is_stray = |object: &ObjectMeta| {
            let location = object.location.as_ref();
            let of = location.strip_suffix(LIST).or(location.rsplit_once('/').map(|(of, _)| of));
            let owner = of.and_then(owner_of);
            !owner.is_some_and(|owner| wanted.contains(owner)) || !of.is_some_and(|of| whole.contains(of))
        };
        for object in all.iter().filter(|object| is_stray(object)) {
            let written = Timestamp::from_utc(object.last_modified).unwrap_or_default();
            if now.since(written) > STRAY_AGE {
                self.remove(&object.location).await?;
            }
        }
        Ok(())
    }

    /// Removes a snapshot, what lists its parts first.
    async fn remove_snapshot(&self, location: &Path) -> Result<()> {
        let parts = location.as_ref().strip_suffix(LIST).map(Path::from);
        let parts = self.objects.list(parts.as_ref()).try_collect::<Vec<_>>().await;
        self.remove(location).await?;
        for part in parts.or_error(Kind::Unavailable, "list the parts of a snapshot")? {
            self.remove(&part.location).await?;
        }
        Ok(())
    }

    async fn remove(&self, location: &Path) -> Result<()> {
        match self.objects.delete(location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(store::error("remove", location, error)),
        }
    }
}

/// What was read of a snapshot; none, said in the log, if it is damaged or was removed meanwhile.
fn readable<T>(location: &Path, read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if [Kind::Corrupt, Kind::NotFound].contains(&error.kind()) => {
            warn!(%location, %error, "a snapshot of a table is passed over");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whose snapshots they are: a table's id, behind how confidential its stream is.
pub(super) fn name(stream: &Stream, id: &str) -> String {
    format!("{}/{id}", stream.definition.confidentiality.name())
}

fn folder(of: &str) -> Path {
    Path::from(format!("{FOLDER}/{of}"))
}

fn part_location(of: &str, name: &str, index: usize) -> Path {
    folder(of).join(name).join(format!("{index:06}"))
}

/// The name of the snapshot whose parts are listed there.
fn name_of(location: &Path) -> Option<&str> {
    location.filename()?.strip_suffix(LIST)
}

/// Whose a snapshot is: what of its path stands between [`FOLDER`] and its name.
fn owner_of(snapshot: &str) -> Option<&str> {
    snapshot.strip_prefix(FOLDER)?.strip_prefix('/')?.rsplit_once('/').map(|(owner, _)| owner)
}

/// Gathers parts.
struct Parts {
    sender: mpsc::Sender<Bytes>,
    held: Vec<u8>,
}

impl Parts {
    fn send(&mut self) -> Result<()> {
        let part = std::mem::take(&mut self.held);
        self.sender.blocking_send(part.into()).or_error(Kind::Unavailable, "write a snapshot")
    }
}

/// Hands all rows that have not ended on, and answers how many.
fn write_rows(tree: &Tree, now: Timestamp, mut parts: Parts) -> Result<u64> {
    let failed = |error: std::io::Error| Error::internal("compress a snapshot").with_source(error);
    let mut compressor = zstd::bulk::Compressor::new(LEVEL).map_err(failed)?;
    let (mut rows, mut after, mut frame) = (0, None, Vec::new());
    loop {
        let next = tree.rows_after(after.as_deref(), FRAME_ROWS, FRAME_BYTES)?;
        let Some((last, _)) = next.last() else { break };
        after = Some(last.clone());
        for (key, row) in next.iter().filter(|(_, row)| row.expires.is_none_or(|expires| expires > now)) {
            put_piece(&mut frame, key)?;
            put_piece(&mut frame, &row.to_bytes())?;
            rows += 1;
        }
        if !frame.is_empty() {
            put_piece(&mut parts.held, &compressor.compress(&frame).map_err(failed)?)?;
            frame.clear();
        }
        if parts.held.len() >= PART_BYTES {
            parts.send()?;
        }
    }
    if !parts.held.is_empty() {
        parts.send()?;
    }
    Ok(rows)
}

/// Bytes behind their length.
fn put_piece(out: &mut Vec<u8>, piece: &[u8]) -> Result<()> {
    let length = u32::try_from(piece.len()).or_error(Kind::Internal, "write a snapshot")?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(piece);
    Ok(())
}

fn take_piece<'b>(rest: &mut &'b [u8]) -> Result<&'b [u8]> {
    let taken = rest
        .split_first_chunk()
        .and_then(|(length, behind)| behind.split_at_checked(u32::from_be_bytes(*length) as usize));
    let (piece, behind) = taken.ok_or_else(damaged)?;
    *rest = behind;
    Ok(piece)
}

/// Puts the rows of a part into a table, those that are later than what is there, and answers how many it has.
fn read_rows(mut part: &[u8], tree: &Tree) -> Result<u64> {
    let mut count = 0;
    while !part.is_empty() {
        let frame = zstd::bulk::decompress(take_piece(&mut part)?, RAW_BYTES_MAX).map_err(|_| damaged())?;
        let (mut rest, mut rows) = (&frame[..], HashMap::new());
        while !rest.is_empty() {
            let (key, row) = (take_piece(&mut rest)?, take_piece(&mut rest)?);
            rows.insert(Bytes::copy_from_slice(key), Row::from_bytes(row)?);
            count += 1;
        }
        tree.apply(&rows, &BTreeMap::new())?;
    }
    Ok(count)
}

fn damaged() -> Error {
    Error::corrupt("a snapshot cannot be read")
}
