//! Every event of an answer in order, one after the other. Blocking.
//!
//! A page is found by looking at every piece anew; here each piece is gone through once, and the
//! pieces are merged as they are. What is held of a piece is the positions of its next documents and
//! one block of its store, and only while the answer stands in it.

use std::cell::OnceCell;
use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;

use broker::Result;

use super::search::{Piece, Search};
use crate::line::Line;
use crate::split::{Documents, Order, Position, Split, Stored, Take};

/// So many documents of a piece are looked up at once.
const AHEAD: usize = 1_024;

impl Search {
    /// Calls `each` with every event in order, while it answers true.
    pub(super) fn walk(
        &self,
        pieces: &[Piece],
        order: Order,
        each: &mut dyn FnMut(&Line<'_>) -> Result<bool>,
    ) -> Result<()> {
        let documents: Vec<OnceCell<Documents>> = pieces.iter().map(|_| OnceCell::new()).collect();
        let (mut sources, mut heap) = (Vec::new(), BinaryHeap::new());
        for (piece, documents) in pieces.iter().zip(&documents) {
            let range = self.range(piece, order);
            let Some(position) = best(piece, &range, order) else { continue };
            heap.push(Next { position, order, source: sources.len(), is_exact: false });
            let (ahead, reading) = (VecDeque::new(), None);
            sources.push(Source { search: self, piece, documents, range, order, ahead, reading });
        }
        while let Some(next) = heap.pop() {
            let source: &mut Source<'_> = &mut sources[next.source];
            if next.is_exact {
                // The pieces are of all partitions: mostly the next event is another one's.
                let rival = heap.peek().map(|rival| rival.position);
                loop {
                    if !source.give(each)? {
                        return Ok(());
                    }
                    let is_next = |position: &Position| {
                        rival.is_none_or(|rival| order.compare(*position, rival) == Ordering::Less)
                    };
                    if source.ahead.front().is_none_or(|(position, _)| !is_next(position)) {
                        break;
                    }
                }
            }
            match source.look_ahead()? {
                Some(position) => heap.push(Next { position, is_exact: true, ..next }),
                // Nothing is held of what was gone through.
                None => source.reading = None,
            }
        }
        Ok(())
    }
}

impl Order {
    /// Which of two positions comes first in an answer.
    fn compare(self, one: Position, other: Position) -> Ordering {
        match self {
            Order::Ascending => one.cmp(&other),
            Order::Descending => other.cmp(&one),
        }
    }
}

/// Where the first document of a range stands; a lower bound where not all of them are looked for.
fn best(piece: &Piece, range: &Range<u32>, order: Order) -> Option<Position> {
    let last = range.end.checked_sub(1).filter(|_| !range.is_empty())?;
    Some(match order {
        Order::Ascending => piece.position(range.start),
        Order::Descending => piece.position(last),
    })
}

/// A source whose next event stands at a position, or not before it.
struct Next {
    position: Position,
    order: Order,
    source: usize,
    is_exact: bool,
}

impl Ord for Next {
    /// The first in the answer is the greatest, for the heap.
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.compare(other.position, self.position).then(other.source.cmp(&self.source))
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Next {}

/// A piece that is gone through.
struct Source<'a> {
    search: &'a Search,
    piece: &'a Piece,
    documents: &'a OnceCell<Documents>,
    /// What was not looked at yet.
    range: Range<u32>,
    order: Order,
    /// The next documents.
    ahead: VecDeque<(Position, u32)>,
    reading: Option<Reading<'a>>,
}

/// How the documents of a split are read.
enum Reading<'a> {
    /// All of them, rising.
    InTurn(Box<dyn Iterator<Item = Result<Stored>> + 'a>),
    /// By number.
    Each(&'a Documents),
}

impl<'a> Source<'a> {
    /// The next event's position; none if there is none.
    fn look_ahead(&mut self) -> Result<Option<Position>> {
        if self.ahead.is_empty() && !self.range.is_empty() {
            let take = Take { order: self.order, limit: AHEAD };
            let found = self.piece.find(self.search.terms.as_ref(), self.range.clone(), take)?;
            match (self.order, found.last()) {
                (_, last) if found.len() < AHEAD || last.is_none() => self.range = 0..0,
                (Order::Ascending, Some(last)) => self.range.start = last + 1,
                (Order::Descending, Some(last)) => self.range.end = *last,
                (_, None) => {}
            }
            self.begin_reading(&found)?;
            self.ahead.extend(found.into_iter().map(|document| (self.piece.position(document), document)));
        }
        Ok(self.ahead.front().map(|(position, _)| *position))
    }

    fn begin_reading(&mut self, found: &[u32]) -> Result<()> {
        let (Piece::Split(split), Some(first), None) = (self.piece, found.first(), &self.reading) else {
            return Ok(());
        };
        let documents = opened(self.documents, split)?;
        // To read them in turn, those before the first are read for nothing.
        let wanted = found.len() + self.range.len();
        let is_whole = self.search.terms.is_none() && *first as usize <= wanted;
        self.reading = Some(match self.order {
            Order::Ascending if is_whole => Reading::InTurn(Box::new(documents.each_from(*first))),
            _ => Reading::Each(documents),
        });
        Ok(())
    }

    /// Hands on the next event; there is one.
    fn give(&mut self, each: &mut dyn FnMut(&Line<'_>) -> Result<bool>) -> Result<bool> {
        let Some((position, document)) = self.ahead.pop_front() else { return Ok(true) };
        let split = match self.piece {
            Piece::Run(run) => {
                return each(&Line::of(run.partition(), &run.entries()[document as usize]));
            }
            Piece::Split(split) => split,
        };
        let missing = || broker::Error::corrupt("a split holds fewer documents than it says");
        let stored = match &mut self.reading {
            Some(Reading::InTurn(documents)) => documents.next().ok_or_else(missing)??,
            Some(Reading::Each(documents)) => documents.get(document)?,
            None => return Err(missing()),
        };
        each(&Line {
            partition: position.partition,
            offset: position.offset,
            origin: split.origin(document),
            time: position.time,
            key: stored.key.as_deref(),
            value: &stored.value,
            is_json: split.footer().is_json,
        })
    }
}

/// Opens the documents at the first call.
fn opened<'a>(cell: &'a OnceCell<Documents>, split: &Split) -> Result<&'a Documents> {
    if cell.get().is_none() {
        // Nobody else has the cell, so it is still empty.
        cell.set(Documents::of(split)?).unwrap_or_default();
    }
    cell.get().ok_or_else(|| broker::Error::internal("open the documents of a split"))
}
