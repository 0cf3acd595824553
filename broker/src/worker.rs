//! The one loop: `subscribe → resume → seek → loop { next → write → settle → flush → commit }`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::batch::BatchBuilder;
use crate::checkpoint::{Checkpoint, Place};
use crate::dead_letter::DeadLetter;
use crate::error::Result;
use crate::log::{Append, Group, Log, Parcel, Reader, Selection};
use crate::sink::{Rejection, Settled, Sink};
use crate::time::Clock;
use crate::topic::Offset;

/// How many bytes of records a worker takes at once, at most.
pub const NEXT_BYTES_MAX: usize = 4 << 20;
/// How many it takes first, and at least.
pub const NEXT_BYTES_MIN: usize = 16 << 10;
/// How long a write should take at most: streams take turns, and a slow one must not hold the others.
pub const WRITE_TIME_MAX: Duration = Duration::from_millis(250);
/// How often a sink may flush while nothing arrives.
pub const TICK: Duration = Duration::from_millis(100);

/// Drives one sink with one reader until it is stopped or fails. After an error it is dropped and
/// another one is opened, which reads on where the output ends.
pub struct Worker {
    reader: Box<dyn Reader>,
    sink: Box<dyn Sink>,
    clock: Arc<dyn Clock>,
    resumed: HashSet<Place>,
    /// How far each partition has come of which not everything is committed yet; at first every
    /// partition that was ever begun.
    reached: Checkpoint,
    dead: Vec<Rejection>,
    next_bytes: usize,
}

impl Worker {
    /// Joins the group. Partitions are resumed when their first records show up, so that an idle
    /// stream costs nothing.
    pub async fn open(
        log: &dyn Log,
        (selection, group): (Selection, Group),
        sink: Box<dyn Sink>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let reader = log.subscribe(selection, &group).await?;
        let reached = reader.committed().clone();
        Ok(Self {
            reader,
            sink,
            clock,
            resumed: HashSet::new(),
            reached,
            dead: Vec::new(),
            next_bytes: NEXT_BYTES_MIN,
        })
    }

    /// Runs until `stop`, then commits what was written and returns.
    pub async fn run(mut self, stop: CancellationToken) -> Result<()> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let parcels = tokio::select! {
                biased;
                () = stop.cancelled() => return self.flush().await,
                parcels = self.reader.next_parcels(self.next_bytes) => parcels?,
                _ = tick.tick() => Vec::new(),
            };
            let parcels = self.resume_new(parcels).await?;
            self.take(parcels).await?;
            self.settle().await?;
            self.flush().await?;
        }
    }

    /// Asks the sink where to read the partitions seen for the first time, and leaves their parcels
    /// out: they are read again from there.
    async fn resume_new(&mut self, parcels: Vec<Parcel>) -> Result<Vec<Parcel>> {
        let (known, new): (Vec<_>, Vec<_>) =
            parcels.into_iter().partition(|parcel| self.resumed.contains(&parcel.place));
        if new.is_empty() {
            return Ok(known);
        }
        let committed = self.reader.committed();
        let wanted = new.iter().map(|parcel| {
            let next = committed.get(&parcel.place).unwrap_or(Offset(0));
            (parcel.place.clone(), next)
        });
        let wanted: Checkpoint = wanted.collect();
        let mut from = wanted.clone();
        from.merge(&self.sink.resume(&wanted).await?);
        self.reader.seek(&from).await?;
        self.reached.merge(&from);
        self.resumed.extend(new.into_iter().map(|parcel| parcel.place));
        Ok(known)
    }

    async fn take(&mut self, parcels: Vec<Parcel>) -> Result<()> {
        if parcels.is_empty() {
            return Ok(());
        }
        for parcel in &parcels {
            self.reached.set(parcel.place.clone(), parcel.next);
        }
        let begun = Instant::now();
        self.dead.extend(self.sink.write_parcels(parcels).await?);
        self.next_bytes = adapted(self.next_bytes, begun.elapsed());
        Ok(())
    }

    /// Lets the sink settle what is to be settled in the partitions of this worker's share, and records
    /// that in one step with where they are read from next.
    async fn settle(&mut self) -> Result<()> {
        let held = self.sink.unsettled().into_iter().filter(|place| self.reader.holds(place));
        let at: Checkpoint = held.map(|place| (place.clone(), self.position(&place))).collect();
        if at.is_empty() {
            return Ok(());
        }
        let Settled { rewind, appends } = self.sink.settle(&at).await?;
        if rewind.is_empty() && appends.is_empty() {
            return Ok(());
        }
        self.reader.seek(&rewind).await?;
        self.reader.commit(&rewind, appends).await?;
        self.reached.merge(&rewind);
        self.resumed.retain(|place| rewind.get(place).is_none());
        self.dead.retain(|rejection| rewind.get(&rejection.place).is_none());
        Ok(())
    }

    /// The next offset of a partition that would be written.
    fn position(&self, place: &Place) -> Offset {
        let known = self.reached.get(place).or_else(|| self.reader.committed().get(place));
        known.unwrap_or_default()
    }

    /// Flushes the sink and records progress, its appends and the dead letters as one step.
    async fn flush(&mut self) -> Result<()> {
        let flushed = self.sink.flush(&self.reached).await?;
        let progress = flushed.through.changes_since(self.reader.committed());
        let settled = |rejection: &Rejection| {
            flushed.through.get(&rejection.place).is_some_and(|through| through > rejection.entry.offset)
        };
        let (letters, waiting): (Vec<_>, Vec<_>) = self.dead.drain(..).partition(settled);
        self.dead = waiting;
        let mut outputs = flushed.appends;
        outputs.extend(self.dead_letters(letters));
        if !progress.is_empty() || !outputs.is_empty() {
            self.reader.commit(&progress, outputs).await?;
        }
        self.reached = self.reached.changes_since(self.reader.committed());
        Ok(())
    }

    fn dead_letters(&self, rejections: Vec<Rejection>) -> Vec<Append> {
        let mut batches: BTreeMap<Place, BatchBuilder> = BTreeMap::new();
        for rejection in rejections {
            let (place, letter) = DeadLetter::of(rejection, self.clock.now());
            batches.entry(place).or_default().push(&letter.into_record());
        }
        let finished = batches.into_iter();
        finished.filter_map(|(place, batch)| Some(Append { place, batch: batch.finish()? })).collect()
    }
}

/// How much to take next, after a write took so long: half after a slow one, twice after a quick one.
fn adapted(bytes: usize, took: Duration) -> usize {
    let next = if took > WRITE_TIME_MAX {
        bytes / 2
    } else if took < WRITE_TIME_MAX / 2 {
        bytes * 2
    } else {
        bytes
    };
    next.clamp(NEXT_BYTES_MIN, NEXT_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_less_while_writes_are_slow_and_more_while_they_are_quick() {
        let (slow, fair, quick) = (WRITE_TIME_MAX * 2, WRITE_TIME_MAX * 3 / 4, Duration::ZERO);
        assert_eq!(adapted(64 << 10, slow), 32 << 10);
        assert_eq!(adapted(64 << 10, fair), 64 << 10);
        assert_eq!(adapted(64 << 10, quick), 128 << 10);
        assert_eq!(adapted(NEXT_BYTES_MIN, slow), NEXT_BYTES_MIN);
        assert_eq!(adapted(NEXT_BYTES_MAX, quick), NEXT_BYTES_MAX);
    }
}
