//! Cuts a body into events; their bytes stay the body's, without copies.
//!
//! An event is cut from the first byte of its JSON value to the last: white space around it is not
//! part of it, white space within is.

use broker::{Error, Result};
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

/// A line of a small event, to guess how many there are.
const LINE_BYTES: usize = 64;

/// More room than for these events is not given on a guess.
const GUESS_MAX: usize = 4_096;

/// The events of a body, in order, all with the same `key`; none of an empty array. `Invalid` where
/// the body is blank, or is to be JSON and is not; whether an event can be taken is not looked at.
pub(crate) fn cut<'b>(body: &'b [u8], shape: Shape, key: Option<&'b [u8]>) -> Result<Vec<NewEvent<'b>>> {
    let event = |value: &'b [u8], line| NewEvent { value, line, key };
    if body.trim_ascii().is_empty() {
        return Err(Error::invalid("body", "the body holds no event"));
    }
    let events = match shape {
        Shape::Json if body.trim_ascii_start().starts_with(b"[") => {
            let slice = |item: &'b RawValue| event(item.get().as_bytes(), None);
            items(body)?.into_iter().map(slice).collect()
        }
        Shape::Json => vec![event(value(body)?.get().as_bytes(), None)],
        Shape::Lines => {
            let mut events = Vec::with_capacity((body.len() / LINE_BYTES).min(GUESS_MAX));
            let (mut begin, mut number) = (0, 1);
            for end in memchr::memchr_iter(b'\n', body).chain([body.len()]) {
                let line = body[begin..end].trim_ascii();
                if !line.is_empty() {
                    events.push(event(line, Some(number)));
                }
                (begin, number) = (end + 1, number + 1);
            }
            events
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
        let events = cut(body.as_bytes(), shape, None).unwrap();
        let cut: Vec<&str> = events.iter().map(|event| std::str::from_utf8(event.value).unwrap()).collect();
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
                let events = cut(body.as_bytes(), shape, None).unwrap();
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
        let lines: Vec<_> =
            cut(b"\n{}\n\n{}", Shape::Lines, None).unwrap().iter().map(|event| event.line).collect();
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
            let error = cut(body.as_bytes(), shape, None).unwrap_err();
            assert_eq!(error.field(), Some("body"), "{body}");
        }
        let error = cut(b"[{\"a\":1},\n{bad}]", Shape::Json, None).unwrap_err();
        assert!(error.message().contains("at line 2 column 2; "), "{error}");
        let error = cut(b"[{\"a\":\"\xff\"}]", Shape::Json, None).unwrap_err();
        assert_eq!(error.field(), Some("body"), "{error}");
    }
}
