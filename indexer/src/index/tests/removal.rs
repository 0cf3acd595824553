//! Splits go with their events: by retention, and with their stream.

use broker::Catalog;
use broker::catalog::{Draft, Edit, Retention};

use super::faulty::EndsAfter;
use super::merging::{eager, grace, publish, ranges};
use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

async fn keep_an_hour(bench: &Bench) {
    keep_an_hour_of(bench, true).await;
}

async fn keep_an_hour_of(bench: &Bench, index: bool) {
    let retention = Retention { age_seconds: Some(HOUR.as_secs()), partition_bytes: None, index };
    let edit = Edit { retention: Some(retention), ..Edit::default() };
    bench.catalog.change(bench.stream.name(), edit, ADMINISTRATOR).await.unwrap();
}

/// Two hours later five more events come. The first write keeps the last block that was there before
/// it, the second one removes that as well.
async fn expire(bench: &Bench, from: i64) {
    bench.clock.advance(HOUR * 2);
    bench.append(Stage::Processed, 0, &records(bench, from..from + 2)).await;
    bench.append(Stage::Processed, 0, &records(bench, from + 2..from + 5)).await;
    let start = bench.log.bounds(&bench.place(Stage::Processed, 0)).await.unwrap().start;
    assert_eq!(start, Offset(from.unsigned_abs()));
}

#[tokio::test]
async fn splits_that_are_older_than_the_log_are_dropped() {
    let bench = Bench::new(eager()).await;
    keep_an_hour(&bench).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    publish(&bench, &mut driver, 0..3, 5).await;
    let old_list = Limits { listing_age_max: HOUR * 24, ..eager() };
    let reader = bench.another_on("reader", bench.objects.clone(), old_list);
    reader.keep_listed(&reader.of(&bench.stream)).await.unwrap();
    expire(&bench, 15).await;
    driver.step(&bench, BYTES).await.unwrap();
    assert_eq!(values(&bench, &bench.indexer).await, numbers(0..20), "until the next round");
    let mut upkeep = bench.indexer.upkeep();
    upkeep.round().await;
    assert_eq!(ranges(&bench), ["15"]);
    for indexer in [&bench.indexer, &reader, &bench.another("new")] {
        assert_eq!(values(&bench, indexer).await, numbers(15..20));
    }
    // The sink goes on, and so does one that begins when nothing is left.
    publish(&bench, &mut driver, 4..5, 5).await;
    assert_eq!(driver.through.get(&bench.place(Stage::Processed, 0)), Some(Offset(25)));
    let restarted = bench.another("cache");
    let mut driver = Driver::open(&bench, &restarted).await;
    publish(&bench, &mut driver, 5..6, 5).await;
    assert_eq!(values(&bench, &restarted).await, numbers(15..30));
}

#[tokio::test]
async fn splits_that_retention_leaves_out_are_merged_and_found_for_ever() {
    let bench = Bench::new(eager()).await;
    keep_an_hour_of(&bench, false).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    publish(&bench, &mut driver, 0..4, 5).await;
    expire(&bench, 20).await;
    driver.step(&bench, BYTES).await.unwrap();
    let mut upkeep = bench.indexer.upkeep();
    upkeep.round().await;
    assert!(ranges(&bench).contains(&"0-25".to_owned()), "{:?}", ranges(&bench));
    for indexer in [&bench.indexer, &bench.another("new")] {
        assert_eq!(values(&bench, indexer).await, numbers(0..25));
    }
}

#[tokio::test]
async fn an_owner_of_which_every_split_was_dropped_goes_on_where_it_was() {
    let bench = Bench::new(eager()).await;
    keep_an_hour(&bench).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    publish(&bench, &mut driver, 0..3, 5).await;
    expire(&bench, 15).await;
    let other = bench.another("other");
    other.upkeep().round().await;
    assert!(ranges(&bench).is_empty());
    bench.indexer.upkeep().round().await;
    for indexer in [&bench.indexer, &other] {
        assert_eq!(values(&bench, indexer).await, numbers(15..20));
    }
    driver.step(&bench, BYTES).await.unwrap();
    assert_eq!(driver.through.get(&bench.place(Stage::Processed, 0)), Some(Offset(20)));
    assert_eq!(ranges(&bench), ["15"]);
    for indexer in [&bench.indexer, &other, &bench.another("new")] {
        assert_eq!(values(&bench, indexer).await, numbers(15..20));
    }
}

#[tokio::test]
async fn a_crash_while_splits_are_dropped_leaves_no_gap() {
    for changes in 0.. {
        let bench = Bench::new(eager()).await;
        keep_an_hour(&bench).await;
        let mut driver = Driver::open(&bench, &bench.indexer).await;
        publish(&bench, &mut driver, 0..4, 5).await;
        bench.indexer.upkeep().round().await;
        publish(&bench, &mut driver, 4..6, 5).await;
        assert_eq!(ranges(&bench).len(), 7, "a merged split with its parts, and two more");
        expire(&bench, 30).await;
        driver.step(&bench, BYTES).await.unwrap();
        let store = EndsAfter::new(bench.objects.clone(), changes);
        let dying = bench.another_on("dying", store.clone(), eager());
        dying.upkeep().round().await;
        for indexer in [&dying, &bench.another("new"), &bench.indexer] {
            let found = values(&bench, indexer).await;
            let kept = numbers(35 - i64::try_from(found.len()).unwrap()..35);
            assert!(found.len() >= 5 && found == kept, "after {changes} changes: {found:?}");
        }
        let is_done = !store.has_ended();
        bench.another("dying").upkeep().round().await;
        assert_eq!(ranges(&bench), ["30"]);
        assert_eq!(values(&bench, &bench.another("newer")).await, numbers(30..35));
        if is_done {
            assert!(changes >= 7, "{changes}");
            return;
        }
    }
}

#[tokio::test]
async fn a_process_that_only_queries_lets_go_of_copies_that_it_has_no_use_for() {
    let bench = Bench::new(eager()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    publish(&bench, &mut driver, 0..4, 5).await;
    let reader = bench.another("cache");
    reader.clear_copies().await;
    assert_eq!(copies(&bench), 4, "nothing was listed yet");
    let mut upkeep = bench.another("other").upkeep();
    for _ in 0..2 {
        upkeep.round().await;
        bench.clock.advance(grace());
    }
    upkeep.round().await;
    assert_eq!(ranges(&bench), ["0-20"]);
    assert_eq!(values(&bench, &reader).await, numbers(0..20));
    assert_eq!(copies(&bench), 5);
    reader.clear_copies().await;
    assert_eq!(copies(&bench), 1);
    assert_eq!(values(&bench, &reader).await, numbers(0..20));
}

fn draft() -> Draft {
    Draft { dataset: "flights".to_owned(), version: "1".to_owned(), partitions: Some(3), ..Draft::default() }
}

fn copies(bench: &Bench) -> usize {
    std::fs::read_dir(bench.cache().join("splits/index/green/flights/version=1")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn the_splits_of_a_deleted_stream_are_removed_also_after_a_crash() {
    for changes in 0..4 {
        let bench = Bench::new(eager()).await;
        let mut driver = Driver::open(&bench, &bench.indexer).await;
        publish(&bench, &mut driver, 0..3, 5).await;
        let elsewhere = Location::from("index/green/flights/version=2/00000000000000000001-00000-0.split");
        bench.objects.put(&elsewhere, "of a stream that nobody here knows".into()).await.unwrap();
        bench.catalog.delete(bench.stream.name(), ADMINISTRATOR).await.unwrap();
        if changes % 2 == 0 {
            bench.catalog.create(draft(), ADMINISTRATOR).await.unwrap();
        }
        let store = EndsAfter::new(bench.objects.clone(), changes);
        bench.another_on("dying", store, eager()).upkeep().clear_ended().await;
        assert_eq!(ranges(&bench).len(), 3 - changes.min(3));
        assert_eq!(copies(&bench), 3);
        let restarted = bench.another("cache");
        restarted.upkeep().round().await;
        assert!(ranges(&bench).is_empty());
        assert_eq!(copies(&bench), 0, "copies go as well");
        assert!(bench.objects.head(&elsewhere).await.is_ok());
    }
}

#[tokio::test]
async fn a_stream_made_again_keeps_its_own_splits_only() {
    let mut bench = Bench::new(eager()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    publish(&bench, &mut driver, 0..3, 5).await;
    let mut upkeep = bench.indexer.upkeep();
    upkeep.round().await;
    bench.catalog.delete(bench.stream.name(), ADMINISTRATOR).await.unwrap();
    bench.stream = bench.catalog.create(draft(), ADMINISTRATOR).await.unwrap();
    // A worker of the first life was about to publish.
    let late = bench.another("late");
    let name = SplitName { partition: Partition(0), first: Offset(15), merged_end: None };
    let first_life = bench.splits().remove(0);
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    publish(&bench, &mut driver, 10..14, 5).await;
    assert_eq!(values(&bench, &late).await, numbers(50..70));
    upkeep.clear_ended().await;
    let left = bench.splits();
    assert!(left.len() == 4 && !left.contains(&first_life), "{left:?}");
    let folder = Location::from("index/green/flights/version=1");
    let late_name = first_life.replace("-00000000000000000000.", "-00000000000000000015.");
    let location = Location::from(format!("{folder}/{late_name}"));
    bench.objects.put(&location, "late".into()).await.unwrap();
    assert_eq!(super::super::names::read(&location).unwrap().2, name);
    for _ in 0..3 {
        upkeep.round().await;
        bench.clock.advance(grace());
    }
    assert_eq!(ranges(&bench), ["0-20"]);
    assert_eq!(copies(&bench), 1);
    for indexer in [&bench.indexer, &late, &bench.another("new")] {
        assert_eq!(values(&bench, indexer).await, numbers(50..70));
    }
}

#[tokio::test]
async fn a_stream_of_a_catalog_begun_anew_finds_no_splits_of_the_one_that_was_lost() {
    let mut bench = Bench::new(eager()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    publish(&bench, &mut driver, 0..3, 5).await;
    drop(driver);
    // The data folder is lost, and the object store is kept.
    bench.clock.advance(Duration::from_secs(1));
    let options = broker::log::sled::SledOptions::at(bench.directory.path().join("another-log"));
    bench.log = broker::log::sled::SledLog::open(options, bench.clock.clone()).await.unwrap();
    bench.catalog = Catalog::open(bench.log.clone(), bench.clock.clone()).await.unwrap();
    bench.stream = bench.catalog.create(draft(), ADMINISTRATOR).await.unwrap();
    let indexer = bench.another("cache");
    let mut driver = Driver::open(&bench, &indexer).await;
    bench.append(Stage::Processed, 0, &records(&bench, 40..42)).await;
    driver.step(&bench, BYTES).await.unwrap();
    assert_eq!(values(&bench, &indexer).await, numbers(40..42));
    indexer.upkeep().round().await;
    assert_eq!(bench.splits().len(), 4, "this catalog does not know whose the others are");
}
