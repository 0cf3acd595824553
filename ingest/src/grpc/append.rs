//! `headwater.v1.Ingest`.
//!
//! A call of `AppendStream` has at most [`BATCHES_IN_FLIGHT_MAX`] batches and
//! [`Ingest`]'s `body_bytes_max` bytes between their arrival and their answers; after that it reads
//! no more until the log has caught up, and HTTP/2's windows hold the client back. Batches are
//! handed to the log one after another before the first of them is answered, so that records with
//! one key keep their order and the log can write many batches at once.

use std::pin::Pin;
use std::sync::Arc;

use async_stream::try_stream;
use broker::catalog::Stream;
use broker::{Error, Permission, Principal, Result, StreamName};
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesOrdered, StreamExt as _};
use proto::problem::Problem;
use proto::v1::ingest_server;
use proto::v1::record_result;
use proto::v1::{AppendRequest, AppendResponse, Appended, NewRecord, Position, RecordResult};
use tonic::{Request, Response, Status, Streaming};

use super::{caller, status, stream_name};
use crate::Ingest;
use crate::append::{NewEvent, Outcome, Prepared};

/// Batches of one call that were read and not answered yet.
const BATCHES_IN_FLIGHT_MAX: usize = 16;
/// Larger batches are checked off the runtime's threads.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// The service `headwater.v1.Ingest`.
pub struct AppendDoor {
    ingest: Arc<Ingest>,
}

impl AppendDoor {
    pub(crate) fn new(ingest: Arc<Ingest>) -> Self {
        Self { ingest }
    }
}

type Answers = Pin<Box<dyn futures::Stream<Item = Result<AppendResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ingest_server::Ingest for AppendDoor {
    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let name = stream_name(&request.dataset, &request.version)?;
        let batch = start(&self.ingest, (&caller, &name), request).await.map_err(status)?;
        Ok(Response::new(batch.answer.await.map_err(status)?))
    }

    type AppendStreamStream = Answers;

    async fn append_stream(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(answers(self.ingest.clone(), caller, request.into_inner())))
    }
}

/// Answers batch by batch. What refuses a whole batch ends the call, after the answers of the
/// batches before it; batches after it may have been written if they were sent by then. So does the end
/// of the process, but what was not read by then is not written.
fn answers(ingest: Arc<Ingest>, caller: Principal, mut requests: Streaming<AppendRequest>) -> Answers {
    Box::pin(try_stream! {
        let mut in_flight = InFlight::default();
        let mut name = None;
        let mut end = None;
        loop {
            let has_room = in_flight.has_room(ingest.limits.body_bytes_max);
            if end.is_some() && in_flight.batches.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                Some(answer) = in_flight.next() => yield answer.map_err(status)?,
                () = ingest.shutdown.cancelled(), if end.is_none() => end = Some(Err(stopping())),
                request = requests.message(), if end.is_none() && has_room => {
                    match next_batch(&ingest, (&caller, &mut name), request).await {
                        Ok(Some(batch)) => in_flight.push(batch),
                        Ok(None) => end = Some(Ok(())),
                        Err(refusal) => end = Some(Err(refusal)),
                    }
                }
            }
        }
        end.unwrap_or(Ok(()))?;
    })
}

/// Why a call ends that could have gone on: everything sent so far and read was answered.
fn stopping() -> Status {
    status(Error::unavailable("the server is shutting down"))
}

async fn next_batch(
    ingest: &Arc<Ingest>,
    (caller, name): (&Principal, &mut Option<StreamName>),
    request: Result<Option<AppendRequest>, Status>,
) -> Result<Option<Batch>, Status> {
    let Some(request) = request? else { return Ok(None) };
    let is_same_stream = request.dataset.is_empty() && request.version.is_empty();
    if name.is_none() || !is_same_stream {
        *name = Some(stream_name(&request.dataset, &request.version)?);
    }
    let name = name.as_ref().expect("the first request sets the name");
    start(ingest, (caller, name), request).await.map(Some).map_err(status)
}

/// The batches of one call that wait for their answers, in order.
#[derive(Default)]
struct InFlight {
    batches: FuturesOrdered<BoxFuture<'static, (usize, Result<AppendResponse>)>>,
    bytes: usize,
}

impl InFlight {
    fn has_room(&self, bytes_max: usize) -> bool {
        let is_within = self.batches.len() < BATCHES_IN_FLIGHT_MAX && self.bytes < bytes_max;
        is_within || self.batches.is_empty()
    }

    fn push(&mut self, batch: Batch) {
        let Batch { bytes, answer } = batch;
        self.bytes += bytes;
        self.batches.push_back(answer.map(move |answer| (bytes, answer)).boxed());
    }

    async fn next(&mut self) -> Option<Result<AppendResponse>> {
        let (bytes, answer) = self.batches.next().await?;
        self.bytes -= bytes;
        Some(answer)
    }
}

/// A batch whose records were handed to the log.
struct Batch {
    bytes: usize,
    answer: BoxFuture<'static, Result<AppendResponse>>,
}

/// Checks a batch and hands it to the log, without waiting until it is durable. Who may not write any
/// more while a call is open is refused with its next batch.
async fn start(
    ingest: &Arc<Ingest>,
    (caller, name): (&Principal, &StreamName),
    request: AppendRequest,
) -> Result<Batch> {
    let stream = ingest.stream(caller, name, Permission::Write)?;
    let bytes = request.records.iter().map(|record| record.value.len()).sum();
    let charge = ingest.admission.charge(bytes)?;
    let prepared = if bytes <= INLINE_BYTES_MAX {
        prepare(ingest, &stream, &request)?
    } else {
        let ingest = ingest.clone();
        tokio::task::spawn_blocking(move || prepare(&ingest, &stream, &request))
            .await
            .map_err(|error| Error::internal("check the records").with_source(error))??
    };
    let ingest = ingest.clone();
    let mut answer = async move {
        let written = ingest.append(prepared).await;
        drop(charge);
        let records = written?.outcomes().map(shown).collect();
        Ok(AppendResponse { records })
    }
    .boxed();
    // The first poll is what puts the records in the log's queue.
    match futures::poll!(&mut answer) {
        std::task::Poll::Ready(done) => Ok(Batch { bytes, answer: futures::future::ready(done).boxed() }),
        std::task::Poll::Pending => Ok(Batch { bytes, answer }),
    }
}

fn prepare(ingest: &Ingest, stream: &Stream, request: &AppendRequest) -> Result<Prepared> {
    if let Some(index) = request.records.iter().position(|record| record.key.as_deref() == Some("")) {
        return Err(Error::invalid(format!("records[{index}].key"), "a key has at least one byte"));
    }
    let events = request.records.iter().map(|NewRecord { value, key }| NewEvent {
        value,
        line: None,
        key: key.as_ref().map(String::as_bytes),
    });
    ingest.prepare(stream, events.collect(), request.atomic)
}

fn shown(outcome: Outcome<'_>) -> RecordResult {
    let result = match outcome {
        Outcome::Appended { partition, offset, time } => record_result::Result::Appended(Appended {
            position: Some(Position { partition: partition.0, offset: offset.0 }),
            timestamp_micros: time.micros(),
        }),
        Outcome::Refused(error) => {
            let Problem { kind, message, field } = error.clone().into();
            let (kind, field) = (kind.name().to_owned(), field.unwrap_or_default());
            record_result::Result::Error(proto::v1::Problem { kind, message, field })
        }
    };
    RecordResult { result: Some(result) }
}
