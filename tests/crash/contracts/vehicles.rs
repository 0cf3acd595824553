//! Positions of vehicles, at their prefix.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

const POST: &str = "/fleet/post-gps";
const PASSWORD: &str = "a password of the tests";
const STREAM: &str = "GpsCoordinatesStream";
const STREAM_PATH: &str = "/api/v1/streams/gps_coordinates/1";

fn put(data: &str, key: &Value) -> Value {
    json!({"StreamName": STREAM, "Data": STANDARD.encode(data), "PartitionKey": key})
}

fn data(latitude: &Value, longitude: &Value) -> String {
    json!({"longitude": longitude, "latitude": latitude, "speed": 40}).to_string()
}

/// Needs nothing.
pub(super) async fn rows(table: &Table<'_>) {
    let bus = table.dataset;
    let good = put(&data(&json!("76.54321"), &json!("-12.34567")), &json!(bus));
    let success = || (200, json!({"message": "Success"}));
    table.row(Administrator, post(POST), good.clone(), success()).await;
    table.row(Header(common::TOKEN), post(POST), good.clone(), success()).await;
    let unauthorized = || (401, json!({"message": "Unauthorized"}));
    for who in [Nobody, Header("Bearer wrong"), Header("wrong"), Header("Basic d3Jvbmc6")] {
        table.row(who, post(POST), good.clone(), unauthorized()).await;
    }
    table
        .row(Header(&table.stranger), post(POST), good.clone(), (403, json!({"message": "Forbidden"})))
        .await;
    id_tokens(table, &good).await;
    refused(table, &good).await;
    read(table).await;
    by_another_door(table).await;
}

/// A user of the pool with its password, which may write positions; its name.
async fn make_user(server: &Server, dataset: &str) -> String {
    let user = format!("bus-{dataset}");
    server.post("/api/v1/users", &json!({ "name": user })).await;
    let password = server.request(Method::PUT, &format!("/api/v1/users/{user}/password"));
    password.json(&json!({ "password": PASSWORD })).send().await.unwrap().error_for_status().unwrap();
    let grant = server.request(Method::PUT, &format!("/api/v1/grants/gps_coordinates/{user}"));
    grant.json(&json!({"permissions": ["write"]})).send().await.unwrap().error_for_status().unwrap();
    user
}

/// What a user gets that signs in.
async fn sign_in(server: &Server, user: &str) -> Value {
    let asked = json!({
        "AuthFlow": "USER_PASSWORD_AUTH", "ClientId": "headwater",
        "AuthParameters": {"USERNAME": user, "PASSWORD": PASSWORD},
    });
    let request = Client::new().post(format!("{}/user-pool/", server.base()));
    let request = request.header("x-amz-target", "AWSCognitoIdentityProviderService.InitiateAuth");
    let answer = request.body(asked.to_string()).send().await.unwrap();
    let mut answer: Value = answer.json().await.unwrap();
    answer["AuthenticationResult"].take()
}

/// Id tokens, as they are and as bearers; nothing else that a sign-in gives.
async fn id_tokens(table: &Table<'_>, good: &Value) {
    let user = make_user(table.server, table.dataset).await;
    let signed_in = sign_in(table.server, &user).await;
    let token = |name: &str| signed_in[name].as_str().unwrap();
    let success = || (200, json!({"message": "Success"}));
    table.row(Header(token("IdToken")), post(POST), good.clone(), success()).await;
    let bearer = format!("Bearer {}", token("IdToken"));
    table.row(Header(&bearer), post(POST), good.clone(), success()).await;
    // Another pool has a user of the same name.
    let folder = tempfile::tempdir().unwrap();
    let launch = Launch::local(folder.path()).set("HEADWATER_USER_POOL__ENABLED", "true");
    let other = launch.set("HEADWATER_VEHICLES__ENABLED", "true").start().await;
    let elsewhere = sign_in(&other, &make_user(&other, table.dataset).await).await;
    let elsewhere = elsewhere["IdToken"].as_str().unwrap();
    let (head, _) = token("IdToken").rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", elsewhere.rsplit_once('.').unwrap().1);
    for wrong in [token("AccessToken"), token("RefreshToken"), elsewhere, &forged, head] {
        let unauthorized = (401, json!({"message": "Unauthorized"}));
        table.row(Header(wrong), post(POST), good.clone(), unauthorized).await;
    }
}

/// Every refusal names the field.
async fn refused(table: &Table<'_>, good: &Value) {
    let bus = json!(table.dataset);
    let with = |field: &str, value: Value| {
        let mut put = good.clone();
        put[field] = value;
        put
    };
    let mut wrong = vec![
        ("StreamName", with("StreamName", json!("AnotherStream"))),
        ("StreamName", with("StreamName", Value::Null)),
        ("StreamName", json!({"Data": good["Data"], "PartitionKey": bus})),
        ("PartitionKey", with("PartitionKey", json!(""))),
        ("PartitionKey", with("PartitionKey", json!("k".repeat(257)))),
        ("PartitionKey", with("PartitionKey", json!(17))),
        ("Data", with("Data", json!("no base64!"))),
        ("Data", with("Data", json!(STANDARD.encode("no json")))),
        ("Data", with("Data", json!(STANDARD.encode("[1]")))),
        ("Data", with("Data", json!({"latitude": "1.23456"}))),
        ("latitude", put(r#"{"longitude":"1.23456"}"#, &bus)),
        ("longitude", put(r#"{"latitude":"1.23456"}"#, &bus)),
        ("body", json!([good])),
    ];
    for bad in [
        json!(1.23456),
        json!(null),
        json!("1.2345"),
        json!("100.12345"),
        json!("1.23456\n"),
        json!("١.23456"),
    ] {
        wrong.push(("latitude", put(&data(&bad, &json!("1.23456")), &bus)));
        wrong.push(("longitude", put(&data(&json!("1.23456"), &bad), &bus)));
    }
    for (field, body) in wrong {
        let (status, answer) = table.ask(Administrator, post(POST), &body).await;
        let message = answer["message"].as_str().unwrap();
        assert!(status == 400 && message.starts_with(&format!("{field}: ")), "{body}: {status} {message}");
    }
    let text =
        table.client.post(format!("{}{POST}", table.server.base())).header("content-type", "text/plain");
    let answer = table.authorized(Administrator, text.body(good.to_string())).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

async fn read(table: &Table<'_>) {
    let of = |bus: &str| format!("/fleet/get-gps?busId={bus}");
    let own = of(table.dataset);
    let position = until("the position is visible", async || {
        let (status, position) = table.ask(Administrator, get(&own), &Value::Null).await;
        assert_eq!(status, 200, "{position}");
        pause().await;
        (position["latitude"] == "76.54321").then_some(position)
    })
    .await;
    let names: Vec<&str> = position.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["busId", "latitude", "longitude", "updatedAt"]);
    assert_eq!((&position["busId"], &position["longitude"]), (&json!(table.dataset), &json!("-12.34567")));
    #[allow(clippy::disallowed_methods, reason = "compared with what the server answers")]
    let now = chrono::Utc::now().timestamp();
    let updated: i64 = position["updatedAt"].as_str().unwrap().parse().unwrap();
    assert!((now - 60..=now).contains(&updated), "{position}");
    table.row(Administrator, get(&of("nobody")), Value::Null, (200, json!({}))).await;
    let (_, unknown) = table.ask(Administrator, get(&of("nobody")), &Value::Null).await;
    assert_eq!(unknown, json!({}));
    let missing = || (400, json!({"error": "Param busId is required"}));
    for path in ["/fleet/get-gps", "/fleet/get-gps?busId=", "/fleet/get-gps?other=1"] {
        table.row(Administrator, get(path), Value::Null, missing()).await;
    }
    table.row(Nobody, get(&own), Value::Null, (401, json!({"error": "Unauthorized"}))).await;
    let (status, _) = table.ask(Header(&table.stranger), get(&own), &Value::Null).await;
    assert_eq!(status, 403);
}

/// What is no position and came by another door is a dead letter, and changes nothing.
async fn by_another_door(table: &Table<'_>) {
    let bus = table.dataset;
    let records = format!("{STREAM_PATH}/records");
    for (field, value) in
        [("latitude", json!("1.2")), ("longitude", json!(7)), ("longitude", json!("1.23456\n"))]
    {
        let mut event = json!({"busId": bus, "latitude": "1.23456", "longitude": "1.23456"});
        event[field] = value;
        let (status, answer) = table.server.post(&records, &event).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let offset = &answer["records"][0]["offset"];
        until("it is a dead letter", async || {
            let page = table.server.get(&format!("{STREAM_PATH}/dead-letters?limit=1000")).await;
            let letters = page["dead_letters"].as_array().unwrap();
            let letter = letters.iter().find(|letter| letter["origin"]["offset"] == *offset)?;
            assert!(letter["reason"].as_str().unwrap().starts_with(&format!("{field}: ")), "{letter}");
            Some(())
        })
        .await;
    }
    let (_, position) =
        table.ask(Administrator, get(&format!("/fleet/get-gps?busId={bus}")), &Value::Null).await;
    assert_eq!(position["latitude"], "76.54321");
}
