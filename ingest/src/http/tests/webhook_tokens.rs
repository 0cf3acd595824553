use std::time::Duration;

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::testing::{Answer, Doors};

const TOKENS: &str = "/webhooks/flights/tokens";
const LIFE: Duration = Duration::from_secs(730 * 24 * 3_600);

/// Asks as whoever holds `bearer`; the administrator where it is empty, nobody where it is `-`.
async fn ask(doors: &Doors, bearer: &str, (method, path): (Method, &str), body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    match bearer {
        "" => {}
        "-" => request = request.header("authorization", ""),
        bearer => request = request.header("authorization", format!("Bearer {bearer}")),
    }
    doors.send(request.body(body.to_owned().into()).unwrap()).await
}

/// A user that may do so much with `flights`, by its key.
async fn user(doors: &Doors, name: &str, grant: Value) -> String {
    doors.post("/api/v1/users", &[], json!({"name": name}).to_string()).await;
    let made = doors.post("/api/v1/keys", &[], json!({"user": name}).to_string()).await;
    let path = format!("/api/v1/grants/flights/{name}");
    let granted = ask(doors, "", (Method::PUT, &path), &grant.to_string()).await;
    assert_eq!(granted.status, StatusCode::OK, "{}", granted.json);
    made.json["key"].as_str().unwrap().to_owned()
}

/// A token for one operation on `flights`.
async fn token(doors: &Doors, operation: &str) -> String {
    let answer = doors.post(TOKENS, &[], json!({"operation": operation}).to_string()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json);
    answer.json["token"].as_str().unwrap().to_owned()
}

async fn may(doors: &Doors, token: &str, (dataset, operation): (&str, &str)) -> Value {
    let path = format!("/webhooks/{dataset}/tokens/{token}/authorize?operation={operation}");
    let answer = doors.get(&path).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    answer.json
}

fn refused(reason: &str) -> Value {
    json!({"access": false, "reason": reason})
}

#[tokio::test]
async fn a_token_is_shown_once_and_not_kept() {
    let doors = Doors::open().await;
    let made = doors.post(TOKENS, &[], r#"{"operation":"write","more":1}"#).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.json);
    let (token, id) = (made.json["token"].as_str().unwrap(), made.json["id"].as_str().unwrap());
    assert_eq!(uuid::Uuid::parse_str(token).unwrap().get_version_num(), 4);
    let expected = json!({
        "token": token, "id": id, "created_by": "administrator", "dataset_id": "flights",
        "operation": "write", "created_at": "2026-03-01T12:00:00.250Z",
        "expires_at": "2028-02-29T12:00:00.250Z", "is_active": true,
    });
    assert_eq!(made.json, expected);

    let listed = doors.get(TOKENS).await.json;
    let mut expected = expected;
    expected["token"] = json!(id);
    assert_eq!(listed, json!([expected]));
    let kept = format!("{:?}", doors.catalog_values().await);
    assert!(kept.contains("webhook_tokens") && !kept.contains(token));
}

#[tokio::test]
async fn a_token_does_one_thing_with_one_dataset_until_it_expires() {
    let doors = Doors::open().await;
    let (write, read) = (token(&doors, "write").await, token(&doors, "read").await);
    let granted = json!({"access": true, "reason": null});
    assert_eq!(may(&doors, &write, ("flights", "write")).await, granted);
    assert_eq!(may(&doors, &read, ("flights", "read")).await, granted);
    for (token, operation) in [(&write, "read"), (&read, "write")] {
        let reason = format!("Provided token does not have access to perform {operation} on flights");
        assert_eq!(may(&doors, token, ("flights", operation)).await, refused(&reason));
    }
    let id = doors.get(TOKENS).await.json[0]["id"].as_str().unwrap().to_owned();
    let upper = write.to_uppercase();
    for (token, dataset) in
        [(write.as_str(), "trains"), (&id, "flights"), (&upper, "flights"), ("x", "flights")]
    {
        let reason = format!("Provided token is not associated to dataset-id: {dataset}");
        assert_eq!(may(&doors, token, (dataset, "write")).await, refused(&reason));
    }
    doors.clock.advance(LIFE - Duration::from_secs(1));
    assert_eq!(may(&doors, &write, ("flights", "write")).await, granted);
    doors.clock.advance(Duration::from_secs(1));
    assert_eq!(may(&doors, &write, ("flights", "write")).await, refused("Provided token is expired"));
}

#[tokio::test]
async fn a_deleted_token_is_not_known_any_more() {
    let doors = Doors::open().await;
    let (by_token, by_id) = (token(&doors, "write").await, token(&doors, "write").await);
    let listed = doors.get(TOKENS).await.json;
    assert_eq!(listed.as_array().unwrap().len(), 2);
    let delete = async |dataset: &str, named: &str| {
        let path = format!("/webhooks/{dataset}/tokens/{named}");
        let answer = ask(&doors, "", (Method::DELETE, &path), "").await;
        (answer.status.as_u16(), answer.json)
    };
    let missing =
        |dataset| (404, json!({"message": format!("Provided token does not exist for dataset {dataset}")}));
    let deleted = |named: &str| (200, json!({"message": format!("Deleted {named} for dataset flights")}));
    assert_eq!(delete("trains", &by_token).await, missing("trains"));
    assert_eq!(delete("flights", &by_token).await, deleted(&by_token));
    assert_eq!(delete("flights", &by_token).await, missing("flights"));
    let left = doors.get(TOKENS).await.json;
    let id = left[0]["id"].as_str().unwrap();
    assert_eq!(delete("flights", id).await, deleted(id));
    assert_eq!(delete("flights", id).await, missing("flights"));
    assert_eq!(doors.get(TOKENS).await.json, json!([]));
    let reason = refused("Provided token is not associated to dataset-id: flights");
    for token in [by_token, by_id] {
        assert_eq!(may(&doors, &token, ("flights", "write")).await, reason);
    }
}

#[tokio::test]
async fn tokens_are_for_admins_of_the_dataset() {
    let doors = Doors::open().await;
    let admin = user(&doors, "admin", json!({"permissions": ["admin"]})).await;
    let other = user(&doors, "other", json!({"permissions": ["read", "write", "update"]})).await;
    let known = token(&doors, "write").await;
    let (one, authorize) =
        (format!("{TOKENS}/{known}"), format!("{TOKENS}/{known}/authorize?operation=write"));
    for (method, path, body, mine, others) in [
        (Method::POST, TOKENS, r#"{"operation":"read"}"#, 201, 403),
        (Method::GET, TOKENS, "", 200, 403),
        (Method::GET, &authorize, "", 200, 200),
        (Method::DELETE, &one, "", 200, 403),
    ] {
        let nobody = ask(&doors, "-", (method.clone(), path), body).await;
        let text = json!({"message": "Unauthorized"});
        assert_eq!((nobody.status.as_u16(), nobody.json), (401, text), "{method} {path}");
        let refused = ask(&doors, &other, (method.clone(), path), body).await;
        assert_eq!(refused.status.as_u16(), others, "{method} {path}: {}", refused.json);
        if others == 403 {
            assert_eq!(refused.json, json!({"message": "Forbidden"}));
        }
        let answer = ask(&doors, &admin, (method.clone(), path), body).await;
        assert_eq!(answer.status.as_u16(), mine, "{method} {path}: {}", answer.json);
    }
    let made = ask(&doors, &admin, (Method::POST, TOKENS), r#"{"operation":"read"}"#).await;
    assert_eq!(made.json["created_by"], "admin");
}

#[tokio::test]
async fn bad_requests_say_where() {
    let doors = Doors::open().await;
    for (body, place) in [
        ("", json!(["body"])),
        ("{", json!(["body"])),
        ("[]", json!(["body"])),
        ("{}", json!(["body", "operation"])),
        (r#"{"operation":"admin"}"#, json!(["body", "operation"])),
        (r#"{"operation":null}"#, json!(["body", "operation"])),
    ] {
        let answer = doors.post(TOKENS, &[], body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.json["message"], "Bad Request", "{body}");
        assert_eq!(answer.json["errors"][0]["loc"], place, "{body}");
        assert!(answer.json["errors"][0]["msg"].is_string(), "{body}");
    }
    let path = format!("{TOKENS}/x/authorize");
    for query in ["", "?operation=", "?operation=update"] {
        let answer = doors.get(&format!("{path}{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(answer.json["errors"][0]["loc"], json!(["query", "operation"]), "{query}");
    }
    let upper = doors.post("/webhooks/Flights/tokens", &[], r#"{"operation":"read"}"#).await;
    assert_eq!(upper.status, StatusCode::BAD_REQUEST);
    let large = format!(r#"{{"operation":"read","x":"{}"}}"#, "x".repeat(17 << 10));
    assert_eq!(doors.post(TOKENS, &[], large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn wrong_tokens_are_counted_and_a_right_one_is_taken_all_the_same() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let (write, read) = (token(&doors, "write").await, token(&doors, "read").await);
    let post = async |token: &str| {
        ask(&doors, "-", (Method::POST, &format!("/webhook/event/flights/1?token={token}")), "{}").await
    };
    for _ in 0..30 {
        // It is known, and for something else.
        assert_eq!(post(&read).await.status, StatusCode::FORBIDDEN);
    }
    for _ in 0..20 {
        assert_eq!(post("774d8f35-fb4b-4e06-9d7f-54d1a08589b4").await.status, StatusCode::FORBIDDEN);
    }
    let late = post("774d8f35-fb4b-4e06-9d7f-54d1a08589b4").await;
    assert_eq!(late.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        (&late.headers["retry-after"], &late.json),
        (&"3".parse().unwrap(), &json!({"message": "Too Many Requests"}))
    );
    assert_eq!(post(&write).await.status, StatusCode::OK);
    let asked = doors.get(&format!("{TOKENS}/x/authorize?operation=write")).await;
    assert_eq!(asked.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_new_dataset_does_not_come_with_the_tokens_of_others() {
    let doors = Doors::open().await;
    token(&doors, "write").await;
    let ann = user(&doors, "ann", json!({})).await;
    ask(&doors, "", (Method::DELETE, "/api/v1/grants/flights/ann"), "").await;
    let made = ask(&doors, &ann, (Method::POST, "/datasets"), r#"{"title":"Flights"}"#).await;
    assert!(made.json.as_str().unwrap().starts_with("flights-"), "{}", made.json);
}

#[tokio::test]
async fn tokens_are_made_listed_and_deleted_at_our_own_address_too() {
    let doors = Doors::open().await;
    let draft = |dataset: &str| json!({"dataset": dataset, "operation": "write"}).to_string();
    let made = doors.post("/api/v1/webhook-tokens", &[], draft("flights")).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.json);
    let (token, id) = (made.json["token"].as_str().unwrap(), made.json["id"].as_str().unwrap());
    assert_eq!(made.headers["location"], format!("/api/v1/webhook-tokens/flights/{id}").as_str());
    assert_eq!(may(&doors, token, ("flights", "write")).await, json!({"access": true, "reason": null}));
    doors.post("/api/v1/webhook-tokens", &[], draft("trains")).await;

    let keeper = user(&doors, "ann", json!({"permissions": ["admin"]})).await;
    let seen = ask(&doors, &keeper, (Method::GET, "/api/v1/webhook-tokens"), "").await.json;
    let expected = json!({
        "id": id, "dataset": "flights", "operation": "write", "created_by": "administrator",
        "created_at": "2026-03-01T12:00:00.250Z", "expires_at": "2028-02-29T12:00:00.250Z",
    });
    assert_eq!(seen, json!({"webhook_tokens": [expected], "next": null}));
    assert_eq!(
        doors.get("/api/v1/webhook-tokens?dataset=trains").await.json["webhook_tokens"][0]["dataset"],
        "trains"
    );
    assert_eq!(doors.get("/api/v1/webhook-tokens?limit=1").await.json["next"], format!("flights/{id}"));

    let refused = ask(&doors, &keeper, (Method::POST, "/api/v1/webhook-tokens"), &draft("trains")).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    for (body, field) in [
        (r#"{"dataset":"flights"}"#, "operation"),
        (r#"{"dataset":"flights","operation":"own"}"#, "operation"),
    ] {
        let wrong = doors.post("/api/v1/webhook-tokens", &[], body).await;
        assert_eq!((wrong.status, wrong.error().1), (StatusCode::BAD_REQUEST, field), "{}", wrong.json);
    }
    let path = format!("/api/v1/webhook-tokens/flights/{id}");
    assert_eq!(ask(&doors, &keeper, (Method::DELETE, &path), "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(ask(&doors, &keeper, (Method::DELETE, &path), "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(may(&doors, token, ("flights", "write")).await["access"], false);
}
