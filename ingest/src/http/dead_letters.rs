//! `…/dead-letters` and `…/dead-letters/replay`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::{DeadLetter, Error, Origin, Permission, Principal, Timestamp};
use http::{StatusCode, Uri};
use serde::Serialize;

use super::{Refusal, StreamPath, json, parameters, stream_name};
use crate::Ingest;
use crate::dead_letters::{LIMIT_DEFAULT, Page};

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

pub(super) async fn replay(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Principal>,
    path: StreamPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    struct Replayed {
        replayed: u64,
    }
    parameters(&uri, &[])?;
    let stream = ingest.stream(&caller, &stream_name(path)?, Permission::Update)?;
    let replayed = ingest.replay_dead_letters(&stream).await?;
    Ok(json(StatusCode::OK, &Replayed { replayed })?)
}

#[derive(Serialize)]
struct Answer {
    dead_letters: Vec<Shown>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Shown {
    origin: Origin,
    reason: String,
    transform_version: u32,
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
