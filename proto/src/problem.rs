//! Error kinds and how each looks over HTTP and gRPC. A kind exists only if a caller acts
//! differently on it.

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};
use utoipa::ToSchema;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Fix the request.
    Invalid,
    /// Present a credential that is known.
    Unauthenticated,
    /// Ask somebody who may.
    Forbidden,
    /// Create it first.
    NotFound,
    /// Read again and retry: somebody else was first.
    Conflict,
    /// The request is larger than a named limit.
    TooLarge,
    /// Slow down and retry.
    Busy,
    /// Retry later.
    Unavailable,
    /// The worker lost its share; reopen.
    Fenced,
    /// Stored data is damaged; call an operator.
    Corrupt,
    /// A bug; report it.
    Internal,
}

impl Kind {
    /// The kind's name in answers, in `snake_case`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Invalid => "invalid",
            Kind::Unauthenticated => "unauthenticated",
            Kind::Forbidden => "forbidden",
            Kind::NotFound => "not_found",
            Kind::Conflict => "conflict",
            Kind::TooLarge => "too_large",
            Kind::Busy => "busy",
            Kind::Unavailable => "unavailable",
            Kind::Fenced => "fenced",
            Kind::Corrupt => "corrupt",
            Kind::Internal => "internal",
        }
    }

    /// The status of an HTTP answer of this kind.
    pub fn status(self) -> StatusCode {
        match self {
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict => StatusCode::CONFLICT,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::Busy => StatusCode::TOO_MANY_REQUESTS,
            Kind::Unavailable | Kind::Fenced => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Corrupt | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The code of a gRPC status of this kind.
    pub fn code(self) -> Code {
        match self {
            Kind::Invalid => Code::InvalidArgument,
            Kind::Unauthenticated => Code::Unauthenticated,
            Kind::Forbidden => Code::PermissionDenied,
            Kind::NotFound => Code::NotFound,
            Kind::Conflict => Code::AlreadyExists,
            Kind::TooLarge => Code::OutOfRange,
            Kind::Busy => Code::ResourceExhausted,
            Kind::Unavailable => Code::Unavailable,
            Kind::Fenced => Code::Aborted,
            Kind::Corrupt => Code::DataLoss,
            Kind::Internal => Code::Internal,
        }
    }

    /// Whether the same request may succeed later.
    pub fn is_transient(self) -> bool {
        matches!(self, Kind::Busy | Kind::Unavailable | Kind::Fenced)
    }
}

/// An error as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// What the client can do about it.
    pub kind: Kind,
    /// What happened.
    pub message: String,
    /// The field of the request that is at fault; `null` in JSON where there is none.
    pub field: Option<String>,
}

impl Problem {
    /// An HTTP answer of the kind's status that carries the problem as an extension and has no body
    /// yet; [`render`] writes it. `Retry-After` is set where retrying may help.
    pub fn into_response<B: Default>(self) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = self.kind.status();
        if self.kind.is_transient() {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(self);
        response
    }

    /// A gRPC status of the kind's code; the field stands before the message.
    pub fn into_status(self) -> Status {
        let message = match &self.field {
            Some(field) => format!("{field}: {}", self.message),
            None => self.message,
        };
        Status::new(self.kind.code(), message)
    }
}

/// The body of a refusal of `/api/v1`.
#[derive(Serialize, ToSchema)]
pub struct ProblemBody<'a> {
    error: Identified<'a>,
}

/// A problem and the request that ran into it.
#[derive(Serialize, ToSchema)]
#[schema(as = IdentifiedProblem)]
struct Identified<'a> {
    #[serde(flatten)]
    problem: &'a Problem,
    /// As the header `x-request-id` has it.
    request_id: &'a str,
}

/// Writes the body of an answer made by [`Problem::into_response`], in the shape of `/api/v1`:
/// `{"error":{"kind","message","field","request_id"}}`. Other answers pass unchanged.
pub fn render<B: From<String>>(mut response: Response<B>, request_id: &str) -> Response<B> {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        return response;
    };
    let body = ProblemBody { error: Identified { problem: &problem, request_id } };
    let body = serde_json::to_string(&body).expect("strings always become JSON");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // A router may have said already how long nothing is.
    headers.remove(CONTENT_LENGTH);
    *response.body_mut() = B::from(body);
    response
}

#[cfg(test)]
mod tests {
    use http::Response;

    use super::{Kind, Problem, render};

    #[test]
    fn an_answer_has_all_its_members_also_without_a_field() {
        let problem = Problem { kind: Kind::NotFound, message: "gone".to_owned(), field: None };
        let mut answer: Response<String> = problem.into_response();
        answer.headers_mut().insert("content-length", "0".parse().unwrap());
        let answer = render(answer, "r-1");
        assert!(!answer.headers().contains_key("content-length"), "it is another one");
        let wanted = r#"{"error":{"kind":"not_found","message":"gone","field":null,"request_id":"r-1"}}"#;
        assert_eq!(answer.body(), wanted);
    }

    #[test]
    fn names_are_what_serde_writes() {
        for kind in [Kind::Invalid, Kind::NotFound, Kind::TooLarge, Kind::Internal] {
            let written = serde_json::to_string(&kind).unwrap();
            assert_eq!(written, format!("\"{}\"", kind.name()));
        }
    }
}
