//! What a reader hands on without a look into it.

use crate::batch::{Batch, View};
use crate::checkpoint::Place;
use crate::error::{Error, Result};
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

    /// Shows every record with its offset, in order, without taking it out of its batch; an error of
    /// `each` ends it. What is damaged is `Corrupt`, naming the position, after what comes before it.
    pub fn view_each(&self, mut each: impl FnMut(Offset, View<'_>) -> Result<()>) -> Result<()> {
        for run in &self.runs {
            match run {
                Run::Entries(entries) => {
                    entries.iter().try_for_each(|entry| each(entry.offset, View::of(&entry.record)))?
                }
                Run::Batch { first, batch } => view_batch(&self.place, (*first, batch), &mut each)?,
            }
        }
        Ok(())
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
        let record = record.map_err(|error| unreadable(error, place, first))?;
        entries.push(Entry { offset: Offset(offset), record });
    }
    Ok(())
}

fn view_batch(
    place: &Place,
    (first, batch): (Offset, &Batch),
    each: &mut impl FnMut(Offset, View<'_>) -> Result<()>,
) -> Result<()> {
    let locate = |error: Error| unreadable(error, place, first);
    let unpacked = batch.unpack().map_err(locate)?;
    for (offset, view) in (first.0..).zip(unpacked.views()) {
        each(Offset(offset), view.map_err(locate)?)?;
    }
    Ok(())
}

fn unreadable(error: Error, place: &Place, first: Offset) -> Error {
    error.context(format!("read {place} at offset {first}"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::Record;
    use crate::time::Timestamp;
    use crate::topic::{Partition, Topic};

    fn parcel() -> Parcel {
        let arrival = Timestamp::from_millis(978_307_200_000).unwrap();
        let records: Vec<Record> = (0..5).map(|n| Record::new(format!("{{\"n\":{n}}}"), arrival)).collect();
        let mut parcel = Parcel {
            place: Place::new(Topic::internal("places"), Partition(0)),
            runs: vec![Run::Batch { first: Offset(7), batch: Batch::of(&records).unwrap() }],
            next: Offset(30),
        };
        for offset in [20, 25] {
            parcel.push(Entry { offset: Offset(offset), record: records[0].clone().with_key("k") });
        }
        parcel
    }

    #[test]
    fn what_is_shown_is_what_comes_out() {
        let parcel = parcel();
        let opened = parcel.clone().open().unwrap().entries;
        let mut expected = opened.iter();
        let shown = parcel.view_each(|offset, view| {
            let entry = expected.next().expect("no more than come out");
            assert_eq!((offset, view), (entry.offset, View::of(&entry.record)));
            Ok(())
        });
        shown.unwrap();
        assert_eq!(expected.next(), None);
    }

    #[test]
    fn showing_ends_with_the_first_error_and_damage_names_the_position() {
        let mut shown = 0;
        let refused = parcel().view_each(|_, _| {
            shown += 1;
            if shown == 2 { Err(Error::internal("enough")) } else { Ok(()) }
        });
        assert_eq!((refused.unwrap_err().to_string().as_str(), shown), ("enough", 2));
        let arrival = Timestamp::default();
        let batch = Batch::from_parts(Bytes::from_static(b"\x00"), 1, (arrival, arrival));
        let damaged = Parcel { runs: vec![Run::Batch { first: Offset(7), batch }], ..parcel() };
        let error = damaged.view_each(|_, _| Ok(())).unwrap_err();
        assert!(error.to_string().contains("at offset 7"), "{error}");
    }
}
