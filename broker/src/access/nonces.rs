//! Nonces of signed requests: each is taken once, by all processes of a log together and across their
//! restarts.
//!
//! What was presented is appended to a topic of one partition, and taken if it is the first of its kind
//! there. Every process folds that topic, so that the log's order decides between two at once. The topic is
//! trimmed, and what is remembered of it ends with the time in which a signature is looked at.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use tracing::warn;

use crate::Position;
use crate::batch::Batch;
use crate::checkpoint::Place;
use crate::error::{Error, Kind, Result, ResultExt as _};
use crate::log::{Append, Log};
use crate::record::Record;
use crate::time::{Clock, Timestamp};
use crate::topic::{Cleanup, Offset, Partition, Topic, TopicConfig};

/// How far a signature's time may be from ours.
pub const SKEW: Duration = Duration::from_secs(60);
/// How many of one key are remembered.
const OF_KEY_MAX: usize = 100_000;
/// How many are remembered in all.
const ALL_MAX: usize = 1_000_000;
const TOPIC: &str = "headwater.nonces";
/// How long the topic keeps them: longer than twice the skew, and than clocks are apart.
const KEPT: Duration = Duration::from_secs(600);
/// What a process that begins reads of them.
const READ_BACK: Duration = Duration::from_secs(180);
const READ_BYTES_MAX: usize = 1 << 20;

/// The nonces that were presented lately.
pub struct Nonces {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    place: Place,
    of_key_max: usize,
    seen: Mutex<Option<Seen>>,
}

/// Of a nonce with its key and time.
type Mark = [u8; 16];

/// What was folded of the topic.
struct Seen {
    next: Offset,
    /// Where each stands for the first time.
    first: HashMap<Mark, Offset>,
    /// Which are forgotten after which second.
    ends: BTreeMap<i64, Vec<(Mark, Arc<str>)>>,
    of_key: HashMap<Arc<str>, usize>,
}

#[derive(Serialize, Deserialize)]
struct Presented {
    key: String,
    mark: Mark,
    /// The signature's time, in seconds since 1970.
    at: i64,
}

impl Nonces {
    /// Nothing is read before the first is presented.
    pub fn new(log: Arc<dyn Log>, clock: Arc<dyn Clock>) -> Self {
        let place = Place::new(Topic::internal(TOPIC), Partition(0));
        Self { log, clock, place, of_key_max: OF_KEY_MAX, seen: Mutex::default() }
    }

    /// The same that remembers fewer of one key.
    #[cfg(test)]
    fn with_of_key_max(self, of_key_max: usize) -> Self {
        Self { of_key_max, ..self }
    }

    /// Takes a nonce that a key signed with at a time, in seconds since 1970; false where it was taken
    /// before, or its time is over. `Busy` where more are remembered than there is room for.
    pub async fn take(&self, key: &str, at: i64, nonce: &str) -> Result<bool> {
        let mark = mark_of(key, at, nonce);
        {
            let mut seen = self.seen.lock().await;
            let seen = self.opened(&mut seen).await?;
            seen.forget(self.clock.now());
            if seen.first.contains_key(&mark) {
                return Ok(false);
            }
            let is_full = seen.of_key.get(key).is_some_and(|known| *known >= self.of_key_max);
            if is_full || seen.first.len() >= ALL_MAX {
                let message = "more signed requests came within two minutes than are remembered, wait";
                return Err(Error::new(Kind::Busy, message));
            }
        }
        let presented = Presented { key: key.to_owned(), mark, at };
        let value = serde_json::to_vec(&presented).or_error(Kind::Internal, "encode a nonce")?;
        let batch = Batch::of(&[Record::new(value, self.clock.now())]);
        let batch = batch.ok_or_else(|| Error::internal("a batch of one nonce is empty"))?;
        let appended = self.log.append(vec![Append { place: self.place.clone(), batch }]).await?;
        let offset = appended.first().map(|appended| appended.offset(0));
        let offset = offset.ok_or_else(|| Error::internal("a nonce was appended nowhere"))?;

        let mut seen = self.seen.lock().await;
        let seen = self.opened(&mut seen).await?;
        self.fold(seen, offset).await?;
        Ok(seen.first.get(&mark) == Some(&offset))
    }

    async fn opened<'a>(&self, seen: &'a mut Option<Seen>) -> Result<&'a mut Seen> {
        if seen.is_none() {
            let cleanup = Cleanup::Trim { age_max: Some(KEPT), bytes_max: None };
            self.log.create(&self.place.topic, &TopicConfig { partitions: 1, cleanup }).await?;
            let since = Timestamp::from_micros(self.clock.now().micros() - micros(READ_BACK));
            let next = self.log.offset_at(&self.place, since.unwrap_or(Timestamp::MIN)).await?;
            let mut begun =
                Seen { next, first: HashMap::new(), ends: BTreeMap::new(), of_key: HashMap::new() };
            let end = self.log.bounds(&self.place).await?.end;
            if let Some(last) = end.0.checked_sub(1) {
                self.fold(&mut begun, Offset(last)).await?;
            }
            *seen = Some(begun);
        }
        seen.as_mut().ok_or_else(|| Error::internal("nonces were opened and are not there"))
    }

    /// Takes in what stands up to `last`.
    async fn fold(&self, seen: &mut Seen, last: Offset) -> Result<()> {
        while seen.next <= last {
            let from = Position { place: self.place.clone(), offset: seen.next };
            let chunk = self.log.read(&from, READ_BYTES_MAX).await?;
            let now = self.clock.now();
            for entry in &chunk.entries {
                match serde_json::from_slice(&entry.record.value) {
                    Ok(presented) => seen.add(presented, entry.offset, now),
                    Err(error) => warn!(offset = %entry.offset, %error, "skipping what is no nonce"),
                }
            }
            if chunk.next <= seen.next {
                break;
            }
            seen.next = chunk.next;
        }
        Ok(())
    }
}

impl Seen {
    fn add(&mut self, Presented { key, mark, at }: Presented, offset: Offset, now: Timestamp) {
        let end = at.saturating_add(seconds(SKEW));
        if end < second(now) || self.first.contains_key(&mark) {
            return;
        }
        let key: Arc<str> = key.into();
        self.first.insert(mark, offset);
        *self.of_key.entry(Arc::clone(&key)).or_default() += 1;
        self.ends.entry(end).or_default().push((mark, key));
    }

    /// Lets go of those whose time is over.
    fn forget(&mut self, now: Timestamp) {
        let kept = self.ends.split_off(&second(now));
        for (mark, key) in std::mem::replace(&mut self.ends, kept).into_values().flatten() {
            self.first.remove(&mark);
            if let Some(known) = self.of_key.get_mut(&key) {
                *known -= 1;
                if *known == 0 {
                    self.of_key.remove(&key);
                }
            }
        }
    }
}

fn mark_of(key: &str, at: i64, nonce: &str) -> Mark {
    let mut hash = Sha256::new();
    // Neither holds a zero byte, which headers cannot have.
    for part in [key.as_bytes(), &[0], &at.to_be_bytes(), nonce.as_bytes()] {
        hash.update(part);
    }
    let digest: [u8; 32] = hash.finalize().into();
    let mut mark = Mark::default();
    mark.copy_from_slice(&digest[..size_of::<Mark>()]);
    mark
}

fn second(time: Timestamp) -> i64 {
    time.micros().div_euclid(1_000_000)
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::sled::{SledLog, SledOptions};
    use crate::time::ManualClock;

    struct Bench {
        log: Arc<SledLog>,
        clock: Arc<ManualClock>,
        now: i64,
        _folder: tempfile::TempDir,
    }

    impl Bench {
        async fn open() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let now = 1_000_000_000;
            let clock = Arc::new(ManualClock::at(Timestamp::from_millis(now * 1_000).unwrap()));
            let log = SledLog::open(SledOptions::at(folder.path()), clock.clone()).await.unwrap();
            Self { log, clock, now, _folder: folder }
        }

        /// Those of one process.
        fn process(&self) -> Nonces {
            Nonces::new(self.log.clone(), self.clock.clone())
        }
    }

    #[tokio::test]
    async fn each_is_taken_once_by_all_processes_and_across_their_restarts() {
        let bench = Bench::open().await;
        let (one, other) = (bench.process(), bench.process());
        assert!(one.take("a", bench.now, "x").await.unwrap());
        assert!(!one.take("a", bench.now, "x").await.unwrap());
        assert!(!other.take("a", bench.now, "x").await.unwrap(), "another process");
        for (key, at, nonce) in [("b", 0, "x"), ("a", 1, "x"), ("a", 0, "y")] {
            assert!(other.take(key, bench.now + at, nonce).await.unwrap(), "another {key} {at} {nonce}");
        }
        bench.clock.advance(Duration::from_secs(59));
        assert!(!bench.process().take("a", bench.now, "x").await.unwrap(), "after a restart");
    }

    #[tokio::test]
    async fn of_many_at_once_one_is_taken() {
        let bench = Bench::open().await;
        let processes = [bench.process(), bench.process(), bench.process()];
        let presented = (0..30).map(|number| processes[number % 3].take("a", bench.now, "x"));
        let taken = futures::future::join_all(presented).await;
        assert_eq!(taken.into_iter().filter(|taken| *taken.as_ref().unwrap()).count(), 1);
    }

    #[tokio::test]
    async fn they_are_forgotten_with_their_time_and_bounded_until_then() {
        let bench = Bench::open().await;
        let nonces = bench.process().with_of_key_max(2);
        for nonce in ["1", "2"] {
            assert!(nonces.take("a", bench.now + 60, nonce).await.unwrap());
        }
        let full = nonces.take("a", bench.now, "3").await.unwrap_err();
        assert_eq!(full.kind(), Kind::Busy);
        assert!(nonces.take("b", bench.now, "3").await.unwrap(), "another key has room of its own");
        bench.clock.advance(Duration::from_secs(120));
        assert!(!nonces.take("a", bench.now + 60, "1").await.unwrap(), "remembered to the last second");
        bench.clock.advance(Duration::from_secs(1));
        assert!(nonces.take("a", bench.now + 121, "3").await.unwrap());
        let seen = nonces.seen.lock().await;
        assert_eq!(seen.as_ref().unwrap().first.len(), 1);
        assert_eq!(seen.as_ref().unwrap().of_key.len(), 1);
    }
}
