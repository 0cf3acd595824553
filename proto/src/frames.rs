//! Messages as they lie in the body of a gRPC call: each is preceded by a byte that says whether it is
//! compressed, which none is here, and by its length in four bytes, big-endian
//! ([PROTOCOL-HTTP2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)). For messages that
//! are rendered once and sent to many; everything else is framed by tonic.

use bytes::{Buf, BufMut, Bytes};
use prost::{DecodeError, Message};

const PREFIX_BYTES: usize = 5;

/// Appends a message with its prefix.
pub fn put(message: &impl Message, out: &mut Vec<u8>) {
    let length = message.encoded_len();
    out.reserve(PREFIX_BYTES + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).expect("a message is far below 4 GiB"));
    message.encode_raw(out);
}

/// The messages in whole frames that [`put`] wrote; their bytes are slices of `frames`.
pub fn messages<M: Message + Default>(mut frames: Bytes) -> impl Iterator<Item = Result<M, DecodeError>> {
    std::iter::from_fn(move || {
        if frames.len() < PREFIX_BYTES {
            return None;
        }
        frames.advance(1);
        let length = frames.get_u32() as usize;
        Some(M::decode(frames.split_to(length.min(frames.len()))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{Event, Position};

    #[test]
    fn messages_come_back_from_their_frames() {
        let event = |offset| Event {
            position: Some(Position { partition: 1, offset }),
            timestamp_micros: -1,
            key: Some("DTW".to_owned()),
            value: Bytes::from_static(b"{}"),
            ..Event::default()
        };
        let mut frames = Vec::new();
        put(&event(0), &mut frames);
        put(&Event::default(), &mut frames);
        put(&event(u64::MAX), &mut frames);
        let back: Result<Vec<Event>, _> = messages(frames.into()).collect();
        assert_eq!(back.expect("they were written whole"), [event(0), Event::default(), event(u64::MAX)]);
    }
}
