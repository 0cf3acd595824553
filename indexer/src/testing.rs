//! What tests of this crate stand on: a sled log, a catalog and an object store, all real.

use std::path::PathBuf;
use std::sync::Arc;

use broker::access::webhook::NoWebhooks;
use broker::access::{ADMINISTRATOR, Grant};
use broker::catalog::{Draft, Stream};
use broker::log::sled::{SledLog, SledOptions};
use broker::time::ManualClock;
use broker::{
    Append, Batch, Catalog, Checkpoint, Clock, Log, Offset, Origin, Partition, Permission, Place, Position,
    Record, Result, Sink, Stage, Timestamp,
};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::query::{Asked, Page};
use crate::split::{FORMAT, Footer};
use crate::{Indexer, Limits, Parts};

/// 2001-01-01T00:00:00Z in seconds.
pub(crate) const EPOCH: i64 = 978_307_200;

/// A log, a catalog with one stream, and an indexer.
pub(crate) struct Bench {
    pub(crate) directory: TempDir,
    pub(crate) log: Arc<SledLog>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) stream: Arc<Stream>,
    pub(crate) indexer: Arc<Indexer>,
    pub(crate) limits: Limits,
}

impl Bench {
    /// A stream `flights/1` of three partitions.
    pub(crate) async fn new(limits: Limits) -> Self {
        let directory = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis((EPOCH + 3_600) * 1_000).unwrap()));
        let options = SledOptions::at(directory.path().join("log"));
        let log = SledLog::open(options, clock.clone()).await.unwrap();
        let catalog = Catalog::open(log.clone(), clock.clone()).await.unwrap();
        let draft = Draft {
            dataset: "flights".to_owned(),
            version: "1".to_owned(),
            partitions: Some(3),
            ..Draft::default()
        };
        let stream = catalog.create(draft, ADMINISTRATOR).await.unwrap();
        let folder = directory.path().join("objects");
        std::fs::create_dir_all(&folder).unwrap();
        let objects: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder).unwrap());
        let shutdown = CancellationToken::new();
        let parts = Parts {
            log: log.clone(),
            catalog: catalog.clone(),
            clock: clock.clone(),
            objects: objects.clone(),
            cache_directory: directory.path().join("cache"),
            shutdown: shutdown.clone(),
            limits: limits.clone(),
            zone: chrono_tz::Tz::UTC,
            webhooks: Arc::new(NoWebhooks),
            tables_directory: directory.path().join("tables"),
            node: "test".to_owned(),
            profiles: true,
        };
        let indexer = Indexer::new(parts);
        Self { directory, log, catalog, clock, objects, shutdown, stream, indexer, limits }
    }

    /// Another indexer on the same log and objects, which knows nothing yet; `cache` names its
    /// folder.
    pub(crate) fn another(&self, cache: &str) -> Arc<Indexer> {
        self.another_on(cache, self.objects.clone(), self.limits.clone())
    }

    /// The same with its own view of the object store, and limits of its own.
    pub(crate) fn another_on(
        &self,
        cache: &str,
        objects: Arc<dyn ObjectStore>,
        limits: Limits,
    ) -> Arc<Indexer> {
        Indexer::new(Parts {
            log: self.log.clone(),
            catalog: self.catalog.clone(),
            clock: self.clock.clone(),
            objects,
            cache_directory: self.directory.path().join(cache),
            shutdown: self.shutdown.clone(),
            limits,
            zone: chrono_tz::Tz::UTC,
            webhooks: Arc::new(NoWebhooks),
            tables_directory: self.directory.path().join(format!("tables-{cache}")),
            node: cache.to_owned(),
            profiles: true,
        })
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.directory.path().join("cache")
    }

    pub(crate) fn place(&self, stage: Stage, partition: u32) -> Place {
        Place::new(self.stream.topic(stage), Partition(partition))
    }

    /// Appends records to one partition and answers the first one's offset.
    pub(crate) async fn append(&self, stage: Stage, partition: u32, records: &[Record]) -> Offset {
        let batch = Batch::of(records).unwrap();
        let append = Append { place: self.place(stage, partition), batch };
        self.log.append(vec![append]).await.unwrap()[0].offset(0)
    }

    /// Says what `ann` may do with `flights`, instead of what she might before.
    pub(crate) async fn grant_ann(&self, permissions: &[Permission]) {
        let (mut writes, id) = (self.catalog.writes(ADMINISTRATOR), Grant::id_of("flights", "ann"));
        let (dataset, principal) = ("flights".to_owned(), "ann".to_owned());
        let permissions = permissions.iter().copied().collect();
        let grant = Grant { dataset, principal, is_owner: false, permissions };
        writes.set(id.clone(), self.catalog.version::<Grant>(&id), &grant).unwrap();
        self.catalog.write(writes).await.unwrap();
    }

    /// A record of some seconds after [`EPOCH`], made from a raw record at the same seconds.
    pub(crate) fn record(&self, seconds: i64, key: Option<&str>, value: &str) -> Record {
        let mut record = Record::new(value.to_owned(), self.clock.now());
        record.time = Timestamp::from_micros((EPOCH + seconds) * 1_000_000).unwrap();
        record.key = key.map(|key| key.to_owned().into());
        let offset = Offset(u64::try_from(seconds).unwrap());
        record.origin = Some(Origin { partition: Partition(0), offset });
        record
    }

    /// The first page of a query.
    pub(crate) async fn page(&self, indexer: &Indexer, asked: &Asked, limit: usize) -> Result<Page> {
        let stream = indexer.stream(self.stream.name()).await?;
        let query = indexer.query(stream, asked)?;
        indexer.page(&query, query.wanted(None, limit)?, Ok).await
    }

    /// How many events a query finds.
    pub(crate) async fn count(&self, indexer: &Indexer, asked: &Asked) -> Result<u64> {
        let stream = indexer.stream(self.stream.name()).await?;
        let query = indexer.query(stream, asked)?;
        Ok(indexer.count(&query).await?.0)
    }

    /// The names of the splits in the object store, sorted.
    pub(crate) fn splits(&self) -> Vec<String> {
        let folder = self.directory.path().join("objects/index/green/flights/version=1");
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// A sink that is driven by hand, as a worker would.
pub(crate) struct Driver {
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) reached: Checkpoint,
    pub(crate) through: Checkpoint,
}

impl Driver {
    /// Resumes every partition of the stream as if nothing had been committed.
    pub(crate) async fn open(bench: &Bench, indexer: &Arc<Indexer>) -> Self {
        let mut sink = indexer.sink();
        let places = (0..3).map(|partition| (bench.place(Stage::Processed, partition), Offset(0)));
        let committed: Checkpoint = places.collect();
        let reached = sink.resume(&committed).await.unwrap();
        Self { sink, reached, through: committed }
    }

    /// Hands on what about `bytes_max` bytes of each partition hold, then flushes.
    pub(crate) async fn step(&mut self, bench: &Bench, bytes_max: usize) -> Result<()> {
        let mut chunks = Vec::new();
        let places: Vec<(Place, Offset)> =
            self.reached.iter().map(|(place, next)| (place.clone(), next)).collect();
        for (place, offset) in places {
            let chunk = bench.log.read(&Position { place: place.clone(), offset }, bytes_max).await?;
            if chunk.next > offset {
                self.reached.set(place, chunk.next);
                chunks.push(chunk);
            }
        }
        assert!(self.sink.write(chunks).await?.is_empty());
        let flushed = self.sink.flush(&self.reached).await?;
        self.through.merge(&flushed.through);
        Ok(())
    }
}

/// The footer of a split that covers some offsets and holds one event.
pub(crate) fn footer(first: u64, end: u64) -> Footer {
    Footer {
        format: FORMAT,
        stream: "flights/1".to_owned(),
        incarnation: 1,
        partition: Partition(0),
        first_offset: Offset(first),
        end_offset: Offset(end),
        count: 1,
        time_min: Timestamp::MIN,
        time_max: Timestamp::MAX,
        bytes: 0,
        is_merged: false,
        is_json: false,
        files: Vec::new(),
    }
}

/// Runs what is kept running beside `body`, and stops it then.
pub(crate) async fn beside<T, Kept>(
    keep: impl FnOnce(CancellationToken) -> Kept,
    body: impl Future<Output = T>,
) -> T
where
    Kept: Future<Output = Result<()>>,
{
    let stop = CancellationToken::new();
    let body = async {
        let out = body.await;
        stop.cancel();
        out
    };
    let (kept, out) = tokio::join!(keep(stop.clone()), body);
    kept.unwrap();
    out
}
