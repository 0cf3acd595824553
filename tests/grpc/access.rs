//! Who may do what, as the commands say it and every door keeps it: over HTTP and gRPC, across a `kill -9`, and
//! in another process on the same cluster.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::common::until;
use super::*;

/// A door for whoever holds a key.
#[derive(Clone)]
struct WithKey(String);

impl Interceptor for WithKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", format!("Bearer {}", self.0).parse().unwrap());
        Ok(request)
    }
}

fn headwater(server: &Server, token: &str, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.args(words).args(["--server", server.base()]).env("HEADWATER_TOKEN", token);
    command.output().unwrap()
}

/// What a command of the administrator's prints.
fn done(server: &Server, words: &[&str]) -> String {
    let output = headwater(server, TOKEN, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn ask(server: &Server, key: &str, (method, path): (Method, &str), body: Value) -> StatusCode {
    // Built with the administrator's token, which is replaced.
    let mut request = server.request(method, path).build().unwrap();
    request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    if !body.is_null() {
        request.headers_mut().insert("content-type", "application/json".parse().unwrap());
        *request.body_mut() = Some(body.to_string().into());
    }
    reqwest::Client::new().execute(request).await.unwrap().status()
}

/// What a key may do on a server with a dataset, at each of its doors.
struct Doors<'a> {
    server: &'a Server,
    key: &'a str,
    dataset: &'a str,
}

impl Doors<'_> {
    async fn post(&self) -> StatusCode {
        let path = format!("/api/v1/streams/{}/1/records", self.dataset);
        ask(self.server, self.key, (Method::POST, &path), json!({"n": 1})).await
    }

    async fn find(&self) -> StatusCode {
        let path = format!("/api/v1/streams/{}/1/events", self.dataset);
        ask(self.server, self.key, (Method::GET, &path), Value::Null).await
    }

    async fn grpc(&self) -> InterceptedService<Channel, WithKey> {
        let (channel, _) = connect(self.server).await;
        InterceptedService::new(channel, WithKey(self.key.to_owned()))
    }

    async fn append(&self) -> Code {
        let request = AppendRequest { dataset: self.dataset.to_owned(), ..batch(0..1) };
        code(IngestClient::new(self.grpc().await).append(request).await)
    }

    async fn count(&self) -> Code {
        let filter =
            Filter { dataset: self.dataset.to_owned(), version: "1".to_owned(), ..Filter::default() };
        code(EventsClient::new(self.grpc().await).count(CountRequest { filter: Some(filter) }).await)
    }

    async fn follow(&self) -> Code {
        let (dataset, version) = (self.dataset.to_owned(), "1".to_owned());
        let request = FollowRequest { dataset, version, from: None };
        code(EventsClient::new(self.grpc().await).follow(request).await)
    }
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

async fn keeps_to_what_was_granted(launch: Launch, dataset: &str) {
    let mut server = launch.start().await;
    let stream = format!("{dataset}/1");
    done(&server, &["streams", "create", &stream, "--partitions", "1"]);
    let user = format!("ann-{dataset}");
    done(&server, &["users", "create", &user]);
    let key = done(&server, &["keys", "create", "--user", &user, "--label", "tests"]);
    let doors = Doors { server: &server, key: &key, dataset };
    assert_eq!((doors.post().await, doors.append().await), (StatusCode::FORBIDDEN, Code::PermissionDenied));
    done(&server, &["grants", "set", dataset, &user, "write"]);
    assert_eq!((doors.post().await, doors.append().await), (StatusCode::OK, Code::Ok));
    assert_eq!((doors.find().await, doors.count().await), (StatusCode::FORBIDDEN, Code::PermissionDenied));
    assert_eq!(doors.follow().await, Code::PermissionDenied);
    done(&server, &["grants", "set", dataset, &user, "write", "read"]);
    assert_eq!(
        (doors.find().await, doors.count().await, doors.follow().await),
        (StatusCode::OK, Code::Ok, Code::Ok)
    );
    assert_eq!(ask(&server, &key, (Method::GET, "/metrics"), Value::Null).await, StatusCode::FORBIDDEN);

    // What was answered is there after a crash.
    server.kill();
    let server = launch.start().await;
    let doors = Doors { server: &server, key: &key, dataset };
    assert_eq!((doors.post().await, doors.find().await), (StatusCode::OK, StatusCode::OK));
    let listed = done(&server, &["grants", "list", "--dataset", dataset]);
    assert!(listed.lines().any(|line| line.contains(&user) && line.ends_with("read write")), "{listed}");

    let refused = headwater(&server, &key, &["users", "list"]);
    assert_eq!(refused.status.code(), Some(6), "{refused:?}");
    let id = key.split('.').nth(1).unwrap();
    done(&server, &["keys", "delete", id]);
    assert_eq!((doors.post().await, doors.append().await), (StatusCode::UNAUTHORIZED, Code::Unauthenticated));

    let token = done(&server, &["webhook-tokens", "create", dataset, "write"]);
    let hook = format!("/webhook/event/{dataset}/1?token={token}");
    assert_eq!(ask(&server, "-", (Method::POST, &hook), json!({"a": 1})).await, StatusCode::OK);
    let listed = done(&server, &["webhook-tokens", "list", "--dataset", dataset, "--format", "ndjson"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    done(&server, &["webhook-tokens", "delete", dataset, listed["id"].as_str().unwrap()]);
    assert_eq!(ask(&server, "-", (Method::POST, &hook), json!({"a": 1})).await, StatusCode::FORBIDDEN);
}

/// Runs a command of the administrator's with a line of input, and answers what it prints.
fn done_with(server: &Server, words: &[&str], input: &str) -> Result<String, Option<i32>> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
    command.args(words).args(["--server", server.base()]).env("HEADWATER_TOKEN", TOKEN);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned());
    }
    Err(output.status.code())
}

async fn metrics(server: &Server) -> String {
    server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn a_password_gets_a_token_that_outlives_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let launch = Launch::local(folder.path());
    let mut server = launch.start().await;
    done(&server, &["users", "create", "ann"]);
    done_with(&server, &["users", "set-password", "ann"], "correct horse battery\n").unwrap();
    done(&server, &["grants", "set", "things", "ann", "write"]);
    done(&server, &["streams", "create", "things/1", "--partitions", "1"]);
    let token = done_with(&server, &["login", "ann"], "correct horse battery\n").unwrap();
    assert_eq!(done_with(&server, &["login", "ann"], "wrong horse battery\n"), Err(Some(6)));
    server.kill();
    let server = launch.start().await;
    let doors = Doors { server: &server, key: &token, dataset: "things" };
    assert_eq!((doors.post().await, doors.append().await), (StatusCode::OK, Code::Ok));
    assert!(!metrics(&server).await.contains("headwater_auth_failures_total"));
    done_with(&server, &["login", "ann"], "wrong horse battery\n").unwrap_err();
    let counted = metrics(&server).await;
    assert!(counted.contains(r#"headwater_auth_failures_total{credential="password"} 1"#), "{counted}");
    done_with(&server, &["users", "set-password", "ann"], "another password\n").unwrap();
    assert_eq!(doors.post().await, StatusCode::UNAUTHORIZED);
}

/// An issuer that publishes one key, and makes tokens.
async fn issuer() -> (String, JoinSet<()>, impl Fn(Value) -> String) {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    use p256::elliptic_curve::sec1::ToEncodedPoint as _;
    use p256::pkcs8::EncodePrivateKey as _;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}/realms/r", listener.local_addr().unwrap());
    let secret = p256::SecretKey::random(&mut p256::elliptic_curve::rand_core::OsRng);
    let point = secret.public_key().to_encoded_point(false);
    let text =
        |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes);
    let (x, y) = (text(point.x().unwrap()), text(point.y().unwrap()));
    let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "x": x, "y": y}]});
    let discovery = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")});
    let documents = axum::Router::new()
        .route("/realms/r/keys", axum::routing::get(move || async move { keys.to_string() }))
        .route(
            "/realms/r/.well-known/openid-configuration",
            axum::routing::get(move || async move { discovery.to_string() }),
        );
    let mut served = JoinSet::new();
    served.spawn(async move { axum::serve(listener, documents).await.unwrap() });
    let key = EncodingKey::from_ec_der(secret.to_pkcs8_der().unwrap().as_bytes());
    let header = Header { kid: Some("k".to_owned()), ..Header::new(Algorithm::ES256) };
    (issuer, served, move |claims| encode(&header, &claims, &key).unwrap())
}

#[tokio::test]
async fn tokens_of_a_configured_issuer_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (issuer, _served, token) = issuer().await;
    let launch = Launch::local(folder.path())
        .set("HEADWATER_OIDC__ISSUER", &issuer)
        .set("HEADWATER_OIDC__AUDIENCE", "headwater");
    let server = launch.start().await;
    done(&server, &["streams", "create", "things/1", "--partitions", "1"]);
    let in_an_hour = broker::Clock::now(&broker::time::SystemClock).micros() / 1_000_000 + 3_600;
    let claims = |audience: &str| json!({"iss": issuer, "aud": audience, "exp": in_an_hour, "preferred_username": "ann"});
    let good = token(claims("headwater"));
    let doors = Doors { server: &server, key: &good, dataset: "things" };
    assert_eq!((doors.post().await, doors.append().await), (StatusCode::FORBIDDEN, Code::PermissionDenied));
    done(&server, &["grants", "set", "things", "oidc:ann", "write"]);
    assert_eq!((doors.post().await, doors.append().await), (StatusCode::OK, Code::Ok));
    let other = token(claims("other"));
    let doors = Doors { key: &other, ..doors };
    assert_eq!((doors.post().await, doors.append().await), (StatusCode::UNAUTHORIZED, Code::Unauthenticated));
}

async fn tells_who_changed_what(launch: Launch, dataset: &str) {
    let mut server = launch.start().await;
    let user = format!("ann-{dataset}");
    done(&server, &["users", "create", &user]);
    done(&server, &["streams", "create", &format!("{dataset}/1"), "--partitions", "1"]);
    done(&server, &["grants", "set", dataset, &user, "read"]);
    server.kill();
    let server = launch.start().await;
    let told = async || {
        let words = ["query", "headwater-audit/1", "--limit", "10000", "--format", "ndjson"];
        let text = String::from_utf8(headwater(&server, TOKEN, &words).stdout).unwrap();
        let of_ours = text.lines().filter(|line| line.contains(dataset));
        let told: Vec<Value> = of_ours.map(|line| serde_json::from_str(line).unwrap()).collect();
        (told.len() >= 3).then_some(told)
    };
    let told = until("the changes are told", told).await;
    let whats: Vec<_> = told.iter().map(|event| event["value"]["what"].as_str().unwrap()).collect();
    assert_eq!(whats, ["user", "stream", "grant"], "{told:?}");
}

#[tokio::test]
async fn the_audit_tells_who_changed_what_on_sled() {
    let folder = tempfile::tempdir().unwrap();
    tells_who_changed_what(Launch::local(folder.path()), "things").await;
}

#[tokio::test]
async fn the_audit_tells_who_changed_what_on_kafka() {
    let folder = tempfile::tempdir().unwrap();
    tells_who_changed_what(Launch::kafka(folder.path()), &common::unique("things")).await;
}

#[tokio::test]
async fn a_key_does_what_it_was_granted_on_sled() {
    let folder = tempfile::tempdir().unwrap();
    keeps_to_what_was_granted(Launch::local(folder.path()), "things").await;
}

#[tokio::test]
async fn a_key_does_what_it_was_granted_on_kafka() {
    let folder = tempfile::tempdir().unwrap();
    keeps_to_what_was_granted(Launch::kafka(folder.path()), &common::unique("things")).await;
}

#[tokio::test]
async fn a_grant_holds_in_every_process_of_a_cluster() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let one = Launch::kafka(folders[0].path()).with("--roles", "ingest").start().await;
    let other = Launch::kafka(folders[1].path()).with("--roles", "ingest").start().await;
    let dataset = common::unique("things");
    let user = format!("ann-{dataset}");
    done(&one, &["streams", "create", &format!("{dataset}/1"), "--partitions", "1"]);
    done(&one, &["users", "create", &user]);
    let key = done(&one, &["keys", "create", "--user", &user]);
    done(&one, &["grants", "set", &dataset, &user, "write"]);
    let doors = Doors { server: &other, key: &key, dataset: &dataset };
    until("the grant is known", async || (doors.post().await == StatusCode::OK).then_some(())).await;
    done(&one, &["grants", "delete", &dataset, &user]);
    until("it is gone", async || (doors.post().await == StatusCode::FORBIDDEN).then_some(())).await;
}
