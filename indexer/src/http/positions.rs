//! `GET /get-gps?busId=`: the last position of a vehicle, out of a table.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use broker::access::{Caller, Denial, retry_after};
use broker::{Error, Kind, Permission, Principal, Result, ResultExt as _};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::{Value, json};
use utoipa::openapi::OpenApi as Api;
use utoipa::{OpenApi, ToSchema};

use crate::index::Indexer;
use crate::table::Row;

/// Where the last position of a vehicle is read.
pub struct Positions {
    indexer: Arc<Indexer>,
    table: String,
    is_open: bool,
    has_envelope: bool,
}

#[derive(OpenApi)]
#[openapi(paths(get_gps))]
struct Documented;

/// A position; an empty object where a vehicle has none.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(dead_code, reason = "it is written by hand, and stands here for its shape")]
struct Position {
    #[schema(nullable = false)]
    bus_id: Option<String>,
    #[schema(nullable = false)]
    latitude: Option<String>,
    #[schema(nullable = false)]
    longitude: Option<String>,
    /// When it arrived, in seconds since 1970.
    #[schema(nullable = false)]
    updated_at: Option<String>,
}

/// Why there is no position.
#[derive(ToSchema)]
#[schema(as = PositionRefused)]
#[allow(dead_code, reason = "it is written by hand, and stands here for its shape")]
struct Refused {
    error: String,
}

impl Positions {
    /// What it answers; it refuses by itself, in the words that its clients know.
    pub const PATHS: [&str; 1] = ["/get-gps"];

    /// Reads `table`. With `is_open`, who presents nothing may; with `has_envelope`, every answer that the original's
    /// function gave is a 200 that holds its status and its body as a text.
    pub fn new(indexer: Arc<Indexer>, table: String, (is_open, has_envelope): (bool, bool)) -> Arc<Self> {
        Arc::new(Self { indexer, table, is_open, has_envelope })
    }

    /// The HTTP door, behind a guard that leaves refusing to it.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().route("/get-gps", get(get_gps)).with_state(self.clone())
    }

    /// What it is.
    pub fn openapi() -> Api {
        Documented::openapi()
    }

    /// The position of a vehicle, or `{}`.
    async fn find(&self, caller: Option<&Principal>, id: &str) -> Result<Value> {
        let named = self.indexer.tables.find(&self.table)?;
        if let Some(caller) = caller {
            self.indexer.catalog.require(caller, named.stream.name().dataset(), Permission::Read)?;
        }
        let table = self.indexer.tables.open(&named).await?;
        match self.indexer.tables.get(&table, id.as_bytes())? {
            Some(row) => position(row),
            None => Ok(json!({})),
        }
    }

    fn answer(&self, status: StatusCode, body: &Value) -> Response {
        if !self.has_envelope {
            return answer(status, body);
        }
        let headers = json!({"Content-Type": "application/json"});
        let envelope = json!({"statusCode": status.as_u16(), "headers": headers, "body": body.to_string()});
        answer(StatusCode::OK, &envelope)
    }
}

fn position(row: Row) -> Result<Value> {
    let updated_at = row.arrival.micros().div_euclid(1_000_000).to_string();
    let mut value: Value =
        serde_json::from_slice(&row.value.unwrap_or_default()).or_error(Kind::Corrupt, "read a position")?;
    if let Some(fields) = value.as_object_mut() {
        fields.insert("updatedAt".to_owned(), updated_at.into());
    }
    Ok(value)
}

#[utoipa::path(
    get,
    path = "/get-gps",
    tag = "vehicles",
    operation_id = "getGps",
    summary = "The last position of a vehicle",
    params(("busId" = String, Query, description = "The vehicle's id")),
    responses(
        (status = 200, description = "The position, or an empty object", body = Position),
        (status = "4XX", description = "The request is refused", body = Refused),
        (status = "5XX", description = "It cannot be done now", body = Refused),
    ),
)]
async fn get_gps(
    State(positions): State<Arc<Positions>>,
    Extension(Caller(caller)): Extension<Caller>,
    uri: Uri,
) -> Response {
    let caller = match caller {
        Ok(caller) => Some(caller),
        Err(_) if positions.is_open => None,
        Err(denial) => return denied(denial),
    };
    let pairs = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let id = pairs.filter(|(name, _)| name == "busId").map(|(_, id)| id.into_owned()).last();
    let Some(id) = id.filter(|id| !id.is_empty()) else {
        return positions.answer(StatusCode::BAD_REQUEST, &json!({"error": "Param busId is required"}));
    };
    match positions.find(caller.as_ref(), &id).await {
        Ok(found) => positions.answer(StatusCode::OK, &found),
        Err(error) => failed(&error),
    }
}

/// The server's own refusals are not the function's, and have no envelope.
fn failed(error: &Error) -> Response {
    let status = match error.kind() {
        // The table is there once the surface's other door has made it.
        Kind::NotFound => StatusCode::SERVICE_UNAVAILABLE,
        kind => kind.status(),
    };
    if status.is_server_error() {
        tracing::warn!(%error, "a position cannot be read");
    }
    let mut response = answer(status, &json!({"error": error.to_string()}));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn denied(denial: Denial) -> Response {
    let mut headers = HeaderMap::new();
    let (status, error) = match denial {
        Denial::TooMany(wait) => {
            headers.insert(RETRY_AFTER, HeaderValue::from(retry_after(wait)));
            (StatusCode::TOO_MANY_REQUESTS, "Too Many Requests")
        }
        Denial::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
        _ => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            (StatusCode::UNAUTHORIZED, "Unauthorized")
        }
    };
    (headers, answer(status, &json!({"message": error, "error": error}))).into_response()
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (status, headers, body.to_string()).into_response()
}
