//! What is kept in memory of each topic: where its partitions begin and end.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::Notify;

use super::block::Header;
use super::key::{self, PartitionKey};
use super::lock;
use super::store::{Store, StoredTopic};
use crate::checkpoint::Place;
use crate::error::{Error, Result};
use crate::topic::{Cleanup, Partition, Topic, TopicConfig};

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The oldest block's header; none before the first append.
    pub(super) first: Option<Header>,
    /// The first offset that is not written yet.
    pub(super) end: u64,
    /// The stored bytes of every block that was ever written.
    pub(super) after: u64,
    /// The latest arrival of any record ever written, in milliseconds.
    pub(super) max_arrival: i64,
}

impl Head {
    /// The first offset that can be read.
    pub(super) fn start(&self) -> u64 {
        self.first.map_or(self.end, |first| first.base)
    }

    /// The bytes that the partition takes in the tree.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.first.map_or(0, |first| self.after.saturating_sub(first.before))
    }

    /// Takes a block in at the end.
    pub(super) fn push(&mut self, header: Header) {
        self.first.get_or_insert(header);
        self.end = header.next();
        self.after = header.before + header.stored_bytes();
        self.max_arrival = header.max_arrival;
    }
}

/// A topic that exists, or existed when it was looked up.
pub(super) struct TopicState {
    pub(super) topic: Topic,
    pub(super) id: u32,
    pub(super) partitions: u32,
    cleanup: Mutex<Cleanup>,
    heads: Mutex<Vec<Head>>,
    /// Wakes those who wait for records, or for the topic's end.
    pub(super) grown: Notify,
    /// Held by readers, and alone by a compaction, which changes what was written before.
    pub(super) rewriting: RwLock<()>,
    is_deleted: AtomicBool,
}

impl TopicState {
    pub(super) fn new(topic: Topic, id: u32, config: &TopicConfig) -> Self {
        let heads = vec![Head { max_arrival: i64::MIN, ..Head::default() }; config.partitions as usize];
        Self {
            topic,
            id,
            partitions: config.partitions,
            cleanup: Mutex::new(config.cleanup.clone()),
            heads: Mutex::new(heads),
            grown: Notify::new(),
            rewriting: RwLock::new(()),
            is_deleted: AtomicBool::new(false),
        }
    }

    /// Finds where each partition begins and ends, with two look-ups a partition.
    fn load(topic: Topic, id: u32, config: &TopicConfig, store: &Store) -> Result<Self> {
        let state = Self::new(topic, id, config);
        for partition in 0..state.partitions {
            let at = PartitionKey { topic: id, partition };
            let place = state.place(partition);
            let locate = |error: Error| error.context(format!("open {place}"));
            let Some(last) = store.header_before(at, u64::MAX).map_err(locate)? else { continue };
            let first = store.first_header(at).map_err(locate)?;
            let mut head = Head { first, ..Head::default() };
            head.push(last);
            state.set_head(partition, head);
        }
        Ok(state)
    }

    pub(super) fn place(&self, partition: u32) -> Place {
        Place::new(self.topic.clone(), Partition(partition))
    }

    pub(super) fn key(&self, partition: Partition) -> PartitionKey {
        PartitionKey { topic: self.id, partition: partition.0 }
    }

    pub(super) fn cleanup(&self) -> Cleanup {
        lock(&self.cleanup).clone()
    }

    pub(super) fn set_cleanup(&self, cleanup: Cleanup) {
        *lock(&self.cleanup) = cleanup;
    }

    pub(super) fn config(&self) -> TopicConfig {
        TopicConfig { partitions: self.partitions, cleanup: self.cleanup() }
    }

    pub(super) fn head(&self, partition: Partition) -> Head {
        lock(&self.heads)[partition.0 as usize]
    }

    pub(super) fn set_head(&self, partition: u32, head: Head) {
        lock(&self.heads)[partition as usize] = head;
    }

    /// Moves a partition's start before the blocks in front of it are removed, so that no reader
    /// looks for them.
    pub(super) fn set_first(&self, partition: u32, first: Option<Header>) {
        lock(&self.heads)[partition as usize].first = first;
    }

    pub(super) fn bounds(&self, partition: Partition) -> Range<u64> {
        let head = self.head(partition);
        head.start()..head.end
    }

    pub(super) fn mark_deleted(&self) {
        self.is_deleted.store(true, Ordering::SeqCst);
        self.grown.notify_waiters();
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.is_deleted.load(Ordering::SeqCst)
    }
}

/// Every topic, by name.
#[derive(Default)]
pub(super) struct Topics(RwLock<BTreeMap<Topic, Arc<TopicState>>>);

impl Topics {
    pub(super) fn load(store: &Store) -> Result<Topics> {
        let mut topics = BTreeMap::new();
        for entry in store.scan(key::TOPICS) {
            let (key, value) = entry?;
            let name = String::from_utf8_lossy(&key[key::TOPICS.len()..]).into_owned();
            let stored: StoredTopic = serde_json::from_slice(&value).map_err(|error| {
                Error::corrupt(format!("read the description of topic {name}")).with_source(error)
            })?;
            let topic = Topic::from_name(&name);
            let state = TopicState::load(topic.clone(), stored.id, &stored.config(), store)?;
            topics.insert(topic, Arc::new(state));
        }
        Ok(Topics(RwLock::new(topics)))
    }

    pub(super) fn find(&self, topic: &Topic) -> Option<Arc<TopicState>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(topic).cloned()
    }

    /// `NotFound` if there is no such topic.
    pub(super) fn get(&self, topic: &Topic) -> Result<Arc<TopicState>> {
        self.find(topic).ok_or_else(|| Error::not_found(format!("topic {topic} does not exist")))
    }

    /// `NotFound` if there is no such topic or partition.
    pub(super) fn get_place(&self, place: &Place) -> Result<Arc<TopicState>> {
        let state = self.get(&place.topic)?;
        if place.partition.0 >= state.partitions {
            return Err(Error::not_found(format!("partition {place} does not exist")));
        }
        Ok(state)
    }

    pub(super) fn all(&self) -> Vec<Arc<TopicState>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(super) fn insert(&self, state: Arc<TopicState>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(state.topic.clone(), state);
    }

    pub(super) fn remove(&self, topic: &Topic) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }
}
