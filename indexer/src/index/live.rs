//! The live part of a partition: events that are in no split yet, in memory, as sorted runs.
//!
//! Each chunk that is read becomes a run; runs of like size are merged as they come, so that there
//! are few of them and each event is moved a few times only. A run is never changed, so a query
//! takes references and no lock is held while it works. A run is indexed when it is first searched
//! for words or fields: most are published without ever being.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use broker::{Chunk, Entry, Offset, Partition, Result, Timestamp};

use super::admission::Admission;
use super::lock;
use crate::split::{self, Position, Segment, Terms};

/// Events of one partition in answer order.
pub(crate) struct Run {
    partition: Partition,
    entries: Vec<Entry>,
    /// The offsets covered, in which records may be missing.
    offsets: Range<Offset>,
    bytes: usize,
    segment: Mutex<Option<Arc<Segment>>>,
}

impl Run {
    /// Sorts the events of a range of offsets.
    pub(crate) fn new(partition: Partition, offsets: Range<Offset>, mut entries: Vec<Entry>) -> Self {
        entries.sort_by_key(|entry| (entry.record.time, entry.offset));
        let bytes = entries.iter().map(weight).sum();
        Self { partition, entries, offsets, bytes, segment: Mutex::default() }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn partition(&self) -> Partition {
        self.partition
    }

    pub(crate) fn position(&self, index: usize) -> Position {
        Position::of(self.partition, &self.entries[index])
    }

    /// Whether what answers `terms` is there, or something is being built.
    pub(crate) fn is_indexed_for(&self, terms: &Terms) -> bool {
        let segment = self.segment.try_lock();
        segment.map_or(true, |segment| segment.as_ref().is_some_and(|segment| segment.answers(terms)))
    }

    /// An index of the run's events that answers `terms`, built at the first call, and again at the
    /// first that asks for ranges. Blocking.
    pub(crate) fn segment(&self, terms: &Terms) -> Result<Arc<Segment>> {
        let mut segment = lock(&self.segment);
        if let Some(segment) = segment.as_ref().filter(|segment| segment.answers(terms)) {
            return Ok(Arc::clone(segment));
        }
        let build = if terms.has_ranges() { split::searchable } else { split::searchable_by_words };
        let built = Arc::new(build(&self.entries)?);
        *segment = Some(Arc::clone(&built));
        Ok(built)
    }

    /// The events; they are copied only where a query still looks at the run.
    fn into_entries(self: Arc<Self>) -> Vec<Entry> {
        Arc::try_unwrap(self).map_or_else(|shared| shared.entries.clone(), |run| run.entries)
    }

    /// The same run without what lies outside `kept`.
    fn restricted(self: Arc<Self>, kept: Range<Offset>) -> Arc<Self> {
        if kept.start <= self.offsets.start && self.offsets.end <= kept.end {
            return self;
        }
        let entries = self.entries.iter().filter(|entry| kept.contains(&entry.offset)).cloned().collect();
        let offsets = self.offsets.start.max(kept.start)..self.offsets.end.min(kept.end);
        Arc::new(Self::new(self.partition, offsets, entries))
    }
}

/// What an entry holds in memory, with the structures around its bytes.
fn weight(entry: &Entry) -> usize {
    entry.record.weight() + size_of::<Entry>()
}

/// The live part of a partition. It covers the log from `from` to `end` without a gap.
pub(crate) struct Live {
    partition: Partition,
    from: Offset,
    end: Offset,
    runs: Vec<Arc<Run>>,
    /// When the oldest event that is still here came, by the clock.
    since: Option<Timestamp>,
}

impl Live {
    pub(crate) fn starting_at(partition: Partition, from: Offset) -> Self {
        Self { partition, from, end: from, runs: Vec::new(), since: None }
    }

    pub(crate) fn partition(&self) -> Partition {
        self.partition
    }

    /// The first offset covered.
    pub(crate) fn from(&self) -> Offset {
        self.from
    }

    /// The first offset not covered.
    pub(crate) fn end(&self) -> Offset {
        self.end
    }

    pub(crate) fn runs(&self) -> &[Arc<Run>] {
        &self.runs
    }

    pub(crate) fn count(&self) -> usize {
        self.runs.iter().map(|run| run.entries.len()).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.runs.iter().map(|run| run.bytes).sum()
    }

    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// The runs with the events below `upto`.
    pub(crate) fn below(&self, upto: Offset) -> Vec<Arc<Run>> {
        let runs = self.runs.iter().filter(|run| run.offsets.start < upto);
        let runs = runs.map(|run| Arc::clone(run).restricted(Offset(0)..upto));
        runs.filter(|run| !run.entries.is_empty()).collect()
    }

    /// Whether there may be events below `upto`.
    pub(crate) fn has_below(&self, upto: Offset) -> bool {
        self.runs.first().is_some_and(|run| run.offsets.start < upto)
    }

    /// Takes in what is admitted of what the chunk has past the end. `read_from` is where its reading began: a chunk
    /// that begins later would leave a gap, and is left out.
    pub(super) fn extend(
        &mut self,
        (read_from, chunk): (Offset, Chunk),
        admission: &Admission,
        (now, events_max): (Timestamp, usize),
    ) {
        if read_from > self.end || chunk.next <= self.end {
            return;
        }
        let offsets = self.end..chunk.next;
        self.end = chunk.next;
        let mut entries: Vec<Entry> =
            chunk.entries.into_iter().filter(|entry| offsets.contains(&entry.offset)).collect();
        admission.retain(&offsets, &mut entries);
        if entries.is_empty() {
            return;
        }
        self.since.get_or_insert(now);
        self.runs.push(Arc::new(Run::new(self.partition, offsets, entries)));
        self.merge_last(events_max);
    }

    /// Covers what lies before `end` too, of which nothing is wanted.
    pub(super) fn pass(&mut self, end: Offset) {
        self.end = self.end.max(end);
    }

    /// Merges the newest runs while the one before is not much larger.
    fn merge_last(&mut self, events_max: usize) {
        while let [.., before, last] = &self.runs[..] {
            let (larger, smaller) = (before.entries.len(), last.entries.len());
            if larger > 2 * smaller || larger + smaller > events_max {
                return;
            }
            let offsets = before.offsets.start..last.offsets.end;
            let merged = self.runs.drain(self.runs.len() - 2..).flat_map(Run::into_entries).collect();
            self.runs.push(Arc::new(Run::new(self.partition, offsets, merged)));
        }
    }

    /// Lets go of what lies below `upto`: it is in a split that queries see.
    pub(crate) fn drop_below(&mut self, upto: Offset, now: Timestamp) {
        self.from = self.from.max(upto);
        self.end = self.end.max(upto);
        let runs = std::mem::take(&mut self.runs).into_iter().filter(|run| run.offsets.end > upto);
        let kept = upto..Offset(u64::MAX);
        let runs = runs.map(|run| run.restricted(kept.clone()));
        self.runs = runs.filter(|run| !run.entries.is_empty()).collect();
        self.since = if self.runs.is_empty() { None } else { Some(now) };
    }
}

#[cfg(test)]
mod tests {
    use broker::Record;

    use super::*;
    use crate::split::{Order, Take};

    #[test]
    fn a_run_gets_columns_when_somebody_asks_for_them() {
        let entry = |offset| {
            let value = format!("{{\"n\":{offset},\"word\":\"snow\"}}");
            Entry { offset: Offset(offset), record: Record::new(value, Timestamp::MIN) }
        };
        let run = Run::new(Partition(0), Offset(0)..Offset(9), (0..9).map(entry).collect());
        for (q, wanted, is_new) in
            [("snow n:4", 1, true), ("n:>=4", 5, true), ("word:*", 9, false), ("word:snow", 9, false)]
        {
            let terms = Terms::parse(Some(q), None).unwrap().unwrap();
            assert_eq!(run.is_indexed_for(&terms), !is_new, "{q}");
            let take = Take { order: Order::Ascending, limit: 100 };
            let found = run.segment(&terms).unwrap().find(&terms, 0..9, take).unwrap();
            assert_eq!(found.len(), wanted, "{q}");
        }
    }
}
