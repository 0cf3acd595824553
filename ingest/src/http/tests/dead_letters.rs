use broker::{DeadLetter, Offset, Origin, Partition, Place, Stage, StreamName, Timestamp};
use http::StatusCode;
use rstest::rstest;
use serde_json::json;

use crate::testing::{Doors, NOW};

const LIST: &str = "/api/v1/streams/flights/1/dead-letters";
const REPLAY: &str = "/api/v1/streams/flights/1/dead-letters/replay";

/// Lets the raw records of these partitions and offsets die.
async fn let_die(doors: &Doors, dataset: &str, origins: &[(u32, u64)]) {
    let stream = doors.ingest.catalog.get(&StreamName::new(dataset, "1").unwrap()).unwrap();
    for (partition, offset) in origins {
        let letter = DeadLetter {
            origin: Origin { partition: Partition(*partition), offset: Offset(*offset) },
            reason: format!("too bad {partition}/{offset}"),
            transform_version: 3,
            rejected: doors.ingest.clock.now(),
            time: Timestamp::from_micros(1_000_000_000_000_001).unwrap(),
            key: (*partition == 1).then(|| "DTW".into()),
            value: format!("{{\"n\" :{offset}}}").into(),
        };
        let place = Place::new(stream.topic(Stage::Dead), Partition(*partition));
        doors.write(place, &[letter.into_record()]).await;
    }
}

#[tokio::test]
async fn letters_are_listed_page_by_page_in_order() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 3})).await;
    assert_eq!(doors.get(LIST).await.json, json!({"dead_letters": [], "cursor": null}));
    let_die(&doors, "flights", &[(2, 9), (0, 4), (0, 7), (1, 5)]).await;
    let mut origins = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = doors.get(&format!("{LIST}?limit=2{cursor}")).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.json);
        let letters = page.json["dead_letters"].as_array().unwrap();
        assert!(letters.len() <= 2);
        origins.extend(letters.iter().map(|letter| letter["origin"].clone()));
        let Some(next) = page.json["cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let origin = |partition: u32, offset: u64| json!({"partition": partition, "offset": offset});
    assert_eq!(origins, [origin(0, 4), origin(0, 7), origin(1, 5), origin(2, 9)]);
    let all = doors.get(LIST).await.json;
    assert_eq!(
        all["dead_letters"][2],
        json!({
            "origin": {"partition": 1, "offset": 5},
            "reason": "too bad 1/5",
            "transform_version": 3,
            "timestamp": "2001-09-09T01:46:40.000001Z",
            "key": "DTW",
            "value_base64": "eyJuIiA6NX0=",
        })
    );
}

#[rstest]
#[case("limit=0", "limit")]
#[case("limit=1001", "limit")]
#[case("limit=x", "limit")]
#[case("cursor=x", "cursor")]
#[case("cursor=", "cursor")]
#[case("since=x", "since")]
#[tokio::test]
async fn refuses_bad_pages(#[case] query: &str, #[case] field: &str) {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let answer = doors.get(&format!("{LIST}?{query}")).await;
    assert_eq!((answer.status, answer.error()), (StatusCode::BAD_REQUEST, ("invalid", field)));
}

#[tokio::test]
async fn refuses_the_cursor_of_another_stream() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 1})).await;
    doors.define("trains", json!({})).await;
    let_die(&doors, "flights", &[(0, 1), (0, 2)]).await;
    let page = doors.get(&format!("{LIST}?limit=1")).await;
    let cursor = page.json["cursor"].as_str().unwrap();
    let answer = doors.get(&format!("/api/v1/streams/trains/1/dead-letters?cursor={cursor}")).await;
    assert_eq!((answer.status, answer.error().1), (StatusCode::BAD_REQUEST, "cursor"));
}

#[tokio::test]
async fn letters_are_replayed_once() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 2})).await;
    assert_eq!(doors.post(REPLAY, &[], "").await.json, json!({"replayed": 0}));
    let_die(&doors, "flights", &[(1, 5), (0, 4), (0, 7)]).await;
    assert_eq!(doors.post(REPLAY, &[], "").await.json, json!({"replayed": 3}));
    assert_eq!(doors.post(REPLAY, &[], "").await.json, json!({"replayed": 0}));
    assert_eq!(doors.raw_values().await, ["{\"n\" :4}", "{\"n\" :7}", "{\"n\" :5}"]);

    let (partition, last) = doors.entries("flights", Stage::Raw).await.pop().unwrap();
    assert_eq!((partition, last.record.key.as_deref()), (1, Some(&b"DTW"[..])));
    assert_eq!(last.record.arrival.to_string(), NOW);
    assert_eq!(last.record.time.micros(), 1_000_000_000_000_001);
    assert!(last.record.origin.is_none() && last.record.headers.is_empty());

    let_die(&doors, "flights", &[(1, 0)]).await;
    assert_eq!(doors.post(REPLAY, &[], "").await.json, json!({"replayed": 1}));
}

#[tokio::test]
async fn replays_at_the_same_time_share_the_letters() {
    let doors = Doors::open().await.with_stream(json!({"partitions": 1})).await;
    let origins: Vec<(u32, u64)> = (0..50).map(|offset| (0, offset)).collect();
    let_die(&doors, "flights", &origins).await;
    let replay = || doors.post(REPLAY, &[], "");
    let (first, second, third) = tokio::join!(replay(), replay(), replay());
    let replayed: u64 =
        [first, second, third].iter().map(|answer| answer.json["replayed"].as_u64().unwrap()).sum();
    assert_eq!((replayed, doors.raw_values().await.len()), (50, 50));
}
