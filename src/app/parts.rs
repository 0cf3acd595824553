//! The rooms' parts, made from the configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use broker::log::sled::{SledLog, SledOptions};
use broker::time::SystemClock;
use broker::{Catalog, Clock, Log};
use indexer::archive::{Archive, ArchiveSettings};
use indexer::store::StoreSettings;
use indexer::{Indexer, archive};
use ingest::Ingest;
use proto::v1;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::config::{Compression, Config, LogKind, Role};
use crate::failure::{Failure, OrFail};

/// What the server is made of.
pub(super) struct Parts {
    pub(super) log: Arc<dyn Log>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) ingest: Arc<Ingest>,
    pub(super) indexer: Arc<Indexer>,
    pub(super) archive: ArchiveParts,
}
