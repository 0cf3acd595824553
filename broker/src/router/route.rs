//! A parcel's way through the transforms of its stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::counts;
use crate::batch::{Batch, BatchBuilder};
use crate::catalog::Stream;
use crate::checkpoint::Place;
use crate::error::Result;
use crate::log::{Append, Entry, Parcel, Run};
use crate::record::Origin;
use crate::sink::Rejection;
use crate::topic::{Offset, Partition, Stage, StreamName};
use crate::transform::{Outcome, Transform};

/// Smaller batches are not passed on as they are but put together, so that a stream of single events
/// does not stay one of tiny batches for all who read it.
const PASSED_BYTES_MIN: usize = 4 << 10;

/// A parcel with what is to become of it.
pub(super) struct Route {
    parcel: Parcel,
    stream: Arc<Stream>,
    transforms: BTreeMap<u32, Arc<dyn Transform>>,
}

/// What became of a parcel.
pub(super) struct Routed {
    pub(super) stream: StreamName,
    pub(super) counts: counts::Routed,
    pub(super) outputs: Vec<Append>,
    pub(super) rejections: Vec<Rejection>,
}

impl Route {
    pub(super) fn new(
        parcel: Parcel,
        (stream, transforms): (Arc<Stream>, BTreeMap<u32, Arc<dyn Transform>>),
    ) -> Self {
        Self { parcel, stream, transforms }
    }

    /// About how many bytes there are to transform.
    pub(super) fn weight(&self) -> usize {
        if self.transforms.values().all(|transform| transform.is_identity()) {
            0
        } else {
            self.parcel.weight()
        }
    }

    /// Runs the transforms; blocks. `Corrupt` if what was read cannot be decoded.
    pub(super) fn run(self) -> Result<Routed> {
        let Route { parcel, stream, transforms } = self;
        let Parcel { place, runs, .. } = parcel;
        let output = Place::new(stream.topic(Stage::Processed), place.partition);
        let mut way = Way::new((&stream, &transforms), place, output);
        for run in runs {
            match run {
                Run::Batch { first, batch } if way.passes(first, &batch) => way.pass(first, batch),
                run => way.take(run)?,
            }
        }
        way.end_batch();
        Ok(Routed {
            stream: stream.name().clone(),
            counts: way.counts,
            outputs: way.outputs,
            rejections: way.rejections,
        })
    }
}

/// Where a parcel's records are under way.
struct Way<'r> {
    stream: &'r Stream,
    transforms: &'r BTreeMap<u32, Arc<dyn Transform>>,
    place: Place,
    output: Place,
    batch: BatchBuilder,
    counts: counts::Routed,
    outputs: Vec<Append>,
    rejections: Vec<Rejection>,
}

impl<'r> Way<'r> {
    fn new(
        (stream, transforms): (&'r Stream, &'r BTreeMap<u32, Arc<dyn Transform>>),
        place: Place,
        output: Place,
    ) -> Self {
        let (counts, outputs, rejections) = Default::default();
        Self { stream, transforms, place, output, batch: BatchBuilder::new(), counts, outputs, rejections }
    }

    /// Whether a batch goes on as it is: one version of the transform applies to all of it, and that
    /// changes nothing. Versions only ever rise with the offsets, so the two ends tell.
    fn passes(&self, first: Offset, batch: &Batch) -> bool {
        let partition = self.place.partition;
        let last = Offset(first.0 + u64::from(batch.count()).saturating_sub(1));
        let version = self.stream.transform_at(partition, first).version;
        batch.encoded_bytes() >= PASSED_BYTES_MIN
            && self.transforms[&version].is_identity()
            && self.stream.transform_at(partition, last).version == version
    }

    fn pass(&mut self, first: Offset, batch: Batch) {
        self.end_batch();
        self.counts.forwarded += u64::from(batch.count());
        let batch = batch.with_origins_from(Origin { partition: self.place.partition, offset: first });
        self.outputs.push(Append { place: self.output.clone(), batch });
    }

    /// Hands over what was put together, so that what follows comes after it.
    fn end_batch(&mut self) {
        let place = self.output.clone();
        let batch = std::mem::take(&mut self.batch).finish();
        self.outputs.extend(batch.map(|batch| Append { place, batch }));
    }

    fn take(&mut self, run: Run) -> Result<()> {
        let parcel = Parcel { place: self.place.clone(), runs: vec![run], next: Offset::default() };
        for entry in parcel.open()?.entries {
            self.apply(self.place.partition, entry);
        }
        Ok(())
    }

    fn apply(&mut self, partition: Partition, Entry { offset, record }: Entry) {
        let transform_version = self.stream.transform_at(partition, offset).version;
        let before = (record.value.as_ptr(), record.value.len());
        match self.transforms[&transform_version].apply(record) {
            Outcome::Forward(mut record) => {
                record.origin = Some(Origin { partition, offset });
                if before != (record.value.as_ptr(), record.value.len()) {
                    let extracted = self.stream.extractor().extract(&record.value);
                    record.time = extracted.ok().and_then(|found| found.time).unwrap_or(record.time);
                }
                self.batch.push(&record);
                self.counts.forwarded += 1;
            }
            Outcome::Drop => self.counts.dropped += 1,
            Outcome::Reject { record, reason } => {
                self.counts.rejected += 1;
                let (place, entry) = (self.place.clone(), Entry { offset, record });
                self.rejections.push(Rejection { place, entry, reason, transform_version });
            }
        }
    }
}
