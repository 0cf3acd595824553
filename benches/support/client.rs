//! Requests to a server, as many clients at a time make them.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::Client;
use serde_json::Value;

use super::flights::{self, Flight, OF_A_BATCH};
use super::process;
use super::server::{Server, TOKEN};

const CONNECTIONS: usize = 16;
const LOOK_EVERY: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(600);
/// A server that used next to nothing for so long has nothing left to do: longer than what it has waits
/// to be published.
const QUIET_FOR: Duration = Duration::from_secs(6);
/// What a server uses in that time while it only looks at the clock.
const QUIET_CPU: Duration = Duration::from_millis(60);

/// Posts all of them, 500 a request.
pub(crate) async fn post(client: &Client, url: &str, flights: impl Iterator<Item = Flight>) {
    let mut flights = flights.peekable();
    let bodies = std::iter::from_fn(|| {
        let pack: Vec<Flight> = flights.by_ref().take(OF_A_BATCH).collect();
        (!pack.is_empty()).then(|| flights::ndjson(&pack))
    });
    let posts = bodies.map(|body| {
        let request = client.post(url).bearer_auth(TOKEN).header("content-type", "application/x-ndjson");
        async move {
            let answer = request.body(body).send().await.expect("post");
            assert!(answer.status().is_success(), "a post was refused: {answer:?}");
            answer.bytes().await.expect("read an answer");
        }
    });
    futures::stream::iter(posts).buffer_unordered(CONNECTIONS).for_each(|()| async {}).await;
}

/// Waits until every event is in the index or before its door.
pub(crate) async fn until_found(server: &Server, dataset: &str, count: u64) {
    let began = Instant::now();
    loop {
        let request = Client::new().get(format!("{}/api/v1/streams/{dataset}/1/events/count", server.base));
        let answer = request.bearer_auth(TOKEN).send().await.expect("count");
        // A query that would wait for too long is answered with an error: asked again.
        if answer.status().is_success() {
            let answer: Value = answer.json().await.expect("an answer is JSON");
            if answer["count"].as_u64() == Some(count) {
                return;
            }
        }
        assert!(began.elapsed() < WAIT_MAX, "{count} events are not found after {WAIT_MAX:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until a server does nothing more, and returns what it has used by then.
pub(crate) async fn until_quiet(server: &Server) -> Duration {
    let mut used = process::cpu(server.id());
    loop {
        tokio::time::sleep(QUIET_FOR).await;
        let now = process::cpu(server.id());
        if now.saturating_sub(used) <= QUIET_CPU {
            return used;
        }
        used = now;
    }
}

/// Reads an answer to its end and returns its length.
pub(crate) async fn download(url: &str) -> usize {
    let answer = Client::new().get(url).bearer_auth(TOKEN).send().await.expect("ask");
    assert!(answer.status().is_success(), "{url} was refused: {answer:?}");
    let chunks = answer.bytes_stream().map(|chunk| chunk.expect("read an answer").len());
    chunks.fold(0, |sum, length| async move { sum + length }).await
}

/// Posts lines, with the token.
pub(crate) async fn post_lines(client: &Client, url: &str, lines: String) {
    let request = client.post(url).bearer_auth(TOKEN).header("content-type", "application/x-ndjson");
    let answer = request.body(lines).send().await.expect("post");
    assert!(answer.status().is_success(), "a post was refused: {answer:?}");
    answer.bytes().await.expect("read an answer");
}
