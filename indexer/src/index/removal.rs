//! Removing splits whose events are gone: by retention, or with their stream. The archive's objects
//! belong to the user and are not touched.

use std::cmp::Reverse;
use std::sync::Arc;

use broker::catalog::Streams;
use broker::{Partition, Result};
use futures::TryStreamExt;
use object_store::path::Path as Location;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::cover::Cover;
use super::upkeep::Upkeep;
use super::{Indexer, SplitName, StreamIndex, names};
use crate::split::Footer;

/// How often all splits are looked through after a stream was deleted. The second time is a round
/// later: a worker that did not know of it may have published just then.
const LOOKS: u32 = 2;

/// What is known of lives of streams that ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// How many have ended; the number never falls.
    lives: usize,
    looks_left: u32,
}

impl Upkeep {
    /// Drops the splits that lie wholly before the log's start. By their ends, the smaller ones
    /// first, so that what a crash leaves has no gap.
    pub(super) async fn drop_expired(
        &self,
        index: &StreamIndex,
        partition: Partition,
        cover: &Cover,
    ) -> Result<()> {
        let Some(oldest) = cover.path.iter().chain(&cover.rest).map(|split| split.end_offset).min() else {
            return Ok(());
        };
        let start = self.indexer.log.bounds(&index.place(partition)).await?.start;
        if start < oldest {
            return Ok(());
        }
        index.drop_before(partition, start);
        let splits = cover.path.iter().chain(&cover.rest);
        let mut expired: Vec<_> = splits.filter(|split| split.end_offset <= start).collect();
        expired.sort_by_key(|split| (split.end_offset, Reverse(split.first_offset)));
        for split in expired {
            let location = index.folder().split(SplitName::of(split));
            self.indexer.splits.remove(&location).await?;
            info!(%location, events = split.count, "removed a split that is older than the log");
        }
        Ok(())
    }

    /// Removes the splits of streams that were deleted. After a crash everything is looked through
    /// again.
    pub(crate) async fn clear_ended(&mut self) {
        let streams = self.indexer.catalog.all();
        let lives = streams.iter().map(|stream| stream.ended_lives()).sum();
        if lives != self.ended.lives {
            self.ended = Ended { lives, looks_left: LOOKS };
        }
        if self.ended.looks_left == 0 {
            return;
        }
        self.indexer.release_ended();
        match self.remove_ended(&streams).await {
            Ok(()) => self.ended.looks_left -= 1,
            Err(error) => warn!(%error, "splits of deleted streams stay for now"),
        }
    }

    async fn remove_ended(&self, streams: &Streams) -> Result<()> {
        let every = self.indexer.splits.every();
        let ended: Vec<Location> = every
            .try_filter(|location| std::future::ready(has_ended(streams, location)))
            .try_collect()
            .await?;
        for location in &ended {
            if self.stop.is_cancelled() {
                return Ok(());
            }
            self.indexer.splits.remove(location).await?;
        }
        if !ended.is_empty() {
            info!(splits = ended.len(), "removed the splits of deleted streams");
        }
        Ok(())
    }
}

impl Indexer {
    /// Removes local copies of splits that are no more, until `stop`: for a process that only
    /// queries. [`Indexer::keep_splits`] does so as well.
    pub async fn keep_copies(self: Arc<Self>, stop: CancellationToken) -> Result<()> {
        let mut rounds = tokio::time::interval(self.limits.upkeep_interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = rounds.tick() => self.clear_copies().await,
            }
        }
    }

    /// Removes local copies of splits that others removed. Those that this process did not open
    /// since it started would not be evicted either.
    pub(crate) async fn clear_copies(&self) {
        self.release_ended();
        let copies = match self.splits.copies().await {
            Ok(copies) => copies,
            Err(error) => {
                warn!(%error, "the split cache is not cleaned up");
                return;
            }
        };
        for location in copies {
            if !self.is_needed(&location).await {
                self.splits.forget(&location).await;
            }
        }
    }

    /// Whether a copy may be that of a split. Files that are none are left alone.
    async fn is_needed(&self, location: &Location) -> bool {
        let Some((name, life, split)) = names::read(location) else { return true };
        let Ok(stream) = self.catalog.get(&name) else { return false };
        if stream.definition.incarnation != life {
            return false;
        }
        let index = self.of(&stream);
        let is_published = |footer: &Arc<Footer>| SplitName::of(footer) == split;
        index.listing.lock().await.may_have(&split) || index.splits(split.partition).iter().any(is_published)
    }
}

fn has_ended(streams: &Streams, location: &Location) -> bool {
    let Some((name, life, _)) = names::read(location) else { return false };
    streams.get(&name).is_some_and(|stream| stream.has_ended(life))
}
