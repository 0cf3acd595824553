//! Load by gRPC: `AppendStream` on connections of their own, each with one prepared request on its way, on
//! one thread, as `wrk` has it by HTTP.

use std::time::{Duration, Instant};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures::StreamExt as _;
use futures::future::join_all;
use http::uri::PathAndQuery;
use proto::v1::{AppendRequest, NewRecord};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

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
    let message = Bytes::from(prost::Message::encode_to_vec(request));
    let connections = join_all((0..CONNECTIONS).map(|_| connect(server))).await;
    let (began, cpu) = (Instant::now(), process::cpu(server.id()));
    let loads = connections.into_iter().map(|client| {
        let prepared = Prepared { message: message.clone(), records: request.records.len() };
        one(client, prepared, began + length)
    });
    let mut times: Vec<Duration> = join_all(loads).await.into_iter().flatten().collect();
    let (wall, cpu) = (began.elapsed(), process::cpu(server.id()).saturating_sub(cpu));
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied();
    let events = (times.len() * request.records.len()) as u64;
    Sample { events, wall, cpu, p99, memory_bytes: Some(process::memory_peak_bytes(server.id())) }
}

async fn connect(server: &Server) -> Grpc<Channel> {
    let endpoint = Endpoint::from_shared(server.base.clone()).expect("an address");
    Grpc::new(endpoint.connect().await.expect("connect"))
}

/// A request as it goes over the wire, and how many records it has.
struct Prepared {
    message: Bytes,
    records: usize,
}

/// How long each request of one stream took.
async fn one(mut client: Grpc<Channel>, request: Prepared, until: Instant) -> Vec<Duration> {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    sender.send(request.message.clone()).await.expect("the stream takes a request");
    let requests = futures::stream::unfold(receiver, |mut receiver| async {
        let request = receiver.recv().await?;
        Some((request, receiver))
    });
    let mut call = Request::new(requests);
    let token = format!("Bearer {TOKEN}").parse().expect("a token is plain");
    call.metadata_mut().insert("authorization", token);
    let path = PathAndQuery::from_static("/headwater.v1.Ingest/AppendStream");
    client.ready().await.expect("the connection is ready");
    let mut began = Instant::now();
    let answers = client.streaming(call, path, Messages).await;
    let mut answers = answers.expect("open a stream").into_inner();
    let mut times = Vec::new();
    while let Some(answer) = answers.next().await {
        let appended = appended(answer.expect("an answer"));
        assert_eq!(appended, request.records, "every record is appended");
        times.push(began.elapsed());
        if Instant::now() >= until {
            break;
        }
        began = Instant::now();
        sender.send(request.message.clone()).await.expect("the stream takes a request");
    }
    times
}

/// How many results of an answer say that a record was appended: an answer has nothing but results, and
/// none here has more than 127 bytes.
fn appended(mut answer: Bytes) -> usize {
    const RESULT: u8 = 0x0a;
    const APPENDED: u8 = 0x0a;
    let mut count = 0;
    while answer.remaining() > 2 && answer[0] == RESULT && answer[2] == APPENDED {
        answer.advance(2 + usize::from(answer[1]));
        count += 1;
    }
    count
}

/// Messages as they lie on the wire.
struct Messages;

impl Codec for Messages {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Messages {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(message);
        Ok(())
    }
}

impl Decoder for Messages {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
