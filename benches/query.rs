//! Questions to published splits of four partitions, through the query door without a network, beside
//! the same questions to one segment of tantivy's: a day, a day and a term, words, hours, and a far page beside
//! the first. `cargo bench --bench query -- [--quick]`

mod support;

use std::ops::Bound;

use serde_json::json;
use support::figures::{Results, Row};
use support::flights::{self, Flight};
use support::local::runtime;
use support::options::Options;
use support::pair::alternate;
use support::questions::{AIRPORT, Day, HOUR_MICROS, OTHER_AIRPORT, PAGE, Question, median_of_own};
use support::raw_index::{RawIndex, TIME};
use support::searchable::Searchable;
use tantivy::aggregation::agg_req::Aggregations;
use tantivy::aggregation::{AggContextParams, AggregationCollector};
use tantivy::collector::{Count, TopDocs};
use tantivy::query::{AllQuery, BooleanQuery, Query, RangeQuery, TermQuery};
use tantivy::schema::{IndexRecordOption, TantivyDocument};
use tantivy::{Order, Searcher, Term};
use tokio::runtime::Runtime;

const FAR_PAGE: usize = 50;

fn main() {
    let options = Options::read();
    let results = Results::of("query", &options);
    let runtime = runtime();
    let count = options.events(3_000_000, 300_000);
    eprintln!("building both indexes of {count} events");
    let packs = flights::packs(&options, count);
    let ours = runtime.block_on(Searchable::publish(&packs));
    let raw = Raw::build(&packs);
    let day = Day::middle(&packs);
    drop(packs);

    for (name, question) in Question::ALL {
        let name = format!("query, {name}");
        if !options.wants(&name) {
            continue;
        }
        eprintln!("{name}");
        let goal = if question == Question::Day { "p50 ≤ 0.5 ms" } else { "≤ 1.3" };
        let path = question.path(&day);
        let query = bare(question, &raw.index, &day);
        let ask_raw = || match question {
            Question::Hours | Question::HoursOfTerm => raw.histogram(query.as_ref()),
            _ => raw.ask(query.as_ref()),
        };
        let found = question.total(&ours.read(&runtime, &path));
        assert_eq!(found, Some(ask_raw()), "{name}: both find the same number of events");
        let pairs = alternate(
            options.rounds(),
            || median_of_own(|| drop(ours.ask(&runtime, &path))),
            || median_of_own(|| assert!(ask_raw() > 0, "something is found")),
        );
        let row = Row { name: &name, against: "raw tantivy, one segment", goal, cpu_goal: "" };
        results.durations(row, &pairs);
    }
    far_page(&options, &results, (&runtime, &ours, &day));
}

fn far_page(options: &Options, results: &Results, (runtime, ours, day): (&Runtime, &Searchable, &Day)) {
    let name = "query, page 50 of 100 by cursor";
    if !options.wants(name) {
        return;
    }
    eprintln!("{name}");
    let first = &day.path();
    let far = ours.later_page(runtime, first, FAR_PAGE);
    let pairs = alternate(
        options.rounds(),
        || median_of_own(|| drop(ours.ask(runtime, &far))),
        || median_of_own(|| drop(ours.ask(runtime, first))),
    );
    results.durations(Row { name, against: "the first page", goal: "≤ 1.2", cpu_goal: "" }, &pairs);
}

/// The same question to tantivy itself.
fn bare(question: Question, index: &RawIndex, day: &Day) -> Box<dyn Query> {
    let time = |micros| Term::from_field_i64(index.time, micros);
    let end = day.begin_micros + 24 * HOUR_MICROS;
    let bounds = (Bound::Included(time(day.begin_micros)), Bound::Excluded(time(end)));
    let in_day: Box<dyn Query> = Box::new(RangeQuery::new(bounds.0, bounds.1));
    let term = |field, text: &str| -> Box<dyn Query> {
        let term = Term::from_field_text(field, text);
        Box::new(TermQuery::new(term, IndexRecordOption::Basic))
    };
    let word = |word: &str| term(index.text.expect("texts are indexed"), &word.to_lowercase());
    match question {
        Question::Day => in_day,
        Question::DayAndTerm => {
            Box::new(BooleanQuery::intersection(vec![in_day, term(index.origin, AIRPORT)]))
        }
        Question::Words => Box::new(BooleanQuery::intersection(vec![word(AIRPORT), word(OTHER_AIRPORT)])),
        Question::Hours => Box::new(AllQuery),
        Question::HoursOfTerm => term(index.origin, AIRPORT),
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
    /// How many events each hour has; their sum.
    fn histogram(&self, query: &dyn Query) -> u64 {
        let asked = json!({"hours": {"histogram": {
            "field": TIME, "interval": HOUR_MICROS, "min_doc_count": 1,
        }}});
        let asked: Aggregations = serde_json::from_value(asked).expect("an aggregation");
        let hours = AggregationCollector::from_aggs(asked, AggContextParams::default());
        let found = self.searcher.search(query, &hours).expect("search");
        let found = serde_json::to_value(found).expect("an answer is JSON");
        let buckets = found["hours"]["buckets"].as_array().expect("buckets");
        buckets.iter().filter_map(|bucket| bucket["doc_count"].as_u64()).sum()
    }
}
