//! `headwater demo`: the whole flow on a sample of real flights, with a server of its own.

mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::StreamName;
use clap::Args;
use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::client::{Client, Event};
use super::import::{Import, Summary};
use super::query::{self, Query};
use super::streams::path;
use super::{Settings, output};
use crate::config::surroundings;
use crate::failure::{Exit, Failure, OrFail};
use server::{LOOK_INTERVAL, Server};

/// 2,858 flights of January to March 2001, one a line.
const SAMPLE: &[u8] = include_bytes!("../../examples/flights/sample.ndjson");
/// Their number.
const SAMPLE_EVENTS: u64 = 2_858;
/// What the router does with every flight.
const TRANSFORM: &str =
    ".late = to_int!(.delay) > 15\n.route = string!(.origin) + \"-\" + string!(.destination)";
/// A week of January 2001.
const WEEK: [&str; 7] =
    ["2001-01-08", "2001-01-09", "2001-01-10", "2001-01-11", "2001-01-12", "2001-01-13", "2001-01-14"];
/// Until every flight is processed, and until objects appear.
const FLOW_TIME_MAX: Duration = Duration::from_secs(30);
/// Rows of the table that is shown.
const ROWS_SHOWN: u64 = 10;
/// Objects that are shown.
const OBJECTS_SHOWN: usize = 12;

/// Shows the whole flow on a sample, with a server of its own that is stopped at the end.
///
/// The data folder stays, so that the commands that are named last can be tried: --data names it,
/// else it is a new one among the temporary files.
#[derive(Args, Debug)]
pub(crate) struct Demo {}

impl Demo {
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let data = folder(settings)?;
        let token = settings.load()?.config.token;
        heading("A server in local mode")?;
        let mut server = Server::start(&data)?;
        let client = server.ready(&data, token).await?;
        output::line(&format!(
            "listens on http://{}, keeps everything in {}",
            server.address(),
            data.display()
        ))?;
        let shown = show(&client, &data).await;
        let stopped = server.stop().await;
        shown?;
        stopped?;
        next_commands(&data)
    }
}

async fn show(client: &Client, data: &Path) -> Result<(), Failure> {
    let stream = StreamName::new("flights", "1")?;
    create(client, &stream).await?;
    let summary = import(client, &stream, data).await?;
    show_positions(client, &stream, &summary).await?;
    show_objects(data).await?;
    show_week(client, &stream).await
}

async fn create(client: &Client, stream: &StreamName) -> Result<(), Failure> {
    heading("A stream with a key, a time and a transform")?;
    let definition = json!({
        "dataset": stream.dataset(),
        "version": stream.version(),
        "confidentiality": "green",
        "partitions": 4,
        "timestamp_field": "date",
        "timestamp_format": "%Y/%m/%d %H:%M",
        "key": "/origin",
        "transform": TRANSFORM,
    });
    let created = client.call::<Value>(http::Method::POST, "api/v1/streams", &definition).await;
    match created {
        Err(failure) if failure.exit() == Exit::Conflict => {
            return Err(failure.context("this data folder has seen the demo before, choose another one"));
        }
        created => created.map(drop)?,
    }
    output::line(&format!("{stream}: 4 partitions, keyed by /origin, timed by `date`, transformed by"))?;
    TRANSFORM.lines().try_for_each(|line| output::line(&format!("    {line}")))
}

async fn import(client: &Client, stream: &StreamName, data: &Path) -> Result<Summary, Failure> {
    heading("Import, each batch durable before it is answered")?;
    let file = data.join("sample.ndjson");
    fs::write(&file, SAMPLE).or_fail(format!("write {}", file.display()))?;
    let started = Instant::now();
    let summary = Import::of(file, stream.clone()).import(client).await?;
    let taken = HumanCount(summary.taken);
    output::line(&format!("{taken} flights in {:.0?}, {} refused", started.elapsed(), summary.refused))?;
    Ok(summary)
}

/// Where each partition's raw and processed records end.
async fn show_positions(client: &Client, stream: &StreamName, summary: &Summary) -> Result<(), Failure> {
    heading("From raw to processed, exactly once")?;
    let deadline = Instant::now() + FLOW_TIME_MAX;
    let all = Query::between(stream.clone(), "2001-01-01", "2001-12-31").limited(SAMPLE_EVENTS + 1);
    let events = loop {
        let events = all.events(client).await?;
        if events.len() as u64 >= summary.taken || Instant::now() > deadline {
            break events;
        }
        sleep(LOOK_INTERVAL).await;
    };
    let mut processed: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for event in &events {
        let (count, end) = processed.entry(event.partition).or_default();
        *count += 1;
        *end = (*end).max(event.offset + 1);
    }
    let mut table = output::Table::new(["partition", "raw ends at", "processed ends at", "events"]);
    for (partition, raw) in &summary.ends {
        let (count, end) = processed.get(partition).copied().unwrap_or_default();
        table.row([partition.to_string(), raw.to_string(), end.to_string(), count.to_string()]);
    }
    table.print()?;
    if events.len() as u64 == summary.taken {
        return show_one(events.first());
    }
    let message = format!("{} flights are raw, {} are processed", summary.taken, events.len());
    Err(Failure::new(Exit::Failure, message))
}

fn show_one(event: Option<&Event>) -> Result<(), Failure> {
    output::line("the first of them:")?;
    event.map_or(Ok(()), query::print_line)
}

/// Waits until objects are there and no longer change.
async fn show_objects(data: &Path) -> Result<(), Failure> {
    heading("Objects, one event a line")?;
    let folder = data.join("objects");
    let deadline = Instant::now() + FLOW_TIME_MAX;
    let mut before = Vec::new();
    let mut quiet_since = Instant::now();
    let objects = loop {
        let objects = list(&folder).or_fail(format!("list {}", folder.display()))?;
        if objects != before {
            quiet_since = Instant::now();
            before.clone_from(&objects);
        }
        let is_settled = !objects.is_empty() && quiet_since.elapsed() > Duration::from_secs(2);
        if is_settled || Instant::now() > deadline {
            break objects;
        }
        sleep(LOOK_INTERVAL).await;
    };
    if objects.is_empty() {
        return Err(Failure::new(Exit::Failure, "no object was written in time"));
    }
    for (path, bytes) in objects.iter().take(OBJECTS_SHOWN) {
        output::line(&format!("{:>10}  {}", HumanBytes(*bytes).to_string(), path.display()))?;
    }
    let bytes: u64 = objects.iter().map(|(_, bytes)| bytes).sum();
    output::line(&format!("{} objects, {} in all", objects.len(), HumanBytes(bytes)))
}

/// Every file below a folder with its size, in the order of paths.
fn list(folder: &Path) -> std::io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop().filter(|inner| inner.exists()) {
        for entry in fs::read_dir(inner)? {
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                let path = entry.path();
                found.push((path.strip_prefix(folder).unwrap_or(&path).to_owned(), metadata.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}

async fn show_week(client: &Client, stream: &StreamName) -> Result<(), Failure> {
    let (first, last) = (WEEK[0], WEEK[WEEK.len() - 1]);
    heading(&format!("A week: GET /{}/events?from={first}&to={last}", path(stream)))?;
    let week = Query::between(stream.clone(), first, last);
    let started = Instant::now();
    let count = week.count(client).await?;
    let events = week.limited(ROWS_SHOWN).events(client).await?;
    let took = started.elapsed();
    query::table(&events).print()?;
    let shown = events.len();
    output::line(&format!("{shown} of {} flights, counted and found in {took:.1?}", HumanCount(count)))?;
    heading("Flights a day")?;
    let mut days = Vec::new();
    for day in WEEK {
        let count = Query::between(stream.clone(), day, day).count(client).await?;
        days.push((day.to_owned(), count));
    }
    output::text(&output::histogram(&days))?;
    let sum: u64 = days.iter().map(|(_, count)| count).sum();
    if sum == count {
        return Ok(());
    }
    Err(Failure::new(Exit::Failure, format!("the days hold {sum} flights, the week {count}")))
}

fn next_commands(data: &Path) -> Result<(), Failure> {
    let (program, data) = (surroundings::called_as(), data.display());
    heading("The server is stopped; its data stays. Go on with")?;
    output::text(&format!(
        "    export HEADWATER_DATA={data}
    {program} serve &
    {program} query flights/1 --from 2001-03-01 --to 2001-03-07 --q late:true
    {program} query flights/1 --key ORD --count
    {program} follow flights/1 --from-start
    {program} streams show flights/1
    {program} --help
and when you are done: rm -r {data}
"
    ))
}

fn heading(text: &str) -> Result<(), Failure> {
    output::line(&format!("\n== {text}"))
}

/// The folder that was named, or a new one.
fn folder(settings: &Settings) -> Result<PathBuf, Failure> {
    let folder = match &settings.data {
        Some(folder) => folder.clone(),
        None => {
            surroundings::temporary_folder().join(format!("headwater-demo-{:08x}", rand::random::<u32>()))
        }
    };
    fs::create_dir_all(&folder).or_fail(format!("make {}", folder.display()))?;
    fs::canonicalize(&folder).or_fail(format!("make {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_small_and_covers_january_to_march() {
        assert!(SAMPLE.len() <= 300_000);
        let lines: Vec<Value> = SAMPLE
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(lines.len() as u64, SAMPLE_EVENTS);
        for month in ["2001/01/", "2001/02/", "2001/03/"] {
            assert!(lines.iter().any(|line| line["date"].as_str().unwrap().starts_with(month)), "{month}");
        }
        assert!(lines.iter().all(|line| line["delay"].is_i64() && line["origin"].is_string()));
    }

    #[test]
    fn the_transform_compiles() {
        assert!(broker::transform::compile(Some(TRANSFORM)).is_ok());
    }
}
