//! Two candidates in turn, so that a machine whose speed drifts drifts for both.

use std::time::{Duration, Instant};

use super::process;

/// What one run came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// What was worked on: events, or questions.
    pub(crate) events: u64,
    pub(crate) wall: Duration,
    /// Of every thread of the process that is measured, in user and kernel.
    pub(crate) cpu: Duration,
    /// The time that the slowest hundredth took at least, where single requests were timed.
    pub(crate) p99: Option<Duration>,
    /// The most memory that the process held, where it is a process of its own.
    pub(crate) memory_bytes: Option<u64>,
}

impl Sample {
    /// Runs work on `events` events in this process.
    pub(crate) fn of(events: usize, work: impl FnOnce()) -> Self {
        let (began, cpu) = (Instant::now(), process::own_cpu());
        work();
        let (wall, cpu) = (began.elapsed(), process::own_cpu().saturating_sub(cpu));
        Self { events: events as u64, wall, cpu, ..Self::default() }
    }
}

/// Runs that belong together, pair by pair.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pairs {
    pub(crate) ours: Vec<Sample>,
    pub(crate) raw: Vec<Sample>,
}

/// One pair that does not count, then `rounds` that do, each beginning with the other candidate.
pub(crate) fn alternate(
    rounds: usize,
    mut ours: impl FnMut() -> Sample,
    mut raw: impl FnMut() -> Sample,
) -> Pairs {
    let mut pairs = Pairs::default();
    for round in 0..=rounds {
        let (our, its) = if round % 2 == 0 {
            let our = ours();
            (our, raw())
        } else {
            let its = raw();
            (ours(), its)
        };
        eprintln!("  round {round} of {rounds}: {}, raw {}", shown(&our), shown(&its));
        if round > 0 {
            pairs.ours.push(our);
            pairs.raw.push(its);
        }
    }
    pairs
}

fn shown(sample: &Sample) -> String {
    let events = sample.events.max(1) as f64;
    let (wall, cpu) = (sample.wall.as_secs_f64(), sample.cpu.as_secs_f64());
    format!("{:.0}/s at {:.2} µs", events / wall, cpu / events * 1e6)
}
