//! The archive on a store in memory and on a folder, with events made by hand.

mod adoption;
mod cutting;
mod working;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broker::access::ADMINISTRATOR;
use broker::catalog::{Draft, Edit, Stream};
use broker::log::sled::{SledLog, SledOptions};
use broker::log::{Chunk, Entry};
use broker::record::Origin;
use broker::time::ManualClock;
use broker::{
    Catalog, Checkpoint, Log, Offset, Partition, Place, Record, Sink, Stage, StreamName, Timestamp,
};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tempfile::TempDir;

use super::*;

/// A stream in a catalog, and a clock at the first event's arrival.
struct Fixture {
    catalog: Arc<Catalog>,
    clock: Arc<ManualClock>,
    log: Arc<SledLog>,
    stream: Arc<Stream>,
    _directory: TempDir,
}

fn start() -> Timestamp {
    // 2020-10-18T09:05:00Z
    Timestamp::from_millis(1_603_011_900_000).unwrap()
}

fn draft() -> Draft {
    let draft = r#"{"dataset":"status","version":"1","confidentiality":"yellow","partitions":2}"#;
    serde_json::from_str(draft).unwrap()
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(start()));
        let log = SledLog::open(SledOptions::at(directory.path()), clock.clone()).await.unwrap();
        let catalog = Catalog::open(log.clone(), clock.clone()).await.unwrap();
        let stream = catalog.create(draft(), ADMINISTRATOR).await.unwrap();
        Self { catalog, clock, log, stream, _directory: directory }
    }

    fn archive(&self, store: &Arc<dyn ObjectStore>, settings: ArchiveSettings) -> Archive {
        Archive::new(store.clone(), self.catalog.clone(), self.clock.clone(), settings)
    }

    fn place(&self, partition: u32) -> Place {
        Place::new(self.stream.topic(Stage::Processed), Partition(partition))
    }

    fn chunk(&self, partition: u32, entries: impl Into<Vec<Entry>>) -> Chunk {
        let entries = entries.into();
        let next = entries.last().unwrap().offset.next();
        Chunk { place: self.place(partition), entries, next }
    }

    /// Writes and flushes like a worker that reached the chunk's end; what is through.
    async fn take(&self, archive: &mut Archive, partition: u32, entries: &[Entry]) -> Offset {
        let chunk = self.chunk(partition, entries);
        let upto = [(chunk.place.clone(), chunk.next)].into_iter().collect();
        assert!(archive.write(vec![chunk]).await.unwrap().is_empty());
        self.flush(archive, &upto, partition).await
    }

    async fn flush(&self, archive: &mut Archive, upto: &Checkpoint, partition: u32) -> Offset {
        let flushed = archive.flush(upto).await.unwrap();
        assert!(flushed.appends.is_empty());
        flushed.through.get(&self.place(partition)).unwrap_or(Offset(0))
    }

    /// Settles partition 0 like a worker that has come so far.
    async fn settle(&self, archive: &mut Archive, reached: u64) {
        let at = [(self.place(0), Offset(reached))].into_iter().collect();
        let settled = archive.settle(&at).await.unwrap();
        self.log.append(settled.appends).await.unwrap();
        self.catalog.refresh().await.unwrap();
    }

    /// As the catalog has it now.
    fn stream(&self) -> Arc<Stream> {
        self.catalog.get(self.stream.name()).unwrap()
    }

    async fn resume(&self, archive: &mut Archive, from: u64) {
        let committed: Checkpoint = [(self.place(0), Offset(from))].into_iter().collect();
        assert_eq!(archive.resume(&committed).await.unwrap(), committed);
    }

    /// Lets the streams fall idle and flushes everything staged.
    async fn idle(&self, archive: &mut Archive, reached: u64) -> Offset {
        self.clock.advance(Duration::from_secs(301));
        let upto = [(self.place(0), Offset(reached))].into_iter().collect();
        self.flush(archive, &upto, 0).await
    }

    /// The offsets of a partition in its objects' order.
    async fn archived(&self, store: &dyn ObjectStore, partition: u32) -> Vec<u64> {
        let mut offsets = Vec::new();
        for object in objects(store, &self.stream).await.unwrap() {
            if object.partition == Partition(partition) {
                let events = read_object(store, &object.path).await.unwrap();
                assert_eq!(events[0].offset, object.first);
                offsets.extend(events.iter().map(|event| event.offset.0));
            }
        }
        offsets
    }
}

fn in_memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

/// An event that arrived some seconds after the start.
fn event(offset: u64, seconds: u64) -> Entry {
    let mut record = Record::new(format!("{{\"n\":{offset}}}"), start() + Duration::from_secs(seconds));
    record.origin = Some(Origin { partition: Partition(0), offset: Offset(offset) });
    Entry { offset: Offset(offset), record }
}

fn events(offsets: std::ops::Range<u64>) -> Vec<Entry> {
    offsets.map(|offset| event(offset, 0)).collect()
}

/// The length of such an event's line, for one-digit offsets.
const LINE_BYTES: u64 = 125;

fn plain(object_bytes_max: u64) -> ArchiveSettings {
    ArchiveSettings { object_bytes_max, compression: Compression::None, ..ArchiveSettings::default() }
}

async fn all_objects(store: &dyn ObjectStore) -> BTreeMap<String, Bytes> {
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut objects = BTreeMap::new();
    for meta in listed {
        let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
        objects.insert(meta.location.to_string(), bytes);
    }
    objects
}
