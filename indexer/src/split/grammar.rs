//! Tantivy's query grammar over events. A path (`origin:DTW`, `delay:[10 TO 50]`, `a.b:*`) is a
//! path into the event's JSON, whatever fields the index itself has; a word or phrase without a
//! path is looked for in every string of the event. Words side by side must all be there.

use std::sync::{Arc, LazyLock};

use broker::{Error, Result};
use bytes::Bytes;
use tantivy::query::{BooleanQuery, EmptyQuery, Occur, Query, QueryParser, QueryParserError, TermQuery};
use tantivy::query_grammar::{self, UserInputAst, UserInputLeaf};
use tantivy::schema::IndexRecordOption;
use tantivy::tokenizer::TokenizerManager;
use tantivy::{TantivyError, Term};

use super::every::EveryWord;
use super::schema::{EVENT, OF_SPLITS};
use super::segment::Segment;
use super::strings::Words;

/// The longest query, in bytes.
const QUERY_BYTES_MAX: usize = 8 << 10;
/// The longest key that is searched for, in bytes: tantivy indexes no longer terms.
const KEY_BYTES_MAX: usize = 64_000;
/// The most signs in a query that may nest, since the parser goes down the stack with each.
const OPERATORS_MAX: usize = 128;

static PARSER: LazyLock<QueryParser> = LazyLock::new(|| {
    let fields = &*OF_SPLITS;
    QueryParser::new(fields.schema.clone(), Vec::new(), TokenizerManager::default())
});

/// What events are searched for, other than their time. Parsed once, for every piece.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// The whole condition.
    condition: Arc<Condition>,
    /// The key, if that is the whole condition.
    key_only: Option<Bytes>,
    has_ranges: bool,
}

/// A condition as it is before a piece is asked.
#[derive(Debug)]
enum Condition {
    /// Several; without any it is as if it were not there.
    Clauses(Vec<(Occur, Condition)>),
    /// The same question to every piece.
    Query(Box<dyn Query>),
    /// The same, of a range or `*` at a path.
    Range(Box<dyn Query>),
    /// Each piece has its own question for it.
    Words(Words),
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
            Condition::Query(Box::new(TermQuery::new(term, IndexRecordOption::Basic)))
        });
        let key_only = key.filter(|_| q.is_none()).map(|key| Bytes::copy_from_slice(key.as_bytes()));
        let has_ranges = q.as_ref().is_some_and(Condition::has_ranges);
        let condition = match (q, with_key) {
            (None, None) => return Ok(None),
            (Some(condition), None) | (None, Some(condition)) => condition,
            (Some(q), Some(with_key)) => {
                // What has no words at all finds nothing, with a key as well.
                let nothing = || Condition::Query(Box::new(EmptyQuery));
                let q = if q.is_empty() { nothing() } else { q };
                Condition::Clauses(vec![(Occur::Must, q), (Occur::Must, with_key)])
            }
        };
        Ok(Some(Terms { condition: Arc::new(condition), key_only, has_ranges }))
    }

    /// The key that is searched for, if nothing else is: then no index is needed.
    pub(crate) fn key_only(&self) -> Option<&Bytes> {
        self.key_only.as_ref()
    }

    /// Whether there are ranges or `*` in it, which only columns answer.
    pub(crate) fn has_ranges(&self) -> bool {
        self.has_ranges
    }

    /// The question to a piece.
    pub(super) fn query(&self, segment: &Segment) -> Result<Box<dyn Query>, TantivyError> {
        let query = self.condition.query(segment)?;
        Ok(query.unwrap_or_else(|| Box::new(EmptyQuery)))
    }
}

impl Condition {
    fn query(&self, segment: &Segment) -> Result<Option<Box<dyn Query>>, TantivyError> {
        Ok(match self {
            Self::Clauses(clauses) => of_clauses(clauses, segment)?,
            Self::Query(query) | Self::Range(query) => Some(query.box_clone()),
            Self::Words(words) if words.is_single() => {
                Some(Box::new(EveryWord(vec![words.terms(segment.strings()?)])))
            }
            Self::Words(words) => Some(words.phrase(segment.reader(), segment.strings()?)?),
        })
    }

    /// Whether there is nothing in it to look for.
    fn is_empty(&self) -> bool {
        match self {
            Self::Clauses(clauses) => clauses.iter().all(|(_, clause)| clause.is_empty()),
            Self::Query(_) | Self::Range(_) | Self::Words(_) => false,
        }
    }

    fn has_ranges(&self) -> bool {
        match self {
            Self::Clauses(clauses) => clauses.iter().any(|(_, clause)| clause.has_ranges()),
            Self::Range(_) => true,
            Self::Query(_) | Self::Words(_) => false,
        }
    }

    /// Whether it only excludes, and would find nothing.
    fn is_exclusion(&self) -> bool {
        match self {
            Self::Clauses(clauses) => {
                clauses.iter().all(|(occur, clause)| *occur == Occur::MustNot || clause.is_exclusion())
            }
            Self::Query(_) | Self::Range(_) | Self::Words(_) => false,
        }
    }
}

/// What all clauses ask for together; single words that must be there are looked for at once.
fn of_clauses(
    clauses: &[(Occur, Condition)],
    segment: &Segment,
) -> Result<Option<Box<dyn Query>>, TantivyError> {
    let (mut words, mut queries) = (Vec::new(), Vec::with_capacity(clauses.len()));
    for (occur, clause) in clauses {
        match clause {
            Condition::Words(word) if *occur == Occur::Must && word.is_single() => {
                words.push(word.terms(segment.strings()?));
            }
            _ => queries.extend(clause.query(segment)?.map(|query| (*occur, query))),
        }
    }
    if !words.is_empty() {
        queries.push((Occur::Must, Box::new(EveryWord(words)) as Box<dyn Query>));
    }
    Ok(match &queries[..] {
        [] => None,
        [(Occur::Must | Occur::Should, _)] => queries.pop().map(|(_, query)| query),
        _ => Some(Box::new(BooleanQuery::new(queries))),
    })
}

fn parse(q: &str) -> Result<Condition> {
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
    let condition = condition(ast).map_err(|error| invalid(error.to_string()))?;
    let has_clauses = !matches!(&condition, Condition::Clauses(clauses) if clauses.is_empty());
    if has_clauses && condition.is_exclusion() {
        return Err(invalid(QueryParserError::AllButQueryForbidden.to_string()));
    }
    Ok(condition)
}

/// What a clause means, as tantivy's parser takes it; clauses without words stay, and are empty. Nothing
/// is ranked here, so boosts mean nothing.
fn condition(ast: UserInputAst) -> std::result::Result<Condition, QueryParserError> {
    match ast {
        UserInputAst::Clause(children) => {
            let clauses = children.into_iter().map(|(occur, child)| {
                let child = condition(child)?;
                Ok((occur.unwrap_or(Occur::Must), child))
            });
            Ok(Condition::Clauses(clauses.collect::<std::result::Result<_, QueryParserError>>()?))
        }
        UserInputAst::Boost(child, _) => condition(*child),
        UserInputAst::Leaf(leaf) => match *leaf {
            UserInputLeaf::Literal(literal) if literal.field_name.is_none() => {
                let words = Words::parse(&literal)?;
                Ok(if words.is_empty() { Condition::Clauses(Vec::new()) } else { Condition::Words(words) })
            }
            leaf => {
                let is_range = matches!(leaf, UserInputLeaf::Range { .. } | UserInputLeaf::Exists { .. });
                let query = PARSER.build_query_from_user_input_ast(leaf.into())?;
                Ok(match query.is::<EmptyQuery>() {
                    true => Condition::Clauses(Vec::new()),
                    false if is_range => Condition::Range(query),
                    false => Condition::Query(query),
                })
            }
        },
    }
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
