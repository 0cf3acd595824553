//! One partition on its way into objects: what is staged, and where objects end.
//!
//! An object is closed before the event that would take its lines past
//! [`object_bytes_max`](ArchiveSettings::object_bytes_max), that arrived
//! [`object_age_max`](ArchiveSettings::object_age_max) or more after its first, or that arrived in
//! a later UTC hour. Events may arrive a little out of order; one from an earlier hour than the
//! open object's first stays in it, so that clocks that differ do not cut at every event.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use broker::catalog::Stream;
use broker::log::Entry;
use broker::{Offset, Partition, Result, StreamName, Timestamp};

use super::ArchiveSettings;
use super::line;
use super::packed::Packed;

/// A stream is idle when nothing was staged for so long. While more keeps coming, as when a worker
/// catches up with old events, the events themselves say where objects end.
const IDLE_AFTER: Duration = Duration::from_secs(1);

const HOUR_MICROS: i64 = 3_600_000_000;

/// Events of one object.
#[derive(Debug, Default)]
pub(super) struct Cut {
    pub(super) events: Packed,
    line_bytes: u64,
}

impl Cut {
    fn takes(&self, entry: &Entry, line_bytes: u64, settings: &ArchiveSettings) -> bool {
        let Some(first) = self.events.first().map(|first| first.record.arrival) else {
            return true;
        };
        let arrival = entry.record.arrival;
        let hour = |time: Timestamp| time.micros().div_euclid(HOUR_MICROS);
        self.line_bytes + line_bytes <= settings.object_bytes_max
            && arrival.since(first) < settings.object_age_max
            && hour(arrival) <= hour(first)
    }

    fn push(&mut self, entry: Entry, line_bytes: u64) {
        self.line_bytes += line_bytes;
        self.events.push(entry);
    }
}

/// What a span of events needs to become an object.
pub(super) struct Span {
    pub(super) stream: Arc<Stream>,
    pub(super) partition: Partition,
    pub(super) events: Packed,
    /// Whether an object may be there under the name of another compression.
    pub(super) is_first: bool,
}

/// What became of a span.
pub(super) struct Settled {
    /// Whose end counts: the object's that was written or found.
    pub(super) end: Offset,
    /// Whether it was found.
    pub(super) is_adopted: bool,
    /// The span's events.
    pub(super) events: Packed,
}

/// One partition of one life of a stream.
pub(super) struct Lane {
    partition: Partition,
    stream: Arc<Stream>,
    floor: Offset,
    /// What is staged next comes here or later, or again.
    next: Offset,
    closed: VecDeque<Cut>,
    open: Cut,
    first_staged: Timestamp,
    last_staged: Timestamp,
    has_written: bool,
}

impl Lane {
    /// A partition of which everything before `floor` is in objects, or needs none.
    pub(super) fn new(partition: Partition, stream: Arc<Stream>, floor: Offset) -> Self {
        let never = Timestamp::MIN;
        let (closed, open) = (VecDeque::new(), Cut::default());
        let (first_staged, last_staged) = (never, never);
        let next = floor;
        Self { partition, stream, floor, next, closed, open, first_staged, last_staged, has_written: false }
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

    pub(super) fn stream(&self) -> &StreamName {
        self.stream.name()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.events.is_empty()
    }

    pub(super) fn has_closed(&self) -> bool {
        !self.closed.is_empty()
    }

    /// What the open object's events hold in memory.
    pub(super) fn open_bytes(&self) -> u64 {
        self.open.events.held_bytes()
    }

    /// Stages an event, unless an object holds it already; closes the open object if it ends here.
    pub(super) fn push(&mut self, entry: Entry, now: Timestamp, settings: &ArchiveSettings) {
        if entry.offset < self.floor {
            return;
        }
        self.next = entry.offset.next();
        let line_bytes = line::length(self.partition, &entry);
        if !self.open.takes(&entry, line_bytes, settings) {
            self.close();
        }
        if self.open.events.is_empty() {
            self.first_staged = now;
        }
        self.last_staged = now;
        self.open.push(entry, line_bytes);
    }

    /// Whether the open object waited long enough for events that do not come.
    pub(super) fn is_idle(&self, now: Timestamp, settings: &ArchiveSettings) -> bool {
        let Some(first) = self.open.events.first() else {
            return false;
        };
        let age_max = settings.object_age_max;
        let waited = now.since(self.last_staged) >= IDLE_AFTER || now.since(self.first_staged) >= age_max;
        waited && now.since(first.record.arrival) >= age_max
    }

    /// Ends the open object as it is.
    pub(super) fn close(&mut self) {
        if !self.open.events.is_empty() {
            self.closed.push_back(std::mem::take(&mut self.open));
        }
    }

    /// The oldest closed object; it must be settled before the next is taken.
    pub(super) fn take_closed(&mut self) -> Option<Cut> {
        self.closed.pop_front()
    }

    pub(super) fn span(&self, cut: Cut) -> Span {
        let (stream, partition) = (Arc::clone(&self.stream), self.partition);
        Span { stream, partition, events: cut.events, is_first: !self.has_written }
    }

    /// Goes on behind an object. If somebody else wrote it, what is left is cut anew from there.
    pub(super) fn settle(&mut self, settled: Settled, settings: &ArchiveSettings) -> Result<()> {
        self.floor = settled.end;
        if !settled.is_adopted {
            self.has_written = true;
            return Ok(());
        }
        let closed = std::mem::take(&mut self.closed);
        let open = std::mem::take(&mut self.open);
        let later = closed.into_iter().chain([open]).map(|cut| cut.events);
        for events in [settled.events].into_iter().chain(later) {
            for entry in events.entries() {
                self.push(entry?, self.last_staged, settings);
            }
        }
        Ok(())
    }
}
