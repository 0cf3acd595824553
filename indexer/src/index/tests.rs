//! The sink with its splits: publishing, resuming, adopting, and losing the local copies.

mod faulty;
mod merging;
mod removal;

use std::time::Duration;

use broker::access::ADMINISTRATOR;
use broker::log::Selection;
use broker::{Checkpoint, Group, Offset, Partition, Record, Router, Stage, Worker};
use object_store::{ObjectStoreExt, PutMode, path::Path as Location};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::query::Asked;
use crate::testing::{Bench, Driver};

const BYTES: usize = 1 << 20;

fn small() -> Limits {
    Limits { split_events_max: 10, listing_age_max: Duration::ZERO, ..Limits::default() }
}

fn records(bench: &Bench, seconds: std::ops::Range<i64>) -> Vec<Record> {
    seconds.map(|second| bench.record(second, Some("k"), &format!("{{\"n\":{second}}}"))).collect()
}

async fn values(bench: &Bench, indexer: &Indexer) -> Vec<String> {
    let page = bench.page(indexer, &Asked::default(), 10_000).await.unwrap();
    let text = |event: crate::split::Event| String::from_utf8(event.value.to_vec()).unwrap();
    page.events.into_iter().map(text).collect()
}

fn numbers(range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|number| format!("{{\"n\":{number}}}")).collect()
}

#[tokio::test]
async fn publishes_at_a_size_and_at_an_age() {
    let bench = Bench::new(small()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    bench.append(Stage::Processed, 0, &records(&bench, 0..10)).await;
    bench.append(Stage::Processed, 1, &records(&bench, 10..13)).await;
    driver.step(&bench, BYTES).await.unwrap();
    let life = bench.stream.definition.incarnation;
    assert_eq!(bench.splits(), [format!("{life:020}-00000-00000000000000000000.split")]);
    assert_eq!(driver.through.get(&bench.place(Stage::Processed, 0)), Some(Offset(10)));
    assert_eq!(driver.through.get(&bench.place(Stage::Processed, 1)), Some(Offset(0)));

    bench.clock.advance(Duration::from_secs(300));
    driver.step(&bench, BYTES).await.unwrap();
    assert_eq!(bench.splits().len(), 2);
    assert_eq!(driver.through.get(&bench.place(Stage::Processed, 1)), Some(Offset(3)));
    assert_eq!(values(&bench, &bench.indexer).await, numbers(0..13));
}

#[tokio::test]
async fn a_tick_looks_at_no_partition_that_has_nothing_to_do() {
    let bench = Bench::new(small()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    let places: Vec<_> = (0..3).map(|partition| bench.place(Stage::Processed, partition)).collect();
    bench.append(Stage::Processed, 0, &records(&bench, 0..3)).await;
    bench.append(Stage::Processed, 1, &records(&bench, 10..20)).await;
    driver.step(&bench, BYTES).await.unwrap();
    for tick in 0..3 {
        let flushed = driver.sink.flush(&driver.reached).await.unwrap();
        let looked_at: Vec<_> = flushed.through.iter().collect();
        assert_eq!(looked_at, [(&places[0], Offset(0))], "tick {tick}");
    }
    bench.clock.advance(Duration::from_secs(300));
    let flushed = driver.sink.flush(&driver.reached).await.unwrap();
    assert_eq!(flushed.through.iter().collect::<Vec<_>>(), [(&places[0], Offset(3))]);
    assert!(driver.sink.flush(&driver.reached).await.unwrap().through.is_empty());
    bench.catalog.delete(bench.stream.name(), ADMINISTRATOR).await.unwrap();
    let flushed = driver.sink.flush(&driver.reached).await.unwrap();
    assert_eq!(flushed.through.iter().count(), 3, "a change is looked at once");
    assert!(driver.sink.flush(&driver.reached).await.unwrap().through.is_empty());
}

#[tokio::test]
async fn a_new_sink_resumes_at_the_end_of_the_last_split() {
    let bench = Bench::new(small()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    for start in [0, 10, 20] {
        bench.append(Stage::Processed, 2, &records(&bench, start..start + 10)).await;
        driver.step(&bench, BYTES).await.unwrap();
    }
    bench.append(Stage::Processed, 2, &records(&bench, 30..34)).await;
    driver.step(&bench, BYTES).await.unwrap();
    drop(driver);

    let restarted = bench.another("cache");
    let mut driver = Driver::open(&bench, &restarted).await;
    assert_eq!(driver.reached.get(&bench.place(Stage::Processed, 2)), Some(Offset(30)));
    assert_eq!(values(&bench, &restarted).await, numbers(0..34));
    bench.append(Stage::Processed, 2, &records(&bench, 34..40)).await;
    driver.step(&bench, BYTES).await.unwrap();
    assert_eq!(bench.splits().len(), 4);
    assert_eq!(values(&bench, &restarted).await, numbers(0..40));
}

#[tokio::test]
async fn a_split_that_is_there_already_is_adopted_with_its_end() {
    for (winner, loser) in [(4, 10), (10, 4)] {
        let bench = Bench::new(Limits { split_events_max: 1, ..small() }).await;
        bench.append(Stage::Processed, 0, &records(&bench, 0..winner)).await;
        let other = bench.another("other-cache");
        let mut ours = Driver::open(&bench, &bench.indexer).await;
        // The other worker resumed at the same offset, and publishes first.
        let mut theirs = Driver::open(&bench, &other).await;
        if winner > loser {
            // We read less than they do.
            let place = bench.place(Stage::Processed, 0);
            theirs.step(&bench, BYTES).await.unwrap();
            let mut chunk = bench
                .log
                .read(&broker::Position { place: place.clone(), offset: Offset(0) }, BYTES)
                .await
                .unwrap();
            chunk.entries.truncate(usize::try_from(loser).unwrap());
            chunk.next = Offset(loser.unsigned_abs());
            ours.reached.set(place, chunk.next);
            ours.sink.write(vec![chunk]).await.unwrap();
        } else {
            theirs.step(&bench, BYTES).await.unwrap();
            bench.append(Stage::Processed, 0, &records(&bench, winner..loser)).await;
        }
        ours.step(&bench, BYTES).await.unwrap();
        let through = ours.through.get(&bench.place(Stage::Processed, 0)).unwrap();
        assert_eq!(through, Offset(winner.unsigned_abs()));
        let all = winner.max(loser);
        assert_eq!(values(&bench, &bench.indexer).await, numbers(0..all));
        ours.step(&bench, BYTES).await.unwrap();
        assert_eq!(values(&bench, &bench.indexer).await, numbers(0..all));
        assert_eq!(values(&bench, &bench.another("third-cache")).await, numbers(0..all));
    }
}

#[tokio::test]
async fn deleting_the_local_copies_changes_no_answer() {
    let bench = Bench::new(small()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    for partition in 0..3 {
        let start = i64::from(partition) * 10;
        bench.append(Stage::Processed, partition, &records(&bench, start..start + 10)).await;
    }
    driver.step(&bench, BYTES).await.unwrap();
    assert_eq!(bench.splits().len(), 3);
    assert_eq!(values(&bench, &bench.indexer).await, numbers(0..30));
    std::fs::remove_dir_all(bench.cache()).unwrap();
    assert_eq!(values(&bench, &bench.indexer).await, numbers(0..30));
    assert_eq!(values(&bench, &bench.another("cache")).await, numbers(0..30));
    assert!(bench.cache().join("splits/index/green/flights/version=1").is_dir());
}

#[tokio::test]
async fn a_small_cache_closes_splits_and_opens_them_again() {
    let bench = Bench::new(Limits { cache_bytes_max: 1, ..small() }).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    for start in [0, 10, 20] {
        bench.append(Stage::Processed, 0, &records(&bench, start..start + 10)).await;
        driver.step(&bench, BYTES).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(values(&bench, &bench.indexer).await, numbers(0..30));
    }
}

#[tokio::test]
async fn a_damaged_copy_is_fetched_again_and_a_damaged_object_is_named() {
    let bench = Bench::new(small()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    bench.append(Stage::Processed, 0, &records(&bench, 0..10)).await;
    driver.step(&bench, BYTES).await.unwrap();
    let name = bench.splits().remove(0);
    let copy = bench.cache().join("splits/index/green/flights/version=1").join(&name);
    damage(&copy, 50);
    assert_eq!(values(&bench, &bench.indexer).await, numbers(0..10));

    let object = bench.directory.path().join("objects/index/green/flights/version=1").join(&name);
    damage(&object, 50);
    let error = bench.page(&bench.another("new-cache"), &Asked::default(), 10).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(error.to_string().contains(&name), "{error}");
    damage(&object, 50);
    damage(&object, std::fs::metadata(&object).unwrap().len() as usize - 20);
    let error = bench.page(&bench.another("new-cache"), &Asked::default(), 10).await.unwrap_err();
    assert!(error.kind() == Kind::Corrupt && error.to_string().contains(&name), "{error}");
}

fn damage(path: &std::path::Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn values_come_back_byte_for_byte() {
    let bench = Bench::new(small()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    let odd = [
        "{ \"a\" : 1.000 , \"a\":2, \"big\": 123456789012345678901234567890 }",
        "{\n\t\"nested\": [ {}, [], \"\\u00e6\\ud83d\\ude00\" ]\r\n}",
        "{\"x\":1e999,\"y\":\"\\ud800\"}",
        "[1, 2,3]",
        "\"just text\"",
        "null",
        "{\"\":{\"\\u0000\":\"\\u0000\"},\"a.b\":true,\"d\":\"2001-01-01T00:00:00Z\"}",
    ];
    let records: Vec<_> = (0..).zip(odd).map(|(second, value)| bench.record(second, None, value)).collect();
    bench.append(Stage::Processed, 1, &records).await;
    driver.step(&bench, BYTES).await.unwrap();
    assert_eq!(values(&bench, &bench.indexer).await, odd);
    let q = Asked { q: Some("text OR nested:* OR y:1".to_owned()), ..Asked::default() };
    let live = bench.count(&bench.indexer, &q).await.unwrap();
    bench.clock.advance(Duration::from_secs(300));
    driver.step(&bench, BYTES).await.unwrap();
    assert_eq!(bench.splits().len(), 1);
    assert_eq!(values(&bench, &bench.indexer).await, odd);
    assert_eq!(bench.count(&bench.indexer, &q).await.unwrap(), live);
}

#[tokio::test]
async fn large_and_wide_events_are_indexed() {
    let bench = Bench::new(Limits { split_age_max: Duration::ZERO, ..small() }).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    let wide: Vec<String> = (0..3_000).map(|number| format!("\"f{number}\":{number}")).collect();
    let large = [
        format!("{{\"word\":\"{}\"}}", "x".repeat(1 << 20)),
        format!("{{\"text\":\"{}end\"}}", "many words ".repeat(90_000)),
        format!("{{{}}}", wide.join(",")),
        format!("{{\"{}\":1}}", "name".repeat(30_000)),
    ];
    let key = "key".repeat(20_000);
    let records: Vec<_> = (0..).zip(&large).map(|(n, value)| bench.record(n, Some(&key), value)).collect();
    bench.append(Stage::Processed, 1, &records).await;
    for published in [0, 1] {
        for (q, wanted) in [("end", 1), ("f2999:2999", 1), ("f7:*", 1), ("words", 1)] {
            let asked = Asked { q: Some(q.to_owned()), ..Asked::default() };
            assert_eq!(bench.count(&bench.indexer, &asked).await.unwrap(), wanted, "{q}");
        }
        assert_eq!(values(&bench, &bench.indexer).await, large);
        let asked = Asked { key: Some(key.clone()), ..Asked::default() };
        assert_eq!(bench.count(&bench.indexer, &asked).await.unwrap(), 4);
        assert_eq!(bench.splits().len(), published);
        driver.step(&bench, 16 << 20).await.unwrap();
    }
}

#[tokio::test]
async fn holds_no_more_than_it_may_and_answers_all_the_same() {
    let limits = Limits { staged_bytes_max: 2_000, split_events_max: 1_000_000, ..small() };
    let bench = Bench::new(limits).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    bench.append(Stage::Processed, 0, &records(&bench, 0..100)).await;
    bench.append(Stage::Processed, 1, &records(&bench, 100..105)).await;
    driver.step(&bench, BYTES).await.unwrap();
    assert_eq!(bench.splits().len(), 1, "the largest partition is published early");
    assert_eq!(values(&bench, &bench.indexer).await, numbers(0..105));
    // One that only reads takes what it may, and reads the rest for the query.
    assert_eq!(values(&bench, &bench.another("other")).await, numbers(0..105));
}

#[tokio::test]
async fn an_answer_says_where_it_ends_if_the_log_has_more_than_a_query_reads() {
    let bench = Bench::new(small()).await;
    let mut arrivals = Vec::new();
    let value = format!("{{\"text\":\"{}\"}}", "x".repeat(1_000));
    for _ in 0..10 {
        bench.clock.advance(Duration::from_secs(1));
        arrivals.push(bench.clock.now());
        let records: Vec<_> = (0..10).map(|second| bench.record(second, None, &value)).collect();
        bench.append(Stage::Processed, 1, &records).await;
    }
    let query_wait_max = Duration::from_millis(120);
    let limits = Limits { staged_bytes_max: 0, query_wait_max, ..small() };
    // A third of it for each partition: two batches and a half.
    let query_read_bytes_max = 3 * 25 * bench.record(0, None, &value).weight();
    let little = Limits { query_read_bytes_max, ..limits.clone() };
    let other = bench.another_on("little", bench.objects.clone(), little);
    let page = bench.page(&other, &Asked::default(), 1_000).await.unwrap();
    assert_eq!(page.events.len(), 25);
    assert_eq!(page.complete_through, arrivals[2]);
    let other = bench.another_on("all", bench.objects.clone(), limits);
    let page = bench.page(&other, &Asked::default(), 1_000).await.unwrap();
    assert_eq!(page.events.len(), 100);
    assert_eq!(page.complete_through, bench.clock.now());
}

#[tokio::test]
async fn a_stream_that_is_made_again_has_none_of_its_earlier_events() {
    let bench = Bench::new(small()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    bench.append(Stage::Processed, 0, &records(&bench, 0..15)).await;
    driver.step(&bench, BYTES).await.unwrap();
    let name = bench.stream.name().clone();
    bench.catalog.delete(&name, ADMINISTRATOR).await.unwrap();
    let flushed = driver.sink.flush(&driver.reached).await.unwrap();
    assert_eq!(flushed.through, driver.reached, "a stream that is gone holds nobody up");

    let draft = broker::catalog::Draft {
        dataset: "flights".to_owned(),
        version: "1".to_owned(),
        partitions: Some(3),
        ..Default::default()
    };
    bench.catalog.create(draft, ADMINISTRATOR).await.unwrap();
    bench.append(Stage::Processed, 0, &records(&bench, 50..52)).await;
    assert_eq!(values(&bench, &bench.indexer).await, numbers(50..52));
    let place = bench.place(Stage::Processed, 0);
    let chunk = bench.log.read(&broker::Position { place, offset: Offset(0) }, BYTES).await.unwrap();
    let error = driver.sink.write(vec![chunk]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced, "the partition has to be resumed");
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    driver.step(&bench, BYTES).await.unwrap();
    bench.clock.advance(Duration::from_secs(300));
    driver.step(&bench, BYTES).await.unwrap();
    assert_eq!(values(&bench, &bench.indexer).await, numbers(50..52));
}

#[tokio::test]
async fn a_stream_without_an_index_is_passed_over() {
    let bench = Bench::new(small()).await;
    let name = bench.stream.name().clone();
    bench.catalog.delete(&name, ADMINISTRATOR).await.unwrap();
    let without = r#"{"dataset":"flights","version":"1","partitions":3,"sinks":{"index":false}}"#;
    bench.catalog.create(serde_json::from_str(without).unwrap(), ADMINISTRATOR).await.unwrap();
    bench.append(Stage::Processed, 0, &records(&bench, 0..15)).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    driver.step(&bench, BYTES).await.unwrap();
    assert_eq!(driver.through.get(&bench.place(Stage::Processed, 0)), Some(Offset(15)));
    let error = bench.page(&bench.indexer, &Asked::default(), 10).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);

    let edit = broker::catalog::Edit { sinks: Some(Default::default()), ..Default::default() };
    bench.catalog.change(&name, edit, ADMINISTRATOR).await.unwrap();
    bench.append(Stage::Processed, 0, &records(&bench, 15..18)).await;
    assert_eq!(values(&bench, &bench.indexer).await, numbers(15..18), "from then on");
}

#[tokio::test]
async fn objects_that_are_no_splits_are_passed_over() {
    let bench = Bench::new(small()).await;
    for name in ["readme.txt", "x-y-z.split", "00000000000000000009-00000-00000000000000000000.split"] {
        let location = Location::from(format!("index/green/flights/version=1/{name}"));
        bench.objects.put_opts(&location, "text".into(), PutMode::Create.into()).await.unwrap();
    }
    bench.append(Stage::Processed, 0, &records(&bench, 0..2)).await;
    assert_eq!(values(&bench, &bench.indexer).await, numbers(0..2));
    assert!(bench.objects.head(&Location::from("index/green/flights/version=1/readme.txt")).await.is_ok());
}

#[tokio::test]
async fn what_is_acked_is_found_while_router_and_index_run_behind() {
    let bench = Bench::new(small()).await;
    let stop = CancellationToken::new();
    let log = bench.log.as_ref();
    let router = Box::new(Router::new(bench.catalog.clone()));
    let selection = (Selection::Stage(Stage::Raw), Group::ROUTER);
    let router = Worker::open(log, selection, router, bench.clock.clone()).await.unwrap();
    let selection = (Selection::Stage(Stage::Processed), Group::INDEX);
    let index = Worker::open(log, selection, bench.indexer.sink(), bench.clock.clone()).await.unwrap();
    let ask = async {
        for round in 0..20_i64 {
            for partition in 0..3 {
                let start = round * 30 + i64::from(partition) * 10;
                bench.append(Stage::Raw, partition, &records(&bench, start..start + 10)).await;
            }
            assert_eq!(values(&bench, &bench.indexer).await, numbers(0..(round + 1) * 30));
        }
        stop.cancel();
    };
    let (routed, indexed, ()) = tokio::join!(router.run(stop.clone()), index.run(stop.clone()), ask);
    routed.unwrap();
    indexed.unwrap();
    assert!(!bench.splits().is_empty());
    let committed: Checkpoint =
        bench.log.committed(&Group::INDEX, &bench.stream.topic(Stage::Processed)).await.unwrap();
    assert!(committed.get(&bench.place(Stage::Processed, 0)).is_some_and(|next| next > Offset(0)));
    let (restarted, all) = (bench.another("cache"), numbers(0..600));
    assert_eq!(values(&bench, &restarted).await, all);
    assert_eq!(restarted.of(&bench.stream).partitions().last(), Some(Partition(2)));
}

#[tokio::test]
async fn what_the_router_passed_once_is_known_to_be_routed() {
    let bench = Bench::new(small()).await;
    let index = bench.indexer.of(&bench.stream);
    let committed = |next| Checkpoint::from_iter([(bench.place(Stage::Raw, 1), Offset(next))]);
    assert!(index.is_routed(Partition(1), Offset(0)), "there is nothing to route");
    for (next, routed) in [(5, 5), (3, 5), (9, 9)] {
        index.note_routed(&committed(next));
        assert!(index.is_routed(Partition(1), Offset(routed)));
        assert!(!index.is_routed(Partition(1), Offset(routed + 1)));
    }
    assert!(!index.is_routed(Partition(0), Offset(1)), "another partition");
}

#[tokio::test]
async fn an_answer_says_through_when_it_is_complete() {
    let bench = Bench::new(Limits { query_wait_max: Duration::from_millis(5), ..small() }).await;
    let arrived = bench.clock.now();
    bench.append(Stage::Raw, 1, &records(&bench, 0..1)).await;
    bench.clock.advance(Duration::from_secs(9));
    let page = bench.page(&bench.indexer, &Asked::default(), 10).await.unwrap();
    assert!(page.events.is_empty());
    assert_eq!(page.complete_through, arrived, "nobody routes here");
    // What the router passed is not asked for again, what came after that is.
    let routed = Checkpoint::from_iter([(bench.place(Stage::Raw, 1), Offset(1))]);
    bench.indexer.of(&bench.stream).note_routed(&routed);
    let page = bench.page(&bench.indexer, &Asked::default(), 10).await.unwrap();
    assert_eq!(page.complete_through, bench.clock.now());
    bench.append(Stage::Raw, 1, &records(&bench, 1..2)).await;
    bench.clock.advance(Duration::from_secs(9));
    let page = bench.page(&bench.indexer, &Asked::default(), 10).await.unwrap();
    assert!(page.complete_through < bench.clock.now());
}
