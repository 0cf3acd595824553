//! The outcome of a run, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::Bench;
use super::process::Spent;
use super::tally::Tally;
use crate::cli::output::counted;
use crate::failure::{Exit, Failure};

/// What a run has measured. Rates count what was taken; latencies are those of batches.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    stream: String,
    door: &'static str,
    connections: u16,
    batch: u32,
    rate: Option<u64>,
    minimal: bool,
    seconds: f64,
    requests: u64,
    records: u64,
    bytes: u64,
    records_per_second: f64,
    megabytes_per_second: f64,
    /// Records that were not taken, by what was answered.
    errors: BTreeMap<String, u64>,
    /// Records that were due at the rate and could not be sent in time.
    pub(super) unsent_records: u64,
    latency_micros: Latency,
    pub(super) server_pid: Option<u32>,
    /// None where it cannot be read.
    pub(super) server: Option<Spent>,
    pub(super) client: Option<Spent>,
}

#[derive(Debug, Serialize)]
struct Latency {
    p50: u64,
    p90: u64,
    p99: u64,
    p99_9: u64,
    max: u64,
}

impl Report {
    pub(super) fn new(bench: &Bench, tally: &Tally, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64().max(f64::EPSILON);
        let at = |quantile| tally.latencies.value_at_quantile(quantile);
        let max = tally.latencies.max();
        let latency_micros = Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), p99_9: at(0.999), max };
        Self {
            stream: bench.stream.to_string(),
            door: if bench.grpc { "grpc" } else { "http" },
            connections: bench.connections,
            batch: bench.batch,
            rate: bench.rate,
            minimal: bench.minimal,
            seconds,
            requests: tally.requests,
            records: tally.records,
            bytes: tally.bytes,
            records_per_second: tally.records as f64 / seconds,
            megabytes_per_second: tally.bytes as f64 / seconds / 1e6,
            errors: tally.errors.clone(),
            unsent_records: 0,
            latency_micros,
            server_pid: None,
            server: None,
            client: None,
        }
    }

    /// Records that were sent and not taken.
    pub(super) fn refused(&self) -> u64 {
        self.errors.values().sum()
    }

    /// One JSON object.
    pub(super) fn json(&self) -> Result<String, Failure> {
        serde_json::to_string(self)
            .map_err(|error| Failure::new(Exit::Failure, format!("write JSON: {error}")))
    }

    /// A few lines.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        let mut line = |label: &str, value: String| {
            writeln!(text, "{label:<8} {value}").expect("writing to a text never fails");
        };
        line("load", self.load());
        line("taken", format!("{} in {:.1} s", counted(self.records, "record"), self.seconds));
        line("rate", self.rates());
        line("latency", self.latency_micros.render());
        let errors = |(label, count): (&String, &u64)| format!("{}: {label}", counted(*count, "record"));
        match self.errors.is_empty() {
            true => line("errors", "none".to_owned()),
            false => self.errors.iter().for_each(|error| line("errors", errors(error))),
        }
        if self.unsent_records > 0 {
            let records = HumanCount(self.unsent_records);
            line("unsent", format!("{records} records were due and could not be sent in time"));
        }
        let name = self.server_pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
        let spent = |spent: &Option<Spent>| spent.as_ref().map_or("not readable".to_owned(), Spent::render);
        line("server", spent(&self.server) + &name);
        line("client", spent(&self.client));
        text
    }

    fn load(&self) -> String {
        let door = match (self.door, self.minimal) {
            ("grpc", _) => "gRPC",
            (_, true) => "HTTP, minimal answers",
            (_, false) => "HTTP",
        };
        let pace = match self.rate {
            Some(rate) => format!("{} records/s", HumanCount(rate)),
            None => "closed loop".to_owned(),
        };
        let connections = counted(self.connections.into(), "connection");
        let batch = counted(self.batch.into(), "record");
        format!("{} by {door}, {connections}, {batch} a batch, {pace}", self.stream)
    }

    fn rates(&self) -> String {
        let records = HumanCount(self.records_per_second as u64);
        let requests = HumanCount((self.requests as f64 / self.seconds) as u64);
        format!("{records} records/s, {:.1} MB/s, {requests} batches/s", self.megabytes_per_second)
    }
}

impl Latency {
    fn render(&self) -> String {
        let Latency { p50, p90, p99, p99_9, max } = self;
        let parts = [("p50", p50), ("p90", p90), ("p99", p99), ("p99.9", p99_9), ("max", max)];
        let part = |(name, micros): (&str, &u64)| format!("{name} {:.2?}", Duration::from_micros(*micros));
        parts.map(part).join("  ")
    }
}

impl Spent {
    fn render(&self) -> String {
        let each = self.cpu_micros_per_record.map(|each| format!("{each:.2} µs CPU a record, "));
        let (rss, peak) = (HumanBytes(self.rss_bytes), HumanBytes(self.rss_bytes_peak));
        let cores = self.cpu_cores;
        format!("{}{cores:.2} cores, {rss} of memory, {peak} at most", each.unwrap_or_default())
    }
}
