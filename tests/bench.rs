//! `headwater bench` against a real server: what it reports is what the server has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::process::{Command, Output, Stdio};

use common::{Launch, Server, TOKEN, until};
use reqwest::StatusCode;
use serde_json::{Value, json};

/// Runs the program's client side to its end.
fn bench(server: &Server, arguments: &[&str]) -> Output {
    bench_as(TOKEN, server, arguments)
}

fn bench_as(token: &str, server: &Server, arguments: &[&str]) -> Output {
    command(token, server, arguments).output().unwrap()
}

fn command(token: &str, server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command
        .args(["bench", "--server", server.base(), "--token", token, "--stream", "load/1"])
        .args(arguments);
    command
}

/// A run that must take every record, as its report.
fn report(server: &Server, arguments: &[&str]) -> Value {
    let output = bench(server, &[arguments, &["--json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors} {}", String::from_utf8_lossy(&output.stdout));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["errors"], json!({}), "{arguments:?}");
    report
}

async fn count(server: &Server) -> u64 {
    server.get("/api/v1/streams/load/1/events/count").await["count"].as_u64().unwrap()
}

async fn open(folder: &tempfile::TempDir) -> Server {
    let server = Launch::local(folder.path()).start().await;
    let definition = json!({"dataset": "load", "version": "1", "partitions": 4, "key": "/name"});
    let (status, answer) = server.post("/api/v1/streams", &definition).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    server
}

/// Runs one after another, each of which must have added to the server what it reports.
async fn check(server: &Server, runs: &[&[&str]]) {
    let mut before = count(server).await;
    for arguments in runs {
        let report = report(server, arguments);
        let after = count(server).await;
        assert_eq!(report["records"], after - before, "{arguments:?}: {report}");
        assert!(report["records"].as_u64().unwrap() > 0, "{arguments:?}");
        assert!(report["latency_micros"]["p50"].as_u64().unwrap() > 0);
        assert!(report["latency_micros"]["p99_9"].as_u64() <= report["latency_micros"]["max"].as_u64());
        assert_eq!(report["server_pid"], server.id());
        assert!(report["server"]["rss_bytes"].as_u64().unwrap() > 1 << 20);
        before = after;
    }
}

#[tokio::test]
async fn a_number_of_records_is_sent_and_counted_to_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let server = open(&folder).await;
    let runs: [&[&str]; 5] = [
        &["--records", "1234", "--batch", "100", "--connections", "3"],
        &["--records", "1234", "--batch", "100", "--connections", "3", "--minimal"],
        &["--records", "1234", "--batch", "100", "--connections", "3", "--grpc"],
        &["--records", "50", "--batch", "1", "--grpc", "--in-flight", "16", "--record-bytes", "2000"],
        &["--records", "700", "--batch", "50", "--rate", "2000", "--http"],
    ];
    check(&server, &runs).await;
    assert_eq!(count(&server).await, 3 * 1_234 + 50 + 700);
}

#[tokio::test]
async fn a_time_is_filled_in_a_closed_loop_and_at_a_rate() {
    let folder = tempfile::tempdir().unwrap();
    let server = open(&folder).await;
    let closed = ["--duration", "300ms", "--batch", "20", "--connections", "2"];
    let fixed = ["--duration", "1s", "--rate", "1000", "--batch", "10", "--connections", "4"];
    let with = |arguments: &[&'static str], more: &'static str| [arguments, &[more]].concat();
    let runs =
        [with(&closed, "--http"), with(&closed, "--grpc"), with(&fixed, "--http"), with(&fixed, "--grpc")];
    check(&server, &runs.each_ref().map(Vec::as_slice)).await;
    let report = report(&server, &with(&fixed, "--minimal"));
    let sent = report["records"].as_u64().unwrap() + report["unsent_records"].as_u64().unwrap();
    assert_eq!(sent, 1_000, "{report}");
    assert!(report["seconds"].as_f64().unwrap() > 0.9, "{report}");
}

#[tokio::test]
async fn the_records_of_a_file_are_sent_over_and_over() {
    let folder = tempfile::tempdir().unwrap();
    let server = open(&folder).await;
    let file = folder.path().join("sample.ndjson");
    std::fs::write(&file, "{\"name\":\"a\",\"n\":1}\n{\"name\":\"b\",\"n\":2}\n{\"name\":\"c\",\"n\":3}\n")
        .unwrap();
    let file = file.to_str().unwrap();
    check(&server, &[&["--file", file, "--records", "100", "--batch", "7"]]).await;
    let events = server.lines("/api/v1/streams/load/1/events/export").await;
    let of = |number: u64| events.iter().filter(|event| event["value"]["n"] == number).count();
    assert_eq!([of(1), of(2), of(3)].iter().sum::<usize>(), 100);
    assert!([1, 2, 3].into_iter().all(|number| of(number) >= 28), "each has its share");
}

#[tokio::test]
async fn records_that_are_refused_are_errors_though_the_answer_is_a_success() {
    let folder = tempfile::tempdir().unwrap();
    let server = open(&folder).await;
    let file = folder.path().join("sample.ndjson");
    std::fs::write(&file, "{\"name\":\"a\"}\n{\"name\":{}}\n").unwrap();
    for (door, label) in [("--http", "200 invalid"), ("--minimal", "200 invalid"), ("--grpc", "Ok invalid")] {
        let before = count(&server).await;
        let file = file.to_str().unwrap();
        let output = bench(&server, &[door, "--file", file, "--records", "100", "--batch", "10", "--json"]);
        assert_eq!(output.status.code(), Some(1));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["errors"], json!({label: 50}), "{report}");
        assert_eq!((report["records"].as_u64(), count(&server).await - before), (Some(50), 50));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains("50 records not taken"), "{message}");
    }
}

#[tokio::test]
async fn whole_requests_that_are_refused_are_counted_by_their_status() {
    let folder = tempfile::tempdir().unwrap();
    let launch = Launch::local(folder.path()).with("--set", "limits.batch_records_max=10");
    let server = launch.start().await;
    for (door, label) in [("--http", "413"), ("--grpc", "OutOfRange")] {
        let output = bench(&server, &[door, "--create", "--records", "40", "--batch", "20", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&report["errors"], &report["records"]), (&json!({label: 40}), &json!(0)));
    }
    assert_eq!(count(&server).await, 0);
}

#[tokio::test]
async fn what_is_counted_as_taken_is_there_after_the_server_was_killed() {
    for door in ["--http", "--grpc"] {
        let folder = tempfile::tempdir().unwrap();
        let mut server = open(&folder).await;
        let arguments = [door, "--duration", "3s", "--batch", "20", "--connections", "2", "--json"];
        let mut load = command(TOKEN, &server, &arguments);
        let load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("records were taken", async || (count(&server).await > 0).then_some(())).await;
        server.kill();
        let output = load.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(report["errors"].as_object().unwrap().values().any(|count| count.as_u64() > Some(0)));
        let taken = report["records"].as_u64().unwrap();
        let server = Launch::local(folder.path()).start().await;
        let found = count(&server).await;
        assert!(taken > 0 && found >= taken, "{door}: {taken} taken, {found} found");
    }
}

#[tokio::test]
async fn a_stream_is_made_only_when_asked_for_and_a_person_can_read_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::local(folder.path()).start().await;
    let missing = bench(&server, &["--records", "10"]);
    assert_eq!(missing.status.code(), Some(3));
    let output = bench(&server, &["--records", "10", "--create", "--partitions", "1", "--key", "/name"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let labels: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(labels, ["load", "taken", "rate", "latency", "errors", "server", "client"], "{text}");
    assert!(text.contains("10 records in") && text.contains("p99.9"), "{text}");
    assert_eq!(server.get("/api/v1/streams/load/1").await["key"], "/name");
}

#[tokio::test]
async fn wrong_options_are_refused_with_their_reason() {
    let folder = tempfile::tempdir().unwrap();
    let server = open(&folder).await;
    let cases: [(&[&str], i32, &str); 10] = [
        (&["--grpc", "--minimal"], 2, "cannot be used with"),
        (&["--grpc", "--http"], 2, "cannot be used with"),
        (&["--duration", "1s", "--records", "5"], 2, "cannot be used with"),
        (&["--duration", "soon"], 2, "expected a time"),
        (&["--rate", "0"], 2, "--rate"),
        (&["--batch", "0"], 2, "--batch"),
        (&["--in-flight", "2"], 2, "--grpc"),
        (&["--batch", "1000000", "--record-bytes", "1000"], 2, "batch: a batch of 1000000000 bytes"),
        (&["--file", "/nowhere/a.ndjson"], 3, "/nowhere/a.ndjson"),
        (&["--pid", "4294967295", "--records", "5"], 3, "read process 4294967295"),
    ];
    for (arguments, code, message) in cases {
        let output = bench(&server, arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(text.contains(message), "{arguments:?}: {text}");
    }
    assert_eq!(bench_as("another", &server, &["--records", "5"]).status.code(), Some(6));
    assert_eq!(count(&server).await, 0);
}
