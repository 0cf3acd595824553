//! Flights in the shape of `examples/flights`: as many as are wanted, the same ones every time.
//!
//! Airports and distance of a flight are those of one flight of the sample, its delay that of another
//! within some minutes; its time of day follows the sample's. A day has as many flights as in the
//! three million of the first half of 2001, so that more flights are more days: what a query of a day
//! finds does not depend on how many days there are.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use broker::{Batch, Record, Timestamp};
use bytes::Bytes;
use chrono::{DateTime, Days, NaiveDate, NaiveDateTime};
use parquet::file::reader::SerializedFileReader;
use parquet::record::Field;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;

use super::options::Options;

/// How the field `date` is written.
pub(crate) const DATE_FORMAT: &str = "%Y/%m/%d %H:%M";
/// Three million flights in 181 days.
pub(crate) const OF_A_DAY: usize = 16_575;
/// The records of a request, and of a batch.
pub(crate) const OF_A_BATCH: usize = 500;

const ORIGIN: &str = "\"origin\":\"";
const SEED: u64 = 2001;
const DELAY_SHIFT_MAX: i64 = 3;

/// An event with what a stream's rules find in it.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) value: Bytes,
    pub(crate) origin: Bytes,
    pub(crate) time: Timestamp,
}

impl Flight {
    /// The record that a door makes of it.
    pub(crate) fn record(&self, arrival: Timestamp) -> Record {
        let record = Record::new(self.value.clone(), arrival).with_key(self.origin.clone());
        Record { time: self.time, ..record }
    }
}

/// A flight as it stands in the sample.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Fields {
    pub(crate) date: String,
    pub(crate) delay: i64,
    pub(crate) distance: i64,
    pub(crate) origin: String,
    pub(crate) destination: String,
}

impl Fields {
    fn time(&self) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(&self.date, DATE_FORMAT).expect("a flight's date is written as agreed")
    }
}

struct Sample {
    flights: Vec<Fields>,
    /// Minutes of the day, rising.
    minutes: Vec<u32>,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let lines = include_str!("../../examples/flights/sample.ndjson").lines();
    let flights: Vec<Fields> =
        lines.map(|line| serde_json::from_str(line).expect("the sample holds flights")).collect();
    let minute = |flight: &Fields| {
        let time = flight.time().time();
        chrono::Timelike::hour(&time) * 60 + chrono::Timelike::minute(&time)
    };
    let mut minutes: Vec<u32> = flights.iter().map(minute).collect();
    minutes.sort_unstable();
    Sample { flights, minutes }
});

/// `count` flights in the order of their time: the generator's, or those of the file that the command
/// line names.
pub(crate) fn flights(options: &Options, count: usize) -> Box<dyn Iterator<Item = Flight>> {
    let Some(path) = &options.flights else { return Box::new(generated(count)) };
    if is_parquet(path) {
        return Box::new(rows(path).take(count));
    }
    let file = std::fs::File::open(path).expect("open the file of flights");
    let lines = BufReader::new(file).lines().map(|line| line.expect("read the file of flights"));
    Box::new(lines.take(count).map(|line| {
        let fields: Fields = serde_json::from_str(&line).expect("the file holds a flight a line");
        flight(line, &fields.origin, fields.time())
    }))
}

/// Whether a file of flights is one of Parquet, by its name.
pub(crate) fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "parquet")
}

/// The flights of a Parquet file, written as those of the sample are.
fn rows(path: &Path) -> impl Iterator<Item = Flight> + use<> {
    let file = std::fs::File::open(path).expect("open the file of flights");
    let reader = SerializedFileReader::new(file).expect("read the file of flights");
    reader.into_iter().map(|row| {
        let row = row.expect("read a flight");
        let columns: HashMap<&str, &Field> =
            row.get_column_iter().map(|(name, field)| (name.as_str(), field)).collect();
        let text = |name: &str| match columns[name] {
            Field::Str(text) => text.as_str(),
            other => panic!("{name} is no text: {other}"),
        };
        let number = |name: &str| match columns[name] {
            Field::Short(number) => i64::from(*number),
            Field::Int(number) => i64::from(*number),
            Field::Long(number) => *number,
            other => panic!("{name} is no number: {other}"),
        };
        let time = match columns["date"] {
            Field::TimestampMillis(millis) => DateTime::from_timestamp_millis(*millis),
            Field::TimestampMicros(micros) => DateTime::from_timestamp_micros(*micros),
            other => panic!("date is no time: {other}"),
        };
        let time = time.expect("a flight was in our time").naive_utc();
        let (date, delay, distance) = (time.format(DATE_FORMAT), number("delay"), number("distance"));
        let (origin, destination) = (text("origin"), text("destination"));
        let line = format!(
            "{{\"date\":\"{date}\",\"delay\":{delay},\"distance\":{distance},\"origin\":\"{origin}\",\"destination\":\"{destination}\"}}"
        );
        flight(line, origin, time)
    })
}

/// The flights in batches of [`OF_A_BATCH`].
pub(crate) fn packs(options: &Options, count: usize) -> Vec<Vec<Flight>> {
    let mut flights = flights(options, count).peekable();
    let mut packs = Vec::new();
    while flights.peek().is_some() {
        packs.push(flights.by_ref().take(OF_A_BATCH).collect());
    }
    packs
}

/// The events, one a line.
pub(crate) fn ndjson(flights: &[Flight]) -> Vec<u8> {
    let mut lines = Vec::new();
    for flight in flights {
        lines.extend_from_slice(&flight.value);
        lines.push(b'\n');
    }
    lines
}

/// The batch that a door makes of them.
pub(crate) fn batch(flights: &[Flight], arrival: Timestamp) -> Batch {
    let records: Vec<Record> = flights.iter().map(|flight| flight.record(arrival)).collect();
    Batch::of(&records).expect("a pack has flights")
}

/// The batches that a door makes of packs, one of each.
pub(crate) fn batches(packs: &[Vec<Flight>], arrival: Timestamp) -> Vec<Batch> {
    packs.iter().map(|pack| batch(pack, arrival)).collect()
}

fn generated(count: usize) -> impl Iterator<Item = Flight> {
    let mut random = StdRng::seed_from_u64(SEED);
    let first = NaiveDate::from_ymd_opt(2001, 1, 1).expect("a day");
    (0..count).map(move |number| {
        let day = first + Days::new((number / OF_A_DAY) as u64);
        let Sample { flights, minutes } = &*SAMPLE;
        let minute = minutes[number % OF_A_DAY * minutes.len() / OF_A_DAY];
        let time = day.and_time(chrono::NaiveTime::MIN) + Duration::from_secs(u64::from(minute) * 60);
        let Fields { distance, origin, destination, .. } = &flights[random.random_range(0..flights.len())];
        let shift = random.random_range(-DELAY_SHIFT_MAX..=DELAY_SHIFT_MAX);
        let delay = flights[random.random_range(0..flights.len())].delay + shift;
        let value = format!(
            r#"{{"date":"{} {:02}:{:02}","delay":{delay},"distance":{distance},"origin":"{origin}","destination":"{destination}"}}"#,
            day.format("%Y/%m/%d"),
            minute / 60,
            minute % 60,
        );
        flight(value, origin, time)
    })
}

fn flight(value: String, origin: &str, time: NaiveDateTime) -> Flight {
    let time = Timestamp::from_micros(time.and_utc().timestamp_micros()).expect("a year of four digits");
    let begin = value.find(ORIGIN).map(|at| at + ORIGIN.len());
    let value = Bytes::from(value);
    // As a door has it: a piece of the event.
    let piece = begin.map(|begin| value.slice(begin..begin + origin.len()));
    let origin = piece.unwrap_or_else(|| Bytes::copy_from_slice(origin.as_bytes()));
    Flight { value, origin, time }
}
