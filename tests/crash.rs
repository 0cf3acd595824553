//! Kills the real binary with `kill -9` at random moments under load from several keyed producers,
//! and then accounts for every record: what was acked stands exactly once in processed or in the
//! dead letters, in the objects and in the index, in order per key; what was not acked at most once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;
#[path = "crash/contracts.rs"]
mod contracts;
#[path = "crash/event_streams.rs"]
mod event_streams;
#[path = "crash/profiles.rs"]
mod profiles;
#[path = "crash/racing.rs"]
mod racing;
#[path = "crash/signatures.rs"]
mod signatures;
#[path = "crash/switching.rs"]
mod switching;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Launch, Server, pause, unique, until};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

const KILLS: u32 = 50;
const PRODUCERS: u64 = 4;
const BATCH: u64 = 20;

/// Held by a test while its server runs on the brokers: servers of one cluster share the partitions, and
/// each archives its share in its own folder.
static CLUSTER: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// What one producer sent: the numbers that were acked, and those whose fate it was not told.
#[derive(Default)]
struct Sent {
    next: u64,
    acked: BTreeSet<u64>,
    unknown: BTreeSet<u64>,
}

/// Every ninth record is one that the transform rejects.
fn is_bad(number: u64) -> bool {
    number % 9 == 8
}

fn batch(producer: u64, first: u64) -> String {
    let event = |number: u64| {
        json!({ "producer": producer, "customer": format!("p{producer}-c{}", number % 3), "n": number, "bad": is_bad(number) })
            .to_string()
    };
    (first..first + BATCH).map(event).collect::<Vec<_>>().join("\n")
}

/// Appends batches one after the other until it is told to stop or the server is gone.
async fn produce(
    client: Client,
    stream: String,
    producer: u64,
    mut sent: Sent,
    stop: Arc<AtomicBool>,
) -> Sent {
    while !stop.load(Ordering::SeqCst) {
        let first = sent.next;
        sent.next += BATCH;
        let request = client
            .post(format!("{stream}/records"))
            .bearer_auth(common::TOKEN)
            .header("content-type", "application/x-ndjson")
            .body(batch(producer, first));
        let numbers = first..first + BATCH;
        match request.send().await {
            Ok(answer) if answer.status() == StatusCode::OK => match answer.json::<Value>().await {
                Ok(answer) => {
                    let records = answer["records"].as_array().unwrap();
                    assert!(records.iter().all(|record| record["offset"].is_u64()), "{answer}");
                    sent.acked.extend(numbers);
                }
                Err(_) => sent.unknown.extend(numbers),
            },
            Ok(answer) => {
                let status = answer.status();
                assert!(status == StatusCode::SERVICE_UNAVAILABLE, "{status}");
                sent.unknown.extend(numbers);
            }
            Err(_) => {
                sent.unknown.extend(numbers);
                return sent;
            }
        }
    }
    sent
}

fn path(dataset: &str) -> String {
    format!("/api/v1/streams/{dataset}/1")
}

async fn define(server: &Server, dataset: &str) {
    let definition = json!({
        "dataset": dataset, "version": "1", "partitions": 3, "key": "/customer",
        "transform": "if .bad == true { abort \"bad order\" }\n.seen = true",
        "tables": [{ "name": dataset, "fields": ["producer", "n"], "ttl_seconds": 86_400 }],
    });
    let (status, answer) = server.post("/api/v1/streams", &definition).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
}

/// Runs producers against a server for a random moment, then kills it.
async fn round(launch: &Launch, dataset: &str, sent: Vec<Sent>, wait: Duration) -> Vec<Sent> {
    round_beside(launch, (dataset, sent), wait, async |_| {}).await
}

/// The same while something else is done with the server, as far as it comes.
async fn round_beside(
    launch: &Launch,
    (dataset, sent): (&str, Vec<Sent>),
    wait: Duration,
    beside: impl AsyncFnOnce(&Server),
) -> Vec<Sent> {
    let mut server = launch.start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let client = Client::new();
    let producers = sent.into_iter().enumerate().map(|(producer, sent)| {
        let stream = format!("{}{}", server.base(), path(dataset));
        let (client, stop) = (client.clone(), stop.clone());
        #[allow(clippy::disallowed_methods, reason = "a test owns its producers")]
        tokio::spawn(produce(client, stream, producer as u64, sent, stop))
    });
    let producers: Vec<_> = producers.collect();
    let begun = std::time::Instant::now();
    let _elapsed = tokio::time::timeout(wait, beside(&server)).await;
    tokio::time::sleep(wait.saturating_sub(begun.elapsed())).await;
    server.kill();
    stop.store(true, Ordering::SeqCst);
    let mut after = Vec::new();
    for producer in producers {
        after.push(producer.await.unwrap());
    }
    after
}

/// The numbers of one producer, in the order found, by customer.
type Found = BTreeMap<u64, Vec<u64>>;

fn numbers(lines: &[Value]) -> Found {
    let mut found = Found::new();
    for line in lines {
        let event = &line["value"];
        found.entry(event["producer"].as_u64().unwrap()).or_default().push(event["n"].as_u64().unwrap());
    }
    found
}

fn check(what: &str, lines: &[Value], sent: &[Sent], wanted: fn(u64) -> bool) {
    let found = numbers(lines);
    for (producer, sent) in sent.iter().enumerate() {
        let listed = found.get(&(producer as u64)).cloned().unwrap_or_default();
        let unique: BTreeSet<u64> = listed.iter().copied().collect();
        assert_eq!(unique.len(), listed.len(), "{what}: producer {producer} has duplicates");
        let lost: Vec<_> = sent.acked.iter().filter(|n| wanted(**n) && !unique.contains(n)).collect();
        assert!(lost.is_empty(), "{what}: producer {producer} lost acked {lost:?}");
        let strange: Vec<_> = unique
            .iter()
            .filter(|n| !wanted(**n) || !(sent.acked.contains(n) || sent.unknown.contains(n)))
            .collect();
        assert!(strange.is_empty(), "{what}: producer {producer} has {strange:?}");
    }
}

/// Within a partition, by offset, each customer's numbers rise.
fn check_order(what: &str, lines: &[Value]) {
    let mut lines: Vec<&Value> = lines.iter().collect();
    lines.sort_by_key(|line| (line["partition"].as_u64(), line["offset"].as_u64()));
    let mut last: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for line in lines {
        let customer = line["value"]["customer"].as_str().unwrap().to_owned();
        let place = (line["partition"].as_u64().unwrap(), line["value"]["n"].as_u64().unwrap());
        if let Some(before) = last.insert(customer.clone(), place) {
            assert!(before.0 == place.0 && before.1 < place.1, "{what}: {customer} {before:?} {place:?}");
        }
    }
}

async fn dead_letters(server: &Server, dataset: &str) -> Vec<Value> {
    let (mut letters, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("{}/dead-letters?limit=1000{cursor}", path(dataset))).await;
        for letter in page["dead_letters"].as_array().unwrap() {
            assert_eq!(letter["reason"], "bad order");
            use base64::Engine as _;
            let bytes = letter["value_base64"].as_str().unwrap();
            let bytes = base64::engine::general_purpose::STANDARD.decode(bytes).unwrap();
            let value: Value = serde_json::from_slice(&bytes).unwrap();
            letters.push(json!({ "value": value }));
        }
        let Some(next) = page["cursor"].as_str() else { return letters };
        cursor = format!("&cursor={next}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_on_sled_lose_nothing_that_was_acked_and_double_nothing() {
    let folder = tempfile::tempdir().unwrap();
    kill_often(Launch::local(folder.path()), "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_on_kafka_lose_nothing_that_was_acked_and_double_nothing() {
    let (_alone, folder) = (CLUSTER.lock().await, tempfile::tempdir().unwrap());
    kill_often(Launch::kafka(folder.path()), &unique("orders")).await;
}

/// Defines the stream, and draws what happens to it from a seed that is shown.
async fn begin(launch: &Launch, dataset: &str) -> StdRng {
    let seed: u64 = rand::rng().random();
    println!("seed {seed}");
    let server = launch.start().await;
    define(&server, dataset).await;
    StdRng::seed_from_u64(seed)
}

async fn kill_often(launch: Launch, dataset: &str) {
    let launch = &launch.set("HEADWATER_TABLES__SNAPSHOT_AGE", "1 s");
    let mut random = begin(launch, dataset).await;
    let mut sent: Vec<Sent> = (0..PRODUCERS).map(|_| Sent::default()).collect();
    for _ in 0..KILLS {
        let wait = Duration::from_millis(random.random_range(0..600));
        sent = round(launch, dataset, sent, wait).await;
    }
    let acked: usize = sent.iter().map(|sent| sent.acked.len()).sum();
    println!("{acked} records acked over {KILLS} kills");
    assert!(acked as u64 > u64::from(KILLS) * BATCH, "the load was real: {acked}");
    let mut server = launch.start().await;
    account(&server, dataset, &sent).await;
    check_table(&server, dataset).await;
    until("a snapshot of the table", async || {
        server.data().join("objects/tables/green").join(dataset).exists().then_some(())
    })
    .await;
    server.kill();
    std::fs::remove_dir_all(server.data().join("tables")).unwrap();
    check_table(&launch.start().await, dataset).await;
}

/// The table has the last event of each customer, whatever was torn away, and also when it is made anew.
async fn check_table(server: &Server, dataset: &str) {
    let mut events = server.lines(&format!("{}/events/export", path(dataset))).await;
    events.sort_by_key(|event| (event["partition"].as_u64(), event["offset"].as_u64()));
    let expected: BTreeMap<String, Value> = events.iter().map(row_of).collect();
    assert!(expected.len() > 6, "{expected:?}");
    let found = until("the table is through", async || {
        let table = server.get(&format!("/api/v1/tables/{dataset}?limit=1000")).await;
        let rows = table["rows"].as_array().unwrap().iter();
        let rows: BTreeMap<String, Value> =
            rows.map(|row| (row["key"].as_str().unwrap().to_owned(), row["value"].clone())).collect();
        let through = |events: &[Value]| {
            events.iter().all(|event| {
                let (partition, offset) = (&event["origin"]["partition"], &event["origin"]["offset"]);
                let mut lanes = table["complete_through"].as_array().unwrap().iter();
                lanes.any(|lane| lane["partition"] == *partition && lane["offset"].as_u64() > offset.as_u64())
            })
        };
        pause().await;
        through(&events).then_some(rows)
    })
    .await;
    assert_eq!(found, expected);
}

fn row_of(event: &Value) -> (String, Value) {
    let value = &event["value"];
    let key = value["customer"].as_str().unwrap().to_owned();
    (key, json!({ "producer": value["producer"], "n": value["n"] }))
}

/// Finds every record again, in the index, in the dead letters and in the objects.
async fn account(server: &Server, dataset: &str, sent: &[Sent]) {
    #[allow(clippy::disallowed_methods, reason = "compared with what the server answers")]
    let started = chrono::Utc::now();
    until("the router has passed everything", async || {
        let answer = server.get(&format!("{}/events/count", path(dataset))).await;
        let through: chrono::DateTime<chrono::Utc> = answer["complete_through"].as_str()?.parse().ok()?;
        (through >= started).then_some(())
    })
    .await;
    let events = server.lines(&format!("{}/events/export", path(dataset))).await;
    check("index", &events, sent, |n| !is_bad(n));
    check_order("index", &events);
    check("dead letters", &dead_letters(server, dataset).await, sent, is_bad);
    let archived = until("every event is archived", async || {
        let lines = server.archived(dataset);
        (lines.len() >= events.len()).then_some(lines)
    })
    .await;
    check("objects", &archived, sent, |n| !is_bad(n));
    check_order("objects", &archived);
    assert_eq!(archived.len(), events.len());
}
