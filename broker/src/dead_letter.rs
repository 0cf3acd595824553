//! Records that can never succeed: their bytes as they were, with the reason.

use bytes::Bytes;

use crate::checkpoint::Place;
use crate::error::{Error, Result};
use crate::record::{Origin, Record};
use crate::sink::Rejection;
use crate::time::Timestamp;
use crate::topic::Stage;

const REASON: &str = "reason";
const TRANSFORM_VERSION: &str = "transform-version";

/// A dead letter. In the dead topic its value is the record's, its reason and the transform's
/// version stand in headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The raw record.
    pub origin: Origin,
    /// Why it cannot succeed.
    pub reason: String,
    /// The version of the transform that refused it.
    pub transform_version: u32,
    /// When it was refused.
    pub rejected: Timestamp,
    /// The record's own time.
    pub time: Timestamp,
    /// The record's key.
    pub key: Option<Bytes>,
    /// The record's bytes.
    pub value: Bytes,
}

impl DeadLetter {
    /// The letter of a rejection, and where it goes: the dead topic of its stream, in the raw
    /// record's partition.
    pub fn of(rejection: Rejection, now: Timestamp) -> (Place, Self) {
        let Rejection { place, entry, reason, transform_version } = rejection;
        let read_at = Origin { partition: place.partition, offset: entry.offset };
        let record = entry.record;
        let letter = Self {
            origin: record.origin.unwrap_or(read_at),
            reason,
            transform_version,
            rejected: now.floor_to_millis(),
            time: record.time,
            key: record.key,
            value: record.value,
        };
        let topic = place.topic.at(Stage::Dead).unwrap_or(place.topic);
        (Place::new(topic, letter.origin.partition), letter)
    }

    /// The record that stands in the dead topic.
    pub fn into_record(self) -> Record {
        let version = self.transform_version.to_string();
        let headers =
            vec![(REASON.to_owned(), self.reason.into()), (TRANSFORM_VERSION.to_owned(), version.into())];
        Record {
            key: self.key,
            value: self.value,
            arrival: self.rejected,
            time: self.time,
            origin: Some(self.origin),
            headers,
        }
    }

    /// Reads a record of the dead topic.
    pub fn from_record(record: Record) -> Result<Self> {
        let text = |name| record.header(name).and_then(|value| std::str::from_utf8(value).ok());
        let reason = text(REASON).map(str::to_owned);
        let transform_version = text(TRANSFORM_VERSION).and_then(|version| version.parse().ok());
        let (Some(origin), Some(reason), Some(transform_version)) =
            (record.origin, reason, transform_version)
        else {
            return Err(Error::corrupt("a dead letter lacks its origin, reason or transform version"));
        };
        let Record { key, value, arrival, time, .. } = record;
        Ok(Self { origin, reason, transform_version, rejected: arrival, time, key, value })
    }
}
