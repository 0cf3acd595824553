//! librdkafka with nothing around it, with the settings that Headwater gives it.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::de::IgnoredAny;

use super::flights::Flight;

pub(crate) const PARTITIONS: i32 = 4;
/// Records of one transaction.
const OF_A_TRANSACTION: usize = 5_000;
/// Records that wait for the broker at most.
const IN_FLIGHT_MAX: i32 = 100_000;
const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(1);

/// A broker, and the topics that this made there, which go away with it.
pub(crate) struct RawKafka {
    brokers: String,
    admin: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
    topics: Vec<String>,
}

impl RawKafka {
    pub(crate) fn at(brokers: &str) -> Self {
        let config = ClientConfig::new().set("bootstrap.servers", brokers).clone();
        let admin = config.create().expect("open the administration");
        let runtime = super::local::runtime();
        Self { brokers: brokers.to_owned(), admin, runtime, topics: Vec::new() }
    }

    fn config(&self, more: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        for (key, value) in more {
            config.set(*key, *value);
        }
        config
    }

    fn producer_config(&self) -> ClientConfig {
        self.config(&[
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("compression.type", "lz4"),
            ("linger.ms", "1"),
            ("queue.buffering.max.kbytes", "262144"),
            ("queue.buffering.max.messages", "10000000"),
        ])
    }

    /// A new topic of four partitions.
    pub(crate) fn create(&mut self, name: &str) {
        let topic = NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(-1));
        let made = self.runtime.block_on(self.admin.create_topics([&topic], &AdminOptions::new()));
        made.expect("make a topic").into_iter().for_each(|made| drop(made.expect("make a topic")));
        self.topics.push(name.to_owned());
    }

    /// A producer that has learned where a topic lies.
    pub(crate) fn producer(&self, topic: &str) -> ThreadedProducer<DefaultProducerContext> {
        let producer: ThreadedProducer<_> = self.producer_config().create().expect("open the producer");
        producer.client().fetch_metadata(Some(topic), PATIENCE).expect("look up the topic");
        producer
    }

    /// Moves everything before `ends` from one topic to another, with progress, in transactions of
    /// 5,000 records whose deliveries are awaited first.
    pub(crate) fn route(&self, from: &str, to: &str, count: usize) {
        let group = format!("bare-{to}");
        let consumer: BaseConsumer = self
            .config(&[
                ("group.id", &group),
                ("enable.auto.commit", "false"),
                ("auto.offset.reset", "earliest"),
            ])
            .create()
            .expect("open the consumer");
        let mut assignment = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            assignment.add_partition_offset(from, partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&assignment).expect("take the partitions");
        let producer: BaseProducer =
            self.producer_config().set("transactional.id", &group).create().expect("open the producer");
        producer.init_transactions(PATIENCE).expect("begin with transactions");
        let metadata = consumer.group_metadata().expect("a consumer has a group");
        let mut left = count;
        while left > 0 {
            producer.begin_transaction().expect("begin");
            let mut offsets = [0; PARTITIONS as usize];
            let some = left.min(OF_A_TRANSACTION);
            for _ in 0..some {
                let message = consumer.poll(PATIENCE).expect("a record comes").expect("read a record");
                offsets[message.partition() as usize] = message.offset() + 1;
                let record = BaseRecord::<[u8], [u8]>::to(to).partition(message.partition());
                let record = record.key(message.key().unwrap_or_default());
                let record = record.payload(message.payload().unwrap_or_default());
                producer.send(record).map_err(|(error, _)| error).expect("queue a record");
            }
            while producer.in_flight_count() > 0 {
                producer.poll(STEP);
            }
            let mut progress = TopicPartitionList::new();
            for (partition, next) in (0..).zip(offsets).filter(|(_, next)| *next > 0) {
                progress.add_partition_offset(from, partition, Offset::Offset(next)).expect("an offset");
            }
            producer.send_offsets_to_transaction(&progress, &metadata, PATIENCE).expect("send progress");
            producer.commit_transaction(PATIENCE).expect("commit");
            left -= some;
        }
    }
}

/// Checks each event's syntax and sends it; returns when all are acknowledged.
pub(crate) fn produce<'a>(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    packs: impl Iterator<Item = &'a Vec<Flight>>,
) {
    for (pack, partition) in packs.zip((0..PARTITIONS).cycle()) {
        for flight in pack {
            serde_json::from_slice::<IgnoredAny>(&flight.value).expect("an event is JSON");
            let record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
            let record = record.key(&flight.origin).payload(&flight.value);
            producer.send(record).map_err(|(error, _)| error).expect("queue a record");
        }
        while producer.in_flight_count() > IN_FLIGHT_MAX {
            std::thread::sleep(STEP);
        }
    }
    while producer.in_flight_count() > 0 {
        std::thread::sleep(STEP);
    }
}

impl Drop for RawKafka {
    fn drop(&mut self) {
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        if !topics.is_empty() {
            let removed = self.runtime.block_on(self.admin.delete_topics(&topics, &AdminOptions::new()));
            removed.expect("remove the topics");
        }
    }
}
