//! Keyed tables of the real server: reads by key beside a bare door over raw sled, the making of a table from the log
//! beside raw batches of the same rows, how soon a post is visible, and what rows that end do to readers.
//! `cargo bench --bench tables -- [--quick]`

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::Client;
use serde_json::{Value, json};
use support::figures::{Results, Row};
use support::local::runtime;
use support::options::Options;
use support::pair::{Sample, alternate};
use support::raw_table::{self, key, row};
use support::server::{Server, TOKEN};
use support::wrk::{self, Reads};
use support::{client, process};
use tokio::time::MissedTickBehavior;

const ROLES: &str = "ingest,router,query";
const PARTITIONS: u32 = 4;
/// Lines of a request that fills a stream.
const LINES: usize = 2_000;
const CONNECTIONS: usize = 8;
/// Positions of one post, and how often there is one: 2,000 a second.
const AT_ONCE: usize = 20;
const EVERY: Duration = Duration::from_millis(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Life of rows whose end is looked at.
const TTL: Duration = Duration::from_secs(60);

fn main() {
    if raw_table::was_asked_for() {
        return;
    }
    wrk::find();
    let options = Options::read();
    let results = Results::of("tables", &options);
    let rows = options.events(1_000_000, 50_000);
    reads(&results, &options, rows);
    let name = "a table made from the log";
    if options.wants(name) {
        eprintln!("{name}");
        let folder = support::scratch();
        let server = filled(folder.path(), rows, &json!([]));
        let mut made = 0;
        let ours = || {
            made += 1;
            make(&server, rows, made)
        };
        let raw = || {
            let folder = support::scratch();
            Sample::of(rows, || drop(raw_table::fill(folder.path(), rows)))
        };
        let pairs = alternate(options.rounds(), ours, raw);
        let against = "raw sled batches of the same rows";
        results.rates(Row { name, against, goal: "≥ 0.6", cpu_goal: "" }, &pairs);
    }
    let name = "post to visible in the table, 2,000/s";
    if options.wants(name) {
        eprintln!("{name}");
        let mut times = visible(if options.is_quick { 100 } else { 1_000 });
        times.sort_unstable();
        let millis = |part: usize| times[times.len() * part / 100].as_secs_f64() * 1e3;
        let shown = Row { name, against: "", goal: "p99 ≤ 50 ms", cpu_goal: "" };
        results.alone(shown, ("p50", "ms"), &[millis(50)], times.len() as u64);
        results.alone(shown, ("p99", "ms"), &[millis(99)], times.len() as u64);
    }
    let name = "readers while all rows end";
    if options.wants(name) {
        eprintln!("{name}");
        let (pause, disk) = ending(rows);
        let shown = Row { name, against: "", goal: "no pause above 20 ms", cpu_goal: "" };
        results.alone(shown, ("longest read", "ms"), &[pause.as_secs_f64() * 1e3], rows as u64);
        let disk = disk.map(|bytes| bytes as f64 / f64::from(1 << 20));
        results.alone(shown, ("disk before", "MiB"), &[disk[0]], rows as u64);
        results.alone(shown, ("disk after", "MiB"), &[disk[1]], rows as u64);
    }
}

fn reads(results: &Results, options: &Options, rows: usize) {
    let cases = [
        ("table read by key, 64 connections", 64, "≥ 0.8"),
        ("table read by key, 2 connections", 2, "p99 ≤ 1 ms"),
    ];
    if !cases.iter().any(|(name, ..)| options.wants(name)) {
        return;
    }
    let folder = support::scratch();
    let server = filled(folder.path(), rows, &json!([{"name": "rows"}]));
    runtime().block_on(until_through(&server, "rows", rows));
    let bare = Server::another(raw_table::NAME, &folder.path().join(format!("raw-{rows}")));
    let token = format!("Bearer {TOKEN}");
    let headers = [("Authorization", &*token)];
    for (name, connections, goal) in cases.into_iter().filter(|(name, ..)| options.wants(name)) {
        eprintln!("{name}");
        let seconds = if options.is_quick { 3 } else { 10 };
        let reads = |path| Reads { path, keys: rows, headers: &headers, connections, seconds };
        let pairs = alternate(
            options.rounds(),
            || reads("/api/v1/tables/rows/bus-").drive(&server, folder.path()),
            || reads("/rows/bus-").drive(&bare, folder.path()),
        );
        let against = "raw sled behind a bare door";
        results.rates(Row { name, against, goal, cpu_goal: "" }, &pairs);
    }
}

/// A server with a stream that has a record for each of so many keys.
fn filled(folder: &Path, rows: usize, tables: &Value) -> Server {
    let server = Server::headwater(&folder.join("data"), ROLES, &[]);
    runtime().block_on(async {
        let client = Client::new();
        define(&client, &server, tables).await;
        let url = format!("{}/api/v1/streams/buses/1/records", server.base);
        let posts = (0..rows).step_by(LINES).map(|first| {
            let lines = (first..(first + LINES).min(rows)).map(|number| row(number) + "\n").collect();
            client::post_lines(&client, &url, lines)
        });
        futures::stream::iter(posts).buffer_unordered(CONNECTIONS).for_each(|()| async {}).await;
    });
    server
}

async fn define(client: &Client, server: &Server, tables: &Value) {
    let definition = json!({
        "dataset": "buses", "version": "1", "partitions": PARTITIONS, "key": "/busId", "tables": tables,
    });
    let request = client.post(format!("{}/api/v1/streams", server.base)).bearer_auth(TOKEN);
    let answer = request.json(&definition).send().await.expect("define the stream");
    assert!(answer.status().is_success(), "the stream was not made: {answer:?}");
}

async fn get(client: &Client, server: &Server, path: &str) -> Value {
    let request = client.get(format!("{}{path}", server.base)).bearer_auth(TOKEN);
    let answer = request.send().await.expect("read a table");
    assert!(answer.status().is_success(), "{path}: {answer:?}");
    answer.json().await.expect("an answer is JSON")
}

/// Waits until a table has so many records.
async fn until_through(server: &Server, table: &str, records: usize) {
    let client = Client::new();
    loop {
        let page = get(&client, server, &format!("/api/v1/tables/{table}?limit=1")).await;
        let lanes = page["complete_through"].as_array().expect("how far it is").iter();
        let through: u64 = lanes.filter_map(|lane| lane["offset"].as_u64()).sum();
        if through == records as u64 {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Says which tables there are.
async fn set_tables(server: &Server, tables: Value) {
    let request = Client::new().patch(format!("{}/api/v1/streams/buses/1", server.base));
    let edit = json!({ "tables": tables });
    let answer = request.bearer_auth(TOKEN).json(&edit).send().await.expect("define tables");
    assert!(answer.status().is_success(), "the tables were not changed: {answer:?}");
}

/// Waits until the server has nothing to do.
async fn until_idle(server: &Server) {
    loop {
        let before = process::cpu(server.id());
        tokio::time::sleep(Duration::from_secs(1)).await;
        if process::cpu(server.id()).saturating_sub(before) < Duration::from_millis(20) {
            return;
        }
    }
}

/// Defines a table over what is in the log, and waits until it is made. The one before is removed first: that is
/// none of its work.
fn make(server: &Server, rows: usize, number: usize) -> Sample {
    runtime().block_on(async {
        set_tables(server, json!([])).await;
        until_idle(server).await;
        let (began, cpu) = (Instant::now(), process::cpu(server.id()));
        let name = format!("made-{number}");
        set_tables(server, json!([{ "name": name }])).await;
        until_through(server, &name, rows).await;
        let (wall, cpu) = (began.elapsed(), process::cpu(server.id()).saturating_sub(cpu));
        Sample { events: rows as u64, wall, cpu, ..Sample::default() }
    })
}

/// How long it took from a post until one of its positions was read, for each of so many posts.
fn visible(posts: usize) -> Vec<Duration> {
    let folder = support::scratch();
    let server = Server::headwater(&folder.path().join("data"), ROLES, &[]);
    runtime().block_on(async {
        let client = Client::new();
        define(&client, &server, &json!([{"name": "rows"}])).await;
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let ticks = futures::stream::unfold((tick, 0), |(mut tick, number)| async move {
            tick.tick().await;
            (number < posts).then_some((number, (tick, number + 1)))
        });
        let timed = ticks.map(|number| post_and_read(&client, &server, number));
        timed.buffer_unordered(64).collect().await
    })
}

async fn post_and_read(client: &Client, server: &Server, number: usize) -> Duration {
    let began = Instant::now();
    let first = number * AT_ONCE;
    let lines: String = (first..first + AT_ONCE).map(|number| row(number) + "\n").collect();
    let request = client.post(format!("{}/api/v1/streams/buses/1/records", server.base)).bearer_auth(TOKEN);
    let request = request.header("content-type", "application/x-ndjson").body(lines);
    let answer: Value = request.send().await.expect("post").json().await.expect("an answer is JSON");
    let record = &answer["records"][0];
    let at = format!("{}:{}", record["partition"], record["offset"]);
    get(client, server, &format!("/api/v1/tables/rows/{}?min_position={at}", key(first))).await;
    began.elapsed()
}

/// The longest read of a reader while all rows end, and the bytes on disk before and after.
fn ending(rows: usize) -> (Duration, [u64; 2]) {
    let folder = support::scratch();
    let tables =
        json!([{"name": "rows", "ttl_seconds": TTL.as_secs()}, {"name": "lasting", "fields": ["busId"]}]);
    let server = filled(folder.path(), rows, &tables);
    let directory = folder.path().join("data/tables");
    runtime().block_on(async {
        until_through(&server, "rows", rows).await;
        until_through(&server, "lasting", rows).await;
        let (client, before) = (Client::new(), bytes_below(&directory));
        let (began, mut longest) = (Instant::now(), Duration::ZERO);
        // All have ended after their life, and are taken away within as long.
        for number in 0.. {
            if began.elapsed() > 3 * TTL {
                break;
            }
            let asked = Instant::now();
            get(&client, &server, &format!("/api/v1/tables/lasting/{}", key(number * 7_919 % rows))).await;
            longest = longest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (longest, [before, bytes_below(&directory)])
    })
}

fn bytes_below(folder: &Path) -> u64 {
    let entries =
        std::fs::read_dir(folder).expect("list a folder").map(|entry| entry.expect("list a folder"));
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_below(&entry.path()),
        // A file may be gone by now.
        data => data.map_or(0, |data| data.len()),
    });
    sizes.sum()
}
