//! The flow on Kafka with a real S3 server behind it: a process on a new, empty data folder answers
//! from object storage and the log alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the S3 server is named by the script that started it")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Launch, Server, unique, until};
use futures::TryStreamExt as _;
use indexer::store::{ObjectStore, StoreSettings};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::sync::Mutex;

const EVENTS: u64 = 2_000;
/// Processes on one cluster are one deployment, with one object store: one test at a time.
static CLUSTER: Mutex<()> = Mutex::const_new(());

fn settings() -> StoreSettings {
    let variable = |name: &str| {
        let name = format!("HEADWATER_TEST_S3_{name}");
        std::env::var(&name).expect("no S3 server: scripts/s3 start && eval \"$(scripts/s3 env)\"")
    };
    let options = [
        ("aws_endpoint", variable("ENDPOINT")),
        ("aws_access_key_id", variable("ACCESS_KEY")),
        ("aws_secret_access_key", variable("SECRET_KEY")),
        ("aws_region", "us-east-1".to_owned()),
        ("allow_http", "true".to_owned()),
    ];
    let options: BTreeMap<String, String> = options.map(|(key, value)| (key.to_owned(), value)).into();
    StoreSettings { url: format!("s3://{}/{}", variable("BUCKET"), unique("flow")), options }
}

fn with_store(launch: Launch, settings: &StoreSettings) -> Launch {
    let launch = launch.set("HEADWATER_OBJECTS__URL", &settings.url);
    settings.options.iter().fold(launch, |launch, (key, value)| {
        launch.set(&format!("HEADWATER_OBJECTS__OPTIONS__{}", key.to_uppercase()), value)
    })
}

async fn append(server: &Server, path: &str, numbers: std::ops::Range<u64>) {
    let lines: Vec<String> = numbers.map(|n| json!({ "n": n, "k": n % 13 }).to_string()).collect();
    let request = server.request(Method::POST, &format!("{path}/records"));
    let request = request.header("content-type", "application/x-ndjson").body(lines.join("\n"));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_new_process_answers_from_object_storage_and_the_log() {
    let _cluster = CLUSTER.lock().await;
    let settings = settings();
    let dataset = unique("objects");
    let path = format!("/api/v1/streams/{dataset}/1");
    let folder = tempfile::tempdir().unwrap();
    let mut server = with_store(Launch::kafka(folder.path()), &settings).start().await;
    let definition = json!({ "dataset": dataset, "version": "1", "partitions": 3, "key": "/k" });
    let (status, answer) = server.post("/api/v1/streams", &definition).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    append(&server, &path, 0..EVENTS / 2).await;

    let objects = indexer::store::open(&settings).unwrap();
    until("a split is published", async || {
        let listed: Vec<_> = objects.list(Some(&"index".into())).try_collect().await.unwrap();
        (!listed.is_empty()).then_some(())
    })
    .await;
    server.kill();
    drop(server);

    let other = tempfile::tempdir().unwrap();
    let server = with_store(Launch::kafka(other.path()), &settings).start().await;
    append(&server, &path, EVENTS / 2..EVENTS).await;
    let found = found_once(&server, &path).await;
    assert_eq!(found, (0..EVENTS).collect());

    assert_eq!(archived_once(&*objects, &dataset).await, found);
}

/// The numbers of all archived events of a dataset, once there are enough of them.
async fn archived_once(objects: &dyn ObjectStore, dataset: &str) -> BTreeSet<u64> {
    // What other tests left in the cluster is archived here as well.
    let folder = format!("processed/green/{dataset}").into();
    let archived = until("every event is archived", async || {
        let listed: Vec<_> = objects.list(Some(&folder)).try_collect().await.unwrap();
        let mut numbers = Vec::new();
        for object in listed {
            for event in indexer::archive::read_object(objects, &object.location).await.unwrap() {
                let value: serde_json::Value = serde_json::from_str(event.value.get()).unwrap();
                numbers.push(value["n"].as_u64().unwrap());
            }
        }
        (numbers.len() as u64 >= EVENTS).then_some(numbers)
    })
    .await;
    assert_eq!(archived.len() as u64, EVENTS, "nothing is archived twice");
    archived.into_iter().collect()
}

/// The numbers of all events that are found, once there are enough of them.
async fn found_once(server: &Server, path: &str) -> BTreeSet<u64> {
    until("every event is found", async || {
        let exported = server.lines(&format!("{path}/events/export")).await;
        let numbers: Vec<u64> = exported.iter().map(|event| event["value"]["n"].as_u64().unwrap()).collect();
        let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
        assert_eq!(distinct.len(), numbers.len(), "nothing is found twice");
        (distinct.len() as u64 == EVENTS).then_some(distinct)
    })
    .await
}

#[tokio::test]
async fn roles_are_processes_of_their_own_that_come_and_go() {
    let _cluster = CLUSTER.lock().await;
    let settings = settings();
    let dataset = unique("roles");
    let path = format!("/api/v1/streams/{dataset}/1");
    let folders: Vec<_> = (0..5).map(|_| tempfile::tempdir().unwrap()).collect();
    let launch = |folder: usize, roles: &str| {
        with_store(Launch::kafka(folders[folder].path()), &settings).with("--roles", roles)
    };
    let door = launch(0, "ingest").start().await;
    let mut first = launch(1, "router,sinks").start().await;
    let definition = json!({ "dataset": dataset, "version": "1", "partitions": 6, "key": "/k" });
    let (status, answer) = door.post("/api/v1/streams", &definition).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    append(&door, &path, 0..EVENTS / 4).await;

    // A second worker takes a share; then the first one is killed, and a third one comes.
    let mut second = launch(2, "router,sinks").start().await;
    append(&door, &path, EVENTS / 4..EVENTS / 2).await;
    first.kill();
    append(&door, &path, EVENTS / 2..EVENTS * 3 / 4).await;
    let third = launch(3, "router,sinks").start().await;
    append(&door, &path, EVENTS * 3 / 4..EVENTS).await;

    let search = launch(4, "query").start().await;
    let everything: BTreeSet<u64> = (0..EVENTS).collect();
    assert_eq!(found_once(&search, &path).await, everything);
    assert!(second.terminate().success());
    let objects = indexer::store::open(&settings).unwrap();
    assert_eq!(archived_once(&*objects, &dataset).await, everything);
    assert_eq!(found_once(&search, &path).await, everything);
    for (server, path) in [(&door, format!("{path}/events")), (&search, format!("{path}/dead-letters"))] {
        let answer = server.request(Method::GET, &path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path} belongs to another role");
    }
    drop(third);
}
