//! The log: named topics of partitions, each an ordered, durable sequence of records.
//!
//! ```text
//!   0 … start ………… committed ………… end
//!       └ trimmed before this       └ the first offset that is not written yet
//! ```
//! Two providers keep the same promises: sled ([`sled`]) for one process and no other service, and
//! Kafka ([`kafka`]) for many. One suite (`conformance`, feature `testing`) defines those promises.

#[cfg(feature = "testing")]
pub mod conformance;
#[cfg(feature = "testing")]
pub mod faulty;
pub mod kafka;
mod parcel;
pub mod sled;

use std::borrow::Cow;
use std::ops::Range;

use async_trait::async_trait;

pub use self::parcel::{Parcel, Run};
use crate::batch::Batch;
use crate::checkpoint::{Checkpoint, Place};
use crate::error::Result;
use crate::record::Record;
use crate::time::Timestamp;
use crate::topic::{Offset, Stage, Topic, TopicConfig};

/// A log provider.
///
/// Every call may be repeated after an error. Dropping the future of `append` or `commit` leaves it
/// open whether the records were written; nothing else has an effect when it is dropped.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Makes a topic, or takes over `config` where it exists. Idempotent. `Conflict` if it exists
    /// with another number of partitions.
    async fn create(&self, topic: &Topic, config: &TopicConfig) -> Result<()>;

    /// Removes a topic with its records and everybody's progress in it. Idempotent. A topic that
    /// is made again under the same name starts at offset 0 with nobody's progress.
    async fn delete(&self, topic: &Topic) -> Result<()>;

    /// The topic's number of partitions. `NotFound` if it does not exist.
    async fn partitions(&self, topic: &Topic) -> Result<u32>;

    /// Appends each batch to its partition and returns when all of them are durable. The batches
    /// are queued, in order, before this first waits. On an error some of them may have been
    /// written, except on sled, where it is all or none.
    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>>;

    /// Reads up to about `bytes_max` bytes of records, at least one if there is one. A position
    /// before the start reads from the start; one at or past the end reads nothing. What is
    /// damaged is `Corrupt`, naming the position.
    async fn read(&self, from: &Position, bytes_max: usize) -> Result<Chunk>;

    /// The offsets between which a partition can be read: start and end.
    async fn bounds(&self, place: &Place) -> Result<Range<Offset>>;

    /// The first offset whose record arrived at or after `time`, or the end.
    async fn offset_at(&self, place: &Place, time: Timestamp) -> Result<Offset>;

    /// Returns once a partition's end lies past `end`; without polling the log. Cancel-safe.
    async fn wait_past(&self, place: &Place, end: Offset) -> Result<()>;

    /// Joins a group. The reader gets a balanced share of the selected partitions, those of topics
    /// made later too. On sled a group has one reader: the newest, who fences the one before it.
    async fn subscribe(&self, selection: Selection, group: &Group) -> Result<Box<dyn Reader>>;

    /// The progress that a group has committed in a topic; partitions never begun are left out. Who
    /// sees progress here finds what was appended with it.
    async fn committed(&self, group: &Group, topic: &Topic) -> Result<Checkpoint>;

    /// Finishes what is queued, makes it durable and lets go of every resource. Later calls are
    /// `Unavailable`.
    async fn close(&self) -> Result<()>;
}

/// One member of a group, reading its share of the partitions in order.
#[async_trait]
pub trait Reader: Send {
    /// What the group has committed in this reader's share.
    fn committed(&self) -> &Checkpoint;

    /// Whether a partition is in this reader's share.
    fn holds(&self, place: &Place) -> bool;

    /// Sets where the named partitions are read from next; others stay. Partitions start where the
    /// group has committed, or at the start of the log.
    async fn seek(&mut self, to: &Checkpoint) -> Result<()>;

    /// Waits for records and returns about `bytes_max` bytes of them at most, each partition's in
    /// order. A chunk without entries moves past offsets that hold no record. Cancel-safe: a
    /// dropped call loses nothing. `Fenced` once the share has changed hands.
    async fn next(&mut self, bytes_max: usize) -> Result<Vec<Chunk>>;

    /// Like [`Reader::next`], for those who can pass batches on: what lies whole in the log comes as it
    /// is, where the log can do so.
    async fn next_parcels(&mut self, bytes_max: usize) -> Result<Vec<Parcel>> {
        let chunks = self.next(bytes_max).await?;
        Ok(chunks.into_iter().map(Parcel::from).collect())
    }

    /// Records progress, which may go back, and appends `outputs`, all or nothing and durable when it returns.
    /// `Fenced`, with nothing written, once the share has changed hands.
    async fn commit(&mut self, upto: &Checkpoint, outputs: Vec<Append>) -> Result<()>;
}

/// A batch with the partition it goes to.
#[derive(Clone, Debug)]
pub struct Append {
    /// Where to.
    pub place: Place,
    /// What.
    pub batch: Batch,
}

/// Where the records of one batch were put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// In offsets without a hole, from the first.
    From(Offset),
    /// Each at an offset of its own, in the batch's order.
    Each(Vec<Offset>),
}

impl Appended {
    /// The offset of the batch's record number `index`, from 0.
    pub fn offset(&self, index: usize) -> Offset {
        match self {
            Appended::From(first) => Offset(first.0 + index as u64),
            Appended::Each(offsets) => offsets[index],
        }
    }
}

/// A record with its offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The offset within the chunk's partition.
    pub offset: Offset,
    /// The record.
    pub record: Record,
}

/// Entries of one partition, in order, and where to read on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The partition.
    pub place: Place,
    /// The entries; offsets rise.
    pub entries: Vec<Entry>,
    /// The offset to read from next; past the last entry and past holes after it.
    pub next: Offset,
}

/// A place to read from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// The partition.
    pub place: Place,
    /// The first offset wanted.
    pub offset: Offset,
}

/// Which topics a reader wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Every stream's topic of a stage, those made later too.
    Stage(Stage),
    /// One topic.
    Topic(Topic),
}

impl Selection {
    /// Whether a topic is meant.
    pub fn includes(&self, topic: &Topic) -> bool {
        match self {
            Selection::Stage(stage) => topic.stage() == Some(*stage),
            Selection::Topic(wanted) => topic == wanted,
        }
    }
}

/// The name under which readers share partitions and progress: `[a-z0-9._-]{1,100}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(Cow<'static, str>);

impl Group {
    /// The workers from raw to processed.
    pub const ROUTER: Group = Group(Cow::Borrowed("router"));
    /// The workers from processed to objects.
    pub const ARCHIVE: Group = Group(Cow::Borrowed("archive"));
    /// The workers from processed to splits.
    pub const INDEX: Group = Group(Cow::Borrowed("index"));
    /// The worker from the catalog to the audit.
    pub const AUDIT: Group = Group(Cow::Borrowed("audit"));

    /// A group of that name. Names are chosen by this project, not by users.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Group(name.into())
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}
