//! Shared tails: what was appended last to a partition that is followed, read from the log and
//! written once for all who follow there in the same form.
//!
//! A follower who is further behind than a tail reaches back reads by itself, up to where the tail
//! has a chunk that begins. Tails are read by one task of the process and not by those who follow: a
//! follower whose connection takes nothing more is not asked to go on, and would hold up the others.
//! A tail holds [`TAIL_BYTES_MAX`] of chunks, and ends with its last follower.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use broker::{Chunk, Error, Log, Offset, Place, Position, Result};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::Form;
use crate::index::{Indexer, lock};

/// How much is read from one partition at once.
const READ_BYTES_MAX: usize = 256 << 10;
/// How many bytes of chunks a tail keeps for those who are a little behind.
const TAIL_BYTES_MAX: usize = 1 << 20;

/// The tails of all partitions that are followed now.
#[derive(Default)]
pub(crate) struct Tails {
    open: Mutex<HashMap<TailKey, Arc<Tail>>>,
    begun: Mutex<Vec<Arc<Tail>>>,
    any_begun: Notify,
}

/// A partition of one life of its stream, in one form.
type TailKey = (u64, Place, Form);

/// The end of one partition.
struct Tail {
    key: TailKey,
    ring: Mutex<Ring>,
    grown: watch::Sender<Grown>,
}

/// How far a tail has come, and why it goes no further.
#[derive(Clone, Debug)]
struct Grown {
    next: Offset,
    failure: Option<Error>,
}

/// The newest chunks, without a gap between them.
struct Ring {
    chunks: VecDeque<Rendered>,
    bytes: usize,
    next: Offset,
}

/// Events of a range of offsets, as the tail's form has them.
#[derive(Clone, Debug)]
pub(crate) struct Rendered {
    pub(crate) offsets: Range<Offset>,
    pub(crate) frames: Bytes,
    /// Offsets right before these that were removed before they were read.
    pub(crate) missed: Option<Range<Offset>>,
}

/// What a tail has for a follower.
enum Found {
    /// The chunk that begins where the follower stands.
    Chunk(Rendered),
    /// Nothing yet.
    AtEnd,
    /// No chunk begins there; the next one begins here.
    Before(Offset),
}

/// One who follows a partition.
pub(crate) struct Follower {
    log: Arc<dyn Log>,
    tail: Arc<Tail>,
    grown: watch::Receiver<Grown>,
    next: Offset,
}

impl Indexer {
    /// Reads the tails that are followed, until `stop`. One at a time; who follows gets nothing new
    /// while it does not run.
    pub async fn keep_tails(self: Arc<Self>, stop: CancellationToken) -> Result<()> {
        let mut running = FuturesUnordered::new();
        loop {
            let begun = std::mem::take(&mut *lock(&self.tails.begun));
            running.extend(begun.into_iter().map(|tail| self.tails.keep(self.log.as_ref(), tail)));
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.tails.any_begun.notified() => {}
                Some(()) = running.next() => {}
            }
        }
    }
}

impl Tails {
    /// Follows a partition from a position. `end` is where its log ends: a tail begins there.
    pub(crate) fn follow(
        &self,
        log: &Arc<dyn Log>,
        (life, form): (u64, Form),
        from: Position,
        end: Offset,
    ) -> Follower {
        let key = (life, from.place, form);
        let mut open = lock(&self.open);
        let tail = open.entry(key).or_insert_with_key(|key| {
            let tail = Arc::new(Tail::beginning_at(key.clone(), end));
            lock(&self.begun).push(Arc::clone(&tail));
            self.any_begun.notify_one();
            tail
        });
        let (log, tail) = (Arc::clone(log), Arc::clone(tail));
        // While nobody else can find the tail abandoned.
        let grown = tail.grown.subscribe();
        Follower { log, tail, grown, next: from.offset }
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn open(&self) -> usize {
        lock(&self.open).len()
    }

    /// Reads a tail until nobody follows it any more, or it cannot be read.
    async fn keep(&self, log: &dyn Log, tail: Arc<Tail>) {
        loop {
            let next = lock(&tail.ring).next;
            let read = tokio::select! {
                biased;
                () = tail.grown.closed() => None,
                read = tail.read_past(log, next) => Some(read),
            };
            match read {
                Some(Ok(chunk)) => tail.push(chunk),
                Some(Err(error)) => {
                    lock(&self.open).remove(&tail.key);
                    tail.grown.send_modify(|grown| grown.failure = Some(error));
                    return;
                }
                None if self.has_abandoned(&tail) => return,
                None => {}
            }
        }
    }

    /// Lets go of a tail that nobody follows.
    fn has_abandoned(&self, tail: &Tail) -> bool {
        let mut open = lock(&self.open);
        let is_abandoned = tail.grown.receiver_count() == 0;
        if is_abandoned {
            open.remove(&tail.key);
        }
        is_abandoned
    }
}

impl Tail {
    fn beginning_at(key: TailKey, next: Offset) -> Self {
        let ring = Mutex::new(Ring { chunks: VecDeque::new(), bytes: 0, next });
        Self { key, ring, grown: watch::Sender::new(Grown { next, failure: None }) }
    }

    async fn read_past(&self, log: &dyn Log, next: Offset) -> Result<Rendered> {
        let chunk = read_past(log, &self.key.1, next).await?;
        Ok(Rendered::of(self.key.2, next, &chunk, chunk.next))
    }

    fn push(&self, chunk: Rendered) {
        let mut ring = lock(&self.ring);
        ring.next = chunk.offsets.end;
        if !chunk.offsets.is_empty() {
            ring.bytes += chunk.frames.len();
            ring.chunks.push_back(chunk);
        }
        while ring.bytes > TAIL_BYTES_MAX
            && let Some(oldest) = ring.chunks.pop_front()
        {
            ring.bytes -= oldest.frames.len();
        }
        self.grown.send_modify(|grown| grown.next = ring.next);
    }

    fn find(&self, next: Offset) -> Found {
        let ring = lock(&self.ring);
        if next >= ring.next {
            return Found::AtEnd;
        }
        let after = ring.chunks.partition_point(|chunk| chunk.offsets.start < next);
        match ring.chunks.get(after) {
            Some(chunk) if chunk.offsets.start == next => Found::Chunk(chunk.clone()),
            Some(chunk) => Found::Before(chunk.offsets.start),
            None => Found::Before(ring.next),
        }
    }
}

impl Follower {
    /// The partition.
    pub(crate) fn place(&self) -> &Place {
        &self.tail.key.1
    }

    /// The next events. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Rendered> {
        loop {
            let chunk = match self.tail.find(self.next) {
                Found::Chunk(chunk) => chunk,
                Found::Before(end) => self.read_alone(end).await?,
                Found::AtEnd => {
                    self.wait().await?;
                    continue;
                }
            };
            self.next = chunk.offsets.end;
            if !chunk.frames.is_empty() || chunk.missed.is_some() {
                return Ok(chunk);
            }
        }
    }

    /// What lies before the tail's chunks. What was removed before this follower came to it is named;
    /// other offsets that are left out never held an event.
    async fn read_alone(&self, end: Offset) -> Result<Rendered> {
        let (place, form) = (&self.tail.key.1, self.tail.key.2);
        let chunk = read_past(self.log.as_ref(), place, self.next).await?;
        let first = chunk.entries.first().map_or(chunk.next, |entry| entry.offset);
        let missed = if first > self.next {
            let kept = self.log.bounds(place).await?.start.min(first);
            (kept > self.next).then_some(self.next..kept)
        } else {
            None
        };
        Ok(Rendered { missed, ..Rendered::of(form, self.next, &chunk, chunk.next.min(end)) })
    }

    /// Waits until the tail has grown past where it is followed.
    async fn wait(&mut self) -> Result<()> {
        let next = self.next;
        let grown = self.grown.wait_for(|grown| grown.next > next || grown.failure.is_some()).await;
        let grown = grown.map_err(|_| Error::unavailable("the stream is not read any more"))?;
        match &grown.failure {
            Some(error) if grown.next <= next => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

async fn read_past(log: &dyn Log, place: &Place, next: Offset) -> Result<Chunk> {
    log.wait_past(place, next).await?;
    log.read(&Position { place: place.clone(), offset: next }, READ_BYTES_MAX).await
}

impl Rendered {
    /// What a chunk has below `end`, which was read from `from` on.
    fn of(form: Form, from: Offset, chunk: &Chunk, end: Offset) -> Self {
        let (mut scratch, mut out) = (Vec::new(), Vec::new());
        for entry in chunk.entries.iter().take_while(|entry| entry.offset < end) {
            form.put(&chunk.place, entry, (&mut scratch, &mut out));
        }
        Self { offsets: from..end.max(from), frames: out.into(), missed: None }
    }
}
