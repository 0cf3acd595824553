//! Records on their way into the log: one buffer, in the encoding that the sled log stores.
//!
//! A record is encoded as: flags (1 byte); the key's length and bytes, if it has one; the zigzag
//! difference of its arrival in milliseconds to the batch's first; if its time is not its arrival,
//! the difference of the two in microseconds, as the zigzag difference to the last one that was
//! written; if it has an origin, its partition and offset as zigzag differences to the last origin's
//! partition and the offset after it; the headers' number and each one's name and value, if there are
//! any; the value's length and bytes. Every integer is a LEB128 varint. Differences to the record
//! before are small and alike, which is what compression feeds on.

use bytes::{Buf, Bytes};

use crate::error::{Error, Result};
use crate::record::{Origin, Record};
use crate::time::Timestamp;
use crate::topic::{Offset, Partition};
use crate::varint::{self, unzigzag, zigzag};

const HAS_KEY: u8 = 1;
const HAS_TIME: u8 = 2;
const HAS_ORIGIN: u8 = 4;
const HAS_HEADERS: u8 = 8;

/// Records for one partition, in order, encoded. Never empty once built by [`BatchBuilder`].
#[derive(Clone, Debug)]
pub struct Batch {
    bytes: Bytes,
    count: u32,
    first_arrival: Timestamp,
    last_arrival: Timestamp,
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

    /// Takes encoded bytes back, as read from the log; [`Batch::records`] finds damage in them.
    pub fn from_parts(bytes: Bytes, count: u32, arrivals: (Timestamp, Timestamp)) -> Batch {
        let (first_arrival, last_arrival) = arrivals;
        Batch { bytes, count, first_arrival, last_arrival }
    }

    /// The encoded records.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
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

    /// Decodes the records one by one; their bytes are slices of the batch's.
    pub fn records(&self) -> Records {
        let (bytes, left, base) = (self.bytes.clone(), self.count, self.first_arrival);
        Records { bytes, left, base, last: Last::default() }
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
        let arrival = record.arrival.floor_to_millis();
        let (first, last) = self.arrivals.unwrap_or((arrival, arrival));
        self.arrivals = Some((first, last.max(arrival)));
        self.count += 1;

        let lag = record.time.micros() - arrival.micros();
        let flag = |bit: u8, is_set: bool| if is_set { bit } else { 0 };
        let flags = flag(HAS_KEY, record.key.is_some())
            | flag(HAS_TIME, lag != 0)
            | flag(HAS_ORIGIN, record.origin.is_some())
            | flag(HAS_HEADERS, !record.headers.is_empty());

        let out = &mut self.bytes;
        out.push(flags);
        if let Some(key) = &record.key {
            put_bytes(out, key);
        }
        varint::put(out, zigzag(arrival.millis() - first.millis()));
        if lag != 0 {
            varint::put(out, zigzag(lag - self.last.lag));
            self.last.lag = lag;
        }
        if let Some(Origin { partition, offset }) = record.origin {
            let step = i64::from(partition.0) - i64::from(self.last.origin_partition);
            varint::put(out, zigzag(step));
            varint::put(out, zigzag(offset.0.wrapping_sub(self.last.origin_next).cast_signed()));
            self.last.origin_partition = partition.0;
            self.last.origin_next = offset.0.wrapping_add(1);
        }
        if !record.headers.is_empty() {
            varint::put(out, record.headers.len() as u64);
            for (name, value) in &record.headers {
                put_bytes(out, name.as_bytes());
                put_bytes(out, value);
            }
        }
        put_bytes(out, &record.value);
    }

    /// The batch; `None` if nothing was pushed.
    pub fn finish(self) -> Option<Batch> {
        let (first_arrival, last_arrival) = self.arrivals?;
        Some(Batch { bytes: self.bytes.into(), count: self.count, first_arrival, last_arrival })
    }
}

/// The records of a batch, in order. Damage ends it with one `Corrupt` error.
#[derive(Debug)]
pub struct Records {
    bytes: Bytes,
    left: u32,
    base: Timestamp,
    last: Last,
}

impl Iterator for Records {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let rest = std::mem::take(&mut self.bytes);
            return (!rest.is_empty())
                .then(|| Err(Error::corrupt("the batch has bytes after its last record")));
        }
        self.left -= 1;
        let record = decode(&mut self.bytes, self.base, &mut self.last);
        if record.is_none() {
            self.left = 0;
            self.bytes.clear();
        }
        Some(record.ok_or_else(|| Error::corrupt("a record of the batch cannot be decoded")))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize + 1))
    }
}

fn decode(bytes: &mut Bytes, base: Timestamp, last: &mut Last) -> Option<Record> {
    let flags = bytes.try_get_u8().ok()?;
    let key = if flags & HAS_KEY != 0 { Some(take_bytes(bytes)?) } else { None };
    let arrival = base.millis().checked_add(unzigzag(varint::take(bytes)?))?;
    let arrival = Timestamp::from_millis(arrival)?;
    let lag = if flags & HAS_TIME != 0 {
        last.lag = last.lag.checked_add(unzigzag(varint::take(bytes)?))?;
        last.lag
    } else {
        0
    };
    let time = Timestamp::from_micros(arrival.micros().checked_add(lag)?)?;
    let origin = if flags & HAS_ORIGIN != 0 { Some(last.take_origin(bytes)?) } else { None };
    let mut headers = Vec::new();
    if flags & HAS_HEADERS != 0 {
        for _ in 0..varint::take(bytes)? {
            let name = String::from_utf8(take_bytes(bytes)?.to_vec()).ok()?;
            headers.push((name, take_bytes(bytes)?));
        }
    }
    let value = take_bytes(bytes)?;
    Some(Record { key, value, arrival, time, origin, headers })
}

impl Last {
    fn take_origin(&mut self, bytes: &mut Bytes) -> Option<Origin> {
        let partition = i64::from(self.origin_partition).checked_add(unzigzag(varint::take(bytes)?))?;
        self.origin_partition = u32::try_from(partition).ok()?;
        let offset = self.origin_next.wrapping_add(unzigzag(varint::take(bytes)?).cast_unsigned());
        self.origin_next = offset.wrapping_add(1);
        Some(Origin { partition: Partition(self.origin_partition), offset: Offset(offset) })
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take_bytes(bytes: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(varint::take(bytes)?).ok()?;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_bytes() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    prop_compose! {
        fn any_record()(
            key in prop::option::of(any_bytes()),
            value in any_bytes(),
            arrival in -1_000_000_000_000_i64..4_000_000_000_000,
            time in Timestamp::MIN.micros()..=Timestamp::MAX.micros(),
            origin in prop::option::of((any::<u32>(), any::<u64>())),
            headers in prop::collection::vec(("[a-z]{0,8}", any_bytes()), 0..3),
        ) -> Record {
            Record {
                key,
                value,
                arrival: Timestamp::from_millis(arrival).unwrap(),
                time: Timestamp::from_micros(time).unwrap(),
                origin: origin.map(|(p, o)| Origin { partition: Partition(p), offset: Offset(o) }),
                headers,
            }
        }
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_went_in(records in prop::collection::vec(any_record(), 1..20)) {
            let batch = Batch::of(&records).unwrap();
            let read: Result<Vec<Record>> = batch.records().collect();
            prop_assert_eq!(read.unwrap(), records);
        }

        #[test]
        fn damage_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0_u32..9) {
            let arrivals = (Timestamp::default(), Timestamp::default());
            let batch = Batch::from_parts(bytes.into(), count, arrivals);
            let read: Vec<Result<Record>> = batch.records().collect();
            prop_assert!(read.len() <= count as usize + 1);
        }
    }

    #[test]
    fn no_records_make_no_batch() {
        assert!(Batch::of(&[]).is_none());
    }
}
