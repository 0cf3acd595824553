//! The archive driven by a worker over the log.

use broker::{Append, Batch, Group, Log, Selection, Worker};
use tokio_util::sync::CancellationToken;

use super::*;

/// Runs a worker until the group has committed `reached` in the first partition.
async fn work_until(fixture: &Fixture, store: &Arc<dyn ObjectStore>, reached: u64) {
    let sink = Box::new(fixture.archive(store, plain(5 * LINE_BYTES)));
    let what = (Selection::Stage(Stage::Processed), Group::ARCHIVE);
    let worker = Worker::open(fixture.log.as_ref(), what, sink, fixture.clock.clone()).await.unwrap();
    let stop = CancellationToken::new();
    let watch = async {
        let (topic, place) = (fixture.place(0).topic, fixture.place(0));
        loop {
            let committed = fixture.log.committed(&Group::ARCHIVE, &topic).await.unwrap();
            if committed.get(&place).is_some_and(|next| next >= Offset(reached)) {
                break stop.cancel();
            }
            fixture.clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    };
    let (worked, ()) = tokio::join!(worker.run(stop.clone()), watch);
    worked.unwrap();
}

#[tokio::test]
async fn workers_that_follow_each_other_archive_each_event_once() {
    let fixture = Fixture::new().await;
    let store = in_memory();
    let append = async |offsets: std::ops::Range<u64>| {
        let records: Vec<Record> = events(offsets).into_iter().map(|entry| entry.record).collect();
        let batch = Batch::of(&records).unwrap();
        fixture.log.append(vec![Append { place: fixture.place(0), batch }]).await.unwrap();
    };
    append(0..23).await;
    work_until(&fixture, &store, 10).await;
    append(23..40).await;
    work_until(&fixture, &store, 35).await;
    work_until(&fixture, &store, 40).await;
    assert_eq!(fixture.archived(store.as_ref(), 0).await, (0..40).collect::<Vec<_>>());
    assert_eq!(count(store.as_ref(), &fixture.stream).await.unwrap(), 40);
}
