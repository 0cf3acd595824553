//! When a table is made from its snapshot, and when another one is written.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use broker::catalog::Stream;
use broker::{Place, Result, Stage, Timestamp};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::snapshot::{self, Contents};
use super::store::Tree;
use super::{Tables, id};

/// How often it is looked whether a snapshot is due, at most.
const ROUND: Duration = Duration::from_secs(60);
/// For fewer records no snapshot is written before its time.
const RECORDS_MIN: u64 = 10_000;
/// How long to wait for an object store that does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of the last snapshot of a table.
#[derive(Clone, Copy)]
struct Seen {
    begun: Timestamp,
    /// How many records were in it, and how many rows.
    records: u64,
    rows: u64,
}

impl Seen {
    fn of(contents: &Contents) -> Self {
        let begun = Timestamp::from_micros(contents.begun).unwrap_or_default();
        Self { begun, records: contents.records(), rows: contents.rows }
    }

    /// Whether another one is due: when as many records have come as it had rows, so that writing costs no more than
    /// what is written about, or what came has waited for so long.
    fn is_due(&self, records: u64, now: Timestamp, age_max: Duration) -> bool {
        let since = records.saturating_sub(self.records);
        since >= self.rows.max(RECORDS_MIN) || (since > 0 && now.since(self.begun) >= age_max)
    }
}

/// What is known of the last snapshots of all tables.
#[derive(Default)]
pub(super) struct Round {
    seen: HashMap<String, Seen>,
    cleared: Option<Timestamp>,
}

impl Tables {
    /// Makes a table from its snapshot, if it is new, or lacks what the log has no more. Waits for the object store.
    pub(super) async fn restore(&self, stream: &Stream, id: &str, tree: &Arc<Tree>) {
        while let Err(error) = self.try_restore(stream, id, tree).await {
            warn!(table = id, %error, "a table cannot be made from its snapshot yet");
            tokio::time::sleep(PATIENCE).await;
        }
    }

    async fn try_restore(&self, stream: &Stream, id: &str, tree: &Arc<Tree>) -> Result<()> {
        let mut lacking = Vec::new();
        for partition in stream.partitions() {
            let place = Place::new(stream.topic(Stage::Processed), partition);
            let next = tree.lane(partition.0).next;
            if tree.lanes().is_empty() || next < self.log.bounds(&place).await?.start {
                lacking.push((partition.0, next));
            }
        }
        if lacking.is_empty() {
            return Ok(());
        }
        let name = snapshot::name(stream, id);
        let Some(latest) = self.snapshots.latest(&name).await? else { return Ok(()) };
        let lanes = latest.lanes();
        let is_further =
            |(partition, next): &(u32, _)| lanes.get(partition).is_some_and(|lane| lane.next > *next);
        if lacking.iter().any(is_further) {
            self.snapshots.load(&name, tree).await?;
        }
        Ok(())
    }

    /// Writes snapshots of all tables as they are due, until `stop`.
    pub(crate) async fn keep_snapshots(&self, stop: CancellationToken) -> Result<()> {
        let mut rounds = tokio::time::interval(self.limits.snapshot_age.min(ROUND));
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = Round::default();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                _ = rounds.tick() => {}
            }
            stop.run_until_cancelled(self.write_snapshots(&mut round)).await.transpose()?;
        }
    }

    /// Writes those that are due.
    pub(super) async fn write_snapshots(&self, round: &mut Round) -> Result<()> {
        let (mut wanted, now) = (BTreeSet::new(), self.clock.now());
        let streams = self.wanted(&self.catalog.all())?;
        // What a stream keeps from the object store is not put there by its tables either.
        for stream in streams.values().filter(|stream| is_stored(stream)) {
            for spec in self.specs(stream) {
                let id = id(stream, &spec)?;
                let name = snapshot::name(stream, &id);
                if let Some(tree) = self.store.opened_tree(&id)
                    && let Err(error) = self.write_snapshot(&name, tree, round).await
                {
                    warn!(table = id, %error, "no snapshot of a table was written");
                }
                wanted.insert(name);
            }
        }
        round.seen.retain(|name, _| wanted.contains(name));
        if round.cleared.is_none_or(|cleared| now.since(cleared) >= self.limits.snapshot_age) {
            round.cleared = Some(now);
            if let Err(error) = self.snapshots.clear(&wanted, now).await {
                warn!(%error, "snapshots of former tables stay for now");
            }
        }
        Ok(())
    }

    async fn write_snapshot(&self, name: &str, tree: Arc<Tree>, round: &mut Round) -> Result<()> {
        let (now, age_max) = (self.clock.now(), self.limits.snapshot_age);
        let records = tree.lanes().values().map(|lane| lane.next.0).sum();
        if let Some(seen) = round.seen.get(name)
            && !seen.is_due(records, now, age_max)
        {
            return Ok(());
        }
        // Another process may have written one.
        let latest = self.snapshots.latest(name).await?.map(|contents| Seen::of(&contents));
        let before = round.seen.get(name).copied();
        let seen = latest.or(before).unwrap_or(Seen { begun: now, records: 0, rows: 0 });
        round.seen.insert(name.to_owned(), seen);
        if seen.is_due(records, now, age_max) {
            let contents = self.snapshots.write(name, tree, now).await?;
            round.seen.insert(name.to_owned(), Seen::of(&contents));
        }
        Ok(())
    }
}

/// Whether anything of a stream lies in the object store.
fn is_stored(stream: &Stream) -> bool {
    let sinks = &stream.definition.sinks;
    sinks.archive || sinks.index
}
