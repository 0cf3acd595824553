//! Records on their way into the log: one buffer, in the encoding that the sled log stores.
//!
//! A record is encoded as: flags (1 byte); if it has a key, the key's length and bytes, or where the
//! key lies within the value and its length; the zigzag difference of its arrival in milliseconds to
//! the batch's first; if its time is not its arrival, the difference of the two in microseconds, as the
//! zigzag difference to the last one that was written; if it has an origin of its own, its partition
//! and offset as zigzag differences to the last origin's partition and the offset after it; the
//! headers' number and each one's name and value, if there are any; the value's length and bytes. Every
//! integer is a LEB128 varint. Differences to the record before are small and alike, which is what
//! compression feeds on.
//!
//! A batch that was read from the log may be put into it again as it is: it stays compressed, and where
//! its records come from is said once for all of them.

mod records;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use self::records::Decoder;
pub use self::records::{Records, Unpacked, Views};
use crate::error::Result;
use crate::packed::Packed;
use crate::record::{Origin, RECORD_OVERHEAD_BYTES, Record};
use crate::time::Timestamp;
use crate::varint::{self, zigzag};

const HAS_KEY: u8 = 1;
const HAS_TIME: u8 = 2;
const HAS_ORIGIN: u8 = 4;
const HAS_HEADERS: u8 = 8;
/// The key is a piece of the value.
const HAS_KEY_WITHIN: u8 = 16;

/// Records for one partition, in order, encoded. Never empty once built by [`BatchBuilder`].
#[derive(Clone, Debug)]
pub struct Batch {
    contents: Contents,
    count: u32,
    first_arrival: Timestamp,
    last_arrival: Timestamp,
    /// The first record's origin, if one is said for all of them; those of the others follow it.
    origin: Option<Origin>,
}

#[derive(Clone, Debug)]
enum Contents {
    /// As encoded.
    Plain(Bytes),
    /// As the log holds it.
    Packed(Packed),
}

impl Batch {
    /// A batch of these records; `None` if there are none.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Option<Batch> {
        let mut builder = BatchBuilder::new();
        for record in records {
            builder.push(record);
        }
        builder.finish()
    }

    /// Takes encoded bytes back; [`Batch::records`] finds damage in them.
    pub fn from_parts(bytes: Bytes, count: u32, arrivals: (Timestamp, Timestamp)) -> Batch {
        Self::new(Contents::Plain(bytes), count, arrivals)
    }

    /// Takes a batch back as it lay in the log; [`Batch::records`] finds damage in it.
    pub(crate) fn from_log(packed: Packed, count: u32, arrivals: (Timestamp, Timestamp)) -> Batch {
        Self::new(Contents::Packed(packed), count, arrivals)
    }

    fn new(contents: Contents, count: u32, (first_arrival, last_arrival): (Timestamp, Timestamp)) -> Batch {
        Batch { contents, count, first_arrival, last_arrival, origin: None }
    }

    /// The same records, made from raw ones that lie one after the other from `first` on. What they
    /// said of their origins themselves counts no more.
    #[must_use]
    pub fn with_origins_from(mut self, first: Origin) -> Batch {
        self.origin = Some(first);
        self
    }

    /// The bytes as they are held: the encoded records, or what the log made of them where the batch
    /// came from there as it is.
    pub fn bytes(&self) -> &Bytes {
        match &self.contents {
            Contents::Plain(bytes) => bytes,
            Contents::Packed(packed) => packed.bytes(),
        }
    }

    /// What the log made of the records, if the batch came from there as it is.
    pub(crate) fn packed(&self) -> Option<&Packed> {
        match &self.contents {
            Contents::Plain(_) => None,
            Contents::Packed(packed) => Some(packed),
        }
    }

    /// The number of bytes of the encoded records.
    pub fn encoded_bytes(&self) -> usize {
        match &self.contents {
            Contents::Plain(bytes) => bytes.len(),
            Contents::Packed(packed) => packed.raw_bytes() as usize,
        }
    }

    /// About how many bytes the records hold once they are decoded, for budgets.
    pub fn weight(&self) -> usize {
        self.encoded_bytes() + self.count as usize * RECORD_OVERHEAD_BYTES
    }

    /// The number of records.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The first record's arrival.
    pub fn first_arrival(&self) -> Timestamp {
        self.first_arrival
    }

    /// The latest arrival of any record.
    pub fn last_arrival(&self) -> Timestamp {
        self.last_arrival
    }

    /// The first record's origin, if one is said for all of them.
    pub(crate) fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// Decodes the records one by one; their bytes are slices of the batch's, or of what it was
    /// decompressed to here.
    pub fn records(&self) -> Records {
        let decoder = Decoder::new(self.first_arrival, self.origin);
        Records::of(self.encoded(), self.count, decoder)
    }

    /// Decompresses the records if the batch came from the log as it is, to look at them where they are.
    pub fn unpack(&self) -> Result<Unpacked> {
        let Self { count, first_arrival, origin, .. } = *self;
        Ok(Unpacked { bytes: self.encoded()?, count, first_arrival, origin })
    }

    fn encoded(&self) -> Result<Bytes> {
        match &self.contents {
            Contents::Plain(bytes) => Ok(bytes.clone()),
            Contents::Packed(packed) => packed.unpack(),
        }
    }
}

/// What differences are taken to.
#[derive(Debug, Default)]
struct Last {
    lag: i64,
    origin_partition: u32,
    /// The offset after the last origin's.
    origin_next: u64,
}

/// A record that nothing is known of but what a door finds in it, by its bytes where they are.
#[derive(Clone, Copy, Debug)]
pub struct Event<'b> {
    /// See [`Record::key`]. One that is a piece of `value` is not written twice.
    pub key: Option<&'b [u8]>,
    /// See [`Record::value`].
    pub value: &'b [u8],
    /// See [`Record::arrival`].
    pub arrival: Timestamp,
    /// See [`Record::time`].
    pub time: Timestamp,
}

/// A record by its bytes where they are, without its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View<'b> {
    /// See [`Record::key`].
    pub key: Option<&'b [u8]>,
    /// See [`Record::value`].
    pub value: &'b [u8],
    /// See [`Record::arrival`].
    pub arrival: Timestamp,
    /// See [`Record::time`].
    pub time: Timestamp,
    /// See [`Record::origin`].
    pub origin: Option<Origin>,
}

impl<'b> View<'b> {
    /// What is seen of a record.
    pub fn of(record: &'b Record) -> Self {
        let Record { key, value, arrival, time, origin, headers: _ } = record;
        Self { key: key.as_deref(), value, arrival: *arrival, time: *time, origin: *origin }
    }
}

/// Encodes records into one buffer.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    bytes: Vec<u8>,
    last: Last,
    count: u32,
    arrivals: Option<(Timestamp, Timestamp)>,
}

impl BatchBuilder {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer with room for so many encoded bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// The number of records so far.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The number of encoded bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was pushed yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a record at the end.
    pub fn push(&mut self, record: &Record) {
        let Record { key, value, arrival, time, origin, headers } = record;
        let event = Event { key: key.as_deref(), value, arrival: *arrival, time: *time };
        self.put(&event, *origin, headers);
    }

    /// Adds a record without origin and headers at the end.
    pub fn push_event(&mut self, event: &Event<'_>) {
        self.put(event, None, &[]);
    }

    fn put(&mut self, event: &Event<'_>, origin: Option<Origin>, headers: &[(String, Bytes)]) {
        let arrival = event.arrival.floor_to_millis();
        let (first, last) = self.arrivals.unwrap_or((arrival, arrival));
        self.arrivals = Some((first, last.max(arrival)));
        self.count += 1;

        let lag = event.time.micros() - arrival.micros();
        let key_within = event.key.and_then(|key| position_within(key, event.value));
        let flag = |bit: u8, is_set: bool| if is_set { bit } else { 0 };
        let flags = flag(HAS_KEY, event.key.is_some() && key_within.is_none())
            | flag(HAS_KEY_WITHIN, key_within.is_some())
            | flag(HAS_TIME, lag != 0)
            | flag(HAS_ORIGIN, origin.is_some())
            | flag(HAS_HEADERS, !headers.is_empty());

        let out = &mut self.bytes;
        out.push(flags);
        match (event.key, key_within) {
            (Some(key), Some(position)) => {
                varint::put(out, position as u64);
                varint::put(out, key.len() as u64);
            }
            (Some(key), None) => put_bytes(out, key),
            (None, _) => {}
        }
        varint::put(out, zigzag(arrival.millis() - first.millis()));
        if lag != 0 {
            varint::put(out, zigzag(lag - self.last.lag));
            self.last.lag = lag;
        }
        if let Some(origin) = origin {
            self.last.put_origin(out, origin);
        }
        if !headers.is_empty() {
            varint::put(out, headers.len() as u64);
            for (name, value) in headers {
                put_bytes(out, name.as_bytes());
                put_bytes(out, value);
            }
        }
        put_bytes(out, event.value);
    }

    /// The batch; `None` if nothing was pushed.
    pub fn finish(self) -> Option<Batch> {
        let arrivals = self.arrivals?;
        Some(Batch::from_parts(self.bytes.into(), self.count, arrivals))
    }
}

impl Last {
    fn put_origin(&mut self, out: &mut Vec<u8>, Origin { partition, offset }: Origin) {
        let step = i64::from(partition.0) - i64::from(self.origin_partition);
        varint::put(out, zigzag(step));
        varint::put(out, zigzag(offset.0.wrapping_sub(self.origin_next).cast_signed()));
        self.origin_partition = partition.0;
        self.origin_next = offset.0.wrapping_add(1);
    }
}

/// Where a key lies within a value, if it is a piece of the value's own bytes. Equal bytes that lie
/// elsewhere are not looked for.
fn position_within(key: &[u8], value: &[u8]) -> Option<usize> {
    let position = (key.as_ptr() as usize).checked_sub(value.as_ptr() as usize)?;
    let is_within = !key.is_empty() && position.checked_add(key.len())? <= value.len();
    is_within.then_some(position)
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
