//! Finds an event's time and key in its JSON without building a value of it.
//!
//! An event is one JSON value as RFC 8259 has it, in UTF-8, nested at most [`DEPTH_MAX`] deep, and
//! every escape in its strings names a whole character. Numbers of any size are taken, since they
//! are kept as they are written. Where an object has a name twice, the last one counts for time
//! and key, as it does for VRL; the bytes are kept with both.
//!
//! The time may be written as described at [`DETECTED_FORMS`], or as the stream's
//! `timestamp_format` says.

mod fixed;
mod moment;
mod scan;
mod syntax;
mod walk;

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::time::Timestamp;
use moment::Form;
use walk::{Path, Wanted};

pub use moment::DETECTED_FORMS;
pub use syntax::DEPTH_MAX;

/// What an error shows of a value that cannot be read, in characters.
const SHOWN_CHARS_MAX: usize = 100;

/// What finds an event's time and key; made from a stream's definition.
#[derive(Clone, Debug)]
pub struct Extractor {
    time: Option<TimeRule>,
    key: Option<KeyRule>,
}

#[derive(Clone, Debug)]
struct TimeRule {
    field: String,
    path: Path,
    form: Form,
    /// An event that has nothing there has no time of its own.
    is_optional: bool,
}

#[derive(Clone, Debug)]
struct KeyRule {
    pointer: String,
    path: Path,
}

/// What was found in an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extracted<'e> {
    /// The event's own time; none if the stream names no field for it, or the event has nothing there and
    /// need not.
    pub time: Option<Timestamp>,
    /// The key; none if the stream names no pointer, or the event has nothing there. It is a piece of
    /// the event unless that is written with escapes.
    pub key: Option<Cow<'e, str>>,
}

impl Extractor {
    /// Checks the rules: the error names `timestamp_field`, `timestamp_format` or `key`.
    ///
    /// A `timestamp_field` that starts with `/` is a JSON pointer (RFC 6901), any other is the name
    /// of a field of the event itself. `key` is a JSON pointer.
    pub fn new(
        timestamp_field: Option<&str>,
        timestamp_format: Option<&str>,
        key: Option<&str>,
    ) -> Result<Self> {
        let time = match (timestamp_field, timestamp_format) {
            (Some(field), format) => Some(TimeRule::new(field, format)?),
            (None, Some(_)) => {
                let message = "a format needs a timestamp_field that it is the format of";
                return Err(Error::invalid("timestamp_format", message));
            }
            (None, None) => None,
        };
        Ok(Self { time, key: key.map(KeyRule::new).transpose()? })
    }

    /// The same rules, but an event may have nothing where its time is looked for.
    #[must_use]
    pub fn with_optional_time(mut self) -> Self {
        if let Some(time) = &mut self.time {
            time.is_optional = true;
        }
        self
    }

    /// Checks that `event` is one JSON value and finds time and key in it, in one pass. Errors are
    /// `Invalid` and name `value` where it is not JSON, else the stream's field at fault.
    pub fn extract<'e>(&self, event: &'e [u8]) -> Result<Extracted<'e>> {
        let wanted = Wanted {
            time: self.time.as_ref().map(|rule| &rule.path),
            key: self.key.as_ref().map(|rule| &rule.path),
        };
        let text = syntax::text(event)?;
        let found = match scan::find(text, wanted) {
            Some(found) => found,
            None => {
                syntax::check(event)?;
                walk::find(text, wanted)?
            }
        };
        let time = self.time.as_ref().map(|rule| rule.read(found.time)).transpose()?;
        let key = self.key.as_ref().map(|rule| rule.read(found.key)).transpose()?;
        Ok(Extracted { time: time.flatten(), key: key.flatten() })
    }
}

impl TimeRule {
    fn new(field: &str, format: Option<&str>) -> Result<Self> {
        let path = if field.starts_with('/') { Path::parse(field) } else { Path::name(field) };
        let path = path.ok_or_else(|| {
            Error::invalid("timestamp_field", "name a field, or give a JSON pointer such as /meta/time")
        })?;
        let form = format.map_or(Ok(Form::Detected), Form::given)?;
        Ok(Self { field: field.to_owned(), path, form, is_optional: false })
    }

    fn read(&self, found: Option<&str>) -> Result<Option<Timestamp>> {
        let invalid = |message: String| Error::invalid(&self.field, message);
        let text = match Scalar::read(found) {
            Scalar::Text(text) => text,
            Scalar::Number(text) => Cow::Borrowed(text),
            Scalar::Nothing if self.is_optional => return Ok(None),
            Scalar::Nothing => return Err(invalid("the event has no time here".to_owned())),
            Scalar::Bool(shown) | Scalar::Nested(shown) => {
                return Err(invalid(format!("a time is a string or a number, not {}", cut(shown))));
            }
        };
        let read = self.form.read(&text);
        read.map(Some).map_err(|expected| invalid(format!("{expected}, not {:?}", cut(&text))))
    }
}

impl KeyRule {
    fn new(pointer: &str) -> Result<Self> {
        let path = Path::parse(pointer).ok_or_else(|| {
            Error::invalid("key", "a key is named by a JSON pointer into the event, such as /origin")
        })?;
        Ok(Self { pointer: pointer.to_owned(), path })
    }

    fn read<'e>(&self, found: Option<&'e str>) -> Result<Option<Cow<'e, str>>> {
        match Scalar::read(found) {
            Scalar::Text(text) => Ok(Some(text)),
            Scalar::Number(text) | Scalar::Bool(text) => Ok(Some(Cow::Borrowed(text))),
            Scalar::Nothing => Ok(None),
            Scalar::Nested(shown) => {
                let message = format!("a key is a string, a number or a boolean, not {}", cut(shown));
                Err(Error::invalid(&self.pointer, message))
            }
        }
    }
}

/// A value that was found, by its JSON text.
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Number(&'a str),
    Bool(&'a str),
    Nested(&'a str),
    Nothing,
}

impl<'a> Scalar<'a> {
    fn read(found: Option<&'a str>) -> Self {
        let Some(json) = found else { return Scalar::Nothing };
        match json.as_bytes().first() {
            Some(b'"') => Scalar::Text(unquote(json)),
            Some(b'{' | b'[') => Scalar::Nested(json),
            Some(b't' | b'f') => Scalar::Bool(json),
            Some(b'n') | None => Scalar::Nothing,
            Some(_) => Scalar::Number(json),
        }
    }
}

/// The content of a JSON string that was checked already.
fn unquote(json: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\\', json.as_bytes()).is_some() {
        let text = serde_json::from_str(json);
        return Cow::Owned(text.expect("the string's escapes were checked"));
    }
    Cow::Borrowed(&json[1..json.len() - 1])
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(SHOWN_CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests;
