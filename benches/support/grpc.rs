//! Load by gRPC: `AppendStream` on connections of their own, each with one request on its way, as `wrk`
//! has it by HTTP.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;
use proto::v1::ingest_client::IngestClient;
use proto::v1::record_result::Result as Outcome;
use proto::v1::{AppendRequest, AppendResponse, NewRecord};
use tonic::Request;
use tonic::transport::Endpoint;

use super::flights::Flight;
use super::pair::Sample;
use super::process;
use super::server::{Server, TOKEN};

/// The stream that requests name.
pub(crate) const DATASET: &str = "flights";
const CONNECTIONS: usize = 16;

/// A request with these flights.
pub(crate) fn request(flights: &[Flight]) -> AppendRequest {
    let record = |flight: &Flight| NewRecord { value: flight.value.clone(), key: None };
    AppendRequest {
        dataset: DATASET.to_owned(),
        version: "1".to_owned(),
        records: flights.iter().map(record).collect(),
        atomic: false,
    }
}

/// Sends a request again and again for so long.
pub(crate) async fn drive(server: &Server, request: &AppendRequest, length: Duration) -> Sample {
    let connections = join_all((0..CONNECTIONS).map(|_| connect(server))).await;
    let (began, cpu) = (Instant::now(), process::cpu(server.id()));
    let loads = connections.into_iter().map(|client| one(client, request, began + length));
    let mut times: Vec<Duration> = join_all(loads).await.into_iter().flatten().collect();
    let (wall, cpu) = (began.elapsed(), process::cpu(server.id()).saturating_sub(cpu));
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied();
    let events = (times.len() * request.records.len()) as u64;
    Sample { events, wall, cpu, p99, memory_bytes: Some(process::memory_peak_bytes(server.id())) }
}

async fn connect(server: &Server) -> IngestClient<tonic::transport::Channel> {
    let endpoint = Endpoint::from_shared(server.base.clone()).expect("an address");
    IngestClient::new(endpoint.connect().await.expect("connect"))
}

/// How long each request of one stream took.
async fn one(
    mut client: IngestClient<tonic::transport::Channel>,
    request: &AppendRequest,
    until: Instant,
) -> Vec<Duration> {
    let (sender, receiver) = tokio::sync::mpsc::channel::<AppendRequest>(1);
    sender.send(request.clone()).await.expect("the stream takes a request");
    let requests = futures::stream::unfold(receiver, |mut receiver| async {
        let request = receiver.recv().await?;
        Some((request, receiver))
    });
    let mut call = Request::new(requests);
    let token = format!("Bearer {TOKEN}").parse().expect("a token is plain");
    call.metadata_mut().insert("authorization", token);
    let mut began = Instant::now();
    let mut answers = client.append_stream(call).await.expect("open a stream").into_inner();
    let mut times = Vec::new();
    while let Some(answer) = answers.next().await {
        check(&answer.expect("an answer"), request);
        times.push(began.elapsed());
        if Instant::now() >= until {
            break;
        }
        began = Instant::now();
        sender.send(request.clone()).await.expect("the stream takes a request");
    }
    times
}

fn check(answer: &AppendResponse, request: &AppendRequest) {
    let is_appended = |record: &&proto::v1::RecordResult| matches!(record.result, Some(Outcome::Appended(_)));
    let appended = answer.records.iter().filter(is_appended).count();
    assert_eq!(appended, request.records.len(), "every record is appended");
}
