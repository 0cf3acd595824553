//! `/api/v1/streams`: create, list, show, change and delete streams.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use broker::catalog::{Draft, Edit};
use broker::{Error, Permission, Principal, ResultExt as _};
use http::header::{HeaderValue, LOCATION};
use http::{HeaderMap, StatusCode, Uri};
use proto::problem::ProblemBody;
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use super::{Refusal, StreamPath, json, media_type, parameters, stream_name};
use crate::Ingest;
use crate::body::BodyLimit;
use crate::definition::{DEFINITION_BYTES_MAX, Shown, parse};

#[utoipa::path(
    post,
    path = "/api/v1/streams",
    tag = "streams",
    operation_id = "createStream",
    summary = "Creates a stream",
    request_body = Draft,
    responses(
        (status = 201, description = "It is there", body = Shown<'_>, headers(("Location" = String, description = "Its path"))),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn create(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Principal>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    parameters(&uri, &[])?;
    let draft: Draft = read(&ingest, &headers, body).await?;
    ingest.catalog.require(&caller, draft.name()?.dataset(), Permission::Update)?;
    let stream = ingest.catalog.create(draft, caller.name()).await?;
    let location = format!("/api/v1/streams/{}", stream.name());
    let location =
        HeaderValue::try_from(location).or_error(broker::Kind::Internal, "write the stream's location")?;
    let mut response = json(StatusCode::CREATED, &Shown::of(&stream))?;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

#[utoipa::path(
    get,
    path = "/api/v1/streams",
    tag = "streams",
    operation_id = "listStreams",
    summary = "Lists streams",
    responses(
        (status = 200, description = "Those of datasets that the caller may do anything with", body = inline(StreamList<'_>)),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn list(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Principal>,
    uri: Uri,
) -> Result<Response, Refusal> {
    parameters(&uri, &[])?;
    let streams = ingest.visible_streams(&caller);
    let streams = streams.iter().map(|stream| Shown::of(stream)).collect();
    Ok(json(StatusCode::OK, &StreamList { streams })?)
}

#[utoipa::path(
    get,
    path = "/api/v1/streams/{dataset}/{version}",
    tag = "streams",
    operation_id = "showStream",
    summary = "Shows a stream",
    params(
        ("dataset" = String, Path, description = "The dataset id", pattern = "^[a-z0-9][a-z0-9_-]{0,69}$"),
        ("version" = String, Path, description = "The version", pattern = "^[A-Za-z0-9_-]{1,32}$"),
    ),
    responses(
        (status = 200, description = "The stream", body = Shown<'_>),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn show(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Principal>,
    path: StreamPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    parameters(&uri, &[])?;
    let stream = ingest.visible_stream(&caller, &stream_name(path)?)?;
    Ok(json(StatusCode::OK, &Shown::of(&stream))?)
}

#[utoipa::path(
    patch,
    path = "/api/v1/streams/{dataset}/{version}",
    tag = "streams",
    operation_id = "changeStream",
    summary = "Changes a stream",
    params(
        ("dataset" = String, Path, description = "The dataset id", pattern = "^[a-z0-9][a-z0-9_-]{0,69}$"),
        ("version" = String, Path, description = "The version", pattern = "^[A-Za-z0-9_-]{1,32}$"),
    ),
    request_body = Edit,
    responses(
        (status = 200, description = "The stream as it is now", body = Shown<'_>),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn change(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Principal>,
    path: StreamPath,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    parameters(&head.uri, &[])?;
    let name = stream_name(path)?;
    ingest.stream(&caller, &name, Permission::Update)?;
    let edit: Edit = read(&ingest, &head.headers, body).await?;
    let stream = ingest.catalog.change(&name, edit, caller.name()).await?;
    Ok(json(StatusCode::OK, &Shown::of(&stream))?)
}

#[utoipa::path(
    delete,
    path = "/api/v1/streams/{dataset}/{version}",
    tag = "streams",
    operation_id = "deleteStream",
    summary = "Deletes a stream",
    params(
        ("dataset" = String, Path, description = "The dataset id", pattern = "^[a-z0-9][a-z0-9_-]{0,69}$"),
        ("version" = String, Path, description = "The version", pattern = "^[A-Za-z0-9_-]{1,32}$"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn delete(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Principal>,
    path: StreamPath,
    uri: Uri,
) -> Result<StatusCode, Refusal> {
    parameters(&uri, &[])?;
    let name = stream_name(path)?;
    ingest.stream(&caller, &name, Permission::Update)?;
    ingest.catalog.delete(&name, caller.name()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Streams by name.
#[derive(Serialize, ToSchema)]
pub(super) struct StreamList<'s> {
    streams: Vec<Shown<'s>>,
}

const DEFINITION: BodyLimit = BodyLimit { name: "definition_bytes_max", bytes_max: DEFINITION_BYTES_MAX };

/// Reads a small JSON body. An error names the field at fault.
pub(super) async fn read<T: DeserializeOwned>(
    ingest: &Ingest,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Refusal> {
    if media_type(headers)?.is_some_and(|media_type| media_type != "application/json") {
        return Err(Refusal::unsupported("content-type", "a definition is sent as application/json"));
    }
    let (body, _charge) = ingest.read_body(headers, body, DEFINITION).await?;
    if body.trim_ascii().is_empty() {
        return Err(Error::invalid("body", "the body is empty").into());
    }
    Ok(parse(&body)?)
}
