//! Keyed compaction: of each key the last record stays, and every record without a key. Offsets keep
//! their values; where records went there are holes.
//!
//! A record with an empty value removes its key: it goes too, a day after it arrived, once a
//! compaction has removed everything before it. The last block is never touched. It works from the
//! end to the start, a few blocks a commit, so that each partition's count of stored bytes stays
//! true and a crash leaves a log that is only less compact. The committer does it by itself and
//! writes nothing else meanwhile: compacted topics are meant to be small.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::block::{BLOCK_BYTES_MAX, Block, Header, Prepared};
use super::committer::Staged;
use super::key::{self, PartitionKey};
use super::store::Store;
use super::topics::TopicState;
use crate::batch::{Batch, BatchBuilder};
use crate::error::{Error, Result};
use crate::log::Entry;
use crate::time::Timestamp;
use crate::topic::{Cleanup, Partition};

const TOMBSTONE_AGE: Duration = Duration::from_secs(24 * 3_600);
/// Keys that do not fit are compacted another time.
const KEYS_BYTES_MAX: usize = 64 << 20;
/// What a key takes beside its bytes.
const KEY_OVERHEAD_BYTES: usize = 64;

/// How far a partition was compacted, and its stored bytes up to there.
#[derive(Clone, Copy, Default)]
struct Clean {
    until: u64,
    before: u64,
}

/// Which records stay.
struct Rules {
    latest: HashMap<Bytes, u64>,
    clean: Clean,
    now: Timestamp,
}

/// Compacts those of a topic's partitions that are dirty by more than half.
pub(super) fn topic(store: &Store, state: &Arc<TopicState>, now: Timestamp) -> Result<()> {
    if state.cleanup() != Cleanup::Compact {
        return Ok(());
    }
    for partition in 0..state.partitions {
        let at = PartitionKey { topic: state.id, partition };
        compact_partition(store, (state, at), now)
            .map_err(|error| error.context(format!("compact {}/{partition}", state.topic)))?;
    }
    Ok(())
}

fn compact_partition(store: &Store, (state, at): (&TopicState, PartitionKey), now: Timestamp) -> Result<()> {
    let head = state.head(Partition(at.partition));
    let Some(last) = store.header_before(at, u64::MAX)? else { return Ok(()) };
    let clean = read_clean(store, at)?;
    let dirty_bytes = head.after.saturating_sub(clean.before);
    let is_dirty = last.base > clean.until && dirty_bytes.saturating_mul(2) > head.stored_bytes();
    if !is_dirty || head.start() >= last.base {
        return Ok(());
    }
    let latest = latest_offsets(store, at, head.start()..head.end)?;
    let rules = Rules { latest, clean, now };
    rewrite(store, (state, at), (head.start(), &last), &rules)?;
    let mut done = Staged::new();
    let value = [last.base.to_be_bytes(), last.before.to_be_bytes()].concat();
    done.insert(&key::clean(at)[..], value);
    store.commit(done.batch)
}

fn read_clean(store: &Store, at: PartitionKey) -> Result<Clean> {
    let Some(value) = store.get(&key::clean(at))? else { return Ok(Clean::default()) };
    let number = |bytes: Option<&[u8]>| Some(u64::from_be_bytes(bytes?.try_into().ok()?));
    match (number(value.get(..8)), number(value.get(8..))) {
        (Some(until), Some(before)) => Ok(Clean { until, before }),
        _ => Err(Error::corrupt("the end of the last compaction cannot be read")),
    }
}

/// The last offset of each key.
fn latest_offsets(
    store: &Store,
    at: PartitionKey,
    range: std::ops::Range<u64>,
) -> Result<HashMap<Bytes, u64>> {
    let mut latest = HashMap::new();
    let mut bytes = 0;
    let mut base = range.start;
    while base < range.end && bytes < KEYS_BYTES_MAX {
        let block = block_at(store, at, base)?;
        for entry in block.entries()? {
            let Entry { offset, record } = entry?;
            let Some(key) = record.key else { continue };
            bytes += key.len() + KEY_OVERHEAD_BYTES;
            // A copy, since a slice would keep its whole block.
            latest.insert(Bytes::copy_from_slice(&key), offset.0);
        }
        base = block.header.next();
    }
    Ok(latest)
}

fn block_at(store: &Store, at: PartitionKey, base: u64) -> Result<Block> {
    let locate = |error: Error| error.context(format!("read offset {base}"));
    let block = store.block(at, base).map_err(locate)?;
    block.ok_or_else(|| locate(Error::corrupt("the block is missing")))
}

/// Replaces the blocks before the last one by what stays of them, from the end to the start.
fn rewrite(
    store: &Store,
    (state, at): (&TopicState, PartitionKey),
    (start, last): (u64, &Header),
    rules: &Rules,
) -> Result<()> {
    let mut next = *last;
    while next.base > start {
        let mut sources: Vec<Header> = Vec::new();
        let mut kept: Vec<Vec<Entry>> = Vec::new();
        let mut bytes = 0;
        let mut base = next.base;
        while base > start && bytes < BLOCK_BYTES_MAX && next.base - base < u64::from(u32::MAX) / 2 {
            let header = store.header_before(at, base - 1)?;
            let header = header.ok_or_else(|| Error::corrupt(format!("no block before offset {base}")))?;
            let entries = block_at(store, at, header.base)?.entries()?;
            let entries: Result<Vec<Entry>> = entries.filter(|entry| rules.keep(entry)).collect();
            let entries = entries?;
            bytes += entries.iter().map(|entry| entry.record.weight()).sum::<usize>();
            kept.push(entries);
            base = header.base;
            sources.push(header);
        }
        let entries: Vec<Entry> = kept.into_iter().rev().flatten().collect();
        next = replace(store, (state, at), (&sources, &next), &entries)?;
    }
    Ok(())
}

impl Rules {
    fn keep(&self, entry: &Result<Entry>) -> bool {
        // Damage is kept here and fails where it is collected.
        let Ok(Entry { offset, record }) = entry else { return true };
        let Some(key) = &record.key else { return true };
        let is_latest = self.latest.get(key).is_none_or(|latest| *latest <= offset.0);
        let is_old_tombstone = record.value.is_empty()
            && offset.0 < self.clean.until
            && self.now.since(record.arrival) > TOMBSTONE_AGE;
        is_latest && !is_old_tombstone
    }
}

/// Puts one block in the place of `sources`, which lie before `next`, the latest first.
fn replace(
    store: &Store,
    (state, at): (&TopicState, PartitionKey),
    (sources, next): (&[Header], &Header),
    entries: &[Entry],
) -> Result<Header> {
    let (Some(latest), Some(earliest)) = (sources.first(), sources.last()) else { return Ok(*next) };
    let block = merge(entries, earliest, next.base - earliest.base)?;
    let before = next.before.saturating_sub(block.stored_bytes());
    let header = block.header(earliest.base, before, latest.max_arrival);
    let mut staged = Staged::new();
    for source in sources {
        for piece in 0..source.pieces() {
            staged.remove(&key::block(at, source.base, piece));
        }
    }
    staged.insert_block(at, &block, &header);
    let _alone = state.rewriting.write().unwrap_or_else(PoisonError::into_inner);
    store.commit(staged.batch)?;
    if state.head(Partition(at.partition)).start() == header.base {
        state.set_first(at.partition, Some(header));
    }
    Ok(header)
}

fn merge(entries: &[Entry], earliest: &Header, span: u64) -> Result<Prepared> {
    let mut builder = BatchBuilder::new();
    for entry in entries {
        builder.push(&entry.record);
    }
    let arrival = Timestamp::from_millis(earliest.first_arrival).unwrap_or_default();
    let empty = || Batch::from_parts(Bytes::new(), 0, (arrival, arrival));
    let batch = builder.finish().unwrap_or_else(empty);
    let step = |entry: &Entry| {
        u32::try_from(entry.offset.0.saturating_sub(earliest.base))
            .map_err(|_| Error::internal("a compacted block covers too many offsets"))
    };
    let offsets: Result<Vec<u32>> = entries.iter().map(step).collect();
    Prepared::sparse(&batch, &offsets?, span)
}
