//! What the doors of the real binary do with bad input, slow clients and the end of the process, and
//! what a stream's changes do to its events.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "doors/cognito.rs"]
mod cognito;
mod common;
#[path = "doors/hawk.rs"]
mod hawk;
#[path = "doors/okdata.rs"]
mod okdata;
#[path = "doors/openapi.rs"]
mod openapi;
#[path = "doors/segment.rs"]
mod segment;
#[path = "doors/subscription.rs"]
mod subscription;
#[path = "doors/surfaces.rs"]
mod surfaces;
#[path = "doors/vehicles.rs"]
mod vehicles;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use common::{Launch, Server, TOKEN, until};
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const STREAMS: &str = "/api/v1/streams";
const RECORDS: &str = "/api/v1/streams/things/1/records";
const EVENTS: &str = "/api/v1/streams/things/1/events";
const LINES: &str = "application/x-ndjson";

type Headers<'a> = &'a [(&'a str, &'a str)];

/// A server with the stream `things/1`, whose definition has these fields more.
async fn open(launch: Launch, more: Value) -> Server {
    let server = launch.start().await;
    define(&server, more).await;
    server
}

async fn define(server: &Server, more: Value) {
    let mut definition = json!({"dataset": "things", "version": "1", "partitions": 2});
    definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, answer) = server.post(STREAMS, &definition).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
}

/// Posts records: the status and the answer, whose error must name the request where there is one.
async fn send(server: &Server, headers: Headers<'_>, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let mut request = server.request(Method::POST, RECORDS).header("x-request-id", "r-1");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answered(request.body(body)).await
}

async fn answered(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let json: Value = answer.json().await.unwrap();
    if status >= 400 {
        assert_eq!(json["error"]["request_id"], headers["x-request-id"].to_str().unwrap(), "{json}");
        assert!(!json["error"]["message"].as_str().unwrap().is_empty());
    }
    if status == 429 {
        assert_eq!(headers["retry-after"], "1");
    }
    (status, json)
}

fn summary((status, json): &(u16, Value)) -> String {
    let text = |name: &str| json["error"][name].as_str().unwrap_or_default().to_owned();
    format!("{status} {} {}", text("kind"), text("field"))
}

/// What each record was answered with: `ok`, or its error's kind and field.
fn records(json: &Value) -> Vec<String> {
    let text = |error: &Value, name: &str| error[name].as_str().unwrap_or_default().to_owned();
    let summary = |record: &Value| match record.get("error") {
        Some(error) => format!("{} {}", text(error, "kind"), text(error, "field")),
        None => "ok".to_owned(),
    };
    json["records"].as_array().unwrap().iter().map(summary).collect()
}

fn numbers(range: std::ops::Range<u64>) -> String {
    range.map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

async fn append(server: &Server, range: std::ops::Range<u64>) {
    let count = range.end - range.start;
    let (status, answer) = send(server, &[("content-type", LINES)], numbers(range)).await;
    assert_eq!((status, records(&answer)), (200, vec!["ok".to_owned(); count as usize]));
}

async fn count(server: &Server) -> u64 {
    server.get(&format!("{EVENTS}/count")).await["count"].as_u64().unwrap()
}

/// The values of all events, in the answer's order.
async fn values(server: &Server) -> Vec<Value> {
    let lines = server.lines(&format!("{EVENTS}/export")).await;
    lines.into_iter().map(|mut event| event["value"].take()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes to the server's port and leaves the connection open.
fn dial(server: &Server, bytes: &str) -> TcpStream {
    let mut connection = TcpStream::connect(server.base().trim_start_matches("http://")).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    connection.write_all(bytes.as_bytes()).unwrap();
    connection
}

fn head(length: usize) -> String {
    format!(
        "POST {RECORDS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn a_body_that_cannot_be_cut_into_records_is_refused_whole() {
    let folder = tempfile::tempdir().unwrap();
    let server = open(Launch::local(folder.path()), json!({})).await;
    let deep = "[".repeat(500_000);
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(17 << 20));
    let many = "{}\n".repeat(100_000);
    let (bomb, cut) = (gzip(&vec![b' '; 100 << 20]), gzip(numbers(0..100).as_bytes())[..60].to_vec());
    let zstd_bomb = zstd::encode_all(&vec![b' '; 100 << 20][..], 1).unwrap();
    let is_gzip = ("content-encoding", "gzip");
    let cases: [(Headers, Vec<u8>, &str); 16] = [
        (&[], b"{\"a\":1,}".to_vec(), "400 invalid body"),
        (&[], b"[{\"a\":1},{\"a\":}]".to_vec(), "400 invalid body"),
        (&[], b"{\"a\":\"\xff\"}".to_vec(), "400 invalid body"),
        (&[], b"{\"a\":NaN}".to_vec(), "400 invalid body"),
        (&[], Vec::new(), "400 invalid body"),
        (&[("content-type", LINES)], b"\n \n".to_vec(), "400 invalid body"),
        (&[], deep.into_bytes(), "400 invalid body"),
        (&[], large.into_bytes(), "413 too_large body"),
        (&[("content-type", LINES)], many.into_bytes(), "413 too_large records"),
        (&[("content-type", "text/csv")], b"a,b".to_vec(), "415 invalid content-type"),
        (&[("content-encoding", "br")], b"{}".to_vec(), "415 invalid content-encoding"),
        (&[is_gzip], cut, "400 invalid content-encoding"),
        (&[is_gzip], b"{}".to_vec(), "400 invalid content-encoding"),
        (&[is_gzip], bomb, "413 too_large body"),
        (&[("content-encoding", "zstd")], zstd_bomb, "413 too_large body"),
        (&[("headwater-key", "")], b"{}".to_vec(), "400 invalid Headwater-Key"),
    ];
    for (headers, body, wanted) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(30)]).into_owned();
        assert_eq!(summary(&send(&server, headers, body).await), wanted, "{headers:?} {shown}");
    }
    let message = send(&server, &[], "{\"a\":1,\n}").await.1["error"]["message"].clone();
    assert!(message.as_str().unwrap().contains("line 2 column 1"), "{message}");
    assert_eq!(count(&server).await, 0);
}

#[tokio::test]
async fn a_record_that_cannot_be_taken_is_answered_with_its_error_and_the_others_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let rules = json!({"timestamp_field": "at", "key": "/k"});
    let server = open(Launch::local(folder.path()), rules).await;
    let long = "x".repeat(10_000_000);
    let deep = format!("{{\"at\":1,\"d\":{}{}}}", "[".repeat(200), "]".repeat(200));
    let lines = [
        ("{\"at\":1,\"at\":2}".to_owned(), "ok"),
        ("{\"at\":1,\"n\":123456789012345678901234567890,\"m\":1e999}".to_owned(), "ok"),
        ("{\"at\":1,".to_owned(), "invalid value"),
        ("7".to_owned(), "invalid value"),
        ("{}".to_owned(), "invalid at"),
        ("{\"at\":\"10000-01-01\"}".to_owned(), "invalid at"),
        ("{\"at\":1e400}".to_owned(), "invalid at"),
        ("{\"at\":1,\"k\":{}}".to_owned(), "invalid /k"),
        (format!("{{\"at\":1,\"k\":\"{}\"}}", "k".repeat(1_025)), "too_large /k"),
        (format!("{{\"at\":1,\"x\":\"{long}\"}}"), "too_large value"),
        (deep, "invalid value"),
        ("{\"at\":\"2001-01-05\",\"k\":\"a\"}".to_owned(), "ok"),
    ];
    let body = lines.each_ref().map(|(line, _)| line.as_str()).join("\n");
    let (status, answer) = send(&server, &[("content-type", LINES)], body.clone()).await;
    assert_eq!((status, records(&answer)), (200, lines.map(|(_, wanted)| wanted.to_owned()).to_vec()));
    let atomic = server.request(Method::POST, &format!("{RECORDS}?atomic=true"));
    let refused = answered(atomic.header("content-type", LINES).body(body)).await;
    assert_eq!(summary(&refused), "400 invalid records[2]");
    assert_eq!(count(&server).await, 3);
}

#[tokio::test]
async fn questions_that_cannot_be_answered_name_the_parameter_at_fault() {
    let folder = tempfile::tempdir().unwrap();
    let server = open(Launch::local(folder.path()), json!({})).await;
    append(&server, 0..10).await;
    let cursor = server.get(&format!("{EVENTS}?limit=2")).await["cursor"].as_str().unwrap().to_owned();
    let cases = [
        (format!("{EVENTS}?limit=0"), "400 invalid limit"),
        (format!("{EVENTS}?limit=10001"), "400 invalid limit"),
        (format!("{EVENTS}?from=2001-01-02&to=2001-01-01"), "400 invalid from"),
        (format!("{EVENTS}?to=tomorrow"), "400 invalid to"),
        (format!("{EVENTS}?q=("), "400 invalid q"),
        (format!("{EVENTS}?order=up"), "400 invalid order"),
        (format!("{EVENTS}?form=2001-01-01"), "400 invalid form"),
        (format!("{EVENTS}?cursor=AAAA"), "400 invalid cursor"),
        (format!("{EVENTS}?order=desc&cursor={cursor}"), "400 invalid cursor"),
        (format!("{EVENTS}/export?limit=1"), "400 invalid limit"),
        ("/api/v1/streams/things/2/events".to_owned(), "404 not_found stream"),
        ("/api/v1/streams/Things/1/events".to_owned(), "400 invalid dataset"),
        ("/api/v1/streams/things/1/dead-letters?limit=0".to_owned(), "400 invalid limit"),
        ("/api/v1/nothing".to_owned(), "404 not_found "),
        (RECORDS.to_owned(), "405 invalid method"),
    ];
    for (path, wanted) in cases {
        assert_eq!(summary(&answered(server.request(Method::GET, &path)).await), wanted, "{path}");
    }
    for (name, transform) in [("line 2, column 6", "x = 1\n.a = parse_jsn(.)"), ("line 1", ".a = ")] {
        let definition = json!({"dataset": "others", "version": "1", "transform": transform});
        let (status, answer) = server.post(STREAMS, &definition).await;
        assert_eq!((status, &answer["error"]["field"]), (StatusCode::BAD_REQUEST, &json!("transform")));
        assert!(answer["error"]["message"].as_str().unwrap().contains(name), "{answer}");
    }
}

#[tokio::test]
async fn slow_and_greedy_clients_are_told_their_limit() {
    let folder = tempfile::tempdir().unwrap();
    let launch = Launch::local(folder.path())
        .set("HEADWATER_LIMITS__BODY_TIME_MAX", "2s")
        .set("HEADWATER_LIMITS__BODY_BYTES_MAX", "1MiB")
        .set("HEADWATER_LIMITS__DECODED_BODY_BYTES_MAX", "1MiB")
        .set("HEADWATER_LIMITS__IN_FLIGHT_BYTES_MAX", "2MiB");
    let server = open(launch, json!({})).await;
    let large = server.request(Method::GET, STREAMS).header("x-large", "x".repeat(70_000));
    assert_eq!(summary(&answered(large).await), "431 too_large headers");

    // Two bodies that never come hold all the bytes that may be in flight, until their time is up. The
    // probe may have come before them and taken their room: then they are let go and dialled again.
    let mut slow = until("the bytes in flight run out", async || {
        let mut slow = [0, 1].map(|_| dial(&server, &head(1 << 20)));
        common::pause().await;
        let answer = send(&server, &[], "{\"n\":1}").await;
        if summary(&answer) == "429 busy " {
            return Some(slow);
        }
        for connection in &mut slow {
            connection.read_to_string(&mut String::new()).unwrap();
        }
        None
    })
    .await;
    for connection in &mut slow {
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("\"field\":\"body\""), "{answer}");
    }
    assert_eq!(send(&server, &[], "{\"n\":2}").await.0, 200);
}

#[tokio::test]
async fn a_connection_on_which_no_headers_come_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let launch = Launch::local(folder.path())
        .set("HEADWATER_LIMITS__HEADER_TIME_MAX", "1s")
        .set("HEADWATER_LIMITS__IDLE_TIME_MAX", "1h");
    let server = launch.start().await;
    for beginning in ["", "GET / HTTP/1.1\r\nhost:"] {
        let mut answer = String::new();
        dial(&server, beginning).read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "", "{beginning}");
    }
}

#[tokio::test]
async fn a_connection_stays_open_between_requests_for_its_idle_time() {
    let request = "GET /healthz HTTP/1.1\r\nhost: here\r\n\r\n";
    let read_answer = |connection: &mut std::net::TcpStream| {
        let mut answer = Vec::new();
        while !answer.ends_with(b"alive\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let header_time = Duration::from_millis(500);
    let launch = Launch::local(folder.path())
        .set("HEADWATER_LIMITS__HEADER_TIME_MAX", "500ms")
        .set("HEADWATER_LIMITS__IDLE_TIME_MAX", "1h");
    let server = launch.start().await;
    let mut connection = dial(&server, request);
    read_answer(&mut connection);
    tokio::time::sleep(header_time * 3).await;
    connection.write_all(request.as_bytes()).unwrap();
    read_answer(&mut connection);
    connection.write_all(b"GET /healthz HTTP/1.1\r\nhost:").unwrap();
    assert_eq!(connection.read_to_end(&mut Vec::new()).unwrap(), 0, "headers that stop coming end it");
    drop(server);

    let folder = tempfile::tempdir().unwrap();
    let launch = Launch::local(folder.path()).set("HEADWATER_LIMITS__IDLE_TIME_MAX", "500ms");
    let server = launch.start().await;
    let mut connection = dial(&server, request);
    read_answer(&mut connection);
    assert_eq!(connection.read_to_end(&mut Vec::new()).unwrap(), 0, "no request comes");
}

#[tokio::test]
async fn a_client_of_http_2_reads_why_its_body_was_refused_while_it_sends_on() {
    let folder = tempfile::tempdir().unwrap();
    let server = open(Launch::local(folder.path()), json!({})).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for (path, token, wanted) in [
        (RECORDS.to_owned(), TOKEN, "413 too_large body"),
        (format!("{RECORDS}?atomc=true"), TOKEN, "400 invalid atomc"),
        (RECORDS.to_owned(), "another", "401 unauthenticated authorization"),
    ] {
        let request = client.post(format!("{}{path}", server.base())).bearer_auth(token);
        let answer = answered(request.body(vec![b' '; 30 << 20])).await;
        assert_eq!(summary(&answer), wanted);
    }
}

#[tokio::test]
async fn heads_are_answered_without_bodies() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::local(folder.path()).start().await;
    let clients = [reqwest::Client::builder(), reqwest::Client::builder().http2_prior_knowledge()];
    for client in clients.map(|client| client.build().unwrap()) {
        for (path, token, wanted) in [
            ("/healthz", TOKEN, StatusCode::OK),
            (STREAMS, TOKEN, StatusCode::OK),
            (STREAMS, "another", StatusCode::UNAUTHORIZED),
            (RECORDS, TOKEN, StatusCode::METHOD_NOT_ALLOWED),
            ("/api/v1/nothing", TOKEN, StatusCode::NOT_FOUND),
        ] {
            let answer = client.head(format!("{}{path}", server.base())).bearer_auth(token);
            let answer = answer.send().await.unwrap();
            assert_eq!(answer.status(), wanted, "{path}");
            let length: u64 = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
            assert!(length > 0, "{path}: what GET would be answered with");
            assert!(answer.bytes().await.unwrap().is_empty(), "{path}");
        }
    }
}

#[tokio::test]
async fn what_is_acked_is_found_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = open(Launch::local(folder.path()), json!({"transform": ".seen = true"})).await;
    for round in 0..60 {
        append(&server, round * 5..round * 5 + 5).await;
        assert_eq!(count(&server).await, round * 5 + 5);
    }
}

#[tokio::test]
async fn a_stream_made_again_under_its_name_begins_empty() {
    let folder = tempfile::tempdir().unwrap();
    let server = open(Launch::local(folder.path()), json!({})).await;
    append(&server, 0..50).await;
    let cursor = server.get(&format!("{EVENTS}?limit=2")).await["cursor"].as_str().unwrap().to_owned();
    until("a split of the first life", async || {
        folder.path().join("objects/index/green/things").exists().then_some(())
    })
    .await;
    let splits = folder.path().join("objects/index/green/things/version=1");
    let names =
        || fs::read_dir(&splits).map_or(Vec::new(), |found| found.map(|file| file.unwrap().path()).collect());
    let of_the_first_life: Vec<PathBuf> = names();
    let deleted = server.request(Method::DELETE, "/api/v1/streams/things/1").send().await.unwrap();
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    assert_eq!(summary(&send(&server, &[], "{}").await), "404 not_found stream");
    assert_eq!(summary(&answered(server.request(Method::GET, EVENTS)).await), "404 not_found stream");

    define(&server, json!({"partitions": 3})).await;
    assert_eq!(count(&server).await, 0);
    append(&server, 100..107).await;
    assert_eq!(values(&server).await, (100..107).map(|n| json!({"n": n})).collect::<Vec<_>>());
    until("the splits of the first life are gone", async || {
        let is_left = names().iter().any(|name| of_the_first_life.contains(name));
        (!is_left).then_some(())
    })
    .await;
    let with_old_cursor = server.request(Method::GET, &format!("{EVENTS}?limit=2&cursor={cursor}"));
    assert_eq!(summary(&answered(with_old_cursor).await), "400 invalid cursor");
    drop(server);
    let server = Launch::local(folder.path()).start().await;
    assert_eq!(count(&server).await, 7);
}

#[tokio::test]
async fn a_changed_transform_takes_what_comes_after_it_and_dead_letters_are_replayed_once() {
    let folder = tempfile::tempdir().unwrap();
    let transform = "if .n == 3 { abort \"no threes\" }\nif .n == 5 { . = null }";
    let server = open(Launch::local(folder.path()), json!({"transform": transform})).await;
    append(&server, 0..6).await;
    assert_eq!(values(&server).await, [0, 1, 2, 4].map(|n| json!({"n": n})));
    let letters = server.get("/api/v1/streams/things/1/dead-letters").await;
    let letter = &letters["dead_letters"][0];
    assert_eq!((&letter["reason"], &letter["transform_version"]), (&json!("no threes"), &json!(1)));
    assert_eq!(letter["value_base64"], "eyJuIjozfQ==");
    assert_eq!(letters["dead_letters"].as_array().unwrap().len(), 1);
    until("the counts", async || {
        let metrics = server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        let routed = |outcome: &str, records: u32| {
            let labels = format!("dataset=\"things\",version=\"1\",outcome=\"{outcome}\"");
            metrics.contains(&format!("headwater_router_records_total{{{labels}}} {records}\n"))
        };
        (routed("forwarded", 4) && routed("dropped", 1) && routed("rejected", 1)).then_some(())
    })
    .await;

    let path = "/api/v1/streams/things/1";
    let change = json!({"transform": ".n = int!(.n) + 100"});
    let changed = server.request(Method::PATCH, path).json(&change).send().await.unwrap();
    assert_eq!(changed.status(), StatusCode::OK);
    let replay = format!("{path}/dead-letters/replay");
    assert_eq!(server.post(&replay, &json!({})).await, (StatusCode::OK, json!({"replayed": 1})));
    assert_eq!(server.post(&replay, &json!({})).await, (StatusCode::OK, json!({"replayed": 0})));
    append(&server, 6..7).await;
    let mut found = values(&server).await;
    found.sort_by_key(|event| event["n"].as_u64());
    assert_eq!(found, [0, 1, 2, 4, 103, 106].map(|n| json!({"n": n})));
}

#[tokio::test]
async fn a_transform_that_never_ends_is_stopped_and_its_record_is_a_dead_letter() {
    let folder = tempfile::tempdir().unwrap();
    let looping =
        "x = 0\nfor_each(array!(.a)) -> |_i, _v| { for_each(array!(.a)) -> |_j, _w| { x = x + 1 } }";
    let server = open(Launch::local(folder.path()), json!({"transform": looping, "partitions": 1})).await;
    let items = vec!["1"; 3_000].join(",");
    let body = format!("{{\"a\":[{items}]}}\n{{\"a\":[]}}");
    assert_eq!(send(&server, &[("content-type", LINES)], body).await.0, 200);
    until("the record after it", async || (count(&server).await == 1).then_some(())).await;
    let letters = server.get("/api/v1/streams/things/1/dead-letters").await;
    let reason = letters["dead_letters"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("steps"), "{reason}");
}

/// Posts batches until the server does not answer any more; how many records were acked.
async fn produce(server: &Server, from: u64) -> u64 {
    let mut acked = 0;
    loop {
        let body = numbers(from + acked..from + acked + 50);
        let request = server.request(Method::POST, RECORDS).header("content-type", LINES).body(body);
        match request.send().await {
            Ok(answer) if answer.status() == StatusCode::OK => acked += 50,
            Ok(answer) => panic!("answered {}", answer.status()),
            Err(_) => return acked,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_under_load_ends_well_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let launch = || Launch::local(folder.path()).set("HEADWATER_SHUTDOWN_GRACE_SECONDS", "4");
    let mut server = open(launch(), json!({})).await;
    // Clients that never end their requests do not keep the rest from ending well.
    let _stuck = [dial(&server, &head(100)), dial(&server, "GET / HTTP/1.1\r\nhost:"), dial(&server, "")];
    let id = server.id().to_string();
    let stop = async {
        until("some load", async || (count(&server).await > 500).then_some(())).await;
        std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap()
    };
    let producers = join_all((0..4).map(|producer| produce(&server, producer * 1_000_000)));
    let (stopped, acked) = tokio::join!(stop, producers);
    assert!(stopped.success());
    assert_eq!(server.wait().code(), Some(0));

    let server = launch().start().await;
    let (acked, found) = (acked.iter().sum::<u64>(), count(&server).await);
    // Each producer's last batch was taken or not.
    assert!((acked..=acked + 200).contains(&found), "acked {acked}, found {found}");
    assert_eq!(found % 50, 0, "a batch is taken whole or not at all");
}
