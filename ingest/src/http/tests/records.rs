use std::convert::Infallible;
use std::io::Write as _;
use std::time::Duration;

use axum::body::Body;
use broker::{Partition, Stage, partition_of};
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};

use crate::Limits;
use crate::append::NewEvent;
use crate::testing::{Doors, NOW};

const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn small_limits() -> Limits {
    Limits {
        body_bytes_max: 2_000,
        decoded_body_bytes_max: 4_000,
        record_bytes_max: 500,
        batch_records_max: 20,
        key_bytes_max: 8,
        body_time_max: Duration::from_millis(50),
        ..Limits::default()
    }
}

#[tokio::test]
async fn keeps_the_bytes_of_every_event_as_they_were_sent() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 1})).await;
    let events = [
        "{\"a\" : 1.0, \"a\":1e400}",
        "{\n\t\"b\":\"\\u00e6\\/\"\r\n}",
        "{\"c\":12345678901234567890123}",
        "{\"d\":[ ]}",
    ];
    assert_eq!(doors.append(&[], events[0]).await.status, StatusCode::OK);
    let array = format!(" [{} ,\n{}]\n", events[1], events[2]);
    let answer = doors.append(&[("content-type", "application/json; charset=UTF-8")], array).await;
    assert_eq!(answer.json["records"].as_array().unwrap().len(), 2);
    let answer = doors.append(&[LINES], format!("\n{}\r\n", events[3])).await;
    assert_eq!(answer.json, json!({"records": [{"partition": 0, "offset": 3, "timestamp": NOW}]}));
    assert_eq!(doors.raw_values().await, events);
}

#[tokio::test]
async fn answers_in_the_order_sent_and_keeps_what_is_good() {
    let rules = json!({"partitions": 1, "timestamp_field": "at", "key": "/k"});
    let doors = Doors::with(small_limits()).await.with_stream(rules).await;
    let long = format!("{{\"at\":1,\"x\":\"{}\"}}", "x".repeat(500));
    let lines = [
        "{\"at\":1}",
        "{bad",
        "{} {}",
        "{\"at\":\"2001-01-08\"}",
        "[1]",
        "{\"at\":null}",
        long.as_str(),
        "{\"at\":1,\"k\":\"123456789\"}",
        "{\"at\":1,\"k\":{}}",
        "{\"at\":\"0000-01-01\"}",
        "{\"at\":978307620123}",
    ];
    let answer = doors.append(&[LINES], lines.join("\n")).await;
    assert_eq!(answer.status, StatusCode::OK);
    let summary = |record: &Value| match record["error"]["kind"].as_str() {
        Some(kind) => format!("{kind} {}", record["error"]["field"].as_str().unwrap()),
        None => format!("{} {}", record["offset"], record["timestamp"].as_str().unwrap()),
    };
    let records = answer.json["records"].as_array().unwrap();
    assert_eq!(
        records.iter().map(summary).collect::<Vec<_>>(),
        [
            "0 1970-01-01T00:00:01Z",
            "invalid value",
            "invalid value",
            "1 2001-01-08T00:00:00Z",
            "invalid value",
            "invalid at",
            "too_large value",
            "too_large /k",
            "invalid /k",
            "invalid at",
            "2 2001-01-01T00:07:00.123Z",
        ]
    );
    let message = records[1]["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("line 2: the event is not valid JSON: ") && message.ends_with("(byte 1)"));
    assert_eq!(doors.raw_values().await, [lines[0], lines[3], lines[10]]);
}

#[rstest]
#[case::bad_event(r#"[{"at":1},{"at":true}]"#, StatusCode::BAD_REQUEST, "invalid")]
#[case::large_event(
    concat!(r#"[{"at":1},{"at":"#, "                                                            ", "1}]"),
    StatusCode::PAYLOAD_TOO_LARGE,
    "too_large"
)]
#[tokio::test]
async fn atomic_refuses_all_for_one(
    #[case] body: &'static str,
    #[case] status: StatusCode,
    #[case] kind: &str,
) {
    let limits = Limits { record_bytes_max: 50, ..Limits::default() };
    let doors = Doors::with(limits).await.with_stream(json!({"timestamp_field": "at"})).await;
    let path = "/api/v1/streams/flights/1/records";
    let answer = doors.post(&format!("{path}?atomic=true"), &[], body).await;
    assert_eq!((answer.status, answer.error()), (status, (kind, "records[1]")), "{}", answer.json);
    assert!(doors.raw_values().await.is_empty());
    let answer = doors.post(&format!("{path}?atomic=false"), &[], body).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(doors.raw_values().await, [r#"{"at":1}"#]);
}

#[rstest]
#[case::unknown_stream("/api/v1/streams/trains/1/records", &[], b"{}", 404, "not_found stream")]
#[case::bad_dataset("/api/v1/streams/FLIGHTS/1/records", &[], b"{}", 400, "invalid dataset")]
#[case::bad_version("/api/v1/streams/flights/1.0/records", &[], b"{}", 400, "invalid version")]
#[case::bad_escape("/api/v1/streams/flights/%ff/records", &[], b"{}", 400, "invalid path")]
#[case::unknown_parameter("/api/v1/streams/flights/1/records?atomc=true", &[], b"{}", 400, "invalid atomc")]
#[case::bad_atomic("/api/v1/streams/flights/1/records?atomic=1", &[], b"{}", 400, "invalid atomic")]
#[case::twice("/api/v1/streams/flights/1/records?atomic=true&atomic=true", &[], b"{}", 400, "invalid atomic")]
#[case::empty(RECORDS, &[], b"", 400, "invalid body")]
#[case::blank(RECORDS, &[], b" \r\n", 400, "invalid body")]
#[case::blank_lines(RECORDS, &[LINES], b"\n\n", 400, "invalid body")]
#[case::array_cut_short(RECORDS, &[], b"[{\"a\":1},", 400, "invalid body")]
#[case::array_with_bad_event(RECORDS, &[], b"[{\"a\":1},{b}]", 400, "invalid body")]
#[case::array_not_utf8(RECORDS, &[], b"[{\"a\":\"\xff\"}]", 400, "invalid body")]
#[case::not_json(RECORDS, &[], b"{\"a\":}", 400, "invalid body")]
#[case::lines_as_json(RECORDS, &[], b"{}\n{}", 400, "invalid body")]
#[case::not_utf8(RECORDS, &[], b"{\"a\":\"\xff\"}", 400, "invalid body")]
#[case::text(RECORDS, &[("content-type", "text/plain")], b"{}", 415, "invalid content-type")]
#[case::form(RECORDS, &[("content-type", "application/x-www-form-urlencoded")], b"{}", 415, "invalid content-type")]
#[case::charset(RECORDS, &[("content-type", "application/json; charset=latin1")], b"{}", 415, "invalid content-type")]
#[case::brotli(RECORDS, &[("content-encoding", "br")], b"{}", 415, "invalid content-encoding")]
#[case::two_codings(RECORDS, &[("content-encoding", "gzip, zstd")], b"{}", 415, "invalid content-encoding")]
#[case::not_gzip(RECORDS, &[("content-encoding", "gzip")], b"{}", 400, "invalid content-encoding")]
#[case::not_zstd(RECORDS, &[("content-encoding", "zstd")], b"{}", 400, "invalid content-encoding")]
#[case::empty_key(RECORDS, &[("headwater-key", "")], b"{}", 400, "invalid Headwater-Key")]
#[case::long_key(RECORDS, &[("headwater-key", "123456789")], b"{}", 400, "invalid Headwater-Key")]
#[case::two_keys(RECORDS, &[("headwater-key", "a"), ("headwater-key", "b")], b"{}", 400, "invalid Headwater-Key")]
#[case::too_many(RECORDS, &[], b"[{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}]", 413, "too_large records")]
#[case::announced(RECORDS, &[("content-length", "2001")], b"{}", 413, "too_large body")]
#[tokio::test]
async fn refuses_a_request_whole_and_writes_nothing(
    #[case] path: &str,
    #[case] headers: &[(&str, &str)],
    #[case] body: &'static [u8],
    #[case] status: u16,
    #[case] error: &str,
) {
    let doors = Doors::with(small_limits()).await.with_stream(json!({})).await;
    let answer = doors.post(path, headers, body).await;
    let (kind, field) = answer.error();
    assert_eq!(
        (answer.status.as_u16(), format!("{kind} {field}").as_str()),
        (status, error),
        "{}",
        answer.json
    );
    assert_eq!(answer.json["error"]["request_id"], "request-1");
    assert!(doors.raw_values().await.is_empty());
}

const RECORDS: &str = "/api/v1/streams/flights/1/records";

#[rstest]
#[case::deep(format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200)).into_bytes(), "nested more than 120 deep")]
#[case::half_a_character(br#"{"a":"\ud83d"}"#.to_vec(), "half of a surrogate pair at line 1 column 7 (byte 6)")]
#[case::scalar(b"7".to_vec(), "an event is a JSON object")]
#[tokio::test]
async fn an_event_alone_is_answered_with_its_error(#[case] body: Vec<u8>, #[case] message: &str) {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let answer = doors.append(&[], body).await;
    assert_eq!(answer.status, StatusCode::OK);
    let error = &answer.json["records"][0]["error"];
    assert_eq!((error["kind"].as_str(), error["field"].as_str()), (Some("invalid"), Some("value")));
    assert!(error["message"].as_str().unwrap().contains(message), "{error}");
}

#[tokio::test]
async fn takes_compressed_bodies_and_refuses_damaged_ones_and_bombs() {
    let doors = Doors::with(small_limits()).await.with_stream(json!({"partitions": 1})).await;
    let text = b"{\"a\":1}\n{\"a\":2}\n";
    let zstd = zstd::encode_all(&text[..], 3).unwrap();
    for (coding, body) in [("gzip", gzip(text)), ("zstd", zstd)] {
        let cut_short = body[..body.len() - 1].to_vec();
        let answer = doors.append(&[LINES, ("content-encoding", coding)], cut_short).await;
        assert_eq!((answer.status, answer.error().1), (StatusCode::BAD_REQUEST, "content-encoding"));
        let answer = doors.append(&[LINES, ("content-encoding", coding)], body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    }
    assert_eq!(doors.raw_values().await, ["{\"a\":1}", "{\"a\":2}", "{\"a\":1}", "{\"a\":2}"]);
    let bomb = gzip(&vec![b' '; 100_000]);
    let answer = doors.append(&[("content-encoding", "gzip")], bomb).await;
    assert_eq!((answer.status, answer.error()), (StatusCode::PAYLOAD_TOO_LARGE, ("too_large", "body")));
}

#[tokio::test]
async fn records_of_one_key_share_a_partition_in_the_order_sent() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 8, "key": "/k"})).await;
    let event = |n: usize| format!("{{\"k\":\"key-{}\",\"n\":{n}}}", n % 5);
    for request in 0..4 {
        let lines: Vec<String> = (request * 25..request * 25 + 25).map(event).collect();
        assert_eq!(doors.append(&[LINES], lines.join("\n")).await.status, StatusCode::OK);
    }
    let mut last = [None; 5];
    for (partition, entry) in doors.entries("flights", Stage::Raw).await {
        let value: Value = serde_json::from_slice(&entry.record.value).unwrap();
        let number = value["n"].as_u64().unwrap();
        let key = entry.record.key.unwrap();
        assert_eq!(Partition(partition), partition_of(&key, 8));
        assert_eq!(key, format!("key-{}", number % 5));
        let before = last[(number % 5) as usize].replace(number);
        assert!(before < Some(number));
    }
    assert_eq!(last, [Some(95), Some(96), Some(97), Some(98), Some(99)]);
}

#[tokio::test]
async fn the_header_gives_the_key_of_all_records() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 8, "key": "/k"})).await;
    let answer = doors.append(&[("headwater-key", "DTW æ")], "[{\"k\":\"a\"},{\"k\":\"b\"}]").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    for (partition, entry) in doors.entries("flights", Stage::Raw).await {
        assert_eq!(Partition(partition), partition_of("DTW æ".as_bytes(), 8));
        assert_eq!(entry.record.key.as_deref(), Some("DTW æ".as_bytes()));
    }
}

#[tokio::test]
async fn records_without_a_key_stay_together_and_requests_take_turns() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 3})).await;
    let mut partitions = Vec::new();
    for _ in 0..6 {
        let answer = doors.append(&[], "[{},{},{}]").await;
        let records = answer.json["records"].as_array().unwrap();
        let mut of_request: Vec<u64> =
            records.iter().map(|record| record["partition"].as_u64().unwrap()).collect();
        of_request.dedup();
        partitions.append(&mut of_request);
    }
    assert_eq!(partitions, [0, 1, 2, 0, 1, 2]);
}

#[tokio::test]
async fn answers_busy_while_the_bytes_in_flight_are_used_up() {
    let limits = Limits { in_flight_bytes_max: 100, ..Limits::default() };
    let doors = Doors::with(limits).await.with_stream(json!({"partitions": 1})).await;
    let held = doors.ingest.admission.charge(95).unwrap();
    for body in [Body::from("{\"a\":1}"), Body::from_stream(stream::iter([Ok::<_, Infallible>("{\"a\":1}")]))]
    {
        let answer = doors.append(&[], body).await;
        assert_eq!((answer.status, answer.error().0), (StatusCode::TOO_MANY_REQUESTS, "busy"));
        assert_eq!(answer.headers["retry-after"], "1");
    }
    drop(held);
    assert_eq!(doors.append(&[], "{\"a\":1}").await.status, StatusCode::OK);
    assert!(doors.ingest.admission.charge(100).is_ok(), "every byte is given back");
    assert_eq!(doors.raw_values().await, ["{\"a\":1}"]);
}

#[tokio::test]
async fn refuses_a_body_that_grows_too_large() {
    let doors = Doors::with(small_limits()).await.with_stream(json!({})).await;
    let endless = stream::repeat(Ok::<_, Infallible>(Bytes::from("{}\n".repeat(20_000))));
    let answer = doors.append(&[LINES], Body::from_stream(endless)).await;
    assert_eq!((answer.status, answer.error()), (StatusCode::PAYLOAD_TOO_LARGE, ("too_large", "body")));
}

#[tokio::test]
async fn a_body_that_does_not_arrive_writes_nothing() {
    let doors = Doors::with(small_limits()).await.with_stream(json!({})).await;
    let first = || stream::iter([Ok(Bytes::from_static(b"{\"a\":1}\n{\"a\""))]);
    let answer = doors.append(&[LINES], Body::from_stream(first().chain(stream::pending()))).await;
    let slow: std::io::Result<Bytes> = Err(std::io::ErrorKind::ConnectionReset.into());
    assert_eq!((answer.status, answer.error().1), (StatusCode::REQUEST_TIMEOUT, "body"));
    let answer = doors.append(&[LINES], Body::from_stream(first().chain(stream::iter([slow])))).await;
    assert_eq!((answer.status, answer.error()), (StatusCode::BAD_REQUEST, ("invalid", "body")));
    assert!(doors.raw_values().await.is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_wait_for_the_answer_has_written_all_or_nothing() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 8, "key": "/n"})).await;
    let stream = doors.ingest.catalog.list().remove(0);
    for request in 0..20 {
        let values: Vec<String> = (0..30).map(|n| format!("{{\"n\":{n},\"r\":{request}}}")).collect();
        let events = values.iter().map(|value| NewEvent { value: value.as_bytes(), line: None, key: None });
        let prepared = doors.ingest.prepare(&stream, events.collect(), false).unwrap();
        let mut appending = Box::pin(doors.ingest.append(prepared));
        assert!(futures::poll!(&mut appending).is_pending());
    }
    let answer = doors.append(&[], "{\"n\":0,\"r\":20}").await;
    assert_eq!(answer.status, StatusCode::OK);
    let mut written = [0; 21];
    for value in doors.raw_values().await {
        let value: Value = serde_json::from_str(&value).unwrap();
        written[value["r"].as_u64().unwrap() as usize] += 1;
    }
    assert!(written[..20].iter().all(|count| [0, 30].contains(count)), "{written:?}");
    assert_eq!(written[20], 1);
}

#[tokio::test]
async fn takes_large_bodies_that_come_in_pieces() {
    let doors = Doors::open().await.with_stream(json!({"key": "/n"})).await;
    let lines: Vec<String> = (0..10_000).map(|n| format!("{{\"n\":{n},\"pad\":\"{n:032}\"}}\n")).collect();
    let pieces: Vec<_> = lines.concat().into_bytes().chunks(7_001).map(<[u8]>::to_vec).collect();
    let pieces = pieces.into_iter().map(Ok::<_, Infallible>);
    let answer = doors.append(&[LINES], Body::from_stream(stream::iter(pieces))).await;
    assert_eq!(answer.json["records"].as_array().unwrap().len(), lines.len());
    let mut values = doors.raw_values().await;
    values.sort_by_key(|value| serde_json::from_str::<Value>(value).unwrap()["n"].as_u64());
    assert!(values.iter().eq(lines.iter().map(|line| line.trim_end())));
}

#[tokio::test]
async fn a_line_that_is_not_utf8_is_refused_alone() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let answer = doors.append(&[LINES], &b"{}\n{\"a\":\"\xff\"}\n"[..]).await;
    assert_eq!(answer.json["records"][1]["error"]["field"], "value");
    assert_eq!(doors.raw_values().await, ["{}"]);
}

#[tokio::test]
async fn answers_unavailable_once_the_log_is_closed() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    doors.log.close().await.unwrap();
    let answer = doors.append(&[], "{}").await;
    assert_eq!((answer.status, answer.error().0), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
    assert_eq!(answer.headers["retry-after"], "1");
}

#[tokio::test]
async fn an_empty_array_is_answered_with_no_records() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    assert_eq!(doors.append(&[], "[]").await.json, json!({"records": []}));
}

#[tokio::test]
async fn a_minimal_answer_holds_ranges_and_what_was_refused() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 4, "key": "/k"})).await;
    let minimal = ("prefer", "respond-async, return=minimal");
    let a = partition_of(b"a", 4);
    let other = ["b", "c", "d", "e"].into_iter().find(|key| partition_of(key.as_bytes(), 4) != a).unwrap();
    let b = partition_of(other.as_bytes(), 4);
    let lines =
        format!("{{\"k\":\"a\"}}\n{{bad\n{{\"k\":\"{other}\"}}\n{{\"k\":\"a\"}}\n[]\n{{\"k\":\"a\"}}");
    for request in 0..2 {
        let answer = doors.append(&[LINES, minimal], lines.clone()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers["preference-applied"], "return=minimal");
        let range = |partition: Partition, count: u64| {
            let first = request * count;
            json!({"partition": partition.0, "first": first, "last": first + count - 1, "count": count})
        };
        let mut appended = vec![range(a, 3), range(b, 1)];
        appended.sort_by_key(|range| range["partition"].as_u64());
        assert_eq!(answer.json["appended"], json!(appended));
        let errors = answer.json["errors"].as_array().unwrap();
        let summary = |error: &Value| (error["index"].as_u64(), error["error"]["field"].clone());
        let errors: Vec<_> = errors.iter().map(summary).collect();
        assert_eq!(errors, [(Some(1), json!("value")), (Some(4), json!("value"))]);
    }
    let values = doors.raw_values().await;
    assert_eq!(values.len(), 8);
}

#[tokio::test]
async fn an_answer_is_minimal_only_where_it_is_asked_for() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 1})).await;
    let answer = doors.append(&[("prefer", "return=representation")], "{}").await;
    assert_eq!(answer.json["records"][0]["offset"], 0);
    assert!(!answer.headers.contains_key("preference-applied"));
    let answer = doors.append(&[("prefer", "return=minimal")], "[]").await;
    assert_eq!(answer.json, json!({"appended": [], "errors": []}));
    let refused = doors.append(&[("prefer", "return=minimal")], "{bad").await;
    assert_eq!((refused.status, refused.error()), (StatusCode::BAD_REQUEST, ("invalid", "body")));
    let path = "/api/v1/streams/flights/1/records?atomic=true";
    let refused = doors.post(path, &[("prefer", "return=minimal"), LINES], "{}\n{bad").await;
    assert_eq!((refused.status, refused.error().1), (StatusCode::BAD_REQUEST, "records[1]"));
}
