//! `headwater import`: the records of a file, batch by batch, each sent only when the one before is
//! answered. Batches that the server is too busy for are sent again after the time it names.

mod batches;
mod csv;
mod cut;
mod encoding;
mod parquet;
mod resume;
mod send;
mod source;

use std::path::PathBuf;
use std::time::Duration;

use broker::StreamName;
use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use super::client::Client;
use super::streams::{self, DefinitionArgs};
use super::{Settings, output};
use crate::failure::{Exit, Failure};
use resume::{Bookmark, Subject};
use send::Run;
pub(super) use send::Summary;
pub(super) use source::{Records, Source};

/// Posts the records of a file to a stream.
#[derive(Args, Debug)]
pub(crate) struct Import {
    #[command(flatten)]
    source: Source,
    /// DATASET/VERSION
    #[arg(long)]
    stream: StreamName,
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
            source: Source::of(file),
            stream,
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
            streams::create_if_missing(client, &self.stream, &self.definition).await?;
        }
        let format = self.source.format()?;
        let cut = self.source.describe(format);
        let subject = Subject::of(&self.source.file, client.base().as_str(), &self.stream.to_string(), cut)?;
        let bar = progress(subject.input_bytes);
        let bookmark = Bookmark::open(&self.source.file, subject, self.restart)?;
        let summary = Summary { skipped: bookmark.next_record(), ..Summary::default() };
        let records = self.source.records(format, &bar, summary.skipped)?;
        let mut run = Run {
            client,
            path: format!("{}/records", streams::path(&self.stream)),
            patience: Duration::from_secs(self.patience),
            bar: &bar,
            bookmark,
            summary,
        };
        let sent = run.send_all(records, self.batch).await;
        bar.finish_and_clear();
        let Run { bookmark, summary, .. } = run;
        sent.map_err(|failure| {
            let doing = format!("import record {}", summary.next_record());
            failure.context(doing).hint("the same command goes on from there")
        })?;
        bookmark.remove()?;
        Ok(summary)
    }
}

/// A bar over the bytes of the file; hidden where standard error is no terminal.
fn progress(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {percent:>3}%  {msg}  {elapsed} elapsed, {eta} left")
        .expect("the template is well formed");
    ProgressBar::new(bytes).with_style(style)
}
