//! Events that wait for their object: all but the newest are packed and compressed, so that objects
//! may be large without memory being so. Packing keeps what a line shows of an event, and its
//! arrival; headers are dropped.

use broker::log::Entry;
use broker::{Batch, BatchBuilder, Error, Offset, Result, Timestamp};
use bytes::Bytes;

/// So many bytes of events are packed at once.
const BLOCK_BYTES: usize = 256 << 10;

/// Events in order. Never holds two of one offset.
#[derive(Debug, Default)]
pub(super) struct Packed {
    blocks: Vec<Block>,
    packed_bytes: usize,
    tail: Vec<Entry>,
    tail_bytes: usize,
    ends: Option<(Entry, Offset)>,
}

#[derive(Debug)]
struct Block {
    bytes: Bytes,
    raw_bytes: usize,
    count: u32,
    arrivals: (Timestamp, Timestamp),
    offsets: Offsets,
}

#[derive(Debug)]
enum Offsets {
    From(Offset),
    Each(Vec<Offset>),
}

impl Packed {
    /// Whether there are no events.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    /// The first event, without its key and value.
    pub(super) fn first(&self) -> Option<&Entry> {
        self.ends.as_ref().map(|(first, _)| first)
    }

    /// The last event's offset.
    pub(super) fn last_offset(&self) -> Option<Offset> {
        self.ends.as_ref().map(|(_, last)| *last)
    }

    /// About how much memory the events take.
    pub(super) fn held_bytes(&self) -> u64 {
        (self.packed_bytes + self.tail_bytes) as u64
    }

    /// Adds an event at the end.
    pub(super) fn push(&mut self, mut entry: Entry) {
        entry.record.headers = Vec::new();
        let offset = entry.offset;
        let bare = || {
            let (key, value) = (None, Bytes::new());
            let record = broker::Record { key, value, ..entry.record.clone() };
            (Entry { offset, record }, offset)
        };
        self.ends.get_or_insert_with(bare).1 = offset;
        self.tail_bytes += size_of::<Entry>() + entry.record.weight();
        self.tail.push(entry);
        if self.tail_bytes >= BLOCK_BYTES {
            self.pack();
        }
    }

    fn pack(&mut self) {
        self.tail_bytes = 0;
        if let Some(block) = Block::of(&std::mem::take(&mut self.tail)) {
            self.packed_bytes += block.held_bytes();
            self.blocks.push(block);
        }
    }

    /// The events, in order. Blocks.
    pub(super) fn entries(&self) -> impl Iterator<Item = Result<Entry>> + '_ {
        let packed = self.blocks.iter().flat_map(|block| match block.entries() {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        });
        packed.chain(self.tail.iter().cloned().map(Ok))
    }
}

impl Block {
    fn of(entries: &[Entry]) -> Option<Self> {
        let first = entries.first()?.offset;
        let mut builder = BatchBuilder::new();
        entries.iter().for_each(|entry| builder.push(&entry.record));
        let batch = builder.finish()?;
        let is_dense = (first.0..).zip(entries).all(|(offset, entry)| entry.offset.0 == offset);
        let each = || Offsets::Each(entries.iter().map(|entry| entry.offset).collect());
        Some(Self {
            bytes: lz4_flex::block::compress(batch.bytes()).into(),
            raw_bytes: batch.bytes().len(),
            count: batch.count(),
            arrivals: (batch.first_arrival(), batch.last_arrival()),
            offsets: if is_dense { Offsets::From(first) } else { each() },
        })
    }

    fn held_bytes(&self) -> usize {
        let offsets = match &self.offsets {
            Offsets::From(_) => 0,
            Offsets::Each(offsets) => offsets.len() * size_of::<Offset>(),
        };
        size_of::<Self>() + self.bytes.len() + offsets
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let raw = lz4_flex::block::decompress(&self.bytes, self.raw_bytes)
            .map_err(|error| Error::internal("unpack staged events").with_source(error))?;
        let batch = Batch::from_parts(raw.into(), self.count, self.arrivals);
        let offset = |index: usize| match &self.offsets {
            Offsets::From(first) => Offset(first.0 + index as u64),
            Offsets::Each(offsets) => offsets[index],
        };
        let entries = batch.records().enumerate();
        entries.map(|(index, record)| Ok(Entry { offset: offset(index), record: record? })).collect()
    }
}

#[cfg(test)]
mod tests {
    use broker::Record;
    use broker::record::Origin;
    use broker::topic::Partition;

    use super::*;

    fn entries(step: u64) -> Vec<Entry> {
        let entry = |n: u64| {
            let arrival = Timestamp::from_millis(978_307_200_000 + n as i64 / 3).unwrap();
            let mut record = Record::new(format!("{{\"n\":{n}}}"), arrival).with_key(format!("k{}", n % 7));
            record.time = Timestamp::from_micros(978_307_200_000_001 - n as i64).unwrap();
            record.origin = Some(Origin { partition: Partition(3), offset: Offset(n * 2) });
            Entry { offset: Offset(5 + n * step), record }
        };
        (0..9_000).map(entry).collect()
    }

    #[test]
    fn events_come_back_as_they_went_in_and_take_less_memory() {
        for step in [1, 2] {
            let entries = entries(step);
            let mut packed = Packed::default();
            entries.iter().cloned().for_each(|entry| packed.push(entry));
            assert_eq!(packed.entries().collect::<Result<Vec<_>>>().unwrap(), entries);
            assert!(packed.blocks.len() > 3);
            let unpacked: usize =
                entries.iter().map(|entry| size_of::<Entry>() + entry.record.weight()).sum();
            assert!(packed.held_bytes() * 3 < unpacked as u64, "{} of {unpacked}", packed.held_bytes());
            let first = packed.first().unwrap();
            assert_eq!((first.offset, first.record.origin), (entries[0].offset, entries[0].record.origin));
            assert_eq!(packed.last_offset(), Some(entries[8_999].offset));
        }
    }

    #[test]
    fn headers_are_dropped() {
        let mut entry = entries(1).remove(0);
        let expected = entry.clone();
        entry.record.headers.push(("trace".to_owned(), Bytes::from_static(b"1")));
        let mut packed = Packed::default();
        packed.push(entry);
        assert_eq!(packed.entries().collect::<Result<Vec<_>>>().unwrap(), [expected]);
    }
}
