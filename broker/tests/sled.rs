//! The conformance suite on sled, plain and behind a faulty log, and what only sled promises.

use std::sync::Arc;

use async_trait::async_trait;
use headwater_broker::log::conformance::{self, Harness};
use headwater_broker::log::sled::{SledLog, SledOptions};
use headwater_broker::time::SystemClock;
use headwater_broker::{Clock, Log, Result};
use tempfile::TempDir;
use tokio::sync::Mutex;

/// A log in a directory of its own.
struct Sled {
    directory: TempDir,
    log: Mutex<Option<Arc<SledLog>>>,
}

impl Sled {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), log: Mutex::new(None) }
    }
}

#[async_trait]
impl Harness for Sled {
    async fn open(&self) -> Result<Arc<dyn Log>> {
        let mut log = self.log.lock().await;
        if let Some(log) = &*log {
            return Ok(log.clone());
        }
        let opened = SledLog::open(SledOptions::at(self.directory.path()), self.clock()).await?;
        *log = Some(opened.clone());
        Ok(opened)
    }

    async fn reopen(&self) -> Result<Arc<dyn Log>> {
        if let Some(log) = self.log.lock().await.take() {
            log.close().await?;
        }
        self.open().await
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sled_passes_the_suite() {
    conformance::run_all(&Sled::new()).await.unwrap();
}
