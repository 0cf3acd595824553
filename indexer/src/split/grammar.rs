//! Tantivy's query grammar over events. A path (`origin:DTW`, `delay:[10 TO 50]`, `a.b:*`) is a
//! path into the event's JSON, whatever fields the index itself has; a word or phrase without a
//! path is looked for in every string of the event. Words side by side must all be there.

use std::sync::LazyLock;

use broker::{Error, Result};
use bytes::Bytes;
use tantivy::Term;
use tantivy::query::{BooleanQuery, EnableScoring, Occur, Query, QueryParser, TermQuery, Weight};
use tantivy::query_grammar::{self, UserInputAst, UserInputLeaf};
use tantivy::schema::IndexRecordOption;
use tantivy::tokenizer::TokenizerManager;
use tantivy::{Searcher, TantivyError};

use super::schema::{EVENT, OF_SPLITS};

/// The longest query, in bytes.
const QUERY_BYTES_MAX: usize = 8 << 10;
/// The longest key that is searched for, in bytes: tantivy indexes no longer terms.
const KEY_BYTES_MAX: usize = 64_000;
/// The most signs in a query that may nest, since the parser goes down the stack with each.
const OPERATORS_MAX: usize = 128;

static PARSER: LazyLock<QueryParser> = LazyLock::new(|| {
    let fields = &*OF_SPLITS;
    let mut parser = QueryParser::new(fields.schema.clone(), vec![fields.text], TokenizerManager::default());
    parser.set_conjunction_by_default();
    parser
});

/// What events are searched for, other than their time. Parsed once, for every piece.
#[derive(Debug)]
pub(crate) struct Terms {
    /// The whole condition.
    query: Box<dyn Query>,
    /// The key, if that is the whole condition.
    key_only: Option<Bytes>,
}

impl Clone for Terms {
    fn clone(&self) -> Self {
        Self { query: self.query.box_clone(), key_only: self.key_only.clone() }
    }
}

impl Terms {
    /// The condition of `q` and `key`, `None` if there is neither. An error names
    /// the one at fault.
    pub(crate) fn parse(q: Option<&str>, key: Option<&str>) -> Result<Option<Terms>> {
        let q = q.filter(|q| !q.trim().is_empty()).map(parse).transpose()?;
        if key.is_some_and(|key| key.len() > KEY_BYTES_MAX) {
            return Err(Error::invalid("key", format!("a key has at most {KEY_BYTES_MAX} bytes here")));
        }
        let with_key = key.map(|key| {
            let term = Term::from_field_bytes(OF_SPLITS.key, key.as_bytes());
            Box::new(TermQuery::new(term, IndexRecordOption::Basic)) as Box<dyn Query>
        });
        let bytes = key.map(|key| Bytes::copy_from_slice(key.as_bytes()));
        Ok(match (q, with_key) {
            (None, None) => None,
            (None, Some(query)) => Some(Terms { query, key_only: bytes }),
            (Some(query), None) => Some(Terms { query, key_only: None }),
            (Some(query), Some(with_key)) => {
                let both = BooleanQuery::new(vec![(Occur::Must, query), (Occur::Must, with_key)]);
                Some(Terms { query: Box::new(both), key_only: None })
            }
        })
    }

    /// The key that is searched for, if nothing else is: then no index is needed.
    pub(crate) fn key_only(&self) -> Option<&Bytes> {
        self.key_only.as_ref()
    }

    pub(super) fn weight(&self, searcher: &Searcher) -> Result<Box<dyn Weight>, TantivyError> {
        self.query.weight(EnableScoring::disabled_from_searcher(searcher))
    }
}

fn parse(q: &str) -> Result<Box<dyn Query>> {
    let invalid = |message: String| Error::invalid("q", message);
    if q.len() > QUERY_BYTES_MAX {
        return Err(invalid(format!("a query has at most {QUERY_BYTES_MAX} bytes")));
    }
    let operators = q.matches(['(', '+', '-', '!']).count() + q.matches("NOT").count();
    if operators > OPERATORS_MAX {
        return Err(invalid(format!("a query has at most {OPERATORS_MAX} operators")));
    }
    let mut ast = query_grammar::parse_query(q).map_err(|_| {
        let (_, errors) = query_grammar::parse_query_lenient(q);
        let found = errors.first().map(|error| format!(": {} at position {}", error.message, error.pos));
        invalid(format!("the query cannot be read{}", found.unwrap_or_default()))
    })?;
    into_event(&mut ast);
    complete_exclusions(&mut ast);
    PARSER.build_query_from_user_input_ast(ast).map_err(|error| invalid(error.to_string()))
}

/// Gives clauses that only exclude something to exclude it from: `a AND NOT b` holds one, `NOT b`,
/// which would find nothing by itself.
fn complete_exclusions(ast: &mut UserInputAst) {
    match ast {
        UserInputAst::Clause(children) => {
            children.iter_mut().for_each(|(_, child)| complete_exclusions(child));
            let is_exclusion = |(occur, _): &(Option<Occur>, UserInputAst)| *occur == Some(Occur::MustNot);
            if !children.is_empty() && children.iter().all(is_exclusion) {
                children.push((Some(Occur::Must), UserInputLeaf::All.into()));
            }
        }
        UserInputAst::Boost(child, _) => complete_exclusions(child),
        UserInputAst::Leaf(_) => {}
    }
}

/// Moves every path under the event, so that no path of a user meets a field of the index.
fn into_event(ast: &mut UserInputAst) {
    let under = |path: &mut String| *path = format!("{EVENT}.{path}");
    match ast {
        UserInputAst::Clause(children) => children.iter_mut().for_each(|(_, child)| into_event(child)),
        UserInputAst::Boost(child, _) => into_event(child),
        UserInputAst::Leaf(leaf) => match &mut **leaf {
            UserInputLeaf::Literal(literal) => literal.field_name.iter_mut().for_each(under),
            UserInputLeaf::Range { field, .. }
            | UserInputLeaf::Set { field, .. }
            | UserInputLeaf::Regex { field, .. } => field.iter_mut().for_each(under),
            UserInputLeaf::Exists { field } => under(field),
            UserInputLeaf::All => {}
        },
    }
}

#[cfg(test)]
mod tests {
    use broker::Kind;

    use super::*;

    #[test]
    fn hostile_queries_are_refused_or_parsed_and_never_end_the_process() {
        let parts = [
            "(", "a:(", "-(", "- (a OR ", "(a ", "-", "+", "NOT ", "- ", "!", "\"", "'", "[", "a:[", "a OR ",
            "a AND ", "\\", "/", "a:", "a^", "* ", "a: IN [", "a:>", "{", "a~", "-+", "(-",
        ];
        for part in parts {
            for count in [1, 60, 128, 4_000] {
                let nested = format!("{}a{}", part.repeat(count), ")".repeat(count));
                for q in [part.repeat(count), nested, format!("{}a]", part.repeat(count))] {
                    if let Err(error) = Terms::parse(Some(&q), None) {
                        assert_eq!(
                            (error.kind(), error.field()),
                            (Kind::Invalid, Some("q")),
                            "{part} {count}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn long_queries_of_words_are_taken() {
        assert!(Terms::parse(Some(&"origin:DTW OR ".repeat(500)[..6_900]), None).is_ok());
        assert!(Terms::parse(Some(&"word ".repeat(2_000)), None).is_err());
    }
}
