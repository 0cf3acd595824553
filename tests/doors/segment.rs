//! Segment's published libraries, unmodified but for the host and the write key.

use std::path::Path;

use tokio::process::Command;

use super::*;

const DATASETS: [&str; 3] = ["log_user_events", "link_users", "user_profiles"];

#[allow(clippy::disallowed_methods, reason = "the environments are named by the script that made them")]
fn environment(name: &str) -> String {
    std::env::var(format!("HEADWATER_TEST_{name}")).expect("no client: eval \"$(scripts/clients env)\"")
}

/// A server with the surface at the root of an address of its own, and a write key.
async fn serve(data: &Path) -> (Server, String, String) {
    let own = format!("127.0.0.1:{}", common::free_port());
    let launch = Launch::local(data).set("HEADWATER_TRACKING__ENABLED", "true");
    let server = launch.set("HEADWATER_TRACKING__LISTEN", &own).start().await;
    server.post("/api/v1/users", &json!({"name": "shop"})).await;
    for dataset in DATASETS {
        let grant = server.request(Method::PUT, &format!("/api/v1/grants/{dataset}/shop"));
        let answer = grant.json(&json!({"permissions": ["write"]})).send().await.unwrap();
        assert!(answer.status().is_success());
    }
    let (_, made) = server.post("/api/v1/keys", &json!({"user": "shop"})).await;
    (server, format!("http://{own}"), made["key"].as_str().unwrap().to_owned())
}

async fn run(mut command: Command, arguments: [&str; 2]) {
    let output = command.args(arguments).output().await.unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said == "all is as it should be\n", "{said}{errors}");
}

/// The values in a stream, by arrival.
async fn values(server: &Server, dataset: &str) -> Vec<Value> {
    let page = server.get(&format!("/api/v1/streams/{dataset}/1/events?limit=1000")).await;
    page["events"].as_array().unwrap().iter().map(|event| event["value"].clone()).collect()
}

/// The names of the tracked events.
async fn names(server: &Server) -> Vec<String> {
    let values = values(server, DATASETS[0]).await;
    let mut names: Vec<String> =
        values.iter().map(|value| value["events"][0]["eventName"].as_str().unwrap().to_owned()).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn the_python_library_delivers() {
    let folder = tempfile::tempdir().unwrap();
    let (server, host, key) = serve(folder.path()).await;
    let mut python = Command::new(environment("SEGMENT"));
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doors/with_segment.py"));
    run(python, [&host, &key]).await;
    let names = names(&server).await;
    assert_eq!(names.iter().filter(|name| *name == "Counted").count(), 200);
    let others: Vec<&String> = names.iter().filter(|name| *name != "Counted").collect();
    assert_eq!(others, ["Home", "Item Bought", "Start", "group"]);
    let profiles = values(&server, DATASETS[2]).await;
    assert_eq!(profiles[0]["attributes"], json!({"email": "a@example.com", "plan": "free"}));
    assert!(profiles[0]["messageId"].is_string() && profiles[0]["timestampUTC"].as_i64() > Some(0));
    let links = values(&server, DATASETS[1]).await;
    assert_eq!(
        (&links[0]["newUserId"], &links[0]["originalUserId"]),
        (&json!("py-user"), &json!("py-cookie"))
    );
}

#[tokio::test]
async fn the_node_library_delivers() {
    let folder = tempfile::tempdir().unwrap();
    let (server, host, key) = serve(folder.path()).await;
    let mut node = Command::new("node");
    node.env("NODE_PATH", environment("SEGMENT_NODE"));
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doors/with_segment.cjs"));
    run(node, [&host, &key]).await;
    assert_eq!(names(&server).await, ["Home", "Item Bought", "Start", "group"]);
    let events = values(&server, DATASETS[0]).await;
    let screen = events.iter().find(|event| event["type"] == "screen").unwrap();
    assert_eq!((&screen["userId"], &screen["anonymousId"]), (&json!("js-cookie"), &json!("js-cookie")));
    assert_eq!(values(&server, DATASETS[2]).await[0]["attributes"], json!({"email": "b@example.com"}));
    assert_eq!(values(&server, DATASETS[1]).await[0]["originalUserId"], "js-cookie");
}
