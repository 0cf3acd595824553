//! The service as its callers see it.

use broker::Stage;
use proto::v1::events_server::Events as _;
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
    bench
}

fn filter() -> Option<v1::Filter> {
    Some(v1::Filter { dataset: "flights".to_owned(), version: "1".to_owned(), ..Default::default() })
}

fn follow(from: Option<v1::follow_request::From>) -> Request<v1::FollowRequest> {
    Request::new(v1::FollowRequest { dataset: "flights".to_owned(), version: "1".to_owned(), from })
}

fn places(events: &[v1::Event]) -> Vec<(u32, u64)> {
    let positions = events.iter().map(|event| event.position.unwrap());
    positions.map(|position| (position.partition, position.offset)).collect()
}

#[tokio::test]
async fn pages_counts_and_exports_agree() {
    let bench = bench().await;
    let service = Events::new(bench.indexer.clone());
    let count = service.count(Request::new(v1::CountRequest { filter: filter() })).await.unwrap();
    assert_eq!(count.into_inner().count, 15);
    let mut request = v1::QueryRequest { filter: filter(), limit: 4, ..Default::default() };
    let mut paged = Vec::new();
    loop {
        let page = service.query(Request::new(request.clone())).await.unwrap().into_inner();
        paged.extend(page.events);
        if page.cursor.is_empty() {
            break;
        }
        request.cursor = page.cursor;
    }
    let request = v1::ExportRequest { filter: filter(), descending: true };
    let exported = service.export(Request::new(request)).await.unwrap().into_inner();
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
    let ask = async |request| service.query(Request::new(request)).await.unwrap_err();
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
