//! A file of records: how it is cut, told by flags, by its name or by its first bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, ValueEnum};
use indicatif::ProgressBar;

use super::encoding::{Decoder, Encoding};
use super::{csv, cut, parquet};
use crate::failure::{Exit, Failure, OrFail};

/// A file of records.
#[derive(Args, Debug)]
pub(in crate::cli) struct Source {
    /// A JSON array, NDJSON, CSV with a header line, or Parquet
    pub(super) file: PathBuf,
    /// How the file is cut into records [default: by its name and first bytes]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// How the file's text is written
    #[arg(long, value_enum, default_value_t = Encoding::Utf8)]
    encoding: Encoding,
    /// Between the cells of a CSV line [default: a comma, or a tab in *.tsv]
    #[arg(long, value_parser = delimiter)]
    delimiter: Option<u8>,
    /// Whether CSV columns that hold nothing but numbers, or true and false, become such; otherwise
    /// every cell is text
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    infer_types: bool,
}

/// How a file is cut into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One array, a record an element
    Array,
    /// JSON values with white space between them
    Json,
    /// One record a line
    Ndjson,
    /// A header line, then one record a line
    Csv,
    /// One record a row, a field a column
    Parquet,
}

/// Records, in the order of the file.
pub(in crate::cli) type Records = Box<dyn Iterator<Item = Result<Vec<u8>, Failure>> + Send>;

impl Source {
    /// A file of which nothing is told.
    pub(in crate::cli) fn of(file: PathBuf) -> Self {
        Self { file, format: None, encoding: Encoding::Utf8, delimiter: None, infer_types: true }
    }

    /// How it is cut.
    pub(in crate::cli) fn format(&self) -> Result<Format, Failure> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        let extension = self.file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "ndjson" | "jsonl" => return Ok(Format::Ndjson),
            "csv" | "tsv" => return Ok(Format::Csv),
            "parquet" | "parq" => return Ok(Format::Parquet),
            _ => {}
        }
        if parquet::is_parquet(&self.file)? {
            return Ok(Format::Parquet);
        }
        match first_byte(&self.file, self.encoding)? {
            Some(b'[') => Ok(Format::Array),
            Some(b'{') | None => Ok(Format::Json),
            Some(_) => Err(Failure::new(
                Exit::Usage,
                format!("cannot tell what {} holds: say it with --format", self.file.display()),
            )),
        }
    }

    /// Everything that decides which record has which number.
    pub(super) fn describe(&self, format: Format) -> String {
        format!("{format:?} {:?} {:?} {}", self.encoding, self.delimiter(), self.infer_types)
    }

    fn delimiter(&self) -> u8 {
        let is_tsv = self.file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"));
        self.delimiter.unwrap_or(if is_tsv { b'\t' } else { b',' })
    }

    /// Opens the file at its record number `first`; the bar follows what is read of it.
    pub(in crate::cli) fn records(
        &self,
        format: Format,
        bar: &ProgressBar,
        first: u64,
    ) -> Result<Records, Failure> {
        let input = || open(&self.file, self.encoding, Some(bar));
        let records: Records = match format {
            Format::Array => Box::new(cut::Values::of_array(input()?)),
            Format::Json => Box::new(cut::Values::in_sequence(input()?)),
            Format::Ndjson => Box::new(cut::Lines::new(input()?)),
            Format::Csv => Box::new(csv::Rows::new(input()?, self.delimiter(), self.columns()?)?),
            Format::Parquet => {
                return Ok(Box::new(parquet::Rows::open(&self.file, bar.clone(), first)?));
            }
        };
        Ok(behind(records, first))
    }

    /// What the columns of a CSV file hold, where that is to be found out.
    fn columns(&self) -> Result<Option<Vec<csv::Column>>, Failure> {
        if !self.infer_types {
            return Ok(None);
        }
        csv::infer(open(&self.file, self.encoding, None)?, self.delimiter()).map(Some)
    }
}

/// Leaves out the first records, but not an error among them.
fn behind(records: Records, mut first: u64) -> Records {
    Box::new(records.filter(move |record| {
        let is_sent = first > 0 && record.is_ok();
        first -= u64::from(is_sent);
        !is_sent
    }))
}

fn open(
    path: &Path,
    encoding: Encoding,
    bar: Option<&ProgressBar>,
) -> Result<impl BufRead + Send + use<>, Failure> {
    let file = File::open(path).or_fail(format!("open {}", path.display()))?;
    let file: Box<dyn Read + Send> = match bar {
        Some(bar) => Box::new(bar.wrap_read(file)),
        None => Box::new(file),
    };
    Ok(Decoder::new(BufReader::with_capacity(64 << 10, file), encoding))
}

/// The first byte that is not white space.
fn first_byte(path: &Path, encoding: Encoding) -> Result<Option<u8>, Failure> {
    let bytes = open(path, encoding, None)?.bytes();
    let blank = |byte: &io::Result<u8>| byte.as_ref().is_ok_and(u8::is_ascii_whitespace);
    let mut rest = bytes.skip_while(blank);
    rest.next().transpose().or_fail(format!("read {}", path.display()))
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() => Ok(*byte),
        b"\\t" => Ok(b'\t'),
        _ => Err("expected one ASCII character, or \\t".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, text: &str) -> (tempfile::TempDir, Source) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        (folder, Source::of(file))
    }

    #[test]
    fn the_format_follows_from_name_and_first_bytes() {
        for (name, text, expected) in [
            ("a.ndjson", "", Format::Ndjson),
            ("a.csv", "", Format::Csv),
            ("a.TSV", "", Format::Csv),
            ("a.parquet", "", Format::Parquet),
            ("a.json", " \n[1]", Format::Array),
            ("a.json", "\u{feff}{}", Format::Json),
            ("noname", "[", Format::Array),
            ("noname", "PAR1", Format::Parquet),
        ] {
            let (_folder, source) = source(name, text);
            assert_eq!(source.format().unwrap(), expected, "{name}");
        }
        let (_folder, source) = source("notes.txt", "hello");
        assert!(source.format().is_err());
    }

    #[test]
    fn records_that_an_earlier_run_sent_are_left_out() {
        let (_folder, source) = source("a.ndjson", "1\n2\n3\n");
        let read = |first| {
            let records = source.records(Format::Ndjson, &ProgressBar::hidden(), first).unwrap();
            records.map(|record| String::from_utf8(record.unwrap()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(read(0), ["1", "2", "3"]);
        assert_eq!(read(2), ["3"]);
        assert!(read(3).is_empty());
    }
}
