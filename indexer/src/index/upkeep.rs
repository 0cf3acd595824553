//! The life of splits after they are published: small ones are merged; what a merged split covers,
//! what lies before the log's start and what belonged to a deleted stream is removed. It runs beside
//! the sink, does one thing at a time, and no answer needs it: an error is told and tried again at
//! the next round.
//!
//! A merged split's part goes only after it was off its partition's path, and what covers it on the path, for
//! [`split_grace`](crate::Limits::split_grace) by this process's own looks. Until then a reader with
//! an older list finds it; later such a reader lists again. A node that sees another path for a
//! moment therefore removes nothing that others rely on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use broker::{Kind, Partition, Place, Result, StreamName, Timestamp};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::cover::Cover;
use super::removal::Ended;
use super::{Indexer, SplitName, StreamIndex, lock};
use crate::split::Footer;

/// The partitions that got a split since somebody looked; each is named once.
#[derive(Default)]
pub(super) struct Grown {
    places: Mutex<BTreeSet<Place>>,
    any: Notify,
}

impl Grown {
    pub(super) fn tell(&self, place: Place) {
        lock(&self.places).insert(place);
        self.any.notify_one();
    }

    /// Waits for some. Cancel-safe.
    async fn wait(&self) {
        self.any.notified().await;
    }

    fn take(&self) -> BTreeSet<Place> {
        std::mem::take(&mut *lock(&self.places))
    }
}

/// Keeps the splits of all streams; see the module.
pub(crate) struct Upkeep {
    pub(super) indexer: Arc<Indexer>,
    /// By stream and the life of it.
    seen: HashMap<(StreamName, u64), HashMap<SplitName, Seen>>,
    pub(super) ended: Ended,
    pub(super) stop: CancellationToken,
}

/// Since when a split is on its partition's path, or off it.
#[derive(Clone, Copy)]
struct Seen {
    is_on_path: bool,
    since: Timestamp,
}

impl Indexer {
    /// Keeps published splits few and removes what is not needed any more, until `stop`. Nodes may
    /// do so at the same time.
    pub async fn keep_splits(self: Arc<Self>, stop: CancellationToken) -> Result<()> {
        let mut rounds = tokio::time::interval(self.limits.upkeep_interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = self.catalog.watch();
        let mut upkeep = Upkeep::new(Arc::clone(&self), stop.clone());
        loop {
            let is_round = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = rounds.tick() => true,
                _ = changes.changed() => false,
                () = self.grown.wait() => false,
            };
            upkeep.merge_grown().await;
            if is_round {
                upkeep.round().await;
            } else {
                upkeep.clear_ended().await;
            }
        }
    }
}

impl Upkeep {
    pub(crate) fn new(indexer: Arc<Indexer>, stop: CancellationToken) -> Self {
        Self { indexer, seen: HashMap::new(), ended: Ended::default(), stop }
    }

    /// Merges what the sink's last splits make worth merging.
    pub(crate) async fn merge_grown(&mut self) {
        for place in self.indexer.grown.take() {
            let name = place.topic.stream();
            let Some(stream) = name.and_then(|name| self.indexer.catalog.get(name).ok()) else { continue };
            let index = self.indexer.of(&stream);
            let merged = self.merge(&index, place.partition).await;
            tell(&index, merged);
        }
    }

    /// Looks after every stream once.
    pub(crate) async fn round(&mut self) {
        self.clear_ended().await;
        let streams = self.indexer.catalog.list();
        let is_here = |(name, life): &(StreamName, u64)| {
            streams.iter().any(|stream| (stream.name(), stream.definition.incarnation) == (name, *life))
        };
        self.seen.retain(|key, _| is_here(key));
        for stream in streams {
            let index = self.indexer.of(&stream);
            let kept = self.keep(&index).await;
            tell(&index, kept);
            if self.stop.is_cancelled() {
                return;
            }
        }
        self.indexer.clear_copies().await;
    }

    async fn keep(&mut self, index: &StreamIndex) -> Result<()> {
        let listed_at = self.indexer.clock.now();
        let covers = self.indexer.list_again(index).await?;
        for name in self.superseded(index, &covers, listed_at) {
            // A removal that comes late might not know what others have done since.
            if self.indexer.clock.now().since(listed_at) > self.indexer.limits.split_grace / 2 {
                break;
            }
            let location = index.folder().split(name);
            self.indexer.splits.remove(&location).await?;
            info!(%location, "removed a split that others cover");
        }
        for (partition, cover) in covers {
            // One damaged split must not hold up the other partitions.
            let kept = self.keep_partition(index, partition, &cover).await;
            tell(index, kept);
        }
        Ok(())
    }

    async fn keep_partition(&self, index: &StreamIndex, partition: Partition, cover: &Cover) -> Result<()> {
        self.drop_expired(index, partition, cover).await?;
        self.merge(index, partition).await
    }

    async fn merge(&self, index: &StreamIndex, partition: Partition) -> Result<()> {
        while !self.stop.is_cancelled() && self.indexer.merge_next(index, partition).await? {}
        Ok(())
    }

    /// Takes in what is listed, and says what may be removed.
    fn superseded(
        &mut self,
        index: &StreamIndex,
        covers: &BTreeMap<Partition, Cover>,
        now: Timestamp,
    ) -> Vec<SplitName> {
        let seen = self.seen.entry((index.name().clone(), index.incarnation())).or_default();
        let before = std::mem::take(seen);
        for cover in covers.values() {
            let on = cover.path.iter().map(|split| (split, true));
            for (split, is_on_path) in on.chain(cover.rest.iter().map(|split| (split, false))) {
                let name = SplitName::of(split);
                let same = before.get(&name).filter(|seen| seen.is_on_path == is_on_path);
                seen.insert(name, same.copied().unwrap_or(Seen { is_on_path, since: now }));
            }
        }
        let grace = self.indexer.limits.split_grace;
        let is_settled = |split: &Arc<Footer>| {
            seen.get(&SplitName::of(split)).is_some_and(|seen| now.since(seen.since) >= grace)
        };
        let is_superseded = |cover: &Cover, split: &Arc<Footer>| {
            let mut covering = cover.path.iter().filter(|other| overlap(other, split));
            is_settled(split) && covering.all(is_settled)
        };
        let superseded = covers.values().flat_map(|cover| {
            cover
                .rest
                .iter()
                .filter(move |split| is_superseded(cover, split))
                .map(|split| SplitName::of(split))
        });
        superseded.collect()
    }
}

fn overlap(one: &Footer, other: &Footer) -> bool {
    one.first_offset < other.end_offset && other.first_offset < one.end_offset
}

/// Nothing is lost by what could not be done now; a damaged split needs an operator.
fn tell(index: &StreamIndex, result: Result<()>) {
    let stream = index.name();
    match result {
        Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Internal) => {
            error!(%stream, %error, "splits are left as they are");
        }
        Err(error) => warn!(%stream, %error, "splits are left as they are for now"),
        Ok(()) => {}
    }
}
