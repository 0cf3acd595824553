//! What was answered, and how fast.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::HumanCount;
use tokio::time::Instant;

use super::answer::Outcome;
use super::corpus::Batch;

/// The longest latency that is told apart, in microseconds: an hour.
const LATENCY_MICROS_MAX: u64 = 3_600_000_000;
/// Digits of a latency that are kept.
const LATENCY_DIGITS: u8 = 3;

/// Counts of one run.
#[derive(Debug)]
pub(super) struct Tally {
    /// Batches that were answered, well or badly, or lost.
    pub(super) requests: u64,
    /// Records that are durable.
    pub(super) records: u64,
    /// The bytes of these records, without what is between them.
    pub(super) bytes: u64,
    /// Records that were not taken, by what was answered.
    pub(super) errors: BTreeMap<String, u64>,
    /// Of each answered batch, in microseconds.
    pub(super) latencies: Histogram<u64>,
    /// When progress was told last, and the records at that time.
    told: Option<(Instant, u64)>,
}

impl Default for Tally {
    fn default() -> Self {
        let latencies = Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, LATENCY_DIGITS)
            .expect("the bounds are those of the library");
        let errors = BTreeMap::new();
        Self { requests: 0, records: 0, bytes: 0, errors, latencies, told: None }
    }
}

impl Tally {
    /// Counts a batch that was answered, whose latency counts from `from`.
    pub(super) fn answered(&mut self, batch: &Batch, from: Instant, outcome: Outcome) {
        self.requests += 1;
        self.records += outcome.taken;
        // Records of a batch are much alike; where some were refused, the rest have their share.
        self.bytes += batch.bytes * outcome.taken / batch.records.max(1);
        for (label, count) in outcome.errors {
            *self.errors.entry(label).or_default() += count;
        }
        self.latencies.saturating_record(micros(from.elapsed()));
    }

    /// Counts a batch whose answer never came.
    pub(super) fn lost(&mut self, batch: &Batch, label: &str) {
        self.requests += 1;
        *self.errors.entry(label.to_owned()).or_default() += batch.records;
    }

    /// Takes in how long batches have waited that were never sent: the least that their latency would
    /// have been. Without them a server that falls behind would look fast.
    pub(super) fn unsent(&mut self, waited: &[Duration]) {
        waited.iter().for_each(|waited| self.latencies.saturating_record(micros(*waited)));
    }

    /// A line about now.
    pub(super) fn progress(&mut self, now: Instant) -> String {
        let (before, records) = self.told.replace((now, self.records)).unwrap_or((now, self.records));
        let seconds = (now - before).as_secs_f64().max(0.001);
        let rate = ((self.records - records) as f64 / seconds) as u64;
        let p99 = Duration::from_micros(self.latencies.value_at_quantile(0.99));
        let errors: u64 = self.errors.values().sum();
        let (records, rate, errors) = (HumanCount(self.records), HumanCount(rate), HumanCount(errors));
        format!("{records} records  {rate}/s  p99 {p99:.1?}  {errors} errors")
    }
}

fn micros(time: Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}
