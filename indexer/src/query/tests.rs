//! Answers compared with a naive filter, over events that lie partly in splits, partly in the live
//! part and partly in the log only.

mod merging;

use std::time::Duration;

use broker::Stage;
use futures::TryStreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::Limits;
use crate::line::Line;
use crate::testing::{Bench, Driver, EPOCH};

const ORIGINS: [&str; 4] = ["DTW", "LAS", "JFK", "OSL"];
const NOTES: [&str; 4] = ["heavy snow", "Snow on the wing", "clear sky", "a heavy bag of snow"];

/// An event as the naive filter sees it.
#[derive(Clone, Debug)]
struct Known {
    position: Position,
    key: Option<&'static str>,
    origin: &'static str,
    delay: i64,
    note: Option<&'static str>,
    value: String,
}

fn small() -> Limits {
    Limits {
        split_events_max: 60,
        segment_events_max: 16,
        listing_age_max: Duration::ZERO,
        ..Limits::default()
    }
}

async fn fill(bench: &Bench, driver: &mut Driver, random: &mut StdRng) -> Vec<Known> {
    let mut known = Vec::new();
    for step in 0..24 {
        for partition in 0..3 {
            let count = random.random_range(1..12);
            let made: Vec<_> = (0..count).map(|_| made_up(bench, random)).collect();
            let records: Vec<_> = made.iter().map(|(record, _)| record.clone()).collect();
            let first = bench.append(Stage::Processed, partition, &records).await;
            for (index, (record, mut event)) in made.into_iter().enumerate() {
                let offset = broker::Offset(first.0 + index as u64);
                event.position =
                    Position { time: record.time, partition: broker::Partition(partition), offset };
                known.push(event);
            }
        }
        // The last appends are only in the log.
        if step < 22 {
            driver.step(bench, random.random_range(200..4_000)).await.unwrap();
        }
    }
    known.sort_by_key(|event| event.position);
    known
}

fn made_up(bench: &Bench, random: &mut StdRng) -> (broker::Record, Known) {
    let key = [None, Some("a"), Some("b")][random.random_range(0..3)];
    let origin = ORIGINS[random.random_range(0..4)];
    let delay = random.random_range(-20..80);
    let note = [None, Some(NOTES[random.random_range(0..4)])][random.random_range(0..2)];
    let written = note.map_or("null".to_owned(), |note| format!("{note:?}"));
    let value = format!("{{\"origin\": {origin:?},  \"delay\":{delay}, \"x\":{{\"note\":{written}}}}}");
    // Few instants, so that many events share one.
    let record = bench.record(random.random_range(0..40) * 3_600, key, &value);
    let position = Position { time: record.time, partition: broker::Partition(0), offset: broker::Offset(0) };
    (record, Known { position, key, origin, delay, note, value })
}

type Holds = fn(&Known) -> bool;

const CONDITIONS: [(&str, Holds); 16] = [
    ("origin:DTW", |e| e.origin == "DTW"),
    ("origin:dtw OR origin:OSL", |e| e.origin == "DTW" || e.origin == "OSL"),
    ("delay:[10 TO 50]", |e| (10..=50).contains(&e.delay)),
    ("delay:{10 TO 50}", |e| (11..50).contains(&e.delay)),
    ("delay:>=70", |e| e.delay >= 70),
    ("origin:LAS delay:[* TO 0]", |e| e.origin == "LAS" && e.delay <= 0),
    ("snow", |e| e.note.is_some_and(|note| note.to_lowercase().contains("snow"))),
    ("\"heavy snow\"", |e| e.note == Some("heavy snow")),
    ("x.note:wing", |e| e.note == Some("Snow on the wing")),
    ("x.note:*", |e| e.note.is_some()),
    ("* -origin:DTW", |e| e.origin != "DTW"),
    ("-origin:DTW", |e| e.origin != "DTW"),
    ("delay:>=20 AND NOT origin:DTW", |e| e.delay >= 20 && e.origin != "DTW"),
    ("delay:>=70 OR NOT origin:DTW", |e| e.delay >= 70 || e.origin != "DTW"),
    ("origin:LAS -(delay:>=20 -snow)", |e| {
        let is_snow = e.note.is_some_and(|note| note.to_lowercase().contains("snow"));
        e.origin == "LAS" && (e.delay < 20 || is_snow)
    }),
    ("origin: IN [JFK]", |_| false),
];

/// What an export hands on.
#[derive(Default)]
struct Exported(Vec<(Position, String)>);

impl Chunk for Exported {
    fn add(&mut self, event: &Line<'_>) -> broker::Result<()> {
        let Line { partition, offset, time, value, .. } = *event;
        let value = String::from_utf8(value.to_vec()).unwrap();
        self.0.push((Position { time, partition, offset }, value));
        Ok(())
    }

    fn bytes(&self) -> usize {
        0
    }
}

struct Case {
    asked: Asked,
    wanted: Vec<Known>,
}

fn case(known: &[Known], random: &mut StdRng) -> Case {
    let mut asked = Asked::default();
    let mut wanted = known.to_vec();
    if random.random_bool(0.7) {
        let from = random.random_range(0..40) * 3_600;
        let to = random.random_range(from..=40 * 3_600);
        let text = |seconds: i64| Timestamp::from_micros((EPOCH + seconds) * 1_000_000).unwrap();
        (asked.from, asked.to) = (Some(text(from).to_string()), Some(text(to).to_string()));
        wanted.retain(|event| (text(from)..=text(to)).contains(&event.position.time));
    }
    if random.random_bool(0.4) {
        let key = ["a", "b", "c"][random.random_range(0..3)];
        asked.key = Some(key.to_owned());
        wanted.retain(|event| event.key == Some(key));
    }
    if random.random_bool(0.5) {
        // The last condition is one of tokens as they are stored, which are lower case.
        let (q, holds) = CONDITIONS[random.random_range(0..CONDITIONS.len() - 1)];
        asked.q = Some(q.to_owned());
        wanted.retain(holds);
    }
    if random.random_bool(0.5) {
        asked.order = Order::Descending;
        wanted.reverse();
    }
    Case { asked, wanted }
}

async fn check(indexer: &Indexer, bench: &Bench, case: &Case, limit: usize) {
    let stream = indexer.stream(bench.stream.name()).await.unwrap();
    let query = indexer.query(stream, &case.asked).unwrap();
    let mut found = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let wanted = query.wanted(cursor.as_deref(), limit).unwrap();
        let page = indexer.page(&query, wanted, Ok).await.unwrap();
        assert_eq!(page.count, None);
        // One pass gives the same as two.
        let counted = indexer.page(&query, wanted.counted(), Ok).await.unwrap();
        assert_eq!(counted.count, Some(case.wanted.len() as u64), "{:?}", case.asked);
        assert_eq!((&counted.events, &counted.cursor), (&page.events, &page.cursor), "{:?}", case.asked);
        assert!(page.events.len() <= limit);
        assert_eq!(page.complete_through, bench.indexer.clock.now());
        found.extend(page.events);
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    let wanted: Vec<_> = case.wanted.iter().map(|event| (event.position, event.value.as_str())).collect();
    let values = |found: &[Event]| -> Vec<(Position, String)> {
        let text = |event: &Event| String::from_utf8(event.value.to_vec()).unwrap();
        found.iter().map(|event| (event.position, text(event))).collect()
    };
    let found = values(&found);
    let found: Vec<_> = found.iter().map(|(position, value)| (*position, value.as_str())).collect();
    assert_eq!(found, wanted, "{:?}", case.asked);
    assert_eq!(indexer.count(&query).await.unwrap().0, wanted.len() as u64, "{:?}", case.asked);
    let (buckets, through) = indexer.histogram(&query, Interval::parse("5h").unwrap()).await.unwrap();
    assert_eq!(through, bench.indexer.clock.now());
    let mut counts = std::collections::BTreeMap::new();
    for event in &case.wanted {
        let micros = event.position.time.micros();
        *counts.entry(micros - micros.rem_euclid(5 * 3_600_000_000)).or_default() += 1;
    }
    let buckets: Vec<(i64, u64)> = buckets.iter().map(|it| (it.start.micros(), it.count)).collect();
    assert_eq!(buckets, counts.into_iter().collect::<Vec<_>>(), "{:?}", case.asked);
    let exported: Vec<Exported> = indexer.export(query).await.unwrap().try_collect().await.unwrap();
    let exported: Vec<_> = exported.into_iter().flat_map(|chunk| chunk.0).collect();
    let exported: Vec<_> = exported.iter().map(|(position, value)| (*position, value.as_str())).collect();
    assert_eq!(exported, wanted, "{:?}", case.asked);
}

async fn compare(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let bench = Bench::new(small()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    let known = fill(&bench, &mut driver, &mut random).await;
    assert!(bench.splits().len() >= 3, "seed {seed}: {:?}", bench.splits());
    let reader = bench.another("other-cache");
    for number in 0..60 {
        let case = case(&known, &mut random);
        let limit = random.random_range(1..40);
        println!("seed {seed}, case {number}: {:?}, limit {limit}", case.asked);
        check(&bench.indexer, &bench, &case, limit).await;
        if number % 6 == 0 {
            check(&reader, &bench, &case, limit).await;
        }
    }
}

#[tokio::test]
async fn answers_are_what_a_naive_filter_gives() {
    for seed in 0..4 {
        compare(seed).await;
    }
}

#[tokio::test]
async fn every_condition_of_the_grammar_is_met_in_every_source() {
    let mut random = StdRng::seed_from_u64(77);
    let bench = Bench::new(small()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    let known = fill(&bench, &mut driver, &mut random).await;
    for (q, holds) in CONDITIONS {
        let wanted: Vec<_> = known.iter().filter(|event| holds(event)).cloned().collect();
        assert!(!wanted.is_empty() || q.contains("IN"), "{q} finds nothing to compare");
        let asked = Asked { q: Some(q.to_owned()), ..Asked::default() };
        check(&bench.indexer, &bench, &Case { asked, wanted }, 1_000).await;
    }
}

#[tokio::test]
async fn a_slice_by_number_is_that_part_of_the_whole_answer() {
    let mut random = StdRng::seed_from_u64(5);
    let bench = Bench::new(small()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    let known = fill(&bench, &mut driver, &mut random).await;
    let stream = bench.indexer.stream(bench.stream.name()).await.unwrap();
    let query = bench.indexer.query(stream, &Asked::default()).unwrap();
    let snapshot = bench.indexer.snapshot(&query.stream, query.bounds).await.unwrap();
    for start in [0, 1, 7, 50, known.len() - 1, known.len(), known.len() + 9] {
        let (events, total) = snapshot.slice(&query, start as u64, 10).await.unwrap();
        let wanted = known.iter().skip(start).take(10);
        assert_eq!(total, known.len() as u64);
        assert!(events.iter().map(|event| event.position).eq(wanted.map(|event| event.position)), "{start}");
    }
}

#[tokio::test]
async fn a_count_opens_no_split_that_lies_within_its_bounds() {
    let mut random = StdRng::seed_from_u64(6);
    let bench = Bench::new(small()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    let known = fill(&bench, &mut driver, &mut random).await;
    let reader = bench.another("nothing-yet");
    let query = |asked: &Asked| reader.query(bench.catalog.get(bench.stream.name()).unwrap(), asked).unwrap();
    let all = Asked::default();
    assert_eq!(reader.count(&query(&all)).await.unwrap().0, known.len() as u64);
    assert_eq!(reader.splits.copies().await.unwrap(), Vec::new());
    // With words it has to look into them.
    let some = Asked { key: Some("a".to_owned()), ..all };
    let wanted = known.iter().filter(|event| event.key == Some("a")).count();
    assert_eq!(reader.count(&query(&some)).await.unwrap().0, wanted as u64);
    assert_eq!(reader.splits.copies().await.unwrap().len(), bench.splits().len());
}

#[tokio::test]
async fn errors_name_the_parameter_at_fault() {
    let bench = Bench::new(small()).await;
    let ask = |asked: Asked| {
        let stream = bench.catalog.get(bench.stream.name()).unwrap();
        bench.indexer.query(stream, &asked).err().unwrap()
    };
    for q in ["origin:", "(a", "delay:[1 TO", "[1 TO 2]"] {
        let error = ask(Asked { q: Some(q.to_owned()), ..Asked::default() });
        assert_eq!((error.kind(), error.field()), (Kind::Invalid, Some("q")), "{q}: {error}");
    }
    for limit in [0, 10_001] {
        assert_eq!(bench.indexer.page_limit(Some(limit)).unwrap_err().field(), Some("limit"));
    }
}

#[tokio::test]
async fn a_cursor_of_another_query_is_refused() {
    let bench = Bench::new(small()).await;
    let records: Vec<_> = (0..5).map(|second| bench.record(second, Some("a"), "{}")).collect();
    bench.append(Stage::Processed, 0, &records).await;
    let page = bench.page(&bench.indexer, &Asked::default(), 2).await.unwrap();
    let cursor = page.cursor.unwrap();
    for asked in [
        Asked { order: Order::Descending, ..Asked::default() },
        Asked { key: Some("a".to_owned()), ..Asked::default() },
        Asked { from: Some("2001-01-01".to_owned()), ..Asked::default() },
    ] {
        let stream = bench.indexer.stream(bench.stream.name()).await.unwrap();
        let query = bench.indexer.query(stream, &asked).unwrap();
        let error = query.wanted(Some(&cursor), 2).unwrap_err();
        assert_eq!((error.kind(), error.field()), (Kind::Invalid, Some("cursor")));
    }
}
