//! The questions that indexes are compared with, as this project's paths ask them.

use std::time::{Duration, Instant};

use super::flights::Flight;
use super::pair::Sample;
use super::process;

/// Events of a page.
pub(crate) const PAGE: usize = 100;
/// The airport that is searched for.
pub(crate) const AIRPORT: &str = "ORD";
/// The other word of a search for two.
pub(crate) const OTHER_AIRPORT: &str = "LAX";
/// Microseconds of an hour.
pub(crate) const HOUR_MICROS: i64 = 3_600_000_000;
/// Questions of one run; its figure is their median.
const QUESTIONS: usize = 40;
const EVENTS: &str = "/api/v1/streams/flights/1/events";

/// A whole day in the middle.
pub(crate) struct Day {
    /// As `2001-01-05`.
    pub(crate) date: String,
    pub(crate) begin_micros: i64,
}

impl Day {
    pub(crate) fn middle(packs: &[Vec<Flight>]) -> Self {
        let time = packs[packs.len() / 2][0].time.to_utc();
        let midnight = time.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
        Self { date: time.format("%Y-%m-%d").to_string(), begin_micros: midnight.timestamp_micros() }
    }

    /// Asks for its first page alone.
    pub(crate) fn path(&self) -> String {
        format!("{EVENTS}?from={0}&to={0}&limit={PAGE}", self.date)
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// The first page of a day, and how many events it has.
    Day,
    /// The same of one airport's.
    DayAndTerm,
    /// The first page of the events with two words, and how many they are.
    Words,
    /// How many events each hour has.
    Hours,
    /// How many of one airport's each hour has.
    HoursOfTerm,
}

impl Question {
    /// Every question with its name.
    pub(crate) const ALL: [(&str, Self); 5] = [
        ("first 100 of a day and exact count", Self::Day),
        ("a day and a term", Self::DayAndTerm),
        ("full text of two words", Self::Words),
        ("histogram by hour", Self::Hours),
        ("histogram by hour of a term", Self::HoursOfTerm),
    ];

    /// What is asked: a page comes with how many events there are.
    pub(crate) fn path(self, day: &Day) -> String {
        let day = format!("from={0}&to={0}", day.date);
        let asked = match self {
            Self::Hours => return format!("{EVENTS}/histogram?interval=1h"),
            Self::HoursOfTerm => return format!("{EVENTS}/histogram?interval=1h&q=origin:{AIRPORT}"),
            Self::Day => day,
            Self::DayAndTerm => format!("{day}&q=origin:{AIRPORT}"),
            Self::Words => format!("q={AIRPORT}%20{OTHER_AIRPORT}"),
        };
        format!("{EVENTS}?{asked}&limit={PAGE}&count=true")
    }

    /// How many events an answer speaks of.
    pub(crate) fn total(self, answer: &serde_json::Value) -> Option<u64> {
        if let Some(buckets) = answer["buckets"].as_array() {
            return buckets.iter().map(|bucket| bucket["count"].as_u64()).sum();
        }
        answer["count"].as_u64()
    }
}

/// Asks again and again; the median stands for one question. `cpu` tells what the one who answers has
/// used so far.
pub(crate) fn median_of(cpu: impl Fn() -> Duration, mut ask: impl FnMut()) -> Sample {
    let began_with = cpu();
    let mut times: Vec<Duration> = (0..QUESTIONS)
        .map(|_| {
            let began = Instant::now();
            ask();
            began.elapsed()
        })
        .collect();
    let cpu = cpu().saturating_sub(began_with) / QUESTIONS as u32;
    times.sort_unstable();
    Sample { events: 1, wall: times[QUESTIONS / 2], cpu, ..Sample::default() }
}

/// The same where this process answers.
pub(crate) fn median_of_own(ask: impl FnMut()) -> Sample {
    median_of(process::own_cpu, ask)
}
