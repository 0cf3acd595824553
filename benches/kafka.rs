//! The HTTP door on Kafka, under `wrk`, beside a syntax check and a bare producer with the same settings;
//! and the router on Kafka beside a bare consumer and a bare transactional producer. The broker is the
//! one that `HEADWATER_TEST_KAFKA` names: `eval "$(scripts/kafka env)"`.
//! `cargo bench --bench kafka -- [--quick]`

mod support;

use std::time::Duration;

use broker::access::ADMINISTRATOR;
use broker::log::kafka::{KafkaLog, KafkaOptions};
use broker::{Group, Router, Stage};
use support::figures::{Results, Row};
use support::flights::{self, Flight, OF_A_BATCH};
use support::local::{Local, flights_stream, runtime};
use support::options::Options;
use support::pair::{Sample, alternate};
use support::raw_kafka::{self, PARTITIONS, RawKafka};
use support::server::{Server, TOKEN};
use support::wrk::{self, Load};

/// Asking the broker costs the broker: less often than a local log.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Batches that are sent again and again.
const DISTINCT: usize = 200;

fn main() {
    wrk::find();
    let options = Options::read();
    #[allow(clippy::disallowed_methods, reason = "the broker is named by the script that started it")]
    let Ok(brokers) = std::env::var("HEADWATER_TEST_KAFKA") else {
        eprintln!("no broker: scripts/kafka start && eval \"$(scripts/kafka env)\"");
        std::process::exit(1);
    };
    let results = Results::of("kafka", &options);
    let name = "HTTP append, 500 a request, 16 connections, Kafka";
    if options.wants(name) {
        eprintln!("{name}");
        let packs = flights::packs(&options, DISTINCT * OF_A_BATCH);
        let body = flights::ndjson(&packs[0]);
        let seconds = if options.is_quick { 3 } else { 10 };
        let count = options.events(8_000_000, 1_000_000);
        let pairs = alternate(
            options.rounds(),
            || door(&brokers, &body, seconds),
            || bare_producer(&brokers, &packs, count),
        );
        let against = "syntax check and bare producer";
        results.rates(Row { name, against, goal: "≥ 0.5", cpu_goal: "≤ 1.7" }, &pairs);
    }
    let name = "router, identity, Kafka";
    if options.wants(name) {
        eprintln!("{name}");
        let packs = flights::packs(&options, options.events(1_000_000, 100_000));
        let pairs =
            alternate(options.rounds(), || router(&brokers, &packs), || bare_router(&brokers, &packs));
        let against = "bare consume and transactional produce, 5,000 each";
        results.rates(Row { name, against, goal: "≥ 0.7", cpu_goal: "" }, &pairs);
    }
}

/// A name that no other run on the same broker has.
fn unique(name: &str) -> String {
    format!("{name}-{:08x}", rand::random::<u32>())
}

fn door(brokers: &str, body: &[u8], seconds: u64) -> Sample {
    let (folder, dataset) = (support::scratch(), unique("bench"));
    let flags = ["--log", "kafka", "--kafka-brokers", brokers];
    let server = Server::headwater(&folder.path().join("data"), "ingest", &flags);
    let runtime = runtime();
    let path = runtime.block_on(server.define(&dataset, PARTITIONS as u32));
    let token = format!("Bearer {TOKEN}");
    let headers = [("Content-Type", "application/x-ndjson"), ("Authorization", token.as_str())];
    let events = OF_A_BATCH as u64;
    let load = Load { path: &path, headers: &headers, body, events, connections: 16, seconds };
    let sample = load.drive(&server, folder.path());
    runtime.block_on(server.remove(&dataset));
    // What the bare side has no like of is left out.
    Sample { p99: None, memory_bytes: None, ..sample }
}

fn bare_producer(brokers: &str, packs: &[Vec<Flight>], count: usize) -> Sample {
    let mut kafka = RawKafka::at(brokers);
    let topic = unique("bare");
    kafka.create(&topic);
    let producer = kafka.producer(&topic);
    Sample::of(count, || raw_kafka::produce(&producer, &topic, packs.iter().cycle().take(count / OF_A_BATCH)))
}

fn router(brokers: &str, packs: &[Vec<Flight>]) -> Sample {
    let runtime = runtime();
    let draft = broker::catalog::Draft { dataset: unique("bench"), ..flights_stream(PARTITIONS as u32) };
    let local = runtime.block_on(async {
        let log = KafkaLog::open(KafkaOptions::at(brokers)).await.expect("open the log");
        let local = Local::on(log, draft, support::scratch()).await;
        let now = local.clock.now();
        let batches = flights::batches(packs, now);
        local.load(Stage::Raw, &batches).await;
        Local { look_every: LOOK_EVERY, ..local }
    });
    let ends = runtime.block_on(local.ends(Stage::Raw));
    let sample = Sample::of(packs.len() * OF_A_BATCH, || {
        let router = Box::new(Router::new(local.catalog.clone()));
        let group = Group::new(unique("bench-router"));
        runtime.block_on(local.work((Stage::Raw, group), router, &ends));
    });
    runtime.block_on(local.catalog.delete(local.stream.name(), ADMINISTRATOR)).expect("remove the stream");
    runtime.block_on(local.log.close()).expect("close the log");
    sample
}

fn bare_router(brokers: &str, packs: &[Vec<Flight>]) -> Sample {
    let mut kafka = RawKafka::at(brokers);
    let (from, to) = (unique("bare-raw"), unique("bare-processed"));
    kafka.create(&from);
    kafka.create(&to);
    raw_kafka::produce(&kafka.producer(&from), &from, packs.iter());
    let count = packs.len() * OF_A_BATCH;
    Sample::of(count, || kafka.route(&from, &to, count))
}
