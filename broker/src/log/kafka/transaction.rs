//! Transactions: outputs and progress of a group, all or nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};

use super::client::Seen;
use super::options::KafkaOptions;
use super::problem::{self, KafkaResultExt};
use super::producer::{Deliveries, Delivery, Outgoing, config};
use crate::error::{Error, Result};

/// How long a transaction may stay open; after a crash, this long its outputs and progress hold up
/// those who read them.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one poll for deliveries takes at most.
const POLL: Duration = Duration::from_millis(1);

/// Why a commit was not done.
pub(super) enum Failed {
    /// The group is changing; try again.
    HeldUp,
    /// For good.
    For(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::For(error)
    }
}

/// A producer with an identity of its own, one transaction at a time.
pub(super) struct Transactions {
    producer: BaseProducer<Deliveries>,
    seen: Seen,
    timeout: Duration,
    /// An error after which only a new producer can go on.
    is_spent: bool,
}

impl Transactions {
    /// Opens a producer and ends what an earlier one of the same identity left open. Blocks.
    pub(super) fn open(options: &KafkaOptions, id: &str) -> Result<Self> {
        let millis = TRANSACTION_TIMEOUT.as_millis().to_string();
        let mut config = config(options, &[("transactional.id", id), ("transaction.timeout.ms", &millis)]);
        // A record must be heard of before its transaction times out; there is nothing to linger
        // for, since all records of a transaction are queued at once.
        for key in ["message.timeout.ms", "delivery.timeout.ms", "linger.ms", "queue.buffering.max.ms"] {
            config.remove(key);
        }
        config.set("linger.ms", "0").set("message.timeout.ms", &millis).set("socket.timeout.ms", &millis);
        let producer: BaseProducer<Deliveries> =
            config.create_with_context(Deliveries).or_kafka("open a transactional producer")?;
        producer.init_transactions(options.timeout).or_kafka("begin to use transactions")?;
        Ok(Self { producer, seen: Seen::default(), timeout: options.timeout, is_spent: false })
    }

    /// Whether only a new producer can go on.
    pub(super) fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// Writes outputs and progress in one transaction. Blocks.
    pub(super) fn commit(
        &mut self,
        outgoing: &[Outgoing],
        progress: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), Failed> {
        self.producer.poll(Duration::ZERO);
        for outgoing in outgoing {
            self.seen.look_up(self.producer.client(), &outgoing.place.topic, self.timeout)?;
        }
        self.producer.begin_transaction().map_err(|cause| self.failed(cause, "begin a transaction"))?;
        let written = self.write(outgoing).and_then(|()| self.finish(progress, group));
        let Err(error) = written else { return Ok(()) };
        if !self.is_spent && self.producer.abort_transaction(self.timeout).is_err() {
            self.is_spent = true;
        }
        Err(error)
    }

    /// Queues every record, then waits until the cluster has all of them: a transaction that is
    /// committed with records under way is slow.
    fn write(&mut self, outgoing: &[Outgoing]) -> Result<(), Failed> {
        let deadline = Instant::now() + self.timeout;
        let mut deliveries: Vec<Arc<Delivery>> = Vec::with_capacity(outgoing.len());
        for outgoing in outgoing {
            let delivery = Delivery::of(outgoing.count(), None);
            for message in outgoing.messages(&delivery) {
                let mut message = message?;
                while let Err((cause, returned)) = self.producer.send(message) {
                    let is_full = cause.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                    if !is_full || Instant::now() > deadline {
                        return Err(self.failed(cause, "write in a transaction"));
                    }
                    message = returned;
                    self.producer.poll(POLL);
                }
            }
            deliveries.push(delivery);
        }
        for delivery in deliveries {
            while !delivery.is_done() {
                if Instant::now() > deadline {
                    return Err(Error::unavailable("write in a transaction: no answer").into());
                }
                self.producer.poll(POLL);
            }
            delivery.result().map_err(|error| error.context("write in a transaction"))?;
        }
        Ok(())
    }

    fn finish(&mut self, progress: &TopicPartitionList, group: &ConsumerGroupMetadata) -> Result<(), Failed> {
        let deadline = Instant::now() + self.timeout;
        let added =
            retry(deadline, || self.producer.send_offsets_to_transaction(progress, group, self.timeout));
        added.map_err(|cause| self.failed(cause, "add progress to a transaction"))?;
        let committed = retry(deadline, || self.producer.commit_transaction(self.timeout));
        committed.map_err(|cause| {
            // Whether it is committed is open unless librdkafka says that it must be aborted.
            let must_abort = matches!(&cause, KafkaError::Transaction(error) if error.txn_requires_abort());
            self.is_spent |= !must_abort;
            self.failed(cause, "commit a transaction")
        })
    }

    fn failed(&mut self, cause: KafkaError, doing: &str) -> Failed {
        self.is_spent |= self.producer.client().fatal_error().is_some();
        self.is_spent |= matches!(&cause, KafkaError::Transaction(error) if error.is_fatal());
        if cause.rdkafka_error_code() == Some(RDKafkaErrorCode::IllegalGeneration) {
            return Failed::HeldUp;
        }
        Failed::For(problem::error(cause, doing))
    }
}

fn retry(deadline: Instant, mut step: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    loop {
        match step() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {}
            other => return other,
        }
    }
}
