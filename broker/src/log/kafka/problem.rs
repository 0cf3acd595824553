//! librdkafka's errors as ours.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::error::{Error, Kind};

/// What a caller can do about an error of the cluster or of the client.
pub(super) fn kind(code: Code) -> Kind {
    match code {
        Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition => Kind::NotFound,
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => Kind::TooLarge,
        Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidConfig
        | Code::InvalidTimestamp
        | Code::InvalidRecord
        | Code::PolicyViolation => Kind::Invalid,
        Code::TopicAlreadyExists => Kind::Conflict,
        Code::QueueFull => Kind::Busy,
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::FencedInstanceId
        | Code::Fenced
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::AssignmentLost
        | Code::PollExceeded => Kind::Fenced,
        Code::BadMessage | Code::InvalidMessage | Code::BadCompression => Kind::Corrupt,
        _ => Kind::Unavailable,
    }
}

/// An error of ours that says what was being done.
pub(super) fn error(cause: KafkaError, doing: &str) -> Error {
    let code = match &cause {
        // librdkafka's text for a configuration error quotes the value, which may be a secret.
        KafkaError::ClientConfig(_, _, key, _) => {
            let message = format!("the Kafka property {key} is unknown or its value is not allowed");
            return Error::invalid(format!("kafka.{key}"), message);
        }
        KafkaError::ClientCreation(reason) => {
            return Error::invalid("kafka", format!("{doing}: {reason}"));
        }
        KafkaError::AdminOp(code) => Some(*code),
        KafkaError::Nul(_) => Some(Code::InvalidTopic),
        other => other.rdkafka_error_code(),
    };
    Error::new(code.map_or(Kind::Unavailable, kind), doing).with_source(cause)
}

/// An error of ours for a bare code, such as stands beside one partition of a list.
pub(super) fn code_error(code: Code, doing: &str) -> Error {
    Error::new(kind(code), doing).with_source(code)
}

/// Turns librdkafka's results into ours.
pub(super) trait KafkaResultExt<T> {
    /// The result with an error that says what was being done ("read bounds").
    fn or_kafka(self, doing: &str) -> Result<T, Error>;
}

impl<T> KafkaResultExt<T> for Result<T, KafkaError> {
    fn or_kafka(self, doing: &str) -> Result<T, Error> {
        self.map_err(|cause| error(cause, doing))
    }
}
