//! Damage is found and named; a torn tail is recovered.

use std::path::PathBuf;

use super::*;

const BLOCKS: u64 = 5;

/// Five blocks of two records each, in a closed log.
async fn filled() -> Bench {
    let bench = Bench::new();
    let log = bench.create(Cleanup::Keep).await;
    for _ in 0..BLOCKS {
        let records = [bench.record(noise(9_000)), bench.record(noise(100))];
        bench.append(&log, &records).await.unwrap();
    }
    log.close().await.unwrap();
    bench
}

fn piece(base: u64, piece: u16) -> [u8; 19] {
    key::block(key::PartitionKey { topic: 0, partition: 0 }, base, piece)
}

async fn check(alter: impl FnOnce(&sled::Db), offset: u64) {
    let bench = filled().await;
    bench.alter(alter);
    let log = bench.open().await;
    let chunk = log.read(&Position { place: bench.place.clone(), offset: Offset(0) }, 1).await;
    assert!(chunk.is_ok(), "what lies before the damage can be read");
    let error = bench.read_from(&log, 0).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    let position = format!("numbers/0 at offset {offset}");
    assert!(error.message().contains(&position), "{error}");

    let mut reader = log.subscribe(Selection::Topic(bench.place.topic.clone()), &Group::INDEX).await.unwrap();
    let next = reader.next(1 << 20).await.unwrap_err();
    assert_eq!(next.kind(), Kind::Corrupt, "{next}");
}

fn flip(db: &sled::Db, key: &[u8], index: usize) {
    let mut value = db.get(key).unwrap().unwrap().to_vec();
    value[index] ^= 0x10;
    db.insert(key, value).unwrap();
}

#[tokio::test]
async fn a_flipped_bit_is_corrupt_wherever_it_is() {
    for (number, index) in [(0, 0), (0, 20), (0, 69), (0, 81), (0, 82), (0, 4_095), (1, 0), (2, 700)] {
        check(|db| flip(db, &piece(4, number), index), 4).await;
    }
}

#[tokio::test]
async fn a_missing_piece_is_corrupt() {
    for number in 0..3 {
        check(|db| assert!(db.remove(piece(6, number)).unwrap().is_some()), 6).await;
    }
}

#[tokio::test]
async fn a_missing_block_is_corrupt() {
    check(|db| (0..3).for_each(|number| assert!(db.remove(piece(2, number)).unwrap().is_some())), 2).await;
}

#[tokio::test]
async fn a_block_in_the_place_of_another_is_corrupt() {
    let swap = |db: &sled::Db| {
        for number in 0..3 {
            let value = db.get(piece(6, number)).unwrap().unwrap();
            db.insert(piece(4, number), value).unwrap();
        }
    };
    check(swap, 4).await;
}

fn copy(bench: &Bench) -> Vec<(PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(bench.directory.path()).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.is_file()).map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// What is on disk is taken while the log is open, as a crash would leave it, before and after an
/// append; then as much of the second picture is used as a torn write leaves.
#[tokio::test]
async fn a_torn_tail_loses_nothing_that_was_acknowledged() {
    let bench = Bench::new();
    let log = bench.create(Cleanup::Keep).await;
    for index in 0..20 {
        bench.append(&log, &[bench.record(noise(index * 500))]).await.unwrap();
    }
    let before = copy(&bench);
    bench.append(&log, &[bench.record(noise(30_000))]).await.unwrap();
    let after = copy(&bench);
    log.close().await.unwrap();
    let db = |files: &[(PathBuf, Vec<u8>)]| {
        files.iter().find(|(path, _)| path.ends_with("db")).map(|(_, bytes)| bytes.clone()).unwrap()
    };
    let (before_db, after_db) = (db(&before), db(&after));
    let differs = |at: &usize| before_db.get(*at) != after_db.get(*at);
    let changed: Vec<usize> = (0..after_db.len()).filter(differs).collect();
    assert!(changed.len() > 30_000);
    for tenth in 0..=10 {
        let torn = Bench::new();
        let mut bytes = before_db.clone();
        bytes.resize(before_db.len().max(after_db.len()), 0);
        for at in &changed[..changed.len() * tenth / 10] {
            bytes[*at] = after_db[*at];
        }
        for (path, content) in &before {
            std::fs::write(torn.directory.path().join(path.file_name().unwrap()), content).unwrap();
        }
        std::fs::write(torn.directory.path().join("db"), bytes).unwrap();
        let log = torn.open().await;
        let entries = torn.read_from(&log, 0).await.unwrap();
        let wanted = if tenth == 10 { 21..=21 } else { 20..=21 };
        assert!(wanted.contains(&entries.len()), "{} records with {tenth} tenths", entries.len());
        assert!(entries.iter().take(20).enumerate().all(|(i, entry)| entry.record.value.len() == i * 500));
    }
}
