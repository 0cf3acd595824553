//! From what stands in a request to instants.

use broker::{Error, Result, Timestamp};
use chrono::{DateTime, NaiveDate, NaiveTime, Timelike, Utc};

/// The instants between which events are wanted, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}

impl Bounds {
    /// Reads both bounds: a date is its whole day in UTC, an RFC 3339 instant is itself; what is
    /// missing is open. Reversed bounds are an error of `from`.
    pub(crate) fn parse(from: Option<&str>, to: Option<&str>) -> Result<Self> {
        let from = from.map_or(Ok(Timestamp::MIN), |text| read("from", text, start_of_day, ceil))?;
        let to = to.map_or(Ok(Timestamp::MAX), |text| read("to", text, end_of_day, floor))?;
        Self::between(from, to)
    }

    /// Checks that the bounds are in order.
    pub(crate) fn between(from: Timestamp, to: Timestamp) -> Result<Self> {
        if from > to {
            return Err(Error::invalid("from", format!("from ({from}) lies after to ({to})")));
        }
        Ok(Self { from, to })
    }

    /// Whole days, both included.
    pub(crate) fn days(from: NaiveDate, to: NaiveDate) -> Option<Self> {
        Some(Self { from: start_of_day(from)?, to: end_of_day(to)? })
    }
}

/// Reads `2001-01-05`.
pub(crate) fn day(text: &str) -> Option<NaiveDate> {
    let is_plain = text.len() == 10 && text.bytes().all(|c| c.is_ascii_digit() || c == b'-');
    if is_plain { NaiveDate::parse_from_str(text, "%Y-%m-%d").ok() } else { None }
}

fn read(
    field: &str,
    text: &str,
    of_day: fn(NaiveDate) -> Option<Timestamp>,
    of_instant: fn(DateTime<Utc>) -> Option<Timestamp>,
) -> Result<Timestamp> {
    let instant = || DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc());
    let time = match day(text) {
        Some(day) => of_day(day),
        None => instant().and_then(of_instant),
    };
    time.ok_or_else(|| {
        let message = "neither a date (2001-01-05) nor an RFC 3339 instant (2001-01-05T00:00:00Z)";
        Error::invalid(field, format!("{text:?} is {message} in the years 1 to 9999"))
    })
}

fn start_of_day(day: NaiveDate) -> Option<Timestamp> {
    floor(day.and_time(NaiveTime::MIN).and_utc())
}

fn end_of_day(day: NaiveDate) -> Option<Timestamp> {
    let last = NaiveTime::from_hms_micro_opt(23, 59, 59, 999_999)?;
    floor(day.and_time(last).and_utc())
}

fn floor(time: DateTime<Utc>) -> Option<Timestamp> {
    Timestamp::from_micros(time.timestamp_micros())
}

/// The first whole microsecond at or after `time`.
fn ceil(time: DateTime<Utc>) -> Option<Timestamp> {
    let more = i64::from(!time.nanosecond().is_multiple_of(1_000));
    Timestamp::from_micros(time.timestamp_micros() + more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_whole_days_and_instants_are_exact() {
        for (from, to, wanted) in [
            ("2001-01-05", "2001-01-05", ("2001-01-05T00:00:00Z", "2001-01-05T23:59:59.999999Z")),
            (
                "2001-01-05T01:00:00+01:00",
                "2001-01-06",
                ("2001-01-05T00:00:00Z", "2001-01-06T23:59:59.999999Z"),
            ),
            (
                "2001-01-05T00:00:00.0000001Z",
                "2001-01-05T00:00:01.0000019Z",
                ("2001-01-05T00:00:00.000001Z", "2001-01-05T00:00:01.000001Z"),
            ),
        ] {
            let bounds = Bounds::parse(Some(from), Some(to)).unwrap();
            assert_eq!((bounds.from.to_string().as_str(), bounds.to.to_string().as_str()), wanted);
        }
        let open = Bounds::parse(None, None).unwrap();
        assert_eq!((open.from, open.to), (Timestamp::MIN, Timestamp::MAX));
    }

    #[test]
    fn an_error_names_the_bound_at_fault() {
        for (from, to, field) in [
            (Some("yesterday"), None, "from"),
            (None, Some("2001-13-01"), "to"),
            (None, Some("2001-01-05 10:00"), "to"),
            (Some("2001-02-29"), None, "from"),
            (Some("12001-01-01"), None, "from"),
            (Some("2001-01-06"), Some("2001-01-05"), "from"),
            (Some(""), None, "from"),
        ] {
            assert_eq!(Bounds::parse(from, to).unwrap_err().field(), Some(field), "{from:?} {to:?}");
        }
    }
}
