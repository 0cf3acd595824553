//! `/api/v1/streams/{dataset}/{version}/events`: a page, a count, a histogram, an export. Parameters are
//! checked strictly: one that is not known is refused by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query as Parameters, State};
use axum::response::{IntoResponse, Response};
use broker::{Error, Kind, Principal, Result, ResultExt, StreamName, Timestamp};
use futures::StreamExt;
use http::Uri;
use http::header::{CONTENT_TYPE, HeaderValue};
use proto::problem::ProblemBody;
use serde::Serialize;
use utoipa::ToSchema;

use super::Refusal;
use super::json::{EventJson, Lines};
use crate::index::Indexer;
use crate::query::{Asked, Bucket, Interval, Page, Query};
use crate::split::Order;

/// What an event takes in an answer, beside its value.
const EVENT_BYTES: usize = 192;
/// What an interval takes in an answer.
const BUCKET_BYTES: usize = 64;
/// What stands around the parts of an answer.
const REST_BYTES: usize = 192;

type StreamPath = std::result::Result<Path<(String, String)>, PathRejection>;

#[derive(Serialize, ToSchema)]
#[schema(as = EventPage)]
pub(super) struct PageJson<'a> {
    events: Vec<EventJson<'a>>,
    cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[schema(value_type = String, format = DateTime)]
    complete_through: Timestamp,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EventCount)]
pub(super) struct CountJson {
    count: u64,
    #[schema(value_type = String, format = DateTime)]
    complete_through: Timestamp,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EventHistogram)]
pub(super) struct HistogramJson {
    buckets: Vec<BucketJson>,
    #[schema(value_type = String, format = DateTime)]
    complete_through: Timestamp,
}

#[derive(Serialize, ToSchema)]
#[schema(as = EventBucket)]
pub(super) struct BucketJson {
    #[schema(value_type = String, format = DateTime)]
    start: Timestamp,
    count: u64,
}

#[utoipa::path(
    get,
    path = "/api/v1/streams/{dataset}/{version}/events",
    tag = "events",
    operation_id = "findEvents",
    summary = "Finds events",
    params(
        ("dataset" = String, Path, description = "The dataset id", pattern = "^[a-z0-9][a-z0-9_-]{0,69}$"),
        ("version" = String, Path, description = "The version", pattern = "^[A-Za-z0-9_-]{1,32}$"),
        ("from" = Option<String>, Query, description = "A date (its whole day in UTC), or an instant of RFC 3339"),
        ("to" = Option<String>, Query, description = "The same, included"),
        ("q" = Option<String>, Query, description = "What an event has to hold, in the query grammar"),
        ("key" = Option<String>, Query, description = "The key of an event"),
        ("order" = Option<String>, Query, description = "`asc` or `desc` of time", pattern = "^(asc|desc)$"),
        ("limit" = Option<u32>, Query, description = "The most events", minimum = 1, maximum = 10000),
        ("cursor" = Option<String>, Query, description = "The cursor of the page before"),
        ("count" = Option<bool>, Query, description = "Whether it says how many there are in all"),
    ),
    responses(
        (status = 200, description = "A page", body = PageJson<'_>),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn page(
    State(indexer): State<Arc<Indexer>>,
    Extension(caller): Extension<Principal>,
    path: StreamPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    let known = ["from", "to", "q", "key", "order", "limit", "cursor", "count"];
    let mut parameters = parameters(&uri, &known)?;
    let limit = parameters.remove("limit").map(|text| limit(&text)).transpose()?;
    let limit = indexer.page_limit(limit)?;
    let is_counted = match parameters.remove("count").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(Error::invalid("count", "count is true or false").into()),
    };
    let cursor = parameters.remove("cursor");
    let query = query(&indexer, (&caller, path), parameters).await?;
    let wanted = query.wanted(cursor.as_deref(), limit)?;
    let wanted = if is_counted { wanted.counted() } else { wanted };
    Ok(answer("application/json", indexer.page(&query, wanted, encoded).await?.into()))
}

fn encoded(page: Page) -> Result<Vec<u8>> {
    let Page { events, cursor, count, complete_through } = page;
    let bytes = events.iter().map(|event| EVENT_BYTES + event.value.len()).sum();
    let events = events.iter().map(EventJson::of).collect::<Result<_>>()?;
    json(bytes, &PageJson { events, cursor, count, complete_through })
}

#[utoipa::path(
    get,
    path = "/api/v1/streams/{dataset}/{version}/events/count",
    tag = "events",
    operation_id = "countEvents",
    summary = "Counts events",
    params(
        ("dataset" = String, Path, description = "The dataset id", pattern = "^[a-z0-9][a-z0-9_-]{0,69}$"),
        ("version" = String, Path, description = "The version", pattern = "^[A-Za-z0-9_-]{1,32}$"),
        ("from" = Option<String>, Query, description = "A date (its whole day in UTC), or an instant of RFC 3339"),
        ("to" = Option<String>, Query, description = "The same, included"),
        ("q" = Option<String>, Query, description = "What an event has to hold, in the query grammar"),
        ("key" = Option<String>, Query, description = "The key of an event"),
    ),
    responses(
        (status = 200, description = "How many", body = CountJson),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn count(
    State(indexer): State<Arc<Indexer>>,
    Extension(caller): Extension<Principal>,
    path: StreamPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    let parameters = parameters(&uri, &["from", "to", "q", "key"])?;
    let query = query(&indexer, (&caller, path), parameters).await?;
    let (count, complete_through) = indexer.count(&query).await?;
    Ok(answer("application/json", json(0, &CountJson { count, complete_through })?.into()))
}

#[utoipa::path(
    get,
    path = "/api/v1/streams/{dataset}/{version}/events/histogram",
    tag = "events",
    operation_id = "countEventsByTime",
    summary = "Counts events by intervals of time",
    params(
        ("dataset" = String, Path, description = "The dataset id", pattern = "^[a-z0-9][a-z0-9_-]{0,69}$"),
        ("version" = String, Path, description = "The version", pattern = "^[A-Za-z0-9_-]{1,32}$"),
        ("from" = Option<String>, Query, description = "A date (its whole day in UTC), or an instant of RFC 3339"),
        ("to" = Option<String>, Query, description = "The same, included"),
        ("q" = Option<String>, Query, description = "What an event has to hold, in the query grammar"),
        ("key" = Option<String>, Query, description = "The key of an event"),
        ("interval" = String, Query, description = "Such as `30s`, `15m`, `1h` or `7d`", pattern = "^[1-9][0-9]{0,3}[smhd]$"),
    ),
    responses(
        (status = 200, description = "How many in each interval that has any", body = HistogramJson),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn histogram(
    State(indexer): State<Arc<Indexer>>,
    Extension(caller): Extension<Principal>,
    path: StreamPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    let mut parameters = parameters(&uri, &["from", "to", "q", "key", "interval"])?;
    let interval = Interval::parse(&parameters.remove("interval").unwrap_or_default())?;
    let query = query(&indexer, (&caller, path), parameters).await?;
    let (buckets, complete_through) = indexer.histogram(&query, interval).await?;
    let bytes = buckets.len() * BUCKET_BYTES;
    let buckets = buckets.into_iter().map(|Bucket { start, count }| BucketJson { start, count }).collect();
    Ok(answer("application/json", json(bytes, &HistogramJson { buckets, complete_through })?.into()))
}

/// A failure in the middle breaks the transfer off, so that a short file is never taken for a whole
/// one.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{dataset}/{version}/events/export",
    tag = "events",
    operation_id = "exportEvents",
    summary = "Exports all events that are found",
    params(
        ("dataset" = String, Path, description = "The dataset id", pattern = "^[a-z0-9][a-z0-9_-]{0,69}$"),
        ("version" = String, Path, description = "The version", pattern = "^[A-Za-z0-9_-]{1,32}$"),
        ("from" = Option<String>, Query, description = "A date (its whole day in UTC), or an instant of RFC 3339"),
        ("to" = Option<String>, Query, description = "The same, included"),
        ("q" = Option<String>, Query, description = "What an event has to hold, in the query grammar"),
        ("key" = Option<String>, Query, description = "The key of an event"),
        ("order" = Option<String>, Query, description = "`asc` or `desc` of time", pattern = "^(asc|desc)$"),
    ),
    responses(
        (status = 200, description = "An event a line", content_type = "application/x-ndjson", body = String),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn export(
    State(indexer): State<Arc<Indexer>>,
    Extension(caller): Extension<Principal>,
    path: StreamPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    let parameters = parameters(&uri, &["from", "to", "q", "key", "order"])?;
    let query = query(&indexer, (&caller, path), parameters).await?;
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
    (caller, path): (&Principal, StreamPath),
    mut parameters: BTreeMap<String, String>,
) -> Result<Query> {
    let Path((dataset, version)) = path.map_err(|error| Error::invalid("path", error.body_text()))?;
    let stream = indexer.stream_for(caller, &StreamName::new(&dataset, &version)?).await?;
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
pub(super) fn parameters(uri: &Uri, known: &[&str]) -> Result<BTreeMap<String, String>> {
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

/// `bytes` is about what the parts take, of which an answer may have many.
pub(super) fn json(bytes: usize, body: &impl Serialize) -> Result<Vec<u8>> {
    let mut written = Vec::with_capacity(bytes + REST_BYTES);
    serde_json::to_writer(&mut written, body).or_error(Kind::Internal, "encode the answer")?;
    Ok(written)
}

pub(super) fn answer(media_type: &'static str, body: Body) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static(media_type))], body).into_response()
}
