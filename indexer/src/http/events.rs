//! `/api/v1/streams/{dataset}/{version}/events`: a page, a count, a histogram, an
//! export. Parameters are checked
//! strictly: one that is not known is refused by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query as Parameters, State};
use axum::response::{IntoResponse, Response};
use broker::{Error, Kind, Result, ResultExt, StreamName, Timestamp};
use futures::StreamExt;
use http::Uri;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

use super::Refusal;
use super::json::{EventJson, Lines};
use crate::index::{Indexer, blocking};
use crate::query::{Asked, Bucket, Interval, Query};
use crate::split::Order;

type StreamPath = std::result::Result<Path<(String, String)>, PathRejection>;

#[derive(Serialize)]
struct PageJson<'a> {
    events: Vec<EventJson<'a>>,
    cursor: Option<String>,
    complete_through: Timestamp,
}

#[derive(Serialize)]
struct CountJson {
    count: u64,
    complete_through: Timestamp,
}

#[derive(Serialize)]
struct HistogramJson {
    buckets: Vec<BucketJson>,
    complete_through: Timestamp,
}

#[derive(Serialize)]
struct BucketJson {
    start: Timestamp,
    count: u64,
}

pub(super) async fn page(
    State(indexer): State<Arc<Indexer>>,
    path: StreamPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    let known = ["from", "to", "q", "key", "order", "limit", "cursor"];
    let mut parameters = parameters(&uri, &known)?;
    let limit = parameters.remove("limit").map(|text| limit(&text)).transpose()?;
    let limit = indexer.page_limit(limit)?;
    let cursor = parameters.remove("cursor");
    let query = query(&indexer, path, parameters).await?;
    let page = indexer.page(&query, cursor.as_deref(), limit).await?;
    let body = blocking(move || {
        let events = page.events.iter().map(EventJson::of).collect::<Result<_>>()?;
        json(&PageJson { events, cursor: page.cursor, complete_through: page.complete_through })
    });
    Ok(answer("application/json", body.await?.into()))
}

pub(super) async fn count(
    State(indexer): State<Arc<Indexer>>,
    path: StreamPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    let parameters = parameters(&uri, &["from", "to", "q", "key"])?;
    let query = query(&indexer, path, parameters).await?;
    let (count, complete_through) = indexer.count(&query).await?;
    Ok(answer("application/json", json(&CountJson { count, complete_through })?.into()))
}

pub(super) async fn histogram(
    State(indexer): State<Arc<Indexer>>,
    path: StreamPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    let mut parameters = parameters(&uri, &["from", "to", "q", "key", "interval"])?;
    let interval = Interval::parse(&parameters.remove("interval").unwrap_or_default())?;
    let query = query(&indexer, path, parameters).await?;
    let (buckets, complete_through) = indexer.histogram(&query, interval).await?;
    let buckets = buckets.into_iter().map(|Bucket { start, count }| BucketJson { start, count }).collect();
    Ok(answer("application/json", json(&HistogramJson { buckets, complete_through })?.into()))
}

/// A failure in the middle breaks the transfer off, so that a short file is never taken for a whole
/// one.
pub(super) async fn export(
    State(indexer): State<Arc<Indexer>>,
    path: StreamPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    let parameters = parameters(&uri, &["from", "to", "q", "key", "order"])?;
    let query = query(&indexer, path, parameters).await?;
    let chunks = indexer.export::<Lines>(query).await?;
    let bodies = chunks.map(|chunk| chunk.map(|lines| Bytes::from(lines.0)));
    let bodies = bodies.inspect(|body| {
        if let Err(error) = body {
            tracing::warn!(%error, "broke an export off");
        }
    });
    Ok(answer("application/x-ndjson", Body::from_stream(bodies)))
}

async fn query(
    indexer: &Indexer,
    path: StreamPath,
    mut parameters: BTreeMap<String, String>,
) -> Result<Query> {
    let Path((dataset, version)) = path.map_err(|error| Error::invalid("path", error.body_text()))?;
    let stream = indexer.stream(&StreamName::new(&dataset, &version)?).await?;
    let order = match parameters.remove("order").as_deref() {
        None | Some("asc") => Order::Ascending,
        Some("desc") => Order::Descending,
        Some(_) => return Err(Error::invalid("order", "the order is asc or desc")),
    };
    let mut take = |name| parameters.remove(name);
    let asked = Asked { from: take("from"), to: take("to"), q: take("q"), key: take("key"), order };
    indexer.query(stream, &asked)
}

fn limit(text: &str) -> Result<usize> {
    text.parse().map_err(|_| Error::invalid("limit", "the limit is a whole number above 0"))
}

/// The parameters of a request, all of them `known` and each named once.
fn parameters(uri: &Uri, known: &[&str]) -> Result<BTreeMap<String, String>> {
    let Parameters(pairs) = Parameters::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| Error::invalid("query", error.body_text()))?;
    let mut parameters = BTreeMap::new();
    for (name, value) in pairs {
        if !known.contains(&name.as_str()) {
            let message = format!("unknown parameter, the parameters here are: {}", known.join(", "));
            return Err(Error::invalid(name, message));
        }
        if parameters.insert(name.clone(), value).is_some() {
            return Err(Error::invalid(name, "the parameter stands twice"));
        }
    }
    Ok(parameters)
}

fn json(body: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(body).or_error(Kind::Internal, "encode the answer")
}

fn answer(media_type: &'static str, body: Body) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static(media_type))], body).into_response()
}
