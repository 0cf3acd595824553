//! The audit: who changed what in the catalog, as events of a stream of our own.
//!
//! A worker reads the catalog's topic and appends an event for each change that was taken, in one step with
//! its progress: each change is there once, on both logs, and across every crash. What is secret of a row
//! is not in it.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::warn;

use crate::access::ADMINISTRATOR;
use crate::batch::BatchBuilder;
use crate::catalog::{Catalog, Changed, Draft, Stream};
use crate::checkpoint::{Checkpoint, Place};
use crate::error::{Kind, Result, ResultExt as _};
use crate::log::{Append, Chunk, Entry};
use crate::record::Record;
use crate::sink::{Flushed, Rejection, Sink};
use crate::time::Timestamp;
use crate::topic::{Confidentiality, Offset, Partition, Stage, StreamName};

/// The dataset of the stream of what was changed; its version is 1.
pub const AUDIT_DATASET: &str = "headwater-audit";

/// Writes the audit.
pub struct Audit {
    catalog: Arc<Catalog>,
    /// Which version each thing is at, and whether it is there. It is read anew with every start: whether a change was taken
    /// follows from those before it.
    versions: HashMap<(&'static str, String), (u64, bool)>,
    /// What lies before this was audited already.
    committed: Offset,
    events: Vec<Record>,
}

/// One event.
#[derive(Serialize)]
struct Event<'a> {
    at: Timestamp,
    by: &'a str,
    /// `create`, `change` or `delete`.
    action: &'a str,
    /// What kind of thing it was done to, such as `stream`.
    what: &'a str,
    id: &'a str,
    version: u64,
    /// What it is now, without what is secret.
    #[serde(skip_serializing_if = "Map::is_empty")]
    now: Map<String, Value>,
}

impl Audit {
    /// An audit that has seen nothing yet.
    pub fn new(catalog: Arc<Catalog>) -> Self {
        Self { catalog, versions: HashMap::new(), committed: Offset(0), events: Vec::new() }
    }

    /// Stages the events of a record of the catalog, if it was taken.
    fn take(&mut self, entry: &Entry) -> Result<()> {
        let changes = match Changed::of(&entry.record) {
            Ok(changes) => changes,
            Err(error) => {
                warn!(offset = %entry.offset, %error, "leaving an unknown change out of the audit");
                return Ok(());
            }
        };
        let before = |change: &Changed| {
            let known = self.versions.get(&(change.what, change.id.clone()));
            known.map_or(0, |(version, _)| *version)
        };
        if !changes.iter().all(|change| change.version == before(change) + 1) {
            return Ok(());
        }
        for change in changes {
            let is_there = change.now.is_some();
            let was = self.versions.insert((change.what, change.id.clone()), (change.version, is_there));
            if entry.offset < self.committed {
                continue;
            }
            let action = match (is_there, was) {
                (false, _) => "delete",
                (true, Some((_, true))) => "change",
                (true, _) => "create",
            };
            let Changed { at, by, what, id, version, now } = &change;
            let now = now.clone().unwrap_or_default();
            let event = Event { at: *at, by, action, what, id, version: *version, now };
            let value =
                serde_json::to_vec(&event).or_error(Kind::Internal, "encode an event of the audit")?;
            self.events.push(Record::new(value, *at));
        }
        Ok(())
    }

    /// The stream that the events go to, made where there is none.
    async fn stream(&self) -> Result<Arc<Stream>> {
        let name = StreamName::new(AUDIT_DATASET, "1")?;
        if let Ok(stream) = self.catalog.get(&name) {
            return Ok(stream);
        }
        let draft = Draft {
            dataset: AUDIT_DATASET.to_owned(),
            version: "1".to_owned(),
            confidentiality: Confidentiality::Red,
            partitions: Some(1),
            timestamp_field: Some("at".to_owned()),
            ..Draft::default()
        };
        match self.catalog.create(draft, ADMINISTRATOR).await {
            Err(error) if error.kind() == Kind::Conflict => self.catalog.get(&name),
            made => made,
        }
    }
}

#[async_trait]
impl Sink for Audit {
    async fn resume(&mut self, committed: &Checkpoint) -> Result<Checkpoint> {
        self.versions.clear();
        self.events.clear();
        self.committed = committed.iter().map(|(_, offset)| offset).max().unwrap_or(Offset(0));
        Ok(committed.iter().map(|(place, _)| (place.clone(), Offset(0))).collect())
    }

    async fn write(&mut self, chunks: Vec<Chunk>) -> Result<Vec<Rejection>> {
        for chunk in chunks {
            for entry in &chunk.entries {
                self.take(entry)?;
            }
        }
        Ok(Vec::new())
    }

    async fn flush(&mut self, upto: &Checkpoint) -> Result<Flushed> {
        let ahead = upto.iter().filter(|(_, offset)| *offset > self.committed);
        let through: Checkpoint = ahead.map(|(place, offset)| (place.clone(), offset)).collect();
        let mut batch = BatchBuilder::default();
        for event in self.events.drain(..) {
            batch.push(&event);
        }
        let mut appends = Vec::new();
        if let Some(batch) = batch.finish() {
            let place = Place::new(self.stream().await?.topic(Stage::Raw), Partition(0));
            appends.push(Append { place, batch });
        }
        Ok(Flushed { through, appends })
    }
}
