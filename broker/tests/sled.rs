//! The conformance suite on sled, plain and behind a faulty log, and what only sled promises.

use std::sync::Arc;

use async_trait::async_trait;
use headwater_broker::log::conformance::{self, Bench, Harness};
use headwater_broker::log::faulty::{Faults, Faulty};
use headwater_broker::log::sled::{SledLog, SledOptions};
use headwater_broker::{Log, Result};
use tempfile::TempDir;
use tokio::sync::Mutex;

/// A log in a directory of its own.
struct Sled {
    directory: TempDir,
    log: Mutex<Option<Arc<dyn Log>>>,
}

impl Sled {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory can be made"),
            log: Mutex::new(None),
        }
    }
}

#[async_trait]
impl Harness for Sled {
    fn slot(&self) -> &Mutex<Option<Arc<dyn Log>>> {
        &self.log
    }

    async fn make(&self) -> Result<Arc<dyn Log>> {
        Ok(SledLog::open(SledOptions::at(self.directory.path()), self.clock()).await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sled_passes_the_suite() {
    conformance::run_all(&Sled::new()).await.unwrap();
}

/// The same log, with every call delayed as a seed says.
struct Delayed(Sled, u64);

#[async_trait]
impl Harness for Delayed {
    fn slot(&self) -> &Mutex<Option<Arc<dyn Log>>> {
        self.0.slot()
    }

    async fn make(&self) -> Result<Arc<dyn Log>> {
        self.0.make().await
    }

    async fn open(&self) -> Result<Arc<dyn Log>> {
        Ok(Arc::new(Faulty::new(self.0.open().await?, self.1, Faults::DELAYS)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sled_behind_a_faulty_log_passes_the_suite() {
    for seed in 0..5 {
        let passed = conformance::run_all(&Delayed(Sled::new(), seed)).await;
        passed.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_everything_once_whatever_fails() {
    let sled = Sled::new();
    let bench = Bench::new(&sled);
    for seed in 100..300 {
        conformance::working::routes_once(&bench, seed).await.unwrap();
    }
}
