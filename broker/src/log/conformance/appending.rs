//! Cases of appending.

use bytes::Bytes;
use futures::future::try_join_all;

use super::{Bench, append, ensure, fails, numbered, offsets, place, read_all, same, to, values};
use crate::error::{Kind, Result};
use crate::record::{Origin, Record};
use crate::topic::{Confidentiality, Offset, Partition, Stage};

const LARGE_BYTES: usize = 1 << 20;

/// Keys, headers, origins and times come back as they were, with empty and large values.
pub async fn reads_back_what_was_appended(bench: &Bench<'_>) -> Result<()> {
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, 1).await?);
    let place = place(&topic, 0);
    let plain = bench.record("plain");
    let own_time = super::moment(1_234)?;
    let large: Vec<u8> = (0..LARGE_BYTES).map(|_| rand::random::<u8>()).collect();
    let records = vec![
        plain.clone(),
        bench.record(Bytes::new()).with_key("key"),
        bench.record("empty key").with_key(Bytes::new()),
        Record { time: own_time, ..bench.record("own time") },
        Record {
            origin: Some(Origin { partition: Partition(3), offset: Offset(1 << 40) }),
            ..bench.record("origin")
        },
        Record {
            headers: vec![("reason".into(), "because".into()), ("empty".into(), Bytes::new())],
            ..bench.record("headers")
        },
        bench.record(large),
        bench.record(vec![b' '; LARGE_BYTES]),
        bench.record("after the large ones"),
    ];
    let appended = append(&*log, &place, &records).await?;
    let entries = read_all(&*log, &place).await?;
    let read: Vec<Record> = entries.iter().map(|entry| entry.record.clone()).collect();
    same(&read.len(), &records.len(), "number of records")?;
    for (index, (read, wanted)) in read.iter().zip(&records).enumerate() {
        ensure(read == wanted, || format!("record {index} came back otherwise"))?;
    }
    let at: Vec<Offset> = entries.iter().map(|entry| entry.offset).collect();
    same(&at, &offsets(&appended, records.len()), "offsets of the answer and of the records")?;
    ensure(at.is_sorted_by(|a, b| a < b), || format!("offsets do not rise: {at:?}"))
}

/// One call writes to several partitions and topics; the answers come in its order.
pub async fn writes_to_several_partitions(bench: &Bench<'_>) -> Result<()> {
    let log = bench.log().await?;
    let (first, second) = (bench.topic(Stage::Raw, 3).await?, bench.topic(Stage::Processed, 1).await?);
    let places = [place(&first, 2), place(&second, 0), place(&first, 0), place(&first, 2)];
    let appends = places.iter().enumerate().map(|(index, place)| {
        let values = numbered(&format!("part{index}"), 2);
        let records: Vec<Record> = values.into_iter().map(|value| bench.record(value)).collect();
        to(place, &records)
    });
    let appended = log.append(appends.collect::<Result<_>>()?).await?;
    same(&appended.len(), &places.len(), "number of answers")?;
    for (index, (place, appended)) in places.iter().zip(&appended).enumerate() {
        let entries = read_all(&*log, place).await?;
        for (number, value) in numbered(&format!("part{index}"), 2).into_iter().enumerate() {
            let found = entries.iter().find(|entry| entry.offset == appended.offset(number));
            let found = found.map(|entry| entry.record.value.clone());
            same(&found, &Some(value), "the record at the offset of the answer")?;
        }
    }
    let both = [numbered("part0", 2), numbered("part3", 2)].concat();
    same(&values(&*log, &place(&first, 2)).await?, &both, "two batches to one partition")
}

/// Producers at the same time lose nothing, and each one's records keep their order.
pub async fn keeps_the_order_of_each_producer(bench: &Bench<'_>) -> Result<()> {
    const PRODUCERS: usize = 16;
    const BATCHES: usize = 10;
    const PER_BATCH: usize = 7;
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, 2).await?);
    let producers = (0..PRODUCERS).map(|producer| {
        let (log, place) = (log.clone(), place(&topic, (producer % 2) as u32));
        async move {
            let values = numbered(&format!("p{producer}"), BATCHES * PER_BATCH);
            let mut last = None;
            for batch in values.chunks(PER_BATCH) {
                let records: Vec<Record> = batch.iter().map(|value| bench.record(value.clone())).collect();
                let appended = append(&*log, &place, &records).await?;
                let first = Some(appended.offset(0));
                ensure(first > last, || format!("offset {first:?} was given after {last:?}"))?;
                last = Some(appended.offset(PER_BATCH - 1));
            }
            Ok(())
        }
    });
    try_join_all(producers).await?;
    let mut read = values(&*log, &place(&topic, 0)).await?;
    read.extend(values(&*log, &place(&topic, 1)).await?);
    same(&read.len(), &(PRODUCERS * BATCHES * PER_BATCH), "number of records")?;
    for producer in 0..PRODUCERS {
        let prefix = format!("p{producer}-");
        let own: Vec<Bytes> =
            read.iter().filter(|value| value.starts_with(prefix.as_bytes())).cloned().collect();
        same(&own, &numbered(&format!("p{producer}"), BATCHES * PER_BATCH), "a producer's records")?;
    }
    Ok(())
}

/// Calls that were begun one after the other keep that order, though none waited for the one before
/// it and some are large.
pub async fn keeps_the_order_of_calls_in_flight(bench: &Bench<'_>) -> Result<()> {
    const CALLS: usize = 40;
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, 1).await?);
    let place = place(&topic, 0);
    let bodies: Vec<Bytes> = (0..CALLS)
        .map(|call| {
            let size = if call % 3 == 0 { 200_000 } else { 8 };
            Bytes::from(format!("{call}{}", " ".repeat(size)))
        })
        .collect();
    let calls = bodies.iter().map(|body| {
        let (log, place, record) = (log.clone(), place.clone(), bench.record(body.clone()));
        async move { append(&*log, &place, &[record]).await }
    });
    try_join_all(calls).await?;
    let read = values(&*log, &place).await?;
    ensure(read == bodies, || "calls in flight were written in another order".to_owned())
}

/// What was acknowledged is there after the log was closed and opened.
pub async fn survives_a_reopening(bench: &Bench<'_>) -> Result<()> {
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, 2).await?);
    let place = place(&topic, 1);
    let before = append(&*log, &place, &[bench.record("before")]).await?;
    let bounds = log.bounds(&place).await?;
    drop(log);
    let log = bench.reopen().await?;
    same(&log.bounds(&place).await?, &bounds, "bounds after a reopening")?;
    let after = append(&*log, &place, &[bench.record("after")]).await?;
    ensure(after.offset(0) > before.offset(0), || "an offset was given twice".to_owned())?;
    let wanted = vec![Bytes::from("before"), Bytes::from("after")];
    same(&values(&*log, &place).await?, &wanted, "records after a reopening")
}

/// A missing topic or partition is `NotFound`.
pub async fn refuses_a_topic_that_is_missing(bench: &Bench<'_>) -> Result<()> {
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, 1).await?);
    let missing = bench.stream()?.topic(Confidentiality::Green, Stage::Raw);
    let record = [bench.record("lost")];
    fails(append(&*log, &place(&missing, 0), &record).await, Kind::NotFound, "append to a missing topic")?;
    fails(append(&*log, &place(&topic, 7), &record).await, Kind::NotFound, "append to a missing partition")?;
    fails(log.bounds(&place(&missing, 0)).await, Kind::NotFound, "bounds of a missing topic")?;
    fails(log.partitions(&missing).await, Kind::NotFound, "partitions of a missing topic")
}
