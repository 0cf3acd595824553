//! What a table makes of records.

use std::collections::HashMap;
use std::sync::Arc;

use broker::catalog::{Table, TtlFrom};
use broker::{Extractor, Outcome, Record, Result, Timestamp, Transform, transform};
use bytes::Bytes;
use serde_json::value::RawValue;

use super::row::ROW_BYTES_MAX;

/// A table's definition, compiled.
pub(super) struct Rows {
    table: Table,
    key: Option<Extractor>,
    kept: Kept,
}

enum Kept {
    Whole,
    Fields(Vec<String>),
    Program(Arc<dyn Transform>),
}

/// What becomes of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// The row of this key is another now; none takes it away.
    Row(Bytes, Option<Bytes>),
    /// It is no row, for this reason.
    Refused(String),
}

impl Rows {
    pub(super) fn new(table: &Table) -> Result<Self> {
        let key = table.key.as_deref().map(|key| Extractor::new(None, None, Some(key))).transpose()?;
        let kept = match (&table.fields, &table.transform) {
            (Some(fields), _) => Kept::Fields(fields.clone()),
            (None, Some(program)) => Kept::Program(transform::compile(Some(program))?),
            (None, None) => Kept::Whole,
        };
        Ok(Self { table: table.clone(), key, kept })
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// When a row of a record ends.
    pub(super) fn expires(&self, record: &Record) -> Option<Timestamp> {
        let ttl = i64::try_from(self.table.ttl()?.as_micros()).ok()?;
        let from = match self.table.ttl_from {
            TtlFrom::Arrival => record.arrival,
            TtlFrom::EventTime => record.time,
        };
        // Past what a clock shows, it lives for ever.
        Timestamp::from_micros(from.micros().checked_add(ttl)?)
    }

    pub(super) fn make(&self, record: &Record) -> Made {
        let key = match &self.key {
            None => record.key.clone(),
            Some(extractor) => match extractor.extract(&record.value) {
                Ok(found) => found.key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
                Err(error) => return Made::Refused(error.to_string()),
            },
        };
        let Some(key) = key else { return Made::Refused("the event has no key".to_owned()) };
        let value = match &self.kept {
            _ if record.value.trim_ascii() == b"null" => None,
            Kept::Whole => Some(record.value.clone()),
            Kept::Fields(fields) => match kept(&record.value, fields) {
                Ok(value) => Some(value),
                Err(error) => return Made::Refused(error.to_string()),
            },
            Kept::Program(program) => match program.apply(record.clone()) {
                Outcome::Forward(made) => Some(made.value),
                Outcome::Drop => None,
                Outcome::Reject { reason, .. } => return Made::Refused(reason),
            },
        };
        match value {
            Some(value) if value.len() > ROW_BYTES_MAX => {
                Made::Refused(format!("a row has at most {ROW_BYTES_MAX} bytes"))
            }
            value => Made::Row(key, value),
        }
    }
}

/// The fields of an object that are named, as they were sent, in the order in which they are named.
fn kept(event: &[u8], fields: &[String]) -> serde_json::Result<Bytes> {
    let object: HashMap<&str, &RawValue> = match serde_json::from_slice(event) {
        Ok(object) => object,
        // A name that is written with escapes cannot be lent.
        Err(_) => return kept_owned(event, fields),
    };
    write(fields.iter().filter_map(|field| Some((field, object.get(&**field)?.get()))))
}

fn kept_owned(event: &[u8], fields: &[String]) -> serde_json::Result<Bytes> {
    let object: HashMap<String, &RawValue> = serde_json::from_slice(event)?;
    write(fields.iter().filter_map(|field| Some((field, object.get(field)?.get()))))
}

fn write<'f>(fields: impl Iterator<Item = (&'f String, &'f str)>) -> serde_json::Result<Bytes> {
    let mut out = vec![b'{'];
    for (field, value) in fields {
        if out.len() > 1 {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, field)?;
        out.push(b':');
        out.extend(value.as_bytes());
    }
    out.push(b'}');
    Ok(out.into())
}
