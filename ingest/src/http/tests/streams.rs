use axum::body::Body;
use http::{Method, Request, StatusCode};
use rstest::rstest;
use serde_json::json;

use crate::testing::{Answer, Doors, NOW};

async fn send(doors: &Doors, method: Method, path: &str, body: &str) -> Answer {
    let request = Request::builder().method(method).uri(path);
    doors.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

const FLIGHTS: &str = "/api/v1/streams/flights/1";

#[tokio::test]
async fn a_stream_is_created_shown_changed_listed_and_deleted() {
    let doors = Doors::open().await;
    let definition = r#"{"dataset":"flights","version":"1","confidentiality":"yellow","partitions":2,
        "timestamp_field":"date","timestamp_format":"%Y/%m/%d %H:%M","key":"/origin"}"#;
    let created = doors.post("/api/v1/streams", &[("content-type", "application/json")], definition).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.json);
    assert_eq!(created.headers["location"], FLIGHTS);
    let shown = json!({
        "dataset": "flights", "version": "1", "confidentiality": "yellow", "partitions": 2,
        "retention": {"age_seconds": 604_800, "index": false},
        "timestamp_field": "date", "timestamp_format": "%Y/%m/%d %H:%M",
        "timestamp_required": true, "key": "/origin",
        "transform": null, "transform_version": 1, "transform_activations": {},
        "sinks": {"archive": true, "index": true},
        "sink_states": {"archive": "on", "index": "on"},
        "subscribable": false,
        "config_version": 1, "created_at": NOW, "updated_at": NOW, "updated_by": "administrator",
        "topics": {
            "raw": "dp.yellow.flights.raw.1.json",
            "processed": "dp.yellow.flights.processed.1.json",
            "dead": "dp.yellow.flights.dead.1.json",
        },
    });
    assert_eq!(created.json, shown);
    assert_eq!(doors.get(FLIGHTS).await.json, shown);
    assert_eq!(doors.get("/api/v1/streams").await.json, json!({"streams": [shown]}));

    let changed = send(&doors, Method::PATCH, FLIGHTS, r#"{"key":null,"config_version":1}"#).await;
    assert_eq!((changed.status, &changed.json["key"]), (StatusCode::OK, &json!(null)));
    assert_eq!(changed.json["config_version"], 2);

    let deleted = send(&doors, Method::DELETE, FLIGHTS, "").await;
    assert_eq!((deleted.status, deleted.json), (StatusCode::NO_CONTENT, json!(null)));
    for (method, path) in [
        (Method::GET, FLIGHTS),
        (Method::DELETE, FLIGHTS),
        (Method::POST, "/api/v1/streams/flights/1/records"),
    ] {
        let answer = send(&doors, method, path, "{}").await;
        assert_eq!((answer.status, answer.error()), (StatusCode::NOT_FOUND, ("not_found", "stream")));
    }
    assert_eq!(doors.get("/api/v1/streams").await.json, json!({"streams": []}));
    assert_eq!(doors.post("/api/v1/streams", &[], definition).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_sink_is_starting_or_stopping_until_its_worker_has_settled_it() {
    let doors = Doors::open().await;
    let definition = r#"{"dataset":"flights","version":"1","sinks":{"archive":false,"index":true}}"#;
    let created = doors.post("/api/v1/streams", &[], definition).await;
    assert_eq!(created.json["sink_states"], json!({"archive": "off", "index": "on"}));
    for (sinks, states) in [
        (json!({"archive": true}), json!({"archive": "starting", "index": "on"})),
        (json!({"archive": true, "index": false}), json!({"archive": "starting", "index": "stopping"})),
        (json!({"archive": false, "index": false}), json!({"archive": "stopping", "index": "stopping"})),
    ] {
        let body = json!({"sinks": sinks, "backfill": true}).to_string();
        let changed = send(&doors, Method::PATCH, FLIGHTS, &body).await;
        assert_eq!((changed.status, &changed.json["sink_states"]), (StatusCode::OK, &states));
    }
    let refused = send(&doors, Method::PATCH, FLIGHTS, r#"{"sinks":{"archive":true,"index":false}}"#).await;
    assert_eq!((refused.status, refused.error()), (StatusCode::CONFLICT, ("conflict", "sinks.archive")));
}

#[rstest]
#[case::exists(
    Method::POST,
    "/api/v1/streams",
    r#"{"dataset":"flights","version":"1"}"#,
    409,
    "conflict dataset"
)]
#[case::bad_dataset(
    Method::POST,
    "/api/v1/streams",
    r#"{"dataset":"Fli.ghts","version":"1"}"#,
    400,
    "invalid dataset"
)]
#[case::no_version(Method::POST, "/api/v1/streams", r#"{"dataset":"trains"}"#, 400, "invalid version")]
#[case::unknown_field(
    Method::POST,
    "/api/v1/streams",
    r#"{"dataset":"trains","version":"1","x":1}"#,
    400,
    "invalid x"
)]
#[case::partitions(
    Method::POST,
    "/api/v1/streams",
    r#"{"dataset":"trains","version":"1","partitions":0}"#,
    400,
    "invalid partitions"
)]
#[case::format(
    Method::POST,
    "/api/v1/streams",
    r#"{"dataset":"trains","version":"1","timestamp_field":"at","timestamp_format":"%H"}"#,
    400,
    "invalid timestamp_format"
)]
#[case::key(
    Method::POST,
    "/api/v1/streams",
    r#"{"dataset":"trains","version":"1","key":"k"}"#,
    400,
    "invalid key"
)]
#[case::not_json(Method::POST, "/api/v1/streams", "{", 400, "invalid body")]
#[case::empty(Method::POST, "/api/v1/streams", "", 400, "invalid body")]
#[case::parameter(Method::GET, "/api/v1/streams?limit=1", "", 400, "invalid limit")]
#[case::stale(Method::PATCH, FLIGHTS, r#"{"config_version":7}"#, 409, "conflict config_version")]
#[case::fixed_field(Method::PATCH, FLIGHTS, r#"{"partitions":8}"#, 400, "invalid partitions")]
#[case::change_of_unknown(Method::PATCH, "/api/v1/streams/trains/1", "{}", 404, "not_found stream")]
#[case::unknown(Method::GET, "/api/v1/streams/trains/1", "", 404, "not_found stream")]
#[tokio::test]
async fn refuses_what_cannot_be_defined(
    #[case] method: Method,
    #[case] path: &str,
    #[case] body: &str,
    #[case] status: u16,
    #[case] error: &str,
) {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let answer = send(&doors, method, path, body).await;
    let (kind, field) = answer.error();
    assert_eq!(
        (answer.status.as_u16(), format!("{kind} {field}").as_str()),
        (status, error),
        "{}",
        answer.json
    );
}

#[tokio::test]
async fn a_definition_is_json_of_a_bounded_size() {
    let doors = Doors::open().await;
    let answer = doors.post("/api/v1/streams", &[("content-type", "text/plain")], "{}").await;
    assert_eq!((answer.status, answer.error().1), (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content-type"));
    let answer = doors.post("/api/v1/streams", &[], vec![b' '; 600_000]).await;
    assert_eq!((answer.status, answer.error()), (StatusCode::PAYLOAD_TOO_LARGE, ("too_large", "body")));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_in_the_same_shape() {
    let missing = crate::http::not_found("/nowhere".parse().unwrap()).await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    let refused = crate::http::method_not_allowed("/api/v1/streams".parse().unwrap()).await;
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    for response in [missing, refused] {
        assert!(response.extensions().get::<proto::problem::Problem>().is_some());
    }
}
