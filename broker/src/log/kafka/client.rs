//! What every client does with librdkafka's lines and errors: they are logged, in our words.

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use tracing::{debug, warn};

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
