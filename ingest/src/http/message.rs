//! Answers `{"message": …}`, as services have them that some surfaces stand in for.

use axum::response::{IntoResponse, Response};
use broker::access::webhook::Reason;
use broker::access::{Denial, retry_after};
use broker::{Error, Kind};
use http::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;

use super::{Refusal, json};
use crate::auth::DenialExt as _;

/// A refusal, or an answer, of one text.
#[derive(Serialize, ToSchema)]
pub(super) struct Message<'a> {
    message: &'a str,
}

/// A status with a text.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// From when on it may be tried again, in seconds.
    retry_after: Option<u64>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), retry_after: None }
    }
}

impl Refused {
    /// Sets the headers that go with it.
    pub(super) fn finish(&self, headers: &mut HeaderMap) {
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::REQUEST_TIMEOUT {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let text = match error.field() {
            Some(field) => format!("{field}: {error}"),
            None => error.to_string(),
        };
        let status = error.kind().status();
        match error.kind() {
            Kind::Forbidden => Self::new(status, "Forbidden"),
            Kind::Internal | Kind::Corrupt => {
                error!(%error, "a request failed");
                Self::new(status, "Internal server error")
            }
            kind => Self { retry_after: kind.is_transient().then_some(1), ..Self::new(status, text) },
        }
    }
}

impl From<Refusal> for Refused {
    fn from(Refusal { problem, status }: Refusal) -> Self {
        let retry_after = problem.kind.is_transient().then_some(1);
        Self { retry_after, ..Self::new(status, problem.message) }
    }
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        let Reason::TooMany(wait) = reason else {
            return Self::new(StatusCode::FORBIDDEN, reason.to_string());
        };
        Self {
            retry_after: Some(retry_after(wait)),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, reason.to_string())
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = said(self.status, &self.message);
        self.finish(response.headers_mut());
        response
    }
}

/// An answer of one text.
pub(super) fn said(status: StatusCode, message: &str) -> Response {
    json(status, &Message { message }).unwrap_or_else(|_| status.into_response())
}

/// The answer of a gateway to somebody whom it does not know.
pub(super) fn denied(denial: Denial) -> Response {
    let mut response = match denial {
        Denial::TooMany(_) => said(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests"),
        Denial::Unavailable(_) => said(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
        _ => said(StatusCode::UNAUTHORIZED, "Unauthorized"),
    };
    denial.finish(response.headers_mut());
    response
}
