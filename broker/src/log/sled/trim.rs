//! Removing: what retention lets go, and what deleted topics left. A little at a time, along with
//! the writes, since sled gives space back only while something is written after a removal.
//!
//! Retention asks nobody: what a group has not read yet goes too when it is old or the partition is
//! full, as in Kafka, and the group reads on at the new start.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::block::Header;
use super::committer::Staged;
use super::key::{self, PartitionKey};
use super::store::Store;
use super::topics::{Head, TopicState};
use crate::error::Result;
use crate::time::Timestamp;
use crate::topic::{Cleanup, Partition};

/// How many blocks of a partition are removed in one commit.
const TRIM_BLOCKS_MAX: usize = 64;
/// How many values of a deleted topic are removed in one commit.
const CLEAR_VALUES_MAX: usize = 512;

/// Removes what retention lets go from the partitions that the batch writes to.
pub(super) fn stage(store: &Store, staged: &mut Staged, now: Timestamp) {
    let touched: Vec<_> = staged.heads.iter().map(|(at, (state, _))| (*at, Arc::clone(state))).collect();
    for (at, state) in touched {
        stage_partition(store, staged, (&state, at), now);
    }
}

/// Removes what retention lets go from a topic; `None` if there is nothing.
pub(super) fn stage_topic(store: &Store, state: &Arc<TopicState>, now: Timestamp) -> Option<Staged> {
    let mut staged = Staged::new();
    for partition in 0..state.partitions {
        let at = PartitionKey { topic: state.id, partition };
        stage_partition(store, &mut staged, (state, at), now);
    }
    (!staged.is_empty).then_some(staged)
}

fn stage_partition(
    store: &Store,
    staged: &mut Staged,
    (state, at): (&Arc<TopicState>, PartitionKey),
    now: Timestamp,
) {
    let Cleanup::Trim { age_max, bytes_max } = state.cleanup() else { return };
    let written = state.head(Partition(at.partition));
    let mut head = staged.heads.get(&at).map_or(written, |(_, head)| *head);
    let mut removed = 0;
    while removed < TRIM_BLOCKS_MAX {
        let Some(first) = head.first else { break };
        // The last block stays, so that the partition's end survives.
        let is_last = first.next() >= written.end;
        if is_last || !is_expired(&head, &first, (age_max, bytes_max), now) {
            break;
        }
        match store.header(at, first.next()) {
            Ok(Some(next)) => head.first = Some(next),
            Ok(None) => {
                warn!(topic = %state.topic, partition = at.partition, offset = first.next(), "a block is missing, not trimming");
                break;
            }
            Err(error) => {
                warn!(topic = %state.topic, partition = at.partition, %error, "a block is damaged, not trimming");
                break;
            }
        }
        for piece in 0..first.pieces() {
            staged.remove(&key::block(at, first.base, piece));
        }
        removed += 1;
    }
    if removed > 0 {
        state.set_first(at.partition, head.first);
        staged.heads.insert(at, (Arc::clone(state), head));
    }
}

fn is_expired(
    head: &Head,
    first: &Header,
    (age_max, bytes_max): (Option<Duration>, Option<u64>),
    now: Timestamp,
) -> bool {
    let last_arrival = Timestamp::from_millis(first.last_arrival).unwrap_or_default();
    age_max.is_some_and(|age_max| now.since(last_arrival) > age_max)
        || bytes_max.is_some_and(|bytes_max| head.stored_bytes() > bytes_max)
}

/// Removes some of what a deleted topic left; says whether nothing is left after it.
pub(super) fn stage_deleted(
    store: &Store,
    staged: &mut Staged,
    topic: u32,
    groups: &BTreeSet<String>,
) -> Result<bool> {
    let prefix = key::blocks_of(topic);
    let mut removed = 0;
    for entry in store.scan(&prefix).take(CLEAR_VALUES_MAX) {
        staged.remove(entry?.0);
        removed += 1;
    }
    if removed == CLEAR_VALUES_MAX {
        return Ok(false);
    }
    for entry in store.scan(&key::cleans_of(topic)) {
        staged.remove(entry?.0);
    }
    for group in groups {
        let Some(group) = key::progress_of(group) else { continue };
        for entry in store.scan(&[&group[..], &topic.to_be_bytes()].concat()) {
            staged.remove(entry?.0);
        }
    }
    staged.remove(key::deleted(topic));
    Ok(true)
}
