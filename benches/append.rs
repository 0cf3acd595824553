//! Appends of 500 flights to the sled log, beside the same bytes given to sled itself with one flush
//! and one fdatasync.

#![allow(missing_docs, reason = "the macro of the harness makes a public function")]

use std::fs::File;
use std::sync::Arc;

use broker::log::sled::{SledLog, SledOptions};
use broker::time::SystemClock;
use broker::topic::Cleanup;
use broker::{Append, Batch, Clock, Log, Partition, Place, Record, Topic, TopicConfig};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const BATCH: usize = 500;
const VALUE_BYTES: usize = 4 << 10;

fn flights() -> Batch {
    let now = SystemClock.now();
    let flight = |number: usize| {
        format!(
            r#"{{"date":"2001/01/{:02} 00:{:02}","delay":{},"distance":{},"origin":"DTW","destination":"LAS"}}"#,
            1 + number % 28,
            number % 60,
            number % 90,
            200 + number
        )
    };
    let records: Vec<Record> = (0..BATCH).map(|number| Record::new(flight(number), now)).collect();
    Batch::of(&records).expect("the batch has records")
}

fn append(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("start the runtime");
    let folder = tempfile::tempdir().expect("make a folder");
    let log = runtime
        .block_on(SledLog::open(SledOptions::at(folder.path().join("log")), Arc::new(SystemClock)))
        .expect("open the log");
    let place = Place::new(Topic::internal("bench"), Partition(0));
    let config = TopicConfig { partitions: 1, cleanup: Cleanup::Keep };
    runtime.block_on(log.create(&place.topic, &config)).expect("make the topic");
    let batch = flights();

    let mut group = criterion.benchmark_group("append 500 flights, durable");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("log", |bencher| {
        bencher.iter(|| {
            let append = Append { place: place.clone(), batch: batch.clone() };
            runtime.block_on(log.append(vec![append])).expect("append")
        });
    });
    let raw =
        sled::Config::new().path(folder.path().join("raw")).flush_every_ms(None).open().expect("open sled");
    let file = File::open(folder.path().join("raw/db")).expect("open sled's file");
    let mut next = 0_u64;
    group.bench_function("raw sled", |bencher| {
        bencher.iter(|| {
            let compressed = lz4_flex::compress_prepend_size(batch.bytes());
            let mut writes = sled::Batch::default();
            for piece in compressed.chunks(VALUE_BYTES) {
                writes.insert(&next.to_be_bytes(), piece);
                next += 1;
            }
            raw.apply_batch(writes).expect("write");
            raw.flush().expect("flush");
            file.sync_data().expect("sync");
        });
    });
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
