//! The whole binary for ten minutes at 70 % of what it can do: whether the index falls behind, and what
//! it holds in memory; and a log with a retention that is written to for many times what it may hold.
//! `cargo bench --bench sustained -- [--quick]`

mod support;

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::Client;
use serde_json::{Value, json};
use support::client::{post, post_lines, until_found};
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
/// A server that did little for so long has done all.
const REST: Duration = Duration::from_secs(3);
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

/// Finds the most first: from the first post until every stage has done what it has to do.
async fn sustained(options: &Options, results: &Results, name: &str) {
    let (warm_up, minutes) = if options.is_quick { (2_000_000, 0.5) } else { (3_000_000, 10.0) };
    let packs = flights::packs(options, options.events(warm_up, warm_up));
    let folder = support::scratch();
    let server = Server::headwater(&folder.path().join("data"), ROLES, &[]);
    let path = server.define("first", PARTITIONS).await;
    let began = Instant::now();
    let first = packs.iter().flatten().cloned();
    post(&Client::new(), &format!("{}{path}", server.base), first).await;
    let warm_up = (packs.len() * OF_A_BATCH) as u64;
    until_found(&server, "first", warm_up).await;
    let most = warm_up as f64 / busy_until(&server).await.duration_since(began).as_secs_f64();
    eprintln!("  the most: {most:.0} events/s");
    server.remove("first").await;
    busy_until(&server).await;

    let path = server.define("flights", PARTITIONS).await;
    let bodies: Vec<String> = packs
        .iter()
        .take(1_000)
        .map(|pack| String::from_utf8(flights::ndjson(pack)).expect("flights are texts"))
        .collect();
    process::forget_peak(server.id());
    let rate = most * SHARE;
    let url = format!("{}{path}", server.base);
    let load = load(&url, &bodies, (rate, minutes));
    let watch = watch(&server, rate, minutes);
    let (posted, lags) = tokio::join!(load, watch);
    let row = |goal| Row { name, against: "", goal, cpu_goal: "" };
    results.alone(row(""), ("rate", "events/s"), &[posted as f64 / (minutes * 60.0)], posted);
    let (early, late) = lags.split_at(lags.len() / 2);
    results.alone(row(""), ("lag in the first half", "s"), early, posted);
    results.alone(row("not growing"), ("lag in the second half", "s"), late, posted);
    let peak = process::memory_peak_bytes(server.id()) as f64 / MEBI;
    results.alone(row(""), ("memory", "MiB"), &[peak], posted);
    until_found(&server, "flights", posted).await;
}

/// When the server was last at work, told once it has rested for a while.
async fn busy_until(server: &Server) -> Instant {
    let (mut busy, mut used) = (Instant::now(), process::cpu(server.id()));
    while busy.elapsed() < REST {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = process::cpu(server.id());
        if now.saturating_sub(used) > LOOK_EVERY / 3 {
            busy = Instant::now();
        }
        used = now;
    }
    busy
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
        let url = format!("{}/api/v1/streams/flights/1/events/count", server.base);
        let answer = client.get(url).bearer_auth(TOKEN).send().await.expect("count");
        let answer: Value = answer.json().await.expect("an answer is JSON");
        if let Some(count) = answer["count"].as_u64() {
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
