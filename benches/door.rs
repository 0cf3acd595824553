//! The HTTP door of the real server, with a token, time and key of every event and four partitions,
//! beside a bare door: a syntax check a line, lz4, group commits to sled, an answer a record. Both are
//! processes of their own and driven by `wrk`.
//! `cargo bench --bench door -- [--quick]`

mod support;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use bytes::Bytes;
use proto::v1::AppendRequest;
use serde::de::IgnoredAny;
use support::figures::{Results, Row};
use support::flights::{self, OF_A_BATCH};
use support::grpc;
use support::local::runtime;
use support::options::Options;
use support::pair::{Sample, alternate};
use support::raw_log::RawLog;
use support::server::{Server, TOKEN};
use support::wrk::{self, Load};

/// Makes this program the bare door: `door bare FOLDER --listen ADDRESS`.
const BARE: &str = "bare";
const PARTITIONS: u32 = 4;
const AGAINST: &str = "bare door";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, part, folder, _, address] = arguments.as_slice()
        && part == BARE
    {
        return serve_bare(Path::new(folder), address.parse().expect("an address"));
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
    let name = "gRPC AppendStream, 500 a request, 16 connections, sled";
    if options.wants(name) {
        eprintln!("{name}");
        let request = grpc::request(&packs[0]);
        let pairs = alternate(options.rounds(), || streams(&request, many.seconds), || bare(&many));
        results.rates(Row { name, against: AGAINST, goal: "≥ 0.6", cpu_goal: "" }, &pairs);
    }
}

fn streams(request: &AppendRequest, seconds: u64) -> Sample {
    let folder = support::scratch();
    let server = Server::headwater(&folder.path().join("data"), "ingest", &[]);
    let runtime = runtime();
    runtime.block_on(server.define(grpc::DATASET, PARTITIONS));
    runtime.block_on(grpc::drive(&server, request, Duration::from_secs(1)));
    runtime.block_on(grpc::drive(&server, request, Duration::from_secs(seconds)))
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
    let server = Server::another(BARE, &folder.path().join("log"));
    load.drive(&server, folder.path())
}

fn serve_bare(folder: &Path, address: SocketAddr) {
    let log = Arc::new(RawLog::open(folder));
    let router = Router::new()
        .route("/readyz", get(|| async { "ready\n" }))
        .route("/full", post(full))
        .route("/minimal", post(minimal))
        .with_state(log);
    runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.expect("listen");
        axum::serve(listener, router).await.expect("serve");
    });
}

/// An answer a record.
async fn full(State(log): State<Arc<RawLog>>, body: Bytes) -> String {
    let (number, lines) = append(&log, &body).await;
    let mut answer = String::with_capacity(lines * 32);
    for line in 0..lines {
        let offset = number * OF_A_BATCH as u64 + line as u64;
        writeln!(answer, "{{\"partition\":0,\"offset\":{offset}}}").expect("a text takes all");
    }
    answer
}

/// Where the first is, and how many.
async fn minimal(State(log): State<Arc<RawLog>>, body: Bytes) -> String {
    let (number, lines) = append(&log, &body).await;
    format!("{{\"partition\":0,\"offset\":{number},\"records\":{lines}}}\n")
}

async fn append(log: &RawLog, body: &[u8]) -> (u64, usize) {
    let mut lines = 0;
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        serde_json::from_slice::<IgnoredAny>(line).expect("an event is JSON");
        lines += 1;
    }
    (log.append(body).await.expect("the committer answers"), lines)
}
