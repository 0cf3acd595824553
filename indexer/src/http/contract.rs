//! `GET /streams/{dataset}/{version}/events?from_date=&to_date=&page=&page_size=`, as older clients
//! know it: whole days in UTC, both included; pages by number; errors in the shapes of the service
//! that this one stands in for. Other than there, results are ordered, and there is no cap of 10,000.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query as Parameters, State};
use axum::response::{IntoResponse, Response};
use broker::access::{Caller, Denial};
use broker::{Error, Kind, Permission, Principal, Result, StreamName};
use chrono::{DateTime, NaiveDate};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{StatusCode, Uri};
use serde::Serialize;
use serde_json::value::RawValue;

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

/// What is wrong with one parameter.
#[derive(Debug, Serialize)]
struct Fault {
    loc: [&'static str; 2],
    msg: String,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ctx: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct Message {
    message: String,
}

#[derive(Serialize)]
struct Detail<T> {
    detail: T,
}

#[derive(Serialize)]
struct PageJson<'a> {
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

pub(super) async fn events(
    State(indexer): State<Arc<Indexer>>,
    Extension(Caller(caller)): Extension<Caller>,
    path: std::result::Result<Path<(String, String)>, PathRejection>,
    uri: Uri,
) -> Response {
    let Ok(Path((dataset, version))) = path else {
        return Refusal::Message(StatusCode::NOT_FOUND, "Not Found".to_owned()).into_response();
    };
    let answered = match caller {
        Ok(caller) => answer(&indexer, &caller, (&dataset, &version), &uri).await,
        Err(denial) => Err(Refusal::Denied(denial)),
    };
    match answered {
        Ok(body) => written(StatusCode::OK, body),
        Err(refusal) => refusal.into_response(),
    }
}

async fn answer(
    indexer: &Indexer,
    caller: &Principal,
    (dataset, version): (&str, &str),
    uri: &Uri,
) -> Result<Vec<u8>, Refusal> {
    if !indexer.catalog.may(caller, dataset, Permission::Read) {
        return Err(Refusal::Message(StatusCode::FORBIDDEN, "Forbidden".to_owned()));
    }
    // The version is looked for before the parameters are read, so 404 goes before 422.
    let stream = match StreamName::new(dataset, version) {
        Ok(name) => indexer.stream(&name).await,
        Err(_) => Err(Error::not_found("no stream has this name")),
    };
    let stream = stream.map_err(|error| match error.kind() {
        Kind::NotFound => {
            let message = format!("Version: {version} for dataset '{dataset}' not found");
            Refusal::Message(StatusCode::NOT_FOUND, message)
        }
        Kind::Conflict => not_found(dataset, version),
        _ => Refusal::from(error),
    })?;
    let wanted = Wanted::read(dataset, uri)?;
    let query = indexer.query(stream, &Asked::default())?.within(wanted.bounds);
    let _permit = permit(&indexer.queries, "queries")?;
    let snapshot = indexer.snapshot(&query.stream, query.bounds).await?;
    let start = (wanted.page - 1).saturating_mul(wanted.page_size as u64);
    let (events, total) = snapshot.slice(&query, start, wanted.page_size).await?;
    if events.is_empty() {
        return Err(not_found(dataset, version));
    }
    let total_pages = total.div_ceil(wanted.page_size as u64);
    let body = blocking(move || {
        let values = events.iter().map(value).collect::<Result<_>>()?;
        let page = PageJson { values, page: wanted.page, total_pages };
        Ok(serde_json::to_vec(&page).expect("raw values and numbers always become JSON"))
    });
    Ok(body.await?)
}

fn not_found(dataset: &str, version: &str) -> Refusal {
    Refusal::Message(StatusCode::BAD_REQUEST, format!("Could not find event: {dataset}/{version}"))
}

impl Wanted {
    fn read(dataset: &str, uri: &Uri) -> Result<Self, Refusal> {
        let mut faults = Vec::new();
        check_dataset(dataset, &mut faults);
        let pairs =
            Parameters::<Vec<(String, String)>>::try_from_uri(uri).map(|pairs| pairs.0).unwrap_or_default();
        // Of a parameter that stands twice the last one counts; unknown ones are passed over.
        let last =
            |name: &str| pairs.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let from = date("from_date", last("from_date"), &mut faults);
        let to = date("to_date", last("to_date"), &mut faults);
        let page = number("page", last("page").unwrap_or("1"), i64::MAX, &mut faults);
        let page_size = last("page_size")
            .map_or(Some(PAGE_SIZE_DEFAULT), |text| number("page_size", text, PAGE_SIZE_MAX, &mut faults));
        let (Some(from), Some(to), Some(page), Some(page_size), []) =
            (from, to, page, page_size, &faults[..])
        else {
            return Err(Refusal::Fields(faults));
        };
        let bounds = Bounds::days(from, to).ok_or_else(|| {
            Refusal::Fields(vec![Fault::new("query", "from_date", "invalid date format", "value_error.date")])
        })?;
        let page_size = usize::try_from(page_size).unwrap_or(1);
        Ok(Self { bounds, page: page.unsigned_abs(), page_size })
    }
}

/// The ids that this surface knows: `^[a-z0-9-]*$` of 3 to 70 characters.
fn check_dataset(dataset: &str, faults: &mut Vec<Fault>) {
    let fault = |msg: &str, r#type, ctx| {
        let ctx = Some(ctx);
        Fault { ctx, ..Fault::new("path", "dataset_id", msg, r#type) }
    };
    if dataset.len() < 3 {
        let msg = "ensure this value has at least 3 characters";
        faults.push(fault(msg, "value_error.any_str.min_length", serde_json::json!({"limit_value": 3})));
    } else if !dataset.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-') {
        let msg = "string does not match regex \"^[a-z0-9-]*$\"";
        faults.push(fault(msg, "value_error.str.regex", serde_json::json!({"pattern": "^[a-z0-9-]*$"})));
    }
}

/// A date, or seconds (or milliseconds) since 1970, of which the day is taken.
fn date(name: &'static str, text: Option<&str>, faults: &mut Vec<Fault>) -> Option<NaiveDate> {
    let Some(text) = text else {
        faults.push(Fault::new("query", name, "field required", "value_error.missing"));
        return None;
    };
    let read = day(text).or_else(|| of_epoch(text));
    if read.is_none() {
        faults.push(Fault::new("query", name, "invalid date format", "value_error.date"));
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
        Err(_) => Fault::new("query", name, "value is not a valid integer", "type_error.integer"),
        Ok(number) if number < 1 => {
            let fault =
                Fault::new("query", name, "ensure this value is greater than 0", "value_error.number.not_gt");
            Fault { ctx: Some(serde_json::json!({"limit_value": 0})), ..fault }
        }
        Ok(number) if number > max => {
            let msg = format!("ensure this value is less than or equal to {max}");
            let fault = Fault::new("query", name, &msg, "value_error.number.not_le");
            Fault { ctx: Some(serde_json::json!({"limit_value": max})), ..fault }
        }
        Ok(number) => return Some(number),
    };
    faults.push(fault);
    None
}

impl Fault {
    fn new(place: &'static str, name: &'static str, msg: &str, r#type: &'static str) -> Self {
        Self { loc: [place, name], msg: msg.to_owned(), r#type, ctx: None }
    }
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

fn denied(denial: Denial) -> Response {
    let message = |status, message: &str| said(status, &Message { message: message.to_owned() });
    let detail = |detail| said(StatusCode::FORBIDDEN, &Detail { detail });
    match denial {
        Denial::Missing => detail("Not authenticated"),
        Denial::Unsupported => detail("Invalid authentication credentials"),
        Denial::Expired(_) | Denial::Wrong(_) => message(StatusCode::UNAUTHORIZED, "Invalid access token"),
        Denial::Unavailable(_) => message(StatusCode::SERVICE_UNAVAILABLE, "Server error"),
        Denial::TooMany(wait) => {
            let mut response = message(StatusCode::TOO_MANY_REQUESTS, "Too many invalid access tokens");
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
            response
        }
    }
}

fn said(status: StatusCode, body: &impl Serialize) -> Response {
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
