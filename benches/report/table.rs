//! Figures as Markdown: a table for each driver.

use std::fmt::Write as _;

use crate::support::figures::{Figure, Spread};

/// The tables, one after the other.
pub(crate) fn of(figures: &[Figure]) -> String {
    let mut text = String::new();
    let mut before = None;
    for figure in figures {
        let run = &figure.run;
        if before != Some(run) {
            let how = if run.is_quick { " --quick" } else { "" };
            let caution =
                if run.is_quick { "; quick: few and short runs, for a first look only" } else { "" };
            put(
                &mut text,
                &format!(
                    "\n`benches/run{how} {}`: {} cores, commit {}{caution}.\n\n",
                    run.driver, run.cores, run.commit
                ),
            );
            put(&mut text, "| what | against | figure | Headwater | raw | ratio | goal | events, runs |\n");
            put(&mut text, "|---|---|---|---|---|---|---|---|\n");
        }
        before = Some(run);
        let Figure { row, against, figure: name, unit, ours, raw, ratio, goal, events, rounds, .. } = figure;
        let (ours, raw, ratio) = (number(ours.median), number(raw.median), spread(ratio));
        let events = number(*events as f64);
        put(
            &mut text,
            &format!(
                "| {row} | {against} | {name} | {ours} {unit} | {raw} {unit} | {ratio} | {goal} | {events}, {rounds} |\n"
            ),
        );
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
