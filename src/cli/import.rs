//! `headwater import`: the records of a file, batch by batch, each sent only when the one before is
//! answered. Batches that the server is too busy for are sent again after the time it names.

mod csv;
mod cut;
mod encoding;
mod resume;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::StreamName;
use bytes::Bytes;
use clap::{ArgAction, Args, ValueEnum};
use http::Method;
use http::header::CONTENT_TYPE;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::Deserialize;

use super::client::{Client, Refusal, json, send_patiently};
use super::streams::{self, DefinitionArgs};
use super::{Settings, output};
use crate::failure::{Exit, Failure, OrFail};
use encoding::{Decoder, Encoding};
use resume::{Bookmark, Subject};

/// A request ends at this many bytes, whatever `--batch` says.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Refused records that are printed one by one.
const REFUSALS_SHOWN_MAX: u64 = 10;

/// Posts the records of a file to a stream.
///
/// Where the import stands is kept in FILE.headwater-import until it is done: the same command goes
/// on where it stopped. If it is stopped between an answer and that note, one batch is sent twice.
#[derive(Args, Debug)]
pub(crate) struct Import {
    /// A JSON array, NDJSON, or CSV with a header line
    file: PathBuf,
    /// DATASET/VERSION
    #[arg(long)]
    stream: StreamName,
    /// How the file is cut into records [default: by its name and first byte]
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
    /// Records of one request
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// How long to go on when the server is busy or away
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    patience: u64,
    /// Starts from the first record, whatever an earlier run left
    #[arg(long)]
    restart: bool,
    /// Creates the stream if it is missing, from the flags below
    #[arg(long)]
    create: bool,
    #[command(flatten)]
    definition: DefinitionArgs,
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
}

/// What an import did.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// Records that an earlier run had sent.
    pub(super) skipped: u64,
    /// Records that are durable now.
    pub(super) taken: u64,
    /// Records that were refused.
    pub(super) refused: u64,
    /// By partition, the offset behind the last record taken.
    pub(super) ends: BTreeMap<u32, u64>,
}

/// Records, in the order of the file.
type Records = Box<dyn Iterator<Item = Result<Vec<u8>, Failure>> + Send>;

impl Import {
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let client = Client::new(settings)?;
        let started = tokio::time::Instant::now();
        let stream = self.stream.clone();
        let summary = self.import(&client).await?;
        let taken = output::counted(summary.taken, "record");
        let mut text = format!("{taken} imported into {stream} in {:.1?}", started.elapsed());
        if summary.skipped > 0 {
            text += &format!(", after {} of an earlier run", HumanCount(summary.skipped));
        }
        output::line(&text)?;
        match summary.refused {
            0 => Ok(()),
            refused => {
                Err(Failure::new(Exit::Failure, format!("{} refused", output::counted(refused, "record"))))
            }
        }
    }

    /// An import of a file with everything else at its default.
    pub(super) fn of(file: PathBuf, stream: StreamName) -> Self {
        Self {
            file,
            stream,
            format: None,
            encoding: Encoding::Utf8,
            delimiter: None,
            infer_types: true,
            batch: 500,
            patience: 120,
            restart: true,
            create: false,
            definition: DefinitionArgs::default(),
        }
    }

    /// Sends everything that an earlier run has not sent.
    pub(super) async fn import(self, client: &Client) -> Result<Summary, Failure> {
        if self.create {
            self.create_if_missing(client).await?;
        }
        let format = self.format()?;
        let cut = format!("{format:?} {:?} {:?} {}", self.encoding, self.delimiter(), self.infer_types);
        let subject = Subject::of(&self.file, client.base().as_str(), &self.stream.to_string(), cut)?;
        let bar = progress(subject.input_bytes);
        let bookmark = Bookmark::open(&self.file, subject, self.restart)?;
        let summary = Summary { skipped: bookmark.next_record(), ..Summary::default() };
        let records = self.records(format, &bar)?;
        let mut run = Run { client, bar: &bar, bookmark, summary };
        let sent = self.send_all(records, &mut run).await;
        bar.finish_and_clear();
        let Run { bookmark, summary, .. } = run;
        sent.map_err(|failure| {
            let doing = format!("import record {}", summary.next_record());
            failure.context(doing).hint("the same command goes on from there")
        })?;
        bookmark.remove()?;
        Ok(summary)
    }

    async fn create_if_missing(&self, client: &Client) -> Result<(), Failure> {
        match streams::create(client, &self.stream, &self.definition).await {
            Err(failure) if failure.exit() == Exit::Conflict => {
                streams::show(client, &self.stream).await.map(drop)
            }
            created => created.map(drop),
        }
    }

    async fn send_all(&self, records: Records, run: &mut Run<'_>) -> Result<(), Failure> {
        let mut records = off_the_runtime(records, run.summary.skipped, self.batch).await?;
        while let Some(batch) = records.batch.take() {
            let next = off_the_runtime(records.rest, 0, self.batch);
            let (answer, next) = tokio::join!(self.send(run, batch), next);
            let answer = answer?;
            let count = answer.records.len() as u64;
            run.summary.add(answer, run.bar);
            run.bookmark.advance(count)?;
            run.bar.set_message(format!("{} records", HumanCount(run.summary.next_record())));
            records = next?;
        }
        Ok(())
    }

    async fn send(&self, run: &Run<'_>, batch: Batch) -> Result<Answer, Failure> {
        let request = run
            .client
            .request(Method::POST, &format!("{}/records", streams::path(&self.stream)))
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(batch.body);
        let waiting = |failure: &Failure| run.bar.set_message(format!("waiting: {failure}"));
        let response = send_patiently(request, Duration::from_secs(self.patience), waiting).await?;
        let answer: Answer = json(response).await?;
        if answer.records.len() != batch.count {
            let message = format!("sent {} records and got {} answers", batch.count, answer.records.len());
            return Err(Failure::new(Exit::Failure, message));
        }
        Ok(answer)
    }

    fn format(&self) -> Result<Format, Failure> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        let extension = self.file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        match extension.to_ascii_lowercase().as_str() {
            "ndjson" | "jsonl" => Ok(Format::Ndjson),
            "csv" | "tsv" => Ok(Format::Csv),
            _ => match first_byte(&self.file, self.encoding)? {
                Some(b'[') => Ok(Format::Array),
                Some(b'{') | None => Ok(Format::Json),
                Some(_) => Err(Failure::new(
                    Exit::Usage,
                    format!("cannot tell what {} holds: say it with --format", self.file.display()),
                )),
            },
        }
    }

    fn delimiter(&self) -> u8 {
        let is_tsv = self.file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv"));
        self.delimiter.unwrap_or(if is_tsv { b'\t' } else { b',' })
    }

    /// Opens the file; the bar follows what is read of it.
    fn records(&self, format: Format, bar: &ProgressBar) -> Result<Records, Failure> {
        let columns = match format {
            Format::Csv if self.infer_types => {
                Some(csv::infer(open(&self.file, self.encoding, None)?, self.delimiter())?)
            }
            _ => None,
        };
        let input = open(&self.file, self.encoding, Some(bar))?;
        Ok(match format {
            Format::Array => Box::new(cut::Values::of_array(input)),
            Format::Json => Box::new(cut::Values::in_sequence(input)),
            Format::Ndjson => Box::new(cut::Lines::new(input)),
            Format::Csv => Box::new(csv::Rows::new(input, self.delimiter(), columns)?),
        })
    }
}

/// An import on its way.
struct Run<'a> {
    client: &'a Client,
    bar: &'a ProgressBar,
    bookmark: Bookmark,
    summary: Summary,
}

/// One request's records, and those that come after.
struct Cut {
    batch: Option<Batch>,
    rest: Records,
}

struct Batch {
    body: Bytes,
    count: usize,
}

/// Reads a batch on a thread that may block.
async fn off_the_runtime(mut rest: Records, skip: u64, count: u32) -> Result<Cut, Failure> {
    let read = move || {
        for _ in 0..skip {
            rest.next().transpose()?;
        }
        let batch = next_batch(&mut rest, count)?;
        Ok(Cut { batch, rest })
    };
    let stopped = |error: tokio::task::JoinError| Failure::new(Exit::Failure, error.to_string());
    tokio::task::spawn_blocking(read).await.map_err(stopped)?
}

fn next_batch(records: &mut Records, count_max: u32) -> Result<Option<Batch>, Failure> {
    let mut body = Vec::new();
    let mut count = 0;
    while count < count_max as usize && body.len() < BATCH_BYTES_MAX {
        let Some(record) = records.next().transpose()? else { break };
        body.extend_from_slice(&record);
        body.push(b'\n');
        count += 1;
    }
    Ok((count > 0).then(|| Batch { body: body.into(), count }))
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

/// The answer to one batch.
#[derive(Deserialize)]
struct Answer {
    records: Vec<Answered>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answered {
    Refused { error: Refusal },
    Taken { partition: u32, offset: u64 },
}

impl Summary {
    fn next_record(&self) -> u64 {
        self.skipped + self.taken + self.refused
    }

    fn add(&mut self, answer: Answer, bar: &ProgressBar) {
        for answered in answer.records {
            match answered {
                Answered::Taken { partition, offset } => {
                    self.taken += 1;
                    let end = self.ends.entry(partition).or_default();
                    *end = (*end).max(offset + 1);
                }
                Answered::Refused { error } => {
                    if self.refused < REFUSALS_SHOWN_MAX {
                        let number = self.next_record();
                        bar.suspend(|| eprintln!("record {number} was refused: {}", error.describe()));
                    }
                    self.refused += 1;
                }
            }
        }
    }
}

/// A bar over the bytes of the file; hidden where standard error is no terminal.
fn progress(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {percent:>3}%  {msg}  {elapsed} elapsed, {eta} left")
        .expect("the template is well formed");
    ProgressBar::new(bytes).with_style(style)
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

    fn import(name: &str, text: &str) -> (tempfile::TempDir, Import) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        (folder, Import::of(file, StreamName::new("flights", "1").unwrap()))
    }

    #[test]
    fn the_format_follows_from_name_and_first_byte() {
        for (name, text, expected) in [
            ("a.ndjson", "", Format::Ndjson),
            ("a.csv", "", Format::Csv),
            ("a.TSV", "", Format::Csv),
            ("a.json", " \n[1]", Format::Array),
            ("a.json", "\u{feff}{}", Format::Json),
            ("noname", "[", Format::Array),
        ] {
            let (_folder, import) = import(name, text);
            assert_eq!(import.format().unwrap(), expected, "{name}");
        }
        let (_folder, import) = import("notes.txt", "hello");
        assert!(import.format().is_err());
    }

    #[test]
    fn batches_end_by_count_and_by_bytes() {
        let (_folder, mut import) = import("a.ndjson", &"{\"a\":1}\n".repeat(7));
        import.batch = 3;
        let mut records = import.records(Format::Ndjson, &ProgressBar::hidden()).unwrap();
        let mut counts = Vec::new();
        while let Some(batch) = next_batch(&mut records, import.batch).unwrap() {
            assert_eq!(batch.body.len(), batch.count * 8);
            counts.push(batch.count);
        }
        assert_eq!(counts, [3, 3, 1]);

        let long = format!("\"{}\"", "x".repeat(3 << 20));
        let mut records: Records = Box::new((0..4).map(move |_| Ok(long.clone().into_bytes())));
        assert_eq!(next_batch(&mut records, 500).unwrap().unwrap().count, 2);
    }

    #[test]
    fn a_summary_counts_answers_and_keeps_the_ends() {
        let answer: Answer = serde_json::from_str(
            r#"{"records":[{"partition":0,"offset":4,"timestamp":"2001-01-01T00:00:00Z"},
                {"error":{"kind":"invalid","message":"not JSON","field":"records[1]"}},
                {"partition":2,"offset":0,"timestamp":"2001-01-01T00:00:00Z"}]}"#,
        )
        .unwrap();
        let mut summary = Summary { skipped: 10, ..Summary::default() };
        summary.add(answer, &ProgressBar::hidden());
        assert_eq!((summary.taken, summary.refused, summary.next_record()), (2, 1, 13));
        assert_eq!(summary.ends, BTreeMap::from([(0, 5), (2, 1)]));
    }
}
