//! Flights in published splits, and the query door over them without a network.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use broker::{Group, Stage};
use bytes::Bytes;
use indexer::Limits;
use serde_json::Value;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

use super::flights::{self, Flight};
use super::local::{Local, flights_stream};

const PARTITIONS: u32 = 4;
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Long enough for whole splits, short enough to wait for the last one.
const SPLIT_AGE: Duration = Duration::from_secs(5);

/// An index that answers.
pub(crate) struct Searchable {
    router: Router,
    /// Holds the folder that the log and the splits lie in.
    _local: Local,
}

impl Searchable {
    /// Publishes all of them.
    pub(crate) async fn publish(packs: &[Vec<Flight>]) -> Self {
        let local = Local::open(flights_stream(PARTITIONS)).await;
        let batches = flights::batches(packs, local.clock.now());
        local.load(Stage::Processed, &batches).await;
        let indexer = local.indexer(Limits { split_age_max: SPLIT_AGE, ..Limits::default() });
        let ends = local.ends(Stage::Processed).await;
        local.work((Stage::Processed, Group::INDEX), indexer.sink(), &ends).await;
        Self { router: indexer.router(), _local: local }
    }

    /// The answer as it would be sent.
    pub(crate) fn ask(&self, runtime: &Runtime, path: &str) -> Bytes {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        runtime.block_on(async {
            let answer = self.router.clone().oneshot(request).await.expect("an answer");
            assert!(answer.status().is_success(), "{path} was refused: {answer:?}");
            to_bytes(answer.into_body(), ANSWER_BYTES_MAX).await.expect("a body")
        })
    }

    /// The answer, read.
    pub(crate) fn read(&self, runtime: &Runtime, path: &str) -> Value {
        serde_json::from_slice(&self.ask(runtime, path)).expect("an answer is JSON")
    }

    /// The path of a later page, found by going through those before it.
    pub(crate) fn later_page(&self, runtime: &Runtime, first: &str, number: usize) -> String {
        let mut path = first.to_owned();
        for _ in 1..number {
            let page = self.read(runtime, &path);
            let cursor = page["cursor"].as_str().expect("a day has more pages");
            path = format!("{first}&cursor={cursor}");
        }
        path
    }
}
