//! What a table makes of records.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use broker::catalog::{Table, TtlFrom};
use broker::{Extractor, Outcome, Record, Result, Timestamp, Transform, transform};
use bytes::Bytes;
use serde_json::value::RawValue;

use super::people;
use super::row::ROW_BYTES_MAX;

/// What a table is made by.
#[derive(Clone)]
pub(super) enum Spec {
    /// As a stream's definition says.
    Defined(Table),
    /// Who became whom.
    Aliases,
    /// What was told of users.
    Attributes,
}

impl Spec {
    pub(super) fn name(&self) -> &str {
        match self {
            Spec::Defined(table) => &table.name,
            Spec::Aliases => "@aliases",
            Spec::Attributes => "@attributes",
        }
    }

    /// How long a row lives.
    pub(super) fn ttl(&self) -> Option<Duration> {
        if let Spec::Defined(table) = self { table.ttl() } else { None }
    }
}

/// The same, compiled.
pub(super) struct Rows {
    spec: Spec,
    key: Option<Extractor>,
    kept: Kept,
}

enum Kept {
    Whole,
    Fields(Vec<String>),
    Program(Arc<dyn Transform>),
    /// Several rows of a record.
    Several(fn(&[u8]) -> Made),
}

/// What becomes of a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// The row of this key is another now; none takes it away.
    Row(Bytes, Option<Bytes>),
    /// The same of several keys.
    Rows(Vec<(Bytes, Option<Bytes>)>),
    /// It is no row, for this reason.
    Refused(String),
}

impl Rows {
    pub(super) fn new(spec: Spec) -> Result<Self> {
        let (mut extractor, kept) = (
            None,
            match &spec {
                Spec::Aliases => Kept::Several(people::alias),
                Spec::Attributes => Kept::Several(people::attributes),
                Spec::Defined(Table { fields: Some(fields), .. }) => Kept::Fields(fields.clone()),
                Spec::Defined(Table { transform: Some(program), .. }) => {
                    Kept::Program(transform::compile(Some(program))?)
                }
                Spec::Defined(_) => Kept::Whole,
            },
        );
        if let Spec::Defined(Table { key: Some(key), .. }) = &spec {
            extractor = Some(Extractor::new(None, None, Some(key))?);
        }
        Ok(Self { spec, key: extractor, kept })
    }

    pub(super) fn name(&self) -> &str {
        self.spec.name()
    }

    /// When a row of a record ends.
    pub(super) fn expires(&self, record: &Record) -> Option<Timestamp> {
        let Spec::Defined(table) = &self.spec else { return None };
        let ttl = i64::try_from(table.ttl()?.as_micros()).ok()?;
        let from = match table.ttl_from {
            TtlFrom::Arrival => record.arrival,
            TtlFrom::EventTime => record.time,
        };
        // Past what a clock shows, it lives for ever.
        Timestamp::from_micros(from.micros().checked_add(ttl)?)
    }

    pub(super) fn make(&self, record: &Record) -> Made {
        if let Kept::Several(rows) = &self.kept {
            return rows(&record.value);
        }
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
            Kept::Whole | Kept::Several(_) => Some(record.value.clone()),
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
