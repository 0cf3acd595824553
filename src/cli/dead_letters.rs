//! `headwater dead-letters`: records that could not be processed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use broker::StreamName;
use clap::Subcommand;
use http::Method;
use serde::{Deserialize, Serialize};

use super::client::{Client, Position, json, send};
use super::streams::{Format, path};
use super::{Settings, output};
use crate::failure::{Exit, Failure};

/// Dead letters of one request.
const PAGE_LETTERS_MAX: u64 = 1_000;

/// Lists and replays records that could not be processed.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadLetters {
    /// Lists them with their reasons, oldest first
    List {
        /// DATASET/VERSION
        stream: StreamName,
        /// The most to print
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// How to print them
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
    /// Sends them through the present transform once more
    Replay {
        /// DATASET/VERSION
        stream: StreamName,
    },
}

#[derive(Deserialize)]
struct Page {
    dead_letters: Vec<Letter>,
    cursor: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Letter {
    origin: Position,
    reason: String,
    transform_version: Option<u32>,
    timestamp: String,
    value_base64: String,
}

impl DeadLetters {
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let client = Client::new(settings)?;
        match self {
            DeadLetters::List { stream, limit, format } => {
                let letters = list(&client, &stream, limit).await?;
                match format {
                    Format::Table => print_table(&letters),
                    Format::Ndjson => letters.iter().try_for_each(print_line),
                }
            }
            DeadLetters::Replay { stream } => {
                let replayed = replay(&client, &stream).await?;
                output::line(&format!("replayed {}", output::counted(replayed, "record")))
            }
        }
    }
}

async fn list(client: &Client, stream: &StreamName, limit: u64) -> Result<Vec<Letter>, Failure> {
    let path = format!("{}/dead-letters", path(stream));
    let mut letters = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let wanted = limit - letters.len() as u64;
        let mut query = vec![("limit", wanted.min(PAGE_LETTERS_MAX).to_string())];
        query.extend(cursor.map(|cursor| ("cursor", cursor)));
        let page: Page = client.get(&path, &query).await?;
        letters.extend(page.dead_letters);
        cursor = page.cursor;
        if cursor.is_none() || letters.len() as u64 >= limit {
            return Ok(letters);
        }
    }
}

async fn replay(client: &Client, stream: &StreamName) -> Result<u64, Failure> {
    #[derive(Deserialize)]
    struct Answer {
        replayed: u64,
    }
    let path = format!("{}/dead-letters/replay", path(stream));
    let answer: Answer = json(send(client.request(Method::POST, &path)).await?).await?;
    Ok(answer.replayed)
}

fn print_line(letter: &Letter) -> Result<(), Failure> {
    let line = serde_json::to_string(letter)
        .map_err(|error| Failure::new(Exit::Failure, format!("write JSON: {error}")))?;
    output::line(&line)
}

fn print_table(letters: &[Letter]) -> Result<(), Failure> {
    let mut table = output::Table::new(["origin", "timestamp", "transform", "reason", "value"]);
    for letter in letters {
        let value = STANDARD.decode(&letter.value_base64).unwrap_or_default();
        table.row([
            format!("{}/{}", letter.origin.partition, letter.origin.offset),
            letter.timestamp.clone(),
            letter.transform_version.map(|version| version.to_string()).unwrap_or_default(),
            letter.reason.clone(),
            String::from_utf8_lossy(&value).into_owned(),
        ]);
    }
    table.print()?;
    output::line(&output::counted(letters.len() as u64, "dead letter"))
}
