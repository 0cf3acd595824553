//! What tantivy reads of an event: its JSON straight from the tree that it was read into, and what an
//! answer needs beside it.

use std::slice;
use std::sync::Arc;

use tantivy::schema::Field;
use tantivy::schema::document::{Document, ReferenceValue, ReferenceValueLeaf, Value};

use super::Event;
use super::schema::Fields;
use super::tree::{Member, Node, Span, Tree};

/// An event to be indexed.
pub(super) struct Indexed {
    pub(super) fields: &'static Fields,
    pub(super) event: Event,
    /// The event's value, read.
    pub(super) tree: Arc<Tree>,
}

/// One field of it, or a part of one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    I64(i64),
    U64(u64),
    Bytes(&'a [u8]),
    Text(&'a str),
    /// A value of the event.
    Event(&'a Tree, Node),
    /// The same, of which only words count that are none in the event itself.
    Apart(&'a Tree, Node),
}

impl Indexed {
    fn parts(&self) -> [Option<(Field, Part<'_>)>; 8] {
        let Self { fields, event, tree } = self;
        let apart = tree.has_words_apart().then(|| (fields.apart, Part::Apart(tree, tree.root())));
        let key = event.key.as_ref().map(|key| (fields.key, Part::Bytes(key)));
        let searched = [Some((fields.event, Part::Event(tree, tree.root()))), apart, key];
        let stored = fields.stored.map(|fields| {
            let origin = event.origin.map(|origin| {
                let partition = Part::U64(u64::from(origin.partition.0));
                [(fields.origin_partition, partition), (fields.origin_offset, Part::U64(origin.offset.0))]
            });
            [
                Some((fields.time, Part::I64(event.position.time.micros()))),
                Some((fields.offset, Part::U64(event.position.offset.0))),
                origin.map(|[partition, _]| partition),
                origin.map(|[_, offset]| offset),
                Some((fields.value, Part::Bytes(&event.value))),
            ]
        });
        let [event, apart, key] = searched;
        let [time, offset, origin_partition, origin_offset, value] = stored.unwrap_or_default();
        [event, apart, key, time, offset, origin_partition, origin_offset, value]
    }
}

impl Document for Indexed {
    type Value<'a> = Part<'a>;
    type FieldsValuesIter<'a> = Parts<'a>;

    fn iter_fields_and_values(&self) -> Parts<'_> {
        let strings = self.tree.strings().iter();
        Parts { parts: self.parts().into_iter().flatten(), text: self.fields.text, tree: &self.tree, strings }
    }
}

/// All fields of an event.
pub(super) struct Parts<'a> {
    parts: std::iter::Flatten<std::array::IntoIter<Option<(Field, Part<'a>)>, 8>>,
    text: Field,
    tree: &'a Tree,
    strings: slice::Iter<'a, Span>,
}

impl<'a> Iterator for Parts<'a> {
    type Item = (Field, Part<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let Self { parts, text, tree, strings } = self;
        parts.next().or_else(|| strings.next().map(|span| (*text, Part::Text(tree.text(*span)))))
    }
}

impl<'a> Value<'a> for Part<'a> {
    type ArrayIter = Items<'a>;
    type ObjectIter = Members<'a>;

    fn as_value(&self) -> ReferenceValue<'a, Self> {
        let leaf = match *self {
            Part::I64(value) => ReferenceValueLeaf::I64(value),
            Part::U64(value) => ReferenceValueLeaf::U64(value),
            Part::Bytes(value) => ReferenceValueLeaf::Bytes(value),
            Part::Text(text) => ReferenceValueLeaf::Str(text),
            Part::Event(tree, node) => match node {
                Node::Null => ReferenceValueLeaf::Null,
                Node::Bool(value) => ReferenceValueLeaf::Bool(value),
                Node::I64(value) => ReferenceValueLeaf::I64(value),
                Node::U64(value) => ReferenceValueLeaf::U64(value),
                Node::F64(value) => ReferenceValueLeaf::F64(value),
                Node::Text(span) | Node::Hidden(span) => ReferenceValueLeaf::Str(tree.text(span)),
                Node::Date(date, _) => ReferenceValueLeaf::Date(date),
                Node::Array(span) => return ReferenceValue::Array(Items(self.below(tree, span))),
                Node::Object(span) => return ReferenceValue::Object(Members(self.below(tree, span))),
            },
            Part::Apart(tree, node) => match node {
                Node::Date(_, span) | Node::Hidden(span) => ReferenceValueLeaf::Str(tree.text(span)),
                Node::Array(span) => return ReferenceValue::Array(Items(self.below(tree, span))),
                Node::Object(span) => return ReferenceValue::Object(Members(self.below(tree, span))),
                _ => ReferenceValueLeaf::Null,
            },
        };
        ReferenceValue::Leaf(leaf)
    }
}

impl<'a> Part<'a> {
    fn below(self, tree: &'a Tree, span: Span) -> Below<'a> {
        let is_apart = matches!(self, Part::Apart(..));
        Below { tree, members: tree.members(span).iter(), is_apart }
    }
}

/// What an object or an array holds.
struct Below<'a> {
    tree: &'a Tree,
    members: slice::Iter<'a, Member>,
    is_apart: bool,
}

impl<'a> Below<'a> {
    fn next(&mut self) -> Option<(&'a Member, Part<'a>)> {
        let member = self.members.next()?;
        let part = if self.is_apart { Part::Apart } else { Part::Event };
        Some((member, part(self.tree, member.node)))
    }
}

/// The items of an array.
pub(super) struct Items<'a>(Below<'a>);

impl<'a> Iterator for Items<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        self.0.next().map(|(_, part)| part)
    }
}

/// The members of an object.
pub(super) struct Members<'a>(Below<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, Part<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (member, part) = self.0.next()?;
        let name = self.0.tree.text(member.name);
        // tantivy leaves out what has a zero byte in its name, which nobody asks for here.
        let shown = if self.0.is_apart { name.split('\0').next().unwrap_or_default() } else { name };
        Some((shown, part))
    }
}
