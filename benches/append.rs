//! Durable appends of 500 flights to the log on sled, beside sled with nothing around it.
//! `cargo bench --bench append -- [--quick]`

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use broker::{Append, Batch, Clock, Stage};
use bytes::Bytes;
use support::figures::{Results, Row};
use support::flights::{self, Flight, OF_A_BATCH};
use support::local::{Local, flights_stream, runtime};
use support::options::Options;
use support::pair::{Sample, alternate};
use support::process;
use support::raw_log::RawLog;
use support::scratch;

const PARTITIONS: u32 = 4;
/// Batches that are sent again and again.
const DISTINCT: usize = 200;
const DISK: &str = "disk, log on sled";
const ZSTD_LEVEL: i32 = 1;

fn main() {
    let options = Options::read();
    let results = Results::of("append", &options);
    let packs = flights::packs(&options, DISTINCT * OF_A_BATCH);
    let lines: Vec<Bytes> = packs.iter().map(|pack| flights::ndjson(pack).into()).collect();
    let now = broker::time::SystemClock.now();
    let batches = flights::batches(&packs, now);
    if options.wants(DISK) {
        disk(&results, &flights::packs(&options, options.events(1_000_000, 500_000)));
    }
    for (producers, full, quick) in [(1, 1_000_000, 100_000), (16, 5_000_000, 1_000_000)] {
        let name = format!("sled append, batches of 500, {producers} at a time");
        if !options.wants(&name) {
            continue;
        }
        eprintln!("{name}");
        let count = options.events(full, quick) / OF_A_BATCH;
        let pairs = alternate(
            options.rounds(),
            || ours(&batches, producers, count),
            || raw(&lines, producers, count),
        );
        let row = Row { name: &name, against: "raw sled, lz4, group commit", goal: "", cpu_goal: "" };
        results.rates(row, &pairs);
    }
}

/// What the log takes on the disk, and what the events do by themselves, compressed.
fn disk(results: &Results, packs: &[Vec<Flight>]) {
    let runtime = runtime();
    let local = runtime.block_on(Local::open(flights_stream(PARTITIONS)));
    let folder = local.folder.path().join("log");
    let empty = process::disk_bytes(&folder);
    let now = local.clock.now();
    let batches = flights::batches(packs, now);
    runtime.block_on(local.load(Stage::Raw, &batches));
    runtime.block_on(local.log.close()).expect("close the log");
    let count = (packs.len() * OF_A_BATCH) as f64;
    let ours = process::disk_bytes(&folder).saturating_sub(empty) as f64 / count;
    let lines: Vec<u8> = packs.iter().flat_map(|pack| flights::ndjson(pack)).collect();
    let raw = zstd::encode_all(lines.as_slice(), ZSTD_LEVEL).expect("compress").len() as f64 / count;
    let row = Row { name: DISK, against: "the events as one file, zstd-1", goal: "", cpu_goal: "" };
    results.beside(row, ("size", "bytes/event", "≤ 1.3"), (vec![ours], vec![raw]), count as u64);
}

/// Lets producers take numbers below `count` until none is left.
fn produce(producers: usize, count: usize, append: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let produce = || {
        while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < count) {
            append(number);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..producers {
            scope.spawn(produce);
        }
    });
}

fn ours(batches: &[Batch], producers: usize, count: usize) -> Sample {
    let runtime = runtime();
    let local = runtime.block_on(Local::open(flights_stream(PARTITIONS)));
    let places: Vec<_> = (0..PARTITIONS).map(|number| local.place(Stage::Raw, number)).collect();
    let sample = Sample::of(count * OF_A_BATCH, || {
        produce(producers, count, |number| {
            let place = places[number % places.len()].clone();
            let append = Append { place, batch: batches[number % batches.len()].clone() };
            runtime.block_on(local.log.append(vec![append])).expect("append");
        });
    });
    runtime.block_on(local.log.close()).expect("close the log");
    runtime.shutdown_timeout(Duration::from_secs(10));
    sample
}

fn raw(lines: &[Bytes], producers: usize, count: usize) -> Sample {
    let folder = scratch();
    let log = RawLog::open(&folder.path().join("log"));
    Sample::of(count * OF_A_BATCH, || {
        produce(producers, count, |number| {
            let answer = log.append(&lines[number % lines.len()]);
            answer.blocking_recv().expect("the committer answers");
        });
    })
}
