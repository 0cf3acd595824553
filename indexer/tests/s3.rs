//! The archive, its puts and the index's splits against a real S3 server, which `scripts/s3 start` runs.
#![allow(clippy::disallowed_methods, reason = "the server's address comes from the environment")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use broker::access::ADMINISTRATOR;
use broker::access::webhook::NoWebhooks;
use broker::catalog::Stream;
use broker::log::sled::{SledLog, SledOptions};
use broker::log::{Chunk, Entry};
use broker::time::ManualClock;
use broker::{Catalog, Checkpoint, Kind, Log, Offset, Partition, Place, Record, Sink, Stage, Timestamp};
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use headwater_indexer::archive::{Archive, ArchiveSettings, Compression, count, objects, read_object};
use headwater_indexer::store::{self, ObjectStore, StoreSettings};
use headwater_indexer::{Indexer, Limits, Parts};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutPayload};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `scripts/s3 start` and then `eval \"$(scripts/s3 env)\"`")
    })
}

/// A stream, a clock, and a folder of its own in the bucket.
struct Fixture {
    settings: StoreSettings,
    store: Arc<dyn ObjectStore>,
    log: Arc<dyn Log>,
    catalog: Arc<Catalog>,
    clock: Arc<ManualClock>,
    stream: Arc<Stream>,
    directory: TempDir,
}

fn start() -> Timestamp {
    Timestamp::from_millis(1_603_011_900_000).unwrap()
}

/// The server's settings; the prefix is as random as the directory's name.
fn settings(directory: &FilePath) -> StoreSettings {
    let prefix = directory.file_name().unwrap().to_str().unwrap().trim_start_matches('.');
    let options = [
        ("aws_endpoint", variable("HEADWATER_TEST_S3_ENDPOINT")),
        ("aws_access_key_id", variable("HEADWATER_TEST_S3_ACCESS_KEY")),
        ("aws_secret_access_key", variable("HEADWATER_TEST_S3_SECRET_KEY")),
        ("aws_region", "us-east-1".to_owned()),
        ("allow_http", "true".to_owned()),
    ];
    let options = options.map(|(key, value)| (key.to_owned(), value));
    StoreSettings {
        url: format!("s3://{}/{prefix}", variable("HEADWATER_TEST_S3_BUCKET")),
        options: BTreeMap::from(options),
    }
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(directory.path());
        let store = store::open(&settings).unwrap();
        let clock = Arc::new(ManualClock::at(start()));
        let options = SledOptions::at(directory.path().join("log"));
        let log: Arc<dyn Log> = SledLog::open(options, clock.clone()).await.unwrap();
        let catalog = Catalog::open(log.clone(), clock.clone()).await.unwrap();
        let draft = serde_json::from_str(r#"{"dataset":"flights","version":"1"}"#).unwrap();
        let stream = catalog.create(draft, ADMINISTRATOR).await.unwrap();
        Self { settings, store, log, catalog, clock, stream, directory }
    }

    async fn archive(&self, settings: ArchiveSettings) -> Archive {
        let clock = self.clock.clone();
        let mut archive = Archive::new(self.store.clone(), self.catalog.clone(), clock, settings);
        archive.resume(&[(self.place(), Offset(0))].into_iter().collect()).await.unwrap();
        archive
    }

    /// A process's index, with a cache of its own.
    fn indexer(&self, cache: &str) -> Arc<Indexer> {
        let limits = Limits {
            split_age_max: Duration::ZERO,
            listing_age_max: Duration::ZERO,
            split_grace: Duration::from_secs(60),
            upkeep_interval: Duration::from_millis(20),
            ..Limits::default()
        };
        Indexer::new(Parts {
            log: self.log.clone(),
            catalog: self.catalog.clone(),
            clock: self.clock.clone(),
            objects: self.store.clone(),
            cache_directory: self.directory.path().join(cache),
            tables_directory: self.directory.path().join("tables"),
            node: "local".to_owned(),
            profiles: true,
            shutdown: CancellationToken::new(),
            limits,
            zone: headwater_indexer::Zone::UTC,
            webhooks: Arc::new(NoWebhooks),
        })
    }

    fn place(&self) -> Place {
        Place::new(self.stream.topic(Stage::Processed), Partition(0))
    }

    fn chunk(&self, entries: &[Entry]) -> Chunk {
        let next = entries.last().unwrap().offset.next();
        Chunk { place: self.place(), entries: entries.to_vec(), next }
    }

    /// Flushes as if the stream were idle, until everything before `reached` is in objects; those of
    /// a writer that raced may reach further.
    async fn finish(&self, archive: &mut Archive, reached: u64) {
        self.clock.advance(Duration::from_secs(301));
        let upto: Checkpoint = [(self.place(), Offset(reached))].into_iter().collect();
        while archive.flush(&upto).await.unwrap().through.get(&self.place()) < Some(Offset(reached)) {
            self.clock.advance(Duration::from_secs(1));
        }
    }

    async fn archived(&self) -> Vec<u64> {
        let mut offsets = Vec::new();
        for object in objects(self.store.as_ref(), &self.stream).await.unwrap() {
            let events = read_object(self.store.as_ref(), &object.path).await.unwrap();
            offsets.extend(events.iter().map(|event| event.offset.0));
        }
        offsets
    }

    async fn names(&self) -> Vec<String> {
        let listed: Vec<_> = self.store.list(None).try_collect().await.unwrap();
        listed.into_iter().map(|object| object.location.to_string()).collect()
    }
}

fn events(offsets: std::ops::Range<u64>) -> Vec<Entry> {
    let event = |offset| {
        let record = Record::new(format!("{{\"n\":{offset}}}"), start()).with_key(format!("key {offset}"));
        Entry { offset: Offset(offset), record }
    };
    offsets.map(event).collect()
}

fn small(object_bytes_max: u64) -> ArchiveSettings {
    ArchiveSettings { object_bytes_max, ..ArchiveSettings::default() }
}

#[tokio::test]
async fn events_come_back_and_a_replay_adopts_what_is_there() {
    let fixture = Fixture::new().await;
    let mut names = Vec::new();
    for replay in 0..2 {
        let mut archive = fixture.archive(small(1_000)).await;
        archive.write(vec![fixture.chunk(&events(0..50))]).await.unwrap();
        fixture.finish(&mut archive, 50).await;
        assert_eq!(fixture.archived().await, (0..50).collect::<Vec<_>>());
        assert_eq!(count(fixture.store.as_ref(), &fixture.stream).await.unwrap(), 50);
        if replay == 0 {
            names = fixture.names().await;
            assert!(names.len() > 5, "{names:?}");
        }
        assert_eq!(fixture.names().await, names);
    }
    // One that cuts otherwise finds the same chain.
    let mut archive = fixture.archive(small(3_000)).await;
    archive.write(vec![fixture.chunk(&events(0..60))]).await.unwrap();
    fixture.finish(&mut archive, 60).await;
    assert_eq!(fixture.archived().await, (0..60).collect::<Vec<_>>());
    assert_eq!(fixture.names().await[..names.len() - 1], names[..names.len() - 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_puts_that_create_exactly_one_wins() {
    let fixture = Fixture::new().await;
    for round in 0..10 {
        let path = Path::from(format!("race/{round}"));
        let puts = (0..8).map(|n| {
            let payload = PutPayload::from(format!("writer {n}"));
            fixture.store.put_opts(&path, payload, PutMode::Create.into())
        });
        let results = join_all(puts).await;
        let winners: Vec<usize> = (0..8).filter(|n| results[*n].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        for result in results.into_iter().filter_map(Result::err) {
            assert!(matches!(result, object_store::Error::AlreadyExists { .. }), "{result}");
        }
        let bytes = fixture.store.get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes, format!("writer {}", winners[0]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_copies_that_create_exactly_one_wins() {
    let fixture = Fixture::new().await;
    let from: Vec<Path> = (0..8).map(|n| Path::from(format!("uploads/{n}"))).collect();
    for (n, from) in from.iter().enumerate() {
        fixture.store.put(from, PutPayload::from(format!("writer {n}"))).await.unwrap();
    }
    for round in 0..10 {
        let to = Path::from(format!("race/{round}"));
        let copies = from.iter().map(|from| fixture.store.copy_if_not_exists(from, &to));
        let results = join_all(copies).await;
        let winners: Vec<usize> = (0..8).filter(|n| results[*n].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        let bytes = fixture.store.get(&to).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes, format!("writer {}", winners[0]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_archives_leave_each_event_exactly_once() {
    let fixture = Fixture::new().await;
    let run = async |chunk_events: usize, object_bytes_max: u64| {
        let mut archive = fixture.archive(small(object_bytes_max)).await;
        for chunk in events(0..100).chunks(chunk_events) {
            archive.write(vec![fixture.chunk(chunk)]).await.unwrap();
            archive.flush(&Checkpoint::new()).await.unwrap();
        }
        fixture.finish(&mut archive, 100).await;
    };
    tokio::join!(run(7, 500), run(11, 1_300), run(3, 300));
    assert_eq!(fixture.archived().await, (0..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_large_object_goes_up_in_parts_once_however_many_write_it() {
    let fixture = Fixture::new().await;
    let settings = ArchiveSettings {
        compression: Compression::None,
        multipart_bytes: 5 << 20,
        ..ArchiveSettings::default()
    };
    let mut large = events(0..12);
    for entry in &mut large {
        entry.record.value = Bytes::from(format!("\"{}\"", "x".repeat(1 << 20)));
    }
    let write = async |events: &[Entry], reached: u64| {
        let mut archive = fixture.archive(settings.clone()).await;
        archive.write(vec![fixture.chunk(events)]).await.unwrap();
        fixture.finish(&mut archive, reached).await;
    };
    // Two write the same bytes, and one an object that ends earlier.
    tokio::join!(write(&large, 12), write(&large, 12), write(&large[..9], 9));
    write(&large, 12).await;
    assert_eq!(fixture.archived().await, (0..12).collect::<Vec<_>>());
    let names = fixture.names().await;
    assert!(names.iter().all(|name| name.starts_with("processed/")), "{names:?}");
}

#[tokio::test]
async fn refused_credentials_are_unavailable_and_never_shown() {
    let mut fixture = Fixture::new().await;
    let secret = "not-the-secret-of-that-server";
    fixture.settings.options.insert("aws_secret_access_key".to_owned(), secret.to_owned());
    fixture.store = store::open(&fixture.settings).unwrap();
    let mut archive = fixture.archive(small(100)).await;
    archive.write(vec![fixture.chunk(&events(0..3))]).await.unwrap();
    let error = archive.flush(&Checkpoint::new()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(error.message().contains("refused the credentials"), "{error}");
    let shown = format!("{error} {error:?} {:?}", fixture.settings);
    for hidden in [secret, "Signature"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_and_a_server_that_does_not_answer_are_unavailable() {
    let mut fixture = Fixture::new().await;
    let good = fixture.settings.clone();
    let unreachable = ("aws_endpoint".to_owned(), "http://127.0.0.1:9".to_owned());
    let mut away = good.clone();
    away.options.extend([unreachable]);
    for settings in [StoreSettings { url: "s3://headwater-nowhere".to_owned(), ..good }, away] {
        fixture.store = store::open(&settings).unwrap();
        let mut archive = fixture.archive(small(100)).await;
        archive.write(vec![fixture.chunk(&events(0..3))]).await.unwrap();
        let error = archive.flush(&Checkpoint::new()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    }
}

/// The numbers that an export holds, in its order.
async fn exported(indexer: &Arc<Indexer>) -> Vec<u64> {
    let request = http::Request::get("/api/v1/streams/flights/1/events/export");
    let request = request.extension(broker::Principal::administrator());
    let response = indexer.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), http::StatusCode::OK);
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let numbers = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| {
        let event: serde_json::Value = serde_json::from_slice(line).unwrap();
        event["value"]["n"].as_u64().unwrap()
    });
    numbers.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_merge_splits_while_others_publish_and_query() {
    let fixture = Fixture::new().await;
    let owner = fixture.indexer("owner");
    let mergers = [fixture.indexer("merger-1"), fixture.indexer("merger-2")];
    let stop = CancellationToken::new();
    let merge = join_all(mergers.iter().map(|merger| merger.clone().keep_splits(stop.clone())));
    let work = async {
        let mut sink = owner.sink();
        sink.resume(&[(fixture.place(), Offset(0))].into_iter().collect()).await.unwrap();
        for number in 0..24 {
            let chunk = fixture.chunk(&events(number * 5..(number + 1) * 5));
            let upto = [(fixture.place(), chunk.next)].into_iter().collect();
            sink.write(vec![chunk]).await.unwrap();
            sink.flush(&upto).await.unwrap();
            let all: Vec<u64> = (0..(number + 1) * 5).collect();
            assert_eq!(exported(&owner).await, all);
            assert_eq!(exported(&fixture.indexer(&format!("new-{number}"))).await, all);
            fixture.clock.advance(Duration::from_secs(5));
        }
        let reader = fixture.indexer("reader");
        while fixture.names().await.len() > 8 {
            assert_eq!(exported(&reader).await.len(), 120);
            fixture.clock.advance(Duration::from_secs(1));
        }
        for indexer in [&owner, &reader, &fixture.indexer("last")] {
            assert_eq!(exported(indexer).await, (0..120).collect::<Vec<_>>());
        }
        fixture.catalog.delete(fixture.stream.name(), ADMINISTRATOR).await.unwrap();
        while !fixture.names().await.is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (merged, ()) = tokio::join!(merge, work);
    assert!(merged.iter().all(Result::is_ok));
}
