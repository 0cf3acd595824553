//! The sink: stages processed records in the live part and publishes them as splits.
//!
//! A split is named by its stream's life, its partition and its first offset, and put only if
//! absent. It begins where the one before ended, so of two workers that race one wins and the other
//! takes the winner's end over. Progress is where the published splits end: staged records are read
//! again after a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use broker::catalog::{SinkKind, Streams, Unsettled};
use broker::{
    Checkpoint, Chunk, Entry, Error, Flushed, Kind, Offset, Place, Rejection, Result, Settled, Sink,
    Timestamp,
};
use tokio::sync::watch;
use tracing::{debug, info};

use super::splits::Published;
use super::{Indexer, Run, SplitName, StreamIndex, blocking};
use crate::split::{self, FORMAT, Footer};
use crate::switches::{self, Switches};

/// What the index worker writes to.
pub(super) struct IndexSink {
    indexer: Arc<Indexer>,
    owned: BTreeMap<Place, Arc<StreamIndex>>,
    /// The partitions of which something is staged, or was read since the last flush. A flush looks
    /// at no others, so that a tick does not depend on how many there are.
    busy: BTreeSet<Place>,
    changes: watch::Receiver<Arc<Streams>>,
    switches: Switches,
}

impl IndexSink {
    pub(super) fn new(indexer: Arc<Indexer>) -> Self {
        let changes = indexer.catalog.watch();
        let switches = Switches::new(&indexer.catalog, SinkKind::Index, indexer.splits.objects());
        Self { indexer, owned: BTreeMap::new(), busy: BTreeSet::new(), changes, switches }
    }

    /// The index that takes what comes to a partition; none if it is off there, or its stream is gone.
    fn index_of(&self, place: &Place) -> Option<Arc<StreamIndex>> {
        let stream = switches::stream(&self.indexer.catalog, place)?;
        stream.is_open(SinkKind::Index, place.partition).then(|| self.indexer.of(&stream))
    }

    /// Whether a partition is read again from where the index was switched on there, as soon as that is
    /// settled.
    fn is_to_begin(&self, place: &Place) -> bool {
        let stream = switches::stream(&self.indexer.catalog, place);
        let unsettled = stream.and_then(|stream| stream.unsettled(SinkKind::Index, place.partition));
        matches!(unsettled, Some(Unsettled::Begin { .. }))
    }

    /// The same, sure that the stream was not defined by another process a moment ago.
    async fn index_of_new(&self, place: &Place) -> Result<Option<Arc<StreamIndex>>> {
        let name = place.topic.stream();
        if name.is_some_and(|name| self.indexer.catalog.get(name).is_err()) {
            self.indexer.catalog.refresh().await?;
        }
        Ok(self.index_of(place))
    }

    /// The partitions that should be published now.
    fn due(&self, now: Timestamp) -> Vec<Place> {
        let limits = &self.indexer.limits;
        let owned = self.busy.iter().filter_map(|place| Some((place, self.owned.get(place)?)));
        let staged = owned.map(|(place, index)| (place, index.staged(place.partition)));
        let mut staged: Vec<_> = staged.filter(|(_, staged)| staged.count > 0).collect();
        let is_due = |staged: &super::stream::Staged| {
            staged.is_ending
                || staged.count >= limits.split_events_max
                || staged.bytes >= limits.split_bytes_max
                || staged.since.is_some_and(|since| now.since(since) >= limits.split_age_max)
        };
        let mut due: Vec<Place> =
            staged.iter().filter(|(_, staged)| is_due(staged)).map(|(place, _)| (*place).clone()).collect();
        if due.is_empty() && self.indexer.is_full() {
            self.indexer.release_unowned();
        }
        if due.is_empty() && self.indexer.is_full() {
            staged.sort_by_key(|(_, staged)| std::cmp::Reverse(staged.bytes));
            due.extend(staged.first().map(|(place, _)| (*place).clone()));
        }
        due
    }

    /// Lets go of the partitions that have no index any more.
    fn release_gone(&mut self) {
        self.changes.mark_unchanged();
        let gone: Vec<Place> =
            self.owned.keys().filter(|place| self.index_of(place).is_none()).cloned().collect();
        for place in gone {
            if let Some(index) = self.owned.remove(&place) {
                index.disown(place.partition);
                index.release_unowned();
            }
            self.busy.insert(place);
        }
    }

    /// Everything of a partition before this is in splits, or needs none.
    fn through(&self, place: &Place, reached: Offset) -> Offset {
        let Some(index) = self.owned.get(place) else { return reached };
        let published = index.published_end(place.partition);
        // What is passed over behind the end of a span must not be taken for a part of it by who settles
        // it after a crash. As soon as it is settled the index is let go of.
        let reached = index.limit(place.partition).map_or(reached, |limit| reached.min(limit));
        let is_staged = index.has_staged_below(place.partition, reached);
        if is_staged { published } else { reached.max(published) }
    }

    /// Publishes a partition's events below `upto`, or takes over the split that is there already.
    async fn publish(&self, place: &Place, index: &StreamIndex, upto: Offset) -> Result<()> {
        let upto = upto.min(index.limit(place.partition).unwrap_or(upto));
        let (first, runs) = index.staged_below(place.partition, upto).ok_or_else(|| index.began_anew())?;
        if runs.is_empty() {
            return Ok(());
        }
        self.check_life(place, index).await?;
        let footer = Footer {
            format: FORMAT,
            stream: index.name().to_string(),
            incarnation: index.incarnation(),
            partition: place.partition,
            first_offset: first,
            end_offset: upto,
            count: 0,
            time_min: Timestamp::MAX,
            time_max: Timestamp::MIN,
            bytes: 0,
            is_merged: false,
            is_json: false,
            files: Vec::new(),
        };
        let (object, footer) = blocking(move || build(&runs, footer)).await?;
        let location = index.folder().split(SplitName::of(&footer));
        let bytes = object.len();
        let footer = match self.indexer.splits.publish(&location, object).await? {
            Published::Ours => footer,
            Published::Theirs(footer) => footer,
        };
        info!(%location, events = footer.count, bytes, end = %footer.end_offset, "published a split");
        index.add(footer, self.indexer.clock.now())?;
        self.indexer.grown.tell(place.clone());
        Ok(())
    }

    /// Where a span that was switched off ended, once everything of it is in splits.
    fn end(&self, place: &Place, to: Offset, position: Offset) -> Option<Offset> {
        let Some(index) = self.owned.get(place) else {
            return (position >= to).then_some(position);
        };
        // None where the index has not seen yet that it ends.
        let limit = index.limit(place.partition)?;
        let is_whole = position >= limit && !index.has_staged_below(place.partition, limit);
        is_whole.then(|| limit.max(index.published_end(place.partition)))
    }

    /// A stream that was deleted and made again must not get the events of its earlier life.
    async fn check_life(&self, place: &Place, index: &StreamIndex) -> Result<()> {
        self.indexer.catalog.refresh().await?;
        let now = self.index_of(place).map(|now| now.incarnation());
        if now == Some(index.incarnation()) {
            return Ok(());
        }
        Err(Error::new(Kind::Fenced, format!("stream {} began another life", index.name())))
    }
}

/// Merges runs into one split. Blocking.
fn build(runs: &[Arc<Run>], mut footer: Footer) -> Result<(bytes::Bytes, Footer)> {
    let mut entries: Vec<(Timestamp, Offset, &Entry)> = Vec::new();
    for run in runs {
        entries.extend(run.entries().iter().map(|entry| (entry.record.time, entry.offset, entry)));
    }
    // Each run is sorted, and this merges them.
    entries.sort_by_key(|(time, offset, _)| (*time, *offset));
    let entries: Vec<&Entry> = entries.into_iter().map(|(.., entry)| entry).collect();
    let (Some(oldest), Some(newest)) = (entries.first(), entries.last()) else {
        return Err(Error::internal("a split would have no events"));
    };
    (footer.time_min, footer.time_max) = (oldest.record.time, newest.record.time);
    let bytes =
        |entry: &&Entry| entry.record.key.as_ref().map_or(0, |key| key.len()) + entry.record.value.len();
    footer.bytes = entries.iter().map(|entry| bytes(entry) as u64).sum();
    footer.count =
        u32::try_from(entries.len()).map_err(|_| Error::internal("a split has too many events"))?;
    split::build_split(&entries, footer)
}

#[async_trait]
impl Sink for IndexSink {
    async fn resume(&mut self, committed: &Checkpoint) -> Result<Checkpoint> {
        let mut from = Checkpoint::new();
        for (place, next) in committed.iter() {
            self.busy.insert(place.clone());
            match self.index_of_new(place).await? {
                Some(index) => {
                    let end = self.indexer.own(&index, place.partition).await?;
                    debug!(%place, %end, "the index reads on from its last split");
                    from.set(place.clone(), end);
                    self.owned.insert(place.clone(), index);
                }
                None => from.set(place.clone(), next),
            }
        }
        Ok(from)
    }

    async fn write(&mut self, chunks: Vec<Chunk>) -> Result<Vec<Rejection>> {
        let now = self.indexer.clock.now();
        for chunk in chunks {
            self.busy.insert(chunk.place.clone());
            let Some(index) = self.index_of_new(&chunk.place).await? else {
                continue;
            };
            if self.owned.get(&chunk.place).is_none_or(|owned| !Arc::ptr_eq(owned, &index)) {
                if self.is_to_begin(&chunk.place) {
                    continue;
                }
                return Err(index.began_anew());
            }
            index.stage(chunk, now, self.indexer.limits.segment_events_max)?;
        }
        Ok(Vec::new())
    }

    async fn flush(&mut self, upto: &Checkpoint) -> Result<Flushed> {
        if self.changes.has_changed().unwrap_or(true) {
            self.release_gone();
        }
        for place in self.due(self.indexer.clock.now()) {
            if let (Some(index), Some(upto)) = (self.owned.get(&place), upto.get(&place)) {
                self.publish(&place, index, upto).await?;
            }
        }
        let reached = self.busy.iter().filter_map(|place| Some((place, upto.get(place)?)));
        let through = reached.map(|(place, reached)| (place.clone(), self.through(place, reached)));
        let through = through.collect();
        let owned = &self.owned;
        self.busy
            .retain(|place| owned.get(place).is_some_and(|index| index.staged(place.partition).count > 0));
        Ok(Flushed { through, appends: Vec::new() })
    }

    fn unsettled(&mut self) -> Vec<Place> {
        self.switches.places()
    }

    async fn settle(&mut self, at: &Checkpoint) -> Result<Settled> {
        for (place, _) in at.iter() {
            // What the catalog says of it is taken over here.
            let index = self.index_of(place).filter(|_| self.owned.contains_key(place));
            if let Some(index) = index.filter(|index| !index.is_owned(place.partition)) {
                return Err(index.began_anew());
            }
        }
        let end = |place: &Place, (_, to), position| self.end(place, to, position);
        let settled = self.switches.settle(at, end).await?;
        for (place, _) in settled.rewind.iter() {
            if let Some(index) = self.owned.remove(place) {
                index.disown(place.partition);
            }
            self.busy.insert(place.clone());
        }
        Ok(settled)
    }
}

impl Drop for IndexSink {
    fn drop(&mut self) {
        self.owned.iter().for_each(|(place, index)| index.disown(place.partition));
    }
}
