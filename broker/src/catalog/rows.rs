//! What the catalog keeps beside streams: rows, each on a shelf with others of its kind, each with a
//! version that rises by one.
//!
//! A change may touch several rows and is taken whole or not at all: only if every row still is at the
//! version that the writer saw.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tracing::warn;

use super::fold::Changed;
use crate::access::pool::SigningKey;
use crate::access::webhook::WebhookToken;
use crate::access::{Grant, Key, User};
use crate::error::{Kind, Result, ResultExt};
use crate::metadata::Document;
use crate::time::Timestamp;
use crate::topic::Offset;

/// Where rows of one kind stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shelf {
    /// [`User`]s by name.
    Users,
    /// [`Key`]s by id.
    Keys,
    /// [`Grant`]s by dataset and principal.
    Grants,
    /// [`Document`]s by level and path.
    Documents,
    /// [`WebhookToken`]s by dataset and id.
    WebhookTokens,
    /// [`SigningKey`]s by id.
    SigningKeys,
}

impl Shelf {
    /// What one row of it is.
    pub(super) fn what(self) -> &'static str {
        match self {
            Shelf::Users => "user",
            Shelf::Keys => "key",
            Shelf::Grants => "grant",
            Shelf::Documents => "document",
            Shelf::WebhookTokens => "webhook token",
            Shelf::SigningKeys => "signing key",
        }
    }

    /// The fields of its rows that may be shown to whoever looks at the audit.
    fn shown(self) -> &'static [&'static str] {
        match self {
            Shelf::Users => &["is_administrator", "is_disabled", "generation"],
            Shelf::Keys => &["user", "label", "expires_at"],
            Shelf::Grants => &["is_owner", "permissions"],
            Shelf::Documents => &[],
            Shelf::WebhookTokens => &["operation", "expires_at", "is_active"],
            Shelf::SigningKeys => &["created_at"],
        }
    }
}

/// What can be kept in a row. A field that is added to one later has a default, so that older records
/// can be read.
pub trait Kept: Serialize + DeserializeOwned + Send + Sync + Sized + 'static {
    /// Where its rows stand.
    const SHELF: Shelf;

    /// Its rows.
    fn of(rows: &Rows) -> &Slots<Self>;
}

/// A value with what is known of its last change.
#[derive(Debug)]
pub struct Row<T> {
    /// The row's id on its shelf.
    pub id: String,
    /// The value.
    pub value: T,
    /// From 1, rising by one with every change.
    pub version: u64,
    /// When it was changed last.
    pub updated_at: Timestamp,
    /// The principal that changed it last.
    pub updated_by: String,
}

/// Several changes of rows that are made together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Writes {
    by: String,
    at: Timestamp,
    rows: Vec<Write>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Write {
    shelf: Shelf,
    id: String,
    version: u64,
    /// None takes the row away; its version stays known.
    value: Option<Box<RawValue>>,
}

impl Writes {
    /// Nothing yet, in the name of a principal.
    pub(super) fn new(by: &str, at: Timestamp) -> Self {
        Self { by: by.to_owned(), at, rows: Vec::new() }
    }

    /// Sets a row that was at the version `before`, 0 where there never was one.
    pub fn set<T: Kept>(&mut self, id: impl Into<String>, before: u64, value: &T) -> Result<()> {
        let failed = "encode a catalog row";
        let value = serde_json::value::to_raw_value(value).or_error(Kind::Internal, failed)?;
        self.rows.push(Write { shelf: T::SHELF, id: id.into(), version: before + 1, value: Some(value) });
        Ok(())
    }

    /// Takes a row away that was at the version `before`.
    pub fn remove<T: Kept>(&mut self, id: impl Into<String>, before: u64) {
        self.rows.push(Write { shelf: T::SHELF, id: id.into(), version: before + 1, value: None });
    }

    /// The changes, for the audit.
    pub(super) fn changed(self) -> Vec<Changed> {
        let Self { by, at, rows } = self;
        let changed = rows.into_iter().map(|Write { shelf, id, version, value }| {
            let read = |value: Box<RawValue>| serde_json::from_str(value.get()).unwrap_or_default();
            let shown = |mut fields: Map<String, Value>| {
                fields.retain(|name, _| shelf.shown().contains(&name.as_str()));
                fields
            };
            let now = value.map(read).map(shown);
            Changed { at, by: by.clone(), what: shelf.what(), id, version, now }
        });
        changed.collect()
    }

    /// What the record of these changes is keyed by.
    pub(super) fn name(&self) -> String {
        self.rows.first().map(|write| write.id.clone()).unwrap_or_default()
    }
}

/// The rows of one shelf by id.
pub struct Slots<T>(BTreeMap<String, Slot<T>>);

/// A row, or where one was.
struct Slot<T> {
    version: u64,
    row: Option<Arc<Row<T>>>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> Slots<T> {
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Row<T>>> {
        self.0.get(id)?.row.as_ref()
    }

    /// The version of a row, also of one that was taken away; 0 where there never was one.
    pub(super) fn version(&self, id: &str) -> u64 {
        self.0.get(id).map_or(0, |slot| slot.version)
    }

    /// The rows whose ids begin with `prefix`, by id, behind `after`.
    pub(super) fn range(&self, prefix: &str, after: Option<&str>) -> impl Iterator<Item = &Arc<Row<T>>> {
        let start = match after.filter(|after| *after >= prefix) {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let slots = self.0.range::<str, _>((start, Bound::Unbounded));
        slots.take_while(move |(id, _)| id.starts_with(prefix)).filter_map(|(_, slot)| slot.row.as_ref())
    }
}

impl<T: DeserializeOwned> Slots<T> {
    fn put(&mut self, write: Write, (by, at): (&str, Timestamp), offset: Offset) {
        let Write { id, version, value, .. } = write;
        let read = |value: Box<RawValue>| match serde_json::from_str(value.get()) {
            Ok(value) => Some(value),
            Err(error) => {
                warn!(%offset, id, %error, "leaving out a catalog row that is not understood");
                None
            }
        };
        let row = |value| Row { id: id.clone(), value, version, updated_at: at, updated_by: by.to_owned() };
        let row = value.and_then(read).map(|value| Arc::new(row(value)));
        self.0.insert(id, Slot { version, row });
    }
}

/// Every row.
#[derive(Default)]
pub struct Rows {
    users: Slots<User>,
    keys: Slots<Key>,
    grants: Slots<Grant>,
    documents: Slots<Document>,
    webhook_tokens: Slots<WebhookToken>,
    signing_keys: Slots<SigningKey>,
}

impl Kept for User {
    const SHELF: Shelf = Shelf::Users;

    fn of(rows: &Rows) -> &Slots<Self> {
        &rows.users
    }
}

impl Kept for Key {
    const SHELF: Shelf = Shelf::Keys;

    fn of(rows: &Rows) -> &Slots<Self> {
        &rows.keys
    }
}

impl Kept for Grant {
    const SHELF: Shelf = Shelf::Grants;

    fn of(rows: &Rows) -> &Slots<Self> {
        &rows.grants
    }
}

impl Kept for Document {
    const SHELF: Shelf = Shelf::Documents;

    fn of(rows: &Rows) -> &Slots<Self> {
        &rows.documents
    }
}

impl Kept for WebhookToken {
    const SHELF: Shelf = Shelf::WebhookTokens;

    fn of(rows: &Rows) -> &Slots<Self> {
        &rows.webhook_tokens
    }
}

impl Kept for SigningKey {
    const SHELF: Shelf = Shelf::SigningKeys;

    fn of(rows: &Rows) -> &Slots<Self> {
        &rows.signing_keys
    }
}

impl Rows {
    /// Takes changes in, or leaves them all out if one of them lost a race. Answers whether it took them.
    pub(super) fn fold(&mut self, writes: Writes, offset: Offset) -> bool {
        let Writes { by, at, rows } = writes;
        if !rows.iter().all(|write| write.version == self.version(write.shelf, &write.id) + 1) {
            return false;
        }
        for write in rows {
            let by = (by.as_str(), at);
            match write.shelf {
                Shelf::Users => self.users.put(write, by, offset),
                Shelf::Keys => self.keys.put(write, by, offset),
                Shelf::Grants => self.grants.put(write, by, offset),
                Shelf::Documents => self.documents.put(write, by, offset),
                Shelf::WebhookTokens => self.webhook_tokens.put(write, by, offset),
                Shelf::SigningKeys => self.signing_keys.put(write, by, offset),
            }
        }
        true
    }

    fn version(&self, shelf: Shelf, id: &str) -> u64 {
        match shelf {
            Shelf::Users => self.users.version(id),
            Shelf::Keys => self.keys.version(id),
            Shelf::Grants => self.grants.version(id),
            Shelf::Documents => self.documents.version(id),
            Shelf::WebhookTokens => self.webhook_tokens.version(id),
            Shelf::SigningKeys => self.signing_keys.version(id),
        }
    }
}
