//! Where an import stands, in a small file beside its input, so that the same command goes on where
//! it stopped. The file is written after every batch that the server has answered: a stop between
//! the answer and the file makes the next run send that one batch again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::failure::{Exit, Failure, OrFail};

/// What an import is from and to; another input or target is another import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Subject {
    /// The input's size.
    pub(super) input_bytes: u64,
    /// When the input was last written, in microseconds since 1970.
    pub(super) input_written_micros: u64,
    /// The server.
    pub(super) server: String,
    /// The stream.
    pub(super) stream: String,
    /// How the input is cut into records.
    pub(super) cut: String,
}

/// The file beside the input.
#[derive(Debug)]
pub(super) struct Bookmark {
    path: PathBuf,
    state: State,
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    #[serde(flatten)]
    subject: Subject,
    next_record: u64,
}

impl Subject {
    /// Size and time of an input.
    pub(super) fn of(input: &Path, server: &str, stream: &str, cut: String) -> Result<Self, Failure> {
        let metadata = fs::metadata(input).or_fail(format!("read {}", input.display()))?;
        if !metadata.is_file() {
            return Err(Failure::new(Exit::Usage, format!("{} is not a file", input.display())));
        }
        let written = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let input_written_micros =
            written.and_then(|since| u64::try_from(since.as_micros()).ok()).unwrap_or(0);
        Ok(Self {
            input_bytes: metadata.len(),
            input_written_micros,
            server: server.to_owned(),
            stream: stream.to_owned(),
            cut,
        })
    }
}

impl Bookmark {
    /// The bookmark of an input, at its start or where the last run left it. One that belongs to
    /// another import is refused, unless `restart` is asked for.
    pub(super) fn open(input: &Path, subject: Subject, restart: bool) -> Result<Self, Failure> {
        let mut name = input.as_os_str().to_owned();
        name.push(".headwater-import");
        let path = PathBuf::from(name);
        let next_record = match read(&path)? {
            Some(state) if !restart && state.subject == subject => state.next_record,
            Some(_) if !restart => {
                let message = format!(
                    "{} belongs to an import of another input, stream or server: finish that one, or start \
                     anew with --restart",
                    path.display()
                );
                return Err(Failure::new(Exit::Conflict, message));
            }
            _ => 0,
        };
        Ok(Self { path, state: State { subject, next_record } })
    }

    /// The first record that is not known to be taken.
    pub(super) fn next_record(&self) -> u64 {
        self.state.next_record
    }

    /// Moves on behind records that the server has answered.
    pub(super) fn advance(&mut self, records: u64) -> Result<(), Failure> {
        self.state.next_record += records;
        let text = serde_json::to_vec(&self.state)
            .map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
        let draft = self.path.with_extension("headwater-import.new");
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, &self.path))
            .or_fail(format!("write {}", self.path.display()))
    }

    /// Takes the bookmark away when the import is done.
    pub(super) fn remove(self) -> Result<(), Failure> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).or_fail(format!("remove {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Option<State>, Failure> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).or_fail(format!("read {}", path.display())),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        let message = format!("read {}: {error}; start anew with --restart", path.display());
        Failure::new(Exit::Usage, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(input: &Path, stream: &str) -> Subject {
        Subject::of(input, "http://127.0.0.1:7070", stream, "ndjson".into()).unwrap()
    }

    #[test]
    fn goes_on_where_the_last_run_stopped_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("flights.json");
        fs::write(&input, "[]").unwrap();
        let mut bookmark = Bookmark::open(&input, subject(&input, "flights/1"), false).unwrap();
        assert_eq!(bookmark.next_record(), 0);
        bookmark.advance(500).unwrap();
        bookmark.advance(250).unwrap();
        let again = Bookmark::open(&input, subject(&input, "flights/1"), false).unwrap();
        assert_eq!(again.next_record(), 750);
        again.remove().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn another_target_or_another_input_is_refused_unless_it_starts_anew() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("flights.json");
        fs::write(&input, "[]").unwrap();
        Bookmark::open(&input, subject(&input, "flights/1"), false).unwrap().advance(1).unwrap();
        let failure = Bookmark::open(&input, subject(&input, "flights/2"), false).unwrap_err();
        assert_eq!(failure.exit(), Exit::Conflict);
        fs::write(&input, "[1, 2]").unwrap();
        assert!(Bookmark::open(&input, subject(&input, "flights/1"), false).is_err());
        let anew = Bookmark::open(&input, subject(&input, "flights/1"), true).unwrap();
        assert_eq!(anew.next_record(), 0);
    }
}
