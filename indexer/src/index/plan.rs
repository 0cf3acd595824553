//! Which splits of a partition to merge.
//!
//! Neighbours are merged where the result is at least [`GROWTH_MIN`] times larger than its largest
//! part, so that an event is moved a few times only, however long its stream lives: at most once
//! for every fourfold growth of the split that it lies in. Where that would not fit into one split,
//! they are merged if the result is *full*, more than half of what a split may hold; a full split
//! stays as it is. What is left of a steady stream are full splits and a few of each smaller size.

use std::ops::Range;
use std::sync::Arc;

use broker::Offset;

use crate::Limits;
use crate::split::Footer;

/// How much larger than its largest part a merged split is at least, unless it is full.
const GROWTH_MIN: u128 = 4;
/// How many splits are merged at once; as many are open meanwhile.
pub(super) const PARTS_MAX: usize = 64;
/// What a full split weighs at least, and twice of it nothing does.
const FULL: u128 = 1 << 32;

/// How full a split is, by events or by bytes, whichever is more.
fn weight(split: &Footer, limits: &Limits) -> u128 {
    let share = |held: u128, max: usize| 2 * FULL * held / (max as u128).max(1);
    let events = share(u128::from(split.count), limits.split_events_max);
    events.max(share(u128::from(split.bytes), limits.split_bytes_max))
}

/// How many offsets a merged split may cover in a log of these bounds. Where retention has begun to
/// remove, a quarter of what is there: a split goes as a whole, so it should not keep much that is
/// older than the log.
pub(super) fn span_max(bounds: &Range<Offset>) -> u64 {
    if bounds.start == Offset(0) { u64::MAX } else { bounds.end.0.saturating_sub(bounds.start.0) / 4 }
}

/// The neighbours to merge next: the longest row there is that covers no more than `span_max`
/// offsets, the oldest of several. `None` if all may stay as they are.
pub(super) fn next(path: &[Arc<Footer>], limits: &Limits, span_max: u64) -> Option<Range<usize>> {
    let weights: Vec<u128> = path.iter().map(|split| weight(split, limits)).collect();
    let mut longest: Option<Range<usize>> = None;
    for start in 0..weights.len() {
        let end_max = path[start].first_offset.0.saturating_add(span_max);
        let narrow =
            path[start..].iter().take(PARTS_MAX).take_while(|split| split.end_offset.0 <= end_max).count();
        let reach = reach(&weights[start..start + narrow]);
        let Some(end) = reach.map(|length| start + length) else { continue };
        if longest.as_ref().is_none_or(|longest| longest.len() < end - start) {
            longest = Some(start..end);
        }
    }
    longest
}

/// How many of the first splits are worth merging, at most.
fn reach(weights: &[u128]) -> Option<usize> {
    let (mut total, mut largest, mut reach) = (0, 0, None);
    for (index, weight) in weights.iter().take(PARTS_MAX).enumerate() {
        total += weight;
        largest = largest.max(*weight);
        if *weight >= FULL || total > 2 * FULL {
            break;
        }
        if index > 0 && (total >= GROWTH_MIN * largest || total >= FULL) {
            reach = Some(index + 1);
        }
    }
    reach
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::footer;

    fn limits() -> Limits {
        Limits { split_events_max: 1_000, split_bytes_max: 1 << 20, ..Limits::default() }
    }

    fn splits(sizes: &[u32]) -> Vec<Arc<Footer>> {
        let mut first = 0;
        let split = |count: &u32| {
            let end = first + u64::from(*count);
            let footer = Footer { count: *count, ..footer(first, end) };
            first = end;
            Arc::new(footer)
        };
        sizes.iter().map(split).collect()
    }

    fn check(sizes: &[u32], wanted: Option<Range<usize>>) {
        assert_eq!(next(&splits(sizes), &limits(), u64::MAX), wanted, "{sizes:?}");
    }

    #[test]
    fn neighbours_are_merged_where_that_makes_a_larger_split() {
        check(&[], None);
        check(&[7], None);
        check(&[7, 7, 7], None);
        check(&[7, 7, 7, 7], Some(0..4));
        check(&[100, 7, 7, 7], None);
        check(&[100, 7, 7, 7, 8], None);
        check(&[100, 7, 7, 8, 6, 4], Some(1..6));
        // Full ones stay; those that would be full together are put together.
        check(&[600, 600, 900], None);
        check(&[300, 300, 300, 300], Some(0..3));
        check(&[499, 600, 499], None);
        check(&[600, 1, 1, 1, 600, 1], None);
        check(&[1_000, 2, 2, 2, 2, 1_000], Some(1..5));
    }

    #[test]
    fn a_row_covers_no_more_offsets_than_it_may() {
        let splits = splits(&[7; 6]);
        assert_eq!(next(&splits, &limits(), 28), Some(0..4));
        assert_eq!(next(&splits, &limits(), 27), None);
        assert_eq!(span_max(&(Offset(0)..Offset(100))), u64::MAX);
        assert_eq!(span_max(&(Offset(20)..Offset(100))), 20);
    }

    #[test]
    fn no_more_are_merged_at_once_than_may_be_open() {
        check(&[1; 100], Some(0..PARTS_MAX));
    }

    /// Publishes one split after the other and merges whenever there is something to merge.
    fn live(sizes: impl Iterator<Item = u32>) -> (Vec<u32>, u64, u64) {
        let (mut path, mut published, mut moved) = (Vec::new(), 0, 0);
        for size in sizes {
            path.push(size);
            published += u64::from(size);
            while let Some(row) = next(&splits(&path), &limits(), u64::MAX) {
                let total: u32 = path[row.clone()].iter().sum();
                assert!(row.len() > 1 && total <= 1_000, "{path:?}");
                moved += u64::from(total);
                path.splice(row, [total]);
            }
        }
        (path, published, moved)
    }

    #[test]
    fn splits_grow_in_number_with_the_data_and_not_with_time() {
        for size in [1, 3, 40, 70, 260, 400] {
            let count = 40_000 / size;
            let (left, published, moved) = live((0..count).map(|_| size));
            let full = left.iter().filter(|size| **size >= 500).count();
            let small = left.len() - full;
            assert!(full as u64 <= 2 * published / 1_000 && small <= 16, "{size}: {left:?}");
            assert!(moved <= 6 * published, "{size}: {moved} of {published} were moved");
        }
        // Days and nights.
        let (left, published, moved) = live((0..20_000_u32).map(|hour| 1 + (hour % 24) * (hour % 24) / 30));
        assert!(left.len() as u64 <= 2 * published / 1_000 + 24, "{left:?}");
        assert!(moved <= 6 * published, "{moved} of {published} were moved");
    }
}
