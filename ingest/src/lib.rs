//! The doors: producers append here, by HTTP and by gRPC, and streams are administered.
//!
//! A request is checked whole before anything of it is written. A client that goes away before its
//! request has arrived whole has written nothing; one that goes away while it waits for the answer
//! finds its records written or not, but all or none. An answer of success means that the record
//! is durable.
//!
//! This crate reads no events back but dead letters; queries are another crate's.

mod access;
mod admission;
mod append;
pub mod auth;
mod body;
mod cut;
mod dead_letters;
mod definition;
mod grpc;
pub mod http;
mod limits;
mod linger;
mod metadata;
#[cfg(test)]
mod testing;
mod webhooks;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use broker::access::nonces::Nonces;
use broker::{Catalog, Clock, Log};
use proto::v1::ingest_server::IngestServer;
use proto::v1::streams_server::StreamsServer;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use admission::Admission;
use auth::Credentials;
pub use grpc::{AppendDoor, StreamsDoor};
pub use limits::Limits;

/// What the doors are made of.
pub struct Parts {
    /// Where records go.
    pub log: Arc<dyn Log>,
    /// The streams that exist.
    pub catalog: Arc<Catalog>,
    /// Where arrival times come from.
    pub clock: Arc<dyn Clock>,
    /// Who presents what.
    pub credentials: Arc<Credentials>,
    /// What is taken at most.
    pub limits: Limits,
    /// Whether an event stream may be made of a dataset that no document describes.
    pub implicit_datasets: bool,
    /// Ends the calls of `AppendStream`, when the process stops.
    pub shutdown: CancellationToken,
}

/// The doors.
pub struct Ingest {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) nonces: Nonces,
    pub(crate) limits: Limits,
    pub(crate) implicit_datasets: bool,
    pub(crate) shutdown: CancellationToken,
    pub(crate) admission: Admission,
    /// Chooses the partition of records without a key, request by request.
    pub(crate) turn: AtomicU32,
    /// Held while dead letters are replayed: two replays at once would fence each other.
    pub(crate) replaying: Mutex<()>,
}

impl Ingest {
    /// The paths that ask for no bearer: those who come there have none yet, or another credential.
    pub const OPEN_PATHS: [&str; 5] =
        ["/api/v1/token", "/token-service/token", "/realms/", "/auth/realms/", "/webhook/"];

    /// The paths whose surfaces refuse by themselves, in the words that their clients know.
    pub const LEFT_PATHS: [&str; 8] = [
        "/datasets",
        "/datasets/",
        "/metadata/datasets",
        "/metadata/datasets/",
        "/event/",
        "/events/",
        "/webhooks/",
        "/streams/",
    ];

    /// The doors, not yet served.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { log, catalog, clock, credentials, limits, implicit_datasets, shutdown } = parts;
        let nonces = Nonces::new(log.clone(), clock.clone());
        let admission = Admission::new(limits.in_flight_bytes_max);
        let (turn, replaying) = (AtomicU32::new(0), Mutex::new(()));
        Arc::new(Self {
            log,
            catalog,
            clock,
            credentials,
            nonces,
            limits,
            implicit_datasets,
            shutdown,
            admission,
            turn,
            replaying,
        })
    }

    /// The HTTP doors, to be merged with other routers. Errors carry a [`proto::problem::Problem`]
    /// as an extension; the server renders their bodies. [`auth::Guarded`] goes around them all, and
    /// reads what refused requests go on to send.
    pub fn router(self: &Arc<Self>) -> axum::Router {
        http::router(self.clone())
    }

    /// The gRPC service `headwater.v1.Ingest`, with its message limits set.
    pub fn grpc_ingest(self: &Arc<Self>) -> IngestServer<AppendDoor> {
        IngestServer::new(AppendDoor::new(self.clone()))
            .max_decoding_message_size(self.limits.body_bytes_max)
            .max_encoding_message_size(self.limits.decoded_body_bytes_max)
    }

    /// The gRPC service `headwater.v1.Streams`, with its message limits set.
    pub fn grpc_streams(self: &Arc<Self>) -> StreamsServer<StreamsDoor> {
        StreamsServer::new(StreamsDoor::new(self.clone()))
            .max_decoding_message_size(self.limits.body_bytes_max)
            .max_encoding_message_size(self.limits.decoded_body_bytes_max)
    }
}
