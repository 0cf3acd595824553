//! Exports: every event of an answer, gathered in chunks on a thread of its own, a little ahead of
//! whoever takes them. A thread is held while an export runs, also while its reader is slow; there are
//! as many as [`exports_max`](crate::Limits::exports_max), and each holds a few chunks.

use broker::{Error, Result};
use futures::Stream as Events;
use tokio::sync::mpsc;

use super::{Query, permit};
use crate::index::Indexer;
use crate::line::Line;

/// How many chunks may wait for the reader.
const CHUNKS_AHEAD: usize = 2;
/// A chunk is full when it holds so many bytes.
pub(crate) const CHUNK_BYTES: usize = 128 << 10;

/// Events of an export on their way to one reader.
pub(crate) trait Chunk: Default + Send + 'static {
    /// Adds an event. An error ends the export.
    fn add(&mut self, event: &Line<'_>) -> Result<()>;

    /// About how many bytes it holds.
    fn bytes(&self) -> usize;
}

impl Indexer {
    /// Every event of one snapshot. The first chunk is gathered before this returns, so that what fails
    /// at once is an answer and not a broken stream. An answer without events has one empty chunk.
    pub(crate) async fn export<C: Chunk>(
        &self,
        query: Query,
    ) -> Result<impl Events<Item = Result<C>> + use<C>> {
        let permit = permit(&self.exports_open, "exports")?;
        let snapshot = self.snapshot(&query.stream, query.bounds).await?;
        let events_max = self.limits.page_events_max;
        let (sender, mut receiver) = mpsc::channel(CHUNKS_AHEAD);
        let walking = tokio::task::spawn_blocking(move || {
            let search = query.search(None);
            let (mut chunk, mut count) = (C::default(), 0);
            let walked = search.walk(&snapshot.pieces, query.order, &mut |event| {
                chunk.add(event)?;
                count += 1;
                if count < events_max && chunk.bytes() < CHUNK_BYTES {
                    return Ok(true);
                }
                count = 0;
                Ok(sender.blocking_send(Ok(std::mem::take(&mut chunk))).is_ok())
            });
            // Nobody may be left who reads.
            sender.blocking_send(walked.map(|()| chunk)).unwrap_or_default();
        });
        let first = receiver.recv().await.transpose()?;
        Ok(async_stream::try_stream! {
            let _permit = permit;
            if let Some(first) = first {
                yield first;
            }
            while let Some(chunk) = receiver.recv().await {
                yield chunk?;
            }
            // An answer that is cut short is never taken for a whole one.
            walking.await.map_err(|error| Error::internal("gather an export").with_source(error))?;
        })
    }
}
