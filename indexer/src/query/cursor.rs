//! Cursors: a position with a fingerprint of the question, as text that only we read.
//!
//! Version (1 byte), time in microseconds (8), partition (4), offset (8), fingerprint (4), CRC-32 of
//! all that (4), big-endian, in URL-safe base64 without padding.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker::catalog::Stream;
use broker::{Error, Offset, Partition, Result, Timestamp};

use super::Asked;
use super::parse::Bounds;
use crate::split::{Order, Position};

const VERSION: u8 = 1;

/// What tells a question from others: the stream's life, and every parameter but the page's size.
pub(super) fn fingerprint(stream: &Stream, bounds: Bounds, asked: &Asked) -> u32 {
    let parts = (
        stream.name().to_string(),
        stream.definition.incarnation,
        (bounds.from, bounds.to),
        (&asked.q, &asked.key),
        asked.order == Order::Descending,
    );
    let text = serde_json::to_vec(&parts).expect("strings and numbers always become JSON");
    crc32fast::hash(&text)
}

pub(super) fn write(position: Position, fingerprint: u32) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend(position.time.micros().to_be_bytes());
    bytes.extend(position.partition.0.to_be_bytes());
    bytes.extend(position.offset.0.to_be_bytes());
    bytes.extend(fingerprint.to_be_bytes());
    let check = crc32fast::hash(&bytes);
    bytes.extend(check.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn read(cursor: &str, fingerprint: u32) -> Result<Position> {
    let unreadable = || Error::invalid("cursor", "this is not a cursor that was given out");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| unreadable())?;
    let (body, check) = bytes.split_last_chunk::<4>().ok_or_else(unreadable)?;
    if crc32fast::hash(body) != u32::from_be_bytes(*check) || body.first() != Some(&VERSION) {
        return Err(unreadable());
    }
    let (time, rest) = body[1..].split_first_chunk::<8>().ok_or_else(unreadable)?;
    let (partition, rest) = rest.split_first_chunk::<4>().ok_or_else(unreadable)?;
    let (offset, rest) = rest.split_first_chunk::<8>().ok_or_else(unreadable)?;
    if rest != fingerprint.to_be_bytes() {
        return Err(Error::invalid("cursor", "this cursor belongs to another query"));
    }
    let time = Timestamp::from_micros(i64::from_be_bytes(*time)).ok_or_else(unreadable)?;
    let partition = Partition(u32::from_be_bytes(*partition));
    Ok(Position { time, partition, offset: Offset(u64::from_be_bytes(*offset)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_by_its_own_question_only() {
        let time = Timestamp::from_micros(-5).unwrap();
        let position = Position { time, partition: Partition(3), offset: Offset(u64::MAX) };
        let cursor = write(position, 7);
        assert_eq!(read(&cursor, 7).unwrap(), position);
        assert!(read(&cursor, 8).unwrap_err().message().contains("another query"));
        let changed = if cursor.as_bytes()[9] == b'A' { "B" } else { "A" };
        let changed = format!("{}{changed}{}", &cursor[..9], &cursor[10..]);
        for garbage in ["", "x", "AAAA", &cursor[1..], &changed] {
            assert_eq!(read(garbage, 7).unwrap_err().field(), Some("cursor"), "{garbage}");
        }
    }
}
