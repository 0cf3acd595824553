//! What is defined: streams, their transforms and sinks; and rows beside them, such as users and what
//! they may do. The catalog is itself a topic of one partition, kept for ever and folded in memory.
//!
//! A writer appends, reads back to its own record and sees whether the fold took it: a definition
//! is taken only if its `config_version` is the current one plus one, so that of two writers one
//! gets `Conflict`. The topic is not compacted: compaction keeps the last record of a key, and that
//! may be the one that the fold refused.

pub mod definition;
mod fold;
mod rows;
mod spans;
mod table;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::batch::Batch;
use crate::checkpoint::Place;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::log::{Append, Entry, Log, Position};
use crate::record::Record;
use crate::time::Clock;
use crate::topic::{Cleanup, Offset, Partition, Stage, StreamName, Topic, TopicConfig};

pub use definition::{Definition, Draft, Edit, Retention, Sinks, Stream, Subscribable, TransformVersion};
pub use fold::{Change, Changed, Streams};
pub use rows::{Kept, Row, Rows, Shelf, Slots, Writes};
pub use spans::{Failure, SinkKind, SinkState, Span, Spans, Stamp, Unsettled};
pub use table::{TABLES_MAX, Table, TtlFrom};

use fold::Recorded;

const TOPIC: &str = "headwater.catalog";
const READ_BYTES_MAX: usize = 4 << 20;
/// How many of the last changes are remembered as taken, for their writers to see.
const TAKEN_MAX: usize = 1_024;
/// How often another reason for which a sink cannot be settled is recorded, at most.
const FAILURE_PAUSE: Duration = Duration::from_secs(60);

/// The definitions, kept current by [`Catalog::follow`].
pub struct Catalog {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    place: Place,
    folded: Mutex<Folded>,
    streams: watch::Sender<Arc<Streams>>,
    rows: RwLock<Rows>,
}

/// How far the topic was folded.
#[derive(Default)]
struct Folded {
    next: Offset,
    /// The last changes that were taken, by offset.
    taken: VecDeque<Offset>,
}

impl Folded {
    fn take(&mut self, offset: Offset) {
        if self.taken.len() == TAKEN_MAX {
            self.taken.pop_front();
        }
        self.taken.push_back(offset);
    }
}

impl Catalog {
    /// Makes the catalog's topic where it is missing, folds it to its end and makes the topics of
    /// every stream that a crash left without.
    pub async fn open(log: Arc<dyn Log>, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        let place = Place::new(Self::topic(), Partition(0));
        let config = TopicConfig { partitions: 1, cleanup: Cleanup::Keep };
        log.create(&place.topic, &config).await?;
        let streams = watch::Sender::new(Arc::new(Streams::default()));
        let catalog = Self { log, clock, place, folded: Mutex::default(), streams, rows: RwLock::default() };
        catalog.refresh().await?;
        for stream in catalog.list() {
            catalog.make_topics(&stream).await?;
        }
        Ok(Arc::new(catalog))
    }

    /// The catalog's topic.
    pub fn topic() -> Topic {
        Topic::internal(TOPIC)
    }

    /// Keeps folding until `stop`; changes made by other processes show up by it.
    pub async fn follow(&self, stop: CancellationToken) -> Result<()> {
        loop {
            let folded = self.folded.lock().await.next;
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                grown = self.log.wait_past(&self.place, folded) => grown?,
            }
            self.refresh().await?;
        }
    }

    /// Folds what was written before this call.
    pub async fn refresh(&self) -> Result<()> {
        let mut folded = self.folded.lock().await;
        let end = self.log.bounds(&self.place).await?.end;
        let first = folded.next;
        if first >= end {
            return Ok(());
        }
        let mut streams = Streams::clone(&self.streams.borrow());
        while folded.next < end {
            let from = Position { place: self.place.clone(), offset: folded.next };
            let chunk = self.log.read(&from, READ_BYTES_MAX).await?;
            for entry in &chunk.entries {
                if self.fold(&mut streams, entry) {
                    folded.take(entry.offset);
                }
            }
            if chunk.next <= folded.next {
                break;
            }
            folded.next = chunk.next;
        }
        if folded.next > first {
            self.streams.send_replace(Arc::new(streams));
        }
        Ok(())
    }

    /// Takes one record in; answers whether it was one that fits.
    fn fold(&self, streams: &mut Streams, entry: &Entry) -> bool {
        match Recorded::read(&entry.record) {
            Ok(Recorded::Change(change)) => streams.fold(change, entry.offset),
            Ok(Recorded::Rows(writes)) => {
                let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
                rows.fold(writes, entry.offset)
            }
            Err(error) => {
                warn!(offset = %entry.offset, %error, "skipping unknown catalog record");
                false
            }
        }
    }

    /// A stream that exists. `NotFound` if it does not, or was deleted.
    pub fn get(&self, name: &StreamName) -> Result<Arc<Stream>> {
        let streams = self.streams.borrow();
        let stream = streams.get(name).filter(|stream| !stream.definition.deleted);
        stream
            .cloned()
            .ok_or_else(|| Error::not_found(format!("stream {name} does not exist")).with_field("stream"))
    }

    /// Every stream that exists, by name.
    pub fn list(&self) -> Vec<Arc<Stream>> {
        let streams = self.streams.borrow();
        streams.iter().filter(|stream| !stream.definition.deleted).cloned().collect()
    }

    /// Every stream that was ever defined, deleted ones too, as they are now.
    pub fn all(&self) -> Arc<Streams> {
        Arc::clone(&self.streams.borrow())
    }

    /// Sees every change of the definitions.
    pub fn watch(&self) -> watch::Receiver<Arc<Streams>> {
        self.streams.subscribe()
    }

    /// Defines a new stream in the name of a principal, and makes its topics; one that has only taken what
    /// came before it was made is made of that. `Conflict` if it exists.
    pub async fn create(&self, draft: Draft, by: &str) -> Result<Arc<Stream>> {
        let name = draft.name()?;
        self.refresh().await?;
        let before = self.streams.borrow().get(&name).cloned();
        let living = before.clone().filter(|stream| !stream.definition.deleted);
        let incoming = living.clone().filter(|stream| stream.definition.is_incoming && !draft.is_incoming);
        if living.is_some() && incoming.is_none() {
            return Err(
                Error::new(Kind::Conflict, format!("stream {name} already exists")).with_field("dataset")
            );
        }
        let now = self.clock.now();
        let create = move || match incoming {
            Some(incoming) => incoming.definition.taken_over(draft, now),
            None => Definition::create(draft, before.as_deref().map(|stream| &stream.definition), now),
        };
        let definition = checked(create).await?;
        self.check_table_names(&name, &definition.tables)?;
        let stream = self.define(definition, by).await?;
        self.make_topics(&stream).await?;
        Ok(stream)
    }

    /// A table is named alone where it is read. Of two streams that are given one name at the same moment
    /// the one whose dataset and version come first has the table.
    fn check_table_names(&self, stream: &StreamName, tables: &[Table]) -> Result<()> {
        if tables.is_empty() {
            return Ok(());
        }
        for other in self.list().iter().filter(|other| other.name() != stream) {
            let has = |table: &&Table| other.definition.tables.iter().any(|known| known.name == table.name);
            if let Some(table) = tables.iter().find(has) {
                let message = format!("stream {} has the table {}", other.name(), table.name);
                return Err(Error::new(Kind::Conflict, message).with_field("tables"));
            }
        }
        Ok(())
    }

    /// Changes a stream. A new transform takes effect at a raw offset per partition that the router
    /// records. `Conflict` if somebody else changed the stream first.
    pub async fn change(&self, name: &StreamName, edit: Edit, by: &str) -> Result<Arc<Stream>> {
        self.refresh().await?;
        let before = self.get(name)?;
        let stamp = Stamp { by: Some(by.to_owned()), at: self.clock.now() };
        let switches = edit.sinks.as_ref().is_some_and(|sinks| *sinks != before.definition.sinks);
        let ends = if switches { self.processed_ends(&before).await? } else { Vec::new() };
        let definition = checked(move || before.edited(edit, (&ends, stamp))).await?;
        self.check_table_names(name, &definition.tables)?;
        let stream = self.define(definition, by).await?;
        self.make_topics(&stream).await?;
        Ok(stream)
    }

    /// The append that records that a worker began a span of a sink in a partition, or ended it.
    pub fn settlement_of_span(
        &self,
        stream: &Stream,
        (sink, span): (SinkKind, u32),
        (partition, ended): (Partition, Option<Offset>),
    ) -> Result<Append> {
        let Definition { dataset, version, incarnation, .. } = &stream.definition;
        self.settlement(Change::Settle {
            dataset: dataset.clone(),
            version: version.clone(),
            incarnation: *incarnation,
            sink,
            span,
            partition,
            ended,
        })
    }

    /// Records why workers of a sink cannot settle it, for each stream where there is something to settle.
    /// What was recorded a moment ago stands.
    pub async fn fail_sink(&self, kind: SinkKind, reason: &str) -> Result<()> {
        self.refresh().await?;
        let failure = Failure::new(reason, self.clock.now());
        let is_news =
            |known: &Failure| known.reason != failure.reason && failure.at.since(known.at) >= FAILURE_PAUSE;
        let mut appends = Vec::new();
        for stream in self.list() {
            let Some(span) = stream.unsettled_span(kind) else { continue };
            if stream.sink_failure(kind).is_none_or(is_news) {
                let Definition { dataset, version, incarnation, .. } = &stream.definition;
                appends.push(self.settlement(Change::Fail {
                    dataset: dataset.clone(),
                    version: version.clone(),
                    incarnation: *incarnation,
                    sink: kind,
                    span,
                    failure: failure.clone(),
                })?);
            }
        }
        if appends.is_empty() {
            return Ok(());
        }
        self.log.append(appends).await.map(drop)
    }

    async fn processed_ends(&self, stream: &Stream) -> Result<Vec<Offset>> {
        let mut ends = Vec::new();
        for partition in stream.partitions() {
            let place = Place::new(stream.topic(Stage::Processed), partition);
            ends.push(self.log.bounds(&place).await?.end);
        }
        Ok(ends)
    }

    /// Deletes a stream with its topics. The archive's objects stay; the index removes its splits.
    pub async fn delete(&self, name: &StreamName, by: &str) -> Result<()> {
        self.delete_if(name, by, |_| Ok(())).await
    }

    /// Deletes a stream unless `check` refuses it as it is then.
    pub async fn delete_if(
        &self,
        name: &StreamName,
        by: &str,
        check: impl FnOnce(&Stream) -> Result<()>,
    ) -> Result<()> {
        self.refresh().await?;
        let before = self.get(name)?;
        check(&before)?;
        self.define(before.definition.deleted(self.clock.now()), by).await?;
        for stage in Stage::ALL {
            self.log.delete(&before.topic(stage)).await?;
        }
        Ok(())
    }

    async fn define(&self, definition: Definition, by: &str) -> Result<Arc<Stream>> {
        let definition = Definition { updated_by: Some(by.to_owned()), ..definition };
        let name = definition.name()?;
        let record = Change::Define(Box::new(definition)).to_record(self.clock.now())?;
        if !self.is_taken(record).await? {
            let message = format!("stream {name} was changed by somebody else at the same time");
            return Err(Error::new(Kind::Conflict, message));
        }
        let stream = self.streams.borrow().get(&name).cloned();
        stream.ok_or_else(|| Error::internal("define a stream: it is not there"))
    }

    /// A row; none if there is none, or it was taken away.
    pub fn row<T: Kept>(&self, id: &str) -> Option<Arc<Row<T>>> {
        T::of(&self.read_rows()).get(id).cloned()
    }

    /// The version of a row, also of one that was taken away; 0 where there never was one.
    pub fn version<T: Kept>(&self, id: &str) -> u64 {
        T::of(&self.read_rows()).version(id)
    }

    /// The first rows whose ids begin with `prefix`, by id, behind `after`, of those that are wanted.
    pub fn rows_where<T: Kept>(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        is_wanted: impl Fn(&Row<T>) -> bool,
    ) -> Vec<Arc<Row<T>>> {
        // The rows are not held while they are looked at: that may look into others.
        let rows: Vec<_> = T::of(&self.read_rows()).range(prefix, after).cloned().collect();
        rows.into_iter().filter(|row| is_wanted(row)).take(limit).collect()
    }

    fn read_rows(&self) -> RwLockReadGuard<'_, Rows> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes of rows to be made with [`Catalog::write`], in the name of a principal.
    pub fn writes(&self, by: &str) -> Writes {
        Writes::new(by, self.clock.now())
    }

    /// Makes all of the changes, or none and `Conflict` if one of the rows is not at the version any more
    /// that it was to be changed from.
    pub async fn write(&self, writes: Writes) -> Result<()> {
        if self.is_taken(fold::record_of(&writes, self.clock.now())?).await? {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            format!("{} was changed by somebody else at the same time", writes.name()),
        ))
    }

    /// Appends a record, reads back to it and sees whether it was taken.
    async fn is_taken(&self, record: Record) -> Result<bool> {
        let append = self.append_of(&record);
        let appended = self.log.append(vec![append]).await?;
        let offset =
            appended.first().ok_or_else(|| Error::internal("append to the catalog: no answer"))?.offset(0);
        self.refresh().await?;
        Ok(self.folded.lock().await.taken.contains(&offset))
    }

    fn append_of(&self, record: &Record) -> Append {
        let batch = Batch::of([record]).expect("one record was pushed");
        Append { place: self.place.clone(), batch }
    }

    async fn make_topics(&self, stream: &Stream) -> Result<()> {
        for stage in Stage::ALL {
            self.log.create(&stream.topic(stage), &stream.definition.topic_config()).await?;
        }
        Ok(())
    }

    /// The append that records what a worker has settled: where a transform version takes effect, or
    /// a sink's span. The worker commits it in one step with its progress.
    pub fn settlement(&self, change: Change) -> Result<Append> {
        Ok(self.append_of(&change.to_record(self.clock.now())?))
    }
}

/// Makes a definition off the runtime: its transform is compiled, which may take a while.
async fn checked(make: impl FnOnce() -> Result<Definition> + Send + 'static) -> Result<Definition> {
    tokio::task::spawn_blocking(make).await.or_error(Kind::Internal, "check the definition")?
}
