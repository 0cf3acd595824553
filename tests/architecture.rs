//! Keeps the walls between the rooms: which crate may depend on which, and where each library may
//! be named.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the production code, with its path from the root.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for room in ["src", "proto/src", "broker/src", "ingest/src", "indexer/src"] {
        collect(&root().join(room), &mut files);
    }
    assert!(files.len() > 20, "the rooms were found");
    files
}

fn collect(folder: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            files.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The code of a file without comments and without its unit tests, which stand at its end or in a
/// file of their own.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

fn is_test_file(name: &str) -> bool {
    name.contains("/tests/") || name.ends_with("/tests.rs") || name.ends_with("/testing.rs")
}

/// Asserts that `word` stands only in files whose path begins with one of `homes`.
fn check_home(word: &str, homes: &[&str]) {
    let strays: Vec<String> = sources()
        .into_iter()
        .filter(|(name, _)| !is_test_file(name))
        .filter(|(name, _)| !homes.iter().any(|home| name.starts_with(home)))
        .filter(|(_, text)| code(text).contains(word))
        .map(|(name, _)| name)
        .collect();
    assert!(strays.is_empty(), "{word} is named outside {homes:?}: {strays:?}");
}

#[test]
fn each_library_has_one_home() {
    check_home("rdkafka::", &["broker/src/log/kafka"]);
    check_home("sled::Db", &["broker/src/log/sled", "indexer/src/table"]);
    check_home("tantivy::", &["indexer/src/split"]);
    check_home("vrl::", &["broker/src/transform"]);
    check_home("object_store::", &["indexer/src/"]);
    check_home("axum::", &["src/", "ingest/src/", "indexer/src/"]);
    check_home("::parquet::", &["src/cli/import/parquet"]);
    check_home("tonic::include_proto", &["proto/src/"]);
    check_home("use ::hawk::", &["ingest/src/auth/hawk"]);
    check_home("rsa::", &["ingest/src/auth/pool/keys"]);
    check_home("chacha20poly1305::", &["ingest/src/auth/pool/keys"]);
    check_home("utoipa_swagger_ui::", &["src/app/openapi"]);
}

#[test]
fn each_power_has_one_door() {
    check_home("tokio::spawn(", &["src/supervise.rs"]);
    check_home("task::spawn(", &["src/supervise.rs"]);
    check_home("thread::spawn(", &[]);
    check_home("env::var", &["src/config"]);
    check_home("SystemTime::now", &["broker/src/time.rs"]);
    check_home("unbounded_channel", &[]);
}

/// The workspace crates that a crate names in its ordinary dependencies.
fn edges(krate: &str) -> Vec<&'static str> {
    let manifest = fs::read_to_string(root().join(krate).join("Cargo.toml")).unwrap();
    let (_, after) = manifest.split_once("[dependencies]").unwrap();
    let dependencies = after.split("\n[").next().unwrap();
    let names = ["proto", "broker", "ingest", "indexer"];
    names.into_iter().filter(|name| dependencies.contains(&format!("\n{name}.workspace"))).collect()
}

#[test]
fn rooms_know_only_the_rooms_below_them() {
    assert_eq!(edges("proto"), Vec::<&str>::new());
    assert_eq!(edges("broker"), ["proto"]);
    assert_eq!(edges("ingest"), ["proto", "broker"]);
    assert_eq!(edges("indexer"), ["proto", "broker"]);
    assert_eq!(edges("."), ["proto", "broker", "ingest", "indexer"]);
}

#[test]
fn the_broker_names_no_server_index_or_object_store() {
    let manifest = fs::read_to_string(root().join("broker/Cargo.toml")).unwrap();
    for stranger in ["axum", "tantivy", "object_store", "hyper", "tonic"] {
        assert!(!manifest.contains(&format!("\n{stranger}")), "broker depends on {stranger}");
    }
}
