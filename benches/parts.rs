//! Single functions on the path of a record: what a pack of 500 flights costs to check, to encode, to
//! decode and to transform. `cargo bench --bench parts`
#![allow(missing_docs, reason = "the macro of the harness makes a public function")]

mod support;

use broker::{Batch, Clock, Extractor, Record};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde::de::IgnoredAny;
use support::flights::{self, DATE_FORMAT, OF_A_BATCH};
use support::options::Options;

const PROGRAM: &str = ".late = to_int!(.delay) > 15";

fn parts(criterion: &mut Criterion) {
    let pack = flights::packs(&Options::default(), OF_A_BATCH).remove(0);
    let now = broker::time::SystemClock.now();
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

criterion_group!(benches, parts);
criterion_main!(benches);
