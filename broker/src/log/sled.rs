//! The log on sled: for one process, with no other service.
//!
//! One tree holds everything, so that records, outputs, dead letters and progress can be one batch.
//! One thread writes: what waits for it becomes one group commit, applied, flushed and synced before
//! anybody is answered. Reads look at the tree directly, one block at a time, and only at what is
//! durable. Nothing here balances partitions between processes: a group has one reader.

mod block;
mod committer;
mod compact;
mod control;
mod key;
mod queue;
mod read;
mod reader;
mod share;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod topics;
mod trim;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use async_trait::async_trait;

use self::committer::Committer;
use self::queue::Control;
use self::reader::SledReader;
use self::shared::Shared;
use self::store::Store;
use self::topics::Topics;
use super::{Append, Appended, Chunk, Group, Log, Position, Reader, Selection};
use crate::checkpoint::{Checkpoint, Place};
use crate::error::{Error, Kind, Result, ResultExt};
use crate::time::{Clock, Timestamp};
use crate::topic::{Offset, Topic, TopicConfig};

/// Where the log lies and how much memory it takes.
#[derive(Clone, Debug)]
pub struct SledOptions {
    /// The directory of the database; made if it is missing.
    pub directory: PathBuf,
    /// What sled may keep in memory of what it has on disk, in bytes.
    pub cache_bytes: u64,
    /// The bytes of appends that may wait to be written; further ones wait for room.
    pub queue_bytes_max: usize,
    /// The bytes of appends that one group commit takes, or one larger append.
    pub commit_bytes_max: usize,
}

impl SledOptions {
    /// A log in `directory`: 64 MiB of cache, a queue of 64 MiB, group commits of 1 MiB.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            cache_bytes: 64 << 20,
            queue_bytes_max: 64 << 20,
            commit_bytes_max: 1 << 20,
        }
    }
}

/// A log in a directory of this machine.
pub struct SledLog {
    shared: Arc<Shared>,
    committer: Mutex<Option<JoinHandle<()>>>,
}

impl SledLog {
    /// Opens the log, or makes it. `Conflict` if another process has it open; `Corrupt` if what it
    /// holds cannot be read.
    pub async fn open(options: SledOptions, clock: Arc<dyn Clock>) -> Result<Arc<SledLog>> {
        let opening = tokio::task::spawn_blocking(move || Self::open_blocking(&options, clock));
        opening.await.or_error(Kind::Internal, "open the log")?
    }

    fn open_blocking(options: &SledOptions, clock: Arc<dyn Clock>) -> Result<Arc<SledLog>> {
        let store = Store::open(options)?;
        let topics = Topics::load(&store)?;
        let shared = Shared::new((store, topics), options.queue_bytes_max, clock);
        let shared = Arc::new(shared);
        let committer = Committer::new(Arc::clone(&shared), options.commit_bytes_max)?;
        let thread = std::thread::Builder::new().name("sled-committer".to_owned());
        let thread = thread.spawn(move || committer.run());
        let thread = thread.or_error(Kind::Unavailable, "start the log's committer")?;
        Ok(Arc::new(SledLog { shared, committer: Mutex::new(Some(thread)) }))
    }

    /// Removes now what retention lets go, clears deleted topics away and compacts. The log does the
    /// same by itself: along with writes, and every 30 seconds for partitions that nobody writes to.
    pub async fn trim(&self) -> Result<()> {
        self.shared.control(Control::KeepHouse).await
    }
}

/// Stops the committer after what waits is written, and lets go of the database.
fn shut(shared: &Shared, committer: Option<JoinHandle<()>>) -> Result<()> {
    shared.queue.close();
    let joined = committer.map_or(Ok(()), JoinHandle::join);
    shared.stop(&Error::unavailable("the log is closed"));
    drop(shared.store.write().unwrap_or_else(PoisonError::into_inner).take());
    joined.map_err(|_| Error::internal("the log's committer panicked"))
}

impl Drop for SledLog {
    fn drop(&mut self) {
        let committer = lock(&self.committer).take();
        if let Err(error) = shut(&self.shared, committer) {
            tracing::error!(%error, "the log was closed by force");
        }
    }
}

#[async_trait]
impl Log for SledLog {
    async fn create(&self, topic: &Topic, config: &TopicConfig) -> Result<()> {
        let (topic, config) = (topic.clone(), config.clone());
        self.shared.control(|answer| Control::Create(topic, config, answer)).await
    }

    async fn delete(&self, topic: &Topic) -> Result<()> {
        let topic = topic.clone();
        self.shared.control(|answer| Control::Delete(topic, answer)).await
    }

    async fn partitions(&self, topic: &Topic) -> Result<u32> {
        self.shared.check()?;
        Ok(self.shared.topics.get(topic)?.partitions)
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.shared.write(None, appends).await
    }

    async fn read(&self, from: &Position, bytes_max: usize) -> Result<Chunk> {
        self.shared.check()?;
        let state = self.shared.topics.get_place(&from.place)?;
        let wanted = (from.place.partition, from.offset);
        self.shared.blocking(move |store| read::read(store, &state, wanted, bytes_max.max(1))?.open()).await
    }

    async fn bounds(&self, place: &Place) -> Result<Range<Offset>> {
        self.shared.check()?;
        let bounds = self.shared.topics.get_place(place)?.bounds(place.partition);
        Ok(Offset(bounds.start)..Offset(bounds.end))
    }

    async fn offset_at(&self, place: &Place, time: Timestamp) -> Result<Offset> {
        self.shared.check()?;
        let state = self.shared.topics.get_place(place)?;
        let partition = place.partition;
        self.shared.blocking(move |store| read::offset_at(store, &state, partition, time)).await
    }

    async fn wait_past(&self, place: &Place, end: Offset) -> Result<()> {
        let state = self.shared.topics.get_place(place)?;
        loop {
            let mut grown = std::pin::pin!(state.grown.notified());
            grown.as_mut().enable();
            self.shared.check()?;
            if state.is_deleted() {
                return Err(Error::not_found(format!("topic {} was deleted", state.topic)));
            }
            if state.bounds(place.partition).end > end.0 {
                return Ok(());
            }
            grown.await;
        }
    }

    async fn subscribe(&self, selection: Selection, group: &Group) -> Result<Box<dyn Reader>> {
        let group = group.clone();
        let share = self.shared.control(|answer| Control::Subscribe(selection, group, answer)).await?;
        Ok(Box::new(SledReader::new(Arc::clone(&self.shared), share)))
    }

    async fn committed(&self, group: &Group, topic: &Topic) -> Result<Checkpoint> {
        self.shared.check()?;
        let state = self.shared.topics.get(topic)?;
        let mut prefix = committer::progress_prefix(group)?;
        prefix.extend(state.id.to_be_bytes());
        let stored = self.shared.blocking(move |store| store.progress(&prefix)).await?;
        // Whoever sees progress must find what was committed together with it.
        self.shared.settled().await?;
        let named = |(at, next): (key::PartitionKey, u64)| {
            (Place::new(topic.clone(), crate::topic::Partition(at.partition)), Offset(next))
        };
        Ok(stored.into_iter().map(named).collect())
    }

    async fn close(&self) -> Result<()> {
        let committer = lock(&self.committer).take();
        let shared = Arc::clone(&self.shared);
        let closing = tokio::task::spawn_blocking(move || shut(&shared, committer));
        closing.await.or_error(Kind::Internal, "close the log")?
    }
}

/// Locks, also after a panic elsewhere: what is guarded here is changed in single steps.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
