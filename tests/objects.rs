//! The flow on Kafka with a real S3 server behind it: a process on a new, empty data folder answers
//! from object storage and the log alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the S3 server is named by the script that started it")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Launch, Server, unique, until};
use futures::TryStreamExt as _;
use indexer::store::StoreSettings;
use reqwest::{Method, StatusCode};
use serde_json::json;

const EVENTS: u64 = 2_000;

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
    let found: BTreeSet<u64> = until("the new process has taken the partitions over", async || {
        let exported = server.lines(&format!("{path}/events/export")).await;
        let numbers: Vec<u64> = exported.iter().map(|event| event["value"]["n"].as_u64().unwrap()).collect();
        let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
        assert_eq!(distinct.len(), numbers.len(), "nothing is found twice");
        (distinct.len() as u64 == EVENTS).then_some(distinct)
    })
    .await;
    assert_eq!(found, (0..EVENTS).collect());

    let archived = until("every event is archived", async || {
        let listed: Vec<_> = objects.list(Some(&"processed".into())).try_collect().await.unwrap();
        let mut numbers = Vec::new();
        for object in listed {
            for event in indexer::archive::read_object(objects.as_ref(), &object.location).await.unwrap() {
                let value: serde_json::Value = serde_json::from_str(event.value.get()).unwrap();
                numbers.push(value["n"].as_u64().unwrap());
            }
        }
        (numbers.len() as u64 >= EVENTS).then_some(numbers)
    })
    .await;
    assert_eq!(archived.len() as u64, EVENTS, "nothing is archived twice");
    assert_eq!(archived.into_iter().collect::<BTreeSet<u64>>(), found);
}
