//! Many who follow one stream, over gRPC and over websockets, while somebody posts 5,000 events a second,
//! beside a bare fan-out of the same lines; and what many cost who wait for events.
//! `cargo bench --bench follow -- [--quick]`

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
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tonic::Request;
use tonic::transport::Endpoint;

const ROLES: &str = "ingest,router,sinks,query";
const PARTITIONS: u32 = 4;
const FOLLOWERS: usize = 100;
const IDLE: usize = 10_000;
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
    let name = "websockets, 100 subscribers, 5,000 events/s";
    if options.wants(name) {
        eprintln!("{name}");
        let pairs = alternate(options.rounds(), || sockets(ticks), || bare_sockets(ticks));
        let against = "bare hyper websocket fan-out";
        results.rates(Row { name, against, goal: "p99 ≤ 50 ms", cpu_goal: "≤ 2" }, &pairs);
    }
    let name = "10,000 idle subscribers";
    if options.wants(name) {
        eprintln!("{name}");
        let row = Row { name, against: "", goal: "≤ 300 MB", cpu_goal: "" };
        results.alone(row, ("memory", "MB"), &[idle(IDLE)], IDLE as u64);
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

type Websocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn connect(server: &Server, path: &str) -> Websocket {
    let url = format!("{}{path}", server.base.replace("http", "ws"));
    let mut request = url.into_client_request().expect("an address");
    let token = format!("Bearer {TOKEN}").parse().expect("a token is plain");
    request.headers_mut().insert("authorization", token);
    connect_async(request).await.expect("subscribe").0
}

fn lines(socket: Websocket) -> impl futures::Stream<Item = Vec<u8>> {
    socket.filter_map(|frame| async {
        match frame.expect("a frame") {
            Message::Text(text) => Some(text.as_bytes().to_vec()),
            _ => None,
        }
    })
}

fn sockets(ticks: usize) -> Sample {
    let folder = support::scratch();
    let server = Server::headwater(&folder.path().join("data"), ROLES, &[]);
    runtime().block_on(async {
        let path = server.define("flights", PARTITIONS).await;
        server.let_subscribe("flights").await;
        let mut streams = Vec::new();
        for _ in 0..FOLLOWERS {
            streams.push(lines(connect(&server, "/event-data-subscription?dataset_id=flights").await));
        }
        load(&server, &path, ticks, streams.into_iter()).await
    })
}

fn bare_sockets(ticks: usize) -> Sample {
    let folder = support::scratch();
    let server = Server::another(bare_door::NAME, &folder.path().join("log"));
    runtime().block_on(async {
        let mut streams = Vec::new();
        for _ in 0..FOLLOWERS {
            streams.push(lines(connect(&server, "/websocket").await));
        }
        load(&server, "/publish", ticks, streams.into_iter()).await
    })
}

/// What a server's memory grows by with subscribers that wait, in MB. In the end each is told of an event.
fn idle(subscribers: usize) -> f64 {
    let folder = support::scratch();
    let server = Server::headwater(&folder.path().join("data"), ROLES, &[]);
    runtime().block_on(async {
        let path = server.define("flights", PARTITIONS).await;
        server.let_subscribe("flights").await;
        drop(connect(&server, "/event-data-subscription?dataset_id=flights").await);
        let before = process::memory_now_bytes(server.id());
        let mut waiting = Vec::new();
        for _ in 0..subscribers {
            waiting.push(subscribe(&server).await);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        let grown = process::memory_now_bytes(server.id()).saturating_sub(before);
        let line = r#"{"date":"2001/01/01 00:47","origin":"DTW"}"#;
        post_lines(&Client::new(), &format!("{}{path}", server.base), format!("{line}\n")).await;
        let told = waiting.iter_mut().map(|socket| async {
            let mut frame = [0; 2];
            socket.read_exact(&mut frame).await.expect("a frame");
            assert_eq!(frame, [0x81, line.len() as u8 + 1]);
        });
        join_all(told).await;
        grown as f64 / 1e6
    })
}

/// A websocket that costs its client next to nothing.
async fn subscribe(server: &Server) -> TcpStream {
    let address = server.base.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.expect("connect");
    let request = format!(
        "GET /event-data-subscription?dataset_id=flights HTTP/1.1\r\nhost: {address}\r\n\
         authorization: Bearer {TOKEN}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("ask");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await.expect("an answer"));
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    socket
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
