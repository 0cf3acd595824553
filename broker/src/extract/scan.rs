//! The quick way through an event: one pass over its bytes, several at a time within strings.
//!
//! It takes nothing that is not JSON, and says nothing about what it does not take: errors, names that
//! are written with escapes and paths through arrays are left to [`super::walk`].

use super::syntax::{DEPTH_MAX, unit};
use super::walk::{Found, Wanted};

const WORD_BYTES: usize = 8;
/// Every byte of a word is one.
const ONES: u64 = u64::MAX / 0xff;
/// The highest bit of every byte of a word.
const HIGHS: u64 = ONES << 7;
/// The first byte that is no control character.
const SPACE: u8 = b' ';

/// Finds what is wanted in a whole event. None leaves the event to the walk.
pub(super) fn find<'e>(event: &'e str, wanted: Wanted<'_>) -> Option<Found<'e>> {
    let mut scan = Scan { event, found: Found::default() };
    let rest = scan.value(past_space(event.as_bytes()), wanted, 0)?;
    past_space(rest).is_empty().then_some(scan.found)
}

/// Whatever reads takes what is left of the event, and answers what is left after it.
struct Scan<'e> {
    event: &'e str,
    found: Found<'e>,
}

impl<'e> Scan<'e> {
    /// A value at `depth`.
    fn value<'r>(&mut self, rest: &'r [u8], wanted: Wanted<'_>, depth: usize) -> Option<&'r [u8]> {
        if wanted.is_empty() {
            return skip(rest, depth);
        }
        let (ending, going_on) = wanted.split(depth);
        if ending.is_empty() {
            return match rest.first()? {
                b'{' => self.object(rest, going_on, depth),
                b'[' => None,
                _ => skip(rest, depth),
            };
        }
        if !going_on.is_empty() {
            return None;
        }
        let after = skip(rest, depth)?;
        let (start, end) = (self.event.len() - rest.len(), self.event.len() - after.len());
        self.found.set(ending, Some(&self.event[start..end]));
        Some(after)
    }

    /// An object that something is wanted of.
    fn object<'r>(&mut self, rest: &'r [u8], wanted: Wanted<'_>, depth: usize) -> Option<&'r [u8]> {
        let mut rest = opened(rest, depth)?;
        if let [b'}', after @ ..] = rest {
            return Some(after);
        }
        loop {
            let named = rest.strip_prefix(b"\"")?;
            let after = past_plain(named);
            let name = &named[..named.len() - after.len()];
            let after = after.strip_prefix(b"\"")?;
            let below = wanted.at(depth, |token| token.as_bytes() == name);
            self.found.set(below, None);
            let after = self.value(past_colon(after)?, below, depth + 1)?;
            match past_space(after) {
                [b',', after @ ..] => rest = past_space(after),
                [b'}', after @ ..] => return Some(after),
                _ => return None,
            }
        }
    }
}

fn past_space(mut rest: &[u8]) -> &[u8] {
    while let [b' ' | b'\n' | b'\r' | b'\t', after @ ..] = rest {
        rest = after;
    }
    rest
}

fn past_colon(rest: &[u8]) -> Option<&[u8]> {
    past_space(rest).strip_prefix(b":").map(past_space)
}

/// From the opening of an object or array that stands at `depth` to what it begins with.
fn opened(rest: &[u8], depth: usize) -> Option<&[u8]> {
    (depth < DEPTH_MAX).then(|| past_space(&rest[1..]))
}

/// Any value at `depth`.
fn skip(rest: &[u8], depth: usize) -> Option<&[u8]> {
    match rest.first()? {
        b'"' => string(rest),
        b'{' => object(rest, depth),
        b'[' => array(rest, depth),
        b't' => rest.strip_prefix(b"true"),
        b'f' => rest.strip_prefix(b"false"),
        b'n' => rest.strip_prefix(b"null"),
        _ => number(rest),
    }
}

fn object(rest: &[u8], depth: usize) -> Option<&[u8]> {
    let mut rest = opened(rest, depth)?;
    if let [b'}', after @ ..] = rest {
        return Some(after);
    }
    loop {
        let after = skip(past_colon(string(rest)?)?, depth + 1)?;
        match past_space(after) {
            [b',', after @ ..] => rest = past_space(after),
            [b'}', after @ ..] => return Some(after),
            _ => return None,
        }
    }
}

fn array(rest: &[u8], depth: usize) -> Option<&[u8]> {
    let mut rest = opened(rest, depth)?;
    if let [b']', after @ ..] = rest {
        return Some(after);
    }
    loop {
        match past_space(skip(rest, depth + 1)?) {
            [b',', after @ ..] => rest = past_space(after),
            [b']', after @ ..] => return Some(after),
            _ => return None,
        }
    }
}

fn number(rest: &[u8]) -> Option<&[u8]> {
    let rest = rest.strip_prefix(b"-").unwrap_or(rest);
    let mut rest = match rest {
        [b'0', after @ ..] => after,
        _ => digits(rest)?,
    };
    if let [b'.', after @ ..] = rest {
        rest = digits(after)?;
    }
    if let [b'e' | b'E', after @ ..] = rest {
        let after = after.strip_prefix(b"+").or_else(|| after.strip_prefix(b"-")).unwrap_or(after);
        rest = digits(after)?;
    }
    Some(rest)
}

/// One digit or more.
fn digits(rest: &[u8]) -> Option<&[u8]> {
    let [b'0'..=b'9', rest @ ..] = rest else { return None };
    let mut rest = rest;
    while let [b'0'..=b'9', after @ ..] = rest {
        rest = after;
    }
    Some(rest)
}

fn string(rest: &[u8]) -> Option<&[u8]> {
    let [b'"', rest @ ..] = rest else { return None };
    let mut rest = past_plain(rest);
    loop {
        match rest {
            [b'"', after @ ..] => return Some(after),
            _ => rest = past_plain(escape(rest)?),
        }
    }
}

/// From the next byte on that means something within a string.
fn past_plain(mut rest: &[u8]) -> &[u8] {
    while let Some((word, after)) = rest.split_first_chunk::<WORD_BYTES>() {
        let marks = marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return &rest[marks.trailing_zeros() as usize / 8..];
        }
        rest = after;
    }
    let is_plain = |byte: &u8| *byte >= SPACE && *byte != b'"' && *byte != b'\\';
    while let Some((_, after)) = rest.split_first().filter(|(byte, _)| is_plain(byte)) {
        rest = after;
    }
    rest
}

fn escape(rest: &[u8]) -> Option<&[u8]> {
    let [b'\\', kind, ..] = rest else { return None };
    let bytes = match kind {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
        b'u' => match (unit(rest, 0)?, unit(rest, 6)) {
            (0xd800..=0xdbff, Some(0xdc00..=0xdfff)) => 12,
            (0xd800..=0xdfff, _) => return None,
            _ => 6,
        },
        _ => return None,
    };
    rest.get(bytes..)
}

/// Marks bytes of a word that are a quote, a backslash or a control character. The lowest mark is right;
/// above it there may be some too many, since a subtraction borrows from the next byte.
fn marks(word: u64) -> u64 {
    let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, SPACE) | is(b'"') | is(b'\\')) & HIGHS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::walk::Path;
    use super::super::{syntax, walk};
    use super::*;

    const NOTHING: Wanted<'_> = Wanted { time: None, key: None };

    /// What the walk finds, if the event is JSON.
    fn walked<'e>(event: &'e str, wanted: Wanted<'_>) -> Option<Found<'e>> {
        syntax::check(event.as_bytes()).and_then(|()| walk::find(event, wanted)).ok()
    }

    fn check(event: &str) {
        let (time, key) = (Path::name("a"), Path::parse("/b/a"));
        let wanted = Wanted { time: time.as_ref(), key: key.as_ref() };
        if let Some(found) = find(event, wanted) {
            assert_eq!(Some(found), walked(event, wanted), "{event}");
        }
        let is_json = walked(event, NOTHING).is_some();
        assert_eq!(find(event, NOTHING).is_some(), is_json, "{event}");
    }

    #[test]
    fn takes_events_as_machines_write_them() {
        for event in [
            r#"{"date":"2001/01/01 00:47","delay":-66.5e+1,"a":"DTW","b":{"x":[1,[],{}],"a":true}}"#,
            "{ \"b\" : { \"a\" : \"caf\u{e9} \\u00e9 \\ud83d\\ude00 \\\"\" } ,\r\n\t\"a\" : null }",
            r#"{"a":1,"a":{"b":2},"b":3}"#,
        ] {
            let (time, key) = (Path::name("a"), Path::parse("/b/a"));
            let wanted = Wanted { time: time.as_ref(), key: key.as_ref() };
            assert!(find(event, wanted).is_some_and(|found| Some(found) == walked(event, wanted)), "{event}");
        }
    }

    #[test]
    fn every_byte_within_a_string_counts_wherever_it_stands() {
        for before in 0..20 {
            for byte in (0..0x80_u8).filter(u8::is_ascii) {
                let filling = "\u{e6}".repeat(before / 2) + &"x".repeat(before % 2);
                check(&format!("{{\"a\":\"{filling}{}{filling}\"}}", char::from(byte)));
            }
        }
    }

    #[test]
    fn is_as_strict_as_the_walk() {
        for event in [
            "",
            " ",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{a:1}",
            "{}{}",
            "01",
            "-",
            "-01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "tru",
            "truee",
            "nul",
            "\"",
            "\"\\",
            "\"\\u",
            "\"\\u+0ff\"",
            "\"\\u00e\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\\ud800\\u0041\"",
            "\u{feff}{}",
            "{\"a\":1e400}",
            "-0.0E-7",
            "]",
            "}",
        ] {
            check(event);
        }
        for depth in [DEPTH_MAX, DEPTH_MAX + 1] {
            check(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
            check(&format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn agrees_with_the_walk_on_anything(event in "[\\[\\]{}\",:01.eE+a\\\\ud8 \n-]{0,24}") {
            check(&event);
        }

        #[test]
        fn agrees_with_the_walk_on_what_is_nearly_an_event(
            pieces in prop::collection::vec(
                prop::sample::select(vec![
                    "{", "}", "[", "]", ",", ":", "\"a\"", "\"b\"", "\"a\":", "\"b\":", "1", "-0.5e3", "true", "null",
                    " ", "\"\\u00e6\"", "\"\\ud83d\\ude00\"", "\"\\ud83d\"", "{\"a\":1}", "\"b\":{\"a\":[]},", "\"\\u0061\":",
                ]),
                0..14,
            ),
        ) {
            check(&pieces.concat());
            check(&format!("{{\"b\":{{{}}},\"a\":7}}", pieces.concat()));
        }
    }
}
