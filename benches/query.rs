//! A day of 50,000 flights: its first hundred events and its count, from published splits, through
//! the query door without a network.
#![allow(missing_docs, reason = "the macro of the harness makes a public function")]

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use broker::catalog::Draft;
use broker::log::sled::{SledLog, SledOptions};
use broker::time::SystemClock;
use broker::{
    Append, Batch, Catalog, Clock, Group, Log, Partition, Place, Record, Selection, Stage, Timestamp, Worker,
};
use criterion::{Criterion, criterion_group, criterion_main};
use indexer::store::StoreSettings;
use indexer::{Indexer, Limits, Parts};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

const EVENTS: i64 = 50_000;
const DAYS: i64 = 90;
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Flights spread evenly over ninety days.
fn flights(now: Timestamp) -> Batch {
    let first = Timestamp::from_millis(978_307_200_000).expect("2001 is a year");
    let records: Vec<Record> = (0..EVENTS)
        .map(|number| {
            let time = first + Duration::from_secs((number * DAYS * 86_400 / EVENTS) as u64);
            let value = format!(r#"{{"date":"{time}","delay":{},"origin":"DTW"}}"#, number % 90);
            Record { time, ..Record::new(value, now) }
        })
        .collect();
    Batch::of(&records).expect("the batch has records")
}

async fn indexed(folder: &std::path::Path) -> Arc<Indexer> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let log: Arc<dyn Log> =
        SledLog::open(SledOptions::at(folder.join("log")), clock.clone()).await.expect("open the log");
    let catalog = Catalog::open(log.clone(), clock.clone()).await.expect("open the catalog");
    let draft =
        Draft { dataset: "flights".into(), version: "1".into(), partitions: Some(1), ..Draft::default() };
    let stream = catalog.create(draft).await.expect("create the stream");
    let place = Place::new(stream.topic(Stage::Processed), Partition(0));
    let append = Append { place: place.clone(), batch: flights(clock.now()) };
    log.append(vec![append]).await.expect("append");

    let settings =
        StoreSettings { url: folder.join("objects").display().to_string(), ..StoreSettings::default() };
    let indexer = Indexer::new(Parts {
        log: log.clone(),
        catalog,
        clock: clock.clone(),
        objects: indexer::store::open(&settings).expect("open the objects"),
        cache_directory: folder.join("cache"),
        shutdown: CancellationToken::new(),
        limits: Limits { split_age_max: Duration::ZERO, ..Limits::default() },
    });
    let share = (Selection::Stage(Stage::Processed), Group::INDEX);
    let worker = Worker::open(log.as_ref(), share, indexer.sink(), clock).await.expect("open the worker");
    let stop = CancellationToken::new();
    let end = log.bounds(&place).await.expect("bounds").end;
    let published = async {
        while log.committed(&Group::INDEX, &place.topic).await.expect("progress").get(&place) != Some(end) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.cancel();
    };
    let (ran, ()) = tokio::join!(worker.run(stop.clone()), published);
    ran.expect("run the worker");
    indexer
}

fn query(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("start the runtime");
    let folder = tempfile::tempdir().expect("make a folder");
    let router = runtime.block_on(indexed(folder.path())).router();
    let mut group = criterion.benchmark_group("a day of 50,000 events");
    for (name, path) in [
        ("first hundred", "events?from=2001-02-01&to=2001-02-01&limit=100"),
        ("count", "events/count?from=2001-02-01&to=2001-02-01"),
        ("count of a term", "events/count?from=2001-02-01&to=2001-02-01&q=delay:42"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let request = Request::get(format!("/api/v1/streams/flights/1/{path}"));
                let request = request.body(Body::empty()).expect("a request");
                runtime.block_on(async {
                    let answer = router.clone().oneshot(request).await.expect("an answer");
                    assert!(answer.status().is_success());
                    to_bytes(answer.into_body(), ANSWER_BYTES_MAX).await.expect("a body")
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, query);
criterion_main!(benches);
