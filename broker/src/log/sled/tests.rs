//! What only the log on sled promises.

mod damage;
mod retention;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tempfile::TempDir;

use super::*;
use crate::batch::Batch;
use crate::log::{Entry, Parcel};
use crate::record::Record;
use crate::time::ManualClock;
use crate::topic::{Cleanup, Partition};

const START_MILLIS: i64 = 1_700_000_000_000;

struct Bench {
    directory: TempDir,
    clock: Arc<ManualClock>,
    place: Place,
}

impl Bench {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(START_MILLIS).unwrap()));
        let place = Place::new(Topic::internal("numbers"), Partition(0));
        Self { directory: tempfile::tempdir().unwrap(), clock, place }
    }

    async fn open(&self) -> Arc<SledLog> {
        self.try_open().await.unwrap()
    }

    async fn try_open(&self) -> Result<Arc<SledLog>> {
        SledLog::open(SledOptions::at(self.directory.path()), self.clock.clone()).await
    }

    /// A new log with the topic in it.
    async fn create(&self, cleanup: Cleanup) -> Arc<SledLog> {
        let log = self.open().await;
        log.create(&self.place.topic, &TopicConfig { partitions: 1, cleanup }).await.unwrap();
        log
    }

    fn record(&self, value: impl Into<Bytes>) -> Record {
        Record::new(value, self.clock.now())
    }

    async fn append(&self, log: &SledLog, records: &[Record]) -> Result<Offset> {
        let append = Append { place: self.place.clone(), batch: Batch::of(records).unwrap() };
        Ok(log.append(vec![append]).await?[0].offset(0))
    }

    async fn read_from(&self, log: &SledLog, offset: u64) -> Result<Vec<Entry>> {
        let mut next = Offset(offset);
        let mut entries = Vec::new();
        loop {
            let chunk = log.read(&Position { place: self.place.clone(), offset: next }, 1 << 20).await?;
            if chunk.next == next {
                return Ok(entries);
            }
            next = chunk.next;
            entries.extend(chunk.entries);
        }
    }

    /// Opens the tree of a closed log and changes it.
    fn alter<T>(&self, change: impl FnOnce(&sled::Db) -> T) -> T {
        let db = store::open_db(&SledOptions::at(self.directory.path())).unwrap();
        let done = change(&db);
        db.flush().unwrap();
        done
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    StdRng::seed_from_u64(length as u64).fill_bytes(&mut bytes);
    bytes.into()
}

fn files_in(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

fn records_of(entries: Vec<Entry>) -> Vec<Record> {
    entries.into_iter().map(|entry| entry.record).collect()
}

#[tokio::test]
async fn keeps_large_records_out_of_files_that_are_never_synced() {
    let bench = Bench::new();
    let log = bench.create(Cleanup::Keep).await;
    let blobs = bench.directory.path().join("blobs");
    let mut wanted = Vec::new();
    for size in [1 << 20, 5_000, 1 << 20, 300_000, 4_096, 4_014, 4_015, 1] {
        let record = bench.record(noise(size));
        bench.append(&log, std::slice::from_ref(&record)).await.unwrap();
        wanted.push(record);
    }
    let together: Vec<Record> = (0..8).map(|index| bench.record(noise(200_000 + index))).collect();
    bench.append(&log, &together).await.unwrap();
    wanted.extend(together);
    assert_eq!(files_in(&blobs), 0);
    log.close().await.unwrap();
    assert_eq!(files_in(&blobs), 0);
    let widest = bench.alter(|db| db.iter().map(|entry| entry.unwrap().1.len()).max());
    assert_eq!(widest, Some(block::PIECE_BYTES_MAX));
    let log = bench.open().await;
    assert!(records_of(bench.read_from(&log, 0).await.unwrap()) == wanted);
}

#[tokio::test]
async fn refuses_a_directory_that_is_in_use() {
    let bench = Bench::new();
    let log = bench.open().await;
    let error = bench.try_open().await.err().unwrap();
    assert_eq!(error.kind(), Kind::Conflict);
    let directory = bench.directory.path().to_string_lossy().into_owned();
    assert!(error.message().contains(&directory), "{error}");
    drop(log);
    assert!(bench.try_open().await.is_ok());
}

#[tokio::test]
async fn refuses_a_log_of_another_format_by_name() {
    let bench = Bench::new();
    bench.open().await.close().await.unwrap();
    bench.alter(|db| db.insert(key::FORMAT, b"1").unwrap());
    let error = bench.try_open().await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains("another version of the log's format"), "{error}");
}

#[tokio::test]
async fn writes_more_than_the_queue_holds() {
    let bench = Bench::new();
    let options = SledOptions { queue_bytes_max: 1 << 10, ..SledOptions::at(bench.directory.path()) };
    let log = SledLog::open(options, bench.clock.clone()).await.unwrap();
    let config = TopicConfig { partitions: 1, cleanup: Cleanup::Keep };
    log.create(&bench.place.topic, &config).await.unwrap();
    let wanted: Vec<Record> = (0..40).map(|index| bench.record(noise(index * 3_000))).collect();
    let appended = join_all(wanted.iter().map(|record| bench.append(&log, std::slice::from_ref(record))));
    let appended: Result<Vec<Offset>> = appended.await.into_iter().collect();
    assert_eq!(appended.unwrap(), (0..40).map(Offset).collect::<Vec<_>>());
    assert!(records_of(bench.read_from(&log, 0).await.unwrap()) == wanted);
}

#[tokio::test]
async fn an_append_that_is_dropped_is_written_whole_or_not_at_all() {
    let bench = Bench::new();
    let log = bench.create(Cleanup::Keep).await;
    for index in 0..50 {
        let records: Vec<Record> = (0..3).map(|_| bench.record(noise(index * 2_000))).collect();
        assert!(bench.append(&log, &records).now_or_never().is_none_or(|appended| appended.is_ok()));
    }
    let last = bench.append(&log, &[bench.record("last")]).await.unwrap();
    assert_eq!(last.0 % 3, 0);
    let entries = bench.read_from(&log, 0).await.unwrap();
    assert_eq!(entries.len() as u64, last.0 + 1);
}

#[tokio::test]
async fn a_closed_log_is_unavailable_to_those_who_wait_and_those_who_come() {
    let bench = Bench::new();
    let log = bench.create(Cleanup::Keep).await;
    let selection = Selection::Topic(bench.place.topic.clone());
    let mut reader = log.subscribe(selection, &Group::ROUTER).await.unwrap();
    let waiting = log.wait_past(&bench.place, Offset(0));
    let (waited, next, closed) = futures::join!(waiting, reader.next(1_000), log.close());
    closed.unwrap();
    assert_eq!(waited.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(next.unwrap_err().kind(), Kind::Unavailable);
    let late = bench.append(&log, &[bench.record("late")]).await;
    assert_eq!(late.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(bench.read_from(&log, 0).await.unwrap_err().kind(), Kind::Unavailable);
    log.close().await.unwrap();
}

#[tokio::test]
async fn a_deleted_topic_leaves_nothing_behind() {
    let bench = Bench::new();
    let log = bench.create(Cleanup::Compact).await;
    for _ in 0..4 {
        bench.append(&log, &[bench.record(noise(1 << 20)).with_key("k")]).await.unwrap();
    }
    log.trim().await.unwrap();
    let selection = Selection::Topic(bench.place.topic.clone());
    let mut reader = log.subscribe(selection, &Group::ROUTER).await.unwrap();
    let upto: Checkpoint = [(bench.place.clone(), Offset(1))].into_iter().collect();
    reader.commit(&upto, Vec::new()).await.unwrap();
    log.delete(&bench.place.topic).await.unwrap();
    log.trim().await.unwrap();
    log.close().await.unwrap();
    let keys = bench.alter(|db| db.iter().keys().map(|key| key.unwrap().to_vec()).collect::<Vec<_>>());
    assert_eq!(keys, [key::FORMAT.to_vec(), key::NEXT_TOPIC.to_vec()]);
}

#[tokio::test]
async fn whoever_sees_progress_finds_what_was_committed_with_it() {
    let bench = Bench::new();
    let log = bench.create(Cleanup::Keep).await;
    let output = Place::new(Topic::internal("outputs"), Partition(0));
    log.create(&output.topic, &TopicConfig { partitions: 1, cleanup: Cleanup::Keep }).await.unwrap();
    let selection = Selection::Topic(bench.place.topic.clone());
    let mut reader = log.subscribe(selection, &Group::ROUTER).await.unwrap();
    let batch = Batch::of(&[bench.record("output")]).unwrap();
    for commit in 1..=100 {
        let upto: Checkpoint = [(bench.place.clone(), Offset(commit))].into_iter().collect();
        let committing = reader.commit(&upto, vec![Append { place: output.clone(), batch: batch.clone() }]);
        let watching = async {
            while log.committed(&Group::ROUTER, &bench.place.topic).await.unwrap() != upto {
                tokio::task::yield_now().await;
            }
            assert_eq!(log.bounds(&output).await.unwrap().end, Offset(commit));
        };
        futures::join!(committing, watching).0.unwrap();
    }
}

#[tokio::test]
async fn what_was_read_ahead_comes_once_and_not_at_all_where_the_reader_was_moved() {
    let bench = Bench::new();
    let log = bench.create(Cleanup::Keep).await;
    for at in 0..60 {
        let records: Vec<Record> = (0..5).map(|n| bench.record(noise(500 + at + n))).collect();
        bench.append(&log, &records).await.unwrap();
    }
    let selection = Selection::Topic(bench.place.topic.clone());
    let mut reader = log.subscribe(selection, &Group::new("ahead")).await.unwrap();
    let mut firsts = Vec::new();
    let mut next = 0;
    while next < 300 {
        let parcels = reader.next_parcels(10_000).await.unwrap();
        assert_eq!(parcels.iter().filter_map(Parcel::first).next(), Some(Offset(next)));
        firsts.push(next);
        next = parcels.last().unwrap().next.0;
    }
    assert!(firsts.len() > 10, "{firsts:?}");
    for to in [100, 3, 290, 7] {
        reader.seek(&[(bench.place.clone(), Offset(to))].into_iter().collect()).await.unwrap();
        let chunks = reader.next(10_000).await.unwrap();
        assert_eq!(chunks[0].entries[0].offset, Offset(to));
        let after = chunks.last().unwrap().next;
        if after < Offset(300) {
            assert_eq!(reader.next_parcels(10_000).await.unwrap()[0].first(), Some(after));
        }
    }
    log.delete(&bench.place.topic).await.unwrap();
    assert!(reader.next_parcels(10_000).now_or_never().is_none(), "nothing of a deleted topic comes");
    let config = TopicConfig { partitions: 1, cleanup: Cleanup::Keep };
    log.create(&bench.place.topic, &config).await.unwrap();
    let record = bench.record("1");
    bench.append(&log, std::slice::from_ref(&record)).await.unwrap();
    let chunks = reader.next(10_000).await.unwrap();
    assert_eq!(chunks[0].entries, [Entry { offset: Offset(0), record }]);
}
