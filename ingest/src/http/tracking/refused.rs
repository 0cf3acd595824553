//! Refusals of the collector of user events: pages of HTML, as the framework of the original writes them, or JSON
//! for who asks for that.

use axum::response::{Html, IntoResponse as _, Response};
use broker::Error;
use broker::access::Denial;
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use proto::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::{Refusal, json, message};
use super::form::Faults;
use crate::auth::DenialExt as _;

const NOT_UNDERSTOOD: &str = "The browser (or proxy) sent a request that this server could not understand.";

/// Why a request was not done.
#[derive(Debug)]
pub(super) struct Refused {
    told: message::Refused,
    faults: Option<Faults>,
    denial: Option<Denial>,
}

/// A refusal in JSON.
#[derive(Serialize, ToSchema)]
#[schema(as = TrackingRefusal)]
pub(super) struct Told<'a> {
    message: &'a str,
    /// What is wrong, by field; in a list by index.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    errors: Option<&'a Faults>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        message::Refused::new(status, message).into()
    }

    /// The body is no JSON, or is not said to be.
    pub(super) fn not_understood() -> Self {
        Self::new(StatusCode::BAD_REQUEST, NOT_UNDERSTOOD)
    }

    pub(super) fn answer(self, wants_json: bool) -> Response {
        let Self { told, faults, denial } = self;
        let status = told.status;
        let mut response = if wants_json {
            let told = Told { message: &told.message, errors: faults.as_ref() };
            json(status, &told).unwrap_or_else(|_| status.into_response())
        } else {
            let text = faults.map_or_else(|| told.message.clone(), |faults| faults.to_string());
            (status, Html(page(status, &text))).into_response()
        };
        told.finish(response.headers_mut());
        if let Some(denial) = denial {
            denial.finish(response.headers_mut());
        }
        response
    }
}

impl From<message::Refused> for Refused {
    fn from(told: message::Refused) -> Self {
        Self { told, faults: None, denial: None }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        message::Refused::from(error).into()
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        message::Refused::from(refusal).into()
    }
}

impl From<Faults> for Refused {
    fn from(faults: Faults) -> Self {
        Self { faults: Some(faults), ..Self::new(StatusCode::BAD_REQUEST, "fields are wrong") }
    }
}

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        let Problem { kind, message, .. } = denial.problem();
        Self { denial: Some(denial), ..Self::new(kind.status(), message) }
    }
}

pub(super) fn wants_json(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"application/json"))
}

/// A status with a text.
fn page(status: StatusCode, text: &str) -> String {
    let (code, name) = (status.as_u16(), status.canonical_reason().unwrap_or_default());
    let mut page =
        format!("<!doctype html>\n<html lang=en>\n<title>{code} {name}</title>\n<h1>{name}</h1>\n<p>");
    for c in text.chars() {
        match c {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&#34;"),
            '\'' => page.push_str("&#39;"),
            c => page.push(c),
        }
    }
    page.push_str("</p>\n");
    page
}
