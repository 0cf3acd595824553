//! What every client has in common: librdkafka's lines and errors are logged in our words, and a
//! topic is looked up before its first use.

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use tracing::{debug, warn};

use super::problem::KafkaResultExt;
use crate::error::Result;
use crate::topic::Topic;

/// How many topics a client remembers to have looked up.
const SEEN_MAX: usize = 10_000;

/// The context of clients that have no callbacks of their own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logging;

impl ClientContext for Logging {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Logging {}

/// librdkafka reconnects and retries by itself; what it could not do reaches a caller as an error.
pub(super) fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => warn!(facility, message, "librdkafka"),
        _ => debug!(facility, message, "librdkafka"),
    }
}

/// Errors of a connection or of the whole client.
pub(super) fn log_error(error: &KafkaError, reason: &str) {
    match error {
        KafkaError::PartitionEOF(_) => {}
        error => debug!(%error, reason, "librdkafka"),
    }
}

/// The topics that a client has looked up. librdkafka by itself takes up to a second to learn where
/// a topic lies that it was never asked for.
#[derive(Default)]
pub(super) struct Seen(HashSet<String>);

impl Seen {
    /// Looks a topic up, the first time. Blocks.
    pub(super) fn look_up<C: ClientContext>(
        &mut self,
        client: &Client<C>,
        topic: &Topic,
        timeout: Duration,
    ) -> Result<()> {
        if self.0.contains(topic.name()) {
            return Ok(());
        }
        client.fetch_metadata(Some(topic.name()), timeout).or_kafka("look up a topic")?;
        if self.0.len() >= SEEN_MAX {
            self.0.clear();
        }
        self.0.insert(topic.name().to_owned());
        Ok(())
    }
}
