//! The memberships of this process: their threads are owned and joined here.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::client::Logging;
use super::group::{Membership, Server, config};
use super::problem::KafkaResultExt;
use super::reader::{KafkaReader, Parts};
use super::topics::blocking;
use super::transaction::Transactions;
use crate::checkpoint::{Checkpoint, Place};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::log::{Group, Selection};
use crate::topic::Topic;

/// How long the readers here may take to let go of a deleted topic.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How many groups a consumer is kept for to ask what they have committed.
const ASKING_MAX: usize = 64;

/// Every membership that runs or is ending.
pub(super) struct Members {
    parts: Parts,
    /// The name of this process in transactional identities; other than any other process's.
    name: String,
    running: Mutex<Vec<Running>>,
    /// Held while a reader joins, so that two do not take one slot.
    joining: Mutex<()>,
    /// Those who ask what groups have committed.
    asking: Mutex<HashMap<Group, Arc<BaseConsumer<Logging>>>>,
    is_closed: AtomicBool,
}

struct Running {
    group: Group,
    /// Which of this process's readers of the group it is, from 0.
    slot: usize,
    membership: Membership,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Members {
    pub(super) fn new(parts: Parts) -> Self {
        let name = parts.options.member.clone();
        let name = name.unwrap_or_else(|| format!("{:016x}", rand::random::<u64>()));
        let (running, joining, asking) = Default::default();
        Self { parts, name, running, joining, asking, is_closed: AtomicBool::new(false) }
    }

    /// Joins a group and waits until the share is known.
    pub(super) async fn join(self: &Arc<Self>, selection: Selection, group: &Group) -> Result<KafkaReader> {
        let (members, joining) = (Arc::clone(self), (selection.clone(), group.clone()));
        let mut reader = blocking(move || members.open(&joining.0, &joining.1)).await?;
        if self.is_there_any(&selection).await? {
            reader.join(self.parts.options.timeout).await?;
        }
        Ok(reader)
    }

    /// Whether any topic is selected now. Kafka tells a member nothing while there is none.
    async fn is_there_any(&self, selection: &Selection) -> Result<bool> {
        let (topics, selection) = (Arc::clone(&self.parts.topics), selection.clone());
        let any = |name: &String| selection.includes(&Topic::from_name(name));
        Ok(blocking(move || topics.refresh()).await?.keys().any(any))
    }

    /// Opens a member and starts its thread. Blocks.
    fn open(&self, selection: &Selection, group: &Group) -> Result<KafkaReader> {
        let _joining = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        self.join_ended(group)?;
        let slot = self.free_slot(group)?;
        let identity = format!("headwater.{}.{}.{slot}", group.name(), self.name);
        // Before anything is asked of the group: what a predecessor of the same identity left open
        // would hold up the answer.
        let transactions = Transactions::open(&self.parts.options, &identity)?;
        let member = self.parts.options.member.as_ref().map(|_| identity.as_str());
        let config = config(&self.parts.options, group, member);
        let stop = Arc::new(AtomicBool::new(false));
        let topics = Arc::clone(&self.parts.topics);
        let server = Server::open(&config, (group, selection), topics, Arc::clone(&stop))?;
        let (membership, own) = (server.membership(), server.membership());
        let thread = std::thread::Builder::new()
            .name(format!("kafka-{}", group.name()))
            .spawn(move || server.serve())
            .or_error(Kind::Unavailable, "start the thread of a group")?;
        let running =
            Running { group: group.clone(), slot, membership: own, stop: Arc::clone(&stop), thread };
        self.running().push(running);
        Ok(KafkaReader::new(membership, (identity, transactions), self.parts.clone(), stop))
    }

    fn free_slot(&self, group: &Group) -> Result<usize> {
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(super::read::closed());
        }
        let running = self.running();
        let taken = running.iter().filter(|running| running.group == *group).map(|running| running.slot);
        let taken: BTreeSet<usize> = taken.collect();
        Ok((0..).find(|slot| !taken.contains(slot)).expect("readers are few"))
    }

    /// Waits for the group's members here that are leaving, so that they are gone for Kafka too.
    fn join_ended(&self, group: &Group) -> Result<()> {
        let mut running = self.running();
        let (ended, others) = std::mem::take(&mut *running)
            .into_iter()
            .partition(|running| running.group == *group && running.is_ending());
        *running = others;
        drop(running);
        join(ended)
    }

    /// Makes every member look which topics there are, and not only once a second.
    pub(super) async fn look_for_topics(self: &Arc<Self>) -> Result<()> {
        let members = Arc::clone(self);
        blocking(move || {
            let consumers: Vec<_> = members
                .running()
                .iter()
                .filter_map(|running| running.membership.consumer.upgrade())
                .collect();
            for consumer in consumers {
                // It only hastens what happens anyway.
                drop(consumer.fetch_metadata(None, members.parts.options.timeout));
            }
            Ok(())
        })
        .await
    }

    /// Waits for commits that are under way; those that come later know what was said before.
    pub(super) async fn settle_commits(self: &Arc<Self>) -> Result<()> {
        let members = Arc::clone(self);
        blocking(move || {
            let shares: Vec<_> =
                members.running().iter().map(|running| Arc::clone(&running.membership.share)).collect();
            for share in shares {
                drop(share.committing.lock().unwrap_or_else(PoisonError::into_inner));
            }
            Ok(())
        })
        .await
    }

    /// Waits until no member holds a partition of a topic that was deleted, so that what was read
    /// ahead of it is not taken for the records of one made again.
    pub(super) async fn let_go_of(self: &Arc<Self>, topic: &Topic) -> Result<()> {
        let deadline = Instant::now() + LET_GO_TIMEOUT;
        loop {
            let holds = |running: &Running| running.membership.share.state().holds_topic(topic.name());
            if !self.running().iter().any(holds) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::unavailable(format!("the readers did not let go of topic {topic}")));
            }
            self.look_for_topics().await?;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// What a group has committed in these partitions. Blocks.
    pub(super) fn committed(&self, group: &Group, places: &[Place]) -> Result<Checkpoint> {
        let consumer = self.asking(group)?;
        // Nobody else takes out what the client has to say.
        while consumer.poll(Duration::ZERO).is_some() {}
        super::group::committed(&consumer, places, self.parts.options.timeout)
    }

    /// A consumer that names the group but never joins it.
    fn asking(&self, group: &Group) -> Result<Arc<BaseConsumer<Logging>>> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(consumer) = asking.get(group) {
            return Ok(Arc::clone(consumer));
        }
        if asking.len() >= ASKING_MAX {
            asking.clear();
        }
        let config = config(&self.parts.options, group, None);
        let consumer = Arc::new(config.create_with_context(Logging).or_kafka("open a consumer")?);
        asking.insert(group.clone(), Arc::clone(&consumer));
        Ok(consumer)
    }

    /// Ends every membership and joins its thread. Blocks.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        let _joining = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        let running = std::mem::take(&mut *self.running());
        running.iter().for_each(|running| running.stop.store(true, Ordering::SeqCst));
        if let Err(error) = join(running) {
            tracing::warn!(%error, "a group's thread ended badly");
        }
        self.asking.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn is_ending(&self) -> bool {
        self.stop.load(Ordering::SeqCst) || self.membership.share.failure().is_some()
    }
}

fn join(ended: Vec<Running>) -> Result<()> {
    for running in ended {
        running.thread.join().map_err(|_| Error::internal("a group's thread panicked"))?;
    }
    Ok(())
}
