//! When each sink of a stream is on: spans of the processed topic's offsets, partition by partition.
//!
//! ```text
//!   0 ……… from ………………………………… to … ended ……… from ………………
//!         └ the ends when it was  │    │        └ the next span
//!           switched on           │    └ where its worker stopped, at or past `to`
//!                                 └ the ends when it was switched off
//! ```
//! The definition says what is wanted. A worker settles it one partition at a time, in one step with
//! its progress: it begins a span, going back where it had read past its beginning, and it ends one once
//! everything before `ended` is in the sink's output. At most the last span is not settled, so what is
//! wanted next of the sink waits for that.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{Error, Kind, Result};
use crate::time::Timestamp;
use crate::topic::{Offset, Partition};

/// How many spans of a sink are remembered. What earlier ones let in is in the sink's output.
const SPANS_KEPT: usize = 16;

/// A kind of sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkKind {
    /// Objects of NDJSON in object storage.
    Archive,
    /// Splits for date-ranged queries.
    Index,
}

impl SinkKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Archive, Self::Index];

    /// The name of the switch in a definition's `sinks`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::Index => "index",
        }
    }
}

/// Who changed something, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The principal; none in what was written before there were any.
    pub by: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// A time that a sink is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// From 1, rising with every span of the sink.
    pub number: u32,
    /// The first offset of each partition; 0 in all of them where this is empty, which holds for a
    /// sink that is on from the stream's beginning and needs no worker to begin it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Offset>,
    /// Where each partition ended when the sink was switched off; none while it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<Offset>>,
    /// Who switched the sink on or, once there is a `to`, off; none for a sink that is on from the stream's
    /// beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switched: Option<Stamp>,
}

impl Span {
    fn from(&self, partition: Partition) -> Offset {
        self.from.get(partition.0 as usize).copied().unwrap_or_default()
    }

    fn to(&self, partition: Partition) -> Option<Offset> {
        Some(self.to.as_ref()?.get(partition.0 as usize).copied().unwrap_or_default())
    }
}

/// The last spans of each sink of a stream, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spans(BTreeMap<SinkKind, Vec<Span>>);

impl Spans {
    /// Those of a sink, oldest first.
    pub fn of(&self, kind: SinkKind) -> &[Span] {
        self.0.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// A span from the beginning of the stream, if there is none yet.
    pub(super) fn begin_whole(&mut self, kind: SinkKind) {
        let spans = self.0.entry(kind).or_default();
        if spans.is_empty() {
            spans.push(Span { number: 1, from: Vec::new(), to: None, switched: None });
        }
    }

    pub(super) fn begin(&mut self, kind: SinkKind, from: Vec<Offset>, stamp: &Stamp) {
        let spans = self.0.entry(kind).or_default();
        let number = spans.last().map_or(0, |span| span.number) + 1;
        spans.push(Span { number, from, to: None, switched: Some(stamp.clone()) });
        let surplus = spans.len().saturating_sub(SPANS_KEPT);
        spans.drain(..surplus);
    }

    pub(super) fn end(&mut self, kind: SinkKind, to: Vec<Offset>, stamp: &Stamp) {
        let last = self.0.get_mut(&kind).and_then(|spans| spans.last_mut());
        if let Some(span) = last.filter(|span| span.to.is_none()) {
            (span.to, span.switched) = (Some(to), Some(stamp.clone()));
        }
    }
}

/// Why a sink's worker cannot begin or end a span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it was told when it tried, at most [`Failure::REASON_CHARACTERS_MAX`].
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

impl Failure {
    /// The longest reason, in characters.
    pub const REASON_CHARACTERS_MAX: usize = 500;

    /// A failure for a reason, of which the beginning is kept.
    pub(super) fn new(reason: &str, at: Timestamp) -> Self {
        Self { reason: reason.chars().take(Self::REASON_CHARACTERS_MAX).collect(), at }
    }
}

/// What a worker has settled: every partition of a span that it began, with where it ended it. And why it
/// could not settle more, until it could.
#[derive(Clone, Debug, Default)]
pub(super) struct Settled {
    places: BTreeMap<(SinkKind, u32, Partition), Option<Offset>>,
    failures: BTreeMap<(SinkKind, u32), Failure>,
}

impl Settled {
    pub(super) fn settle(
        &mut self,
        (kind, span): (SinkKind, u32),
        partition: Partition,
        end: Option<Offset>,
    ) {
        let known = self.places.entry((kind, span, partition)).or_default();
        *known = known.or(end);
        self.failures.remove(&(kind, span));
    }

    pub(super) fn fail(&mut self, kind: SinkKind, span: u32, failure: Failure) {
        self.failures.insert((kind, span), failure);
    }

    pub(super) fn retain(&mut self, spans: &Spans) {
        let is_kept = |kind, number| spans.of(kind).iter().any(|span| span.number == number);
        self.places.retain(|(kind, number, _), _| is_kept(*kind, *number));
        self.failures.retain(|(kind, number), _| is_kept(*kind, *number));
    }

    fn has_begun(&self, kind: SinkKind, span: &Span, partition: Partition) -> bool {
        span.from.is_empty() || self.places.contains_key(&(kind, span.number, partition))
    }

    fn end(&self, kind: SinkKind, span: &Span, partition: Partition) -> Option<Offset> {
        self.places.get(&(kind, span.number, partition)).copied().flatten()
    }
}

/// What a worker has to settle in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsettled {
    /// The span begins at an offset.
    Begin {
        /// The span's number.
        span: u32,
        /// Its first offset.
        from: Offset,
    },
    /// The span ends at an offset, or where the worker has come if that is further.
    End {
        /// The span's number.
        span: u32,
        /// The first offset that need not be in it.
        to: Offset,
    },
}

/// Where a sink is between on and off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkState {
    /// It is off, and its worker has let go of it everywhere.
    Off,
    /// It was switched on; its worker has not taken it up everywhere yet.
    Starting,
    /// It is on.
    On,
    /// It was switched off; its worker has not let go of it everywhere yet.
    Stopping,
}

/// The spans of one stream with what is settled of them.
pub(super) struct View<'s> {
    pub(super) spans: &'s Spans,
    pub(super) settled: &'s Settled,
    pub(super) partitions: u32,
}

impl<'s> View<'s> {
    /// The offsets of a partition that a sink takes, in order. What was switched off counts as on until
    /// its worker has said where it ended.
    pub(super) fn admitted(&self, kind: SinkKind, partition: Partition) -> Vec<Range<Offset>> {
        let range = |span: &Span| {
            let end = self.settled.end(kind, span, partition).unwrap_or(Offset(u64::MAX));
            span.from(partition)..end
        };
        self.spans.of(kind).iter().map(range).filter(|range| range.start < range.end).collect()
    }

    /// Whether a sink takes what comes to a partition, or has not said where that ended.
    pub(super) fn is_open(&self, kind: SinkKind, partition: Partition) -> bool {
        let last = self.spans.of(kind).last();
        last.is_some_and(|span| self.settled.end(kind, span, partition).is_none())
    }

    pub(super) fn unsettled(&self, kind: SinkKind, partition: Partition) -> Option<Unsettled> {
        let span = self.spans.of(kind).last()?;
        if !self.settled.has_begun(kind, span, partition) {
            return Some(Unsettled::Begin { span: span.number, from: span.from(partition) });
        }
        let to = span.to(partition)?;
        let has_ended = self.settled.end(kind, span, partition).is_some();
        (!has_ended).then_some(Unsettled::End { span: span.number, to })
    }

    pub(super) fn state(&self, kind: SinkKind) -> SinkState {
        let Some(span) = self.spans.of(kind).last() else { return SinkState::Off };
        let is_settled = (0..self.partitions).all(|number| self.unsettled(kind, Partition(number)).is_none());
        match (span.to.is_some(), is_settled) {
            (false, false) => SinkState::Starting,
            (false, true) => SinkState::On,
            (true, false) => SinkState::Stopping,
            (true, true) => SinkState::Off,
        }
    }

    /// The span that its worker has to settle, if it has.
    pub(super) fn unsettled_span(&self, kind: SinkKind) -> Option<u32> {
        let is_unsettled = matches!(self.state(kind), SinkState::Starting | SinkState::Stopping);
        self.spans.of(kind).last().filter(|_| is_unsettled).map(|span| span.number)
    }

    /// Why its worker cannot do so.
    pub(super) fn failure(&self, kind: SinkKind) -> Option<&'s Failure> {
        self.settled.failures.get(&(kind, self.unsettled_span(kind)?))
    }

    /// Where a span begins that is to take up what the ones before left, or all there is.
    fn backfill(&self, kind: SinkKind) -> Vec<Offset> {
        let last = self.spans.of(kind).last();
        let ended = |number| {
            last.and_then(|span| self.settled.end(kind, span, Partition(number))).unwrap_or_default()
        };
        (0..self.partitions).map(ended).collect()
    }

    /// The spans after a sink is switched. `ends` is where the processed topic's partitions end.
    /// `Conflict` while its last switching is not settled.
    pub(super) fn switched(
        &self,
        (kind, is_on): (SinkKind, bool),
        (ends, backfill): (&[Offset], bool),
        stamp: &Stamp,
    ) -> Result<Spans> {
        let mut spans = self.spans.clone();
        match self.state(kind) {
            SinkState::Off if is_on && backfill => spans.begin(kind, self.backfill(kind), stamp),
            SinkState::Off if is_on => spans.begin(kind, ends.to_vec(), stamp),
            SinkState::Stopping if is_on => {
                let message = format!("the {} is still being switched off", kind.name());
                return Err(Error::new(Kind::Conflict, message).with_field(format!("sinks.{}", kind.name())));
            }
            SinkState::On | SinkState::Starting if !is_on => spans.end(kind, ends.to_vec(), stamp),
            _ => {}
        }
        Ok(spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offsets(offsets: [u64; 2]) -> Vec<Offset> {
        offsets.map(Offset).to_vec()
    }

    fn view<'s>(spans: &'s Spans, settled: &'s Settled) -> View<'s> {
        View { spans, settled, partitions: 2 }
    }

    fn stamp() -> Stamp {
        Stamp { by: Some("ann".to_owned()), at: Timestamp::MIN }
    }

    const KIND: SinkKind = SinkKind::Archive;

    #[test]
    fn a_sink_goes_from_on_to_off_and_on_again_as_its_worker_settles_every_partition() {
        let (mut spans, mut settled) = (Spans::default(), Settled::default());
        assert_eq!(view(&spans, &settled).state(KIND), SinkState::Off);
        spans.begin_whole(KIND);
        assert_eq!(view(&spans, &settled).state(KIND), SinkState::On);
        assert_eq!(view(&spans, &settled).unsettled(KIND, Partition(1)), None);

        let at = offsets([10, 20]);
        spans = view(&spans, &settled).switched((KIND, false), (&at, false), &stamp()).unwrap();
        assert_eq!(view(&spans, &settled).state(KIND), SinkState::Stopping);
        assert_eq!(
            view(&spans, &settled).unsettled(KIND, Partition(1)),
            Some(Unsettled::End { span: 1, to: Offset(20) })
        );
        let refused = view(&spans, &settled).switched((KIND, true), (&at, false), &stamp()).unwrap_err();
        assert_eq!((refused.kind(), refused.field()), (Kind::Conflict, Some("sinks.archive")));
        settled.settle((KIND, 1), Partition(0), Some(Offset(10)));
        assert_eq!(view(&spans, &settled).state(KIND), SinkState::Stopping);
        assert_eq!(view(&spans, &settled).admitted(KIND, Partition(1)), [Offset(0)..Offset(u64::MAX)]);
        settled.settle((KIND, 1), Partition(1), Some(Offset(23)));
        settled.settle((KIND, 1), Partition(1), Some(Offset(99)));
        assert_eq!(view(&spans, &settled).state(KIND), SinkState::Off);

        let later = offsets([30, 40]);
        let fresh = view(&spans, &settled).switched((KIND, true), (&later, false), &stamp()).unwrap();
        assert_eq!(
            view(&fresh, &settled).admitted(KIND, Partition(1)),
            [Offset(0)..Offset(23), Offset(40)..Offset(u64::MAX)]
        );
        let filled = view(&spans, &settled).switched((KIND, true), (&later, true), &stamp()).unwrap();
        assert_eq!(
            view(&filled, &settled).unsettled(KIND, Partition(1)),
            Some(Unsettled::Begin { span: 2, from: Offset(23) })
        );
        assert_eq!(view(&filled, &settled).state(KIND), SinkState::Starting);
        settled.fail(KIND, 2, Failure::new("no bucket", Timestamp::MIN));
        assert_eq!(view(&filled, &settled).failure(KIND).unwrap().reason, "no bucket");
        settled.settle((KIND, 2), Partition(0), None);
        assert_eq!(view(&filled, &settled).failure(KIND), None);
        assert_eq!(view(&filled, &settled).unsettled_span(KIND), Some(2));
        settled.settle((KIND, 2), Partition(1), None);
        assert_eq!(view(&filled, &settled).state(KIND), SinkState::On);
        assert_eq!(view(&filled, &settled).unsettled_span(KIND), None);
        settled.retain(&Spans::default());
        assert_eq!(view(&filled, &settled).state(KIND), SinkState::Starting);
    }

    #[test]
    fn a_span_that_ends_before_it_began_is_begun_and_then_ended() {
        let (mut spans, mut settled) = (Spans::default(), Settled::default());
        spans.begin(KIND, offsets([5, 5]), &stamp());
        spans.end(KIND, offsets([7, 7]), &stamp());
        let seen = |settled: &Settled| view(&spans, settled).unsettled(KIND, Partition(0));
        assert_eq!(seen(&settled), Some(Unsettled::Begin { span: 1, from: Offset(5) }));
        settled.settle((KIND, 1), Partition(0), None);
        assert_eq!(seen(&settled), Some(Unsettled::End { span: 1, to: Offset(7) }));
    }

    #[test]
    fn only_the_last_spans_are_kept_and_their_numbers_go_on() {
        let mut spans = Spans::default();
        for round in 0..40 {
            spans.begin(KIND, offsets([round, round]), &stamp());
            spans.end(KIND, offsets([round, round]), &stamp());
        }
        let kept: Vec<u32> = spans.of(KIND).iter().map(|span| span.number).collect();
        assert_eq!(kept, (25..=40).collect::<Vec<_>>());
    }
}
