//! What a server sends and reads of the websocket protocol (RFC 6455). Events are written as frames once
//! for all subscribers, as a server's frames are the same for everyone; of what clients send, pings are
//! answered, a close is, too, and data is read over.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf as _, BufMut as _, BytesMut};
use sha1::{Digest as _, Sha1};

/// What a key is answered with (RFC 6455, 1.3).
const ACCEPT: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The most bytes that a ping, a pong or a close holds.
const CONTROL_BYTES_MAX: usize = 125;
/// Bytes of a key, decoded.
const KEY_BYTES: usize = 16;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// Why a connection is closed (RFC 6455, 7.4.1; those from 4000 on are ours).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// Whoever closes is done.
    Normal = 1000,
    /// The server stops.
    GoingAway = 1001,
    /// A frame that the protocol does not allow.
    Protocol = 1002,
    /// Whoever subscribed may not any more.
    Policy = 1008,
    /// Something broke here.
    Failure = 1011,
    /// Events are gone that were not sent yet.
    Missed = 4000,
}

/// The answer to a client's key; none if it is no key.
pub(crate) fn accept(key: &[u8]) -> Option<String> {
    let is_key = BASE64_STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == KEY_BYTES);
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(ACCEPT);
    is_key.then(|| BASE64_STANDARD.encode(hash.finalize()))
}

/// Appends an event as a frame: text, or binary where it is none.
pub(crate) fn put_event(payload: &[u8], out: &mut Vec<u8>) {
    let opcode = if std::str::from_utf8(payload).is_ok() { TEXT } else { BINARY };
    put(opcode, payload, out);
}

/// A frame of text.
pub(crate) fn text(payload: &str) -> Vec<u8> {
    framed(TEXT, payload.as_bytes())
}

/// A ping without a payload.
pub(crate) fn ping() -> Vec<u8> {
    framed(PING, &[])
}

/// The answer to a ping.
pub(crate) fn pong(payload: &[u8]) -> Vec<u8> {
    framed(PONG, payload)
}

/// The last frame. Of a long reason as much is said as there is room for.
pub(crate) fn close(code: Code, reason: &str) -> Vec<u8> {
    let mut payload = (code as u16).to_be_bytes().to_vec();
    let mut end = reason.len().min(CONTROL_BYTES_MAX - payload.len());
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    framed(CLOSE, &payload)
}

fn framed(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 4);
    put(opcode, payload, &mut out);
    out
}

fn put(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(payload.len() + 10);
    out.push(FINAL | opcode);
    match payload.len() {
        length @ 0..=125 => out.put_u8(length as u8),
        length @ 126..=0xffff => {
            out.put_u8(126);
            out.put_u16(length as u16);
        }
        length => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
    out.extend_from_slice(payload);
}

/// What a client sent that asks for something.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// Wants this back.
    Ping(Vec<u8>),
    /// Is still there.
    Pong,
    /// Wants to end it.
    Close,
}

/// A frame that the protocol does not allow, and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) &'static str);

/// Takes a client's frames apart as they come.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Bytes of a data frame that are still to come, and are read over.
    ahead: u64,
    /// Whether a message has begun that further frames go on with.
    is_fragmented: bool,
}

impl Frames {
    /// The next thing that was told; none where `buffer` holds no whole control frame. Takes what it
    /// has read off `buffer`, which is never left with more than a control frame.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Told>, Violation> {
        loop {
            let skipped = self.ahead.min(buffer.len() as u64);
            buffer.advance(usize::try_from(skipped).unwrap_or(buffer.len()));
            self.ahead -= skipped;
            let Some(head) = Head::read(buffer)? else { return Ok(None) };
            if head.opcode < CLOSE {
                self.begin(&head)?;
                buffer.advance(head.bytes);
                self.ahead = head.length;
                continue;
            }
            let length = head.control_length()?;
            let Some(frame) = buffer.get(..head.bytes + length) else { return Ok(None) };
            let payload = frame[head.bytes..].iter().zip(head.mask.iter().cycle());
            let payload: Vec<u8> = payload.map(|(byte, mask)| byte ^ mask).collect();
            buffer.advance(head.bytes + length);
            return match head.opcode {
                PING => Ok(Some(Told::Ping(payload))),
                PONG => Ok(Some(Told::Pong)),
                CLOSE if payload.len() == 1 => Err(Violation("a close has no code of one byte")),
                CLOSE => Ok(Some(Told::Close)),
                _ => Err(Violation("there are no control frames of this kind")),
            };
        }
    }

    fn begin(&mut self, head: &Head) -> Result<(), Violation> {
        match (head.opcode, self.is_fragmented) {
            (CONTINUATION, true) | (TEXT | BINARY, false) => {}
            (CONTINUATION, false) => return Err(Violation("there is no message to go on with")),
            (TEXT | BINARY, true) => return Err(Violation("the message before has no end")),
            _ => return Err(Violation("there are no data frames of this kind")),
        }
        self.is_fragmented = !head.is_final;
        Ok(())
    }
}

/// The beginning of a frame.
struct Head {
    is_final: bool,
    opcode: u8,
    length: u64,
    mask: [u8; 4],
    /// How long the head is itself.
    bytes: usize,
}

impl Head {
    /// None where it has not arrived whole.
    fn read(buffer: &[u8]) -> Result<Option<Self>, Violation> {
        let mut rest = buffer;
        if rest.len() < 2 {
            return Ok(None);
        }
        let (first, second) = (rest.get_u8(), rest.get_u8());
        if first & 0x70 != 0 {
            return Err(Violation("no extension was agreed on"));
        }
        if second & MASKED == 0 {
            return Err(Violation("a client masks its frames"));
        }
        let length = match second & !MASKED {
            126 if rest.len() >= 2 => u64::from(rest.get_u16()),
            127 if rest.len() >= 8 => rest.get_u64(),
            126 | 127 => return Ok(None),
            length => u64::from(length),
        };
        let Some((mask, rest)) = rest.split_first_chunk() else { return Ok(None) };
        let (is_final, opcode) = (first & FINAL != 0, first & 0x0f);
        Ok(Some(Self { is_final, opcode, length, mask: *mask, bytes: buffer.len() - rest.len() }))
    }

    fn control_length(&self) -> Result<usize, Violation> {
        let length = usize::try_from(self.length).unwrap_or(usize::MAX);
        match (self.is_final, length) {
            (true, ..=CONTROL_BYTES_MAX) => Ok(length),
            (true, _) => Err(Violation("a control frame has at most 125 bytes")),
            (false, _) => Err(Violation("a control frame has no fragments")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a client sends it.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put(0, payload, &mut out);
        let mask = [1, 2, 3, 4];
        let head = out.len() - payload.len();
        let body: Vec<u8> = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        (out[0], out[1]) = (first, out[1] | MASKED);
        [&out[..head], &mask, &body].concat()
    }

    fn told(bytes: &[u8]) -> Result<Vec<Told>, Violation> {
        let (mut frames, mut buffer, mut told) = (Frames::default(), BytesMut::new(), Vec::new());
        // A byte at a time, so that nothing hangs on how they arrive.
        for byte in bytes {
            buffer.put_u8(*byte);
            while let Some(one) = frames.next(&mut buffer)? {
                told.push(one);
            }
            assert!(buffer.len() < 14 + CONTROL_BYTES_MAX);
        }
        assert!(buffer.is_empty());
        Ok(told)
    }

    #[test]
    fn the_answer_to_a_key_is_the_one_of_the_rfc() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ==").unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for wrong in [&b""[..], b"dGhlIHNhbXBsZSBub25jZQ", b"dGhlIHNhbXBsZQ==", b"!"] {
            assert_eq!(accept(wrong), None);
        }
    }

    #[test]
    fn control_frames_are_told_and_data_is_read_over() {
        let bytes = [
            masked(FINAL | TEXT, b"hello"),
            masked(FINAL | PING, b"mine"),
            masked(BINARY, &[7; 300]),
            masked(FINAL | PONG, b""),
            masked(FINAL | CONTINUATION, &vec![7; 70_000]),
            masked(FINAL | TEXT, b""),
            masked(FINAL | CLOSE, &1000_u16.to_be_bytes()),
        ];
        assert_eq!(told(&bytes.concat()), Ok(vec![Told::Ping(b"mine".to_vec()), Told::Pong, Told::Close]));
    }

    #[test]
    fn what_the_protocol_does_not_allow_is_refused() {
        for (bytes, why) in [
            (vec![FINAL | TEXT, 5], "a client masks its frames"),
            (masked(FINAL | 0x40 | TEXT, b""), "no extension was agreed on"),
            (masked(FINAL | PING, &[0; 126]), "a control frame has at most 125 bytes"),
            (masked(PING, b""), "a control frame has no fragments"),
            (masked(FINAL | 0xb, b""), "there are no control frames of this kind"),
            (masked(FINAL | 0x3, b""), "there are no data frames of this kind"),
            (masked(FINAL | CONTINUATION, b""), "there is no message to go on with"),
            ([masked(TEXT, b""), masked(FINAL | TEXT, b"")].concat(), "the message before has no end"),
            (masked(FINAL | CLOSE, b"x"), "a close has no code of one byte"),
        ] {
            assert_eq!(told(&bytes), Err(Violation(why)));
        }
    }

    #[test]
    fn lengths_take_as_little_room_as_they_can() {
        for (length, head) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (0xffff, &[0x81, 126, 255, 255]),
        ] {
            let frame = text(&"x".repeat(length));
            assert_eq!((&frame[..head.len()], frame.len()), (head, head.len() + length));
        }
        let frame = text(&"x".repeat(0x1_0000));
        assert_eq!(frame[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        let mut binary = Vec::new();
        put_event(b"\xff", &mut binary);
        assert_eq!(binary, [0x82, 1, 0xff]);
        let closed = close(Code::Missed, &"ø".repeat(100));
        assert_eq!((closed[0], closed[1], &closed[2..4]), (0x88, 124, &4000_u16.to_be_bytes()[..]));
    }
}
