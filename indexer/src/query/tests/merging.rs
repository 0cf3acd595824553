//! Answers before, during and after splits are merged, compared with a naive filter.

use super::*;

async fn check_some(seed: u64, indexer: &Indexer, bench: &Bench, known: &[Known], random: &mut StdRng) {
    for number in 0..12 {
        let case = case(known, random);
        let limit = random.random_range(1..40);
        println!("seed {seed}, case {number}: {:?}, limit {limit}", case.asked);
        check(indexer, bench, &case, limit).await;
    }
}

#[tokio::test]
async fn merging_changes_no_answer() {
    for seed in 0..3 {
        let mut random = StdRng::seed_from_u64(seed);
        let limits = Limits { split_events_max: 200, split_age_max: Duration::ZERO, ..small() };
        let bench = Bench::new(limits).await;
        let mut driver = Driver::open(&bench, &bench.indexer).await;
        let known = fill(&bench, &mut driver, &mut random).await;
        let before = bench.splits().len();
        assert!(before > 40, "seed {seed}: {before} splits");
        check_some(seed, &bench.indexer, &bench, &known, &mut random).await;
        let reader = bench.another("reader");
        check_some(seed, &reader, &bench, &known, &mut random).await;

        let mut upkeep = bench.indexer.upkeep();
        upkeep.round().await;
        assert!(bench.splits().len() > before, "seed {seed}: parts stay for a while");
        for indexer in [&bench.indexer, &reader, &bench.another("during")] {
            check_some(seed, indexer, &bench, &known, &mut random).await;
        }
        for _ in 0..2 {
            bench.clock.advance(bench.limits.split_grace);
            upkeep.round().await;
        }
        let after = bench.splits().len();
        assert!(after <= 18, "seed {seed}: {after} splits, {before} before");
        for indexer in [&bench.indexer, &reader, &bench.another("after")] {
            check_some(seed, indexer, &bench, &known, &mut random).await;
        }
    }
}
