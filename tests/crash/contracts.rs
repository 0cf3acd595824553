//! The tables of the contracts, row by row, on the running binary and on both logs. What a row is about in depth is
//! tested at the doors; here is what a client sees.

#[path = "contracts/collector.rs"]
mod collector;
#[path = "contracts/event_streams.rs"]
mod event_streams;
#[path = "contracts/metadata.rs"]
mod metadata;
#[path = "contracts/subscription.rs"]
mod subscription;
#[path = "contracts/tracking.rs"]
mod tracking;
#[path = "contracts/vehicles.rs"]
mod vehicles;

use reqwest::{Method, RequestBuilder};

use super::*;

/// Who asks.
#[derive(Clone, Copy, Debug)]
enum As<'a> {
    Administrator,
    Nobody,
    /// With this `authorization`.
    Header(&'a str),
}

use As::{Administrator, Header, Nobody};

/// A server with names of its own on the log.
struct Table<'a> {
    server: &'a Server,
    client: Client,
    dataset: &'a str,
    /// A user without permissions, as a header.
    stranger: String,
}

impl<'a> Table<'a> {
    async fn new(server: &'a Server, dataset: &'a str) -> Self {
        let user = format!("stranger-{dataset}");
        server.post("/api/v1/users", &json!({"name": user})).await;
        let (_, made) = server.post("/api/v1/keys", &json!({"user": user})).await;
        let stranger = format!("Bearer {}", made["key"].as_str().unwrap());
        Self { server, client: Client::new(), dataset, stranger }
    }

    /// `{ds}` in paths and answers is the dataset.
    fn named(&self, text: &str) -> String {
        text.replace("{ds}", self.dataset)
    }

    async fn ask(&self, who: As<'_>, (method, path): (Method, &str), body: &Value) -> (u16, Value) {
        let url = format!("{}{}", self.server.base(), self.named(path));
        let request = self.authorized(who, self.client.request(method, url));
        let request = if body.is_null() { request } else { request.body(self.named(&body.to_string())) };
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: {text}")))
    }

    fn authorized(&self, who: As<'_>, request: RequestBuilder) -> RequestBuilder {
        match who {
            Administrator => request.bearer_auth(common::TOKEN),
            Nobody => request,
            Header(header) => request.header("authorization", header),
        }
    }

    /// A row of a table: the status, and of the answer what is expected of it.
    async fn row(&self, who: As<'_>, asked: (Method, &str), body: Value, expected: (u16, Value)) {
        let (method, path) = asked.clone();
        let (status, answer) = self.ask(who, asked, &body).await;
        let what = format!("{method} {} as {who:?} with {body}", self.named(path));
        assert_eq!(status, expected.0, "{what}: {answer}");
        let expected: Value = serde_json::from_str(&self.named(&expected.1.to_string())).unwrap();
        assert!(has(&answer, &expected), "{what}: {answer}, not {expected}");
    }

    /// A row about somebody who may.
    async fn administrator(&self, asked: (Method, &str), body: Value, expected: (u16, Value)) {
        self.row(Administrator, asked, body, expected).await;
    }
}

/// Whether an answer is what is expected; of an object it may have more fields.
fn has(answer: &Value, expected: &Value) -> bool {
    match (answer, expected) {
        (Value::Object(answer), Value::Object(expected)) => {
            expected.iter().all(|(name, value)| answer.get(name).is_some_and(|found| has(found, value)))
        }
        (Value::Array(answer), Value::Array(expected)) => {
            answer.len() == expected.len() && answer.iter().zip(expected).all(|(one, other)| has(one, other))
        }
        _ => answer == expected,
    }
}

fn message(text: &str) -> Value {
    json!({ "message": text })
}

fn get(path: &str) -> (Method, &str) {
    (Method::GET, path)
}

fn post(path: &str) -> (Method, &str) {
    (Method::POST, path)
}

fn put(path: &str) -> (Method, &str) {
    (Method::PUT, path)
}

fn delete(path: &str) -> (Method, &str) {
    (Method::DELETE, path)
}

async fn tables(launch: Launch, dataset: &str) {
    let launch = launch.set("HEADWATER_TRACKING__ENABLED", "true");
    let launch =
        launch.set("HEADWATER_VEHICLES__ENABLED", "true").set("HEADWATER_VEHICLES__PREFIX", "/fleet");
    let launch = launch.set("HEADWATER_USER_POOL__ENABLED", "true");
    let server = launch.set("HEADWATER_TRACKING__PREFIX", "/collector").start().await;
    let table = Table::new(&server, dataset).await;
    metadata::rows(&table).await;
    event_streams::rows(&table).await;
    collector::rows(&table).await;
    subscription::rows(&table).await;
    tracking::rows(&table).await;
    vehicles::rows(&table).await;
}

#[tokio::test]
async fn the_tables_of_the_contracts_hold_on_sled() {
    let folder = tempfile::tempdir().unwrap();
    tables(Launch::local(folder.path()), "buses").await;
}

#[tokio::test]
async fn the_tables_of_the_contracts_hold_on_kafka() {
    let (_alone, folder) = (CLUSTER.lock().await, tempfile::tempdir().unwrap());
    tables(Launch::kafka(folder.path()), &unique("buses")).await;
}
