//! How many events fall into each interval of time. Blocking.
//!
//! Documents stand in the order of time, so those of an interval are a range of documents: its end is
//! found by halving, and no time is read for each match.

use std::collections::BTreeMap;

use broker::{Error, Result, Timestamp};

use super::search::{Piece, Search};
use crate::split::Order;

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

/// What was counted, by the intervals' first instants in microseconds.
#[derive(Default)]
struct Counts {
    by_start: BTreeMap<i64, u64>,
}

impl Counts {
    fn add(&mut self, start: i64, count: u64) -> Result<()> {
        *self.by_start.entry(start).or_default() += count;
        if self.by_start.len() <= INTERVALS_MAX {
            return Ok(());
        }
        let message = format!("more than {INTERVALS_MAX} intervals hold events: ask for longer ones");
        Err(Error::invalid("interval", message))
    }
}

impl Search {
    /// The intervals that hold matching events, in order of time.
    pub(super) fn histogram(&self, pieces: &[Piece], interval: Interval) -> Result<Vec<Bucket>> {
        let mut counts = Counts::default();
        for piece in pieces {
            self.count_piece(piece, interval, &mut counts)?;
        }
        let bucket = |(start, count)| {
            // The first interval of all may begin before the first instant that there is.
            Bucket { start: Timestamp::from_micros(start).unwrap_or(Timestamp::MIN), count }
        };
        Ok(counts.by_start.into_iter().map(bucket).collect())
    }

    fn count_piece(&self, piece: &Piece, interval: Interval, counts: &mut Counts) -> Result<()> {
        let range = self.range(piece, Order::Ascending);
        let start_of = |document| interval.start_of(piece.time(document));
        // Neighbouring intervals hold about as many documents.
        let mut length = 1;
        let mut end_of = |document: u32, start: i64| {
            let end = first_from(piece, start + interval.micros, (document, length, range.end));
            length = end - document;
            end
        };
        let Some(terms) = &self.terms else {
            let mut document = range.start;
            while document < range.end {
                let start = start_of(document);
                let end = end_of(document, start);
                counts.add(start, u64::from(end - document))?;
                document = end;
            }
            return Ok(());
        };
        let (mut start, mut end, mut count) = (0, range.start, 0);
        let mut failed = Ok(());
        piece.each(terms, range.clone(), |document| {
            if document >= end {
                if count > 0 {
                    failed = counts.add(start, count);
                }
                start = start_of(document);
                (end, count) = (end_of(document, start), 0);
            }
            count += 1;
            failed.is_ok()
        })?;
        failed?;
        if count > 0 { counts.add(start, count) } else { Ok(()) }
    }
}

/// The first document from `after` to `end` whose time is at or after `micros`; that of `after` itself
/// is not. Looks about `guess` documents further first, and in growing steps from there.
fn first_from(piece: &Piece, micros: i64, (after, guess, end): (u32, u32, u32)) -> u32 {
    let is_past = |document: u32| piece.time(document).micros() >= micros;
    let (mut low, mut high) = (after + 1, end);
    let mut probe = after.saturating_add(guess.max(1)).min(end);
    let mut step = 1;
    while low < high {
        let document = probe.clamp(low, high - 1);
        let was_past = is_past(document);
        if was_past {
            high = document;
        } else {
            low = document + 1;
        }
        if step > 0 && high - low > step {
            probe = if was_past { high - step } else { low + step };
            step = step.saturating_mul(2);
        } else {
            step = 0;
            probe = low + (high - low) / 2;
        }
    }
    low
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

    #[test]
    fn times_before_1970_belong_to_the_interval_that_began_before_them() {
        let hour = Interval::parse("1h").unwrap();
        let time = Timestamp::from_micros(-1).unwrap();
        assert_eq!(hour.start_of(time), -3_600 * SECOND_MICROS);
    }
}
