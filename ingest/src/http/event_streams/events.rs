//! `POST /streams/{dataset}/{version}/events`: an array of objects, each an event.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use broker::catalog::Stream;
use broker::{Error, Kind, Partition, Permission};
use bytes::Bytes;
use http::StatusCode;
use proto::fault::Fault;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::super::json_of_about;
use super::super::records::INLINE_BYTES_MAX;
use super::{Answer, Of, Refusal, answer, body};
use crate::Ingest;
use crate::admission::Charge;
use crate::append::{Lost, Prepared};
use crate::body::{BodyLimit, Coding, decode};
use crate::cut::{Shape, cut};

pub(super) async fn append(of: Of, request: Request) -> Answer {
    of.require_both(Permission::Write)?;
    if let Some(fault) = Fault::of_dataset_id(&of.dataset) {
        return Err(fault.into());
    }
    let stream = of.living()?;
    let (head, body) = request.into_parts();
    let coding = Coding::of(&head.headers)?;
    let limit = BodyLimit { name: "body_bytes_max", bytes_max: of.ingest.limits.body_bytes_max };
    let (body, charge) = of.ingest.read_body(&head.headers, body, limit).await?;
    let is_small = body.len() <= INLINE_BYTES_MAX && coding == Coding::Identity;
    let work = Work { ingest: of.ingest.clone(), stream, coding, body, charge };
    let ready = if is_small { work.prepare()? } else { aside(work).await? };
    match of.ingest.append_each(ready.prepared).await {
        Ok(()) => Ok(answer(StatusCode::OK, &Value::Null)?),
        Err(lost) => failed(lost, &ready.body),
    }
}

struct Work {
    ingest: Arc<Ingest>,
    stream: Arc<Stream>,
    coding: Coding,
    body: Bytes,
    charge: Charge,
}

/// A body that was checked, and its records.
struct Ready {
    prepared: Prepared,
    body: Bytes,
    _charge: Charge,
}

impl Work {
    fn prepare(self) -> Result<Ready, Refusal> {
        let Work { ingest, stream, coding, body, mut charge } = self;
        let body = decode(body, coding, &ingest.limits, &mut charge)?;
        check(&body)?;
        let events = cut(&body, Shape::Json, None)?;
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
        let prepared = ingest.prepare(&stream, events, true).map_err(of_event)?;
        Ok(Ready { prepared, body, _charge: charge })
    }
}

async fn aside(work: Work) -> Result<Ready, Refusal> {
    let prepared = tokio::task::spawn_blocking(|| work.prepare()).await;
    prepared.map_err(|error| Error::internal("check the events").with_source(error))?
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
