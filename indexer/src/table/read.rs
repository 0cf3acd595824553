//! Reading tables.

use std::sync::Arc;
use std::time::Duration;

use broker::catalog::Stream;
use broker::{Error, Group, Offset, Partition, Permission, Place, Position, Principal, Result, Stage};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::row::Row;
use super::store::{Listed, Tree};
use super::{OpenTable, Tables};
use crate::index::{Indexer, blocking};

/// The most keys that are read at once.
const KEYS_MAX: usize = 100;
/// The most rows of a page.
const PAGE_ROWS_MAX: usize = 1_000;
/// Rows of a page whose size was not given.
const PAGE_ROWS_DEFAULT: usize = 100;
/// How many rows are looked at for a page, those that have ended among them.
const LOOKED_MAX: usize = 10_000;
/// How much a page holds, about.
const PAGE_BYTES_MAX: usize = 8 << 20;
/// How often it is asked how far the router is, while somebody waits for a record that it may have left out.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// Through which record of a raw partition a table is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Through {
    /// The partition.
    pub(crate) partition: u32,
    /// The offset of the first record that is not in it yet; all before it are.
    pub(crate) offset: u64,
}

impl OpenTable {
    /// How far it is.
    pub(crate) fn complete_through(&self) -> Vec<Through> {
        self.tree.origins(self.stream.definition.partitions)
    }
}

impl Indexer {
    /// A table, if the caller may read it, once it has the record that is to be waited for.
    pub(crate) async fn table_for(
        &self,
        caller: &Principal,
        name: &str,
        min_position: Option<(Partition, Offset)>,
    ) -> Result<OpenTable> {
        let named = self.tables.find(name)?;
        self.catalog.require(caller, named.stream.name().dataset(), Permission::Read)?;
        let table = self.tables.open(&named).await?;
        if let Some(position) = min_position {
            self.tables.wait(&table, position).await?;
        }
        Ok(table)
    }
}

/// How many rows a page has.
pub(crate) fn page_rows(limit: Option<usize>) -> Result<usize> {
    let limit = Some(limit.unwrap_or(PAGE_ROWS_DEFAULT)).filter(|limit| (1..=PAGE_ROWS_MAX).contains(limit));
    limit.ok_or_else(|| Error::invalid("limit", format!("a page has 1 to {PAGE_ROWS_MAX} rows")))
}

/// Refuses to read too many keys at once.
pub(crate) fn check_keys(count: usize) -> Result<()> {
    if count > KEYS_MAX {
        return Err(Error::invalid("keys", format!("at most {KEYS_MAX} keys are read at once")));
    }
    Ok(())
}

impl Tables {
    /// The row of a key, if it is there.
    pub(crate) fn get(&self, table: &OpenTable, key: &[u8]) -> Result<Option<Row>> {
        table.tree.get(key, self.clock.now())
    }

    /// Some rows in the order of their keys.
    pub(crate) async fn list(
        &self,
        table: &OpenTable,
        (prefix, after): (Vec<u8>, Option<Vec<u8>>),
        limit: usize,
    ) -> Result<Listed> {
        let (tree, now) = (Arc::clone(&table.tree), self.clock.now());
        let bounds = (limit, LOOKED_MAX, PAGE_BYTES_MAX);
        blocking(move || tree.list((&prefix, after.as_deref()), now, bounds)).await
    }

    /// Waits until a record that was appended to the raw topic is in the table, or would be; for
    /// [`super::Limits::wait_max`] at most.
    pub(crate) async fn wait(&self, table: &OpenTable, of: (Partition, Offset)) -> Result<()> {
        if of.0.0 >= table.stream.definition.partitions {
            return Err(Error::invalid("min_position", format!("there is no partition {}", of.0)));
        }
        let deadline = Instant::now() + self.limits.wait_max;
        let mut changes = table.tree.watch();
        loop {
            changes.mark_unchanged();
            if self.is_through(&table.stream, &table.tree, of).await? {
                return Ok(());
            }
            let now = Instant::now();
            if now >= deadline {
                let message = format!("the table is not through offset {} of partition {} yet", of.1, of.0);
                return Err(Error::unavailable(message).with_field("min_position"));
            }
            // It may be that no row comes of it.
            drop(tokio::time::timeout_at(deadline.min(now + ASK_AGAIN), changes.changed()).await);
        }
    }

    async fn is_through(
        &self,
        stream: &Stream,
        tree: &Tree,
        (partition, offset): (Partition, Offset),
    ) -> Result<bool> {
        if tree.lane(partition.0).origin > offset {
            return Ok(true);
        }
        let raw = Place::new(stream.topic(Stage::Raw), partition);
        let routed = self.log.committed(&Group::ROUTER, &raw.topic).await?;
        if routed.get(&raw).is_none_or(|next| next <= offset) {
            return Ok(false);
        }
        // What the router made of it lies before this end.
        let processed = Place::new(stream.topic(Stage::Processed), partition);
        let end = self.log.bounds(&processed).await?.end;
        let next = tree.lane(partition.0).next;
        if next >= end {
            return Ok(true);
        }
        // Behind the last record there may be offsets that hold none.
        let rest = self.log.read(&Position { place: processed, offset: next }, 1).await?;
        Ok(rest.entries.is_empty() && rest.next >= end)
    }
}
