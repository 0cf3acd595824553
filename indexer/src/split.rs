//! Immutable pieces of the index: how a stream's events become tantivy segments, how a segment is
//! packed into one object, and how it is searched. The only home of tantivy.
//!
//! A piece holds events of one partition, its documents in answer order (time, offset), so that a
//! document's number is its place in the answer: a date range is a range of numbers, and a page is
//! the next documents. There is no `IndexWriter`: a piece is built in memory at once, or not at
//! all, and nothing of it has to survive a crash but the published object.

mod build;
mod bundle;
mod document;
mod documents;
mod every;
mod grammar;
mod merge;
mod schema;
mod segment;
mod strings;
mod times;
mod tree;

use broker::{Entry, Offset, Origin, Partition, Timestamp};
use bytes::Bytes;

pub(crate) use build::{build_split, searchable, searchable_by_words};
pub(crate) use bundle::{FORMAT, Footer, TRAILER_BYTES};
pub(crate) use documents::{Documents, Stored};
pub(crate) use grammar::Terms;
pub(crate) use merge::merge;
pub(crate) use segment::{Segment, Split};
pub(crate) use times::partition_point;

/// An event as it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) position: Position,
    pub(crate) origin: Option<Origin>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Bytes,
}

impl Event {
    pub(crate) fn of(partition: Partition, entry: &Entry) -> Self {
        Self {
            position: Position::of(partition, entry),
            origin: entry.record.origin,
            key: entry.record.key.clone(),
            value: entry.record.value.clone(),
        }
    }
}

/// Where an event stands in every answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) time: Timestamp,
    pub(crate) partition: Partition,
    pub(crate) offset: Offset,
}

impl Position {
    pub(crate) fn of(partition: Partition, entry: &Entry) -> Self {
        Self { time: entry.record.time, partition, offset: entry.offset }
    }
}

/// The end that an answer begins at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Order {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
}

/// How many documents of a piece are wanted, and from which end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Take {
    pub(crate) order: Order,
    pub(crate) limit: usize,
}
