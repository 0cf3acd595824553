//! Events as JSON. An event's own bytes are copied, never written anew.

use broker::{Error, Offset, Origin, Partition, Result, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::api::Place;
use crate::line::Line;
use crate::query::{CHUNK_BYTES, Chunk};
use crate::split::Event;

/// What a chunk of lines takes: it is full before its last line.
const LINES_BYTES: usize = CHUNK_BYTES + (4 << 10);

/// `{"partition","offset","origin","timestamp","key","value"}`. A key that is not UTF-8 shows
/// replacement characters.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventJson<'a> {
    partition: u32,
    offset: u64,
    #[schema(value_type = Option<Place>)]
    origin: Option<Origin>,
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    #[schema(value_type = Option<String>)]
    key: Option<std::borrow::Cow<'a, str>>,
    #[schema(value_type = serde_json::Value)]
    value: &'a RawValue,
}

impl<'a> EventJson<'a> {
    pub(super) fn of(event: &'a Event) -> Result<Self> {
        Ok(Self {
            partition: event.position.partition.0,
            offset: event.position.offset.0,
            origin: event.origin,
            timestamp: event.position.time,
            key: event.key.as_deref().map(String::from_utf8_lossy),
            value: value(event)?,
        })
    }
}

/// The event's own JSON.
pub(super) fn value(event: &Event) -> Result<&RawValue> {
    parsed(&event.value, (event.position.partition, event.position.offset))
}

fn parsed(value: &[u8], (partition, offset): (Partition, Offset)) -> Result<&RawValue> {
    serde_json::from_slice(value).map_err(|error| {
        let message = format!("event {partition}/{offset} is not JSON");
        Error::corrupt(message).with_source(error)
    })
}

/// Events as lines of NDJSON.
#[derive(Default)]
pub(super) struct Lines(pub(super) Vec<u8>);

impl Chunk for Lines {
    fn add(&mut self, event: &Line<'_>) -> Result<()> {
        if self.0.capacity() == 0 {
            self.0.reserve(LINES_BYTES);
        }
        if !event.is_json {
            parsed(event.value, (event.partition, event.offset))?;
        }
        event.write(&mut self.0);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }
}
