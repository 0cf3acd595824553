//! Refusals of both dialects: the first says them in a JSON string, the later one in objects and lists.

use axum::response::{IntoResponse as _, Response};
use broker::access::Denial;
use broker::{Error, Kind};
use http::StatusCode;
use http::header::{HeaderValue, RETRY_AFTER};
use serde::Serialize;

use super::super::{Refusal, json, message};
use super::Dialect;
use crate::auth::DenialExt as _;

/// A status with what is said.
pub(super) struct Refused {
    status: StatusCode,
    said: Said,
    is_transient: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Said {
    Text(String),
    Message { message: String },
    Listed([Message; 1]),
    Faults { message: &'static str, errors: [String; 1] },
}

#[derive(Serialize)]
struct Message {
    message: String,
}

/// What a request was about, which refusals name.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) dialect: Dialect,
    /// As in `creating dataset`.
    pub(super) doing: &'a str,
    pub(super) dataset: &'a str,
}

impl Refused {
    /// A text by itself, or `{"message": …}`.
    fn new(dialect: Dialect, status: StatusCode, message: impl Into<String>) -> Self {
        let message = message.into();
        let said = match dialect {
            Dialect::First => Said::Text(message),
            Dialect::Later => Said::Message { message },
        };
        Self { status, said, is_transient: false }
    }

    fn listed(status: StatusCode, message: String) -> Self {
        Self { status, said: Said::Listed([Message { message }]), is_transient: false }
    }

    /// A document of this level that is not there.
    pub(super) fn missing(dialect: Dialect, level: &str) -> Self {
        Self::new(dialect, StatusCode::NOT_FOUND, format!("{level} not found."))
    }

    /// A change of something that is in no dataset.
    pub(super) fn no_dataset(dataset: &str) -> Self {
        Self::listed(StatusCode::NOT_FOUND, format!("Dataset {dataset} does not exist"))
    }

    /// What a request ran into.
    pub(super) fn of(about: About<'_>, error: Error) -> Self {
        let text = match error.field() {
            Some(field) => format!("{field}: {error}"),
            None => error.to_string(),
        };
        let is_transient = error.kind().is_transient();
        let refused = match about.dialect {
            Dialect::First => Self::first(about.doing, error, text),
            Dialect::Later => Self::later(about.dataset, error, text),
        };
        Self { is_transient, ..refused }
    }

    fn first(doing: &str, error: Error, text: String) -> Self {
        let new = |status, message| Self::new(Dialect::First, status, message);
        match error.kind() {
            Kind::Forbidden => new(StatusCode::FORBIDDEN, "Forbidden".to_owned()),
            Kind::NotFound => new(StatusCode::NOT_FOUND, text),
            Kind::Conflict => new(StatusCode::CONFLICT, format!("Resource Conflict: {text}")),
            Kind::Invalid => new(StatusCode::BAD_REQUEST, format!("Error {doing}: {text}")),
            kind => new(kind.status(), Refusal::from(error).problem.message),
        }
    }

    fn later(dataset: &str, error: Error, text: String) -> Self {
        let faults = |message| {
            let said = Said::Faults { message, errors: [text.clone()] };
            Self { status: StatusCode::BAD_REQUEST, said, is_transient: false }
        };
        let new = |status, message| Self::new(Dialect::Later, status, message);
        match error.kind() {
            Kind::Forbidden => Self::listed(
                StatusCode::FORBIDDEN,
                format!("You are not authorized to access dataset {dataset}"),
            ),
            Kind::NotFound => new(StatusCode::NOT_FOUND, text),
            Kind::Conflict => Self::listed(StatusCode::CONFLICT, format!("Resource Conflict: {text}")),
            Kind::Invalid if error.field() == Some("body") => faults("JSON parse error"),
            Kind::Invalid if error.field().is_some() => faults("Validation error"),
            Kind::Invalid => new(StatusCode::BAD_REQUEST, text),
            kind => new(kind.status(), Refusal::from(error).problem.message),
        }
    }

    /// A body that did not arrive whole or is too large.
    pub(super) fn body(dialect: Dialect, Refusal { problem, status }: Refusal) -> Self {
        let is_transient = problem.kind.is_transient();
        Self { is_transient, ..Self::new(dialect, status, problem.message) }
    }

    pub(super) fn into_response(self) -> Response {
        let response = json(self.status, &self.said).map_err(Refusal::from);
        let mut response = response.unwrap_or_else(|refusal| refusal.into_response());
        if self.is_transient {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The answer to somebody who is not known.
pub(super) fn denied(dialect: Dialect, denial: Denial) -> Response {
    match (dialect, denial) {
        (Dialect::Later, Denial::Missing) => {
            let missing = "Authorization header missing".to_owned();
            let mut response = Refused::listed(StatusCode::FORBIDDEN, missing).into_response();
            Denial::Missing.finish(response.headers_mut());
            response
        }
        (_, denial) => message::denied(denial),
    }
}
