//! Requests that a client of others signs.

use tokio::process::Command;

use super::*;

/// Runs the client, which signs by itself or uses a signature again: the status and the signature.
async fn signed(server: &Server, key: &str, used: &str) -> (u16, String) {
    #[allow(clippy::disallowed_methods, reason = "the environment is named by the script that made it")]
    let python = std::env::var("HEADWATER_TEST_MOHAWK");
    let python = python.expect("no client: eval \"$(scripts/clients env)\"");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doors/with_mohawk.py");
    let url = format!("{}{RECORDS}", server.base());
    let parts: Vec<&str> = key.split('.').collect();
    let output = Command::new(python).args([script, &url, parts[1], parts[2], used]).output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let (status, header) = said.trim().split_once('\n').unwrap();
    (status.parse().unwrap(), header.to_owned())
}

#[tokio::test]
async fn a_signature_is_taken_once_by_a_server_and_by_the_one_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    // The address is signed, too.
    let launch = Launch::local(folder.path()).at_one_port();
    let mut server = launch.start().await;
    define(&server, json!({})).await;
    let (status, made) = server.post("/api/v1/users", &json!({"name": "ann", "administrator": true})).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let (_, made) = server.post("/api/v1/keys", &json!({"user": "ann", "hawk": true})).await;
    let key = made["key"].as_str().unwrap();
    let (status, signature) = signed(&server, key, "").await;
    assert_eq!(status, 200);
    assert_eq!(signed(&server, key, &signature).await.0, 401);
    assert_eq!(signed(&server, key, "").await.0, 200, "with a signature of its own");
    assert_eq!(signed(&server, &format!("{key}x"), "").await.0, 401, "with another key");
    server.kill();
    let server = launch.start().await;
    assert_eq!(signed(&server, key, &signature).await.0, 401, "after a kill");
    assert_eq!(signed(&server, key, "").await.0, 200);
}
