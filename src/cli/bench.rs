//! `headwater bench`: load against a running server, and what it did with it (ADR 0061).
//!
//! Everything runs on one thread, which is enough to fill a server on two cores and leaves the other
//! core to it: bodies are made before the clock starts, and answers are read no further than their
//! errors. Nothing is ever deleted, and a stream is made only if `--create` asks for it.

mod answer;
mod corpus;
mod grpc;
mod http;
mod measure;
mod process;
mod report;
mod schedule;
mod tally;

use std::path::PathBuf;
use std::time::Duration;

use broker::StreamName;
use clap::Args;
use futures::future::{join_all, try_join_all};

use self::corpus::Corpus;
use self::process::Process;
use self::report::Report;
use super::client::Client;
use super::streams::{self, DefinitionArgs};
use super::{Settings, output};
use crate::config::values::Span;
use crate::failure::{Exit, Failure, OrFail};

const LOOPS: &str = "\
In a closed loop (the default) every connection sends its next batch when the one before is answered.
With --rate batches have a time at which they are due, and their latency counts from then, however late
they could be sent. The exit code is 1 if a record was not taken.";

/// Loads a running server with records and measures it.
#[derive(Args, Debug)]
#[command(after_help = LOOPS)]
pub(crate) struct Bench {
    /// DATASET/VERSION; its records stay there
    #[arg(long)]
    stream: StreamName,
    /// Posts NDJSON over HTTP/1.1 [the default]
    #[arg(long, conflicts_with = "grpc")]
    http: bool,
    /// Uses AppendStream over gRPC
    #[arg(long)]
    grpc: bool,
    /// Connections, each of which has one request at a time, or one AppendStream
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Batches of an AppendStream that wait for their answers
    #[arg(long, value_name = "N", default_value_t = 4, requires = "grpc", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    in_flight: u16,
    /// Records of one batch
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch: u32,
    /// The size of records that are made up, in bytes
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "file", value_parser = clap::value_parser!(u32).range(64..=16_777_216))]
    record_bytes: u32,
    /// Sends the records of a file over and over: anything that `import` reads
    #[arg(long)]
    file: Option<PathBuf>,
    /// How long to send, such as `30 s` [default: 10 s]
    #[arg(long, value_name = "TIME", value_parser = span, conflicts_with = "records")]
    duration: Option<Span>,
    /// How many records to send
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    records: Option<u64>,
    /// Records a second, over all connections [default: as many as are answered]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Asks for answers without a line a record (Prefer: return=minimal)
    #[arg(long, conflicts_with = "grpc")]
    minimal: bool,
    /// The server's process, whose CPU time and memory are read [default: the one that listens there]
    #[arg(long)]
    pid: Option<u32>,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
    /// Creates the stream if it is missing, from the flags below
    #[arg(long)]
    create: bool,
    #[command(flatten)]
    definition: DefinitionArgs,
}

impl Bench {
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let client = Client::new(settings)?;
        if client.base().scheme() != "http" {
            let message = "the load goes straight to the server, over plain HTTP: give an http:// URL";
            return Err(Failure::new(Exit::Usage, message).with_field("server"));
        }
        if self.create {
            streams::create_if_missing(&client, &self.stream, &self.definition).await?;
        } else {
            streams::show(&client, &self.stream).await?;
        }
        let process = self.process(&client)?;
        let corpus = self.corpus()?;
        let report = if self.grpc {
            let links = (0..self.connections).map(|_| grpc::Link::connect(&client));
            let links = try_join_all(links).await?;
            let in_flight = usize::from(self.in_flight);
            self.measure(corpus, process, async |load| {
                join_all(links.into_iter().map(|link| link.run(load, in_flight))).await;
            })
            .await
        } else {
            let target = http::Target::new(&client, &self.stream, self.minimal)?;
            let links = try_join_all((0..self.connections).map(|_| target.connect())).await?;
            self.measure(corpus, process, async |load| {
                join_all(links.into_iter().map(|link| target.run(link, load))).await;
            })
            .await
        };
        self.print(&report)
    }

    fn corpus(&self) -> Result<Corpus, Failure> {
        let records = match &self.file {
            Some(file) => corpus::read(file.clone())?,
            None => corpus::make_up(self.record_bytes as usize, self.batch),
        };
        let tail = self.records.map_or(0, |records| (records % u64::from(self.batch)) as u32);
        let encode = |records: &[bytes::Bytes]| match self.grpc {
            true => grpc::encode(&self.stream, records),
            false => http::encode(records),
        };
        Corpus::new(&records, (self.batch, tail), encode)
    }

    /// The server's process: the one that was named, or one on this machine that listens there.
    fn process(&self, client: &Client) -> Result<Option<Process>, Failure> {
        match self.pid {
            Some(pid) => Process::of(pid).map(Some).or_fail(format!("read process {pid}")),
            None if client.is_local() => Ok(client.base().port_or_known_default().and_then(Process::on_port)),
            None => Ok(None),
        }
    }

    fn print(&self, report: &Report) -> Result<(), Failure> {
        match self.json {
            true => output::line(&report.json()?)?,
            false => output::text(&report.render())?,
        }
        match report.refused() {
            0 => Ok(()),
            refused => {
                let message = format!("{} not taken", output::counted(refused, "record"));
                Err(Failure::new(Exit::Failure, message))
            }
        }
    }
}

fn span(text: &str) -> Result<Span, String> {
    match text.parse() {
        Ok(Span(Duration::ZERO)) | Err(()) => Err("expected a time such as `30 s`".to_owned()),
        Ok(span) => Ok(span),
    }
}
