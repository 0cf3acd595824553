//! The bare table: rows in sled, and a door that looks one up and answers the same text each time. It is a process
//! of its own, which a driver becomes that is called with [`NAME`].

use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;

use axum::Router;
use axum::extract::{Path as Segment, State};
use axum::routing::get;

use super::local::runtime;

/// `DRIVER raw-table FOLDER --listen ADDRESS`; the folder's name ends with the number of rows.
pub(crate) const NAME: &str = "raw-table";
/// How many rows are written at once.
const BATCH: usize = 256;
/// As much as tables have by default.
const CACHE_BYTES: u64 = 256 << 20;
/// As long as a row's answer is.
const ANSWER: &str = r#"{"key":"bus-0000000","value":{"busId":"bus-0000000","latitude":"76.54321","longitude":"-12.34567"},"updated_at":"2026-01-01T00:00:00.000Z","timestamp":"2026-01-01T00:00:00.000Z","expires_at":null,"position":{"partition":0,"offset":100000},"complete_through":[{"partition":0,"offset":250000},{"partition":1,"offset":250000},{"partition":2,"offset":250000},{"partition":3,"offset":250000}]}"#;

/// The key of a row.
pub(crate) fn key(number: usize) -> String {
    format!("bus-{number:07}")
}

/// What is told of a key.
pub(crate) fn row(number: usize) -> String {
    format!(r#"{{"busId":"{}","latitude":"76.54321","longitude":"-12.34567"}}"#, key(number))
}

/// Whether this process was to be the bare table, and has been it.
pub(crate) fn was_asked_for() -> bool {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, folder, _, address] = arguments.as_slice() else { return false };
    let is_asked_for = name == NAME;
    if is_asked_for {
        let rows = folder.rsplit('-').next().and_then(|rows| rows.parse().ok()).expect("the number of rows");
        serve(&fill(Path::new(folder), rows), address.parse().expect("an address"));
    }
    is_asked_for
}

/// Writes rows as sled takes them best.
pub(crate) fn fill(folder: &Path, rows: usize) -> sled::Tree {
    let db = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).open().expect("open sled");
    let tree = db.open_tree("rows").expect("open a tree");
    for first in (0..rows).step_by(BATCH) {
        let mut batch = sled::Batch::default();
        for number in first..(first + BATCH).min(rows) {
            batch.insert(key(number).into_bytes(), row(number).into_bytes());
        }
        tree.apply_batch(batch).expect("write rows");
    }
    db.flush().expect("flush");
    tree
}

fn serve(tree: &sled::Tree, address: SocketAddr) {
    let router = Router::new()
        .route("/readyz", get(|| async { "ready\n" }))
        .route("/rows/{key}", get(look_up))
        .with_state(tree.clone());
    runtime().block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await.expect("listen");
        axum::serve(listener, router).await.expect("serve");
    });
}

async fn look_up(State(tree): State<sled::Tree>, Segment(key): Segment<String>) -> &'static str {
    let found = tree.get(key.as_bytes()).expect("read a row");
    assert!(black_box(found).is_some(), "there is no row {key}");
    ANSWER
}
