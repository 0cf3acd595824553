//! A row of a table, and how it lies in the store.
//!
//! A row is one value of up to [`PIECE_BYTES`] of its event, behind a header, and further values for what is
//! longer: pages of the store that grow large would be kept in files that are never synced.

use broker::{Error, Offset, Result, Timestamp};
use bytes::Bytes;

/// How much of a row's event lies in one value.
pub(super) const PIECE_BYTES: usize = 4 << 10;
/// The largest row, in bytes of its event.
pub(crate) const ROW_BYTES_MAX: usize = 400 << 10;

const HAS_VALUE: u8 = 1;
const EXPIRES: u8 = 2;
const HEADER_BYTES: usize = 1 + 2 + 8 + 4 + 5 * 8;

/// Which of two records of a key is the later one. Within a partition it is the one at the larger offset;
/// between partitions the clock of each decides, which is the latest arrival in it so far and never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    pub(super) clock: i64,
    pub(super) partition: u32,
    pub(super) offset: u64,
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(super) stamp: Stamp,
    /// The raw offset of its record, in the same partition.
    pub(super) origin: Offset,
    /// When its record arrived.
    pub(crate) arrival: Timestamp,
    /// The event's own time.
    pub(crate) time: Timestamp,
    /// When it ends; it is not found from then on.
    pub(crate) expires: Option<Timestamp>,
    /// What is kept of the event; none once the row was taken away.
    pub(crate) value: Option<Bytes>,
}

/// A row's first value, taken apart.
pub(super) struct Head<'b> {
    pub(super) row: Row,
    /// How many values follow.
    pub(super) pieces: u16,
    /// What of the event lies in the first.
    pub(super) first: &'b [u8],
}

impl Row {
    /// The partition that its record is in.
    pub(crate) fn partition(&self) -> u32 {
        self.stamp.partition
    }

    /// The raw offset of its record.
    pub(crate) fn offset(&self) -> Offset {
        self.origin
    }

    /// Whether it is there.
    pub(super) fn lives(&self, now: Timestamp) -> bool {
        self.value.is_some() && self.expires.is_none_or(|expires| expires > now)
    }

    /// What stands before each further value, so that those of two records are not taken for one.
    pub(super) fn mark(&self) -> [u8; 12] {
        let mut mark = [0; 12];
        mark[..8].copy_from_slice(&self.stamp.offset.to_be_bytes());
        mark[8..].copy_from_slice(&self.stamp.partition.to_be_bytes());
        mark
    }

    /// All of it at once, as a snapshot has it.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (mut bytes, rest) = self.encode();
        rest.for_each(|piece| bytes.extend_from_slice(piece));
        bytes
    }

    /// `Corrupt` if this was not made by [`Row::to_bytes`].
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let Head { mut row, first, .. } = Head::decode(bytes)?;
        row.value = row.value.map(|_| Bytes::copy_from_slice(first));
        Ok(row)
    }

    /// The first value, and what follows it.
    pub(super) fn encode(&self) -> (Vec<u8>, impl ExactSizeIterator<Item = &[u8]>) {
        let value = self.value.as_deref().unwrap_or_default();
        let (first, rest) = value.split_at(value.len().min(PIECE_BYTES));
        let rest = rest.chunks(PIECE_BYTES);
        let flags = if self.value.is_some() { HAS_VALUE } else { 0 };
        let flags = flags | if self.expires.is_some() { EXPIRES } else { 0 };
        let mut out = Vec::with_capacity(HEADER_BYTES + first.len());
        out.push(flags);
        out.extend(u16::try_from(rest.len()).unwrap_or(u16::MAX).to_be_bytes());
        out.extend(self.stamp.clock.to_be_bytes());
        out.extend(self.stamp.partition.to_be_bytes());
        out.extend(self.stamp.offset.to_be_bytes());
        out.extend(self.origin.0.to_be_bytes());
        for time in [self.arrival, self.time, self.expires.unwrap_or_default()] {
            out.extend(time.micros().to_be_bytes());
        }
        out.extend(first);
        (out, rest)
    }
}

impl<'b> Head<'b> {
    /// `Corrupt` if this was not written by [`Row::encode`]. The row has what the first value holds.
    pub(super) fn decode(bytes: &'b [u8]) -> Result<Self> {
        let damaged = || Error::corrupt("a row of a table cannot be read");
        let (head, first) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(damaged)?;
        let mut rest = head;
        let mut take = |count: usize| {
            let (taken, left) = rest.split_at(count);
            rest = left;
            taken
        };
        let flags = take(1)[0];
        let pieces = u16::from_be_bytes(take(2).try_into().map_err(|_| damaged())?);
        let clock = i64::from_be_bytes(take(8).try_into().map_err(|_| damaged())?);
        let partition = u32::from_be_bytes(take(4).try_into().map_err(|_| damaged())?);
        let mut word = || u64::from_be_bytes(take(8).try_into().expect("eight bytes were taken"));
        let (offset, origin) = (word(), Offset(word()));
        let mut time = || Timestamp::from_micros(word().cast_signed()).ok_or_else(damaged);
        let (arrival, time, expires) = (time()?, time()?, time()?);
        let expires = (flags & EXPIRES != 0).then_some(expires);
        let value = (flags & HAS_VALUE != 0).then(Bytes::new);
        let row = Row { stamp: Stamp { clock, partition, offset }, origin, arrival, time, expires, value };
        Ok(Self { row, pieces, first })
    }
}
