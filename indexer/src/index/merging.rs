//! Merging small published splits into larger ones.
//!
//! ```text
//! put the merged split, if it is absent → answers are made of it → after a while its parts go
//! ```
//! A crash between any two steps leaves splits that the next listing tells apart: those on the path
//! are answered, whatever else there is (see the module `cover`). Of two nodes that merge the same
//! parts one wins, and the other takes over what it made.

use std::sync::Arc;

use broker::{Error, Partition, Result};
use futures::{StreamExt, TryStreamExt, stream};
use tracing::info;

use super::splits::Published;
use super::{Indexer, SplitName, StreamIndex, blocking, plan};
use crate::split::{self, Footer};

/// How many parts of a merge are opened at the same time.
const OPEN_MAX: usize = 8;

impl Indexer {
    /// Merges one row of a partition's splits, if there is one worth it; answers whether there was.
    /// No answer needs it: after an error everything is as it was.
    pub(super) async fn merge_next(&self, index: &StreamIndex, partition: Partition) -> Result<bool> {
        let path = index.splits(partition);
        if plan::next(&path, &self.limits, u64::MAX).is_none() {
            return Ok(false);
        }
        let bounds = self.log.bounds(&index.place(partition)).await?;
        let span_max = plan::span_max(&bounds);
        let Some(row) = plan::next(&path, &self.limits, span_max) else { return Ok(false) };
        let merged = self.put_merged(index, &path[row]).await?;
        index.replace(merged);
        Ok(true)
    }

    /// Publishes what the parts hold as one split, or takes over the one that is there already.
    async fn put_merged(&self, index: &StreamIndex, parts: &[Arc<Footer>]) -> Result<Arc<Footer>> {
        let count = parts.len();
        let locations: Vec<_> =
            parts.iter().map(|footer| index.folder().split(SplitName::of(footer))).collect();
        let opening = locations.into_iter().map(|location| async move { self.splits.open(&location).await });
        let opened: Vec<_> = stream::iter(opening).buffered(OPEN_MAX).try_collect().await?;
        let (object, footer) = blocking(move || split::merge(&opened)).await?;
        let location = index.folder().split(SplitName::of(&footer));
        let bytes = object.len();
        let found = match self.splits.publish(&location, object).await? {
            Published::Ours => footer.clone(),
            Published::Theirs(found) => found,
        };
        if (found.offsets(), found.count) != (footer.offsets(), footer.count) {
            let message = format!("split {location} does not hold what its parts hold");
            return Err(Error::corrupt(message));
        }
        info!(%location, parts = count, events = found.count, bytes, "merged splits");
        Ok(Arc::new(found))
    }
}
