//! The bare door: an HTTP handler that checks the syntax of each line, compresses what came and appends
//! it to [`RawLog`]; one that reads all of it back; and a fan-out of what is published to all who follow. It
//! is a process of its own, which a driver becomes
//! that is called with [`NAME`].

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::routing::{get, post};
use bytes::Bytes;
use futures::SinkExt as _;
use http::StatusCode;
use http::header::{CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper_util::rt::TokioIo;
use serde::de::IgnoredAny;
use tokio::sync::broadcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::flights::OF_A_BATCH;
use super::local::runtime;
use super::raw_log::RawLog;

/// Chunks that one follower may be behind.
const WAITING_MAX: usize = 1_024;

/// `DRIVER bare FOLDER --listen ADDRESS`.
pub(crate) const NAME: &str = "bare";

/// Whether this process was to be the bare door, and has been it.
pub(crate) fn was_asked_for() -> bool {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, folder, _, address] = arguments.as_slice() else { return false };
    let is_asked_for = name == NAME;
    if is_asked_for {
        serve(Path::new(folder), address.parse().expect("an address"));
    }
    is_asked_for
}

fn serve(folder: &Path, address: SocketAddr) {
    let log = Arc::new(RawLog::open(folder));
    let published = broadcast::Sender::<Bytes>::new(WAITING_MAX);
    let fan_out = Router::new()
        .route("/publish", post(publish))
        .route("/follow", get(follow))
        .route("/websocket", get(websocket))
        .with_state(published);
    let router = Router::new()
        .route("/readyz", get(|| async { "ready\n" }))
        .route("/full", post(full))
        .route("/minimal", post(minimal))
        .route("/export", get(export))
        .with_state(log)
        .merge(fan_out);
    runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.expect("listen");
        axum::serve(listener, router).await.expect("serve");
    });
}

/// An answer a record.
async fn full(State(log): State<Arc<RawLog>>, body: Bytes) -> String {
    let (number, lines) = append(&log, &body).await;
    let mut answer = String::with_capacity(lines * 32);
    for line in 0..lines {
        let offset = number * OF_A_BATCH as u64 + line as u64;
        writeln!(answer, "{{\"partition\":0,\"offset\":{offset}}}").expect("a text takes all");
    }
    answer
}

/// Where the first is, and how many.
async fn minimal(State(log): State<Arc<RawLog>>, body: Bytes) -> String {
    let (number, lines) = append(&log, &body).await;
    format!("{{\"partition\":0,\"offset\":{number},\"records\":{lines}}}\n")
}

async fn append(log: &RawLog, body: &[u8]) -> (u64, usize) {
    let mut lines = 0;
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        serde_json::from_slice::<IgnoredAny>(line).expect("an event is JSON");
        lines += 1;
    }
    (log.append(body).await.expect("the committer answers"), lines)
}

async fn publish(State(published): State<broadcast::Sender<Bytes>>, body: Bytes) {
    // Nobody may be following.
    published.send(body).map_or_else(drop, drop);
}

async fn follow(State(published): State<broadcast::Sender<Bytes>>) -> Body {
    let chunks = futures::stream::unfold(published.subscribe(), |mut receiver| async {
        let chunk = receiver.recv().await.ok()?;
        Some((Ok::<_, Infallible>(chunk), receiver))
    });
    Body::from_stream(chunks)
}

/// A frame a line of what is published, on what hyper makes of the connection.
async fn websocket(
    State(published): State<broadcast::Sender<Bytes>>,
    mut request: Request,
) -> (StatusCode, [(HeaderName, HeaderValue); 3]) {
    let key = request.headers()[SEC_WEBSOCKET_KEY].as_bytes();
    let accept = HeaderValue::try_from(derive_accept_key(key)).expect("base64 is plain");
    let upgraded = hyper::upgrade::on(&mut request);
    let mut receiver = published.subscribe();
    #[allow(clippy::disallowed_methods, reason = "a bare server owns what it likes")]
    tokio::spawn(async move {
        let io = TokioIo::new(upgraded.await.expect("the connection is upgraded"));
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        while let Ok(chunk) = receiver.recv().await {
            for line in chunk.split_inclusive(|byte| *byte == b'\n') {
                let line = chunk.slice_ref(line);
                let text = Utf8Bytes::try_from(line).expect("an event is text");
                if socket.feed(Message::Text(text)).await.is_err() {
                    return;
                }
            }
            if socket.flush().await.is_err() {
                return;
            }
        }
    });
    let headers = [
        (UPGRADE, HeaderValue::from_static("websocket")),
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers)
}

/// Everything that was appended, a batch at a time.
async fn export(State(log): State<Arc<RawLog>>) -> Body {
    let batches = futures::stream::unfold((log, 0), |(log, number)| async move {
        let reading = Arc::clone(&log);
        let batch = tokio::task::spawn_blocking(move || reading.read(number)).await.expect("read a batch")?;
        Some((Ok::<_, Infallible>(Bytes::from(batch)), (log, number + 1)))
    });
    Body::from_stream(batches)
}
