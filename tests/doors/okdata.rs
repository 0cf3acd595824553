//! The published Python SDK of the platform that this one stands in for, unmodified.

use tokio::process::Command;

use super::*;

#[tokio::test]
async fn the_published_sdk_works_unmodified() {
    #[allow(clippy::disallowed_methods, reason = "the environment is named by the script that made it")]
    let python = std::env::var("HEADWATER_TEST_OKDATA");
    let python = python.expect("no SDK: eval \"$(scripts/clients env)\"");
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::local(folder.path()).start().await;
    let (status, answer) = server.post("/api/v1/users", &json!({"name": "janedoe"})).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    let password = server.request(Method::PUT, "/api/v1/users/janedoe/password");
    let answer = password.json(&json!({"password": "a long password"})).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());

    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doors/with_okdata_sdk.py");
    let arguments = [script, server.base(), "janedoe", "a long password"];
    let output = Command::new(python).args(arguments).output().await.unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.ends_with("all is as it should be\n"), "{said}");
}
