//! The load over gRPC: connections of our own, each with one AppendStream, whose requests were
//! encoded before the run began.

use std::collections::VecDeque;

use broker::StreamName;
use bytes::{BufMut as _, Bytes};
use futures::channel::mpsc::{Sender, channel};
use http::uri::PathAndQuery;
use proto::v1::{AppendRequest, AppendResponse, NewRecord};
use tokio::time::{Instant, sleep, timeout};
use tonic::client::Grpc;
use tonic::codec::{Codec, EncodeBuf, Encoder, Streaming};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstDecoder;
use tonic_prost::prost::Message as _;

use super::answer::Outcome;
use super::corpus::Batch;
use super::http::{ANSWER_TIME_MAX, NO_ANSWER, RECONNECT_PAUSE};
use super::measure::Load;
use super::schedule::Turn;
use crate::cli::client::{Client, bearer};
use crate::failure::{Exit, Failure, OrFail};

const APPEND_STREAM: &str = "/headwater.v1.Ingest/AppendStream";
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// One connection.
pub(super) struct Link {
    channel: Channel,
    token: Option<http::HeaderValue>,
}

/// One AppendStream.
struct Call<'l> {
    requests: Sender<Bytes>,
    answers: Streaming<AppendResponse>,
    unanswered: VecDeque<(Instant, &'l Batch)>,
}

/// Records as one request.
pub(super) fn encode(stream: &StreamName, records: &[Bytes]) -> Bytes {
    let record = |value: &Bytes| NewRecord { value: value.clone(), key: None };
    let request = AppendRequest {
        dataset: stream.dataset().to_owned(),
        version: stream.version().to_owned(),
        records: records.iter().map(record).collect(),
        atomic: false,
    };
    request.encode_to_vec().into()
}

impl Link {
    /// Opens a connection.
    pub(super) async fn connect(client: &Client) -> Result<Self, Failure> {
        let failed = |error: tonic::transport::Error| Failure::new(Exit::Unavailable, format!("{error:?}"));
        let endpoint = Endpoint::from_shared(client.base().to_string()).map_err(failed)?;
        let channel = endpoint.connect().await.map_err(failed);
        let channel = channel.or_fail(format!("connect to {}", client.base()))?;
        Ok(Self { channel, token: client.token().map(bearer).transpose()? })
    }

    /// Sends batch after batch until there are no more. A call that has failed is made again.
    pub(super) async fn run(self, load: &Load, in_flight: usize) {
        let mut turn = load.schedule.next();
        while turn.is_some() {
            match timeout(ANSWER_TIME_MAX, self.call(in_flight)).await {
                Ok(Ok(mut call)) => match call.run(load, &mut turn, in_flight).await {
                    Ok(()) => return,
                    Err(status) => call.lose(load, &label(&status)),
                },
                Ok(Err(status)) => lose(load, &mut turn, &label(&status)),
                Err(_) => lose(load, &mut turn, NO_ANSWER),
            }
            sleep(RECONNECT_PAUSE).await;
            turn = turn.or_else(|| load.schedule.next());
        }
    }

    async fn call<'l>(&self, in_flight: usize) -> Result<Call<'l>, Status> {
        let (requests, stream) = channel(in_flight);
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(stream);
        if let Some(token) = &self.token {
            let token = token.to_str().ok().and_then(|token| token.parse().ok());
            let token = token.ok_or_else(|| Status::internal("the token is no metadata"))?;
            request.metadata_mut().insert("authorization", token);
        }
        let path = PathAndQuery::from_static(APPEND_STREAM);
        let answers = grpc.streaming(request, path, Encoded).await?.into_inner();
        Ok(Call { requests, answers, unanswered: VecDeque::with_capacity(in_flight) })
    }
}

impl<'l> Call<'l> {
    /// Keeps as many batches on their way as may be, until there are no more and all are answered.
    async fn run(&mut self, load: &'l Load, turn: &mut Option<Turn>, in_flight: usize) -> Result<(), Status> {
        while turn.is_some() || !self.unanswered.is_empty() {
            let has_room = self.unanswered.len() < in_flight;
            tokio::select! {
                biased;
                answer = timeout(ANSWER_TIME_MAX, self.answers.message()), if !self.unanswered.is_empty() => {
                    let answer = answer.map_err(|_| Status::deadline_exceeded("no answer"))??;
                    self.take(answer, load)?;
                }
                () = wait(turn), if has_room && turn.is_some() => {
                    self.send(turn, load)?;
                    *turn = load.schedule.next();
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, turn: &Option<Turn>, load: &'l Load) -> Result<(), Status> {
        let Some(turn) = turn else { return Ok(()) };
        let batch = load.corpus.batch(turn);
        let from = turn.from();
        self.requests
            .try_send(batch.body.clone())
            .map_err(|_| Status::unavailable("the call does not take the batch"))?;
        self.unanswered.push_back((from, batch));
        Ok(())
    }

    fn take(&mut self, answer: Option<AppendResponse>, load: &Load) -> Result<(), Status> {
        let answer = answer.ok_or_else(|| Status::unavailable("the call ended before its answers"))?;
        let Some((from, batch)) = self.unanswered.pop_front() else { return Ok(()) };
        load.tally.borrow_mut().answered(batch, from, Outcome::of_grpc(answer, batch.records));
        Ok(())
    }

    /// Counts what was sent and will not be answered.
    fn lose(self, load: &Load, label: &str) {
        let mut tally = load.tally.borrow_mut();
        self.unanswered.iter().for_each(|(_, batch)| tally.lost(batch, label));
    }
}

async fn wait(turn: &Option<Turn>) {
    if let Some(turn) = turn {
        turn.wait().await;
    }
}

/// Counts a batch for which there was no call.
fn lose(load: &Load, turn: &mut Option<Turn>, label: &str) {
    if let Some(turn) = turn.take() {
        load.tally.borrow_mut().lost(load.corpus.batch(&turn), label);
    }
}

fn label(status: &Status) -> String {
    format!("{:?}", status.code())
}

/// Sends requests that are encoded, and decodes answers.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = AppendResponse;
    type Encoder = Self;
    type Decoder = ProstDecoder<AppendResponse>;

    fn encoder(&mut self) -> Self::Encoder {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, request: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(request);
        Ok(())
    }
}
