//! Keyed tables of a stream: the last row of each key.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::definition::PROGRAM_BYTES_MAX;
use crate::error::{Error, Result};
use crate::extract::Extractor;
use crate::topic::StreamName;
use crate::transform;

/// The most tables of a stream.
pub const TABLES_MAX: usize = 16;
/// The most fields that a table names.
const TABLE_FIELDS_MAX: usize = 256;
/// The longest life of a row, in seconds: a hundred years.
const TTL_SECONDS_MAX: u64 = 100 * 366 * 24 * 3_600;

/// What a table is made of. Of the records of a key the last one counts, by its offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its name, which no other table has: `[a-z0-9][a-z0-9_-]{0,69}`.
    #[schema(pattern = "^[a-z0-9][a-z0-9_-]{0,69}$")]
    pub name: String,
    /// A JSON pointer to the value that is a row's key; the record's own key where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The fields that a row keeps of an event; all where neither these nor a transform are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Vec<String>>,
    /// A VRL program that makes a row of an event. `null` takes the row away, `abort` leaves it as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<String>,
    /// How long a row lives; for ever where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub ttl_seconds: Option<u64>,
    /// What its life is counted from.
    #[serde(default)]
    pub ttl_from: TtlFrom,
}

/// What a row's life is counted from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TtlFrom {
    /// When its record arrived.
    #[default]
    Arrival,
    /// The event's own time.
    EventTime,
}

impl Table {
    /// How long a row lives.
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl_seconds.map(Duration::from_secs)
    }

    fn check(&self) -> Result<()> {
        // A table is named as a dataset is.
        StreamName::new(&self.name, "1").map_err(|error| error.with_field("name"))?;
        Extractor::new(None, None, self.key.as_deref())?;
        if self.fields.is_some() && self.transform.is_some() {
            return Err(Error::invalid("fields", "a table has fields or a transform, not both"));
        }
        if self.fields.as_ref().is_some_and(|fields| fields.is_empty() || fields.len() > TABLE_FIELDS_MAX) {
            return Err(Error::invalid("fields", format!("a table keeps 1 to {TABLE_FIELDS_MAX} fields")));
        }
        if self.transform.as_ref().is_some_and(|program| program.len() > PROGRAM_BYTES_MAX) {
            let message = format!("a program has at most {PROGRAM_BYTES_MAX} bytes");
            return Err(Error::invalid("transform", message));
        }
        if self.ttl_seconds.is_some_and(|seconds| !(1..=TTL_SECONDS_MAX).contains(&seconds)) {
            return Err(Error::invalid("ttl_seconds", format!("a row lives 1 to {TTL_SECONDS_MAX} seconds")));
        }
        transform::compile(self.transform.as_deref())?;
        Ok(())
    }
}

/// Checks the tables of one stream; the error names the table's field.
pub(super) fn check(tables: &[Table]) -> Result<()> {
    if tables.len() > TABLES_MAX {
        return Err(Error::invalid("tables", format!("a stream has at most {TABLES_MAX} tables")));
    }
    let mut names = BTreeSet::new();
    for (index, table) in tables.iter().enumerate() {
        let at = |error: Error| {
            let field = format!("tables[{index}].{}", error.field().unwrap_or_default());
            error.with_field(field)
        };
        table.check().map_err(at)?;
        if !names.insert(&*table.name) {
            return Err(at(Error::invalid("name", "two tables have this name")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> Table {
        let (key, fields, transform, ttl_seconds) = Default::default();
        Table { name: name.to_owned(), key, fields, transform, ttl_seconds, ttl_from: TtlFrom::Arrival }
    }

    #[test]
    fn what_is_wrong_with_a_table_is_named() {
        let refused = |table: Table| {
            let error = check(&[self::table("first"), table]).unwrap_err();
            error.field().unwrap().to_owned()
        };
        assert_eq!(refused(table("Upper")), "tables[1].name");
        assert_eq!(refused(table("first")), "tables[1].name");
        let broken = |break_it: fn(&mut Table)| {
            let mut table = table("second");
            break_it(&mut table);
            refused(table)
        };
        assert_eq!(broken(|table| table.key = Some("no pointer".into())), "tables[1].key");
        assert_eq!(broken(|table| table.fields = Some(Vec::new())), "tables[1].fields");
        let many = |table: &mut Table| table.fields = Some(vec!["f".into(); TABLE_FIELDS_MAX + 1]);
        assert_eq!(broken(many), "tables[1].fields");
        let both = |table: &mut Table| {
            (table.fields, table.transform) = (Some(vec!["f".into()]), Some(".".into()));
        };
        assert_eq!(broken(both), "tables[1].fields");
        assert_eq!(broken(|table| table.transform = Some("no program (".into())), "tables[1].transform");
        let long = |table: &mut Table| table.transform = Some(" ".repeat(PROGRAM_BYTES_MAX + 1));
        assert_eq!(broken(long), "tables[1].transform");
        assert_eq!(broken(|table| table.ttl_seconds = Some(0)), "tables[1].ttl_seconds");
        assert_eq!(broken(|table| table.ttl_seconds = Some(TTL_SECONDS_MAX + 1)), "tables[1].ttl_seconds");
        let many: Vec<Table> = (0..=TABLES_MAX).map(|number| table(&format!("t{number}"))).collect();
        assert_eq!(check(&many).unwrap_err().field(), Some("tables"));
        check(&many[1..]).unwrap();
    }
}
