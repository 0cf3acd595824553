//! A stream that is deleted and made again and again while producers send: whoever is answered 200 knows that
//! the event is in the stream that there was then, and none of it comes up in a later one.

use std::ops::Range;
use std::time::Instant;

use reqwest::Method;

use super::*;
use common::pause;

/// An event that was acked.
#[derive(Clone, Copy)]
struct Acked {
    number: u64,
    sent: Instant,
    answered: Instant,
}

/// Sends one event after the other, to one door or the other, until it is told to stop.
async fn send(server: &Server, dataset: &str, producer: u64, stop: &AtomicBool) -> Vec<Acked> {
    let (records, events) = (format!("{}/records", path(dataset)), format!("/streams/{dataset}/1/events"));
    let mut acked = Vec::new();
    for number in (producer..).step_by(PRODUCERS as usize) {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let event = json!({ "n": number });
        let (path, body) = if number % 3 == 0 { (&events, json!([event])) } else { (&records, event) };
        let sent = Instant::now();
        let status = server.post(path, &body).await.0;
        match status {
            StatusCode::OK => acked.push(Acked { number, sent, answered: Instant::now() }),
            StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => pause().await,
            other => panic!("{path}: {other}"),
        }
    }
    acked
}

/// Makes the stream and deletes it, but for the last time. Answers when it was told to delete it last, and when
/// the last one was there.
async fn live(server: &Server, dataset: &str, (lives, waits): (u32, Range<u64>)) -> (Instant, Instant) {
    let mut random = StdRng::seed_from_u64(7);
    let (mut deleting, mut made) = (Instant::now(), Instant::now());
    for life in 0..lives {
        if life > 0 {
            deleting = Instant::now();
            let deleted = server.request(Method::DELETE, &path(dataset)).send().await.unwrap();
            assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
        }
        let draft = json!({"dataset": dataset, "version": "1", "partitions": 2});
        let (status, answer) = server.post("/api/v1/streams", &draft).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        made = Instant::now();
        tokio::time::sleep(Duration::from_millis(random.random_range(waits.clone()))).await;
    }
    (deleting, made)
}

async fn race(launch: &Launch, dataset: &str, lives: (u32, Range<u64>)) {
    let (server, stop) = (launch.start().await, AtomicBool::new(false));
    let living = async {
        let last = live(&server, dataset, lives).await;
        stop.store(true, Ordering::SeqCst);
        last
    };
    let producers = futures::future::join_all((0..PRODUCERS).map(|n| send(&server, dataset, n, &stop)));
    let ((deleting, made), acked) = tokio::join!(living, producers);
    let acked: Vec<Acked> = acked.into_iter().flatten().collect();
    let before: BTreeSet<u64> =
        acked.iter().filter(|acked| acked.answered < deleting).map(|acked| acked.number).collect();
    let since: BTreeSet<u64> =
        acked.iter().filter(|acked| acked.sent > made).map(|acked| acked.number).collect();
    println!("{} acked, {} before the last deletion, {} since", acked.len(), before.len(), since.len());
    assert!(!before.is_empty() && !since.is_empty());

    until("everything is found", async || {
        let count = server.get(&format!("{}/events/count", path(dataset))).await["count"].as_u64().unwrap();
        pause().await;
        (count >= since.len() as u64).then_some(())
    })
    .await;
    let lines = server.lines(&format!("{}/events/export", path(dataset))).await;
    let found: Vec<u64> = lines.iter().map(|line| line["value"]["n"].as_u64().unwrap()).collect();
    let unique: BTreeSet<u64> = found.iter().copied().collect();
    assert_eq!(unique.len(), found.len(), "events are doubled");
    let lost: Vec<_> = since.difference(&unique).collect();
    assert!(lost.is_empty(), "lost {lost:?}");
    let old: Vec<_> = before.intersection(&unique).collect();
    assert!(old.is_empty(), "of a stream that was deleted: {old:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_deleted_while_producers_send_keeps_what_it_acked_to_itself_on_sled() {
    let folder = tempfile::tempdir().unwrap();
    race(&Launch::local(folder.path()), "orders", (25, 20..200)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_deleted_while_producers_send_keeps_what_it_acked_to_itself_on_kafka() {
    let (_alone, folder) = (CLUSTER.lock().await, tempfile::tempdir().unwrap());
    race(&Launch::kafka(folder.path()), &unique("orders"), (4, 1_000..3_000)).await;
}
