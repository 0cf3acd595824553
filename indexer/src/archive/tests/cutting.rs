//! Where objects end, what they are named and what is in them.

use super::*;
use crate::store::LocalObjects;

#[tokio::test]
async fn names_and_lines_are_exact() {
    let fixture = Fixture::new().await;
    let store = in_memory();
    let mut archive = fixture.archive(&store, plain(2 * LINE_BYTES));
    let mut entries = events(7..10);
    entries[0].record.key = Some(Bytes::from_static(b"DTW"));
    entries[0].record.value = Bytes::from_static(b"{\n\"n\": 7.0}");
    assert_eq!(fixture.take(&mut archive, 1, &entries).await, Offset(8));
    assert_eq!(fixture.idle(&mut archive, 0).await, Offset(0));

    let folder = "processed/yellow/status/version=1/year=2020/month=10/day=18/hour=9";
    let name = "dp.yellow.status.processed.1.json-1603011900000000-00001";
    let rest = r#""timestamp":"2020-10-18T09:05:00Z""#;
    let first = format!(
        "{{\"partition\":1,\"offset\":7,\"origin\":{{\"partition\":0,\"offset\":7}},{rest},\"key\":\"DTW\",\"value\":{{ \"n\": 7.0}}}}\n"
    );
    let line = |n| {
        let line = format!(
            "{{\"partition\":1,\"offset\":{n},\"origin\":{{\"partition\":0,\"offset\":{n}}},{rest},\"key\":null,\"value\":{{\"n\":{n}}}}}\n"
        );
        assert_eq!(line.len() as u64, LINE_BYTES);
        line
    };
    let expected = [
        (format!("{folder}/{name}-00000000000000000007.ndjson"), Bytes::from(first)),
        (format!("{folder}/{name}-00000000000000000008.ndjson"), Bytes::from(line(8) + &line(9))),
    ];
    assert_eq!(all_objects(store.as_ref()).await, expected.into_iter().collect());

    let listed = objects(store.as_ref(), &fixture.stream).await.unwrap();
    let firsts: Vec<_> = listed.iter().map(|object| (object.partition.0, object.first.0)).collect();
    assert_eq!(firsts, [(1, 7), (1, 8)]);
    assert_eq!(count(store.as_ref(), &fixture.stream).await.unwrap(), 3);
    let read = read_object(store.as_ref(), &listed[0].path).await.unwrap();
    assert_eq!(read[0].key.as_deref(), Some("DTW"));
    assert_eq!(read[0].origin, entries[0].record.origin);
    assert_eq!(read[0].timestamp, start());
    assert_eq!(read[0].value.get(), "{ \"n\": 7.0}");
}

#[tokio::test]
async fn the_same_events_in_other_chunks_make_the_same_bytes() {
    let fixture = Fixture::new().await;
    // Three events a second, over more than an hour, with holes between the offsets.
    let entries: Vec<Entry> = (0..12_000).map(|n| event(n + n / 500, n / 3)).collect();
    for compression in Compression::ALL {
        let settings =
            ArchiveSettings { object_bytes_max: 40_000, compression, ..ArchiveSettings::default() };
        let mut made = Vec::new();
        for chunk_events in [7, 100, 12_000] {
            let store = in_memory();
            let mut archive = fixture.archive(&store, settings.clone());
            fixture.resume(&mut archive, 0).await;
            for chunk in entries.chunks(chunk_events) {
                fixture.take(&mut archive, 0, chunk).await;
            }
            made.push(all_objects(store.as_ref()).await);
        }
        assert!(made[0].len() > 12, "{}", made[0].len());
        assert_eq!(made[0], made[1]);
        assert_eq!(made[0], made[2]);
    }
}

#[tokio::test]
async fn an_object_ends_by_size_age_and_hour() {
    let fixture = Fixture::new().await;
    let last_second = 55 * 60 - 1;
    for (what, entries, expected) in [
        ("size", events(0..7), vec![0, 3]),
        ("age", vec![event(0, 0), event(1, 299), event(2, 300), event(3, 599)], vec![0]),
        ("hour", vec![event(0, last_second), event(1, last_second + 1), event(2, last_second + 2)], vec![0]),
        // The second arrived in an earlier hour than the first.
        (
            "order",
            vec![event(0, last_second + 1), event(1, last_second), event(2, last_second + 400)],
            vec![0],
        ),
    ] {
        let store = in_memory();
        let mut archive = fixture.archive(&store, plain(3 * LINE_BYTES));
        fixture.take(&mut archive, 0, &entries).await;
        let listed = objects(store.as_ref(), &fixture.stream).await.unwrap();
        let firsts: Vec<u64> = listed.iter().map(|object| object.first.0).collect();
        assert_eq!(firsts, expected, "{what}");
    }
}

#[tokio::test]
async fn folders_are_of_the_first_arrival_in_utc_without_leading_zeros() {
    let fixture = Fixture::new().await;
    let store = in_memory();
    let mut archive = fixture.archive(&store, plain(LINE_BYTES));
    let january = Timestamp::from_millis(1_577_934_299_999).unwrap(); // 2020-01-02T03:04:59.999Z
    let mut early = event(0, 0);
    early.record.arrival = january;
    fixture.take(&mut archive, 0, &[early, event(1, 0)]).await;
    let names = all_objects(store.as_ref()).await;
    let name = names.keys().next().unwrap();
    assert!(name.starts_with("processed/yellow/status/version=1/year=2020/month=1/day=2/hour=3/"), "{name}");
}

#[tokio::test]
async fn an_event_larger_than_an_object_has_one_of_its_own() {
    let fixture = Fixture::new().await;
    let store = in_memory();
    let mut archive = fixture.archive(&store, plain(10));
    assert_eq!(fixture.take(&mut archive, 0, &events(0..3)).await, Offset(2));
    assert_eq!(fixture.archived(store.as_ref(), 0).await, [0, 1]);
}

#[tokio::test]
async fn an_idle_stream_is_flushed_by_the_clock_and_nothing_before() {
    let fixture = Fixture::new().await;
    let store = in_memory();
    let mut archive = fixture.archive(&store, ArchiveSettings::default());
    let upto: Checkpoint = [(fixture.place(0), Offset(9))].into_iter().collect();
    assert_eq!(fixture.take(&mut archive, 0, &events(0..3)).await, Offset(0));
    fixture.clock.advance(Duration::from_secs(299));
    assert_eq!(fixture.flush(&mut archive, &upto, 0).await, Offset(0));
    assert!(all_objects(store.as_ref()).await.is_empty());
    fixture.clock.advance(Duration::from_secs(1));
    // Nothing is staged any more, so what holds no event is through as well.
    assert_eq!(fixture.flush(&mut archive, &upto, 0).await, Offset(9));
    assert_eq!(fixture.archived(store.as_ref(), 0).await, [0, 1, 2]);
}

#[tokio::test]
async fn old_events_that_keep_coming_are_not_flushed_one_chunk_at_a_time() {
    let fixture = Fixture::new().await;
    let store = in_memory();
    fixture.clock.advance(Duration::from_secs(86_400));
    let mut archive = fixture.archive(&store, ArchiveSettings::default());
    for offset in 0..100 {
        fixture.take(&mut archive, 0, &events(offset..offset + 1)).await;
        fixture.clock.advance(Duration::from_millis(10));
    }
    assert!(all_objects(store.as_ref()).await.is_empty());
    fixture.clock.advance(Duration::from_secs(1));
    let upto = [(fixture.place(0), Offset(100))].into_iter().collect();
    assert_eq!(fixture.flush(&mut archive, &upto, 0).await, Offset(100));
    assert_eq!(all_objects(store.as_ref()).await.len(), 1);
}

#[tokio::test]
async fn the_largest_object_ends_when_memory_is_short() {
    let fixture = Fixture::new().await;
    let store = in_memory();
    // Lines wait as they are until there are many, with a few bytes beside them.
    let staged_bytes_max = 7 * LINE_BYTES + LINE_BYTES / 2;
    let settings = ArchiveSettings { staged_bytes_max, ..ArchiveSettings::default() };
    let mut archive = fixture.archive(&store, settings);
    assert_eq!(fixture.take(&mut archive, 0, &events(0..4)).await, Offset(0));
    assert_eq!(fixture.take(&mut archive, 1, &events(0..3)).await, Offset(0));
    assert!(all_objects(store.as_ref()).await.is_empty());
    fixture.take(&mut archive, 1, &events(3..4)).await;
    assert_eq!(all_objects(store.as_ref()).await.len(), 1);
}

#[tokio::test]
async fn a_stream_without_archive_or_without_definition_passes_through() {
    let fixture = Fixture::new().await;
    let store = in_memory();
    let mut archive = fixture.archive(&store, ArchiveSettings::default());
    assert_eq!(fixture.take(&mut archive, 0, &events(0..2)).await, Offset(0));
    let name = StreamName::new("status", "1").unwrap();
    let edit: Edit = serde_json::from_str(r#"{"sinks":{"archive":false,"index":true}}"#).unwrap();
    fixture.catalog.change(&name, edit, ADMINISTRATOR).await.unwrap();
    // What arrived while it was on is archived, what comes later is not. Progress waits until the end is
    // settled.
    assert_eq!(fixture.take(&mut archive, 0, &events(2..3)).await, Offset(2));
    fixture.settle(&mut archive, 3).await;
    assert_eq!(fixture.stream().admitted(SinkKind::Archive, Partition(0)), [Offset(0)..Offset(2)]);
    assert_eq!(fixture.take(&mut archive, 0, &events(3..4)).await, Offset(4));
    assert_eq!(fixture.archived(store.as_ref(), 0).await, [0, 1]);
    fixture.catalog.delete(&name, ADMINISTRATOR).await.unwrap();
    assert_eq!(fixture.take(&mut archive, 0, &events(4..6)).await, Offset(6));
    assert_eq!(fixture.archived(store.as_ref(), 0).await, [0, 1]);
}

#[tokio::test]
async fn a_large_object_is_uploaded_in_parts_and_leaves_no_upload_behind() {
    let fixture = Fixture::new().await;
    let folder = tempfile::tempdir().unwrap();
    let local: Arc<dyn ObjectStore> = Arc::new(LocalObjects::open(folder.path()).unwrap());
    let settings = ArchiveSettings { multipart_bytes: 1, ..plain(64 << 20) };
    let mut entries = events(0..13);
    for entry in &mut entries {
        entry.record.value = Bytes::from(format!("\"{}\"", "x".repeat(1 << 20)));
    }
    for store in [in_memory(), local] {
        for _ in 0..2 {
            let mut archive = fixture.archive(&store, settings.clone());
            fixture.take(&mut archive, 0, &entries).await;
            assert_eq!(fixture.idle(&mut archive, 13).await, Offset(13));
            assert_eq!(fixture.archived(store.as_ref(), 0).await, (0..13).collect::<Vec<_>>());
            assert_eq!(all_objects(store.as_ref()).await.len(), 1);
        }
    }
    assert!(!folder.path().join("uploads").exists());
}
