//! The two answers to appended records: a line a record, or offset ranges (ADR 0062).

use axum::response::Response;
use broker::{Offset, Partition, Result, Timestamp};
use http::StatusCode;
use proto::problem::Problem;
use serde::ser::SerializeSeq as _;
use serde::{Serialize, Serializer};

use super::prefer::{PREFERENCE_APPLIED, RETURN_MINIMAL};
use super::{json, json_of_about};
use crate::append::{OffsetRange, Outcome, Written};

/// About what one entry takes.
const ENTRY_BYTES: usize = 80;

/// One entry a record, in the order sent.
pub(super) fn full(written: &Written) -> Result<Response> {
    let bytes = written.outcomes().len() * ENTRY_BYTES;
    json_of_about(bytes, StatusCode::OK, &Full { records: written })
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
struct Full<'w> {
    #[serde(serialize_with = "entries")]
    records: &'w Written,
}

/// Written one by one, since many entries side by side would take more room than their text. Events that
/// are sent together often share their time, which is then put into words once.
fn entries<S: Serializer>(written: &&Written, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    let outcomes = written.outcomes();
    let mut entries = serializer.serialize_seq(Some(outcomes.len()))?;
    let mut last: Option<(Timestamp, String)> = None;
    for outcome in outcomes {
        match outcome {
            Outcome::Appended { partition, offset, time } => {
                let (_, timestamp) = match last.take().filter(|(of, _)| *of == time) {
                    Some(same) => last.insert(same),
                    None => last.insert((time, time.to_string())),
                };
                entries.serialize_element(&Shown::Appended { partition, offset, timestamp })?;
            }
            Outcome::Refused(error) => {
                entries.serialize_element(&Shown::Refused { error: error.clone().into() })?;
            }
        }
    }
    entries.end()
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'t> {
    Appended { partition: Partition, offset: Offset, timestamp: &'t str },
    Refused { error: Problem },
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
