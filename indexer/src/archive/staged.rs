//! Lines that wait for their object to be whole, all but the newest of them compressed, so that
//! objects may be large without memory being so.
//!
//! Lines are gathered in steps of a fixed size. A small object's steps are packed with a quick codec
//! and meet the object's own codec when it ends; a larger one is fed to that codec step by step as it
//! grows, if one is free: codecs hold megabytes, and there may be thousands of partitions. It works on
//! some steps while the next ones are gathered. Either way the codec is fed the same steps, so the object
//! has the same bytes.
//!
//! Of an event only what its line shows is kept, and its arrival.

use std::sync::Arc;

use broker::batch::View;
use broker::log::Entry;
use broker::time::TimeWriter;
use broker::{Error, Offset, Partition, Record, Result, Timestamp};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::codec::Codec;
use super::object::{self, Compression, Encoder, Identity};
use super::read::ArchivedEvent;
use crate::line::Line;

/// So many bytes of lines are compressed at once.
const STEP_BYTES: usize = 128 << 10;
/// An object of so many steps is fed to its codec as it grows.
const STEPS_PACKED: usize = 16;
/// About what a codec holds besides what it has written.
const ENCODER_BYTES: usize = 4 << 20;

/// Events of one object, in order. Never holds two of one offset.
pub(super) struct Staged {
    partition: Partition,
    compression: Compression,
    ends: Option<Ends>,
    line_bytes: u64,
    arrivals: Arrivals,
    gathered: Vec<u8>,
    times: TimeWriter,
    packed: Vec<Packed>,
    packed_bytes: usize,
    codec: Option<(Codec, OwnedSemaphorePermit)>,
}

/// The first event, and the last one's offset.
struct Ends {
    first: Identity,
    first_arrival: Timestamp,
    last: Offset,
}

/// A step of lines.
struct Packed {
    bytes: Vec<u8>,
    raw_bytes: usize,
}

/// When the events of an object arrived: each arrival with the number of events in a row that had
/// it.
#[derive(Default)]
pub(super) struct Arrivals(Vec<(Timestamp, u64)>);

impl Staged {
    /// No events yet, of a partition.
    pub(super) fn new(partition: Partition, compression: Compression) -> Self {
        Self {
            partition,
            compression,
            ends: None,
            line_bytes: 0,
            arrivals: Arrivals::default(),
            gathered: Vec::new(),
            times: TimeWriter::default(),
            packed: Vec::new(),
            packed_bytes: 0,
            codec: None,
        }
    }

    /// What was staged, and nothing stays behind.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self::new(self.partition, self.compression);
        std::mem::replace(self, empty)
    }

    /// Whether there are no events.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    /// The first event's arrival.
    pub(super) fn first_arrival(&self) -> Option<Timestamp> {
        self.ends.as_ref().map(|ends| ends.first_arrival)
    }

    /// What identifies the first event, with its arrival, and the last one's offset.
    pub(super) fn ends(&self) -> Option<(Identity, Timestamp, Offset)> {
        self.ends.as_ref().map(|ends| (ends.first, ends.first_arrival, ends.last))
    }

    /// About how much memory the events take.
    pub(super) fn held_bytes(&self) -> u64 {
        let codec = self.codec.as_ref().map_or(0, |(codec, _)| ENCODER_BYTES + codec.held_bytes());
        (self.gathered.len() + self.packed_bytes + self.arrivals.held_bytes() + codec) as u64
    }

    /// Adds an event at the end; false, and nothing is changed, if it is not the first and its line
    /// would make more than `bytes_max` of all of them.
    pub(super) fn push(&mut self, offset: Offset, event: &View<'_>, bytes_max: u64) -> bool {
        let (start, position) = (self.gathered.len(), (self.partition, offset));
        Line::at(position, event).write_with(&mut self.times, &mut self.gathered);
        let line_bytes = (self.gathered.len() - start) as u64;
        match &mut self.ends {
            Some(_) if self.line_bytes + line_bytes > bytes_max => {
                self.gathered.truncate(start);
                return false;
            }
            Some(ends) => ends.last = offset,
            None => {
                let first = Identity::of(position, event);
                self.ends = Some(Ends { first, first_arrival: event.arrival, last: offset });
            }
        }
        self.line_bytes += line_bytes;
        self.arrivals.push(event.arrival);
        true
    }

    /// Compresses what was gathered if it is a step. `encoders` are those that may be in use at the
    /// same time. Blocks, in a runtime.
    pub(super) fn step(&mut self, encoders: &Arc<Semaphore>) -> Result<()> {
        if self.gathered.len() < STEP_BYTES {
            return Ok(());
        }
        // Without a codec of its own, what an object has written would stay as large as it is.
        let is_large = self.packed.len() >= STEPS_PACKED && self.compression != Compression::None;
        if self.codec.is_none()
            && is_large
            && let Ok(permit) = Arc::clone(encoders).try_acquire_owned()
        {
            let mut encoder = Encoder::new(self.compression)?;
            self.unpack_into(&mut encoder)?;
            self.codec = Some((Codec::new(encoder), permit));
        }
        if let Some((codec, _)) = &mut self.codec {
            return codec.feed(&mut self.gathered);
        }
        let step = Packed::of(&self.gathered);
        self.packed_bytes += size_of::<Packed>() + step.bytes.len();
        self.packed.push(step);
        self.gathered.clear();
        Ok(())
    }

    fn unpack_into(&mut self, encoder: &mut Encoder) -> Result<()> {
        self.packed_bytes = 0;
        for step in self.packed.drain(..) {
            encoder.write(&step.unpack()?)?;
        }
        Ok(())
    }

    /// The bytes of the object, and when its events arrived. Blocks.
    pub(super) fn finish(mut self) -> Result<Finished> {
        let mut encoder = match self.codec.take() {
            Some((codec, _permit)) => codec.finish()?,
            None => Encoder::new(self.compression)?,
        };
        self.unpack_into(&mut encoder)?;
        encoder.write(&self.gathered)?;
        let bytes = encoder.finish()?;
        Ok(Finished { compression: self.compression, bytes, arrivals: self.arrivals })
    }
}

/// An object that was not put yet.
pub(super) struct Finished {
    compression: Compression,
    pub(super) bytes: Bytes,
    arrivals: Arrivals,
}

impl Finished {
    /// The events again, in order, but for their headers. Blocks.
    pub(super) fn entries(&self) -> Result<impl Iterator<Item = Result<Entry>> + '_> {
        let lines = object::decode(self.compression, self.bytes.clone())?;
        Ok(lines.zip(self.arrivals.iter()).map(|(line, arrival)| {
            let unreadable = |error: std::io::Error| Error::internal("read staged events").with_source(error);
            let event: ArchivedEvent = serde_json::from_slice(&line.map_err(unreadable)?)
                .map_err(|error| unreadable(error.into()))?;
            let value = Box::<str>::from(event.value).into_boxed_bytes();
            let mut record = Record::new(Bytes::from(value), arrival);
            record.key = event.key.map(Bytes::from);
            (record.time, record.origin) = (event.timestamp, event.origin);
            Ok(Entry { offset: event.offset, record })
        }))
    }
}

impl Packed {
    fn of(step: &[u8]) -> Self {
        Self { bytes: lz4_flex::block::compress(step), raw_bytes: step.len() }
    }

    fn unpack(&self) -> Result<Vec<u8>> {
        lz4_flex::block::decompress(&self.bytes, self.raw_bytes)
            .map_err(|error| Error::internal("unpack staged events").with_source(error))
    }
}

impl Arrivals {
    fn push(&mut self, arrival: Timestamp) {
        match self.0.last_mut() {
            Some((last, count)) if *last == arrival => *count += 1,
            _ => self.0.push((arrival, 1)),
        }
    }

    fn held_bytes(&self) -> usize {
        self.0.len() * size_of::<(Timestamp, u64)>()
    }

    fn iter(&self) -> impl Iterator<Item = Timestamp> + '_ {
        self.0.iter().flat_map(|(arrival, count)| (0..*count).map(|_| *arrival))
    }
}

#[cfg(test)]
mod tests {
    use broker::record::Origin;

    use super::*;

    fn entries(count: u64) -> Vec<Entry> {
        let entry = |n: u64| {
            let arrival = Timestamp::from_millis(978_307_200_000 + n as i64 / 3).unwrap();
            let value = format!("{{\"n\":{n},\"text\":\"{}\"}}", "word ".repeat(20));
            let mut record = Record::new(value, arrival).with_key(format!("k{}", n % 7));
            record.time = Timestamp::from_micros(978_307_200_000_001 - n as i64).unwrap();
            record.origin = Some(Origin { partition: Partition(3), offset: Offset(n * 2) });
            Entry { offset: Offset(5 + n * 2), record }
        };
        (0..count).map(entry).collect()
    }

    fn staged(entries: &[Entry], compression: Compression, encoders: &Arc<Semaphore>) -> Staged {
        let mut staged = Staged::new(Partition(2), compression);
        for entry in entries {
            assert!(staged.push(entry.offset, &View::of(&entry.record), u64::MAX));
            staged.step(encoders).unwrap();
        }
        staged
    }

    #[test]
    fn an_object_has_the_same_bytes_whether_its_codec_was_free_or_not_and_its_events_come_back() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _in_it = runtime.enter();
        let entries = entries(20_000);
        for compression in Compression::ALL {
            let (one, none) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(0)));
            let fed = staged(&entries, compression, &one);
            assert_eq!(fed.codec.is_some(), compression != Compression::None);
            let packed = staged(&entries, compression, &none);
            assert!(packed.codec.is_none() && packed.packed.len() > STEPS_PACKED);
            assert!(packed.held_bytes() * 3 < packed.line_bytes, "{}", packed.held_bytes());
            let (fed, packed) = (fed.finish().unwrap(), packed.finish().unwrap());
            assert_eq!(fed.bytes, packed.bytes);
            assert_eq!(one.available_permits(), 1, "a codec is free again once its object ended");
            let back: Result<Vec<Entry>> = fed.entries().unwrap().collect();
            assert_eq!(back.unwrap(), entries);
        }
    }

    #[test]
    fn headers_are_dropped_and_an_event_that_does_not_fit_leaves_nothing_behind() {
        let mut both = entries(2);
        let expected = both.clone();
        both[0].record.headers.push(("trace".to_owned(), Bytes::from_static(b"1")));
        let mut staged = Staged::new(Partition(2), Compression::Zstd);
        let events = [View::of(&both[0].record), View::of(&both[1].record)];
        assert!(staged.push(both[0].offset, &events[0], 1), "the first always fits");
        assert!(!staged.push(both[1].offset, &events[1], staged.line_bytes + 1));
        let first_offset = expected[0].offset;
        let (first, arrival, last) = staged.ends().unwrap();
        assert_eq!((first, last), (Identity::of((Partition(2), first_offset), &events[0]), first_offset));
        assert_eq!(arrival, expected[0].record.arrival);
        let finished = staged.finish().unwrap();
        assert_eq!(finished.entries().unwrap().collect::<Result<Vec<_>>>().unwrap(), expected[..1]);
    }
}
