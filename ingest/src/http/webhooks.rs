//! `/webhooks/{dataset}/tokens`: tokens for those who cannot send a header, as the permission service has
//! them that this surface stands in for. A token is shown when it is made; from then on its id stands
//! where the token stood.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get};
use axum::{Extension, Router};
use broker::access::webhook::{Operation, Reason, WebhookToken, Webhooks as _};
use broker::access::{Caller, Peer};
use broker::catalog::Row;
use broker::{Error, Principal, Timestamp};
use http::{StatusCode, Uri};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::json;
use super::message::{Message, Refused, denied, said};
use crate::Ingest;
use crate::body::BodyLimit;

const ROOT: &str = "/webhooks/";
const BODY: BodyLimit = BodyLimit { name: "token_request_bytes_max", bytes_max: 16 << 10 };
const NO_OPERATION: &str = "value is not a valid enumeration member; permitted: 'read', 'write'";
const MISSING: &str = "field required";

type OfDataset = Result<Path<String>, PathRejection>;
type OfToken = Result<Path<(String, String)>, PathRejection>;

pub(super) fn router() -> Router<Arc<Ingest>> {
    Router::new()
        .route("/webhooks/{dataset}/tokens", get(list).post(create))
        .route("/webhooks/{dataset}/tokens/{token}", delete(remove))
        .route("/webhooks/{dataset}/tokens/{token}/authorize", get(authorize))
}

/// A path as logs may show it: without the webhook token that it may hold.
pub fn shown_path(path: &str) -> Cow<'_, str> {
    let rest = path.strip_prefix(ROOT).and_then(|rest| rest.split_once('/'));
    match rest.and_then(|(dataset, rest)| Some((dataset, rest.split_once('/')?.1))) {
        Some((dataset, _)) => format!("{ROOT}{dataset}/…").into(),
        None => path.into(),
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct TokenJson<'a> {
    /// The token where it was just made, else its id.
    token: &'a str,
    id: &'a str,
    created_by: &'a str,
    dataset_id: &'a str,
    operation: Operation,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    is_active: bool,
}

impl<'a> TokenJson<'a> {
    fn of(row: &'a Row<WebhookToken>, token: Option<&'a str>) -> Self {
        let WebhookToken { id, dataset, created_by, .. } = &row.value;
        let WebhookToken { operation, created_at, expires_at, is_active, .. } = row.value;
        let token = token.unwrap_or(id);
        Self { token, id, created_by, dataset_id: dataset, operation, created_at, expires_at, is_active }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct Authorized {
    access: bool,
    reason: Option<String>,
}

/// What is sent to create a token; other fields are not looked at.
#[derive(ToSchema)]
pub(super) struct TokenDraft {
    #[allow(dead_code, reason = "it is read by hand, and stands here for its shape")]
    operation: Operation,
}

/// Why a request was not done.
enum Wrong {
    /// Something of it cannot be read: where that is, and what is wrong with it.
    Request(&'static [&'static str], Cow<'static, str>),
    Other(Refused),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Wrong::Other(error.into())
    }
}

impl From<Refused> for Wrong {
    fn from(refused: Refused) -> Self {
        Wrong::Other(refused)
    }
}

#[utoipa::path(
    post,
    path = "/webhooks/{dataset}/tokens",
    tag = "webhooks",
    operation_id = "createWebhookToken",
    summary = "Creates a webhook token",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
    ),
    request_body = TokenDraft,
    responses(
        (status = 201, description = "The token, which is shown this once", body = TokenJson<'_>),
        (status = "4XX", description = "The request is refused", body = Message<'_>),
        (status = "5XX", description = "It cannot be done now", body = Message<'_>),
    ),
)]
async fn create(
    State(ingest): State<Arc<Ingest>>,
    Extension(Caller(caller)): Extension<Caller>,
    path: OfDataset,
    request: Request,
) -> Response {
    match caller {
        Ok(caller) => answered(created(&ingest, &caller, path, request).await),
        Err(denial) => denied(denial),
    }
}

async fn created(
    ingest: &Ingest,
    caller: &Principal,
    path: OfDataset,
    request: Request,
) -> Result<Response, Wrong> {
    let dataset = dataset(path)?;
    // Who may not learns no more of what it sent.
    ingest.webhook_tokens(caller, &dataset)?;
    let (head, body) = request.into_parts();
    let (body, _charge) = ingest.read_body(&head.headers, body, BODY).await.map_err(Refused::from)?;
    let (made, row) = ingest.create_webhook_token(caller, &dataset, operation(&body)?).await?;
    Ok(json(StatusCode::CREATED, &TokenJson::of(&row, Some(&made.token)))?)
}

#[utoipa::path(
    get,
    path = "/webhooks/{dataset}/tokens",
    tag = "webhooks",
    operation_id = "listWebhookTokens",
    summary = "Lists webhook tokens",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
    ),
    responses(
        (status = 200, description = "Those that were not deleted", body = [TokenJson<'_>]),
        (status = "4XX", description = "The request is refused", body = Message<'_>),
        (status = "5XX", description = "It cannot be done now", body = Message<'_>),
    ),
)]
async fn list(
    State(ingest): State<Arc<Ingest>>,
    Extension(Caller(caller)): Extension<Caller>,
    path: OfDataset,
) -> Response {
    let listed = |caller: &Principal| {
        let rows = ingest.webhook_tokens(caller, &dataset(path)?)?;
        let tokens: Vec<_> = rows.iter().map(|row| TokenJson::of(row, None)).collect();
        Ok(json(StatusCode::OK, &tokens)?)
    };
    match caller {
        Ok(caller) => answered(listed(&caller)),
        Err(denial) => denied(denial),
    }
}

#[utoipa::path(
    delete,
    path = "/webhooks/{dataset}/tokens/{token}",
    tag = "webhooks",
    operation_id = "deleteWebhookToken",
    summary = "Deletes a webhook token",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("token" = String, Path, description = "The token, or its id"),
    ),
    responses(
        (status = 200, description = "It is deleted", body = Message<'_>),
        (status = "4XX", description = "The request is refused", body = Message<'_>),
        (status = "5XX", description = "It cannot be done now", body = Message<'_>),
    ),
)]
async fn remove(
    State(ingest): State<Arc<Ingest>>,
    Extension(Caller(caller)): Extension<Caller>,
    path: OfToken,
) -> Response {
    let removed = async |caller: &Principal| {
        let (dataset, token) = pair(path)?;
        match ingest.delete_webhook_token(caller, &dataset, &token).await {
            Ok(()) => Ok(said(StatusCode::OK, &format!("Deleted {token} for dataset {dataset}"))),
            Err(error) => Err(error.into()),
        }
    };
    match caller {
        Ok(caller) => answered(removed(&caller).await),
        Err(denial) => denied(denial),
    }
}

/// Says whether a token may be used for an operation; for everybody with a credential.
#[utoipa::path(
    get,
    path = "/webhooks/{dataset}/tokens/{token}/authorize",
    tag = "webhooks",
    operation_id = "authorizeWebhookToken",
    summary = "Says what a webhook token may be used for",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("token" = String, Path, description = "The token, or its id"),
        ("operation" = Operation, Query, description = "For what"),
    ),
    responses(
        (status = 200, description = "Whether it may be used", body = inline(Authorized)),
        (status = "4XX", description = "The request is refused", body = Message<'_>),
        (status = "5XX", description = "It cannot be done now", body = Message<'_>),
    ),
)]
async fn authorize(
    State(ingest): State<Arc<Ingest>>,
    Extension(Caller(caller)): Extension<Caller>,
    path: OfToken,
    request: Request,
) -> Response {
    let peer = request.extensions().get::<Peer>().copied().unwrap_or_default();
    match caller {
        Ok(_) => answered(authorized(&ingest, path, request.uri(), peer)),
        Err(denial) => denied(denial),
    }
}

fn authorized(ingest: &Ingest, path: OfToken, uri: &Uri, peer: Peer) -> Result<Response, Wrong> {
    const PLACE: &[&str] = &["query", "operation"];
    let (dataset, token) = pair(path)?;
    let mut pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let (_, asked) =
        pairs.find(|(name, _)| name == "operation").ok_or(Wrong::Request(PLACE, MISSING.into()))?;
    let operation = Operation::of(&asked).ok_or(Wrong::Request(PLACE, NO_OPERATION.into()))?;
    let reason = match ingest.credentials.authorize(&token, (&dataset, operation), peer) {
        Ok(_) => None,
        Err(wait @ Reason::TooMany(_)) => return Err(Refused::from(wait).into()),
        Err(reason) => Some(reason.to_string()),
    };
    Ok(json(StatusCode::OK, &Authorized { access: reason.is_none(), reason })?)
}

/// `{"operation"}`; other fields are not looked at.
fn operation(body: &[u8]) -> Result<Operation, Wrong> {
    const BODY: &[&str] = &["body"];
    const PLACE: &[&str] = &["body", "operation"];
    if body.trim_ascii().is_empty() {
        return Err(Wrong::Request(BODY, MISSING.into()));
    }
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| Wrong::Request(BODY, format!("the body is not valid JSON: {error}").into()))?;
    let fields = body.as_object().ok_or(Wrong::Request(BODY, "value is not a valid dict".into()))?;
    let named = fields.get("operation").ok_or(Wrong::Request(PLACE, MISSING.into()))?;
    named.as_str().and_then(Operation::of).ok_or(Wrong::Request(PLACE, NO_OPERATION.into()))
}

fn dataset(path: OfDataset) -> Result<String, Refused> {
    let Path(dataset) = path.map_err(|error| Error::invalid("path", error.body_text()))?;
    Ok(dataset)
}

fn pair(path: OfToken) -> Result<(String, String), Refused> {
    let Path(pair) = path.map_err(|error| Error::invalid("path", error.body_text()))?;
    Ok(pair)
}

fn answered(answer: Result<Response, Wrong>) -> Response {
    #[derive(Serialize)]
    struct Place<'a> {
        loc: &'a [&'a str],
        msg: &'a str,
    }
    #[derive(Serialize)]
    struct BadRequest<'a> {
        message: &'a str,
        errors: [Place<'a>; 1],
    }
    match answer {
        Ok(response) => response,
        Err(Wrong::Other(refused)) => refused.into_response(),
        Err(Wrong::Request(loc, msg)) => {
            let body = BadRequest { message: "Bad Request", errors: [Place { loc, msg: &msg }] };
            let response = json(StatusCode::BAD_REQUEST, &body);
            response.unwrap_or_else(|error| Refused::from(error).into_response())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::shown_path;

    #[test]
    fn a_token_in_a_path_is_not_shown() {
        for (path, shown) in [
            ("/webhooks/flights/tokens", "/webhooks/flights/tokens"),
            ("/webhooks/flights/tokens/774d8f35", "/webhooks/flights/…"),
            ("/webhooks/flights/tokens/774d8f35/authorize", "/webhooks/flights/…"),
            ("/webhooks//tokens/774d8f35", "/webhooks//…"),
            ("/webhooks", "/webhooks"),
            ("/api/v1/streams/a/1/records", "/api/v1/streams/a/1/records"),
        ] {
            assert_eq!(shown_path(path), shown);
        }
    }
}
