//! Finding the splits that others publish, merge and remove.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::{Error, Offset, Partition, Result, Timestamp};

use super::cover::Cover;
use super::splits::Known;
use super::{Indexer, SplitName, StreamIndex};
use crate::split::Footer;

/// How often splits are listed that leave offsets out: a listing takes a while, and may see some of
/// the objects that are removed meanwhile and not others.
const LISTINGS_MAX: u32 = 3;

/// What was listed last.
#[derive(Debug, Default)]
pub(super) struct Listing {
    at: Option<Timestamp>,
    known: Known,
}

impl Listing {
    /// Whether a split was listed, or nothing was listed yet.
    pub(super) fn may_have(&self, split: &SplitName) -> bool {
        self.at.is_none() || self.known.contains_key(split)
    }
}

impl Indexer {
    /// Takes over the splits that others published, unless all partitions are written here or the
    /// list is young enough.
    pub(crate) async fn keep_listed(&self, index: &StreamIndex) -> Result<()> {
        let now = self.clock.now();
        let mut listing = index.listing.lock().await;
        let is_young = listing.at.is_some_and(|at| now.since(at) < self.limits.listing_age_max);
        if is_young || (listing.at.is_some() && index.is_owned_whole()) {
            return Ok(());
        }
        self.list(index, &mut listing).await.map(drop)
    }

    /// Lists the splits however young the list is.
    pub(crate) async fn list_again(&self, index: &StreamIndex) -> Result<BTreeMap<Partition, Cover>> {
        let mut listing = index.listing.lock().await;
        self.list(index, &mut listing).await
    }

    /// Begins a partition anew where its last split ends, for the sink to write.
    pub(crate) async fn own(&self, index: &StreamIndex, partition: Partition) -> Result<Offset> {
        let mut listing = index.listing.lock().await;
        index.disown(partition);
        self.list(index, &mut listing).await?;
        Ok(index.own(partition))
    }

    async fn list(&self, index: &StreamIndex, listing: &mut Listing) -> Result<BTreeMap<Partition, Cover>> {
        let mut gap = None;
        for _ in 0..LISTINGS_MAX {
            let now = self.clock.now();
            let before = index.published_ends();
            listing.known = self.splits.list(index.folder(), &listing.known).await?;
            let mut covers = BTreeMap::new();
            for (partition, splits) in by_partition(&listing.known, &before) {
                covers.insert(partition, self.cover(index, partition, splits).await?);
            }
            gap = covers.iter().find_map(|(partition, cover)| Some((*partition, cover.gap()?)));
            if gap.is_none() {
                for (partition, cover) in &covers {
                    let before = before.get(partition).copied().unwrap_or(Offset(0));
                    index.take_over(*partition, cover, before, now);
                }
                listing.at = Some(now);
                return Ok(covers);
            }
        }
        let (partition, at) = gap.unwrap_or_default();
        let name = index.name();
        Err(Error::corrupt(format!("the splits of {name} partition {partition} leave out offset {at}")))
    }

    /// What is below the log's start may be removed at any time, by others too, and may have gaps.
    async fn cover(
        &self,
        index: &StreamIndex,
        partition: Partition,
        splits: Vec<Arc<Footer>>,
    ) -> Result<Cover> {
        let cover = Cover::of(splits.iter().cloned());
        if cover.gap().is_none() {
            return Ok(cover);
        }
        let start = self.log.bounds(&index.place(partition)).await?.start;
        let (kept, gone): (Vec<_>, Vec<_>) = splits.into_iter().partition(|split| split.end_offset > start);
        let mut cover = Cover::of(kept);
        cover.rest.extend(gone);
        Ok(cover)
    }
}

/// The splits of each partition that has some, or had.
fn by_partition(
    known: &Known,
    before: &BTreeMap<Partition, Offset>,
) -> BTreeMap<Partition, Vec<Arc<Footer>>> {
    let mut parts: BTreeMap<Partition, Vec<Arc<Footer>>> =
        before.keys().map(|partition| (*partition, Vec::new())).collect();
    for (name, footer) in known {
        parts.entry(name.partition).or_default().push(Arc::clone(footer));
    }
    parts
}
