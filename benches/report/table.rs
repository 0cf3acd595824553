//! Figures as Markdown: a table for each driver.

use std::fmt::Write as _;

use crate::support::figures::{Figure, Spread};

/// The tables, one after the other.
pub(crate) fn of(figures: &[Figure]) -> String {
    let mut text = String::new();
    let mut before: Option<&Figure> = None;
    for figure in figures {
        let Figure { run, row, figure: name, unit, ours, goal, events, rounds, .. } = figure;
        if before.map(|before| &before.run) != Some(run) {
            let how = if run.is_quick { " --quick" } else { "" };
            let caution = if run.is_quick { "; few and short runs, for a first look only" } else { "" };
            let (driver, cores, commit) = (&run.driver, run.cores, &run.commit);
            put(
                &mut text,
                &format!("\n`benches/run{how} {driver}`, {cores} cores, commit {commit}{caution}:\n\n"),
            );
            put(&mut text, "| what | against | figure | Headwater | raw | ratio | goal | events, runs |\n");
            put(&mut text, "|---|---|---|---|---|---|---|---|\n");
        }
        let is_new = before.is_none_or(|before| before.row != *row || before.run != *run);
        let (row, against) = if is_new { (row.as_str(), figure.against.as_str()) } else { ("", "") };
        let (raw, ratio) = figure.beside.map_or_else(Default::default, |beside| {
            (format!("{} {unit}", number(beside.raw.median)), spread(&beside.ratio))
        });
        let (ours, events) = (number(ours.median), number(*events as f64));
        put(
            &mut text,
            &format!(
                "| {row} | {against} | {name} | {ours} {unit} | {raw} | {ratio} | {goal} | {events}, {rounds} |\n"
            ),
        );
        before = Some(figure);
    }
    text
}

fn put(text: &mut String, more: &str) {
    text.write_str(more).expect("a text takes all");
}

fn spread(spread: &Spread) -> String {
    format!("**{:.2}** ({:.2} to {:.2})", spread.median, spread.min, spread.max)
}

/// Three digits that count.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e4 => format!("{:.0} k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
