//! What the committer does beside writing: topics, groups and keeping house.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tracing::warn;

use super::committer::{Committer, Staged, progress_prefix};
use super::key::{self, PartitionKey};
use super::share::Share;
use super::store::{Store, StoredTopic};
use super::topics::TopicState;
use super::{compact, lock, trim};
use crate::error::{Error, Kind, Result};
use crate::log::{Group, Selection};
use crate::topic::{Offset, Topic, TopicConfig};

/// How often idle partitions are trimmed, deleted topics cleared away and dirty ones compacted.
pub(super) const HOUSEKEEPING: Duration = Duration::from_secs(30);
const PARTITIONS_MAX: u32 = 1024;
const TOPIC_NAME_BYTES_MAX: usize = 249;

impl Committer {
    pub(super) fn create(&mut self, topic: &Topic, config: &TopicConfig) -> Result<()> {
        check_topic(topic, config)?;
        let existing = self.shared.topics.find(topic);
        if let Some(state) = &existing {
            if state.partitions != config.partitions {
                let message = format!("topic {topic} exists with {} partitions", state.partitions);
                return Err(Error::new(Kind::Conflict, message));
            }
            if state.config() == *config {
                return Ok(());
            }
        }
        let id = existing.as_ref().map_or(self.next_topic, |state| state.id);
        let stored = serde_json::to_vec(&StoredTopic::new(id, config))
            .map_err(|error| Error::internal("write a topic's description").with_source(error))?;
        let mut staged = Staged::new();
        staged.insert(key::topic(topic.name()), stored);
        staged.insert(key::NEXT_TOPIC, &self.next_topic.max(id + 1).to_be_bytes());
        self.shared.with_store(|store| self.commit(store, staged))?;
        match existing {
            Some(state) => state.set_cleanup(config.cleanup.clone()),
            None => {
                self.next_topic = id + 1;
                self.shared.topics.insert(Arc::new(TopicState::new(topic.clone(), id, config)));
            }
        }
        Ok(())
    }

    /// Forgets a topic in one step; its records are removed little by little.
    pub(super) fn delete(&mut self, topic: &Topic) -> Result<()> {
        let Some(state) = self.shared.topics.find(topic) else { return Ok(()) };
        let mut staged = Staged::new();
        staged.remove(key::topic(topic.name()));
        staged.insert(key::deleted(state.id), &[]);
        self.shared.with_store(|store| self.commit(store, staged))?;
        self.shared.topics.remove(topic);
        state.mark_deleted();
        self.deleted.push_back(state.id);
        Ok(())
    }

    /// Gives a group's share to a new reader. Done between writes, so the progress it reads is what
    /// the reader before it committed last.
    pub(super) fn subscribe(&mut self, selection: Selection, group: Group) -> Result<Arc<Share>> {
        let prefix = progress_prefix(&group)?;
        let stored: BTreeMap<_, _> =
            self.shared.with_store(|store| store.progress(&prefix))?.into_iter().collect();
        let topics = self.shared.topics.all();
        let selected: Vec<_> = topics.iter().filter(|state| selection.includes(&state.topic)).collect();
        let places = || selected.iter().flat_map(|state| (0..state.partitions).map(move |p| (state, p)));
        let committed = places().filter_map(|(state, partition)| {
            let next = stored.get(&PartitionKey { topic: state.id, partition })?;
            Some((state.place(partition), Offset(*next)))
        });
        let share = Arc::new(Share::new(selection.clone(), group.clone(), committed.collect()));
        for (state, partition) in places() {
            let place = state.place(partition);
            let next = share.committed.get(&place).unwrap_or_default();
            if state.bounds(place.partition).end > next.0 {
                share.note(place);
            }
        }
        let mut shares = lock(&self.shared.shares);
        shares.retain(|known| known.strong_count() > 0);
        for before in shares.iter().filter_map(Weak::upgrade) {
            if before.group == group && before.selection == selection {
                before.fence();
            }
        }
        shares.push(Arc::downgrade(&share));
        Ok(share)
    }

    pub(super) fn clear_and_keep_house(&mut self) -> Result<()> {
        while !self.deleted.is_empty() {
            self.clear_deleted()?;
        }
        self.keep_house()
    }

    pub(super) fn keep_house_when_due(&mut self) -> Result<()> {
        if self.shared.clock.now().since(self.kept_house) < HOUSEKEEPING {
            return Ok(());
        }
        self.keep_house()
    }

    /// Trims what nobody writes to, and compacts what is dirty.
    pub(super) fn keep_house(&mut self) -> Result<()> {
        let now = self.shared.clock.now();
        self.kept_house = now;
        let shared = Arc::clone(&self.shared);
        shared.with_store(|store| {
            for state in shared.topics.all() {
                while let Some(staged) = trim::stage_topic(store, &state, now) {
                    self.commit(store, staged)?;
                }
                if let Err(damage) = compact::topic(store, &state, now) {
                    if damage.kind() != Kind::Corrupt {
                        return Err(damage);
                    }
                    warn!(topic = %state.topic, error = %damage, "leaving a damaged topic uncompacted");
                }
            }
            Ok(())
        })
    }

    /// Commits a batch and, with it, the removal of some of what deleted topics left.
    pub(super) fn clear_and_commit(&mut self, store: &Store, mut staged: Staged) -> Result<()> {
        let is_cleared = match self.deleted.front() {
            Some(topic) => trim::stage_deleted(store, &mut staged, *topic, &self.groups)?,
            None => false,
        };
        self.commit(store, staged)?;
        if is_cleared {
            self.deleted.pop_front();
        }
        Ok(())
    }

    pub(super) fn clear_deleted(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        shared.with_store(|store| self.clear_and_commit(store, Staged::new()))
    }
}

fn check_topic(topic: &Topic, config: &TopicConfig) -> Result<()> {
    if !(1..=PARTITIONS_MAX).contains(&config.partitions) {
        return Err(Error::invalid("partitions", format!("a topic has 1 to {PARTITIONS_MAX} partitions")));
    }
    if !(1..=TOPIC_NAME_BYTES_MAX).contains(&topic.name().len()) {
        let message = format!("a topic's name has 1 to {TOPIC_NAME_BYTES_MAX} bytes");
        return Err(Error::invalid("topic", message));
    }
    Ok(())
}
