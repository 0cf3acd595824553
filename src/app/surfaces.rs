//! The surfaces that are switched on by configuration, each at the server's own address below a path of its own, or
//! at an address of its own.

use std::net::SocketAddr;

use axum::Router;
use indexer::{Positions, Profiles};
use ingest::auth::{Guard, Guarded};
use ingest::http::{Tracking, UserPool, UserPoolSettings, VehicleSettings, Vehicles};
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
    if let Some(served) = config.tracking.served() {
        surfaces.extend(tracking(parts, config, &served).await?);
    }
    if let Some(served) = config.vehicles.served() {
        surfaces.extend(vehicles(parts, config, &served).await?);
    }
    if let Some(served) = config.user_pool.served() {
        surfaces.extend(user_pool(parts, config, &served).await?);
    }
    Ok(surfaces)
}

/// Says so where others may do something without a credential.
fn tell_if_open(is_open: bool, (served, config): (&Served, &Config), what: &str) {
    let address = served.listen.unwrap_or(config.listen);
    if is_open && !address.ip().is_loopback() {
        tracing::warn!(%address, "everybody who reaches this address may {what}");
    }
}

/// The collector of user events, and what is known of users: the one takes events, the other answers queries.
async fn tracking(parts: &Parts, config: &Config, served: &Served) -> Result<Option<Surface>, Failure> {
    let (mut router, mut paths, mut api) = (Router::new(), Vec::new(), Api::default());
    let settings = &config.tracking;
    if config.roles.has(Role::Ingest) {
        tell_if_open(settings.open, (served, config), "write to the tracking streams");
        let door = Tracking::new(parts.ingest.clone(), settings.open).await;
        router = router.merge(door.or_fail("open the tracking surface")?.router());
        paths.extend(Tracking::PATHS);
        api.merge(Tracking::openapi());
    }
    let is_read = config.roles.has(Role::Query);
    if is_read {
        router = router.merge(Profiles::router(&parts.indexer));
        api.merge(Profiles::openapi());
    }
    let is_there = is_read || !paths.is_empty();
    Ok(is_there.then(|| Surface::new("tracking", (router, &paths, api), served)))
}

/// Positions of vehicles: one door belongs to those who take events, the other to those who answer queries.
async fn vehicles(parts: &Parts, config: &Config, served: &Served) -> Result<Option<Surface>, Failure> {
    let settings = &config.vehicles;
    let (mut router, mut paths, mut api) = (Router::new(), Vec::new(), Api::default());
    if config.roles.has(Role::Ingest) {
        let door = Vehicles::new(
            parts.ingest.clone(),
            VehicleSettings {
                stream_name: settings.stream_name.clone(),
                dataset: settings.dataset.clone(),
                table: settings.dataset.clone(),
                partitions: settings.partitions,
                ttl_seconds: settings.ttl.0.as_secs(),
                long_longitudes: settings.long_longitudes,
            },
        );
        router = router.merge(door.await.or_fail("open the surface of vehicles")?.router());
        paths.extend(Vehicles::PATHS);
        api.merge(Vehicles::openapi());
    }
    if config.roles.has(Role::Query) {
        tell_if_open(settings.open, (served, config), "read positions of vehicles");
        let how = (settings.open, settings.envelope);
        let door = Positions::new(parts.indexer.clone(), settings.dataset.clone(), how);
        router = router.merge(door.router());
        paths.extend(Positions::PATHS);
        api.merge(Positions::openapi());
    }
    Ok((!paths.is_empty()).then(|| Surface::new("vehicles", (router, &paths, api), served)))
}

/// A pool of users, of those who may write to the catalog.
async fn user_pool(parts: &Parts, config: &Config, served: &Served) -> Result<Option<Surface>, Failure> {
    let Some(pool) = parts.pool.clone().filter(|_| config.roles.has(Role::Ingest)) else { return Ok(None) };
    let settings = &config.user_pool;
    tell_if_open(settings.sign_up, (served, config), "sign up");
    let settings = UserPoolSettings { sign_up: settings.sign_up, messages: settings.messages.clone() };
    let door = UserPool::new(parts.ingest.clone(), pool, settings).await.or_fail("open the user pool")?;
    // Its root is a path of its own, with and without a slash behind it.
    let surface = Surface::new("user_pool", (Router::new(), &UserPool::PATHS, UserPool::openapi()), served);
    Ok(Some(Surface { router: door.router(&served.prefix), ..surface }))
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
    ) -> Result<(&'static str, TcpListener, Guarded), Failure> {
        let listener = TcpListener::bind(address).await.or_fail(format!("listen on {address}"))?;
        let router = self
            .router
            .fallback(ingest::http::not_found)
            .method_not_allowed_fallback(ingest::http::method_not_allowed);
        let guard = Guard::new(parts.ingest.clone()).leave(self.paths);
        tracing::info!(%address, surface = self.name, "ready");
        Ok((self.name, listener, Guarded::new(router, guard)))
    }
}
