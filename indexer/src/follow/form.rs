//! How the events of a tail are written, once for all who follow it in the same form.

use broker::{Entry, Offset, Place};
use bytes::{Buf as _, BufMut as _, Bytes};
use proto::frames;

use super::subscription::version;
use super::websocket;
use crate::grpc::message;
use crate::line::Line;

/// What followers are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// Frames of gRPC messages.
    Messages,
    /// A websocket frame an event.
    Frames(Content),
    /// Offset, length and bytes of each event, for [`entries`].
    Entries(Content),
}

/// What of an event is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Content {
    /// Its value with a line's end, as the producers of older clients wrote it.
    Value,
    /// A [`Line`] that names the version, too.
    Line,
}

impl Form {
    /// Appends an event; `scratch` is overwritten.
    pub(super) fn put(self, place: &Place, entry: &Entry, (scratch, out): (&mut Vec<u8>, &mut Vec<u8>)) {
        let content = match self {
            Form::Messages => return frames::put(&message(&Line::of(place.partition, entry)), out),
            Form::Frames(content) | Form::Entries(content) => content,
        };
        scratch.clear();
        content.put(place, entry, scratch);
        if let Form::Frames(_) = self {
            websocket::put_event(scratch, out);
        } else {
            out.put_u64(entry.offset.0);
            out.put_u64(scratch.len() as u64);
            out.extend_from_slice(scratch);
        }
    }
}

impl Content {
    fn put(self, place: &Place, entry: &Entry, out: &mut Vec<u8>) {
        match self {
            Content::Value => {
                out.extend_from_slice(&entry.record.value);
                out.push(b'\n');
            }
            Content::Line => {
                out.extend_from_slice(b"{\"version\":\"");
                out.extend_from_slice(version(place).as_bytes());
                out.extend_from_slice(b"\",");
                let brace = out.len();
                Line::of(place.partition, entry).write(out);
                out.remove(brace);
            }
        }
    }
}

/// The events of a chunk in [`Form::Entries`], each with its offset.
pub(crate) fn entries(mut chunk: Bytes) -> impl Iterator<Item = (Offset, Bytes)> {
    const HEAD_BYTES: usize = 16;
    std::iter::from_fn(move || {
        if chunk.len() < HEAD_BYTES {
            return None;
        }
        let (offset, length) = (chunk.get_u64(), chunk.get_u64());
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(chunk.len());
        Some((Offset(offset), chunk.split_to(length)))
    })
}
