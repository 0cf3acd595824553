//! Merges splits into one: their documents are sorted, so the next one of the answer is always the
//! next of one of them. Events are indexed again from their stored bytes; the log is not read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use broker::{Error, Result, Timestamp};
use bytes::Bytes;

use super::bundle::Footer;
use super::documents::{Documents, Stored};
use super::segment::Split;
use super::{Event, Position, build};

/// The object of one split with the events of all `parts`, neighbours of one partition in the order
/// of their offsets. Holds a block of documents of each at a time, and the new object. Blocking.
pub(crate) fn merge(parts: &[Arc<Split>]) -> Result<(Bytes, Footer)> {
    let footer = footer_of(parts)?;
    let documents = parts.iter().map(|part| Documents::of(part)).collect::<Result<Vec<_>>>()?;
    build::pack(|| Merged::of(parts, &documents), footer)
}

fn footer_of(parts: &[Arc<Split>]) -> Result<Footer> {
    let Some((first, rest)) = parts.split_first() else {
        return Err(Error::internal("merge no splits"));
    };
    let first = first.footer();
    let mut merged = Footer { is_merged: true, files: Vec::new(), ..first.clone() };
    for part in rest {
        let part = part.footer();
        let is_next = (part.partition, part.first_offset) == (merged.partition, merged.end_offset);
        if !is_next || (&part.stream, part.incarnation) != (&merged.stream, merged.incarnation) {
            return Err(Error::internal("merge splits that are no neighbours"));
        }
        merged.end_offset = part.end_offset;
        merged.count = merged
            .count
            .checked_add(part.count)
            .ok_or_else(|| Error::internal("a split has too many events"))?;
        merged.bytes = merged.bytes.saturating_add(part.bytes);
        merged.time_min = merged.time_min.min(part.time_min);
        merged.time_max = merged.time_max.max(part.time_max);
    }
    Ok(merged)
}

/// The events of all parts in answer order. Each part's are read one after the other, so that a block of
/// its documents is decompressed once.
struct Merged<'a> {
    parts: &'a [Arc<Split>],
    documents: Vec<Box<dyn Iterator<Item = Result<Stored>> + 'a>>,
    /// The next document of each part that has one, and its place.
    next: BinaryHeap<Reverse<(Position, usize, u32)>>,
    last: Timestamp,
}

impl<'a> Merged<'a> {
    fn of(parts: &'a [Arc<Split>], documents: &'a [Documents]) -> Self {
        let each = |documents: &'a Documents| Box::new(documents.each_from(0)) as Box<_>;
        let documents = documents.iter().map(each).collect();
        let mut merged = Self { parts, documents, next: BinaryHeap::new(), last: Timestamp::MIN };
        (0..parts.len()).for_each(|part| merged.push(part, 0));
        merged
    }

    fn push(&mut self, part: usize, document: u32) {
        let split = &self.parts[part];
        if document < split.footer().count {
            self.next.push(Reverse((split.position(document), part, document)));
        }
    }

    /// The next document of a part, which is the one of that number.
    fn event(&mut self, part: usize, document: u32, position: Position) -> Result<Event> {
        let stored = self.documents[part].next();
        let missing = || Error::corrupt(format!("a split has no document {document} though it counts it"));
        let Stored { key, value } = stored.ok_or_else(missing)??;
        let origin = self.parts[part].origin(document);
        Ok(Event { position, origin, key: key.map(Bytes::from), value: value.into() })
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Result<Event>> {
        let Reverse((position, part, document)) = self.next.pop()?;
        if position.time < self.last {
            let Footer { stream, first_offset, .. } = self.parts[part].footer();
            let message = format!("split {first_offset} of {stream}: its documents are not in order");
            return Some(Err(Error::corrupt(message)));
        }
        self.last = position.time;
        self.push(part, document + 1);
        Some(self.event(part, document, position))
    }
}
