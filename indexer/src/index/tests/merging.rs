//! Merging: fewer splits, the same answers, whatever ends or races in between.

use super::faulty::EndsAfter;
use super::*;

/// Every step publishes what there is.
pub(super) fn eager() -> Limits {
    Limits { split_events_max: 1_000, split_age_max: Duration::ZERO, ..small() }
}

/// Publishes splits of `size` events each in partition 0.
pub(super) async fn publish(bench: &Bench, driver: &mut Driver, starts: std::ops::Range<i64>, size: i64) {
    for number in starts {
        bench.append(Stage::Processed, 0, &records(bench, number * size..(number + 1) * size)).await;
        driver.step(bench, BYTES).await.unwrap();
    }
}

/// Where the published splits of partition 0 begin, and where those that were merged end.
pub(super) fn ranges(bench: &Bench) -> Vec<String> {
    let range = |name: String| {
        let numbers: Vec<u64> =
            name.trim_end_matches(".split").split('-').map(|number| number.parse().unwrap()).collect();
        numbers[2..].iter().map(u64::to_string).collect::<Vec<_>>().join("-")
    };
    bench.splits().into_iter().map(range).collect()
}

pub(super) fn grace() -> Duration {
    Limits::default().split_grace
}

#[tokio::test]
async fn small_splits_are_merged_and_their_parts_go_after_a_while() {
    let bench = Bench::new(eager()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    let mut upkeep = bench.indexer.upkeep();
    publish(&bench, &mut driver, 0..4, 5).await;
    assert_eq!(ranges(&bench), ["0", "5", "10", "15"]);
    upkeep.merge_grown().await;
    assert_eq!(ranges(&bench), ["0-20", "0", "5", "10", "15"]);
    let reader = bench.another("other");
    for indexer in [&bench.indexer, &reader] {
        assert_eq!(values(&bench, indexer).await, numbers(0..20));
        let pieces = indexer.of(&bench.stream).splits(Partition(0));
        assert_eq!(pieces.len(), 1, "answers are made of the merged split");
        assert_eq!((pieces[0].count, pieces[0].is_merged), (20, true));
    }
    upkeep.round().await;
    bench.clock.advance(grace() - Duration::from_secs(1));
    upkeep.round().await;
    assert_eq!(ranges(&bench).len(), 5, "readers with an older list still find the parts");
    bench.clock.advance(Duration::from_secs(1));
    upkeep.round().await;
    assert_eq!(ranges(&bench), ["0-20"]);
    let copies = std::fs::read_dir(bench.cache().join("splits/index/green/flights/version=1")).unwrap();
    assert_eq!(copies.count(), 1, "the local copies of the parts go with them");

    publish(&bench, &mut driver, 4..7, 5).await;
    upkeep.merge_grown().await;
    assert_eq!(ranges(&bench), ["0-20", "20", "25", "30"]);
    assert_eq!(values(&bench, &bench.indexer).await, numbers(0..35));
    let restarted = bench.another("third");
    assert_eq!(Driver::open(&bench, &restarted).await.reached.get(&driver_place(&bench)), Some(Offset(35)));
    assert_eq!(values(&bench, &restarted).await, numbers(0..35));
}

fn driver_place(bench: &Bench) -> broker::Place {
    bench.place(Stage::Processed, 0)
}

#[tokio::test]
async fn a_crash_at_any_step_neither_loses_nor_doubles_an_event() {
    for changes in 0.. {
        let bench = Bench::new(eager()).await;
        let mut driver = Driver::open(&bench, &bench.indexer).await;
        publish(&bench, &mut driver, 0..17, 3).await;
        // It lists the parts, and opens none before it is asked.
        let old_list = Limits { listing_age_max: Duration::from_secs(86_400), ..eager() };
        let reader = bench.another_on("reader", bench.objects.clone(), old_list);
        reader.keep_listed(&reader.of(&bench.stream)).await.unwrap();
        let store = EndsAfter::new(bench.objects.clone(), changes);
        let dying = bench.another_on("dying", store.clone(), eager());
        let mut upkeep = dying.upkeep();
        for _ in 0..4 {
            upkeep.round().await;
            assert_eq!(values(&bench, &dying).await, numbers(0..51), "after {changes} changes");
            bench.clock.advance(grace());
        }
        let is_done = !store.has_ended();
        drop((upkeep, dying));
        // The one that published them, one with an old list, and one that knows nothing.
        for indexer in [&bench.indexer, &reader, &bench.another("new")] {
            assert_eq!(values(&bench, indexer).await, numbers(0..51), "after {changes} changes");
        }
        // A crash is followed by a start, and that by the rest of the work.
        let restarted = bench.another("dying");
        let mut upkeep = restarted.upkeep();
        for _ in 0..4 {
            upkeep.round().await;
            bench.clock.advance(grace());
        }
        assert_eq!(values(&bench, &restarted).await, numbers(0..51));
        assert_eq!(ranges(&bench), ["0-51"], "after {changes} changes");
        publish(&bench, &mut driver, 17..18, 3).await;
        assert_eq!(values(&bench, &bench.indexer).await, numbers(0..54));
        if is_done {
            assert!(changes >= 18, "a put and seventeen removals");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mergers_that_race_leave_every_event_once() {
    let bench = Bench::new(eager()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    // Limits that differ make plans that overlap.
    let limits = [40, 40, 70, 1_000].map(|split_events_max| Limits { split_events_max, ..eager() });
    let racers: Vec<_> = (0..)
        .zip(limits)
        .map(|(number, limits)| bench.another_on(&format!("cache-{number}"), bench.objects.clone(), limits))
        .collect();
    let mut upkeeps: Vec<_> = racers.iter().map(|indexer| indexer.upkeep()).collect();
    for round in 0..12 {
        publish(&bench, &mut driver, round * 5..(round + 1) * 5, 4).await;
        let all = numbers(0..(round + 1) * 20);
        let race = futures::future::join_all(upkeeps.iter_mut().map(|upkeep| upkeep.round()));
        let ask = async {
            for indexer in &racers {
                assert_eq!(values(&bench, indexer).await, all, "round {round}");
            }
        };
        tokio::join!(race, ask);
        assert_eq!(values(&bench, &bench.indexer).await, all, "round {round}");
        assert_eq!(values(&bench, &bench.another(&format!("new-{round}"))).await, all, "round {round}");
        bench.clock.advance(grace() / 2);
    }
    assert!(ranges(&bench).len() < 30, "{:?}", ranges(&bench));
}

#[tokio::test]
async fn what_a_fenced_worker_publishes_under_a_name_that_is_free_again_changes_nothing() {
    let bench = Bench::new(eager()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    publish(&bench, &mut driver, 0..2, 5).await;
    // It read on, and was held up before it published; another took over meanwhile.
    let mut held_up = Driver::open(&bench, &bench.another("held-up")).await;
    bench.append(Stage::Processed, 0, &records(&bench, 10..15)).await;
    let taken_over = bench.another("taken-over");
    let mut driver = Driver::open(&bench, &taken_over).await;
    driver.step(&bench, BYTES).await.unwrap();
    publish(&bench, &mut driver, 3..8, 5).await;
    let mut upkeep = taken_over.upkeep();
    for _ in 0..3 {
        upkeep.round().await;
        bench.clock.advance(grace());
    }
    assert_eq!(ranges(&bench), ["0-40"]);
    held_up.step(&bench, BYTES).await.unwrap();
    assert_eq!(ranges(&bench), ["0-40", "10"]);
    publish(&bench, &mut driver, 8..9, 5).await;
    for indexer in [&taken_over, &bench.another("new")] {
        assert_eq!(values(&bench, indexer).await, numbers(0..45));
    }
    for _ in 0..2 {
        upkeep.round().await;
        bench.clock.advance(grace());
    }
    assert_eq!(ranges(&bench), ["0-40", "40"], "and goes after a while");
}

#[tokio::test]
async fn a_query_holds_on_to_what_it_has_opened() {
    let bench = Bench::new(eager()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    publish(&bench, &mut driver, 0..8, 5).await;
    let stream = bench.indexer.stream(bench.stream.name()).await.unwrap();
    let query = bench.indexer.query(stream, &Asked::default()).unwrap();
    let snapshot = bench.indexer.snapshot(&query.stream, query.bounds).await.unwrap();
    let mut upkeep = bench.indexer.upkeep();
    for _ in 0..3 {
        upkeep.round().await;
        bench.clock.advance(grace());
    }
    assert_eq!(ranges(&bench), ["0-40"]);
    let page = snapshot.page(&query, query.wanted(None, 100).unwrap(), Ok).await.unwrap();
    assert_eq!(page.events.len(), 40, "its splits are removed, and still read");
}

#[tokio::test]
async fn splits_that_somebody_deletes_are_read_from_the_log_again() {
    let bench = Bench::new(eager()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    publish(&bench, &mut driver, 0..3, 5).await;
    std::fs::remove_dir_all(bench.directory.path().join("objects/index")).unwrap();
    std::fs::remove_dir_all(bench.cache()).unwrap();
    let mut upkeep = bench.indexer.upkeep();
    upkeep.round().await;
    assert_eq!(values(&bench, &bench.another("new")).await, numbers(0..15));
}

#[tokio::test]
async fn a_damaged_split_is_not_merged_and_holds_up_nobody() {
    let bench = Bench::new(eager()).await;
    let mut driver = Driver::open(&bench, &bench.indexer).await;
    for start in [100, 105, 110, 115] {
        bench.append(Stage::Processed, 2, &records(&bench, start..start + 5)).await;
        driver.step(&bench, BYTES).await.unwrap();
    }
    publish(&bench, &mut driver, 0..4, 5).await;
    let name = bench.splits().remove(1);
    damage(&bench.directory.path().join("objects/index/green/flights/version=1").join(&name), 50);
    let other = bench.another("other");
    other.upkeep().round().await;
    assert_eq!(ranges(&bench), ["0", "5", "10", "15", "0-20", "0", "5", "10", "15"]);
    let error = bench.page(&other, &Asked::default(), 10).await.unwrap_err();
    assert!(error.kind() == Kind::Corrupt && error.to_string().contains(&name), "{error}");
}
