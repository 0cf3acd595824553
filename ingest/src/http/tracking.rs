//! `/track`, `/alias` and `/profile`: the collector of user events that this surface stands in for. Each request
//! is one record of a stream of its own.
//!
//! Clients of the original present nothing. Here they do, unless the surface is open to everybody.

mod form;
mod refused;
mod segment;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Router};
use broker::access::{ADMINISTRATOR, Caller, Denial};
use broker::catalog::Draft;
use broker::{Confidentiality, Kind, Permission, Principal, Result, StreamName};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::openapi::OpenApi as Api;
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

use self::form::{Absent, Field, Form, Held};
use self::refused::{Refused, Told};
use super::api::alias as alias_of;
use super::arrived::Arrived;
use super::{json, media_type};
use crate::Ingest;
use crate::append::NewEvent;

/// The largest record, in bytes: what a delivery stream of the original takes.
const RECORD_BYTES_MAX: usize = 1_000 << 10;
/// The version of each stream.
const VERSION: &str = "1";

/// The collector of user events.
pub struct Tracking {
    ingest: Arc<Ingest>,
    is_open: bool,
}

/// One of the three requests.
struct Door {
    dataset: &'static str,
    /// The field that a record's partition follows.
    key: &'static str,
    form: Form,
}

static EVENT: Form = Form(&[
    Field { name: "eventName", held: Held::Text, absent: Absent::Refused },
    Field { name: "metadata", held: Held::Object, absent: Absent::LeftOut },
    Field { name: "timestampUTC", held: Held::Whole, absent: Absent::LeftOut },
]);

static TRACK: Door = Door {
    dataset: "log_user_events",
    key: "/userId",
    form: Form(&[
        Field { name: "userId", held: Held::Text, absent: Absent::Refused },
        Field { name: "events", held: Held::List(&EVENT), absent: Absent::Refused },
    ]),
};

static ALIAS: Door = Door {
    dataset: "link_users",
    key: "/originalUserId",
    form: Form(&[
        Field { name: "newUserId", held: Held::Text, absent: Absent::Refused },
        Field { name: "originalUserId", held: Held::Text, absent: Absent::Refused },
        Field { name: "timestampUTC", held: Held::Whole, absent: Absent::Written("0") },
    ]),
};

static PROFILE: Door = Door {
    dataset: "user_profiles",
    key: "/userId",
    form: Form(&[
        Field { name: "userId", held: Held::Text, absent: Absent::Refused },
        Field { name: "attributes", held: Held::Object, absent: Absent::Written("null") },
        Field { name: "timestampUTC", held: Held::Whole, absent: Absent::Written("0") },
    ]),
};

const DOORS: [&Door; 3] = [&TRACK, &ALIAS, &PROFILE];

impl Tracking {
    /// What it answers; each refuses by itself, in the words that its clients know. What ends with `/` stands
    /// for all below.
    pub const PATHS: [&str; 4] = ["/track", "/alias", "/profile", "/v1/"];

    /// Makes its streams where they are missing. With `is_open`, who presents nothing may write to them.
    pub async fn new(ingest: Arc<Ingest>, is_open: bool) -> Result<Arc<Self>> {
        for door in DOORS {
            door.make_stream(&ingest).await?;
        }
        Ok(Arc::new(Self { ingest, is_open }))
    }

    /// The HTTP doors, for a [`Guard`](crate::auth::Guard) that leaves refusing to them.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/track", post(track))
            .route("/alias", post(alias))
            .route("/profile", post(profile))
            .merge(segment::router())
            .with_state(self.clone())
    }

    /// What they are.
    pub fn openapi() -> Api {
        let mut api = Documented::openapi();
        for path in ["/v1/identify", "/v1/alias", "/v1/page", "/v1/screen", "/v1/group"] {
            alias_of(&mut api, "/v1/track", path);
        }
        api
    }

    /// Whether somebody may send to a door.
    fn check(&self, door: &Door, caller: Result<Principal, Denial>) -> Result<(), Refused> {
        match caller {
            Ok(caller) => Ok(self.ingest.catalog.require(&caller, door.dataset, Permission::Write)?),
            Err(Denial::Missing) if self.is_open => Ok(()),
            Err(denial) => Err(denial.into()),
        }
    }
}

impl Door {
    fn stream(&self) -> Result<StreamName> {
        StreamName::new(self.dataset, VERSION)
    }

    async fn make_stream(&self, ingest: &Ingest) -> Result<()> {
        if ingest.catalog.get(&self.stream()?).is_ok() {
            return Ok(());
        }
        let draft = Draft {
            dataset: self.dataset.to_owned(),
            version: VERSION.to_owned(),
            // They tell what people do.
            confidentiality: Confidentiality::Red,
            key: Some(self.key.to_owned()),
            ..Draft::default()
        };
        match ingest.catalog.create(draft, ADMINISTRATOR).await {
            Ok(_) => Ok(()),
            // Another process was quicker.
            Err(error) if error.kind() == Kind::Conflict => Ok(()),
            Err(error) => Err(error.context(format!("make the stream {}", self.dataset))),
        }
    }

    /// The record that a body is.
    fn record(&self, body: &[u8]) -> Result<Vec<u8>, Refused> {
        let value: &RawValue = serde_json::from_slice(body).map_err(|_| Refused::not_understood())?;
        let object = self.form.read(value.get())?;
        let record = self.form.write(&object);
        if record.len() > RECORD_BYTES_MAX {
            let message = format!("a record has at most {RECORD_BYTES_MAX} bytes, not {}", record.len());
            return Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        Ok(record)
    }
}

/// Events of a user.
#[derive(ToSchema)]
#[allow(dead_code, reason = "read by hand")]
#[schema(as = Track)]
struct TrackBody {
    #[serde(rename = "userId")]
    user_id: String,
    events: Vec<TrackedEvent>,
}

#[derive(ToSchema)]
#[allow(dead_code, reason = "read by hand")]
struct TrackedEvent {
    #[serde(rename = "eventName")]
    event_name: String,
    #[schema(value_type = Option<BTreeMap<String, Value>>, nullable = false)]
    metadata: Option<BTreeMap<String, Value>>,
    #[serde(rename = "timestampUTC")]
    #[schema(nullable = false)]
    timestamp_utc: Option<isize>,
}

/// Another id of a user.
#[derive(ToSchema)]
#[allow(dead_code, reason = "read by hand")]
#[schema(as = Alias)]
struct AliasBody {
    #[serde(rename = "newUserId")]
    new_user_id: String,
    #[serde(rename = "originalUserId")]
    original_user_id: String,
    #[serde(rename = "timestampUTC")]
    #[schema(nullable = false)]
    timestamp_utc: Option<isize>,
}

/// Attributes of a user.
#[derive(ToSchema)]
#[allow(dead_code, reason = "read by hand")]
#[schema(as = Profile)]
struct ProfileBody {
    #[serde(rename = "userId")]
    user_id: String,
    #[schema(value_type = Option<BTreeMap<String, Value>>, nullable = false)]
    attributes: Option<BTreeMap<String, Value>>,
    #[serde(rename = "timestampUTC")]
    #[schema(nullable = false)]
    timestamp_utc: Option<isize>,
}

#[derive(OpenApi)]
#[openapi(paths(track, alias, profile, segment::batch, segment::one))]
struct Documented;

#[utoipa::path(
    post,
    path = "/track",
    tag = "tracking",
    operation_id = "track",
    summary = "Takes events of a user",
    request_body = TrackBody,
    responses(
        (status = 200, description = "They are durable", body = Accepted),
        (status = "4XX", description = "The request is refused", content((Told = "application/json"), (String = "text/html"))),
        (status = "5XX", description = "It cannot be done now", content((Told = "application/json"), (String = "text/html"))),
    ),
)]
async fn track(state: State<Arc<Tracking>>, caller: Extension<Caller>, request: Request) -> Response {
    take(&TRACK, (state, caller), request).await
}

#[utoipa::path(
    post,
    path = "/alias",
    tag = "tracking",
    operation_id = "alias",
    summary = "Takes another id of a user",
    request_body = AliasBody,
    responses(
        (status = 200, description = "It is durable", body = Accepted),
        (status = "4XX", description = "The request is refused", content((Told = "application/json"), (String = "text/html"))),
        (status = "5XX", description = "It cannot be done now", content((Told = "application/json"), (String = "text/html"))),
    ),
)]
async fn alias(state: State<Arc<Tracking>>, caller: Extension<Caller>, request: Request) -> Response {
    take(&ALIAS, (state, caller), request).await
}

#[utoipa::path(
    post,
    path = "/profile",
    tag = "tracking",
    operation_id = "profile",
    summary = "Takes attributes of a user",
    request_body = ProfileBody,
    responses(
        (status = 200, description = "They are durable", body = Accepted),
        (status = "4XX", description = "The request is refused", content((Told = "application/json"), (String = "text/html"))),
        (status = "5XX", description = "It cannot be done now", content((Told = "application/json"), (String = "text/html"))),
    ),
)]
async fn profile(state: State<Arc<Tracking>>, caller: Extension<Caller>, request: Request) -> Response {
    take(&PROFILE, (state, caller), request).await
}

async fn take(
    door: &'static Door,
    (State(tracking), Extension(Caller(caller))): (State<Arc<Tracking>>, Extension<Caller>),
    request: Request,
) -> Response {
    let wants_json = refused::wants_json(request.headers());
    match append(door, (&tracking, caller), request).await {
        Ok(()) => accepted(),
        Err(refused) => refused.answer(wants_json),
    }
}

async fn append(
    door: &'static Door,
    (tracking, caller): (&Tracking, Result<Principal, Denial>),
    request: Request,
) -> Result<(), Refused> {
    tracking.check(door, caller)?;
    if !is_json(request.headers())? {
        return Err(Refused::not_understood());
    }
    let ingest = &tracking.ingest;
    let stream = ingest.catalog.get(&door.stream()?)?;
    let arrived = Arrived::read(ingest, request).await?;
    let prepare = move |ingest: &Ingest, body: &[u8]| {
        let record = door.record(body)?;
        let event = NewEvent { value: &record, line: None, key: None };
        Ok::<_, Refused>(ingest.prepare(&stream, vec![event], true)?)
    };
    let ready = arrived.prepare(prepare).await?;
    ingest.append(ready.prepared).await?;
    Ok(())
}

/// Whether a body is said to be JSON.
fn is_json(headers: &HeaderMap) -> Result<bool, Refused> {
    let media_type = media_type(headers)?.unwrap_or_default();
    let name = media_type.strip_prefix("application/").unwrap_or_default();
    Ok(name == "json" || name.ends_with("+json"))
}

/// What the original passed on of its back end's answer.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
struct Accepted {
    request_id: String,
    #[serde(rename = "HTTPStatusCode")]
    http_status_code: u16,
    #[serde(rename = "HTTPHeaders")]
    #[schema(value_type = BTreeMap<String, String>)]
    http_headers: BTreeMap<&'static str, String>,
    retry_attempts: u32,
}

fn accepted() -> Response {
    let request_id = Uuid::now_v7().to_string();
    let answer = Accepted {
        http_headers: [("x-amzn-requestid", request_id.clone())].into(),
        request_id,
        http_status_code: StatusCode::OK.as_u16(),
        retry_attempts: 0,
    };
    json(StatusCode::OK, &answer).unwrap_or_else(|_| StatusCode::OK.into_response())
}
