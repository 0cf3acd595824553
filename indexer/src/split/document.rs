//! From an event's bytes to what is indexed of it. Total: what cannot be read is left out, and the
//! event is still found by its time and key.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

/// Below this depth of nesting nothing is indexed; the parser's own limit.
const DEPTH_MAX: usize = 128;

/// Reads an event. Numbers that fit neither 64 bits nor a double, and strings that are not Unicode,
/// come out as null.
pub(super) fn parse(event: &[u8]) -> Value {
    serde_json::from_slice(event).unwrap_or_else(|_| {
        let raw = serde_json::from_slice::<&RawValue>(event);
        raw.map_or(Value::Null, |raw| parse_piecewise(raw, 0))
    })
}

fn parse_piecewise(raw: &RawValue, depth: usize) -> Value {
    let text = raw.get();
    if depth == DEPTH_MAX {
        return Value::Null;
    }
    match text.as_bytes().first() {
        Some(b'{') => {
            let members = serde_json::from_str::<BTreeMap<String, &RawValue>>(text).unwrap_or_default();
            let members = members.into_iter();
            members.map(|(name, member)| (name, parse_piecewise(member, depth + 1))).collect()
        }
        Some(b'[') => {
            let items = serde_json::from_str::<Vec<&RawValue>>(text).unwrap_or_default();
            items.into_iter().map(|item| parse_piecewise(item, depth + 1)).collect()
        }
        _ => serde_json::from_str(text).unwrap_or(Value::Null),
    }
}

/// Calls `found` with every string in the event; names of members are none.
pub(super) fn each_string<'a>(value: &'a Value, found: &mut impl FnMut(&'a str)) {
    match value {
        Value::String(text) => found(text),
        Value::Array(items) => items.iter().for_each(|item| each_string(item, found)),
        Value::Object(members) => members.values().for_each(|member| each_string(member, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_null_and_the_rest_is_kept() {
        for (event, read) in [
            (r#"{"a":1,"b":[true,"x"]}"#, json!({"a": 1, "b": [true, "x"]})),
            (r#"{"a":1e999,"b":{"c":2}}"#, json!({"a": null, "b": {"c": 2}})),
            (r#"{"a":"\ud800","b":[1e999,3]}"#, json!({"a": null, "b": [null, 3]})),
            ("not JSON", json!(null)),
        ] {
            assert_eq!(parse(event.as_bytes()), read, "{event}");
        }
    }

    #[test]
    fn deep_nesting_ends_in_null() {
        let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
        assert!(parse(deep.as_bytes()).is_array());
    }
}
