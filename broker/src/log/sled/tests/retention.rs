//! What may be removed is removed, and nothing else.

use std::time::Duration;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn trim(age_max: Option<Duration>, bytes_max: Option<u64>) -> Cleanup {
    Cleanup::Trim { age_max, bytes_max }
}

async fn bounds(bench: &Bench, log: &SledLog) -> (u64, u64) {
    let bounds = log.bounds(&bench.place).await.unwrap();
    (bounds.start.0, bounds.end.0)
}

#[tokio::test]
async fn old_records_go_along_with_writes() {
    let bench = Bench::new();
    let log = bench.create(trim(Some(HOUR), None)).await;
    // The clock stands still after the last write, so that it is the write that removes.
    for n in 0..10 {
        bench.clock.advance(HOUR / 4 * n.min(1));
        bench.append(&log, &[bench.record("a"), bench.record("b")]).await.unwrap();
    }
    // The last write removes what is older than an hour by then.
    assert_eq!(bounds(&bench, &log).await, (10, 20));
    let entries = bench.read_from(&log, 0).await.unwrap();
    assert_eq!(entries.first().map(|entry| entry.offset), Some(Offset(10)));
    log.close().await.unwrap();
    let log = bench.open().await;
    assert_eq!(bounds(&bench, &log).await, (10, 20));
    assert_eq!(bench.read_from(&log, 3).await.unwrap().len(), 10);
}

#[tokio::test]
async fn an_idle_partition_is_trimmed_to_its_last_block() {
    let bench = Bench::new();
    let log = bench.create(trim(Some(HOUR), None)).await;
    for _ in 0..100 {
        bench.append(&log, &[bench.record("a")]).await.unwrap();
    }
    log.trim().await.unwrap();
    assert_eq!(bounds(&bench, &log).await, (0, 100));
    bench.clock.advance(HOUR * 2);
    log.trim().await.unwrap();
    assert_eq!(bounds(&bench, &log).await, (99, 100));
    log.close().await.unwrap();
    let log = bench.open().await;
    assert_eq!(bounds(&bench, &log).await, (99, 100));
    assert_eq!(bench.append(&log, &[bench.record("b")]).await.unwrap(), Offset(100));
}

#[tokio::test]
async fn a_partition_stays_within_its_bytes_and_gives_space_back() {
    let bench = Bench::new();
    let bytes_max = 200_000;
    let log = bench.create(trim(None, Some(bytes_max))).await;
    for _ in 0..2_000 {
        bench.append(&log, &[bench.record(noise(20_000))]).await.unwrap();
    }
    let (start, end) = bounds(&bench, &log).await;
    assert_eq!(end, 2_000);
    assert!((8..=10).contains(&(end - start)), "{start}..{end}");
    let on_disk = std::fs::metadata(bench.directory.path().join("db")).unwrap().len();
    assert!(on_disk < 20_000_000, "{on_disk} bytes on disk of 40 MB written");
    assert_eq!(bench.read_from(&log, 0).await.unwrap().len() as u64, end - start);
}

#[tokio::test]
async fn a_changed_retention_takes_effect() {
    let bench = Bench::new();
    let log = bench.create(Cleanup::Keep).await;
    for _ in 0..5 {
        bench.append(&log, &[bench.record(noise(1_000))]).await.unwrap();
    }
    let config = TopicConfig { partitions: 1, cleanup: trim(None, Some(2_500)) };
    log.create(&bench.place.topic, &config).await.unwrap();
    log.trim().await.unwrap();
    assert_eq!(bounds(&bench, &log).await, (3, 5));
}

fn contents(entries: &[Entry]) -> Vec<(u64, String, String)> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let content = |entry: &Entry| {
        let key = entry.record.key.as_ref().map(text).unwrap_or_default();
        (entry.offset.0, key, text(&entry.record.value))
    };
    entries.iter().map(content).collect()
}

#[tokio::test]
async fn compaction_keeps_the_last_record_of_each_key_at_its_offset() {
    let bench = Bench::new();
    let log = bench.create(Cleanup::Compact).await;
    for round in 0..30 {
        let of = |key: &str| bench.record(format!("{round}")).with_key(key.to_owned());
        let mut records = vec![of("a"), of("b")];
        if round == 7 {
            records.push(bench.record("no key"));
        }
        bench.append(&log, &records).await.unwrap();
    }
    bench.append(&log, &[bench.record("").with_key("a")]).await.unwrap();
    bench.append(&log, &[bench.record("last").with_key("c")]).await.unwrap();
    let wanted = |entries: &[(u64, &str, &str)]| -> Vec<(u64, String, String)> {
        entries.iter().map(|(at, key, value)| (*at, (*key).to_owned(), (*value).to_owned())).collect()
    };
    let kept = wanted(&[(16, "", "no key"), (60, "b", "29"), (61, "a", ""), (62, "c", "last")]);

    log.trim().await.unwrap();
    assert_eq!(contents(&bench.read_from(&log, 0).await.unwrap()), kept);
    assert_eq!(bounds(&bench, &log).await, (0, 63));
    assert_eq!(contents(&bench.read_from(&log, 17).await.unwrap()), kept[1..]);
    let now = bench.clock.now();
    assert_eq!(log.offset_at(&bench.place, now).await.unwrap(), Offset(16));
    log.close().await.unwrap();
    let log = bench.open().await;
    assert_eq!(contents(&bench.read_from(&log, 0).await.unwrap()), kept);

    bench.clock.advance(DAY * 2);
    for value in ["x", "y", "z"] {
        bench.append(&log, &[bench.record(value).with_key("c")]).await.unwrap();
    }
    log.trim().await.unwrap();
    let kept = wanted(&[(16, "", "no key"), (60, "b", "29"), (65, "c", "z")]);
    assert_eq!(contents(&bench.read_from(&log, 0).await.unwrap()), kept);
    assert_eq!(bounds(&bench, &log).await, (0, 66));
}

#[tokio::test]
async fn a_reader_passes_over_the_holes_of_compaction() {
    let bench = Bench::new();
    let log = bench.create(Cleanup::Compact).await;
    for round in 0..2_000 {
        let value = format!("{round} {}", " ".repeat(500));
        bench.append(&log, &[bench.record(value).with_key(format!("{}", round % 3))]).await.unwrap();
    }
    let selection = Selection::Topic(bench.place.topic.clone());
    let mut reader = log.subscribe(selection, &Group::INDEX).await.unwrap();
    let before = reader.next(1_000).await.unwrap();
    assert_eq!(before[0].entries[0].offset, Offset(0));
    log.trim().await.unwrap();
    let mut next = before[0].next;
    let mut offsets = Vec::new();
    while next < Offset(2_000) {
        for chunk in reader.next(1_000).await.unwrap() {
            next = chunk.next;
            offsets.extend(chunk.entries.into_iter().map(|entry| entry.offset.0));
        }
    }
    assert_eq!(offsets, [1_997, 1_998, 1_999]);
}
