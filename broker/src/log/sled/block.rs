//! Blocks: how records lie in the tree.
//!
//! A block is a header and a payload, cut into values of at most [`PIECE_BYTES_MAX`]: larger values
//! would make sled put pages into files that it never syncs. The header is, in this order and
//! big-endian: version (1 byte), flags (1), records (4), offsets covered (8), base offset (8), first,
//! last and running latest arrival in milliseconds (8 each), payload's raw and stored length (4
//! each), the partition's stored bytes before this block (8), partition (4) and offset (8) of the first
//! record's origin, the payload's CRC-32 as stored (4), and the CRC-32 of topic id, partition and
//! everything before (4).
//!
//! The payload is a batch's bytes, as a zstd frame where that is smaller. In a compacted block it begins
//! with each record's offset as a 4-byte difference to the base. An origin in the header is that of the
//! first record, and those of the others follow it: so a block goes from one topic to another without a
//! look into its payload. Where no flag says so, each record has an origin of its own or none.

use bytes::{Buf, Bytes};

use super::key::PartitionKey;
use crate::batch::{Batch, BatchBuilder, Records};
use crate::error::{Error, Result};
use crate::log::Entry;
use crate::packed::Packed;
use crate::record::Origin;
use crate::time::Timestamp;
use crate::topic::{Offset, Partition};

/// No value in the tree is larger.
pub(super) const PIECE_BYTES_MAX: usize = 4096;
/// A block holds at most this many encoded bytes, or one larger record.
pub(super) const BLOCK_BYTES_MAX: usize = 256 << 10;
/// The length of a header.
pub(super) const HEADER_BYTES: usize = 82;

/// The format of headers and of the batches in payloads. None before it was released.
const VERSION: u8 = 3;
const IS_COMPRESSED: u8 = 1;
const IS_SPARSE: u8 = 2;
const HAS_ORIGIN: u8 = 4;

/// What stands before a block's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) flags: u8,
    /// The number of records.
    pub(super) count: u32,
    /// The number of offsets; more than records where compaction left holes.
    pub(super) span: u64,
    pub(super) base: u64,
    pub(super) first_arrival: i64,
    pub(super) last_arrival: i64,
    /// The latest arrival of this block and of any before it.
    pub(super) max_arrival: i64,
    pub(super) raw_bytes: u32,
    pub(super) payload_bytes: u32,
    /// The stored bytes of every block that ever stood before this one.
    pub(super) before: u64,
    /// The first record's origin, where one is said for all of them.
    pub(super) origin: Option<Origin>,
    pub(super) payload_crc: u32,
}

impl Header {
    /// The offset after the block's last.
    pub(super) fn next(&self) -> u64 {
        self.base.saturating_add(self.span)
    }

    /// The bytes that the block takes in the tree.
    pub(super) fn stored_bytes(&self) -> u64 {
        (HEADER_BYTES as u64) + u64::from(self.payload_bytes)
    }

    /// The number of values that the block was cut into.
    pub(super) fn pieces(&self) -> u16 {
        let pieces = (HEADER_BYTES + self.payload_bytes as usize).div_ceil(PIECE_BYTES_MAX);
        u16::try_from(pieces).unwrap_or(u16::MAX)
    }

    fn encode(&self, at: PartitionKey) -> Vec<u8> {
        let mut out = Vec::with_capacity(PIECE_BYTES_MAX);
        out.push(VERSION);
        out.push(self.flags);
        out.extend(self.count.to_be_bytes());
        out.extend(self.span.to_be_bytes());
        out.extend(self.base.to_be_bytes());
        for arrival in [self.first_arrival, self.last_arrival, self.max_arrival] {
            out.extend(arrival.to_be_bytes());
        }
        out.extend(self.raw_bytes.to_be_bytes());
        out.extend(self.payload_bytes.to_be_bytes());
        out.extend(self.before.to_be_bytes());
        let origin = self.origin.map_or((0, 0), |origin| (origin.partition.0, origin.offset.0));
        out.extend(origin.0.to_be_bytes());
        out.extend(origin.1.to_be_bytes());
        out.extend(self.payload_crc.to_be_bytes());
        out.extend(header_crc(at, &out).to_be_bytes());
        out
    }

    /// Reads the header at the front of a block's first value.
    pub(super) fn decode(at: PartitionKey, piece: &[u8]) -> Result<Header> {
        let mut bytes =
            piece.get(..HEADER_BYTES).ok_or_else(|| Error::corrupt("the block's header is cut off"))?;
        if header_crc(at, &bytes[..HEADER_BYTES - 4]).to_be_bytes() != bytes[HEADER_BYTES - 4..] {
            return Err(Error::corrupt("the checksum of the block's header differs"));
        }
        let version = bytes.get_u8();
        if version != VERSION {
            return Err(Error::corrupt(format!("the block has the unknown format version {version}")));
        }
        let flags = bytes.get_u8();
        Ok(Header {
            flags,
            count: bytes.get_u32(),
            span: bytes.get_u64(),
            base: bytes.get_u64(),
            first_arrival: bytes.get_i64(),
            last_arrival: bytes.get_i64(),
            max_arrival: bytes.get_i64(),
            raw_bytes: bytes.get_u32(),
            payload_bytes: bytes.get_u32(),
            before: bytes.get_u64(),
            origin: {
                let origin =
                    Origin { partition: Partition(bytes.get_u32()), offset: Offset(bytes.get_u64()) };
                (flags & HAS_ORIGIN != 0).then_some(origin)
            },
            payload_crc: bytes.get_u32(),
        })
    }
}

fn header_crc(at: PartitionKey, header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&at.topic.to_be_bytes());
    hasher.update(&at.partition.to_be_bytes());
    hasher.update(header);
    hasher.finalize()
}

/// A block that has no offset yet: what can be made before its turn comes.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    flags: u8,
    count: u32,
    span: u64,
    arrivals: (i64, i64),
    origin: Option<Origin>,
    payload: Packed,
}

/// Cuts a batch into blocks and compresses them. One that came from the log goes back as it is.
pub(super) fn prepare(batch: &Batch) -> Result<Vec<Prepared>> {
    if batch.count() == 0 {
        return Err(Error::invalid("records", "a batch without records cannot be appended"));
    }
    if let Some(packed) = batch.packed() {
        return Ok(vec![Prepared::new((batch, u64::from(batch.count())), 0, packed.clone())?]);
    }
    if batch.bytes().len() <= BLOCK_BYTES_MAX || batch.count() == 1 {
        return Ok(vec![Prepared::dense(batch)?]);
    }
    let mut blocks = Vec::new();
    let mut builder = BatchBuilder::new();
    for record in batch.records() {
        let record = record?;
        if !builder.is_empty() && builder.len() + record.weight() > BLOCK_BYTES_MAX {
            let full = std::mem::take(&mut builder);
            blocks.extend(full.finish().as_ref().map(Prepared::dense).transpose()?);
        }
        builder.push(&record);
    }
    blocks.extend(builder.finish().as_ref().map(Prepared::dense).transpose()?);
    Ok(blocks)
}

impl Prepared {
    fn dense(batch: &Batch) -> Result<Prepared> {
        let span = u64::from(batch.count());
        Self::new((batch, span), 0, Packed::pack(batch.bytes().clone())?)
    }

    /// A block of what compaction left: records with their offsets' differences to the base.
    pub(super) fn sparse(batch: &Batch, offsets: &[u32], span: u64) -> Result<Prepared> {
        let mut raw = Vec::with_capacity(offsets.len() * 4 + batch.bytes().len());
        for offset in offsets {
            raw.extend(offset.to_be_bytes());
        }
        raw.extend_from_slice(batch.bytes());
        Self::new((batch, span), IS_SPARSE, Packed::pack(raw.into())?)
    }

    fn new((batch, span): (&Batch, u64), flags: u8, payload: Packed) -> Result<Prepared> {
        let pieces = (HEADER_BYTES + payload.bytes().len()).div_ceil(PIECE_BYTES_MAX);
        u16::try_from(pieces)
            .map_err(|_| Error::invalid("records", "a record is larger than the log can hold"))?;
        let flag = |bit: u8, is_set: bool| if is_set { bit } else { 0 };
        let flags =
            flags | flag(IS_COMPRESSED, payload.is_compressed()) | flag(HAS_ORIGIN, batch.origin().is_some());
        let arrivals = (batch.first_arrival().millis(), batch.last_arrival().millis());
        Ok(Prepared { flags, count: batch.count(), span, arrivals, origin: batch.origin(), payload })
    }

    /// The bytes that the block will take in the tree.
    pub(super) fn stored_bytes(&self) -> u64 {
        (HEADER_BYTES + self.payload.bytes().len()) as u64
    }

    /// The header, once the block has its place.
    pub(super) fn header(&self, base: u64, before: u64, max_arrival: i64) -> Header {
        Header {
            flags: self.flags,
            count: self.count,
            span: self.span,
            base,
            first_arrival: self.arrivals.0,
            last_arrival: self.arrivals.1,
            max_arrival: max_arrival.max(self.arrivals.1),
            raw_bytes: self.payload.raw_bytes(),
            payload_bytes: u32::try_from(self.payload.bytes().len()).unwrap_or(u32::MAX),
            before,
            origin: self.origin,
            payload_crc: self.payload.crc(),
        }
    }

    /// The values to store, in order.
    pub(super) fn pieces(&self, at: PartitionKey, header: &Header) -> Vec<sled::IVec> {
        let mut first = header.encode(at);
        let payload = self.payload.bytes();
        let (begin, rest) = payload.split_at(payload.len().min(PIECE_BYTES_MAX - HEADER_BYTES));
        first.extend_from_slice(begin);
        let rest = rest.chunks(PIECE_BYTES_MAX);
        std::iter::once(sled::IVec::from(first)).chain(rest.map(sled::IVec::from)).collect()
    }
}

/// A block as read back, its checksums verified.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) header: Header,
    arrivals: (Timestamp, Timestamp),
    payload: Packed,
}

impl Block {
    /// Puts a block together again from its values.
    pub(super) fn assemble(at: PartitionKey, pieces: &[sled::IVec]) -> Result<Block> {
        let first = pieces.first().ok_or_else(|| Error::corrupt("the block has no first piece"))?;
        let header = Header::decode(at, first)?;
        let mut payload = Vec::with_capacity(header.payload_bytes as usize);
        payload.extend_from_slice(&first[HEADER_BYTES..]);
        for piece in &pieces[1..] {
            payload.extend_from_slice(piece);
        }
        if payload.len() != header.payload_bytes as usize {
            return Err(Error::corrupt("a piece of the block is missing"));
        }
        let is_compressed = header.flags & IS_COMPRESSED != 0;
        let payload =
            Packed::from_parts(payload.into(), header.raw_bytes, is_compressed, header.payload_crc)?;
        let arrival = |millis| {
            Timestamp::from_millis(millis).ok_or_else(|| Error::corrupt("an arrival lies outside all years"))
        };
        let arrivals = (arrival(header.first_arrival)?, arrival(header.last_arrival)?);
        Ok(Block { header, arrivals, payload })
    }

    /// The records as they lie here; none of a compacted block, whose offsets have holes.
    pub(super) fn batch(&self) -> Option<Batch> {
        let batch = || Batch::from_log(self.payload.clone(), self.header.count, self.arrivals);
        let is_dense = self.header.flags & IS_SPARSE == 0;
        is_dense.then(batch).map(|batch| with_origins(batch, self.header.origin))
    }

    /// The records with their offsets; damage ends it with one `Corrupt` error.
    pub(super) fn entries(&self) -> Result<Entries> {
        let Header { base, count, origin, .. } = self.header;
        if let Some(batch) = self.batch() {
            return Ok(Entries { base, offsets: None, index: 0, records: batch.records() });
        }
        let mut raw = self.payload.unpack()?;
        let offsets_bytes = count as usize * 4;
        if raw.len() < offsets_bytes {
            return Err(Error::corrupt("the offsets of the block are cut off"));
        }
        let offsets = Some(raw.split_to(offsets_bytes));
        let batch = with_origins(Batch::from_parts(raw, count, self.arrivals), origin);
        Ok(Entries { base, offsets, index: 0, records: batch.records() })
    }
}

fn with_origins(batch: Batch, origin: Option<Origin>) -> Batch {
    match origin {
        Some(first) => batch.with_origins_from(first),
        None => batch,
    }
}

/// The entries of a block, in order.
pub(super) struct Entries {
    base: u64,
    offsets: Option<Bytes>,
    index: u64,
    records: Records,
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.records.next()?;
        let step = match &mut self.offsets {
            Some(offsets) => offsets.try_get_u32().map_or(self.index, u64::from),
            None => self.index,
        };
        self.index += 1;
        Some(record.map(|record| Entry { offset: Offset(self.base + step), record }))
    }
}
