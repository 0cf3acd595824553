//! An event's JSON as it is indexed: a tree in one place, which the next event takes over, so that an
//! event costs no allocation of its own.
//!
//! Total: what cannot be read is null, and the event is still found by its time and key.

use std::collections::BTreeMap;
use std::fmt;

use crc32fast::Hasher;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use tantivy::DateTime;
use tantivy::time::format_description::well_known::Rfc3339;
use tantivy::time::{OffsetDateTime, UtcOffset};

/// Below this depth of nesting nothing is indexed; the parser's own limit.
const DEPTH_MAX: usize = 128;

/// An event.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    root: Node,
    /// Names and strings, one after the other.
    text: String,
    /// What objects and arrays hold, one after the other; the names of an object rise.
    members: Vec<Member>,
    /// What objects and arrays hold that have not ended.
    open: Vec<Member>,
    /// Where they were asked for.
    strings: Vec<Span>,
    has_words_apart: bool,
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    Bool(bool),
    I64(i64),
    U64(u64),
    F64(f64),
    Text(Span),
    /// A string that is an instant of RFC 3339.
    Date(DateTime, Span),
    /// A string below a name with a zero byte, where tantivy indexes no words.
    Hidden(Span),
    Array(Span),
    Object(Span),
}

/// A value of an object, or of an array, where it has no name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) name: Span,
    pub(super) node: Node,
}

/// A part of the tree's text or of its members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: usize,
    end: usize,
}

/// Counts the paths that strings were found at, up to a number.
#[derive(Debug)]
pub(super) struct Paths {
    /// Their checksums: two paths in a great many may count as one.
    known: Vec<u32>,
    max: usize,
}

impl Paths {
    pub(super) fn up_to(max: usize) -> Self {
        Self { known: Vec::with_capacity(max + 1), max }
    }

    /// Whether there are more than were to be counted.
    pub(super) fn are_too_many(&self) -> bool {
        self.known.len() > self.max
    }

    fn note(&mut self, path: u32) {
        if !self.are_too_many() && !self.known.contains(&path) {
            self.known.push(path);
        }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            root: Node::Null,
            text: String::new(),
            members: Vec::new(),
            open: Vec::new(),
            strings: Vec::new(),
            has_words_apart: false,
        }
    }
}

impl Tree {
    /// Reads an event in the place of the one before. Numbers that fit neither 64 bits nor a double,
    /// and strings that are not Unicode, come out as null.
    pub(super) fn read(&mut self, event: &[u8], paths: &mut Paths) {
        let mut json = serde_json::Deserializer::from_slice(event);
        let root = self.begin(paths).deserialize(&mut json);
        self.root = match root.and_then(|root| json.end().map(|()| root)) {
            Ok(root) => root,
            Err(_) => {
                let raw = serde_json::from_slice::<&RawValue>(event);
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

    pub(super) fn root(&self) -> Node {
        self.root
    }

    /// Whether there are strings that are no words where they stand: dates, and hidden ones.
    pub(super) fn has_words_apart(&self) -> bool {
        self.has_words_apart
    }

    pub(super) fn text(&self, span: Span) -> &str {
        &self.text[span.start..span.end]
    }

    pub(super) fn members(&self, span: Span) -> &[Member] {
        &self.members[span.start..span.end]
    }

    /// Every string; names of members are none. There are none before they were listed.
    pub(super) fn strings(&self) -> &[Span] {
        &self.strings
    }

    /// Lists the strings of the event that was read.
    pub(super) fn list_strings(&mut self) {
        let mut strings = std::mem::take(&mut self.strings);
        self.each_string(self.root, &mut |span| strings.push(span));
        self.strings = strings;
    }

    fn each_string(&self, node: Node, found: &mut impl FnMut(Span)) {
        match node {
            Node::Text(span) | Node::Date(_, span) | Node::Hidden(span) => found(span),
            Node::Array(span) | Node::Object(span) => {
                self.members(span).iter().for_each(|member| self.each_string(member.node, found));
            }
            Node::Null | Node::Bool(_) | Node::I64(_) | Node::U64(_) | Node::F64(_) => {}
        }
    }

    fn add_text(&mut self, text: &str) -> Span {
        let start = self.text.len();
        self.text.push_str(text);
        Span { start, end: self.text.len() }
    }

    /// Ends an array that began when so many were open.
    fn close_array(&mut self, open: usize) -> Span {
        let start = self.members.len();
        self.members.extend(self.open.drain(open..));
        Span { start, end: self.members.len() }
    }

    /// Ends an object: its members are sorted, and of several of one name the last counts.
    fn close_object(&mut self, open: usize) -> Span {
        let Self { text, members, open: all, .. } = self;
        let name = |member: &Member| &text[member.name.start..member.name.end];
        all[open..].sort_by(|one, other| name(one).cmp(name(other)));
        let start = members.len();
        for member in all.drain(open..) {
            match members[start..].last_mut() {
                Some(last) if name(last) == name(&member) => *last = member,
                _ => members.push(member),
            }
        }
        Span { start, end: members.len() }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(event: &str) -> (Tree, Paths) {
        let (mut tree, mut paths) = (Tree::default(), Paths::up_to(4));
        tree.read(br#"{"of":"the event before","b":[{}]}"#, &mut Paths::up_to(4));
        tree.read(event.as_bytes(), &mut paths);
        (tree, paths)
    }

    fn json_of(tree: &Tree, node: Node) -> Value {
        let text = |span| tree.text(span).to_owned();
        match node {
            Node::Null => Value::Null,
            Node::Bool(value) => json!(value),
            Node::I64(value) => json!(value),
            Node::U64(value) => json!(value),
            Node::F64(value) => json!(value),
            Node::Text(span) | Node::Date(_, span) | Node::Hidden(span) => json!(text(span)),
            Node::Array(span) => tree.members(span).iter().map(|item| json_of(tree, item.node)).collect(),
            Node::Object(span) => {
                let members = tree.members(span).iter();
                assert!(members.clone().is_sorted_by_key(|member| tree.text(member.name)));
                members.map(|member| (text(member.name), json_of(tree, member.node))).collect()
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_null_and_the_rest_is_kept() {
        for (event, wanted) in [
            (r#"{"a":1,"b":[true,"x"]}"#, json!({"a": 1, "b": [true, "x"]})),
            (r#"{"a":1e999,"b":{"c":2}}"#, json!({"a": null, "b": {"c": 2}})),
            (r#"{"a":"\ud800","b":[1e999,3]}"#, json!({"a": null, "b": [null, 3]})),
            (r#"{"a":1} {"b":2}"#, json!(null)),
            ("not JSON", json!(null)),
            ("", json!(null)),
            (r#" "text" "#, json!("text")),
            ("-0.0", json!(-0.0)),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            (r#"[[],{},"",[null,{"\u00e9\n":"\ud83d\ude00"}]]"#, json!([[], {}, "", [null, {"é\n": "😀"}]])),
        ] {
            let (tree, _) = read(event);
            assert_eq!(json_of(&tree, tree.root()), wanted, "{event}");
        }
    }

    #[test]
    fn members_are_read_as_a_map_holds_them() {
        for event in [
            r#"{"b":1,"a":{"z":1,"y":[{"d":1,"c":2}]},"b":{"a":2}}"#,
            r#"{"a":"first","a":"second","a":["third"],"":0}"#,
            r#"{"2001-01-05T00:00:00Z":"2001-01-05T00:00:00Z","n\u0000":{"x":["y"]}}"#,
        ] {
            let (tree, _) = read(event);
            assert_eq!(json_of(&tree, tree.root()), serde_json::from_str::<Value>(event).unwrap(), "{event}");
        }
    }

    #[test]
    fn strings_that_are_no_words_are_told_apart() {
        for (event, wanted) in [
            (r#"{"a":"2001-01-05T00:00:00Z"}"#, true),
            (r#"{"a":["2001-01-05t01:00:00.5+01:00"]}"#, true),
            (r#"{"a":"2001-01-05"}"#, false),
            (r#"{"a":"2001-01-05 00:00:00"}"#, false),
            (r#"{"a":"2001-02-30T00:00:00Z"}"#, false),
            (r#"{"a":"12001-01-05T00:00:00Z"}"#, false),
            (r#"{"n\u0000":[{"b":"x"}]}"#, true),
            (r#"{"b":"n\u0000"}"#, false),
        ] {
            assert_eq!(read(event).0.has_words_apart(), wanted, "{event}");
        }
    }

    #[test]
    fn paths_of_strings_are_counted_up_to_a_number() {
        for (event, wanted) in [
            (r#"{"a":"x","b":["x","y",["z"]],"c":{"a":"x"},"d":1,"e":null}"#, 3),
            (r#"{"a":"x","b":["2001-01-05T00:00:00Z","x"],"c":["2001-01-05T00:00:00Z"]}"#, 4),
            (r#"{"a":"1","b":"2","c":"3","d":"4","e":"5","f":"6","g":"7"}"#, 5),
        ] {
            let (_, paths) = read(event);
            assert_eq!((paths.known.len(), paths.are_too_many()), (wanted, wanted > 4), "{event}");
        }
    }

    #[test]
    fn strings_are_listed_in_the_order_of_names() {
        let (mut tree, _) = read(r#"{"c":["2","3"],"a":"first","b":{"n\u0000":"1"},"a":"0","d":4}"#);
        assert!(tree.strings().is_empty());
        tree.list_strings();
        let strings: Vec<&str> = tree.strings().iter().map(|span| tree.text(*span)).collect();
        assert_eq!(strings, ["0", "1", "2", "3"]);
    }

    #[test]
    fn deep_nesting_ends_in_null() {
        let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
        assert!(matches!(read(&deep).0.root(), Node::Array(_)));
    }
}
