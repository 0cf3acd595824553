//! How an event's time may be written.

use std::fmt::Write as _;

use chrono::format::{Item, Parsed, StrftimeItems, parse};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, Utc};

use super::fixed::{Fixed, read_rfc_3339};
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// What is understood without a `timestamp_format`. Numbers may be negative and have fractions;
/// their unit follows from their size, so that each unit covers 1973 (or 1970, for seconds) to 5138.
pub const DETECTED_FORMS: &str = "an RFC 3339 time (2001-01-08T00:47:00+01:00; a space for the T, or no \
    zone for UTC, are taken too), a date (2001-01-08, its midnight in UTC), or a number since 1970: \
    seconds below 1e11, milliseconds below 1e14, microseconds below 1e17, nanoseconds from there on";

const EXPECTED: &str = "expected RFC 3339, a date, or a number since 1970 in s, ms, us or ns";
const OUT_OF_RANGE: &str = "expected a time in the years 1 to 9999";

const SECONDS_BELOW: i128 = 100_000_000_000;
const MILLIS_BELOW: i128 = SECONDS_BELOW * 1_000;
const MICROS_BELOW: i128 = MILLIS_BELOW * 1_000;

/// More digits than any time has.
const DIGITS_MAX: usize = 30;

/// The rule of one stream.
#[derive(Clone, Debug)]
pub(super) enum Form {
    /// Any of [`DETECTED_FORMS`].
    Detected,
    /// As a format in strftime's terms says.
    Given { format: String, items: Vec<Item<'static>>, fixed: Option<Fixed> },
}

impl Form {
    /// Checks that a format is well-formed and that what it reads contains a date.
    pub(super) fn given(format: &str) -> Result<Self> {
        let invalid = |why: &str| Error::invalid("timestamp_format", format!("the format {format:?} {why}"));
        let items = StrftimeItems::new(format).parse_to_owned();
        let items = items.map_err(|_| invalid("has a specifier that strftime does not know"))?;
        // `%#z` is for reading only; writing the probe takes its other name.
        let probe_format = format.replace("%#z", "%z");
        let probe = DateTime::from_timestamp(981_173_106, 0).expect("2001 is a year that chrono knows");
        let mut written = String::new();
        write!(written, "{}", probe.format(&probe_format)).map_err(|_| invalid("cannot be used"))?;
        match read_given(&written, &items) {
            Some(read) if read.date_naive() == probe.date_naive() => {
                let fixed = Fixed::of(&items);
                Ok(Self::Given { format: format.to_owned(), items, fixed })
            }
            Some(_) => Err(invalid("is ambiguous")),
            None => Err(invalid("does not name a whole date, or not a whole time")),
        }
    }

    /// Reads a time, or says what was expected instead.
    pub(super) fn read(&self, text: &str) -> Result<Timestamp, String> {
        let time = match self {
            Form::Detected => return detect(text).map_err(str::to_owned),
            Form::Given { format, items, fixed } => fixed
                .as_ref()
                .and_then(|fixed| fixed.read(text))
                .or_else(|| read_given(text, items))
                .ok_or_else(|| format!("expected a time written as {format:?}"))?,
        };
        Timestamp::from_utc(time).map_err(|_| OUT_OF_RANGE.to_owned())
    }
}

fn detect(text: &str) -> Result<Timestamp, &'static str> {
    if let Some(time) = read_rfc_3339(text) {
        return Timestamp::from_utc(time).map_err(|_| OUT_OF_RANGE);
    }
    if let Some(micros) = since_1970(text) {
        let micros = i64::try_from(micros).ok();
        return micros.and_then(Timestamp::from_micros).ok_or(OUT_OF_RANGE);
    }
    let is_date = text.len() == 10;
    let time = if is_date {
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
        date.map(|date| date.and_time(NaiveTime::MIN).and_utc())
    } else {
        DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()).ok().or_else(|| without_zone(text))
    };
    Timestamp::from_utc(time.ok_or(EXPECTED)?).map_err(|_| OUT_OF_RANGE)
}

fn without_zone(text: &str) -> Option<DateTime<Utc>> {
    let format = if text.contains(' ') { "%Y-%m-%d %H:%M:%S%.f" } else { "%Y-%m-%dT%H:%M:%S%.f" };
    NaiveDateTime::parse_from_str(text, format).ok().map(|time| time.and_utc())
}

/// Reads a decimal number as a time in microseconds, exactly, rounded down. None if the text is no
/// number, or one with an absurd number of digits.
fn since_1970(text: &str) -> Option<i128> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (digits, exponent) = match digits.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (digits, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = !whole.is_empty() && !fraction.is_empty() && whole.len() + fraction.len() <= DIGITS_MAX;
    if !is_number || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
    let mantissa = if is_negative { -mantissa } else { mantissa };
    let exponent = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let size = scale(mantissa.abs(), exponent)?;
    let units = [(SECONDS_BELOW, 6), (MILLIS_BELOW, 3), (MICROS_BELOW, 0)];
    let unit = units.into_iter().find(|(below, _)| size < *below).map_or(-3, |(_, unit)| unit);
    scale(mantissa, exponent.checked_add(unit)?)
}

/// `value` times ten to the power of `exponent`, rounded down.
fn scale(value: i128, exponent: i32) -> Option<i128> {
    if value == 0 {
        return Some(0);
    }
    let power = 10_i128.checked_pow(exponent.unsigned_abs());
    if exponent >= 0 { value.checked_mul(power?) } else { Some(value.div_euclid(power.unwrap_or(i128::MAX))) }
}

/// Reads by a format; what has no zone is UTC, what has no time is midnight, what has an hour only
/// is that full hour.
fn read_given(text: &str, items: &[Item<'static>]) -> Option<DateTime<Utc>> {
    let mut parsed = Parsed::new();
    parse(&mut parsed, text, items.iter()).ok()?;
    let offset = parsed.offset().unwrap_or(0);
    if parsed.timestamp().is_some() {
        return Some(parsed.to_naive_datetime_with_offset(0).ok()?.and_utc());
    }
    let date = parsed.to_naive_date().ok()?;
    let has_time = parsed.hour_mod_12().is_some()
        || parsed.hour_div_12().is_some()
        || parsed.minute().is_some()
        || parsed.second().is_some();
    if has_time && parsed.minute().is_none() {
        parsed.set_minute(0).ok()?;
    }
    let time = if has_time { parsed.to_naive_time().ok()? } else { NaiveTime::MIN };
    let time = date.and_time(time).and_utc();
    time.checked_sub_signed(TimeDelta::seconds(i64::from(offset)))
}
