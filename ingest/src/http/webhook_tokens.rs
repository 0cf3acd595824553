//! `/api/v1/webhook-tokens`: tokens for those who cannot send a header. [`super::webhooks`] has the same tokens as
//! another service has them.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use broker::access::webhook::{Operation, WebhookToken};
use broker::catalog::Row;
use broker::{Permission, Principal, Timestamp};
use http::{HeaderMap, StatusCode, Uri};
use proto::problem::ProblemBody;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::access::{Asked, Page, Pair, created, pair};
use super::streams::read;
use super::{Refusal, json};
use crate::Ingest;

/// What is sent to create a token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookTokenDraft)]
pub(super) struct Draft {
    dataset: String,
    operation: Operation,
}

/// A token for one operation on one dataset.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookToken)]
pub(super) struct Shown<'a> {
    id: &'a str,
    /// Only where it was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    dataset: &'a str,
    operation: Operation,
    created_by: &'a str,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

impl<'a> Shown<'a> {
    fn of(row: &'a Row<WebhookToken>, token: Option<&'a str>) -> Self {
        let WebhookToken { id, dataset, created_by, .. } = &row.value;
        let WebhookToken { operation, created_at, expires_at, .. } = row.value;
        Self { id, token, dataset, operation, created_by, created_at, expires_at }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct Tokens<'a> {
    webhook_tokens: Vec<Shown<'a>>,
    next: Option<&'a str>,
}

#[utoipa::path(
    post,
    path = "/api/v1/webhook-tokens",
    tag = "access",
    operation_id = "createToken",
    summary = "Creates a webhook token, which is shown this once",
    request_body = Draft,
    responses(
        (status = 201, description = "It is there", body = Shown<'_>, headers(("Location" = String, description = "Its path"))),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn create(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Principal>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let Draft { dataset, operation } = read(&ingest, &headers, body).await?;
    let (made, row) = ingest.create_webhook_token(&caller, &dataset, operation).await?;
    let location = format!("/api/v1/webhook-tokens/{dataset}/{}", made.id);
    created(&location, &Shown::of(&row, Some(&made.token)))
}

/// Those of the datasets that the caller administers.
#[utoipa::path(
    get,
    path = "/api/v1/webhook-tokens",
    tag = "access",
    operation_id = "listTokens",
    summary = "Lists webhook tokens",
    params(
        ("dataset" = Option<String>, Query, description = "Those of one dataset"),
        ("limit" = Option<u32>, Query, description = "1 to 1,000, 100 where it is not given", minimum = 1, maximum = 1000),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of those that were not deleted", body = inline(Tokens<'_>)),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn list(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Principal>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let is_wanted = |token: &Row<WebhookToken>, asked: &Asked| {
        let WebhookToken { dataset, is_active, .. } = &token.value;
        *is_active
            && asked.get("dataset").is_none_or(|asked| asked == dataset)
            && ingest.catalog.may(&caller, dataset, Permission::Admin)
    };
    let page = Page::<WebhookToken>::read(&ingest, &uri, &["dataset"], is_wanted)?;
    let webhook_tokens = page.rows.iter().map(|row| Shown::of(row, None)).collect();
    Ok(json(StatusCode::OK, &Tokens { webhook_tokens, next: page.next() })?)
}

#[utoipa::path(
    delete,
    path = "/api/v1/webhook-tokens/{dataset}/{id}",
    tag = "access",
    operation_id = "deleteToken",
    summary = "Deletes a webhook token",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("id" = String, Path, description = "The token's id, or the token"),
    ),
    responses(
        (status = 204, description = "It is not taken any more"),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn delete(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Principal>,
    path: Pair,
) -> Result<StatusCode, Refusal> {
    let (dataset, id) = pair(path)?;
    ingest.delete_webhook_token(&caller, &dataset, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
