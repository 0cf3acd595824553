//! Merging pieces into one answer. Blocking.
//!
//! Documents of a piece stand in answer order, so bounds and cursor are two binary searches, and
//! what a piece adds to a page is the next documents. Whole events are read for the winners only.

use std::ops::Range;
use std::sync::Arc;

use broker::{Error, Result, Timestamp};

use super::parse::Bounds;
use crate::index::Run;
use crate::split::{Event, Order, Position, Split, Take, Terms, partition_point};

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

    /// When its first and its last event were, if it has any.
    fn span(&self) -> Option<(Timestamp, Timestamp)> {
        match self {
            Piece::Run(run) => {
                let (first, last) = (run.entries().first()?, run.entries().last()?);
                Some((first.record.time, last.record.time))
            }
            Piece::Split(split) => Some((split.footer().time_min, split.footer().time_max)),
        }
    }

    pub(super) fn time(&self, document: u32) -> Timestamp {
        match self {
            Piece::Run(run) => run.entries()[document as usize].record.time,
            Piece::Split(split) => split.times().of_document(document),
        }
    }

    /// The first document behind the first of `range`, which is before `micros`, that is not; the end of
    /// the range if all are.
    pub(super) fn first_from(&self, micros: i64, range: Range<u32>) -> u32 {
        match self {
            Piece::Run(run) => {
                let entries = &run.entries()[range.start as usize..range.end as usize];
                let count = entries.partition_point(|entry| entry.record.time.micros() < micros);
                range.start + u32::try_from(count).unwrap_or(u32::MAX)
            }
            Piece::Split(split) => split.times().first_from(micros, range),
        }
    }

    /// A document behind `document`, up to which all are before `micros` as `document` is.
    pub(super) fn known_before(&self, micros: i64, document: u32) -> u32 {
        match self {
            Piece::Run(_) => document + 1,
            Piece::Split(split) => split.times().known_before(micros, document),
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

    /// The first document whose time `is_past` holds for; it holds for all after that.
    fn first_time(&self, is_past: impl Fn(Timestamp) -> bool) -> u32 {
        partition_point(0..self.len(), |document| is_past(self.time(document)))
    }

    /// The first document of `range` whose position `is_past` holds for; it holds for all after that.
    fn first_position(&self, range: Range<u32>, is_past: impl Fn(Position) -> bool) -> u32 {
        partition_point(range, |document| is_past(self.position(document)))
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

    /// The documents of `wanted` that are looked for, and how many of `range` match, which `wanted` is a
    /// part of.
    fn find_and_count(
        &self,
        terms: Option<&Terms>,
        range: Range<u32>,
        wanted: Range<u32>,
        take: Take,
    ) -> Result<(Vec<u32>, u64)> {
        match (self, terms) {
            (Piece::Split(split), Some(terms)) => split.segment().find_and_count(terms, range, wanted, take),
            (Piece::Run(run), Some(terms)) if terms.key_only().is_none() => {
                run.segment(terms)?.find_and_count(terms, range, wanted, take)
            }
            _ => Ok((self.find(terms, wanted, take)?, self.count(terms, range)?)),
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

/// The events of a page.
pub(super) struct Found {
    pub(super) events: Vec<Event>,
    /// The last one's position, if more follow.
    pub(super) last: Option<Position>,
}

/// A document that belongs to the answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Hit {
    position: Position,
    piece: usize,
    document: u32,
}

impl Search {
    /// The next events in order.
    pub(super) fn page(&self, pieces: &[Piece], take: Take) -> Result<Found> {
        read(pieces, self.hits(pieces, one_more(take))?, take)
    }

    /// The same, and how many events match in all, before the cursor too. Each piece is gone through once
    /// for both.
    pub(super) fn page_and_count(&self, pieces: &[Piece], take: Take) -> Result<(Found, u64)> {
        let (mut best, mut count) = (Best::new(one_more(take)), 0);
        let ranges = self.ranges(pieces, take.order);
        let mut is_counted = vec![false; pieces.len()];
        for (first, number, wanted) in ranges {
            let piece = &pieces[number];
            let limit = if best.is_past(first) { 0 } else { take.limit + 1 };
            let take = Take { limit, ..take };
            let (found, counted) =
                piece.find_and_count(self.terms.as_ref(), self.within(piece), wanted, take)?;
            best.add(piece, number, found);
            count += counted;
            is_counted[number] = true;
        }
        for (piece, _) in pieces.iter().zip(is_counted).filter(|(_, is_counted)| !is_counted) {
            count += piece.count(self.terms.as_ref(), self.within(piece))?;
        }
        Ok((read(pieces, best.hits, take)?, count))
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
        pieces.iter().map(|piece| piece.count(self.terms.as_ref(), self.within(piece))).sum()
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
                let end = piece.first_time(|at| at.micros() >= time);
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
        let mut best = Best::new(take);
        for (first, number, range) in self.ranges(pieces, take.order) {
            if best.is_past(first) {
                break;
            }
            let piece = &pieces[number];
            best.add(piece, number, piece.find(self.terms.as_ref(), range, take)?);
        }
        Ok(best.hits)
    }

    /// Where each piece has documents within the bounds and past the cursor, with the first one's position;
    /// those that begin first stand first.
    fn ranges(&self, pieces: &[Piece], order: Order) -> Vec<(Position, usize, Range<u32>)> {
        let mut ranges = Vec::with_capacity(pieces.len());
        for (number, piece) in pieces.iter().enumerate() {
            let range = self.range(piece, order);
            if range.is_empty() {
                continue;
            }
            let first = match order {
                Order::Ascending => piece.position(range.start),
                Order::Descending => piece.position(range.end - 1),
            };
            ranges.push((first, number, range));
        }
        ranges.sort_by_key(|(first, ..)| *first);
        if order == Order::Descending {
            ranges.reverse();
        }
        ranges
    }

    /// The documents of a piece within the bounds and past the cursor.
    pub(super) fn range(&self, piece: &Piece, order: Order) -> Range<u32> {
        let within = self.within(piece);
        let Some(after) = self.after else { return within };
        match order {
            Order::Ascending => piece.first_position(within.clone(), |position| position > after)..within.end,
            Order::Descending => within.start..piece.first_position(within, |position| position >= after),
        }
    }

    /// The documents of a piece within the bounds.
    fn within(&self, piece: &Piece) -> Range<u32> {
        let Bounds { from, to } = self.bounds;
        let Some((first, last)) = piece.span() else { return 0..0 };
        let start = if from <= first { 0 } else { piece.first_time(|time| time >= from) };
        let end = if last <= to { piece.len() } else { piece.first_time(|time| time > to) };
        start..end.max(start)
    }
}

/// The first hits of an answer, out of those that were added.
struct Best {
    take: Take,
    hits: Vec<Hit>,
}

impl Best {
    fn new(take: Take) -> Self {
        Self { take, hits: Vec::new() }
    }

    /// Whether nothing from `position` on belongs to it.
    fn is_past(&self, position: Position) -> bool {
        let worst = self.hits.last().filter(|_| self.hits.len() >= self.take.limit);
        worst.is_some_and(|worst| match self.take.order {
            Order::Ascending => position > worst.position,
            Order::Descending => position < worst.position,
        })
    }

    fn add(&mut self, piece: &Piece, number: usize, found: Vec<u32>) {
        let hit = |document| Hit { position: piece.position(document), piece: number, document };
        self.hits.extend(found.into_iter().map(hit));
        match self.take.order {
            Order::Ascending => self.hits.sort(),
            Order::Descending => self.hits.sort_by(|a, b| b.cmp(a)),
        }
        self.hits.truncate(self.take.limit);
    }
}

/// One more than a page has tells whether more follow.
fn one_more(take: Take) -> Take {
    Take { limit: take.limit + 1, ..take }
}

/// Reads the events of a page, of which one more is known if more follow.
fn read(pieces: &[Piece], mut hits: Vec<Hit>, take: Take) -> Result<Found> {
    let is_last = hits.len() <= take.limit;
    hits.truncate(take.limit);
    let last = hits.last().filter(|_| !is_last).map(|hit| hit.position);
    let events = hits.iter().map(|hit| pieces[hit.piece].event(hit.document));
    Ok(Found { events: events.collect::<Result<_>>()?, last })
}
