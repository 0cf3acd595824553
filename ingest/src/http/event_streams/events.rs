//! `POST /streams/{dataset}/{version}/events`: an array of objects, each an event.

use axum::extract::Request;
use axum::response::Response;
use broker::catalog::Stream;
use broker::{Error, Kind, Partition, Permission};
use http::StatusCode;
use proto::fault::Fault;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::super::arrived::Arrived;
use super::super::json_of_about;
use super::{Answer, Of, Refusal, answer, body};
use crate::Ingest;
use crate::append::{Lost, Prepared};
use crate::cut::{Shape, cut};

#[utoipa::path(
    post,
    path = "/streams/{dataset}/{version}/events",
    tag = "event streams",
    operation_id = "postEvents",
    summary = "Posts events",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("version" = String, Path, description = "The version"),
    ),
    request_body(content = Vec<serde_json::Map<String, Value>>, description = "An array of objects, each an event"),
    responses(
        (status = 200, description = "They are durable", body = ()),
        (status = "4XX", description = "The request is refused", body = super::StreamRefusal),
        (status = "5XX", description = "It cannot be done now", body = super::StreamRefusal),
    ),
)]
pub(super) async fn append(of: Of, request: Request) -> Answer {
    of.require_both(Permission::Write)?;
    if let Some(fault) = Fault::of_dataset_id(&of.dataset) {
        return Err(fault.into());
    }
    let stream = of.living()?;
    let arrived = Arrived::read(&of.ingest, request).await?;
    let ready = arrived.prepare(move |ingest, body| prepare(ingest, &stream, body)).await?;
    match of.ingest.append_each(ready.prepared).await {
        Ok(()) => Ok(answer(StatusCode::OK, &Value::Null)?),
        Err(lost) => failed(lost, &ready.body),
    }
}

fn prepare(ingest: &Ingest, stream: &Stream, body: &[u8]) -> Result<Prepared, Refusal> {
    check(body)?;
    let events = cut(body, Shape::Json, None)?;
    let faults: Vec<Fault> = events
        .iter()
        .enumerate()
        .filter(|(_, event)| !event.value.starts_with(b"{"))
        .map(|(index, _)| not_an_object(index))
        .collect();
    if !faults.is_empty() {
        return Err(Refusal::Faults(faults));
    }
    // What cannot be taken refuses all, and says which it is.
    ingest.prepare(stream, events, true).map_err(of_event)
}

/// 422 unless the body is an array, of anything.
fn check(body: &[u8]) -> Result<(), Refusal> {
    let body = body.trim_ascii();
    if body.is_empty() {
        return Err(Fault::missing(&["body"]).into());
    }
    serde_json::from_slice::<IgnoredAny>(body).map_err(|error| body::not_json(body, &error))?;
    if body.starts_with(b"[") {
        return Ok(());
    }
    Err(Fault::new(&["body"], "value is not a valid list", "type_error.list").into())
}

fn not_an_object(index: usize) -> Fault {
    let fault = Fault::new(&[], "value is not a valid dict", "type_error.dict");
    Fault { loc: vec!["body".into(), index.into()], ..fault }
}

/// The refusal for what an event has that cannot be taken; the error names the event and its field.
fn of_event(error: Error) -> Refusal {
    if error.kind() != Kind::Invalid {
        return error.into();
    }
    Fault::new(&["body", error.field().unwrap_or("records")], error.to_string(), "value_error").into()
}

/// The answer where the log did not take everything: which events it was, as entries that could be sent
/// again.
fn failed(lost: Lost, body: &[u8]) -> Result<Response, Refusal> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        data: String,
        partition_key: String,
    }
    #[derive(Serialize)]
    struct Failed {
        message: String,
        failed_records: Vec<Entry>,
    }
    let Lost { error, events: lost, is_all } = lost;
    if is_all {
        return Err(error.into());
    }
    tracing::warn!(%error, events = lost.len(), "a part of a request was not written");
    let events = cut(body, Shape::Json, None)?;
    let entry = |(index, Partition(partition)): &(usize, Partition)| {
        let data = std::str::from_utf8(events.get(*index)?.value).ok()?;
        Some(Entry { data: format!("{data}\n"), partition_key: partition.to_string() })
    };
    let plural = if lost.len() == 1 { "" } else { "s" };
    let message = format!("Request failed for {} element{plural}", lost.len());
    let failed = Failed { message, failed_records: lost.iter().filter_map(entry).collect() };
    Ok(json_of_about(body.len(), StatusCode::INTERNAL_SERVER_ERROR, &failed)?)
}
