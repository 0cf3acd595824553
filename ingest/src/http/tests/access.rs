use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::testing::{Answer, Doors};

/// Asks as whoever holds `key`; the administrator where it is empty.
async fn ask(doors: &Doors, key: &str, (method, path): (Method, &str), body: Value) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    if !key.is_empty() {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    doors.send(request.body(body.into()).unwrap()).await
}

async fn create_user(doors: &Doors, name: &str) {
    let answer = doors.post("/api/v1/users", &[], json!({"name": name}).to_string()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json);
}

/// A user with a key of its own.
async fn user_with_key(doors: &Doors, name: &str) -> String {
    create_user(doors, name).await;
    let answer = doors.post("/api/v1/keys", &[], json!({"user": name}).to_string()).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json);
    answer.json["key"].as_str().unwrap().to_owned()
}

async fn grant(doors: &Doors, (dataset, user): (&str, &str), grant: Value) {
    let path = format!("/api/v1/grants/{dataset}/{user}");
    let answer = ask(doors, "", (Method::PUT, &path), grant).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
}

#[tokio::test]
async fn a_key_stands_for_its_user_until_one_of_them_is_gone() {
    let doors = Doors::open().await;
    let key = user_with_key(&doors, "ann").await;
    let who = ask(&doors, &key, (Method::GET, "/api/v1/whoami"), Value::Null).await;
    assert_eq!(who.json, json!({"name": "ann", "administrator": false}));

    let is_known = async |key: &str| {
        ask(&doors, key, (Method::GET, "/api/v1/whoami"), Value::Null).await.status == StatusCode::OK
    };
    assert!(!is_known(&key[..key.len() - 1]).await);
    assert!(!is_known(&format!("{key}x")).await);
    assert!(!is_known("hwk.").await);
    assert!(!is_known("hwk.x.y").await);

    let disable = |disabled: bool| json!({"disabled": disabled});
    let user = (Method::PATCH, "/api/v1/users/ann");
    assert_eq!(ask(&doors, "", user.clone(), disable(true)).await.json["disabled"], true);
    assert!(!is_known(&key).await);
    ask(&doors, "", user, disable(false)).await;
    assert!(is_known(&key).await);

    let id = key.split('.').nth(1).unwrap();
    let gone = ask(&doors, &key, (Method::DELETE, &format!("/api/v1/keys/{id}")), Value::Null).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert!(!is_known(&key).await);
}

#[tokio::test]
async fn a_key_is_shown_once_and_its_secret_is_not_kept() {
    let doors = Doors::open().await;
    let key = user_with_key(&doors, "ann").await;
    let secret = key.rsplit('.').next().unwrap();
    let listed = doors.get("/api/v1/keys").await.json;
    assert_eq!(listed["keys"][0]["user"], "ann");
    assert!(!listed.to_string().contains(secret));
    let log = format!("{:?}", doors.catalog_values().await);
    assert!(log.contains("secret_sha256") && !log.contains(secret));
}

#[tokio::test]
async fn a_key_that_expired_says_so() {
    let doors = Doors::open().await;
    create_user(&doors, "ann").await;
    let body = json!({"user": "ann", "expires_in_seconds": 60, "label": "for a minute"});
    let made = doors.post("/api/v1/keys", &[], body.to_string()).await.json;
    assert_eq!(
        (&made["expires_at"], &made["label"]),
        (&json!("2026-03-01T12:01:00.250Z"), &json!("for a minute"))
    );
    let key = made["key"].as_str().unwrap();
    doors.clock.advance(std::time::Duration::from_secs(59));
    assert_eq!(ask(&doors, key, (Method::GET, "/api/v1/whoami"), Value::Null).await.status, StatusCode::OK);
    doors.clock.advance(std::time::Duration::from_secs(1));
    let late = ask(&doors, key, (Method::GET, "/api/v1/whoami"), Value::Null).await;
    assert_eq!(late.status, StatusCode::UNAUTHORIZED);
    assert_eq!(late.json["error"]["message"], "this API key has expired");
}

#[tokio::test]
async fn each_request_needs_its_permission() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let key = user_with_key(&doors, "ann").await;
    let stream = "/api/v1/streams/flights/1";
    let (records, letters) = (format!("{stream}/records"), format!("{stream}/dead-letters"));
    let replay = format!("{letters}/replay");
    let requests = [
        (Method::GET, stream, Value::Null, None),
        (Method::POST, &records, json!({}), Some("write")),
        (Method::PATCH, stream, json!({"key": "/k"}), Some("update")),
        (Method::GET, &letters, Value::Null, Some("update")),
        (Method::POST, &replay, Value::Null, Some("update")),
        (Method::POST, "/api/v1/streams", json!({"dataset": "flights", "version": "2"}), Some("update")),
        (Method::DELETE, stream, Value::Null, Some("update")),
    ];
    for (method, path, body, needs) in requests {
        for permission in [None, Some("read"), Some("write"), Some("update"), Some("admin")] {
            let permissions: Vec<_> = permission.into_iter().collect();
            grant(&doors, ("flights", "ann"), json!({"permissions": permissions})).await;
            let answer = ask(&doors, &key, (method.clone(), path), body.clone()).await;
            let may = if needs.is_some() { permission == needs } else { permission.is_some() };
            assert_eq!(
                answer.status.is_success(),
                may,
                "{method} {path} with {permission:?}: {}",
                answer.json
            );
            if !may {
                assert_eq!((answer.status, answer.error()), (StatusCode::FORBIDDEN, ("forbidden", "")));
            }
        }
    }
}

#[tokio::test]
async fn who_may_not_see_a_dataset_does_not_learn_what_is_there() {
    let doors = Doors::open().await.with_stream(json!({})).await;
    let key = user_with_key(&doors, "ann").await;
    for stream in ["flights/1", "trains/1"] {
        let answer =
            ask(&doors, &key, (Method::GET, &format!("/api/v1/streams/{stream}")), Value::Null).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    }
    let list = async || ask(&doors, &key, (Method::GET, "/api/v1/streams"), Value::Null).await.json;
    assert_eq!(list().await, json!({"streams": []}));
    grant(&doors, ("flights", "ann"), json!({"permissions": ["read"]})).await;
    assert_eq!(list().await["streams"][0]["dataset"], "flights");
    assert_eq!(list().await["streams"][0]["updated_by"], "administrator");
}

#[tokio::test]
async fn owners_and_admins_of_a_dataset_give_grants_on_it() {
    let doors = Doors::open().await;
    let owner = user_with_key(&doors, "owner").await;
    let admin = user_with_key(&doors, "admin").await;
    create_user(&doors, "ann").await;
    grant(&doors, ("flights", "owner"), json!({"owner": true})).await;
    grant(&doors, ("flights", "admin"), json!({"permissions": ["admin"]})).await;
    let put = async |key: &str, path: &str, body: Value| {
        ask(&doors, key, (Method::PUT, &format!("/api/v1/grants/{path}")), body).await.status
    };
    let (read, own) = (json!({"permissions": ["read"]}), json!({"owner": true}));
    assert_eq!(put(&admin, "flights/ann", read.clone()).await, StatusCode::OK);
    // Neither makes it an owner of itself nor takes one away.
    assert_eq!(put(&admin, "flights/admin", own.clone()).await, StatusCode::FORBIDDEN);
    assert_eq!(put(&admin, "flights/owner", read.clone()).await, StatusCode::FORBIDDEN);
    assert_eq!(put(&owner, "flights/ann", own).await, StatusCode::OK);
    assert_eq!(put(&owner, "trains/ann", read.clone()).await, StatusCode::FORBIDDEN);
    assert_eq!(put(&owner, "*/ann", read.clone()).await, StatusCode::FORBIDDEN);
    assert_eq!(put("", "*/ann", read.clone()).await, StatusCode::OK);
    assert_eq!(put("", "flights/nobody", read.clone()).await, StatusCode::NOT_FOUND);
    assert_eq!(put("", "Flights/ann", read).await, StatusCode::BAD_REQUEST);

    let delete = async |key: &str, user: &str| {
        ask(&doors, key, (Method::DELETE, &format!("/api/v1/grants/flights/{user}")), Value::Null)
            .await
            .status
    };
    assert_eq!(delete(&admin, "owner").await, StatusCode::FORBIDDEN);
    assert_eq!(delete(&owner, "ann").await, StatusCode::NO_CONTENT);
    assert_eq!(delete(&owner, "ann").await, StatusCode::NOT_FOUND);
    let seen = ask(&doors, &owner, (Method::GET, "/api/v1/grants?dataset=flights"), Value::Null).await.json;
    let principals: Vec<_> = seen["grants"].as_array().unwrap().iter().map(|it| &it["principal"]).collect();
    assert_eq!(principals, ["admin", "owner"]);
}

#[tokio::test]
async fn users_and_the_keys_of_others_are_for_administrators() {
    let doors = Doors::open().await;
    let ann = user_with_key(&doors, "ann").await;
    let bob = user_with_key(&doors, "bob").await;
    let bobs = format!("/api/v1/keys/{}", bob.split('.').nth(1).unwrap());
    let requests = [
        (Method::GET, "/api/v1/users", Value::Null),
        (Method::POST, "/api/v1/users", json!({"name": "eve"})),
        (Method::GET, "/api/v1/users/bob", Value::Null),
        (Method::PATCH, "/api/v1/users/ann", json!({"administrator": true})),
        (Method::DELETE, "/api/v1/users/bob", Value::Null),
        (Method::POST, "/api/v1/keys", json!({"user": "bob"})),
        (Method::DELETE, &bobs, Value::Null),
        (Method::DELETE, "/api/v1/keys/unknown", Value::Null),
    ];
    for (method, path, body) in requests {
        let answer = ask(&doors, &ann, (method, path), body).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(
        ask(&doors, &ann, (Method::POST, "/api/v1/keys"), json!({})).await.status,
        StatusCode::CREATED
    );
    let own = ask(&doors, &ann, (Method::GET, "/api/v1/keys"), Value::Null).await.json;
    assert_eq!(own["keys"].as_array().unwrap().len(), 2);

    ask(&doors, "", (Method::PATCH, "/api/v1/users/ann"), json!({"administrator": true})).await;
    let gone = ask(&doors, &ann, (Method::DELETE, "/api/v1/users/bob"), Value::Null).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let all = ask(&doors, &ann, (Method::GET, "/api/v1/keys"), Value::Null).await.json;
    assert_eq!(all["keys"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn lists_come_in_pages() {
    let doors = Doors::open().await;
    for name in ["a", "b", "c"] {
        create_user(&doors, name).await;
    }
    let first = doors.get("/api/v1/users?limit=2").await.json;
    assert_eq!((first["users"].as_array().unwrap().len(), &first["next"]), (2, &json!("b")));
    let rest = doors.get("/api/v1/users?limit=2&after=b").await.json;
    assert_eq!((&rest["users"][0]["name"], &rest["next"]), (&json!("c"), &Value::Null));
}

#[tokio::test]
async fn bad_input_names_its_field() {
    let doors = Doors::open().await;
    create_user(&doors, "ann").await;
    let long = "x".repeat(129);
    for (method, path, body, status, field) in [
        (Method::POST, "/api/v1/users", json!({"name": "a b"}), 400, "name"),
        (Method::POST, "/api/v1/users", json!({"name": ""}), 400, "name"),
        (Method::POST, "/api/v1/users", json!({"name": long}), 400, "name"),
        (Method::POST, "/api/v1/users", json!({"name": "administrator"}), 400, "name"),
        (Method::POST, "/api/v1/users", json!({"name": "ann"}), 409, "name"),
        (Method::POST, "/api/v1/users", json!({"name": "x", "colour": 1}), 400, "colour"),
        (Method::GET, "/api/v1/users/bob", Value::Null, 404, "user"),
        (Method::GET, "/api/v1/users?limit=0", Value::Null, 400, "limit"),
        (Method::GET, "/api/v1/users?limit=1001", Value::Null, 400, "limit"),
        (Method::GET, "/api/v1/users?page=1", Value::Null, 400, "page"),
        (Method::POST, "/api/v1/keys", json!({}), 404, "user"),
        (Method::POST, "/api/v1/keys", json!({"user": "bob"}), 404, "user"),
        (Method::POST, "/api/v1/keys", json!({"user": "ann", "label": "x".repeat(257)}), 400, "label"),
        (
            Method::POST,
            "/api/v1/keys",
            json!({"user": "ann", "expires_in_seconds": 0}),
            400,
            "expires_in_seconds",
        ),
        (
            Method::POST,
            "/api/v1/keys",
            json!({"user": "ann", "expires_in_seconds": u64::MAX}),
            400,
            "expires_in_seconds",
        ),
        (Method::DELETE, "/api/v1/keys/unknown", Value::Null, 404, "id"),
        (Method::PUT, "/api/v1/grants/x/ann", json!({"permissions": ["own"]}), 400, "permissions[0]"),
        (Method::PUT, "/api/v1/grants/x/bob", json!({}), 404, "principal"),
        (Method::PUT, "/api/v1/grants/X/ann", json!({}), 400, "dataset"),
    ] {
        let answer = ask(&doors, "", (method, path), body).await;
        assert_eq!((answer.status.as_u16(), answer.error().1), (status, field), "{path}: {}", answer.json);
    }
}
