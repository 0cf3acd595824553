//! A reader of a group.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::runtime::Handle;

use super::group::{Member, Membership};
use super::options::KafkaOptions;
use super::problem::{self, KafkaResultExt};
use super::producer::Outgoing;
use super::read::{Reads, closed, number, raw};
use super::topics::{Topics, blocking};
use super::transaction::{Failed, Transactions};
use crate::checkpoint::{Checkpoint, Place};
use crate::error::{Error, Kind, Result};
use crate::log::{Append, Chunk, Reader};

/// How often a step is tried again that the group's protocol holds up.
const TRIES_MAX: usize = 100;
/// The pause before it is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// What a reader needs of its log.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) topics: Arc<Topics>,
    pub(super) reads: Arc<Reads>,
    pub(super) options: Arc<KafkaOptions>,
}

/// See [`Reader`].
pub(super) struct KafkaReader {
    committer: Arc<Committer>,
    parts: Parts,
    committed: Checkpoint,
    stop: Arc<AtomicBool>,
}

/// What a commit needs; it outlives a reader that is dropped while one is under way.
struct Committer {
    membership: Membership,
    transactional_id: String,
    transactions: Mutex<Option<Transactions>>,
    parts: Parts,
}

impl KafkaReader {
    /// A reader of a membership whose thread runs.
    pub(super) fn new(
        membership: Membership,
        (transactional_id, transactions): (String, Transactions),
        parts: Parts,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let transactions = Mutex::new(Some(transactions));
        let committer = Committer { membership, transactional_id, transactions, parts: parts.clone() };
        Self { committer: Arc::new(committer), parts, committed: Checkpoint::new(), stop }
    }

    /// Waits until the group has told the share, or for `timeout` where no topic is selected yet.
    pub(super) async fn join(&mut self, timeout: Duration) -> Result<()> {
        let share = Arc::clone(&self.committer.membership.share);
        let joined = async {
            loop {
                if let Some(error) = share.failure() {
                    return Err(error);
                }
                if share.state().has_joined {
                    return Ok(());
                }
                share.changed.notified().await;
            }
        };
        let joined = tokio::time::timeout(timeout, joined).await;
        self.catch_up();
        // What arrived meanwhile must wake the first `next`.
        share.changed.notify_one();
        joined.unwrap_or_else(|_| Err(Error::unavailable("the group did not tell the share in time")))
    }

    /// Takes over what changed in the share since the last look.
    fn catch_up(&mut self) {
        let mut state = self.committer.membership.share.state();
        for place in std::mem::take(&mut state.gone) {
            self.committed.remove(&place);
        }
        self.committed.merge(&std::mem::take(&mut state.committed));
    }

    /// Takes what is in the queues, off the runtime.
    async fn fill(&self, bytes_max: usize) -> Result<Vec<Chunk>> {
        let share = Arc::clone(&self.committer.membership.share);
        let filling = Arc::clone(&share);
        blocking(move || {
            filling.state().fill(bytes_max);
            Ok(())
        })
        .await?;
        if let Some(error) = share.failure() {
            return Err(error);
        }
        Ok(share.state().hand_out())
    }

    /// Looks past partitions' ends for offsets that hold no record.
    async fn look_past_ends(&self) -> Result<Vec<Chunk>> {
        let share = &self.committer.membership.share;
        let ends = share.state().at_end();
        for from in ends {
            match self.parts.reads.read(&from, 1).await {
                Ok(found) => share.state().looked_past(&from, found),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(share.state().hand_out())
    }
}

#[async_trait]
impl Reader for KafkaReader {
    fn committed(&self) -> &Checkpoint {
        &self.committed
    }

    fn holds(&self, place: &Place) -> bool {
        self.committer.membership.share.state().holds(place)
    }

    async fn seek(&mut self, to: &Checkpoint) -> Result<()> {
        let (committer, to) = (Arc::clone(&self.committer), to.clone());
        blocking(move || committer.seek(&to)).await
    }

    async fn next(&mut self, bytes_max: usize) -> Result<Vec<Chunk>> {
        let share = Arc::clone(&self.committer.membership.share);
        loop {
            self.catch_up();
            let chunks = self.fill(bytes_max.max(1)).await?;
            if !chunks.is_empty() {
                return Ok(chunks);
            }
            let chunks = self.look_past_ends().await?;
            if !chunks.is_empty() {
                return Ok(chunks);
            }
            share.changed.notified().await;
        }
    }

    async fn commit(&mut self, upto: &Checkpoint, outputs: Vec<Append>) -> Result<()> {
        let record_bytes_max = self.parts.options.record_bytes_max;
        let mut outgoing = Vec::with_capacity(outputs.len());
        for output in &outputs {
            self.parts.topics.check(&output.place).await?;
            outgoing.push(Outgoing::of(output, record_bytes_max)?);
        }
        let (committer, mut upto) = (Arc::clone(&self.committer), upto.clone());
        if upto.is_empty() && !outgoing.is_empty() {
            // Only progress is fenced by Kafka, so some that changes nothing goes along.
            upto.merge(&self.committed);
        }
        let progress = blocking(move || committer.commit(&upto, &outgoing)).await?;
        self.committed.merge(&progress);
        Ok(())
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        // The thread leaves the group; the log joins it.
        self.stop.store(true, Ordering::SeqCst);
        let committer = Arc::clone(&self.committer);
        let end = move || *committer.transactions() = None;
        if let Ok(runtime) = Handle::try_current() {
            // A producer takes a moment to end; nobody waits for it.
            drop(runtime.spawn_blocking(end));
        }
    }
}

impl Committer {
    fn seek(&self, to: &Checkpoint) -> Result<()> {
        let share = &self.membership.share;
        for _ in 0..TRIES_MAX {
            if let Some(error) = share.failure() {
                return Err(error);
            }
            let consumer = self.consumer()?;
            let mut state = share.state();
            let mut list = TopicPartitionList::new();
            for (place, next) in to.iter().filter(|(place, _)| state.holds(place)) {
                list.add_partition_offset(place.topic.name(), number(place), raw(next)).or_kafka("seek")?;
            }
            if list.count() == 0 {
                return Ok(());
            }
            let list = consumer.seek_partitions(list, self.parts.options.timeout);
            let list = list.or_kafka("seek")?;
            // A partition that was assigned just now is not read yet, and cannot be moved before.
            if list.elements().iter().all(|element| element.error().is_ok()) {
                for (place, next) in to.iter() {
                    state.moved(place, next);
                }
                return Ok(());
            }
            drop(state);
            std::thread::sleep(PAUSE);
        }
        Err(Error::unavailable("seek: the partitions are not read yet"))
    }

    /// Commits what of `upto` lies in topics that exist, and returns it.
    fn commit(&self, upto: &Checkpoint, outgoing: &[Outgoing]) -> Result<Checkpoint> {
        let share = &self.membership.share;
        let _committing = share.committing.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..TRIES_MAX {
            if let Some(error) = share.failure() {
                return Err(fenced(error));
            }
            let progress = self.progress(upto)?;
            let done = if outgoing.is_empty() {
                self.commit_progress(&progress)
            } else {
                self.commit_transaction(&progress, outgoing)
            };
            match done {
                // The group is just changing. This member answers for its share until it gives it
                // up, which waits for this commit, so the next generation is as good.
                Err(Failed::HeldUp) => std::thread::sleep(PAUSE),
                Err(Failed::For(error)) => return Err(error),
                Ok(()) => return Ok(progress),
            }
        }
        Err(Error::new(Kind::Fenced, "the group did not settle in time"))
    }

    fn transactions(&self) -> MutexGuard<'_, Option<Transactions>> {
        self.transactions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn consumer(&self) -> Result<Arc<BaseConsumer<Member>>> {
        self.membership.consumer.upgrade().ok_or_else(|| fenced(closed()))
    }

    /// What of `upto` is this reader's to commit. Of a topic that is being deleted, or was and perhaps
    /// was made again, nothing is: Kafka refuses a transaction that names it, after all its tries.
    fn progress(&self, upto: &Checkpoint) -> Result<Checkpoint> {
        let state = self.membership.share.state();
        let is_own =
            |place: &Place| state.has_handed_out(place) && !self.parts.topics.is_leaving(&place.topic);
        let (own, others): (Vec<_>, Vec<_>) = upto.iter().partition(|(place, _)| is_own(place));
        let strange = |place: &&Place| !state.holds(place) && !state.is_deleted(place);
        let others: Vec<Place> =
            others.into_iter().map(|(place, _)| place).filter(strange).cloned().collect();
        let own = own.into_iter().map(|(place, next)| (place.clone(), next)).collect();
        drop(state);
        if others.is_empty() {
            return Ok(own);
        }
        let all = self.parts.topics.refresh()?;
        match others.iter().find(|place| all.contains_key(place.topic.name())) {
            Some(place) => Err(Error::new(Kind::Fenced, format!("{place} is not in this reader's share"))),
            None => Ok(own),
        }
    }

    fn commit_progress(&self, progress: &Checkpoint) -> Result<(), Failed> {
        if progress.is_empty() {
            return Ok(());
        }
        let list = list(progress)?;
        let done = self.consumer()?.commit(&list, CommitMode::Sync);
        done.map_err(|cause| match cause {
            KafkaError::ConsumerCommit(
                RDKafkaErrorCode::RebalanceInProgress | RDKafkaErrorCode::IllegalGeneration,
            ) => Failed::HeldUp,
            // The only partitions named were of topics deleted meanwhile.
            cause => Failed::For(problem::error(cause, "commit progress")),
        })
    }

    fn commit_transaction(&self, progress: &Checkpoint, outgoing: &[Outgoing]) -> Result<(), Failed> {
        let mut transactions = self.transactions();
        if transactions.as_ref().is_none_or(Transactions::is_spent) {
            *transactions = None;
            *transactions = Some(Transactions::open(&self.parts.options, &self.transactional_id)?);
        }
        let transactions = transactions.as_mut().expect("it was opened above");
        let group = self.consumer()?.group_metadata();
        let group = group.ok_or_else(|| Error::internal("a member has no group"))?;
        transactions.commit(outgoing, &list(progress)?, &group)
    }
}

fn list(progress: &Checkpoint) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (place, next) in progress.iter() {
        list.add_partition_offset(place.topic.name(), number(place), raw(next)).or_kafka("name progress")?;
    }
    Ok(list)
}

/// A membership that failed cannot commit, whatever it failed of.
fn fenced(error: Error) -> Error {
    match error.kind() {
        Kind::Fenced => error,
        _ => Error::new(Kind::Fenced, "the reader is no longer a member of its group").with_source(error),
    }
}
