//! Reads request bodies: bounded in bytes and time, charged to admission as they grow, and
//! decompressed within a limit of their own.

use std::io::Read;

use axum::body::Body;
use broker::{Error, Kind, Result};
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::BodyExt as _;

use crate::admission::Charge;
use crate::http::Refusal;
use crate::{Ingest, Limits};

/// Decoded bytes are charged and bounded in steps of this many.
const DECODE_STEP_BYTES: usize = 64 << 10;
/// A zstd frame may ask for a window of 8 MiB, the size that RFC 8878 wants decoders to have.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Identity,
    Gzip,
    Zstd,
}

impl Coding {
    /// Reads `content-encoding`; one coding, not several.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut named = headers.get_all(CONTENT_ENCODING).iter();
        let (first, second) = (named.next(), named.next());
        let name = first.map_or(&b"identity"[..], |value| value.as_bytes().trim_ascii());
        match name.to_ascii_lowercase().as_slice() {
            _ if second.is_some() => Err(unknown_coding()),
            b"identity" => Ok(Coding::Identity),
            b"gzip" | b"x-gzip" => Ok(Coding::Gzip),
            b"zstd" => Ok(Coding::Zstd),
            _ => Err(unknown_coding()),
        }
    }
}

fn unknown_coding() -> Refusal {
    Refusal::unsupported("content-encoding", "a body is sent with gzip, zstd or no encoding")
}

/// How large a body may be, and what that limit is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimit {
    pub(crate) name: &'static str,
    pub(crate) bytes_max: usize,
}

impl Ingest {
    /// Reads a body within a limit of bytes, and of time. The charge holds its bytes in flight.
    pub(crate) async fn read_body(
        &self,
        headers: &HeaderMap,
        body: Body,
        limit: BodyLimit,
    ) -> Result<(Bytes, Charge), Refusal> {
        let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let announced: usize = announced.unwrap_or(0);
        if announced > limit.bytes_max {
            return Err(limit.exceeded().into());
        }
        let mut charge = self.admission.charge(announced)?;
        let read = collect(body, limit, announced, &mut charge);
        match tokio::time::timeout(self.limits.body_time_max, read).await {
            Ok(bytes) => Ok((bytes?, charge)),
            Err(_) => Err(Refusal::timeout(self.limits.body_time_max)),
        }
    }
}

/// `announced` bytes are charged already, so that there is room for them.
async fn collect(mut body: Body, limit: BodyLimit, announced: usize, charge: &mut Charge) -> Result<Bytes> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Error::invalid("body", "the body did not arrive whole").with_source(error))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = first.len() + all.len() + data.len();
        if length > limit.bytes_max {
            return Err(limit.exceeded());
        }
        charge.grow_to(length)?;
        // Most bodies come in one piece, which is then not copied.
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.reserve(announced.max(length));
        }
        all.extend_from_slice(&std::mem::take(&mut first));
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Decompresses a body; blocking. `TooLarge` past `decoded_body_bytes_max`, without going on.
pub(crate) fn decode(body: Bytes, coding: Coding, limits: &Limits, charge: &mut Charge) -> Result<Bytes> {
    match coding {
        Coding::Identity => Ok(body),
        Coding::Gzip => inflate(MultiGzDecoder::new(&body[..]), limits, charge),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&body[..]).map_err(damaged)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(damaged)?;
            inflate(decoder, limits, charge)
        }
    }
}

fn inflate(mut decoder: impl Read, limits: &Limits, charge: &mut Charge) -> Result<Bytes> {
    let mut decoded = Vec::new();
    loop {
        charge.grow(DECODE_STEP_BYTES)?;
        let before = decoded.len();
        let step = decoder.by_ref().take(DECODE_STEP_BYTES as u64).read_to_end(&mut decoded);
        step.map_err(damaged)?;
        if decoded.len() > limits.decoded_body_bytes_max {
            let most = limits.decoded_body_bytes_max;
            let message = format!("a body has at most {most} bytes after decoding (decoded_body_bytes_max)");
            return Err(Error::new(Kind::TooLarge, message).with_field("body"));
        }
        if decoded.len() == before {
            return Ok(decoded.into());
        }
    }
}

fn damaged(error: std::io::Error) -> Error {
    Error::invalid("content-encoding", "the body is damaged or cut short").with_source(error)
}

impl BodyLimit {
    fn exceeded(self) -> Error {
        let message = format!("a body has at most {} bytes here ({})", self.bytes_max, self.name);
        Error::new(Kind::TooLarge, message).with_field("body")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::admission::Admission;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn check(body: &[u8], coding: Coding) -> Result<Bytes> {
        let limits = Limits { decoded_body_bytes_max: 100_000, ..Limits::default() };
        let mut charge = Admission::new(1 << 20).charge(body.len())?;
        decode(Bytes::copy_from_slice(body), coding, &limits, &mut charge)
    }

    #[test]
    fn decodes_what_was_encoded() {
        let text = b"{\"a\":1}\n".repeat(9_000);
        assert_eq!(check(&gzip(&text), Coding::Gzip).unwrap(), text);
        assert_eq!(check(&[gzip(b"{}"), gzip(b"\n{}")].concat(), Coding::Gzip).unwrap(), "{}\n{}");
        assert_eq!(check(&zstd::encode_all(&text[..], 3).unwrap(), Coding::Zstd).unwrap(), text);
        assert_eq!(check(b"{}", Coding::Identity).unwrap(), "{}");
    }

    #[test]
    fn refuses_what_is_cut_short_or_damaged() {
        let text = b"{\"a\":1}\n".repeat(1_000);
        let (gzip, zstd) = (gzip(&text), zstd::encode_all(&text[..], 3).unwrap());
        for (body, coding) in [
            (&gzip[..gzip.len() - 1], Coding::Gzip),
            (&gzip[..20], Coding::Gzip),
            (&b""[..], Coding::Gzip),
            (b"{\"a\":1}", Coding::Gzip),
            (&zstd[..zstd.len() - 1], Coding::Zstd),
            (b"{\"a\":1}", Coding::Zstd),
        ] {
            let error = check(body, coding).unwrap_err();
            assert_eq!((error.kind(), error.field()), (Kind::Invalid, Some("content-encoding")));
        }
    }

    #[test]
    fn stops_a_bomb_at_the_limit() {
        let zeros = vec![0; 50 << 20];
        for (body, coding) in
            [(gzip(&zeros), Coding::Gzip), (zstd::encode_all(&zeros[..], 1).unwrap(), Coding::Zstd)]
        {
            let error = check(&body, coding).unwrap_err();
            assert_eq!((error.kind(), error.field()), (Kind::TooLarge, Some("body")));
        }
    }
}
