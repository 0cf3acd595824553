//! The surfaces that are switched on by configuration, each at the server's own address below a path of its own, or
//! at an address of its own.

use std::net::SocketAddr;

use axum::Router;
use ingest::auth::{Guard, layer};
use ingest::http::Tracking;
use tokio::net::TcpListener;
use utoipa::openapi::OpenApi as Api;

use super::parts::Parts;
use crate::config::{Config, Role, Served};
use crate::failure::{Failure, OrFail};

/// A surface that is served.
pub(super) struct Surface {
    name: &'static str,
    /// Its doors, with the path before them.
    pub(super) router: Router,
    /// Where they are.
    pub(super) paths: Vec<String>,
    /// Its own address, if it has one.
    pub(super) address: Option<SocketAddr>,
    /// What it is.
    pub(super) api: Api,
}

/// Those that are switched on, with what they need made.
pub(super) async fn open(parts: &Parts, config: &Config) -> Result<Vec<Surface>, Failure> {
    let mut surfaces = Vec::new();
    if let Some(served) = config.tracking.served().filter(|_| config.roles.has(Role::Ingest)) {
        let address = served.listen.unwrap_or(config.listen);
        if config.tracking.open && !address.ip().is_loopback() {
            tracing::warn!(%address, "everybody who reaches this address may write to the tracking streams");
        }
        let tracking = Tracking::new(parts.ingest.clone(), config.tracking.open).await;
        let tracking = tracking.or_fail("open the tracking surface")?;
        let doors = (tracking.router(), &Tracking::PATHS[..], Tracking::openapi());
        surfaces.push(Surface::new("tracking", doors, &served));
    }
    Ok(surfaces)
}

impl Surface {
    fn new(name: &'static str, (router, paths, api): (Router, &[&str], Api), served: &Served) -> Self {
        let prefix = &*served.prefix;
        let router = if prefix.is_empty() { router } else { Router::new().nest(prefix, router) };
        let api = if prefix.is_empty() { api } else { Api::default().nest(prefix, api) };
        let paths = paths.iter().map(|path| format!("{prefix}{path}")).collect();
        Self { name, router, paths, address: served.listen, api }
    }

    /// What is served at its own address, with its name.
    pub(super) async fn listen(
        self,
        address: SocketAddr,
        parts: &Parts,
    ) -> Result<(&'static str, TcpListener, Router), Failure> {
        let listener = TcpListener::bind(address).await.or_fail(format!("listen on {address}"))?;
        let router = self
            .router
            .fallback(ingest::http::not_found)
            .method_not_allowed_fallback(ingest::http::method_not_allowed);
        let guard = Guard::new(parts.ingest.clone()).leave(self.paths);
        tracing::info!(%address, surface = self.name, "ready");
        Ok((self.name, listener, layer(router, guard)))
    }
}
