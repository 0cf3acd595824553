//! The log on Kafka: for many processes, balanced and replicated by the cluster.
//!
//! Every promise is made with what Kafka offers for it: appends by an idempotent producer that
//! waits for all replicas, reads of what is committed only, groups by Kafka's own, and progress
//! with outputs by a transaction that carries the group's generation, so that a member that lost
//! its share cannot commit. Nothing is kept on this machine.

mod client;
mod codec;
mod group;
mod members;
mod options;
mod problem;
mod producer;
mod read;
mod reader;
mod share;
mod topics;
mod transaction;
mod unheld;
mod watch;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use self::members::Members;
pub use self::options::KafkaOptions;
use self::producer::{Appender, Outgoing};
use self::read::{Reads, closed};
use self::reader::Parts;
use self::topics::{Topics, blocking};
use self::watch::Watches;
use super::{Append, Appended, Chunk, Group, Log, Position, Reader, Selection};
use crate::checkpoint::{Checkpoint, Place};
use crate::error::Result;
use crate::time::Timestamp;
use crate::topic::{Offset, Partition, Topic, TopicConfig};

/// A log on a Kafka cluster.
pub struct KafkaLog {
    options: Arc<KafkaOptions>,
    topics: Arc<Topics>,
    reads: Arc<Reads>,
    watches: Arc<Watches>,
    members: Arc<Members>,
    /// Gone once the log is closed.
    appender: Mutex<Option<Arc<Appender>>>,
    is_closed: AtomicBool,
}

impl KafkaLog {
    /// Connects to the cluster and learns which topics there are. `Invalid` names a property that
    /// is refused or unknown; `Unavailable` if the cluster does not answer in time.
    pub async fn open(options: KafkaOptions) -> Result<Arc<Self>> {
        options.check()?;
        blocking(move || Self::open_blocking(options)).await
    }

    fn open_blocking(options: KafkaOptions) -> Result<Arc<Self>> {
        let topics = Arc::new(Topics::open(&options, &read::config(&options))?);
        let reads = Arc::new(Reads::open(&options, Arc::clone(&topics))?);
        let watches = Arc::new(Watches::open(&options, Arc::clone(&reads))?);
        let appender = Mutex::new(Some(Arc::new(Appender::open(&options)?)));
        let options = Arc::new(options);
        let parts = Parts { topics: topics.clone(), reads: reads.clone(), options: options.clone() };
        let members = Arc::new(Members::new(parts));
        let is_closed = AtomicBool::new(false);
        Ok(Arc::new(Self { options, topics, reads, watches, members, appender, is_closed }))
    }

    fn check_open(&self) -> Result<()> {
        if self.is_closed.load(Ordering::SeqCst) { Err(closed()) } else { Ok(()) }
    }

    fn appender(&self) -> Result<Arc<Appender>> {
        self.appender.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(closed)
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn create(&self, topic: &Topic, config: &TopicConfig) -> Result<()> {
        self.check_open()?;
        self.topics.create(topic, config).await?;
        let (appender, timeout) = (self.appender()?, self.options.timeout);
        let new = topic.clone();
        blocking(move || appender.look_up(&new, timeout)).await?;
        self.members.look_for_topics().await
    }

    async fn delete(&self, topic: &Topic) -> Result<()> {
        self.check_open()?;
        let leaving = self.topics.leave(topic);
        self.members.settle_commits().await?;
        self.topics.delete(topic).await?;
        self.members.let_go_of(topic).await?;
        drop(leaving);
        Ok(())
    }

    async fn partitions(&self, topic: &Topic) -> Result<u32> {
        self.check_open()?;
        self.topics.partitions(topic).await
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        let appender = self.appender()?;
        for append in &appends {
            self.topics.check(&append.place).await?;
        }
        let outgoing = appends.iter().map(|append| Outgoing::of(append, self.options.record_bytes_max));
        let deliveries = appender.queue(&outgoing.collect::<Result<Vec<_>>>()?)?;
        let appended = producer::settle(deliveries).await;
        if appended.as_ref().is_err_and(|error| error.kind() == crate::error::Kind::NotFound) {
            appends.iter().for_each(|append| self.topics.forget(&append.place.topic));
        }
        appended
    }

    async fn read(&self, from: &Position, bytes_max: usize) -> Result<Chunk> {
        self.check_open()?;
        self.reads.read(from, bytes_max).await
    }

    async fn bounds(&self, place: &Place) -> Result<Range<Offset>> {
        self.check_open()?;
        self.reads.settled_bounds(place).await
    }

    async fn offset_at(&self, place: &Place, time: Timestamp) -> Result<Offset> {
        self.check_open()?;
        let (reads, place) = (Arc::clone(&self.reads), place.clone());
        blocking(move || reads.offset_at(&place, time)).await
    }

    async fn wait_past(&self, place: &Place, end: Offset) -> Result<()> {
        self.check_open()?;
        self.watches.wait_past(place, end).await
    }

    async fn subscribe(&self, selection: Selection, group: &Group) -> Result<Box<dyn Reader>> {
        self.check_open()?;
        Ok(Box::new(self.members.join(selection, group).await?))
    }

    async fn committed(&self, group: &Group, topic: &Topic) -> Result<Checkpoint> {
        self.check_open()?;
        let partitions = match self.topics.known(topic) {
            Some(partitions) => partitions,
            None => self.topics.partitions(topic).await?,
        };
        let places = (0..partitions).map(|number| Place::new(topic.clone(), Partition(number)));
        let (places, group) = (places.collect::<Vec<_>>(), group.clone());
        let members = Arc::clone(&self.members);
        blocking(move || members.committed(&group, &places)).await
    }

    async fn close(&self) -> Result<()> {
        if self.is_closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let appender = self.appender.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (members, reads) = (Arc::clone(&self.members), Arc::clone(&self.reads));
        let (watches, timeout) = (Arc::clone(&self.watches), self.options.timeout);
        blocking(move || {
            let flushed = appender.as_ref().map_or(Ok(()), |appender| appender.flush(timeout));
            drop(appender);
            members.close();
            watches.close();
            reads.close();
            flushed
        })
        .await
    }
}
