//! Words and phrases without a path: they are looked for in every string of an event.
//!
//! A piece whose strings stand at few paths is asked at each of these; one with more has a field of all
//! strings. Which paths there are is read from the piece's own dictionary, so nothing has to be told.

use tantivy::query::QueryParserError;
use tantivy::query::{BooleanQuery, EmptyQuery, PhrasePrefixQuery, PhraseQuery, Query};
use tantivy::query_grammar::UserInputLiteral;
use tantivy::schema::Field;
use tantivy::tokenizer::TokenizerManager;
use tantivy::{SegmentReader, TantivyError, Term};

use super::schema::{OF_SPLITS, WORDS};

/// At how many paths the strings of a piece may stand for it to be asked at each: a search for a word
/// costs a look-up for each of them.
pub(super) const PATHS_MAX: usize = 32;
/// How tantivy marks terms that are words, behind their path and [`PATH_END`].
const WORD: u8 = b's';
const PATH_END: u8 = 0;
/// What comes right after every term of a path.
const PATH_PAST: u8 = 1;

/// A word, or a phrase of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words {
    /// Each with its place.
    words: Vec<(usize, String)>,
    slop: u32,
    /// Whether the last one is the beginning of a word.
    is_prefix: bool,
}

impl Words {
    /// What a query has without a path; no words if it has none that are indexed.
    pub(super) fn parse(literal: &UserInputLiteral) -> Result<Self, QueryParserError> {
        let tokenizer = || WORDS.to_owned();
        let mut analyzer = TokenizerManager::default().get(WORDS).ok_or_else(|| {
            QueryParserError::UnknownTokenizer { field: String::new(), tokenizer: tokenizer() }
        })?;
        let mut words = Vec::new();
        let mut found = analyzer.token_stream(&literal.phrase);
        found.process(&mut |token| words.push((token.position, token.text.clone())));
        if words.len() <= 1 && literal.prefix {
            let phrase = literal.phrase.clone();
            let tokenizer = tokenizer();
            return Err(QueryParserError::PhrasePrefixRequiresAtLeastTwoTerms { phrase, tokenizer });
        }
        Ok(Self { words, slop: literal.slop, is_prefix: literal.prefix })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Whether it is one word.
    pub(super) fn is_single(&self) -> bool {
        self.words.len() == 1
    }

    /// The terms that one word is found by in a piece whose strings stand at `strings`.
    pub(super) fn terms(&self, strings: &Strings) -> Vec<Term> {
        let words = self.words.iter().map(|(_, word)| word);
        match strings {
            Strings::Anywhere => words.map(|word| text(word)).collect(),
            Strings::At(paths) => words.flat_map(|word| paths.iter().map(|path| path.term(word))).collect(),
        }
    }

    /// The question for a phrase.
    pub(super) fn phrase(
        &self,
        segment: &SegmentReader,
        strings: &Strings,
    ) -> Result<Box<dyn Query>, TantivyError> {
        match strings {
            Strings::At(paths) => self.at_each(segment, paths),
            // A phrase with words between might reach from one string into another there.
            Strings::Anywhere if self.slop > 0 => self.at_each(segment, &paths_of(segment)?),
            Strings::Anywhere => {
                let terms = self.words.iter().map(|(place, word)| (*place, text(word)));
                Ok(self.of_terms(terms.collect()))
            }
        }
    }

    fn at_each(&self, segment: &SegmentReader, paths: &[StringPath]) -> Result<Box<dyn Query>, TantivyError> {
        let mut queries = Vec::new();
        for path in paths {
            let terms: Vec<_> = self.words.iter().map(|(place, word)| (*place, path.term(word))).collect();
            // A word of which only the beginning is known is in no dictionary as it is.
            let whole = &terms[..terms.len() - usize::from(self.is_prefix)];
            let dictionary = segment.inverted_index(path.field)?;
            let mut has_all = true;
            for (_, term) in whole {
                has_all = has_all && dictionary.get_term_info(term)?.is_some();
            }
            if has_all {
                queries.push(self.of_terms(terms));
            }
        }
        Ok(match queries.len() {
            0 => Box::new(EmptyQuery),
            1 => queries.remove(0),
            _ => Box::new(BooleanQuery::union(queries)),
        })
    }

    fn of_terms(&self, terms: Vec<(usize, Term)>) -> Box<dyn Query> {
        if self.is_prefix {
            return Box::new(PhrasePrefixQuery::new_with_offset(terms));
        }
        Box::new(PhraseQuery::new_with_offset_and_slop(terms, self.slop))
    }
}

/// A word in the field of all strings.
fn text(word: &str) -> Term {
    Term::from_field_text(OF_SPLITS.text, word)
}

/// Where the strings of a piece are found.
#[derive(Debug)]
pub(super) enum Strings {
    At(Vec<StringPath>),
    /// In the field of all strings.
    Anywhere,
}

/// A path that strings stand at.
#[derive(Debug)]
pub(super) struct StringPath {
    field: Field,
    /// What all words there begin with in the dictionary.
    beginning: Vec<u8>,
}

impl StringPath {
    fn term(&self, word: &str) -> Term {
        let mut term = Term::from_field_json_path(self.field, "", false);
        term.truncate_value_bytes(0);
        term.append_bytes(&self.beginning);
        term.append_bytes(word.as_bytes());
        term
    }
}

impl Strings {
    /// Reads it from a piece's dictionary.
    pub(super) fn of(segment: &SegmentReader) -> Result<Self, TantivyError> {
        if segment.inverted_index(OF_SPLITS.text)?.terms().num_terms() > 0 {
            return Ok(Self::Anywhere);
        }
        paths_of(segment).map(Self::At)
    }
}

/// Every path that strings stand at.
fn paths_of(segment: &SegmentReader) -> Result<Vec<StringPath>, TantivyError> {
    let mut paths = Vec::new();
    for field in [OF_SPLITS.event, OF_SPLITS.apart] {
        let index = segment.inverted_index(field)?;
        let mut from: Vec<u8> = Vec::new();
        while let Some(mut path) = first_term(index.terms(), &from)? {
            let Some(end) = path.iter().position(|byte| *byte == PATH_END) else { break };
            path.truncate(end + 1);
            path.push(WORD);
            if first_term(index.terms(), &path)?.is_some_and(|term| term.starts_with(&path)) {
                paths.push(StringPath { field, beginning: path.clone() });
            }
            path.truncate(end);
            path.push(PATH_PAST);
            from = path;
        }
    }
    Ok(paths)
}

/// The first term that is `from` or comes after it.
fn first_term(
    terms: &tantivy::termdict::TermDictionary,
    from: &[u8],
) -> Result<Option<Vec<u8>>, TantivyError> {
    let mut stream = terms.range().ge(from).into_stream()?;
    Ok(stream.advance().then(|| stream.key().to_vec()))
}

#[cfg(test)]
mod tests {
    use broker::{Entry, Offset, Record, Timestamp};

    use super::*;
    use crate::split::{Order, Segment, Take, Terms, searchable};

    const EVENTS: [&str; 8] = [
        r#"{"origin":"DTW","note":"heavy snow on the wing"}"#,
        r#"{"tags":["heavy","snow"],"n":42}"#,
        r#"{"a":"heavy","b":"snow"}"#,
        r#"{"time":"2001-01-05T10:00:00Z","when":["2001-01-05"]}"#,
        r#"{"n\u0000":{"x":["hidden words here"]}}"#,
        r#""Just text""#,
        r#"{"a":"42","b":42,"c":null}"#,
        r#"{"x":{"y.z":{"y":"Snow"}}}"#,
    ];

    const QUESTIONS: [(&str, &[u32]); 20] = [
        ("snow", &[0, 1, 2, 7]),
        ("SNOW", &[0, 1, 2, 7]),
        ("\"heavy snow\"", &[0]),
        ("\"snow heavy\"", &[]),
        ("\"heavy sn\"*", &[0]),
        ("\"snow wing\"~2", &[0]),
        // From one string of a list into the next, but not into another field.
        ("\"heavy snow\"~1", &[0, 1]),
        ("heavy snow", &[0, 1, 2]),
        ("heavy -wing", &[1, 2]),
        ("-snow", &[3, 4, 5, 6]),
        ("2001", &[3]),
        ("2001-01-05", &[3]),
        ("\"2001 01 05t10 00\"", &[3]),
        ("10", &[]),
        ("\"hidden words\" OR just", &[4, 5]),
        ("(here OR wing) words", &[4]),
        ("42", &[6]),
        ("b:42 42", &[6]),
        ("text^2 \"just text\"", &[5]),
        ("\"--\"", &[]),
    ];

    fn piece(events: &[String]) -> Segment {
        let entry = |(offset, value): (u64, &String)| Entry {
            offset: Offset(offset),
            record: Record::new(value.clone(), Timestamp::MIN),
        };
        searchable(&(0..).zip(events).map(entry).collect::<Vec<_>>()).unwrap()
    }

    fn check(piece: &Segment, (q, wanted): (&str, &[u32])) {
        let terms = Terms::parse(Some(q), None).unwrap().unwrap();
        let take = Take { order: Order::Ascending, limit: 100 };
        assert_eq!(piece.find(&terms, 0..EVENTS.len() as u32, take).unwrap(), wanted, "{q}");
    }

    #[test]
    fn words_without_a_path_are_found_in_every_string() {
        let piece = piece(&EVENTS.map(str::to_owned));
        QUESTIONS.iter().for_each(|question| check(&piece, *question));
        let at = |strings: &Strings| matches!(strings, Strings::At(paths) if paths.len() == 10);
        assert!(at(&Strings::of(piece.reader()).unwrap()));
    }

    #[test]
    fn answers_are_the_same_where_strings_stand_at_many_paths() {
        let wide: Vec<String> = (0..=PATHS_MAX).map(|number| format!("\"f{number}\":\"snow\"")).collect();
        let mut events: Vec<String> = EVENTS.map(str::to_owned).into();
        events.push(format!("{{{}}}", wide.join(",")));
        let piece = piece(&events);
        QUESTIONS.iter().for_each(|question| check(&piece, *question));
        assert!(matches!(Strings::of(piece.reader()).unwrap(), Strings::Anywhere));
    }

    #[test]
    fn a_piece_without_strings_finds_no_words() {
        let piece = piece(&vec!["{\"n\":1}".to_owned(); EVENTS.len()]);
        check(&piece, ("snow", &[]));
        check(&piece, ("\"heavy snow\"~1", &[]));
    }
}
