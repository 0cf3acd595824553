//! The whole binary beside OpenSearch with the same events on the same machine, through HTTP: what it
//! costs to index them, and how long questions take. Ours has everything on (log, router, archive,
//! index), which the other has not; the other may still have segments to merge when its time is taken.
//! Needs an OpenSearch that `BENCH_OPENSEARCH_URL` names: `eval "$(scripts/opensearch env)"`.
//! `cargo bench --bench opensearch -- [--quick]`

mod support;

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use support::client::{post, until_found, until_quiet};
use support::figures::{Results, Row};
use support::flights::{self, Flight, OF_A_BATCH};
use support::local::runtime;
use support::options::Options;
use support::pair::{Sample, alternate};
use support::process;
use support::questions::{AIRPORT, Day, OTHER_AIRPORT, PAGE, Question, median_of};
use support::server::{PUBLISH_SOON, Server, TOKEN};
use tokio::runtime::Runtime;

const ROLES: &str = "ingest,router,sinks,query";
const PARTITIONS: u32 = 4;
const AGAINST: &str = "OpenSearch 2.19.6";
/// Flights of a bulk request: some 500 KB.
const OF_A_BULK: usize = 10 * OF_A_BATCH;
const CONNECTIONS: usize = 4;

fn main() {
    let options = Options::read();
    let results = Results::of("opensearch", &options);
    let Some(theirs) = Peer::find() else {
        eprintln!("no OpenSearch: scripts/opensearch start && eval \"$(scripts/opensearch env)\"");
        std::process::exit(2);
    };
    let runtime = runtime();
    let packs = flights::packs(&options, options.events(1_000_000, 200_000));
    let name = "indexing by HTTP, everything on";
    if options.wants(name) {
        eprintln!("{name}");
        let ours = || index_ours(&runtime, &packs).0;
        let pairs = alternate(options.rounds(), ours, || runtime.block_on(theirs.index(&packs)));
        results.rates(Row { name, against: AGAINST, goal: "≥ 5", cpu_goal: "≤ 0.2" }, &pairs);
    }
    let (_, ours) = index_ours(&runtime, &packs);
    runtime.block_on(theirs.index(&packs));
    let day = Day::middle(&packs);
    for (name, question) in Question::ALL {
        let name = format!("query by HTTP, {name}");
        if !options.wants(&name) {
            continue;
        }
        eprintln!("{name}");
        let path = question.path(&day);
        let asked = theirs_asked(question, &day);
        let (client, their_client) = (Client::new(), Client::new());
        let our_total = runtime.block_on(ours.read(&client, &path));
        let their_total = runtime.block_on(theirs.ask(&their_client, &asked));
        assert_eq!(question.total(&our_total), total(&their_total), "{name}: both find the same");
        let ask_ours =
            || median_of(|| process::cpu(ours.server.id()), || runtime.block_on(ours.ask(&client, &path)));
        let ask_theirs = || {
            median_of(
                || process::cpu(theirs.id),
                || drop(runtime.block_on(theirs.ask(&their_client, &asked))),
            )
        };
        let pairs = alternate(options.rounds(), ask_ours, ask_theirs);
        let goal = if question == Question::Day { "≤ 0.2; p50 ≤ 1 ms" } else { "≤ 0.2" };
        results.durations(Row { name: &name, against: AGAINST, goal, cpu_goal: "" }, &pairs);
    }
}

/// A server that holds the events.
struct Ours {
    server: Server,
    _folder: tempfile::TempDir,
}

fn index_ours(runtime: &Runtime, packs: &[Vec<Flight>]) -> (Sample, Ours) {
    let folder = support::scratch();
    let server = Server::headwater(&folder.path().join("data"), ROLES, &PUBLISH_SOON);
    let events = (packs.len() * OF_A_BATCH) as u64;
    let sample = runtime.block_on(async {
        let path = server.define("flights", PARTITIONS).await;
        let (began, cpu) = (Instant::now(), process::cpu(server.id()));
        post(&Client::new(), &format!("{}{path}", server.base), packs.iter().flatten().cloned()).await;
        until_found(&server, "flights", events).await;
        let wall = began.elapsed();
        let cpu = until_quiet(&server).await.saturating_sub(cpu);
        let memory_bytes = Some(process::memory_peak_bytes(server.id()));
        Sample { events, wall, cpu, p99: None, memory_bytes }
    });
    (sample, Ours { server, _folder: folder })
}

impl Ours {
    async fn ask(&self, client: &Client, path: &str) {
        let request = client.get(format!("{}{path}", self.server.base)).bearer_auth(TOKEN);
        let answer = request.send().await.expect("ask");
        assert!(answer.status().is_success(), "{path} was refused: {answer:?}");
        answer.bytes().await.expect("read an answer");
    }

    async fn read(&self, client: &Client, path: &str) -> Value {
        let request = client.get(format!("{}{path}", self.server.base)).bearer_auth(TOKEN);
        request.send().await.expect("ask").json().await.expect("an answer is JSON")
    }
}

/// The OpenSearch that is compared with.
struct Peer {
    base: String,
    id: u32,
}

impl Peer {
    #[allow(clippy::disallowed_methods, reason = "the driver is told by the environment where it runs")]
    fn find() -> Option<Self> {
        let base = std::env::var("BENCH_OPENSEARCH_URL").ok()?;
        let id = std::env::var("BENCH_OPENSEARCH_PID").ok()?.parse().ok()?;
        Some(Self { base, id })
    }

    /// Makes the index anew and fills it.
    async fn index(&self, packs: &[Vec<Flight>]) -> Sample {
        let client = Client::new();
        // There may be none yet.
        self.send(&client, (Method::DELETE, "/flights?ignore_unavailable=true"), String::new()).await;
        let definition = json!({
            "settings": {"number_of_shards": 1, "number_of_replicas": 0},
            "mappings": {"properties": {"date": {"type": "date", "format": "yyyy/MM/dd HH:mm"}}},
        });
        self.send(&client, (Method::PUT, "/flights"), definition.to_string()).await;
        let (began, cpu) = (Instant::now(), process::cpu(self.id));
        let bulks = packs.chunks(OF_A_BULK / OF_A_BATCH).map(|some| {
            let mut body = String::new();
            for flight in some.iter().flatten() {
                body.push_str("{\"index\":{}}\n");
                body.push_str(std::str::from_utf8(&flight.value).expect("a flight is a text"));
                body.push('\n');
            }
            let client = &client;
            async move {
                let answer = self.send(client, (Method::POST, "/flights/_bulk"), body).await;
                assert_eq!(answer["errors"], false, "a bulk request failed in part");
            }
        });
        futures::stream::iter(bulks).buffer_unordered(CONNECTIONS).for_each(|()| async {}).await;
        self.send(&client, (Method::POST, "/flights/_refresh"), String::new()).await;
        let (wall, cpu) = (began.elapsed(), process::cpu(self.id).saturating_sub(cpu));
        let events = (packs.len() * OF_A_BATCH) as u64;
        let counted = self.send(&client, (Method::GET, "/flights/_count"), String::new()).await;
        assert_eq!(counted["count"].as_u64(), Some(events), "every event is indexed");
        let memory_bytes = Some(process::memory_peak_bytes(self.id));
        Sample { events, wall, cpu, p99: None, memory_bytes }
    }

    /// Without the cache of answers, which ours has none of either.
    async fn ask(&self, client: &Client, asked: &str) -> Value {
        let path = "/flights/_search?request_cache=false";
        self.send(client, (Method::POST, path), asked.to_owned()).await
    }

    async fn send(&self, client: &Client, (method, path): (Method, &str), body: String) -> Value {
        let request = client.request(method, format!("{}{path}", self.base)).body(body);
        let request = request.header("content-type", "application/json").timeout(Duration::from_secs(120));
        let answer = request.send().await.expect("ask OpenSearch");
        let status = answer.status();
        let answer: Value = answer.json().await.expect("an answer is JSON");
        assert!(status.is_success(), "{path} was refused: {answer}");
        answer
    }
}

fn theirs_asked(question: Question, day: &Day) -> String {
    let date = day.date.replace('-', "/");
    let in_day = json!({"range": {"date": {"gte": format!("{date} 00:00"), "lte": format!("{date} 23:59")}}});
    let airport = json!({"term": {"origin.keyword": AIRPORT}});
    let page = |filters: Value| {
        json!({
            "size": PAGE, "track_total_hits": true, "sort": [{"date": "asc"}],
            "query": {"bool": {"filter": filters}},
        })
    };
    let hours = |query: Value| {
        json!({
            "size": 0, "track_total_hits": true, "query": query,
            "aggs": {"hours": {"date_histogram": {
                "field": "date", "fixed_interval": "1h", "min_doc_count": 1,
            }}},
        })
    };
    let word = |word: &str| json!({"multi_match": {"query": word, "fields": ["origin", "destination"]}});
    let asked = match question {
        Question::Day => page(json!([in_day])),
        Question::DayAndTerm => page(json!([in_day, airport])),
        Question::Words => page(json!([word(AIRPORT), word(OTHER_AIRPORT)])),
        Question::Hours => hours(json!({"match_all": {}})),
        Question::HoursOfTerm => hours(json!({"bool": {"filter": [airport]}})),
    };
    asked.to_string()
}

/// How many events OpenSearch's answer speaks of.
fn total(answer: &Value) -> Option<u64> {
    if let Some(buckets) = answer["aggregations"]["hours"]["buckets"].as_array() {
        return buckets.iter().map(|bucket| bucket["doc_count"].as_u64()).sum();
    }
    answer["hits"]["total"]["value"].as_u64()
}
