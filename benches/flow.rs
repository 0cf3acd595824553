//! The whole binary: everything on at once beside the sum of its bare stages, an export beside a bare
//! read of the log into a socket, and how long after its post an event is found.
//! `cargo bench --bench flow -- [--quick]`

mod support;

use std::time::{Duration, Instant};

use broker::Clock;
use reqwest::Client;
use serde_json::Value;
use support::client::{download, post, until_found, until_quiet};
use support::figures::{Results, Row};
use support::flights::{self, Flight, OF_A_BATCH};
use support::local::runtime;
use support::options::Options;
use support::pair::{Sample, alternate};
use support::process::{self, OwnMemory};
use support::server::{PUBLISH_SOON, Server, TOKEN};
use support::{bare_door, raw_stages};
use tokio::time::MissedTickBehavior;

const ROLES: &str = "ingest,router,sinks,query";
const PARTITIONS: u32 = 4;
const OBJECT_BYTES: usize = 64 << 20;
/// A hundred times a second this many events: 1,000 events a second.
const AT_ONCE: usize = 10;
const EVERY: Duration = Duration::from_millis(10);
/// How often one of them is looked for.
const PROBE_EVERY: Duration = Duration::from_millis(50);

fn main() {
    if bare_door::was_asked_for() {
        return;
    }
    let options = Options::read();
    let results = Results::of("flow", &options);
    let name = "everything at once: append, route, archive, index";
    if options.wants(name) {
        eprintln!("{name}");
        let packs = flights::packs(&options, options.events(3_000_000, 500_000));
        let pairs = alternate(options.rounds(), || everything(&packs), || every_stage(&packs));
        let row = Row { name, against: "sum of the bare stages", goal: "", cpu_goal: "≤ 1.4" };
        results.rates(row, &pairs);
    }
    let name = "export of all events";
    if options.wants(name) {
        eprintln!("{name}");
        export(&options, &results, name);
    }
    let name = "post → found by a query, at 1,000 events/s";
    if options.wants(name) {
        eprintln!("{name}");
        let probes = if options.is_quick { 60 } else { 600 };
        let mut times = runtime().block_on(found(probes));
        times.sort_unstable();
        let millis = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
        let row = |goal| Row { name, against: "", goal, cpu_goal: "" };
        results.alone(row(""), ("p50", "ms"), &[millis(50)], times.len() as u64);
        results.alone(row("≤ 50 ms"), ("p99", "ms"), &[millis(99)], times.len() as u64);
    }
}

/// A server with all roles takes the events and comes to rest.
fn everything(packs: &[Vec<Flight>]) -> Sample {
    let folder = support::scratch();
    let server = Server::headwater(&folder.path().join("data"), ROLES, &PUBLISH_SOON);
    let events = packs.len() * OF_A_BATCH;
    runtime().block_on(async {
        let path = server.define("flights", PARTITIONS).await;
        let (began, cpu) = (Instant::now(), process::cpu(server.id()));
        post(&Client::new(), &format!("{}{path}", server.base), packs.iter().flatten().cloned()).await;
        until_found(&server, "flights", events as u64).await;
        let wall = began.elapsed();
        let cpu = until_quiet(&server).await.saturating_sub(cpu);
        Sample { events: events as u64, wall, cpu, ..Sample::default() }
    })
}

/// The same events through the bare door, and each bare stage after the other.
fn every_stage(packs: &[Vec<Flight>]) -> Sample {
    let folder = support::scratch();
    let server = Server::another(bare_door::NAME, &folder.path().join("log"));
    let began = Instant::now();
    runtime().block_on(post(
        &Client::new(),
        &format!("{}/full", server.base),
        packs.iter().flatten().cloned(),
    ));
    let door = Sample { wall: began.elapsed(), cpu: process::cpu(server.id()), ..Sample::default() };
    drop(server);
    let count = packs.len() * OF_A_BATCH;
    let lines: Vec<Vec<u8>> = packs.iter().map(|pack| flights::ndjson(pack)).collect();
    let objects = raw_stages::object_lines(packs, broker::time::SystemClock.now());
    let stages = [
        door,
        raw_stages::route(&lines, count, |batch| batch),
        raw_stages::archive(&objects, OBJECT_BYTES, count),
        raw_stages::index(packs),
    ];
    let wall = stages.iter().map(|stage| stage.wall).sum();
    let cpu = stages.iter().map(|stage| stage.cpu).sum();
    Sample { events: count as u64, wall, cpu, ..Sample::default() }
}

fn export(options: &Options, results: &Results, name: &str) {
    let count = options.events(1_000_000, 200_000);
    let packs = flights::packs(options, count);
    let (folder, bare_folder) = (support::scratch(), support::scratch());
    let server = Server::headwater(&folder.path().join("data"), ROLES, &PUBLISH_SOON);
    let bare = Server::another(bare_door::NAME, &bare_folder.path().join("log"));
    let runtime = runtime();
    runtime.block_on(async {
        let path = server.define("flights", PARTITIONS).await;
        post(&Client::new(), &format!("{}{path}", server.base), packs.iter().flatten().cloned()).await;
        post(&Client::new(), &format!("{}/full", bare.base), packs.iter().flatten().cloned()).await;
        until_found(&server, "flights", count as u64).await;
        until_quiet(&server).await;
    });
    let least: usize = packs.iter().flatten().map(|flight| flight.value.len()).sum();
    let download = |server: &Server, path: &str| {
        process::forget_peak(server.id());
        let (began, cpu) = (Instant::now(), process::cpu(server.id()));
        let bytes = runtime.block_on(download(&format!("{}{path}", server.base)));
        assert!(path.contains("from") || bytes > least, "an export holds every event");
        let (wall, cpu) = (began.elapsed(), process::cpu(server.id()).saturating_sub(cpu));
        let memory_bytes = Some(process::memory_peak_bytes(server.id()));
        Sample { events: count as u64, wall, cpu, p99: None, memory_bytes }
    };
    let pairs = alternate(
        options.rounds(),
        || download(&server, "/api/v1/streams/flights/1/events/export"),
        || download(&bare, "/export"),
    );
    let row = Row { name, against: "bare read of the log into a socket", goal: "≥ 0.5", cpu_goal: "" };
    results.rates(row, &pairs);
    let memory = |days: &str| {
        let memory = OwnMemory::watch(server.id());
        download(&server, &format!("/api/v1/streams/flights/1/events/export?{days}"));
        memory.most() as f64 / f64::from(1 << 20)
    };
    let (all, first) = ("", "from=2001-01-01&to=2001-01-03");
    let rounds = 0..options.rounds();
    let (all, some) = rounds.map(|_| (memory(all), memory(first))).unzip();
    let name = "memory of its own while all is exported";
    let row = Row { name, against: "while three days are", goal: "", cpu_goal: "" };
    results.beside(row, ("memory", "MiB", "flat"), (all, some), count as u64);
}

/// How long from the beginning of a post until a query has answered with the event, under load.
async fn found(probes: usize) -> Vec<Duration> {
    let folder = support::scratch();
    let server = Server::headwater(&folder.path().join("data"), ROLES, &[]);
    let path = server.define("flights", PARTITIONS).await;
    let url = format!("{}{path}", server.base);
    let packs = flights::packs(&Options::default(), OF_A_BATCH);
    let client = Client::new();
    let load = async {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for some in packs[0].chunks(AT_ONCE).cycle() {
            tick.tick().await;
            post(&client, &url, some.iter().cloned()).await;
        }
    };
    let search = async {
        let mut times = Vec::with_capacity(probes);
        let mut tick = tokio::time::interval(PROBE_EVERY);
        for number in 0..probes {
            tick.tick().await;
            times.push(probe(&client, &server, (&url, number)).await);
        }
        times
    };
    tokio::select! {
        biased;
        times = search => times,
        () = load => Vec::new(),
    }
}

async fn probe(client: &Client, server: &Server, (url, number): (&str, usize)) -> Duration {
    let began = Instant::now();
    let body = format!(r#"{{"date":"2001/01/01 00:00","delay":0,"distance":1,"origin":"probe{number}"}}"#);
    let request = client.post(url).bearer_auth(TOKEN).header("content-type", "application/json");
    let answer = request.body(body).send().await.expect("post");
    assert!(answer.status().is_success(), "a post was refused: {answer:?}");
    let path = format!("/api/v1/streams/flights/1/events?q=origin:probe{number}");
    loop {
        let request = client.get(format!("{}{path}", server.base)).bearer_auth(TOKEN);
        let answer: Value = request.send().await.expect("ask").json().await.expect("an answer is JSON");
        if answer["events"].as_array().is_some_and(|events| events.len() == 1) {
            return began.elapsed();
        }
    }
}
