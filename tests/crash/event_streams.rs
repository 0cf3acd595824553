//! The event stream API on the running binary: a dataset's stream from its creation to its end, with a
//! `kill -9` in between.

use std::fs;

use reqwest::Method;

use super::*;

const TYPES: [&str; 2] = ["s3", "elasticsearch"];
/// The number of an event that comes before the stream is made.
const EARLY: u64 = 99;

/// A stream of a server.
struct Platform<'a> {
    server: &'a Server,
    dataset: &'a str,
}

impl Platform<'_> {
    async fn send(&self, method: Method, below: &str, body: Value) -> (u16, Value) {
        let path = format!("/streams/{}/1{below}", self.dataset);
        let answer = self.server.request(method, &path).body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn get(&self, below: &str) -> (u16, Value) {
        self.send(Method::GET, below, Value::Null).await
    }

    async fn describe(&self) {
        let title = json!({"title": self.dataset, "accessRights": "restricted", "source": {"type": "event"}});
        let versions = format!("/datasets/{}/versions", self.dataset);
        for (path, body) in [("/datasets", title), (&*versions, json!({"version": "1"}))] {
            let (status, answer) = self.server.post(path, &body).await;
            assert!(status.is_success(), "{path}: {answer}");
        }
    }

    async fn has_status(&self, below: &str, status: &str) {
        until(status, async || (self.get(below).await.1["status"] == status).then_some(())).await;
    }

    async fn sink(&self, r#type: &str, query: &str) {
        let path = format!("/sinks{query}");
        let (status, answer) = self.send(Method::POST, &path, json!({ "type": r#type })).await;
        assert_eq!((status, &answer["status"]), (201, &json!("CREATE_IN_PROGRESS")), "{answer}");
        self.has_status(&format!("/sinks/{}", r#type), "ACTIVE").await;
    }

    async fn post(&self, numbers: std::ops::Range<u64>) {
        let events: Vec<_> = numbers.map(|n| json!({"n": n, "timestamp": "2020-10-18T09:05:00Z"})).collect();
        assert_eq!(self.send(Method::POST, "/events", events.into()).await, (200, Value::Null));
    }

    /// The numbers of the events of a day.
    async fn found(&self) -> Vec<u64> {
        let (status, page) = self.get("/events?from_date=2020-10-18&to_date=2020-10-18&page_size=100").await;
        if status == 400 {
            return Vec::new();
        }
        let values = page["values"].as_array().unwrap_or_else(|| panic!("{status}: {page}"));
        let mut numbers: Vec<u64> = values.iter().map(|event| event["n"].as_u64().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }
}

async fn goes_from_creation_to_deletion(launch: &Launch, dataset: &str) {
    let mut server = launch.start().await;
    let platform = Platform { server: &server, dataset };
    let (status, answer) = platform.send(Method::POST, "", Value::Null).await;
    assert_eq!((status, answer), (404, json!({"message": format!("Could not find dataset: {dataset}")})));
    platform.describe().await;
    let early = json!({"n": EARLY, "timestamp": "2020-10-18T09:05:00Z"});
    let (status, answer) = server.post(&format!("/event/{dataset}/1"), &early).await;
    assert_eq!((status, answer), (StatusCode::OK, json!({"message": "Ok"})), "before the stream is made");
    let (status, answer) = platform.send(Method::POST, "", json!({"create_raw": true})).await;
    assert_eq!((status, &answer["status"]), (201, &json!("CREATE_IN_PROGRESS")), "{answer}");
    platform.has_status("", "ACTIVE").await;
    platform.sink("elasticsearch", "?backfill=true").await;
    // It is in the log that sinks read once it is found.
    until("the early event", async || (platform.found().await == [EARLY]).then_some(())).await;
    platform.sink("s3", "").await;
    platform.post(0..3).await;
    assert_eq!(platform.found().await, [0, 1, 2, EARLY], "what was answered is found");

    server.kill();
    let server = launch.start().await;
    let platform = Platform { server: &server, dataset };
    assert_eq!(platform.found().await, [0, 1, 2, EARLY]);
    platform.has_status("/sinks/elasticsearch", "ACTIVE").await;
    let (status, _) = platform.send(Method::DELETE, "", Value::Null).await;
    assert_eq!(status, StatusCode::CONFLICT.as_u16());
    for r#type in ["elasticsearch", "s3"] {
        let (status, answer) =
            platform.send(Method::DELETE, &format!("/sinks/{}", r#type), Value::Null).await;
        assert_eq!(status, 200, "{answer}");
    }
    let deleted = until("the sinks are let go of", async || {
        let (status, answer) = platform.send(Method::DELETE, "", Value::Null).await;
        (status == 200).then_some(answer)
    })
    .await;
    assert_eq!(deleted, json!({"message": format!("Deleted event stream with id {dataset}/1")}));
    let (status, shown) = platform.get("").await;
    assert_eq!((status, &shown["deleted"], &shown["confidentiality"]), (200, &json!(true), &json!("yellow")));
    assert!(platform.found().await.is_empty());
    let archived = server.archived(dataset);
    assert_eq!(archived.len(), 3, "the archive keeps what it has");
}

/// A sink whose object store cannot be written to is not taken for one that works: it says what is wrong,
/// and works once that is mended.
async fn says_why_a_sink_fails(launch: &Launch, dataset: &str) {
    let server = launch.start().await;
    let platform = Platform { server: &server, dataset };
    platform.describe().await;
    assert_eq!(platform.send(Method::POST, "", json!({})).await.0, 201);
    let objects = server.data().join("objects");
    let aside = server.data().join("aside");
    fs::rename(&objects, &aside).unwrap();
    fs::write(&objects, "no folder").unwrap();
    for r#type in TYPES {
        let (status, answer) = platform.send(Method::POST, "/sinks", json!({ "type": r#type })).await;
        assert_eq!(status, 201, "{answer}");
        let sink = format!("/sinks/{}", r#type);
        platform.has_status(&sink, "OPERATION_FAILED").await;
        let reason = platform.get(&sink).await.1["reason"].clone();
        assert!(reason.as_str().is_some_and(|reason| reason.contains("Not a directory")), "{reason}");
    }
    platform.post(0..3).await;
    fs::remove_file(&objects).unwrap();
    fs::rename(&aside, &objects).unwrap();
    for r#type in TYPES {
        let sink = format!("/sinks/{}", r#type);
        platform.has_status(&sink, "ACTIVE").await;
        assert_eq!(platform.get(&sink).await.1["reason"], Value::Null);
    }
    assert_eq!(platform.found().await, [0, 1, 2]);
    until("the archive", async || (server.archived(dataset).len() == 3).then_some(())).await;
}

#[tokio::test]
async fn a_sink_without_a_store_says_so_on_sled() {
    let folder = tempfile::tempdir().unwrap();
    says_why_a_sink_fails(&Launch::local(folder.path()), "boats").await;
}

#[tokio::test]
async fn a_sink_without_a_store_says_so_on_kafka() {
    let (_alone, folder) = (CLUSTER.lock().await, tempfile::tempdir().unwrap());
    says_why_a_sink_fails(&Launch::kafka(folder.path()), &unique("boats")).await;
}

#[tokio::test]
async fn an_event_stream_goes_from_creation_to_deletion_on_sled() {
    let folder = tempfile::tempdir().unwrap();
    goes_from_creation_to_deletion(&Launch::local(folder.path()), "buses").await;
}

#[tokio::test]
async fn an_event_stream_goes_from_creation_to_deletion_on_kafka() {
    let (_alone, folder) = (CLUSTER.lock().await, tempfile::tempdir().unwrap());
    goes_from_creation_to_deletion(&Launch::kafka(folder.path()), &unique("buses")).await;
}
