//! Questions to published splits of four partitions, through the query door without a network, beside
//! the same questions to one segment of tantivy's: a day, a day and a term, words, and a far page beside
//! the first. `cargo bench --bench query -- [--quick]`

mod support;

use std::ops::Bound;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use broker::{Group, Stage};
use bytes::Bytes;
use indexer::Limits;
use serde_json::Value;
use support::figures::{Results, Row};
use support::flights::{self, Flight};
use support::local::{Local, flights_stream, runtime};
use support::options::Options;
use support::pair::{Sample, alternate};
use support::process;
use support::raw_index::{RawIndex, TIME};
use tantivy::collector::{Count, TopDocs};
use tantivy::query::{BooleanQuery, Query, RangeQuery, TermQuery};
use tantivy::schema::{IndexRecordOption, TantivyDocument};
use tantivy::{Order, Searcher, Term};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

const PARTITIONS: u32 = 4;
const PAGE: usize = 100;
const FAR_PAGE: usize = 50;
/// Questions of one run; its figure is their median.
const QUESTIONS: usize = 40;
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Long enough for whole splits, short enough to wait for the last one.
const SPLIT_AGE: Duration = Duration::from_secs(5);
const AIRPORT: &str = "ORD";
const OTHER_AIRPORT: &str = "LAX";

fn main() {
    let options = Options::read();
    let results = Results::of("query", &options);
    let runtime = runtime();
    let count = options.events(3_000_000, 300_000);
    eprintln!("building both indexes of {count} events");
    let packs = flights::packs(&options, count);
    let ours = runtime.block_on(Ours::build(&packs));
    let raw = Raw::build(&packs);
    let day = Day::middle(&packs);
    drop(packs);

    for (name, question, goal) in [
        ("query, first 100 of a day and exact count", Question::Day, "p50 ≤ 0.5 ms"),
        ("query, a day and a term", Question::DayAndTerm, "≤ 1.3"),
        ("query, full text of two words", Question::Words, "≤ 1.3"),
    ] {
        if !options.wants(name) {
            continue;
        }
        eprintln!("{name}");
        let paths = question.paths(&day);
        let query = question.query(&raw.index, &day);
        let found = ours.read(&runtime, &paths[1])["count"].as_u64();
        assert_eq!(found, Some(raw.ask(query.as_ref())), "{name}: both find the same number of events");
        let pairs = alternate(
            options.rounds(),
            || median_of(|| paths.iter().for_each(|path| drop(ours.ask(&runtime, path)))),
            || median_of(|| assert!(raw.ask(query.as_ref()) > 0, "something is found")),
        );
        results.durations(Row { name, against: "raw tantivy, one segment", goal, cpu_goal: "" }, &pairs);
    }
    far_page(&options, &results, (&runtime, &ours, &day));
}

fn far_page(options: &Options, results: &Results, (runtime, ours, day): (&Runtime, &Ours, &Day)) {
    let name = "query, page 50 of 100 by cursor";
    if !options.wants(name) {
        return;
    }
    eprintln!("{name}");
    let first = &Question::Day.paths(day)[0];
    let mut far = first.clone();
    for _ in 1..FAR_PAGE {
        let page = ours.read(runtime, &far);
        let cursor = page["cursor"].as_str().expect("a day has more than fifty pages");
        far = format!("{first}&cursor={cursor}");
    }
    let pairs = alternate(
        options.rounds(),
        || median_of(|| drop(ours.ask(runtime, &far))),
        || median_of(|| drop(ours.ask(runtime, first))),
    );
    results.durations(Row { name, against: "the first page", goal: "≤ 1.2", cpu_goal: "" }, &pairs);
}

/// Asks again and again; the median stands for one question.
fn median_of(mut ask: impl FnMut()) -> Sample {
    let cpu = process::own_cpu();
    let mut times: Vec<Duration> = (0..QUESTIONS)
        .map(|_| {
            let began = Instant::now();
            ask();
            began.elapsed()
        })
        .collect();
    let cpu = process::own_cpu().saturating_sub(cpu) / QUESTIONS as u32;
    times.sort_unstable();
    Sample { events: 1, wall: times[QUESTIONS / 2], cpu, ..Sample::default() }
}

/// A whole day in the middle.
struct Day {
    date: String,
    begin_micros: i64,
}

impl Day {
    fn middle(packs: &[Vec<Flight>]) -> Self {
        let time = packs[packs.len() / 2][0].time.to_utc();
        let midnight = time.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
        Self { date: time.format("%Y-%m-%d").to_string(), begin_micros: midnight.timestamp_micros() }
    }
}

/// What is asked.
#[derive(Clone, Copy)]
enum Question {
    Day,
    DayAndTerm,
    Words,
}

impl Question {
    /// The page and the count.
    fn paths(self, day: &Day) -> [String; 2] {
        let day = format!("from={0}&to={0}", day.date);
        let asked = match self {
            Question::Day => day,
            Question::DayAndTerm => format!("{day}&q=origin:{AIRPORT}"),
            Question::Words => format!("q={AIRPORT}%20{OTHER_AIRPORT}"),
        };
        let base = "/api/v1/streams/flights/1/events";
        [format!("{base}?{asked}&limit={PAGE}"), format!("{base}/count?{asked}")]
    }

    fn query(self, index: &RawIndex, day: &Day) -> Box<dyn Query> {
        let time = |micros| Term::from_field_i64(index.time, micros);
        let end = day.begin_micros + 86_400_000_000;
        let bounds = (Bound::Included(time(day.begin_micros)), Bound::Excluded(time(end)));
        let in_day: Box<dyn Query> = Box::new(RangeQuery::new(bounds.0, bounds.1));
        let term = |field, text: &str| -> Box<dyn Query> {
            let term = Term::from_field_text(field, text);
            Box::new(TermQuery::new(term, IndexRecordOption::Basic))
        };
        let word = |word: &str| term(index.text.expect("texts are indexed"), &word.to_lowercase());
        match self {
            Question::Day => in_day,
            Question::DayAndTerm => {
                Box::new(BooleanQuery::intersection(vec![in_day, term(index.origin, AIRPORT)]))
            }
            Question::Words => Box::new(BooleanQuery::intersection(vec![word(AIRPORT), word(OTHER_AIRPORT)])),
        }
    }
}

struct Ours {
    router: Router,
    /// Holds the folder that the log and the splits lie in.
    _local: Local,
}

impl Ours {
    async fn build(packs: &[Vec<Flight>]) -> Self {
        let local = Local::open(flights_stream(PARTITIONS)).await;
        let now = local.clock.now();
        let batches = flights::batches(packs, now);
        local.load(Stage::Processed, &batches).await;
        let indexer = local.indexer(Limits { split_age_max: SPLIT_AGE, ..Limits::default() });
        let ends = local.ends(Stage::Processed).await;
        local.work((Stage::Processed, Group::INDEX), indexer.sink(), &ends).await;
        Self { router: indexer.router(), _local: local }
    }

    fn ask(&self, runtime: &Runtime, path: &str) -> Bytes {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        runtime.block_on(async {
            let answer = self.router.clone().oneshot(request).await.expect("an answer");
            assert!(answer.status().is_success(), "{path} was refused: {answer:?}");
            to_bytes(answer.into_body(), ANSWER_BYTES_MAX).await.expect("a body")
        })
    }

    fn read(&self, runtime: &Runtime, path: &str) -> Value {
        serde_json::from_slice(&self.ask(runtime, path)).expect("an answer is JSON")
    }
}

struct Raw {
    index: RawIndex,
    searcher: Searcher,
    _folder: tempfile::TempDir,
}

impl Raw {
    fn build(packs: &[Vec<Flight>]) -> Self {
        let folder = support::scratch();
        let index = RawIndex::with_text();
        let built = index.in_folder(folder.path(), packs.iter().flatten());
        let searcher = built.reader().expect("open the segment").searcher();
        Self { index, searcher, _folder: folder }
    }

    /// The first page in the order of time, read, and the exact count.
    fn ask(&self, query: &dyn Query) -> u64 {
        let first = TopDocs::with_limit(PAGE).order_by_fast_field::<i64>(TIME, Order::Asc);
        let (first, count) = self.searcher.search(query, &(first, Count)).expect("search");
        let mut bytes = 0;
        for (_, address) in first {
            let document: TantivyDocument = self.searcher.doc(address).expect("read a document");
            let value = document.get_first(self.index.value);
            bytes += tantivy::schema::Value::as_bytes(&value.expect("it is stored")).map_or(0, <[u8]>::len);
        }
        assert!(bytes > 0 || count == 0, "documents that are found are read");
        count as u64
    }
}
