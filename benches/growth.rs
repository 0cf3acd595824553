//! How costs grow: with the events that a server has taken, and with its streams. One server with all
//! roles is filled step by step; at each step it is asked, weighed and started again.
//! `cargo bench --bench growth -- [--quick]`

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Client;
use support::client::{post, until_found, until_quiet};
use support::figures::{Results, Spread};
use support::flights::{self, Flight, OF_A_BATCH};
use support::local::runtime;
use support::options::Options;
use support::process::{self, OwnMemory};
use support::server::{PUBLISH_SOON, Server, TOKEN};

const ROLES: &str = "ingest,router,sinks,query";
const PARTITIONS: u32 = 4;
/// Questions of which the median counts.
const QUESTIONS: usize = 50;
const STARTS: usize = 3;
const MEBI: f64 = 1_048_576.0;

const BY_EVENTS: &str = "events";
const BY_STREAMS: &str = "streams";

fn main() {
    let options = Options::read();
    let results = Results::of("growth", &options);
    let runtime = runtime();
    if options.wants(BY_EVENTS) {
        let steps = [100_000, 1_000_000, 10_000_000];
        let most = options.events(10_000_000, 1_000_000);
        runtime.block_on(by_events(&results, steps.into_iter().filter(|step| *step <= most)));
    }
    if options.wants(BY_STREAMS) {
        let steps: &[usize] = if options.is_quick { &[1, 100, 1_000] } else { &[1, 100, 10_000] };
        runtime.block_on(by_streams(&results, steps));
    }
}

async fn by_events(results: &Results, steps: impl Iterator<Item = usize>) {
    let folder = support::scratch();
    let data = folder.path().join("data");
    let mut server = Server::headwater(&data, ROLES, &PUBLISH_SOON);
    let records = server.define("flights", PARTITIONS).await;
    // The file of flights ends before the last step does.
    let mut flights = flights::flights(&Options::default(), usize::MAX);
    let mut posted = 0;
    for step in steps {
        let (began, more) = (Instant::now(), step - posted);
        let memory = OwnMemory::watch(server.id());
        post(&Client::new(), &url(&server, &records), flights.by_ref().take(more)).await;
        let rate = Spread::of([more as f64 / began.elapsed().as_secs_f64()]);
        posted = step;
        let at = (step as f64, BY_EVENTS);
        results.point(("append by HTTP, all roles", "Headwater"), at, (rate, "events/s"));
        until_found(&server, "flights", step as u64).await;
        let rate = Spread::of([more as f64 / began.elapsed().as_secs_f64()]);
        results.point(("append by HTTP, all roles", "until all are found"), at, (rate, "events/s"));
        until_quiet(&server).await;
        let peak = process::memory_peak_bytes(server.id()) as f64 / MEBI;
        results.point(("memory", "peak, with mapped splits"), at, (Spread::of([peak]), "MiB"));
        let own = Spread::of([memory.most() as f64 / MEBI]);
        results.point(("memory", "peak of its own"), at, (own, "MiB"));
        for (line, path) in [("first 100 of a day", "events?limit=100"), ("count of a day", "events/count?")]
        {
            let path = format!("/api/v1/streams/flights/1/{path}&from=2001-01-03&to=2001-01-03");
            results.point(("query of a day by HTTP", line), at, (ask(&server, &path).await, "ms"));
        }
        let log = process::disk_bytes(&data.join("log")) as f64 / step as f64;
        results.point(("disk", "log"), at, (Spread::of([log]), "bytes/event"));
        let objects = process::disk_bytes(&data.join("objects")) as f64 / step as f64;
        results.point(("disk", "objects and splits"), at, (Spread::of([objects]), "bytes/event"));
        server = restart(results, server, &data, at);
    }
}

async fn by_streams(results: &Results, steps: &[usize]) {
    let folder = support::scratch();
    let data = folder.path().join("data");
    let mut server = Server::headwater(&data, ROLES, &PUBLISH_SOON);
    let mut made = 0;
    let sample: Vec<Flight> = flights::flights(&Options::default(), 100 * OF_A_BATCH).collect();
    for step in steps {
        let began = Instant::now();
        for number in made..*step {
            server.define(&format!("idle-{number}"), 1).await;
        }
        let at = (*step as f64, BY_STREAMS);
        let each = Spread::of([began.elapsed().as_secs_f64() * 1e3 / (step - made) as f64]);
        results.point(("define a stream", "Headwater"), at, (each, "ms"));
        made = *step;
        let records = "/api/v1/streams/idle-0/1/records";
        let began = Instant::now();
        post(&Client::new(), &url(&server, records), sample.iter().cloned()).await;
        let rate = Spread::of([sample.len() as f64 / began.elapsed().as_secs_f64()]);
        results.point(("append to one of many streams", "Headwater"), at, (rate, "events/s"));
        server = restart(results, server, &data, at);
    }
}

/// Starts it again and again: how long it takes, and what it holds while nobody asks.
fn restart(results: &Results, mut server: Server, data: &Path, at: (f64, &str)) -> Server {
    let mut times = Vec::new();
    let mut idle = Vec::new();
    for _ in 0..STARTS {
        server.stop();
        server = Server::headwater(data, ROLES, &PUBLISH_SOON);
        times.push(server.ready_after.as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_secs(1));
        idle.push(process::memory_now_bytes(server.id()) as f64 / MEBI);
    }
    results.point((&format!("ready after a start, by {}", at.1), "Headwater"), at, (Spread::of(times), "ms"));
    let memory = if at.1 == BY_EVENTS { "memory" } else { "memory, by streams" };
    results.point((memory, "idle, a second after a start"), at, (Spread::of(idle), "MiB"));
    server
}

/// The median time of a question, with the least and the most.
async fn ask(server: &Server, path: &str) -> Spread {
    let (client, url) = (Client::new(), format!("{}{path}", server.base));
    let mut times = Vec::with_capacity(QUESTIONS);
    for _ in 0..QUESTIONS {
        let began = Instant::now();
        let answer = client.get(&url).bearer_auth(TOKEN).send().await.expect("ask");
        assert!(answer.status().is_success(), "{path} was refused: {answer:?}");
        answer.bytes().await.expect("read an answer");
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Spread::of(times)
}

fn url(server: &Server, path: &str) -> String {
    format!("{}{path}", server.base)
}
