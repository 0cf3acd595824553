//! What became of the records that a router has read, for those who watch it.

use std::collections::HashMap;

use crate::topic::StreamName;

/// Counts by stream. What was counted since the last commit is told only after it: a step that
/// fails is done again, and must not count twice.
#[derive(Default)]
pub(super) struct Counts {
    staged: HashMap<StreamName, Routed>,
    flushed: HashMap<StreamName, Routed>,
}

/// How many records went which way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Routed {
    pub(super) forwarded: u64,
    pub(super) dropped: u64,
    pub(super) rejected: u64,
}

impl Counts {
    /// Counts what was written.
    pub(super) fn stage(&mut self, stream: &StreamName, routed: Routed) {
        let sum = self.staged.entry(stream.clone()).or_default();
        sum.forwarded += routed.forwarded;
        sum.dropped += routed.dropped;
        sum.rejected += routed.rejected;
    }

    /// Tells what the last commit held; what is staged is part of the one that comes next.
    pub(super) fn flush(&mut self) {
        self.tell();
        self.flushed = std::mem::take(&mut self.staged);
    }

    /// Tells what the last commit held.
    pub(super) fn tell(&mut self) {
        for (stream, routed) in self.flushed.drain() {
            let tell = |outcome: &'static str, records: u64| {
                let (dataset, version) = (stream.dataset().to_owned(), stream.version().to_owned());
                let labels = [("dataset", dataset), ("version", version), ("outcome", outcome.to_owned())];
                metrics::counter!("headwater_router_records_total", &labels).increment(records);
            };
            tell("forwarded", routed.forwarded);
            tell("dropped", routed.dropped);
            tell("rejected", routed.rejected);
        }
    }
}
