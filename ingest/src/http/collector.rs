//! `/event/{dataset}/{version}` and `/events/…`, and the same below `/webhook` for holders of a webhook
//! token: the collector that this surface stands in for. A body is an object or an array of objects, each
//! an event, whatever its content type says.
//!
//! Whether the dataset is there is answered before who may write to it, as there.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Router};
use broker::access::webhook::{Operation, Webhooks as _};
use broker::access::{Caller, Denial, Peer};
use broker::catalog::Stream;
use broker::metadata::DocumentId;
use broker::{Error, Permission, Principal, StreamName};
use http::{StatusCode, Uri};
use serde::Serialize;
use serde_json::value::RawValue;

use super::arrived::Arrived;
use super::message::{Message, Refused, denied, said};
use super::{StreamPath, json_of_about};
use crate::Ingest;
use crate::append::{Lost, Prepared};
use crate::cut::{Shape, cut};

const NOT_JSON: &str = "Body is not a valid JSON document";
const NOT_CONFORMING: &str = "JSON document does not conform to the given schema";

pub(super) fn router() -> Router<Arc<Ingest>> {
    Router::new()
        .route("/event/{dataset}/{version}", post(take))
        .route("/events/{dataset}/{version}", post(take))
        .route("/webhook/event/{dataset}/{version}", post(take_from_webhook))
        .route("/webhook/events/{dataset}/{version}", post(take_from_webhook))
}

/// Who sends events.
enum Sender {
    Principal(Principal),
    Webhook { token: String, peer: Peer },
}

impl Sender {
    /// Who sends, or who made the token that is sent with, if it may.
    fn check(&self, ingest: &Ingest, dataset: &str) -> Result<String, Refused> {
        match self {
            Sender::Principal(principal) => {
                ingest.catalog.require(principal, dataset, Permission::Write)?;
                Ok(principal.name().to_owned())
            }
            Sender::Webhook { token, peer } => {
                let token = ingest.credentials.authorize(token, (dataset, Operation::Write), *peer)?;
                Ok(token.value.created_by.clone())
            }
        }
    }
}

#[utoipa::path(
    post,
    path = "/event/{dataset}/{version}",
    tag = "collector",
    operation_id = "collectEvent",
    summary = "Takes events",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("version" = String, Path, description = "The version"),
    ),
    request_body(content = serde_json::Value, description = "An event, or an array of events"),
    responses(
        (status = 200, description = "They are durable", body = Message<'_>),
        (status = "4XX", description = "The request is refused", body = Message<'_>),
        (status = "5XX", description = "It cannot be done now", body = Message<'_>),
    ),
)]
async fn take(
    State(ingest): State<Arc<Ingest>>,
    Extension(Caller(caller)): Extension<Caller>,
    path: StreamPath,
    request: Request,
) -> Response {
    match caller {
        Ok(caller) => answered(collect(&ingest, &Sender::Principal(caller), path, request).await),
        Err(denial) => denied(denial),
    }
}

#[utoipa::path(
    post,
    path = "/webhook/event/{dataset}/{version}",
    tag = "collector",
    operation_id = "collectWebhookEvent",
    security(("webhook" = [])),
    summary = "Takes events",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("version" = String, Path, description = "The version"),
        ("token" = String, Query, description = "The webhook token"),
    ),
    request_body(content = serde_json::Value, description = "An event, or an array of events"),
    responses(
        (status = 200, description = "They are durable", body = Message<'_>),
        (status = "4XX", description = "The request is refused", body = Message<'_>),
        (status = "5XX", description = "It cannot be done now", body = Message<'_>),
    ),
)]
async fn take_from_webhook(
    State(ingest): State<Arc<Ingest>>,
    path: StreamPath,
    request: Request,
) -> Response {
    let Some(token) = token(request.uri()) else { return denied(Denial::Missing) };
    let peer = request.extensions().get::<Peer>().copied().unwrap_or_default();
    answered(collect(&ingest, &Sender::Webhook { token, peer }, path, request).await)
}

/// The token of a query, where it names one; other parameters are the sender's own.
fn token(uri: &Uri) -> Option<String> {
    let mut pairs = form_urlencoded::parse(uri.query()?.as_bytes()).filter(|(name, _)| name == "token");
    let (token, another) = (pairs.next()?.1, pairs.next());
    (another.is_none() && !token.is_empty()).then(|| token.into_owned())
}

async fn collect(
    ingest: &Arc<Ingest>,
    sender: &Sender,
    path: StreamPath,
    request: Request,
) -> Result<Response, Refused> {
    let Path((dataset, version)) = path.map_err(|error| Error::invalid("path", error.body_text()))?;
    let stream = existing(ingest, &dataset, &version)?;
    let by = sender.check(ingest, &dataset)?;
    let arrived = Arrived::read(ingest, request).await?;
    let stream = match stream {
        Some(stream) => stream,
        None => ingest.incoming(&StreamName::new(&dataset, &version)?, &by).await?,
    };
    let ready = arrived.prepare(move |ingest, body| prepare(ingest, &stream, body)).await?;
    match ingest.append_each(ready.prepared).await {
        Ok(()) => Ok(said(StatusCode::OK, "Ok")),
        Err(lost) => failed(lost, &ready.body),
    }
}

/// The stream, or none where only the dataset's version is described; 404 where neither is.
fn existing(ingest: &Ingest, dataset: &str, version: &str) -> Result<Option<Arc<Stream>>, Refused> {
    let name = StreamName::new(dataset, version);
    if let Some(stream) = name.ok().and_then(|name| ingest.catalog.get(&name).ok()) {
        return Ok(Some(stream));
    }
    let document = DocumentId::dataset(dataset);
    let is_there = |id: &DocumentId| ingest.catalog.document(id).is_some();
    if is_there(&document) && document.child(version).as_ref().is_some_and(is_there) {
        return Ok(None);
    }
    let message = format!("Dataset with id:{dataset} and version:{version} does not exist");
    Err(Refused::new(StatusCode::NOT_FOUND, message))
}

fn prepare(ingest: &Ingest, stream: &Stream, body: &[u8]) -> Result<Prepared, Refused> {
    let wrong = |message| Refused::new(StatusCode::BAD_REQUEST, message);
    let events = cut(body, Shape::Json, None).map_err(|_| wrong(NOT_JSON))?;
    if events.is_empty() || !events.iter().all(|event| event.value.starts_with(b"{")) {
        return Err(wrong(NOT_CONFORMING));
    }
    // What cannot be taken refuses all: the answer has no words for a part of them.
    Ok(ingest.prepare(stream, events, true)?)
}

/// The answer where the log did not take everything: which events it was.
fn failed(lost: Lost, body: &[u8]) -> Result<Response, Refused> {
    #[derive(Serialize)]
    struct Answer<'a> {
        message: &'a str,
        #[serde(rename = "failedElements")]
        failed_elements: Vec<&'a RawValue>,
    }
    let Lost { error, events: lost, is_all } = lost;
    if is_all {
        return Err(error.into());
    }
    tracing::warn!(%error, events = lost.len(), "a part of a request was not written");
    let events = cut(body, Shape::Json, None)?;
    let elements =
        lost.iter().filter_map(|(index, _)| serde_json::from_slice(events.get(*index)?.value).ok());
    let answer = Answer { message: "Request failed for some elements", failed_elements: elements.collect() };
    Ok(json_of_about(body.len(), StatusCode::INTERNAL_SERVER_ERROR, &answer)?)
}

fn answered(answer: Result<Response, Refused>) -> Response {
    answer.unwrap_or_else(|refused| refused.into_response())
}
