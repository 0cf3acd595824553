//! What `serde_json` does not look at while it skips over a value: UTF-8, depth, and escapes that
//! name half a character.

use crate::error::{Error, Result};

/// How deep objects and arrays of an event may be nested. Readers such as `serde_json` give up
/// below 128, and an answer puts an event a few levels deep.
pub const DEPTH_MAX: usize = 120;

const PIECE_BYTES: usize = u8::MAX as usize;

/// Checks what the parser leaves open; the text may still be no JSON.
pub(super) fn check(event: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(event).map_err(|error| {
        let at = error.valid_up_to();
        invalid(event, at, "the bytes are no UTF-8")
    })?;
    // Both looks run at the speed of memory; almost no event needs the walk.
    if openings(event) > DEPTH_MAX || memchr::memchr(b'\\', event).is_some() {
        walk(event)?;
    }
    Ok(text)
}

/// Counted in pieces whose sums fit into a byte, so that many bytes are counted in one step.
fn openings(event: &[u8]) -> usize {
    let is_opening = |byte: &u8| u8::from(matches!(byte, b'{' | b'['));
    event.chunks(PIECE_BYTES).map(|piece| usize::from(piece.iter().map(is_opening).sum::<u8>())).sum()
}

/// An error of the event's syntax, with the place counted in bytes: line and column from 1, byte
/// from 0.
pub(super) fn invalid(event: &[u8], at: usize, message: &str) -> Error {
    let before = &event[..at.min(event.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let column = before.len() - line_start + 1;
    let message =
        format!("the event is not valid JSON: {message} at line {line} column {column} (byte {at})");
    Error::invalid("value", message)
}

fn walk(event: &[u8]) -> Result<()> {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = event.get(at) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    let message = format!("it is nested more than {DEPTH_MAX} deep");
                    return Err(invalid(event, at, &message));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                at = skip_string(event, at + 1)?;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// From after a string's opening quote to after its closing one.
fn skip_string(event: &[u8], mut at: usize) -> Result<usize> {
    while let Some(byte) = event.get(at) {
        at += match (byte, event.get(at + 1)) {
            (b'"', _) => return Ok(at + 1),
            (b'\\', Some(b'u')) => match (unit(event, at), unit(event, at + 6)) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
                (Some(0xd800..=0xdfff), _) => {
                    return Err(invalid(event, at, "an escape names half of a surrogate pair"));
                }
                _ => 2,
            },
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    Ok(at)
}

/// The UTF-16 unit of a `\uXXXX` that starts at `at`.
fn unit(event: &[u8], at: usize) -> Option<u16> {
    let escape = event.get(at..at + 6)?;
    let digits = std::str::from_utf8(escape.strip_prefix(b"\\u")?).ok()?;
    u16::from_str_radix(digits, 16).ok()
}
