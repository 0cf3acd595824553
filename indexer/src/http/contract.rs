//! `GET /streams/{dataset}/{version}/events?from_date=&to_date=&page=&page_size=`, as older clients
//! know it: whole days in UTC, both included; pages by number; errors in the shapes of the service
//! that this one stands in for. Other than there, results are ordered, and there is no cap of 10,000.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query as Parameters, State};
use axum::response::{IntoResponse, Response};
use broker::access::{Caller, Denial, retry_after};
use broker::catalog::Stream;
use broker::metadata::DocumentId;
use broker::{Error, Kind, Permission, Principal, Result, StreamName};
use chrono::{DateTime, NaiveDate};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{StatusCode, Uri};
use proto::fault::{Detail, Fault};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::api::Refused;
use super::json::value;
use crate::index::{Indexer, blocking};
use crate::query::{Asked, Bounds, day, permit};

/// The most events of one page.
const PAGE_SIZE_MAX: i64 = 10_000;
/// Events of a page whose size was not given.
const PAGE_SIZE_DEFAULT: i64 = 10;

/// What a request was refused for.
enum Refusal {
    /// `{"message": …}`.
    Message(StatusCode, String),
    /// `{"detail": […]}` with 422.
    Fields(Vec<Fault>),
    /// What was presented is not taken.
    Denied(Denial),
}

/// A body of one text.
#[derive(Serialize, ToSchema)]
pub(super) struct Message {
    pub(super) message: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = NumberedPage)]
pub(super) struct PageJson<'a> {
    #[schema(value_type = Vec<serde_json::Value>)]
    values: Vec<&'a RawValue>,
    page: u64,
    total_pages: u64,
}

/// The parameters of a request, understood.
struct Wanted {
    bounds: Bounds,
    page: u64,
    page_size: usize,
}

#[utoipa::path(
    get,
    path = "/streams/{dataset}/{version}/events",
    tag = "event streams",
    operation_id = "findEventsOfDays",
    summary = "Finds events of whole days",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("version" = String, Path, description = "The version"),
        ("from_date" = String, Query, description = "A date, or epoch seconds", format = Date),
        ("to_date" = String, Query, description = "The same", format = Date),
        ("page" = Option<u32>, Query, description = "From 1", minimum = 1),
        ("page_size" = Option<u32>, Query, description = "1 to 10,000, 10 where it is not given", minimum = 1, maximum = 10000),
    ),
    responses(
        (status = 200, description = "A page", body = PageJson<'_>),
        (status = "4XX", description = "The request is refused", body = Refused),
        (status = "5XX", description = "It cannot be done now", body = Refused),
    ),
)]
pub(super) async fn events(
    State(indexer): State<Arc<Indexer>>,
    Extension(Caller(caller)): Extension<Caller>,
    path: std::result::Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
) -> Response {
    match stream(&indexer, caller, path).await {
        Ok((name, stream)) => answered(page(&indexer, (&name, stream), &uri).await),
        Err(refusal) => refusal.into_response(),
    }
}

/// `GET …/events/statistics?from_date=&to_date=`: how many events there are from the beginning of a day to
/// the beginning of another.
#[utoipa::path(
    get,
    path = "/streams/{dataset}/{version}/events/statistics",
    tag = "event streams",
    operation_id = "countEventsOfDays",
    summary = "Counts events up to the beginning of a day",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("version" = String, Path, description = "The version"),
        ("from_date" = String, Query, description = "A date, or epoch seconds", format = Date),
        ("to_date" = String, Query, description = "The same", format = Date),
    ),
    responses(
        (status = 200, description = "How many", body = u64),
        (status = "4XX", description = "The request is refused", body = Refused),
        (status = "5XX", description = "It cannot be done now", body = Refused),
    ),
)]
pub(super) async fn statistics(
    State(indexer): State<Arc<Indexer>>,
    Extension(Caller(caller)): Extension<Caller>,
    path: std::result::Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
) -> Response {
    match stream(&indexer, caller, path).await {
        Ok((name, stream)) => answered(count(&indexer, (&name, stream), &uri).await),
        Err(refusal) => refusal.into_response(),
    }
}

fn answered(answer: Result<Vec<u8>, Refusal>) -> Response {
    match answer {
        Ok(body) => written(StatusCode::OK, body),
        Err(refusal) => refusal.into_response(),
    }
}

/// Dataset and version as a path names them.
type Named = (String, String);

/// The stream that a path names; none where there is nothing to find. The version is looked for before
/// the parameters are read, so 404 goes before 422.
async fn stream(
    indexer: &Indexer,
    caller: Result<Principal, Denial>,
    path: std::result::Result<Path<Named>, PathRejection>,
) -> Result<(Named, Option<Arc<Stream>>), Refusal> {
    let caller = caller.map_err(Refusal::Denied)?;
    let missing = |_| Refusal::Message(StatusCode::NOT_FOUND, "Not Found".to_owned());
    let Path((dataset, version)) = path.map_err(missing)?;
    if !indexer.catalog.may(&caller, &dataset, Permission::Read) {
        return Err(Refusal::Message(StatusCode::FORBIDDEN, "Forbidden".to_owned()));
    }
    let found = match StreamName::new(&dataset, &version) {
        Ok(name) => indexer.stream(&name).await,
        Err(_) => Err(Error::not_found("no stream has this name")),
    };
    let stream = match found {
        Ok(stream) => Some(stream),
        Err(error) if error.kind() == Kind::Conflict => None,
        Err(error) if error.kind() == Kind::NotFound => {
            if !exists(indexer, (&dataset, &version)) {
                let message = format!("Version: {version} for dataset '{dataset}' not found");
                return Err(Refusal::Message(StatusCode::NOT_FOUND, message));
            }
            None
        }
        Err(error) => return Err(error.into()),
    };
    Ok(((dataset, version), stream))
}

/// Whether there was a stream of this name, or documents describe the version.
fn exists(indexer: &Indexer, (dataset, version): (&str, &str)) -> bool {
    let name = StreamName::new(dataset, version);
    let document = DocumentId::dataset(dataset);
    let is_there = |id: DocumentId| indexer.catalog.document(&id).is_some();
    name.is_ok_and(|name| indexer.catalog.all().get(&name).is_some())
        || document.child(version).is_some_and(|version| is_there(document) && is_there(version))
}

async fn count(
    indexer: &Indexer,
    (name, stream): (&Named, Option<Arc<Stream>>),
    uri: &Uri,
) -> Result<Vec<u8>, Refusal> {
    let mut faults = Vec::from_iter(Fault::of_dataset_id(&name.0));
    let days = days(&pairs(uri), &mut faults);
    let ((from, to), []) = (days, &faults[..]) else { return Err(Refusal::Fields(faults)) };
    let bounds = from.zip(to.and_then(|to| to.pred_opt())).and_then(|(from, to)| Bounds::days(from, to));
    let (Some(stream), Some(bounds)) = (stream, bounds) else { return Err(not_found(name)) };
    let query = indexer.query(stream, &Asked::default())?.within(bounds);
    match indexer.count(&query).await? {
        (0, _) => Err(not_found(name)),
        (count, _) => Ok(count.to_string().into_bytes()),
    }
}

async fn page(
    indexer: &Indexer,
    (name, stream): (&Named, Option<Arc<Stream>>),
    uri: &Uri,
) -> Result<Vec<u8>, Refusal> {
    let wanted = Wanted::read(&name.0, uri)?;
    let stream = stream.ok_or_else(|| not_found(name))?;
    let query = indexer.query(stream, &Asked::default())?.within(wanted.bounds);
    let _permit = permit(&indexer.queries, "queries")?;
    let snapshot = indexer.snapshot(&query.stream, query.bounds).await?;
    let start = (wanted.page - 1).saturating_mul(wanted.page_size as u64);
    let (events, total) = snapshot.slice(&query, start, wanted.page_size).await?;
    if events.is_empty() {
        return Err(not_found(name));
    }
    let total_pages = total.div_ceil(wanted.page_size as u64);
    let body = blocking(move || {
        let values = events.iter().map(value).collect::<Result<_>>()?;
        let page = PageJson { values, page: wanted.page, total_pages };
        Ok(serde_json::to_vec(&page).expect("raw values and numbers always become JSON"))
    });
    Ok(body.await?)
}

fn not_found((dataset, version): &Named) -> Refusal {
    Refusal::Message(StatusCode::BAD_REQUEST, format!("Could not find event: {dataset}/{version}"))
}

impl Wanted {
    fn read(dataset: &str, uri: &Uri) -> Result<Self, Refusal> {
        let mut faults = Vec::new();
        faults.extend(Fault::of_dataset_id(dataset));
        let pairs = pairs(uri);
        let (from, to) = days(&pairs, &mut faults);
        let last = |name| last(&pairs, name);
        let page = number("page", last("page").unwrap_or("1"), i64::MAX, &mut faults);
        let page_size = last("page_size")
            .map_or(Some(PAGE_SIZE_DEFAULT), |text| number("page_size", text, PAGE_SIZE_MAX, &mut faults));
        let (Some(from), Some(to), Some(page), Some(page_size), []) =
            (from, to, page, page_size, &faults[..])
        else {
            return Err(Refusal::Fields(faults));
        };
        let bounds = Bounds::days(from, to).ok_or_else(|| {
            Refusal::Fields(vec![Fault::new(
                &["query", "from_date"],
                "invalid date format",
                "value_error.date",
            )])
        })?;
        let page_size = usize::try_from(page_size).unwrap_or(1);
        Ok(Self { bounds, page: page.unsigned_abs(), page_size })
    }
}

type Pairs = Vec<(String, String)>;

fn pairs(uri: &Uri) -> Pairs {
    Parameters::try_from_uri(uri).map(|Parameters(pairs)| pairs).unwrap_or_default()
}

/// Of a parameter that stands twice the last one counts; unknown ones are passed over.
fn last<'p>(pairs: &'p Pairs, name: &str) -> Option<&'p str> {
    pairs.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

fn days(pairs: &Pairs, faults: &mut Vec<Fault>) -> (Option<NaiveDate>, Option<NaiveDate>) {
    let mut day = |name| date(name, last(pairs, name), faults);
    (day("from_date"), day("to_date"))
}

/// A date, or seconds (or milliseconds) since 1970, of which the day is taken.
fn date(name: &'static str, text: Option<&str>, faults: &mut Vec<Fault>) -> Option<NaiveDate> {
    let Some(text) = text else {
        faults.push(Fault::missing(&["query", name]));
        return None;
    };
    let read = day(text).or_else(|| of_epoch(text));
    if read.is_none() {
        faults.push(Fault::new(&["query", name], "invalid date format", "value_error.date"));
    }
    read
}

/// Numbers beyond this are milliseconds.
const EPOCH_SECONDS_MAX: f64 = 2e10;

fn of_epoch(text: &str) -> Option<NaiveDate> {
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    let mut seconds = number;
    while seconds.abs() > EPOCH_SECONDS_MAX {
        seconds /= 1_000.0;
    }
    Some(DateTime::from_timestamp(seconds.floor() as i64, 0)?.date_naive())
}

fn number(name: &'static str, text: &str, max: i64, faults: &mut Vec<Fault>) -> Option<i64> {
    let fault = match text.trim().parse::<i64>() {
        Err(_) => Fault::new(&["query", name], "value is not a valid integer", "type_error.integer"),
        Ok(number) if number < 1 => {
            let fault = Fault::new(
                &["query", name],
                "ensure this value is greater than 0",
                "value_error.number.not_gt",
            );
            fault.with_ctx(serde_json::json!({"limit_value": 0}))
        }
        Ok(number) if number > max => {
            let msg = format!("ensure this value is less than or equal to {max}");
            let fault = Fault::new(&["query", name], msg, "value_error.number.not_le");
            fault.with_ctx(serde_json::json!({"limit_value": max}))
        }
        Ok(number) => return Some(number),
    };
    faults.push(fault);
    None
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        if error.kind().is_transient() {
            return Refusal::Message(error.kind().status(), error.to_string());
        }
        tracing::error!(%error, "answered 500");
        Refusal::Message(StatusCode::INTERNAL_SERVER_ERROR, "Server error".to_owned())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Message(status, message) => said(status, &Message { message }),
            Refusal::Fields(detail) => said(StatusCode::UNPROCESSABLE_ENTITY, &Detail { detail }),
            Refusal::Denied(denial) => denied(denial),
        }
    }
}

/// The answer to somebody who is not known.
pub(super) fn denied(denial: Denial) -> Response {
    let message = |status, message: &str| said(status, &Message { message: message.to_owned() });
    let detail = |detail| said(StatusCode::FORBIDDEN, &Detail { detail });
    match denial {
        Denial::Missing => detail("Not authenticated"),
        Denial::Unsupported => detail("Invalid authentication credentials"),
        Denial::Expired(_) | Denial::Wrong(_) => message(StatusCode::UNAUTHORIZED, "Invalid access token"),
        Denial::Unavailable(_) => message(StatusCode::SERVICE_UNAVAILABLE, "Server error"),
        Denial::TooMany(wait) => {
            let mut response = message(StatusCode::TOO_MANY_REQUESTS, "Too many invalid access tokens");
            let seconds = retry_after(wait);
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
            response
        }
    }
}

/// An answer of JSON.
pub(super) fn said(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("strings and numbers always become JSON");
    let mut response = written(status, body);
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn written(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}
