//! The one thread that writes. What waits for it becomes one batch of the tree, one flush and one
//! sync; then everybody is answered. Offsets are given, and fences checked, nowhere else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use super::block::Prepared;
use super::key::{self, PartitionKey};
use super::queue::{Control, Fence, Output, Outputs, Progress, Taken, Write};
use super::share::Share;
use super::store::{Store, StoredTopic};
use super::topics::{Head, TopicState};
use super::{Shared, compact, lock, trim};
use crate::error::{Error, Kind, Result};
use crate::log::{Append, Appended, Group, Selection};
use crate::time::Timestamp;
use crate::topic::{Offset, Topic, TopicConfig};

/// How often idle partitions are trimmed, deleted topics cleared away and dirty ones compacted.
const HOUSEKEEPING: Duration = Duration::from_secs(30);
const PARTITIONS_MAX: u32 = 1024;
const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Owned by its thread.
pub(super) struct Committer {
    shared: Arc<Shared>,
    commit_bytes_max: usize,
    next_topic: u32,
    /// Deleted topics whose records still lie in the tree.
    deleted: VecDeque<u32>,
    /// Every group that has committed anything.
    groups: BTreeSet<String>,
    kept_house: Timestamp,
}

/// What a group commit will write, and what becomes true when it is durable.
#[derive(Default)]
pub(super) struct Staged {
    pub(super) batch: sled::Batch,
    pub(super) is_empty: bool,
    pub(super) heads: BTreeMap<PartitionKey, (Arc<TopicState>, Head)>,
}

impl Staged {
    pub(super) fn new() -> Self {
        Self { is_empty: true, ..Self::default() }
    }

    pub(super) fn insert(&mut self, key: impl Into<sled::IVec>, value: impl Into<sled::IVec>) {
        self.batch.insert(key, value);
        self.is_empty = false;
    }

    pub(super) fn remove(&mut self, key: impl Into<sled::IVec>) {
        self.batch.remove(key);
        self.is_empty = false;
    }

    /// Appends a block to a partition and returns its base offset.
    fn push(&mut self, state: &Arc<TopicState>, output: &Output, block: &Prepared) -> u64 {
        let at = state.key(output.place.partition);
        let load = || (Arc::clone(state), state.head(output.place.partition));
        let (_, head) = self.heads.entry(at).or_insert_with(load);
        let header = block.header(head.end, head.after, head.max_arrival);
        head.push(header);
        self.insert_block(at, block, &header);
        header.base
    }

    pub(super) fn insert_block(&mut self, at: PartitionKey, block: &Prepared, header: &super::block::Header) {
        for (piece, value) in (0_u16..).zip(block.pieces(at, header)) {
            self.insert(&key::block(at, header.base, piece), value);
        }
    }
}

impl Committer {
    /// Reads what only the committer keeps.
    pub(super) fn new(shared: Arc<Shared>, commit_bytes_max: usize) -> Result<Self> {
        let kept_house = shared.clock.now();
        let (next_topic, deleted, groups) = shared.with_store(|store| {
            let next_topic = match store.get(key::NEXT_TOPIC)? {
                Some(bytes) => topic_id(&bytes)?,
                None => 0,
            };
            let deleted = store.scan(key::DELETED).map(|entry| topic_id(&entry?.0[key::DELETED.len()..]));
            Ok((next_topic, deleted.collect::<Result<_>>()?, groups(store)?))
        })?;
        Ok(Self { shared, commit_bytes_max, next_topic, deleted, groups, kept_house })
    }

    /// Works until the queue is closed and empty, or a write fails.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        // A panic must not leave anybody waiting for an answer.
        let _stop = StopOnDrop(&shared);
        loop {
            let patience = if self.deleted.is_empty() { HOUSEKEEPING } else { Duration::ZERO };
            let done = match shared.queue.take(self.commit_bytes_max, patience) {
                Taken::Writes(writes) => self.write(writes),
                Taken::Control(control) => self.control(control),
                Taken::Nothing if self.deleted.is_empty() => self.keep_house(),
                Taken::Nothing => self.clear_deleted(),
                Taken::Closed => return,
            };
            let done = done.and_then(|()| self.keep_house_when_due());
            if let Err(failure) = done {
                error!(error = %failure, "the log stops: a write to it failed");
                let message = format!("the log stopped after a failed write: {failure}");
                return shared.stop(&Error::new(failure.kind(), message));
            }
        }
    }

    /// Writes one group commit. An error is one of the log itself: everybody who waited got it, and
    /// nothing more may be written.
    fn write(&mut self, writes: Vec<Box<Write>>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        shared.with_store(|store| {
            let mut staged = Staged::new();
            let mut accepted = Vec::with_capacity(writes.len());
            for write in writes {
                let Write { fence, outputs, answer, _permit, .. } = *write;
                match self.stage(&mut staged, fence.as_ref(), outputs) {
                    Ok(appended) => accepted.push((answer, appended, _permit)),
                    Err(refused) => answer.send(Err(refused)).unwrap_or_default(),
                }
            }
            trim::stage(store, &mut staged, shared.clock.now());
            match self.clear_and_commit(store, staged) {
                Ok(()) => {
                    for (answer, appended, _permit) in accepted {
                        answer.send(Ok(appended)).unwrap_or_default();
                    }
                    Ok(())
                }
                Err(failure) => {
                    for (answer, _, _permit) in accepted {
                        answer.send(Err(failure.clone())).unwrap_or_default();
                    }
                    Err(failure)
                }
            }
        })
    }

    /// Checks a write and adds it to the batch, all or nothing.
    fn stage(
        &mut self,
        staged: &mut Staged,
        fence: Option<&Fence>,
        outputs: Outputs,
    ) -> Result<Vec<Appended>> {
        if fence.is_some_and(|fence| fence.share.is_fenced()) {
            return Err(fenced());
        }
        let outputs = match outputs {
            Outputs::Ready(outputs) => outputs,
            Outputs::Coming(coming) => {
                coming.blocking_recv().map_err(|_| Error::internal("compress a batch: no result"))??
            }
        };
        let states: Result<Vec<_>> =
            outputs.iter().map(|output| self.shared.topics.get_place(&output.place)).collect();
        let states = states?;
        if let Some(fence) = fence {
            self.stage_progress(staged, &fence.share.group, &fence.progress)?;
        }
        let mut appended = Vec::with_capacity(outputs.len());
        for (state, output) in states.iter().zip(&outputs) {
            let bases = output.blocks.iter().map(|block| staged.push(state, output, block));
            let first = bases.reduce(|first, _| first).unwrap_or_default();
            appended.push(Appended::From(Offset(first)));
        }
        Ok(appended)
    }

    fn stage_progress(&mut self, staged: &mut Staged, group: &Group, progress: &[Progress]) -> Result<()> {
        let prefix = progress_prefix(group)?;
        for Progress { place, topic, next } in progress {
            let Ok(state) = self.shared.topics.get_place(place) else { continue };
            if topic.is_some_and(|topic| topic != state.id) {
                continue;
            }
            let key = key::progress(&prefix, state.key(place.partition));
            staged.insert(key, &next.0.to_be_bytes());
        }
        self.groups.insert(group.name().to_owned());
        Ok(())
    }

    /// Makes a batch durable, then visible.
    pub(super) fn commit(&self, store: &Store, staged: Staged) -> Result<()> {
        if staged.is_empty {
            return Ok(());
        }
        store.commit(staged.batch)?;
        let shares = self.shared.shares();
        let mut grown: BTreeMap<u32, Arc<TopicState>> = BTreeMap::new();
        for (at, (state, head)) in staged.heads {
            state.set_head(at.partition, head);
            for share in shares.iter().filter(|share| share.selection.includes(&state.topic)) {
                share.note(state.place(at.partition));
            }
            grown.insert(state.id, state);
        }
        for state in grown.values() {
            state.grown.notify_waiters();
        }
        for share in shares {
            share.wake.notify_waiters();
        }
        Ok(())
    }

    fn control(&mut self, control: Control) -> Result<()> {
        match control {
            Control::Create(topic, config, answer) => {
                let created = self.create(&topic, &config);
                answer.send(created).unwrap_or_default();
            }
            Control::Delete(topic, answer) => answer.send(self.delete(&topic)).unwrap_or_default(),
            Control::Subscribe(selection, group, answer) => {
                answer.send(self.subscribe(selection, group)).map_or_else(drop, drop);
            }
            Control::KeepHouse(answer) => {
                let kept = self.clear_and_keep_house();
                answer.send(kept.clone()).unwrap_or_default();
                return kept;
            }
        }
        Ok(())
    }

    fn create(&mut self, topic: &Topic, config: &TopicConfig) -> Result<()> {
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
    fn delete(&mut self, topic: &Topic) -> Result<()> {
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
    fn subscribe(&mut self, selection: Selection, group: Group) -> Result<Arc<Share>> {
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
        for before in shares.iter().filter_map(std::sync::Weak::upgrade) {
            if before.group == group && before.selection == selection {
                before.fence();
            }
        }
        shares.push(Arc::downgrade(&share));
        Ok(share)
    }

    fn clear_and_keep_house(&mut self) -> Result<()> {
        while !self.deleted.is_empty() {
            self.clear_deleted()?;
        }
        self.keep_house()
    }

    fn keep_house_when_due(&mut self) -> Result<()> {
        if self.shared.clock.now().since(self.kept_house) < HOUSEKEEPING {
            return Ok(());
        }
        self.keep_house()
    }

    /// Trims what nobody writes to, and compacts what is dirty.
    fn keep_house(&mut self) -> Result<()> {
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
    fn clear_and_commit(&mut self, store: &Store, mut staged: Staged) -> Result<()> {
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

    fn clear_deleted(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        shared.with_store(|store| self.clear_and_commit(store, Staged::new()))
    }
}

/// Stops the log when the committer's thread ends, however it ends.
struct StopOnDrop<'a>(&'a Shared);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop(&Error::unavailable("the log is closed"));
    }
}

/// The share has changed hands.
pub(super) fn fenced() -> Error {
    Error::new(Kind::Fenced, "a newer reader of the group has taken over")
}

/// The batch that an append brings, cut into blocks.
pub(super) fn prepare(appends: &[Append]) -> Result<Vec<Output>> {
    let outputs = appends.iter().map(|append| {
        let blocks = super::block::prepare(&append.batch)?;
        Ok(Output { place: append.place.clone(), blocks })
    });
    outputs.collect()
}

/// What every progress key of a group begins with.
pub(super) fn progress_prefix(group: &Group) -> Result<Vec<u8>> {
    key::progress_of(group.name())
        .ok_or_else(|| Error::invalid("group", "a group's name has at most 100 bytes"))
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

fn topic_id(bytes: &[u8]) -> Result<u32> {
    let bytes = bytes.try_into().map_err(|_| Error::corrupt("a topic's id cannot be read"))?;
    Ok(u32::from_be_bytes(bytes))
}

/// Every group with progress, found by skipping from one to the next.
fn groups(store: &Store) -> Result<BTreeSet<String>> {
    let mut groups = BTreeSet::new();
    let mut after = key::PROGRESS.to_vec();
    while let Some(found) = store.key_after(&after)? {
        if !found.starts_with(key::PROGRESS) {
            break;
        }
        let Some(group) = key::progress_group(&found) else {
            return Err(Error::corrupt("a group's progress cannot be read"));
        };
        after = key::progress_of(group).unwrap_or_default();
        after.extend([u8::MAX; 9]);
        groups.insert(group.to_owned());
    }
    Ok(groups)
}
