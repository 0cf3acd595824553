//! Queries: which events of a stream are wanted, and how they are found.
//!
//! Every answer is ordered by (timestamp, partition, offset), and that triple is the cursor.

mod cursor;
mod export;
mod histogram;
mod parse;
mod search;
mod snapshot;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;

use broker::catalog::{SinkKind, Stream};
use broker::{Error, Kind, Permission, Principal, Result, StreamName, Timestamp};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::index::{Indexer, blocking};
use crate::split::{Event, Order, Position, Take, Terms};

pub(crate) use export::{CHUNK_BYTES, Chunk};
pub(crate) use histogram::{Bucket, Interval};
pub(crate) use parse::{Bounds, day};
pub(crate) use snapshot::Snapshot;

use search::{Found, Search};

/// How many runs are indexed at the same time for one question.
const RUNS_MAX: usize = 4;

/// What is asked, as the doors take it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) from: Option<String>,
    pub(crate) to: Option<String>,
    pub(crate) q: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) order: Order,
}

/// A question that was understood.
#[derive(Clone)]
pub(crate) struct Query {
    pub(crate) stream: Arc<Stream>,
    pub(crate) bounds: Bounds,
    terms: Option<Terms>,
    order: Order,
    /// Tells this question's cursors from those of others.
    fingerprint: u32,
}

/// Which page of an answer is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    after: Option<Position>,
    limit: usize,
    /// Whether all events are counted as well.
    is_counted: bool,
}

/// One page of an answer.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) events: Vec<Event>,
    /// Where to go on; none if nothing follows.
    pub(crate) cursor: Option<String>,
    /// How many events there are in all, on every page; where it was asked for.
    pub(crate) count: Option<u64>,
    /// Every event that was answered with success before this instant was looked at.
    pub(crate) complete_through: Timestamp,
}

impl Indexer {
    /// A stream whose events a principal may find. `Forbidden` where it may not, whether or not there is
    /// one.
    pub(crate) async fn stream_for(&self, caller: &Principal, name: &StreamName) -> Result<Arc<Stream>> {
        self.catalog.require(caller, name.dataset(), Permission::Read)?;
        self.stream(name).await
    }

    /// A stream whose events can be found, those of the times when its index was on. `NotFound` if there
    /// is none, `Conflict` if its index was never on.
    pub(crate) async fn stream(&self, name: &StreamName) -> Result<Arc<Stream>> {
        let known = self.catalog.get(name);
        let stream = match known {
            Err(error) if error.kind() == Kind::NotFound => {
                self.catalog.refresh().await?;
                self.catalog.get(name)?
            }
            known => known?,
        };
        if !stream.definition.spans.of(SinkKind::Index).is_empty() {
            return Ok(stream);
        }
        let message = format!("stream {name} has no index: turn sinks.index on to query it");
        Err(Error::new(Kind::Conflict, message).with_field("sinks.index"))
    }

    /// Understands a question. An error names the field that is at fault.
    pub(crate) fn query(&self, stream: Arc<Stream>, asked: &Asked) -> Result<Query> {
        let bounds = Bounds::parse(asked.from.as_deref(), asked.to.as_deref())?;
        let terms = Terms::parse(asked.q.as_deref(), asked.key.as_deref())?;
        let fingerprint = cursor::fingerprint(&stream, bounds, asked);
        Ok(Query { stream, bounds, terms, order: asked.order, fingerprint })
    }

    /// One page as `encode` makes it, which runs where the page is found: off the runtime.
    pub(crate) async fn page<T: Send + 'static>(
        &self,
        query: &Query,
        wanted: Wanted,
        encode: impl FnOnce(Page) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _permit = permit(&self.queries, "queries")?;
        self.snapshot(&query.stream, query.bounds).await?.page(query, wanted, encode).await
    }

    /// How many events there are, and through when that is complete.
    pub(crate) async fn count(&self, query: &Query) -> Result<(u64, Timestamp)> {
        let _permit = permit(&self.queries, "queries")?;
        let snapshot = match query.terms {
            None => self.snapshot_to_count(&query.stream, query.bounds).await?,
            Some(_) => self.snapshot(&query.stream, query.bounds).await?,
        };
        let count = snapshot.count(query).await?;
        Ok((count, snapshot.complete_through))
    }

    /// How many events there are in each interval that has any, and through when that is complete.
    pub(crate) async fn histogram(
        &self,
        query: &Query,
        interval: Interval,
    ) -> Result<(Vec<Bucket>, Timestamp)> {
        let _permit = permit(&self.queries, "queries")?;
        let snapshot = self.snapshot(&query.stream, query.bounds).await?;
        let buckets = snapshot.histogram(query, interval).await?;
        Ok((buckets, snapshot.complete_through))
    }

    /// A page's size: the default where none was given.
    pub(crate) fn page_limit(&self, limit: Option<usize>) -> Result<usize> {
        let limits = &self.limits;
        let limit = limit.unwrap_or(limits.page_events_default.min(limits.page_events_max));
        if (1..=limits.page_events_max).contains(&limit) {
            return Ok(limit);
        }
        Err(Error::invalid("limit", format!("a page has 1 to {} events", limits.page_events_max)))
    }
}

/// A place among those that are worked on at the same time, or `Busy`.
pub(crate) fn permit(semaphore: &Arc<Semaphore>, what: &str) -> Result<OwnedSemaphorePermit> {
    let permit = Arc::clone(semaphore).try_acquire_owned();
    permit.map_err(|_| Error::new(Kind::Busy, format!("too many {what} at the same time")))
}

impl Snapshot {
    /// One page as `encode` makes it; how many events there are is found in the same pass.
    pub(crate) async fn page<T: Send + 'static>(
        &self,
        query: &Query,
        wanted: Wanted,
        encode: impl FnOnce(Page) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if wanted.is_counted {
            self.index_runs(query, &query.search(None)).await?;
        }
        let (pieces, search) = (Arc::clone(&self.pieces), query.search(wanted.after));
        let take = Take { order: query.order, limit: wanted.limit };
        let (complete_through, fingerprint) = (self.complete_through, query.fingerprint);
        blocking(move || {
            let (Found { events, last }, count) = if wanted.is_counted {
                let (found, count) = search.page_and_count(&pieces, take)?;
                (found, Some(count))
            } else {
                (search.page(&pieces, take)?, None)
            };
            let cursor = last.map(|last| cursor::write(last, fingerprint));
            encode(Page { events, cursor, count, complete_through })
        })
        .await
    }

    /// How many events there are.
    pub(crate) async fn count(&self, query: &Query) -> Result<u64> {
        let (pieces, search) = (Arc::clone(&self.pieces), query.search(None));
        self.index_runs(query, &search).await?;
        Ok(self.unopened + blocking(move || search.count(&pieces)).await?)
    }

    /// Indexes the runs that the question goes through whole, side by side.
    async fn index_runs(&self, query: &Query, search: &Search) -> Result<()> {
        let building = search.unindexed(&self.pieces).into_iter().map(|run| {
            let terms = query.terms.clone();
            blocking(move || terms.map(|terms| run.segment(&terms)).transpose())
        });
        let mut built = stream::iter(building).buffer_unordered(RUNS_MAX);
        while built.try_next().await?.is_some() {}
        Ok(())
    }

    /// The intervals that hold events, in order of time.
    pub(crate) async fn histogram(&self, query: &Query, interval: Interval) -> Result<Vec<Bucket>> {
        let (pieces, search) = (Arc::clone(&self.pieces), query.search(None));
        self.index_runs(query, &search).await?;
        blocking(move || search.histogram(&pieces, interval)).await
    }

    /// The events from number `start`, counted from 0, and how many there are in all. Oldest first.
    pub(crate) async fn slice(&self, query: &Query, start: u64, limit: usize) -> Result<(Vec<Event>, u64)> {
        let (pieces, search) = (Arc::clone(&self.pieces), query.search(None));
        blocking(move || search.slice(&pieces, start, limit)).await
    }
}

impl Wanted {
    /// The same page, with how many events there are in all.
    pub(crate) fn counted(self) -> Self {
        Self { is_counted: true, ..self }
    }
}

impl Query {
    /// The same question with other bounds; it has no cursors.
    pub(crate) fn within(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// A page from `cursor` on, or the first one. `limit` was checked by [`Indexer::page_limit`].
    pub(crate) fn wanted(&self, cursor: Option<&str>, limit: usize) -> Result<Wanted> {
        let after = cursor.map(|cursor| cursor::read(cursor, self.fingerprint)).transpose()?;
        Ok(Wanted { after, limit, is_counted: false })
    }

    fn search(&self, after: Option<Position>) -> Search {
        Search { bounds: self.bounds, terms: self.terms.clone(), after }
    }
}
