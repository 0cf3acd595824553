//! An event inside the system.

use bytes::Bytes;

use crate::time::Timestamp;
use crate::topic::{Offset, Partition};

/// What a decoded record takes beside its bytes, about.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 64;

/// One event with what the system knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Chooses the partition; records with one key keep their order.
    pub key: Option<Bytes>,
    /// The event's bytes as they were posted, or as a transform left them.
    pub value: Bytes,
    /// When the door took it, in whole milliseconds. Retention and archive folders go by it.
    pub arrival: Timestamp,
    /// The event's own time, by the stream's `timestamp_field`, or its arrival.
    pub time: Timestamp,
    /// The raw record that this one was made from; none on raw records.
    pub origin: Option<Origin>,
    /// Small named values that travel with the record, such as a dead letter's reason.
    pub headers: Vec<(String, Bytes)>,
}

impl Record {
    /// A record with neither key, origin nor headers, whose own time is its arrival.
    pub fn new(value: impl Into<Bytes>, arrival: Timestamp) -> Self {
        let arrival = arrival.floor_to_millis();
        Self { key: None, value: value.into(), arrival, time: arrival, origin: None, headers: Vec::new() }
    }

    /// The same record with a key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// About how many bytes the record holds, for budgets.
    pub fn weight(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.as_ref().map_or(0, Bytes::len) + self.value.len() + headers + RECORD_OVERHEAD_BYTES
    }
}

/// The position of a raw record, in the raw topic of the same stream. It names the event for good:
/// a transform makes at most one record of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Origin {
    /// The raw partition.
    pub partition: Partition,
    /// The raw offset.
    pub offset: Offset,
}
