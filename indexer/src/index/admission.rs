//! Which offsets of a partition the index takes.

use std::ops::Range;

use broker::{Entry, Offset};

/// The spans of a partition in which the index is on.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// In order; what is being switched off is open still.
    ranges: Vec<Range<Offset>>,
    /// The span that is being switched off, with the first offset that need not be in it.
    ending: Option<(u32, Offset)>,
    /// Where that span ends, by its number, where this process says so.
    limit: Option<(u32, Offset)>,
}

impl Admission {
    pub(super) fn new(ranges: Vec<Range<Offset>>, ending: Option<(u32, Offset)>) -> Self {
        Self { ranges, ending, limit: None }
    }

    /// Says where the span that is being switched off ends: where it is to end, or at `reached` if that
    /// is further. What was said of it before stands.
    pub(super) fn set_limit(&mut self, before: Option<(u32, Offset)>, reached: Offset) {
        let Some((span, to)) = self.ending else { return };
        let known = before.filter(|(known, _)| *known == span);
        self.limit = Some(known.unwrap_or((span, to.max(reached))));
    }

    pub(super) fn limit(&self) -> Option<(u32, Offset)> {
        self.limit
    }

    pub(super) fn take_limit(&mut self) -> Option<(u32, Offset)> {
        self.limit.take()
    }

    fn ranges(&self) -> impl Iterator<Item = Range<Offset>> {
        let last = self.ranges.len().saturating_sub(1);
        let cut = move |(index, range): (usize, &Range<Offset>)| match self.limit {
            Some((_, limit)) if index == last => range.start..range.end.min(limit),
            _ => range.clone(),
        };
        self.ranges.iter().enumerate().map(cut).filter(|range| range.start < range.end)
    }

    /// What of `part` is taken.
    pub(super) fn within(&self, part: &Range<Offset>) -> Vec<Range<Offset>> {
        let cut = |range: Range<Offset>| range.start.max(part.start)..range.end.min(part.end);
        self.ranges().map(cut).filter(|range| range.start < range.end).collect()
    }

    /// The first offset at or past `offset` that is taken.
    pub(super) fn next(&self, offset: Offset) -> Option<Offset> {
        let range = self.ranges().find(|range| range.end > offset)?;
        Some(range.start.max(offset))
    }

    /// Leaves out the entries, all of them in `part`, that are not taken.
    pub(super) fn retain(&self, part: &Range<Offset>, entries: &mut Vec<Entry>) {
        let taken = self.within(part);
        if taken.first() != Some(part) {
            entries.retain(|entry| taken.iter().any(|range| range.contains(&entry.offset)));
        }
    }
}

#[cfg(test)]
mod tests {
    use broker::{Record, Timestamp};

    use super::*;

    #[test]
    fn takes_what_lies_in_its_spans_and_below_its_limit() {
        let ranges = vec![Offset(2)..Offset(5), Offset(9)..Offset(u64::MAX)];
        let mut admission = Admission::new(ranges, Some((2, Offset(12))));
        let taken = |admission: &Admission, part: Range<u64>| {
            let part = Offset(part.start)..Offset(part.end);
            let entry = |offset| Entry { offset: Offset(offset), record: Record::new("{}", Timestamp::MIN) };
            let mut entries = (part.start.0..part.end.0).map(entry).collect();
            admission.retain(&part, &mut entries);
            entries.iter().map(|entry| entry.offset.0).collect::<Vec<_>>()
        };
        assert_eq!(taken(&admission, 0..20), [2, 3, 4, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]);
        admission.set_limit(None, Offset(11));
        assert_eq!(taken(&admission, 4..20), [4, 9, 10, 11]);
        assert_eq!(taken(&admission, 9..11), [9, 10]);
        assert_eq!(admission.next(Offset(0)), Some(Offset(2)));
        assert_eq!(admission.next(Offset(5)), Some(Offset(9)));
        assert_eq!(admission.next(Offset(12)), None);
        admission.set_limit(Some((2, Offset(14))), Offset(11));
        assert_eq!(admission.limit(), Some((2, Offset(14))));
        admission.set_limit(Some((1, Offset(14))), Offset(13));
        assert_eq!(admission.take_limit(), Some((2, Offset(13))));
        assert_eq!(admission.next(Offset(20)), Some(Offset(20)));
        assert_eq!(taken(&Admission::default(), 0..3), [0; 0]);
    }
}
