//! Surfaces at addresses of their own.

use super::*;

#[tokio::test]
async fn a_surface_has_an_address_of_its_own_and_is_there_alone() {
    let folder = tempfile::tempdir().unwrap();
    let own = format!("127.0.0.1:{}", common::free_port());
    let launch = Launch::local(folder.path())
        .set("HEADWATER_TRACKING__ENABLED", "true")
        .set("HEADWATER_TRACKING__OPEN", "true")
        .set("HEADWATER_TRACKING__LISTEN", &own);
    let mut server = launch.start().await;
    let client = reqwest::Client::new();
    let post = async |path: &str| {
        let request = client.post(format!("http://{own}{path}")).header("content-type", "application/json");
        request.body(r#"{"userId":"ann","attributes":{"a":1}}"#).send().await.unwrap()
    };
    let answer = post("/profile").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers().contains_key("x-request-id"));
    for path in ["/profiles", "/api/v1/streams", "/event/user_profiles/1", "/openapi.json", "/metrics"] {
        assert!(
            [StatusCode::NOT_FOUND, StatusCode::UNAUTHORIZED].contains(&post(path).await.status()),
            "{path}"
        );
    }
    let (status, _) = server.post("/profile", &json!({"userId": "ann"})).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "at the server's own address");

    server.kill();
    let server = launch.start().await;
    assert_eq!(post("/profile").await.status(), StatusCode::OK);
    let events = "/api/v1/streams/user_profiles/1/events";
    let found = server.get(events).await;
    let values: Vec<_> = found["events"].as_array().unwrap().iter().map(|event| &event["value"]).collect();
    assert_eq!(values.len(), 2, "{found}");
    assert_eq!(*values[0], json!({"userId": "ann", "attributes": {"a": 1}, "timestampUTC": 0}));
}

#[tokio::test]
async fn what_is_off_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::local(folder.path()).start().await;
    for path in ["/track", "/alias", "/profile"] {
        assert_eq!(server.post(path, &json!({})).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(server.get("/api/v1/streams").await["streams"], json!([]));
}
