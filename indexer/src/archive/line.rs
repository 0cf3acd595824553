//! An event as a line of NDJSON:
//! `{"partition":0,"offset":9,"origin":{"partition":0,"offset":12},"timestamp":"…","key":"…","value":…}`.
//!
//! `timestamp` is the event's own time; `origin` and `key` are `null` where there is none. The
//! value's bytes stand as they are, but for raw line breaks: valid JSON has them only between
//! tokens, where a space means the same, and each becomes one. A key that is not UTF-8, which only
//! foreign producers can write, shows U+FFFD for what cannot be read.

use std::borrow::Cow;
use std::io::Write;

use broker::log::Entry;
use broker::{Partition, Timestamp};
use bytes::Bytes;

/// Appends the event's line to `out`.
pub(super) fn write(partition: Partition, entry: &Entry, out: &mut Vec<u8>) {
    let record = &entry.record;
    put(out, format_args!("{{\"partition\":{partition},\"offset\":{},\"origin\":", entry.offset));
    match record.origin {
        None => put(out, format_args!("null")),
        Some(origin) => {
            put(out, format_args!("{{\"partition\":{},\"offset\":{}}}", origin.partition, origin.offset));
        }
    }
    put(out, format_args!(",\"timestamp\":\"{}\",\"key\":", record.time));
    match key_text(record.key.as_ref()) {
        None => put(out, format_args!("null")),
        Some(key) => serde_json::to_writer(&mut *out, &key).expect("a text always fits a vector"),
    }
    out.extend_from_slice(b",\"value\":");
    let value = out.len();
    out.extend_from_slice(&record.value);
    for byte in &mut out[value..] {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"}\n");
}

/// How many bytes [`write`] appends, without writing them.
pub(super) fn length(partition: Partition, entry: &Entry) -> u64 {
    let record = &entry.record;
    let fixed = "{\"partition\":,\"offset\":,\"origin\":,\"timestamp\":\"\",\"key\":,\"value\":}\n".len();
    let origin = record.origin.map_or("null".len(), |origin| {
        let fixed = "{\"partition\":,\"offset\":}".len();
        fixed + digits(origin.partition.0.into()) + digits(origin.offset.0)
    });
    let key = key_text(record.key.as_ref()).map_or("null".len(), |key| 2 + escaped(&key));
    let numbers = digits(partition.0.into()) + digits(entry.offset.0);
    (fixed + origin + numbers + time_length(record.time) + key + record.value.len()) as u64
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a text always fits a vector");
}

fn key_text(key: Option<&Bytes>) -> Option<Cow<'_, str>> {
    key.map(|key| String::from_utf8_lossy(key))
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// RFC 3339 in UTC for the years 1 to 9999, with as many decimals as are needed, in threes.
fn time_length(time: Timestamp) -> usize {
    let whole = "2001-01-01T00:00:00Z".len();
    match time.micros() {
        micros if micros % 1_000_000 == 0 => whole,
        micros if micros % 1_000 == 0 => whole + ".000".len(),
        _ => whole + ".000000".len(),
    }
}

fn escaped(text: &str) -> usize {
    let byte = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(byte).sum()
}

#[cfg(test)]
mod tests {
    use broker::record::Origin;
    use broker::{Offset, Record};

    use super::*;

    fn entry(micros: i64, key: Option<&[u8]>, value: &str) -> Entry {
        let time = Timestamp::from_micros(micros).unwrap();
        let mut record = Record::new(value.to_owned(), time);
        record.time = time;
        record.key = key.map(Bytes::copy_from_slice);
        Entry { offset: Offset(9), record }
    }

    fn check(entry: &Entry, expected: &str) {
        let mut out = Vec::new();
        write(Partition(10), entry, &mut out);
        assert_eq!(std::str::from_utf8(&out).unwrap(), format!("{expected}\n"));
        assert_eq!(length(Partition(10), entry), out.len() as u64, "{expected}");
    }

    #[test]
    fn a_line_holds_the_position_the_origin_the_time_the_key_and_the_value() {
        let mut with_origin = entry(978_307_620_000_000, Some(b"DTW"), r#"{"delay":66}"#);
        with_origin.record.origin = Some(Origin { partition: Partition(3), offset: Offset(120) });
        check(
            &with_origin,
            r#"{"partition":10,"offset":9,"origin":{"partition":3,"offset":120},"timestamp":"2001-01-01T00:07:00Z","key":"DTW","value":{"delay":66}}"#,
        );
        check(
            &entry(1_500_000, None, "{}"),
            r#"{"partition":10,"offset":9,"origin":null,"timestamp":"1970-01-01T00:00:01.500Z","key":null,"value":{}}"#,
        );
        check(
            &entry(-1, Some(b""), "1"),
            r#"{"partition":10,"offset":9,"origin":null,"timestamp":"1969-12-31T23:59:59.999999Z","key":"","value":1}"#,
        );
    }

    #[test]
    fn keys_are_escaped_and_made_readable() {
        for key in ["\"\\\u{8}\u{c}\n\r\t", "\u{1}\u{1f}", "ø€😀", "\u{7f}\u{2028}"] {
            let entry = entry(0, Some(key.as_bytes()), "1");
            let expected = serde_json::to_string(key).unwrap();
            check(
                &entry,
                &format!(
                    r#"{{"partition":10,"offset":9,"origin":null,"timestamp":"1970-01-01T00:00:00Z","key":{expected},"value":1}}"#
                ),
            );
        }
        check(
            &entry(0, Some(b"a\xff"), "1"),
            "{\"partition\":10,\"offset\":9,\"origin\":null,\"timestamp\":\"1970-01-01T00:00:00Z\",\"key\":\"a\u{fffd}\",\"value\":1}",
        );
    }

    #[test]
    fn an_event_over_several_lines_becomes_one_line_and_keeps_its_value() {
        check(
            &entry(0, None, "{\r\n  \"text\": \"a\\nb\",\n  \"number\": 1.50\n}"),
            r#"{"partition":10,"offset":9,"origin":null,"timestamp":"1970-01-01T00:00:00Z","key":null,"value":{    "text": "a\nb",   "number": 1.50 }}"#,
        );
    }
}
