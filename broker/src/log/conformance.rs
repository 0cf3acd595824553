//! The suite that defines a log: every provider passes the same cases.
//!
//! The cases assume nothing that only one provider promises: offsets rise but may have holes, a
//! reader may get its partitions late, and topics of other cases lie in the same log. Each case
//! makes topics and groups under names of its own.

pub mod appending;
pub mod groups;
pub mod reading;
pub mod topics;
pub mod working;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;

use crate::batch::Batch;
use crate::checkpoint::{Checkpoint, Place};
use crate::error::{Error, Result};
use crate::log::{Append, Appended, Entry, Group, Log, Position, Reader};
use crate::record::Record;
use crate::time::{Clock, SystemClock, Timestamp};
use crate::topic::{Cleanup, Confidentiality, Offset, Partition, Stage, StreamName, Topic, TopicConfig};

/// A case that takes longer has lost a record or a wake-up.
const CASE_TIMEOUT: Duration = Duration::from_secs(180);
const READ_BYTES_MAX: usize = 1 << 20;

/// A provider under test.
#[async_trait]
pub trait Harness: Send + Sync {
    /// Keeps the log while it is open.
    fn slot(&self) -> &Mutex<Option<Arc<dyn Log>>>;

    /// Opens the log.
    async fn make(&self) -> Result<Arc<dyn Log>>;

    /// The log as it is open now.
    async fn open(&self) -> Result<Arc<dyn Log>> {
        let mut slot = self.slot().lock().await;
        if let Some(log) = &*slot {
            return Ok(log.clone());
        }
        let opened = self.make().await?;
        Ok(slot.insert(opened).clone())
    }

    /// Closes the log and opens the same data again.
    async fn reopen(&self) -> Result<Arc<dyn Log>> {
        if let Some(log) = self.slot().lock().await.take() {
            log.close().await?;
        }
        self.open().await
    }

    /// The clock that the log goes by.
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }
}

type Run<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;
type Case = (&'static str, for<'a> fn(&'a Bench<'a>) -> Run<'a>);

const CASES: &[Case] = &[
    ("appending::reads_back_what_was_appended", |b| Box::pin(appending::reads_back_what_was_appended(b))),
    ("appending::writes_to_several_partitions", |b| Box::pin(appending::writes_to_several_partitions(b))),
    ("appending::keeps_the_order_of_each_producer", |b| {
        Box::pin(appending::keeps_the_order_of_each_producer(b))
    }),
    ("appending::keeps_the_order_of_calls_in_flight", |b| {
        Box::pin(appending::keeps_the_order_of_calls_in_flight(b))
    }),
    ("appending::survives_a_reopening", |b| Box::pin(appending::survives_a_reopening(b))),
    ("appending::refuses_a_topic_that_is_missing", |b| {
        Box::pin(appending::refuses_a_topic_that_is_missing(b))
    }),
    ("topics::creates_and_deletes_repeatedly", |b| Box::pin(topics::creates_and_deletes_repeatedly(b))),
    ("topics::keeps_the_number_of_partitions", |b| Box::pin(topics::keeps_the_number_of_partitions(b))),
    ("topics::is_fresh_when_made_again", |b| Box::pin(topics::is_fresh_when_made_again(b))),
    ("reading::knows_its_bounds", |b| Box::pin(reading::knows_its_bounds(b))),
    ("reading::finds_offsets_by_time", |b| Box::pin(reading::finds_offsets_by_time(b))),
    ("reading::goes_on_where_a_chunk_ended", |b| Box::pin(reading::goes_on_where_a_chunk_ended(b))),
    ("reading::wakes_those_who_wait", |b| Box::pin(reading::wakes_those_who_wait(b))),
    ("groups::sees_topics_made_later", |b| Box::pin(groups::sees_topics_made_later(b))),
    ("groups::resumes_where_it_committed", |b| Box::pin(groups::resumes_where_it_committed(b))),
    ("groups::loses_nothing_when_next_is_dropped", |b| {
        Box::pin(groups::loses_nothing_when_next_is_dropped(b))
    }),
    ("groups::seeks_back_and_forth", |b| Box::pin(groups::seeks_back_and_forth(b))),
    ("groups::sets_progress_back_with_outputs", |b| Box::pin(groups::sets_progress_back_with_outputs(b))),
    ("groups::commits_outputs_with_progress", |b| Box::pin(groups::commits_outputs_with_progress(b))),
    ("groups::passes_on_what_it_read", |b| Box::pin(groups::passes_on_what_it_read(b))),
    ("groups::shows_progress_only_with_its_outputs", |b| {
        Box::pin(groups::shows_progress_only_with_its_outputs(b))
    }),
    ("groups::writes_nothing_without_every_output", |b| {
        Box::pin(groups::writes_nothing_without_every_output(b))
    }),
    ("groups::fences_the_reader_before", |b| Box::pin(groups::fences_the_reader_before(b))),
    ("groups::keeps_groups_apart", |b| Box::pin(groups::keeps_groups_apart(b))),
    ("groups::goes_on_when_a_topic_is_deleted", |b| Box::pin(groups::goes_on_when_a_topic_is_deleted(b))),
    ("groups::reads_many_partitions_in_turn", |b| Box::pin(groups::reads_many_partitions_in_turn(b))),
    ("working::routes_everything_once", |b| Box::pin(working::routes_everything_once(b))),
];

/// Runs every case, one after the other. The error names the case.
pub async fn run_all(harness: &dyn Harness) -> Result<()> {
    for (name, case) in CASES {
        run(harness, name, *case).await?;
    }
    Ok(())
}

async fn run(harness: &dyn Harness, name: &str, case: for<'a> fn(&'a Bench<'a>) -> Run<'a>) -> Result<()> {
    let bench = Bench::new(harness);
    match tokio::time::timeout(CASE_TIMEOUT, case(&bench)).await {
        Ok(done) => done.map_err(|error| error.context(format!("case {name}"))),
        Err(_) => Err(Error::internal(format!("case {name} took longer than {CASE_TIMEOUT:?}"))),
    }
}

/// What a case works with: the provider, and names that no other case uses.
pub struct Bench<'a> {
    harness: &'a dyn Harness,
    id: String,
    next: AtomicU64,
}

impl<'a> Bench<'a> {
    /// A bench with fresh names.
    pub fn new(harness: &'a dyn Harness) -> Self {
        Self { harness, id: format!("case-{:016x}", rand::random::<u64>()), next: AtomicU64::new(0) }
    }

    /// The log as it is open now.
    pub async fn log(&self) -> Result<Arc<dyn Log>> {
        self.harness.open().await
    }

    /// Closes the log and opens it again.
    pub async fn reopen(&self) -> Result<Arc<dyn Log>> {
        self.harness.reopen().await
    }

    /// The log's clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.harness.clock()
    }

    /// A stream's name that nobody else uses.
    pub fn stream(&self) -> Result<StreamName> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        StreamName::new(&format!("{}-{number}", self.id), "1")
    }

    /// A group that nobody else uses.
    pub fn group(&self, name: &str) -> Group {
        Group::new(format!("{}.{name}", self.id))
    }

    /// A new topic of a stage with that many partitions.
    pub async fn topic(&self, stage: Stage, partitions: u32) -> Result<Topic> {
        let topic = self.stream()?.topic(Confidentiality::Green, stage);
        self.log().await?.create(&topic, &kept(partitions)).await?;
        Ok(topic)
    }

    /// A record of now.
    pub fn record(&self, value: impl Into<Bytes>) -> Record {
        Record::new(value, self.clock().now())
    }
}

/// A topic from which nothing is removed.
pub fn kept(partitions: u32) -> TopicConfig {
    TopicConfig { partitions, cleanup: Cleanup::Keep }
}

/// A partition of a topic.
pub fn place(topic: &Topic, partition: u32) -> Place {
    Place::new(topic.clone(), Partition(partition))
}

/// An append of these records.
pub fn to(place: &Place, records: &[Record]) -> Result<Append> {
    let batch = Batch::of(records).ok_or_else(|| Error::internal("a case appends no records"))?;
    Ok(Append { place: place.clone(), batch })
}

/// Appends records to one partition and returns where they went.
pub async fn append(log: &dyn Log, place: &Place, records: &[Record]) -> Result<Appended> {
    let appended = log.append(vec![to(place, records)?]).await?;
    only(appended, "answers to one append")
}

/// Everything between a partition's bounds.
pub async fn read_all(log: &dyn Log, place: &Place) -> Result<Vec<Entry>> {
    let bounds = log.bounds(place).await?;
    let mut entries = Vec::new();
    let mut next = bounds.start;
    while next < bounds.end {
        let from = Position { place: place.clone(), offset: next };
        let chunk = log.read(&from, READ_BYTES_MAX).await?;
        ensure(chunk.next > next, || format!("read at {next} of {place} stands still"))?;
        next = chunk.next;
        entries.extend(chunk.entries);
    }
    Ok(entries)
}

/// The values of a partition's records.
pub async fn values(log: &dyn Log, place: &Place) -> Result<Vec<Bytes>> {
    Ok(read_all(log, place).await?.into_iter().map(|entry| entry.record.value).collect())
}

/// Reads until `count` entries of a topic were handed out; those of other topics are left out.
/// Returns them with where they end.
pub async fn take(
    reader: &mut dyn Reader,
    topic: &Topic,
    count: usize,
) -> Result<(Vec<(Place, Entry)>, Checkpoint)> {
    let mut taken = Vec::new();
    let mut reached = Checkpoint::new();
    while taken.len() < count {
        for chunk in reader.next(READ_BYTES_MAX).await? {
            if chunk.place.topic != *topic {
                continue;
            }
            reached.set(chunk.place.clone(), chunk.next);
            taken.extend(chunk.entries.into_iter().map(|entry| (chunk.place.clone(), entry)));
        }
    }
    Ok((taken, reached))
}

/// The values of entries.
pub fn values_of(entries: &[(Place, Entry)]) -> Vec<Bytes> {
    entries.iter().map(|(_, entry)| entry.record.value.clone()).collect()
}

/// Values `{prefix}-0`, `{prefix}-1` and so on.
pub fn numbered(prefix: &str, count: usize) -> Vec<Bytes> {
    (0..count).map(|index| Bytes::from(format!("{prefix}-{index}"))).collect()
}

/// Checks that two things are the same.
pub fn same<T: PartialEq + std::fmt::Debug>(actual: &T, wanted: &T, what: &str) -> Result<()> {
    ensure(actual == wanted, || format!("{what}: got {actual:?}, wanted {wanted:?}"))
}

/// Checks a promise.
pub fn ensure(is_kept: bool, message: impl FnOnce() -> String) -> Result<()> {
    if is_kept { Ok(()) } else { Err(Error::internal(message())) }
}

/// Checks that something fails in the right way.
pub fn fails<T>(result: Result<T>, kind: crate::error::Kind, what: &str) -> Result<()> {
    match result {
        Ok(_) => Err(Error::internal(format!("{what} succeeded, wanted {}", kind.name()))),
        Err(error) if error.kind() == kind => Ok(()),
        Err(error) => Err(Error::internal(format!("{what} failed with {error:?}, wanted {}", kind.name()))),
    }
}

fn only<T>(items: Vec<T>, what: &str) -> Result<T> {
    let count = items.len();
    let mut items = items.into_iter();
    match (items.next(), count) {
        (Some(item), 1) => Ok(item),
        _ => Err(Error::internal(format!("{what}: got {count}, wanted 1"))),
    }
}

/// The offsets at which an append's records lie.
pub fn offsets(appended: &Appended, count: usize) -> Vec<Offset> {
    (0..count).map(|index| appended.offset(index)).collect()
}

/// A moment in the past that every clock agrees on.
pub fn moment(millis: i64) -> Result<Timestamp> {
    Timestamp::from_millis(978_307_200_000 + millis).ok_or_else(|| Error::internal("no such moment"))
}
