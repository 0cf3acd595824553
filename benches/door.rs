//! The HTTP door of the real server, with a token, time and key of every event and four partitions,
//! beside a bare door: a syntax check a line, lz4, group commits to sled, an answer a record. Both are
//! processes of their own and driven by `wrk`.
//! `cargo bench --bench door -- [--quick]`

mod support;

use std::time::Duration;

use proto::v1::AppendRequest;
use support::figures::{Results, Row};
use support::flights::{self, OF_A_BATCH};
use support::grpc;
use support::local::runtime;
use support::options::Options;
use support::pair::{Sample, alternate};
use support::server::{Server, TOKEN};
use support::wrk::{self, Load};
use support::{bare_door, own_door};

const PARTITIONS: u32 = 4;
const AGAINST: &str = "bare door";

fn main() {
    if bare_door::was_asked_for() || own_door::was_asked_for() {
        return;
    }
    wrk::find();
    let options = Options::read();
    let results = Results::of("door", &options);
    let packs = flights::packs(&options, OF_A_BATCH);
    let batch = flights::ndjson(&packs[0]);
    let many = Load {
        path: "/full",
        headers: &[("Content-Type", "application/x-ndjson")],
        body: &batch,
        events: OF_A_BATCH as u64,
        connections: 16,
        seconds: if options.is_quick { 3 } else { 10 },
    };
    let brief_headers = [many.headers[0], ("Prefer", "return=minimal")];
    let brief = Load { path: "/minimal", headers: &brief_headers, ..many };
    let one_headers = [("Content-Type", "application/json")];
    let one = Load { headers: &one_headers, body: &packs[0][0].value, events: 1, connections: 64, ..many };
    let rows = [
        ("HTTP append, 500 a request, 16 connections, sled", many, "≥ 0.6", "≤ 1.7"),
        ("HTTP append, the same with minimal answers, sled", brief, "≥ 0.6", "≤ 1.7"),
        ("HTTP append, single events, 64 connections, sled", one, "≥ 0.7; p99 ≤ 20 ms", ""),
    ];
    for (name, load, goal, cpu_goal) in rows {
        if !options.wants(name) {
            continue;
        }
        eprintln!("{name}");
        let pairs = alternate(options.rounds(), || ours(&load), || bare(&load));
        results.rates(Row { name, against: AGAINST, goal, cpu_goal }, &pairs);
    }
    for (name, load) in [
        ("with an API key, 500 a request, 16 connections, sled", brief),
        ("with an API key, single events, 64 connections, sled", one),
    ] {
        if options.wants(name) {
            eprintln!("{name}");
            let pairs = alternate(options.rounds(), || guarded(&load), || open(&load));
            results.rates(
                Row { name, against: "the same without a guard", goal: "≥ 0.9", cpu_goal: "" },
                &pairs,
            );
        }
    }
    let name = "/track, single posts, 64 connections, sled";
    if options.wants(name) {
        eprintln!("{name}");
        let load = Load { body: TRACKED, ..one };
        let pairs = alternate(
            options.rounds(),
            || tracked(&load, "/track"),
            || tracked(&load, &native("log_user_events")),
        );
        let against = "the same as a native append";
        results.rates(Row { name, against, goal: "≥ 0.8", cpu_goal: "" }, &pairs);
    }
    let name = "gRPC AppendStream, 500 a request, 16 connections, sled";
    if options.wants(name) {
        eprintln!("{name}");
        let request = grpc::request(&packs[0]);
        let pairs = alternate(options.rounds(), || streams(&request, many.seconds), || bare(&many));
        results.rates(Row { name, against: AGAINST, goal: "≥ 0.6", cpu_goal: "" }, &pairs);
    }
}

/// One event of a user.
const TRACKED: &[u8] = br#"{"userId":"u-48151623","events":[{"eventName":"item_bought","metadata":{"sku":"a-42","price":12.5},"timestampUTC":978307200000}]}"#;

fn native(dataset: &str) -> String {
    format!("/api/v1/streams/{dataset}/1/records")
}

/// To a path of a server that has the collector of user events.
fn tracked(load: &Load<'_>, path: &str) -> Sample {
    let folder = support::scratch();
    let server =
        Server::headwater(&folder.path().join("data"), "ingest", &["--set", "tracking.enabled=true"]);
    let token = format!("Bearer {TOKEN}");
    let mut headers = load.headers.to_vec();
    headers.push(("Authorization", &token));
    Load { path, headers: &headers, ..*load }.drive(&server, folder.path())
}

/// With an API key, through the door as it is.
fn guarded(load: &Load<'_>) -> Sample {
    let folder = support::scratch();
    let server = Server::another(own_door::GUARDED, folder.path());
    let (path, key) = runtime().block_on(async {
        let path = server.define("flights", PARTITIONS).await;
        (path, server.key_to_write("flights").await)
    });
    let bearer = format!("Bearer {key}");
    let mut headers = load.headers.to_vec();
    headers.push(("Authorization", &bearer));
    Load { path: &path, headers: &headers, ..*load }.drive(&server, folder.path())
}

/// Through the same door without a guard.
fn open(load: &Load<'_>) -> Sample {
    let folder = support::scratch();
    let server = Server::another(own_door::OPEN, folder.path());
    let path = runtime().block_on(server.define("flights", PARTITIONS));
    Load { path: &path, ..*load }.drive(&server, folder.path())
}

fn streams(request: &AppendRequest, seconds: u64) -> Sample {
    let folder = support::scratch();
    let server = Server::headwater(&folder.path().join("data"), "ingest", &[]);
    let runtime = one_thread();
    runtime.block_on(server.define(grpc::DATASET, PARTITIONS));
    runtime.block_on(grpc::drive(&server, request, Duration::from_secs(1)));
    runtime.block_on(grpc::drive(&server, request, Duration::from_secs(seconds)))
}

/// A client that is to cost little of the machine that it shares with the server.
fn one_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("start the runtime")
}

fn ours(load: &Load<'_>) -> Sample {
    let folder = support::scratch();
    let server = Server::headwater(&folder.path().join("data"), "ingest", &[]);
    let path = runtime().block_on(server.define("flights", PARTITIONS));
    let token = format!("Bearer {TOKEN}");
    let mut headers = load.headers.to_vec();
    headers.push(("Authorization", &token));
    Load { path: &path, headers: &headers, ..*load }.drive(&server, folder.path())
}

fn bare(load: &Load<'_>) -> Sample {
    let folder = support::scratch();
    let server = Server::another(bare_door::NAME, &folder.path().join("log"));
    load.drive(&server, folder.path())
}
