//! `…/dead-letters` and `…/dead-letters/replay`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::{DeadLetter, Error, Origin, Permission, Principal, Timestamp};
use http::{StatusCode, Uri};
use proto::problem::ProblemBody;
use serde::Serialize;
use utoipa::ToSchema;

use super::api::Place;
use super::{Refusal, StreamPath, json, parameters, stream_name};
use crate::Ingest;
use crate::dead_letters::{LIMIT_DEFAULT, Page};

#[utoipa::path(
    get,
    path = "/api/v1/streams/{dataset}/{version}/dead-letters",
    tag = "dead letters",
    operation_id = "listDeadLetters",
    summary = "Lists what could not be processed",
    params(
        ("dataset" = String, Path, description = "The dataset id", pattern = "^[a-z0-9][a-z0-9_-]{0,69}$"),
        ("version" = String, Path, description = "The version", pattern = "^[A-Za-z0-9_-]{1,32}$"),
        ("limit" = Option<u32>, Query, description = "1 to 1,000, 100 where it is not given", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "The cursor of the page before"),
    ),
    responses(
        (status = 200, description = "A page of them", body = inline(Answer)),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn list(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Principal>,
    path: StreamPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    let stream = ingest.stream(&caller, &stream_name(path)?, Permission::Update)?;
    let parameters = parameters(&uri, &["limit", "cursor"])?;
    let limit = match parameters.get("limit") {
        Some(limit) => limit.parse().map_err(|_| Error::invalid("limit", "a limit is a number"))?,
        None => LIMIT_DEFAULT,
    };
    let cursor = parameters.get("cursor").map(String::as_str);
    let Page { letters, cursor } = ingest.dead_letters(&stream, limit, cursor).await?;
    let dead_letters = letters.into_iter().map(Shown::from).collect();
    Ok(json(StatusCode::OK, &Answer { dead_letters, cursor })?)
}

#[utoipa::path(
    post,
    path = "/api/v1/streams/{dataset}/{version}/dead-letters/replay",
    tag = "dead letters",
    operation_id = "replayDeadLetters",
    summary = "Processes dead letters once more",
    params(
        ("dataset" = String, Path, description = "The dataset id", pattern = "^[a-z0-9][a-z0-9_-]{0,69}$"),
        ("version" = String, Path, description = "The version", pattern = "^[A-Za-z0-9_-]{1,32}$"),
    ),
    responses(
        (status = 200, description = "How many were processed once more", body = inline(Replayed)),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn replay(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Principal>,
    path: StreamPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    parameters(&uri, &[])?;
    let stream = ingest.stream(&caller, &stream_name(path)?, Permission::Update)?;
    let replayed = ingest.replay_dead_letters(&stream).await?;
    Ok(json(StatusCode::OK, &Replayed { replayed })?)
}

#[derive(Serialize, ToSchema)]
pub(super) struct Replayed {
    replayed: u64,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Answer {
    dead_letters: Vec<Shown>,
    cursor: Option<String>,
}

/// Something that could not be processed.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(super) struct Shown {
    #[schema(value_type = Place)]
    origin: Origin,
    reason: String,
    transform_version: u32,
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    key: Option<String>,
    value_base64: String,
}

impl From<DeadLetter> for Shown {
    fn from(letter: DeadLetter) -> Self {
        Self {
            origin: letter.origin,
            reason: letter.reason,
            transform_version: letter.transform_version,
            timestamp: letter.time,
            key: letter.key.map(|key| String::from_utf8_lossy(&key).into_owned()),
            value_base64: STANDARD.encode(&letter.value),
        }
    }
}
