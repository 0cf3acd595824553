//! Results: a line of JSON each, appended to a file per driver, of which the table and the plots are
//! made. Nothing here judges.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::options::Options;
use super::pair::{Pairs, Sample};
use super::{folder, process};

/// What several runs came to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let lower = (values.len() - 1) / 2;
        let median = f64::midpoint(values[lower], values[middle]);
        Self { min: values[0], median, max: values[values.len() - 1] }
    }
}

/// One figure of a row of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// What is measured; rows are known by it.
    pub(crate) row: String,
    /// Against what.
    pub(crate) against: String,
    /// Which figure, such as `rate`.
    pub(crate) figure: String,
    pub(crate) unit: String,
    pub(crate) ours: Spread,
    /// With the ratio, pair by pair, ours by raw; none where nothing bare does the same.
    pub(crate) beside: Option<Beside>,
    /// What is hoped for, in words.
    pub(crate) goal: String,
    pub(crate) events: u64,
    pub(crate) rounds: usize,
    pub(crate) run: Run,
}

/// What a bare library came to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Beside {
    pub(crate) raw: Spread,
    pub(crate) ratio: Spread,
}

/// A point of a curve.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    /// The plot.
    pub(crate) curve: String,
    /// The line in it.
    pub(crate) line: String,
    pub(crate) x: f64,
    pub(crate) x_unit: String,
    pub(crate) y: Spread,
    pub(crate) y_unit: String,
    pub(crate) run: Run,
}

/// Where and how a result was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) driver: String,
    pub(crate) commit: String,
    pub(crate) cores: usize,
    pub(crate) is_quick: bool,
}

/// A line of a driver's file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    Figure(Figure),
    Point(Point),
}

/// A driver's file of results.
pub(crate) struct Results {
    run: Run,
}

/// What a row is about: its name, what it is measured against, and the hope for rate and CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    pub(crate) name: &'a str,
    pub(crate) against: &'a str,
    /// For the ratio of rates, or of durations where a row has no rate.
    pub(crate) goal: &'a str,
    pub(crate) cpu_goal: &'a str,
}

impl Results {
    /// The results of a driver.
    pub(crate) fn of(driver: &str, options: &Options) -> Self {
        let commit = Command::new("git").args(["describe", "--always", "--dirty"]).output();
        let commit = commit.ok().filter(|said| said.status.success());
        let commit = commit.and_then(|said| String::from_utf8(said.stdout).ok());
        let commit = commit.map_or_else(|| "unknown".to_owned(), |commit| commit.trim().to_owned());
        let (cores, is_quick) = (process::cores(), options.is_quick);
        Self { run: Run { driver: driver.to_owned(), commit, cores, is_quick } }
    }

    /// Rate and CPU of pairs of runs, and what else was seen of them.
    pub(crate) fn rates(&self, row: Row<'_>, pairs: &Pairs) {
        let seconds = |sample: &Sample| sample.events as f64 / sample.wall.as_secs_f64();
        self.figure(row, ("rate", "events/s", row.goal), pairs, |sample| Some(seconds(sample)));
        let cpu = |sample: &Sample| sample.cpu.as_secs_f64() * 1e6 / sample.events.max(1) as f64;
        self.figure(row, ("CPU", "µs/event", row.cpu_goal), pairs, |sample| Some(cpu(sample)));
        let p99 = |sample: &Sample| sample.p99.map(|p99| p99.as_secs_f64() * 1e3);
        self.figure(row, ("p99", "ms", ""), pairs, p99);
        let memory = |sample: &Sample| sample.memory_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
        self.figure(row, ("memory", "MiB", ""), pairs, memory);
    }

    /// How long one question takes, from pairs of runs of several.
    pub(crate) fn durations(&self, row: Row<'_>, pairs: &Pairs) {
        let one = |sample: &Sample| sample.wall.as_secs_f64() * 1e3 / sample.events.max(1) as f64;
        self.figure(row, ("p50", "ms", row.goal), pairs, |sample| Some(one(sample)));
        let cpu = |sample: &Sample| sample.cpu.as_secs_f64() * 1e3 / sample.events.max(1) as f64;
        self.figure(row, ("CPU", "ms", row.cpu_goal), pairs, |sample| Some(cpu(sample)));
    }

    fn figure(
        &self,
        row: Row<'_>,
        (figure, unit, goal): (&str, &str, &str),
        pairs: &Pairs,
        value: impl Fn(&Sample) -> Option<f64>,
    ) {
        let ours: Option<Vec<f64>> = pairs.ours.iter().map(&value).collect();
        let raw: Option<Vec<f64>> = pairs.raw.iter().map(&value).collect();
        if let Some((ours, raw)) = ours.zip(raw) {
            self.beside(row, (figure, unit, goal), (ours, raw), pairs.ours[0].events);
        }
    }

    /// A figure from values that belong together pair by pair, ours and the bare ones.
    pub(crate) fn beside(
        &self,
        row: Row<'_>,
        named: (&str, &str, &str),
        (ours, raw): (Vec<f64>, Vec<f64>),
        events: u64,
    ) {
        if ours.is_empty() || ours.len() != raw.len() {
            return;
        }
        let ratios = ours.iter().zip(&raw).map(|(ours, raw)| ours / raw);
        let beside = Beside { ratio: Spread::of(ratios), raw: Spread::of(raw) };
        let counts = (events, ours.len());
        self.show(row, named, (Spread::of(ours), Some(beside)), counts);
    }

    /// A figure that nothing bare stands beside: values with their unit.
    pub(crate) fn alone(&self, row: Row<'_>, (figure, unit): (&str, &str), values: &[f64], events: u64) {
        let counts = (events, values.len());
        let ours = Spread::of(values.iter().copied());
        self.show(row, (figure, unit, row.goal), (ours, None), counts);
    }

    fn show(
        &self,
        row: Row<'_>,
        (figure, unit, goal): (&str, &str, &str),
        (ours, beside): (Spread, Option<Beside>),
        (events, rounds): (u64, usize),
    ) {
        print!("{}, {figure}: {:.4} {unit}", row.name, ours.median);
        if let Some(Beside { raw, ratio }) = beside {
            let Spread { min, median, max } = ratio;
            print!(" against {:.4}: {median:.3} ({min:.3} to {max:.3})", raw.median);
        }
        println!(", goal {}", if goal.is_empty() { "none" } else { goal });
        self.write(&Line::Figure(Figure {
            row: row.name.to_owned(),
            against: row.against.to_owned(),
            figure: figure.to_owned(),
            unit: unit.to_owned(),
            ours,
            beside,
            goal: goal.to_owned(),
            events,
            rounds,
            run: self.run.clone(),
        }));
    }

    /// Adds a point to a curve; `line` is its name within the plot.
    pub(crate) fn point(
        &self,
        (curve, line): (&str, &str),
        (x, x_unit): (f64, &str),
        (y, y_unit): (Spread, &str),
    ) {
        println!("{curve}, {line}: {x} {x_unit}: {:.4} {y_unit}", y.median);
        self.write(&Line::Point(Point {
            curve: curve.to_owned(),
            line: line.to_owned(),
            x,
            x_unit: x_unit.to_owned(),
            y,
            y_unit: y_unit.to_owned(),
            run: self.run.clone(),
        }));
    }

    /// A build without optimisation shows what it finds, and keeps nothing of it.
    fn write(&self, line: &Line) {
        if cfg!(debug_assertions) {
            return;
        }
        std::fs::create_dir_all(folder()).expect("make the folder of results");
        let path = folder().join(format!("{}.json", self.run.driver));
        let mut text = serde_json::to_string(line).expect("a result is JSON");
        text.push('\n');
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("write a result");
    }
}
