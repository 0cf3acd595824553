//! The HTTP tracking API of Segment's libraries: `/v1/batch`, and a path for each type of message
//! ([its description](https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/)).
//!
//! What a message says of a user is written as the collector's own requests are, with the message's other fields
//! behind, as they were sent; `messageId` among them.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Router};
use broker::access::{Caller, Denial, Peer};
use broker::{Error, Permission, Principal, Result, Timestamp};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::form::{Object, Record};
use super::{ALIAS, DOORS, Door, PROFILE, TRACK, Tracking};
use crate::Ingest;
use crate::append::{NewEvent, Prepared};
use crate::http::arrived::Arrived;
use crate::http::json;
use crate::http::message::{Message as Told, Refused, denied};

/// A type of message.
struct Type {
    name: &'static str,
    door: &'static Door,
    /// The fields that stand elsewhere in its record, or whose names the record needs.
    moved: &'static [&'static str],
}

static TYPES: [Type; 6] = [
    Type { name: "identify", door: &PROFILE, moved: &["userId", "attributes", "traits"] },
    Type { name: "alias", door: &ALIAS, moved: &["newUserId", "originalUserId", "userId", "previousId"] },
    Type { name: "track", door: &TRACK, moved: &["userId", "events", "event", "properties"] },
    Type { name: "page", door: &TRACK, moved: &["userId", "events", "name", "properties"] },
    Type { name: "screen", door: &TRACK, moved: &["userId", "events", "name", "properties"] },
    Type { name: "group", door: &TRACK, moved: &["userId", "events", "traits"] },
];

impl Type {
    fn of(name: &str) -> Result<&'static Self> {
        TYPES.iter().find(|of| of.name == name).ok_or_else(|| {
            let names: Vec<&str> = TYPES.iter().map(|of| of.name).collect();
            Error::invalid("type", format!("a type is one of {}", names.join(", ")))
        })
    }

    /// The record of a message.
    fn record(&self, message: &Object<'_>) -> Result<Vec<u8>> {
        let time = time(message)?;
        let user = text(message, "userId")?.or(text(message, "anonymousId")?);
        let user =
            user.ok_or_else(|| Error::invalid("userId", "a message has a userId or an anonymousId"))?;
        let mut record = Record::new();
        match self.name {
            "identify" => {
                record.put("userId", user);
                record.put("attributes", object(message, "traits")?);
            }
            "alias" => {
                let before = text(message, "previousId")?;
                let before =
                    before.ok_or_else(|| Error::invalid("previousId", "an alias has the id before"))?;
                record.put("newUserId", user);
                record.put("originalUserId", before);
            }
            _ => {
                record.put("userId", user);
                record.put("events", &self.event(message, time)?);
            }
        }
        if !std::ptr::eq(self.door, &TRACK) {
            record.put("timestampUTC", &time.unwrap_or_default().to_string());
        }
        record.put("type", &format!("\"{}\"", self.name));
        for (name, value) in message.iter() {
            if !self.moved.contains(&name) && !["type", "timestampUTC"].contains(&name) {
                record.put(name, value);
            }
        }
        Ok(record.finish())
    }

    /// The list of the one event that a message is.
    fn event(&self, message: &Object<'_>, time: Option<i64>) -> Result<String> {
        let name = match self.name {
            "track" => {
                let missing = || Error::invalid("event", "the event's name is missing");
                text(message, "event")?.ok_or_else(missing)?.to_owned()
            }
            "page" | "screen" => match text(message, "name")? {
                Some(name) => name.to_owned(),
                None => format!("\"{}\"", self.name),
            },
            name => format!("\"{name}\""),
        };
        let metadata = object(message, if self.name == "group" { "traits" } else { "properties" })?;
        let time = time.map(|time| format!(",\"timestampUTC\":{time}")).unwrap_or_default();
        Ok(format!("[{{\"eventName\":{name},\"metadata\":{metadata}{time}}}]"))
    }
}

/// A text of a message, as it was sent; one that is empty or null is none.
fn text<'b>(message: &Object<'b>, name: &str) -> Result<Option<&'b str>> {
    match message.get(name) {
        None | Some("null" | "\"\"") => Ok(None),
        Some(text) if text.starts_with('"') => Ok(Some(text)),
        Some(_) => Err(Error::invalid(name, "this is a text")),
    }
}

/// An object of a message, as it was sent; an empty one where there is none.
fn object<'b>(message: &Object<'b>, name: &str) -> Result<&'b str> {
    match message.get(name) {
        None | Some("null") => Ok("{}"),
        Some(text) if text.starts_with('{') => Ok(text),
        Some(_) => Err(Error::invalid(name, "this is an object")),
    }
}

/// When it was, in milliseconds since 1970.
fn time(message: &Object<'_>) -> Result<Option<i64>> {
    let Some(text) = text(message, "timestamp")? else { return Ok(None) };
    let read = serde_json::from_str::<Timestamp>(text);
    let time = read.map_err(|_| Error::invalid("timestamp", "a time is an RFC 3339 instant"))?;
    Ok(Some(time.micros().div_euclid(1_000)))
}

pub(super) fn router() -> Router<Arc<Tracking>> {
    Router::new()
        .route("/v1/batch", post(batch))
        .route("/v1/identify", post(one))
        .route("/v1/alias", post(one))
        .route("/v1/track", post(one))
        .route("/v1/page", post(one))
        .route("/v1/screen", post(one))
        .route("/v1/group", post(one))
}

/// What is answered: libraries look at the status alone.
#[derive(Serialize, ToSchema)]
#[schema(as = SegmentAnswer)]
struct Taken {
    success: bool,
}

#[utoipa::path(
    post,
    path = "/v1/batch",
    tag = "tracking",
    operation_id = "segmentBatch",
    summary = "Takes messages of Segment's libraries",
    security(("bearer" = []), ("writeKey" = [])),
    request_body(content = serde_json::Value, description = "`batch`: a list of messages, each with its `type`"),
    responses(
        (status = 200, description = "They are durable", body = Taken),
        (status = "4XX", description = "The request is refused", body = Told<'_>),
        (status = "5XX", description = "It cannot be done now", body = Told<'_>),
    ),
)]
pub(super) async fn batch(
    State(tracking): State<Arc<Tracking>>,
    Extension(Caller(caller)): Extension<Caller>,
    request: Request,
) -> Response {
    take(&tracking, caller, (None, request)).await
}

#[utoipa::path(
    post,
    path = "/v1/track",
    tag = "tracking",
    operation_id = "segmentTrack",
    summary = "Takes a message of Segment's libraries",
    security(("bearer" = []), ("writeKey" = [])),
    request_body(content = serde_json::Value, description = "A message"),
    responses(
        (status = 200, description = "It is durable", body = Taken),
        (status = "4XX", description = "The request is refused", body = Told<'_>),
        (status = "5XX", description = "It cannot be done now", body = Told<'_>),
    ),
)]
pub(super) async fn one(
    State(tracking): State<Arc<Tracking>>,
    Extension(Caller(caller)): Extension<Caller>,
    request: Request,
) -> Response {
    let name = request.uri().path().rsplit('/').next().unwrap_or_default();
    match Type::of(name) {
        Ok(of) => take(&tracking, caller, (Some(of), request)).await,
        Err(error) => Refused::from(error).into_response(),
    }
}

async fn take(
    tracking: &Arc<Tracking>,
    caller: Result<Principal, Denial>,
    (of, request): (Option<&'static Type>, Request),
) -> Response {
    let caller = match tracking.sender(caller, &request) {
        Ok(caller) => caller,
        Err(denial) => return denied(denial),
    };
    match append(tracking, caller, (of, request)).await {
        Ok(response) => response,
        Err(refused) => refused.into_response(),
    }
}

async fn append(
    tracking: &Arc<Tracking>,
    caller: Option<Principal>,
    (of, request): (Option<&'static Type>, Request),
) -> Result<Response, Refused> {
    let ingest = &tracking.ingest;
    if let Some(of) = of {
        check(ingest, caller.as_ref(), of.door)?;
    }
    let arrived = Arrived::read(ingest, request).await?;
    let prepare = move |ingest: &Ingest, body: &[u8]| prepare(ingest, caller.as_ref(), of, body);
    let ready = arrived.prepare(prepare).await?;
    ingest.append(ready.prepared).await?;
    Ok(json(StatusCode::OK, &Taken { success: true })?)
}

/// Who may write everywhere has no name here.
fn check(ingest: &Ingest, caller: Option<&Principal>, door: &Door) -> Result<()> {
    caller.map_or(Ok(()), |caller| ingest.catalog.require(caller, door.dataset, Permission::Write))
}

fn prepare(
    ingest: &Ingest,
    caller: Option<&Principal>,
    of: Option<&'static Type>,
    body: &[u8],
) -> Result<Prepared, Refused> {
    let mut records: [Vec<Vec<u8>>; DOORS.len()] = Default::default();
    let mut put = |of: &'static Type, message: &Object<'_>| -> Result<()> {
        let at = DOORS.iter().position(|door| std::ptr::eq(*door, of.door)).unwrap_or_default();
        records[at].push(of.record(message)?);
        Ok(())
    };
    let not_json =
        |error: serde_json::Error| Error::invalid("body", format!("the body is no message: {error}"));
    let whole: Object<'_> = serde_json::from_slice(body).map_err(not_json)?;
    match of {
        Some(of) => put(of, &whole)?,
        None => {
            let batch =
                whole.get("batch").ok_or_else(|| Error::invalid("batch", "the messages are missing"))?;
            let batch: Vec<&RawValue> =
                serde_json::from_str(batch).map_err(|_| Error::invalid("batch", "this is a list"))?;
            for (index, message) in batch.into_iter().enumerate() {
                let at = |error: Error| {
                    let field = format!("batch[{index}].{}", error.field().unwrap_or_default());
                    error.with_field(field)
                };
                let message: Object<'_> = serde_json::from_str(message.get())
                    .map_err(|_| Error::invalid(format!("batch[{index}]"), "a message is an object"))?;
                let name = text(&message, "type").map_err(at)?.unwrap_or_default();
                put(Type::of(name.trim_matches('"')).map_err(at)?, &message).map_err(at)?;
            }
        }
    }
    let mut prepared = Prepared::default();
    for (door, records) in DOORS.into_iter().zip(&records).filter(|(_, records)| !records.is_empty()) {
        check(ingest, caller, door)?;
        let stream = ingest.catalog.get(&door.stream()?)?;
        let events = records.iter().map(|record| NewEvent { value: record, line: None, key: None });
        prepared = prepared.and(ingest.prepare(&stream, events.collect(), true)?);
    }
    Ok(prepared)
}

impl Tracking {
    /// Who sends messages: a bearer, or the library's write key, which is an API key. None where everybody may.
    fn sender(
        &self,
        caller: Result<Principal, Denial>,
        request: &Request,
    ) -> Result<Option<Principal>, Denial> {
        let denial = match caller {
            Ok(caller) => return Ok(Some(caller)),
            Err(denial) => denial,
        };
        let peer = request.extensions().get::<Peer>().copied().unwrap_or_default();
        match write_key(request.headers()) {
            Some(key) if key.starts_with(b"hwk.") => self.ingest.credentials.holder_of(&key, peer).map(Some),
            Some(_) | None if self.is_open && matches!(denial, Denial::Missing | Denial::Unsupported) => {
                Ok(None)
            }
            _ => Err(denial),
        }
    }
}

/// The name of HTTP's basic credentials, which is where libraries put the write key.
fn write_key(headers: &HeaderMap) -> Option<Vec<u8>> {
    let mut decoded = crate::auth::basic(headers)?;
    let end = decoded.iter().position(|c| *c == b':').unwrap_or(decoded.len());
    decoded.truncate(end);
    Some(decoded)
}
