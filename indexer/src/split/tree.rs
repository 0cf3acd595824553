//! An event's JSON as it is indexed: a tree in one place, which the next event takes over, so that an
//! event costs no allocation of its own.
//!
//! Total: what cannot be read is null, and the event is still found by its time and key.

mod read;
#[cfg(test)]
mod tests;

use tantivy::DateTime;

/// An event.
#[derive(Clone, Debug, Default)]
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
    is_json: bool,
}

/// A value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Node {
    #[default]
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

impl Tree {
    pub(super) fn root(&self) -> Node {
        self.root
    }

    /// Whether the event is JSON at all.
    pub(super) fn is_json(&self) -> bool {
        self.is_json
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
