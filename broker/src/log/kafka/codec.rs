//! Records as Kafka messages.
//!
//! Key, value and headers are the message's; its timestamp is the record's arrival. What a message
//! has no field for stands in one header, `hw`, the last of that name: a version (1 byte, 1), flags
//! (1 byte), then as flagged the zigzag difference of the time to the arrival in microseconds, the
//! origin's partition and offset, and the zigzag arrival in milliseconds where it is not after 1970,
//! which Kafka cannot say. Integers are LEB128 varints. A record that needs none of this has no
//! such header, and a message of a foreign client without one is a record whose time is its arrival.

use bytes::Bytes;
use rdkafka::Timestamp as MessageTime;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message, OwnedHeaders};

use crate::batch::View;
use crate::log::Entry;
use crate::record::{Origin, Record};
use crate::time::Timestamp;
use crate::topic::{Offset, Partition};
use crate::varint::{self, unzigzag, zigzag};

const NAME: &str = "hw";
const VERSION: u8 = 1;
const HAS_TIME: u8 = 1;
const HAS_ORIGIN: u8 = 2;
const HAS_ARRIVAL: u8 = 4;

/// What Kafka adds to a record in a batch of its own, at most.
pub(super) const OVERHEAD_BYTES: usize = 256;

/// The message's timestamp; 0 would mean the present to librdkafka.
pub(super) fn timestamp(record: &View<'_>) -> i64 {
    record.arrival.millis().max(1)
}

/// Makes the headers of messages, one message after the other.
#[derive(Debug, Default)]
pub(super) struct Headers {
    those_of_the_record: Option<OwnedHeaders>,
    has_own_name: bool,
    /// What the last header of ours said; kept for its room.
    own: Vec<u8>,
}

impl Headers {
    /// Adds a header of the record's.
    pub(super) fn push(&mut self, name: &str, value: &[u8]) {
        let headers = self.those_of_the_record.take().unwrap_or_else(|| OwnedHeaders::new_with_capacity(2));
        self.those_of_the_record = Some(headers.insert(Header { key: name, value: Some(value) }));
        self.has_own_name |= name == NAME;
    }

    /// The headers of a record whose own were added; none if it needs none.
    pub(super) fn finish(&mut self, record: &View<'_>) -> Option<OwnedHeaders> {
        let headers = self.those_of_the_record.take();
        let has_own_name = std::mem::take(&mut self.has_own_name);
        self.own.clear();
        encode(record, has_own_name, &mut self.own);
        if self.own.is_empty() {
            return headers;
        }
        let headers = headers.unwrap_or_else(|| OwnedHeaders::new_with_capacity(1));
        Some(headers.insert(Header { key: NAME, value: Some(&self.own[..]) }))
    }
}

/// The record that a message holds. Its bytes are copied, so that they do not pin what was fetched.
pub(super) fn entry(message: &BorrowedMessage<'_>) -> Entry {
    let millis = match message.timestamp() {
        MessageTime::CreateTime(millis) | MessageTime::LogAppendTime(millis) => millis,
        MessageTime::NotAvailable => 0,
    };
    let copy = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let mut record = Record::new(
        message.payload().map(copy).unwrap_or_default(),
        Timestamp::from_millis(millis).unwrap_or_default(),
    );
    record.key = message.key().map(copy);
    if let Some(headers) = message.headers() {
        let named =
            |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.map(copy).unwrap_or_default());
        record.headers = headers.iter().map(named).collect();
        take_own(&mut record);
    }
    let offset = u64::try_from(message.offset()).expect("a message that was read has an offset");
    Entry { offset: Offset(offset), record }
}

/// Writes what our header says of a record; nothing if it needs none. One is needed at any rate where
/// the record has a header of its name.
fn encode(record: &View<'_>, has_own_name: bool, out: &mut Vec<u8>) {
    let arrival = record.arrival.floor_to_millis();
    let lag = record.time.micros() - arrival.micros();
    let is_early = arrival.millis() < 1;
    let flag = |bit: u8, is_set: bool| if is_set { bit } else { 0 };
    let flags =
        flag(HAS_TIME, lag != 0) | flag(HAS_ORIGIN, record.origin.is_some()) | flag(HAS_ARRIVAL, is_early);
    if flags == 0 && !has_own_name {
        return;
    }
    out.extend([VERSION, flags]);
    if lag != 0 {
        varint::put(out, zigzag(lag));
    }
    if let Some(origin) = record.origin {
        varint::put(out, u64::from(origin.partition.0));
        varint::put(out, origin.offset.0);
    }
    if is_early {
        varint::put(out, zigzag(arrival.millis()));
    }
}

/// Takes our header out and sets what it says. One that cannot be read is somebody else's and stays.
fn take_own(record: &mut Record) {
    let Some(index) = record.headers.iter().rposition(|(name, _)| name == NAME) else { return };
    let Some((time, arrival, origin)) = decode(&record.headers[index].1, record.arrival) else { return };
    record.headers.remove(index);
    (record.time, record.arrival, record.origin) = (time, arrival, origin);
}

fn decode(mut bytes: &[u8], arrival: Timestamp) -> Option<(Timestamp, Timestamp, Option<Origin>)> {
    let [VERSION, flags, rest @ ..] = bytes else { return None };
    bytes = rest;
    let lag = if flags & HAS_TIME != 0 { unzigzag(varint::take(&mut bytes)?) } else { 0 };
    let mut origin = None;
    if flags & HAS_ORIGIN != 0 {
        let partition = Partition(u32::try_from(varint::take(&mut bytes)?).ok()?);
        origin = Some(Origin { partition, offset: Offset(varint::take(&mut bytes)?) });
    }
    let arrival = match flags & HAS_ARRIVAL {
        0 => arrival,
        _ => Timestamp::from_millis(unzigzag(varint::take(&mut bytes)?))?,
    };
    let time = Timestamp::from_micros(arrival.micros().checked_add(lag)?)?;
    bytes.is_empty().then_some((time, arrival, origin))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(record: &Record) -> Record {
        let view = View::of(record);
        let arrival = Timestamp::from_millis(timestamp(&view)).unwrap();
        let mut headers = Headers::default();
        for (name, value) in &record.headers {
            headers.push(name, value);
        }
        let mut read = Record { time: arrival, arrival, origin: None, headers: Vec::new(), ..record.clone() };
        if let Some(headers) = headers.finish(&view) {
            let copied = |header: Header<'_, &[u8]>| {
                (header.key.to_owned(), Bytes::copy_from_slice(header.value.unwrap()))
            };
            read.headers = headers.iter().map(copied).collect();
        }
        take_own(&mut read);
        read
    }

    proptest! {
        #[test]
        fn what_kafka_has_no_field_for_comes_back(
            arrival in -62_135_596_800_000_i64..4_000_000_000_000,
            time in Timestamp::MIN.micros()..=Timestamp::MAX.micros(),
            origin in prop::option::of((any::<u32>(), any::<u64>())),
            named_alike in any::<bool>(),
        ) {
            let mut record = Record::new("x", Timestamp::from_millis(arrival).unwrap());
            record.time = Timestamp::from_micros(time).unwrap();
            record.origin = origin.map(|(p, o)| Origin { partition: Partition(p), offset: Offset(o) });
            if named_alike {
                record.headers.push((NAME.to_owned(), Bytes::from_static(&[VERSION, 0])));
            }
            prop_assert_eq!(round_trip(&record), record);
        }

        #[test]
        fn a_header_of_somebody_else_is_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..30)) {
            let mut record = Record::new("x", Timestamp::default());
            record.headers.push((NAME.to_owned(), bytes.into()));
            take_own(&mut record);
            prop_assert!(record.headers.len() <= 1);
        }
    }

    #[test]
    fn a_plain_record_needs_no_header() {
        let record = Record::new("x", Timestamp::from_millis(1_700_000_000_000).unwrap());
        assert!(Headers::default().finish(&View::of(&record)).is_none());
    }
}
