//! Times whose fields all have their full width, as machines write them: read digit by digit, many
//! times as fast as by a general parser. Whatever does not fit is left to that.

use chrono::format::{Item, Numeric};
use chrono::{DateTime, NaiveDate, Utc};

/// A format of fields of a fixed width: where in a text each of them stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fixed {
    bytes: usize,
    literals: Vec<(usize, u8)>,
    /// Where each field begins, year first; none where there is none of it.
    starts: [Option<usize>; 6],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
}

/// Year, month, day, hour, minute and second, where they were read.
type Fields = [u32; 6];

impl Fixed {
    /// The plan of a format; none if it has anything but a year of four digits, a month and a day,
    /// and perhaps hour, minute and second, each once, and literals.
    pub(super) fn of(items: &[Item<'_>]) -> Option<Self> {
        let mut plan = Self { bytes: 0, literals: Vec::new(), starts: [None; 6] };
        for item in items {
            match item {
                Item::Literal(text) | Item::Space(text) => plan.add_literal(text),
                Item::OwnedLiteral(text) | Item::OwnedSpace(text) => plan.add_literal(text),
                Item::Numeric(numeric, _) => {
                    let (field, digits) = field_of(numeric)?;
                    if plan.starts[field as usize].replace(plan.bytes).is_some() {
                        return None;
                    }
                    plan.bytes += digits;
                }
                _ => return None,
            }
        }
        let [year, month, day, hour, minute, second] = plan.starts.map(|start| start.is_some());
        let is_whole = year && month && day && (hour == minute) && (minute || !second);
        is_whole.then_some(plan)
    }

    fn add_literal(&mut self, text: &str) {
        self.literals.extend((self.bytes..).zip(text.bytes()));
        self.bytes += text.len();
    }

    /// Reads a time in UTC; none if the text is not written in exactly this way.
    pub(super) fn read(&self, text: &str) -> Option<DateTime<Utc>> {
        let text = text.as_bytes();
        if text.len() != self.bytes || self.literals.iter().any(|(at, byte)| text[*at] != *byte) {
            return None;
        }
        let [year, month, day, hour, minute, second] = self.starts;
        let two = |start: Option<usize>| start.map_or(Some(0), |start| two_digits(text, start));
        let year = two(year)? * 100 + two(year.map(|start| start + 2))?;
        instant([year, two(month)?, two(day)?, two(hour)?, two(minute)?, two(second)?], 0)
    }
}

/// The number of two decimal digits that begins at `start`.
fn two_digits(text: &[u8], start: usize) -> Option<u32> {
    let digit = |byte: u8| byte.wrapping_sub(b'0');
    let (tens, ones) = (digit(text[start]), digit(text[start + 1]));
    (tens < 10 && ones < 10).then(|| u32::from(tens) * 10 + u32::from(ones))
}

fn field_of(numeric: &Numeric) -> Option<(Field, usize)> {
    Some(match numeric {
        Numeric::Year => (Field::Year, 4),
        Numeric::Month => (Field::Month, 2),
        Numeric::Day => (Field::Day, 2),
        Numeric::Hour => (Field::Hour, 2),
        Numeric::Minute => (Field::Minute, 2),
        Numeric::Second => (Field::Second, 2),
        _ => return None,
    })
}

/// Reads `2001-01-08T00:47:00Z`, also with up to nine digits of a second's fraction; none if the text
/// is not written in exactly this way.
pub(super) fn read_rfc_3339(text: &str) -> Option<DateTime<Utc>> {
    let text = text.as_bytes();
    let (time, rest) = text.split_at_checked(19)?;
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separators.into_iter().any(|(at, separator)| time[at] != separator) {
        return None;
    }
    let spans = [0..4, 5..7, 8..10, 11..13, 14..16, 17..19];
    let mut fields = [0; 6];
    for (field, span) in fields.iter_mut().zip(spans) {
        *field = digits_of(&time[span])?;
    }
    let nanos = match rest.strip_suffix(b"Z")? {
        [] => 0,
        [b'.', fraction @ ..] if (1..=9).contains(&fraction.len()) => {
            digits_of(fraction)? * 10_u32.pow(9 - fraction.len() as u32)
        }
        _ => return None,
    };
    instant(fields, nanos)
}

/// None where the calendar has no such day, or the day no such second.
fn instant([year, month, day, hour, minute, second]: Fields, nanos: u32) -> Option<DateTime<Utc>> {
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
    Some(date.and_hms_nano_opt(hour, minute, second, nanos)?.and_utc())
}

/// A number of at most nine decimal digits.
fn digits_of(text: &[u8]) -> Option<u32> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u32::from(byte - b'0'));
    text.iter().try_fold(0, |number, byte| Some(number * 10 + digit(byte)?))
}

#[cfg(test)]
mod tests {
    use chrono::format::StrftimeItems;
    use chrono::{NaiveDateTime, SecondsFormat};
    use proptest::prelude::*;

    use super::*;

    fn plan(format: &str) -> Option<Fixed> {
        Fixed::of(&StrftimeItems::new(format).parse_to_owned().unwrap())
    }

    #[test]
    fn formats_of_full_width_have_a_plan_and_others_none() {
        for format in ["%Y/%m/%d %H:%M", "%F %T", "%Y%m%d", "%d.%m.%Y, %H:%M:%S", "on %D at %R %Y"] {
            let has_year_of_four = !format.contains("%D");
            assert_eq!(plan(format).is_some(), has_year_of_four, "{format}");
        }
        for format in ["%Y-%m", "%s", "%Y-%m-%d %I:%M %p", "%FT%T%z", "%F %T%.f", "%F %H", "%Y %Y-%m-%d"] {
            assert_eq!(plan(format), None, "{format}");
        }
    }

    #[test]
    fn what_is_written_otherwise_is_left_to_others() {
        let minutes = plan("%Y/%m/%d %H:%M").unwrap();
        assert!(minutes.read("2001/01/08 00:47").is_some());
        for text in [
            "2001/1/8 0:47",
            " 2001/01/08 00:47",
            "2001/01/08 00:47 ",
            "2001/02/30 00:47",
            "2001/01/08 24:00",
        ] {
            assert_eq!(minutes.read(text), None, "{text}");
        }
        for text in
            ["2001-01-08T00:47:00+01:00", "2001-01-08 00:47:00Z", "2001-01-08T00:47:00.Z", "2001-01-08"]
        {
            assert_eq!(read_rfc_3339(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_the_general_parser_reads(seconds in -62_135_596_800_i64..253_402_300_800, nanos in 0_u32..1_000_000_000) {
            let time = DateTime::from_timestamp(seconds, nanos).unwrap();
            for format in ["%Y/%m/%d %H:%M", "%F %T", "%d.%m.%Y %H:%M:%S"] {
                let text = time.format(format).to_string();
                let expected = NaiveDateTime::parse_from_str(&text, format).unwrap().and_utc();
                prop_assert_eq!(plan(format).unwrap().read(&text), Some(expected));
            }
            for precision in [SecondsFormat::Secs, SecondsFormat::Millis, SecondsFormat::Micros, SecondsFormat::Nanos] {
                let text = time.to_rfc3339_opts(precision, true);
                let expected = DateTime::parse_from_rfc3339(&text).unwrap().to_utc();
                prop_assert_eq!(read_rfc_3339(&text), Some(expected));
            }
        }

        #[test]
        fn what_is_read_of_anything_is_what_the_general_parser_reads(text in "[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]{1,10})?)?Z?") {
            if let Some(read) = read_rfc_3339(&text) {
                prop_assert_eq!(Some(read), DateTime::parse_from_rfc3339(&text).ok().map(|time| time.to_utc()));
            }
            let format = "%Y/%m/%d %H:%M";
            if let Some(read) = plan(format).unwrap().read(&text) {
                prop_assert_eq!(Some(read), NaiveDateTime::parse_from_str(&text, format).ok().map(|time| time.and_utc()));
            }
        }
    }
}
