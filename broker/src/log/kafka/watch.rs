//! Waiting for a partition to grow.
//!
//! One consumer holds every partition that somebody waits for, positioned at its end, each with a
//! queue of its own. Kafka answers its fetch when something is written, librdkafka puts that into
//! the queue, and whoever waits is woken. What was fetched is thrown away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tracing::warn;

use super::client::{Logging, Seen};
use super::options::KafkaOptions;
use super::problem::KafkaResultExt;
use super::read::{Reads, assignment, closed, number, raw};
use super::topics::blocking;
use crate::checkpoint::Place;
use crate::error::{Error, Result};
use crate::topic::Offset;

/// Knows who waits for which partition.
pub(super) struct Watches {
    consumer: Mutex<Option<Arc<BaseConsumer<Logging>>>>,
    watched: Mutex<HashMap<Place, Watched>>,
    seen: Mutex<Seen>,
    timeout: Duration,
    reads: Arc<Reads>,
}

struct Watched {
    queue: PartitionQueue<Logging>,
    grown: Arc<watch::Sender<()>>,
    waiting: usize,
}

impl Watches {
    pub(super) fn open(options: &KafkaOptions, reads: Arc<Reads>) -> Result<Self> {
        let mut config = super::read::config(options);
        // It fetches only to be woken: as little as can be, and Kafka may hold the answer back.
        config.remove("max.partition.fetch.bytes");
        config
            .set("group.id", "headwater.watch")
            .set("auto.offset.reset", "latest")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.message.max.bytes", "1024")
            .set("queued.min.messages", "1")
            .set("queued.max.messages.kbytes", "16");
        let consumer = config.create_with_context(Logging).or_kafka("open the watching consumer")?;
        let consumer = Mutex::new(Some(Arc::new(consumer)));
        let (watched, seen) = Default::default();
        Ok(Self { consumer, watched, seen, timeout: options.timeout, reads })
    }

    /// Returns once the partition's end lies past `end`.
    pub(super) async fn wait_past(self: &Arc<Self>, place: &Place, end: Offset) -> Result<()> {
        let at = self.end_after_events(place).await?;
        if at > end {
            return Ok(());
        }
        let (watches, watched) = (Arc::clone(self), place.clone());
        let mut watch = blocking(move || watches.begin(watched, at)).await?;
        // What is written from now on sets the signal again, so that none is lost between looking
        // and waiting.
        while self.end_after_events(place).await? <= end {
            watch.grown.changed().await.map_err(|_| closed())?;
        }
        Ok(())
    }

    /// The partition's end, after its queue was emptied, so that it signals the next event.
    async fn end_after_events(self: &Arc<Self>, place: &Place) -> Result<Offset> {
        let (watches, place) = (Arc::clone(self), place.clone());
        blocking(move || {
            if let Some(watched) = watches.watched().get(&place) {
                while watched.queue.poll(Duration::ZERO).is_some() {}
            }
            Ok(watches.reads.bounds(&place)?.end)
        })
        .await
    }

    fn begin(self: Arc<Self>, place: Place, at: Offset) -> Result<Watch> {
        let consumer = self.consumer().clone().ok_or_else(closed)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.look_up(consumer.client(), &place.topic, self.timeout)?;
        drop(seen);
        let mut all = self.watched();
        if !all.contains_key(&place) {
            // Errors and the like lie in the consumer's own queue; nobody else takes them out.
            while consumer.poll(Duration::ZERO).is_some() {}
            let queue = consumer.split_partition_queue(place.topic.name(), number(&place));
            let mut queue = queue.ok_or_else(|| Error::internal("a topic's name holds a zero byte"))?;
            let grown = Arc::new(watch::Sender::new(()));
            let signal = Arc::clone(&grown);
            queue.set_nonempty_callback(move || signal.send_modify(|()| ()));
            consumer.incremental_assign(&assignment(&place, raw(at))?).or_kafka("watch a partition")?;
            all.insert(place.clone(), Watched { queue, grown, waiting: 0 });
        }
        let watched = all.get_mut(&place).expect("it was inserted above");
        watched.waiting += 1;
        let grown = watched.grown.subscribe();
        drop(all);
        Ok(Watch { watches: self, place, grown })
    }

    fn end(&self, place: &Place) -> Result<()> {
        let mut all = self.watched();
        let Some(watched) = all.get_mut(place) else { return Ok(()) };
        watched.waiting -= 1;
        if watched.waiting > 0 {
            return Ok(());
        }
        all.remove(place);
        let Some(consumer) = self.consumer().clone() else { return Ok(()) };
        consumer.incremental_unassign(&assignment(place, raw(Offset(0)))?).or_kafka("end a watch")
    }

    /// Wakes everybody, who then find the log closed, and lets go of the consumer. Blocks.
    pub(super) fn close(&self) {
        let consumer = self.consumer().take();
        // The queues go before the consumer that they belong to.
        self.watched().clear();
        drop(consumer);
    }

    fn consumer(&self) -> MutexGuard<'_, Option<Arc<BaseConsumer<Logging>>>> {
        self.consumer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<Place, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a partition watched.
struct Watch {
    watches: Arc<Watches>,
    place: Place,
    grown: watch::Receiver<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let (watches, place) = (Arc::clone(&self.watches), self.place.clone());
        let end = move || {
            if let Err(error) = watches.end(&place) {
                warn!(%place, %error, "could not end the watch of a partition");
            }
        };
        match Handle::try_current() {
            // Nobody waits for it: the next watch of the place takes over what is still there.
            Ok(runtime) => drop(runtime.spawn_blocking(end)),
            Err(_) => end(),
        }
    }
}
