//! What goes into a batch comes out of it.

use proptest::prelude::*;

use super::*;
use crate::error::{Kind, Result};
use crate::topic::{Offset, Partition};

fn any_bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

/// A key of its own, or a piece of the value.
#[derive(Clone, Debug)]
enum AnyKey {
    None,
    Own(Bytes),
    Within(prop::sample::Index, prop::sample::Index),
}

fn any_key() -> impl Strategy<Value = AnyKey> {
    prop_oneof![
        Just(AnyKey::None),
        any_bytes().prop_map(AnyKey::Own),
        any::<(prop::sample::Index, prop::sample::Index)>().prop_map(|(a, b)| AnyKey::Within(a, b)),
    ]
}

prop_compose! {
    fn any_record()(
        key in any_key(),
        value in any_bytes(),
        arrival in -1_000_000_000_000_i64..4_000_000_000_000,
        time in Timestamp::MIN.micros()..=Timestamp::MAX.micros(),
        origin in prop::option::of((any::<u32>(), any::<u64>())),
        headers in prop::collection::vec(("[a-z]{0,8}", any_bytes()), 0..3),
    ) -> Record {
        let key = match key {
            AnyKey::None => None,
            AnyKey::Own(key) => Some(key),
            AnyKey::Within(a, b) => {
                let (a, b) = (a.index(value.len() + 1), b.index(value.len() + 1));
                Some(value.slice(a.min(b)..a.max(b)))
            }
        };
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

/// The same batch as it comes from the log.
fn through_the_log(batch: &Batch) -> Batch {
    let packed = Packed::pack(batch.bytes().clone()).unwrap();
    let again = Batch::from_log(packed, batch.count(), (batch.first_arrival(), batch.last_arrival()));
    assert_eq!(again.encoded_bytes(), batch.encoded_bytes());
    again
}

proptest! {
    #[test]
    fn records_come_back_as_they_went_in(records in prop::collection::vec(any_record(), 1..20)) {
        let batch = Batch::of(&records).unwrap();
        for batch in [through_the_log(&batch), batch] {
            let read: Result<Vec<Record>> = batch.records().collect();
            prop_assert_eq!(read.unwrap(), records.clone());
            let unpacked = batch.unpack().unwrap();
            let seen: Result<Vec<View<'_>>> = unpacked.views().collect();
            prop_assert_eq!(seen.unwrap(), records.iter().map(View::of).collect::<Vec<_>>());
        }
    }

    #[test]
    fn origins_said_once_count_for_all(records in prop::collection::vec(any_record(), 1..20), at in 0_u64..1 << 40) {
        let first = Origin { partition: Partition(3), offset: Offset(at) };
        let batch = Batch::of(&records).unwrap().with_origins_from(first);
        let read: Result<Vec<Record>> = batch.records().collect();
        let expected = (at..).zip(records).map(|(offset, record)| {
            Record { origin: Some(Origin { offset: Offset(offset), ..first }), ..record }
        });
        let expected: Vec<Record> = expected.collect();
        let unpacked = batch.unpack().unwrap();
        let seen: Result<Vec<View<'_>>> = unpacked.views().collect();
        prop_assert_eq!(seen.unwrap(), expected.iter().map(View::of).collect::<Vec<_>>());
        prop_assert_eq!(read.unwrap(), expected);
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0_u32..9) {
        let arrivals = (Timestamp::default(), Timestamp::default());
        let batch = Batch::from_parts(bytes.into(), count, arrivals);
        let read: Vec<Result<Record>> = batch.records().collect();
        prop_assert!(read.len() <= count as usize + 1);
        let unpacked = batch.unpack().unwrap();
        let seen: Vec<_> = unpacked.views().collect();
        prop_assert_eq!(seen.len(), read.len());
        for (seen, read) in seen.iter().zip(&read) {
            prop_assert_eq!(seen.as_ref().ok().copied(), read.as_ref().ok().map(View::of));
        }
    }
}

#[test]
fn no_records_make_no_batch() {
    assert!(Batch::of(&[]).is_none());
}

#[test]
fn a_key_that_is_a_piece_of_the_value_is_not_written_twice() {
    let value = Bytes::from_static(br#"{"origin":"LAS"}"#);
    let arrival = Timestamp::default();
    let within = Record::new(value.clone(), arrival).with_key(value.slice(11..14));
    let own = Record::new(value, arrival).with_key("LAS");
    let bytes_of = |record| Batch::of([record]).unwrap().bytes().len();
    assert_eq!(bytes_of(&within) + 2, bytes_of(&own));
    assert_eq!(within, own);
}

#[test]
fn a_batch_that_cannot_be_decompressed_is_one_error() {
    let bytes = Bytes::from_static(b"no frame of zstd");
    let crc = crc32fast::hash(&bytes);
    let packed = Packed::from_parts(bytes, 1_000, true, crc).unwrap();
    let batch = Batch::from_log(packed, 9, (Timestamp::default(), Timestamp::default()));
    let read: Vec<Result<Record>> = batch.records().collect();
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].as_ref().unwrap_err().kind(), Kind::Corrupt);
    assert_eq!(batch.unpack().unwrap_err().kind(), Kind::Corrupt);
}
