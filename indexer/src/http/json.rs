//! Events as JSON. An event's own bytes are copied, never written anew.

use broker::{Error, Kind, Origin, Result, ResultExt, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::split::Event;

/// `{"partition","offset","origin","timestamp","key","value"}`. A key that is not UTF-8 shows
/// replacement characters.
#[derive(Serialize)]
pub(super) struct EventJson<'a> {
    partition: u32,
    offset: u64,
    origin: Option<Origin>,
    timestamp: Timestamp,
    key: Option<std::borrow::Cow<'a, str>>,
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
    serde_json::from_slice(&event.value).map_err(|error| {
        let position = event.position;
        let message = format!("event {}/{} is not JSON", position.partition, position.offset);
        Error::corrupt(message).with_source(error)
    })
}

/// Events as lines. Line breaks within an event, which JSON has between its tokens only, become
/// spaces.
pub(super) fn lines(events: &[Event]) -> Result<Vec<u8>> {
    let mut lines = Vec::with_capacity(events.iter().map(|event| event.value.len() + 160).sum());
    for event in events {
        let start = lines.len();
        serde_json::to_writer(&mut lines, &EventJson::of(event)?)
            .or_error(Kind::Internal, "encode an event")?;
        let written = lines[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r'));
        written.for_each(|byte| *byte = b' ');
        lines.push(b'\n');
    }
    Ok(lines)
}
