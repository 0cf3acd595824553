use broker::Stage;
use http::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};

use crate::testing::{Answer, Doors, basic};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn post(doors: &Doors, path: &str, body: &str) -> Answer {
    doors.post(path, &[JSON], body.to_owned()).await
}

async fn values(doors: &Doors, dataset: &str) -> Vec<String> {
    let entries = doors.entries(dataset, Stage::Raw).await;
    entries.into_iter().map(|(_, entry)| String::from_utf8(entry.record.value.to_vec()).unwrap()).collect()
}

#[rstest]
#[case::track(
    r#"{"type":"track","userId":"u","event":"seen","properties":{"a":1.0},"messageId":"m","timestamp":"2001-01-01T01:00:00.5+01:00","context":{}}"#,
    "log_user_events",
    r#"{"userId":"u","events":[{"eventName":"seen","metadata":{"a":1.0},"timestampUTC":978307200500}],"type":"track","messageId":"m","timestamp":"2001-01-01T01:00:00.5+01:00","context":{}}"#
)]
#[case::anonymous(
    r#"{"type":"track","userId":null,"anonymousId":"x","event":"seen"}"#,
    "log_user_events",
    r#"{"userId":"x","events":[{"eventName":"seen","metadata":{}}],"type":"track","anonymousId":"x"}"#
)]
#[case::page(
    r#"{"type":"page","userId":"u","name":"Home","category":"c","properties":{}}"#,
    "log_user_events",
    r#"{"userId":"u","events":[{"eventName":"Home","metadata":{}}],"type":"page","category":"c"}"#
)]
#[case::screen_without_a_name(
    r#"{"type":"screen","userId":"u","name":""}"#,
    "log_user_events",
    r#"{"userId":"u","events":[{"eventName":"screen","metadata":{}}],"type":"screen"}"#
)]
#[case::group(
    r#"{"type":"group","userId":"u","groupId":"g","traits":{"n":"N"}}"#,
    "log_user_events",
    r#"{"userId":"u","events":[{"eventName":"group","metadata":{"n":"N"}}],"type":"group","groupId":"g"}"#
)]
#[case::identify(
    r#"{"type":"identify","userId":"u","traits":{"e":"é"},"messageId":"m","timestamp":"1970-01-01T00:00:01Z"}"#,
    "user_profiles",
    r#"{"userId":"u","attributes":{"e":"é"},"timestampUTC":1000,"type":"identify","messageId":"m","timestamp":"1970-01-01T00:00:01Z"}"#
)]
#[case::alias(
    r#"{"type":"alias","userId":"new","previousId":"old","timestampUTC":"mine"}"#,
    "link_users",
    r#"{"newUserId":"new","originalUserId":"old","timestampUTC":0,"type":"alias"}"#
)]
#[tokio::test]
async fn a_message_is_a_record_of_the_collector(
    #[case] message: &str,
    #[case] dataset: &str,
    #[case] record: &str,
) {
    let doors = Doors::open().await.with_tracking(false).await;
    let answer = post(&doors, "/v1/batch", &format!(r#"{{"sentAt":"now","batch":[{message}]}}"#)).await;
    assert_eq!((answer.status, &answer.json), (StatusCode::OK, &json!({"success": true})));
    let name = serde_json::from_str::<Value>(message).unwrap()["type"].as_str().unwrap().to_owned();
    let answer = post(&doors, &format!("/v1/{name}"), message).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    assert_eq!(values(&doors, dataset).await, [record, record]);
}

#[rstest]
#[case::no_json("nonsense", "body: the body is no message: expected ident at line 1 column 2")]
#[case::no_object(
    "[]",
    "body: the body is no message: invalid type: sequence, expected an object at line 1 column 0"
)]
#[case::no_batch("{}", "batch: the messages are missing")]
#[case::no_list(r#"{"batch":{}}"#, "batch: this is a list")]
#[case::no_message(r#"{"batch":[1]}"#, "batch[0]: a message is an object")]
#[case::no_type(
    r#"{"batch":[{"userId":"u"}]}"#,
    "batch[0].type: a type is one of identify, alias, track, page, screen, group"
)]
#[case::no_user(
    r#"{"batch":[{"type":"page","userId":"u"},{"type":"track","event":"e"}]}"#,
    "batch[1].userId: a message has a userId or an anonymousId"
)]
#[case::number(r#"{"batch":[{"type":"page","userId":5}]}"#, "batch[0].userId: this is a text")]
#[case::no_event(
    r#"{"batch":[{"type":"track","userId":"u"}]}"#,
    "batch[0].event: the event's name is missing"
)]
#[case::no_previous(
    r#"{"batch":[{"type":"alias","userId":"u"}]}"#,
    "batch[0].previousId: an alias has the id before"
)]
#[case::traits(
    r#"{"batch":[{"type":"group","userId":"u","traits":[]}]}"#,
    "batch[0].traits: this is an object"
)]
#[case::time(
    r#"{"batch":[{"type":"group","userId":"u","timestamp":"yesterday"}]}"#,
    "batch[0].timestamp: a time is an RFC 3339 instant"
)]
#[tokio::test]
async fn what_is_wrong_is_named_and_nothing_is_written(#[case] body: &str, #[case] told: &str) {
    let doors = Doors::open().await.with_tracking(false).await;
    let answer = post(&doors, "/v1/batch", body).await;
    assert_eq!((answer.status, answer.json), (StatusCode::BAD_REQUEST, json!({"message": told})));
    for dataset in ["log_user_events", "link_users", "user_profiles"] {
        assert_eq!(values(&doors, dataset).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_write_key_is_an_api_key_that_may_write() {
    let body = r#"{"batch":[{"type":"page","userId":"u"},{"type":"identify","userId":"u"}]}"#;
    for is_open in [false, true] {
        let doors = Doors::open().await.with_tracking(is_open).await;
        doors.post("/api/v1/users", &[], r#"{"name":"ann"}"#).await;
        let made = doors.post("/api/v1/keys", &[], r#"{"user":"ann"}"#).await;
        let key = made.json["key"].as_str().unwrap().to_owned();
        let ask = async |authorization: &str| {
            doors.post("/v1/batch", &[JSON, ("authorization", authorization)], body).await.status.as_u16()
        };
        let stranger = if is_open { 200 } else { 401 };
        assert_eq!(ask(&basic("any")).await, stranger);
        assert_eq!(ask("").await, stranger);
        assert_eq!(ask(&basic("hwk.no.key")).await, 401);
        assert_eq!(ask("Basic ?").await, stranger);
        assert_eq!(ask(&basic(&key)).await, 403);
        let grant = r#"{"permissions":["write"]}"#;
        for (dataset, status) in [("log_user_events", 403), ("user_profiles", 200)] {
            let path = format!("/api/v1/grants/{dataset}/ann");
            let put = http::Request::put(path).body(grant.into()).unwrap();
            assert!(doors.send(put).await.status.is_success());
            assert_eq!(ask(&basic(&key)).await, status, "with {dataset}");
        }
        let written = if is_open { 4 } else { 1 };
        assert_eq!(values(&doors, "user_profiles").await.len(), written);
        assert_eq!(values(&doors, "log_user_events").await.len(), written, "all or nothing");
    }
}
