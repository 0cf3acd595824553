//! `POST /api/v1/streams/{dataset}/{version}/records`.
//!
//! The body is one event or an array of events (`application/json`, or no content type), or an
//! event a line (`application/x-ndjson`), as it is or compressed with gzip or zstd. With `Prefer:
//! return=minimal` the answer holds ranges of offsets instead of an entry a record.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use broker::catalog::Stream;
use broker::{Error, Permission, Principal, Result};
use bytes::Bytes;
use http::{HeaderMap, Uri};
use proto::problem::ProblemBody;

use super::prefer::wants_minimal;
use super::{Refusal, StreamPath, answer, media_type, parameters, stream_name};
use crate::Ingest;
use crate::admission::Charge;
use crate::append::Prepared;
use crate::body::{BodyLimit, Coding, decode};
use crate::cut::{Shape, cut};

/// The key of all records of a request.
const KEY_HEADER: &str = "headwater-key";
/// Larger bodies are checked off the runtime's threads.
pub(super) const INLINE_BYTES_MAX: usize = 64 << 10;

#[utoipa::path(
    post,
    path = "/api/v1/streams/{dataset}/{version}/records",
    tag = "records",
    operation_id = "appendRecords",
    summary = "Appends records",
    params(
        ("dataset" = String, Path, description = "The dataset id", pattern = "^[a-z0-9][a-z0-9_-]{0,69}$"),
        ("version" = String, Path, description = "The version", pattern = "^[A-Za-z0-9_-]{1,32}$"),
        ("atomic" = Option<bool>, Query, description = "Whether one record that is refused refuses all"),
        ("Headwater-Key" = Option<String>, Header, description = "The key of all records"),
        ("Prefer" = Option<String>, Header, description = "`return=minimal`"),
        ("Content-Encoding" = Option<String>, Header, description = "`gzip`, `zstd` or `identity`"),
    ),
    request_body(description = "An event, an array of events, or an event a line (application/x-ndjson)", content((serde_json::Value = "application/json"), (String = "application/x-ndjson"))),
    responses(
        (status = 200, description = "An entry a record in the order sent; with `Prefer: return=minimal` ranges of offsets", body = serde_json::Value),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn append(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Principal>,
    path: StreamPath,
    request: Request,
) -> Result<Response, Refusal> {
    let (head, body) = request.into_parts();
    let headers = head.headers;
    let stream = ingest.stream(&caller, &stream_name(path)?, Permission::Write)?;
    let rules = Rules::read(&ingest, &head.uri, &headers)?;
    let limit = BodyLimit { name: "body_bytes_max", bytes_max: ingest.limits.body_bytes_max };
    let (body, mut charge) = ingest.read_body(&headers, body, limit).await?;
    let is_small = body.len() <= INLINE_BYTES_MAX && rules.coding == Coding::Identity;
    let (prepared, _charge) = if is_small {
        (rules.prepare(&ingest, &stream, body, &mut charge)?, charge)
    } else {
        prepare_aside(ingest.clone(), stream, rules, (body, charge)).await?
    };
    let written = ingest.append(prepared).await?;
    Ok(if wants_minimal(&headers) { answer::minimal(written)? } else { answer::full(&written)? })
}

/// What a request says beside its body.
struct Rules {
    shape: Shape,
    coding: Coding,
    key: Option<Bytes>,
    atomic: bool,
}

impl Rules {
    fn read(ingest: &Ingest, uri: &Uri, headers: &HeaderMap) -> Result<Self, Refusal> {
        let parameters = parameters(uri, &["atomic"])?;
        let atomic = match parameters.get("atomic").map(String::as_str) {
            Some("true") => true,
            Some("false") | None => false,
            Some(_) => return Err(Error::invalid("atomic", "atomic is true or false").into()),
        };
        let shape = match media_type(headers)?.as_deref() {
            None | Some("application/json") => Shape::Json,
            Some("application/x-ndjson" | "application/ndjson" | "application/jsonl") => Shape::Lines,
            Some(_) => {
                let message = "events are sent as application/json or application/x-ndjson";
                return Err(Refusal::unsupported("content-type", message));
            }
        };
        Ok(Self { shape, coding: Coding::of(headers)?, key: key(ingest, headers)?, atomic })
    }

    fn prepare(
        &self,
        ingest: &Ingest,
        stream: &Stream,
        body: Bytes,
        charge: &mut Charge,
    ) -> Result<Prepared> {
        let body = decode(body, self.coding, &ingest.limits, charge)?;
        let events = cut(&body, self.shape, self.key.as_deref())?;
        ingest.prepare(stream, events, self.atomic)
    }
}

fn key(ingest: &Ingest, headers: &HeaderMap) -> Result<Option<Bytes>> {
    let mut values = headers.get_all(KEY_HEADER).iter();
    let Some(key) = values.next() else { return Ok(None) };
    let most = ingest.limits.key_bytes_max;
    let is_valid = (1..=most).contains(&key.len())
        && std::str::from_utf8(key.as_bytes()).is_ok()
        && values.next().is_none();
    if !is_valid {
        let message = format!("a key is one header of 1 to {most} bytes (key_bytes_max) of UTF-8");
        return Err(Error::invalid("Headwater-Key", message));
    }
    Ok(Some(Bytes::copy_from_slice(key.as_bytes())))
}

async fn prepare_aside(
    ingest: Arc<Ingest>,
    stream: Arc<Stream>,
    rules: Rules,
    (body, mut charge): (Bytes, Charge),
) -> Result<(Prepared, Charge)> {
    let prepare = move || Ok((rules.prepare(&ingest, &stream, body, &mut charge)?, charge));
    tokio::task::spawn_blocking(prepare)
        .await
        .map_err(|error| Error::internal("check the records").with_source(error))?
}
