//! How many events fall into each interval of time. Blocking.
//!
//! Documents stand in the order of time, so those of an interval are a range of documents, and no time is
//! read for each match.

use std::ops::Range;

use broker::{Error, Result, Timestamp};

use super::search::{Piece, Search};
use crate::split::{Order, Terms};

/// The most intervals of one answer.
pub(crate) const INTERVALS_MAX: usize = 10_000;

const SECOND_MICROS: i64 = 1_000_000;
/// 10,000 days.
const LENGTH_MICROS_MAX: i64 = 10_000 * 86_400 * SECOND_MICROS;

/// A length of time, whose multiples since 1970-01-01T00:00:00Z divide time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    micros: i64,
}

/// An interval with the number of its events, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// The interval's first instant.
    pub(crate) start: Timestamp,
    pub(crate) count: u64,
}

impl Interval {
    /// Reads `30s`, `15m`, `1h` or `7d`. An error is one of `interval`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let micros = || {
            let unit = match text.chars().last()? {
                's' => 1,
                'm' => 60,
                'h' => 3_600,
                'd' => 86_400,
                _ => return None,
            };
            let digits = &text[..text.len() - 1];
            let is_plain = digits.bytes().all(|c| c.is_ascii_digit());
            let count: i64 = digits.parse().ok().filter(|_| is_plain)?;
            let micros = count.checked_mul(unit * SECOND_MICROS)?;
            (1..=LENGTH_MICROS_MAX).contains(&micros).then_some(micros)
        };
        let micros = micros().ok_or_else(|| {
            let message = "an interval is a whole number of seconds, minutes, hours or days, such as 30s, \
                           15m, 1h or 7d, of 10000 days at most";
            Error::invalid("interval", message)
        })?;
        Ok(Self { micros })
    }

    /// The first instant of the interval that `time` lies in, in microseconds since 1970.
    fn start_of(self, time: Timestamp) -> i64 {
        time.micros().div_euclid(self.micros) * self.micros
    }
}

/// What was counted, by the intervals' first instants in microseconds, rising.
#[derive(Default)]
struct Counts(Vec<(i64, u64)>);

impl Counts {
    /// Adds an interval behind all others.
    fn push(&mut self, start: i64, count: u64) -> Result<()> {
        self.0.push((start, count));
        if self.0.len() <= INTERVALS_MAX {
            return Ok(());
        }
        let message = format!("more than {INTERVALS_MAX} intervals hold events: ask for longer ones");
        Err(Error::invalid("interval", message))
    }

    /// What both counted together.
    fn with(self, other: Self) -> Result<Self> {
        if self.0.is_empty() {
            return Ok(other);
        }
        let mut sum = Self(Vec::with_capacity(self.0.len().max(other.0.len())));
        let (mut ours, mut others) = (self.0.into_iter().peekable(), other.0.into_iter().peekable());
        loop {
            let start = match (ours.peek(), others.peek()) {
                (None, None) => return Ok(sum),
                (Some((start, _)), None) | (None, Some((start, _))) => *start,
                (Some((one, _)), Some((other, _))) => *one.min(other),
            };
            let of = |counted: Option<(i64, u64)>| counted.map_or(0, |(_, count)| count);
            let is_next = |(next, _): &(i64, u64)| *next == start;
            sum.push(start, of(ours.next_if(is_next)) + of(others.next_if(is_next)))?;
        }
    }
}

impl Search {
    /// The intervals that hold matching events, in order of time.
    pub(super) fn histogram(&self, pieces: &[Piece], interval: Interval) -> Result<Vec<Bucket>> {
        let mut counts = Counts::default();
        for piece in pieces {
            let range = self.range(piece, Order::Ascending);
            let counted = match &self.terms {
                None => count_all(piece, range, interval)?,
                Some(terms) => count_matching(piece, terms, range, interval)?,
            };
            counts = counts.with(counted)?;
        }
        let bucket = |(start, count)| {
            // The first interval of all may begin before the first instant that there is.
            Bucket { start: Timestamp::from_micros(start).unwrap_or(Timestamp::MIN), count }
        };
        Ok(counts.0.into_iter().map(bucket).collect())
    }
}

/// An interval is a range of documents, which are not looked at one by one.
fn count_all(piece: &Piece, range: Range<u32>, interval: Interval) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut document = range.start;
    while document < range.end {
        let start = interval.start_of(piece.time(document));
        let end = piece.first_from(start + interval.micros, document..range.end);
        counts.push(start, u64::from(end - document))?;
        document = end;
    }
    Ok(counts)
}

/// A match is a comparison of numbers while it lies where all documents are of the same interval. Times
/// are read where an interval ends.
fn count_matching(piece: &Piece, terms: &Terms, range: Range<u32>, interval: Interval) -> Result<Counts> {
    let mut counts = Counts::default();
    let (mut end, mut known, mut count) = (i64::MIN, range.start, 0);
    let mut pushed = Ok(());
    piece.each(terms, range, |document| {
        if document >= known {
            let time = piece.time(document);
            if time.micros() >= end {
                if count > 0 {
                    pushed = counts.push(end - interval.micros, count);
                }
                (end, count) = (interval.start_of(time) + interval.micros, 0);
            }
            known = piece.known_before(end, document);
        }
        count += 1;
        pushed.is_ok()
    })?;
    pushed?;
    if count > 0 {
        counts.push(end - interval.micros, count)?;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_numbers_with_a_unit() {
        for (text, seconds) in [("30s", 30), ("15m", 900), ("1h", 3_600), ("7d", 604_800)] {
            assert_eq!(Interval::parse(text).unwrap().micros, seconds * SECOND_MICROS, "{text}");
        }
        for text in
            ["", "h", "1", "0h", "-1h", "+1h", "1.5h", "1w", "1 h", "10001d", "9223372036854775807d", "1é"]
        {
            assert_eq!(Interval::parse(text).unwrap_err().field(), Some("interval"), "{text}");
        }
    }

    fn check(one: &[(i64, u64)], other: &[(i64, u64)], sum: &[(i64, u64)]) {
        let counts = |counted: &[(i64, u64)]| Counts(counted.to_vec());
        assert_eq!(counts(one).with(counts(other)).unwrap().0, sum, "{one:?} {other:?}");
        assert_eq!(counts(other).with(counts(one)).unwrap().0, sum, "{one:?} {other:?}");
    }

    #[test]
    fn counts_of_the_same_interval_are_added() {
        check(&[], &[], &[]);
        check(&[(1, 2)], &[], &[(1, 2)]);
        check(&[(1, 2), (3, 4)], &[(2, 1), (3, 1), (9, 1)], &[(1, 2), (2, 1), (3, 5), (9, 1)]);
    }

    #[test]
    fn no_more_intervals_are_added_up_than_are_answered() {
        let counts = |first: i64| Counts((first..first + INTERVALS_MAX as i64).map(|at| (at, 1)).collect());
        assert_eq!(counts(0).with(counts(0)).unwrap().0.len(), INTERVALS_MAX);
        let error = counts(0).with(counts(1)).err().unwrap();
        assert_eq!(error.field(), Some("interval"));
    }

    #[test]
    fn times_before_1970_belong_to_the_interval_that_began_before_them() {
        let hour = Interval::parse("1h").unwrap();
        let time = Timestamp::from_micros(-1).unwrap();
        assert_eq!(hour.start_of(time), -3_600 * SECOND_MICROS);
    }
}
