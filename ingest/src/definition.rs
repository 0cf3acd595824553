//! A stream as clients see it, and what they send to define or change one.

use std::collections::BTreeMap;

use broker::catalog::{Retention, SinkKind, SinkState, Sinks, Stream, Table};
use broker::{Confidentiality, Error, Offset, Partition, Result, Stage, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

/// Bytes of a definition; a transform's program of the largest size fits with its escapes.
pub(crate) const DEFINITION_BYTES_MAX: usize = 512 << 10;

/// The fields of a definition, and what became of it.
#[derive(Serialize, ToSchema)]
#[schema(as = Stream)]
pub(crate) struct Shown<'s> {
    dataset: &'s str,
    version: &'s str,
    confidentiality: Confidentiality,
    partitions: u32,
    retention: &'s Retention,
    timestamp_field: Option<&'s str>,
    timestamp_format: Option<&'s str>,
    timestamp_required: bool,
    key: Option<&'s str>,
    transform: Option<&'s str>,
    transform_version: u32,
    /// By version and partition, the first raw offset that a version applies to. The first version
    /// applies from 0; one that has not taken effect in a partition is left out there.
    #[schema(value_type = BTreeMap<String, BTreeMap<String, u64>>)]
    transform_activations: BTreeMap<u32, BTreeMap<Partition, Offset>>,
    sinks: &'s Sinks,
    #[serde(skip_serializing_if = "<[Table]>::is_empty")]
    #[schema(required = false)]
    tables: &'s [Table],
    /// `starting` and `stopping` until the sinks' workers have taken up, or let go of, every partition.
    #[schema(value_type = BTreeMap<String, SinkState>)]
    sink_states: BTreeMap<&'static str, SinkState>,
    /// Why a sink's workers can neither take it up nor let go of it, while they cannot. They try again.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>, required = false)]
    sink_failures: BTreeMap<&'static str, &'s str>,
    subscribable: bool,
    /// Whether events came before anybody made the stream.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    incoming: bool,
    config_version: u64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    updated_by: Option<&'s str>,
    topics: Topics,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Topics {
    raw: String,
    processed: String,
    dead: String,
}

impl<'s> Shown<'s> {
    pub(crate) fn of(stream: &'s Stream) -> Self {
        let definition = &stream.definition;
        let transform = definition.latest_transform();
        let topic = |stage| stream.topic(stage).name().to_owned();
        Self {
            dataset: &definition.dataset,
            version: &definition.version,
            confidentiality: definition.confidentiality,
            partitions: definition.partitions,
            retention: &definition.retention,
            timestamp_field: definition.timestamp_field.as_deref(),
            timestamp_format: definition.timestamp_format.as_deref(),
            timestamp_required: definition.timestamp_required,
            key: definition.key.as_deref(),
            transform: transform.program.as_deref(),
            transform_version: transform.version,
            transform_activations: activations(stream),
            sinks: &definition.sinks,
            tables: &definition.tables,
            sink_states: SinkKind::ALL.map(|kind| (kind.name(), stream.sink_state(kind))).into(),
            sink_failures: failures(stream),
            subscribable: definition.subscribable.enabled,
            incoming: definition.is_incoming,
            config_version: definition.config_version,
            created_at: definition.created_at,
            updated_at: definition.updated_at,
            updated_by: definition.updated_by.as_deref(),
            topics: Topics {
                raw: topic(Stage::Raw),
                processed: topic(Stage::Processed),
                dead: topic(Stage::Dead),
            },
        }
    }
}

fn failures(stream: &Stream) -> BTreeMap<&'static str, &str> {
    let failure = |kind: SinkKind| Some((kind.name(), stream.sink_failure(kind)?.reason.as_str()));
    SinkKind::ALL.into_iter().filter_map(failure).collect()
}

fn activations(stream: &Stream) -> BTreeMap<u32, BTreeMap<Partition, Offset>> {
    let later = stream.definition.transforms.iter().skip(1).map(|transform| transform.version);
    let by_partition = |version| {
        let known = stream
            .partitions()
            .filter_map(|partition| stream.activation(version, partition).map(|offset| (partition, offset)));
        (version, known.collect::<BTreeMap<_, _>>())
    };
    later.map(by_partition).filter(|(_, known)| !known.is_empty()).collect()
}

/// Reads what a client sent; an error names the field that is unknown, missing or of a wrong type.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let read = serde_path_to_error::deserialize(&mut deserializer);
    let value = read.map_err(|error| {
        let message = error.inner().to_string();
        Error::invalid(field_of(&error.path().to_string(), &message), message)
    })?;
    deserializer.end().map_err(|error| Error::invalid("body", error.to_string()))?;
    Ok(value)
}

/// The path of the field at fault. Where a name itself is at fault, it stands in the message only.
fn field_of(path: &str, message: &str) -> String {
    let prefixes = ["unknown field `", "missing field `", "duplicate field `"];
    let named = prefixes.iter().find_map(|prefix| message.strip_prefix(prefix)?.split('`').next());
    // Where the parser knows no name, the path ends with `?`; at the root it is a dot.
    let path = path.trim_end_matches(['?', '.']);
    match named {
        Some(name) if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        Some(name) if path.is_empty() => name.to_owned(),
        Some(name) => format!("{path}.{name}"),
        None if path.is_empty() => "body".to_owned(),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use broker::catalog::{Draft, Edit};

    use super::*;

    #[test]
    fn an_error_names_the_field() {
        for (json, field) in [
            (r#"{"dataset":"a","version":"1","colour":1}"#, "colour"),
            (r#"{"dataset":"a"}"#, "version"),
            (r#"{"dataset":"a","version":1}"#, "version"),
            (r#"{"dataset":"a","version":"1","partitions":"4"}"#, "partitions"),
            (r#"{"dataset":"a","version":"1","partitions":-1}"#, "partitions"),
            (r#"{"dataset":"a","version":"1","confidentiality":"blue"}"#, "confidentiality"),
            (r#"{"dataset":"a","version":"1","retention":{"days":1}}"#, "retention.days"),
            (r#"{"dataset":"a","version":"1","sinks":{"index":0}}"#, "sinks.index"),
            (r#"{"dataset":"a","version":"1","dataset":"b"}"#, "dataset"),
            (r#"{"dataset":"a","version":"1"} x"#, "body"),
            ("{", "body"),
            ("7", "body"),
            ("", "body"),
        ] {
            assert_eq!(parse::<Draft>(json.as_bytes()).unwrap_err().field(), Some(field), "{json}");
        }
        assert_eq!(parse::<Edit>(br#"{"dataset":"b"}"#).unwrap_err().field(), Some("dataset"));
        assert_eq!(parse::<Edit>(br#"{"key":null}"#).unwrap().key, Some(None));
    }
}
