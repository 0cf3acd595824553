//! From the catalog's records to the streams that exist.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::definition::{Definition, Stream};
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
}

impl Change {
    pub(super) fn from_record(record: &Record) -> Result<Self> {
        serde_json::from_slice(&record.value).or_error(Kind::Corrupt, "decode catalog record")
    }

    pub(super) fn to_record(&self, now: Timestamp) -> Result<Record> {
        let value = serde_json::to_vec(self).or_error(Kind::Internal, "encode catalog record")?;
        let name = match self {
            Change::Define(definition) => format!("{}/{}", definition.dataset, definition.version),
            Change::Activate { dataset, version, .. } => format!("{dataset}/{version}"),
        };
        Ok(Record::new(value, now).with_key(name))
    }
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

    /// Takes one change in, or leaves it out if it lost a race.
    pub(super) fn fold(&mut self, change: Change, offset: Offset) {
        match change {
            Change::Define(definition) => self.define(*definition, offset),
            Change::Activate { dataset, version, incarnation, transform_version, partition, offset } => {
                let Ok(name) = StreamName::new(&dataset, &version) else {
                    return;
                };
                let Some(stream) = self.0.get_mut(&name) else {
                    return;
                };
                if stream.definition.incarnation == incarnation {
                    Arc::make_mut(stream).activate(transform_version, partition, offset);
                }
            }
        }
    }

    fn define(&mut self, definition: Definition, offset: Offset) {
        let Ok(name) = definition.name() else { return };
        let before = self.0.get(&name);
        let current = before.map_or(0, |stream| stream.definition.config_version);
        if definition.config_version != current + 1 {
            return;
        }
        let Ok(stream) = Stream::new(definition, before.map(AsRef::as_ref), offset) else {
            return;
        };
        self.0.insert(name, Arc::new(stream));
    }
}
