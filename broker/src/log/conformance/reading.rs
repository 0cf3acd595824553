//! Cases of reading without a group.

use std::pin::pin;

use futures::future::{self, Either};

use super::{Bench, append, ensure, moment, numbered, place, same};
use crate::error::Result;
use crate::log::Position;
use crate::record::Record;
use crate::topic::{Offset, Stage};

/// An empty partition ends where it starts; positions outside the bounds are no error.
pub async fn knows_its_bounds(bench: &Bench<'_>) -> Result<()> {
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, 2).await?);
    let place = place(&topic, 1);
    let empty = log.bounds(&place).await?;
    same(&empty, &(Offset(0)..Offset(0)), "bounds of an empty partition")?;
    let appended = append(&*log, &place, &[bench.record("a"), bench.record("b")]).await?;
    let bounds = log.bounds(&place).await?;
    same(&bounds.start, &appended.offset(0), "start")?;
    ensure(bounds.end > appended.offset(1), || format!("the end {} is not past the last", bounds.end))?;
    for offset in [bounds.end, Offset(bounds.end.0 + 1_000)] {
        let from = Position { place: place.clone(), offset };
        let chunk = log.read(&from, 1_000).await?;
        ensure(chunk.entries.is_empty(), || format!("records were read at {offset}, past the end"))?;
    }
    Ok(())
}

/// `offset_at` finds the first record that arrived at or after an instant, also where a clock
/// stepped back.
pub async fn finds_offsets_by_time(bench: &Bench<'_>) -> Result<()> {
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, 1).await?);
    let place = place(&topic, 0);
    let arrivals = [10, 20, 20, 30, 40, 35, 50, 60];
    let mut at = Vec::new();
    for pair in arrivals.chunks(2) {
        let records = pair.iter().map(|millis| Ok(Record::new("x", moment(*millis)?)));
        let appended = append(&*log, &place, &records.collect::<Result<Vec<_>>>()?).await?;
        at.extend([appended.offset(0), appended.offset(1)]);
    }
    for (millis, index) in [(0, 0), (10, 0), (11, 1), (20, 1), (21, 3), (36, 4), (45, 6), (60, 7)] {
        let found = log.offset_at(&place, moment(millis)?).await?;
        same(&found, &at[index], &format!("the offset at {millis} ms"))?;
    }
    let end = log.bounds(&place).await?.end;
    let found = log.offset_at(&place, moment(61)?).await?;
    ensure(found > at[7] && found <= end, || format!("{found} was found after the last record"))
}

/// A reader that asks for little at a time gets every record once.
pub async fn goes_on_where_a_chunk_ended(bench: &Bench<'_>) -> Result<()> {
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, 1).await?);
    let place = place(&topic, 0);
    let wanted = numbered("small", 50);
    for batch in wanted.chunks(20) {
        let records: Vec<Record> = batch.iter().map(|value| bench.record(value.clone())).collect();
        append(&*log, &place, &records).await?;
    }
    let bounds = log.bounds(&place).await?;
    for bytes_max in [1, 300, 1 << 20] {
        let mut next = bounds.start;
        let mut read = Vec::new();
        while next < bounds.end {
            let chunk = log.read(&Position { place: place.clone(), offset: next }, bytes_max).await?;
            ensure(chunk.next > next, || format!("a read at {next} stands still"))?;
            next = chunk.next;
            read.extend(chunk.entries.into_iter().map(|entry| entry.record.value));
        }
        same(&read, &wanted, &format!("records read with {bytes_max} bytes at a time"))?;
    }
    Ok(())
}

/// `wait_past` returns at once where there is something, else when something is appended.
pub async fn wakes_those_who_wait(bench: &Bench<'_>) -> Result<()> {
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, 1).await?);
    let place = place(&topic, 0);
    let first = append(&*log, &place, &[bench.record("a")]).await?;
    log.wait_past(&place, first.offset(0)).await?;
    let end = log.bounds(&place).await?.end;
    let waiting = pin!(log.wait_past(&place, end));
    let records = [bench.record("b")];
    let appending = pin!(append(&*log, &place, &records));
    match future::select(waiting, appending).await {
        Either::Left((woken, appending)) => {
            woken?;
            appending.await?;
        }
        Either::Right((appended, waiting)) => {
            appended?;
            waiting.await?;
        }
    }
    let grown = log.bounds(&place).await?.end;
    ensure(grown > end, || "a waiter was woken though nothing was appended".to_owned())
}
