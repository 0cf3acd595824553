//! Subscriptions over websockets and Server-Sent Events, with clients of others.

use std::time::Instant;

use futures::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream as Socket;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error as WebsocketError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::*;

type Websocket = WebSocketStream<MaybeTlsStream<Socket>>;

const PATH: &str = "/event-data-subscription";
const WAIT_MAX: Duration = Duration::from_secs(20);

/// A server whose stream `things/1` one can subscribe to.
async fn subscribable(launch: &Launch) -> Server {
    let server = launch.start().await;
    define(&server, json!({})).await;
    switch(&server, true).await;
    server
}

async fn switch(server: &Server, is_on: bool) {
    let path = format!("{STREAMS}/things/1");
    let changed = server.request(Method::PATCH, &path).json(&json!({"subscribable": is_on})).send().await;
    assert_eq!(changed.unwrap().status(), StatusCode::OK);
}

async fn post_numbers(server: &Server, numbers: std::ops::Range<u64>) {
    post_padded(server, numbers, 0).await;
}

/// The same with so many bytes more in each.
async fn post_padded(server: &Server, numbers: std::ops::Range<u64>, bytes: usize) {
    let events: Vec<_> = numbers.map(|n| json!({"n": n, "pad": "x".repeat(bytes)})).collect();
    let (status, answer) = server.post("/events/things/1", &events.into()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

async fn connect(server: &Server, query: &str, bearer: Option<&str>) -> Result<Websocket, (u16, Value)> {
    let url = format!("{}{PATH}?{query}", server.base().replace("http", "ws"));
    let mut request = url.into_client_request().unwrap();
    if let Some(bearer) = bearer {
        request.headers_mut().insert("authorization", bearer.parse().unwrap());
    }
    match connect_async(request).await {
        Ok((websocket, _)) => Ok(websocket),
        Err(WebsocketError::Http(answer)) => {
            let body = answer.body().as_deref().unwrap_or_default();
            Err((answer.status().as_u16(), serde_json::from_slice(body).unwrap()))
        }
        Err(error) => panic!("{error}"),
    }
}

async fn subscribed(server: &Server, query: &str) -> Websocket {
    let bearer = format!("Bearer {TOKEN}");
    connect(server, &format!("dataset_id=things{query}"), Some(&bearer)).await.unwrap()
}

/// The next frame that is not one of control.
async fn frame(websocket: &mut Websocket) -> Message {
    loop {
        let next = tokio::time::timeout(WAIT_MAX, websocket.next()).await.expect("a frame comes");
        match next.unwrap().unwrap() {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return message,
        }
    }
}

async fn numbers(websocket: &mut Websocket, many: usize) -> Vec<u64> {
    let mut found = Vec::new();
    while found.len() < many {
        let text = frame(websocket).await.into_text().unwrap();
        let event: Value = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
        found.push(event["n"].as_u64().unwrap());
    }
    found
}

/// A webhook token of `things`.
async fn webhook_token(server: &Server, operation: &str) -> String {
    let (_, made) = server.post("/webhooks/things/tokens", &json!({"operation": operation})).await;
    made["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn events_come_over_a_websocket_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let server = subscribable(&Launch::local(folder.path())).await;
    let mut websocket = subscribed(&server, "").await;
    let event = r#"{"z": 1.50,  "text": "ø€😀"}"#;
    let posted = server.request(Method::POST, "/event/things/1").body(event).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::OK);
    assert_eq!(frame(&mut websocket).await.into_text().unwrap().as_str(), format!("{event}\n"));

    websocket.send(Message::text("nothing that anybody listens to")).await.unwrap();
    websocket.send(Message::Ping("mine".into())).await.unwrap();
    let pong = tokio::time::timeout(WAIT_MAX, websocket.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(pong, Message::Pong("mine".into()));
    websocket.close(None).await.unwrap();
    let closed = tokio::time::timeout(WAIT_MAX, websocket.next()).await.unwrap();
    assert!(matches!(closed, Some(Ok(Message::Close(Some(frame)))) if frame.code == CloseCode::Normal));
}

#[tokio::test]
async fn the_handshake_is_refused_in_the_words_of_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let server = subscribable(&Launch::local(folder.path())).await;
    let (status, _) = server.post("/api/v1/users", &json!({"name": "bob"})).await;
    assert_eq!(status, StatusCode::CREATED);
    let (_, made) = server.post("/api/v1/keys", &json!({"user": "bob"})).await;
    let (bob, admin) = (format!("Bearer {}", made["key"].as_str().unwrap()), format!("Bearer {TOKEN}"));
    let (read, write) = (webhook_token(&server, "read").await, webhook_token(&server, "write").await);

    let bad_request = json!({"message": "Bad request"});
    let unknown = json!({"message": "Provided token is not associated to dataset-id: things"});
    let other = json!({"message": "Provided token does not have access to perform read on things"});
    for (query, bearer, status, answer) in [
        ("", Some(&*admin), 400, bad_request.clone()),
        ("dataset_id=", Some(&*admin), 400, bad_request.clone()),
        ("dataset_id=things", None, 400, bad_request.clone()),
        ("dataset_id=things", Some("Basic eDp5"), 400, bad_request.clone()),
        ("dataset_id=No+Dataset", Some(&*admin), 400, bad_request),
        ("dataset_id=things", Some(&*bob), 403, json!({"message": "Forbidden"})),
        ("dataset_id=things", Some("Bearer wrong"), 401, json!({"message": "Unauthorized"})),
        ("dataset_id=things&webhook_token=wrong", None, 403, unknown),
        (&format!("dataset_id=things&webhook_token={write}"), None, 403, other),
        (
            &format!("dataset_id=things&webhook_token={read}"),
            Some(&*bob),
            403,
            json!({"message": "Forbidden"}),
        ),
        (
            "dataset_id=things&from=yesterday",
            Some(&*admin),
            400,
            json!({"message": "from: \"yesterday\" is neither a date (2001-01-05) nor an RFC 3339 instant (2001-01-05T00:00:00Z) in the years 1 to 9999"}),
        ),
        (
            "dataset_id=things&format=xml",
            Some(&*admin),
            400,
            json!({"message": "format: a format is value or line"}),
        ),
    ] {
        assert_eq!(connect(&server, query, bearer).await.err(), Some((status, answer)), "{query} {bearer:?}");
    }
    for query in
        [format!("dataset_id=things&webhook_token={read}"), "dataset_id=things&webhook_token=wrong".into()]
    {
        let bearer = Some(&*admin).filter(|_| query.ends_with("wrong"));
        let mut websocket = connect(&server, &query, bearer).await.unwrap();
        post_numbers(&server, 7..8).await;
        assert_eq!(numbers(&mut websocket, 1).await, [7], "{query}");
    }
    let plain = server.request(Method::GET, &format!("{PATH}?dataset_id=things")).send().await.unwrap();
    assert_eq!(
        (plain.status(), &plain.headers()["upgrade"]),
        (StatusCode::UPGRADE_REQUIRED, &"websocket".parse().unwrap())
    );
    let old = server.request(Method::GET, &format!("{PATH}?dataset_id=things"));
    let old = old.header("connection", "upgrade").header("upgrade", "websocket");
    let old =
        old.header("sec-websocket-version", "8").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let old = old.send().await.unwrap();
    assert_eq!(
        (old.status(), &old.headers()["sec-websocket-version"]),
        (StatusCode::UPGRADE_REQUIRED, &"13".parse().unwrap())
    );
}

#[tokio::test]
async fn a_slow_subscriber_holds_up_nobody_and_misses_nothing() {
    const MANY: u64 = 60_000;
    let folder = tempfile::tempdir().unwrap();
    let server = subscribable(&Launch::local(folder.path())).await;
    let mut slow = subscribed(&server, "").await;
    let mut quick = subscribed(&server, "").await;
    let begun = Instant::now();
    let posting = async {
        for first in (0..MANY).step_by(2_000) {
            // More than the buffers between two processes hold.
            post_padded(&server, first..first + 2_000, 500).await;
        }
    };
    let ((), mut found) = tokio::join!(posting, numbers(&mut quick, MANY as usize));
    assert!(begun.elapsed() < WAIT_MAX * 3, "{:?}", begun.elapsed());
    found.sort_unstable();
    assert!(found.into_iter().eq(0..MANY));
    let mut late = numbers(&mut slow, MANY as usize).await;
    late.sort_unstable();
    assert!(late.into_iter().eq(0..MANY));
}

#[tokio::test]
async fn a_subscriber_goes_on_where_it_was_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let launch = Launch::local(folder.path());
    let mut server = subscribable(&launch).await;
    let mut websocket = subscribed(&server, "&format=line").await;
    post_numbers(&server, 0..10).await;
    let (mut seen, mut at) = (Vec::new(), std::collections::BTreeMap::from([(0, 0), (1, 0)]));
    for _ in 0..7 {
        let line: Value = serde_json::from_str(&frame(&mut websocket).await.into_text().unwrap()).unwrap();
        assert_eq!(line["version"], "1");
        at.insert(line["partition"].as_u64().unwrap(), line["offset"].as_u64().unwrap() + 1);
        seen.push(line["value"]["n"].as_u64().unwrap());
    }
    server.kill();
    let mut server = launch.start().await;
    post_numbers(&server, 10..15).await;
    let from: Vec<_> = at.iter().map(|(partition, offset)| format!("1/{partition}:{offset}")).collect();
    let mut websocket = subscribed(&server, &format!("&from={}", from.join(","))).await;
    seen.extend(numbers(&mut websocket, 8).await);
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..15), "each came once");

    assert!(server.terminate().success());
    let closed = frame(&mut websocket).await;
    assert!(matches!(closed, Message::Close(Some(frame)) if frame.code == CloseCode::Away));
}

/// Reads Server-Sent Events: of each its id and its data.
struct Events {
    answer: reqwest::Response,
    text: String,
    last_id: String,
}

impl Events {
    async fn open(server: &Server, last_id: Option<&str>) -> Self {
        let request = server.request(Method::GET, &format!("{PATH}?dataset_id=things"));
        let mut request = request.header("accept", "text/event-stream");
        if let Some(last_id) = last_id {
            request = request.header("last-event-id", last_id);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, text: String::new(), last_id: String::new() }
    }

    async fn next(&mut self) -> (Option<String>, Value) {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field =
                    |name: &str| block.lines().find_map(|line| line.strip_prefix(name).map(str::to_owned));
                self.last_id = field("id: ").unwrap_or_else(|| self.last_id.clone());
                if let Some(data) = field("data: ") {
                    return (field("event: "), serde_json::from_str(&data).unwrap());
                }
            }
            let chunk = tokio::time::timeout(WAIT_MAX, self.answer.chunk()).await.expect("something comes");
            self.text.push_str(std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap());
        }
    }
}

#[tokio::test]
async fn events_come_as_server_sent_events_that_resume() {
    let folder = tempfile::tempdir().unwrap();
    let launch = Launch::local(folder.path());
    let mut server = subscribable(&launch).await;
    let mut events = Events::open(&server, None).await;
    let pretty = "{\n  \"n\": 0\n}";
    let posted = server.request(Method::POST, "/event/things/1").body(pretty).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::OK);
    assert_eq!(events.next().await, (None, json!({"n": 0})));
    post_numbers(&server, 1..10).await;
    let mut seen = vec![0];
    for _ in 0..4 {
        seen.push(events.next().await.1["n"].as_u64().unwrap());
    }
    let last_id = events.last_id.clone();
    server.kill();
    let server = launch.start().await;
    let mut events = Events::open(&server, Some(&last_id)).await;
    for _ in 0..5 {
        seen.push(events.next().await.1["n"].as_u64().unwrap());
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..10), "each came once");
    switch(&server, false).await;
    post_numbers(&server, 10..11).await;
    // It counts as there once it is processed, which a query waits for.
    assert_eq!(server.get(&format!("{EVENTS}/count")).await["count"], 11);
    switch(&server, true).await;
    post_numbers(&server, 11..12).await;
    assert_eq!(events.next().await.1["n"].as_u64(), Some(11));
}
