//! What `serde_json` does not look at while it skips over a value: UTF-8, depth, and escapes that
//! name half a character.

use crate::error::{Error, Result};

/// How deep objects and arrays of an event may be nested. Readers such as `serde_json` give up
/// below 128, and an answer puts an event a few levels deep.
pub const DEPTH_MAX: usize = 120;

/// The event as text, if it is UTF-8.
pub(super) fn text(event: &[u8]) -> Result<&str> {
    std::str::from_utf8(event).map_err(|error| {
        let at = error.valid_up_to();
        invalid(event, at, "the bytes are no UTF-8")
    })
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

/// Checks depth and escapes; the text may still be no JSON.
pub(super) fn check(event: &[u8]) -> Result<()> {
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
pub(super) fn unit(event: &[u8], at: usize) -> Option<u16> {
    let digits = event.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)? as u16))
}
