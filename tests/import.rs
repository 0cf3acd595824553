//! `headwater import` of Parquet against a real server.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use common::{Launch, Server, TOKEN};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

const ROWS_OF_GROUP: i64 = 1_000;
/// 2001-01-01, in milliseconds.
const NEW_YEAR: i64 = 978_307_200_000;

/// Three row groups of a number, an hour each, and a name.
fn write(path: &Path) {
    let schema = "message rows { required int64 n; required int64 at (TIMESTAMP(MILLIS,false));
        required binary name (STRING); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut file = SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::default()).unwrap();
    for group in 0..3 {
        let numbers: Vec<i64> = (group * ROWS_OF_GROUP..(group + 1) * ROWS_OF_GROUP).collect();
        let times: Vec<i64> = numbers.iter().map(|number| NEW_YEAR + number * 3_600_000).collect();
        let names: Vec<ByteArray> = numbers.iter().map(|n| format!("n{n}").as_str().into()).collect();
        let mut writer = file.next_row_group().unwrap();
        for values in [numbers, times] {
            let mut column = writer.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&values, None, None).unwrap();
            column.close().unwrap();
        }
        let mut column = writer.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&names, None, None).unwrap();
        column.close().unwrap();
        writer.close().unwrap();
    }
    file.close().unwrap();
}

fn import(server: &Server, file: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(["import", "--server", server.base(), "--token", TOKEN, "--stream", "rows/1"])
        .args(["--create", "--timestamp-field", "at", "--batch", "300"])
        .arg(file)
        .output()
        .unwrap()
}

#[tokio::test]
async fn every_row_of_a_parquet_file_is_an_event_at_its_own_time() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::local(&folder.path().join("data")).start().await;
    let file = folder.path().join("rows.parquet");
    write(&file);
    let output = import(&server, &file);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("3,000 records imported into rows/1"), "{output:?}");
    let count = server.get("/api/v1/streams/rows/1/events/count").await;
    assert_eq!(count["count"], 3_000);
    let day = server.get("/api/v1/streams/rows/1/events?from=2001-01-02&to=2001-01-02&limit=1").await;
    let expected = serde_json::json!({"n": 24, "at": "2001-01-02T00:00:00Z", "name": "n24"});
    assert_eq!(day["events"][0]["value"], expected);
    let day = server.get("/api/v1/streams/rows/1/events/count?from=2001-01-02&to=2001-01-02").await;
    assert_eq!(day["count"], 24);
}

#[tokio::test]
async fn a_parquet_file_that_is_cut_off_sends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Launch::local(&folder.path().join("data")).start().await;
    let file = folder.path().join("rows.parquet");
    write(&file);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let output = import(&server, &file);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("is truncated: its footer is missing"), "{message}");
    assert_eq!(server.get("/api/v1/streams/rows/1/events/count").await["count"], 0);
}
