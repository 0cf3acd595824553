//! The index of one stream in one of its lives: the splits of each partition and its live part,
//! under one lock that is held for moments, so that a query sees every event exactly once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use broker::catalog::{SinkKind, Stream, Unsettled};
use broker::{
    Checkpoint, Chunk, Entry, Error, Kind, Offset, Partition, Place, Result, Stage, StreamName, Timestamp,
    Topic,
};

use super::admission::Admission;
use super::cover::Cover;
use super::listing::Listing;
use super::live::{Live, Run};
use super::lock;
use super::names::Folder;
use crate::split::Footer;

/// One stream's index.
pub(crate) struct StreamIndex {
    name: StreamName,
    incarnation: u64,
    topic: Topic,
    partitions: u32,
    folder: Folder,
    parts: Mutex<BTreeMap<Partition, Part>>,
    /// What of the catalog the parts' admissions are of.
    revision: AtomicU64,
    /// Up to where each raw partition is known to be routed.
    routed: Mutex<BTreeMap<Partition, Offset>>,
    staged_bytes: Arc<AtomicUsize>,
    /// Held while the splits are listed.
    pub(super) listing: tokio::sync::Mutex<Listing>,
}

/// One partition: splits without a gap up to where the live part begins.
struct Part {
    splits: Vec<Arc<Footer>>,
    live: Live,
    admission: Admission,
    /// The sink of this process writes it.
    is_owned: bool,
}

impl Part {
    fn new(partition: Partition) -> Self {
        let (live, admission) = (Live::starting_at(partition, Offset(0)), Admission::default());
        Self { splits: Vec::new(), live, admission, is_owned: false }
    }

    /// Takes what is admitted from now on. Where the live part was chosen otherwise it is read again, by
    /// the sink too.
    fn admit(&mut self, admission: Admission) {
        let lies = self.live.from()..self.live.end();
        let before = self.admission.within(&lies);
        let limit = self.admission.limit();
        self.admission = admission;
        if self.is_owned {
            self.admission.set_limit(limit, lies.end);
        }
        if self.admission.within(&lies) != before {
            self.disown();
            self.live = Live::starting_at(self.live.partition(), lies.start);
        }
    }

    /// The sink does not write this any more, and does not say where it ends.
    fn disown(&mut self) {
        self.is_owned = false;
        if self.admission.take_limit().is_some() {
            self.live = Live::starting_at(self.live.partition(), self.live.from());
        }
    }

    fn extend(&mut self, (read_from, chunk): (Offset, Chunk), (now, events_max): (Timestamp, usize)) {
        self.live.extend((read_from, chunk), &self.admission, (now, events_max));
    }

    /// Everything before this is in a split, or was once and was removed by retention.
    fn published_end(&self) -> Offset {
        self.live.from()
    }

    fn take_over(&mut self, listed: &Cover, before: Offset, now: Timestamp) {
        let (path, end) = (&listed.path, listed.end());
        let newer = self.splits.iter().filter(|split| split.first_offset >= before);
        if self.is_owned && (path.is_empty() || end == before) {
            self.splits = path.iter().chain(newer).cloned().collect();
            return;
        }
        // What another published while we did is told apart by the next listing.
        if self.is_owned && (before..self.published_end()).contains(&end) {
            return;
        }
        self.splits = path.clone();
        if end == self.published_end() {
            return;
        }
        if end > self.published_end() {
            self.live.drop_below(end, now);
            return;
        }
        // The last splits are gone: their events are read from the log again, by the sink too.
        self.disown();
        self.live = Live::starting_at(self.live.partition(), end);
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
    /// It is being switched off: nothing more comes.
    pub(crate) is_ending: bool,
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
            revision: AtomicU64::new(0),
            routed: Mutex::default(),
            staged_bytes,
            listing: tokio::sync::Mutex::default(),
        }
    }

    /// Takes over which offsets the catalog's stream admits, if that is newer.
    pub(super) fn follow(&self, stream: &Stream) {
        if self.revision.fetch_max(stream.revision(), Ordering::SeqCst) >= stream.revision() {
            return;
        }
        for partition in self.partitions() {
            let ending = match stream.unsettled(SinkKind::Index, partition) {
                Some(Unsettled::End { span, to }) => Some((span, to)),
                _ => None,
            };
            let ranges = stream.admitted(SinkKind::Index, partition);
            self.change(partition, |part| part.admit(Admission::new(ranges, ending)));
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

    /// Whether the router is known to have passed `end` of a raw partition. What it passed once can be
    /// found from then on.
    pub(crate) fn is_routed(&self, partition: Partition, end: Offset) -> bool {
        let routed = *lock(&self.routed).get(&partition).unwrap_or(&Offset(0));
        end <= routed
    }

    /// Notes how far the router came.
    pub(crate) fn note_routed(&self, committed: &Checkpoint) {
        let mut routed = lock(&self.routed);
        for (place, next) in committed.iter() {
            let known = routed.entry(place.partition).or_insert(next);
            *known = next.max(*known);
        }
    }

    /// Whether the sink of this process writes a partition.
    pub(crate) fn is_owned(&self, partition: Partition) -> bool {
        lock(&self.parts).get(&partition).is_some_and(|part| part.is_owned)
    }

    /// Whether the sink of this process writes every partition.
    pub(crate) fn is_owned_whole(&self) -> bool {
        let parts = lock(&self.parts);
        self.partitions().all(|partition| parts.get(&partition).is_some_and(|part| part.is_owned))
    }

    /// Where the splits of each partition end.
    pub(crate) fn published_ends(&self) -> BTreeMap<Partition, Offset> {
        let parts = lock(&self.parts);
        parts.iter().map(|(partition, part)| (*partition, part.published_end())).collect()
    }

    /// Takes over what was listed of a partition. `before` is where its splits ended when the
    /// listing began: what was published here since then is not in it.
    pub(crate) fn take_over(&self, partition: Partition, listed: &Cover, before: Offset, now: Timestamp) {
        self.change(partition, |part| part.take_over(listed, before, now));
    }

    /// Begins a partition anew where its last split ends, for the sink to write.
    pub(crate) fn own(&self, partition: Partition) -> Offset {
        self.change(partition, |part| {
            let end = part.published_end();
            part.live = Live::starting_at(partition, end);
            part.is_owned = true;
            let limit = part.admission.limit();
            part.admission.set_limit(limit, end);
            if let Some(next) = part.admission.next(end) {
                part.live.pass(next);
            }
            part.live.end()
        })
    }

    /// Where a partition's span ends that is being switched off, as its owner says.
    pub(crate) fn limit(&self, partition: Partition) -> Option<Offset> {
        lock(&self.parts).get(&partition)?.admission.limit().map(|(_, limit)| limit)
    }

    /// Covers what follows the live part of a partition up to the first offset that is admitted, or `end`.
    pub(crate) fn pass_unwanted(&self, partition: Partition, end: Offset) {
        self.change(partition, |part| {
            let wanted = part.admission.next(part.live.end()).unwrap_or(end);
            part.live.pass(wanted.min(end));
        });
    }

    /// What a partition admits of entries that lie in a part of it.
    pub(crate) fn retain_admitted(
        &self,
        partition: Partition,
        part: &Range<Offset>,
        entries: &mut Vec<Entry>,
    ) {
        if let Some(known) = lock(&self.parts).get(&partition) {
            known.admission.retain(part, entries);
        }
    }

    /// Adds a split that is published, and lets go of the live events that it holds. Both at once,
    /// so that no query sees one without the other. Splits that are known are left out.
    pub(crate) fn add(&self, footer: Footer, now: Timestamp) -> Result<()> {
        self.change(footer.partition, |part| {
            let end = part.published_end();
            if footer.end_offset <= end {
                return Ok(());
            }
            if footer.first_offset != end && !part.splits.is_empty() {
                let Footer { partition, first_offset, .. } = footer;
                let left_out = format!("{end} to {first_offset}");
                let message =
                    format!("the splits of {} partition {partition} leave out {left_out}", self.name);
                return Err(Error::corrupt(message));
            }
            part.live.drop_below(footer.end_offset, now);
            part.splits.push(Arc::new(footer));
            Ok(())
        })
    }

    /// Puts a merged split in the place of its parts, if they are all there.
    pub(crate) fn replace(&self, merged: Arc<Footer>) {
        self.change(merged.partition, |part| {
            let covered = merged.offsets();
            let is_part = |split: &Arc<Footer>| covered.contains(&split.first_offset);
            let Some(start) = part.splits.iter().position(is_part) else { return };
            let parts = part.splits[start..].iter().take_while(|split| is_part(split));
            let row = start..start + parts.count();
            let is_whole = part.splits[start].first_offset == covered.start
                && part.splits[row.end - 1].end_offset == covered.end;
            if is_whole {
                part.splits.splice(row, [merged]);
            }
        });
    }

    /// Leaves out the splits that lie wholly before the log's start.
    pub(crate) fn drop_before(&self, partition: Partition, start: Offset) {
        self.change(partition, |part| part.splits.retain(|split| split.end_offset > start));
    }

    /// Takes in what a chunk, read from `read_from`, has past the live part's end.
    pub(crate) fn extend(&self, read_from: Offset, chunk: Chunk, now: Timestamp, events_max: usize) {
        let partition = chunk.place.partition;
        self.change(partition, |part| part.extend((read_from, chunk), (now, events_max)));
    }

    /// Takes in what the sink was handed on: every chunk begins where the one before ended, or
    /// earlier. `Fenced` where the partition began anew.
    pub(crate) fn stage(&self, chunk: Chunk, now: Timestamp, events_max: usize) -> Result<()> {
        self.change(chunk.place.partition, |part| {
            if part.is_owned {
                part.extend((part.live.end(), chunk), (now, events_max));
                return Ok(());
            }
            Err(self.began_anew())
        })
    }

    /// The error that makes the sink resume.
    pub(crate) fn began_anew(&self) -> Error {
        Error::new(Kind::Fenced, format!("the index of {} begins anew", self.name))
    }

    /// Changes a partition, and counts what its live part holds.
    fn change<T>(&self, partition: Partition, change: impl FnOnce(&mut Part) -> T) -> T {
        let mut parts = lock(&self.parts);
        let part = parts.entry(partition).or_insert_with(|| Part::new(partition));
        let before = part.live.bytes();
        let changed = change(part);
        let after = part.live.bytes();
        self.staged_bytes.fetch_add(after.saturating_sub(before), Ordering::Relaxed);
        self.staged_bytes.fetch_sub(before.saturating_sub(after), Ordering::Relaxed);
        changed
    }

    /// The splits of a partition that answers are made of.
    pub(crate) fn splits(&self, partition: Partition) -> Vec<Arc<Footer>> {
        lock(&self.parts).get(&partition).map_or_else(Vec::new, |part| part.splits.clone())
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
            is_ending: parts.get(&partition).is_some_and(|part| part.admission.limit().is_some()),
        }
    }

    /// Live events below `upto`, with the offset they begin at; none where the sink does not write
    /// the partition any more.
    pub(crate) fn staged_below(&self, partition: Partition, upto: Offset) -> Option<(Offset, Vec<Arc<Run>>)> {
        let parts = lock(&self.parts);
        let part = parts.get(&partition).filter(|part| part.is_owned)?;
        Some((part.live.from(), part.live.below(upto)))
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
        self.change(partition, Part::disown);
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
