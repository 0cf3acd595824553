//! What a query looks at: every event that was answered with success before it began.
//!
//! First the raw topic's ends are taken and the router is waited for, then the processed topic's
//! ends; then splits and the live part are taken at one moment for each partition, and what the live
//! part lacks is read from the log. Where the router does not get there in time, or the rest of the
//! log is more than a query reads, the snapshot says through when it is complete.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use broker::catalog::Stream;
use broker::{Chunk, Error, Group, Kind, Offset, Partition, Place, Result, Stage, Timestamp};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::parse::Bounds;
use super::search::Piece;
use crate::index::{Indexer, Limits, PartView, Run, SplitName, StreamIndex};
use crate::split::Footer;

/// How much is read from the log at once.
const READ_BYTES_MAX: usize = 4 << 20;
/// How long the first wait for the router is; each further one is twice as long.
const WAIT_FIRST: Duration = Duration::from_millis(1);
/// How long a wait for the router is at most.
const WAIT_MAX: Duration = Duration::from_millis(50);
/// How often a query takes its snapshot anew because a split was removed meanwhile.
const LISTINGS_MAX: u32 = 5;
/// How many splits are opened at the same time.
const OPEN_MAX: usize = 8;

/// The pieces that an answer is made of; they stay as they are.
pub(crate) struct Snapshot {
    pub(super) pieces: Arc<Vec<Piece>>,
    /// How many events are in splits that were not opened, all of them within the bounds.
    pub(super) unopened: u64,
    /// Every event that was answered with success before this instant is in it.
    pub(crate) complete_through: Timestamp,
}

/// What is asked of the splits that lie within the bounds as a whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    /// Their events.
    Opened,
    /// How many they hold, which their footers say.
    Counted,
}

/// What a snapshot is made of, before splits are opened.
struct Seen {
    splits: Vec<Arc<Footer>>,
    unopened: u64,
    pieces: Vec<Piece>,
    complete_through: Timestamp,
}

impl Indexer {
    /// Takes a snapshot of the pieces that `bounds` touch.
    pub(crate) async fn snapshot(&self, stream: &Stream, bounds: Bounds) -> Result<Snapshot> {
        self.snapshot_of(stream, bounds, Whole::Opened).await
    }

    /// The same where nothing but the number of events is wanted, of any words. Splits that lie within the
    /// bounds as a whole are not opened: who counts all the time neither fetches nor maps the whole index.
    pub(super) async fn snapshot_to_count(&self, stream: &Stream, bounds: Bounds) -> Result<Snapshot> {
        self.snapshot_of(stream, bounds, Whole::Counted).await
    }

    async fn snapshot_of(&self, stream: &Stream, bounds: Bounds, whole: Whole) -> Result<Snapshot> {
        let now = self.clock.now();
        let deadline = Instant::now() + self.limits.query_wait_max;
        let index = self.of(stream);
        let mut complete_through = self.wait_for_router(&index, stream, (now, deadline)).await?;
        self.keep_listed(&index).await?;
        for attempt in 1.. {
            let mut seen = self.see_all(&index, bounds, (now, deadline)).await?;
            if whole == Whole::Counted {
                seen.leave_unopened(bounds);
            }
            match self.open_all(&index, std::mem::take(&mut seen.splits)).await {
                Ok(opened) => {
                    seen.pieces.extend(opened);
                    complete_through = complete_through.min(seen.complete_through);
                    let Seen { pieces, unopened, .. } = seen;
                    return Ok(Snapshot { pieces: Arc::new(pieces), unopened, complete_through });
                }
                // It was merged with others, or dropped, since it was listed.
                Err(error) if error.kind() == Kind::NotFound && attempt < LISTINGS_MAX => {
                    self.list_again(&index).await?;
                }
                Err(error) if error.kind() == Kind::NotFound => {
                    return Err(Error::unavailable(error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::internal("take a snapshot"))
    }

    /// What every partition holds, each at one moment; splits are not opened yet.
    async fn see_all(
        &self,
        index: &StreamIndex,
        bounds: Bounds,
        (now, deadline): (Timestamp, Instant),
    ) -> Result<Seen> {
        let mut seen = Seen::nothing(now);
        for partition in index.partitions() {
            let (view, rest) = self.see(index, partition, deadline).await?;
            seen.splits.extend(view.splits.into_iter().filter(|footer| touches(footer, bounds)));
            seen.pieces.extend(view.runs.into_iter().map(Piece::Run));
            if let Some(rest) = rest {
                seen.complete_through = seen.complete_through.min(rest.complete_through.unwrap_or(now));
                seen.pieces.extend(rest.runs_past(index, (partition, view.end)).map(Piece::Run));
            }
        }
        Ok(seen)
    }

    async fn open_all(&self, index: &StreamIndex, splits: Vec<Arc<Footer>>) -> Result<Vec<Piece>> {
        let opening = splits.into_iter().map(|footer| async move {
            let location = index.folder().split(SplitName::of(&footer));
            Ok(Piece::Split(self.splits.open(&location).await?))
        });
        stream::iter(opening).buffered(OPEN_MAX).try_collect().await
    }

    /// Waits until the router has passed what the raw topic holds now. Answers `now`, or when the
    /// first record came that it did not pass in time.
    ///
    /// Where the router is known to be past all that, it is not asked, which is a look into the store on
    /// another thread, or a request to a broker.
    async fn wait_for_router(
        &self,
        index: &StreamIndex,
        stream: &Stream,
        (now, deadline): (Timestamp, Instant),
    ) -> Result<Timestamp> {
        let raw = stream.topic(Stage::Raw);
        let (mut waiting, mut is_known): (Vec<(Place, Offset)>, _) = (Vec::new(), true);
        for partition in stream.partitions() {
            let place = Place::new(raw.clone(), partition);
            let bounds = self.log.bounds(&place).await?;
            if !index.is_routed(partition, bounds.end) {
                is_known = false;
            }
            if bounds.start < bounds.end {
                waiting.push((place, bounds.end));
            }
        }
        if is_known {
            return Ok(now);
        }
        let mut wait = WAIT_FIRST;
        loop {
            let committed = self.log.committed(&Group::ROUTER, &raw).await?;
            index.note_routed(&committed);
            waiting.retain(|(place, end)| committed.get(place).is_none_or(|next| next < *end));
            if waiting.is_empty() {
                return Ok(now);
            }
            if Instant::now() + wait > deadline {
                let mut through = now;
                for (place, end) in &waiting {
                    let next = committed.get(place).unwrap_or(Offset(0));
                    through = through.min(self.first_arrival(place, next..*end).await?.unwrap_or(now));
                }
                return Ok(through);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    /// When the first record of a range arrived; none if the range holds none.
    async fn first_arrival(&self, place: &Place, range: Range<Offset>) -> Result<Option<Timestamp>> {
        let mut next = range.start;
        while next < range.end {
            let chunk = self.log.read(&position(place, next), 1).await?;
            if let Some(entry) = chunk.entries.first() {
                return Ok((entry.offset < range.end).then_some(entry.record.arrival));
            }
            if chunk.next <= next {
                break;
            }
            next = chunk.next;
        }
        Ok(None)
    }

    /// A partition up to the processed topic's end: what is published and live at one moment, and
    /// the rest where the live part does not take it.
    async fn see(
        &self,
        index: &StreamIndex,
        partition: Partition,
        deadline: Instant,
    ) -> Result<(PartView, Option<Rest>)> {
        let end = self.log.bounds(&index.place(partition)).await?.end;
        loop {
            let (reached, rest) = self.catch_up(index, partition, (end, deadline)).await?;
            let view = index.view(partition);
            // The live part may have been begun anew in between.
            if view.end >= reached {
                return Ok((view, rest));
            }
            if Instant::now() >= deadline {
                return Err(Error::new(Kind::Busy, "the live part of the index is being read again"));
            }
        }
    }

    /// Reads what the live part lacks up to `end`: into the live part while it takes more, else for
    /// this query only. Answers how far the live part came.
    async fn catch_up(
        &self,
        index: &StreamIndex,
        partition: Partition,
        (end, deadline): (Offset, Instant),
    ) -> Result<(Offset, Option<Rest>)> {
        let place = index.place(partition);
        let mut has_released = false;
        // How many records a query may read of the log, as far as that is known.
        let mut reach = u64::MAX;
        loop {
            index.pass_unwanted(partition, end);
            let next = index.end(partition);
            if next >= end {
                return Ok((end, None));
            }
            if self.is_full() && !has_released {
                self.release_unowned();
                has_released = true;
                continue;
            }
            if self.is_full() {
                let is_late = Instant::now() >= deadline;
                if is_late || end.0 - next.0 <= reach {
                    let rest = self.read_rest(&place, next..end, self.limits.share_of(index)).await?;
                    if is_late || rest.complete_through.is_none() {
                        return Ok((next, Some(rest)));
                    }
                    reach = rest.records();
                }
                tokio::time::sleep(WAIT_MAX).await;
                continue;
            }
            let chunk = self.log.read(&position(&place, next), READ_BYTES_MAX).await?;
            if chunk.next <= next {
                return Ok((next, None));
            }
            index.extend(next, chunk, self.clock.now(), self.limits.segment_events_max);
        }
    }

    /// Reads so many bytes of a part of the log for one query, or a little more.
    async fn read_rest(&self, place: &Place, part: Range<Offset>, bytes_max: usize) -> Result<Rest> {
        let (mut next, mut left) = (part.start, bytes_max);
        let mut chunks = Vec::new();
        while next < part.end && left > 0 {
            let chunk = self.log.read(&position(place, next), READ_BYTES_MAX.min(left)).await?;
            if chunk.next <= next {
                break;
            }
            left = left.saturating_sub(chunk.entries.iter().map(|entry| entry.record.weight()).sum());
            next = chunk.next;
            chunks.push(chunk);
        }
        let complete_through = self.first_arrival(place, next..part.end).await?;
        Ok(Rest { from: part.start, chunks, complete_through })
    }
}

impl Seen {
    fn nothing(complete_through: Timestamp) -> Self {
        Self { splits: Vec::new(), unopened: 0, pieces: Vec::new(), complete_through }
    }

    /// Takes the splits that lie within the bounds as a whole for their number of events.
    fn leave_unopened(&mut self, bounds: Bounds) {
        let is_whole = |footer: &Footer| bounds.from <= footer.time_min && footer.time_max <= bounds.to;
        let whole = self.splits.extract_if(.., |footer| is_whole(footer));
        self.unopened += whole.map(|footer| u64::from(footer.count)).sum::<u64>();
    }
}

impl Limits {
    /// What a query may read of the log of each partition.
    fn share_of(&self, index: &StreamIndex) -> usize {
        (self.query_read_bytes_max / index.partitions().count().max(1)).max(1)
    }
}

/// What was read for one query past the live part.
struct Rest {
    from: Offset,
    chunks: Vec<Chunk>,
    /// When the first record arrived that was not read; none if all were.
    complete_through: Option<Timestamp>,
}

impl Rest {
    /// How many records of the log were read.
    fn records(&self) -> u64 {
        self.chunks.last().map_or(0, |last| last.next.0 - self.from.0)
    }

    /// Runs of what lies at or past `end`, where the live part ended when it was looked at.
    fn runs_past(
        self,
        index: &StreamIndex,
        (partition, end): (Partition, Offset),
    ) -> impl Iterator<Item = Arc<Run>> {
        let mut next = self.from;
        self.chunks.into_iter().map(move |chunk| {
            let offsets = next.max(end)..chunk.next.max(end);
            next = chunk.next;
            let mut entries =
                chunk.entries.into_iter().filter(|entry| offsets.contains(&entry.offset)).collect();
            index.retain_admitted(partition, &offsets, &mut entries);
            Arc::new(Run::new(partition, offsets, entries))
        })
    }
}

fn position(place: &Place, offset: Offset) -> broker::Position {
    broker::Position { place: place.clone(), offset }
}

fn touches(footer: &Footer, bounds: Bounds) -> bool {
    footer.time_min <= bounds.to && bounds.from <= footer.time_max
}
