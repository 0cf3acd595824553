//! The index of one stream in one of its lives: the splits of each partition and its live part,
//! under one lock that is held for moments, so that a query sees every event exactly once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use broker::catalog::Stream;
use broker::{Chunk, Error, Offset, Partition, Place, Result, Stage, StreamName, Timestamp, Topic};

use super::live::{Live, Run};
use super::lock;
use super::splits::{Folder, SplitStore};
use crate::Limits;
use crate::split::Footer;

/// One stream's index.
pub(crate) struct StreamIndex {
    name: StreamName,
    incarnation: u64,
    topic: Topic,
    partitions: u32,
    folder: Folder,
    parts: Mutex<BTreeMap<Partition, Part>>,
    staged_bytes: Arc<AtomicUsize>,
    /// When the splits were last listed; held while they are.
    listed: tokio::sync::Mutex<Option<Timestamp>>,
}

/// One partition: splits without a gap up to where the live part begins.
struct Part {
    splits: Vec<Arc<Footer>>,
    live: Live,
    /// The sink of this process writes it.
    is_owned: bool,
}

impl Part {
    fn new(partition: Partition) -> Self {
        Self { splits: Vec::new(), live: Live::starting_at(partition, Offset(0)), is_owned: false }
    }

    fn published_end(&self) -> Offset {
        self.splits.last().map_or(Offset(0), |footer| footer.end_offset)
    }
}

/// What a query sees of one partition: all of it up to `end`.
pub(crate) struct PartView {
    pub(crate) splits: Vec<Arc<Footer>>,
    pub(crate) runs: Vec<Arc<Run>>,
    pub(crate) end: Offset,
}

/// What the sink has staged of a partition.
pub(crate) struct Staged {
    pub(crate) count: usize,
    pub(crate) bytes: usize,
    pub(crate) since: Option<Timestamp>,
}

impl StreamIndex {
    pub(crate) fn new(stream: &Stream, staged_bytes: Arc<AtomicUsize>) -> Self {
        let definition = &stream.definition;
        Self {
            name: stream.name().clone(),
            incarnation: definition.incarnation,
            topic: stream.topic(Stage::Processed),
            partitions: definition.partitions,
            folder: Folder::of(stream),
            parts: Mutex::default(),
            staged_bytes,
            listed: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn name(&self) -> &StreamName {
        &self.name
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.partitions).map(Partition)
    }

    /// A partition of the processed topic.
    pub(crate) fn place(&self, partition: Partition) -> Place {
        Place::new(self.topic.clone(), partition)
    }

    /// Takes over the splits that others published, unless all partitions are written here or the
    /// list is young enough.
    pub(crate) async fn keep_listed(
        &self,
        store: &SplitStore,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<()> {
        let mut listed = self.listed.lock().await;
        let is_young = listed.is_some_and(|at| now.since(at) < limits.listing_age_max);
        if is_young || (listed.is_some() && self.is_owned_whole()) {
            return Ok(());
        }
        self.list(store, now).await?;
        *listed = Some(now);
        Ok(())
    }

    fn is_owned_whole(&self) -> bool {
        let parts = lock(&self.parts);
        self.partitions().all(|partition| parts.get(&partition).is_some_and(|part| part.is_owned))
    }

    /// Takes over every split that is not known yet.
    async fn list(&self, store: &SplitStore, now: Timestamp) -> Result<()> {
        let known: BTreeMap<Partition, Offset> = {
            let parts = lock(&self.parts);
            parts.iter().map(|(partition, part)| (*partition, part.published_end())).collect()
        };
        let is_new =
            |partition: Partition, first: Offset| known.get(&partition).is_none_or(|end| first >= *end);
        for footer in store.list(&self.folder, is_new).await? {
            self.add(footer, now)?;
        }
        Ok(())
    }

    /// Begins a partition anew where its last split ends, for the sink to write.
    pub(crate) async fn own(
        &self,
        store: &SplitStore,
        partition: Partition,
        now: Timestamp,
    ) -> Result<Offset> {
        let mut listed = self.listed.lock().await;
        self.list(store, now).await?;
        *listed = Some(now);
        let mut parts = lock(&self.parts);
        let part = parts.entry(partition).or_insert_with(|| Part::new(partition));
        self.staged_bytes.fetch_sub(part.live.bytes(), Ordering::Relaxed);
        part.live = Live::starting_at(partition, part.published_end());
        part.is_owned = true;
        Ok(part.live.from())
    }

    /// Adds a split that is published, and lets go of the live events that it holds. Both at once,
    /// so that no query sees one without the other. Splits that are known are left out.
    pub(crate) fn add(&self, footer: Footer, now: Timestamp) -> Result<()> {
        let mut parts = lock(&self.parts);
        let part = parts.entry(footer.partition).or_insert_with(|| Part::new(footer.partition));
        let end = part.published_end();
        if footer.end_offset <= end {
            return Ok(());
        }
        if footer.first_offset != end && !part.splits.is_empty() {
            return Err(Error::corrupt(format!(
                "the splits of {} partition {} leave out offsets {end} to {}",
                self.name, footer.partition, footer.first_offset
            )));
        }
        let before = part.live.bytes();
        part.live.drop_below(footer.end_offset, now);
        self.staged_bytes.fetch_sub(before - part.live.bytes(), Ordering::Relaxed);
        part.splits.push(Arc::new(footer));
        Ok(())
    }

    /// Takes in what a chunk, read from `read_from`, has past the live part's end.
    pub(crate) fn extend(&self, read_from: Offset, chunk: Chunk, now: Timestamp, events_max: usize) {
        let partition = chunk.place.partition;
        let mut parts = lock(&self.parts);
        let part = parts.entry(partition).or_insert_with(|| Part::new(partition));
        let before = part.live.bytes();
        part.live.extend(read_from, chunk, now, events_max);
        self.staged_bytes.fetch_add(part.live.bytes() - before, Ordering::Relaxed);
    }

    /// Where the live part of a partition ends.
    pub(crate) fn end(&self, partition: Partition) -> Offset {
        lock(&self.parts).get(&partition).map_or(Offset(0), |part| part.live.end())
    }

    /// Where the splits of a partition end.
    pub(crate) fn published_end(&self, partition: Partition) -> Offset {
        lock(&self.parts).get(&partition).map_or(Offset(0), Part::published_end)
    }

    pub(crate) fn staged(&self, partition: Partition) -> Staged {
        let parts = lock(&self.parts);
        let live = parts.get(&partition).map(|part| &part.live);
        Staged {
            count: live.map_or(0, Live::count),
            bytes: live.map_or(0, Live::bytes),
            since: live.and_then(Live::since),
        }
    }

    /// Live events below `upto`, with the offset they begin at.
    pub(crate) fn staged_below(&self, partition: Partition, upto: Offset) -> (Offset, Vec<Arc<Run>>) {
        let parts = lock(&self.parts);
        let live = parts.get(&partition).map(|part| &part.live);
        live.map_or((Offset(0), Vec::new()), |live| (live.from(), live.below(upto)))
    }

    /// Whether events below `upto` wait to be published.
    pub(crate) fn has_staged_below(&self, partition: Partition, upto: Offset) -> bool {
        lock(&self.parts).get(&partition).is_some_and(|part| part.live.has_below(upto))
    }

    /// All that is known of a partition, at one moment.
    pub(crate) fn view(&self, partition: Partition) -> PartView {
        let parts = lock(&self.parts);
        let Some(part) = parts.get(&partition) else {
            return PartView { splits: Vec::new(), runs: Vec::new(), end: Offset(0) };
        };
        PartView { splits: part.splits.clone(), runs: part.live.runs().to_vec(), end: part.live.end() }
    }

    /// The sink does not write this partition any more.
    pub(crate) fn disown(&self, partition: Partition) {
        if let Some(part) = lock(&self.parts).get_mut(&partition) {
            part.is_owned = false;
        }
    }

    /// Lets go of live parts that the sink does not write.
    pub(crate) fn release_unowned(&self) {
        for (partition, part) in lock(&self.parts).iter_mut().filter(|(_, part)| !part.is_owned) {
            self.staged_bytes.fetch_sub(part.live.bytes(), Ordering::Relaxed);
            part.live = Live::starting_at(*partition, part.published_end());
        }
    }
}

impl Drop for StreamIndex {
    fn drop(&mut self) {
        let held: usize = lock(&self.parts).values().map(|part| part.live.bytes()).sum();
        self.staged_bytes.fetch_sub(held, Ordering::Relaxed);
    }
}
