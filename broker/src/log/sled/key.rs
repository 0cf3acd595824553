//! The keys of the one tree. All integers are big-endian, so that keys sort as numbers do.
//!
//! | key | value |
//! |---|---|
//! | `b` topic id, partition, base offset, piece | a piece of a block, at most 4 KiB |
//! | `c` topic id, partition | how far it was compacted: an offset, and the stored bytes before it |
//! | `d` topic id | nothing: the topic was deleted and is still being cleared away |
//! | `f` | the format's version |
//! | `n` | the next topic id |
//! | `p` length of the group's name, its name, topic id, partition | the next offset wanted |
//! | `t` topic name | the topic's id and configuration, as JSON |

/// A partition as keys name it: topics are named by a number that is never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PartitionKey {
    /// The topic's id.
    pub(super) topic: u32,
    /// The partition's number.
    pub(super) partition: u32,
}

pub(super) const FORMAT: &[u8] = b"f";
pub(super) const NEXT_TOPIC: &[u8] = b"n";
pub(super) const TOPICS: &[u8] = b"t";
pub(super) const DELETED: &[u8] = b"d";
pub(super) const PROGRESS: &[u8] = b"p";

const BLOCK: u8 = b'b';
const CLEAN: u8 = b'c';
const BLOCK_KEY_BYTES: usize = 19;

/// The key of one piece of the block that begins at `base`.
pub(super) fn block(at: PartitionKey, base: u64, piece: u16) -> [u8; BLOCK_KEY_BYTES] {
    let mut key = [BLOCK; BLOCK_KEY_BYTES];
    key[1..5].copy_from_slice(&at.topic.to_be_bytes());
    key[5..9].copy_from_slice(&at.partition.to_be_bytes());
    key[9..17].copy_from_slice(&base.to_be_bytes());
    key[17..].copy_from_slice(&piece.to_be_bytes());
    key
}

/// The base offset in a block's key.
pub(super) fn block_base(key: &[u8]) -> Option<u64> {
    let base = key.get(9..17)?;
    Some(u64::from_be_bytes(base.try_into().ok()?))
}

/// What every block key of a topic begins with.
pub(super) fn blocks_of(topic: u32) -> [u8; 5] {
    let mut key = [BLOCK; 5];
    key[1..].copy_from_slice(&topic.to_be_bytes());
    key
}

/// What every key of a topic's compactions begins with.
pub(super) fn cleans_of(topic: u32) -> [u8; 5] {
    let mut key = [CLEAN; 5];
    key[1..].copy_from_slice(&topic.to_be_bytes());
    key
}

/// The key of how far a partition was compacted.
pub(super) fn clean(at: PartitionKey) -> Vec<u8> {
    [&cleans_of(at.topic)[..], &at.partition.to_be_bytes()].concat()
}

/// The key of a topic's description.
pub(super) fn topic(name: &str) -> Vec<u8> {
    [TOPICS, name.as_bytes()].concat()
}

/// The key that marks a deleted topic whose records still wait for removal.
pub(super) fn deleted(topic: u32) -> Vec<u8> {
    [DELETED, &topic.to_be_bytes()].concat()
}

/// What every progress key of a group begins with; `None` if the name is too long.
pub(super) fn progress_of(group: &str) -> Option<Vec<u8>> {
    let length = u8::try_from(group.len()).ok()?;
    Some([PROGRESS, &[length], group.as_bytes()].concat())
}

/// The key of a group's progress in a partition.
pub(super) fn progress(group_prefix: &[u8], at: PartitionKey) -> Vec<u8> {
    [group_prefix, &at.topic.to_be_bytes(), &at.partition.to_be_bytes()].concat()
}

/// The partition in a progress key.
pub(super) fn progress_at(key: &[u8]) -> Option<PartitionKey> {
    let tail = key.get(key.len().checked_sub(8)?..)?;
    let topic = u32::from_be_bytes(tail[..4].try_into().ok()?);
    let partition = u32::from_be_bytes(tail[4..].try_into().ok()?);
    Some(PartitionKey { topic, partition })
}

/// The group's name in a progress key.
pub(super) fn progress_group(key: &[u8]) -> Option<&str> {
    let length = usize::from(*key.get(1)?);
    std::str::from_utf8(key.get(2..2 + length)?).ok()
}
