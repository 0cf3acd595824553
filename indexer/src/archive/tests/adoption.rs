//! Crashes, races and other writers: each event is archived exactly once.

use broker::Kind;

use super::*;
use crate::store::LocalObjects;

#[tokio::test]
async fn a_crash_between_put_and_commit_leaves_no_duplicates() {
    let fixture = Fixture::new().await;
    let store = in_memory();
    let mut before = fixture.archive(&store, plain(3 * LINE_BYTES));
    fixture.resume(&mut before, 0).await;
    assert_eq!(fixture.take(&mut before, 0, &events(0..8)).await, Offset(6));
    let written = all_objects(store.as_ref()).await;
    drop(before);
    // Nothing was committed: everything is read again.
    let mut after = fixture.archive(&store, plain(3 * LINE_BYTES));
    fixture.resume(&mut after, 0).await;
    assert_eq!(fixture.take(&mut after, 0, &events(0..8)).await, Offset(6));
    assert_eq!(all_objects(store.as_ref()).await, written);
    assert_eq!(fixture.idle(&mut after, 8).await, Offset(8));
    assert_eq!(fixture.archived(store.as_ref(), 0).await, (0..8).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_shorter_object_is_adopted_and_the_rest_goes_behind_it() {
    let fixture = Fixture::new().await;
    let store = in_memory();
    let mut other = fixture.archive(&store, plain(6 * LINE_BYTES));
    fixture.take(&mut other, 0, &events(0..2)).await;
    assert_eq!(fixture.idle(&mut other, 2).await, Offset(2));
    let mut archive = fixture.archive(&store, plain(6 * LINE_BYTES));
    fixture.resume(&mut archive, 0).await;
    assert_eq!(fixture.take(&mut archive, 0, &events(0..10)).await, Offset(8));
    let listed = objects(store.as_ref(), &fixture.stream).await.unwrap();
    let firsts: Vec<u64> = listed.iter().map(|object| object.first.0).collect();
    assert_eq!(firsts, [0, 2]);
    assert_eq!(fixture.archived(store.as_ref(), 0).await, (0..8).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_longer_object_is_adopted_and_what_it_holds_is_not_staged_again() {
    let fixture = Fixture::new().await;
    let store = in_memory();
    let mut other = fixture.archive(&store, plain(9 * LINE_BYTES));
    fixture.take(&mut other, 0, &events(0..7)).await;
    assert_eq!(fixture.idle(&mut other, 7).await, Offset(7));
    let mut archive = fixture.archive(&store, plain(3 * LINE_BYTES));
    fixture.resume(&mut archive, 0).await;
    assert_eq!(fixture.take(&mut archive, 0, &events(0..4)).await, Offset(7));
    assert_eq!(fixture.take(&mut archive, 0, &events(4..9)).await, Offset(7));
    assert_eq!(fixture.idle(&mut archive, 9).await, Offset(9));
    assert_eq!(fixture.archived(store.as_ref(), 0).await, (0..9).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_object_of_another_compression_is_adopted() {
    let fixture = Fixture::new().await;
    let store = in_memory();
    for compression in Compression::ALL {
        let mut archive = fixture.archive(&store, ArchiveSettings { compression, ..plain(3 * LINE_BYTES) });
        fixture.resume(&mut archive, 0).await;
        assert_eq!(fixture.take(&mut archive, 0, &events(0..8)).await, Offset(6));
    }
    let names: Vec<_> = all_objects(store.as_ref()).await.into_keys().collect();
    assert_eq!(names.len(), 2);
    assert!(names.iter().all(|name| name.ends_with(".ndjson.zst")), "{names:?}");
}

#[tokio::test]
async fn a_stream_made_again_writes_beside_its_former_objects() {
    let mut fixture = Fixture::new().await;
    let store = in_memory();
    let mut archive = fixture.archive(&store, plain(2 * LINE_BYTES));
    fixture.resume(&mut archive, 0).await;
    assert_eq!(fixture.take(&mut archive, 0, &events(0..5)).await, Offset(4));
    fixture.catalog.delete(fixture.stream.name(), ADMINISTRATOR).await.unwrap();
    fixture.stream = fixture.catalog.create(draft(), ADMINISTRATOR).await.unwrap();
    // The same sink goes on, and offsets begin anew.
    assert_eq!(fixture.take(&mut archive, 0, &events(0..3)).await, Offset(2));
    assert_eq!(fixture.archived(store.as_ref(), 0).await, [0, 1]);
    assert_eq!(all_objects(store.as_ref()).await.len(), 3);
}

/// The stream is deleted and made again by another process, of which this one's catalog has not heard.
async fn made_again_elsewhere(fixture: &mut Fixture) {
    let elsewhere = Catalog::open(fixture.log.clone(), fixture.clock.clone()).await.unwrap();
    elsewhere.delete(fixture.stream.name(), ADMINISTRATOR).await.unwrap();
    fixture.stream = elsewhere.create(draft(), ADMINISTRATOR).await.unwrap();
}

#[tokio::test]
async fn events_of_a_stream_made_again_elsewhere_are_archived_as_its_own() {
    for (before, committed) in [(0, 0), (1, 0), (5, 4)] {
        let mut fixture = Fixture::new().await;
        let store = in_memory();
        let mut archive = fixture.archive(&store, plain(2 * LINE_BYTES));
        fixture.resume(&mut archive, 0).await;
        if before > 0 {
            assert_eq!(fixture.take(&mut archive, 0, &events(0..before)).await, Offset(committed));
        }
        let former = all_objects(store.as_ref()).await;
        made_again_elsewhere(&mut fixture).await;
        // Its first events come before the news of it, two of them to be put at once.
        let upto = [(fixture.place(0), Offset(3))].into_iter().collect();
        let written = archive.write(vec![fixture.chunk(0, events(0..3))]).await;
        let through = match written {
            Ok(_) => archive.flush(&upto).await.map(|flushed| flushed.through.get(&fixture.place(0))),
            Err(error) => Err(error),
        };
        match through {
            Ok(through) => assert_eq!(through, Some(Offset(2)), "{before} before"),
            Err(error) => {
                assert_eq!(error.kind(), Kind::Fenced, "{error}");
                assert_eq!(all_objects(store.as_ref()).await, former);
                archive = fixture.archive(&store, plain(2 * LINE_BYTES));
                fixture.resume(&mut archive, 0).await;
                assert_eq!(fixture.take(&mut archive, 0, &events(0..3)).await, Offset(2));
            }
        }
        assert_eq!(fixture.archived(store.as_ref(), 0).await, [0, 1], "{before} before");
        assert_eq!(all_objects(store.as_ref()).await.len(), former.len() + 1);
    }
}

#[tokio::test]
async fn what_a_life_staged_in_the_name_of_the_one_before_is_read_again() {
    let mut fixture = Fixture::new().await;
    let store = in_memory();
    let mut archive = fixture.archive(&store, plain(4 * LINE_BYTES));
    fixture.resume(&mut archive, 0).await;
    made_again_elsewhere(&mut fixture).await;
    fixture.take(&mut archive, 0, &events(0..2)).await;
    fixture.catalog.refresh().await.unwrap();
    let error = archive.write(vec![fixture.chunk(0, &events(2..6)[..])]).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Fenced, "{error}");
    let mut archive = fixture.archive(&store, plain(4 * LINE_BYTES));
    fixture.resume(&mut archive, 0).await;
    fixture.take(&mut archive, 0, &events(0..6)).await;
    assert_eq!(fixture.idle(&mut archive, 6).await, Offset(6));
    assert_eq!(fixture.archived(store.as_ref(), 0).await, (0..6).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_of_a_catalog_begun_anew_writes_beside_the_objects_of_the_one_that_was_lost() {
    let mut fixture = Fixture::new().await;
    let store = in_memory();
    let mut archive = fixture.archive(&store, plain(2 * LINE_BYTES));
    fixture.take(&mut archive, 0, &events(0..5)).await;
    // The data folder is lost, and the object store is kept.
    fixture.clock.advance(Duration::from_secs(1));
    let directory = tempfile::tempdir().unwrap();
    fixture.log = SledLog::open(SledOptions::at(directory.path()), fixture.clock.clone()).await.unwrap();
    fixture.catalog = Catalog::open(fixture.log.clone(), fixture.clock.clone()).await.unwrap();
    fixture.stream = fixture.catalog.create(draft(), ADMINISTRATOR).await.unwrap();
    let mut archive = fixture.archive(&store, plain(2 * LINE_BYTES));
    fixture.resume(&mut archive, 0).await;
    let others: Vec<_> = (0..3).map(|offset| event(offset, 1)).collect();
    assert_eq!(fixture.take(&mut archive, 0, &others).await, Offset(2));
    assert_eq!(fixture.archived(store.as_ref(), 0).await, [0, 1]);
    assert_eq!(all_objects(store.as_ref()).await.len(), 3);
}

#[tokio::test]
async fn an_object_with_another_event_of_that_offset_is_corrupt_and_stays() {
    let fixture = Fixture::new().await;
    let store = in_memory();
    let mut archive = fixture.archive(&store, plain(LINE_BYTES));
    fixture.take(&mut archive, 0, &events(0..2)).await;
    let written = all_objects(store.as_ref()).await;
    let mut other = events(0..2);
    other[0].record.time = start() + Duration::from_secs(1);
    let mut archive = fixture.archive(&store, plain(LINE_BYTES));
    archive.write(vec![fixture.chunk(0, other)]).await.unwrap();
    let error = archive.flush(&Checkpoint::new()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert_eq!(all_objects(store.as_ref()).await, written);
}

#[tokio::test]
async fn a_damaged_object_is_corrupt_and_named() {
    let fixture = Fixture::new().await;
    for compression in Compression::ALL {
        let store = in_memory();
        let settings = ArchiveSettings { compression, ..plain(2 * LINE_BYTES) };
        let mut archive = fixture.archive(&store, settings);
        fixture.take(&mut archive, 0, &events(0..3)).await;
        let listed = objects(store.as_ref(), &fixture.stream).await.unwrap();
        let path = &listed[0].path;
        let bytes = store.get(path).await.unwrap().bytes().await.unwrap();
        let half = bytes.slice(..bytes.len() / 2 - 10);
        store.put(path, half.into()).await.unwrap();
        let error = read_object(store.as_ref(), path).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        assert!(error.to_string().contains(path.as_ref()), "{error}");
    }
}

/// Two sinks read one partition; each is fed at its own pace and flushes when it likes.
async fn race(fixture: &Fixture, store: &Arc<dyn ObjectStore>) {
    let run = async |chunk_events: usize, sizes: u64| {
        let mut archive = fixture.archive(store, plain(sizes * LINE_BYTES));
        fixture.resume(&mut archive, 0).await;
        for (number, chunk) in events(0..200).chunks(chunk_events).enumerate() {
            fixture.take(&mut archive, 0, chunk).await;
            if number % 3 == 0 {
                fixture.idle(&mut archive, 0).await;
            }
            tokio::task::yield_now().await;
        }
        // What is left behind an adopted object goes with a later flush.
        while fixture.idle(&mut archive, 200).await < Offset(200) {
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(run(7, 5), run(11, 13), run(1, 3));
    assert_eq!(fixture.archived(store.as_ref(), 0).await, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn racing_archives_leave_each_event_exactly_once() {
    let fixture = Fixture::new().await;
    race(&fixture, &in_memory()).await;
    let folder = tempfile::tempdir().unwrap();
    let local: Arc<dyn ObjectStore> = Arc::new(LocalObjects::open(folder.path()).unwrap());
    race(&fixture, &local).await;
}
