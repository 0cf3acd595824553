//! The server's own description of itself.

use std::collections::BTreeSet;

use super::*;

const LONG_TOKEN: &str = "token-of-the-tests-that-cannot-be-guessed";

/// The paths of routes, as they stand in the sources.
fn routes() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in [
        "ingest/src/http.rs",
        "ingest/src/http/collector.rs",
        "ingest/src/http/webhooks.rs",
        "ingest/src/http/event_streams.rs",
        "ingest/src/http/tracking.rs",
        "ingest/src/http/tracking/segment.rs",
        "ingest/src/http/user_pool.rs",
        "ingest/src/http/vehicles.rs",
        "indexer/src/http.rs",
        "indexer/src/http/positions.rs",
        "indexer/src/http/profiles.rs",
        "src/app.rs",
        "src/app/metrics.rs",
    ] {
        let text = fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let paths = text.split("route(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
        found.extend(paths);
    }
    found
}

/// With everything that can be switched on.
fn with_surfaces(data: &std::path::Path) -> Launch {
    Launch::local(data)
        .set("HEADWATER_TRACKING__ENABLED", "true")
        .set("HEADWATER_VEHICLES__ENABLED", "true")
        .set("HEADWATER_USER_POOL__ENABLED", "true")
        .set("HEADWATER_INDEX__QUERY_WAIT_SECONDS", "1")
}

#[tokio::test]
async fn every_route_is_described_and_everything_described_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let server = with_surfaces(folder.path()).start().await;
    let client = reqwest::Client::new();
    let api: Value =
        client.get(format!("{}/openapi.json", server.base())).send().await.unwrap().json().await.unwrap();
    assert_eq!(api["openapi"], "3.1.0");
    assert_eq!(api["info"]["version"], env!("CARGO_PKG_VERSION"));
    let paths = api["paths"].as_object().unwrap();
    let described: BTreeSet<String> = paths.keys().cloned().collect();
    let routes = routes();
    assert!(routes.len() > 25, "{routes:?}");
    let missing: Vec<_> = routes.difference(&described).collect();
    assert!(missing.is_empty(), "not described: {missing:?}");

    let mut ids = BTreeSet::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path}");
            assert!(ids.insert(operation["operationId"].to_string()), "{method} {path}: its id is another's");
            let names = path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap());
            let filled = names.fold(path.clone(), |path, name| path.replace(&format!("{{{name}}}"), "x"));
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let is_open = operation["security"].as_array().is_some_and(|all| all.contains(&json!({})));
            let stranger = client.request(method.clone(), format!("{}{filled}", server.base()));
            let stranger = stranger.send().await.unwrap().status();
            let is_refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&stranger)
                // As the service says it that this stands in for.
                || (path == "/event-data-subscription" && stranger == StatusCode::BAD_REQUEST);
            assert_ne!(is_refused, is_open, "{method} {path} answers strangers {stranger}");
            let answer = server.request(method.clone(), &filled).send().await.unwrap();
            let status = answer.status();
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            let text = answer.text().await.unwrap();
            assert!(!text.contains("there is nothing at"), "{method} {path}: {text}");
        }
    }
    let page = client.get(format!("{}/docs/", server.base())).send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.text().await.unwrap().contains("swagger-ui"));
}

/// Asks for everything that is described, with what the description allows and does not allow.
#[tokio::test]
async fn everything_is_as_it_is_described() {
    #[allow(clippy::disallowed_methods, reason = "the environment is named by the script that made it")]
    let python = std::env::var("HEADWATER_TEST_SCHEMATHESIS");
    let python = python.expect("no client: eval \"$(scripts/clients env)\"");
    let folder = tempfile::tempdir().unwrap();
    // A user might be deleted on the way, and a token that can be guessed is not looked at after many wrong ones.
    let server = with_surfaces(folder.path()).set("HEADWATER_TOKEN", LONG_TOKEN).start().await;
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doors/schemathesis.toml");
    let authorization = format!("Authorization: Bearer {LONG_TOKEN}");
    let output = tokio::process::Command::new(python)
        .args(["-m", "schemathesis.cli", "--config-file", config, "run"])
        .arg(format!("{}/openapi.json", server.base()))
        .args(["--header", &authorization, "--seed", "1", "--no-color"])
        .current_dir(folder.path())
        .output()
        .await
        .unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("Tested: "), "{said}{errors}");
}
