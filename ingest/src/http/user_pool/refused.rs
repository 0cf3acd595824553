//! Refusals as clients of the service know them: the name of an exception, and a message.

use axum::response::Response;
use broker::access::{Denial, retry_after};
use broker::{Error, Kind};
use http::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use http::{HeaderName, StatusCode};
use serde::Serialize;
use tracing::error;
use utoipa::ToSchema;

use super::as_answer;
use crate::auth::{DenialExt as _, Login};
use crate::http::Refusal;

const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const TOO_MANY: &str = "TooManyRequestsException";
const WRONG: &str = "Incorrect username or password.";

/// A refusal.
#[derive(Serialize, ToSchema)]
#[schema(as = PoolRefusal)]
pub(super) struct Told<'a> {
    #[serde(rename = "__type")]
    kind: &'a str,
    message: &'a str,
}

/// Why something is not done.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    kind: &'static str,
    message: String,
    /// From when on it may be tried again, in seconds.
    retry_after: Option<u64>,
}

impl Refused {
    /// With the status that every exception of the service has.
    pub(super) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind, message: message.into(), retry_after: None }
    }

    /// A parameter is wrong.
    pub(super) fn parameter(name: &str, message: impl std::fmt::Display) -> Self {
        Self::new("InvalidParameterException", format!("{name}: {message}"))
    }

    /// Somebody presents nothing to be known by, or something wrong.
    pub(super) fn stranger(denial: Denial) -> Self {
        match denial {
            Denial::TooMany(_) | Denial::Unavailable(_) => denial.into(),
            Denial::Missing => {
                Self::new("MissingAuthenticationTokenException", "Missing Authentication Token")
            }
            Denial::Unsupported => {
                Self::new("IncompleteSignatureException", "a signature of version 4 or a bearer is expected")
            }
            Denial::Expired(message) | Denial::Wrong(message) => {
                Self::new("UnrecognizedClientException", message)
            }
        }
    }

    /// Somebody does not sign in.
    pub(super) fn of_login(login: Login) -> Self {
        match login {
            Login::Failed(error) => error.into(),
            Login::Denied(denial) => denial.into(),
        }
    }

    /// The same under another name, unless it says that too much was tried.
    #[must_use]
    pub(super) fn unless_busy(self, kind: &'static str, message: &str) -> Self {
        if self.kind == TOO_MANY { self } else { Self { kind, message: message.to_owned(), ..self } }
    }

    pub(super) fn into_response(self) -> Response {
        let mut response = as_answer(self.status, &Told { kind: self.kind, message: &self.message });
        let headers = response.headers_mut();
        headers.insert(ERROR_TYPE, HeaderValue::from_static(self.kind));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::REQUEST_TIMEOUT {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::TooMany(wait) => Self {
                status: StatusCode::TOO_MANY_REQUESTS,
                retry_after: Some(retry_after(wait)),
                ..Self::new(TOO_MANY, denial.problem().message)
            },
            Denial::Unavailable(message) => Error::unavailable(message).into(),
            _ => Self::new("NotAuthorizedException", WRONG),
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let text = match error.field() {
            Some(field) => format!("{field}: {error}"),
            None => error.to_string(),
        };
        let told = |kind, text| Self { status: error.kind().status(), ..Self::new(kind, text) };
        match error.kind() {
            Kind::Invalid | Kind::TooLarge => told("InvalidParameterException", text),
            Kind::Forbidden | Kind::Unauthenticated => told("AccessDeniedException", text),
            Kind::NotFound => told("ResourceNotFoundException", text),
            Kind::Conflict => told("ConcurrentModificationException", text),
            Kind::Busy => Self { retry_after: Some(1), ..told(TOO_MANY, text) },
            kind if kind.is_transient() => {
                Self { retry_after: Some(1), ..told("ServiceUnavailableException", text) }
            }
            _ => {
                error!(%error, "a request failed");
                told("InternalErrorException", "Internal server error".to_owned())
            }
        }
    }
}

impl From<Refusal> for Refused {
    fn from(Refusal { problem, status }: Refusal) -> Self {
        let mut error = Error::new(problem.kind, problem.message);
        if let Some(field) = problem.field {
            error = error.with_field(field);
        }
        Self { status, ..error.into() }
    }
}
