//! What the server counts, in Prometheus' text format.

use std::sync::Arc;

use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Extension, Router};
use broker::access::EVERY_DATASET;
use broker::{Catalog, Permission, Principal};
use http::header::CONTENT_TYPE;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use proto::problem::Problem;

use crate::failure::{Exit, Failure};

/// The format's media type, from Prometheus' exposition formats.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Counts from now on. Once in a process.
pub(super) fn start() -> Result<PrometheusHandle, Failure> {
    let started = PrometheusBuilder::new().install_recorder();
    started.map_err(|error| Failure::new(Exit::Failure, format!("count metrics: {error}")))
}

/// `GET /metrics`, for who may read every dataset: the names of all streams stand in it.
pub(super) fn router(handle: PrometheusHandle, catalog: Arc<Catalog>) -> Router {
    let answer = move |Extension(caller): Extension<Principal>| async move {
        match catalog.require(&caller, EVERY_DATASET, Permission::Read) {
            Ok(()) => ([(CONTENT_TYPE, TEXT_FORMAT)], handle.render()).into_response(),
            Err(error) => Problem::from(error).into_response(),
        }
    };
    Router::new().route("/metrics", get(answer))
}
