//! The archive sink into a local folder, beside reading sled, the same codec on the same lines, and a
//! bare put.
//! `cargo bench --bench archive -- [--quick]`

mod support;

use std::io::Write;

use broker::{Batch, Clock, Group, Offset, Stage};
use indexer::archive::{Archive, ArchiveSettings};
use indexer::store::{StoreSettings, open};
use object_store::ObjectStoreExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use support::figures::{Results, Row};
use support::flights;
use support::local::{Local, flights_stream, runtime};
use support::options::Options;
use support::pair::{Sample, alternate};
use support::raw_log::RawLog;
use support::scratch;

const ZSTD_LEVEL: i32 = 3;

fn main() {
    let options = Options::read();
    let results = Results::of("archive", &options);
    let name = "archive sink, local folder";
    if !options.wants(name) {
        return;
    }
    eprintln!("{name}");
    let count = options.events(2_000_000, 400_000);
    let packs = flights::packs(&options, count);
    let settings = ArchiveSettings::default();
    let now = broker::time::SystemClock.now();
    let mut batches: Vec<Batch> = packs.iter().map(|pack| flights::batch(pack, now)).collect();
    // An event that arrived later closes the last object, which the clock would do otherwise.
    batches.push(flights::batch(&packs[0][..1], now + settings.object_age_max));
    let lines = lines(&packs, now);
    let object_bytes = usize::try_from(settings.object_bytes_max).expect("an object fits the memory");
    let pairs =
        alternate(options.rounds(), || ours(&batches, &settings, count), || raw(&lines, object_bytes, count));
    let against = "raw read, the same codec on the same lines, object_store put";
    results.rates(Row { name, against, goal: "≥ 0.8", cpu_goal: "" }, &pairs);
}

/// The lines of the objects, made here so that the raw side is spared the making.
fn lines(packs: &[Vec<flights::Flight>], now: broker::Timestamp) -> Vec<Vec<u8>> {
    let mut offset = 0;
    let mut lines = Vec::with_capacity(packs.len());
    for pack in packs {
        let mut text = Vec::with_capacity(pack.len() * 200);
        for flight in pack {
            let (time, value) = (flight.record(now).time, String::from_utf8_lossy(&flight.value));
            let key = String::from_utf8_lossy(&flight.origin);
            writeln!(
                text,
                r#"{{"partition":0,"offset":{offset},"origin":null,"timestamp":"{time}","key":"{key}","value":{value}}}"#
            )
            .expect("a vector takes all");
            offset += 1;
        }
        lines.push(text);
    }
    lines
}

fn ours(batches: &[Batch], settings: &ArchiveSettings, count: usize) -> Sample {
    let runtime = runtime();
    let local = runtime.block_on(Local::open(flights_stream(1)));
    runtime.block_on(local.load(Stage::Processed, batches));
    let url = local.folder.path().join("objects").display().to_string();
    let store = open(&StoreSettings { url, ..StoreSettings::default() }).expect("open the objects");
    let archive = Archive::new(store.clone(), local.catalog.clone(), local.clock.clone(), settings.clone());
    let end = [Offset(count as u64)];
    let sample = Sample::of(count, || {
        runtime.block_on(local.work((Stage::Processed, Group::ARCHIVE), Box::new(archive), &end));
    });
    runtime.block_on(local.log.close()).expect("close the log");
    sample
}

fn raw(lines: &[Vec<u8>], object_bytes: usize, count: usize) -> Sample {
    let folder = scratch();
    let log = RawLog::open(&folder.path().join("log"));
    log.load(lines.iter().cloned());
    let runtime = runtime();
    let objects = folder.path().join("objects");
    std::fs::create_dir(&objects).expect("make a folder");
    let store = LocalFileSystem::new_with_prefix(objects).expect("open the folder");
    let encoder = || {
        let mut encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL).expect("start the codec");
        encoder.include_checksum(true).expect("ask for a checksum");
        encoder
    };
    Sample::of(count, || {
        let (mut current, mut bytes, mut number) = (encoder(), 0, 0);
        let mut put = |encoder: zstd::Encoder<'static, Vec<u8>>| {
            let object = encoder.finish().expect("compress");
            let path = Path::from(format!("{number}.ndjson.zst"));
            number += 1;
            runtime.block_on(store.put(&path, object.into())).expect("put an object");
        };
        for batch in log.batches() {
            if bytes + batch.len() > object_bytes {
                put(std::mem::replace(&mut current, encoder()));
                bytes = 0;
            }
            bytes += batch.len();
            current.write_all(&batch).expect("compress");
        }
        put(current);
    })
}
