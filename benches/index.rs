//! The index with every field searchable, beside tantivy's writer of single segments with a typed
//! schema: from events in the log to answers from memory, and to published splits.
//! `cargo bench --bench index -- [--quick]`

mod support;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use broker::time::SystemClock;
use broker::{Batch, Clock, Group, Offset, Partition, Place, Position, Stage};
use indexer::{Indexer, Limits};
use support::figures::{Results, Row};
use support::flights::{self, Flight, OF_A_BATCH};
use support::local::{Local, flights_stream, runtime};
use support::options::Options;
use support::pair::{Sample, alternate};
use support::process;
use support::raw_index::RawIndex;
use support::raw_stages;
use tantivy::collector::Count;
use tantivy::query::TermQuery;
use tantivy::schema::IndexRecordOption;
use tantivy::{Index, Term};
use tower::ServiceExt as _;

/// The events of a run in memory, and of the raw segments beside it.
const SEGMENT_EVENTS: usize = 50_000;
/// Events that one split holds, about.
const SPLIT_EVENTS: usize = 250_000;
const ANSWER_BYTES_MAX: usize = 1 << 20;
const QUESTION: &str = "/api/v1/streams/flights/1/events/count?q=origin:DTW";

fn main() {
    let options = Options::read();
    let results = Results::of("index", &options);
    let rounds = options.rounds();

    let name = "index, tail to segment";
    if options.wants(name) {
        eprintln!("{name}");
        let packs = flights::packs(&options, options.events(200_000, 100_000));
        let batches = flights::batches(&packs, SystemClock.now());
        let pairs = alternate(rounds, || segments(&batches), || raw_segments(&packs));
        let against = "raw single segments, typed, in memory";
        results.rates(Row { name, against, goal: "≥ 0.8", cpu_goal: "" }, &pairs);
    }
    let name = "index, log to published splits";
    if options.wants(name) {
        eprintln!("{name}");
        let packs = flights::packs(&options, options.events(3_000_000, 500_000));
        let batches = flights::batches(&packs, SystemClock.now());
        let pairs = alternate(rounds, || splits(&batches), || raw_stages::index(&packs));
        let against = "raw single segments, typed, built once";
        results.rates(Row { name, against, goal: "", cpu_goal: "≤ 2.5" }, &pairs);
        disk(&results, &packs, &batches);
    }
}

/// A sink driven by hand takes the events, and one question makes them searchable.
fn segments(batches: &[Batch]) -> Sample {
    let runtime = runtime();
    let local = runtime.block_on(Local::open(flights_stream(1)));
    runtime.block_on(local.load(Stage::Processed, batches));
    let never = Duration::from_secs(1 << 30);
    let limits = Limits {
        segment_events_max: SEGMENT_EVENTS,
        split_events_max: usize::MAX,
        split_bytes_max: usize::MAX,
        split_age_max: never,
        staged_bytes_max: usize::MAX,
        ..Limits::default()
    };
    let indexer = local.indexer(limits);
    let events = batches.len() * OF_A_BATCH;
    let sample = Sample::of(events, || runtime.block_on(search_all(&local, &indexer)));
    runtime.block_on(local.log.close()).expect("close the log");
    sample
}

async fn search_all(local: &Local, indexer: &Arc<Indexer>) {
    let mut sink = indexer.sink();
    let place = Place::new(local.stream.topic(Stage::Processed), Partition(0));
    let mut offset = Offset(0);
    sink.resume(&[(place.clone(), offset)].into_iter().collect()).await.expect("resume");
    let end = local.log.bounds(&place).await.expect("read the bounds").end;
    while offset < end {
        let from = Position { place: place.clone(), offset };
        let chunk = local.log.read(&from, broker::worker::NEXT_BYTES_MAX).await.expect("read the log");
        offset = chunk.next;
        sink.write(vec![chunk]).await.expect("stage");
    }
    let request = Request::get(QUESTION).body(Body::empty()).expect("a request");
    let answer = indexer.router().oneshot(request).await.expect("an answer");
    assert!(answer.status().is_success(), "the question was refused: {answer:?}");
    to_bytes(answer.into_body(), ANSWER_BYTES_MAX).await.expect("a body");
}

fn raw_segments(packs: &[Vec<Flight>]) -> Sample {
    let raw = RawIndex::typed();
    Sample::of(packs.len() * OF_A_BATCH, || {
        let found: usize =
            packs.chunks(SEGMENT_EVENTS / OF_A_BATCH).map(|some| count(&raw, &build(&raw, some))).sum();
        assert!(found > 0, "no flight begins in Detroit");
    })
}

fn build(raw: &RawIndex, packs: &[Vec<Flight>]) -> Index {
    raw.in_memory(packs.iter().flatten())
}

fn count(raw: &RawIndex, index: &Index) -> usize {
    let term = Term::from_field_text(raw.origin, "DTW");
    let searcher = index.reader().expect("open the segment").searcher();
    searcher.search(&TermQuery::new(term, IndexRecordOption::Basic), &Count).expect("search")
}

/// What published splits take on the disk, and what the bare segments do.
fn disk(results: &Results, packs: &[Vec<Flight>], batches: &[Batch]) {
    let (folder, raw) = (support::scratch(), RawIndex::typed());
    for (number, some) in packs.chunks(SPLIT_EVENTS / OF_A_BATCH).enumerate() {
        raw.in_folder(&folder.path().join(number.to_string()), some.iter().flatten());
    }
    let raw = process::disk_bytes(folder.path()) as f64 / (packs.len() * OF_A_BATCH) as f64;
    let (sample, objects) = published(batches);
    let ours = objects as f64 / sample.events as f64;
    let row = Row { name: "disk, published splits", against: "raw segments, typed", goal: "", cpu_goal: "" };
    results.beside(row, ("size", "bytes/event", "≤ 1.5"), (vec![ours], vec![raw]), sample.events);
}

/// The worker publishes until less than a split is left; what it has published then is what counts.
fn splits(batches: &[Batch]) -> Sample {
    published(batches).0
}

/// The same, and what the objects take then.
fn published(batches: &[Batch]) -> (Sample, u64) {
    let runtime = runtime();
    let local = runtime.block_on(Local::open(flights_stream(1)));
    runtime.block_on(local.load(Stage::Processed, batches));
    let limits = Limits { split_events_max: SPLIT_EVENTS, ..Limits::default() };
    let indexer = local.indexer(limits);
    let events = batches.len() * OF_A_BATCH;
    let end = [Offset((events - SPLIT_EVENTS + 1) as u64)];
    let mut published = 0;
    let sample = Sample::of(events, || {
        let share = (Stage::Processed, Group::INDEX);
        let committed = runtime.block_on(local.work(share, indexer.sink(), &end));
        published = committed.iter().map(|(_, next)| next.0).sum();
    });
    runtime.block_on(local.log.close()).expect("close the log");
    let objects = process::disk_bytes(&local.folder.path().join("objects"));
    (Sample { events: published, ..sample }, objects)
}
