//! Cuts a body into events; their bytes stay the body's, without copies.
//!
//! An event is cut from the first byte of its JSON value to the last: white space around it is not
//! part of it, white space within is.

use broker::{Error, Result};
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::append::NewEvent;

/// How a body holds its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One JSON value: an array of events, or one event.
    Json,
    /// One event a line.
    Lines,
}

/// The events of a body, in order, all with the same `key`; none of an empty array. `Invalid` where
/// the body is blank, or is to be JSON and is not; whether an event can be taken is not looked at.
pub(crate) fn cut(body: &Bytes, shape: Shape, key: Option<&Bytes>) -> Result<Vec<NewEvent>> {
    let event = |value: Bytes, line| NewEvent { value, line, key: key.cloned() };
    if body.trim_ascii().is_empty() {
        return Err(Error::invalid("body", "the body holds no event"));
    }
    let events = match shape {
        Shape::Json if body.trim_ascii_start().starts_with(b"[") => {
            let slice = |item: &RawValue| event(body.slice_ref(item.get().as_bytes()), None);
            items(body)?.into_iter().map(slice).collect()
        }
        Shape::Json => vec![event(body.slice_ref(value(body)?.get().as_bytes()), None)],
        Shape::Lines => {
            let lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).zip(1..);
            let filled = lines.filter(|(line, _)| !line.is_empty());
            filled.map(|(line, number)| event(body.slice_ref(line), Some(number))).collect()
        }
    };
    Ok(events)
}

fn items(body: &[u8]) -> Result<Vec<&RawValue>> {
    serde_json::from_slice(body).map_err(|error| not_json(&error))
}

fn value(body: &[u8]) -> Result<&RawValue> {
    serde_json::from_slice(body).map_err(|error| not_json(&error))
}

fn not_json(error: &serde_json::Error) -> Error {
    let message = format!("the body is not valid JSON: {error}; one event a line is application/x-ndjson");
    Error::invalid("body", message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(body: &'static str, shape: Shape, values: &[&str]) {
        let body = Bytes::from_static(body.as_bytes());
        let events = cut(&body, shape, None).unwrap();
        let cut: Vec<&str> = events.iter().map(|event| std::str::from_utf8(&event.value).unwrap()).collect();
        assert_eq!(cut, values);
    }

    #[test]
    fn cuts_an_array_and_keeps_each_events_bytes() {
        check(
            " [ {\"a\" : 1.0,\"a\":2},\n{\"b\":\"\\u00e6],[\"}\t, 7 ,[ ] ] ",
            Shape::Json,
            &["{\"a\" : 1.0,\"a\":2}", "{\"b\":\"\\u00e6],[\"}", "7", "[ ]"],
        );
    }

    fn any_event() -> impl Strategy<Value = String> {
        let name = "[a-c\\[\\]{},:\u{e6}]{0,5}";
        let value =
            prop::sample::select(vec!["-1.50", "[1, {\"[,]\": 2}]", "\"\\\"}\\\\\"", "1e999", "null"]);
        (name, value).prop_map(|(name, value)| format!("{{ \"{name}\" :{value}}}"))
    }

    proptest! {
        #[test]
        fn what_was_put_together_is_cut_apart(
            events in prop::collection::vec(any_event(), 1..9),
            space in "[ \t\r]{0,2}",
        ) {
            let cut_of = |body: String, shape| {
                let events = cut(&body.into(), shape, None).unwrap();
                events.into_iter().map(|event| String::from_utf8(event.value.to_vec()).unwrap()).collect::<Vec<_>>()
            };
            let array = format!("[{space}{}{space}]", events.join(&format!("{space},\n{space}")));
            prop_assert_eq!(&cut_of(array, Shape::Json), &events);
            let lines = events.join(&format!("{space}\n{space}"));
            prop_assert_eq!(&cut_of(lines, Shape::Lines), &events);
        }
    }

    #[test]
    fn takes_any_other_json_body_as_one_event() {
        check("\n{\n \"a\": 1 }\n", Shape::Json, &["{\n \"a\": 1 }"]);
        check("7", Shape::Json, &["7"]);
        check("[]", Shape::Json, &[]);
    }

    #[test]
    fn cuts_lines_with_either_ending_and_skips_blank_ones() {
        check("{\"a\":1}\r\n\n  \n{bad\n {\"a\": 2}", Shape::Lines, &["{\"a\":1}", "{bad", "{\"a\": 2}"]);
        let body = Bytes::from_static(b"\n{}\n\n{}");
        let lines: Vec<_> = cut(&body, Shape::Lines, None).unwrap().iter().map(|event| event.line).collect();
        assert_eq!(lines, [Some(2), Some(4)]);
    }

    #[test]
    fn refuses_a_body_that_cannot_be_cut() {
        for (body, shape) in [
            ("", Shape::Json),
            ("  \n", Shape::Json),
            ("\n \r\n", Shape::Lines),
            ("[{\"a\":1},", Shape::Json),
            ("[{\"a\":1} {\"a\":2}]", Shape::Json),
            ("[{\"a\":1}] 7", Shape::Json),
            ("[{bad}]", Shape::Json),
            ("{bad}", Shape::Json),
            ("{\"a\":1", Shape::Json),
            ("{\"a\":1}\n{\"a\":2}", Shape::Json),
        ] {
            let error = cut(&Bytes::from_static(body.as_bytes()), shape, None).unwrap_err();
            assert_eq!(error.field(), Some("body"), "{body}");
        }
        let error = cut(&Bytes::from_static(b"[{\"a\":1},\n{bad}]"), Shape::Json, None).unwrap_err();
        assert!(error.message().contains("at line 2 column 2; "), "{error}");
        let error = cut(&Bytes::from_static(b"[{\"a\":\"\xff\"}]"), Shape::Json, None).unwrap_err();
        assert_eq!(error.field(), Some("body"), "{error}");
    }
}
