//! Many who follow one stream while somebody posts 5,000 events a second, beside a bare fan-out of the
//! same lines. `cargo bench --bench follow -- [--quick]`

mod support;

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;
use proto::v1::FollowRequest;
use proto::v1::events_client::EventsClient;
use reqwest::Client;
use serde::Deserialize;
use support::client::post_lines;
use support::figures::{Results, Row};
use support::local::runtime;
use support::options::Options;
use support::pair::{Sample, alternate};
use support::server::{Server, TOKEN};
use support::{bare_door, process};
use tokio::time::MissedTickBehavior;
use tonic::Request;
use tonic::transport::Endpoint;

const ROLES: &str = "ingest,router,sinks,query";
const PARTITIONS: u32 = 4;
const FOLLOWERS: usize = 100;
const AT_ONCE: usize = 50;
const EVERY: Duration = Duration::from_millis(10);
/// Events of one follower that are timed: a part of them, so that the timing costs little.
const TIMED_ONE_OF: usize = 10;

/// When an event was sent, after the load began.
#[derive(Deserialize)]
struct Sent {
    sent_micros: u64,
}

fn main() {
    if bare_door::was_asked_for() {
        return;
    }
    let options = Options::read();
    let results = Results::of("follow", &options);
    let name = "follow, 100 followers, 5,000 events/s";
    let ticks = if options.is_quick { 200 } else { 1_000 };
    if options.wants(name) {
        eprintln!("{name}");
        let pairs = alternate(options.rounds(), || ours(ticks, FOLLOWERS), || bare(ticks));
        let row = Row { name, against: "bare fan-out", goal: "p99 ≤ 50 ms", cpu_goal: "≤ 2" };
        results.rates(row, &pairs);
    }
    // What the events cost before anybody is told of them, which the bare fan-out has none of.
    let name = "the same events with nobody following";
    if options.wants(name) {
        eprintln!("{name}");
        let pairs = alternate(options.rounds(), || ours(ticks, 0), || bare(ticks));
        let cpu = |samples: &[Sample]| samples.iter().map(|sample| sample.cpu.as_secs_f64()).collect();
        let row = Row { name, against: "bare fan-out to 100", goal: "", cpu_goal: "" };
        let both = (cpu(&pairs.ours), cpu(&pairs.raw));
        results.beside(row, ("CPU", "s", ""), both, (ticks * AT_ONCE) as u64);
    }
}

fn ours(ticks: usize, followers: usize) -> Sample {
    let folder = support::scratch();
    let server = Server::headwater(&folder.path().join("data"), ROLES, &[]);
    runtime().block_on(async {
        let path = server.define("flights", PARTITIONS).await;
        let mut streams = Vec::new();
        for _ in 0..followers {
            let endpoint = Endpoint::from_shared(server.base.clone()).expect("an address");
            let mut client = EventsClient::new(endpoint.connect().await.expect("connect"));
            let (dataset, version) = ("flights".to_owned(), "1".to_owned());
            let mut request = Request::new(FollowRequest { dataset, version, from: None });
            let token = format!("Bearer {TOKEN}").parse().expect("a token is plain");
            request.metadata_mut().insert("authorization", token);
            streams.push(client.follow(request).await.expect("follow").into_inner());
        }
        let values = |event: Result<proto::v1::Event, tonic::Status>| {
            let mut line = event.expect("an event").value.to_vec();
            line.push(b'\n');
            line
        };
        let streams = streams.into_iter().map(|stream| stream.map(values));
        load(&server, &path, ticks, streams).await
    })
}

fn bare(ticks: usize) -> Sample {
    let folder = support::scratch();
    let server = Server::another(bare_door::NAME, &folder.path().join("log"));
    runtime().block_on(async {
        let mut streams = Vec::new();
        for _ in 0..FOLLOWERS {
            let answer = Client::new().get(format!("{}/follow", server.base)).send().await.expect("follow");
            streams.push(answer.bytes_stream().map(|chunk| chunk.expect("a chunk").to_vec()));
        }
        load(&server, "/publish", ticks, streams.into_iter()).await
    })
}

/// Posts and follows at the same time, until every follower has every event.
async fn load<S>(server: &Server, path: &str, ticks: usize, streams: impl Iterator<Item = S>) -> Sample
where
    S: futures::Stream<Item = Vec<u8>>,
{
    let (began, cpu) = (Instant::now(), process::cpu(server.id()));
    let url = format!("{}{path}", server.base);
    let events = ticks * AT_ONCE;
    let followers = join_all(streams.map(|stream| follow(stream, began, events)));
    let (times, ()) = tokio::join!(followers, post(&url, began, ticks));
    let (wall, cpu) = (began.elapsed(), process::cpu(server.id()).saturating_sub(cpu));
    let mut times: Vec<Duration> = times.into_iter().flatten().collect();
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied();
    let memory_bytes = Some(process::memory_peak_bytes(server.id()));
    Sample { events: (events * FOLLOWERS) as u64, wall, cpu, p99, memory_bytes }
}

async fn post(url: &str, began: Instant, ticks: usize) {
    let client = Client::new();
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for _ in 0..ticks {
        tick.tick().await;
        let sent = began.elapsed().as_micros();
        let line = format!(
            r#"{{"date":"2001/01/01 00:47","delay":66,"distance":1750,"origin":"DTW","sent_micros":{sent}}}"#
        );
        post_lines(&client, url, format!("{line}\n").repeat(AT_ONCE)).await;
    }
}

/// How old some of the events were when they came, until all have come.
async fn follow<S>(stream: S, began: Instant, events: usize) -> Vec<Duration>
where
    S: futures::Stream<Item = Vec<u8>>,
{
    let mut stream = std::pin::pin!(stream);
    let (mut seen, mut times, mut held) = (0, Vec::new(), Vec::new());
    while seen < events {
        held.extend(stream.next().await.expect("a follower is told of every event"));
        // A chunk may end in the middle of a line.
        let whole = held.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        for line in held[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if seen % TIMED_ONE_OF == 0 {
                let event: Sent = serde_json::from_slice(line).expect("an event is JSON");
                times.push(began.elapsed().saturating_sub(Duration::from_micros(event.sent_micros)));
            }
            seen += 1;
        }
        held.drain(..whole);
    }
    times
}
