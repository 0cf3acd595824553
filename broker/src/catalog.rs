//! What is defined: streams, their transforms and sinks. The catalog is itself a topic of one
//! partition, kept for ever and folded in memory.
//!
//! A writer appends, reads back to its own record and sees whether the fold took it: a definition
//! is taken only if its `config_version` is the current one plus one, so that of two writers one
//! gets `Conflict`. The topic is not compacted: compaction keeps the last record of a key, and that
//! may be the one that the fold refused.

pub mod definition;
mod fold;

use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::batch::Batch;
use crate::checkpoint::Place;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::log::{Append, Log, Position};
use crate::record::Record;
use crate::time::Clock;
use crate::topic::{Cleanup, Offset, Partition, Stage, StreamName, Topic, TopicConfig};

pub use definition::{Definition, Draft, Edit, Retention, Sinks, Stream, TransformVersion};
pub use fold::{Change, Streams};

const TOPIC: &str = "headwater.catalog";
const READ_BYTES_MAX: usize = 4 << 20;

/// The definitions, kept current by [`Catalog::follow`].
pub struct Catalog {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    place: Place,
    folded: Mutex<Offset>,
    streams: watch::Sender<Arc<Streams>>,
}

impl Catalog {
    /// Makes the catalog's topic where it is missing, folds it to its end and makes the topics of
    /// every stream that a crash left without.
    pub async fn open(log: Arc<dyn Log>, clock: Arc<dyn Clock>) -> Result<Arc<Self>> {
        let place = Place::new(Self::topic(), Partition(0));
        let config = TopicConfig { partitions: 1, cleanup: Cleanup::Keep };
        log.create(&place.topic, &config).await?;
        let streams = watch::Sender::new(Arc::new(Streams::default()));
        let catalog = Self { log, clock, place, folded: Mutex::new(Offset(0)), streams };
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
            let folded = *self.folded.lock().await;
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
        let mut next = *folded;
        if next >= end {
            return Ok(());
        }
        let mut streams = Streams::clone(&self.streams.borrow());
        while next < end {
            let from = Position { place: self.place.clone(), offset: next };
            let chunk = self.log.read(&from, READ_BYTES_MAX).await?;
            for entry in &chunk.entries {
                match Change::from_record(&entry.record) {
                    Ok(change) => streams.fold(change, entry.offset),
                    Err(error) => warn!(offset = %entry.offset, %error, "skipping unknown catalog record"),
                }
            }
            if chunk.next <= next {
                break;
            }
            next = chunk.next;
        }
        if next > *folded {
            *folded = next;
            self.streams.send_replace(Arc::new(streams));
        }
        Ok(())
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

    /// Defines a new stream and makes its topics. `Conflict` if it exists.
    pub async fn create(&self, draft: Draft) -> Result<Arc<Stream>> {
        let name = draft.name()?;
        self.refresh().await?;
        let before = self.streams.borrow().get(&name).cloned();
        if before.as_ref().is_some_and(|stream| !stream.definition.deleted) {
            return Err(
                Error::new(Kind::Conflict, format!("stream {name} already exists")).with_field("dataset")
            );
        }
        let now = self.clock.now();
        let create =
            move || Definition::create(draft, before.as_deref().map(|stream| &stream.definition), now);
        let definition = checked(create).await?;
        let stream = self.define(definition).await?;
        self.make_topics(&stream).await?;
        Ok(stream)
    }

    /// Changes a stream. A new transform takes effect at a raw offset per partition that the router
    /// records. `Conflict` if somebody else changed the stream first.
    pub async fn change(&self, name: &StreamName, edit: Edit) -> Result<Arc<Stream>> {
        self.refresh().await?;
        let before = self.get(name)?;
        let now = self.clock.now();
        let definition = checked(move || before.definition.edited(edit, now)).await?;
        let stream = self.define(definition).await?;
        self.make_topics(&stream).await?;
        Ok(stream)
    }

    /// Deletes a stream with its topics. The archive's objects stay; the index removes its splits.
    pub async fn delete(&self, name: &StreamName) -> Result<()> {
        self.refresh().await?;
        let before = self.get(name)?;
        let definition = before.definition.deleted(self.clock.now());
        self.define(definition).await?;
        for stage in Stage::ALL {
            self.log.delete(&before.topic(stage)).await?;
        }
        Ok(())
    }

    /// Appends a definition, reads back to it and sees whether it was taken.
    async fn define(&self, definition: Definition) -> Result<Arc<Stream>> {
        let name = definition.name()?;
        let record = Change::Define(Box::new(definition)).to_record(self.clock.now())?;
        let batch = Batch::of([&record]).expect("one record was pushed");
        let append = Append { place: self.place.clone(), batch };
        let appended = self.log.append(vec![append]).await?;
        let offset =
            appended.first().ok_or_else(|| Error::internal("append to the catalog: no answer"))?.offset(0);
        self.refresh().await?;
        let stream = self.streams.borrow().get(&name).cloned();
        stream.filter(|stream| stream.defined_at == offset).ok_or_else(|| {
            Error::new(Kind::Conflict, format!("stream {name} was changed by somebody else at the same time"))
        })
    }

    async fn make_topics(&self, stream: &Stream) -> Result<()> {
        for stage in Stage::ALL {
            self.log.create(&stream.topic(stage), &stream.definition.topic_config()).await?;
        }
        Ok(())
    }

    /// The append that records where a transform version takes effect; the router commits it in
    /// one step with its progress.
    pub fn activation(&self, change: Change) -> Result<Append> {
        let record: Record = change.to_record(self.clock.now())?;
        let batch = Batch::of([&record]).expect("one record was pushed");
        Ok(Append { place: self.place.clone(), batch })
    }
}

/// Makes a definition off the runtime: its transform is compiled, which may take a while.
async fn checked(make: impl FnOnce() -> Result<Definition> + Send + 'static) -> Result<Definition> {
    tokio::task::spawn_blocking(make).await.or_error(Kind::Internal, "check the definition")?
}
