//! Records on their way out of a batch.

use bytes::Bytes;

use super::{HAS_HEADERS, HAS_KEY, HAS_KEY_WITHIN, HAS_ORIGIN, HAS_TIME, Last};
use crate::error::{Error, Result};
use crate::record::{Origin, Record};
use crate::time::Timestamp;
use crate::topic::{Offset, Partition};
use crate::varint::{self, unzigzag};

/// The records of a batch, in order. Damage ends it with one `Corrupt` error.
#[derive(Debug)]
pub struct Records {
    bytes: Bytes,
    /// Where in the bytes the next record begins.
    at: usize,
    left: u32,
    base: Timestamp,
    last: Last,
    /// The next record's origin, where one was said for all of them.
    origin: Option<Origin>,
    /// Why there are no records to decode.
    damage: Option<Error>,
}

impl Records {
    pub(super) fn of(bytes: Result<Bytes>, left: u32, base: Timestamp, origin: Option<Origin>) -> Self {
        let (bytes, damage) = match bytes {
            Ok(bytes) => (bytes, None),
            Err(error) => (Bytes::new(), Some(error)),
        };
        Self { bytes, at: 0, left, base, last: Last::default(), origin, damage }
    }

    fn end(&mut self) {
        self.left = 0;
        self.at = self.bytes.len();
    }

    fn decode(&mut self) -> Option<Record> {
        let said = self.take_origin();
        let mut left = &self.bytes[self.at..];
        let rest = &mut left;
        let flags = take_byte(rest)?;
        let mut key = if flags & HAS_KEY != 0 { Some(self.slice(take_bytes(rest)?)) } else { None };
        let key_within =
            if flags & HAS_KEY_WITHIN != 0 { Some((take_usize(rest)?, take_usize(rest)?)) } else { None };
        let arrival = self.base.millis().checked_add(unzigzag(varint::take(rest)?))?;
        let arrival = Timestamp::from_millis(arrival)?;
        let lag = if flags & HAS_TIME != 0 {
            self.last.lag = self.last.lag.checked_add(unzigzag(varint::take(rest)?))?;
            self.last.lag
        } else {
            0
        };
        let time = Timestamp::from_micros(arrival.micros().checked_add(lag)?)?;
        let own = if flags & HAS_ORIGIN != 0 { Some(self.last.take_origin(rest)?) } else { None };
        let origin = said.or(own);
        let mut headers = Vec::new();
        if flags & HAS_HEADERS != 0 {
            for _ in 0..varint::take(rest)? {
                let name = String::from_utf8(take_bytes(rest)?.to_vec()).ok()?;
                headers.push((name, self.slice(take_bytes(rest)?)));
            }
        }
        let value = self.slice(take_bytes(rest)?);
        if let Some((position, length)) = key_within {
            let end = position.checked_add(length).filter(|end| *end <= value.len())?;
            key = Some(value.slice(position..end));
        }
        self.at = self.bytes.len() - left.len();
        Some(Record { key, value, arrival, time, origin, headers })
    }

    /// The origin of the next record, where one was said for all of them.
    fn take_origin(&mut self) -> Option<Origin> {
        let origin = self.origin?;
        let next = Offset(origin.offset.0.wrapping_add(1));
        self.origin = Some(Origin { offset: next, ..origin });
        Some(origin)
    }

    fn slice(&self, of: &[u8]) -> Bytes {
        self.bytes.slice_ref(of)
    }
}

impl Iterator for Records {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(damage) = self.damage.take() {
            self.end();
            return Some(Err(damage));
        }
        if self.left == 0 {
            let is_whole = self.at == self.bytes.len();
            self.end();
            return (!is_whole).then(|| Err(Error::corrupt("the batch has bytes after its last record")));
        }
        self.left -= 1;
        let record = self.decode();
        if record.is_none() {
            self.end();
        }
        Some(record.ok_or_else(|| Error::corrupt("a record of the batch cannot be decoded")))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize + 1))
    }
}

impl Last {
    fn take_origin(&mut self, rest: &mut &[u8]) -> Option<Origin> {
        let partition = i64::from(self.origin_partition).checked_add(unzigzag(varint::take(rest)?))?;
        self.origin_partition = u32::try_from(partition).ok()?;
        let offset = self.origin_next.wrapping_add(unzigzag(varint::take(rest)?).cast_unsigned());
        self.origin_next = offset.wrapping_add(1);
        Some(Origin { partition: Partition(self.origin_partition), offset: Offset(offset) })
    }
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (byte, after) = rest.split_first()?;
    *rest = after;
    Some(*byte)
}

fn take_usize(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(varint::take(rest)?).ok()
}

fn take_bytes<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = take_usize(rest)?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}
