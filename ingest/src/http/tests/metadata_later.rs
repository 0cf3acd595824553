//! `/metadata/datasets`, the later dialect.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::metadata::{ask, get, post, put, user};
use crate::testing::{Answer, Doors};

const ROOT: &str = "/metadata/datasets";

fn at(path: &str) -> String {
    format!("{ROOT}{path}")
}

async fn patch(doors: &Doors, path: &str, body: Value) -> Answer {
    ask(doors, "", (Method::PATCH, path), &body.to_string()).await
}

/// `flights`, which may be read by everybody.
async fn with_flights() -> Doors {
    let doors = Doors::open().await;
    let made = post(&doors, ROOT, json!({"title": "Flights", "accessRights": "public", "extra": 1.50})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.json);
    doors
}

#[tokio::test]
async fn a_dataset_begins_with_a_version_and_defaults() {
    let doors = with_flights().await;
    let shown = get(&doors, &at("/flights")).await.json;
    let expected = json!({
        "Id": "flights", "Type": "Dataset", "title": "Flights", "accessRights": "public", "extra": 1.5,
        "source": {"type": "file"}, "state": "active", "_links": {"self": {"href": "/datasets/flights"}},
    });
    assert_eq!(shown, expected);
    let latest = get(&doors, &at("/flights/versions/latest")).await.json;
    assert_eq!((&latest["Id"], &latest["version"]), (&json!("flights/1"), &json!("1")));
    let embedded = get(&doors, &at("/flights?embed=versions")).await.json;
    assert_eq!(embedded["_embedded"]["versions"], json!([latest]));
    assert_eq!(
        get(&doors, "/datasets/flights").await.json,
        expected,
        "both dialects show the same documents"
    );

    let event = post(&doors, ROOT, json!({"title": "Events", "source": {"type": "event"}})).await;
    assert_eq!((&event.json["source"], &event.json["Id"]), (&json!({"type": "event"}), &json!("events")));
    assert_eq!(event.headers["location"], "/datasets/events");
    assert_eq!(event.headers["access-control-allow-origin"], "*");
}

#[tokio::test]
async fn changes_answer_with_the_document() {
    let doors = with_flights().await;
    let patched = patch(&doors, &at("/flights"), json!({"title": "Other", "Id": "mine"})).await;
    assert_eq!(patched.status, StatusCode::OK, "{}", patched.json);
    assert_eq!(
        (&patched.json["Id"], &patched.json["title"], &patched.json["extra"]),
        (&json!("flights"), &json!("Other"), &json!(1.5))
    );
    let replaced = put(&doors, &at("/flights"), json!({"title": "Third", "accessRights": "public"})).await;
    assert_eq!((replaced.status, replaced.json.get("extra")), (StatusCode::OK, None));
    assert_eq!(get(&doors, &at("/flights")).await.json, replaced.json);

    let version = post(&doors, &at("/flights/versions"), json!({"version": "2"})).await;
    assert_eq!((version.status, &version.json["Id"]), (StatusCode::CREATED, &json!("flights/2")));
    assert_eq!(version.headers["location"], "/datasets/flights/versions/2");
    let edition =
        post(&doors, &at("/flights/versions/latest/editions"), json!({"edition": "2019-05-28T15:37:00Z"}))
            .await;
    assert_eq!(
        (edition.status, &edition.json["Id"]),
        (StatusCode::CREATED, &json!("flights/2/20190528T153700"))
    );
    let below = at("/flights/versions/2/editions/20190528T153700/distributions");
    let distribution = post(&doors, &below, json!({"filename": "a.csv"})).await;
    assert_eq!(
        (distribution.status, &distribution.json["Type"]),
        (StatusCode::CREATED, &json!("Distribution"))
    );
    assert_eq!(get(&doors, &below).await.json, json!([distribution.json]));
}

/// Asks as the administrator; each is refused with this status and body.
async fn check(requests: Vec<(Method, &str, Value, u16, Value)>) {
    let doors = with_flights().await;
    for (method, path, body, status, expected) in requests {
        let answer = ask(&doors, "", (method.clone(), &at(path)), &body.to_string()).await;
        assert_eq!((answer.status.as_u16(), &answer.json), (status, &expected), "{method} {path} {body}");
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
    }
}

#[tokio::test]
async fn what_streams_depend_on_is_checked() {
    let of = |field: &str, value: Value, fault: &str| {
        let mut body = json!({"title": "a", "accessRights": "public"});
        body[field] = value;
        let answer = json!({"message": "Validation error", "errors": [fault]});
        (Method::POST, "", body, 400, answer)
    };
    let rights = "accessRights: the field is one of non-public, public, restricted";
    let source = "source.type: the field is one of database, event, file, none";
    check(vec![
        of("title", json!(null), "title: the field holds no text"),
        of("title", json!("x".repeat(129)), "title: a title has at most 128 characters"),
        of("accessRights", json!("all"), rights),
        of("accessRights", json!(["public"]), rights),
        of("source", json!("event"), source),
        of("source", json!({"type": "Event"}), source),
        of("state", json!("gone"), "state: the field is one of active, maintenance"),
        of("timestamp_field", json!(5), "timestamp_field: the name of a field has 1 to 255 characters"),
    ])
    .await;
}

#[tokio::test]
async fn what_is_missing_or_taken_is_said_in_objects_and_lists() {
    let invalid = |text: &str| json!({"message": "Validation error", "errors": [text]});
    let unknown = || json!([{"message": "Dataset none does not exist"}]);
    let missing = |level: &str| json!({"message": format!("{level} not found.")});
    let taken = json!([{"message": "Resource Conflict: Item with id flights/1 already exists"}]);
    let lasting = || json!({"message": "The value of accessRights cannot be changed."});
    let get = |path, level| (Method::GET, path, Value::Null, 404, missing(level));
    let post = |path, body, status, answer| (Method::POST, path, body, status, answer);
    let put = |path, body, status, answer| (Method::PUT, path, body, status, answer);
    let patch = |path, body, status, answer| (Method::PATCH, path, body, status, answer);
    let (editions, day) = ("/flights/versions/9/editions", json!({"edition": "2019-05-28"}));
    let nowhere = json!({"message": "flights/9 does not exist"});
    let other = invalid("version: it is 2, and the path says 1");
    check(vec![
        get("/none", "Dataset"),
        get("/flights/versions/9", "Version"),
        get("/flights/versions/1/editions/latest", "Edition"),
        post("", json!({}), 400, invalid("title: the field is missing")),
        post("/none/versions", json!({"version": "1"}), 404, unknown()),
        post("/none/versions/latest/editions", json!({}), 404, unknown()),
        post("/flights/versions", json!({"version": "1"}), 409, taken),
        post("/flights/versions", json!({}), 400, invalid("version: the field is missing")),
        post(editions, day, 400, nowhere),
        put("/none", json!({"title": "a"}), 404, unknown()),
        put("/flights/versions/9", json!({"version": "9"}), 404, missing("Version")),
        put("/flights/versions/1", json!({"version": "2"}), 400, other),
        put("/flights", json!({"title": "a"}), 400, lasting()),
        patch("/flights", json!({"accessRights": "restricted"}), 400, lasting()),
        patch("/none", json!({}), 404, unknown()),
    ])
    .await;
}

#[tokio::test]
async fn what_is_no_json_is_refused_and_the_first_dialect_has_no_patch() {
    let doors = with_flights().await;
    let text = ask(&doors, "", (Method::POST, ROOT), "{").await;
    assert_eq!((text.status, &text.json["message"]), (StatusCode::BAD_REQUEST, &json!("JSON parse error")));
    assert!(text.json["errors"][0].as_str().unwrap().starts_with("body: "), "{}", text.json);
    assert_eq!(patch(&doors, "/datasets/flights", json!({})).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn existence_is_told_before_permission_and_both_before_the_body_is_looked_at() {
    let doors = with_flights().await;
    let bob = user(&doors, "bob").await;
    let refused = json!([{"message": "You are not authorized to access dataset flights"}]);
    let nobody = json!([{"message": "Authorization header missing"}]);
    for (method, path, own) in [
        (Method::PUT, "/flights", &refused),
        (Method::PATCH, "/flights", &refused),
        (Method::POST, "/flights/versions", &refused),
        (Method::PUT, "/none", &json!([{"message": "Dataset none does not exist"}])),
    ] {
        let answer = ask(&doors, &bob, (method.clone(), &at(path)), "no JSON").await;
        assert_eq!(&answer.json, own, "{method} {path}");
        let answer = ask(&doors, "-", (method.clone(), &at(path)), "no JSON").await;
        assert_eq!((answer.status, &answer.json), (StatusCode::FORBIDDEN, &nobody), "{method} {path}");
        let answer = ask(&doors, "wrong", (method, &at(path)), "no JSON").await;
        assert_eq!(
            (answer.status, &answer.json),
            (StatusCode::UNAUTHORIZED, &json!({"message": "Unauthorized"}))
        );
    }
}

#[tokio::test]
async fn changes_at_once_lose_none() {
    let doors = with_flights().await;
    let path = at("/flights");
    let changes = (0..8).map(|number| patch(&doors, &path, json!({format!("field{number}"): number})));
    for answer in futures::future::join_all(changes).await {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    }
    let shown = get(&doors, &path).await.json;
    for number in 0..8 {
        assert_eq!(shown[format!("field{number}")], number);
    }
}
