//! Sends batch after batch and keeps account of the answers.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use http::header::CONTENT_TYPE;
use indicatif::{HumanCount, ProgressBar};
use serde::Deserialize;

use super::Records;
use super::batches::{Batch, off_the_runtime};
use super::resume::Bookmark;
use crate::cli::client::{Client, Refusal, json, send_patiently};
use crate::failure::{Exit, Failure};

/// Refused records that are printed one by one.
const REFUSALS_SHOWN_MAX: u64 = 10;

/// An import on its way.
pub(super) struct Run<'a> {
    pub(super) client: &'a Client,
    /// Where the records are posted.
    pub(super) path: String,
    /// How long to go on when the server is busy or away.
    pub(super) patience: Duration,
    pub(super) bar: &'a ProgressBar,
    pub(super) bookmark: Bookmark,
    pub(super) summary: Summary,
}

/// What an import did.
#[derive(Debug, Default)]
pub(in crate::cli) struct Summary {
    /// Records that an earlier run had sent.
    pub(in crate::cli) skipped: u64,
    /// Records that are durable now.
    pub(in crate::cli) taken: u64,
    /// Records that were refused.
    pub(in crate::cli) refused: u64,
    /// By partition, the offset behind the last record taken.
    pub(in crate::cli) ends: BTreeMap<u32, u64>,
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

impl Run<'_> {
    /// Sends all of them; the next batch is read while one is on its way.
    pub(super) async fn send_all(&mut self, records: Records, batch_records: u32) -> Result<(), Failure> {
        let mut records = off_the_runtime(records, batch_records).await?;
        while let Some(batch) = records.batch.take() {
            let next = off_the_runtime(records.rest, batch_records);
            let (answer, next) = tokio::join!(self.send(batch), next);
            let answer = answer?;
            let count = answer.records.len() as u64;
            self.summary.add(answer, self.bar);
            self.bookmark.advance(count)?;
            self.bar.set_message(format!("{} records", HumanCount(self.summary.next_record())));
            records = next?;
        }
        Ok(())
    }

    async fn send(&self, batch: Batch) -> Result<Answer, Failure> {
        let request = self
            .client
            .request(Method::POST, &self.path)
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(batch.body);
        let waiting = |failure: &Failure| self.bar.set_message(format!("waiting: {failure}"));
        let response = send_patiently(request, self.patience, waiting).await?;
        let answer: Answer = json(response).await?;
        if answer.records.len() != batch.count {
            let message = format!("sent {} records and got {} answers", batch.count, answer.records.len());
            return Err(Failure::new(Exit::Failure, message));
        }
        Ok(answer)
    }
}

impl Summary {
    /// The number of the first record that is not known to be taken.
    pub(super) fn next_record(&self) -> u64 {
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

#[cfg(test)]
mod tests {
    use super::*;

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
