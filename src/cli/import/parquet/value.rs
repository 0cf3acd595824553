//! Rows as JSON. Times are RFC 3339 in UTC with the digits of a second that they need; a number that
//! JSON does not have (not a number, infinite) is null, as is a value that is not there.

use std::fmt::Display;
use std::io::Write as _;

use ::parquet::data_type::{ByteArray, Decimal};
use ::parquet::record::{Field, Row};
use chrono::{DateTime, NaiveTime, SecondsFormat, Utc};
use serde::Serialize;

use super::shape::{Group, Shape};
use crate::failure::{Exit, Failure};

const NANOS_OF_SECOND: u64 = 1_000_000_000;
const SECONDS_OF_DAY: i64 = 86_400;

impl Group {
    /// A row as a JSON object.
    pub(super) fn object(&self, row: &Row) -> Result<Vec<u8>, Failure> {
        let mut object = Vec::with_capacity(32 * self.fields.len());
        self.write(row, &mut object)?;
        Ok(object)
    }

    fn write(&self, row: &Row, out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut before = b'{';
        for ((name, shape), (column, field)) in self.fields.iter().zip(row.get_column_iter()) {
            out.push(before);
            out.extend_from_slice(name);
            shape.write(field, out).map_err(|failure| failure.context(format!("column {column}")))?;
            before = b',';
        }
        out.push(b'}');
        Ok(())
    }
}

impl Shape {
    fn write(&self, field: &Field, out: &mut Vec<u8>) -> Result<(), Failure> {
        match (self, field) {
            (_, Field::Null) => out.extend_from_slice(b"null"),
            (Shape::Group(group), Field::Group(row)) => group.write(row, out)?,
            (Shape::OldList(element), Field::ListInternal(outer)) => match outer.elements() {
                [Field::ListInternal(list)] => element.write_all(list.elements(), out)?,
                elements => element.write_all(elements, out)?,
            },
            (Shape::List(element), Field::ListInternal(list)) => {
                element.write_all(list.elements(), out)?;
            }
            (Shape::Map(key, value), Field::MapInternal(map)) => {
                separated(map.entries(), [b'{', b'}'], out, |(name, field), out| {
                    key.write_name(name, out)?;
                    out.push(b':');
                    value.write(field, out)
                })?;
            }
            (Shape::LongDecimal, Field::Decimal(decimal)) => quoted(digits(decimal), out)?,
            (Shape::TimestampNanos, Field::Long(nanos)) => {
                quoted(instant(Some(DateTime::from_timestamp_nanos(*nanos)))?, out)?;
            }
            (Shape::TimeNanos, Field::Long(nanos)) => quoted(time_of_day(*nanos, 1)?, out)?,
            (Shape::Uuid, Field::Bytes(bytes)) => quoted(uuid(bytes)?, out)?,
            (_, field) => plain(field, out)?,
        }
        Ok(())
    }

    fn write_all(&self, elements: &[Field], out: &mut Vec<u8>) -> Result<(), Failure> {
        separated(elements, [b'[', b']'], out, |field, out| self.write(field, out))
    }

    /// A key of a map: what is no text becomes the text of its JSON.
    fn write_name(&self, field: &Field, out: &mut Vec<u8>) -> Result<(), Failure> {
        let begin = out.len();
        self.write(field, out)?;
        if out.get(begin) != Some(&b'"') {
            out.insert(begin, b'"');
            out.push(b'"');
        }
        Ok(())
    }
}

/// Elements with commas between them, in brackets.
fn separated<T>(
    elements: &[T],
    [open, close]: [u8; 2],
    out: &mut Vec<u8>,
    write: impl Fn(&T, &mut Vec<u8>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    out.push(open);
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(element, out)?;
    }
    out.push(close);
    Ok(())
}

fn plain(field: &Field, out: &mut Vec<u8>) -> Result<(), Failure> {
    match field {
        Field::Bool(value) => json(value, out),
        Field::Byte(value) => json(value, out),
        Field::Short(value) => json(value, out),
        Field::Int(value) => json(value, out),
        Field::Long(value) => json(value, out),
        Field::UByte(value) => json(value, out),
        Field::UShort(value) => json(value, out),
        Field::UInt(value) => json(value, out),
        Field::ULong(value) => json(value, out),
        Field::Float16(value) => json(&value.to_f32(), out),
        Field::Float(value) => json(value, out),
        Field::Double(value) => json(value, out),
        Field::Str(value) => json(value, out),
        Field::Decimal(value) => {
            out.extend_from_slice(digits(value).as_bytes());
            Ok(())
        }
        Field::Date(days) => {
            let date = DateTime::<Utc>::from_timestamp(i64::from(*days) * SECONDS_OF_DAY, 0);
            let date = date.ok_or_else(|| failed(format!("day {days} is in no calendar")))?;
            quoted(date.format("%Y-%m-%d"), out)
        }
        Field::TimeMillis(millis) => quoted(time_of_day((*millis).into(), 1_000_000)?, out),
        Field::TimeMicros(micros) => quoted(time_of_day(*micros, 1_000)?, out),
        Field::TimestampMillis(millis) => quoted(instant(DateTime::from_timestamp_millis(*millis))?, out),
        Field::TimestampMicros(micros) => quoted(instant(DateTime::from_timestamp_micros(*micros))?, out),
        other => Err(failed(format!("{other} is not what the schema says"))),
    }
}

/// What serde makes of it: the shortest digits of a float, null where it has none.
fn json(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) -> Result<(), Failure> {
    serde_json::to_writer(out, value).map_err(|error| failed(error.to_string()))
}

/// A text that has nothing to escape.
fn quoted(text: impl Display, out: &mut Vec<u8>) -> Result<(), Failure> {
    Ok(write!(out, "\"{text}\"")?)
}

/// All digits of a decimal, those behind the point included.
fn digits(decimal: &Decimal) -> String {
    let text = Field::Decimal(decimal.clone()).to_string();
    text.strip_suffix('.').map(str::to_owned).unwrap_or(text)
}

fn instant(time: Option<DateTime<Utc>>) -> Result<String, Failure> {
    let time = time.ok_or_else(|| failed("a time is in no calendar"))?;
    Ok(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

fn time_of_day(count: i64, nanos_each: u64) -> Result<String, Failure> {
    let nanos = u64::try_from(count).ok().and_then(|count| count.checked_mul(nanos_each));
    let time = nanos.and_then(|nanos| {
        let (seconds, rest) = (nanos / NANOS_OF_SECOND, nanos % NANOS_OF_SECOND);
        NaiveTime::from_num_seconds_from_midnight_opt(seconds.try_into().ok()?, rest.try_into().ok()?)
    });
    let time = time.ok_or_else(|| failed(format!("{count} is no time of a day")))?;
    Ok(time.format("%H:%M:%S%.f").to_string())
}

fn uuid(bytes: &ByteArray) -> Result<uuid::Uuid, Failure> {
    uuid::Uuid::from_slice(bytes.data()).map_err(|error| failed(error.to_string()))
}

fn failed(message: impl Into<String>) -> Failure {
    Failure::new(Exit::Failure, message)
}
