//! Lists a stream's dead letters and replays them.
//!
//! A replay appends the original bytes, key and time to the raw topic, as records that arrive now,
//! in one step with the progress of the group `replay` in the dead topic: each letter is replayed
//! once, however often the call is repeated or cut short.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker::catalog::Stream;
use broker::{
    Append, BatchBuilder, Checkpoint, Chunk, DeadLetter, Error, Group, Offset, Partition, Place, Position,
    Record, Result, Selection, Stage, Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::Ingest;

/// Letters of a page where no number is given.
pub(crate) const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// A page ends early once its letters' bytes come to this.
const PAGE_BYTES_MAX: usize = 8 << 20;
const READ_BYTES_MAX: usize = 1 << 20;
/// How long a replay waits for a share of the dead topic, and between two steps.
const REPLAY_STEP_TIME_MAX: Duration = Duration::from_secs(30);

/// Some dead letters, in order of partition and offset, and where to read on.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) letters: Vec<DeadLetter>,
    pub(crate) cursor: Option<String>,
}

/// The next letter wanted, of one life of one stream. Opaque to clients.
#[derive(Serialize, Deserialize)]
struct Cursor {
    stream: String,
    incarnation: u64,
    partition: Partition,
    offset: Offset,
}

impl Cursor {
    fn read(text: &str, stream: &Stream) -> Result<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let cursor: Option<Cursor> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let is_ours = |cursor: &Cursor| {
            cursor.stream == stream.name().to_string() && cursor.incarnation == stream.definition.incarnation
        };
        cursor.filter(is_ours).ok_or_else(|| Error::invalid("cursor", "the cursor is not one of this list's"))
    }

    fn write(&self) -> Result<String> {
        let bytes = serde_json::to_vec(self);
        let bytes = bytes.map_err(|error| Error::internal("write the cursor").with_source(error))?;
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl Ingest {
    /// A page of a stream's dead letters: 1 to 1,000 of them.
    pub(crate) async fn dead_letters(
        &self,
        stream: &Stream,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<Page> {
        if !(1..=LIMIT_MAX).contains(&limit) {
            return Err(Error::invalid("limit", format!("a limit is 1 to {LIMIT_MAX}")));
        }
        let cursor = cursor.map(|text| Cursor::read(text, stream)).transpose()?;
        let (mut partition, mut offset) =
            cursor.map_or((Partition(0), Offset(0)), |cursor| (cursor.partition, cursor.offset));
        let (mut letters, mut bytes) = (Vec::new(), 0);
        while partition.0 < stream.definition.partitions {
            let place = Place::new(stream.topic(Stage::Dead), partition);
            let end = self.log.bounds(&place).await?.end;
            while offset < end {
                let chunk = self.log.read(&Position { place: place.clone(), offset }, READ_BYTES_MAX).await?;
                for entry in chunk.entries {
                    if letters.len() == limit || bytes >= PAGE_BYTES_MAX {
                        let (name, incarnation) = (stream.name().to_string(), stream.definition.incarnation);
                        let cursor = Cursor { stream: name, incarnation, partition, offset: entry.offset };
                        return Ok(Page { letters, cursor: Some(cursor.write()?) });
                    }
                    bytes += entry.record.weight();
                    letters.push(DeadLetter::from_record(entry.record)?);
                }
                offset = chunk.next.max(offset.next());
            }
            (partition, offset) = (Partition(partition.0 + 1), Offset(0));
        }
        Ok(Page { letters, cursor: None })
    }

    /// Appends the dead letters that are there now to the raw topic, those that no replay has
    /// taken before, and tells how many. `Fenced` if another process does the same.
    pub(crate) async fn replay_dead_letters(&self, stream: &Stream) -> Result<u64> {
        let _one_at_a_time = self.replaying.lock().await;
        let dead = stream.topic(Stage::Dead);
        let mut missing = self.not_replayed(stream).await?;
        if missing.is_empty() {
            return Ok(0);
        }
        let mut reader = self.log.subscribe(Selection::Topic(dead), &replay_group()).await?;
        let mut replayed = 0;
        while !missing.is_empty() {
            let next = tokio::time::timeout(REPLAY_STEP_TIME_MAX, reader.next(READ_BYTES_MAX));
            let chunks = next.await.map_err(|_| {
                Error::unavailable("the dead letters of a partition are being replayed by another process")
            })??;
            let mut step = Step::default();
            for chunk in chunks {
                step.add(stream, chunk, &mut missing, self.clock.now())?;
            }
            replayed += step.count;
            let (upto, appends) = step.finish(stream)?;
            reader.commit(&upto, appends).await?;
        }
        Ok(replayed)
    }

    /// Where the dead letters of now end, for each partition that has some which were not replayed.
    async fn not_replayed(&self, stream: &Stream) -> Result<BTreeMap<Partition, Offset>> {
        let dead = stream.topic(Stage::Dead);
        let committed = self.log.committed(&replay_group(), &dead).await?;
        let mut missing = BTreeMap::new();
        for partition in stream.partitions() {
            let place = Place::new(dead.clone(), partition);
            let bounds = self.log.bounds(&place).await?;
            let next = committed.get(&place).unwrap_or(Offset(0)).max(bounds.start);
            if next < bounds.end {
                missing.insert(partition, bounds.end);
            }
        }
        Ok(missing)
    }
}

/// What one commit of a replay holds.
#[derive(Default)]
struct Step {
    upto: Checkpoint,
    count: u64,
    batches: BTreeMap<Partition, BatchBuilder>,
}

impl Step {
    /// Takes in the letters before the end that was there when the replay began.
    fn add(
        &mut self,
        stream: &Stream,
        chunk: Chunk,
        missing: &mut BTreeMap<Partition, Offset>,
        now: Timestamp,
    ) -> Result<()> {
        let Some(end) = missing.get(&chunk.place.partition).copied() else {
            return Ok(());
        };
        for entry in chunk.entries.into_iter().filter(|entry| entry.offset < end) {
            let letter = DeadLetter::from_record(entry.record)?;
            let partition = Partition(letter.origin.partition.0 % stream.definition.partitions);
            let mut record = Record::new(letter.value, now);
            record.key = letter.key;
            record.time = letter.time;
            self.batches.entry(partition).or_default().push(&record);
            self.count += 1;
        }
        if chunk.next >= end {
            missing.remove(&chunk.place.partition);
        }
        self.upto.set(chunk.place, chunk.next.min(end));
        Ok(())
    }

    fn finish(self, stream: &Stream) -> Result<(Checkpoint, Vec<Append>)> {
        let raw = stream.topic(Stage::Raw);
        let append = |(partition, batch): (Partition, BatchBuilder)| {
            let batch = batch.finish().ok_or_else(|| Error::internal("replay: a batch is empty"))?;
            Ok(Append { place: Place::new(raw.clone(), partition), batch })
        };
        let appends = self.batches.into_iter().map(append).collect::<Result<_>>()?;
        Ok((self.upto, appends))
    }
}

/// The group whose progress says which letters were replayed.
fn replay_group() -> Group {
    Group::new("replay")
}
