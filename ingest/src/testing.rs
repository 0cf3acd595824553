//! The doors on a sled log in a folder of their own, for the tests of every surface.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::access::ADMINISTRATOR;
use broker::log::sled::{SledLog, SledOptions};
use broker::time::ManualClock;
use broker::{Append, Batch, Catalog, Entry, Log, Place, Position, Record, Stage, StreamName, Timestamp};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::auth::pool::{Pool, PoolSettings};
use crate::auth::{self, Credentials, Guard, Guarded};
use crate::http::{Tracking, UserPool, UserPoolSettings};
use crate::{Ingest, Limits, Parts};

/// The instant that the tests' clock shows: 2026-03-01T12:00:00.250Z.
pub(crate) const NOW: &str = "2026-03-01T12:00:00.250Z";

pub(crate) const TOKEN: &str = "token-of-the-tests";

/// Basic credentials of a name without a password.
pub(crate) fn basic(name: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:")))
}

pub(crate) struct Doors {
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) clock: Arc<ManualClock>,
    router: Router,
    pool: Arc<Pool>,
    _folder: TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) json: Value,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The kind and the field of the error; empty where there is none.
    pub(crate) fn error(&self) -> (&str, &str) {
        let text = |name: &str| self.json["error"][name].as_str().unwrap_or_default();
        (text("kind"), text("field"))
    }
}

/// A pool with one client.
pub(crate) fn pool_settings() -> PoolSettings {
    PoolSettings {
        id: "local_tests".to_owned(),
        url: "http://pool.test".to_owned(),
        clients: ["app".to_owned()].into(),
        token_life: Duration::from_secs(3_600),
        refresh_life: Duration::from_secs(24 * 3_600),
        key_life: Duration::from_secs(7 * 24 * 3_600),
    }
}

impl Doors {
    pub(crate) async fn open() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::appending_to(limits, |log| log).await
    }

    /// Doors where event streams need no documents.
    pub(crate) async fn with_implicit_datasets() -> Self {
        Self::made_of(Limits::default(), |log| log, true).await
    }

    /// Doors that append to another log than the one that holds the catalog.
    pub(crate) async fn appending_to(
        limits: Limits,
        other: impl FnOnce(Arc<dyn Log>) -> Arc<dyn Log>,
    ) -> Self {
        Self::made_of(limits, other, false).await
    }

    async fn made_of(
        limits: Limits,
        other: impl FnOnce(Arc<dyn Log>) -> Arc<dyn Log>,
        implicit_datasets: bool,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now: Timestamp = serde_json::from_value(NOW.into()).unwrap();
        let clock = Arc::new(ManualClock::at(now));
        let log: Arc<dyn Log> = SledLog::open(SledOptions::at(folder.path()), clock.clone()).await.unwrap();
        let catalog = Catalog::open(log.clone(), clock.clone()).await.unwrap();
        let shutdown = CancellationToken::new();
        let pool = Pool::new(pool_settings(), TOKEN.to_owned(), catalog.clone(), clock.clone());
        let credentials = Credentials::new(TOKEN.to_owned(), catalog.clone(), clock.clone());
        let credentials = Arc::new(credentials.with_pool(pool.clone()));
        let parts = Parts {
            log: other(log.clone()),
            catalog,
            clock: clock.clone(),
            credentials,
            limits,
            implicit_datasets,
            shutdown,
        };
        let ingest = Ingest::new(parts);
        let render =
            |response: Response| async { auth::seal(proto::problem::render(response, "request-1")).await };
        let guard = Guard::new(ingest.clone()).open(Ingest::OPEN_PATHS).leave(Ingest::LEFT_PATHS);
        let router = Guarded::new(ingest.router(), guard).into_router();
        let router = router.layer(axum::middleware::map_response(render));
        Self { ingest, log, clock, router, pool, _folder: folder }
    }

    /// The same with the collector of user events, instead of one that was there before.
    pub(crate) async fn with_tracking(self, is_open: bool) -> Self {
        let tracking = Tracking::new(self.ingest.clone(), is_open).await.unwrap();
        self.beside(tracking.router(), Tracking::PATHS.map(str::to_owned).to_vec())
    }

    /// The same with a pool of users below `/pool`, whose first key is made.
    pub(crate) async fn with_user_pool(self, sign_up: bool) -> Self {
        let settings = UserPoolSettings { sign_up, messages: "user_messages".to_owned() };
        let door = UserPool::new(self.ingest.clone(), self.pool.clone(), settings).await.unwrap();
        self.beside(door.router("/pool"), UserPool::PATHS.map(|path| format!("/pool{path}")).to_vec())
    }

    /// The same with other doors at these paths, which refuse by themselves.
    fn beside(self, router: Router, paths: Vec<String>) -> Self {
        let guard = Guard::new(self.ingest.clone()).leave(paths.clone());
        let (guarded, others) = (Guarded::new(router, guard), self.router);
        let answer = move |request: Request<Body>| {
            let (guarded, others) = (guarded.clone(), others.clone());
            let is_there = auth::is_among(&paths, request.uri().path());
            async move { if is_there { Ok(guarded.answer(request).await) } else { others.oneshot(request).await } }
        };
        Self { router: Router::new().fallback_service(tower::service_fn(answer)), ..self }
    }

    /// A guard over the same catalog.
    pub(crate) fn guard(&self, token: &str) -> Guard {
        let (catalog, clock) = (self.ingest.catalog.clone(), self.ingest.clock.clone());
        let credentials = Credentials::new(token.to_owned(), catalog.clone(), clock.clone());
        Guard::new(Ingest::new(Parts {
            log: self.log.clone(),
            catalog,
            clock,
            credentials: Arc::new(credentials),
            limits: self.ingest.limits.clone(),
            implicit_datasets: false,
            shutdown: CancellationToken::new(),
        }))
    }

    /// Defines the stream `flights/1` with these fields more.
    pub(crate) async fn with_stream(self, more: Value) -> Self {
        self.define("flights", more).await;
        self
    }

    /// Defines the stream `flights/1` where the doors' limits may be too small for a definition.
    pub(crate) async fn with_stream_past_the_doors(self) -> Self {
        let draft = serde_json::json!({"dataset": "flights", "version": "1"});
        self.ingest.catalog.create(serde_json::from_value(draft).unwrap(), ADMINISTRATOR).await.unwrap();
        self
    }

    pub(crate) async fn define(&self, dataset: &str, more: Value) {
        let mut definition = serde_json::json!({"dataset": dataset, "version": "1"});
        definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.post("/api/v1/streams", &[], definition.to_string()).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json);
    }

    /// As the administrator, unless the request says who calls.
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Answer {
        let bearer = HeaderValue::from_str(&format!("Bearer {TOKEN}")).unwrap();
        request.headers_mut().entry(AUTHORIZATION).or_insert(bearer);
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let is_page =
            parts.headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
        let json =
            if body.is_empty() || is_page { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        Answer { status: parts.status, headers: parts.headers, json, body }
    }

    /// Runs `client` while the doors are served on a port of this machine.
    pub(crate) async fn serve_while<T>(&self, client: impl AsyncFnOnce(SocketAddr) -> T) -> T {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::select! {
            biased;
            served = axum::serve(listener, self.router.clone()).into_future() => panic!("served: {served:?}"),
            done = client(address) => done,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    /// Posts records to `flights/1`.
    pub(crate) async fn append(&self, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        self.post("/api/v1/streams/flights/1/records", headers, body).await
    }

    /// The entries of a stream's topic, by partition and offset.
    pub(crate) async fn entries(&self, dataset: &str, stage: Stage) -> Vec<(u32, Entry)> {
        let stream = self.ingest.catalog.get(&StreamName::new(dataset, "1").unwrap()).unwrap();
        let mut entries = Vec::new();
        for partition in stream.partitions() {
            let place = Place::new(stream.topic(stage), partition);
            let bounds = self.log.bounds(&place).await.unwrap();
            let mut offset = bounds.start;
            while offset < bounds.end {
                let chunk = self.log.read(&Position { place: place.clone(), offset }, 1 << 20).await.unwrap();
                entries.extend(chunk.entries.into_iter().map(|entry| (partition.0, entry)));
                offset = chunk.next;
            }
        }
        entries
    }

    /// What stands in the catalog's topic.
    pub(crate) async fn catalog_values(&self) -> Vec<String> {
        let place = Place::new(Catalog::topic(), broker::Partition(0));
        let from = Position { place, offset: broker::Offset(0) };
        let entries = self.log.read(&from, 1 << 20).await.unwrap().entries;
        let text = |entry: Entry| String::from_utf8(entry.record.value.to_vec()).unwrap();
        entries.into_iter().map(text).collect()
    }

    /// The values of `flights/1`'s raw records.
    pub(crate) async fn raw_values(&self) -> Vec<String> {
        let entries = self.entries("flights", Stage::Raw).await;
        let text = |(_, entry): (u32, Entry)| String::from_utf8(entry.record.value.to_vec()).unwrap();
        entries.into_iter().map(text).collect()
    }

    /// Writes records to a partition of a topic of a stream.
    pub(crate) async fn write(&self, place: Place, records: &[Record]) {
        let batch = Batch::of(records).unwrap();
        self.log.append(vec![Append { place, batch }]).await.unwrap();
    }
}
