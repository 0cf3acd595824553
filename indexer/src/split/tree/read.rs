//! Reading an event into a tree, in one pass.

use std::collections::BTreeMap;
use std::fmt;

use crc32fast::Hasher;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use tantivy::DateTime;
use tantivy::time::format_description::well_known::Rfc3339;
use tantivy::time::{OffsetDateTime, UtcOffset};

use super::{Member, Node, Paths, Span, Tree};

/// Below this depth of nesting nothing is indexed; the parser's own limit.
const DEPTH_MAX: usize = 128;

impl Tree {
    /// Reads an event in the place of the one before. Numbers that fit neither 64 bits nor a double,
    /// and strings that are not Unicode, come out as null.
    pub(in crate::split) fn read(&mut self, event: &[u8], paths: &mut Paths) {
        let mut json = serde_json::Deserializer::from_slice(event);
        let root = self.begin(paths).deserialize(&mut json);
        self.is_json = true;
        self.root = match root.and_then(|root| json.end().map(|()| root)) {
            Ok(root) => root,
            Err(_) => {
                let raw = serde_json::from_slice::<&RawValue>(event);
                self.is_json = raw.is_ok();
                let value = raw.map_or(Value::Null, |raw| parse_piecewise(raw, 0));
                self.begin(paths).deserialize(&value).unwrap_or(Node::Null)
            }
        };
    }

    fn begin<'t>(&'t mut self, paths: &'t mut Paths) -> Reader<'t> {
        self.text.clear();
        self.members.clear();
        self.open.clear();
        self.strings.clear();
        self.has_words_apart = false;
        Reader { tree: self, paths, path: 0, is_hidden: false }
    }
}

/// Reads one value into the tree.
struct Reader<'t> {
    tree: &'t mut Tree,
    paths: &'t mut Paths,
    /// The checksum of the names above.
    path: u32,
    is_hidden: bool,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::I64(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(i64::try_from(value).map_or(Node::U64(value), Node::I64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::F64(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        let span = self.tree.add_text(text);
        if self.is_hidden {
            self.paths.note(!self.path);
            self.tree.has_words_apart = true;
            return Ok(Node::Hidden(span));
        }
        match date(text) {
            Some(date) => {
                self.paths.note(!self.path);
                self.tree.has_words_apart = true;
                Ok(Node::Date(date, span))
            }
            None => {
                self.paths.note(self.path);
                Ok(Node::Text(span))
            }
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let Self { tree, paths, path, is_hidden } = self;
        let open = tree.open.len();
        while let Some(node) = items.next_element_seed(Reader { tree, paths, path, is_hidden })? {
            tree.open.push(Member { name: Span::default(), node });
        }
        Ok(Node::Array(tree.close_array(open)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        let Self { tree, paths, path, is_hidden } = self;
        let open = tree.open.len();
        while let Some(name) = members.next_key_seed(Name(tree))? {
            let text = tree.text(name);
            let mut below = Hasher::new_with_initial(path);
            below.update(text.as_bytes());
            let (path, is_hidden) = (below.finalize(), is_hidden || text.contains('\0'));
            let node = members.next_value_seed(Reader { tree, paths, path, is_hidden })?;
            tree.open.push(Member { name, node });
        }
        Ok(Node::Object(tree.close_object(open)))
    }
}

/// Reads a member's name into the tree.
struct Name<'t>(&'t mut Tree);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Span;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Span, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Span, E> {
        Ok(self.0.add_text(name))
    }
}

/// The instant that a string is, by tantivy's own rule; most strings are told by a byte.
fn date(text: &str) -> Option<DateTime> {
    let bytes = text.as_bytes();
    if !bytes.first()?.is_ascii_digit() || bytes.get(4) != Some(&b'-') {
        return None;
    }
    let date = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    DateTime::try_from_utc(date.to_offset(UtcOffset::UTC))
}

fn parse_piecewise(raw: &RawValue, depth: usize) -> Value {
    let text = raw.get();
    if depth == DEPTH_MAX {
        return Value::Null;
    }
    match text.as_bytes().first() {
        Some(b'{') => {
            let members = serde_json::from_str::<BTreeMap<String, &RawValue>>(text).unwrap_or_default();
            let members = members.into_iter();
            members.map(|(name, member)| (name, parse_piecewise(member, depth + 1))).collect()
        }
        Some(b'[') => {
            let items = serde_json::from_str::<Vec<&RawValue>>(text).unwrap_or_default();
            items.into_iter().map(|item| parse_piecewise(item, depth + 1)).collect()
        }
        _ => serde_json::from_str(text).unwrap_or(Value::Null),
    }
}
