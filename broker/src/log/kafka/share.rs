//! What a member of a group holds: its partitions, what it has handed out of them, and why it ended.
//!
//! Each partition has a queue of its own in librdkafka, which is the bounded buffer. The reader
//! takes from the queues; the group's callbacks add and remove them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::KafkaError;
use tokio::sync::Notify;

use super::codec;
use super::group::Member;
use super::problem;
use super::read::is_passing;
use crate::checkpoint::{Checkpoint, Place};
use crate::error::{Error, Kind, Result};
use crate::log::{Chunk, Position};
use crate::topic::Offset;

/// How many records are taken out of the queues at once, so that a worker's step stays short.
const RECORDS_MAX: usize = 20_000;

/// A member's share of the partitions, between the group's thread and the reader.
#[derive(Default)]
pub(super) struct Share {
    state: Mutex<State>,
    /// Something arrived, the share changed or the membership ended.
    pub(super) changed: Arc<Notify>,
    /// Held while progress is committed: what is given up is given up before or after a commit,
    /// never within one.
    pub(super) committing: Mutex<()>,
}

/// See [`Share`].
#[derive(Default)]
pub(super) struct State {
    held: BTreeMap<Place, Held>,
    /// What was taken out of the queues but not handed out yet; a dropped call leaves it here.
    ready: Vec<Chunk>,
    /// What the group had committed in partitions since the reader last looked.
    pub(super) committed: Checkpoint,
    /// Partitions whose topic was deleted, until they are assigned again.
    deleted: BTreeSet<Place>,
    /// Those of them that the reader has not heard of.
    pub(super) gone: Vec<Place>,
    /// The group has told this member its share at least once.
    pub(super) has_joined: bool,
    failure: Option<Error>,
    turn: usize,
}

struct Held {
    queue: PartitionQueue<Member>,
    next: Offset,
    is_handed_out: bool,
    is_at_end: bool,
}

impl Share {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the membership with the first reason that is given.
    pub(super) fn fail(&self, error: Error) {
        self.state().failure.get_or_insert(error);
        self.changed.notify_one();
    }

    /// Why the membership ended.
    pub(super) fn failure(&self) -> Option<Error> {
        self.state().failure.clone()
    }

    /// Adds a partition that is read from `next` on.
    pub(super) fn add(&self, place: Place, mut queue: PartitionQueue<Member>, next: Offset) {
        let changed = Arc::clone(&self.changed);
        queue.set_nonempty_callback(move || changed.notify_one());
        let held = Held { queue, next, is_handed_out: false, is_at_end: false };
        let mut state = self.state();
        state.deleted.remove(&place);
        let before = state.held.insert(place, held);
        debug_assert!(before.is_none(), "a partition was assigned twice");
    }
}

impl State {
    /// Whether a partition is held.
    pub(super) fn holds(&self, place: &Place) -> bool {
        self.held.contains_key(place)
    }

    /// Whether records of a partition were handed out, or where it is read was set.
    pub(super) fn has_handed_out(&self, place: &Place) -> bool {
        self.held.get(place).is_some_and(|held| held.is_handed_out)
    }

    /// Whether a partition of the named topic is held.
    pub(super) fn holds_topic(&self, name: &str) -> bool {
        self.held.keys().any(|place| place.topic.name() == name)
    }

    /// Lets partitions go with what was taken out of them. Returns those of which records were
    /// handed out.
    pub(super) fn remove(&mut self, places: &[Place]) -> Vec<Place> {
        self.ready.retain(|chunk| !places.contains(&chunk.place));
        let handed_out = places.iter().filter(|place| self.has_handed_out(place)).cloned().collect();
        for place in places {
            self.held.remove(place);
            self.committed.remove(place);
        }
        handed_out
    }

    /// Says of a partition that was let go that its topic was deleted.
    pub(super) fn note_deleted(&mut self, place: Place) {
        self.gone.push(place.clone());
        self.deleted.insert(place);
    }

    /// Whether a partition was let go because its topic was deleted.
    pub(super) fn is_deleted(&self, place: &Place) -> bool {
        self.deleted.contains(place)
    }

    /// Lets everything go; the queues must not outlive the consumer.
    pub(super) fn clear(&mut self) {
        self.held.clear();
    }

    /// Sets where a partition is read from next, once librdkafka does so.
    pub(super) fn moved(&mut self, place: &Place, to: Offset) {
        self.ready.retain(|chunk| chunk.place != *place);
        if let Some(held) = self.held.get_mut(place) {
            (held.next, held.is_at_end, held.is_handed_out) = (to, false, true);
        }
    }

    /// Takes out of the queues what is there, about `bytes_max` bytes at most. A partition's turn
    /// comes before that of those which gave records the last time.
    pub(super) fn fill(&mut self, bytes_max: usize) {
        let places: Vec<Place> = self.held.keys().cloned().collect();
        let (mut bytes, mut records) = (0, 0);
        for step in 0..places.len() {
            let place = &places[(self.turn + step) % places.len()];
            let held = self.held.get_mut(place).expect("the places are those held");
            let chunk = match held.take(place, bytes_max - bytes, RECORDS_MAX - records) {
                Ok(chunk) => chunk,
                Err(error) => {
                    self.failure.get_or_insert(error);
                    return;
                }
            };
            if let Some(chunk) = chunk {
                bytes += chunk.entries.iter().map(|entry| entry.record.weight()).sum::<usize>();
                records += chunk.entries.len();
                self.ready.push(chunk);
            }
            if bytes >= bytes_max || records >= RECORDS_MAX {
                self.turn = (self.turn + step + 1) % places.len();
                return;
            }
        }
    }

    /// Hands out what was taken out of the queues.
    pub(super) fn hand_out(&mut self) -> Vec<Chunk> {
        let chunks = std::mem::take(&mut self.ready);
        for chunk in &chunks {
            if let Some(held) = self.held.get_mut(&chunk.place) {
                held.is_handed_out = true;
            }
        }
        chunks
    }

    /// Where partitions stand whose end was reached; markers may lie behind that.
    pub(super) fn at_end(&self) -> Vec<Position> {
        let ended = self.held.iter().filter(|(_, held)| held.is_at_end);
        ended.map(|(place, held)| Position { place: place.clone(), offset: held.next }).collect()
    }

    /// Takes in what a read at the end of a partition found: no record before `next`, or some, which
    /// then come through the queue.
    pub(super) fn looked_past(&mut self, from: &Position, found: Chunk) {
        let Some(held) = self.held.get_mut(&from.place) else { return };
        if held.next != from.offset || !held.is_at_end {
            return;
        }
        held.is_at_end = false;
        if found.entries.is_empty() && found.next > held.next {
            held.next = found.next;
            self.ready.push(found);
        }
    }
}

impl Held {
    fn take(&mut self, place: &Place, bytes_max: usize, records_max: usize) -> Result<Option<Chunk>> {
        let (mut bytes, mut entries) = (0, Vec::new());
        while bytes < bytes_max && entries.len() < records_max {
            match self.queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    let entry = codec::entry(&message);
                    bytes += entry.record.weight();
                    self.next = entry.offset.next();
                    self.is_at_end = false;
                    entries.push(entry);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.is_at_end = true,
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(code) if is_passing(code) || problem::kind(code) == Kind::NotFound => {}
                    _ => return Err(problem::error(error, &format!("read {} of {place}", self.next))),
                },
            }
        }
        if entries.is_empty() {
            return Ok(None);
        }
        Ok(Some(Chunk { place: place.clone(), entries, next: self.next }))
    }
}
