//! Requests that are signed with an API key.

use std::time::{Duration, UNIX_EPOCH};

use ::hawk::{Credentials, Header, Key, PayloadHasher, RequestBuilder, SHA256};
use axum::body::Body;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::metadata::{ask, post};
use crate::Limits;
use crate::testing::{Answer, Doors};

const HOST: &str = "headwater.example";
const RECORDS: &str = "/api/v1/streams/flights/1/records";
const JSON: &str = "application/json";
const EVENT: &str = r#"{"n":1}"#;
/// What the tests' clock shows.
const AT: u64 = 1_772_366_400;

/// A client that signs.
struct Client {
    id: String,
    secret: String,
}

/// What is signed, and with what.
struct Signed<'a> {
    method: Method,
    path: &'a str,
    port: u16,
    body: &'a str,
    content_type: &'a str,
    at: u64,
    nonce: &'a str,
}

impl Default for Signed<'_> {
    fn default() -> Self {
        let (method, path, port) = (Method::POST, RECORDS, 80);
        Self { method, path, port, body: EVENT, content_type: JSON, at: AT, nonce: "n1" }
    }
}

impl Client {
    /// One with a key of a user of its own that may write to `flights`.
    async fn new(doors: &Doors) -> Self {
        post(doors, "/api/v1/users", json!({"name": "ann"})).await;
        let grant = json!({"permissions": ["write"]}).to_string();
        ask(doors, "", (Method::PUT, "/api/v1/grants/flights/ann"), &grant).await;
        let made = post(doors, "/api/v1/keys", json!({"user": "ann", "hawk": true})).await.json;
        assert_eq!(made["hawk"], true, "{made}");
        Self::of(made["key"].as_str().unwrap())
    }

    fn of(key: &str) -> Self {
        let parts: Vec<&str> = key.split('.').collect();
        Self { id: parts[1].to_owned(), secret: parts[2].to_owned() }
    }

    fn credentials(&self) -> Credentials {
        Credentials { id: self.id.clone(), key: Key::new(&self.secret, SHA256).unwrap() }
    }

    fn header(&self, signed: &Signed<'_>) -> Header {
        let hash = PayloadHasher::hash(signed.content_type, SHA256, signed.body).unwrap();
        let request = RequestBuilder::new(signed.method.as_str(), HOST, signed.port, signed.path);
        let at = UNIX_EPOCH + Duration::from_secs(signed.at);
        let request = request.hash(&*hash).request();
        request.make_header_full(&self.credentials(), at, signed.nonce).unwrap()
    }

    /// Whether an answer is the server's, and to this request.
    fn believes(&self, signed: &Signed<'_>, header: &Header, answer: &Answer) -> bool {
        let server = answer.headers["server-authorization"].to_str().unwrap().strip_prefix("Hawk ").unwrap();
        let hash = PayloadHasher::hash(JSON, SHA256, &answer.body).unwrap();
        let request = RequestBuilder::new(signed.method.as_str(), HOST, signed.port, signed.path).request();
        let response = request.make_response_builder(header).hash(&*hash).response();
        response.validate_header(&server.parse().unwrap(), &self.credentials().key)
    }

    async fn send(&self, doors: &Doors, signed: &Signed<'_>) -> Answer {
        send(doors, signed, &self.header(signed).to_string()).await
    }
}

/// Sends what was signed, with this signature.
async fn send(doors: &Doors, signed: &Signed<'_>, signature: &str) -> Answer {
    let request = Request::builder().method(signed.method.clone()).uri(signed.path).header("host", HOST);
    let request = request.header("content-type", format!("{}; charset=utf-8", signed.content_type));
    let request = request.header("authorization", format!("Hawk {signature}"));
    doors.send(request.body(Body::from(signed.body.to_owned())).unwrap()).await
}

/// The answer is a refusal that says this.
fn refused(answer: &Answer, message: &str) {
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.json);
    assert_eq!(answer.json["error"]["message"], message);
    assert!(!answer.headers.contains_key("server-authorization"));
}

const NOT_VALID: &str = "this signature is not valid";

#[tokio::test]
async fn a_signed_request_is_its_keys_and_the_answer_is_signed_too() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let client = Client::new(&doors).await;
    let signed = Signed::default();
    let header = client.header(&signed);
    let answer = client.send(&doors, &signed).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);

    assert!(client.believes(&signed, &header, &answer));

    // As a bearer the key does the same, and what it may not do it may not do signed.
    let bearer = format!("hwk.{}.{}", client.id, client.secret);
    assert_eq!(ask(&doors, &bearer, (Method::POST, RECORDS), EVENT).await.status, StatusCode::OK);
    let events = Signed {
        method: Method::PATCH,
        path: "/api/v1/streams/flights/1",
        body: "{}",
        nonce: "n2",
        ..signed
    };
    let answer = client.send(&doors, &events).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(client.believes(&events, &client.header(&events), &answer), "refusals are signed, too");
}

#[tokio::test]
async fn a_signature_is_taken_once() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let client = Client::new(&doors).await;
    let signed = Signed::default();
    let many = futures::future::join_all((0..8).map(|_| client.send(&doors, &signed))).await;
    let taken = many.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(taken, 1);
    refused(&client.send(&doors, &signed).await, "this signature was used before");
    let other = Signed { nonce: "n2", ..Signed::default() };
    assert_eq!(client.send(&doors, &other).await.status, StatusCode::OK);
    let at = format!("{RECORDS}?atomic=true");
    let (get, text) = (Signed { path: &at, nonce: "n3", ..Signed::default() }, "the query is signed, too");
    assert_eq!(client.send(&doors, &get).await.status, StatusCode::OK, "{text}");
}

#[tokio::test]
async fn what_was_changed_on_the_way_is_refused() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let client = Client::new(&doors).await;
    let header = client.header(&Signed::default());
    let text = header.to_string();
    let at = format!("{RECORDS}?atomic=true");
    for changed in [
        Signed { body: r#"{"n":2}"#, ..Signed::default() },
        Signed { body: "", ..Signed::default() },
        Signed { content_type: "application/x-ndjson", ..Signed::default() },
        Signed { path: &at, ..Signed::default() },
        Signed { method: Method::PUT, path: "/api/v1/grants/flights/bob", ..Signed::default() },
    ] {
        refused(&send(&doors, &changed, &text).await, NOT_VALID);
    }
    for (part, other) in [
        ("nonce=\"n1\"", "nonce=\"n2\""),
        (&*format!("ts=\"{AT}\""), &*format!("ts=\"{}\"", AT + 1)),
        (&*client.id, "unknown"),
        ("mac=\"", "mac=\"AAAA"),
    ] {
        assert!(text.contains(part), "{text}");
        refused(&send(&doors, &Signed::default(), &text.replace(part, other)).await, NOT_VALID);
    }
    refused(&client.send(&doors, &Signed { port: 443, ..Signed::default() }).await, NOT_VALID);
    let first = client.send(&doors, &Signed::default()).await;
    assert_eq!(first.status, StatusCode::OK, "what was refused has used up no nonce");
}

#[tokio::test]
async fn what_is_no_signature_is_refused() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let client = Client::new(&doors).await;
    let text = client.header(&Signed::default()).to_string();
    let ts = format!("ts=\"{AT}\"");
    for wrong in [
        "id".to_owned(),
        "id=\"".to_owned(),
        "\"\"\"=".to_owned(),
        text.replace(&ts, "ts=\"18446744073709551615\""),
        text.replace(&ts, "ts=\"-1\""),
        text.replace(&ts, &format!("{ts}, {ts}")),
        text.replace("nonce=\"n1\"", "nonce=\"\""),
        text.replace("nonce=\"n1\"", &format!("nonce=\"{}\"", "n".repeat(129))),
        text.replace("mac=\"", "mac=\"!"),
        format!("{text}, bewit=\"x\""),
        format!("{text}, app=\"x\""),
    ] {
        refused(&send(&doors, &Signed::default(), &wrong).await, NOT_VALID);
    }
    let hash = text.find(", hash=").unwrap();
    let without = send(&doors, &Signed::default(), &text[..hash]).await;
    refused(&without, "the signature does not cover the body: its hash is missing");
}

#[tokio::test]
async fn a_signature_has_its_time() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let client = Client::new(&doors).await;
    for (number, at) in [AT - 59, AT + 60].into_iter().enumerate() {
        let answer =
            client.send(&doors, &Signed { at, nonce: &number.to_string(), ..Signed::default() }).await;
        assert_eq!(answer.status, StatusCode::OK, "{at}: {}", answer.json);
    }
    for at in [AT - 60, AT + 61, 0, u64::from(u32::MAX)] {
        let answer = client.send(&doors, &Signed { at, nonce: "late", ..Signed::default() }).await;
        refused(&answer, "the signature's time is more than 60 s from ours");
    }
}

#[tokio::test]
async fn a_key_signs_only_if_it_was_made_to_and_as_long_as_it_is_taken() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let client = Client::new(&doors).await;
    let plain = post(&doors, "/api/v1/keys", json!({"user": "ann"})).await.json;
    assert_eq!(plain["hawk"], false);
    let plain = Client::of(plain["key"].as_str().unwrap());
    refused(&plain.send(&doors, &Signed::default()).await, NOT_VALID);

    let disable = |is: bool| json!({"disabled": is}).to_string();
    let user = (Method::PATCH, "/api/v1/users/ann");
    ask(&doors, "", user.clone(), &disable(true)).await;
    refused(&client.send(&doors, &Signed::default()).await, NOT_VALID);
    ask(&doors, "", user, &disable(false)).await;
    assert_eq!(client.send(&doors, &Signed::default()).await.status, StatusCode::OK);

    let brief = json!({"user": "ann", "hawk": true, "expires_in_seconds": 5});
    let brief = Client::of(post(&doors, "/api/v1/keys", brief).await.json["key"].as_str().unwrap());
    assert_eq!(brief.send(&doors, &Signed::default()).await.status, StatusCode::OK);
    doors.clock.advance(Duration::from_secs(6));
    refused(&brief.send(&doors, &Signed { nonce: "n2", ..Signed::default() }).await, NOT_VALID);
    ask(&doors, "", (Method::DELETE, &format!("/api/v1/keys/{}", client.id)), "").await;
    refused(&client.send(&doors, &Signed { nonce: "n3", ..Signed::default() }).await, NOT_VALID);
}

#[tokio::test]
async fn the_address_is_the_one_that_the_client_saw() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let client = Client::new(&doors).await;
    let ask = async |signed: &Signed<'_>, host: &str, scheme: &str| {
        let request = Request::post(RECORDS).header("host", host).header("x-forwarded-proto", scheme);
        let request = request.header("content-type", JSON);
        let request = request.header("authorization", format!("hawk {}", client.header(signed)));
        doors.send(request.body(Body::from(EVENT)).unwrap()).await.status
    };
    let port = |port, nonce| Signed { port, nonce, ..Signed::default() };
    assert_eq!(ask(&port(443, "a"), HOST, "https").await, StatusCode::OK);
    assert_eq!(ask(&port(80, "b"), HOST, "http").await, StatusCode::OK);
    assert_eq!(ask(&port(8443, "c"), "Headwater.Example:8443", "https").await, StatusCode::OK);
    assert_eq!(ask(&port(80, "d"), HOST, "https").await, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&port(80, "e"), "other.example", "http").await, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&port(80, "f"), "not a host", "http").await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn bodies_keep_their_limit_and_surfaces_their_words() {
    let limits = Limits { body_bytes_max: 5_000, decoded_body_bytes_max: 5_000, ..Limits::default() };
    let doors = Doors::with(limits).await.with_stream(json!({})).await;
    let client = Client::new(&doors).await;
    let large = json!({"pad": "x".repeat(5_000)}).to_string();
    let answer = client.send(&doors, &Signed { body: &large, ..Signed::default() }).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.json);
    let wrong = send(&doors, &Signed { path: "/streams/flights/1/events", ..Signed::default() }, "id").await;
    assert_eq!(
        (wrong.status, wrong.json),
        (StatusCode::UNAUTHORIZED, json!({"message": "Invalid access token"}))
    );
    let empty = Signed {
        method: Method::GET,
        path: "/api/v1/whoami",
        body: "",
        content_type: "",
        ..Signed::default()
    };
    let request = Request::get(empty.path).header("host", HOST);
    let request = request.header("authorization", format!("Hawk {}", client.header(&empty)));
    let answer = doors.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status, &answer.json["name"]), (StatusCode::OK, &Value::from("ann")));
}
