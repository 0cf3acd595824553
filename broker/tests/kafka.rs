//! The conformance suite on a real Kafka broker, and what only Kafka promises.

use std::sync::Arc;

use async_trait::async_trait;
use headwater_broker::log::conformance::{self, Harness};
use headwater_broker::log::kafka::{KafkaLog, KafkaOptions};
use headwater_broker::time::SystemClock;
use headwater_broker::{Clock, Log, Result};
use tokio::sync::Mutex;

/// The broker that tests run against.
#[allow(clippy::disallowed_methods, reason = "the only way to tell a test where its broker is")]
fn brokers() -> String {
    std::env::var("HEADWATER_TEST_KAFKA").expect(
        "HEADWATER_TEST_KAFKA is not set: begin with `scripts/kafka start` and `eval \"$(scripts/kafka env)\"`",
    )
}

fn options() -> KafkaOptions {
    KafkaOptions::at(brokers())
}

/// A log on the real broker.
#[derive(Default)]
struct Kafka {
    log: Mutex<Option<Arc<KafkaLog>>>,
}

#[async_trait]
impl Harness for Kafka {
    async fn open(&self) -> Result<Arc<dyn Log>> {
        let mut log = self.log.lock().await;
        if let Some(log) = &*log {
            return Ok(log.clone());
        }
        let opened = KafkaLog::open(options()).await?;
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
async fn kafka_passes_the_suite() {
    conformance::run_all(&Kafka::default()).await.unwrap();
}
