//! What a user may say about the cluster, and the librdkafka configuration that follows from it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;

use crate::error::{Error, Result};

/// Properties that carry a promise of this log or name its parts; they cannot be set from outside.
const REFUSED: [&str; 19] = [
    "acks",
    "auto.commit.enable",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "isolation.level",
    "metadata.broker.list",
    "partition.assignment.strategy",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "request.required.acks",
    "transactional.id",
];

/// Two names of one property; a default must not fight what was set under the other name.
const ALIASES: [(&str, &str); 4] = [
    ("compression.type", "compression.codec"),
    ("linger.ms", "queue.buffering.max.ms"),
    ("message.timeout.ms", "delivery.timeout.ms"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
];

/// Properties that every client is given unless they are set.
const DEFAULTS: [(&str, &str); 4] = [
    ("client.id", "headwater"),
    ("socket.keepalive.enable", "true"),
    ("socket.timeout.ms", "10000"),
    ("reconnect.backoff.max.ms", "2000"),
];

/// Where the cluster is and how it is used.
#[derive(Clone)]
pub struct KafkaOptions {
    /// The addresses to begin with: `host:port`, separated by commas.
    pub brokers: String,
    /// Any librdkafka property, such as `security.protocol`, `sasl.password` or `compression.type`.
    /// Those that a promise of the log hangs on are refused when it is opened.
    pub properties: BTreeMap<String, String>,
    /// The number of replicas of topics made here; -1 takes the cluster's default.
    pub replication_factor: i32,
    /// The bytes of appends that may wait for the cluster; further ones are `Busy`.
    pub queue_bytes_max: usize,
    /// The largest record, with key and headers; also the `max.message.bytes` of topics made here.
    pub record_bytes_max: usize,
    /// How long the cluster may take to answer.
    pub timeout: Duration,
    /// A name of this process that it keeps when it is started again. Its readers then take up
    /// their partitions at once, and what a killed process left open is ended at once. Without
    /// one, both take the session's and the transaction's timeout. No two processes may share it.
    pub member: Option<String>,
}

impl KafkaOptions {
    /// A cluster at `brokers`: its default replication, a queue of 64 MiB, records of 4 MiB.
    pub fn at(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            properties: BTreeMap::new(),
            replication_factor: -1,
            queue_bytes_max: 64 << 20,
            record_bytes_max: 4 << 20,
            timeout: Duration::from_secs(30),
            member: None,
        }
    }

    /// `Invalid`, naming the key, where a property would break a promise.
    pub(super) fn check(&self) -> Result<()> {
        for key in self.properties.keys() {
            if REFUSED.contains(&key.as_str()) {
                let message = format!("the Kafka property {key} is set by Headwater itself");
                return Err(Error::invalid(format!("kafka.{key}"), message));
            }
        }
        Ok(())
    }

    /// A client's configuration: `defaults`, then what the user set, then `fixed`.
    pub(super) fn client(&self, defaults: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (key, value) in DEFAULTS.iter().chain(defaults) {
            if !self.is_set(key) {
                config.set(*key, *value);
            }
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        for (key, value) in fixed {
            config.set(*key, *value);
        }
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn is_set(&self, key: &str) -> bool {
        let alias = ALIASES.iter().find_map(|(name, other)| match () {
            () if *name == key => Some(*other),
            () if *other == key => Some(*name),
            () => None,
        });
        self.properties.contains_key(key) || alias.is_some_and(|alias| self.properties.contains_key(alias))
    }
}

/// Names the properties but not their values, which may be secrets.
impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("replication_factor", &self.replication_factor)
            .field("queue_bytes_max", &self.queue_bytes_max)
            .field("record_bytes_max", &self.record_bytes_max)
            .field("timeout", &self.timeout)
            .field("member", &self.member)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn with(key: &str, value: &str) -> KafkaOptions {
        let mut options = KafkaOptions::at("localhost:9092");
        options.properties.insert(key.to_owned(), value.to_owned());
        options
    }

    #[test]
    fn properties_that_a_promise_hangs_on_are_refused_by_name() {
        for key in ["acks", "enable.idempotence", "isolation.level", "enable.auto.commit"] {
            let error = with(key, "x").check().unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert_eq!(error.field(), Some(format!("kafka.{key}").as_str()));
        }
        assert!(with("sasl.username", "x").check().is_ok());
    }

    #[test]
    fn properties_win_over_defaults_under_either_name() {
        let defaults = [("compression.type", "lz4")];
        for key in ["compression.type", "compression.codec"] {
            let config = with(key, "zstd").client(&defaults, &[]);
            assert_eq!(config.get(key), Some("zstd"));
            let set = config.config_map().into_iter().filter(|(key, _)| key.starts_with("compression"));
            assert_eq!(set.count(), 1);
        }
        assert_eq!(with("a", "b").client(&defaults, &[]).get("compression.type"), Some("lz4"));
    }

    #[test]
    fn debug_shows_no_property_values() {
        let shown = format!("{:?}", with("sasl.password", "hunter2"));
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }
}
