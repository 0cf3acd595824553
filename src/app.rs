//! Wires the server together, in the order in which its parts need each other, and takes it apart
//! in the reverse order.

mod fetch;
mod folder;
mod metrics;
mod openapi;
mod parts;
mod surfaces;
mod tracing_setup;
mod workers;

use std::time::Duration;

use axum::routing::get;
use http::StatusCode;
use indexer::Indexer;
use ingest::Ingest;
use ingest::auth::{Guard, Guarded};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::folder::Folder;
use self::parts::Parts;
use self::surfaces::Surface;
use crate::config::{Config, Secret};
use crate::failure::{Exit, Failure, OrFail};
use crate::serve::listen;
use crate::supervise::{Connections, Failed, Supervisor};

/// The stack of each thread: deep JSON and deep expressions are walked by recursion.
const THREAD_STACK_BYTES: usize = 8 << 20;

/// Runs the server until it is told to stop by SIGINT or SIGTERM, or cannot go on.
pub(crate) fn serve(config: Config) -> Result<(), Failure> {
    broker::memory::return_pages_soon().or_fail("set up the memory")?;
    tracing_setup::start(&config)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().thread_stack_size(THREAD_STACK_BYTES).build();
    runtime.or_fail("start the runtime")?.block_on(Box::pin(run(config)))
}

async fn run(config: Config) -> Result<(), Failure> {
    let _folder = Folder::open(&config.data)?;
    // From here on no signal ends the process by itself: who sees it ready may tell it to stop.
    let signals = Signals::listen()?;
    let token = token(&config)?;
    let metrics = metrics::start()?;
    let end = CancellationToken::new();
    let failed = Failed::new(end.clone());
    let parts = parts::open(&config, token, end.clone()).await?;
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.or_fail(format!("listen on {}", config.listen))?;
    let address = listener.local_addr().or_fail("read the listening address")?;
    let (mut shared, mut own) = (Vec::new(), Vec::new());
    for surface in surfaces::open(&parts, &config).await? {
        match surface.address {
            Some(address) => own.push(surface.listen(address, &parts).await?),
            None => shared.push(surface),
        }
    }

    let workers = Supervisor::new(failed.clone());
    workers::start(&workers, &parts, &config);
    let doors = Supervisor::new(failed.clone());
    let connections = Connections::default();
    let router = router((&parts, metrics), (&config, shared), end.clone()).await;
    let served = std::iter::once(("door", listener, router)).chain(own);
    for (name, listener, router) in served {
        let (limits, connections) = (config.limits.clone(), connections.clone());
        doors.start(name, |stop| listen(listener, router, limits, (connections, stop)));
    }
    info!(%address, data = %config.data.display(), "ready");

    signals.wait_for_the_end(&end).await;
    drain(&config, (&doors, &connections), &workers, parts).await?;
    failed.first().map_or(Ok(()), |error| Err(error.into()))
}

/// The signals that tell the process to stop, kept from the moment on when this is made.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let interrupt = signal(SignalKind::interrupt()).or_fail("listen for SIGINT")?;
        let terminate = signal(SignalKind::terminate()).or_fail("listen for SIGTERM")?;
        Ok(Self { interrupt, terminate })
    }

    async fn wait_for_the_end(mut self, end: &CancellationToken) {
        tokio::select! {
            _ = self.interrupt.recv() => info!("interrupted, shutting down"),
            _ = self.terminate.recv() => info!("terminated, shutting down"),
            () = end.cancelled() => warn!("shutting down after a failure"),
        }
        end.cancel();
    }
}

/// Doors first, so that nothing new comes in; then the workers, which commit what they have; then
/// the log. One grace period over all of it; clients that are slow to end their requests get half of
/// it, so that they cannot keep the rest from ending well.
async fn drain(
    config: &Config,
    (doors, connections): (&Supervisor, &Connections),
    workers: &Supervisor,
    parts: Parts,
) -> Result<(), Failure> {
    let grace = Duration::from_secs(config.shutdown_grace_seconds);
    let began = Instant::now();
    let deadline = began + grace;
    let mut running = doors.finish(deadline).await;
    connections.finish(began + grace / 2).await;
    running.extend(workers.finish(deadline).await);
    match tokio::time::timeout_at(deadline, parts.log.close()).await {
        Ok(closed) => closed?,
        Err(_) => running.push("log"),
    }
    if running.is_empty() {
        info!("stopped");
        return Ok(());
    }
    let message = format!("still running after the grace period: {}", running.join(", "));
    Err(Failure::new(Exit::Failure, message))
}

/// The configured token, or the one in the data folder, which is made and printed at the first start.
fn token(config: &Config) -> Result<Secret, Failure> {
    Ok(match &config.token {
        Some(token) => token.clone(),
        None => {
            let found = crate::config::token::find_or_make(&config.data)?;
            if found.is_new {
                let path = config.data.join("token");
                println!("token, kept in {}: {}", path.display(), found.token.expose());
            }
            found.token
        }
    })
}

async fn router(
    (parts, metrics): (&Parts, PrometheusHandle),
    (config, surfaces): (&Config, Vec<Surface>),
    end: CancellationToken,
) -> Guarded {
    let ready = move || async move {
        if end.is_cancelled() {
            (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
        } else {
            (StatusCode::OK, "ready\n")
        }
    };
    let mut doors = parts.doors(config).await;
    let (mut apis, mut left) = (Vec::new(), Vec::new());
    for Surface { router, paths, api, .. } in surfaces {
        doors = doors.merge(router);
        left.extend(paths);
        apis.push(api);
    }
    let router = doors
        .merge(metrics::router(metrics, parts.catalog.clone()))
        .merge(openapi::router(&config.roles, apis))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .fallback(ingest::http::not_found)
        .method_not_allowed_fallback(ingest::http::method_not_allowed);
    let guard = Guard::new(parts.ingest.clone()).open(["/healthz", "/readyz", "/grpc.health.v1.Health/"]);
    Guarded::new(
        router,
        guard
            .open(Ingest::OPEN_PATHS)
            .open(openapi::OPEN_PATHS)
            .leave(Ingest::LEFT_PATHS)
            .leave(left)
            .leave(Indexer::LEFT_PATHS),
    )
}
