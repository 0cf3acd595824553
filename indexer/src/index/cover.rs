//! Which of a partition's splits an answer is made of.
//!
//! A merged split and its parts lie beside each other for a while, and where two nodes merged at
//! once their splits may overlap. An answer takes those that form a *path*: each begins where the
//! one before ends, so that every offset is covered once. Whoever sees the same splits takes the
//! same path, and whatever is removed must be off it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use broker::Offset;

use crate::split::Footer;

/// A partition's splits, told apart.
#[derive(Debug, Default)]
pub(crate) struct Cover {
    /// What answers are made of, without a gap or an overlap.
    pub(crate) path: Vec<Arc<Footer>>,
    /// What the path covers as well, or lies apart from it.
    pub(crate) rest: Vec<Arc<Footer>>,
}

/// How good it is to go on from an offset: as far as possible, in as few splits as possible.
type Worth = (Offset, Reverse<usize>);

impl Cover {
    /// The path begins at the first offset that there is, goes as far as it can, and takes the
    /// fewest splits on the way.
    pub(super) fn of(splits: impl IntoIterator<Item = Arc<Footer>>) -> Self {
        let mut splits: Vec<_> = splits.into_iter().filter(|split| !split.offsets().is_empty()).collect();
        splits.sort_by_key(|split| Reverse((split.first_offset, split.end_offset)));
        let mut best: BTreeMap<Offset, (Worth, usize)> = BTreeMap::new();
        for (number, split) in splits.iter().enumerate() {
            // Splits that begin later were looked at before.
            let onward = best.get(&split.end_offset).map(|(worth, _)| *worth);
            let (reach, Reverse(count)) = onward.unwrap_or((split.end_offset, Reverse(0)));
            let worth = (reach, Reverse(count + 1));
            let known = best.entry(split.first_offset).or_insert((worth, number));
            if known.0 < worth {
                *known = (worth, number);
            }
        }
        let mut next = splits.last().map(|split| split.first_offset);
        let mut is_taken = vec![false; splits.len()];
        while let Some((_, number)) = next.and_then(|next| best.get(&next)) {
            is_taken[*number] = true;
            next = Some(splits[*number].end_offset);
        }
        let mut cover = Self::default();
        for (split, is_taken) in splits.into_iter().zip(is_taken).rev() {
            if is_taken { cover.path.push(split) } else { cover.rest.push(split) }
        }
        cover
    }

    /// Where the path ends.
    pub(super) fn end(&self) -> Offset {
        self.path.last().map_or(Offset(0), |split| split.end_offset)
    }

    /// Where the path ends although another split begins there or later.
    pub(super) fn gap(&self) -> Option<Offset> {
        let end = self.path.last()?.end_offset;
        self.rest.iter().any(|split| split.first_offset >= end).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;
    use crate::testing::footer;

    fn check(splits: &[(u64, u64)], path: &[(u64, u64)], gap: Option<u64>) {
        let cover = Cover::of(splits.iter().map(|(first, end)| Arc::new(footer(*first, *end))));
        let pairs = |footers: &[Arc<Footer>]| -> Vec<(u64, u64)> {
            footers.iter().map(|footer| (footer.first_offset.0, footer.end_offset.0)).collect()
        };
        assert_eq!(pairs(&cover.path), path, "{splits:?}");
        assert_eq!(cover.gap(), gap.map(Offset), "{splits:?}");
        assert_eq!(cover.path.len() + cover.rest.len(), splits.len());
    }

    #[test]
    fn a_path_covers_every_offset_once() {
        check(&[], &[], None);
        check(&[(0, 5), (5, 9)], &[(0, 5), (5, 9)], None);
        check(&[(5, 9), (0, 5), (0, 9)], &[(0, 9)], None);
        // The merged split hides its parts also while only some of them are gone.
        check(&[(5, 9), (0, 9), (9, 12)], &[(0, 9), (9, 12)], None);
        check(&[(3, 5), (0, 9), (5, 9), (9, 12)], &[(0, 9), (9, 12)], None);
        // Two that merged at once: the path does not mix them, and reaches the end.
        check(&[(0, 3), (3, 6), (6, 9), (0, 6), (3, 9), (9, 12)], &[(0, 6), (6, 9), (9, 12)], None);
        check(&[(0, 3), (3, 6), (0, 6), (3, 9), (9, 12)], &[(0, 3), (3, 9), (9, 12)], None);
        check(&[(0, 6), (3, 9), (6, 9)], &[(0, 6), (6, 9)], None);
        // One who did not know better published what a merged split holds, and more.
        check(&[(0, 9), (3, 12)], &[(0, 9)], None);
        check(&[(0, 9), (3, 12), (9, 10), (10, 14)], &[(0, 9), (9, 10), (10, 14)], None);
    }

    #[test]
    fn whatever_is_merged_from_whatever_list_the_path_reaches_the_end() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let (mut splits, mut end): (BTreeSet<(u64, u64)>, u64) = (BTreeSet::new(), 0);
            let mut lists = vec![Vec::new()];
            for _ in 0..60 {
                let cover = Cover::of(splits.iter().map(|(first, end)| Arc::new(footer(*first, *end))));
                assert_eq!((cover.end().0, cover.gap()), (end, None), "seed {seed}: {splits:?}");
                let is_joined = |pair: &[Arc<Footer>]| pair[0].end_offset == pair[1].first_offset;
                assert!(cover.path.windows(2).all(is_joined), "seed {seed}: {splits:?}");
                assert!(cover.path.first().is_none_or(|split| split.first_offset == Offset(0)));
                lists.push(cover.path);
                match random.random_range(0..4) {
                    0 => {
                        splits.insert((end, end + random.random_range(1..4)));
                        end = splits.iter().map(|split| split.1).max().unwrap();
                    }
                    // One who merges may have listed long ago.
                    1 | 2 => {
                        let list = &lists[random.random_range(0..lists.len())];
                        if let [first, .., last] = &list[random.random_range(0..=list.len())..] {
                            splits.insert((first.first_offset.0, last.end_offset.0));
                        }
                    }
                    // One who removes has looked now.
                    _ => {
                        let rest = &cover.rest;
                        if !rest.is_empty() {
                            let gone = &rest[random.random_range(0..rest.len())];
                            splits.remove(&(gone.first_offset.0, gone.end_offset.0));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_gap_is_told() {
        check(&[(0, 5), (7, 9)], &[(0, 5)], Some(5));
        check(&[(4, 5), (5, 7), (7, 9)], &[(4, 5), (5, 7), (7, 9)], None);
    }
}
