//! Goes down an event's JSON along the wanted paths and skips everything else; says what is wrong where
//! it is no JSON. It is for what [`super::scan`] does not take.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::syntax;
use crate::error::Result;

/// The names to follow from the event's root; never empty.
#[derive(Clone, Debug)]
pub(super) struct Path(Vec<String>);

impl Path {
    /// A field of the event itself. None if the name is empty.
    pub(super) fn name(name: &str) -> Option<Self> {
        (!name.is_empty()).then(|| Self(vec![name.to_owned()]))
    }

    /// A JSON pointer (RFC 6901) other than the root's. None if it is malformed.
    pub(super) fn parse(pointer: &str) -> Option<Self> {
        let tokens = pointer.strip_prefix('/')?.split('/').map(|token| {
            let mut escapes = token.split('~').skip(1);
            let is_escaped_well = escapes.all(|rest| rest.starts_with(['0', '1']));
            is_escaped_well.then(|| token.replace("~1", "/").replace("~0", "~"))
        });
        tokens.collect::<Option<Vec<String>>>().map(Self)
    }
}

/// The paths that are looked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'p> {
    pub(super) time: Option<&'p Path>,
    pub(super) key: Option<&'p Path>,
}

impl Wanted<'_> {
    pub(super) fn is_empty(self) -> bool {
        self.time.is_none() && self.key.is_none()
    }

    /// Those paths whose token at `depth` fits.
    pub(super) fn at(self, depth: usize, fits: impl Fn(&str) -> bool) -> Self {
        let fits = |path: &&Path| path.0.get(depth).is_some_and(|token| fits(token));
        Self { time: self.time.filter(fits), key: self.key.filter(fits) }
    }

    /// Those paths that end at `depth`, and those that go on.
    pub(super) fn split(self, depth: usize) -> (Self, Self) {
        let ends = |path: &&Path| path.0.len() == depth;
        let goes_on = |path: &&Path| path.0.len() > depth;
        let ending = Self { time: self.time.filter(ends), key: self.key.filter(ends) };
        (ending, Self { time: self.time.filter(goes_on), key: self.key.filter(goes_on) })
    }
}

/// The JSON text at each wanted path; the last one where a name stands twice.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found<'e> {
    pub(super) time: Option<&'e str>,
    pub(super) key: Option<&'e str>,
}

impl<'e> Found<'e> {
    pub(super) fn set(&mut self, wanted: Wanted<'_>, to: Option<&'e str>) {
        if wanted.time.is_some() {
            self.time = to;
        }
        if wanted.key.is_some() {
            self.key = to;
        }
    }
}

/// Checks that the event is one JSON value, and finds what is wanted.
pub(super) fn find<'e>(event: &'e str, wanted: Wanted<'_>) -> Result<Found<'e>> {
    let mut found = Found::default();
    let mut deserializer = serde_json::Deserializer::from_str(event);
    let walk = Walk { wanted, depth: 0, found: &mut found };
    let read = walk.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    read.map_err(|error| {
        let at = byte_of(event, error.line(), error.column());
        let text = error.to_string();
        let message = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
        syntax::invalid(event.as_bytes(), at, message)
    })?;
    Ok(found)
}

/// `serde_json` counts columns in bytes, from 1. It means the byte that it stopped at; after a few
/// faults within strings the one before.
fn byte_of(event: &str, line: usize, column: usize) -> usize {
    let before = event.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum::<usize>();
    before + column.saturating_sub(1)
}

struct Walk<'w, 'e> {
    wanted: Wanted<'w>,
    depth: usize,
    found: &'w mut Found<'e>,
}

impl<'e> DeserializeSeed<'e> for Walk<'_, 'e> {
    type Value = ();

    fn deserialize<D: Deserializer<'e>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.wanted.is_empty() {
            return deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ());
        }
        let (ending, going_on) = self.wanted.split(self.depth);
        let json = <&RawValue as serde::Deserialize>::deserialize(deserializer)?.get();
        self.found.set(ending, Some(json));
        if going_on.is_empty() || !json.starts_with(['{', '[']) {
            return Ok(());
        }
        // What a path leads into is read again: it is JSON by now, and numbers of any size were taken.
        let walk = Walk { wanted: going_on, depth: self.depth, found: self.found };
        serde_json::Deserializer::from_str(json).deserialize_any(walk).map_err(D::Error::custom)
    }
}

impl<'e> Visitor<'e> for Walk<'_, 'e> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'e>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(wanted) = map.next_key_seed(Name { wanted: self.wanted, depth: self.depth })? {
            self.found.set(wanted, None);
            map.next_value_seed(Walk { wanted, depth: self.depth + 1, found: self.found })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'e>>(self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0_usize;
        loop {
            let wanted = self.wanted.at(self.depth, |token| is_index(token, index));
            let walk = Walk { wanted, depth: self.depth + 1, found: self.found };
            if items.next_element_seed(walk)?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }
}

/// An index as RFC 6901 writes it: decimal, without leading zeros.
fn is_index(token: &str, index: usize) -> bool {
    let is_canonical = token == "0" || !token.starts_with(['0', '+']);
    is_canonical && token.parse() == Ok(index)
}

/// Reads a name and tells which of the paths go on below it.
struct Name<'w> {
    wanted: Wanted<'w>,
    depth: usize,
}

impl<'e, 'w> DeserializeSeed<'e> for Name<'w> {
    type Value = Wanted<'w>;

    fn deserialize<D: Deserializer<'e>>(self, deserializer: D) -> Result<Wanted<'w>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'w> Visitor<'_> for Name<'w> {
    type Value = Wanted<'w>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Wanted<'w>, E> {
        Ok(self.wanted.at(self.depth, |token| token == name))
    }
}
