use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use crate::testing::{Answer, Doors};

const PASSWORD: &str = "correct horse battery";
const FORM: &str = "application/x-www-form-urlencoded";

async fn with_ann() -> Doors {
    let doors = Doors::open().await;
    let made = doors.post("/api/v1/users", &[], json!({"name": "ann"}).to_string()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.json);
    assert_eq!(set_password(&doors, "", json!({"password": PASSWORD})).await.status, StatusCode::NO_CONTENT);
    doors
}

async fn ask(doors: &Doors, bearer: &str, (method, path): (Method, &str), body: Value) -> Answer {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    if !bearer.is_empty() {
        request = request.header("authorization", format!("Bearer {bearer}"));
    }
    doors.send(request.body(body.to_string().into()).unwrap()).await
}

async fn set_password(doors: &Doors, bearer: &str, body: Value) -> Answer {
    ask(doors, bearer, (Method::PUT, "/api/v1/users/ann/password"), body).await
}

async fn log_in(doors: &Doors, password: &str) -> Answer {
    let body = json!({"username": "ann", "password": password}).to_string();
    doors.post("/api/v1/token", &[("content-type", "application/json")], body).await
}

async fn form(doors: &Doors, path: &str, body: &str) -> Answer {
    doors.post(path, &[("content-type", FORM)], body.to_owned()).await
}

async fn who(doors: &Doors, answer: &Answer) -> Answer {
    let token = answer.json["access_token"].as_str().unwrap();
    let request = Request::get("/api/v1/whoami").header("authorization", format!("Bearer {token}"));
    doors.send(request.body(String::new().into()).unwrap()).await
}

#[tokio::test]
async fn a_password_gets_a_token_that_is_taken_for_an_hour() {
    let doors = with_ann().await;
    let answer = log_in(&doors, PASSWORD).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    assert_eq!((&answer.json["token_type"], &answer.json["expires_in"]), (&json!("Bearer"), &json!(3600)));
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(who(&doors, &answer).await.json["name"], "ann");
    doors.clock.advance(std::time::Duration::from_secs(3_599));
    assert_eq!(who(&doors, &answer).await.status, StatusCode::OK);
    doors.clock.advance(std::time::Duration::from_secs(1));
    let late = who(&doors, &answer).await;
    assert_eq!(
        (late.status, &late.json["error"]["message"]),
        (StatusCode::UNAUTHORIZED, &json!("this token has expired"))
    );
}

#[tokio::test]
async fn a_form_gets_one_too_where_clients_look_for_it() {
    let doors = with_ann().await;
    let body = "grant_type=password&username=ann&password=correct+horse+battery&scope=openid";
    for path in [
        "/api/v1/token",
        "/token-service/token",
        "/realms/api-catalog/protocol/openid-connect/token",
        "/auth/realms/api-catalog/protocol/openid-connect/token",
    ] {
        let answer = form(&doors, path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.json);
        assert_eq!(who(&doors, &answer).await.json["name"], "ann");
    }
}

#[tokio::test]
async fn a_key_gets_a_token_that_ends_with_it() {
    let doors = with_ann().await;
    let made = doors.post("/api/v1/keys", &[], json!({"user": "ann"}).to_string()).await.json;
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    for client in [id, "ann", &format!("hwk.{id}")] {
        let body = format!("grant_type=client_credentials&client_id={client}&client_secret={key}");
        let answer = form(&doors, "/api/v1/token", &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{client}: {}", answer.json);
    }
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{id}:{key}"));
    let headers = [("content-type", FORM), ("authorization", &format!("Basic {basic}"))];
    let answer = doors.post("/api/v1/token", &headers, "grant_type=client_credentials").await;
    assert_eq!(who(&doors, &answer).await.json["name"], "ann");
    for (client, secret) in [("bob", key), (id, &key[..key.len() - 1]), (id, PASSWORD)] {
        let body = format!("grant_type=client_credentials&client_id={client}&client_secret={secret}");
        let answer = form(&doors, "/api/v1/token", &body).await;
        assert_eq!(
            (answer.status, &answer.json["error"]),
            (StatusCode::UNAUTHORIZED, &json!("invalid_client"))
        );
        assert_eq!(answer.headers["www-authenticate"], "Basic realm=\"headwater\"");
    }
    ask(&doors, "", (Method::DELETE, &format!("/api/v1/keys/{id}")), Value::Null).await;
    assert_eq!(who(&doors, &answer).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_new_password_a_pause_and_a_new_user_of_the_name_end_tokens() {
    let doors = with_ann().await;
    let first = log_in(&doors, PASSWORD).await;
    set_password(&doors, "", json!({"password": "another password"})).await;
    assert_eq!(who(&doors, &first).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(log_in(&doors, PASSWORD).await.status, StatusCode::BAD_REQUEST);

    let second = log_in(&doors, "another password").await;
    for disabled in [true, false] {
        ask(&doors, "", (Method::PATCH, "/api/v1/users/ann"), json!({"disabled": disabled})).await;
        assert_eq!(who(&doors, &second).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(log_in(&doors, "another password").await.status.is_success(), !disabled);
    }

    let third = log_in(&doors, "another password").await;
    assert_eq!(who(&doors, &third).await.status, StatusCode::OK);
    ask(&doors, "", (Method::DELETE, "/api/v1/users/ann"), Value::Null).await;
    doors.clock.advance(std::time::Duration::from_secs(1));
    doors.post("/api/v1/users", &[], json!({"name": "ann"}).to_string()).await;
    assert_eq!(who(&doors, &third).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn whoever_is_no_administrator_says_what_its_password_was() {
    let doors = with_ann().await;
    let token = log_in(&doors, PASSWORD).await.json["access_token"].as_str().unwrap().to_owned();
    let set = async |body: Value| {
        let answer = set_password(&doors, &token, body).await;
        (answer.status.as_u16(), answer.error().1.to_owned())
    };
    let new = "another password";
    assert_eq!(set(json!({"password": new})).await, (400, "current".to_owned()));
    assert_eq!(set(json!({"password": new, "current": "wrong password"})).await, (403, "current".to_owned()));
    assert_eq!(set(json!({"password": "short", "current": PASSWORD})).await, (400, "password".to_owned()));
    let other = (Method::PUT, "/api/v1/users/bob/password");
    let answer = ask(&doors, &token, other, json!({"password": new, "current": PASSWORD})).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(set(json!({"password": new, "current": PASSWORD})).await, (204, String::new()));
    assert_eq!(log_in(&doors, new).await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_is_wrong_too_often_waits() {
    let doors = with_ann().await;
    for _ in 0..20 {
        let answer = log_in(&doors, "wrong password").await;
        assert_eq!(
            (answer.status, &answer.json["error"]),
            (StatusCode::BAD_REQUEST, &json!("invalid_grant"))
        );
    }
    for password in ["wrong password", PASSWORD] {
        let answer = log_in(&doors, password).await;
        let expected = (StatusCode::TOO_MANY_REQUESTS, &json!("temporarily_unavailable"));
        assert_eq!((answer.status, &answer.json["error"]), expected);
        assert_eq!(answer.headers["retry-after"], "3");
    }
    doors.clock.advance(std::time::Duration::from_secs(3));
    let answer = log_in(&doors, PASSWORD).await;
    assert_eq!(answer.status, StatusCode::OK);

    // A good token is taken all the same, and a bad one from the same address waits.
    for _ in 0..20 {
        log_in(&doors, "wrong password").await;
    }
    assert_eq!(who(&doors, &answer).await.status, StatusCode::OK);
    let wrong = json!({"access_token": "hwk.x.y"});
    let wrong = who(&doors, &Answer { json: wrong, ..answer }).await;
    assert_eq!((wrong.status, wrong.error()), (StatusCode::TOO_MANY_REQUESTS, ("busy", "authorization")));
}

#[tokio::test]
async fn tokens_that_are_not_ours_are_not_taken() {
    use base64::Engine as _;
    let doors = with_ann().await;
    let answer = log_in(&doors, PASSWORD).await;
    let token = answer.json["access_token"].as_str().unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let encode = |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let none = encode(json!({"alg": "none", "typ": "JWT"}));
    let asymmetric = encode(json!({"alg": "RS256", "typ": "JWT"}));
    let administrator =
        encode(json!({"iss": "headwater", "sub": "administrator", "iat": 0, "exp": 9e12, "user": "0.0"}));
    for wrong in [
        format!("{none}.{}.", parts[1]),
        format!("{none}.{}.{}", parts[1], parts[2]),
        format!("{asymmetric}.{}.{}", parts[1], parts[2]),
        format!("{}.{administrator}.{}", parts[0], parts[2]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.{}", parts[0], parts[1], "A".repeat(43)),
        "..".to_owned(),
    ] {
        let answer =
            who(&doors, &Answer { json: json!({"access_token": wrong}), ..log_in(&doors, PASSWORD).await })
                .await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{wrong}");
    }
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong() {
    let doors = with_ann().await;
    for (body, error, names) in [
        ("", "invalid_request", "grant_type"),
        ("grant_type=", "invalid_request", "grant_type"),
        ("grant_type=refresh_token", "unsupported_grant_type", "client_credentials"),
        ("grant_type=password&username=ann", "invalid_request", "password"),
        ("grant_type=password&password=x", "invalid_request", "username"),
        ("grant_type=client_credentials", "invalid_request", "client_id"),
        ("grant_type=client_credentials&client_id=x", "invalid_request", "client_secret"),
        ("grant_type=password&grant_type=password", "invalid_request", "twice"),
    ] {
        let answer = form(&doors, "/api/v1/token", body).await;
        assert_eq!(
            (answer.status, &answer.json["error"]),
            (StatusCode::BAD_REQUEST, &json!(error)),
            "{body}"
        );
        assert!(answer.json["error_description"].as_str().unwrap().contains(names), "{}", answer.json);
    }
    let json = [("content-type", "application/json")];
    let secret = r#"{"username": "ann", "password": ["a secret thing"]}"#;
    let answer = doors.post("/api/v1/token", &json, secret).await;
    assert_eq!((answer.status, &answer.json["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")));
    assert!(!answer.json.to_string().contains("secret thing"));
    let answer = doors.post("/api/v1/token", &json, "x".repeat((16 << 10) + 1)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let answer = doors.post("/api/v1/token", &[("content-type", "text/plain")], "x").await;
    assert_eq!((answer.status, &answer.json["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")));
}
