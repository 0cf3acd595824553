//! What the committer and a reader know of each other: which partitions have something unread, and
//! whether the reader was fenced.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::lock;
use crate::checkpoint::{Checkpoint, Place};
use crate::log::{Group, Selection};

/// One reader's share of the partitions: on sled, all that are selected.
pub(super) struct Share {
    pub(super) selection: Selection,
    pub(super) group: Group,
    /// What the group had committed when the reader joined.
    pub(super) committed: Checkpoint,
    unread: Mutex<Unread>,
    /// Wakes the reader when something is unread, or it was fenced, or the log stopped.
    pub(super) wake: Notify,
    is_fenced: AtomicBool,
}

/// Partitions that may hold something unread, each once, in turn.
#[derive(Default)]
struct Unread {
    turns: VecDeque<Place>,
    known: HashSet<Place>,
}

impl Share {
    pub(super) fn new(selection: Selection, group: Group, committed: Checkpoint) -> Self {
        let (unread, wake) = (Mutex::default(), Notify::new());
        Self { selection, group, committed, unread, wake, is_fenced: AtomicBool::new(false) }
    }

    /// Notes that a partition may hold something unread, and wakes the reader.
    pub(super) fn note(&self, place: Place) {
        let mut unread = lock(&self.unread);
        if unread.known.insert(place.clone()) {
            unread.turns.push_back(place);
        }
        drop(unread);
        self.wake.notify_waiters();
    }

    /// The partitions whose turn it is, at most `count_max`; those that `has_unread` denies are
    /// forgotten until they are noted again. It is asked under the lock that [`Share::note`] takes,
    /// so a partition that grows meanwhile is noted after it was forgotten.
    pub(super) fn turns(&self, count_max: usize, mut has_unread: impl FnMut(&Place) -> bool) -> Vec<Place> {
        let mut unread = lock(&self.unread);
        let mut turns = Vec::new();
        let mut index = 0;
        while turns.len() < count_max && index < unread.turns.len() {
            if has_unread(&unread.turns[index]) {
                turns.push(unread.turns[index].clone());
                index += 1;
            } else if let Some(place) = unread.turns.remove(index) {
                unread.known.remove(&place);
            }
        }
        turns
    }

    /// Puts a partition behind the others.
    pub(super) fn put_last(&self, place: &Place) {
        let mut unread = lock(&self.unread);
        if let Some(index) = unread.turns.iter().position(|turn| turn == place) {
            unread.turns.remove(index);
            unread.turns.push_back(place.clone());
        }
    }

    /// Gives the share to somebody else. Only the committer does so, between writes.
    pub(super) fn fence(&self) {
        self.is_fenced.store(true, Ordering::SeqCst);
        self.wake.notify_waiters();
    }

    pub(super) fn is_fenced(&self) -> bool {
        self.is_fenced.load(Ordering::SeqCst)
    }
}
