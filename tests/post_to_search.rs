//! The main job on the real binary: post → raw → processed → object and split → answer, and the
//! same answers after `kill -9` and after the local index is gone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;

use common::{Launch, Server, unique, until};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// A stream of flights on a server.
struct Flights<'a> {
    server: &'a Server,
    dataset: &'a str,
}

impl Flights<'_> {
    fn path(&self, rest: &str) -> String {
        format!("/api/v1/streams/{}/1/{rest}", self.dataset)
    }
}

async fn define(Flights { server, dataset }: &Flights<'_>) {
    let definition = json!({
        "dataset": dataset, "version": "1", "confidentiality": "green", "partitions": 4,
        "timestamp_field": "date", "timestamp_format": "%Y/%m/%d %H:%M", "key": "/origin",
        "transform": "if .origin == \"BAD\" { abort \"no such airport\" }\n.late = to_int!(.delay) > 15",
    });
    let (status, answer) = server.post("/api/v1/streams", &definition).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    assert_eq!(answer["partitions"], 4);
}

fn flight(number: u32) -> String {
    let origin = if number % 50 == 49 { "BAD".to_owned() } else { format!("A{:02}", number % 7) };
    let (day, minute) = (1 + number % 28, number % 60);
    format!(
        r#"{{ "date":"2001/01/{day:02} 07:{minute:02}","delay":{},"origin":"{origin}","n":{number} }}"#,
        number % 40
    )
}

async fn append(flights: &Flights<'_>, numbers: std::ops::Range<u32>) {
    let body: Vec<String> = numbers.map(flight).collect();
    let answer = flights
        .server
        .request(Method::POST, &flights.path("records"))
        .header("content-type", "application/x-ndjson")
        .body(body.join("\n"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let answer: Value = answer.json().await.unwrap();
    let records = answer["records"].as_array().unwrap();
    assert_eq!(records.len(), body.len());
    assert!(records.iter().all(|record| record["offset"].is_u64()), "{answer}");
}

async fn count(flights: &Flights<'_>, query: &str) -> u64 {
    let path = flights.path(&format!("events/count?{query}"));
    flights.server.get(&path).await["count"].as_u64().unwrap()
}

/// 98 of 100 are good; days hold numbers that are equal modulo 28.
fn expected(numbers: u32, day: u32) -> u64 {
    (0..numbers).filter(|number| number % 50 != 49 && 1 + number % 28 == day).count() as u64
}

#[tokio::test]
async fn what_is_acked_is_found_in_the_index_and_in_the_objects_on_sled() {
    let folder = tempfile::tempdir().unwrap();
    post_to_search(&Launch::local(folder.path()), folder.path(), "flights").await;
}

#[tokio::test]
async fn what_is_acked_is_found_in_the_index_and_in_the_objects_on_kafka() {
    let folder = tempfile::tempdir().unwrap();
    post_to_search(&Launch::kafka(folder.path()), folder.path(), &unique("flights")).await;
}

async fn post_to_search(launch: &Launch, folder: &Path, dataset: &str) {
    let mut server = launch.start().await;
    let flights = Flights { server: &server, dataset };
    define(&flights).await;
    append(&flights, 0..1_000).await;
    assert_eq!(count(&flights, "from=2001-01-01&to=2001-01-31").await, 980);
    assert_eq!(count(&flights, "from=2001-01-05&to=2001-01-05").await, expected(1_000, 5));
    assert_eq!(count(&flights, "q=origin:A03%20AND%20late:true").await, good_and_late(3));

    server.kill();
    let mut server = launch.start().await;
    let flights = Flights { server: &server, dataset };
    append(&flights, 1_000..1_400).await;
    assert_eq!(count(&flights, "from=2001-01-05&to=2001-01-05").await, expected(1_400, 5));
    check_pages(&flights).await;
    check_dead_letters(&flights).await;
    let archived = until("every event is archived", async || {
        let lines = server.archived(dataset);
        (lines.len() >= 1_372).then_some(lines)
    })
    .await;
    check_lines(&archived);

    assert!(server.terminate().success());
    fs::remove_dir_all(folder.join("cache")).ok();
    let server = launch.start().await;
    let flights = Flights { server: &server, dataset };
    assert_eq!(count(&flights, "from=2001-01-05&to=2001-01-05").await, expected(1_400, 5));
    check_lines(&server.lines(&flights.path("events/export")).await);
}

fn good_and_late(airport: u32) -> u64 {
    let good = (0..1_000_u32).filter(|number| number % 50 != 49);
    good.filter(|number| number % 7 == airport && number % 40 > 15).count() as u64
}

/// Every good flight of the first 1,400 stands there once, with its origin and in order per key.
fn check_lines(lines: &[Value]) {
    assert_eq!(lines.len(), 1_372);
    let mut numbers: Vec<u64> = lines.iter().map(|line| line["value"]["n"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 1_372);
    for line in lines {
        assert_eq!(line["key"], line["value"]["origin"]);
        assert_eq!(line["partition"], line["origin"]["partition"]);
        assert!(line["origin"]["offset"].is_u64() && line["offset"].is_u64(), "{line}");
        let late = line["value"]["delay"].as_u64().unwrap() > 15;
        assert_eq!(line["value"]["late"], late);
    }
}

/// A day's events page by page, both ways.
async fn check_pages(flights: &Flights<'_>) {
    let wanted = expected(1_400, 5) as usize;
    for order in ["asc", "desc"] {
        let (mut numbers, mut times, mut cursor) = (Vec::new(), Vec::new(), String::new());
        loop {
            let query = format!("from=2001-01-05&to=2001-01-05&order={order}&limit=7{cursor}");
            let page = flights.server.get(&flights.path(&format!("events?{query}"))).await;
            for event in page["events"].as_array().unwrap() {
                numbers.push(event["value"]["n"].as_u64().unwrap());
                times.push(event["timestamp"].as_str().unwrap().to_owned());
            }
            assert!(page["complete_through"].is_string());
            let Some(next) = page["cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(numbers.len(), wanted, "{order}");
        let mut sorted = times.clone();
        sorted.sort();
        if order == "desc" {
            sorted.reverse();
        }
        assert_eq!(times, sorted);
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), wanted);
    }
}

async fn check_dead_letters(flights: &Flights<'_>) {
    let letters = flights.server.get(&flights.path("dead-letters?limit=1000")).await;
    let letters = letters["dead_letters"].as_array().unwrap();
    assert_eq!(letters.len(), 28);
    assert!(letters.iter().all(|letter| letter["reason"] == "no such airport"), "{letters:?}");
}

#[tokio::test]
async fn requests_without_the_token_get_in_nowhere_but_to_health() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::local(folder.path()).start().await;
    for (path, expected) in [("/healthz", 200), ("/readyz", 200), ("/api/v1/streams", 401), ("/nothing", 401)]
    {
        let answer = reqwest::get(format!("{}{path}", server.base())).await.unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{path}");
    }
    let answer = server.request(Method::GET, "/nothing").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["kind"], "not_found");
    assert_eq!(body["error"]["request_id"], id);
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = Launch::local(folder.path()).start().await;
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path())
        .env("HEADWATER_TOKEN", common::TOKEN)
        .output()
        .unwrap();
    assert!(!second.status.success());
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(error.contains(&folder.path().display().to_string()), "{error}");
}
