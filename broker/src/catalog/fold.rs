//! From the catalog's records to the streams that exist.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::definition::{Definition, Stream};
use super::rows::Writes;
use super::spans::{Failure, SinkKind};
use crate::error::{Kind, Result, ResultExt};
use crate::record::Record;
use crate::time::Timestamp;
use crate::topic::{Offset, Partition, StreamName};

/// One record of the catalog, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// A stream is from now on as this says, if the version fits.
    Define(Box<Definition>),
    /// A version of a stream's transform takes effect at a raw offset of one partition.
    Activate {
        /// The stream's dataset id.
        dataset: String,
        /// The stream's version.
        version: String,
        /// Which life of the stream is meant.
        incarnation: u64,
        /// The transform's version.
        transform_version: u32,
        /// The raw partition.
        partition: Partition,
        /// The first raw offset it applies to.
        offset: Offset,
    },
    /// A worker began or ended a span of a sink in one partition.
    Settle {
        /// The stream's dataset id.
        dataset: String,
        /// The stream's version.
        version: String,
        /// Which life of the stream is meant.
        incarnation: u64,
        /// The sink.
        sink: SinkKind,
        /// The span's number.
        span: u32,
        /// The processed partition.
        partition: Partition,
        /// Where it ended; none where it began.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended: Option<Offset>,
    },
    /// A sink's worker cannot settle a span.
    Fail {
        /// The stream's dataset id.
        dataset: String,
        /// The stream's version.
        version: String,
        /// Which life of the stream is meant.
        incarnation: u64,
        /// The sink.
        sink: SinkKind,
        /// The span's number.
        span: u32,
        /// Why.
        failure: Failure,
    },
}

impl Change {
    pub(super) fn to_record(&self, now: Timestamp) -> Result<Record> {
        let value = serde_json::to_vec(self).or_error(Kind::Internal, "encode catalog record")?;
        let name = match self {
            Change::Define(definition) => format!("{}/{}", definition.dataset, definition.version),
            Change::Activate { dataset, version, .. }
            | Change::Settle { dataset, version, .. }
            | Change::Fail { dataset, version, .. } => format!("{dataset}/{version}"),
        };
        Ok(Record::new(value, now).with_key(name))
    }
}

/// What a record of the catalog says.
pub(super) enum Recorded {
    /// Of a stream: `{"change":…}`.
    Change(Change),
    /// Of rows: `{"rows":{…}}`.
    Rows(Writes),
}

/// Rows as they are recorded. They are not one of the changes above, whose form takes values apart that
/// are to stay as they were written.
#[derive(Serialize, Deserialize)]
struct OfRows<W> {
    rows: W,
}

const OF_ROWS: &[u8] = br#"{"rows":"#;

impl Recorded {
    pub(super) fn read(record: &Record) -> Result<Self> {
        let failed = "decode catalog record";
        if record.value.starts_with(OF_ROWS) {
            let read: OfRows<Writes> =
                serde_json::from_slice(&record.value).or_error(Kind::Corrupt, failed)?;
            return Ok(Recorded::Rows(read.rows));
        }
        serde_json::from_slice(&record.value).or_error(Kind::Corrupt, failed).map(Recorded::Change)
    }
}

/// Something that a record of the catalog changes, if the record is taken.
#[derive(Clone, Debug)]
pub struct Changed {
    /// When.
    pub at: Timestamp,
    /// The principal; empty in what was written before there were any.
    pub by: String,
    /// What kind of thing it is, such as `stream`.
    pub what: &'static str,
    /// Which one.
    pub id: String,
    /// The version that it comes to; the record is taken if each thing in it was at the one before.
    pub version: u64,
    /// What may be shown of it now; none once it is gone.
    pub now: Option<Map<String, Value>>,
}

impl Changed {
    /// What a record changes; nothing where it only says how far a worker is.
    pub fn of(record: &Record) -> Result<Vec<Self>> {
        match Recorded::read(record)? {
            Recorded::Rows(writes) => Ok(writes.changed()),
            Recorded::Change(Change::Activate { .. } | Change::Settle { .. } | Change::Fail { .. }) => {
                Ok(Vec::new())
            }
            Recorded::Change(Change::Define(definition)) => {
                let now = (!definition.deleted).then(|| shown(&definition)).transpose()?;
                let id = format!("{}/{}", definition.dataset, definition.version);
                let (at, version) = (definition.updated_at, definition.config_version);
                let by = definition.updated_by.unwrap_or_default();
                Ok(vec![Self { at, by, what: "stream", id, version, now }])
            }
        }
    }
}

/// A definition without its programs, which may be long.
fn shown(definition: &Definition) -> Result<Map<String, Value>> {
    let shown = serde_json::to_value(definition).or_error(Kind::Internal, "show a definition")?;
    let Value::Object(mut fields) = shown else { return Ok(Map::new()) };
    for name in ["dataset", "version", "config_version", "updated_at", "updated_by", "deleted", "transforms"]
    {
        fields.remove(name);
    }
    for name in ["spans", "create_raw"] {
        fields.remove(name);
    }
    fields.insert("subscribable".to_owned(), definition.subscribable.enabled.into());
    fields.insert("transform_version".to_owned(), definition.latest_transform().version.into());
    Ok(fields)
}

/// The record of changes of rows.
pub(super) fn record_of(writes: &Writes, now: Timestamp) -> Result<Record> {
    let value =
        serde_json::to_vec(&OfRows { rows: writes }).or_error(Kind::Internal, "encode catalog rows")?;
    Ok(Record::new(value, now).with_key(writes.name()))
}

/// Every stream that was ever defined, deleted ones too.
#[derive(Clone, Debug, Default)]
pub struct Streams(BTreeMap<StreamName, Arc<Stream>>);

impl Streams {
    /// A stream by name, also when it was deleted.
    pub fn get(&self, name: &StreamName) -> Option<&Arc<Stream>> {
        self.0.get(name)
    }

    /// Every stream by name, deleted ones too.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Stream>> {
        self.0.values()
    }

    /// The streams of a dataset by version, deleted ones too.
    pub fn of_dataset<'a>(&'a self, dataset: &'a str) -> impl Iterator<Item = &'a Arc<Stream>> {
        let from = self.0.range(StreamName::before_all_of(dataset)..);
        from.take_while(move |(name, _)| name.dataset() == dataset).map(|(_, stream)| stream)
    }

    /// Takes one change in, or leaves it out if it lost a race. Answers whether it took it.
    pub(super) fn fold(&mut self, change: Change, offset: Offset) -> bool {
        match change {
            Change::Define(definition) => self.define(*definition, offset),
            Change::Activate { dataset, version, incarnation, transform_version, partition, offset } => {
                let stream = self.living((&dataset, &version), incarnation);
                stream.is_some_and(|stream| {
                    stream.activate(transform_version, partition, offset);
                    true
                })
            }
            Change::Settle { dataset, version, incarnation, sink, span, partition, ended } => {
                let stream = self.living((&dataset, &version), incarnation);
                stream.is_some_and(|stream| {
                    stream.settle((sink, span), partition, ended);
                    true
                })
            }
            Change::Fail { dataset, version, incarnation, sink, span, failure } => {
                let stream = self.living((&dataset, &version), incarnation);
                stream.is_some_and(|stream| stream.fail(sink, span, failure))
            }
        }
    }

    /// A stream in this life of it, to be changed.
    fn living(&mut self, (dataset, version): (&str, &str), incarnation: u64) -> Option<&mut Stream> {
        let stream = self.0.get_mut(&StreamName::new(dataset, version).ok()?)?;
        (stream.definition.incarnation == incarnation).then(|| Arc::make_mut(stream))
    }

    fn define(&mut self, definition: Definition, offset: Offset) -> bool {
        let Ok(name) = definition.name() else { return false };
        let before = self.0.get(&name);
        let current = before.map_or(0, |stream| stream.definition.config_version);
        if definition.config_version != current + 1 {
            return false;
        }
        let Ok(stream) = Stream::new(definition, before.map(AsRef::as_ref), offset) else {
            return false;
        };
        self.0.insert(name, Arc::new(stream));
        true
    }
}
