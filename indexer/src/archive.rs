//! The archive: processed events as objects of NDJSON in object storage.
//!
//! An object covers a span of one partition. Its name holds the span's first offset and it is put
//! only if absent, so for each first offset there is exactly one object, and whoever comes second
//! adopts the end of what is there. Objects form a chain: each begins with the first event past the
//! end of the one before it. A crash between a put and the commit repeats the put, finds the object
//! and goes on behind it; two workers that race extend one chain together.
//!
//! Where an object ends follows from offsets, sizes and arrivals (see the module `lane`), so that reading
//! the same events again cuts them alike and writes the same bytes. Only two things cut otherwise:
//! an idle stream is flushed by the clock, and the largest objects are when memory is short.
//!
//! On shutdown nothing is flushed: what is not in an object yet is read again.

mod codec;
mod lane;
mod object;
mod put;
mod read;
mod staged;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use broker::catalog::{SinkKind, Stream, Unsettled};
use broker::log::{Chunk, Parcel};
use broker::{
    Catalog, Checkpoint, Clock, Error, Flushed, Kind, Offset, Place, Rejection, Result, Settled, Sink,
    StreamName, Timestamp,
};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use object_store::ObjectStore;
use tokio::sync::Semaphore;

use lane::{Cutting, Lane, Placed};
pub use object::Compression;
use put::{Objects, blocking};
pub use read::{ArchivedEvent, ArchivedObject, count, objects, read_object};

use crate::switches::{self, Switches};

/// How many objects are compressed and put at the same time.
const PUTS_MAX: usize = 4;
/// How many objects are compressed as they grow; the others when they end. Each holds some megabytes.
const ENCODERS_MAX: usize = 8;

/// How objects are cut and written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveSettings {
    /// An object holds at most so many bytes of lines, before compression; one larger event has an
    /// object of its own.
    pub object_bytes_max: u64,
    /// An object holds events that arrived within so long a time. A stream that fell idle is
    /// flushed after as long.
    pub object_age_max: Duration,
    /// How objects are compressed.
    pub compression: Compression,
    /// How many bytes of events may wait in memory, over all partitions.
    pub staged_bytes_max: u64,
    /// Objects above this size, compressed, are uploaded in parts of it; at least 5 MiB, the
    /// smallest part that S3 takes.
    pub multipart_bytes: u64,
}

impl Default for ArchiveSettings {
    fn default() -> Self {
        Self {
            object_bytes_max: 64 << 20,
            object_age_max: Duration::from_secs(300),
            compression: Compression::default(),
            staged_bytes_max: 128 << 20,
            multipart_bytes: 16 << 20,
        }
    }
}

/// The sink that writes objects. One worker drives it over the processed topics, as group
/// [`broker::Group::ARCHIVE`].
pub struct Archive {
    objects: Objects,
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    cutting: Cutting,
    lanes: Lanes,
    switches: Switches,
}

type Lanes = BTreeMap<Place, Lane>;

impl Archive {
    /// A sink that writes to `objects` the streams of `catalog` that have it switched on.
    pub fn new(
        objects: Arc<dyn ObjectStore>,
        catalog: Arc<Catalog>,
        clock: Arc<dyn Clock>,
        settings: ArchiveSettings,
    ) -> Self {
        let settings = Arc::new(settings);
        let switches = Switches::new(&catalog, SinkKind::Archive, Arc::clone(&objects));
        let objects = Objects::new(objects, Arc::clone(&settings));
        let cutting = Cutting { settings, encoders: Arc::new(Semaphore::new(ENCODERS_MAX)) };
        Self { objects, catalog, clock, cutting, lanes: BTreeMap::new(), switches }
    }

    /// The stream whose processed topic this is, as the catalog knows it; none once it is deleted.
    fn stream(&self, place: &Place) -> Option<Arc<Stream>> {
        switches::stream(&self.catalog, place)
    }

    /// The parcel's stream. The catalog is read to its end first where the parcel contradicts it:
    /// the stream is unknown, or offsets fell back because it was deleted and made again elsewhere.
    async fn stream_of(&self, parcel: &Parcel) -> Result<Option<Arc<Stream>>> {
        let next = self.lanes.get(&parcel.place).map_or(Offset(0), Lane::next);
        let fell_back = parcel.first().is_some_and(|first| first < next);
        let known = self.stream(&parcel.place);
        if known.is_some() && !fell_back {
            return Ok(known);
        }
        self.catalog.refresh().await?;
        Ok(self.stream(&parcel.place))
    }

    /// Makes sure that no object is put under the name of a life that ended: another process may
    /// have deleted the stream and made it again a moment ago.
    async fn check_lives(&self) -> Result<()> {
        let due: Vec<_> = self.lanes.iter().filter(|(_, lane)| lane.has_closed()).collect();
        if due.is_empty() {
            return Ok(());
        }
        self.catalog.refresh().await?;
        let is_another = |(place, lane): &&(&Place, &Lane)| {
            self.stream(place).is_some_and(|stream| stream.definition.incarnation != lane.incarnation())
        };
        due.iter().find(is_another).map_or(Ok(()), |(_, lane)| Err(began_anew(lane.stream())))
    }

    /// Closes the largest open objects until what waits is within its limit.
    fn relieve(&mut self) {
        let mut held: u64 = self.lanes.values().map(Lane::open_bytes).sum();
        while held > self.cutting.settings.staged_bytes_max {
            let Some(largest) = self.lanes.values_mut().max_by_key(|lane| lane.open_bytes()) else {
                return;
            };
            held -= largest.open_bytes();
            largest.close();
        }
    }

    /// Where progress waits for a span to be settled that ends: what is passed over behind its end must not
    /// be taken for a part of it by who settles it after a crash.
    fn barrier(&self, place: &Place, lane: &Lane) -> Offset {
        let unsettled = |stream: Arc<Stream>| stream.unsettled(SinkKind::Archive, place.partition);
        let ending = lane.known_limit().filter(|(span, _)| {
            let unsettled = self.stream(place).and_then(unsettled);
            matches!(unsettled, Some(Unsettled::End { span: ending, .. }) if ending == *span)
        });
        ending.map_or(Offset(u64::MAX), |(_, limit)| limit)
    }

    fn through(&self, upto: &Checkpoint) -> Checkpoint {
        let through = upto.iter().map(|(place, reached)| {
            let through = match self.lanes.get(place) {
                None => reached,
                Some(lane) if lane.is_empty() => lane.floor().max(reached.min(self.barrier(place, lane))),
                Some(lane) => lane.floor(),
            };
            (place.clone(), through)
        });
        through.filter(|(_, through)| *through > Offset(0)).collect()
    }
}

#[async_trait]
impl Sink for Archive {
    /// Forgets what was staged. Where objects reach further than what was committed, they are
    /// adopted when they are found in the way.
    async fn resume(&mut self, committed: &Checkpoint) -> Result<Checkpoint> {
        // An object's name holds the life of its stream, which another process may have begun.
        self.catalog.refresh().await?;
        for (place, next) in committed.iter() {
            self.lanes.remove(place);
            if let Some(stream) = self.stream(place) {
                let lane = Lane::new(place.partition, stream, next, &self.cutting.settings);
                self.lanes.insert(place.clone(), lane);
            }
        }
        Ok(committed.clone())
    }

    async fn write(&mut self, chunks: Vec<Chunk>) -> Result<Vec<Rejection>> {
        self.write_parcels(chunks.into_iter().map(Parcel::from).collect()).await
    }

    async fn write_parcels(&mut self, parcels: Vec<Parcel>) -> Result<Vec<Rejection>> {
        let mut known = Vec::with_capacity(parcels.len());
        for parcel in parcels {
            let stream = self.stream_of(&parcel).await?;
            known.push((parcel, stream));
        }
        let mut lanes = std::mem::take(&mut self.lanes);
        let (now, cutting) = (self.clock.now(), self.cutting.clone());
        // After an error the worker resumes, and nothing is left of what was staged.
        self.lanes = blocking(move || {
            for (parcel, stream) in known {
                stage(&mut lanes, (parcel, stream), now, &cutting)?;
            }
            Ok(lanes)
        })
        .await?;
        Ok(Vec::new())
    }

    async fn flush(&mut self, upto: &Checkpoint) -> Result<Flushed> {
        let now = self.clock.now();
        for lane in self.lanes.values_mut().filter(|lane| lane.is_idle(now, &self.cutting.settings)) {
            lane.close();
        }
        self.relieve();
        self.check_lives().await?;
        let due = self.lanes.values_mut().filter(|lane| lane.has_closed());
        let puts: Vec<BoxFuture<'_, Result<()>>> =
            due.map(|lane| Box::pin(put_closed(lane, &self.objects, &self.cutting)) as _).collect();
        stream::iter(puts).buffer_unordered(PUTS_MAX).try_collect::<()>().await?;
        Ok(Flushed { through: self.through(upto), appends: Vec::new() })
    }

    fn unsettled(&mut self) -> Vec<Place> {
        self.switches.places()
    }

    async fn settle(&mut self, at: &Checkpoint) -> Result<Settled> {
        let lanes = &mut self.lanes;
        let end = |place: &Place, span: (u32, Offset), position| end(lanes.get_mut(place), span, position);
        let settled = self.switches.settle(at, end).await?;
        // What was staged of them is read again.
        settled.rewind.iter().for_each(|(place, _)| drop(self.lanes.remove(place)));
        Ok(settled)
    }
}

/// Where a span that was switched off ended, once everything of it is in objects. Closes what is open.
fn end(lane: Option<&mut Lane>, span: (u32, Offset), position: Offset) -> Option<Offset> {
    let Some(lane) = lane else {
        return (position >= span.1).then_some(position);
    };
    let limit = lane.limit(span);
    if position < limit {
        return None;
    }
    lane.close();
    lane.is_empty().then(|| limit.max(lane.floor()))
}

/// Stages a parcel of a stream; one of a stream that is gone is dropped. Blocks.
fn stage(
    lanes: &mut Lanes,
    (parcel, stream): (Parcel, Option<Arc<Stream>>),
    now: Timestamp,
    cutting: &Cutting,
) -> Result<()> {
    let Some(stream) = stream else {
        lanes.remove(&parcel.place);
        return Ok(());
    };
    let life = stream.definition.incarnation;
    let lane = lanes.get(&parcel.place);
    let is_other_life = lane.is_some_and(|lane| lane.incarnation() != life);
    // What this life had before the parcel was staged as if it were the life before.
    if is_other_life && parcel.first().is_some_and(|first| first > Offset(0)) {
        return Err(began_anew(stream.name()));
    }
    if is_other_life || lane.is_none() {
        let lane = Lane::new(parcel.place.partition, Arc::clone(&stream), Offset(0), &cutting.settings);
        lanes.insert(parcel.place.clone(), lane);
    }
    let lane = lanes.get_mut(&parcel.place).expect("it was there or was inserted");
    let admitted = lane.admitted(&stream);
    let is_whole = |range: &Range<Offset>| {
        parcel.first().is_some_and(|first| range.start <= first && parcel.next <= range.end)
    };
    if admitted.iter().any(is_whole) {
        return parcel.view_each(|offset, event| lane.push((offset, &event), now, cutting));
    }
    parcel.view_each(|offset, event| {
        if admitted.iter().any(|range| range.contains(&offset)) {
            return lane.push((offset, &event), now, cutting);
        }
        lane.close();
        Ok(())
    })
}

/// The error that makes the worker resume.
fn began_anew(stream: &StreamName) -> Error {
    Error::new(Kind::Fenced, format!("stream {stream} began another life"))
}

/// Puts a partition's closed objects one after the other: where one ends decides where the next
/// begins.
async fn put_closed(lane: &mut Lane, objects: &Objects, cutting: &Cutting) -> Result<()> {
    while let Some(closed) = lane.take_closed() {
        let put = objects.put(lane.span(closed)).await;
        let put = put.map_err(|error| match error.kind() {
            // The bucket is gone: wait for it, the stream is still there.
            Kind::NotFound => Error::unavailable(error.to_string()),
            _ => error,
        })?;
        match put {
            Placed::Put(end) => lane.pass(end),
            Placed::Adopted(end, ours) => {
                let (mut taken, cutting) = (lane.take(&cutting.settings), cutting.clone());
                let cut = move || taken.cut_anew(end, &ours, &cutting).map(|()| taken);
                *lane = blocking(cut).await?;
            }
        }
    }
    Ok(())
}
