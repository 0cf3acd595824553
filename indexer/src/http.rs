//! The query doors over HTTP: `/api/v1/streams/{dataset}/{version}/events…`, and the older surface
//! `/streams/{dataset}/{version}/events` in [`contract`].
//!
//! Refusals carry a problem as an extension; the server renders their bodies, where the id of the
//! request is known. Who may call is decided outside.

mod api;
mod contract;
mod events;
mod handover;
mod json;
mod positions;
mod profiles;
mod statistics;
mod subscription;
mod tables;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::response::Response;
use axum::routing::get;
use broker::Error;
use proto::problem::Problem;

pub use self::api::openapi;
pub use self::handover::Handover;
pub use self::positions::Positions;
pub use self::profiles::Profiles;
use crate::index::Indexer;

pub(crate) fn router(indexer: Arc<Indexer>) -> Router {
    Router::new()
        .route("/api/v1/streams/{dataset}/{version}/events", get(events::page))
        .route("/api/v1/streams/{dataset}/{version}/events/count", get(events::count))
        .route("/api/v1/streams/{dataset}/{version}/events/histogram", get(events::histogram))
        .route("/api/v1/streams/{dataset}/{version}/events/export", get(events::export))
        .route("/api/v1/tables", get(tables::all))
        .route("/api/v1/tables/{name}", get(tables::rows))
        .route("/api/v1/tables/{name}/{key}", get(tables::row))
        .route("/streams/{dataset}/{version}/events", get(contract::events))
        .route("/streams/{dataset}/{version}/events/statistics", get(contract::statistics))
        .route("/elasticsearch-queries/{dataset}/events", get(statistics::events))
        .route(subscription::PATH, get(subscription::subscribe))
        .with_state(indexer)
}

/// Why a request was not done.
#[derive(Debug)]
struct Refusal(Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl axum::response::IntoResponse for Refusal {
    fn into_response(self) -> Response {
        Problem::from(self.0).into_response()
    }
}
