//! One partition on its way into objects: what is staged, and where objects end.
//!
//! An object is closed before the event that would take its lines past
//! [`object_bytes_max`](ArchiveSettings::object_bytes_max), that arrived
//! [`object_age_max`](ArchiveSettings::object_age_max) or more after its first, or that arrived in
//! a later UTC hour. Events may arrive a little out of order; one from an earlier hour than the
//! open object's first stays in it, so that clocks that differ do not cut at every event.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use broker::batch::View;
use broker::catalog::{SinkKind, Stream, Unsettled};
use broker::{Offset, Partition, Result, StreamName, Timestamp};
use tokio::sync::Semaphore;

use super::ArchiveSettings;
use super::staged::{Finished, Staged};

/// A stream is idle when nothing was staged for so long. While more keeps coming, as when a worker
/// catches up with old events, the events themselves say where objects end.
const IDLE_AFTER: Duration = Duration::from_secs(1);

const HOUR_MICROS: i64 = 3_600_000_000;

/// What everything that is staged is cut by.
#[derive(Clone)]
pub(super) struct Cutting {
    pub(super) settings: Arc<ArchiveSettings>,
    /// How many objects may be compressed as they grow.
    pub(super) encoders: Arc<Semaphore>,
}

/// What a span of events needs to become an object.
pub(super) struct Span {
    pub(super) stream: Arc<Stream>,
    pub(super) events: Staged,
    /// Whether an object may be there under the name of another compression.
    pub(super) is_first: bool,
}

/// What became of a span.
pub(super) enum Placed {
    /// It was put. Here it ends.
    Put(Offset),
    /// An object of somebody else's was found, whose end counts.
    Adopted(Offset, Finished),
}

/// One partition of one life of a stream.
pub(super) struct Lane {
    partition: Partition,
    stream: Arc<Stream>,
    floor: Offset,
    /// What is staged next comes here or later, or again.
    next: Offset,
    closed: VecDeque<Staged>,
    open: Staged,
    first_staged: Timestamp,
    last_staged: Timestamp,
    has_written: bool,
    /// Where the span of that number ends here, once it was switched off.
    limit: Option<(u32, Offset)>,
}

impl Lane {
    /// A partition of which everything before `floor` is in objects, or needs none.
    pub(super) fn new(
        partition: Partition,
        stream: Arc<Stream>,
        floor: Offset,
        settings: &ArchiveSettings,
    ) -> Self {
        Self {
            partition,
            stream,
            floor,
            next: floor,
            closed: VecDeque::new(),
            open: Staged::new(partition, settings.compression),
            first_staged: Timestamp::MIN,
            last_staged: Timestamp::MIN,
            has_written: false,
            limit: None,
        }
    }

    /// The lane with all that is staged, to be put back: an empty one stays behind.
    pub(super) fn take(&mut self, settings: &ArchiveSettings) -> Self {
        let empty = Self::new(self.partition, Arc::clone(&self.stream), self.floor, settings);
        std::mem::replace(self, empty)
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.stream.definition.incarnation
    }

    /// Everything before this is in an object, or needs none.
    pub(super) fn floor(&self) -> Offset {
        self.floor
    }

    /// The offset after everything that was staged or is in objects.
    pub(super) fn next(&self) -> Offset {
        self.next.max(self.floor)
    }

    /// Where a span ends that is switched off at `to`: there, or behind what was staged of it already.
    pub(super) fn limit(&mut self, (span, to): (u32, Offset)) -> Offset {
        let known = self.limit.filter(|(known, _)| *known == span);
        let (_, limit) = *self.limit.insert(known.unwrap_or((span, to.max(self.next()))));
        limit
    }

    /// The span that is being switched off, by its number, and where it was said to end.
    pub(super) fn known_limit(&self) -> Option<(u32, Offset)> {
        self.limit
    }

    /// The offsets of events that are archived.
    pub(super) fn admitted(&mut self, stream: &Stream) -> Vec<Range<Offset>> {
        let mut admitted = stream.admitted(SinkKind::Archive, self.partition);
        if let Some(Unsettled::End { span, to }) = stream.unsettled(SinkKind::Archive, self.partition)
            && let Some(last) = admitted.last_mut()
        {
            last.end = self.limit((span, to));
        }
        admitted
    }

    pub(super) fn stream(&self) -> &StreamName {
        self.stream.name()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.is_empty()
    }

    pub(super) fn has_closed(&self) -> bool {
        !self.closed.is_empty()
    }

    /// What the open object's events hold in memory.
    pub(super) fn open_bytes(&self) -> u64 {
        self.open.held_bytes()
    }

    /// Stages an event, unless an object holds it already; closes the open object if it ends here.
    /// Blocks now and then, to compress.
    pub(super) fn push(
        &mut self,
        (offset, event): (Offset, &View<'_>),
        now: Timestamp,
        cutting: &Cutting,
    ) -> Result<()> {
        if offset < self.floor {
            return Ok(());
        }
        self.next = offset.next();
        let bytes_max = cutting.settings.object_bytes_max;
        if self.ends_before(event.arrival, &cutting.settings) {
            self.close();
        }
        if self.open.is_empty() {
            self.first_staged = now;
        }
        if !self.open.push(offset, event, bytes_max) {
            self.close();
            self.first_staged = now;
            self.open.push(offset, event, bytes_max);
        }
        self.last_staged = now;
        self.open.step(&cutting.encoders)
    }

    /// Whether the open object has an event and takes none of that arrival.
    fn ends_before(&self, arrival: Timestamp, settings: &ArchiveSettings) -> bool {
        let Some(first) = self.open.first_arrival() else { return false };
        let hour = |time: Timestamp| time.micros().div_euclid(HOUR_MICROS);
        arrival.since(first) >= settings.object_age_max || hour(arrival) > hour(first)
    }

    /// Whether the open object waited long enough for events that do not come.
    pub(super) fn is_idle(&self, now: Timestamp, settings: &ArchiveSettings) -> bool {
        let Some(first) = self.open.first_arrival() else { return false };
        let age_max = settings.object_age_max;
        let waited = now.since(self.last_staged) >= IDLE_AFTER || now.since(self.first_staged) >= age_max;
        waited && now.since(first) >= age_max
    }

    /// Ends the open object as it is.
    pub(super) fn close(&mut self) {
        if !self.open.is_empty() {
            self.closed.push_back(self.open.take());
        }
    }

    /// The oldest closed object; it must be settled before the next is taken.
    pub(super) fn take_closed(&mut self) -> Option<Staged> {
        self.closed.pop_front()
    }

    pub(super) fn span(&self, events: Staged) -> Span {
        Span { stream: Arc::clone(&self.stream), events, is_first: !self.has_written }
    }

    /// Goes on behind an object that was put.
    pub(super) fn pass(&mut self, end: Offset) {
        self.floor = end;
        self.has_written = true;
    }

    /// Goes on behind an object that somebody else put in the place of ours: what is left of ours and
    /// of the later ones is cut anew from there. Blocks.
    pub(super) fn cut_anew(&mut self, end: Offset, ours: &Finished, cutting: &Cutting) -> Result<()> {
        self.floor = end;
        let open = self.open.take();
        let later: Vec<Staged> = self.closed.drain(..).chain([open]).collect();
        self.push_again(ours, cutting)?;
        for staged in later {
            self.push_again(&staged.finish()?, cutting)?;
        }
        Ok(())
    }

    fn push_again(&mut self, events: &Finished, cutting: &Cutting) -> Result<()> {
        for entry in events.entries()? {
            let entry = entry?;
            self.push((entry.offset, &View::of(&entry.record)), self.last_staged, cutting)?;
        }
        Ok(())
    }
}
