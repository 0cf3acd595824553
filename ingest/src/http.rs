//! The HTTP doors under `/api/v1`: one file a surface.
//!
//! Refusals carry a [`Problem`] as an extension; the server renders their bodies, where the id of
//! the request is known.

mod access;
mod answer;
mod api;
mod arrived;
mod collector;
mod dead_letters;
mod event_streams;
mod message;
mod metadata;
mod prefer;
mod records;
mod streams;
#[cfg(test)]
mod tests;
mod token;
mod tracking;
mod user_pool;
mod vehicles;
mod webhook_tokens;
mod webhooks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use broker::{Error, Kind, Result, StreamName};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode, Uri};
use proto::problem::Problem;
use serde::Serialize;

pub use self::api::openapi;
pub use self::tracking::Tracking;
pub use self::user_pool::{UserPool, UserPoolSettings};
pub use self::vehicles::{VehicleSettings, Vehicles};
pub use self::webhooks::shown_path;
use crate::Ingest;

/// Room for a small answer.
const ANSWER_BYTES: usize = 256;

pub(crate) fn router(ingest: Arc<Ingest>) -> Router {
    let stream = get(streams::show).patch(streams::change).delete(streams::delete);
    Router::new()
        .route("/api/v1/streams", get(streams::list).post(streams::create))
        .route("/api/v1/streams/{dataset}/{version}", stream)
        .route("/api/v1/streams/{dataset}/{version}/records", post(records::append))
        .route("/api/v1/streams/{dataset}/{version}/dead-letters", get(dead_letters::list))
        .route("/api/v1/streams/{dataset}/{version}/dead-letters/replay", post(dead_letters::replay))
        .merge(access_router())
        .merge(metadata::router())
        .merge(webhooks::router())
        .merge(collector::router())
        .merge(event_streams::router())
        .with_state(ingest)
}

fn access_router() -> Router<Arc<Ingest>> {
    let user = get(access::show_user).patch(access::change_user).delete(access::delete_user);
    let tokens = |router: Router<Arc<Ingest>>, path: &str| router.route(path, post(token::issue));
    token::PATHS
        .into_iter()
        .fold(Router::new(), tokens)
        .route("/api/v1/whoami", get(access::whoami))
        .route("/api/v1/users", get(access::list_users).post(access::create_user))
        .route("/api/v1/users/{name}", user)
        .route("/api/v1/users/{name}/password", put(access::set_password))
        .route("/api/v1/keys", get(access::list_keys).post(access::create_key))
        .route("/api/v1/keys/{id}", delete(access::delete_key))
        .route("/api/v1/grants", get(access::list_grants))
        .route("/api/v1/webhook-tokens", get(webhook_tokens::list).post(webhook_tokens::create))
        .route("/api/v1/webhook-tokens/{dataset}/{id}", delete(webhook_tokens::delete))
        .route("/api/v1/grants/{dataset}/{principal}", put(access::set_grant).delete(access::delete_grant))
}

/// The answer of paths that nothing is at.
pub async fn not_found(uri: Uri) -> Response {
    Refusal::from(Error::not_found(format!("there is nothing at {}", uri.path()))).into_response()
}

/// The answer of methods that a path does not have.
pub async fn method_not_allowed(uri: Uri) -> Response {
    let error = Error::invalid("method", format!("{} does not have this method", uri.path()));
    Refusal { problem: error.into(), status: StatusCode::METHOD_NOT_ALLOWED }.into_response()
}

/// Why a request was not done. The status is the kind's, but for a few that HTTP has words for.
#[derive(Debug)]
pub(crate) struct Refusal {
    problem: Problem,
    status: StatusCode,
}

impl Refusal {
    /// A header names something that is not understood.
    pub(crate) fn unsupported(field: &str, message: &str) -> Self {
        let problem = Error::invalid(field, message).into();
        Self { problem, status: StatusCode::UNSUPPORTED_MEDIA_TYPE }
    }

    /// A body took too long to arrive.
    pub(crate) fn timeout(time_max: Duration) -> Self {
        let message = format!("the body took longer than {} s to arrive", time_max.as_secs_f32());
        let problem = Error::invalid("body", message).into();
        Self { problem, status: StatusCode::REQUEST_TIMEOUT }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { status: error.kind().status(), problem: error.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response: Response = self.problem.into_response();
        *response.status_mut() = self.status;
        if self.status == StatusCode::REQUEST_TIMEOUT {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// The stream that a path names.
type StreamPath = std::result::Result<Path<(String, String)>, PathRejection>;

fn stream_name(path: StreamPath) -> Result<StreamName> {
    let Path((dataset, version)) = path.map_err(|error| Error::invalid("path", error.body_text()))?;
    StreamName::new(&dataset, &version)
}

/// The parameters of a query, all of them `known` and each named once.
fn parameters(uri: &Uri, known: &[&str]) -> Result<BTreeMap<String, String>> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| Error::invalid("query", error.body_text()))?;
    let mut parameters = BTreeMap::new();
    for (name, value) in pairs {
        if !known.contains(&name.as_str()) {
            let message = match known {
                [] => "there are no parameters here".to_owned(),
                known => format!("unknown parameter, the parameters here are: {}", known.join(", ")),
            };
            return Err(Error::invalid(name, message));
        }
        if parameters.insert(name.clone(), value).is_some() {
            return Err(Error::invalid(name, "the parameter stands twice"));
        }
    }
    Ok(parameters)
}

/// The media type of a body: lower case, without parameters; none if the header is missing. A
/// charset other than UTF-8 is refused.
fn media_type(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(header) = headers.get(CONTENT_TYPE) else { return Ok(None) };
    let unsupported = || Refusal::unsupported("content-type", "the content type cannot be read");
    let text = header.to_str().map_err(|_| unsupported())?.to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_owned();
    let mut charsets = parts.filter_map(|part| part.strip_prefix("charset="));
    if charsets.any(|charset| charset.trim_matches('"') != "utf-8") {
        return Err(Refusal::unsupported("content-type", "a body is UTF-8"));
    }
    Ok(Some(essence))
}

fn json(status: StatusCode, body: &impl Serialize) -> Result<Response> {
    json_of_about(ANSWER_BYTES, status, body)
}

/// An answer whose length is known about.
fn json_of_about(bytes: usize, status: StatusCode, body: &impl Serialize) -> Result<Response> {
    let mut text = Vec::with_capacity(bytes.max(ANSWER_BYTES));
    serde_json::to_writer(&mut text, body)
        .map_err(|error| Error::new(Kind::Internal, "encode the answer").with_source(error))?;
    Ok((status, [(CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response())
}
