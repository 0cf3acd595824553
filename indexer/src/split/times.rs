//! When the documents of a split were. They stand in the order of time, so these times never fall.
//!
//! To read one of a column costs some ten nanoseconds, and a histogram asks for thousands. From the first
//! one on every 32nd is kept as it is, which takes a quarter of a byte an event.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use broker::Timestamp;
use tantivy::columnar::{Column, ColumnIndex, ColumnValues};

/// How far marks lie apart.
const DOCUMENTS_PER_MARK: u32 = 32;
/// So many marks are looked at first.
const MARKS_NEAR: usize = 8;

/// The times of a split's documents.
pub(crate) struct Times {
    column: Arc<dyn ColumnValues<i64>>,
    count: u32,
    /// Those of documents 0, 32, 64 and so on, in microseconds.
    marks: OnceLock<Box<[i64]>>,
}

impl Times {
    /// A column with a value for each of `count` documents.
    pub(super) fn of(column: Column<i64>, count: u32) -> Self {
        Self { column: values(column), count, marks: OnceLock::new() }
    }

    /// A document's time.
    pub(crate) fn of_document(&self, document: u32) -> Timestamp {
        // Only instants within the years that a timestamp takes are ever written.
        Timestamp::from_micros(self.column.get_val(document)).unwrap_or_default()
    }

    /// A document behind `document`, up to which all are before `micros` as `document` is. Found by the
    /// marks alone, so it may be any of those.
    pub(crate) fn known_before(&self, micros: i64, document: u32) -> u32 {
        self.past_marks(micros, document).0
    }

    /// The first document behind the first of `range`, which is before `micros`, that is not; the end of
    /// the range if all are.
    pub(crate) fn first_from(&self, micros: i64, range: Range<u32>) -> u32 {
        let (low, high) = self.past_marks(micros, range.start);
        let documents = low.min(range.end)..high.min(range.end);
        partition_point(documents, |document| self.column.get_val(document) >= micros)
    }

    /// Between which documents, both included, the first one lies that is at or after `micros`.
    fn past_marks(&self, micros: i64, document: u32) -> (u32, u32) {
        let own = document / DOCUMENTS_PER_MARK;
        let marks = self.marks().get(own as usize + 1..).unwrap_or_default();
        // There are fewer marks than documents.
        let last = own + below(marks, micros) as u32;
        let low = (document + 1).max(last * DOCUMENTS_PER_MARK + 1);
        (low, (last + 1).saturating_mul(DOCUMENTS_PER_MARK).min(self.count))
    }

    fn marks(&self) -> &[i64] {
        self.marks.get_or_init(|| {
            let documents = (0..self.count).step_by(DOCUMENTS_PER_MARK as usize);
            documents.map(|document| self.column.get_val(document)).collect()
        })
    }
}

/// The first document of `range` that `is_past` holds for, the end if there is none; it holds for all after that.
pub(crate) fn partition_point(range: Range<u32>, is_past: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_past(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// A column's values by document, without a look at which documents have one where all have.
pub(super) fn values<T>(column: Column<T>) -> Arc<dyn ColumnValues<T>>
where
    T: PartialOrd + Copy + Default + Debug + Send + Sync + 'static,
{
    match column.index {
        ColumnIndex::Full => column.values,
        _ => column.first_or_default_col(T::default()),
    }
}

/// How many of `marks`, which never fall, are below `micros`. Few are, mostly: the first ones are looked
/// at without a branch for each, and then ever more together.
fn below(marks: &[i64], micros: i64) -> usize {
    let near = &marks[..marks.len().min(MARKS_NEAR)];
    let count = near.iter().map(|mark| usize::from(*mark < micros)).sum();
    if count < MARKS_NEAR {
        return count;
    }
    let mut end = count;
    while marks.get(end).is_some_and(|mark| *mark < micros) {
        end = marks.len().min(2 * end);
    }
    marks[..end].partition_point(|mark| *mark < micros)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn times(micros: Vec<i64>) -> Times {
        let count = u32::try_from(micros.len()).unwrap();
        let column: Arc<dyn ColumnValues<i64>> = Arc::new(Kept(micros));
        Times { column, count, marks: OnceLock::new() }
    }

    /// A column in memory.
    #[derive(Debug)]
    struct Kept(Vec<i64>);

    impl ColumnValues<i64> for Kept {
        fn get_val(&self, document: u32) -> i64 {
            self.0[document as usize]
        }

        fn min_value(&self) -> i64 {
            self.0[0]
        }

        fn max_value(&self) -> i64 {
            self.0[self.0.len() - 1]
        }

        fn num_vals(&self) -> u32 {
            u32::try_from(self.0.len()).unwrap()
        }
    }

    #[test]
    fn the_first_document_from_an_instant_on_is_found_from_any_before_it() {
        let mut random = StdRng::seed_from_u64(3);
        for count in [1, 2, 31, 32, 33, 64, 65, 700] {
            for spread in [1, 40, 5_000] {
                let mut micros: Vec<i64> = (0..count).map(|_| random.random_range(0..spread)).collect();
                micros.sort_unstable();
                let times = times(micros.clone());
                for _ in 0..200 {
                    let start = random.random_range(0..count);
                    let end = random.random_range(start + 1..=count);
                    let instant = micros[start as usize] + random.random_range(1..=spread);
                    let below = micros[..end as usize].partition_point(|time| *time < instant) as u32;
                    assert_eq!(times.first_from(instant, start..end), below, "{start}..{end} of {count}");
                    let known = times.known_before(instant, start);
                    assert!(known > start && micros[..known as usize].iter().all(|time| *time < instant));
                }
            }
        }
    }
}
