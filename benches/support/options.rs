//! The command line that all drivers understand.

use std::path::PathBuf;

/// How much is measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Few events and few rounds: to see that all works, and roughly how it stands.
    pub(crate) is_quick: bool,
    /// Events of a run, where not the driver's own number.
    events: Option<usize>,
    /// Pairs of runs that count, where not the driver's own number.
    rounds: Option<usize>,
    /// Real flights, an event a line; the generator's where none are given.
    pub(crate) flights: Option<PathBuf>,
    /// Only rows whose names contain one of these; all if there are none.
    rows: Vec<String>,
}

impl Options {
    /// Reads the command line and ends the process with a word of help where it is wrong.
    pub(crate) fn read() -> Self {
        let mut options = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let is_understood = match word.as_str() {
                "--quick" => {
                    options.is_quick = true;
                    true
                }
                // cargo adds it to every bench.
                "--bench" => true,
                "--events" => set(&mut options.events, words.next().and_then(number)),
                "--rounds" => set(&mut options.rounds, words.next().and_then(number)),
                "--flights" => set(&mut options.flights, words.next().map(PathBuf::from)),
                row => {
                    options.rows.push(row.to_owned());
                    !row.starts_with('-')
                }
            };
            if !is_understood {
                eprintln!("{word}: [--quick] [--events N] [--rounds N] [--flights FILE.ndjson] [ROW...]");
                std::process::exit(2);
            }
        }
        options
    }

    /// How many events a run has.
    pub(crate) fn events(&self, full: usize, quick: usize) -> usize {
        self.events.unwrap_or(if self.is_quick { quick } else { full })
    }

    /// How many pairs of runs count.
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.is_quick { 2 } else { 5 })
    }

    /// Whether a row is asked for.
    pub(crate) fn wants(&self, row: &str) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|wanted| row.contains(wanted.as_str()))
    }
}

/// Whether there was something to set.
fn set<T>(option: &mut Option<T>, value: Option<T>) -> bool {
    *option = value;
    option.is_some()
}

fn number(word: String) -> Option<usize> {
    word.replace('_', "").parse().ok().filter(|number| *number > 0)
}
