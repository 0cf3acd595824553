//! `GET /elasticsearch-queries/{dataset}/events`: how many events of a dataset there were within the last hour,
//! day and week, as the service has it that this surface stands in for. All versions count together.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use broker::access::{Caller, Denial};
use broker::catalog::{SinkKind, Stream};
use broker::{Error, Permission, Principal, Result, Timestamp};
use chrono::{DateTime, Days, Duration, NaiveDateTime, TimeZone, Timelike as _};
use chrono_tz::Tz;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::contract::{Message, said};
use crate::index::Indexer;
use crate::query::{Asked, Bounds};

/// A span of time and how many events it holds.
#[derive(Serialize, ToSchema)]
struct Counted {
    from: String,
    to: String,
    /// A whole number, written as there.
    events: f64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LateCounts)]
pub(super) struct Answer {
    dataset_id: String,
    last_hour: Counted,
    last_day: Counted,
    last_week: Counted,
}

#[utoipa::path(
    get,
    path = "/elasticsearch-queries/{dataset}/events",
    tag = "event streams",
    operation_id = "countLateEvents",
    summary = "Counts a dataset's events of late",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
    ),
    responses(
        (status = 200, description = "How many within the last hour, day and week", body = Answer),
        (status = "4XX", description = "The request is refused", body = Message),
        (status = "5XX", description = "It cannot be done now", body = Message),
    ),
)]
pub(super) async fn events(
    State(indexer): State<Arc<Indexer>>,
    Extension(Caller(caller)): Extension<Caller>,
    path: std::result::Result<Path<String>, PathRejection>,
) -> Response {
    let message = |status, text: &str| said(status, &Message { message: text.to_owned() });
    let caller = match caller {
        Ok(caller) => caller,
        Err(denial) => return unknown(denial),
    };
    let Ok(Path(dataset)) = path else { return message(StatusCode::NOT_FOUND, "Not Found") };
    match count(&indexer, &caller, &dataset).await {
        Ok(Some(answer)) => said(StatusCode::OK, &answer),
        Ok(None) => message(StatusCode::NOT_FOUND, "No events found"),
        Err(error) => refused(&error),
    }
}

fn refused(error: &Error) -> Response {
    let message = |status, text: &str| said(status, &Message { message: text.to_owned() });
    match error.kind() {
        broker::Kind::Forbidden => message(StatusCode::FORBIDDEN, "Forbidden"),
        kind if kind.is_transient() => message(kind.status(), &error.to_string()),
        _ => {
            tracing::error!(%error, "events were not counted");
            message(StatusCode::BAD_REQUEST, "Request failed")
        }
    }
}

/// The answer of a gateway to somebody whom it does not know.
fn unknown(denial: Denial) -> Response {
    match denial {
        Denial::TooMany(_) | Denial::Unavailable(_) => super::contract::denied(denial),
        _ => said(StatusCode::UNAUTHORIZED, &Message { message: "Unauthorized".to_owned() }),
    }
}

/// None where the dataset has no events.
async fn count(indexer: &Indexer, caller: &Principal, dataset: &str) -> Result<Option<Answer>> {
    indexer.catalog.require(caller, dataset, Permission::Read)?;
    let is_wanted = |stream: &&Arc<Stream>| {
        stream.name().dataset() == dataset && !stream.definition.spans.of(SinkKind::Index).is_empty()
    };
    let streams: Vec<_> = indexer.catalog.list().iter().filter(is_wanted).cloned().collect();
    if sum(indexer, &streams, None).await? == 0 {
        return Ok(None);
    }
    let now = indexer.clock.now();
    let [hour, day, week] = spans(now, indexer.zone)?;
    let counted = async |(from, to): Instants| -> Result<Counted> {
        let events = sum(indexer, &streams, Some((from, to))).await? as f64;
        let text = |instant: DateTime<Tz>| instant.to_rfc3339();
        Ok(Counted { from: text(from), to: text(to), events })
    };
    Ok(Some(Answer {
        dataset_id: dataset.to_owned(),
        last_hour: counted(hour).await?,
        last_day: counted(day).await?,
        last_week: counted(week).await?,
    }))
}

/// From when on, and before when.
type Instants = (DateTime<Tz>, DateTime<Tz>);

async fn sum(indexer: &Indexer, streams: &[Arc<Stream>], within: Option<Instants>) -> Result<u64> {
    let mut count = 0;
    for stream in streams {
        let query = indexer.query(stream.clone(), &Asked::default())?;
        let query = match within {
            None => query,
            Some((from, to)) => {
                let micros = |instant: DateTime<Tz>| Timestamp::from_micros(instant.timestamp_micros());
                let bounds = micros(from).zip(micros(to - Duration::microseconds(1)));
                let (from, to) = bounds.ok_or_else(|| Error::internal("count at a time beyond all"))?;
                query.within(Bounds::between(from, to)?)
            }
        };
        count += indexer.count(&query).await?.0;
    }
    Ok(count)
}

/// The last hour to the microsecond; the last day in whole hours, and the last week in whole days, both with
/// the one that has begun.
fn spans(now: Timestamp, zone: Tz) -> Result<[Instants; 3]> {
    let beyond = || Error::internal("count at a time beyond all");
    let now = DateTime::from_timestamp_micros(now.micros()).ok_or_else(beyond)?.with_timezone(&zone);
    let this_hour = now.with_minute(0).and_then(|now| now.with_second(0)?.with_nanosecond(0));
    let this_hour = this_hour.ok_or_else(beyond)?;
    let today = now.date_naive();
    let days = today.checked_sub_days(Days::new(6)).zip(today.checked_add_days(Days::new(1)));
    let (first, last) = days.ok_or_else(beyond)?;
    let midnight = |day: chrono::NaiveDate| start(zone, day.into()).ok_or_else(beyond);
    Ok([
        (now - Duration::hours(1), now),
        (this_hour - Duration::hours(23), this_hour + Duration::hours(1)),
        (midnight(first)?, midnight(last)?),
    ])
}

/// When a day begins: where midnight is left out or stands twice, the first instant that it has.
fn start(zone: Tz, midnight: NaiveDateTime) -> Option<DateTime<Tz>> {
    let hours = (0..24).map(|hours| midnight + Duration::hours(hours));
    hours.filter_map(|time| zone.from_local_datetime(&time).earliest()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(now: &str) -> [(String, String); 3] {
        let now = DateTime::parse_from_rfc3339(now).unwrap().timestamp_micros();
        let spans = spans(Timestamp::from_micros(now).unwrap(), chrono_tz::Europe::Oslo).unwrap();
        spans.map(|(from, to)| (from.to_rfc3339(), to.to_rfc3339()))
    }

    fn pair(from: &str, to: &str) -> (String, String) {
        (from.to_owned(), to.to_owned())
    }

    #[test]
    fn days_and_hours_are_whole_in_the_zone() {
        let expected = [
            pair("2020-10-20T13:20:30+02:00", "2020-10-20T14:20:30+02:00"),
            pair("2020-10-19T15:00:00+02:00", "2020-10-20T15:00:00+02:00"),
            pair("2020-10-14T00:00:00+02:00", "2020-10-21T00:00:00+02:00"),
        ];
        assert_eq!(shown("2020-10-20T12:20:30Z"), expected);
    }

    #[test]
    fn a_week_in_which_the_clock_is_set_back_is_an_hour_longer() {
        let [_, _, week] = shown("2020-10-27T12:20:30Z");
        assert_eq!(week, pair("2020-10-21T00:00:00+02:00", "2020-10-28T00:00:00+01:00"));
    }
}
