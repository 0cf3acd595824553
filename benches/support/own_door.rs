//! The HTTP door alone, with and without its guard: what it costs to know who calls. Each is a process of
//! its own, which a driver becomes that is called with [`GUARDED`] or [`OPEN`].

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::get;
use broker::log::sled::{SledLog, SledOptions};
use broker::time::SystemClock;
use broker::{Catalog, Clock, Principal};
use ingest::auth::{Credentials, Guard, Guarded};
use ingest::{Ingest, Limits, Parts};
use tokio_util::sync::CancellationToken;

use super::local::runtime;
use super::server::TOKEN;

/// `DRIVER guarded FOLDER --listen ADDRESS`: as the server has it.
pub(crate) const GUARDED: &str = "guarded";
/// `DRIVER open FOLDER --listen ADDRESS`: everybody is the administrator.
pub(crate) const OPEN: &str = "open";

/// Whether this process was to be one of the doors, and has been it.
pub(crate) fn was_asked_for() -> bool {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, folder, _, address] = arguments.as_slice() else { return false };
    let is_asked_for = [GUARDED, OPEN].contains(&name.as_str());
    if is_asked_for {
        let address = address.parse().expect("an address");
        runtime().block_on(serve(Path::new(folder), address, name == GUARDED));
    }
    is_asked_for
}

async fn serve(folder: &Path, address: SocketAddr, is_guarded: bool) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log = SledLog::open(SledOptions::at(folder.join("log")), Arc::clone(&clock)).await;
    let log = log.expect("open the log");
    let catalog = Catalog::open(log.clone(), Arc::clone(&clock)).await.expect("open the catalog");
    let credentials = Credentials::new(TOKEN.to_owned(), Arc::clone(&catalog), Arc::clone(&clock));
    let ingest = Ingest::new(Parts {
        log,
        catalog,
        clock,
        credentials: Arc::new(credentials),
        limits: Limits::default(),
        implicit_datasets: false,
        shutdown: CancellationToken::new(),
    });
    let ready = axum::Router::new().route("/readyz", get(|| async { "ready\n" }));
    let router = ingest.router();
    let router = if is_guarded {
        Guarded::new(router.merge(ready), Guard::new(ingest).open(["/readyz"])).into_router()
    } else {
        router.layer(from_fn(let_in)).merge(ready)
    };
    let listener = tokio::net::TcpListener::bind(address).await.expect("listen");
    axum::serve(listener, router).await.expect("serve");
}

async fn let_in(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Principal::administrator());
    next.run(request).await
}
