//! What an answer says of a batch's records, read no further than that.

use std::collections::BTreeMap;

use http::StatusCode;
use proto::v1::record_result::Result as Taken;
use proto::v1::{AppendResponse, RecordResult};
use serde::Deserialize;

/// What became of the records of one batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) taken: u64,
    /// How many were not, by what was answered.
    pub(super) errors: BTreeMap<String, u64>,
}

impl Outcome {
    /// The outcome of an answer over HTTP to so many records.
    pub(super) fn of_http(status: StatusCode, body: &[u8], records: u64) -> Self {
        if status != StatusCode::OK {
            return Self::all(status.as_str(), records);
        }
        let Ok(Answer { records: full, appended, errors }) = serde_json::from_slice(body) else {
            return Self::all("200 unreadable", records);
        };
        let taken = appended.iter().map(|range| range.count).sum();
        let mut outcome = Self { taken, errors: BTreeMap::new() };
        for Entry { offset, error } in full.into_iter().chain(errors) {
            outcome.count(offset.is_some(), error.map(|error| error.kind));
        }
        outcome.complete("200", records)
    }

    /// The outcome of one answer of an AppendStream to so many records.
    pub(super) fn of_grpc(answer: AppendResponse, records: u64) -> Self {
        let mut outcome = Self::default();
        for RecordResult { result } in answer.records {
            match result {
                Some(Taken::Appended(_)) => outcome.count(true, None),
                Some(Taken::Error(problem)) => outcome.count(false, Some(problem.kind)),
                None => outcome.count(false, None),
            }
        }
        outcome.complete("Ok", records)
    }

    fn all(label: &str, records: u64) -> Self {
        Self { taken: 0, errors: BTreeMap::from([(label.to_owned(), records)]) }
    }

    fn count(&mut self, is_taken: bool, kind: Option<String>) {
        if is_taken {
            self.taken += 1;
        } else {
            *self.errors.entry(kind.unwrap_or_default()).or_default() += 1;
        }
    }

    /// Puts the status before each kind. An answer about another number of records is an error for
    /// those that it does not speak of.
    fn complete(self, status: &str, records: u64) -> Self {
        let Self { mut taken, errors } = self;
        let label = |kind: String| format!("{status} {kind}").trim_end().to_owned();
        let mut errors: BTreeMap<_, _> =
            errors.into_iter().map(|(kind, count)| (label(kind), count)).collect();
        let told = taken + errors.values().sum::<u64>();
        if told != records {
            taken = taken.min(records);
            let missing = records - taken - errors.values().sum::<u64>().min(records - taken);
            errors.insert(format!("{status} about {told} records of {records}"), missing);
        }
        Self { taken, errors }
    }
}

/// Either answer: an entry a record, or ranges and what was refused.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    records: Vec<Entry>,
    appended: Vec<Range>,
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    offset: Option<u64>,
    error: Option<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    kind: String,
}

#[derive(Deserialize)]
struct Range {
    count: u64,
}

#[cfg(test)]
mod tests {
    use proto::v1::{Appended, Problem};

    use super::*;

    fn check(outcome: Outcome, taken: u64, errors: &[(&str, u64)]) {
        let errors = errors.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect();
        assert_eq!(outcome, Outcome { taken, errors });
    }

    #[test]
    fn errors_inside_an_answer_of_success_are_errors() {
        let body = br#"{"records":[{"partition":0,"offset":7,"timestamp":"2001-01-01T00:00:00Z"},
            {"error":{"kind":"invalid","message":"no","field":"value","request_id":"1"}}]}"#;
        check(Outcome::of_http(StatusCode::OK, body, 2), 1, &[("200 invalid", 1)]);
        let body = br#"{"appended":[{"partition":0,"first":0,"last":2,"count":3},
            {"partition":1,"first":9,"last":9,"count":1}],
            "errors":[{"index":2,"error":{"kind":"too_large","message":"no"}}]}"#;
        check(Outcome::of_http(StatusCode::OK, body, 5), 4, &[("200 too_large", 1)]);
        let problem = Problem { kind: "invalid".to_owned(), ..Problem::default() };
        let results = [Taken::Appended(Appended::default()), Taken::Error(problem)];
        let records = results.map(|result| RecordResult { result: Some(result) }).into();
        check(Outcome::of_grpc(AppendResponse { records }, 2), 1, &[("Ok invalid", 1)]);
    }

    #[test]
    fn an_answer_that_is_no_success_is_an_error_for_every_record() {
        check(Outcome::of_http(StatusCode::TOO_MANY_REQUESTS, b"{}", 500), 0, &[("429", 500)]);
        check(Outcome::of_http(StatusCode::OK, b"<html>", 500), 0, &[("200 unreadable", 500)]);
    }

    #[test]
    fn an_answer_about_other_records_than_were_sent_is_an_error() {
        let body = br#"{"records":[{"partition":0,"offset":7}]}"#;
        check(Outcome::of_http(StatusCode::OK, body, 3), 1, &[("200 about 1 records of 3", 2)]);
        check(Outcome::of_http(StatusCode::OK, b"{}", 3), 0, &[("200 about 0 records of 3", 3)]);
    }
}
