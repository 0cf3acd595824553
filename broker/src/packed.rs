//! Bytes as they lie in the log: compressed with zstd where that makes them smaller, with their checksum.
//!
//! Whoever has them may put them elsewhere in the log as they are, without a look into them.

use std::io;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::compress_bound;

use crate::error::{Error, Kind, Result, ResultExt};

/// Hardly slower than lz4 on small events, at two thirds of its size (ADR 0046).
const LEVEL: i32 = 1;
/// Less than this is kept as it is: a frame's own bytes would eat what is won.
const PACK_BYTES_MIN: usize = 256;
/// Contexts that are kept for their next use; making one costs as much as compressing a small batch.
const IDLE_MAX: usize = 8;

static PACKERS: Idle<Packer> = Idle(Mutex::new(Vec::new()));
static UNPACKERS: Idle<Decompressor<'static>> = Idle(Mutex::new(Vec::new()));

/// Bytes of the log. Their checksum is that of the bytes as they lie there.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    bytes: Bytes,
    raw_bytes: u32,
    is_compressed: bool,
    crc: u32,
}

impl Packed {
    /// Compresses bytes. `Invalid` if they are more than the log can hold.
    pub(crate) fn pack(raw: Bytes) -> Result<Self> {
        let raw_bytes = u32::try_from(raw.len())
            .map_err(|_| Error::invalid("records", "a record is larger than the log can hold"))?;
        let packed = if raw.len() < PACK_BYTES_MIN { None } else { compress(&raw)? };
        let is_compressed = packed.is_some();
        let bytes = packed.unwrap_or(raw);
        let crc = crc32fast::hash(&bytes);
        Ok(Self { bytes, raw_bytes, is_compressed, crc })
    }

    /// Takes bytes back as they lay in the log. `Corrupt` if the checksum differs.
    pub(crate) fn from_parts(bytes: Bytes, raw_bytes: u32, is_compressed: bool, crc: u32) -> Result<Self> {
        if crc32fast::hash(&bytes) != crc {
            return Err(Error::corrupt("the checksum of the block's records differs"));
        }
        Ok(Self { bytes, raw_bytes, is_compressed, crc })
    }

    /// The bytes that went in.
    pub(crate) fn unpack(&self) -> Result<Bytes> {
        let raw =
            if self.is_compressed { decompress(&self.bytes, self.raw_bytes)? } else { self.bytes.clone() };
        if raw.len() != self.raw_bytes as usize {
            return Err(Error::corrupt("the block has another length than its header says"));
        }
        Ok(raw)
    }

    /// The bytes as they lie in the log.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many bytes went in.
    pub(crate) fn raw_bytes(&self) -> u32 {
        self.raw_bytes
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.is_compressed
    }

    pub(crate) fn crc(&self) -> u32 {
        self.crc
    }
}

/// A context with room for what it makes.
struct Packer {
    compressor: Compressor<'static>,
    out: Vec<u8>,
}

impl Packer {
    fn new() -> io::Result<Self> {
        Ok(Self { compressor: Compressor::new(LEVEL)?, out: Vec::new() })
    }
}

/// The compressed bytes; `None` if they would not be fewer.
fn compress(raw: &[u8]) -> Result<Option<Bytes>> {
    let pack = |packer: &mut Packer| {
        packer.out.clear();
        packer.out.reserve(compress_bound(raw.len()));
        let length = packer.compressor.compress_to_buffer(raw, &mut packer.out)?;
        Ok((length < raw.len()).then(|| Bytes::copy_from_slice(&packer.out)))
    };
    PACKERS.lend(Packer::new, pack).or_error(Kind::Internal, "compress a batch")
}

fn decompress(packed: &[u8], raw_bytes: u32) -> Result<Bytes> {
    let unpack =
        |decompressor: &mut Decompressor<'static>| decompressor.decompress(packed, raw_bytes as usize);
    let raw = UNPACKERS.lend(Decompressor::new, unpack);
    raw.map(Bytes::from).map_err(|error| Error::corrupt("decompress the block").with_source(error))
}

/// What waits for its next use, by whatever thread.
struct Idle<T>(Mutex<Vec<T>>);

impl<T> Idle<T> {
    fn lend<R>(
        &self,
        make: impl FnOnce() -> io::Result<T>,
        work: impl FnOnce(&mut T) -> io::Result<R>,
    ) -> io::Result<R> {
        let idle = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut lent = idle.map_or_else(make, Ok)?;
        let done = work(&mut lent)?;
        let mut idle = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(lent);
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_went_in() {
        let noise: Vec<u8> = (0..5_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for raw in [Vec::new(), vec![7; 100], vec![7; 100_000], noise] {
            let packed = Packed::pack(raw.clone().into()).unwrap();
            assert!(packed.bytes().len() <= raw.len());
            assert_eq!(packed.unpack().unwrap(), raw);
        }
    }

    #[test]
    fn damage_is_found() {
        let packed = Packed::pack(vec![7; 1_000].into()).unwrap();
        let again = |bytes: &[u8], raw_bytes, crc| {
            let bytes = Bytes::copy_from_slice(bytes);
            Packed::from_parts(bytes, raw_bytes, true, crc).and_then(|packed| packed.unpack())
        };
        assert!(again(packed.bytes(), 1_000, packed.crc()).is_ok());
        let cut = &packed.bytes()[1..];
        for damaged in [
            again(packed.bytes(), 1_000, packed.crc() + 1),
            again(packed.bytes(), 999, packed.crc()),
            again(packed.bytes(), 1_001, packed.crc()),
            again(cut, 1_000, crc32fast::hash(cut)),
        ] {
            assert_eq!(damaged.unwrap_err().kind(), Kind::Corrupt);
        }
    }
}
