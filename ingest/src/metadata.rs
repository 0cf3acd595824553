//! Documents that describe data: what is asked of each, how it comes to its name, and who may change it.

mod slug;

use std::sync::Arc;

use broker::access::Grant;
use broker::catalog::{Draft, Row, Sinks, Stream};
use broker::metadata::{Document, DocumentId, Fields, Level, parse};
use broker::{Error, Kind, Permission, Principal, Result, StreamName};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use rand::Rng as _;
use rand::distr::Alphanumeric;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Ingest;

/// The largest document, in bytes of its names and values.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 256 << 10;
/// The longest name of a version.
const VERSION_CHARACTERS_MAX: usize = 128;
/// The name that stands for the version or edition that was made last.
pub(crate) const LATEST: &str = "latest";
/// What answers add to a document, and what is not kept of one that is sent back.
pub(crate) const ADDED: [&str; 4] = ["Id", "Type", "_links", "_embedded"];
/// The longest title in the later dialect.
const TITLE_CHARACTERS_MAX: usize = 128;
/// The longest name of the field of an event's own time.
const FIELD_CHARACTERS_MAX: usize = 255;
const ACCESS_RIGHTS: [&str; 3] = ["non-public", "public", "restricted"];
const STATES: [&str; 2] = ["active", "maintenance"];
const SOURCE_TYPES: [&str; 4] = ["database", "event", "file", "none"];
/// What the later dialect lets nobody change once it is said.
const LASTING: [&str; 3] = ["accessRights", "confidentiality", "parent_id"];
/// Characters behind an id that another dataset has already.
const SUFFIX_CHARACTERS: usize = 5;
/// How often a name is tried, and how often a change that another one overtook.
const TRIES: usize = 8;

impl Ingest {
    /// Makes a dataset's document, with a first version if there is one, and answers its id.
    pub(crate) async fn create_dataset(
        &self,
        caller: &Principal,
        fields: Fields,
        version: Option<Fields>,
    ) -> Result<DocumentId> {
        let fields = kept(fields)?;
        let slug = slug::slug(&required(&fields, "title")?);
        if slug.is_empty() {
            return Err(Error::invalid("title", "a title has a letter or a digit of which an id is made"));
        }
        let latest = version.as_ref().map(version_name).transpose()?;
        let document = Document { fields, latest };
        let version = version.map(Document::new);
        let mut id = DocumentId::dataset(slug.clone());
        for _ in 0..TRIES {
            if self.is_free(caller, &id) {
                match self.catalog.create_dataset(caller, (&id, &document), version.as_ref()).await {
                    Err(error) if error.kind() == Kind::Conflict => {}
                    made => return made.map(|()| id),
                }
            }
            let suffix = rand::rng().sample_iter(Alphanumeric).take(SUFFIX_CHARACTERS);
            let suffix: String = suffix.map(|c| char::from(c).to_ascii_lowercase()).collect();
            id = DocumentId::dataset(format!("{slug}-{suffix}"));
        }
        Err(conflict(&id))
    }

    /// Whether a new dataset may have this id. One that has streams, grants or webhook tokens
    /// already is somebody's, and would become the caller's.
    fn is_free(&self, caller: &Principal, id: &DocumentId) -> bool {
        let is_of = |name: &StreamName| name.dataset() == id.path();
        let is_unused = || {
            let grants = self.catalog.rows_where::<Grant>(&Grant::id_of(id.path(), ""), None, 1, |_| true);
            let tokens = self.active_tokens(id.path());
            grants.is_empty()
                && tokens.is_empty()
                && !self.catalog.all().iter().any(|stream| is_of(stream.name()))
        };
        let may = || self.catalog.may(caller, id.path(), Permission::Admin);
        self.catalog.document(id).is_none() && (may() || is_unused())
    }

    /// Makes a document below another and answers its id.
    pub(crate) async fn create_below(
        &self,
        caller: &Principal,
        parent: &DocumentId,
        fields: Fields,
    ) -> Result<DocumentId> {
        let fields = kept(fields)?;
        let missing = || Error::new(Kind::Invalid, format!("{parent} does not exist"));
        self.catalog.document(parent).ok_or_else(missing)?;
        self.catalog.require(caller, parent.dataset_name(), Permission::Update)?;
        let id = parent.child(&name_below(parent, &fields)?).ok_or_else(missing)?;
        let document = Document::new(fields);
        for _ in 0..TRIES {
            if self.catalog.document(&id).is_some() {
                return Err(conflict(&id));
            }
            let before = self.catalog.document(parent).ok_or_else(missing)?;
            match self.catalog.create_below(caller, (parent, &before), (&id, &document)).await {
                Err(error) if error.kind() == Kind::Conflict => {}
                made => return made.map(|()| id),
            }
        }
        Err(Error::new(Kind::Conflict, format!("{parent} is changed by many at once")))
    }

    /// Puts what `change` makes of a document in its place.
    pub(crate) async fn replace_document(
        &self,
        caller: &Principal,
        id: &DocumentId,
        change: impl Fn(&Fields) -> Result<Fields>,
    ) -> Result<()> {
        for _ in 0..TRIES {
            let before = self.document(id)?;
            self.catalog.require(caller, id.dataset_name(), Permission::Update)?;
            let fields = kept(change(&before.value.fields)?)?;
            let own = id.path().rsplit('/').next().unwrap_or_default();
            match id.level() {
                Level::Dataset => drop(required(&fields, "title")?),
                Level::Version => check_same("version", own, &version_name(&fields)?)?,
                Level::Edition => check_same("edition", own, &edition_name(&fields)?)?,
                Level::Distribution => {}
            }
            match self.catalog.replace_document(caller, &before, fields).await {
                Err(error) if error.kind() == Kind::Conflict => {}
                changed => return changed,
            }
        }
        Err(Error::new(Kind::Conflict, format!("{id} is changed by many at once")))
    }

    /// Makes documents of a stream's dataset and version where there are none.
    pub(crate) async fn describe(&self, caller: &Principal, name: &StreamName) -> Result<()> {
        let dataset = DocumentId::dataset(name.dataset());
        let made = if self.catalog.document(&dataset).is_none() {
            let fields = json!({"title": name.dataset(), "source": {"type": "event"}});
            let document = Document::new(parse(fields.to_string().as_bytes())?);
            self.catalog.create_dataset(caller, (&dataset, &document), None).await
        } else {
            Ok(())
        };
        let version = dataset.child(name.version());
        let made = match made {
            Ok(()) if version.is_none_or(|version| self.catalog.document(&version).is_none()) => {
                let fields = json!({"version": name.version()});
                self.create_below(caller, &dataset, parse(fields.to_string().as_bytes())?).await.map(drop)
            }
            made => made,
        };
        // Somebody else made them a moment ago.
        made.or_else(|error| if error.kind() == Kind::Conflict { Ok(()) } else { Err(error) })
    }

    /// The stream that takes what comes for a described version of which nobody has made a stream yet. It
    /// has no sinks, and is what the stream is made of when somebody makes it.
    pub(crate) async fn incoming(&self, name: &StreamName, by: &str) -> Result<Arc<Stream>> {
        let document = self.document(&DocumentId::dataset(name.dataset()))?;
        let timestamp_field = document.value.timestamp_field();
        let draft = Draft {
            dataset: name.dataset().to_owned(),
            version: name.version().to_owned(),
            confidentiality: document.value.confidentiality(),
            timestamp_field: Some(timestamp_field),
            timestamp_required: Some(false),
            sinks: Sinks { archive: false, index: false },
            is_incoming: true,
            ..Draft::default()
        };
        match self.catalog.create(draft, by).await {
            // Somebody else did, a moment ago.
            Err(error) if error.kind() == Kind::Conflict => self.catalog.get(name),
            made => made,
        }
    }

    /// A document. `NotFound` if there is none.
    pub(crate) fn document(&self, id: &DocumentId) -> Result<Arc<Row<Document>>> {
        let missing = || Error::not_found(format!("{} not found.", id.level().name()));
        self.catalog.document(id).ok_or_else(missing)
    }

    /// The document below `parent` that a path names, which may be the latest one.
    pub(crate) fn named_below(&self, parent: &DocumentId, name: &str) -> Option<DocumentId> {
        if name != LATEST || parent.level() >= Level::Edition {
            return parent.child(name);
        }
        parent.child(self.catalog.document(parent)?.value.latest.as_deref()?)
    }
}

/// What the later dialect gives a dataset that says nothing of it, and its first version.
pub(crate) fn with_defaults(fields: Fields) -> Result<(Fields, Fields)> {
    let defaults = parse(br#"{"source":{"type":"file"},"state":"active"}"#)?;
    Ok((defaults.merged(fields), parse(br#"{"version":"1"}"#)?))
}

/// Whether what streams depend on is something that can be depended on.
pub(crate) fn check_described(level: Level, fields: &Fields) -> Result<()> {
    #[derive(Deserialize)]
    struct Source {
        r#type: String,
    }
    if level != Level::Dataset {
        return Ok(());
    }
    if required(fields, "title")?.chars().count() > TITLE_CHARACTERS_MAX {
        return Err(Error::invalid(
            "title",
            format!("a title has at most {TITLE_CHARACTERS_MAX} characters"),
        ));
    }
    let one_of = |field: &'static str, allowed: &[&str], value: Option<&str>| {
        if value.is_some_and(|value| allowed.contains(&value)) {
            return Ok(());
        }
        Err(Error::invalid(field, format!("the field is one of {}", allowed.join(", "))))
    };
    for (field, allowed) in [("accessRights", &ACCESS_RIGHTS[..]), ("state", &STATES[..])] {
        if fields.get(field).is_some() {
            one_of(field, allowed, fields.text(field).as_deref())?;
        }
    }
    if let Some(source) = fields.get("source") {
        let source: Option<Source> = serde_json::from_str(source.get()).ok();
        one_of("source.type", &SOURCE_TYPES, source.as_ref().map(|source| source.r#type.as_str()))?;
    }
    if fields.get("timestamp_field").is_some() {
        let name = fields.text("timestamp_field").unwrap_or_default();
        if !(1..=FIELD_CHARACTERS_MAX).contains(&name.chars().count()) {
            let message = format!("the name of a field has 1 to {FIELD_CHARACTERS_MAX} characters");
            return Err(Error::invalid("timestamp_field", message));
        }
    }
    Ok(())
}

/// Whether what may not change has stayed, since objects lie and events are read by it.
pub(crate) fn check_lasting(before: &Fields, after: &Fields) -> Result<()> {
    let is_lost = |name: &&&str| {
        let was = value(before, name);
        was.is_some() && value(after, name) != was
    };
    match LASTING.iter().find(|name| is_lost(name)) {
        Some(name) => Err(Error::new(Kind::Invalid, format!("The value of {name} cannot be changed."))),
        None => Ok(()),
    }
}

fn value(fields: &Fields, name: &str) -> Option<Value> {
    serde_json::from_str(fields.get(name)?.get()).ok()
}

fn conflict(id: &DocumentId) -> Error {
    Error::new(Kind::Conflict, format!("Item with id {id} already exists"))
}

fn kept(fields: Fields) -> Result<Fields> {
    let fields = fields.without(&ADDED);
    if fields.bytes() > DOCUMENT_BYTES_MAX {
        let message = format!("a document has at most {DOCUMENT_BYTES_MAX} bytes");
        return Err(Error::new(Kind::TooLarge, message).with_field("body"));
    }
    Ok(fields)
}

fn name_below(parent: &DocumentId, fields: &Fields) -> Result<String> {
    match parent.level() {
        Level::Dataset => version_name(fields),
        Level::Version => edition_name(fields),
        Level::Edition | Level::Distribution => Ok(Uuid::new_v4().to_string()),
    }
}

/// `version`, a text or a whole number.
fn version_name(fields: &Fields) -> Result<String> {
    let name = required(fields, "version")?;
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_valid = (1..=VERSION_CHARACTERS_MAX).contains(&name.len()) && name.chars().all(is_allowed);
    if !is_valid || name == LATEST {
        let message = format!(
            "a version has 1 to {VERSION_CHARACTERS_MAX} letters, digits and . _ - and is not {LATEST}"
        );
        return Err(Error::invalid("version", message));
    }
    Ok(name)
}

/// `edition`, an ISO 8601 date with or without a time, as `20190528T133700` in UTC. One without an
/// offset is in UTC.
fn edition_name(fields: &Fields) -> Result<String> {
    let text = required(fields, "edition")?;
    let wrong =
        || Error::invalid("edition", "an edition is a date and time such as 2019-05-28T15:37:00+02:00");
    let time = instant(text.trim()).ok_or_else(wrong)?;
    Ok(time.format("%Y%m%dT%H%M%S").to_string())
}

fn instant(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.to_utc());
    }
    let local = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M"];
    let time = local.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    let day = || NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().map(|day| day.and_time(NaiveTime::MIN));
    Some(time.or_else(day)?.and_utc())
}

/// A field that a document needs: a text, or a whole number as one.
fn required(fields: &Fields, name: &'static str) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Named {
        Text(String),
        Number(i64),
    }
    let value = fields.get(name).ok_or_else(|| Error::invalid(name, "the field is missing"))?;
    match serde_json::from_str(value.get()) {
        Ok(Named::Text(text)) if !text.trim().is_empty() => Ok(text),
        Ok(Named::Number(number)) => Ok(number.to_string()),
        _ => Err(Error::invalid(name, "the field holds no text")),
    }
}

fn check_same(field: &'static str, own: &str, given: &str) -> Result<()> {
    if own == given {
        return Ok(());
    }
    Err(Error::invalid(field, format!("it is {given}, and the path says {own}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        broker::metadata::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn editions_are_named_by_their_instant() {
        for (edition, expected) in [
            ("2019-05-28T15:37:00+02:00", "20190528T133700"),
            ("2019-05-28T15:37:00Z", "20190528T153700"),
            ("2019-05-28T15:37:00.5", "20190528T153700"),
            ("2019-05-28T15:37", "20190528T153700"),
            ("2019-05-28", "20190528T000000"),
        ] {
            let named = edition_name(&fields(&format!(r#"{{"edition":"{edition}"}}"#)));
            assert_eq!(named.unwrap(), expected);
        }
        for wrong in [r#""today""#, r#""2019-02-30""#, "[]", r#""""#, "1.5"] {
            let error = edition_name(&fields(&format!(r#"{{"edition":{wrong}}}"#))).unwrap_err();
            assert_eq!(error.field(), Some("edition"), "{wrong}");
        }
    }

    #[test]
    fn versions_are_named_by_a_text_or_a_number() {
        let name = |value: &str| version_name(&fields(&format!(r#"{{"version":{value}}}"#)));
        assert_eq!(name(r#""1""#).unwrap(), "1");
        assert_eq!(name("2").unwrap(), "2");
        for wrong in [r#""latest""#, r#""a/b""#, r#""a b""#, "1.5", "null", r#""""#] {
            assert_eq!(name(wrong).unwrap_err().field(), Some("version"), "{wrong}");
        }
    }
}
