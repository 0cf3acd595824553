//! An event as a line of NDJSON, in objects of the archive and in exports:
//! `{"partition":0,"offset":9,"origin":{"partition":0,"offset":12},"timestamp":"…","key":"…","value":…}`.
//!
//! `timestamp` is the event's own time; `origin` and `key` are `null` where there is none. The
//! value's bytes stand as they are, but for raw line breaks: valid JSON has them only between
//! tokens, where a space means the same, and each becomes one. A key that is not UTF-8, which only
//! foreign producers can write, shows U+FFFD for what cannot be read. Whether a value is JSON is not
//! looked at.

use broker::batch::View;
use broker::record::Origin;
use broker::time::TimeWriter;
use broker::{Entry, Offset, Partition, Timestamp};

/// What a line says of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) partition: Partition,
    pub(crate) offset: Offset,
    pub(crate) origin: Option<Origin>,
    pub(crate) time: Timestamp,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: &'a [u8],
    /// Whether the value is known to be JSON.
    pub(crate) is_json: bool,
}

impl<'a> Line<'a> {
    /// The line of an entry of a partition.
    pub(crate) fn of(partition: Partition, entry: &'a Entry) -> Self {
        Self::at((partition, entry.offset), &View::of(&entry.record))
    }

    /// The line of an event at a position.
    pub(crate) fn at((partition, offset): (Partition, Offset), event: &View<'a>) -> Self {
        let View { key, value, arrival: _, time, origin } = *event;
        Self { partition, offset, origin, time, key, value, is_json: false }
    }

    /// Appends the line, with its end, to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        self.write_with(&mut TimeWriter::default(), out);
    }

    /// Like [`Line::write`], with what is known of the time from the line before. Written piece by
    /// piece: formatting is what most of the time would go to.
    pub(crate) fn write_with(&self, times: &mut TimeWriter, out: &mut Vec<u8>) {
        out.reserve(160 + self.key.map_or(0, <[u8]>::len) + self.value.len());
        out.extend_from_slice(b"{\"partition\":");
        put_number(out, self.partition.0);
        out.extend_from_slice(b",\"offset\":");
        put_number(out, self.offset.0);
        match self.origin {
            None => out.extend_from_slice(b",\"origin\":null"),
            Some(origin) => {
                out.extend_from_slice(b",\"origin\":{\"partition\":");
                put_number(out, origin.partition.0);
                out.extend_from_slice(b",\"offset\":");
                put_number(out, origin.offset.0);
                out.push(b'}');
            }
        }
        out.extend_from_slice(b",\"timestamp\":\"");
        times.write(self.time, out);
        out.extend_from_slice(b"\",\"key\":");
        match self.key {
            None => out.extend_from_slice(b"null"),
            Some(key) => put_text(out, key),
        }
        out.extend_from_slice(b",\"value\":");
        put_on_one_line(self.value, out);
        out.extend_from_slice(b"}\n");
    }
}

/// Puts JSON without its line breaks, which are spaces instead.
pub(crate) fn put_on_one_line(value: &[u8], out: &mut Vec<u8>) {
    let first = out.len();
    out.extend_from_slice(value);
    for byte in &mut out[first..] {
        // Without a branch, so that it is done for many bytes at once.
        *byte = if matches!(*byte, b'\n' | b'\r') { b' ' } else { *byte };
    }
}

/// Puts a JSON string. Most keys are plain words.
fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    if text.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    } else {
        let text = String::from_utf8_lossy(text);
        serde_json::to_writer(&mut *out, &text).expect("a text always fits a vector");
    }
}

fn put_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use broker::Record;
    use bytes::Bytes;

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
        Line::of(Partition(10), entry).write(&mut out);
        assert_eq!(std::str::from_utf8(&out).unwrap(), format!("{expected}\n"));
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
        for key in ["a \"b\"", "a\\b", "~ !", "\"\\\u{8}\u{c}\n\r\t", "\u{1}\u{1f}", "ø€😀", "\u{7f}\u{2028}"]
        {
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
