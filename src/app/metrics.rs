//! What the server counts, in Prometheus' text format.

use axum::Router;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::failure::{Exit, Failure};

/// The format's media type, from Prometheus' exposition formats.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Counts from now on. Once in a process.
pub(super) fn start() -> Result<PrometheusHandle, Failure> {
    let started = PrometheusBuilder::new().install_recorder();
    started.map_err(|error| Failure::new(Exit::Failure, format!("count metrics: {error}")))
}

/// `GET /metrics`.
pub(super) fn router(handle: PrometheusHandle) -> Router {
    Router::new()
        .route("/metrics", get(move || async move { ([(CONTENT_TYPE, TEXT_FORMAT)], handle.render()) }))
}
