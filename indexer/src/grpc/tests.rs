//! The service as its callers see it.
#![allow(clippy::disallowed_methods, reason = "what the server supervises is spawned here by hand")]

use broker::access::{ADMINISTRATOR, User};
use broker::topic::{Cleanup, TopicConfig};
use broker::{Clock as _, Log as _, Permission, Stage};
use futures::future::join_all;
use proto::v1::events_server::Events as _;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::*;
use crate::Limits;
use crate::testing::Bench;

async fn bench() -> Bench {
    let bench = Bench::new(Limits { page_events_max: 4, ..Limits::default() }).await;
    for partition in 0..3 {
        let record =
            |n: i64| bench.record(n * 3 + i64::from(partition), Some("a"), &format!("{{\"n\":{n}}}"));
        let records: Vec<_> = (0..5).map(record).collect();
        bench.append(Stage::Processed, partition, &records).await;
    }
    // Ends with the test's runtime.
    drop(tokio::spawn(bench.indexer.clone().keep_tails(CancellationToken::new())));
    bench
}

/// A request as the guard hands it on.
fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Principal::administrator());
    request
}

fn filter() -> Option<v1::Filter> {
    Some(v1::Filter { dataset: "flights".to_owned(), version: "1".to_owned(), ..Default::default() })
}

fn follow(from: Option<v1::follow_request::From>) -> Request<v1::FollowRequest> {
    asked(v1::FollowRequest { dataset: "flights".to_owned(), version: "1".to_owned(), from })
}

fn places(events: &[v1::Event]) -> Vec<(u32, u64)> {
    let positions = events.iter().map(|event| event.position.unwrap());
    positions.map(|position| (position.partition, position.offset)).collect()
}

#[tokio::test]
async fn pages_counts_and_exports_agree() {
    let bench = bench().await;
    let service = Events::new(bench.indexer.clone());
    let count = service.count(asked(v1::CountRequest { filter: filter() })).await.unwrap();
    assert_eq!(count.into_inner().count, 15);
    let mut request = v1::QueryRequest { filter: filter(), limit: 4, ..Default::default() };
    let mut paged = Vec::new();
    loop {
        let page = service.query(asked(request.clone())).await.unwrap().into_inner();
        assert_eq!(page.count, request.count.then_some(15));
        request.count = !request.count;
        paged.extend(page.events);
        if page.cursor.is_empty() {
            break;
        }
        request.cursor = page.cursor;
    }
    let request = v1::ExportRequest { filter: filter(), descending: true };
    let exported = service.export(asked(request)).await.unwrap().into_inner();
    let mut exported: Vec<v1::Event> = exported.try_collect().await.unwrap();
    exported.reverse();
    assert_eq!(exported, paged);
    assert_eq!(places(&paged)[..4], [(0, 0), (1, 0), (2, 0), (0, 1)]);
    assert_eq!(paged[14].value, "{\"n\":4}");
    assert_eq!(paged[14].key.as_deref(), Some("a"));
}

#[tokio::test]
async fn errors_have_the_codes_of_their_kinds() {
    let bench = bench().await;
    let service = Events::new(bench.indexer.clone());
    let ask = async |request| service.query(asked(request)).await.unwrap_err();
    let missing = ask(v1::QueryRequest { limit: 1, ..Default::default() }).await;
    assert_eq!((missing.code(), missing.message()), (Code::InvalidArgument, "filter: the filter is missing"));
    let large = ask(v1::QueryRequest { filter: filter(), limit: 5, ..Default::default() }).await;
    assert_eq!(large.code(), Code::InvalidArgument);
    let unknown = v1::Filter { dataset: "trains".to_owned(), ..filter().unwrap() };
    let unknown = ask(v1::QueryRequest { filter: Some(unknown), limit: 1, ..Default::default() }).await;
    assert_eq!(unknown.code(), Code::NotFound);
    let positions = v1::Positions { positions: vec![v1::Position { partition: 3, offset: 0 }] };
    let beyond = service.follow(follow(Some(v1::follow_request::From::Positions(positions)))).await;
    assert_eq!(beyond.err().unwrap().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn follows_from_positions_and_a_time_and_ends_at_shutdown() {
    let bench = bench().await;
    let service = Events::new(bench.indexer.clone());
    let positions = v1::Positions { positions: vec![v1::Position { partition: 1, offset: 3 }] };
    let from = Some(v1::follow_request::From::Positions(positions));
    let mut events = service.follow(follow(from)).await.unwrap().into_inner();
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(events.next().await.unwrap().unwrap());
    }
    assert_eq!(places(&seen), [(1, 3), (1, 4)], "the other partitions start at their end");
    bench.append(Stage::Processed, 2, &[bench.record(99, None, "{}")]).await;
    seen.push(events.next().await.unwrap().unwrap());
    assert_eq!(places(&seen)[2], (2, 5));

    let since = v1::follow_request::From::ArrivalMicros(0);
    let mut since = service.follow(follow(Some(since))).await.unwrap().into_inner();
    let mut all = Vec::new();
    for _ in 0..16 {
        all.push(since.next().await.unwrap().unwrap());
    }
    for partition in 0..3_u32 {
        let offsets: Vec<u64> =
            places(&all).iter().filter(|place| place.0 == partition).map(|place| place.1).collect();
        assert!(offsets.is_sorted() && offsets[0] == 0, "{offsets:?}");
    }
    bench.shutdown.cancel();
    assert!(events.next().await.is_none());
    assert!(since.next().await.is_none());
}

#[tokio::test]
async fn who_is_not_sent_what_retention_removed_is_told_where_to_go_on() {
    let bench = bench().await;
    let service = Events::new(bench.indexer.clone());
    let cleanup = Cleanup::Trim { age_max: None, bytes_max: Some(1) };
    let config = TopicConfig { partitions: 3, cleanup };
    bench.log.create(&bench.stream.topic(Stage::Processed), &config).await.unwrap();
    for _ in 0..20 {
        let large = bench.record(0, None, &format!("\"{}\"", "x".repeat(10_000)));
        bench.append(Stage::Processed, 1, &[large]).await;
    }
    let start = bench.log.bounds(&bench.place(Stage::Processed, 1)).await.unwrap().start.0;
    assert!(start > 3, "{start}");
    let from = |offset| {
        let positions = v1::Positions { positions: vec![v1::Position { partition: 1, offset }] };
        service.follow(follow(Some(v1::follow_request::From::Positions(positions))))
    };
    let mut late = from(3).await.unwrap().into_inner();
    let told = late.next().await.unwrap().unwrap_err();
    let words =
        format!("positions: retention has removed offsets 3 to {start} of partition 1, follow from {start}");
    assert_eq!((told.code(), told.message()), (Code::InvalidArgument, &*words));
    let mut kept = from(start).await.unwrap().into_inner();
    assert_eq!(places(&[kept.next().await.unwrap().unwrap()]), [(1, start)]);
}

fn from_start() -> Option<v1::follow_request::From> {
    Some(v1::follow_request::From::ArrivalMicros(0))
}

/// Follows until a partition's event of a number has come, and returns all that came of it.
async fn until(events: &mut EventStream, partition: u32, last: u64) -> Vec<u64> {
    let mut offsets = Vec::new();
    while offsets.last() != Some(&last) {
        let event = events.next().await.unwrap().unwrap();
        let position = event.position.unwrap();
        if position.partition == partition {
            offsets.push(position.offset);
        }
    }
    offsets
}

#[tokio::test]
async fn everybody_gets_every_event_in_order_wherever_they_begin_and_however_slow_they_are() {
    let bench = bench().await;
    let service = Events::new(bench.indexer.clone());
    // Large enough that a tail does not reach back to where the slow ones stand.
    let value = format!("\"{}\"", "x".repeat(10_000));
    let append = async || {
        for round in 0..40 {
            let records: Vec<_> = (0..10).map(|n| bench.record(round * 10 + n, None, &value)).collect();
            bench.append(Stage::Processed, 1, &records).await;
        }
    };
    let last = 5 + 400 - 1;
    let mut followers = Vec::new();
    for first in [0, 3, 5, 5, 50, 200] {
        let positions = v1::Positions { positions: vec![v1::Position { partition: 1, offset: first }] };
        let from = Some(v1::follow_request::From::Positions(positions));
        let events = service.follow(follow(from)).await.unwrap().into_inner();
        followers.push((first, events));
    }
    followers.push((0, service.follow(follow(from_start())).await.unwrap().into_inner()));
    followers.push((5, service.follow(follow(None)).await.unwrap().into_inner()));
    // These two do not ask for anything before all is there.
    let mut stalled = followers.split_off(6);
    let followed = join_all(followers.into_iter().map(async |(first, mut events)| {
        assert_eq!(until(&mut events, 1, last).await, (first..=last).collect::<Vec<_>>(), "from {first}");
    }));
    tokio::join!(append(), followed);
    for (first, events) in &mut stalled {
        assert_eq!(until(events, 1, last).await, (*first..=last).collect::<Vec<_>>(), "from {first}");
    }
}

#[tokio::test]
async fn a_tail_ends_with_its_last_follower_and_another_begins_where_the_log_ends_then() {
    let bench = bench().await;
    let service = Events::new(bench.indexer.clone());
    for round in 0..3 {
        let mut one = service.follow(follow(None)).await.unwrap().into_inner();
        let mut other = service.follow(follow(None)).await.unwrap().into_inner();
        bench.append(Stage::Processed, 0, &[bench.record(round, None, "{}")]).await;
        for events in [&mut one, &mut other] {
            let event = events.next().await.unwrap().unwrap();
            assert_eq!(places(&[event]), [(0, 5 + round as u64)]);
        }
        assert_eq!(bench.indexer.tails.open(), 3);
        drop((one, other));
        while bench.indexer.tails.open() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_deleted_ends_its_followers_with_an_error_and_frees_their_places() {
    let bench = Bench::new(Limits { followers_max: 2, ..Limits::default() }).await;
    drop(tokio::spawn(bench.indexer.clone().keep_tails(CancellationToken::new())));
    let service = Events::new(bench.indexer.clone());
    let mut followers = Vec::new();
    for from in [None, from_start()] {
        followers.push(service.follow(follow(from)).await.unwrap().into_inner());
    }
    let third = service.follow(follow(None)).await.err().unwrap();
    assert_eq!(third.code(), Code::ResourceExhausted);
    let waiting = join_all(followers.iter_mut().map(StreamExt::next));
    let (ended, ()) = tokio::join!(waiting, async {
        bench.catalog.delete(bench.stream.name(), ADMINISTRATOR).await.unwrap()
    });
    for event in ended {
        assert_eq!(event.unwrap().unwrap_err().code(), Code::NotFound);
    }
    drop(followers);
    let gone = service.follow(follow(None)).await.err().unwrap();
    assert_eq!(gone.code(), Code::NotFound, "its place was free again");
}

#[tokio::test]
async fn on_the_wire_followed_events_are_whole_messages_and_an_end() {
    let bench = bench().await;
    let mut service = bench.indexer.grpc();
    let mut request = Vec::new();
    proto::frames::put(&follow(from_start()).into_inner(), &mut request);
    let body = tonic::body::Body::new(http_body_util::Full::new(Bytes::from(request)));
    let request = http::Request::post("/headwater.v1.Events/Follow");
    let request = request.header("content-type", "application/grpc").extension(Principal::administrator());
    let request = request.body(body).unwrap();
    let answer = tonic::codegen::Service::call(&mut service, request).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    let mut body = answer.into_body();
    let mut seen = Vec::new();
    while seen.len() < 15 {
        let frame = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
        let messages = proto::frames::messages::<v1::Event>(frame.into_data().unwrap());
        seen.extend(messages.map(Result::unwrap));
    }
    let mut in_order = seen.clone();
    in_order.sort_by_key(|event| event.position.map(|position| (position.partition, position.offset)));
    assert_eq!(places(&in_order)[..6], [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0)]);
    assert_eq!((in_order[4].key.as_deref(), &in_order[4].value[..]), (Some("a"), &b"{\"n\":4}"[..]));
    bench.shutdown.cancel();
    let end = http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
    assert_eq!(end.into_trailers().unwrap()["grpc-status"], "0");
    assert!(http_body_util::BodyExt::frame(&mut body).await.is_none());
}

#[tokio::test]
async fn who_may_not_read_any_more_follows_no_more() {
    let bench = bench().await;
    let service = Events::new(bench.indexer.clone());
    let ann = User::new("ann", bench.clock.now());
    bench.grant_ann(&[Permission::Read]).await;
    let mut request = follow(from_start());
    request.extensions_mut().insert(Principal::of(&ann));
    let mut events = service.follow(request).await.unwrap().into_inner();
    assert!(events.next().await.unwrap().is_ok());
    bench.grant_ann(&[Permission::Write]).await;
    let refused = loop {
        if let Err(status) = events.next().await.expect("it ends with a word") {
            break status;
        }
    };
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn rows_of_tables_are_read() {
    use broker::catalog::{Edit, Table};
    use proto::v1::tables_server::Tables as _;
    let bench = Bench::new(Limits::default()).await;
    let table: Table = serde_json::from_str(r#"{"name": "planes", "ttl_seconds": 60}"#).unwrap();
    let edit = Edit { tables: Some(vec![table]), ..Edit::default() };
    bench.catalog.change(bench.stream.name(), edit, ADMINISTRATOR).await.unwrap();
    let records: Vec<_> =
        (0..4).zip(["a", "b/1", "b/2", "c"]).map(|(n, key)| bench.record(n, Some(key), "{}")).collect();
    bench.append(Stage::Processed, 0, &records).await;
    let service = super::tables::Tables { indexer: bench.indexer.clone() };
    let keys = |rows: Vec<v1::Row>| {
        let keys = rows.into_iter().map(|row| String::from_utf8(row.key.into()).unwrap());
        keys.collect::<Vec<_>>().join(" ")
    };
    crate::testing::beside(|stop| bench.indexer.clone().keep_tables(stop), async {
        let (table, min_position) = ("planes".to_owned(), Some(v1::Position { partition: 0, offset: 3 }));
        let get = |key: &'static str| {
            let (table, key) = (table.clone(), key.as_bytes().into());
            service.get(asked(v1::GetRowRequest { table, key, min_position }))
        };
        let found = get("b/1").await.unwrap().into_inner();
        let row = found.row.unwrap();
        let now = bench.clock.now().micros();
        assert_eq!((row.updated_micros, row.expires_micros), (now, Some(now + 60_000_000)));
        assert_eq!((row.value, row.position.unwrap().offset), ("{}".into(), 1));
        assert_eq!(found.complete_through[0].offset, 4);
        assert_eq!(get("nobody").await.unwrap_err().code(), Code::NotFound);
        let keys_asked = ["c", "x", "a"].map(bytes::Bytes::from).into();
        let asked_for =
            v1::BatchGetRowsRequest { table: table.clone(), keys: keys_asked, min_position: None };
        let found = service.batch_get(asked(asked_for)).await.unwrap().into_inner();
        assert_eq!(keys(found.rows), "c a");
        let mut page = v1::ListRowsRequest { table, prefix: "b".into(), limit: 1, ..Default::default() };
        let first = service.list(asked(page.clone())).await.unwrap().into_inner();
        assert_eq!(keys(first.rows), "b/1");
        page.cursor = first.cursor;
        let next = service.list(asked(page.clone())).await.unwrap().into_inner();
        assert_eq!(keys(next.rows), "b/2");
        page.limit = 1_001;
        assert_eq!(service.list(asked(page.clone())).await.unwrap_err().code(), Code::InvalidArgument);
        page.table = "none".to_owned();
        page.limit = 0;
        assert_eq!(service.list(asked(page)).await.unwrap_err().code(), Code::NotFound);
        let mut stranger =
            Request::new(v1::GetRowRequest { table: "planes".to_owned(), ..Default::default() });
        stranger.extensions_mut().insert(Principal::of(&User::new("ann", bench.clock.now())));
        assert_eq!(service.get(stranger).await.unwrap_err().code(), Code::PermissionDenied);
    })
    .await;
}
