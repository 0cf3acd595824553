use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use broker::Stage;
use broker::log::faulty::{Faults, Faulty};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::Limits;
use crate::testing::{Answer, Doors};

const NOT_JSON: &str = "Body is not a valid JSON document";
const NOT_CONFORMING: &str = "JSON document does not conform to the given schema";

/// Posts as whoever holds `bearer`; the administrator where it is empty, nobody where it is `-`.
async fn post(doors: &Doors, bearer: &str, path: &str, body: impl Into<axum::body::Body>) -> Answer {
    let mut request = Request::builder().method(Method::POST).uri(path);
    match bearer {
        "" => {}
        "-" => request = request.header("authorization", ""),
        bearer => request = request.header("authorization", format!("Bearer {bearer}")),
    }
    doors.send(request.body(body.into()).unwrap()).await
}

/// A token for one operation on a dataset.
async fn token(doors: &Doors, dataset: &str, operation: &str) -> String {
    let path = format!("/webhooks/{dataset}/tokens");
    let answer = doors.post(&path, &[], json!({"operation": operation}).to_string()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json);
    answer.json["token"].as_str().unwrap().to_owned()
}

/// A user that holds the answered key.
async fn user(doors: &Doors, name: &str) -> String {
    doors.post("/api/v1/users", &[], json!({"name": name}).to_string()).await;
    let made = doors.post("/api/v1/keys", &[], json!({"user": name}).to_string()).await;
    made.json["key"].as_str().unwrap().to_owned()
}

fn check(answer: &Answer, status: u16, message: &str) {
    assert_eq!((answer.status.as_u16(), &answer.json), (status, &json!({"message": message})));
}

#[tokio::test]
async fn either_path_takes_an_object_or_an_array_as_it_was_sent() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let token = token(&doors, "flights", "write").await;
    let mut sent = 0;
    for root in ["/event", "/events", "/webhook/event", "/webhook/events"] {
        let (bearer, query) = if root.starts_with("/webhook") {
            ("-", format!("?a=b&token={token}"))
        } else {
            ("", String::new())
        };
        for (body, count) in [("{\"a\" : 1.50,\"a\":2}", 1), (" [{\"b\":1} ,\n{\"b\": 1e3 }]", 2)] {
            let answer = post(&doors, bearer, &format!("{root}/flights/1{query}"), body).await;
            check(&answer, 200, "Ok");
            sent += count;
        }
    }
    let values = doors.raw_values().await;
    assert_eq!(values.len(), sent);
    for value in ["{\"a\" : 1.50,\"a\":2}", "{\"b\":1}", "{\"b\": 1e3 }"] {
        assert_eq!(values.iter().filter(|known| *known == value).count(), 4, "{value}");
    }
}

#[tokio::test]
async fn what_is_no_event_is_refused_and_nothing_is_written() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    for (body, message) in [
        ("", NOT_JSON),
        (" \n", NOT_JSON),
        ("{", NOT_JSON),
        ("{\"a\":1}\n{\"a\":2}", NOT_JSON),
        ("[{\"a\":1},]", NOT_JSON),
        ("a=1", NOT_JSON),
        ("[]", NOT_CONFORMING),
        ("\"value\"", NOT_CONFORMING),
        ("[\"value\"]", NOT_CONFORMING),
        ("[{\"a\":1},7]", NOT_CONFORMING),
        ("[[{\"a\":1}]]", NOT_CONFORMING),
        ("null", NOT_CONFORMING),
    ] {
        check(&post(&doors, "", "/events/flights/1", body).await, 400, message);
    }
    let headers = [("content-encoding", "br")];
    assert_eq!(doors.post("/event/flights/1", &headers, "{}").await.status.as_u16(), 415);
    assert!(doors.raw_values().await.is_empty());
}

#[tokio::test]
async fn checks_come_in_their_order() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let key = user(&doors, "ann").await;
    let absent = |dataset: &str, version: &str| {
        format!("Dataset with id:{dataset} and version:{version} does not exist")
    };
    // Who is not known does not learn what is there.
    check(&post(&doors, "-", "/event/trains/1", "{").await, 401, "Unauthorized");
    check(&post(&doors, "wrong", "/event/trains/1", "{").await, 401, "Unauthorized");
    // Whether it is there comes before who may.
    check(&post(&doors, &key, "/event/trains/1", "{").await, 404, &absent("trains", "1"));
    check(&post(&doors, &key, "/event/flights/2", "{").await, 404, &absent("flights", "2"));
    check(&post(&doors, "", "/event/flights%2F1/1", "{}").await, 404, &absent("flights/1", "1"));
    // Who may comes before what is sent.
    check(&post(&doors, &key, "/event/flights/1", "{").await, 403, "Forbidden");
    let path = "/api/v1/grants/flights/ann";
    for (permission, status) in [("read", 403), ("update", 403), ("admin", 403), ("write", 400)] {
        let grant = json!({"permissions": [permission]}).to_string();
        doors.send(Request::put(path).body(grant.into()).unwrap()).await;
        assert_eq!(post(&doors, &key, "/event/flights/1", "{").await.status.as_u16(), status);
    }
    check(&post(&doors, &key, "/event/flights/1", "{}").await, 200, "Ok");
}

#[tokio::test]
async fn a_webhook_needs_a_token_for_writing_to_that_dataset() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    doors.define("trains", json!({})).await;
    let (write, read) = (token(&doors, "flights", "write").await, token(&doors, "flights", "read").await);
    let (other, deleted) = (token(&doors, "trains", "write").await, token(&doors, "flights", "write").await);
    let gone = format!("/webhooks/flights/tokens/{deleted}");
    doors.send(Request::delete(gone).body("".into()).unwrap()).await;
    let at = |token: &str| format!("/webhook/event/flights/1?token={token}");
    let foreign = "Provided token is not associated to dataset-id: flights";
    for (path, status, message) in [
        ("/webhook/event/flights/1".to_owned(), 401, "Unauthorized"),
        (at(""), 401, "Unauthorized"),
        (format!("{}&token={write}", at(&write)), 401, "Unauthorized"),
        (
            "/webhook/event/boats/1?token=x".to_owned(),
            404,
            "Dataset with id:boats and version:1 does not exist",
        ),
        (at(&read), 403, "Provided token does not have access to perform write on flights"),
        (at(&other), 403, foreign),
        (at(&deleted), 403, foreign),
        (at("x"), 403, foreign),
        (at(&write), 400, NOT_JSON),
    ] {
        check(&post(&doors, "-", &path, "{").await, status, message);
    }
    // A bearer does not help, and a token does not where a bearer is asked for.
    check(&post(&doors, "", &at("x"), "{}").await, 403, foreign);
    check(&post(&doors, "-", &format!("/event/flights/1?token={write}"), "{}").await, 401, "Unauthorized");
    check(&post(&doors, &write, "/event/flights/1", "{}").await, 401, "Unauthorized");
    doors.clock.advance(Duration::from_secs(730 * 24 * 3_600));
    check(&post(&doors, "-", &at(&write), "{}").await, 403, "Provided token is expired");
    assert!(doors.raw_values().await.is_empty());
}

#[tokio::test]
async fn what_comes_for_a_version_without_a_stream_is_the_beginning_of_its_stream() {
    let doors = Doors::open().await;
    doors.post("/datasets", &[], r#"{"title":"Flights"}"#).await;
    let absent = "Dataset with id:flights and version:1 does not exist";
    check(&post(&doors, "", "/event/flights/1", "{}").await, 404, absent);
    doors.post("/datasets/flights/versions", &[], r#"{"version":"1"}"#).await;
    check(&post(&doors, "", "/event/flights/1", "7").await, 400, NOT_CONFORMING);
    let many = (0..4).map(|n| post(&doors, "", "/event/flights/1", format!("{{\"n\":{n}}}")));
    for answer in futures::future::join_all(many).await {
        check(&answer, 200, "Ok");
    }
    let shown = doors.get("/api/v1/streams/flights/1").await.json;
    assert_eq!((&shown["incoming"], &shown["config_version"]), (&json!(true), &json!(1)));
    let there = "Event stream with id flights/1 does not exist";
    check(&post(&doors, "", "/streams/flights/1/events", "[{}]").await, 404, there);
    check(&doors.get("/streams/flights/1").await, 404, "Could not find stream: flights/1");

    let made = post(&doors, "", "/streams/flights/1", "").await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.json);
    check(
        &post(&doors, "", "/streams/flights/1", "").await,
        409,
        "Event stream with id flights/1 already exist",
    );
    let shown = doors.get("/api/v1/streams/flights/1").await.json;
    assert_eq!((shown.get("incoming"), &shown["config_version"]), (None, &json!(2)));
    check(&post(&doors, "", "/event/flights/1", "{\"n\":4}").await, 200, "Ok");
    assert_eq!(doors.raw_values().await.len(), 5, "all of it is there");
}

#[tokio::test]
async fn a_stream_that_takes_over_what_came_before_it_keeps_where_that_lies() {
    let doors = Doors::open().await;
    let flights = r#"{"title":"Flights","accessRights":"restricted"}"#;
    doors.post("/metadata/datasets", &[], flights).await;
    check(&post(&doors, "", "/event/flights/1", "{}").await, 200, "Ok");
    let stream = |more: Value| {
        let mut draft = json!({"dataset": "flights", "version": "1", "confidentiality": "yellow"});
        draft.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        draft.to_string()
    };
    for (more, field) in
        [(json!({"partitions": 7}), "partitions"), (json!({"confidentiality": "green"}), "confidentiality")]
    {
        let refused = doors.post("/api/v1/streams", &[], stream(more)).await;
        assert_eq!((refused.status, refused.error().1), (StatusCode::CONFLICT, field), "{}", refused.json);
    }
    let made = doors.post("/api/v1/streams", &[], stream(json!({"transform": ".seen = true"}))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.json);
    assert_eq!((&made.json["transform_version"], &made.json["partitions"]), (&json!(2), &json!(4)));
    assert_eq!(doors.raw_values().await.len(), 1);
}

#[tokio::test]
async fn what_is_too_large_is_refused_whole() {
    let limits =
        Limits { body_bytes_max: 400, record_bytes_max: 100, batch_records_max: 3, ..Limits::default() };
    let doors = Doors::with(limits).await.with_stream_past_the_doors().await;
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(100));
    for body in [format!("[{{}},{large}]"), "[{},{},{},{}]".to_owned(), " ".repeat(401)] {
        let answer = post(&doors, "", "/events/flights/1", body).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.json);
        assert!(answer.json["message"].as_str().unwrap().contains("_max)"), "{}", answer.json);
    }
    assert!(doors.raw_values().await.is_empty());
    check(&post(&doors, "", "/events/flights/1", "[{},{},{}]").await, 200, "Ok");
}

#[tokio::test]
async fn large_and_compressed_bodies_are_taken() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let events: Vec<Value> =
        (0..5_000).map(|number| json!({"number": number, "text": "x".repeat(20)})).collect();
    let body = serde_json::to_string(&events).unwrap();
    check(&post(&doors, "", "/events/flights/1", body.clone()).await, 200, "Ok");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body.as_bytes()).unwrap();
    let headers = [("content-encoding", "gzip")];
    check(&doors.post("/events/flights/1", &headers, encoder.finish().unwrap()).await, 200, "Ok");
    assert_eq!(doors.raw_values().await.len(), 10_000);
}

/// Posts to four partitions of a log of which half the appends fail, and answers how often all, some and
/// none of the events were written.
async fn tally(seed: u64) -> [u32; 3] {
    let faults = Faults { before: 500, after: 0, fenced: 0, delays: 0 };
    let faulty = |log| -> Arc<dyn broker::Log> { Arc::new(Faulty::new(log, seed, faults)) };
    let doors = Doors::appending_to(Limits::default(), faulty).await;
    doors.define("flights", json!({"partitions": 4, "key": "/k"})).await;
    let (mut tally, mut taken) = ([0; 3], Vec::new());
    for round in 0..40 {
        let sent: Vec<String> = (0..8).map(|n| format!("{{\"k\": \"{n}\", \"round\": {round}}}")).collect();
        let answer = post(&doors, "", "/events/flights/1", format!("[{}]", sent.join(", "))).await;
        match answer.status.as_u16() {
            200 => {
                tally[0] += 1;
                taken.extend(sent);
            }
            500 => {
                tally[1] += 1;
                assert_eq!(answer.json["message"], "Request failed for some elements", "seed {seed}");
                let failed: &Vec<Value> = answer.json["failedElements"].as_array().unwrap();
                assert!(!failed.is_empty() && failed.len() < sent.len(), "seed {seed}");
                let has_failed =
                    |event: &String| failed.contains(&serde_json::from_str::<Value>(event).unwrap());
                taken.extend(sent.into_iter().filter(|event| !has_failed(event)));
            }
            status => {
                tally[2] += 1;
                assert_eq!((status, &answer.headers["retry-after"]), (503, &"1".parse().unwrap()));
            }
        }
    }
    let mut written = doors.raw_values().await;
    written.sort();
    taken.sort();
    assert_eq!(written, taken, "seed {seed}");
    tally
}

#[tokio::test]
async fn what_the_log_did_not_take_is_answered() {
    let mut sum = [0; 3];
    for seed in 0..3 {
        let tally = tally(seed).await;
        sum.iter_mut().zip(tally).for_each(|(sum, count)| *sum += count);
    }
    assert!(sum.iter().all(|count| *count > 0), "{sum:?}");
}

#[tokio::test]
async fn keys_and_times_are_found_as_in_any_other_record() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 8, "key": "/k"})).await;
    let body = "[{\"k\":\"a\"},{\"k\":\"a\"},{\"k\":\"b\"}]";
    check(&post(&doors, "", "/events/flights/1", body).await, 200, "Ok");
    doors.append(&[], body).await;
    let entries = doors.entries("flights", Stage::Raw).await;
    let of_key = |key: &str| {
        let has_key = |entry: &&(u32, broker::Entry)| entry.1.record.key.as_deref() == Some(key.as_bytes());
        entries.iter().filter(has_key).map(|(partition, _)| *partition).collect::<Vec<_>>()
    };
    let (a, b) = (of_key("a"), of_key("b"));
    assert!(a.len() == 4 && a.iter().all(|partition| *partition == a[0]), "{a:?}");
    assert!(b.len() == 2 && b[0] == b[1], "{b:?}");
}
