//! The flights example on the real data, in both modes: the log, the objects and the index hold the
//! same number of events, also when the local index is gone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Launch, Server, unique, until};

const FLIGHTS: u64 = 20_000;
const BIRDSTRIKES: u64 = 10_000;
/// Counted in the source files.
const WEEK_OF_FLIGHTS: u64 = 1_526;
const WEEK_OF_BIRDSTRIKES: u64 = 5;

#[tokio::test]
async fn the_log_the_objects_and_the_index_agree_on_sled() {
    let folder = tempfile::tempdir().unwrap();
    run_example(&Launch::local(folder.path()), folder.path()).await;
}

#[tokio::test]
async fn the_log_the_objects_and_the_index_agree_on_kafka() {
    let folder = tempfile::tempdir().unwrap();
    run_example(&Launch::kafka(folder.path()), folder.path()).await;
}

async fn run_example(launch: &Launch, folder: &Path) {
    let suffix = unique("");
    let mut server = launch.start().await;
    example(&server, &suffix);
    check(&server, &suffix).await;
    assert!(server.terminate().success());

    fs::remove_dir_all(folder.join("cache")).unwrap();
    check(&launch.start().await, &suffix).await;
}

/// Runs the script as the README says, against this server.
fn example(server: &Server, suffix: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/flights/run");
    let ran = Command::new(script)
        .args([env!("CARGO_BIN_EXE_headwater"), suffix])
        .env("HEADWATER_SERVER", server.base())
        .env("HEADWATER_TOKEN", common::TOKEN)
        .output()
        .unwrap();
    let (shown, errors) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{shown}\n{errors}");
    for count in [WEEK_OF_FLIGHTS, WEEK_OF_BIRDSTRIKES] {
        assert!(shown.lines().any(|line| line.trim() == count.to_string()), "{count} in {shown}");
    }
}

async fn check(server: &Server, suffix: &str) {
    for (name, all, week, days) in [
        ("flights-20k", FLIGHTS, WEEK_OF_FLIGHTS, "from=2001-01-08&to=2001-01-14"),
        ("birdstrikes", BIRDSTRIKES, WEEK_OF_BIRDSTRIKES, "from=1990-01-08&to=1990-01-14"),
    ] {
        let dataset = format!("{name}{suffix}");
        let index = async |query: &str| {
            let path = format!("/api/v1/streams/{dataset}/1/events/count?{query}");
            server.get(&path).await["count"].as_u64().unwrap()
        };
        assert_eq!(index("").await, all, "index of {dataset}");
        assert_eq!(index(days).await, week, "a week of {dataset}");
        assert_eq!(in_the_log(server, &dataset, all), all, "log of {dataset}");
        let archived = until("every event is archived", async || {
            let archived = server.archived(&dataset).len() as u64;
            (archived >= all).then_some(archived)
        })
        .await;
        assert_eq!(archived, all, "objects of {dataset}");
    }
}

/// Follows the stream from the log's start and counts distinct positions, until `wanted` are there.
fn in_the_log(server: &Server, dataset: &str, wanted: u64) -> u64 {
    let mut follow = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(["follow", &format!("{dataset}/1"), "--from-start"])
        .env("HEADWATER_SERVER", server.base())
        .env("HEADWATER_TOKEN", common::TOKEN)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let positions = lines.map_while(Result::ok).take(usize::try_from(wanted).unwrap()).map(|line| {
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        (event["partition"].as_u64().unwrap(), event["offset"].as_u64().unwrap())
    });
    let distinct = positions.collect::<std::collections::BTreeSet<_>>().len() as u64;
    follow.kill().unwrap();
    follow.wait().unwrap();
    distinct
}
