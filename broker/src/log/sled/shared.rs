//! What the log, its readers and its committer share, and the way into the queue.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use tokio::sync::{Semaphore, oneshot, watch};

use super::queue::{Answer, Control, Fence, Outputs, Queue, Request, Write};
use super::share::Share;
use super::store::Store;
use super::topics::Topics;
use super::{committer, lock};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::log::{Append, Appended};
use crate::time::Clock;

/// Batches up to this size are compressed where they are appended; larger ones off the runtime.
const INLINE_BYTES_MAX: usize = 64 << 10;
/// The queue's budget is given out in units of this many bytes, at least one a request, so that
/// small requests are bounded in number too.
const BUDGET_UNIT_BYTES: usize = 256;

/// What the log, its readers and its committer share.
pub(super) struct Shared {
    pub(super) store: RwLock<Option<Store>>,
    pub(super) topics: Topics,
    pub(super) shares: Mutex<Vec<Weak<Share>>>,
    pub(super) queue: Queue,
    budget: Arc<Semaphore>,
    budget_units: usize,
    /// Held while a request waits for room in the queue, which keeps requests in order.
    door: tokio::sync::Mutex<()>,
    pub(super) clock: Arc<dyn Clock>,
    stopped: OnceLock<Error>,
    /// The number of group commits that were begun.
    begun: AtomicU64,
    /// The number of group commits whose records can be read.
    visible: watch::Sender<u64>,
}

impl Shared {
    /// A log with nothing queued.
    pub(super) fn new(
        (store, topics): (Store, Topics),
        queue_bytes_max: usize,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let units = (queue_bytes_max / BUDGET_UNIT_BYTES).clamp(1, u32::MAX as usize >> 1);
        let units = units.min(Semaphore::MAX_PERMITS);
        Self {
            store: RwLock::new(Some(store)),
            topics,
            shares: Mutex::default(),
            queue: Queue::default(),
            budget: Arc::new(Semaphore::new(units)),
            budget_units: units,
            door: tokio::sync::Mutex::default(),
            clock,
            stopped: OnceLock::new(),
            begun: AtomicU64::new(0),
            visible: watch::Sender::new(0),
        }
    }

    /// A group commit is about to be applied.
    pub(super) fn begin_commit(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// Every group commit that was begun is durable, and its records can be read.
    pub(super) fn end_commit(&self) {
        self.visible.send_replace(self.begun.load(Ordering::SeqCst));
    }

    /// Waits until what the store shows now is durable and its records can be read: a batch shows
    /// in the store as soon as it is applied.
    pub(super) async fn settled(&self) -> Result<()> {
        let begun = self.begun.load(Ordering::SeqCst);
        let mut visible = self.visible.subscribe();
        let settled = visible.wait_for(|visible| *visible >= begun || self.stopped.get().is_some()).await;
        settled.map(drop).or_error(Kind::Internal, "wait for a group commit")?;
        self.check()
    }

    /// The reason why the log does nothing more, if there is one.
    pub(super) fn check(&self) -> Result<()> {
        self.stopped.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    /// Lets nothing more be done and wakes everybody who waits.
    pub(super) fn stop(&self, why: &Error) {
        let is_first = self.stopped.set(why.clone()).is_ok();
        self.queue.abandon();
        if is_first {
            for state in self.topics.all() {
                state.grown.notify_waiters();
            }
            for share in self.shares() {
                share.wake.notify_waiters();
            }
            self.visible.send_modify(|_| {});
        }
    }

    pub(super) fn shares(&self) -> Vec<Arc<Share>> {
        lock(&self.shares).iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn with_store<T>(&self, work: impl FnOnce(&Store) -> Result<T>) -> Result<T> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        match store.as_ref() {
            Some(store) => work(store),
            None => Err(self.answer_lost()),
        }
    }

    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(self);
        let working = tokio::task::spawn_blocking(move || shared.with_store(work));
        working.await.or_error(Kind::Internal, "read the log")?
    }

    fn answer_lost(&self) -> Error {
        self.check().err().unwrap_or_else(|| Error::unavailable("the log is closed"))
    }

    /// Queues something that the committer does by itself.
    pub(super) async fn control<T>(&self, make: impl FnOnce(Answer<T>) -> Control) -> Result<T> {
        self.check()?;
        let (answer, answered) = oneshot::channel();
        let control = make(answer);
        let turn = self.door.lock().await;
        self.queue.push(Request::Control(control));
        drop(turn);
        answered.await.map_err(|_| self.answer_lost())?
    }

    /// Queues a write and waits until it is durable. Writes are queued in the order in which this is
    /// first polled: whoever waits for room holds the door, and large batches keep their place in
    /// the queue while they are compressed.
    pub(super) async fn write(&self, fence: Option<Fence>, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.check()?;
        if appends.is_empty() && fence.is_none() {
            return Ok(Vec::new());
        }
        let weight: usize = appends.iter().map(|append| append.batch.bytes().len()).sum();
        let (outputs, compress) = if weight <= INLINE_BYTES_MAX {
            (Outputs::Ready(committer::prepare(&appends)?), None)
        } else {
            let (sender, coming) = oneshot::channel();
            let compress = move || sender.send(committer::prepare(&appends)).map_or_else(drop, drop);
            (Outputs::Coming(coming), Some(compress))
        };

        let units = weight.div_ceil(BUDGET_UNIT_BYTES).clamp(1, self.budget_units);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let (answer, answered) = oneshot::channel();
        let turn = self.door.lock().await;
        let permit = Arc::clone(&self.budget).acquire_many_owned(units).await;
        let permit = permit.or_error(Kind::Internal, "wait for room in the log's queue")?;
        let write = Write { fence, outputs, weight: weight.max(1), answer, permit };
        self.queue.push(Request::Write(Box::new(write)));
        drop(turn);

        if let Some(compress) = compress {
            tokio::task::spawn_blocking(compress).await.or_error(Kind::Internal, "compress a batch")?;
        }
        answered.await.map_err(|_| self.answer_lost())?
    }
}
