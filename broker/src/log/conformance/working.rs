//! Cases of the worker loop: whatever fails, each raw record comes out once.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{select_all, try_join};
use tokio_util::sync::CancellationToken;

use super::{Bench, append, kept, place, read_all, same};
use crate::batch::BatchBuilder;
use crate::checkpoint::{Checkpoint, Place};
use crate::dead_letter::DeadLetter;
use crate::error::{Kind, Result};
use crate::log::faulty::{Faults, Faulty};
use crate::log::{Append, Chunk, Group, Log, Selection};
use crate::record::{Origin, Record};
use crate::sink::{Flushed, Rejection, Sink};
use crate::topic::{Confidentiality, Offset, Stage, Topic};
use crate::worker::Worker;

const SEEDS: std::ops::Range<u64> = 0..5;
const PARTITIONS: u32 = 2;
const BATCHES: usize = 24;
const PER_BATCH: usize = 9;
const REJECTED: &[u8] = b"bad";

/// A few seeds of [`routes_once`].
pub async fn routes_everything_once(bench: &Bench<'_>) -> Result<()> {
    for seed in SEEDS {
        routes_once(bench, seed).await?;
    }
    Ok(())
}

/// Routes records while everything fails as `seed` says; each one is in processed or dead exactly
/// once, in the order of its partition. The error names the seed.
pub async fn routes_once(bench: &Bench<'_>, seed: u64) -> Result<()> {
    let stream = bench.stream()?;
    let raw = stream.topic(Confidentiality::Green, Stage::Raw);
    let log = bench.log().await?;
    for stage in Stage::ALL {
        log.create(&stream.topic(Confidentiality::Green, stage), &kept(PARTITIONS)).await?;
    }
    let stop = CancellationToken::new();
    let group = bench.group(&format!("seed-{seed}"));
    let faulty = Faulty::new(log.clone(), seed, Faults::ALL);
    let working = work(bench, &faulty, (&raw, &group), &stop);
    let feeding = async {
        let fed = feed(bench, &*log, &raw).await;
        let watched = if fed.is_ok() { watch(&*log, &raw).await } else { fed };
        stop.cancel();
        watched
    };
    try_join(working, feeding).await.map_err(|error| error.context(format!("seed {seed}")))?;
    check(&*log, &raw, &group).await.map_err(|error| error.context(format!("seed {seed}")))
}

/// Opens a worker again and again until it is stopped.
async fn work(
    bench: &Bench<'_>,
    log: &Faulty,
    (raw, group): (&Topic, &Group),
    stop: &CancellationToken,
) -> Result<()> {
    while !stop.is_cancelled() {
        let share = (Selection::Topic(raw.clone()), group.clone());
        let sink = Box::<Route>::default();
        let done = match Worker::open(log, share, sink, bench.clock()).await {
            Ok(worker) => worker.run(stop.clone()).await,
            Err(error) => Err(error),
        };
        match done {
            Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Fenced) => {}
            done => return done,
        }
    }
    Ok(())
}

async fn feed(bench: &Bench<'_>, log: &dyn Log, raw: &Topic) -> Result<()> {
    for batch in 0..BATCHES {
        let records = (0..PER_BATCH).map(|index| {
            let number = batch * PER_BATCH + index;
            let prefix = if number.is_multiple_of(7) { "bad" } else { "good" };
            bench.record(format!("{prefix}-{number}"))
        });
        let partition = (batch % PARTITIONS as usize) as u32;
        append(log, &place(raw, partition), &records.collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// Returns once as many records came out as went in.
async fn watch(log: &dyn Log, raw: &Topic) -> Result<()> {
    let outputs = outputs(raw);
    loop {
        let mut count = 0;
        let mut ends = Vec::new();
        for place in &outputs {
            ends.push(log.bounds(place).await?.end);
            count += read_all(log, place).await?.len();
        }
        if count >= BATCHES * PER_BATCH {
            return Ok(());
        }
        let waiting = outputs.iter().zip(ends).map(|(place, end)| log.wait_past(place, end));
        select_all(waiting).await.0?;
    }
}

fn outputs(raw: &Topic) -> Vec<Place> {
    let topics = [Stage::Processed, Stage::Dead].into_iter().filter_map(|stage| raw.at(stage));
    topics.flat_map(|topic| (0..PARTITIONS).map(move |partition| place(&topic, partition))).collect()
}

async fn check(log: &dyn Log, raw: &Topic, group: &Group) -> Result<()> {
    let committed = log.committed(group, raw).await?;
    for place in outputs(raw) {
        let is_dead = place.topic.stage() == Some(Stage::Dead);
        let source = Place::new(raw.clone(), place.partition);
        let entries = read_all(log, &source).await?;
        let last = entries.last().map(|entry| entry.offset);
        super::ensure(committed.get(&source) > last, || format!("{source} was not committed to its end"))?;
        let wanted = entries.into_iter().filter(|entry| is_dead == is_rejected(&entry.record.value));
        let wanted: Vec<(Offset, Bytes)> = wanted.map(|entry| (entry.offset, entry.record.value)).collect();
        let mut found = Vec::new();
        for entry in read_all(log, &place).await? {
            let origin = entry.record.origin.map(|origin| origin.offset).unwrap_or_default();
            if is_dead {
                same(&DeadLetter::from_record(entry.record.clone())?.reason.as_str(), &"is bad", "reason")?;
            }
            found.push((origin, entry.record.value));
        }
        same(&found, &wanted, &format!("origins and values in {place}"))?;
    }
    Ok(())
}

fn is_rejected(value: &Bytes) -> bool {
    value.starts_with(REJECTED)
}

/// From raw to processed, as the router does it.
#[derive(Default)]
struct Route {
    staged: BTreeMap<Place, BatchBuilder>,
}

#[async_trait]
impl Sink for Route {
    async fn resume(&mut self, committed: &Checkpoint) -> Result<Checkpoint> {
        Ok(committed.clone())
    }

    async fn write(&mut self, chunks: Vec<Chunk>) -> Result<Vec<Rejection>> {
        let mut rejections = Vec::new();
        for Chunk { place, entries, .. } in chunks {
            let topic = place.topic.at(Stage::Processed).unwrap_or_else(|| place.topic.clone());
            let output = Place::new(topic, place.partition);
            for entry in entries {
                if is_rejected(&entry.record.value) {
                    let (place, reason) = (place.clone(), "is bad".to_owned());
                    rejections.push(Rejection { place, entry, reason, transform_version: 1 });
                } else {
                    let origin = Some(Origin { partition: place.partition, offset: entry.offset });
                    let record = Record { origin, ..entry.record };
                    self.staged.entry(output.clone()).or_default().push(&record);
                }
            }
        }
        Ok(rejections)
    }

    async fn flush(&mut self, upto: &Checkpoint) -> Result<Flushed> {
        let staged = std::mem::take(&mut self.staged).into_iter();
        let appends = staged.filter_map(|(place, batch)| Some(Append { place, batch: batch.finish()? }));
        Ok(Flushed { through: upto.clone(), appends: appends.collect() })
    }
}
