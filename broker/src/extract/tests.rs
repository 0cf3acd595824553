use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn time_of(field: &str, format: Option<&str>, event: &str) -> Result<String> {
    let extracted = Extractor::new(Some(field), format, None)?.extract(event.as_bytes())?;
    Ok(extracted.time.expect("a field was named").to_string())
}

fn key_of(pointer: &str, event: &str) -> Result<Option<String>> {
    let extracted = Extractor::new(None, None, Some(pointer))?.extract(event.as_bytes())?;
    Ok(extracted.key.map(Cow::into_owned))
}

fn syntax_error(event: &[u8]) -> Error {
    let error = Extractor::new(None, None, None).unwrap().extract(event).unwrap_err();
    assert_eq!(error.kind(), crate::Kind::Invalid);
    assert_eq!(error.field(), Some("value"));
    error
}

#[test]
fn detects_how_a_time_is_written() {
    for (written, read) in [
        (r#""2001-01-08T00:47:00Z""#, "2001-01-08T00:47:00Z"),
        (r#""2001-01-08T00:47:00+01:00""#, "2001-01-07T23:47:00Z"),
        (r#""2001-01-08T00:47:00.123456789-00:30""#, "2001-01-08T01:17:00.123456Z"),
        (r#""2001-01-08 00:47:00Z""#, "2001-01-08T00:47:00Z"),
        (r#""2001-01-08T00:47:00""#, "2001-01-08T00:47:00Z"),
        (r#""2001-01-08 00:47:00.5""#, "2001-01-08T00:47:00.500Z"),
        (r#""2001-01-08""#, "2001-01-08T00:00:00Z"),
        (r#""\u0032001-01-08""#, "2001-01-08T00:00:00Z"),
        ("978307620", "2001-01-01T00:07:00Z"),
        ("978307620.25", "2001-01-01T00:07:00.250Z"),
        ("9.7830762e8", "2001-01-01T00:07:00Z"),
        ("978307620123", "2001-01-01T00:07:00.123Z"),
        ("978307620123456", "2001-01-01T00:07:00.123456Z"),
        ("978307620123456789", "2001-01-01T00:07:00.123456Z"),
        (r#""978307620""#, "2001-01-01T00:07:00Z"),
        ("0", "1970-01-01T00:00:00Z"),
        ("-1", "1969-12-31T23:59:59Z"),
        ("-0.0000001", "1969-12-31T23:59:59.999999Z"),
        ("99999999999", "5138-11-16T09:46:39Z"),
        ("100000000000", "1973-03-03T09:46:40Z"),
    ] {
        let event = format!(r#"{{"a":[1,{{"date":7}}],"date": {written} ,"z":null}}"#);
        assert_eq!(time_of("date", None, &event).unwrap(), read, "{written}");
    }
}

#[test]
fn refuses_times_that_are_missing_absurd_or_not_times() {
    for written in [
        "null",
        "true",
        "{}",
        "[1]",
        r#""""#,
        r#""yesterday""#,
        r#""2001-02-30""#,
        r#""2001/01/08""#,
        r#""2001-01-08T25:00:00Z""#,
        r#""0000-12-31T00:00:00Z""#,
        r#""+10000-01-01T00:00:00Z""#,
        "1e300",
        "1e2000000000",
        "123456789012345678901234567890123456789",
        "9223372036854775807000",
        r#""-""#,
        r#""1.""#,
        r#""NaN""#,
    ] {
        let event = format!(r#"{{"date":{written}}}"#);
        let error = time_of("date", None, &event).unwrap_err();
        assert_eq!((error.kind(), error.field()), (crate::Kind::Invalid, Some("date")), "{written}");
    }
    assert_eq!(time_of("date", None, r#"{"dates":1}"#).unwrap_err().field(), Some("date"));
    let long = format!(r#"{{"date":"{}"}}"#, "æ".repeat(5_000));
    let message = time_of("date", None, &long).unwrap_err().to_string();
    assert!(message.contains(&"æ".repeat(100)) && !message.contains(&"æ".repeat(101)), "{message}");
}

#[test]
fn reads_times_by_a_format() {
    for (format, written, read) in [
        ("%Y/%m/%d %H:%M", r#""2001/01/01 00:47""#, "2001-01-01T00:47:00Z"),
        ("%Y-%m-%d", r#""1990-01-08""#, "1990-01-08T00:00:00Z"),
        ("%d.%m.%y", r#""08.01.90""#, "1990-01-08T00:00:00Z"),
        ("%Y%m%d", "20010203", "2001-02-03T00:00:00Z"),
        ("%Y-%m-%dT%H:%M:%S%.f%z", r#""2001-02-03T04:05:06.7+0200""#, "2001-02-03T02:05:06.700Z"),
        ("%Y-%m-%d %H:%M:%S %#z", r#""2001-02-03 04:05:06 +02""#, "2001-02-03T02:05:06Z"),
        ("%Y-%m-%d %I:%M %p", r#""2001-02-03 01:30 PM""#, "2001-02-03T13:30:00Z"),
        ("%Y-%m-%d %H", r#""2001-02-03 13""#, "2001-02-03T13:00:00Z"),
        ("%G-W%V-%u", r#""2001-W06-1""#, "2001-02-05T00:00:00Z"),
        ("%Y-%j", r#""2001-034""#, "2001-02-03T00:00:00Z"),
        ("%s", "981173106", "2001-02-03T04:05:06Z"),
        ("%+", r#""2001-02-03T04:05:06+00:00""#, "2001-02-03T04:05:06Z"),
    ] {
        let event = format!(r#"{{"at":{written}}}"#);
        assert_eq!(time_of("at", Some(format), &event).unwrap(), read, "{format}");
    }
    let error = time_of("at", Some("%Y-%m-%d"), r#"{"at":"2001-01-01T00:00:00Z"}"#).unwrap_err();
    assert_eq!(error.field(), Some("at"));
    assert_eq!(error.message(), r#"expected a time written as "%Y-%m-%d", not "2001-01-01T00:00:00Z""#);
}

#[test]
fn refuses_rules_that_can_never_work() {
    for (time, format, key, field) in [
        (Some("at"), Some("%H:%M"), None, "timestamp_format"),
        (Some("at"), Some("%Y-%m"), None, "timestamp_format"),
        (Some("at"), Some("%d.%m."), None, "timestamp_format"),
        (Some("at"), Some("%Y-%m-%d %I:%M"), None, "timestamp_format"),
        (Some("at"), Some("%Q"), None, "timestamp_format"),
        (Some("at"), Some("%Y-%m-%"), None, "timestamp_format"),
        (Some("at"), Some(""), None, "timestamp_format"),
        (None, Some("%Y-%m-%d"), None, "timestamp_format"),
        (Some(""), None, None, "timestamp_field"),
        (Some("/a~2"), None, None, "timestamp_field"),
        (None, None, Some(""), "key"),
        (None, None, Some("origin"), "key"),
        (None, None, Some("/a/~"), "key"),
    ] {
        let error = Extractor::new(time, format, key).unwrap_err();
        assert_eq!(error.field(), Some(field), "{time:?} {format:?} {key:?}: {error}");
    }
}

#[test]
fn follows_pointers_to_the_key() {
    for (pointer, event, key) in [
        ("/origin", r#"{"origin":"DTW"}"#, Some("DTW")),
        ("/origin", r#"{"origin":"a\u0062\"\n"}"#, Some("ab\"\n")),
        ("/o\u{e6}", r#"{"o\u00e6":"æ"}"#, Some("æ")),
        ("/origin", r#"{"origin":""}"#, Some("")),
        ("/origin", r#"{"origin":12.50}"#, Some("12.50")),
        ("/origin", r#"{"origin":18446744073709551616123}"#, Some("18446744073709551616123")),
        ("/origin", r#"{"origin":1e400}"#, Some("1e400")),
        ("/origin", r#"{"origin":true}"#, Some("true")),
        ("/origin", r#"{"origin":null}"#, None),
        ("/origin", r#"{"destination":"LAS"}"#, None),
        ("/origin/code", r#"{"origin":"DTW"}"#, None),
        ("/origin/code", r#"{"origin":1e400}"#, None),
        ("/legs/0/code", r#"{"legs":[1e400]}"#, None),
        ("/legs/1", r#"{"legs":[1e400,"B"]}"#, Some("B")),
        ("/origin/code", r#"{"origin":{"name":"Detroit","code":"DTW"}}"#, Some("DTW")),
        ("/legs/1/from", r#"{"legs":[{"from":"A"},{"from":"B"},{"from":"C"}]}"#, Some("B")),
        ("/legs/01", r#"{"legs":["A","B"]}"#, None),
        ("/legs/9", r#"{"legs":["A","B"]}"#, None),
        ("/a~1b/m~0n", r#"{"a/b":{"m~n":"x"}}"#, Some("x")),
        ("/", r#"{"":"empty"}"#, Some("empty")),
        ("/origin", r#"{"origin":"first","origin":"last"}"#, Some("last")),
        ("/a/b", r#"{"a":{"b":1},"a":5}"#, None),
        ("/a/b", r#"{"a":{"b":1},"a":{"b":2},"c":{"b":3}}"#, Some("2")),
    ] {
        assert_eq!(key_of(pointer, event).unwrap().as_deref(), key, "{pointer} in {event}");
    }
    for event in [r#"{"origin":{}}"#, r#"{"origin":["A"]}"#] {
        assert_eq!(key_of("/origin", event).unwrap_err().field(), Some("/origin"));
    }
}

#[test]
fn finds_time_and_key_where_one_path_leads_through_the_other() {
    let extractor = Extractor::new(Some("/at/time"), None, Some("/at/time")).unwrap();
    let extracted = extractor.extract(br#"{"at":{"time":7}}"#).unwrap();
    assert_eq!(extracted.time, Timestamp::from_millis(7_000));
    assert_eq!(extracted.key.as_deref(), Some("7"));
    let extractor = Extractor::new(Some("/at/time"), None, Some("/at")).unwrap();
    assert_eq!(extractor.extract(br#"{"at":{"time":7}}"#).unwrap_err().field(), Some("/at"));
}

#[test]
fn says_where_an_event_is_not_json() {
    for (event, place) in [
        (&b""[..], "line 1 column 1 (byte 0)"),
        (br#"{"a":1"#, "(byte 5)"),
        (br#"{"a":}"#, "line 1 column 6 (byte 5)"),
        (br#"{"a":1,}"#, "line 1 column 8 (byte 7)"),
        (b"{\"a\":1,\n \"b\":x}", "line 2 column 6 (byte 13)"),
        (br#"{"a":1} {"#, "line 1 column 9 (byte 8)"),
        (br#"{"a":01}"#, "(byte 6)"),
        (br#"{'a':1}"#, "(byte 1)"),
        (b"{\"a\":\"\x01\"}", "control character"),
        (b"{\"a\":\"\xff\"}", "line 1 column 7 (byte 6): the bytes are no UTF-8"),
        (b"\xef\xbb\xbf{}", "(byte 0)"),
        (br#"{"a":"\ud800"}"#, "(byte 6)"),
        (br#"{"a":"\udc00\ud800"}"#, "(byte 6)"),
        (br#"{"a":"\ud800\u0041"}"#, "(byte 6)"),
        (br#"{"a":"\x"}"#, "(byte 7)"),
        (br#"{"a":NaN}"#, "(byte 5)"),
    ] {
        let message = syntax_error(event).to_string();
        let (place, why) = place.split_once(": ").unwrap_or((place, ""));
        assert!(message.contains(place) && message.contains(why), "{message} for {event:?}");
    }
}

#[test]
fn takes_what_is_json_whatever_its_size() {
    let deep = format!("{}1{}", "[".repeat(DEPTH_MAX), "]".repeat(DEPTH_MAX));
    let wide = format!("[{}[]]", "[],".repeat(1_000));
    for event in ["{}", " {\"a\" : 1e999999}\r\n", r#"{"a":"\ud83d\ude00[[[\\"}"#, "7", &deep, &wide] {
        let extractor = Extractor::new(None, None, None).unwrap();
        assert_eq!(extractor.extract(event.as_bytes()).unwrap(), Extracted::default(), "{event}");
    }
}

#[test]
fn refuses_what_is_nested_too_deep() {
    for depth in [DEPTH_MAX + 1, 100_000] {
        let event = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let message = syntax_error(event.as_bytes()).to_string();
        assert!(message.contains("nested more than 120 deep at line 1 column 121"), "{message}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e12..1e12_f64).prop_map(Value::from),
        "[a-c\"\\\\/\u{e6}\u{1f600}]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-c~/]{0,2}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn extraction_never_panics(
        event in prop::collection::vec(any::<u8>(), 0..60),
        text in "[\\[\\]{}\",:0-9a\\\\ud8 -]{0,60}",
        at in "[0-9eE.+TZ: -]{0,24}",
    ) {
        let extractor = Extractor::new(Some("a"), None, Some("/a/0")).unwrap();
        for event in [&event, text.as_bytes(), json!({"a": at}).to_string().as_bytes()] {
            if let Err(error) = extractor.extract(event) {
                prop_assert_eq!(error.kind(), crate::Kind::Invalid);
            }
        }
    }

    #[test]
    fn finds_what_a_value_of_the_event_has(event in any_json(), tokens in prop::collection::vec("[a-c~/0-2]{0,2}", 1..4)) {
        let pointer: String =
            tokens.iter().map(|token| format!("/{}", token.replace('~', "~0").replace('/', "~1"))).collect();
        let found = key_of(&pointer, &event.to_string());
        match event.pointer(&pointer) {
            None | Some(Value::Null) => prop_assert_eq!(found.unwrap(), None),
            Some(Value::String(text)) => prop_assert_eq!(found.unwrap(), Some(text.clone())),
            Some(Value::Array(_) | Value::Object(_)) => prop_assert!(found.is_err()),
            Some(scalar) => prop_assert_eq!(found.unwrap(), Some(scalar.to_string())),
        }
    }

    #[test]
    fn agrees_with_a_value_on_what_is_json(text in "[\\[\\]{}\",:01a ]{0,12}") {
        let extracted = Extractor::new(None, None, Some("/a")).unwrap().extract(text.as_bytes());
        let is_syntax_error = extracted.is_err_and(|error| error.field() == Some("value"));
        prop_assert_eq!(is_syntax_error, serde_json::from_str::<Value>(&text).is_err());
    }
}

#[test]
fn a_time_that_may_be_missing_is_read_where_it_is_there() {
    let extractor = Extractor::new(Some("at"), None, None).unwrap().with_optional_time();
    let time = |event: &str| extractor.extract(event.as_bytes()).map(|extracted| extracted.time);
    assert_eq!(time("{}").unwrap(), None);
    assert_eq!(time(r#"{"at":null}"#).unwrap(), None);
    assert_eq!(time(r#"{"at":0}"#).unwrap(), Some(Timestamp::from_millis(0).unwrap()));
    assert_eq!(time(r#"{"at":"soon"}"#).unwrap_err().field(), Some("at"));
}
