//! A log that fails at random, for tests of everything that must survive that.
//!
//! Faults come from a seed: an error before a call takes effect, an error after it did (the answer
//! is lost), a share that changes hands, and delays. A call that writes is done whole or not at all,
//! as every provider promises of a commit.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Append, Appended, Chunk, Group, Log, Parcel, Position, Reader, Selection};
use crate::checkpoint::{Checkpoint, Place};
use crate::error::{Error, Kind, Result};
use crate::time::Timestamp;
use crate::topic::{Offset, Topic, TopicConfig};

/// How often what goes wrong, in calls of a thousand.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// An error before the call takes effect.
    pub before: u32,
    /// An error after the call took effect.
    pub after: u32,
    /// The share changes hands; calls of readers only.
    pub fenced: u32,
    /// Others get their turn first.
    pub delays: u32,
}

impl Faults {
    /// Calls are delayed, none fails.
    pub const DELAYS: Faults = Faults { before: 0, after: 0, fenced: 0, delays: 500 };
    /// Everything goes wrong, often.
    pub const ALL: Faults = Faults { before: 60, after: 60, fenced: 40, delays: 300 };
}

/// A log that passes calls on to another one, and fails as its seed says.
pub struct Faulty {
    inner: Arc<dyn Log>,
    dice: Arc<Dice>,
}

struct Dice {
    faults: Faults,
    random: Mutex<StdRng>,
}

/// What befalls a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    Before,
    After,
    Fenced,
}

impl Faulty {
    /// Wraps a log. The same seed and the same calls meet the same faults.
    pub fn new(inner: Arc<dyn Log>, seed: u64, faults: Faults) -> Self {
        let random = Mutex::new(StdRng::seed_from_u64(seed));
        Self { inner, dice: Arc::new(Dice { faults, random }) }
    }
}

impl Dice {
    /// Decides what befalls a call, after a delay if there is one.
    async fn fate(&self) -> Fate {
        let (fate, turns) = self.roll();
        delay(turns).await;
        fate
    }

    fn roll(&self) -> (Fate, u32) {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let Faults { before, after, fenced, delays } = self.faults;
        let turns = if random.random_range(0..1_000) < delays { random.random_range(1..20) } else { 0 };
        let fate = match random.random_range(0..1_000) {
            roll if roll < before => Fate::Before,
            roll if roll < before + after => Fate::After,
            roll if roll < before + after + fenced => Fate::Fenced,
            _ => Fate::Pass,
        };
        (fate, turns)
    }

    /// Does a call of the log, or not, and loses its answer, or not. A delay comes after the call, so
    /// that calls are begun in the order in which they were made.
    async fn call<T>(&self, doing: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let (fate, turns) = self.roll();
        if fate == Fate::Before {
            delay(turns).await;
            return Err(injected(doing, "before"));
        }
        let answer = call.await?;
        delay(turns).await;
        if fate == Fate::After { Err(injected(doing, "after")) } else { Ok(answer) }
    }
}

async fn delay(turns: u32) {
    for _ in 0..turns {
        tokio::task::yield_now().await;
    }
}

fn injected(doing: &str, when: &str) -> Error {
    Error::unavailable(format!("{doing}: a fault was injected {when} the call"))
}

fn fenced() -> Error {
    Error::new(Kind::Fenced, "a fault was injected: the share has changed hands")
}

#[async_trait]
impl Log for Faulty {
    async fn create(&self, topic: &Topic, config: &TopicConfig) -> Result<()> {
        self.dice.call("create", self.inner.create(topic, config)).await
    }

    async fn delete(&self, topic: &Topic) -> Result<()> {
        self.dice.call("delete", self.inner.delete(topic)).await
    }

    async fn partitions(&self, topic: &Topic) -> Result<u32> {
        self.dice.call("partitions", self.inner.partitions(topic)).await
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>> {
        self.dice.call("append", self.inner.append(appends)).await
    }

    async fn read(&self, from: &Position, bytes_max: usize) -> Result<Chunk> {
        self.dice.call("read", self.inner.read(from, bytes_max)).await
    }

    async fn bounds(&self, place: &Place) -> Result<Range<Offset>> {
        self.dice.call("bounds", self.inner.bounds(place)).await
    }

    async fn offset_at(&self, place: &Place, time: Timestamp) -> Result<Offset> {
        self.dice.call("offset at", self.inner.offset_at(place, time)).await
    }

    async fn wait_past(&self, place: &Place, end: Offset) -> Result<()> {
        self.dice.call("wait", self.inner.wait_past(place, end)).await
    }

    async fn subscribe(&self, selection: Selection, group: &Group) -> Result<Box<dyn Reader>> {
        let inner = self.dice.call("subscribe", self.inner.subscribe(selection, group)).await?;
        Ok(Box::new(FaultyReader { inner, dice: Arc::clone(&self.dice), is_lost: false }))
    }

    async fn committed(&self, group: &Group, topic: &Topic) -> Result<Checkpoint> {
        self.dice.call("committed", self.inner.committed(group, topic)).await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

/// A reader that fails as its log's seed says. Once an answer was lost or its share has changed
/// hands it is `Fenced` for good, as a reader is whose connection broke.
struct FaultyReader {
    inner: Box<dyn Reader>,
    dice: Arc<Dice>,
    is_lost: bool,
}

impl FaultyReader {
    /// Decides what befalls a call; the error of one that has no effect.
    async fn fate(&mut self, doing: &str) -> Result<Fate> {
        let fate = self.dice.fate().await;
        self.is_lost |= matches!(fate, Fate::Fenced);
        match fate {
            _ if self.is_lost => Err(fenced()),
            Fate::Before => Err(injected(doing, "before")),
            fate => Ok(fate),
        }
    }

    fn answer<T>(&mut self, doing: &str, fate: Fate, answer: T) -> Result<T> {
        if fate == Fate::After {
            self.is_lost = true;
            return Err(injected(doing, "after"));
        }
        Ok(answer)
    }
}

#[async_trait]
impl Reader for FaultyReader {
    fn committed(&self) -> &Checkpoint {
        self.inner.committed()
    }

    fn holds(&self, place: &Place) -> bool {
        self.inner.holds(place)
    }

    async fn seek(&mut self, to: &Checkpoint) -> Result<()> {
        let fate = self.fate("seek").await?;
        self.inner.seek(to).await?;
        self.answer("seek", fate, ())
    }

    async fn next(&mut self, bytes_max: usize) -> Result<Vec<Chunk>> {
        let fate = self.fate("next").await?;
        let chunks = self.inner.next(bytes_max).await?;
        self.answer("next", fate, chunks)
    }

    async fn next_parcels(&mut self, bytes_max: usize) -> Result<Vec<Parcel>> {
        let fate = self.fate("next").await?;
        let parcels = self.inner.next_parcels(bytes_max).await?;
        self.answer("next", fate, parcels)
    }

    async fn commit(&mut self, upto: &Checkpoint, outputs: Vec<Append>) -> Result<()> {
        let fate = self.fate("commit").await?;
        self.inner.commit(upto, outputs).await?;
        self.answer("commit", fate, ())
    }
}
