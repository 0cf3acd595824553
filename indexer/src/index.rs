//! The index: what of a stream can be found, and where it lies.
//!
//! ```text
//!   0 ………………………… published ………………… live end …… log end
//!   └ splits in object storage └ runs in memory  └ read when a query asks
//! ```
//! Everything here is a pure function of the log's processed topics. Nothing but published splits
//! outlives the process: the live part is read again from the log past the last split.

mod admission;
mod cover;
mod listing;
mod live;
mod merging;
mod names;
mod plan;
mod removal;
mod sink;
mod splits;
mod stream;
#[cfg(test)]
mod tests;
mod upkeep;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::access::webhook::Webhooks;
use broker::catalog::Stream;
use broker::{Catalog, Clock, Error, Kind, Log, Result, Sink, StreamName};
use chrono_tz::Tz;
use object_store::ObjectStore;
use proto::v1::tables_server::TablesServer;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(crate) use live::Run;
pub(crate) use names::SplitName;
pub(crate) use stream::{PartView, StreamIndex};

use splits::SplitStore;
use upkeep::Grown;

use crate::follow::Tails;
use crate::grpc::{EventsService, TablesService};
use crate::table::{TableLimits, TableParts, Tables};

/// What the index is made of.
pub struct Parts {
    /// Where the events are read from.
    pub log: Arc<dyn Log>,
    /// Which streams there are.
    pub catalog: Arc<Catalog>,
    /// Ages splits, and dates answers.
    pub clock: Arc<dyn Clock>,
    /// Where splits are published.
    pub objects: Arc<dyn ObjectStore>,
    /// Where splits are kept to be read. It may be deleted at any time.
    pub cache_directory: PathBuf,
    /// Ends what follows a stream, when the process stops.
    pub shutdown: CancellationToken,
    /// How much of everything.
    pub limits: Limits,
    /// Where days begin that events are counted by.
    pub zone: Tz,
    /// Who knows the tokens of those who subscribe with one.
    pub webhooks: Arc<dyn Webhooks>,
    /// Where tables lie.
    pub tables_directory: PathBuf,
    /// The name of this process, which no other on the same log has.
    pub node: String,
    /// Whether profiles of users are kept.
    pub profiles: bool,
}

/// How much the index takes, holds and answers.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A partition's live events are published once there are so many.
    pub split_events_max: usize,
    /// A partition's live events are published once they hold so many bytes.
    pub split_bytes_max: usize,
    /// A partition's live events are published once the oldest has waited so long.
    pub split_age_max: Duration,
    /// Live events are put together in runs of up to so many, each indexed as one when it is first
    /// searched.
    pub segment_events_max: usize,
    /// What all live events together may hold, in bytes; beyond it the largest are published early.
    pub staged_bytes_max: usize,
    /// The most events of one page.
    pub page_events_max: usize,
    /// Events of a page whose size was not given.
    pub page_events_default: usize,
    /// How long a query waits for the router and for the end of the log.
    pub query_wait_max: Duration,
    /// What one query reads from the log beyond the live part, in bytes, when that part is full; of each
    /// partition the same.
    pub query_read_bytes_max: usize,
    /// How many pages and counts are answered at the same time.
    pub queries_max: usize,
    /// How many exports run at the same time. Each holds a thread.
    pub exports_max: usize,
    /// How many followers there are at the same time. One that is slow holds a chunk or two of a
    /// quarter of a MiB.
    pub followers_max: usize,
    /// How many subscribers there are at the same time. One that is slow holds a chunk of a quarter of a
    /// MiB.
    pub subscribers_max: usize,
    /// What the local copies of splits may take, in bytes.
    pub cache_bytes_max: u64,
    /// How old the list of a stream's splits may be where another process publishes them.
    pub listing_age_max: Duration,
    /// How long the parts of a merged split stay, so that readers with an older list find them.
    pub split_grace: Duration,
    /// How often every stream's splits are looked after.
    pub upkeep_interval: Duration,
    /// How much tables take.
    pub tables: TableLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            split_events_max: 250_000,
            split_bytes_max: 64 << 20,
            split_age_max: Duration::from_secs(300),
            segment_events_max: 20_000,
            staged_bytes_max: 128 << 20,
            page_events_max: 10_000,
            page_events_default: 100,
            query_wait_max: Duration::from_secs(5),
            query_read_bytes_max: 32 << 20,
            queries_max: 64,
            exports_max: 64,
            followers_max: 1_000,
            subscribers_max: 20_000,
            cache_bytes_max: 8 << 30,
            listing_age_max: Duration::from_secs(3),
            split_grace: Duration::from_secs(600),
            upkeep_interval: Duration::from_secs(300),
            tables: TableLimits::default(),
        }
    }
}

/// The index with its two sides: the sink that writes it, and the doors that query it.
pub struct Indexer {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) limits: Limits,
    pub(crate) zone: Tz,
    pub(crate) splits: SplitStore,
    pub(crate) queries: Arc<Semaphore>,
    pub(crate) exports_open: Arc<Semaphore>,
    pub(crate) followers_open: Arc<Semaphore>,
    pub(crate) subscribers_open: Arc<Semaphore>,
    pub(crate) webhooks: Arc<dyn Webhooks>,
    pub(crate) tails: Tails,
    pub(crate) tables: Arc<Tables>,
    streams: Mutex<HashMap<StreamName, Arc<StreamIndex>>>,
    staged_bytes: Arc<AtomicUsize>,
    grown: Grown,
}

impl Indexer {
    /// The paths whose surface refuses by itself, in the words that its clients know.
    pub const LEFT_PATHS: [&str; 3] = ["/streams/", "/elasticsearch-queries/", "/event-data-subscription"];

    /// Nothing is read before the first query or the first record.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { log, catalog, clock, objects, cache_directory, shutdown, limits, zone, webhooks, .. } =
            parts;
        let tables = Tables::new(TableParts {
            log: log.clone(),
            catalog: catalog.clone(),
            clock: clock.clone(),
            objects: objects.clone(),
            directory: parts.tables_directory,
            node: parts.node,
            profiles: parts.profiles,
            limits: limits.tables.clone(),
        });
        Arc::new(Self {
            tables,
            log,
            catalog,
            clock,
            shutdown,
            splits: SplitStore::new(objects, cache_directory, limits.cache_bytes_max),
            queries: Arc::new(Semaphore::new(limits.queries_max)),
            exports_open: Arc::new(Semaphore::new(limits.exports_max)),
            followers_open: Arc::new(Semaphore::new(limits.followers_max)),
            subscribers_open: Arc::new(Semaphore::new(limits.subscribers_max)),
            webhooks,
            tails: Tails::default(),
            limits,
            zone,
            streams: Mutex::default(),
            staged_bytes: Arc::default(),
            grown: Grown::default(),
        })
    }

    /// What looks after published splits, to be driven by hand.
    #[cfg(test)]
    pub(crate) fn upkeep(self: &Arc<Self>) -> upkeep::Upkeep {
        upkeep::Upkeep::new(Arc::clone(self), self.shutdown.clone())
    }

    /// The sink of the group [`broker::Group::INDEX`] over every processed topic. One at a time.
    pub fn sink(self: &Arc<Self>) -> Box<dyn Sink> {
        Box::new(sink::IndexSink::new(Arc::clone(self)))
    }

    /// Keeps the tables current, until `stop`.
    pub async fn keep_tables(self: Arc<Self>, stop: CancellationToken) -> Result<()> {
        let kept = Arc::clone(&self.tables).run(stop.clone());
        tokio::try_join!(kept, self.tables.keep_snapshots(stop)).map(drop)
    }

    /// The query doors over HTTP. Who may call them is decided outside.
    pub fn router(self: &Arc<Self>) -> axum::Router {
        crate::http::router(Arc::clone(self))
    }

    /// The query doors over gRPC.
    pub fn grpc(self: &Arc<Self>) -> EventsService {
        EventsService::new(crate::grpc::Events::new(Arc::clone(self)))
    }

    /// The tables over gRPC.
    pub fn grpc_tables(self: &Arc<Self>) -> TablesServer<TablesService> {
        TablesService::server(Arc::clone(self))
    }

    /// The stream's index in this life of the stream. One of an earlier life is let go.
    pub(crate) fn of(&self, stream: &Stream) -> Arc<StreamIndex> {
        let incarnation = stream.definition.incarnation;
        let mut streams = lock(&self.streams);
        let known = streams.get(stream.name()).filter(|index| index.incarnation() == incarnation);
        let index = known.cloned().unwrap_or_else(|| {
            let index = Arc::new(StreamIndex::new(stream, Arc::clone(&self.staged_bytes)));
            streams.insert(stream.name().clone(), Arc::clone(&index));
            index
        });
        drop(streams);
        index.follow(stream);
        index
    }

    /// Lets go of the streams that ended.
    pub(crate) fn release_ended(&self) {
        let has_ended = |name: &StreamName, index: &StreamIndex| {
            let stream = self.catalog.get(name);
            stream.is_err() || stream.is_ok_and(|stream| stream.has_ended(index.incarnation()))
        };
        lock(&self.streams).retain(|name, index| !has_ended(name, index));
    }

    /// Whether the live parts hold all they may.
    pub(crate) fn is_full(&self) -> bool {
        self.staged_bytes.load(Ordering::Relaxed) >= self.limits.staged_bytes_max
    }

    /// Lets go of live parts that only queries filled; they are read again when they are wanted.
    pub(crate) fn release_unowned(&self) {
        let streams: Vec<Arc<StreamIndex>> = lock(&self.streams).values().cloned().collect();
        streams.iter().for_each(|index| index.release_unowned());
    }
}

/// Locks; a panic while a lock was held leaves whole values behind everywhere in this crate.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs blocking work off the runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::new(Kind::Internal, "index work panicked").with_source(error))?
}
