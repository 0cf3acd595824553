//! Single steps on the path of a record: what a pack of 500 flights costs to check, to encode, to decode,
//! to transform and to append; what a split costs to build and to publish, and questions to published
//! splits. Appends to Kafka are timed where `HEADWATER_TEST_KAFKA` names a broker.
//! `cargo bench --bench parts`
#![allow(missing_docs, reason = "the macro of the harness makes a public function")]

mod support;

use broker::catalog::Draft;
use broker::log::kafka::{KafkaLog, KafkaOptions};
use broker::time::SystemClock;
use broker::{Append, Batch, Clock, Extractor, Group, Offset, Record, Stage};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use indexer::Limits;
use serde::de::IgnoredAny;
use support::flights::{self, DATE_FORMAT, OF_A_BATCH};
use support::local::{Local, flights_stream, runtime};
use support::options::Options;
use support::questions::{Day, Question};
use support::searchable::Searchable;

const SPLIT_EVENTS: usize = 50_000;

const PROGRAM: &str = ".late = to_int!(.delay) > 15";

fn parts(criterion: &mut Criterion) {
    let pack = flights::packs(&Options::default(), OF_A_BATCH).remove(0);
    let now = SystemClock.now();
    let records: Vec<Record> = pack.iter().map(|flight| flight.record(now)).collect();
    let batch = Batch::of(&records).expect("a pack has flights");
    let mut group = criterion.benchmark_group("500 flights");
    group.throughput(Throughput::Elements(OF_A_BATCH as u64));

    let checks = |flight: &flights::Flight| serde_json::from_slice::<IgnoredAny>(&flight.value).is_ok();
    group.bench_function("check the syntax, bare", |bencher| {
        bencher.iter(|| pack.iter().filter(|flight| checks(flight)).count());
    });
    let extractor = Extractor::new(Some("date"), Some(DATE_FORMAT), Some("/origin")).expect("rules");
    group.bench_function("check, find time and key", |bencher| {
        bencher.iter(|| pack.iter().filter(|flight| extractor.extract(&flight.value).is_ok()).count());
    });
    group.bench_function("encode", |bencher| bencher.iter(|| Batch::of(&records)));
    group.bench_function("compress", |bencher| {
        bencher.iter(|| lz4_flex::compress_prepend_size(batch.bytes()));
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| batch.records().filter(Result::is_ok).count());
    });
    let transform = broker::transform::compile(Some(PROGRAM)).expect("the program compiles");
    group.bench_function("transform with a line of VRL", |bencher| {
        bencher.iter(|| records.iter().cloned().map(|record| transform.apply(record)).collect::<Vec<_>>());
    });
    group.finish();
}

/// A batch of 500 made durable by one who waits for it.
fn append(criterion: &mut Criterion) {
    let runtime = runtime();
    let batches = flights::batches(&flights::packs(&Options::default(), OF_A_BATCH), SystemClock.now());
    let mut group = criterion.benchmark_group("append 500 flights");
    group.throughput(Throughput::Elements(OF_A_BATCH as u64));
    let mut time = |name: &str, local: &Local| {
        let append = Append { place: local.place(Stage::Raw, 0), batch: batches[0].clone() };
        group.bench_function(name, |bencher| {
            let append = || runtime.block_on(local.log.append(vec![append.clone()])).expect("append");
            bencher.iter(append);
        });
        runtime.block_on(local.log.close()).expect("close the log");
    };
    time("sled", &runtime.block_on(Local::open(flights_stream(1))));
    #[allow(clippy::disallowed_methods, reason = "the broker is named by the script that started it")]
    if let Ok(brokers) = std::env::var("HEADWATER_TEST_KAFKA") {
        let dataset = format!("flights-{}", std::process::id());
        let draft = Draft { dataset, ..flights_stream(1) };
        let log = runtime.block_on(KafkaLog::open(KafkaOptions::at(brokers))).expect("open the log");
        time("Kafka", &runtime.block_on(Local::on(log, draft, support::scratch())));
    }
    group.finish();
}

/// A split of 50,000 flights, from the log to the object.
fn build_split(criterion: &mut Criterion) {
    let runtime = runtime();
    let packs = flights::packs(&Options::default(), SPLIT_EVENTS);
    let batches = flights::batches(&packs, SystemClock.now());
    let mut group = criterion.benchmark_group("split");
    group.throughput(Throughput::Elements(SPLIT_EVENTS as u64)).sample_size(10);
    let limits = Limits { split_events_max: SPLIT_EVENTS, ..Limits::default() };
    let fill = || {
        let local = runtime.block_on(Local::open(flights_stream(1)));
        runtime.block_on(local.load(Stage::Processed, &batches));
        local
    };
    group.bench_function("build and publish 50,000 flights", |bencher| {
        bencher.iter_batched(
            fill,
            |local| {
                let sink = local.indexer(limits.clone()).sink();
                let ends = [Offset(SPLIT_EVENTS as u64)];
                runtime.block_on(local.work((Stage::Processed, Group::INDEX), sink, &ends));
                local
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// Questions to published splits of 200,000 flights.
fn query(criterion: &mut Criterion) {
    let runtime = runtime();
    let packs = flights::packs(&Options::default(), 200_000);
    let searchable = runtime.block_on(Searchable::publish(&packs));
    let day = Day::middle(&packs);
    let mut group = criterion.benchmark_group("query");
    for (name, question) in Question::ALL {
        let path = question.path(&day);
        group.bench_function(name, |bencher| bencher.iter(|| searchable.ask(&runtime, &path)));
    }
    let first = &day.path();
    let later = searchable.later_page(&runtime, first, 50);
    for (name, path) in [("the first page of a day", first), ("page 50 by cursor", &later)] {
        group.bench_function(name, |bencher| bencher.iter(|| searchable.ask(&runtime, path)));
    }
    group.finish();
}

criterion_group!(benches, parts, append, build_split, query);
criterion_main!(benches);
