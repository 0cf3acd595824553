//! A row of a table, and how it lies in the store.
//!
//! A row is one value of up to [`PIECE_BYTES`] of its event, behind a header, and further values for what is
//! longer: pages of the store that grow large would be kept in files that are never synced.

use broker::{Error, Offset, Result, Timestamp, varint};
use bytes::{Buf as _, Bytes};

/// How much of a row's event lies in one value.
pub(super) const PIECE_BYTES: usize = 4 << 10;
/// The largest row, in bytes of its event.
pub(crate) const ROW_BYTES_MAX: usize = 400 << 10;

const HAS_VALUE: u8 = 1;
const EXPIRES: u8 = 2;
/// More than a header ever takes.
const HEADER_BYTES_MAX: usize = 1 + 3 + 5 + 6 * 10;

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
        let mut out = Vec::with_capacity(HEADER_BYTES_MAX + first.len());
        out.push(flags);
        let Stamp { clock, partition, offset } = self.stamp;
        let arrival = self.arrival.micros();
        varint::put(&mut out, rest.len() as u64);
        varint::put(&mut out, u64::from(partition));
        varint::put(&mut out, offset);
        varint::put(&mut out, varint::zigzag(arrival));
        // These are near to those.
        put_delta(&mut out, offset.cast_signed(), self.origin.0.cast_signed());
        put_delta(&mut out, arrival, clock);
        put_delta(&mut out, arrival, self.time.micros());
        if let Some(expires) = self.expires {
            put_delta(&mut out, arrival, expires.micros());
        }
        out.extend(first);
        (out, rest)
    }
}

impl<'b> Head<'b> {
    /// `Corrupt` if this was not written by [`Row::encode`]. The row has what the first value holds.
    pub(super) fn decode(bytes: &'b [u8]) -> Result<Self> {
        Self::take(bytes).ok_or_else(|| Error::corrupt("a row of a table cannot be read"))
    }

    fn take(mut rest: &'b [u8]) -> Option<Self> {
        let flags = rest.try_get_u8().ok()?;
        let pieces = u16::try_from(varint::take(&mut rest)?).ok()?;
        let partition = u32::try_from(varint::take(&mut rest)?).ok()?;
        let offset = varint::take(&mut rest)?;
        let arrival = varint::unzigzag(varint::take(&mut rest)?);
        let origin = Offset(take_delta(&mut rest, offset.cast_signed())?.cast_unsigned());
        let clock = take_delta(&mut rest, arrival)?;
        let time = Timestamp::from_micros(take_delta(&mut rest, arrival)?)?;
        let expires = match flags & EXPIRES {
            0 => None,
            _ => Some(Timestamp::from_micros(take_delta(&mut rest, arrival)?)?),
        };
        let arrival = Timestamp::from_micros(arrival)?;
        let value = (flags & HAS_VALUE != 0).then(Bytes::new);
        let row = Row { stamp: Stamp { clock, partition, offset }, origin, arrival, time, expires, value };
        Some(Self { row, pieces, first: rest })
    }
}

/// A number as how far it is from another one.
fn put_delta(out: &mut Vec<u8>, from: i64, number: i64) {
    varint::put(out, varint::zigzag(number.wrapping_sub(from)));
}

fn take_delta(rest: &mut &[u8], from: i64) -> Option<i64> {
    Some(varint::unzigzag(varint::take(rest)?).wrapping_add(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(numbers: [i64; 3], offsets: [u64; 2], expires: Option<i64>, value: Option<&str>) -> Row {
        let [clock, arrival, time] = numbers;
        let at = |micros| Timestamp::from_micros(micros).unwrap();
        Row {
            stamp: Stamp { clock, partition: 1_023, offset: offsets[0] },
            origin: Offset(offsets[1]),
            arrival: at(arrival),
            time: at(time),
            expires: expires.map(at),
            value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        }
    }

    #[test]
    fn rows_come_back() {
        let now = 1_796_000_000_000_000;
        let (min, max) = (Timestamp::MIN.micros(), Timestamp::MAX.micros());
        for row in [
            row([now, now, now], [7, 9], None, Some("{}")),
            row([now, now, now - 5], [7, 7], Some(now + 3_600_000_000), Some("")),
            row([i64::MAX, min, max], [u64::MAX, 0], Some(min), None),
            row([i64::MIN, max, min], [0, u64::MAX], Some(max), Some("x")),
        ] {
            let bytes = row.to_bytes();
            assert_eq!(Row::from_bytes(&bytes).unwrap(), row);
            assert!(bytes.len() <= HEADER_BYTES_MAX + 2);
            let value = row.value.as_ref().map_or(0, Bytes::len);
            for cut in 0..bytes.len() - value {
                assert!(Row::from_bytes(&bytes[..cut]).is_err(), "{cut} of {}", bytes.len());
            }
        }
        assert!(row([now, now, now], [1 << 20, 1 << 20], None, Some("")).to_bytes().len() <= 20);
    }
}
