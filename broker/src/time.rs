//! Instants as the log and the index keep them, and the clock they are read from.

use std::fmt;
use std::ops::Add;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike as _, Timelike as _, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

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
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let time = self.to_utc();
        let second_of_day = time.num_seconds_from_midnight();
        let (hour, minute, second) = (second_of_day / 3_600, second_of_day / 60 % 60, second_of_day % 60);
        put_digits(&mut text[..4], time.year().unsigned_abs());
        put_digits(&mut text[5..7], time.month());
        put_digits(&mut text[8..10], time.day());
        put_digits(&mut text[11..13], hour);
        put_digits(&mut text[14..16], minute);
        put_digits(&mut text[17..19], second);
        let micros = time.timestamp_subsec_micros();
        put_digits(&mut text[20..26], micros);
        // A fraction has as many groups of three digits as it needs.
        let length = match micros {
            0 => 19,
            _ if micros.is_multiple_of(1_000) => 23,
            _ => 26,
        };
        text[length] = b'Z';
        f.write_str(std::str::from_utf8(&text[..=length]).map_err(|_| fmt::Error)?)
    }
}

/// Writes a number in decimal, with zeros in front.
fn put_digits(text: &mut [u8], mut number: u32) {
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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
