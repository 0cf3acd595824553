//! Appending: records go into librdkafka's queue at once, and one counter per batch hears of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::client::{log_error, log_line};
use super::codec;
use super::options::KafkaOptions;
use super::problem::{self, KafkaResultExt};
use crate::batch::Unpacked;
use crate::checkpoint::Place;
use crate::error::{Error, Kind, Result};
use crate::log::{Append, Appended};
use crate::record::RECORD_OVERHEAD_BYTES;
use crate::topic::{Offset, Topic};

/// What a producer is given unless it is set otherwise.
const DEFAULTS: [(&str, &str); 3] =
    [("compression.type", "lz4"), ("linger.ms", "1"), ("message.timeout.ms", "30000")];

/// The configuration of a producer; `fixed` is what its kind needs.
pub(super) fn config(options: &KafkaOptions, fixed: &[(&str, &str)]) -> rdkafka::ClientConfig {
    let mut config = options.client(&DEFAULTS, fixed);
    let kbytes = (options.queue_bytes_max.div_ceil(1024) * 4).clamp(1 << 16, 2_097_151);
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        // Our own budget stands before these, so that the queue is never full.
        .set("queue.buffering.max.kbytes", kbytes.to_string())
        .set("queue.buffering.max.messages", "10000000")
        .set("message.max.bytes", (options.record_bytes_max + codec::OVERHEAD_BYTES).to_string());
    config
}

/// Records of one batch with the partition they go to.
pub(super) struct Outgoing {
    pub(super) place: Place,
    records: Unpacked,
    weight: usize,
}

impl Outgoing {
    /// Looks through a batch. `TooLarge` if one of its records is, `Corrupt` if one cannot be decoded,
    /// before any of them is written.
    pub(super) fn of(append: &Append, record_bytes_max: usize) -> Result<Self> {
        let records = append.batch.unpack()?;
        let mut views = records.views();
        let (mut index, mut weight) = (0, 0);
        loop {
            let mut bytes = RECORD_OVERHEAD_BYTES;
            let next = views.next_with(|name, value| bytes += name.len() + value.len());
            let Some(view) = next.transpose()? else { break };
            bytes += view.key.map_or(0, <[u8]>::len) + view.value.len();
            if bytes > record_bytes_max {
                let message = format!("record {index} is larger than {record_bytes_max} bytes");
                return Err(Error::new(Kind::TooLarge, message).with_field("record"));
            }
            index += 1;
            weight += bytes;
        }
        Ok(Self { place: append.place.clone(), records, weight })
    }

    /// The number of records.
    pub(super) fn count(&self) -> usize {
        self.records.count() as usize
    }

    /// The message of each record, in order; `delivery` hears of all of them.
    pub(super) fn messages<'o>(
        &'o self,
        delivery: &'o Arc<Delivery>,
    ) -> impl Iterator<Item = Result<OutgoingMessage<'o>>> {
        let (mut views, mut headers) = (self.records.views(), codec::Headers::default());
        let topic = self.place.topic.name();
        let partition = Some(i32::try_from(self.place.partition.0).unwrap_or(i32::MAX));
        std::iter::from_fn(move || {
            let view = views.next_with(|name, value| headers.push(name, value))?;
            Some(view.map(|view| BaseRecord {
                topic,
                partition,
                payload: Some(view.value),
                key: view.key,
                timestamp: Some(codec::timestamp(&view)),
                headers: headers.finish(&view),
                delivery_opaque: Arc::clone(delivery),
            }))
        })
    }
}

/// The message of a record.
pub(super) type OutgoingMessage<'a> = BaseRecord<'a, [u8], [u8], Arc<Delivery>>;

/// Hears of the records of one batch.
pub(super) struct Delivery {
    state: Mutex<Pending>,
    done: Notify,
}

struct Pending {
    left: usize,
    offsets: Vec<Offset>,
    failure: Option<RDKafkaErrorCode>,
    /// Room in the queue, given back before anybody hears that the batch is done.
    room: Option<Arc<OwnedSemaphorePermit>>,
}

impl Delivery {
    pub(super) fn of(count: usize, room: Option<Arc<OwnedSemaphorePermit>>) -> Arc<Self> {
        let state = Pending { left: count, offsets: Vec::with_capacity(count), failure: None, room };
        Arc::new(Self { state: Mutex::new(state), done: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, Pending> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, result: Result<i64, RDKafkaErrorCode>) {
        let mut state = self.state();
        match result.map(u64::try_from) {
            Ok(Ok(offset)) => state.offsets.push(Offset(offset)),
            // The cluster had the record already, from a try whose answer was lost: it is durable,
            // but where it lies is not told.
            Ok(Err(_)) => state.failure = Some(RDKafkaErrorCode::DuplicateSequenceNumber),
            Err(code) => state.failure = Some(code),
        }
        state.left -= 1;
        if state.left == 0 {
            state.room = None;
            self.done.notify_one();
        }
    }

    /// Whether every record was heard of.
    pub(super) fn is_done(&self) -> bool {
        self.state().left == 0
    }

    /// Waits until every record was heard of.
    async fn wait(&self) -> Result<Appended> {
        while !self.is_done() {
            self.done.notified().await;
        }
        self.result()
    }

    /// Where the records are, once all were heard of.
    pub(super) fn result(&self) -> Result<Appended> {
        let mut state = self.state();
        if let Some(code) = state.failure {
            return Err(problem::code_error(code, "append to Kafka"));
        }
        // Records of one partition are acknowledged in order, but librdkafka does not say so of
        // its callbacks.
        let mut offsets = std::mem::take(&mut state.offsets);
        offsets.sort_unstable();
        let (first, last) = (offsets[0].0, offsets[offsets.len() - 1].0);
        if last - first + 1 == offsets.len() as u64 {
            return Ok(Appended::From(Offset(first)));
        }
        Ok(Appended::Each(offsets))
    }
}

/// Tells deliveries of their records.
pub(super) struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Arc<Delivery>) {
        delivery.hear(match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        });
    }
}

/// The idempotent producer behind `append`, with a budget of bytes before it.
pub(super) struct Appender {
    producer: ThreadedProducer<Deliveries>,
    room: Arc<Semaphore>,
    room_bytes: usize,
}

impl Appender {
    pub(super) fn open(options: &KafkaOptions) -> Result<Self> {
        let producer = config(options, &[]).create_with_context(Deliveries).or_kafka("open the producer")?;
        let room_bytes = options.queue_bytes_max.clamp(1, u32::MAX as usize);
        Ok(Self { producer, room: Arc::new(Semaphore::new(room_bytes)), room_bytes })
    }

    /// Queues every record, in order, and returns what hears of them. `Busy` if there is no room.
    pub(super) fn queue(&self, outgoing: &[Outgoing]) -> Result<Vec<Arc<Delivery>>> {
        let bytes = outgoing.iter().map(|outgoing| outgoing.weight).sum::<usize>().min(self.room_bytes);
        let bytes = u32::try_from(bytes).expect("the whole room is at most u32::MAX");
        let busy = |_| Error::new(Kind::Busy, "the queue of appends to Kafka is full");
        let room = Arc::new(Arc::clone(&self.room).try_acquire_many_owned(bytes).map_err(busy)?);
        outgoing.iter().map(|outgoing| self.queue_one(outgoing, &room)).collect()
    }

    fn queue_one(&self, outgoing: &Outgoing, room: &Arc<OwnedSemaphorePermit>) -> Result<Arc<Delivery>> {
        let delivery = Delivery::of(outgoing.count(), Some(Arc::clone(room)));
        for message in outgoing.messages(&delivery) {
            self.producer.send(message?).map_err(|(cause, _)| problem::error(cause, "append to Kafka"))?;
        }
        Ok(delivery)
    }

    /// Learns where a new topic lies before the first append to it. Blocks.
    pub(super) fn look_up(&self, topic: &Topic, timeout: Duration) -> Result<()> {
        self.producer.client().fetch_metadata(Some(topic.name()), timeout).or_kafka("look up a topic")?;
        Ok(())
    }

    /// Waits until what is queued was heard of, at most `timeout`. Blocks.
    pub(super) fn flush(&self, timeout: Duration) -> Result<()> {
        self.producer.flush(timeout).or_kafka("flush the producer")
    }
}

/// Where the records of each batch are, once the cluster has them all.
pub(super) async fn settle(deliveries: Vec<Arc<Delivery>>) -> Result<Vec<Appended>> {
    let mut appended = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        appended.push(delivery.wait().await?);
    }
    Ok(appended)
}
