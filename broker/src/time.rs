//! Instants as the log and the index keep them, and the clock they are read from.

use std::fmt;
use std::ops::Add;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

const DAY_SECONDS: i64 = 86_400;

/// An instant in microseconds since 1970-01-01T00:00:00Z; written as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The earliest instant that is taken: 0001-01-01T00:00:00Z.
    pub const MIN: Timestamp = Timestamp(-62_135_596_800_000_000);
    /// The latest instant that is taken: 9999-12-31T23:59:59.999999Z.
    pub const MAX: Timestamp = Timestamp(253_402_300_799_999_999);

    /// From microseconds since 1970; `None` outside the years 1 to 9999.
    pub fn from_micros(micros: i64) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0).contains(&micros).then_some(Self(micros))
    }

    /// From milliseconds since 1970; `None` outside the years 1 to 9999.
    pub fn from_millis(millis: i64) -> Option<Self> {
        millis.checked_mul(1_000).and_then(Self::from_micros)
    }

    /// Microseconds since 1970.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since 1970, rounded down.
    pub fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// The same instant without what is finer than a millisecond, as Kafka keeps it.
    #[must_use]
    pub fn floor_to_millis(self) -> Self {
        Self(self.millis() * 1_000)
    }

    /// As a calendar date and time in UTC.
    pub fn to_utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).expect("years 1 to 9999 fit chrono's range")
    }

    /// From a calendar date and time; an error outside the years 1 to 9999.
    pub fn from_utc(time: DateTime<Utc>) -> Result<Self> {
        Self::from_micros(time.timestamp_micros())
            .ok_or_else(|| Error::invalid("timestamp", "the time is outside the years 1 to 9999"))
    }

    /// Appends the instant as [`Display`](fmt::Display) writes it, without the cost of a formatter.
    pub fn write_to(self, out: &mut Vec<u8>) {
        TimeWriter::default().write(self, out);
    }

    /// How long ago `earlier` was, zero if it is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_add(micros).min(Self::MAX.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut writer = TimeWriter::default();
        f.write_str(std::str::from_utf8(writer.set(*self)).map_err(|_| fmt::Error)?)
    }
}

/// Writes one instant after the other: those of one second have most of their text in common.
#[derive(Clone, Debug)]
pub struct TimeWriter {
    /// The second since 1970 whose date and time the text shows.
    second: i64,
    text: [u8; 27],
}

impl Default for TimeWriter {
    fn default() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00.000000Z" }
    }
}

impl TimeWriter {
    /// Appends an instant as [`Timestamp::write_to`] does.
    pub fn write(&mut self, time: Timestamp, out: &mut Vec<u8>) {
        out.extend_from_slice(self.set(time));
    }

    fn set(&mut self, time: Timestamp) -> &[u8] {
        let second = time.0.div_euclid(1_000_000);
        if second != self.second {
            self.set_second(second);
        }
        let length = self.set_fraction(time.0.rem_euclid(1_000_000));
        self.text[length] = b'Z';
        &self.text[..=length]
    }

    fn set_second(&mut self, second: i64) {
        let (day, second_of_day) = (second.div_euclid(DAY_SECONDS), second.rem_euclid(DAY_SECONDS));
        let (year, month, day) = civil(day);
        let text = &mut self.text;
        put_pair(text, 0, year / 100);
        put_pair(text, 2, year % 100);
        put_pair(text, 5, month);
        put_pair(text, 8, day);
        put_pair(text, 11, second_of_day / 3_600);
        put_pair(text, 14, second_of_day / 60 % 60);
        put_pair(text, 17, second_of_day % 60);
        self.second = second;
    }

    /// A fraction has as many groups of three digits as it needs. Returns where the text ends.
    fn set_fraction(&mut self, micros: i64) -> usize {
        if micros == 0 {
            return 19;
        }
        let text = &mut self.text;
        text[19] = b'.';
        put_pair(text, 20, micros / 10_000);
        put_pair(text, 22, micros / 100 % 100);
        put_pair(text, 24, micros % 100);
        if micros % 1_000 == 0 { 23 } else { 26 }
    }
}

/// Year, month and day of month of a day, counted from 1970-01-01: Howard Hinnant's
/// `civil_from_days`. A calendar of chrono's takes three times as long, and lines are all about times.
fn civil(day: i64) -> (i64, i64, i64) {
    // Years begin in March here, so that a leap day is a year's last; an era has 400 of them.
    let day = day + 719_468;
    let (era, day_of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day_of_month)
}

/// Writes two digits of a number below 100.
fn put_pair(text: &mut [u8; 27], at: usize, number: i64) {
    let number = number as u8;
    text[at] = b'0' + number / 10;
    text[at + 1] = b'0' + number % 10;
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Not through the formatter, which takes as long as the text itself.
        let mut writer = TimeWriter::default();
        let text = std::str::from_utf8(writer.set(*self)).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(text)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let time = DateTime::<Utc>::deserialize(deserializer)?;
        Timestamp::from_utc(time).map_err(serde::de::Error::custom)
    }
}

/// Where the present comes from; an argument everywhere, so that tests can set it.
pub trait Clock: Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the door that others use")]
    fn now(&self) -> Timestamp {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(Timestamp::MAX.0),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(Timestamp::MIN.0, |m| -m),
        };
        Timestamp(micros.clamp(Timestamp::MIN.0, Timestamp::MAX.0))
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.0))
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        let now = Timestamp(self.0.load(Ordering::SeqCst)) + by;
        self.0.store(now.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use chrono::SecondsFormat;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn is_written_as_rfc_3339_and_read_back() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (978_307_620_000_000, "2001-01-01T00:07:00Z"),
            (1_500, "1970-01-01T00:00:00.001500Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
        ] {
            let time = Timestamp::from_micros(micros).unwrap();
            assert_eq!(time.to_string(), text);
            let json = serde_json::to_string(&time).unwrap();
            assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), time);
        }
    }

    proptest! {
        #[test]
        fn is_written_as_chrono_writes_it(micros in Timestamp::MIN.0..=Timestamp::MAX.0, unit in 0_u32..3) {
            let unit = 1_000_i64.pow(unit);
            let time = Timestamp::from_micros(micros / unit * unit).unwrap();
            prop_assert_eq!(time.to_string(), time.to_utc().to_rfc3339_opts(SecondsFormat::AutoSi, true));
        }

        #[test]
        fn is_written_alike_after_whatever_came_before(
            times in prop::collection::vec((-2_i64..2, prop::sample::select(vec![0_i64, 1, 20_000, 999_999])), 1..20)
        ) {
            let mut writer = TimeWriter::default();
            for (second, micros) in times {
                let time = Timestamp(second * 1_000_000 + micros);
                let mut out = Vec::new();
                writer.write(time, &mut out);
                prop_assert_eq!(std::str::from_utf8(&out).unwrap(), time.to_string());
            }
        }
    }

    #[test]
    fn refuses_what_lies_outside_the_years_1_to_9999() {
        assert_eq!(Timestamp::from_micros(i64::MAX), None);
        assert_eq!(Timestamp::from_millis(i64::MIN), None);
        assert!(serde_json::from_str::<Timestamp>("\"12000-01-01T00:00:00Z\"").is_err());
    }

    #[test]
    fn rounds_millis_down_before_1970_too() {
        assert_eq!(Timestamp(-1).millis(), -1);
        assert_eq!(Timestamp(-1).floor_to_millis(), Timestamp(-1_000));
    }
}
