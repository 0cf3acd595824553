use broker::Stage;
use http::StatusCode;
use rstest::rstest;
use serde_json::{Value, json};

use crate::testing::{Answer, Doors};

const JSON: (&str, &str) = ("content-type", "application/json");
const NOBODY: (&str, &str) = ("authorization", "");

async fn doors() -> Doors {
    Doors::open().await.with_tracking(false).await
}

async fn post(doors: &Doors, path: &str, body: &str) -> Answer {
    doors.post(path, &[JSON], body.to_owned()).await
}

fn page(answer: &Answer) -> String {
    assert_eq!(answer.headers["content-type"], "text/html; charset=utf-8");
    String::from_utf8(answer.body.to_vec()).unwrap()
}

async fn values(doors: &Doors, dataset: &str) -> Vec<String> {
    let entries = doors.entries(dataset, Stage::Raw).await;
    entries.into_iter().map(|(_, entry)| String::from_utf8(entry.record.value.to_vec()).unwrap()).collect()
}

#[rstest]
#[case::track(
    "/track",
    r#"{"events": [{"eventName": "seen", "metadata": {"a": 1.0}}, {"eventName": "é"}], "userId": "u"}"#,
    "log_user_events",
    r#"{"userId":"u","events":[{"eventName": "seen", "metadata": {"a": 1.0}}, {"eventName": "é"}]}"#
)]
#[case::no_events(
    "/track",
    r#"{"userId":"","events":[]}"#,
    "log_user_events",
    r#"{"userId":"","events":[]}"#
)]
#[case::alias(
    "/alias",
    r#"{"newUserId":"b","originalUserId":"a","timestampUTC":-5}"#,
    "link_users",
    r#"{"newUserId":"b","originalUserId":"a","timestampUTC":-5}"#
)]
#[case::alias_without_a_time(
    "/alias",
    r#"{"originalUserId":"a","newUserId":"b"}"#,
    "link_users",
    r#"{"newUserId":"b","originalUserId":"a","timestampUTC":0}"#
)]
#[case::profile(
    "/profile",
    r#"{"userId":"u","attributes":{"z":1,"a":null},"timestampUTC":99999999999999999999}"#,
    "user_profiles",
    r#"{"userId":"u","attributes":{"z":1,"a":null},"timestampUTC":99999999999999999999}"#
)]
#[case::bare_profile(
    "/profile",
    r#"{"userId":"u"}"#,
    "user_profiles",
    r#"{"userId":"u","attributes":null,"timestampUTC":0}"#
)]
#[tokio::test]
async fn a_body_is_one_record(
    #[case] path: &str,
    #[case] body: &str,
    #[case] dataset: &str,
    #[case] record: &str,
) {
    let doors = doors().await;
    let answer = post(&doors, path, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    let names: Vec<&String> = answer.json.as_object().unwrap().keys().collect();
    assert_eq!(names, ["HTTPHeaders", "HTTPStatusCode", "RequestId", "RetryAttempts"]);
    assert_eq!((&answer.json["HTTPStatusCode"], &answer.json["RetryAttempts"]), (&json!(200), &json!(0)));
    assert_eq!(values(&doors, dataset).await, [record]);
}

const MISSING: &str = "[&#39;Missing data for required field.&#39;]";
const NOT_UNDERSTOOD: &str = "The browser (or proxy) sent a request that this server could not understand.";

#[rstest]
#[case::missing("/track", "{}", &format!("{{&#39;userId&#39;: {MISSING}, &#39;events&#39;: {MISSING}}}"))]
#[case::number(
    "/track",
    r#"{"userId":1,"events":[]}"#,
    "{&#39;userId&#39;: [&#39;Not a valid string.&#39;]}"
)]
#[case::events(
    "/track",
    r#"{"userId":"u","events":{}}"#,
    "{&#39;events&#39;: [&#39;Not a valid list.&#39;]}"
)]
#[case::name(
    "/track",
    r#"{"userId":"u","events":[{}]}"#,
    &format!("{{&#39;events&#39;: {{0: {{&#39;eventName&#39;: {MISSING}}}}}}}")
)]
#[case::misspelt(
    "/alias",
    r#"{"newUserID":"b","originalUserId":"a"}"#,
    &format!("{{&#39;newUserId&#39;: {MISSING}, &#39;newUserID&#39;: [&#39;Unknown field.&#39;]}}")
)]
#[case::text(
    "/alias",
    r#"{"newUserId":"b","originalUserId":"a","timestampUTC":"10"}"#,
    "{&#39;timestampUTC&#39;: [&#39;Not a valid integer.&#39;]}"
)]
#[case::fraction(
    "/profile",
    r#"{"userId":"b","timestampUTC":10.0}"#,
    "{&#39;timestampUTC&#39;: [&#39;Not a valid integer.&#39;]}"
)]
#[case::boolean(
    "/profile",
    r#"{"userId":"b","timestampUTC":true}"#,
    "{&#39;timestampUTC&#39;: [&#39;Not a valid integer.&#39;]}"
)]
#[case::null(
    "/profile",
    r#"{"userId":"b","attributes":null}"#,
    "{&#39;attributes&#39;: [&#39;Field may not be null.&#39;]}"
)]
#[case::no_object("/profile", "[]", "{&#39;_schema&#39;: [&#39;Invalid input type.&#39;]}")]
#[case::nothing("/profile", "", NOT_UNDERSTOOD)]
#[case::no_json("/profile", "{'userId':'u'}", NOT_UNDERSTOOD)]
#[case::markup("/profile", r#"{"userId":"b","<b>":1}"#, "{&#39;&lt;b&gt;&#39;: [&#39;Unknown field.&#39;]}")]
#[tokio::test]
async fn what_is_wrong_is_told_field_by_field(#[case] path: &str, #[case] body: &str, #[case] told: &str) {
    let doors = doors().await;
    let answer = post(&doors, path, body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let text = "<!doctype html>\n<html lang=en>\n<title>400 Bad Request</title>\n<h1>Bad Request</h1>\n<p>";
    assert_eq!(page(&answer), format!("{text}{told}</p>\n"));
    for dataset in ["log_user_events", "link_users", "user_profiles"] {
        assert_eq!(values(&doors, dataset).await, [""; 0]);
    }
}

#[tokio::test]
async fn a_refusal_is_json_for_who_asks_for_that() {
    let doors = doors().await;
    let headers = [JSON, ("accept", "application/json")];
    let answer = doors.post("/track", &headers, r#"{"userId":"u","events":[{}]}"#).await;
    let missing = json!(["Missing data for required field."]);
    let told = json!({"message": "fields are wrong", "errors": {"events": {"0": {"eventName": missing}}}});
    assert_eq!((answer.status, answer.json), (StatusCode::BAD_REQUEST, told));
}

#[rstest]
#[case::none(&[], 400)]
#[case::form(&[("content-type", "application/x-www-form-urlencoded")], 400)]
#[case::text(&[("content-type", "text/json")], 400)]
#[case::charset(&[("content-type", "application/json; charset=utf-8")], 200)]
#[case::of_json(&[("content-type", "application/vnd.me+json")], 200)]
#[tokio::test]
async fn a_body_is_said_to_be_json(#[case] headers: &[(&str, &str)], #[case] status: u16) {
    let answer = doors().await.post("/profile", headers, r#"{"userId":"u"}"#).await;
    assert_eq!(answer.status.as_u16(), status);
}

#[tokio::test]
async fn who_presents_nothing_is_let_in_where_it_is_open_and_who_may_not_write_never() {
    for is_open in [false, true] {
        let doors = Doors::open().await.with_tracking(is_open).await;
        let nobody = doors.post("/profile", &[JSON, NOBODY], r#"{"userId":"u"}"#).await;
        assert_eq!(nobody.status.as_u16(), if is_open { 200 } else { 401 });
        assert_eq!(nobody.headers.contains_key("www-authenticate"), !is_open);
        let wrong = [JSON, ("authorization", "Bearer wrong")];
        let wrong = doors.post("/profile", &wrong, r#"{"userId":"u"}"#).await;
        assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
        doors.post("/api/v1/users", &[], r#"{"name":"ann"}"#).await;
        let made = doors.post("/api/v1/keys", &[], r#"{"user":"ann"}"#).await;
        let ann = format!("Bearer {}", made.json["key"].as_str().unwrap());
        let headers = [JSON, ("authorization", &*ann)];
        let refused = doors.post("/profile", &headers, r#"{"userId":"u"}"#).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", page(&refused));
        assert_eq!(values(&doors, "user_profiles").await.len(), usize::from(is_open));
    }
}

#[tokio::test]
async fn a_record_has_1000_kib_at_most() {
    let doors = doors().await;
    let body = |bytes: usize| {
        let frame = r#"{"userId":"","attributes":null,"timestampUTC":0}"#.len();
        format!(r#"{{"userId":"{}"}}"#, "x".repeat(bytes - frame))
    };
    let answer = post(&doors, "/profile", &body(1_024_001)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(page(&answer).contains("at most 1024000 bytes, not 1024001"));
    // The user's id is the record's key, which is bounded, too.
    let answer = post(&doors, "/profile", &body(1_024_000)).await;
    assert!(page(&answer).contains("userId: a key has at most"), "{}", page(&answer));
    let large = format!(r#"{{"userId":"u","attributes":{{"a":"{}"}}}}"#, "x".repeat(1_000_000));
    assert_eq!(post(&doors, "/profile", &large).await.status, StatusCode::OK);
}

#[tokio::test]
async fn its_streams_are_as_somebody_made_them() {
    let doors = Doors::open().await;
    doors.define("user_profiles", json!({"partitions": 7})).await;
    let doors = doors.with_tracking(false).await.with_tracking(false).await;
    let shown = async |dataset: &str| doors.get(&format!("/api/v1/streams/{dataset}/1")).await.json;
    assert_eq!(shown("user_profiles").await["partitions"], 7);
    assert_eq!(shown("link_users").await["key"], "/originalUserId");
    let events = shown("log_user_events").await;
    assert_eq!((&events["timestamp_field"], &events["confidentiality"]), (&Value::Null, &json!("red")));
}
