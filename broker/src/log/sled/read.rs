//! Reading: short ranges, one block at a time, everything verified.

use std::sync::PoisonError;

use super::store::Store;
use super::topics::TopicState;
use crate::error::{Error, Kind, Result};
use crate::log::{Parcel, Run};
use crate::time::Timestamp;
use crate::topic::{Offset, Partition};

/// Reads up to about `bytes_max` bytes of records, at least one record if there is one. Blocks that lie
/// whole within them are left as they are.
pub(super) fn read(
    store: &Store,
    state: &TopicState,
    (partition, from): (Partition, Offset),
    bytes_max: usize,
) -> Result<Parcel> {
    let _unchanged = state.rewriting.read().unwrap_or_else(PoisonError::into_inner);
    retry_if_trimmed(state, partition, || {
        let bounds = state.bounds(partition);
        let mut parcel = Parcel { place: state.place(partition.0), runs: Vec::new(), next: from };
        if from.0 >= bounds.end {
            return Ok(parcel);
        }
        parcel.next = Offset(from.0.max(bounds.start));
        let mut base = covering(store, state, partition, parcel.next.0)?;
        let mut bytes = 0;
        while base < bounds.end && bytes < bytes_max {
            let next = take_block(store, state, (partition, base), (&mut parcel, &mut bytes, bytes_max))?;
            parcel.next = Offset(next);
            if next == base {
                break;
            }
            base = next;
        }
        Ok(parcel)
    })
}

/// Takes one block, from the parcel's `next` on, and returns where to read on. One that does not fit is
/// left for another time, so that it can come whole, or cut if the parcel would stay empty.
fn take_block(
    store: &Store,
    state: &TopicState,
    (partition, base): (Partition, u64),
    (parcel, bytes, bytes_max): (&mut Parcel, &mut usize, usize),
) -> Result<u64> {
    let locate = |error: Error| at_offset(error, state, partition, base);
    let block = store.block(state.key(partition), base).map_err(locate)?;
    let block = block.ok_or_else(|| locate(Error::corrupt("the block is missing")))?;
    let first = Offset(block.header.base);
    if let Some(batch) = block.batch().filter(|_| first >= parcel.next) {
        let weight = *bytes + batch.weight();
        if weight <= bytes_max {
            *bytes = weight;
            parcel.runs.push(Run::Batch { first, batch });
            return Ok(block.header.next());
        }
        if *bytes > 0 {
            return Ok(first.0);
        }
    }
    for entry in block.entries().map_err(locate)? {
        let entry = entry.map_err(locate)?;
        if entry.offset < parcel.next {
            continue;
        }
        if *bytes >= bytes_max {
            return Ok(entry.offset.0);
        }
        *bytes += entry.record.weight();
        parcel.push(entry);
    }
    Ok(block.header.next())
}

/// The first offset whose record arrived at or after `time`, or the end. Arrivals may step back a
/// little where clocks do: what counts is the first such record, so a search over each block's
/// running latest arrival finds the only block where it can begin.
pub(super) fn offset_at(
    store: &Store,
    state: &TopicState,
    partition: Partition,
    time: Timestamp,
) -> Result<Offset> {
    let _unchanged = state.rewriting.read().unwrap_or_else(PoisonError::into_inner);
    let at = state.key(partition);
    let millis = time.micros().div_euclid(1_000) + i64::from(time.micros().rem_euclid(1_000) > 0);
    retry_if_trimmed(state, partition, || {
        let bounds = state.bounds(partition);
        let (mut low, mut high) = (bounds.start, bounds.end);
        while low < high {
            let middle = low + (high - low) / 2;
            let header = store.header_before(at, middle);
            let header = header.map_err(|error| at_offset(error, state, partition, middle))?;
            let header = header.ok_or_else(|| missing(state, partition, middle))?;
            if header.max_arrival >= millis {
                high = header.base;
            } else {
                low = header.next();
            }
        }
        while low < bounds.end {
            let locate = |error: Error| at_offset(error, state, partition, low);
            let header = store.header(at, low).map_err(locate)?;
            let header = header.ok_or_else(|| missing(state, partition, low))?;
            if header.count > 0 && header.last_arrival >= millis {
                let block = store.block(at, low).map_err(locate)?;
                let block = block.ok_or_else(|| missing(state, partition, low))?;
                for entry in block.entries().map_err(locate)? {
                    let entry = entry.map_err(locate)?;
                    if entry.record.arrival.millis() >= millis {
                        return Ok(entry.offset);
                    }
                }
            }
            low = header.next();
        }
        Ok(Offset(bounds.end))
    })
}

/// The base of the block that covers an offset.
fn covering(store: &Store, state: &TopicState, partition: Partition, offset: u64) -> Result<u64> {
    let locate = |error: Error| at_offset(error, state, partition, offset);
    let header = store.header_before(state.key(partition), offset).map_err(locate)?;
    match header {
        Some(header) if offset < header.next() => Ok(header.base),
        _ => Err(missing(state, partition, offset)),
    }
}

/// Runs `read` again if it found damage where a block was being trimmed at the same time: a
/// partition's start moves before its blocks go.
fn retry_if_trimmed<T>(
    state: &TopicState,
    partition: Partition,
    mut read: impl FnMut() -> Result<T>,
) -> Result<T> {
    loop {
        let start = state.bounds(partition).start;
        match read() {
            Err(error) if state.is_deleted() => {
                let message = format!("topic {} was deleted", state.topic);
                return Err(Error::not_found(message).with_source(error));
            }
            Err(error) if error.kind() == Kind::Corrupt && state.bounds(partition).start > start => {}
            done => return done,
        }
    }
}

fn missing(state: &TopicState, partition: Partition, offset: u64) -> Error {
    at_offset(Error::corrupt("the block is missing"), state, partition, offset)
}

fn at_offset(error: Error, state: &TopicState, partition: Partition, offset: u64) -> Error {
    error.context(format!("read {}/{partition} at offset {offset}", state.topic))
}
