//! When each batch is to be sent, and when there are no more.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A timer wakes late by up to this, so a batch is sent early by as much rather than late: its latency
/// counts from when it was sent, or from when it was due, whichever came first.
const TIMER_SLACK: Duration = Duration::from_millis(1);

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    Duration(Duration),
    Records(u64),
}

/// Gives out batches to whoever asks, numbered from 0.
#[derive(Debug)]
pub(super) struct Schedule {
    began: Instant,
    goal: Goal,
    batch_records: u32,
    /// Records a second; as many as are answered where there is none.
    rate: Option<u64>,
    next: Cell<u64>,
    stopped: Cell<bool>,
}

/// One batch to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) number: u64,
    /// Whether it is the last one and may be short.
    pub(super) is_last: bool,
    due: Option<Instant>,
}

impl Schedule {
    /// A schedule that begins now.
    pub(super) fn start(goal: Goal, batch_records: u32, rate: Option<u64>) -> Self {
        let (next, stopped) = (Cell::new(0), Cell::new(false));
        Self { began: Instant::now(), goal, batch_records, rate, next, stopped }
    }

    /// The next batch; none when the run is over.
    pub(super) fn next(&self) -> Option<Turn> {
        let number = self.next.get();
        let is_over = match self.goal {
            _ if self.stopped.get() => true,
            Goal::Duration(duration) => self.elapsed() >= duration || !self.is_within(number, duration),
            Goal::Records(_) => number >= self.batches(),
        };
        if is_over {
            return None;
        }
        self.next.set(number + 1);
        let is_last = matches!(self.goal, Goal::Records(_)) && number + 1 == self.batches();
        Some(Turn { number, is_last, due: self.due(number) })
    }

    /// How long it has been running.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends the run before its goal.
    pub(super) fn stop(&self) {
        self.stopped.set(true);
    }

    /// How long each of the batches has waited that were due and never sent: a server that does not
    /// keep the rate leaves some behind at the end of a run.
    pub(super) fn unsent(&self) -> Vec<Duration> {
        let Goal::Duration(duration) = self.goal else { return Vec::new() };
        if self.rate.is_none() || self.stopped.get() {
            return Vec::new();
        }
        let numbers = (self.next.get()..).take_while(|number| self.is_within(*number, duration));
        let waited = |number| self.due(number).map(|due| due.elapsed());
        numbers.filter_map(waited).collect()
    }

    fn is_within(&self, number: u64, duration: Duration) -> bool {
        self.due(number).is_none_or(|due| due < self.began + duration)
    }

    fn due(&self, number: u64) -> Option<Instant> {
        let before = number as f64 * f64::from(self.batch_records);
        self.rate.map(|rate| self.began + Duration::from_secs_f64(before / rate as f64))
    }

    fn batches(&self) -> u64 {
        match self.goal {
            Goal::Duration(_) => u64::MAX,
            Goal::Records(records) => records.div_ceil(self.batch_records.into()),
        }
    }
}

impl Turn {
    /// Waits until the batch is due, where it has such a time. Cancel-safe.
    pub(super) async fn wait(&self) {
        if let Some(due) = self.due.and_then(|due| due.checked_sub(TIMER_SLACK)) {
            sleep_until(due).await;
        }
    }

    /// From when on the latency of a batch counts that is sent now.
    pub(super) fn from(&self) -> Instant {
        let now = Instant::now();
        self.due.map_or(now, |due| due.min(now))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_number_of_records_ends_with_the_batch_that_reaches_it() {
        let schedule = Schedule::start(Goal::Records(1_001), 500, None);
        let turns: Vec<_> = std::iter::from_fn(|| schedule.next()).collect();
        let turns: Vec<_> = turns.iter().map(|turn| (turn.number, turn.is_last)).collect();
        assert_eq!(turns, [(0, false), (1, false), (2, true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_goes_on_until_its_time_is_over() {
        let schedule = Schedule::start(Goal::Duration(Duration::from_secs(10)), 500, None);
        assert!(schedule.next().is_some());
        advance(Duration::from_millis(9_999)).await;
        assert_eq!(schedule.next().unwrap().from(), Instant::now());
        advance(Duration::from_millis(1)).await;
        assert!(schedule.next().is_none());
        assert!(schedule.unsent().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_is_late_counts_from_when_it_was_due() {
        let began = Instant::now();
        let schedule = Schedule::start(Goal::Duration(Duration::from_secs(10)), 500, Some(1_000));
        schedule.next().unwrap();
        let second = schedule.next().unwrap();
        second.wait().await;
        assert_eq!(Instant::now() - began, Duration::from_millis(500) - TIMER_SLACK);
        assert_eq!(second.from(), Instant::now());
        advance(Duration::from_secs(2)).await;
        assert_eq!(second.from() - began, Duration::from_millis(500));
    }

    #[tokio::test(start_paused = true)]
    async fn batches_that_a_slow_server_left_behind_are_known() {
        let schedule = Schedule::start(Goal::Duration(Duration::from_secs(2)), 500, Some(1_000));
        schedule.next().unwrap();
        schedule.next().unwrap();
        advance(Duration::from_secs(3)).await;
        assert!(schedule.next().is_none());
        assert_eq!(schedule.unsent(), [Duration::from_secs(2), Duration::from_millis(1_500)]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_interrupted_run_has_left_nothing_behind() {
        let schedule = Schedule::start(Goal::Records(10_000), 500, Some(1_000));
        schedule.next().unwrap();
        schedule.stop();
        assert!(schedule.next().is_none() && schedule.unsent().is_empty());
    }
}
