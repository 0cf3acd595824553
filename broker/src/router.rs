//! The sink from raw to processed: applies each stream's transform and hands the results back as
//! appends, so that outputs, dead letters and progress are committed as one step.

mod counts;
mod route;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::num::NonZero;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;
use tracing::{debug, info};

use crate::catalog::{Catalog, Change, Stream, Streams};
use crate::checkpoint::{Checkpoint, Place};
use crate::error::{Kind, Result, ResultExt};
use crate::log::{Append, Chunk, Parcel};
use crate::sink::{Flushed, Rejection, Sink};
use crate::topic::{Offset, Partition, Stage, StreamName, Topic};
use crate::transform::{Transform, compile, on_large_stack};

use self::counts::Counts;
use self::route::{Route, Routed};

/// Events of fewer bytes are transformed on one thread.
const SIDE_BY_SIDE_BYTES_MIN: usize = 256 << 10;

/// Routes raw records. A changed transform takes effect, partition by partition, at the offset that
/// this router has reached when it learns of it; the catalog records that offset in the same step
/// as the first outputs, so that a replay applies the same version to the same record.
pub struct Router {
    catalog: Arc<Catalog>,
    /// What changed in the catalog since idle partitions were last looked at.
    changes: watch::Receiver<Arc<Streams>>,
    compiled: HashMap<CompiledKey, Arc<dyn Transform>>,
    activations: Vec<Activation>,
    /// How far every partition has come, idle ones too.
    reached: Checkpoint,
    outputs: Vec<Append>,
    counts: Counts,
}

/// A stream, its incarnation and a transform's version.
type CompiledKey = (StreamName, u64, u32);

/// A version that takes effect with the next commit.
#[derive(Clone)]
struct Activation {
    stream: StreamName,
    incarnation: u64,
    version: u32,
    partition: Partition,
    offset: Offset,
    is_staged: bool,
}

impl Router {
    /// A router for every stream of the catalog.
    pub fn new(catalog: Arc<Catalog>) -> Self {
        let mut changes = catalog.watch();
        changes.mark_changed();
        let (compiled, activations, reached) = Default::default();
        let (outputs, counts) = Default::default();
        Self { catalog, changes, compiled, activations, reached, outputs, counts }
    }

    /// The stream of a raw topic with what this router activated itself; none if it is gone.
    async fn stream(&mut self, topic: &Topic) -> Result<Option<Arc<Stream>>> {
        let Some(name) = topic.stream() else { return Ok(None) };
        if self.catalog.get(name).is_err() {
            self.catalog.refresh().await?;
        }
        let Ok(mut stream) = self.catalog.get(name) else { return Ok(None) };
        if stream.topic(Stage::Raw) != *topic {
            return Ok(None);
        }
        for activation in &self.activations {
            if activation.is_for(&stream) {
                Arc::make_mut(&mut stream).activate(
                    activation.version,
                    activation.partition,
                    activation.offset,
                );
            }
        }
        Ok(Some(stream))
    }

    /// Lets every version that is pending in a partition take effect at `offset`.
    fn activate_pending(&mut self, stream: &mut Arc<Stream>, partition: Partition, offset: Offset) {
        let pending: Vec<u32> =
            stream.pending_transforms(partition).map(|transform| transform.version).collect();
        for version in pending {
            Arc::make_mut(stream).activate(version, partition, offset);
            let incarnation = stream.definition.incarnation;
            let stream = stream.name().clone();
            info!(%stream, %partition, %offset, version, "transform takes effect");
            self.activations.push(Activation {
                stream,
                incarnation,
                version,
                partition,
                offset,
                is_staged: false,
            });
        }
    }

    /// Lets pending versions take effect where no record may come for long. Partitions that records
    /// come from are seen to when those are written.
    async fn activate_idle(&mut self) -> Result<()> {
        let streams = self.changes.borrow_and_update().clone();
        let changed =
            |stream: &&Arc<Stream>| !stream.definition.deleted && stream.definition.transforms.len() > 1;
        for stream in streams.iter().filter(changed) {
            let raw = stream.topic(Stage::Raw);
            let Some(mut current) = self.stream(&raw).await? else { continue };
            for partition in stream.partitions() {
                if let Some(next) = self.reached.get(&Place::new(raw.clone(), partition)) {
                    self.activate_pending(&mut current, partition, next);
                }
            }
        }
        Ok(())
    }

    /// Every version of a stream's transform, compiled off the runtime the first time.
    async fn transforms(&mut self, stream: &Stream) -> Result<BTreeMap<u32, Arc<dyn Transform>>> {
        let definition = &stream.definition;
        let mut transforms = BTreeMap::new();
        for transform in &definition.transforms {
            let key = (stream.name().clone(), definition.incarnation, transform.version);
            let compiled = match self.compiled.get(&key) {
                Some(compiled) => compiled.clone(),
                None => {
                    let program = transform.program.clone();
                    let compiling = tokio::task::spawn_blocking(move || compile(program.as_deref()));
                    let compiled = compiling.await.or_error(Kind::Internal, "compile a transform")??;
                    self.compiled.insert(key, compiled.clone());
                    compiled
                }
            };
            transforms.insert(transform.version, compiled);
        }
        Ok(transforms)
    }

    /// The catalog records of activations that were not handed out yet.
    fn stage_activations(&mut self) -> Result<Vec<Append>> {
        let streams = self.changes.borrow().clone();
        self.activations.retain(|activation| {
            let stream = streams.get(&activation.stream);
            stream.is_some_and(|stream| {
                activation.is_for(stream)
                    && stream.activation(activation.version, activation.partition).is_none()
            })
        });
        let mut appends = Vec::new();
        for activation in self.activations.iter_mut().filter(|activation| !activation.is_staged) {
            activation.is_staged = true;
            appends.push(self.catalog.settlement(activation.change())?);
        }
        Ok(appends)
    }
}

impl Activation {
    fn is_for(&self, stream: &Stream) -> bool {
        self.stream == *stream.name() && self.incarnation == stream.definition.incarnation
    }

    fn change(&self) -> Change {
        Change::Activate {
            dataset: self.stream.dataset().to_owned(),
            version: self.stream.version().to_owned(),
            incarnation: self.incarnation,
            transform_version: self.version,
            partition: self.partition,
            offset: self.offset,
        }
    }
}

#[async_trait]
impl Sink for Router {
    async fn resume(&mut self, committed: &Checkpoint) -> Result<Checkpoint> {
        self.catalog.refresh().await?;
        Ok(committed.clone())
    }

    async fn write(&mut self, chunks: Vec<Chunk>) -> Result<Vec<Rejection>> {
        self.write_parcels(chunks.into_iter().map(Parcel::from).collect()).await
    }

    async fn write_parcels(&mut self, parcels: Vec<Parcel>) -> Result<Vec<Rejection>> {
        self.counts.tell();
        let mut routes = Vec::new();
        for parcel in parcels {
            let Some(first) = parcel.first() else { continue };
            let Some(mut stream) = self.stream(&parcel.place.topic).await? else {
                debug!(place = %parcel.place, "leaving out records of a stream that is gone");
                continue;
            };
            self.activate_pending(&mut stream, parcel.place.partition, first);
            let transforms = self.transforms(&stream).await?;
            routes.push(Route::new(parcel, (stream, transforms)));
        }
        if routes.is_empty() {
            return Ok(Vec::new());
        }
        let mut rejections = Vec::new();
        let mut running = run_all(routes);
        while let Some(routed) = running.next().await {
            for routed in routed? {
                let routed = routed?;
                self.counts.stage(&routed.stream, routed.counts);
                self.outputs.extend(routed.outputs);
                rejections.extend(routed.rejections);
            }
        }
        Ok(rejections)
    }

    async fn flush(&mut self, upto: &Checkpoint) -> Result<Flushed> {
        self.counts.flush();
        self.reached.merge(upto);
        if self.changes.has_changed().unwrap_or(false) {
            self.activate_idle().await?;
        }
        let mut appends = std::mem::take(&mut self.outputs);
        appends.extend(self.stage_activations()?);
        Ok(Flushed { through: upto.clone(), appends })
    }
}

/// Runs transforms off the runtime: parcel by parcel and side by side where there is much to transform,
/// all in a row where it would not be worth the threads. What comes of them comes in their order.
fn run_all(routes: Vec<Route>) -> BoxStream<'static, Result<Vec<Result<Routed>>>> {
    let is_much = routes.iter().map(Route::weight).sum::<usize>() >= SIDE_BY_SIDE_BYTES_MIN;
    let parts: Vec<Vec<Route>> =
        if is_much { routes.into_iter().map(|route| vec![route]).collect() } else { vec![routes] };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let running = parts.into_iter().map(|routes| async {
        let run = move || on_large_stack(|| routes.into_iter().map(Route::run).collect());
        tokio::task::spawn_blocking(run).await.or_error(Kind::Internal, "run transforms")
    });
    stream::iter(running).buffered(threads).boxed()
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("outputs", &self.outputs.len()).finish_non_exhaustive()
    }
}
