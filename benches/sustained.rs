//! The whole binary for ten minutes at 70 % of what it can do: whether the index falls behind, and what
//! it holds in memory; and a log with a retention that is written to for many times what it may hold.
//! `cargo bench --bench sustained -- [--quick]`

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::Client;
use serde_json::{Value, json};
use support::client::{post, post_lines, until_found, until_quiet};
use support::figures::{Results, Row, Spread};
use support::flights::{self, DATE_FORMAT, OF_A_BATCH};
use support::local::runtime;
use support::options::Options;
use support::process;
use support::server::{Server, TOKEN};
use tokio::time::MissedTickBehavior;

const ROLES: &str = "ingest,router,sinks,query";
const PARTITIONS: u32 = 4;
/// The part of the most that it can do.
const SHARE: f64 = 0.7;
/// The retention is checked once its bytes were written so many times.
const TIMES_WRITTEN: usize = 8;
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How many events may be posted and not found while the most is looked for.
const ON_THEIR_WAY_MAX: u64 = 300_000;
/// How many bodies are made and posted again and again.
const BODIES: usize = 1_000;
const MEBI: f64 = 1_048_576.0;

fn main() {
    let options = Options::read();
    let results = Results::of("sustained", &options);
    let name = "everything on at 70 % of the most";
    if options.wants(name) {
        eprintln!("{name}");
        runtime().block_on(sustained(&options, &results, name));
    }
    let name = "disk of a log with a retention";
    if options.wants(name) {
        eprintln!("{name}");
        runtime().block_on(retention(&options, &results, name));
    }
}

/// Finds the most first: what is found as fast as it is posted, for a while.
async fn sustained(options: &Options, results: &Results, name: &str) {
    let (minutes_of_most, minutes) = if options.is_quick { (0.25, 0.5) } else { (3.0, 10.0) };
    let packs = flights::packs(options, BODIES * OF_A_BATCH);
    let bodies: Vec<String> = packs
        .iter()
        .map(|pack| String::from_utf8(flights::ndjson(pack)).expect("flights are texts"))
        .collect();
    let folder = support::scratch();
    let server = Server::headwater(&folder.path().join("data"), ROLES, &[]);
    let path = server.define("first", PARTITIONS).await;
    let length = Duration::from_secs_f64(minutes_of_most * 60.0);
    let most = most(&server, &path, &bodies, length).await;
    eprintln!("  the most: {most:.0} events/s");
    server.remove("first").await;
    until_quiet(&server).await;

    let path = server.define("flights", PARTITIONS).await;
    process::forget_peak(server.id());
    let rate = most * SHARE;
    let url = format!("{}{path}", server.base);
    let used = process::cpu(server.id());
    let load = load(&url, &bodies, (rate, minutes));
    let watch = watch(&server, rate, minutes);
    let (posted, lags) = tokio::join!(load, watch);
    let used = process::cpu(server.id()).saturating_sub(used);
    let row = |goal| Row { name, against: "", goal, cpu_goal: "" };
    results.alone(row(""), ("the most", "events/s"), &[most], posted);
    results.alone(row(""), ("rate", "events/s"), &[posted as f64 / (minutes * 60.0)], posted);
    let (early, late) = lags.split_at(lags.len() / 2);
    results.alone(row(""), ("lag in the first half", "s"), early, posted);
    results.alone(row("not growing"), ("lag in the second half", "s"), late, posted);
    let cores = used.as_secs_f64() / (minutes * 60.0);
    results.alone(row(""), ("cores of the server", ""), &[cores], posted);
    let peak = process::memory_peak_bytes(server.id()) as f64 / MEBI;
    results.alone(row(""), ("memory", "MiB"), &[peak], posted);
    until_found(&server, "flights", posted).await;
}

/// How many events a second are found, where posting waits for what is found: not more than so many are
/// on their way.
async fn most(server: &Server, path: &str, bodies: &[String], length: Duration) -> f64 {
    let (client, url) = (Client::new(), format!("{}{path}", server.base));
    let (posted, found) = (AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    let post = |number: usize| {
        let (client, url, posted, found) = (&client, &url, &posted, &found);
        async move {
            while posted.load(Ordering::Relaxed) > found.load(Ordering::Relaxed) + ON_THEIR_WAY_MAX {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            posted.fetch_add(OF_A_BATCH as u64, Ordering::Relaxed);
            post_lines(client, url, bodies[number % bodies.len()].clone()).await;
        }
    };
    let numbers = futures::stream::iter(0..).take_while(|_| std::future::ready(began.elapsed() < length));
    let posting = numbers.map(post).buffer_unordered(16).for_each(|()| async {});
    let counting = async {
        while began.elapsed() < length {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Some(count) = count(&client, server, "first").await {
                found.store(count, Ordering::Relaxed);
            }
        }
        found.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
    };
    tokio::join!(posting, counting).1
}

/// How many events of a dataset are found; none where the answer would take too long.
async fn count(client: &Client, server: &Server, dataset: &str) -> Option<u64> {
    let url = format!("{}/api/v1/streams/{dataset}/1/events/count", server.base);
    let answer = client.get(url).bearer_auth(TOKEN).send().await.expect("count");
    let answer: Value = answer.json().await.expect("an answer is JSON");
    answer["count"].as_u64()
}

/// Posts at a rate, whatever the answers take, and returns how many events were acknowledged.
async fn load(url: &str, bodies: &[String], (rate, minutes): (f64, f64)) -> u64 {
    let client = Client::new();
    let mut tick = tokio::time::interval(Duration::from_secs_f64(OF_A_BATCH as f64 / rate));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let count = (rate * minutes * 60.0) as usize / OF_A_BATCH;
    let posts = at_ticks(tick, bodies, count).map(|body| post_lines(&client, url, body));
    posts.buffer_unordered(64).for_each(|()| async {}).await;
    (count * OF_A_BATCH) as u64
}

/// A body at every tick.
fn at_ticks(
    tick: tokio::time::Interval,
    bodies: &[String],
    count: usize,
) -> impl futures::Stream<Item = String> {
    futures::stream::unfold((tick, 0), move |(mut tick, number)| async move {
        if number == count {
            return None;
        }
        tick.tick().await;
        Some((bodies[number % bodies.len()].clone(), (tick, number + 1)))
    })
}

/// Every second, how far the processed events are behind what was due by then, in seconds.
async fn watch(server: &Server, rate: f64, minutes: f64) -> Vec<f64> {
    let client = Client::new();
    let began = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut lags = Vec::new();
    while began.elapsed().as_secs_f64() < minutes * 60.0 {
        tick.tick().await;
        let due = began.elapsed().as_secs_f64() * rate;
        if let Some(count) = count(&client, server, "flights").await {
            lags.push(((due - count as f64) / rate).max(0.0));
        }
    }
    lags
}

/// A stream that keeps some MiB of each partition, written to for many times as much.
async fn retention(options: &Options, results: &Results, name: &str) {
    let kept_bytes = if options.is_quick { 4 << 20 } else { 32 << 20 };
    let folder = support::scratch();
    let data = folder.path().join("data");
    let server = Server::headwater(&data, ROLES, &[]);
    let definition = json!({
        "dataset": "flights", "version": "1", "partitions": 1,
        "timestamp_field": "date", "timestamp_format": DATE_FORMAT,
        "sinks": {"archive": false, "index": false},
        "retention": {"partition_bytes": kept_bytes},
    });
    let request = Client::new().post(format!("{}/api/v1/streams", server.base)).bearer_auth(TOKEN);
    let answer = request.json(&definition).send().await.expect("define the stream");
    assert!(answer.status().is_success(), "the stream was not made: {:?}", answer.text().await);
    let url = format!("{}/api/v1/streams/flights/1/records", server.base);
    let mut flights = flights::flights(options, usize::MAX);
    let mut disk = Vec::new();
    let mut posted = 0;
    for _ in 0..TIMES_WRITTEN {
        // A flight has some 90 bytes, and takes a part of that in the log.
        let more = kept_bytes / 20;
        post(&Client::new(), &url, flights.by_ref().take(more)).await;
        posted += more as u64;
        disk.push(process::disk_bytes(&data.join("log")) as f64);
    }
    // Raw and processed keep as much each.
    let kept = (2 * kept_bytes) as f64;
    let row = Row { name, against: "what its topics may hold", goal: "", cpu_goal: "" };
    let last = disk.split_off(TIMES_WRITTEN / 2);
    let beside = vec![kept / MEBI; last.len()];
    let last: Vec<f64> = last.iter().map(|bytes| bytes / MEBI).collect();
    eprintln!("  {} MiB at the end", Spread::of(last.iter().copied()).max);
    results.beside(row, ("size", "MiB", "not growing"), (last, beside), posted);
}
