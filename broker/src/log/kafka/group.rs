//! Membership of a group: a thread that serves Kafka's group protocol, and its callbacks.
//!
//! The thread is the only one that polls the consumer, so heartbeats and rebalances go on however
//! slow the reader is. A partition that is given up after records of it were handed out ends the
//! membership as `Fenced`; a deleted topic's partitions just go.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, ClientContext, Offset as KafkaOffset, TopicPartitionList};
use tracing::{debug, info, warn};

use super::client::{log_error, log_line};
use super::options::KafkaOptions;
use super::problem::{self, KafkaResultExt};
use super::share::Share;
use super::topics::Topics;
use super::unheld::Unheld;
use crate::checkpoint::{Checkpoint, Place};
use crate::error::{Error, Kind, Result};
use crate::log::{Group, Selection};
use crate::topic::{Confidentiality, Offset, Partition, Topic};

/// How long a poll may wait before the thread looks whether it should end.
const POLL: Duration = Duration::from_millis(100);
/// How long one request for committed offsets may wait for an open transaction to end.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(5);

/// The name under which Kafka knows a group.
pub(super) fn id(group: &Group) -> String {
    format!("headwater.{}", group.name())
}

/// A consumer of a group. `member` is the name it keeps when it is started again.
pub(super) fn config(options: &KafkaOptions, group: &Group, member: Option<&str>) -> ClientConfig {
    let defaults = [
        ("check.crcs", "true"),
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "500"),
        ("topic.metadata.refresh.interval.ms", "1000"),
        ("fetch.wait.max.ms", "100"),
        // What is read ahead of each partition, and how soon it is filled up again.
        ("queued.max.messages.kbytes", "2048"),
        ("fetch.queue.backoff.ms", "5"),
    ];
    let id = id(group);
    let mut config = options.client(
        &defaults,
        &[
            ("group.id", &id),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("isolation.level", "read_committed"),
            // Only where retention has removed what was to be read next, or a topic was made again.
            ("auto.offset.reset", "earliest"),
            ("partition.assignment.strategy", "cooperative-sticky"),
        ],
    );
    if let Some(member) = member {
        config.set("group.instance.id", member);
    }
    config
}

/// What librdkafka is told to subscribe to.
fn pattern(selection: &Selection) -> String {
    match selection {
        Selection::Topic(topic) => topic.name().to_owned(),
        Selection::Stage(stage) => {
            let words =
                [Confidentiality::Green, Confidentiality::Yellow, Confidentiality::Red].map(|c| c.name());
            let (words, stage) = (words.join("|"), stage.name());
            format!(r"^dp\.({words})\.[a-z0-9_-]+\.{stage}\.[A-Za-z0-9_-]+\.json$")
        }
    }
}

/// The callbacks of a group's consumer.
pub(super) struct Member {
    share: Arc<Share>,
    topics: Arc<Topics>,
    group: Group,
    /// Partitions assigned but not yet taken up by the thread.
    assigned: Mutex<Vec<Vec<Place>>>,
    is_closing: AtomicBool,
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for Member {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let is_assigned = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if is_assigned && !self.is_closing.load(Ordering::SeqCst) {
            let mut assigned = self.assigned.lock().unwrap_or_else(PoisonError::into_inner);
            assigned.push(places(list));
            return;
        }
        let done = match (is_assigned, consumer.rebalance_protocol()) {
            (true, RebalanceProtocol::Cooperative) => consumer.incremental_assign(list),
            (true, _) => consumer.assign(list),
            (false, protocol) => {
                let _committing = self.share.committing.lock().unwrap_or_else(PoisonError::into_inner);
                self.give_up(&places(list));
                match protocol {
                    RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
                    _ => consumer.unassign(),
                }
            }
        };
        if let Err(error) = done {
            self.share.fail(problem::error(error, "answer a rebalance"));
        }
    }
}

impl Member {
    /// Lets partitions go; `Fenced` if records of one were handed out and its topic still exists.
    fn give_up(&self, places: &[Place]) {
        let handed_out = self.share.state().remove(places);
        for place in places {
            debug!(group = self.group.name(), %place, "a partition was given up");
        }
        if handed_out.is_empty() || self.is_closing.load(Ordering::SeqCst) {
            return;
        }
        let names = handed_out.iter().map(|place| place.topic.name().to_owned()).collect();
        let gone = match self.topics.gone(names) {
            Ok(gone) => gone,
            Err(error) => {
                warn!(group = self.group.name(), %error, "could not tell whether a topic was deleted");
                BTreeSet::new()
            }
        };
        for place in handed_out {
            if gone.contains(place.topic.name()) || self.topics.is_leaving(&place.topic) {
                self.share.state().note_deleted(place);
                continue;
            }
            info!(group = self.group.name(), %place, "a partition went to another member");
            self.share.fail(Error::new(Kind::Fenced, format!("{place} went to another member of the group")));
        }
    }
}

/// A membership as its reader sees it.
pub(super) struct Membership {
    /// Gone once the member has left the group.
    pub(super) consumer: Weak<BaseConsumer<Member>>,
    pub(super) share: Arc<Share>,
}

/// A membership as its thread serves it.
pub(super) struct Server {
    consumer: Arc<BaseConsumer<Member>>,
    share: Arc<Share>,
    selection: Selection,
    /// How somebody visits the group; see [`Unheld`].
    visitor: ClientConfig,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Opens a consumer and subscribes it; [`Server::serve`] must then run in a thread of its own.
    /// Blocks.
    pub(super) fn open(
        config: &ClientConfig,
        (group, selection): (&Group, &Selection),
        topics: Arc<Topics>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let share = Arc::new(Share::default());
        let member = Member {
            share: Arc::clone(&share),
            topics,
            group: group.clone(),
            assigned: Mutex::default(),
            is_closing: AtomicBool::new(false),
        };
        let consumer: BaseConsumer<Member> =
            config.create_with_context(member).or_kafka("open a consumer")?;
        consumer.subscribe(&[&pattern(selection)]).or_kafka("join a group")?;
        let (consumer, selection) = (Arc::new(consumer), selection.clone());
        Ok(Self { consumer, share, selection, visitor: super::unheld::visitor(config), stop })
    }

    /// The membership for its reader.
    pub(super) fn membership(&self) -> Membership {
        Membership { consumer: Arc::downgrade(&self.consumer), share: Arc::clone(&self.share) }
    }

    /// Serves the group until the membership fails or is stopped, then leaves it.
    pub(super) fn serve(self) {
        let mut unheld = Unheld::default();
        while !self.stop.load(Ordering::SeqCst) && self.share.failure().is_none() {
            if let Some(Err(error)) = self.consumer.poll(POLL) {
                self.note(&error);
            }
            self.take_up();
            self.look_for(&mut unheld);
        }
        self.consumer.context().is_closing.store(true, Ordering::SeqCst);
        self.take_up();
        self.share.fail(super::read::closed());
        // A commit under way ends first, and none begins after the failure was set. The queues go
        // before the consumer, which then leaves the group.
        let committing = self.share.committing.lock().unwrap_or_else(PoisonError::into_inner);
        self.share.state().clear();
        drop(committing);
    }

    /// Looks from time to time for partitions that nobody in the group holds.
    fn look_for(&self, unheld: &mut Unheld) {
        let context = self.consumer.context();
        let is_own = |place: &Place| self.share.state().holds(place);
        let looked = unheld.serve(&self.consumer, (&context.topics, &self.selection), &self.visitor, is_own);
        if let Err(error) = looked {
            debug!(group = context.group.name(), %error, "could not look for partitions that nobody holds");
        }
    }

    fn note(&self, error: &KafkaError) {
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed) => {
                self.share.fail(problem::error(error.clone(), "take part in a group"));
            }
            _ if fatal => {
                let error = Error::new(Kind::Fenced, "take part in a group").with_source(error.clone());
                self.share.fail(error);
            }
            _ => {}
        }
    }

    /// Takes up the partitions that were assigned since. Kafka waits for an answer to each
    /// assignment, also from a member that is about to leave.
    fn take_up(&self) {
        let context = self.consumer.context();
        let assigned = std::mem::take(&mut *context.assigned.lock().unwrap_or_else(PoisonError::into_inner));
        for places in assigned {
            let is_closing = context.is_closing.load(Ordering::SeqCst);
            let begun = if is_closing { Err(super::read::closed()) } else { self.begin(&places) };
            let Err(error) = begun else { continue };
            if !is_closing {
                warn!(group = context.group.name(), %error, "could not take up partitions");
            }
            self.share.fail(error);
            if let Err(error) = self.consumer.incremental_assign(&unplaced(&places)) {
                debug!(group = context.group.name(), %error, "could not answer an assignment");
            }
        }
    }

    fn begin(&self, places: &[Place]) -> Result<()> {
        let committed = self.committed(places)?;
        let mut list = TopicPartitionList::with_capacity(places.len());
        for place in places {
            let from = committed.get(place).map_or(KafkaOffset::Beginning, super::read::raw);
            let (topic, number) = (place.topic.name(), super::read::number(place));
            list.add_partition_offset(topic, number, from).or_kafka("name a partition")?;
            // Before it is assigned, so that nothing of it goes to the consumer's own queue.
            let queue = self.consumer.split_partition_queue(topic, number);
            let queue = queue.ok_or_else(|| Error::internal("a topic's name holds a zero byte"))?;
            self.share.add(place.clone(), queue, committed.get(place).unwrap_or(Offset(0)));
        }
        self.consumer.incremental_assign(&list).or_kafka("take up partitions")?;
        let group = self.consumer.context().group.name();
        for place in places {
            debug!(group, %place, committed = ?committed.get(place), "a partition was taken up");
        }
        let mut state = self.share.state();
        state.committed.merge(&committed);
        state.has_joined = true;
        drop(state);
        self.share.changed.notify_one();
        Ok(())
    }

    /// What the group has committed, once no transaction that holds progress of it is open.
    fn committed(&self, places: &[Place]) -> Result<Checkpoint> {
        let deadline = Instant::now() + self.consumer.context().topics.timeout();
        loop {
            match committed(&self.consumer, places, COMMITTED_TIMEOUT) {
                Err(error) if error.kind() == Kind::Unavailable && !self.is_over(deadline) => {}
                other => return other,
            }
        }
    }

    fn is_over(&self, deadline: Instant) -> bool {
        Instant::now() > deadline || self.stop.load(Ordering::SeqCst)
    }
}

/// What the consumer's group has committed in these partitions. Blocks.
pub(super) fn committed<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[Place],
    timeout: Duration,
) -> Result<Checkpoint> {
    if places.is_empty() {
        return Ok(Checkpoint::new());
    }
    let list =
        consumer.committed_offsets(unplaced(places), timeout).or_kafka("read the progress of a group")?;
    let mut committed = Checkpoint::new();
    for element in list.elements() {
        element.error().or_kafka("read the progress of a group")?;
        if let KafkaOffset::Offset(offset) = element.offset() {
            let next = Offset(u64::try_from(offset).unwrap_or(0));
            committed.set(place(element.topic(), element.partition()), next);
        }
    }
    Ok(committed)
}

/// Partitions without offsets.
fn unplaced(places: &[Place]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for place in places {
        list.add_partition(place.topic.name(), super::read::number(place));
    }
    list
}

fn places(list: &TopicPartitionList) -> Vec<Place> {
    list.elements().iter().map(|element| place(element.topic(), element.partition())).collect()
}

fn place(topic: &str, partition: i32) -> Place {
    Place::new(Topic::from_name(topic), Partition(u32::try_from(partition).unwrap_or(0)))
}
