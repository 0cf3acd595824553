//! What describes data: documents of datasets, of their versions, of the editions of those, and of the
//! distributions of those. A document is kept as it was sent, and nothing is asked of its fields here.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::access::{Grant, Principal};
use crate::catalog::{Catalog, Row};
use crate::error::{Kind, Result, ResultExt as _};
use crate::topic::Confidentiality;

/// The field of an event's own time where the dataset names none.
const TIMESTAMP_FIELD: &str = "timestamp";

/// How deep a document lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `{dataset}`.
    Dataset,
    /// `{dataset}/{version}`.
    Version,
    /// `{dataset}/{version}/{edition}`.
    Edition,
    /// `{dataset}/{version}/{edition}/{distribution}`.
    Distribution,
}

impl Level {
    /// The type that a document of this level has in answers.
    pub fn name(self) -> &'static str {
        match self {
            Level::Dataset => "Dataset",
            Level::Version => "Version",
            Level::Edition => "Edition",
            Level::Distribution => "Distribution",
        }
    }

    /// What documents of this level are called in paths.
    pub fn plural(self) -> &'static str {
        match self {
            Level::Dataset => "datasets",
            Level::Version => "versions",
            Level::Edition => "editions",
            Level::Distribution => "distributions",
        }
    }

    /// The level below.
    pub fn below(self) -> Option<Self> {
        match self {
            Level::Dataset => Some(Level::Version),
            Level::Version => Some(Level::Edition),
            Level::Edition => Some(Level::Distribution),
            Level::Distribution => None,
        }
    }
}

/// Which document: its parents' names and its own, with slashes between. No name holds a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentId {
    level: Level,
    path: String,
}

impl DocumentId {
    /// A dataset's document.
    pub fn dataset(name: impl Into<String>) -> Self {
        Self { level: Level::Dataset, path: name.into() }
    }

    /// The document of this name below another; none below a distribution.
    pub fn child(&self, name: &str) -> Option<Self> {
        Some(Self { level: self.level.below()?, path: format!("{}/{name}", self.path) })
    }

    /// How deep it lies.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The names with slashes between, as answers show it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The dataset that it is of.
    pub fn dataset_name(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// The row's id. Documents of one level with one parent stand side by side.
    pub fn row(&self) -> String {
        format!("{}:{}", self.level as u8, self.path)
    }

    /// The id of a row of the catalog.
    pub fn of_row(row: &str) -> Option<Self> {
        let (level, path) = row.split_once(':')?;
        let levels = [Level::Dataset, Level::Version, Level::Edition, Level::Distribution];
        let level = levels.into_iter().nth(level.parse().ok()?)?;
        Some(Self { level, path: path.to_owned() })
    }

    /// What the rows of the documents right below this one begin with; none below a distribution.
    pub fn prefix_below(&self) -> Option<String> {
        Some(format!("{}:{}/", self.level.below()? as u8, self.path))
    }

    /// What the rows of all datasets begin with.
    pub fn prefix_of_datasets() -> String {
        format!("{}:", Level::Dataset as u8)
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

/// A JSON object whose values stay the text that was sent, in the order in which they were sent. Of a
/// name that stands twice the last value counts.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    /// The value of a field, as it was sent.
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The value of a field that is a text.
    pub fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    /// The same without the fields of these names.
    #[must_use]
    pub fn without(mut self, names: &[&str]) -> Self {
        self.0.retain(|(name, _)| !names.contains(&name.as_str()));
        self
    }

    /// The same, with these fields in the place of those of their names.
    #[must_use]
    pub fn merged(mut self, other: Self) -> Self {
        self.set(other.0);
        self
    }

    /// How many bytes its names and values have.
    pub fn bytes(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.get().len()).sum()
    }

    /// Takes time that rises with how many fields there are, not with its square.
    fn set(&mut self, fields: Vec<(String, Box<RawValue>)>) {
        let known = self.0.iter().enumerate().map(|(index, (name, _))| (name.clone(), index));
        let mut indexes: HashMap<String, usize> = known.collect();
        for (name, value) in fields {
            match indexes.get(&name) {
                Some(index) => self.0[*index].1 = value,
                None => {
                    indexes.insert(name.clone(), self.0.len());
                    self.0.push((name, value));
                }
            }
        }
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                let mut fields = Fields::default();
                fields.set(pairs);
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// A document as the catalog keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document {
    /// What was sent.
    pub fields: Fields,
    /// The name of the document below it that was made last.
    #[serde(default)]
    pub latest: Option<String>,
}

impl Document {
    /// A document with nothing below it.
    pub fn new(fields: Fields) -> Self {
        Self { fields, latest: None }
    }

    /// What `accessRights` say: `public` is green, `restricted` yellow, all else red.
    pub fn confidentiality(&self) -> Confidentiality {
        match self.fields.text("accessRights").as_deref() {
            Some("public") => Confidentiality::Green,
            Some("restricted") => Confidentiality::Yellow,
            _ => Confidentiality::Red,
        }
    }

    /// The field of an event's own time.
    pub fn timestamp_field(&self) -> String {
        self.fields.text("timestamp_field").unwrap_or_else(|| TIMESTAMP_FIELD.to_owned())
    }

    /// The type of the dataset's source; none where it says nothing of one.
    pub fn source_type(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Source {
            r#type: String,
        }
        let source: Source = serde_json::from_str(self.fields.get("source")?.get()).ok()?;
        Some(source.r#type)
    }
}

impl Catalog {
    /// A document; none if there is none.
    pub fn document(&self, id: &DocumentId) -> Option<Arc<Row<Document>>> {
        self.row(&id.row())
    }

    /// The documents right below another, by name.
    pub fn documents_below(&self, id: &DocumentId) -> Vec<Arc<Row<Document>>> {
        let Some(prefix) = id.prefix_below() else { return Vec::new() };
        self.rows_where(&prefix, None, usize::MAX, |_| true)
    }

    /// The documents of all datasets, by name.
    pub fn datasets(&self) -> Vec<Arc<Row<Document>>> {
        self.rows_where(&DocumentId::prefix_of_datasets(), None, usize::MAX, |_| true)
    }

    /// Makes a dataset's document, owned by whoever makes it, and the document of its latest version if it
    /// names one. `Conflict` if there is one.
    pub async fn create_dataset(
        &self,
        by: &Principal,
        (id, document): (&DocumentId, &Document),
        version: Option<&Document>,
    ) -> Result<()> {
        let (mut writes, row) = (self.writes(by.name()), id.row());
        writes.set(row.clone(), self.version::<Document>(&row), document)?;
        let latest = document.latest.as_deref().and_then(|latest| id.child(latest));
        if let Some((id, version)) = latest.zip(version) {
            writes.set(id.row(), self.version::<Document>(&id.row()), version)?;
        }
        // An administrator may do everything without a grant, and the configured token is no user.
        if !by.is_administrator() {
            let (dataset, principal) = (id.path().to_owned(), by.name().to_owned());
            let grant_id = Grant::id_of(&dataset, &principal);
            let before = self.row::<Grant>(&grant_id).map(|grant| grant.value.permissions.clone());
            let permissions = before.unwrap_or_default();
            let grant = Grant { dataset, principal, is_owner: true, permissions };
            writes.set(grant_id.clone(), self.version::<Grant>(&grant_id), &grant)?;
        }
        self.write(writes).await
    }

    /// Makes a document below another, which from then on is the latest one there.
    pub async fn create_below(
        &self,
        by: &Principal,
        (parent, before): (&DocumentId, &Row<Document>),
        (id, document): (&DocumentId, &Document),
    ) -> Result<()> {
        let (mut writes, row) = (self.writes(by.name()), id.row());
        writes.set(row.clone(), self.version::<Document>(&row), document)?;
        let latest = id.path().rsplit('/').next().map(str::to_owned);
        let changed = Document { latest, ..before.value.clone() };
        writes.set(parent.row(), before.version, &changed)?;
        self.write(writes).await
    }

    /// Puts other fields in the place of those that a document had. `Conflict` if it has changed.
    pub async fn replace_document(
        &self,
        by: &Principal,
        before: &Row<Document>,
        fields: Fields,
    ) -> Result<()> {
        let mut writes = self.writes(by.name());
        writes.set(before.id.clone(), before.version, &Document { fields, ..before.value.clone() })?;
        self.write(writes).await
    }
}

/// Reads an object. An error is one of `body`.
pub fn parse(body: &[u8]) -> Result<Fields> {
    let parsed: Result<Fields, _> = serde_json::from_slice(body);
    parsed.or_error(Kind::Invalid, "the body is no JSON object").map_err(|error| error.with_field("body"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stay_as_they_were_sent() {
        let text = r#"{"z":1.50,"a":{"b" : [1e400, 12345678901234567890123]},"ø":"\u00e5","z":2.0}"#;
        let fields = parse(text.as_bytes()).unwrap();
        let kept = serde_json::to_string(&Document::new(fields)).unwrap();
        let read: Document = serde_json::from_str(&kept).unwrap();
        let written = serde_json::to_string(&read.fields).unwrap();
        assert_eq!(written, r#"{"z":2.0,"a":{"b" : [1e400, 12345678901234567890123]},"ø":"\u00e5"}"#);
    }

    #[test]
    fn of_many_fields_the_last_of_each_name_counts() {
        let fields: Vec<String> = (0..100_000).map(|n| format!("\"f{}\":{n}", n % 50_000)).collect();
        let fields = parse(format!("{{{}}}", fields.join(",")).as_bytes()).unwrap();
        assert_eq!(fields.iter().count(), 50_000);
        assert_eq!(fields.get("f7").unwrap().get(), "50007");
        let merged = fields.merged(parse(br#"{"f7":1,"other":2}"#).unwrap());
        assert_eq!((merged.iter().count(), merged.get("f7").unwrap().get()), (50_001, "1"));
    }

    #[test]
    fn only_an_object_is_a_document() {
        for text in ["", "[]", "1", "null", r#"{"a":1"#, r#"{"a":1}x"#] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert_eq!((error.kind(), error.field()), (Kind::Invalid, Some("body")), "{text}");
        }
    }

    #[test]
    fn ids_name_their_rows_and_what_lies_below() {
        let dataset = DocumentId::dataset("flights");
        let version = dataset.child("1").unwrap();
        let edition = version.child("20190528T133700").unwrap();
        let distribution = edition.child("x").unwrap();
        assert_eq!(distribution.child("y"), None);
        assert_eq!(edition.to_string(), "flights/1/20190528T133700");
        assert!(version.row().starts_with(&dataset.prefix_below().unwrap()));
        assert!(!edition.row().starts_with(&dataset.prefix_below().unwrap()));
        for id in [dataset, version, edition, distribution] {
            assert_eq!(DocumentId::of_row(&id.row()), Some(id.clone()));
            assert_eq!(id.dataset_name(), "flights");
        }
    }

    #[test]
    fn what_streams_depend_on_is_read() {
        let read = |text: &str| Document::new(parse(text.as_bytes()).unwrap());
        assert_eq!(read(r#"{"accessRights":"public"}"#).confidentiality(), Confidentiality::Green);
        assert_eq!(read(r#"{"accessRights":"restricted"}"#).confidentiality(), Confidentiality::Yellow);
        assert_eq!(read(r#"{"accessRights":["public"]}"#).confidentiality(), Confidentiality::Red);
        assert_eq!(read("{}").confidentiality(), Confidentiality::Red);
        assert_eq!(read(r#"{"source":{"type":"event"}}"#).source_type().as_deref(), Some("event"));
        assert_eq!(read(r#"{"source":"event"}"#).source_type(), None);
    }
}
