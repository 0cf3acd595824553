//! `headwater streams`: definitions.

use std::fs;

use broker::{Confidentiality, StreamName};
use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::{Map, Value, json};

use super::client::{Client, send};
use super::{Settings, output};
use crate::config::values::{Size, Span};
use crate::failure::{Exit, Failure, OrFail};

/// Creates, lists, shows, changes and deletes streams.
#[derive(Debug, Subcommand)]
pub(crate) enum Streams {
    /// Creates a stream
    Create {
        /// DATASET/VERSION
        stream: StreamName,
        #[command(flatten)]
        definition: DefinitionArgs,
    },
    /// Lists all streams
    List {
        /// How to print them
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Prints a stream's definition as JSON
    Show {
        /// DATASET/VERSION
        stream: StreamName,
    },
    /// Changes a stream; what is not named stays as it is
    Change {
        /// DATASET/VERSION
        stream: StreamName,
        #[command(flatten)]
        changes: ChangeArgs,
        /// A sink that this switches on also takes what is in the log already
        #[arg(long)]
        backfill: bool,
        /// Takes a field away: transform, key, timestamp_field or timestamp_format
        #[arg(long, value_name = "FIELD", value_parser = ["transform", "key", "timestamp_field", "timestamp_format"])]
        clear: Vec<String>,
        /// Refuses if the stream is no longer at this config_version
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
    },
    /// Deletes a stream
    Delete {
        /// DATASET/VERSION
        stream: StreamName,
    },
}

/// How lists are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs, one JSON object a line
    Ndjson,
}

/// What can be said of a stream only once.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct DefinitionArgs {
    /// green, yellow or red [default: green]
    #[arg(long, value_name = "COLOUR", value_parser = confidentiality)]
    confidentiality: Option<Confidentiality>,
    /// Partitions of each topic, 1 to 1024 [default: 4]
    #[arg(long, value_name = "N")]
    partitions: Option<u32>,
    #[command(flatten)]
    changes: ChangeArgs,
}

/// What can be said of a stream at any time.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ChangeArgs {
    /// The field with an event's own time: a name or a JSON pointer [default: time of arrival]
    #[arg(long, value_name = "FIELD")]
    pub(super) timestamp_field: Option<String>,
    /// How that field is written, in strftime's terms [default: detected]
    #[arg(long, value_name = "FORMAT")]
    pub(super) timestamp_format: Option<String>,
    /// Whether an event without that field is refused; else it has the time of its arrival [default: true]
    #[arg(long, value_name = "BOOL")]
    timestamp_required: Option<bool>,
    /// A JSON pointer to an event's key, such as /origin
    #[arg(long, value_name = "POINTER")]
    pub(super) key: Option<String>,
    /// A VRL program, or @FILE [default: events pass as they are]
    #[arg(long, value_name = "VRL")]
    pub(super) transform: Option<String>,
    /// How long records stay in the log, such as `7 d` [default: 7 d]
    #[arg(long, value_name = "TIME", value_parser = span)]
    retention_age: Option<Span>,
    /// What a partition holds at most, such as `10 GiB` [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    retention_bytes: Option<Size>,
    /// Whether what the log lets go is no longer found either [default: true where a retention is
    /// given]
    #[arg(long, value_name = "BOOL")]
    retention_index: Option<bool>,
    /// All its keyed tables as a list in JSON, or @FILE [default: none]
    #[arg(long, value_name = "JSON")]
    tables: Option<String>,
    /// Whether events go to the archive [default: true]
    #[arg(long, value_name = "BOOL")]
    archive: Option<bool>,
    /// Whether events go to the index [default: true]
    #[arg(long, value_name = "BOOL")]
    index: Option<bool>,
}

impl Streams {
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let client = Client::new(settings)?;
        match self {
            Streams::Create { stream, definition } => {
                let created = create(&client, &stream, &definition).await?;
                output::json(&created)
            }
            Streams::List { format } => list(&client, format).await,
            Streams::Show { stream } => output::json(&client.get::<Value>(&path(&stream), &()).await?),
            Streams::Change { stream, changes, backfill, clear, if_version } => {
                let mut body = changes.body(&show(&client, &stream).await?)?;
                insert(&mut body, "backfill", backfill.then_some(true));
                body.extend(clear.into_iter().map(|field| (field, Value::Null)));
                insert(&mut body, "config_version", if_version);
                output::json(&client.call::<Value>(Method::PATCH, &path(&stream), &body).await?)
            }
            Streams::Delete { stream } => {
                send(client.request(Method::DELETE, &path(&stream))).await?;
                output::line(&format!("deleted {stream}"))
            }
        }
    }
}

/// The path of a stream's resource.
pub(super) fn path(stream: &StreamName) -> String {
    format!("api/v1/streams/{}/{}", stream.dataset(), stream.version())
}

/// Creates a stream and returns its definition.
pub(super) async fn create(
    client: &Client,
    stream: &StreamName,
    definition: &DefinitionArgs,
) -> Result<Value, Failure> {
    let seven_days = json!({"retention": {"age_seconds": 7 * 24 * 3_600}});
    let mut body = definition.changes.body(&seven_days)?;
    body.insert("dataset".to_owned(), stream.dataset().into());
    body.insert("version".to_owned(), stream.version().into());
    insert(&mut body, "confidentiality", definition.confidentiality.map(Confidentiality::name));
    insert(&mut body, "partitions", definition.partitions);
    client.call(Method::POST, "api/v1/streams", &body).await
}

/// Creates a stream unless it is there.
pub(super) async fn create_if_missing(
    client: &Client,
    stream: &StreamName,
    definition: &DefinitionArgs,
) -> Result<(), Failure> {
    match create(client, stream, definition).await {
        Err(failure) if failure.exit() == Exit::Conflict => show(client, stream).await.map(drop),
        created => created.map(drop),
    }
}

/// A stream's definition.
pub(super) async fn show(client: &Client, stream: &StreamName) -> Result<Value, Failure> {
    client.get(&path(stream), &()).await
}

async fn list(client: &Client, format: Format) -> Result<(), Failure> {
    let answer: Value = client.get("api/v1/streams", &()).await?;
    let streams = answer.get("streams").and_then(Value::as_array).cloned().unwrap_or_default();
    if format == Format::Ndjson {
        return streams.iter().try_for_each(|stream| output::line(&stream.to_string()));
    }
    let mut table = output::Table::new(["stream", "confidentiality", "partitions", "key", "time", "updated"]);
    for stream in &streams {
        let text = |field: &str| match &stream[field] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let name = format!("{}/{}", text("dataset"), text("version"));
        table.row([
            name,
            text("confidentiality"),
            text("partitions"),
            text("key"),
            text("timestamp_field"),
            text("updated_at"),
        ]);
    }
    table.print()
}

impl ChangeArgs {
    /// The fields of a request. Retention and sinks are whole in a request, so that what is not named
    /// is taken from the `present` definition.
    fn body(&self, present: &Value) -> Result<Map<String, Value>, Failure> {
        let mut body = Map::new();
        insert(&mut body, "timestamp_field", self.timestamp_field.clone());
        insert(&mut body, "timestamp_format", self.timestamp_format.clone());
        insert(&mut body, "timestamp_required", self.timestamp_required);
        insert(&mut body, "key", self.key.clone());
        insert(&mut body, "transform", self.transform.as_deref().map(text_of).transpose()?);
        insert(&mut body, "tables", self.tables.as_deref().map(tables).transpose()?);
        let age = self.retention_age.map(|age| json!(age.0.as_secs()));
        let bytes = self.retention_bytes.map(|bytes| json!(bytes.0));
        let of_index = self.retention_index.map(Value::from);
        let fields = [("age_seconds", age), ("partition_bytes", bytes), ("index", of_index)];
        merge(&mut body, present, "retention", fields);
        let (archive, index) = (self.archive.map(Value::from), self.index.map(Value::from));
        merge(&mut body, present, "sinks", [("archive", archive), ("index", index)]);
        Ok(body)
    }
}

fn insert(body: &mut Map<String, Value>, field: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        body.insert(field.to_owned(), value.into());
    }
}

fn merge<const PARTS: usize>(
    body: &mut Map<String, Value>,
    present: &Value,
    field: &str,
    parts: [(&str, Option<Value>); PARTS],
) {
    if parts.iter().all(|(_, value)| value.is_none()) {
        return;
    }
    let mut whole = present[field].as_object().cloned().unwrap_or_default();
    for (name, value) in parts {
        insert(&mut whole, name, value);
    }
    body.insert(field.to_owned(), whole.into());
}

/// The text itself, or what a file holds.
fn text_of(text: &str) -> Result<String, Failure> {
    match text.strip_prefix('@') {
        Some(path) => fs::read_to_string(path).or_fail(format!("read {path}")),
        None => Ok(text.to_owned()),
    }
}

fn tables(text: &str) -> Result<Value, Failure> {
    let wrong = |error| Failure::new(Exit::Usage, format!("no JSON: {error}")).with_field("tables");
    serde_json::from_str(&text_of(text)?).map_err(wrong)
}

fn confidentiality(text: &str) -> Result<Confidentiality, String> {
    let known = [Confidentiality::Green, Confidentiality::Yellow, Confidentiality::Red];
    let found = known.into_iter().find(|known| known.name() == text);
    found.ok_or_else(|| "expected green, yellow or red".to_owned())
}

fn span(text: &str) -> Result<Span, String> {
    text.parse().map_err(|()| "expected a time such as `7 d` or `90 s`".to_owned())
}

fn size(text: &str) -> Result<Size, String> {
    text.parse().map_err(|()| "expected a size such as `64 MiB`".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_the_parts_of_retention_that_it_does_not_name() {
        let changes =
            ChangeArgs { retention_bytes: Some(Size::mib(1)), archive: Some(false), ..ChangeArgs::default() };
        let present = json!({"retention": {"age_seconds": 60}, "sinks": {"archive": true, "index": true}});
        let body = Value::Object(changes.body(&present).unwrap());
        let expected = json!({
            "retention": {"age_seconds": 60, "partition_bytes": 1 << 20},
            "sinks": {"archive": false, "index": true},
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn what_is_not_named_is_not_sent() {
        assert!(ChangeArgs::default().body(&Value::Null).unwrap().is_empty());
    }
}
