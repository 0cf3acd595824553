//! Merging pieces into one answer. Blocking.
//!
//! Documents of a piece stand in answer order, so bounds and cursor are two binary searches, and
//! what a piece adds to a page is the next documents. Whole events are read for the winners only.

use std::ops::Range;
use std::sync::Arc;

use broker::{Error, Result, Timestamp};

use super::parse::Bounds;
use crate::index::Run;
use crate::split::{Event, Order, Position, Split, Take, Terms};

/// Events of one partition in answer order.
#[derive(Clone)]
pub(crate) enum Piece {
    /// In memory.
    Run(Arc<Run>),
    /// Published.
    Split(Arc<Split>),
}

impl Piece {
    fn len(&self) -> u32 {
        match self {
            // A run is far below four billion events: its bytes are bounded.
            Piece::Run(run) => u32::try_from(run.entries().len()).unwrap_or(u32::MAX),
            Piece::Split(split) => split.footer().count,
        }
    }

    pub(super) fn time(&self, document: u32) -> Timestamp {
        match self {
            Piece::Run(run) => run.entries()[document as usize].record.time,
            Piece::Split(split) => split.time(document),
        }
    }

    pub(super) fn position(&self, document: u32) -> Position {
        match self {
            Piece::Run(run) => run.position(document as usize),
            Piece::Split(split) => split.position(document),
        }
    }

    fn event(&self, document: u32) -> Result<Event> {
        match self {
            Piece::Run(run) => Ok(Event::of(run.partition(), &run.entries()[document as usize])),
            Piece::Split(split) => split.event(document),
        }
    }

    /// The first document that `is_past` holds for; it holds for all after that.
    fn partition_point(&self, is_past: impl Fn(Position) -> bool) -> u32 {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if is_past(self.position(middle)) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    /// The documents of a range that are looked for, from the end that the order begins at.
    pub(super) fn find(&self, terms: Option<&Terms>, range: Range<u32>, take: Take) -> Result<Vec<u32>> {
        let Some(terms) = terms else {
            return Ok(match take.order {
                Order::Ascending => range.take(take.limit).collect(),
                Order::Descending => range.rev().take(take.limit).collect(),
            });
        };
        match self {
            Piece::Split(split) => split.segment().find(terms, range, take),
            Piece::Run(run) => match terms.key_only() {
                None => run.segment(terms)?.find(terms, range, take),
                Some(key) => {
                    let has_key =
                        |index: &u32| run.entries()[*index as usize].record.key.as_ref() == Some(key);
                    Ok(match take.order {
                        Order::Ascending => range.filter(has_key).take(take.limit).collect(),
                        Order::Descending => range.rev().filter(has_key).take(take.limit).collect(),
                    })
                }
            },
        }
    }

    /// Calls `found` with the matching documents of `range`, rising, while it answers true.
    pub(super) fn each(
        &self,
        terms: &Terms,
        mut range: Range<u32>,
        mut found: impl FnMut(u32) -> bool,
    ) -> Result<()> {
        match self {
            Piece::Split(split) => split.segment().each(terms, range, found),
            Piece::Run(run) => match terms.key_only() {
                None => run.segment(terms)?.each(terms, range, found),
                Some(key) => {
                    let has_key = |index: u32| run.entries()[index as usize].record.key.as_ref() == Some(key);
                    range.all(|index| !has_key(index) || found(index));
                    Ok(())
                }
            },
        }
    }

    fn count(&self, terms: Option<&Terms>, range: Range<u32>) -> Result<u64> {
        if range.is_empty() {
            return Ok(0);
        }
        let Some(terms) = terms else { return Ok(range.len() as u64) };
        match self {
            Piece::Split(split) => split.segment().count(terms, range),
            Piece::Run(run) => match terms.key_only() {
                None => run.segment(terms)?.count(terms, range),
                Some(key) => {
                    let entries = &run.entries()[range.start as usize..range.end as usize];
                    Ok(entries.iter().filter(|entry| entry.record.key.as_ref() == Some(key)).count() as u64)
                }
            },
        }
    }
}

/// What is looked for.
pub(super) struct Search {
    pub(super) bounds: Bounds,
    pub(super) terms: Option<Terms>,
    /// Only what follows this in the answer's order.
    pub(super) after: Option<Position>,
}

/// A document that belongs to the answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Hit {
    position: Position,
    piece: usize,
    document: u32,
}

impl Search {
    /// The next events in order, and the last one's position if more follow.
    pub(super) fn page(&self, pieces: &[Piece], take: Take) -> Result<(Vec<Event>, Option<Position>)> {
        let more = Take { limit: take.limit + 1, ..take };
        let mut hits = self.hits(pieces, more)?;
        let is_last = hits.len() <= take.limit;
        hits.truncate(take.limit);
        let last = hits.last().filter(|_| !is_last).map(|hit| hit.position);
        let events: Result<Vec<Event>> =
            hits.iter().map(|hit| pieces[hit.piece].event(hit.document)).collect();
        Ok((events?, last))
    }

    /// The runs that have to be indexed before all events can be counted.
    pub(super) fn unindexed(&self, pieces: &[Piece]) -> Vec<Arc<Run>> {
        let Some(terms) = self.terms.as_ref().filter(|terms| terms.key_only().is_none()) else {
            return Vec::new();
        };
        let in_range = pieces.iter().filter(|piece| !self.range(piece, Order::Ascending).is_empty());
        let runs = in_range.filter_map(|piece| match piece {
            Piece::Run(run) => Some(Arc::clone(run)),
            Piece::Split(_) => None,
        });
        runs.filter(|run| !run.is_indexed_for(terms)).collect()
    }

    /// How many events match.
    pub(super) fn count(&self, pieces: &[Piece]) -> Result<u64> {
        let counts =
            pieces.iter().map(|piece| piece.count(self.terms.as_ref(), self.range(piece, Order::Ascending)));
        counts.sum()
    }

    /// The events from number `start` of an answer that has no terms, oldest first, and how many it
    /// has. The instant that `start` falls on is found by halving, so far pages cost what near ones do.
    pub(super) fn slice(&self, pieces: &[Piece], start: u64, limit: usize) -> Result<(Vec<Event>, u64)> {
        if self.terms.is_some() {
            return Err(Error::internal("a slice of a search"));
        }
        let total = self.count(pieces)?;
        if start >= total {
            return Ok((Vec::new(), total));
        }
        let before = |time: i64| -> u64 {
            let below = |piece: &Piece| {
                let range = self.range(piece, Order::Ascending);
                let end = piece.partition_point(|position| position.time.micros() >= time);
                u64::from(end.clamp(range.start, range.end) - range.start)
            };
            pieces.iter().map(below).sum()
        };
        let (mut low, mut high) = (self.bounds.from.micros(), self.bounds.to.micros());
        while low < high {
            let middle = low + (high - low) / 2 + 1;
            if before(middle) <= start { low = middle } else { high = middle - 1 }
        }
        let from = Timestamp::from_micros(low).unwrap_or(self.bounds.from);
        let skipped = usize::try_from(start - before(low)).unwrap_or(usize::MAX);
        let search = Search { bounds: Bounds { from, ..self.bounds }, terms: None, after: None };
        let take = Take { order: Order::Ascending, limit: skipped.saturating_add(limit) };
        let hits = search.hits(pieces, take)?;
        let events = hits.iter().skip(skipped).map(|hit| pieces[hit.piece].event(hit.document));
        Ok((events.collect::<Result<_>>()?, total))
    }

    fn hits(&self, pieces: &[Piece], take: Take) -> Result<Vec<Hit>> {
        let mut ranges: Vec<(Position, usize, Range<u32>)> = Vec::new();
        for (number, piece) in pieces.iter().enumerate() {
            let range = self.range(piece, take.order);
            if range.is_empty() {
                continue;
            }
            let best = match take.order {
                Order::Ascending => piece.position(range.start),
                Order::Descending => piece.position(range.end - 1),
            };
            ranges.push((best, number, range));
        }
        ranges.sort_by_key(|(best, ..)| *best);
        if take.order == Order::Descending {
            ranges.reverse();
        }
        let mut hits: Vec<Hit> = Vec::new();
        for (best, number, range) in ranges {
            let worst = hits.last().filter(|_| hits.len() >= take.limit).map(|hit| hit.position);
            let is_full = worst.is_some_and(|worst| match take.order {
                Order::Ascending => best > worst,
                Order::Descending => best < worst,
            });
            if is_full {
                break;
            }
            let piece = &pieces[number];
            let found = piece.find(self.terms.as_ref(), range, take)?.into_iter();
            hits.extend(found.map(|document| Hit {
                position: piece.position(document),
                piece: number,
                document,
            }));
            match take.order {
                Order::Ascending => hits.sort(),
                Order::Descending => hits.sort_by(|a, b| b.cmp(a)),
            }
            hits.truncate(take.limit);
        }
        Ok(hits)
    }

    /// The documents of a piece within the bounds and past the cursor.
    pub(super) fn range(&self, piece: &Piece, order: Order) -> Range<u32> {
        let Bounds { from, to } = self.bounds;
        let mut start = piece.partition_point(|position| position.time >= from);
        let mut end = piece.partition_point(|position| position.time > to);
        if let Some(after) = self.after {
            match order {
                Order::Ascending => start = start.max(piece.partition_point(|position| position > after)),
                Order::Descending => end = end.min(piece.partition_point(|position| position >= after)),
            }
        }
        start..end.max(start)
    }
}
