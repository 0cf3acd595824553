//! The one thread that writes. What waits for it becomes one batch of the tree, one flush and one
//! sync; then everybody is answered. Offsets are given, and fences checked, nowhere else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tracing::error;

use super::block::Prepared;
use super::control::HOUSEKEEPING;
use super::key::{self, PartitionKey};
use super::queue::{Control, Fence, Output, Outputs, Progress, Taken, Write};
use super::shared::Shared;
use super::store::Store;
use super::topics::{Head, TopicState};
use super::trim;
use crate::error::{Error, Kind, Result};
use crate::log::{Append, Appended, Group};
use crate::time::Timestamp;
use crate::topic::Offset;

/// Owned by its thread.
pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    commit_bytes_max: usize,
    pub(super) next_topic: u32,
    /// Deleted topics whose records still lie in the tree.
    pub(super) deleted: VecDeque<u32>,
    /// Every group that has committed anything.
    pub(super) groups: BTreeSet<String>,
    pub(super) kept_house: Timestamp,
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
    fn write(&mut self, writes: Vec<Write>) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        shared.with_store(|store| {
            let mut staged = Staged::new();
            let mut accepted = Vec::with_capacity(writes.len());
            for write in writes {
                let Write { fence, outputs, answer, permit, .. } = write;
                match self.stage(&mut staged, fence.as_ref(), outputs) {
                    Ok(appended) => accepted.push((answer, appended, permit)),
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
        self.shared.begin_commit();
        store.commit(staged.batch)?;
        let shares = self.shared.shares();
        let mut grown: BTreeMap<u32, Arc<TopicState>> = BTreeMap::new();
        for (at, (state, head)) in &staged.heads {
            state.set_head(at.partition, *head);
        }
        self.shared.end_commit();
        for (at, (state, _)) in staged.heads {
            // Published before it is noted, so that whoever is woken finds it.
            for share in shares.iter().filter(|share| share.selection.includes(&state.topic)) {
                share.note(state.place(at.partition));
            }
            grown.insert(state.id, state);
        }
        for state in grown.values() {
            state.grown.notify_waiters();
        }
        Ok(())
    }

    /// Does one thing, unless whoever asked for it has gone.
    fn control(&mut self, control: Control) -> Result<()> {
        match control {
            control if control.is_abandoned() => {}
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
