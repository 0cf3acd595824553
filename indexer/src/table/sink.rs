//! The sink that writes a stream's tables.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use broker::catalog::Stream;
use broker::{
    Checkpoint, Chunk, Clock, Entry, Flushed, Offset, Parcel, Place, Record, Rejection, Result, Settled,
    Sink, Stage,
};
use bytes::Bytes;
use tracing::debug;

use super::row::{Row, Stamp};
use super::rows::{Made, Rows};
use super::store::{Lane, Tree};
use crate::index::blocking;

/// How many batches of rows that have ended are taken away at once, before more is read.
const SWEEPS_MAX: usize = 8;

/// The tables of one life of a stream, over its processed topic. Its own store says how far the log is in each, so
/// that what is committed is only where another process would begin.
pub(super) struct TableSink {
    stream: Arc<Stream>,
    tables: Vec<Staged>,
    clock: Arc<dyn Clock>,
    /// Where it is to be looked whether a table lacks what is behind what was committed.
    unsettled: Vec<Place>,
}

/// A table with what is to be written to it.
struct Staged {
    rows: Rows,
    tree: Arc<Tree>,
    lanes: BTreeMap<u32, Lane>,
    staged: HashMap<Bytes, Row>,
}

impl TableSink {
    pub(super) fn new(stream: Arc<Stream>, tables: Vec<(Rows, Arc<Tree>)>, clock: Arc<dyn Clock>) -> Self {
        let staged = |(rows, tree): (Rows, Arc<Tree>)| {
            let lanes = tree.lanes();
            Staged { rows, tree, lanes, staged: HashMap::new() }
        };
        let topic = stream.topic(Stage::Processed);
        let unsettled = stream.partitions().map(|partition| Place::new(topic.clone(), partition)).collect();
        Self { stream, tables: tables.into_iter().map(staged).collect(), clock, unsettled }
    }

    /// Where a partition is to be read on from for the table that has the least of it.
    fn next(&self, place: &Place) -> Offset {
        let lanes = self.tables.iter().map(|table| table.tree.lane(place.partition.0).next);
        lanes.min().unwrap_or_default()
    }
}

#[async_trait]
impl Sink for TableSink {
    async fn resume(&mut self, committed: &Checkpoint) -> Result<Checkpoint> {
        for table in &mut self.tables {
            (table.lanes, table.staged) = (table.tree.lanes(), HashMap::new());
        }
        Ok(committed.iter().map(|(place, _)| (place.clone(), self.next(place))).collect())
    }

    async fn write(&mut self, chunks: Vec<Chunk>) -> Result<Vec<Rejection>> {
        self.write_parcels(chunks.into_iter().map(Parcel::from).collect()).await
    }

    async fn write_parcels(&mut self, parcels: Vec<Parcel>) -> Result<Vec<Rejection>> {
        let mut tables = std::mem::take(&mut self.tables);
        // After an error the worker is opened anew, and nothing is left of what was staged.
        self.tables = blocking(move || {
            for parcel in parcels {
                let Chunk { place, entries, next } = parcel.open()?;
                for table in &mut tables {
                    table.take(&place, &entries, next);
                }
            }
            Ok(tables)
        })
        .await?;
        Ok(Vec::new())
    }

    async fn flush(&mut self, upto: &Checkpoint) -> Result<Flushed> {
        let flushed = Flushed { through: upto.clone(), appends: Vec::new() };
        if !self.tables.iter().any(Staged::has_work) {
            return Ok(flushed);
        }
        let (mut tables, now) = (std::mem::take(&mut self.tables), self.clock.now());
        self.tables = blocking(move || {
            for table in &mut tables {
                table.write()?;
            }
            for _ in 0..SWEEPS_MAX {
                let mut is_more = false;
                for table in &tables {
                    is_more |= table.tree.sweep(now)?;
                }
                if !is_more {
                    break;
                }
            }
            Ok(tables)
        })
        .await?;
        Ok(flushed)
    }

    fn unsettled(&mut self) -> Vec<Place> {
        self.unsettled.clone()
    }

    /// Reads on from where each table is, which is the beginning for one that is new: no record may come.
    async fn settle(&mut self, at: &Checkpoint) -> Result<Settled> {
        let mut rewind = Checkpoint::new();
        for (place, position) in at.iter() {
            self.unsettled.retain(|unsettled| unsettled != place);
            let next = self.next(place);
            if next < position {
                debug!(stream = %self.stream.name(), %place, %next, %position, "tables read on further back");
                rewind.set(place.clone(), next);
                // What was staged of it is read again; what was of others is written with how far they are.
                let partition = place.partition.0;
                for table in &mut self.tables {
                    table.staged.retain(|_, row| row.partition() != partition);
                    table.lanes.remove(&partition);
                    table.lanes.extend(table.tree.lanes().remove(&partition).map(|lane| (partition, lane)));
                }
            }
        }
        Ok(Settled { rewind, appends: Vec::new() })
    }
}

impl Staged {
    /// Whether there is something to write, or rows may have ended.
    fn has_work(&self) -> bool {
        !self.staged.is_empty() || self.tree.has_ends() || !self.tree.is_at(&self.lanes)
    }

    fn take(&mut self, place: &Place, entries: &[Entry], next: Offset) {
        let partition = place.partition.0;
        let mut lane = self.lanes.get(&partition).copied().unwrap_or_default();
        for Entry { offset, record } in entries.iter().filter(|entry| entry.offset >= lane.next) {
            lane.clock = lane.clock.max(record.arrival.micros());
            let origin = record.origin.map_or(*offset, |origin| origin.offset);
            lane.origin = lane.origin.max(origin.next());
            let stamp = Stamp { clock: lane.clock, partition, offset: offset.0 };
            match self.rows.make(record) {
                Made::Row(key, value) => self.stage(record, (stamp, origin), (key, value)),
                Made::Rows(rows) => rows.into_iter().for_each(|row| self.stage(record, (stamp, origin), row)),
                Made::Refused(reason) => {
                    let table = self.rows.name();
                    debug!(table, %place, %offset, reason, "a record is no row");
                    let refused =
                        metrics::counter!("headwater_table_refused_total", "table" => table.to_owned());
                    refused.increment(1);
                }
            }
        }
        if next > lane.next {
            lane.next = next;
            self.lanes.insert(partition, lane);
        }
    }

    fn stage(
        &mut self,
        record: &Record,
        (stamp, origin): (Stamp, Offset),
        (key, value): (Bytes, Option<Bytes>),
    ) {
        let expires = self.rows.expires(record);
        let row = Row { stamp, origin, arrival: record.arrival, time: record.time, expires, value };
        if self.staged.get(&key).is_none_or(|staged| staged.stamp < stamp) {
            self.staged.insert(key, row);
        }
    }

    fn write(&mut self) -> Result<()> {
        let known = self.tree.lanes();
        let changed = self.lanes.iter().filter(|(partition, lane)| known.get(partition) != Some(lane));
        let changed: BTreeMap<u32, Lane> = changed.map(|(partition, lane)| (*partition, *lane)).collect();
        if changed.is_empty() {
            return Ok(());
        }
        self.tree.apply(&self.staged, &changed)?;
        self.staged.clear();
        Ok(())
    }
}
