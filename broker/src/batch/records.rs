//! Records on their way out of a batch.

use bytes::Bytes;

use super::{HAS_HEADERS, HAS_KEY, HAS_KEY_WITHIN, HAS_ORIGIN, HAS_TIME, Last, View};
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
    decoder: Decoder,
    /// Why there are no records to decode.
    damage: Option<Error>,
}

impl Records {
    pub(super) fn of(bytes: Result<Bytes>, left: u32, decoder: Decoder) -> Self {
        let (bytes, damage) = match bytes {
            Ok(bytes) => (bytes, None),
            Err(error) => (Bytes::new(), Some(error)),
        };
        Self { bytes, at: 0, left, decoder, damage }
    }

    fn end(&mut self) {
        self.left = 0;
        self.at = self.bytes.len();
    }

    fn decode(&mut self) -> Option<Record> {
        let mut headers = Vec::new();
        let mut rest = &self.bytes[self.at..];
        let each_header = |name: &str, value| headers.push((name.to_owned(), self.bytes.slice_ref(value)));
        let View { key, value, arrival, time, origin } = self.decoder.take(&mut rest, each_header)?;
        let slice = |of: &[u8]| self.bytes.slice_ref(of);
        let record = Record { key: key.map(slice), value: slice(value), arrival, time, origin, headers };
        self.at = self.bytes.len() - rest.len();
        Some(record)
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
            return (!is_whole).then(|| Err(trailing()));
        }
        self.left -= 1;
        let record = self.decode();
        if record.is_none() {
            self.end();
        }
        Some(record.ok_or_else(undecodable))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize + 1))
    }
}

/// The encoded records of a batch, decompressed.
#[derive(Debug)]
pub struct Unpacked {
    pub(super) bytes: Bytes,
    pub(super) count: u32,
    pub(super) first_arrival: Timestamp,
    pub(super) origin: Option<Origin>,
}

impl Unpacked {
    /// The number of records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The records by their bytes where they are, in order. Damage ends it with one `Corrupt` error.
    pub fn views(&self) -> Views<'_> {
        let decoder = Decoder::new(self.first_arrival, self.origin);
        Views { rest: &self.bytes, left: self.count, decoder }
    }
}

/// See [`Unpacked::views`].
#[derive(Debug)]
pub struct Views<'b> {
    rest: &'b [u8],
    left: u32,
    decoder: Decoder,
}

impl<'b> Views<'b> {
    /// The next record, whose headers are shown one by one before.
    pub(crate) fn next_with(
        &mut self,
        each_header: impl FnMut(&'b str, &'b [u8]),
    ) -> Option<Result<View<'b>>> {
        if self.left == 0 {
            let is_whole = std::mem::take(&mut self.rest).is_empty();
            return (!is_whole).then(|| Err(trailing()));
        }
        self.left -= 1;
        let view = self.decoder.take(&mut self.rest, each_header);
        if view.is_none() {
            (self.rest, self.left) = (&[], 0);
        }
        Some(view.ok_or_else(undecodable))
    }
}

impl<'b> Iterator for Views<'b> {
    type Item = Result<View<'b>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_with(|_, _| ())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize + 1))
    }
}

fn undecodable() -> Error {
    Error::corrupt("a record of the batch cannot be decoded")
}

fn trailing() -> Error {
    Error::corrupt("the batch has bytes after its last record")
}

/// Takes one record after the other from the front of the bytes.
#[derive(Debug)]
pub(super) struct Decoder {
    base: Timestamp,
    last: Last,
    /// The next record's origin, where one was said for all of them.
    origin: Option<Origin>,
}

impl Decoder {
    pub(super) fn new(base: Timestamp, origin: Option<Origin>) -> Self {
        Self { base, last: Last::default(), origin }
    }

    /// The next record; none if it is damaged. Its headers are shown on the way.
    fn take<'b>(
        &mut self,
        rest: &mut &'b [u8],
        mut each_header: impl FnMut(&'b str, &'b [u8]),
    ) -> Option<View<'b>> {
        let said = self.take_origin();
        let flags = take_byte(rest)?;
        let key = if flags & HAS_KEY != 0 { Some(take_bytes(rest)?) } else { None };
        let key_within =
            if flags & HAS_KEY_WITHIN != 0 { Some((take_usize(rest)?, take_usize(rest)?)) } else { None };
        let arrival = self.base.millis().checked_add(unzigzag(take_varint(rest)?))?;
        let arrival = Timestamp::from_millis(arrival)?;
        let lag = if flags & HAS_TIME != 0 {
            self.last.lag = self.last.lag.checked_add(unzigzag(take_varint(rest)?))?;
            self.last.lag
        } else {
            0
        };
        let time = Timestamp::from_micros(arrival.micros().checked_add(lag)?)?;
        let own = if flags & HAS_ORIGIN != 0 { Some(self.last.take_origin(rest)?) } else { None };
        if flags & HAS_HEADERS != 0 {
            for _ in 0..take_varint(rest)? {
                let name = std::str::from_utf8(take_bytes(rest)?).ok()?;
                each_header(name, take_bytes(rest)?);
            }
        }
        let value = take_bytes(rest)?;
        let key = match key_within {
            Some((position, length)) => Some(value.get(position..position.checked_add(length)?)?),
            None => key,
        };
        Some(View { key, value, arrival, time, origin: said.or(own) })
    }

    /// The origin of the next record, where one was said for all of them.
    fn take_origin(&mut self) -> Option<Origin> {
        let origin = self.origin?;
        let next = Offset(origin.offset.0.wrapping_add(1));
        self.origin = Some(Origin { offset: next, ..origin });
        Some(origin)
    }
}

impl Last {
    fn take_origin(&mut self, rest: &mut &[u8]) -> Option<Origin> {
        let partition = i64::from(self.origin_partition).checked_add(unzigzag(take_varint(rest)?))?;
        self.origin_partition = u32::try_from(partition).ok()?;
        let offset = self.origin_next.wrapping_add(unzigzag(take_varint(rest)?).cast_unsigned());
        self.origin_next = offset.wrapping_add(1);
        Some(Origin { partition: Partition(self.origin_partition), offset: Offset(offset) })
    }
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (byte, after) = rest.split_first()?;
    *rest = after;
    Some(*byte)
}

/// An integer; most are small and of one byte.
fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    match rest.split_first() {
        Some((byte, after)) if *byte < 0x80 => {
            *rest = after;
            Some(u64::from(*byte))
        }
        _ => varint::take(rest),
    }
}

fn take_usize(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(take_varint(rest)?).ok()
}

fn take_bytes<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = take_usize(rest)?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}
