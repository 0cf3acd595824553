//! Runs a load, shows how far it is, and looks at the clock and at the processes before and after.

use std::cell::RefCell;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::Bench;
use super::corpus::Corpus;
use super::process::{Process, Usage};
use super::report::Report;
use super::schedule::{Goal, Schedule};
use super::tally::Tally;
use crate::config::values::Span;

/// How long a run is that is told neither a time nor a number.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);
/// How often the progress line changes.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// What all connections share.
pub(super) struct Load {
    pub(super) corpus: Corpus,
    pub(super) schedule: Schedule,
    pub(super) tally: RefCell<Tally>,
}

impl Bench {
    /// Runs the load between two looks at the clock and at the processes.
    pub(super) async fn measure(
        &self,
        corpus: Corpus,
        process: Option<Process>,
        send: impl AsyncFnOnce(&Load),
    ) -> Report {
        // A process that has ended meanwhile has nothing to tell; what was answered still counts.
        let usage = |process: &Option<Process>| process.as_ref().and_then(|process| process.usage().ok());
        let own = Some(Process::own());
        let (server_before, own_before) = (usage(&process), usage(&own));
        let schedule = Schedule::start(self.goal(), self.batch, self.rate);
        let load = Load { corpus, schedule, tally: RefCell::default() };
        self.watch(&load, send(&load)).await;
        let elapsed = load.schedule.elapsed();
        let (server_after, own_after) = (usage(&process), usage(&own));
        let mut tally = load.tally.into_inner();
        let unsent = load.schedule.unsent();
        tally.unsent(&unsent);
        let mut report = Report::new(self, &tally, elapsed);
        report.unsent_records = unsent.len() as u64 * u64::from(self.batch);
        let taken = tally.records;
        report.server = spent(server_before, server_after).map(|used| used.per_record(elapsed, taken));
        report.client = spent(own_before, own_after).map(|used| used.per_record(elapsed, taken));
        report.server_pid = process.map(|process| process.id());
        report
    }

    /// Shows how far the load is, until it is done or interrupted.
    async fn watch(&self, load: &Load, sending: impl Future<Output = ()>) {
        let bar = progress();
        let mut sending = std::pin::pin!(sending);
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        let mut ticks = tokio::time::interval(PROGRESS_EVERY);
        let mut is_interrupted = false;
        loop {
            tokio::select! {
                biased;
                () = &mut sending => break,
                _ = &mut interrupted, if !is_interrupted => {
                    is_interrupted = true;
                    load.schedule.stop();
                }
                now = ticks.tick() => bar.set_message(load.tally.borrow_mut().progress(now)),
            }
        }
        bar.finish_and_clear();
    }

    fn goal(&self) -> Goal {
        match (self.records, self.duration) {
            (Some(records), _) => Goal::Records(records),
            (None, Some(Span(duration))) => Goal::Duration(duration),
            (None, None) => Goal::Duration(DURATION_DEFAULT),
        }
    }
}

fn spent(before: Option<Usage>, after: Option<Usage>) -> Option<Usage> {
    Some(after?.since(&before?))
}

/// A line on standard error; hidden where that is no terminal.
fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed} elapsed")
        .expect("the template is well formed");
    ProgressBar::new_spinner().with_style(style)
}
