//! A producer and a reader of vehicle positions, as the README of the original has them: plain requests.

use tokio::process::Command;

use super::*;

#[tokio::test]
async fn plain_requests_post_and_read_positions() {
    let folder = tempfile::tempdir().unwrap();
    let own = format!("127.0.0.1:{}", common::free_port());
    let launch = Launch::local(folder.path()).set("HEADWATER_VEHICLES__ENABLED", "true");
    let launch = launch.set("HEADWATER_VEHICLES__OPEN", "true").set("HEADWATER_VEHICLES__ENVELOPE", "true");
    let server = launch.set("HEADWATER_VEHICLES__LISTEN", &own).start().await;
    server.post("/api/v1/users", &json!({"name": "bus"})).await;
    let grant = server.request(Method::PUT, "/api/v1/grants/gps_coordinates/bus");
    let answer = grant.json(&json!({"permissions": ["write"]})).send().await.unwrap();
    assert!(answer.status().is_success());
    let (_, made) = server.post("/api/v1/keys", &json!({"user": "bus"})).await;
    #[allow(clippy::disallowed_methods, reason = "the environment is named by the script that made it")]
    let python = std::env::var("HEADWATER_TEST_SEGMENT");
    let mut python = Command::new(python.expect("no client: eval \"$(scripts/clients env)\""));
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doors/with_requests.py"));
    python.arg(format!("http://{own}/post-gps")).arg(format!("http://{own}/get-gps"));
    let output = python.arg(made["key"].as_str().unwrap()).output().await.unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said == "all is as it should be\n", "{said}{errors}");
    let elsewhere = server.request(Method::GET, "/get-gps?busId=17").send().await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND);
}

/// The settings may change after the stream was made.
#[tokio::test]
async fn the_stream_follows_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let launch = || Launch::local(folder.path()).set("HEADWATER_VEHICLES__ENABLED", "true");
    let stream = "/api/v1/streams/gps_coordinates/1";
    let made = launch().start().await.get(stream).await;
    assert_eq!(made["tables"][0]["ttl_seconds"], 3_600);
    let server = launch().start().await;
    assert_eq!(server.get(stream).await["config_version"], made["config_version"], "nothing changed");
    drop(server);
    let launch = launch().set("HEADWATER_VEHICLES__TTL", "2 h");
    let server = launch.set("HEADWATER_VEHICLES__LONG_LONGITUDES", "true").start().await;
    assert_eq!(server.get(stream).await["tables"][0]["ttl_seconds"], 7_200);
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD
        .encode(r#"{"latitude":"1.23456","longitude":"-179.12345"}"#);
    let put = json!({"StreamName": "GpsCoordinatesStream", "Data": data, "PartitionKey": "far"});
    let (status, answer) = server.post("/post-gps", &put).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    common::until("it is visible", async || {
        let position = server.get("/get-gps?busId=far").await;
        common::pause().await;
        (position["longitude"] == "-179.12345").then_some(())
    })
    .await;
}
