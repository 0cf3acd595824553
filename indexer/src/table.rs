//! Keyed tables: the last row of each key of a stream, on this machine.
//!
//! A worker for each stream that has tables reads its processed topic from where its tables are, and each process
//! has all partitions, so that a read asks nobody. What is on disk can be removed: it is made again from the log.

mod people;
mod read;
mod row;
mod rows;
mod sink;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use broker::catalog::{Stream, Streams, Table};
use broker::{
    Catalog, Clock, Error, Group, Kind, Log, Result, ResultExt as _, Selection, Stage, StreamName, Worker,
};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use object_store::ObjectStore;
use sha1::{Digest as _, Sha1};
use tokio_util::sync::CancellationToken;

use self::people::People;
use self::rows::{Rows, Spec};
use self::sink::TableSink;
use self::snapshot::Snapshots;
use self::store::{Store, Tree};
use crate::index::blocking;

pub(crate) use self::people::Profile;
pub(crate) use self::read::{Through, check_keys, page_rows};
pub(crate) use self::row::Row;

/// The dataset of who became whom.
const ALIASES: &str = "link_users";
/// The dataset of what is told of users.
const PROFILES: &str = "user_profiles";
/// The version of both streams.
const PEOPLE_VERSION: &str = "1";

/// How much tables take and how long who reads them waits.
#[derive(Clone, Debug)]
pub struct TableLimits {
    /// How long a read waits at most for a record to be in the table.
    pub wait_max: Duration,
    /// What the store keeps in memory, in bytes.
    pub cache_bytes: u64,
    /// How long what came waits at most until it is in a snapshot.
    pub snapshot_age: Duration,
}

impl Default for TableLimits {
    fn default() -> Self {
        let (wait_max, snapshot_age) = (Duration::from_secs(5), Duration::from_secs(3_600));
        Self { wait_max, cache_bytes: 256 << 20, snapshot_age }
    }
}

/// What tables are made of.
pub(crate) struct TableParts {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) objects: Arc<dyn ObjectStore>,
    pub(crate) directory: PathBuf,
    /// The name of this process, which no other on the same log has.
    pub(crate) node: String,
    /// Whether profiles of users are kept.
    pub(crate) profiles: bool,
    pub(crate) limits: TableLimits,
}

/// The tables of this process.
pub(crate) struct Tables {
    log: Arc<dyn Log>,
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    node: String,
    profiles: bool,
    limits: TableLimits,
    store: Arc<Store>,
    snapshots: Snapshots,
    named: Mutex<Named>,
}

/// The tables by their names, as of some state of the catalog.
#[derive(Default)]
struct Named {
    streams: Option<Arc<Streams>>,
    tables: HashMap<String, Arc<NamedTable>>,
}

/// A table of the catalog.
pub(crate) struct NamedTable {
    pub(crate) stream: Arc<Stream>,
    table: Table,
    /// Once it was read.
    opened: OnceLock<OpenTable>,
}

/// A table that can be read.
#[derive(Clone)]
pub(crate) struct OpenTable {
    pub(crate) stream: Arc<Stream>,
    tree: Arc<Tree>,
}

/// A life of a stream with its tables, for which there is a worker.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Share {
    stream: StreamName,
    ids: Vec<String>,
}

impl Tables {
    pub(crate) fn new(parts: TableParts) -> Arc<Self> {
        let TableParts { log, catalog, clock, objects, directory, node, profiles, limits } = parts;
        let store = Arc::new(Store::new(directory, limits.cache_bytes));
        let (snapshots, named) = (Snapshots::new(objects), Mutex::default());
        Arc::new(Self { log, catalog, clock, node, profiles, limits, store, snapshots, named })
    }

    /// The table of this name.
    pub(crate) fn find(&self, name: &str) -> Result<Arc<NamedTable>> {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = self.catalog.all();
        if !named.streams.as_ref().is_some_and(|known| Arc::ptr_eq(known, &streams)) {
            named.tables.clear();
            for stream in streams.iter().filter(|stream| !stream.definition.deleted) {
                for table in &stream.definition.tables {
                    let (stream, table, opened) = (Arc::clone(stream), table.clone(), OnceLock::new());
                    // Of two that were made at once, the first.
                    let of = named.tables.entry(table.name.clone());
                    of.or_insert_with(|| Arc::new(NamedTable { stream, table, opened }));
                }
            }
            named.streams = Some(streams);
        }
        let found = named.tables.get(name).cloned();
        found.ok_or_else(|| Error::not_found(format!("there is no table {name}")))
    }

    /// Opens a table for reading.
    pub(crate) async fn open(&self, named: &NamedTable) -> Result<OpenTable> {
        if let Some(opened) = named.opened.get() {
            return Ok(opened.clone());
        }
        let spec = Spec::Defined(named.table.clone());
        let opened = self.open_spec(Arc::clone(&named.stream), spec).await?;
        Ok(named.opened.get_or_init(|| opened).clone())
    }

    async fn open_spec(&self, stream: Arc<Stream>, spec: Spec) -> Result<OpenTable> {
        let id = id(&stream, &spec)?;
        if let Some(tree) = self.store.opened_tree(&id) {
            return Ok(OpenTable { stream, tree });
        }
        let store = Arc::clone(&self.store);
        let tree = blocking(move || store.tree(&id, spec.ttl())).await?;
        Ok(OpenTable { stream, tree })
    }

    /// What is known of a user, with how far the streams of aliases and of profiles are in it.
    pub(crate) async fn profile(&self, user: &str) -> Result<(Option<Profile>, [Vec<Through>; 2])> {
        if !self.profiles {
            return Err(Error::not_found("no profiles are kept"));
        }
        let stream = |dataset| self.catalog.get(&StreamName::new(dataset, PEOPLE_VERSION)?);
        let aliases = self.open_spec(stream(ALIASES)?, Spec::Aliases).await?;
        let attributes = self.open_spec(stream(PROFILES)?, Spec::Attributes).await?;
        let through = [aliases.complete_through(), attributes.complete_through()];
        let (user, now) = (user.to_owned(), self.clock.now());
        let profile = blocking(move || {
            People { aliases: &aliases.tree, attributes: &attributes.tree, now }.profile(&user)
        });
        Ok((profile.await?, through))
    }

    /// What is to be made of a stream.
    fn specs(&self, stream: &Stream) -> Vec<Spec> {
        let mut specs: Vec<Spec> = stream.definition.tables.iter().cloned().map(Spec::Defined).collect();
        if self.profiles && stream.name().version() == PEOPLE_VERSION {
            match stream.name().dataset() {
                ALIASES => specs.push(Spec::Aliases),
                PROFILES => specs.push(Spec::Attributes),
                _ => {}
            }
        }
        specs
    }

    /// Every life of a stream that has tables.
    fn wanted(&self, streams: &Streams) -> Result<BTreeMap<Share, Arc<Stream>>> {
        let mut wanted = BTreeMap::new();
        for stream in streams.iter().filter(|stream| !stream.definition.deleted) {
            let ids = self.specs(stream).iter().map(|spec| id(stream, spec)).collect::<Result<Vec<_>>>()?;
            if !ids.is_empty() {
                wanted.insert(Share { stream: stream.name().clone(), ids }, Arc::clone(stream));
            }
        }
        Ok(wanted)
    }

    /// Keeps all tables of the catalog current, until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) -> Result<()> {
        let mut changes = self.catalog.watch();
        let mut running: BTreeMap<Share, CancellationToken> = BTreeMap::new();
        let mut workers: FuturesUnordered<BoxFuture<'_, (Share, Result<()>)>> = FuturesUnordered::new();
        let ended = loop {
            let wanted = self.wanted(&changes.borrow_and_update().clone())?;
            for (_, token) in running.iter().filter(|(share, _)| !wanted.contains_key(share)) {
                token.cancel();
            }
            // Where tables change, those before are let go of first: both would be one group.
            let is_free = |share: &Share| !running.keys().any(|other| other.stream == share.stream);
            let free: Vec<_> = wanted.iter().filter(|(share, _)| is_free(share)).collect();
            for (share, stream) in free {
                let token = stop.child_token();
                running.insert(share.clone(), token.clone());
                let (share, stream) = (share.clone(), Arc::clone(stream));
                workers.push(Box::pin(async { (share, self.work(stream, token).await) }));
            }
            if running.keys().all(|share| wanted.contains_key(share)) {
                let kept: BTreeSet<String> = wanted.into_keys().flat_map(|share| share.ids).collect();
                let store = Arc::clone(&self.store);
                blocking(move || store.keep(|id| kept.contains(id))).await?;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                Some((share, worked)) = workers.next() => {
                    running.remove(&share);
                    if worked.is_err() {
                        break worked;
                    }
                }
                changed = changes.changed() => changed.or_error(Kind::Internal, "follow the catalog")?,
            }
        };
        running.values().for_each(CancellationToken::cancel);
        while let Some((_, worked)) = workers.next().await {
            worked?;
        }
        let store = Arc::clone(&self.store);
        blocking(move || store.flush()).await?;
        ended
    }

    async fn work(&self, stream: Arc<Stream>, stop: CancellationToken) -> Result<()> {
        let mut tables = Vec::new();
        for spec in self.specs(&stream) {
            let (store, id) = (Arc::clone(&self.store), id(&stream, &spec)?);
            let (opening, ttl) = (id.clone(), spec.ttl());
            let tree = blocking(move || store.tree(&opening, ttl)).await?;
            if stop.run_until_cancelled(self.restore(&stream, &id, &tree)).await.is_none() {
                return Ok(());
            }
            tables.push((Rows::new(spec)?, tree));
        }
        let topic = stream.topic(Stage::Processed);
        let digest = digest(topic.name().as_bytes());
        let group = Group::new(format!("tables.{}.{digest}", self.node));
        let sink = Box::new(TableSink::new(stream, tables, Arc::clone(&self.clock)));
        let share = (Selection::Topic(topic), group);
        let worker = Worker::open(&*self.log, share, sink, Arc::clone(&self.clock)).await?;
        worker.run(stop).await
    }
}

/// The name of a table's tree: another one where the stream lives again, or the table is defined otherwise.
fn id(stream: &Stream, spec: &Spec) -> Result<String> {
    let digest = match spec {
        Spec::Defined(table) => digest(&serde_json::to_vec(table).or_error(Kind::Internal, "name a table")?),
        // The form of their rows.
        Spec::Aliases | Spec::Attributes => "1".to_owned(),
    };
    Ok(format!("{}.{}.{}.{digest}", stream.name(), stream.definition.incarnation, spec.name()))
}

/// The beginning of a digest, in hexadecimal digits.
fn digest(bytes: &[u8]) -> String {
    let digest = Sha1::digest(bytes);
    let first: [u8; 8] = std::array::from_fn(|index| digest[index]);
    format!("{:016x}", u64::from_be_bytes(first))
}
