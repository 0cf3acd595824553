//! What commands print: lines, tables and bars on standard output. A reader that goes away ends the
//! command in peace.

use std::io::{self, Write};

use indicatif::HumanCount;
use serde_json::Value;

use crate::failure::{Exit, Failure};

/// The widest cell of a table; longer ones are cut.
const CELL_CHARS_MAX: usize = 48;
/// The widest bar.
const BAR_CHARS_MAX: u64 = 48;

/// Prints a line.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// Prints JSON on several lines.
pub(super) fn json(value: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(Exit::Failure, format!("write JSON: {error}")))?;
    line(&text)
}

/// Prints objects: one a line, or some of their fields as a table.
pub(super) fn rows(rows: &[Value], columns: &[&str], is_ndjson: bool) -> Result<(), Failure> {
    if is_ndjson {
        return rows.iter().try_for_each(|row| line(&row.to_string()));
    }
    let mut table = Table::new(columns.iter().copied());
    for row in rows {
        table.row(columns.iter().map(|column| cell(&row[*column])));
    }
    table.print()
}

/// A value as people write it.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// Prints a text that ends its own lines.
pub(super) fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// `1 record`, `2,858 records`.
pub(super) fn counted(count: u64, what: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{} {what}{ending}", HumanCount(count))
}

/// Rows under their columns' names. Columns of numbers stand to the right.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub(super) fn new<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        Self { rows: vec![columns.into_iter().map(Into::into).collect()] }
    }

    /// Adds a row.
    pub(super) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(|cell| clean(&cell.into())).collect());
    }

    /// The table as text.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |column: usize| self.rows.iter().filter_map(move |row| row.get(column));
        let widths: Vec<usize> =
            (0..columns).map(|column| cells(column).map(|cell| width(cell)).max().unwrap_or(0)).collect();
        let is_number = |cell: &String| cell.is_empty() || cell.parse::<f64>().is_ok();
        let right: Vec<bool> = (0..columns).map(|column| cells(column).skip(1).all(is_number)).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let space = " ".repeat(widths[column] - width(cell));
                let (before, after) = if right[column] { (space.as_str(), "") } else { ("", space.as_str()) };
                line.extend([before, cell, after, "  "]);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Prints the table.
    pub(super) fn print(&self) -> Result<(), Failure> {
        text(&self.render())
    }
}

/// Takes out what would move the terminal's cursor, and cuts what is too long.
fn clean(cell: &str) -> String {
    let mut clean: String = cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if width(&clean) > CELL_CHARS_MAX {
        clean = clean.chars().take(CELL_CHARS_MAX - 1).collect();
        clean.push('…');
    }
    clean
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

/// One line a label, with a bar as long as its count.
pub(super) fn histogram(counts: &[(String, u64)]) -> String {
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let label_width = counts.iter().map(|(label, _)| width(label)).max().unwrap_or(0);
    let count_width = most.to_string().len();
    let line = |(label, count): &(String, u64)| {
        let bar = "█".repeat(usize::try_from((count * BAR_CHARS_MAX).div_ceil(most)).unwrap_or(0));
        let line = format!("{label:label_width$}  {count:>count_width$}  {bar}");
        line.trim_end().to_owned() + "\n"
    };
    counts.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_words_to_the_left_and_numbers_to_the_right() {
        let mut table = Table::new(["origin", "delay"]);
        table.row(["DTW", "66"]);
        table.row(["København", "-5"]);
        assert_eq!(table.render(), "origin     delay\nDTW           66\nKøbenhavn     -5\n");
    }

    #[test]
    fn counts_agree_with_their_noun() {
        let texts = [0, 1, 2_858].map(|count| counted(count, "record"));
        assert_eq!(texts, ["0 records", "1 record", "2,858 records"]);
    }

    #[test]
    fn cells_cannot_move_the_cursor_or_fill_the_screen() {
        let mut table = Table::new(["text"]);
        table.row([format!("\u{1b}[2J{}", "x".repeat(100))]);
        let text = table.render();
        assert!(!text.contains('\u{1b}'));
        assert_eq!(text.lines().nth(1).unwrap().chars().count(), CELL_CHARS_MAX);
    }

    #[test]
    fn bars_are_as_long_as_their_counts() {
        let text = histogram(&[("mon".into(), 4), ("tue".into(), 2), ("wed".into(), 0)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], format!("mon  4  {}", "█".repeat(48)));
        assert_eq!(lines[1], format!("tue  2  {}", "█".repeat(24)));
        assert_eq!(lines[2], "wed  0");
    }
}
