//! A group's reader on sled.
//!
//! Who is behind is spared the wait for the disk: after a read that filled what was asked for, the next
//! one is begun at once. One read at most is ahead, so that this holds as much again as was asked for.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::task::JoinHandle;

use super::block::BLOCK_BYTES_MAX;
use super::committer::fenced;
use super::queue::{Fence, Progress};
use super::read;
use super::share::Share;
use super::shared::Shared;
use super::topics::TopicState;
use crate::checkpoint::{Checkpoint, Place};
use crate::error::{Error, Result};
use crate::log::{Append, Chunk, Parcel, Reader};
use crate::topic::{Cleanup, Offset};

/// How many partitions are read in one turn.
const TURN_PARTITIONS_MAX: usize = 64;

/// Reads every selected partition, in turn.
pub(super) struct SledReader {
    shared: Arc<Shared>,
    share: Arc<Share>,
    committed: Checkpoint,
    positions: HashMap<Place, Spot>,
    /// A read that was begun: ahead, or for a `next` that was dropped, so that a caller who asks again
    /// and again with little patience still comes forward.
    reading: Option<JoinHandle<Result<Vec<Read>>>>,
}

/// Where a partition is read next, and the id of the topic that the offset counts in.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Spot {
    topic: u32,
    next: Offset,
}

/// What was read from a spot.
struct Read {
    from: Spot,
    parcel: Parcel,
}

/// What a caller makes of what was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Nothing: it comes as it lies.
    Parcels,
    /// Every record is decoded.
    Chunks,
}

impl Form {
    fn of(self, parcel: Parcel) -> Result<Parcel> {
        match self {
            Form::Parcels => Ok(parcel),
            Form::Chunks => parcel.open().map(Parcel::from),
        }
    }
}

impl SledReader {
    pub(super) fn new(shared: Arc<Shared>, share: Arc<Share>) -> Self {
        let committed = share.committed.clone();
        let spots = committed.iter().filter_map(|(place, next)| {
            let topic = shared.topics.find(&place.topic)?.id;
            Some((place.clone(), Spot { topic, next }))
        });
        let positions = spots.collect();
        Self { shared, share, committed, positions, reading: None }
    }

    fn check(&self) -> Result<()> {
        self.shared.check()?;
        if self.share.is_fenced() { Err(fenced()) } else { Ok(()) }
    }

    /// The partitions whose turn it is, and where to read them.
    fn turns(&mut self) -> Vec<(Arc<TopicState>, Place, Spot)> {
        let (topics, positions) = (&self.shared.topics, &self.positions);
        let mut found = Vec::new();
        self.share.turns(TURN_PARTITIONS_MAX, |place| {
            let Ok(state) = topics.get_place(place) else { return false };
            let begin = Spot { topic: state.id, next: Offset(0) };
            let known = positions.get(place).copied().filter(|spot| spot.topic == state.id);
            let spot = known.unwrap_or(begin);
            let has_unread = state.bounds(place.partition).end > spot.next.0;
            if has_unread {
                found.push((state, place.clone(), spot));
            }
            has_unread
        });
        found
    }

    fn begin_read(
        &self,
        turns: Vec<(Arc<TopicState>, Place, Spot)>,
        (form, bytes_max): (Form, usize),
    ) -> JoinHandle<Result<Vec<Read>>> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            shared.with_store(|store| {
                let quantum = (bytes_max / turns.len().max(1)).max(BLOCK_BYTES_MAX);
                let mut left = bytes_max;
                let mut reads = Vec::new();
                for (state, place, from) in turns {
                    let wanted = (place.partition, from.next);
                    let parcel = match read::read(store, &state, wanted, quantum.min(left)) {
                        Err(_) if state.is_deleted() => continue,
                        parcel => form.of(parcel?)?,
                    };
                    left = left.saturating_sub(parcel.weight());
                    reads.push(Read { from, parcel });
                    if left == 0 {
                        break;
                    }
                }
                Ok(reads)
            })
        })
    }

    /// Moves the positions past what was read; what was read from elsewhere than where the reader
    /// stands now, since it was moved meanwhile, is left out.
    fn hand_out(&mut self, reads: Vec<Read>) -> Vec<Parcel> {
        let mut parcels = Vec::with_capacity(reads.len());
        for Read { from, parcel } in reads {
            let Some(topic) = self.shared.topics.find(&parcel.place.topic) else { continue };
            if topic.id != from.topic {
                continue;
            }
            let begin = Spot { topic: topic.id, next: Offset(0) };
            let spot = self.positions.get(&parcel.place).copied().filter(|spot| spot.topic == topic.id);
            if spot.is_none() {
                // The topic is new, perhaps made again under a name that had progress.
                self.committed.remove(&parcel.place);
            }
            if spot.unwrap_or(begin) != from || parcel.next <= from.next {
                continue;
            }
            self.share.put_last(&parcel.place);
            self.positions.insert(parcel.place.clone(), Spot { topic: topic.id, next: parcel.next });
            parcels.push(parcel);
        }
        parcels
    }

    /// Begins the next read if what is handed out is about as much as was asked for: more lies there. A
    /// reader that keeps up gathers more by waiting. What compaction may change is read when it is asked
    /// for.
    fn read_ahead(&mut self, parcels: &[Parcel], (form, bytes_max): (Form, usize)) {
        let handed_out: usize = parcels.iter().map(Parcel::weight).sum();
        if handed_out < bytes_max / 2 {
            return;
        }
        let turns = self.turns();
        let may_change = turns.iter().any(|(state, ..)| state.cleanup() == Cleanup::Compact);
        if !turns.is_empty() && !may_change {
            self.reading = Some(self.begin_read(turns, (form, bytes_max)));
        }
    }

    /// Waits for records. Nothing is handed out, and so nothing is lost, before it has its form.
    async fn next_as(&mut self, form: Form, bytes_max: usize) -> Result<Vec<Parcel>> {
        let share = Arc::clone(&self.share);
        loop {
            let mut woken = std::pin::pin!(share.wake.notified());
            woken.as_mut().enable();
            self.check()?;
            let reading = match self.reading.take() {
                Some(reading) => reading,
                None => match self.turns() {
                    turns if turns.is_empty() => {
                        woken.await;
                        continue;
                    }
                    turns => self.begin_read(turns, (form, bytes_max)),
                },
            };
            let reading = self.reading.insert(reading);
            let done = reading.await;
            self.reading = None;
            let reads = done.map_err(|error| Error::internal("read the log").with_source(error))??;
            // A read that was begun in another form is changed here.
            let formed = reads.into_iter().map(|Read { from, parcel }| {
                let parcel = form.of(parcel)?;
                Ok(Read { from, parcel })
            });
            let parcels = self.hand_out(formed.collect::<Result<_>>()?);
            if !parcels.is_empty() {
                self.read_ahead(&parcels, (form, bytes_max));
                return Ok(parcels);
            }
        }
    }
}

#[async_trait]
impl Reader for SledReader {
    fn committed(&self) -> &Checkpoint {
        &self.committed
    }

    fn holds(&self, place: &Place) -> bool {
        self.share.selection.includes(&place.topic) && self.shared.topics.get_place(place).is_ok()
    }

    async fn seek(&mut self, to: &Checkpoint) -> Result<()> {
        self.check()?;
        for (place, next) in to.iter() {
            if !self.share.selection.includes(&place.topic) {
                return Err(Error::invalid("position", format!("{place} is not in the reader's share")));
            }
            let Ok(state) = self.shared.topics.get_place(place) else { continue };
            self.positions.insert(place.clone(), Spot { topic: state.id, next });
            self.share.note(place.clone());
        }
        Ok(())
    }

    async fn next(&mut self, bytes_max: usize) -> Result<Vec<Chunk>> {
        let parcels = self.next_as(Form::Chunks, bytes_max).await?;
        parcels.into_iter().map(Parcel::open).collect()
    }

    async fn next_parcels(&mut self, bytes_max: usize) -> Result<Vec<Parcel>> {
        self.next_as(Form::Parcels, bytes_max).await
    }

    async fn commit(&mut self, upto: &Checkpoint, outputs: Vec<Append>) -> Result<()> {
        self.check()?;
        let progress = upto.iter().map(|(place, next)| {
            let topic = self.positions.get(place).map(|spot| spot.topic);
            Progress { place: place.clone(), topic, next }
        });
        let fence = Fence { share: Arc::clone(&self.share), progress: progress.collect() };
        self.shared.write(Some(fence), outputs).await?;
        self.committed.merge(upto);
        Ok(())
    }
}
