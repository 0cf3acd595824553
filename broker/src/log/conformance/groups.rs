//! Cases of groups and their readers.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;

use super::{
    Bench, append, ensure, fails, kept, numbered, place, read_all, same, take, to, values, values_of,
};
use crate::batch::Batch;
use crate::checkpoint::Checkpoint;
use crate::error::{Kind, Result};
use crate::log::{Append, Entry, Log, Run, Selection};
use crate::record::{Origin, Record};
use crate::topic::{Confidentiality, Offset, Partition, Stage, Topic};

async fn fill(bench: &Bench<'_>, log: &dyn Log, topic: &Topic, values: &[Bytes]) -> Result<()> {
    let records: Vec<Record> = values.iter().map(|value| bench.record(value.clone())).collect();
    append(log, &place(topic, 0), &records).await?;
    Ok(())
}

/// A topic of the selected stage that is made after the reader joined shows up.
pub async fn sees_topics_made_later(bench: &Bench<'_>) -> Result<()> {
    let log = bench.log().await?;
    let mut reader = log.subscribe(Selection::Stage(Stage::Raw), &bench.group("g")).await?;
    let topic = bench.topic(Stage::Raw, 1).await?;
    let other = bench.topic(Stage::Processed, 1).await?;
    fill(bench, &*log, &other, &numbered("other", 3)).await?;
    fill(bench, &*log, &topic, &numbered("late", 3)).await?;
    let (taken, _) = take(&mut *reader, &topic, 3).await?;
    same(&values_of(&taken), &numbered("late", 3), "records of a topic made later")
}

/// After a reopening a group reads on where it committed.
pub async fn resumes_where_it_committed(bench: &Bench<'_>) -> Result<()> {
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, 1).await?);
    let (group, place) = (bench.group("g"), place(&topic, 0));
    fill(bench, &*log, &topic, &numbered("r", 10)).await?;
    let mut reader = log.subscribe(Selection::Topic(topic.clone()), &group).await?;
    ensure(reader.committed().get(&place).is_none(), || "a new group has progress".to_owned())?;
    let (taken, _) = take(&mut *reader, &topic, 10).await?;
    let upto: Checkpoint = [(place.clone(), taken[4].1.offset)].into_iter().collect();
    reader.commit(&upto, Vec::new()).await?;
    same(&reader.committed().get(&place), &upto.get(&place), "committed, of the reader")?;
    drop((reader, log));

    let log = bench.reopen().await?;
    same(&log.committed(&group, &topic).await?, &upto, "committed, after a reopening")?;
    let mut reader = log.subscribe(Selection::Topic(topic.clone()), &group).await?;
    let (taken, _) = take(&mut *reader, &topic, 6).await?;
    same(&values_of(&taken), &numbered("r", 10)[4..].to_vec(), "records after a reopening")?;
    same(&reader.committed().get(&place), &upto.get(&place), "committed, of the new reader")
}

/// A call of `next` that is dropped before it returns takes nothing with it.
pub async fn loses_nothing_when_next_is_dropped(bench: &Bench<'_>) -> Result<()> {
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, 1).await?);
    let mut reader = log.subscribe(Selection::Topic(topic.clone()), &bench.group("g")).await?;
    let wanted = numbered("n", 30);
    let mut read = Vec::new();
    for batch in wanted.chunks(3) {
        fill(bench, &*log, &topic, batch).await?;
        for call in 0..6 {
            // Either kind of call may take over what a dropped one of the other kind began.
            if call % 2 == 0
                && let Some(chunks) = reader.next(1 << 20).now_or_never()
            {
                read.extend(chunks?.into_iter().flat_map(|chunk| chunk.entries));
            } else if let Some(parcels) = reader.next_parcels(1 << 20).now_or_never() {
                for parcel in parcels? {
                    read.extend(parcel.open()?.entries);
                }
            }
            tokio::task::yield_now().await;
        }
    }
    let left = wanted.len() - read.len();
    let mut read: Vec<Bytes> = read.into_iter().map(|entry| entry.record.value).collect();
    read.extend(values_of(&take(&mut *reader, &topic, left).await?.0));
    same(&read, &wanted, "records, though calls were dropped")
}

/// A reader can be moved back and forth.
pub async fn seeks_back_and_forth(bench: &Bench<'_>) -> Result<()> {
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, 1).await?);
    let place = place(&topic, 0);
    let all = numbered("s", 20);
    fill(bench, &*log, &topic, &all).await?;
    let mut reader = log.subscribe(Selection::Topic(topic.clone()), &bench.group("g")).await?;
    let (taken, _) = take(&mut *reader, &topic, 20).await?;
    for index in [0, 15, 3, 19] {
        let to: Checkpoint = [(place.clone(), taken[index].1.offset)].into_iter().collect();
        reader.seek(&to).await?;
        let (again, _) = take(&mut *reader, &topic, 20 - index).await?;
        same(&values_of(&again), &all[index..].to_vec(), &format!("records from number {index}"))?;
    }
    Ok(())
}

/// A reader that was handed nothing knows its share, and sets the group's progress in it back.
pub async fn sets_progress_back_with_outputs(bench: &Bench<'_>) -> Result<()> {
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Processed, 2).await?);
    let (output, other) = (bench.topic(Stage::Dead, 1).await?, bench.topic(Stage::Raw, 1).await?);
    let (group, idle) = (bench.group("g"), place(&topic, 0));
    let all = numbered("b", 8);
    fill(bench, &*log, &topic, &all).await?;
    let mut reader = log.subscribe(Selection::Topic(topic.clone()), &group).await?;
    let (taken, reached) = take(&mut *reader, &topic, 8).await?;
    reader.commit(&reached, Vec::new()).await?;
    drop((reader, log));

    let log = bench.reopen().await?;
    let mut reader = log.subscribe(Selection::Topic(topic.clone()), &group).await?;
    for place in [&idle, &place(&topic, 1)] {
        while !reader.holds(place) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    ensure(!reader.holds(&place(&other, 0)), || "a reader holds what it did not select".to_owned())?;
    let back: Checkpoint =
        [(idle.clone(), taken[3].1.offset), (place(&topic, 1), Offset(0))].into_iter().collect();
    reader.seek(&back).await?;
    reader.commit(&back, vec![to(&place(&output, 0), &[bench.record("went back")])?]).await?;
    same(&reader.committed().get(&idle), &back.get(&idle), "committed, of the reader")?;
    let (again, _) = take(&mut *reader, &topic, 5).await?;
    same(&values_of(&again), &all[3..].to_vec(), "records after going back")?;
    drop((reader, log));

    let log = bench.reopen().await?;
    same(&log.committed(&group, &topic).await?.get(&idle), &back.get(&idle), "progress")?;
    same(&values(&*log, &place(&output, 0)).await?, &vec!["went back".into()], "output")
}

/// Outputs are there exactly if the progress is, also after a reopening.
pub async fn commits_outputs_with_progress(bench: &Bench<'_>) -> Result<()> {
    let (log, raw) = (bench.log().await?, bench.topic(Stage::Raw, 1).await?);
    let (processed, group) = (bench.topic(Stage::Processed, 2).await?, bench.group("g"));
    fill(bench, &*log, &raw, &numbered("in", 4)).await?;
    let mut reader = log.subscribe(Selection::Topic(raw.clone()), &group).await?;
    let (_, reached) = take(&mut *reader, &raw, 4).await?;
    let outputs = vec![
        to(&place(&processed, 0), &[bench.record("out 0")])?,
        to(&place(&processed, 1), &[bench.record("out 1")])?,
    ];
    reader.commit(&reached, outputs).await?;
    for reopened in [false, true] {
        let log = if reopened { bench.reopen().await? } else { log.clone() };
        same(&log.committed(&group, &raw).await?, &reached, "progress")?;
        same(&values(&*log, &place(&processed, 0)).await?, &vec!["out 0".into()], "output 0")?;
        same(&values(&*log, &place(&processed, 1)).await?, &vec!["out 1".into()], "output 1")?;
    }
    Ok(())
}

/// What is handed on without a look into it is there as it was read, with the origins said for it.
pub async fn passes_on_what_it_read(bench: &Bench<'_>) -> Result<()> {
    let (log, raw) = (bench.log().await?, bench.topic(Stage::Raw, 1).await?);
    let (processed, group) = (bench.topic(Stage::Processed, 1).await?, bench.group("g"));
    let (from, output) = (place(&raw, 0), place(&processed, 0));
    for batch in numbered("passed", 90).chunks(30) {
        fill(bench, &*log, &raw, batch).await?;
    }
    let mut reader = log.subscribe(Selection::Topic(raw.clone()), &group).await?;
    let mut left = 90_usize;
    while left > 0 {
        let (mut reached, mut outputs) = (Checkpoint::new(), Vec::new());
        for parcel in reader.next_parcels(2_000).await? {
            reached.set(parcel.place.clone(), parcel.next);
            for run in parcel.runs {
                let batch = with_origins(from.partition, run);
                left = left.saturating_sub(batch.as_ref().map_or(0, |batch| batch.count() as usize));
                outputs.extend(batch.map(|batch| Append { place: output.clone(), batch }));
            }
        }
        reader.commit(&reached, outputs).await?;
    }
    let origin = |entry: &Entry| Some(Origin { partition: from.partition, offset: entry.offset });
    let wanted = read_all(&*log, &from).await?.into_iter();
    let wanted: Vec<Record> = wanted.map(|entry| Record { origin: origin(&entry), ..entry.record }).collect();
    for reopened in [false, true] {
        let log = if reopened { bench.reopen().await? } else { log.clone() };
        let found: Vec<Record> =
            read_all(&*log, &output).await?.into_iter().map(|entry| entry.record).collect();
        same(&found, &wanted, "records that were passed on")?;
    }
    Ok(())
}

fn with_origins(partition: Partition, run: Run) -> Option<Batch> {
    match run {
        Run::Batch { first, batch } => Some(batch.with_origins_from(Origin { partition, offset: first })),
        Run::Entries(entries) => {
            let records = entries.into_iter().map(|Entry { offset, record }| Record {
                origin: Some(Origin { partition, offset }),
                ..record
            });
            Batch::of(&records.collect::<Vec<_>>())
        }
    }
}

/// Whoever sees progress finds what was committed with it: bounds that are taken after it, and
/// records below them.
pub async fn shows_progress_only_with_its_outputs(bench: &Bench<'_>) -> Result<()> {
    let (log, raw) = (bench.log().await?, bench.topic(Stage::Raw, 1).await?);
    let (processed, group) = (bench.topic(Stage::Processed, 1).await?, bench.group("g"));
    let (from, output) = (place(&raw, 0), place(&processed, 0));
    fill(bench, &*log, &raw, &numbered("in", 20)).await?;
    let mut reader = log.subscribe(Selection::Topic(raw.clone()), &group).await?;
    let (taken, _) = take(&mut *reader, &raw, 20).await?;
    for (index, (_, entry)) in taken.iter().enumerate() {
        let upto: Checkpoint = [(from.clone(), entry.offset.next())].into_iter().collect();
        let committing = reader.commit(&upto, vec![to(&output, &[bench.record("out")])?]);
        let watching = async {
            while log.committed(&group, &raw).await? != upto {
                tokio::task::yield_now().await;
            }
            let end = log.bounds(&output).await?.end;
            let found = read_all(&*log, &output).await?;
            let below = found.iter().filter(|entry| entry.offset < end).count();
            same(&below, &(index + 1), "outputs below the end, once the progress shows")
        };
        let (committed, watched) = futures::join!(committing, watching);
        committed.and(watched)?;
    }
    Ok(())
}

/// If one output cannot be written, neither the others nor the progress are.
pub async fn writes_nothing_without_every_output(bench: &Bench<'_>) -> Result<()> {
    let (log, raw) = (bench.log().await?, bench.topic(Stage::Raw, 1).await?);
    let (processed, group) = (bench.topic(Stage::Processed, 1).await?, bench.group("g"));
    let missing = bench.stream()?.topic(Confidentiality::Green, Stage::Processed);
    fill(bench, &*log, &raw, &numbered("in", 2)).await?;
    let mut reader = log.subscribe(Selection::Topic(raw.clone()), &group).await?;
    let (_, reached) = take(&mut *reader, &raw, 2).await?;
    let outputs = vec![
        to(&place(&processed, 0), &[bench.record("out")])?,
        to(&place(&missing, 0), &[bench.record("lost")])?,
    ];
    fails(reader.commit(&reached, outputs).await, Kind::NotFound, "commit with a missing output")?;
    ensure(log.committed(&group, &raw).await?.is_empty(), || "progress without outputs".to_owned())?;
    ensure(read_all(&*log, &place(&processed, 0)).await?.is_empty(), || "half a commit".to_owned())?;
    fill(bench, &*log, &processed, &numbered("after", 1)).await
}

/// A newer reader takes over: the one before it is `Fenced`, also while it waits, and writes
/// nothing. There are two partitions because where members share a group, the new one is given only
/// one of them; the old one then lets go of the other.
pub async fn fences_the_reader_before(bench: &Bench<'_>) -> Result<()> {
    let (log, raw) = (bench.log().await?, bench.topic(Stage::Raw, 2).await?);
    let (processed, group) = (bench.topic(Stage::Processed, 1).await?, bench.group("g"));
    let selection = Selection::Topic(raw.clone());
    for (partition, value) in (0..).zip(numbered("in", 2)) {
        append(&*log, &place(&raw, partition), &[bench.record(value)]).await?;
    }
    let mut old = log.subscribe(selection.clone(), &group).await?;
    let (_, reached) = take(&mut *old, &raw, 2).await?;

    let (waited, new) = futures::join!(old.next(1_000), log.subscribe(selection, &group));
    let mut new = new?;
    let mut taken = values_of(&take(&mut *new, &raw, 2).await?.0);
    taken.sort();
    same(&taken, &numbered("in", 2), "records of the new reader")?;
    fails(waited, Kind::Fenced, "next of a fenced reader that waits")?;
    fails(old.next(1_000).await, Kind::Fenced, "next of a fenced reader")?;
    let outputs = vec![to(&place(&processed, 0), &[bench.record("out")])?];
    fails(old.commit(&reached, outputs).await, Kind::Fenced, "commit of a fenced reader")?;
    ensure(log.committed(&group, &raw).await?.is_empty(), || "a fenced reader made progress".to_owned())?;
    let written = read_all(&*log, &place(&processed, 0)).await?;
    ensure(written.is_empty(), || "a fenced reader wrote".to_owned())?;
    new.commit(&reached, Vec::new()).await
}

/// Groups do not see each other's progress.
pub async fn keeps_groups_apart(bench: &Bench<'_>) -> Result<()> {
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, 1).await?);
    fill(bench, &*log, &topic, &numbered("x", 5)).await?;
    let selection = Selection::Topic(topic.clone());
    let (group_a, group_b) = (bench.group("a"), bench.group("ab"));
    let mut first = log.subscribe(selection.clone(), &group_a).await?;
    let (_, reached) = take(&mut *first, &topic, 5).await?;
    first.commit(&reached, Vec::new()).await?;
    let mut second = log.subscribe(selection, &group_b).await?;
    let (taken, _) = take(&mut *second, &topic, 5).await?;
    same(&values_of(&taken), &numbered("x", 5), "records of the second group")?;
    same(&log.committed(&group_a, &topic).await?, &reached, "progress of the first group")?;
    ensure(log.committed(&group_b, &topic).await?.is_empty(), || "progress of another group".to_owned())
}

/// A deleted topic vanishes from readers; progress in it is dropped, the rest of a commit is not.
pub async fn goes_on_when_a_topic_is_deleted(bench: &Bench<'_>) -> Result<()> {
    let log = bench.log().await?;
    let (doomed, staying) = (bench.topic(Stage::Dead, 1).await?, bench.topic(Stage::Dead, 1).await?);
    let group = bench.group("g");
    fill(bench, &*log, &doomed, &numbered("d", 2)).await?;
    let mut reader = log.subscribe(Selection::Stage(Stage::Dead), &group).await?;
    let (_, mut reached) = take(&mut *reader, &doomed, 2).await?;
    fill(bench, &*log, &doomed, &numbered("unread", 2)).await?;
    log.delete(&doomed).await?;
    fill(bench, &*log, &staying, &numbered("s", 3)).await?;
    let (taken, staying_reached) = take(&mut *reader, &staying, 3).await?;
    same(&values_of(&taken), &numbered("s", 3), "records of the topic that stays")?;
    reached.merge(&staying_reached);
    reader.commit(&reached, Vec::new()).await?;
    same(&log.committed(&group, &staying).await?, &staying_reached, "progress in the topic that stays")?;

    log.create(&doomed, &kept(1)).await?;
    fill(bench, &*log, &doomed, &numbered("again", 1)).await?;
    let (taken, _) = take(&mut *reader, &doomed, 1).await?;
    same(&values_of(&taken), &numbered("again", 1), "records of the topic made again")?;
    same(&taken[0].1.offset, &Offset(0), "offset in the topic made again")
}

/// A reader of many partitions gets all of each, in order.
pub async fn reads_many_partitions_in_turn(bench: &Bench<'_>) -> Result<()> {
    const PARTITIONS: u32 = 16;
    const RECORDS: usize = 40;
    let (log, topic) = (bench.log().await?, bench.topic(Stage::Raw, PARTITIONS).await?);
    for partition in 0..PARTITIONS {
        let records = numbered("m", RECORDS).into_iter().map(|value| bench.record(value));
        append(&*log, &place(&topic, partition), &records.collect::<Vec<_>>()).await?;
    }
    let mut reader = log.subscribe(Selection::Topic(topic.clone()), &bench.group("g")).await?;
    let mut read: BTreeMap<u32, Vec<Bytes>> = BTreeMap::new();
    let mut left = RECORDS * PARTITIONS as usize;
    while left > 0 {
        for chunk in reader.next(2_000).await? {
            left = left.saturating_sub(chunk.entries.len());
            let own = read.entry(chunk.place.partition.0).or_default();
            own.extend(chunk.entries.into_iter().map(|entry| entry.record.value));
        }
    }
    for partition in 0..PARTITIONS {
        same(&read.remove(&partition), &Some(numbered("m", RECORDS)), &format!("partition {partition}"))?;
    }
    Ok(())
}
