//! Headwater's own log, catalog and workers, in this process and in a folder of their own.

use std::sync::Arc;
use std::time::Duration;

use broker::access::ADMINISTRATOR;
use broker::catalog::{Draft, Stream};
use broker::log::sled::{SledLog, SledOptions};
use broker::time::SystemClock;
use broker::{
    Append, Batch, Catalog, Checkpoint, Clock, Group, Log, Offset, Partition, Place, Selection, Sink, Stage,
    Worker,
};
use indexer::store::{StoreSettings, open};
use indexer::{Indexer, Limits, Parts};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::flights::DATE_FORMAT;
use super::scratch;

/// How often progress is looked at in a local log; short beside every run, rare enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(4);
/// How many appends wait at a time while a topic is filled.
const LOADED_AT_ONCE: usize = 64;

/// A log with one stream of flights.
pub(crate) struct Local {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stream: Arc<Stream>,
    pub(crate) folder: TempDir,
    /// How often progress is looked at.
    pub(crate) look_every: Duration,
}

/// A stream of flights as users define it.
pub(crate) fn flights_stream(partitions: u32) -> Draft {
    Draft {
        dataset: "flights".to_owned(),
        version: "1".to_owned(),
        partitions: Some(partitions),
        timestamp_field: Some("date".to_owned()),
        timestamp_format: Some(DATE_FORMAT.to_owned()),
        key: Some("/origin".to_owned()),
        ..Draft::default()
    }
}

/// A runtime as the server has it.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("start the runtime")
}

impl Local {
    /// An index of the log, in the same folder.
    pub(crate) fn indexer(&self, limits: Limits) -> Arc<Indexer> {
        let url = self.folder.path().join("objects").display().to_string();
        Indexer::new(Parts {
            log: self.log.clone(),
            catalog: self.catalog.clone(),
            clock: self.clock.clone(),
            objects: open(&StoreSettings { url, ..StoreSettings::default() }).expect("open the objects"),
            cache_directory: self.folder.path().join("cache"),
            shutdown: CancellationToken::new(),
            limits,
            zone: indexer::Zone::UTC,
            webhooks: Arc::new(broker::access::webhook::NoWebhooks),
            tables_directory: self.folder.path().join("tables"),
            node: "local".to_owned(),
            profiles: true,
        })
    }

    /// A log on sled in a new folder.
    pub(crate) async fn open(draft: Draft) -> Self {
        let folder = scratch();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let options = SledOptions::at(folder.path().join("log"));
        let log = SledLog::open(options, Arc::clone(&clock)).await.expect("open the log");
        Self::on(log, draft, folder).await
    }

    /// On a log that is open already.
    pub(crate) async fn on(log: Arc<dyn Log>, draft: Draft, folder: TempDir) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let catalog = Catalog::open(Arc::clone(&log), Arc::clone(&clock)).await.expect("open the catalog");
        let stream = catalog.create(draft, ADMINISTRATOR).await.expect("create the stream");
        Self { log, catalog, clock, stream, folder, look_every: LOOK_EVERY }
    }

    /// A partition of the stream.
    pub(crate) fn place(&self, stage: Stage, partition: u32) -> Place {
        Place::new(self.stream.topic(stage), Partition(partition))
    }

    /// Fills a stage, one batch after the other to the partitions in turn.
    pub(crate) async fn load(&self, stage: Stage, batches: &[Batch]) {
        let partitions = self.stream.definition.partitions;
        let mut places = (0..partitions).map(|number| self.place(stage, number)).cycle();
        for some in batches.chunks(LOADED_AT_ONCE) {
            let appends = some.iter().map(|batch| {
                let place = places.next().expect("a cycle has no end");
                Append { place, batch: batch.clone() }
            });
            self.log.append(appends.collect()).await.expect("fill the log");
        }
    }

    /// Runs a worker as the server does until its group has committed everything before `ends`, which
    /// holds an offset for each partition. Returns what it has committed then.
    pub(crate) async fn work(
        &self,
        (stage, group): (Stage, Group),
        sink: Box<dyn Sink>,
        ends: &[Offset],
    ) -> Checkpoint {
        let topic = self.stream.topic(stage);
        let share = (Selection::Topic(topic.clone()), group.clone());
        let clock = Arc::clone(&self.clock);
        let worker = Worker::open(self.log.as_ref(), share, sink, clock).await.expect("open the worker");
        let stop = CancellationToken::new();
        let done = async {
            loop {
                let committed = self.log.committed(&group, &topic).await.expect("read the progress");
                let is_there = |(number, end): (u32, &Offset)| {
                    committed.get(&Place::new(topic.clone(), Partition(number))) >= Some(*end)
                };
                if (0..).zip(ends).all(is_there) {
                    stop.cancel();
                    return committed;
                }
                tokio::time::sleep(self.look_every).await;
            }
        };
        let (ran, committed) = tokio::join!(worker.run(stop.clone()), done);
        ran.expect("run the worker");
        committed
    }

    /// Where each partition of a stage ends.
    pub(crate) async fn ends(&self, stage: Stage) -> Vec<Offset> {
        let mut ends = Vec::new();
        for number in 0..self.stream.definition.partitions {
            let bounds = self.log.bounds(&self.place(stage, number)).await.expect("read the bounds");
            ends.push(bounds.end);
        }
        ends
    }
}
