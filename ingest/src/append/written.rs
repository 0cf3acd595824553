//! What became of a request's events: one by one, or as ranges of offsets.

use std::num::NonZeroU64;

use broker::{Appended, Error, Offset, Partition, Timestamp};

/// What was decided about one event before it was written.
#[derive(Debug)]
pub(super) enum Slot {
    /// Record number `index` of append number `append`.
    Placed {
        append: usize,
        index: usize,
        time: Timestamp,
    },
    Refused(Error),
}

/// A request whose records are durable.
#[derive(Debug)]
pub(crate) struct Written {
    /// Partition and number of records of each batch.
    pub(super) batches: Vec<(Partition, u64)>,
    /// Where each batch was put.
    pub(super) appended: Vec<Appended>,
    pub(super) slots: Vec<Slot>,
}

/// What became of one event.
#[derive(Debug)]
pub(crate) enum Outcome<'w> {
    /// It is durable.
    Appended { partition: Partition, offset: Offset, time: Timestamp },
    /// It was not written.
    Refused(&'w Error),
}

/// Offsets of one partition without a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetRange {
    pub(crate) partition: Partition,
    pub(crate) first: Offset,
    pub(crate) count: NonZeroU64,
}

impl Written {
    /// What became of each event, in the order of the request.
    pub(crate) fn outcomes(&self) -> impl ExactSizeIterator<Item = Outcome<'_>> {
        self.slots.iter().map(|slot| match slot {
            Slot::Placed { append, index, time } => {
                let (partition, _) = self.batches[*append];
                Outcome::Appended { partition, offset: self.appended[*append].offset(*index), time: *time }
            }
            Slot::Refused(error) => Outcome::Refused(error),
        })
    }

    /// The offsets that were taken, by partition, and the events that were refused, by their index in
    /// the request.
    pub(crate) fn ranges(self) -> (Vec<OffsetRange>, Vec<(usize, Error)>) {
        let mut ranges = Vec::with_capacity(self.batches.len());
        for ((partition, count), appended) in self.batches.into_iter().zip(&self.appended) {
            match appended {
                Appended::From(first) => push(&mut ranges, partition, *first, count),
                Appended::Each(offsets) => {
                    offsets.iter().for_each(|offset| push(&mut ranges, partition, *offset, 1));
                }
            }
        }
        ranges.sort_by_key(|range: &OffsetRange| (range.partition, range.first));
        let refused = self.slots.into_iter().enumerate().filter_map(|(index, slot)| match slot {
            Slot::Placed { .. } => None,
            Slot::Refused(error) => Some((index, error)),
        });
        (ranges, refused.collect())
    }
}

/// Adds offsets to the last range where they follow it, else as a range of their own.
fn push(ranges: &mut Vec<OffsetRange>, partition: Partition, first: Offset, count: u64) {
    let Some(count) = NonZeroU64::new(count) else { return };
    match ranges.last_mut() {
        Some(last) if last.partition == partition && last.first.0 + last.count.get() == first.0 => {
            last.count = last.count.saturating_add(count.get());
        }
        _ => ranges.push(OffsetRange { partition, first, count }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(batches: &[(u32, Appended)], expected: &[(u32, u64, u64)]) {
        let count = |appended: &Appended| match appended {
            Appended::From(_) => 5,
            Appended::Each(offsets) => offsets.len() as u64,
        };
        let written = Written {
            batches: batches.iter().map(|(number, batch)| (Partition(*number), count(batch))).collect(),
            appended: batches.iter().map(|(_, batch)| batch.clone()).collect(),
            slots: Vec::new(),
        };
        let (ranges, refused) = written.ranges();
        let ranges: Vec<_> =
            ranges.iter().map(|range| (range.partition.0, range.first.0, range.count.get())).collect();
        assert_eq!(ranges, expected);
        assert!(refused.is_empty());
    }

    #[test]
    fn offsets_with_holes_are_several_ranges() {
        let each = |offsets: &[u64]| Appended::Each(offsets.iter().copied().map(Offset).collect());
        check(&[], &[]);
        check(&[(1, Appended::From(Offset(7)))], &[(1, 7, 5)]);
        check(&[(0, each(&[3, 4, 6, 8, 9]))], &[(0, 3, 2), (0, 6, 1), (0, 8, 2)]);
        check(&[(3, each(&[2, 3])), (2, each(&[4]))], &[(2, 4, 1), (3, 2, 2)]);
        check(&[(0, each(&[1])), (1, each(&[2]))], &[(0, 1, 1), (1, 2, 1)]);
    }
}
