//! What each stage comes to with bare libraries: reading a log and appending the same again, archiving
//! the lines of objects, indexing once.

use std::io::Write as _;

use object_store::ObjectStoreExt as _;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use super::flights::{Flight, OF_A_BATCH};
use super::local::runtime;
use super::pair::Sample;
use super::raw_index::RawIndex;
use super::raw_log::RawLog;
use super::scratch;

const ZSTD_LEVEL: i32 = 3;
/// Events of one segment that is published.
const SPLIT_EVENTS: usize = 250_000;

/// Reads every batch of a log, works on it, and appends it to another.
pub(crate) fn route(lines: &[Vec<u8>], count: usize, work: impl Fn(Vec<u8>) -> Vec<u8>) -> Sample {
    let folder = scratch();
    let incoming = RawLog::open(&folder.path().join("raw"));
    incoming.load(lines.iter().cloned());
    let outgoing = RawLog::open(&folder.path().join("processed"));
    Sample::of(count, || outgoing.load(incoming.batches().map(work)))
}

/// The lines of the objects, made here so that the raw side is spared the making.
pub(crate) fn object_lines(packs: &[Vec<Flight>], now: broker::Timestamp) -> Vec<Vec<u8>> {
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

/// Reads lines from a log, compresses them and puts objects of about so many bytes of them.
pub(crate) fn archive(lines: &[Vec<u8>], object_bytes: usize, count: usize) -> Sample {
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

/// Builds one segment of every quarter of a million events.
pub(crate) fn index(packs: &[Vec<Flight>]) -> Sample {
    let raw = RawIndex::typed();
    Sample::of(packs.len() * OF_A_BATCH, || {
        for some in packs.chunks(SPLIT_EVENTS / OF_A_BATCH) {
            raw.in_memory(some.iter().flatten());
        }
    })
}
