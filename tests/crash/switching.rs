//! Both sinks are switched off and on again, with what they missed, while producers send and the server is
//! killed: in the end both hold every record that was acked, once.

use std::ops::Range;

use super::*;
use common::pause;
use reqwest::Method;

const TYPES: [&str; 2] = ["s3", "elasticsearch"];

/// A request of the event stream API about a sink: its status, and the sink's. None if the server is gone.
async fn ask(server: &Server, method: Method, path: &str, body: Value) -> Option<(StatusCode, String)> {
    let answer = server.request(method, path).body(body.to_string()).send().await.ok()?;
    let status = answer.status();
    let answer: Value = answer.json().await.ok()?;
    Some((status, answer["status"].as_str().unwrap_or_default().to_owned()))
}

/// Switches a sink as its state lets it. Answers whether that was done.
async fn switch(server: &Server, dataset: &str, r#type: &str, only_on: bool) -> Option<bool> {
    let sinks = format!("/streams/{dataset}/1/sinks");
    let sink = format!("{sinks}/{}", r#type);
    let (status, state) = ask(server, Method::GET, &sink, Value::Null).await?;
    let (method, path) = match (status, &*state) {
        (StatusCode::NOT_FOUND, _) => (Method::POST, format!("{sinks}?backfill=true")),
        (StatusCode::OK, "ACTIVE") if !only_on => (Method::DELETE, sink),
        (StatusCode::OK, _) => return Some(false),
        other => panic!("{other:?}"),
    };
    let (status, _) = ask(server, method, &path, json!({ "type": r#type })).await?;
    let known = [StatusCode::OK, StatusCode::CREATED, StatusCode::CONFLICT, StatusCode::SERVICE_UNAVAILABLE];
    assert!(known.contains(&status), "{path}: {status}");
    Some(status.is_success())
}

/// `waits` are milliseconds until each of the kills.
async fn switch_often(launch: &Launch, dataset: &str, (kills, waits): (u32, Range<u64>)) {
    let mut random = begin(launch, dataset).await;
    let mut sent: Vec<Sent> = (0..PRODUCERS).map(|_| Sent::default()).collect();
    let mut switched = 0;
    for _ in 0..kills {
        let wait = Duration::from_millis(random.random_range(waits.clone()));
        let beside = async |server: &Server| {
            while let Some(done) = switch(server, dataset, TYPES[random.random_range(0..2)], false).await {
                switched += u32::from(done);
                tokio::time::sleep(Duration::from_millis(random.random_range(0..100))).await;
            }
        };
        sent = round_beside(launch, (dataset, sent), wait, beside).await;
    }
    println!("{switched} switches over {kills} kills");
    assert!(switched > kills, "{switched}");

    let server = launch.start().await;
    for r#type in TYPES {
        until("the sink is on", async || {
            switch(&server, dataset, r#type, true).await.unwrap();
            let sink = format!("/streams/{dataset}/1/sinks/{}", r#type);
            let (_, state) = ask(&server, Method::GET, &sink, Value::Null).await.unwrap();
            pause().await;
            (state == "ACTIVE").then_some(())
        })
        .await;
    }
    account(&server, dataset, &sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sinks_that_are_switched_under_load_miss_and_double_nothing_on_sled() {
    let folder = tempfile::tempdir().unwrap();
    switch_often(&Launch::local(folder.path()), "orders", (12, 0..1_500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sinks_that_are_switched_under_load_miss_and_double_nothing_on_kafka() {
    let (_alone, folder) = (CLUSTER.lock().await, tempfile::tempdir().unwrap());
    // The group waits some seconds for the member that was killed.
    switch_often(&Launch::kafka(folder.path()), &unique("orders"), (3, 8_000..13_000)).await;
}
