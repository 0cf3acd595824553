//! What a reader hands on without a look into it.

use crate::batch::Batch;
use crate::checkpoint::Place;
use crate::error::Result;
use crate::topic::Offset;

use super::{Chunk, Entry};

/// Records of one partition, in order, as the log holds them, and where to read on.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// The partition.
    pub place: Place,
    /// The records; offsets rise.
    pub runs: Vec<Run>,
    /// The offset to read from next; past the last record and past holes after it.
    pub next: Offset,
}

/// Some records of a parcel.
#[derive(Clone, Debug)]
pub enum Run {
    /// A whole batch as it lies in the log, at offsets without a hole.
    Batch {
        /// The first record's offset.
        first: Offset,
        /// The records.
        batch: Batch,
    },
    /// Records that were decoded.
    Entries(Vec<Entry>),
}

impl Parcel {
    /// Decodes what is not decoded yet. What is damaged is `Corrupt`, naming the position.
    pub fn open(self) -> Result<Chunk> {
        let Parcel { place, runs, next } = self;
        let mut entries = Vec::new();
        for run in runs {
            match run {
                Run::Entries(more) if entries.is_empty() => entries = more,
                Run::Entries(more) => entries.extend(more),
                Run::Batch { first, batch } => {
                    entries.reserve(batch.count() as usize);
                    open_batch(&place, (first, &batch), &mut entries)?;
                }
            }
        }
        Ok(Chunk { place, entries, next })
    }

    /// The offset of the first record, if there is one.
    pub fn first(&self) -> Option<Offset> {
        self.runs.iter().find_map(|run| match run {
            Run::Batch { first, .. } => Some(*first),
            Run::Entries(entries) => entries.first().map(|entry| entry.offset),
        })
    }

    /// About how many bytes the records hold once they are decoded, for budgets.
    pub fn weight(&self) -> usize {
        let weight = |run: &Run| match run {
            Run::Batch { batch, .. } => batch.weight(),
            Run::Entries(entries) => entries.iter().map(|entry| entry.record.weight()).sum(),
        };
        self.runs.iter().map(weight).sum()
    }

    /// The number of encoded bytes that [`Parcel::open`] has to decode.
    pub fn sealed_bytes(&self) -> usize {
        let bytes = |run: &Run| match run {
            Run::Batch { batch, .. } => batch.encoded_bytes(),
            Run::Entries(_) => 0,
        };
        self.runs.iter().map(bytes).sum()
    }

    /// Adds a decoded record at the end.
    pub(crate) fn push(&mut self, entry: Entry) {
        match self.runs.last_mut() {
            Some(Run::Entries(entries)) => entries.push(entry),
            _ => self.runs.push(Run::Entries(vec![entry])),
        }
    }
}

impl From<Chunk> for Parcel {
    fn from(Chunk { place, entries, next }: Chunk) -> Self {
        let runs = if entries.is_empty() { Vec::new() } else { vec![Run::Entries(entries)] };
        Parcel { place, runs, next }
    }
}

fn open_batch(place: &Place, (first, batch): (Offset, &Batch), entries: &mut Vec<Entry>) -> Result<()> {
    for (offset, record) in (first.0..).zip(batch.records()) {
        let record = record.map_err(|error| error.context(format!("read {place} at offset {first}")))?;
        entries.push(Entry { offset: Offset(offset), record });
    }
    Ok(())
}
