//! `headwater query`: events by date, key and words.

use std::io::Write;
use std::time::Duration;

use broker::time::SystemClock;
use broker::{Clock as _, StreamName, Timestamp};
use clap::{Args, ValueEnum};
use futures::StreamExt;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, Event, Page, failed, send};
use super::streams::{Format, path};
use super::{Settings, output};
use crate::failure::{Exit, Failure};

/// How far the server's clock may be behind before its answers look incomplete.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);
/// Events of one request.
const PAGE_EVENTS_MAX: u64 = 1_000;

/// Finds events by date, key and words.
#[derive(Args, Clone, Debug)]
pub(crate) struct Query {
    /// DATASET/VERSION
    stream: StreamName,
    /// A date (the whole day, UTC) or an RFC 3339 instant; both ends belong to the range
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// A date (the whole day, UTC) or an RFC 3339 instant; both ends belong to the range
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Words and fields, such as `origin:DTW AND delay:>15`
    #[arg(long, value_name = "QUERY")]
    q: Option<String>,
    /// The events' key
    #[arg(long)]
    key: Option<String>,
    /// Oldest or newest first
    #[arg(long, value_enum, default_value_t = Order::Asc)]
    order: Order,
    /// The most events to print
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Prints every event, as NDJSON
    #[arg(long, conflicts_with_all = ["limit", "count", "format"])]
    all: bool,
    /// Prints the number of events instead
    #[arg(long, conflicts_with = "format")]
    count: bool,
    /// Prints the number of events in each interval that has any, such as 15m, 1h or 7d, instead
    #[arg(long, value_name = "INTERVAL", conflicts_with_all = ["all", "count", "format", "limit", "order"])]
    histogram: Option<String>,
    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Which events come first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// Oldest first
    #[default]
    Asc,
    /// Newest first
    Desc,
}

impl Query {
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let client = Client::new(settings)?;
        if self.count {
            return output::line(&self.count(&client).await?.to_string());
        }
        if let Some(interval) = &self.histogram {
            return self.histogram(&client, interval).await;
        }
        if self.all {
            return self.export(&client).await;
        }
        let events = self.events(&client).await?;
        match self.format {
            Format::Table => print_table(&events),
            Format::Ndjson => events.iter().try_for_each(print_line),
        }
    }

    /// Every event between two dates.
    pub(super) fn between(stream: StreamName, from: &str, to: &str) -> Self {
        Self {
            stream,
            from: Some(from.to_owned()),
            to: Some(to.to_owned()),
            q: None,
            key: None,
            order: Order::Asc,
            limit: 100,
            all: false,
            count: false,
            histogram: None,
            format: Format::Table,
        }
    }

    /// The same query with at most so many events.
    #[must_use]
    pub(super) fn limited(self, limit: u64) -> Self {
        Self { limit, ..self }
    }

    /// How many events match.
    pub(super) async fn count(&self, client: &Client) -> Result<u64, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            count: u64,
            complete_through: Timestamp,
        }
        let began = SystemClock.now();
        let path = format!("{}/events/count", path(&self.stream));
        let answer: Answer = client.get(&path, &self.filter()).await?;
        tell_what_is_missing(answer.complete_through, began);
        Ok(answer.count)
    }

    async fn histogram(&self, client: &Client, interval: &str) -> Result<(), Failure> {
        #[derive(Deserialize)]
        struct Answer {
            buckets: Vec<Bucket>,
            complete_through: Timestamp,
        }
        #[derive(Deserialize)]
        struct Bucket {
            start: String,
            count: u64,
        }
        let began = SystemClock.now();
        let path = format!("{}/events/histogram", path(&self.stream));
        let mut query = self.filter();
        query.push(("interval", interval.to_owned()));
        let answer: Answer = client.get(&path, &query).await?;
        tell_what_is_missing(answer.complete_through, began);
        let mut table = output::Table::new(["start", "count"]);
        for Bucket { start, count } in answer.buckets {
            table.row(vec![start, count.to_string()]);
        }
        table.print()
    }

    /// The events, page by page, up to the limit.
    pub(super) async fn events(&self, client: &Client) -> Result<Vec<Event>, Failure> {
        let path = format!("{}/events", path(&self.stream));
        let mut events = Vec::new();
        let mut cursor = None;
        loop {
            let wanted = self.limit - events.len() as u64;
            let mut query = self.filter();
            query.push(("order", self.order_name().to_owned()));
            query.push(("limit", wanted.min(PAGE_EVENTS_MAX).to_string()));
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            let began = SystemClock.now();
            let page: Page = client.get(&path, &query).await?;
            tell_what_is_missing(page.complete_through, began);
            events.extend(page.events);
            cursor = page.cursor;
            if cursor.is_none() || events.len() as u64 >= self.limit {
                return Ok(events);
            }
        }
    }

    async fn export(&self, client: &Client) -> Result<(), Failure> {
        let mut query = self.filter();
        query.push(("order", self.order_name().to_owned()));
        let path = format!("{}/events/export", path(&self.stream));
        let response = send(client.request(Method::GET, &path).query(&query)).await?;
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            std::io::stdout().lock().write_all(&chunk.map_err(failed)?)?;
        }
        Ok(std::io::stdout().lock().flush()?)
    }

    fn filter(&self) -> Vec<(&'static str, String)> {
        let fields = [("from", &self.from), ("to", &self.to), ("q", &self.q), ("key", &self.key)];
        fields.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
    }

    fn order_name(&self) -> &'static str {
        match self.order {
            Order::Asc => "asc",
            Order::Desc => "desc",
        }
    }
}

/// An answer that was given before the index caught up says so, on standard error.
fn tell_what_is_missing(complete_through: Timestamp, began: Timestamp) {
    if complete_through + CLOCKS_DIFFER < began {
        eprintln!("incomplete: the index has not come to events that arrived after {complete_through}");
    }
}

/// Prints an event as one line of JSON.
pub(super) fn print_line(event: &Event) -> Result<(), Failure> {
    let line = serde_json::to_string(event)
        .map_err(|error| Failure::new(Exit::Failure, format!("write JSON: {error}")))?;
    output::line(&line)
}

fn print_table(events: &[Event]) -> Result<(), Failure> {
    table(events).print()?;
    output::line(&output::counted(events.len() as u64, "event"))
}

/// Time, key and one column for every field of the events, in the order they are met.
pub(super) fn table(events: &[Event]) -> output::Table {
    let values: Vec<Value> =
        events.iter().map(|event| serde_json::from_str(event.value.get()).unwrap_or(Value::Null)).collect();
    let mut fields: Vec<&str> = Vec::new();
    for key in values.iter().filter_map(Value::as_object).flat_map(|object| object.keys()) {
        if !fields.contains(&key.as_str()) {
            fields.push(key);
        }
    }
    let is_bare = values.iter().any(|value| !value.is_object());
    let value_column = is_bare.then_some("value");
    let mut table =
        output::Table::new(["timestamp", "key"].into_iter().chain(fields.clone()).chain(value_column));
    for (event, value) in events.iter().zip(&values) {
        let mut cells = vec![event.timestamp.clone(), event.key.clone().unwrap_or_default()];
        cells.extend(fields.iter().map(|field| value.get(field).map(cell).unwrap_or_default()));
        cells.extend(value_column.map(|_| if value.is_object() { String::new() } else { cell(value) }));
        table.row(cells);
    }
    table
}

fn cell(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_column_for_every_field_of_the_events() {
        let event = |value: &str| {
            let text = format!(
                r#"{{"partition":0,"offset":1,"origin":{{"partition":0,"offset":1}},
                    "timestamp":"2001-01-01T00:00:00Z","key":"DTW","value":{value}}}"#
            );
            serde_json::from_str::<Event>(&text).unwrap()
        };
        let text = table(&[event(r#"{"delay":66}"#), event(r#"{"late":true}"#), event("7")]).render();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["timestamp", "key", "delay", "late", "value"]);
        assert_eq!(lines[1], ["2001-01-01T00:00:00Z", "DTW", "66"]);
        assert_eq!(lines[2], ["2001-01-01T00:00:00Z", "DTW", "true"]);
        assert_eq!(lines[3], ["2001-01-01T00:00:00Z", "DTW", "7"]);
    }
}
