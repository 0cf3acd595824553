//! Reading a partition without a group.
//!
//! Consumers are assigned one partition at a time and lent from a pool. Transaction markers take
//! offsets but are never handed out, so a reader first asks for the last stable offset, then reads
//! until it has passed it or librdkafka reports the end of the partition: what lies between holds
//! no record.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset as KafkaOffset, TopicPartitionList};
use tokio::sync::Semaphore;

use super::client::{Logging, Seen};
use super::codec;
use super::options::KafkaOptions;
use super::problem::{self, KafkaResultExt};
use super::topics::{Topics, blocking};
use crate::checkpoint::Place;
use crate::error::{Error, Result};
use crate::log::{Chunk, Position};
use crate::time::Timestamp;
use crate::topic::Offset;

/// How many partitions are read at the same time; further reads wait.
const READS_MAX: usize = 8;
/// How long one poll may take before the deadline is looked at.
const POLL: Duration = Duration::from_millis(100);
/// The pause before a partition is asked for again whose leader is changing.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long a transaction may hold up those who ask for bounds: Kafka ends it before.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(20);
/// The pause before it is looked at again.
const SETTLE_PAUSE: Duration = Duration::from_millis(2);

/// A consumer that is assigned partitions by us and commits nothing. It must name a group to be
/// assigned anything, but joins none.
pub(super) fn config(options: &KafkaOptions) -> ClientConfig {
    let defaults = [
        ("check.crcs", "true"),
        // The cluster answers quickly though there is nothing new, so that the consumer is free for
        // its next partition.
        ("fetch.wait.max.ms", "5"),
        ("queued.max.messages.kbytes", "4096"),
        ("fetch.queue.backoff.ms", "5"),
    ];
    options.client(
        &defaults,
        &[
            ("group.id", "headwater.read"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("isolation.level", "read_committed"),
            ("auto.offset.reset", "error"),
        ],
    )
}

/// A partition as Kafka's functions want it.
pub(super) fn assignment(place: &Place, offset: KafkaOffset) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(place.topic.name(), number(place), offset).or_kafka("name a partition")?;
    Ok(list)
}

/// A partition's number as Kafka's functions want it.
pub(super) fn number(place: &Place) -> i32 {
    i32::try_from(place.partition.0).unwrap_or(i32::MAX)
}

/// An offset as Kafka's functions want it.
pub(super) fn raw(offset: Offset) -> KafkaOffset {
    KafkaOffset::Offset(i64::try_from(offset.0).unwrap_or(i64::MAX))
}

/// A consumer of the pool.
struct Lent {
    consumer: BaseConsumer<Logging>,
    seen: Seen,
}

/// Lends consumers to those who read.
pub(super) struct Reads {
    config: ClientConfig,
    idle: Mutex<Vec<Lent>>,
    room: Semaphore,
    topics: Arc<Topics>,
    /// Sees what open transactions have written.
    uncommitted: BaseConsumer<Logging>,
    timeout: Duration,
}

impl Reads {
    pub(super) fn open(options: &KafkaOptions, topics: Arc<Topics>) -> Result<Self> {
        let config = config(options);
        let mut uncommitted = config.clone();
        uncommitted.set("isolation.level", "read_uncommitted");
        let uncommitted = uncommitted.create_with_context(Logging).or_kafka("open a consumer")?;
        let (idle, room) = (Mutex::default(), Semaphore::new(READS_MAX));
        Ok(Self { config, idle, room, topics, uncommitted, timeout: options.timeout })
    }

    /// What lies at a position, as `Log::read` says.
    pub(super) async fn read(self: &Arc<Self>, from: &Position, bytes_max: usize) -> Result<Chunk> {
        let _room = self.room.acquire().await.map_err(|_| closed())?;
        let (reads, from) = (Arc::clone(self), from.clone());
        blocking(move || {
            let bounds = reads.bounds(&from.place)?;
            let start = from.offset.max(bounds.start);
            if start >= bounds.end {
                return Ok(Chunk { place: from.place, entries: Vec::new(), next: from.offset });
            }
            let mut lent = reads.take()?;
            lent.seen.look_up(lent.consumer.client(), &from.place.topic, reads.timeout)?;
            let chunk = reads.fetch(&lent.consumer, (&from.place, start..bounds.end), bytes_max);
            lent.consumer.unassign().or_kafka("end a read")?;
            reads.idle.lock().unwrap_or_else(PoisonError::into_inner).push(lent);
            chunk
        })
        .await
    }

    /// Start and end, once everything that was written before the call can be read.
    ///
    /// Kafka says that a transaction is committed before its markers are in every partition, so for
    /// a moment progress may be seen without the outputs that belong to it. Who compares the two
    /// must not be told the smaller end: this waits until open transactions have ended.
    pub(super) async fn settled_bounds(self: &Arc<Self>, place: &Place) -> Result<Range<Offset>> {
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        let (reads, asked) = (Arc::clone(self), place.clone());
        let written = blocking(move || Ok(reads.marks(&reads.uncommitted, &asked)?.end)).await?;
        loop {
            let (reads, asked) = (Arc::clone(self), place.clone());
            let bounds = blocking(move || reads.bounds(&asked)).await?;
            if bounds.end >= written {
                return Ok(bounds);
            }
            if Instant::now() > deadline {
                let message = format!("{place} holds a transaction that does not end");
                return Err(Error::unavailable(message));
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }

    /// Start and last stable offset. Blocks.
    pub(super) fn bounds(&self, place: &Place) -> Result<Range<Offset>> {
        self.marks(self.topics.client(), place)
    }

    fn marks(&self, client: &BaseConsumer<Logging>, place: &Place) -> Result<Range<Offset>> {
        let partitions = match self.topics.known(&place.topic) {
            Some(partitions) => Some(partitions),
            None => self.topics.refresh()?.get(place.topic.name()).copied(),
        };
        if partitions.is_none_or(|partitions| place.partition.0 >= partitions) {
            return Err(Error::not_found(format!("there is no partition {place}")));
        }
        let deadline = Instant::now() + self.timeout;
        let offset = |raw: i64| Offset(u64::try_from(raw).unwrap_or(0));
        loop {
            match client.fetch_watermarks(place.topic.name(), number(place), self.timeout) {
                Ok((start, end)) => return Ok(offset(start)..offset(end)),
                // A new partition's leader learns of it a moment after everybody else.
                Err(error) if is_settling(&error) && Instant::now() < deadline => thread::sleep(LOOK_AGAIN),
                Err(error) => {
                    self.topics.forget(&place.topic);
                    return Err(problem::error(error, &format!("read the bounds of {place}")));
                }
            }
        }
    }

    /// The first offset whose record arrived at or after `time`, or the end. Blocks.
    pub(super) fn offset_at(&self, place: &Place, time: Timestamp) -> Result<Offset> {
        let bounds = self.bounds(place)?;
        let millis = time.micros().saturating_add(999).div_euclid(1_000);
        if millis <= 1 {
            return Ok(bounds.start);
        }
        let wanted = assignment(place, KafkaOffset::Offset(millis))?;
        let found =
            self.topics.client().offsets_for_times(wanted, self.timeout).or_kafka("find an offset")?;
        for element in found.elements() {
            element.error().or_kafka("find an offset")?;
            if let KafkaOffset::Offset(offset) = element.offset() {
                return Ok(Offset(u64::try_from(offset).unwrap_or(0)));
            }
        }
        Ok(bounds.end)
    }

    fn take(&self) -> Result<Lent> {
        if let Some(lent) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(lent);
        }
        let consumer = self.config.create_with_context(Logging).or_kafka("open a consumer")?;
        Ok(Lent { consumer, seen: Seen::default() })
    }

    fn fetch(
        &self,
        consumer: &BaseConsumer<Logging>,
        (place, range): (&Place, Range<Offset>),
        bytes_max: usize,
    ) -> Result<Chunk> {
        consumer.assign(&assignment(place, raw(range.start))?).or_kafka("begin a read")?;
        let deadline = Instant::now() + self.timeout;
        let mut chunk = Chunk { place: place.clone(), entries: Vec::new(), next: range.start };
        let mut bytes = 0;
        while chunk.next < range.end && Instant::now() < deadline {
            match consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) if message.topic() != place.topic.name() => {}
                Some(Ok(message)) => {
                    let entry = codec::entry(&message);
                    bytes += entry.record.weight();
                    chunk.next = entry.offset.next();
                    chunk.entries.push(entry);
                    if bytes >= bytes_max {
                        return Ok(chunk);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => chunk.next = chunk.next.max(range.end),
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(code) if is_passing(code) => {}
                    _ => return Err(problem::error(error, &format!("read {} of {place}", chunk.next))),
                },
            }
        }
        if chunk.next > range.start {
            return Ok(chunk);
        }
        Err(Error::unavailable(format!(
            "read {} of {place}: no answer within {:?}",
            range.start, self.timeout
        )))
    }

    /// Lets go of the consumers. Blocks.
    pub(super) fn close(&self) {
        self.room.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Errors after which librdkafka goes on by itself.
pub(super) fn is_passing(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::NotLeaderForPartition
            | RDKafkaErrorCode::Resolve
    )
}

fn is_settling(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    code == Some(RDKafkaErrorCode::NotLeaderForPartition)
        || code == Some(RDKafkaErrorCode::LeaderNotAvailable)
}

/// What calls after `close` get.
pub(super) fn closed() -> Error {
    Error::unavailable("the log is closed")
}
