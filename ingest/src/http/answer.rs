//! The two answers to appended records: a line a record, or offset ranges (ADR 0062).

use axum::response::Response;
use broker::{Offset, Partition, Result, Timestamp};
use http::StatusCode;
use proto::problem::Problem;
use serde::Serialize;

use super::json;
use super::prefer::{PREFERENCE_APPLIED, RETURN_MINIMAL};
use crate::append::{OffsetRange, Outcome, Written};

/// One entry a record, in the order sent.
pub(super) fn full(written: Written) -> Result<Response> {
    let records = written.outcomes().map(Shown::from).collect();
    json(StatusCode::OK, &Full { records })
}

/// Ranges of offsets, and the records that were refused.
pub(super) fn minimal(written: Written) -> Result<Response> {
    let (ranges, refused) = written.ranges();
    let appended = ranges.into_iter().map(Range::from).collect();
    let errors = refused.into_iter().map(|(index, error)| RefusedAt { index, error: error.into() }).collect();
    let mut response = json(StatusCode::OK, &Minimal { appended, errors })?;
    response.headers_mut().insert(PREFERENCE_APPLIED, RETURN_MINIMAL);
    Ok(response)
}

#[derive(Serialize)]
struct Full {
    records: Vec<Shown>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    Appended { partition: Partition, offset: Offset, timestamp: Timestamp },
    Refused { error: Problem },
}

impl From<Outcome> for Shown {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Appended { partition, offset, time } => {
                Shown::Appended { partition, offset, timestamp: time }
            }
            Outcome::Refused(error) => Shown::Refused { error: error.into() },
        }
    }
}

#[derive(Serialize)]
struct Minimal {
    appended: Vec<Range>,
    errors: Vec<RefusedAt>,
}

/// Offsets without a hole, the last one included.
#[derive(Serialize)]
struct Range {
    partition: Partition,
    first: Offset,
    last: Offset,
    count: u64,
}

impl From<OffsetRange> for Range {
    fn from(range: OffsetRange) -> Self {
        let OffsetRange { partition, first, count } = range;
        Self { partition, first, last: Offset(first.0 + count.get() - 1), count: count.get() }
    }
}

#[derive(Serialize)]
struct RefusedAt {
    index: usize,
    error: Problem,
}
