//! The query doors over gRPC: `headwater.v1.Events`. The same questions as over HTTP, and a live
//! tail.

mod follow;
mod service;
mod tables;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;

use broker::{Error, Offset, Origin, Partition, Principal, Result, StreamName};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use proto::problem::Problem;
use proto::v1;
use tonic::{Request, Response, Status};

pub use service::EventsService;
pub use tables::Tables as TablesService;

use service::Frames;

use crate::index::Indexer;
use crate::line::Line;
use crate::query::{Asked, Bucket, Chunk, Interval, Query};
use crate::split::{Event, Order};

/// The service.
pub(crate) struct Events {
    indexer: Arc<Indexer>,
}

type EventStream = Pin<Box<dyn Stream<Item = Result<v1::Event, Status>> + Send>>;

impl Events {
    pub(crate) fn new(indexer: Arc<Indexer>) -> Self {
        Self { indexer }
    }

    async fn query_of(
        &self,
        caller: &Principal,
        filter: Option<v1::Filter>,
        descending: bool,
    ) -> Result<Query> {
        let filter = filter.ok_or_else(|| Error::invalid("filter", "the filter is missing"))?;
        let name = StreamName::new(&filter.dataset, &filter.version)?;
        let stream = self.indexer.stream_for(caller, &name).await?;
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let order = if descending { Order::Descending } else { Order::Ascending };
        let v1::Filter { from, to, q, key, .. } = filter;
        let asked = Asked { from: given(from), to: given(to), q: given(q), key, order };
        self.indexer.query(stream, &asked)
    }

    async fn page(&self, caller: &Principal, request: v1::QueryRequest) -> Result<v1::QueryResponse> {
        let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        let limit = self.indexer.page_limit(limit)?;
        let query = self.query_of(caller, request.filter, request.descending).await?;
        let cursor = Some(request.cursor).filter(|cursor| !cursor.is_empty());
        let wanted = query.wanted(cursor.as_deref(), limit)?;
        let wanted = if request.count { wanted.counted() } else { wanted };
        let page = self.indexer.page(&query, wanted, Ok).await?;
        Ok(v1::QueryResponse {
            events: page.events.into_iter().map(answered).collect(),
            cursor: page.cursor.unwrap_or_default(),
            count: page.count,
            complete_through_micros: page.complete_through.micros(),
        })
    }

    async fn counted(&self, caller: &Principal, request: v1::CountRequest) -> Result<v1::CountResponse> {
        let query = self.query_of(caller, request.filter, false).await?;
        let (count, complete_through) = self.indexer.count(&query).await?;
        Ok(v1::CountResponse { count, complete_through_micros: complete_through.micros() })
    }

    async fn histogram_of(
        &self,
        caller: &Principal,
        request: v1::HistogramRequest,
    ) -> Result<v1::HistogramResponse> {
        let interval = Interval::parse(&request.interval)?;
        let query = self.query_of(caller, request.filter, false).await?;
        let (buckets, complete_through) = self.indexer.histogram(&query, interval).await?;
        let bucket = |bucket: Bucket| v1::Bucket { start_micros: bucket.start.micros(), count: bucket.count };
        Ok(v1::HistogramResponse {
            buckets: buckets.into_iter().map(bucket).collect(),
            complete_through_micros: complete_through.micros(),
        })
    }

    async fn exported(&self, caller: &Principal, request: v1::ExportRequest) -> Result<EventStream> {
        let query = self.query_of(caller, request.filter, request.descending).await?;
        let chunks = self.indexer.export::<Messages>(query).await?;
        let events = chunks.map_ok(|chunk| stream::iter(chunk.events.into_iter().map(Ok)));
        Ok(events.try_flatten().map_err(status).boxed())
    }
}

#[tonic::async_trait]
impl v1::events_server::Events for Events {
    async fn query(&self, request: Request<v1::QueryRequest>) -> Result<Response<v1::QueryResponse>, Status> {
        self.page(&caller(&request)?, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn count(&self, request: Request<v1::CountRequest>) -> Result<Response<v1::CountResponse>, Status> {
        self.counted(&caller(&request)?, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn histogram(
        &self,
        request: Request<v1::HistogramRequest>,
    ) -> Result<Response<v1::HistogramResponse>, Status> {
        self.histogram_of(&caller(&request)?, request.into_inner()).await.map(Response::new).map_err(status)
    }

    type ExportStream = EventStream;

    async fn export(&self, request: Request<v1::ExportRequest>) -> Result<Response<EventStream>, Status> {
        self.exported(&caller(&request)?, request.into_inner()).await.map(Response::new).map_err(status)
    }

    type FollowStream = EventStream;

    /// The answer carries its frames as an extension, for [`EventsService`] to send as they are; who
    /// calls this directly gets the messages in them.
    async fn follow(&self, request: Request<v1::FollowRequest>) -> Result<Response<EventStream>, Status> {
        let followed = follow::follow(&self.indexer, &caller(&request)?, request.into_inner()).await;
        let frames = Frames::new(followed.map_err(status)?.boxed());
        let mut response = Response::new(frames.clone().into_messages());
        response.extensions_mut().insert(frames);
        Ok(response)
    }
}

/// Events of an export as messages.
#[derive(Default)]
struct Messages {
    events: Vec<v1::Event>,
    bytes: usize,
}

impl Chunk for Messages {
    fn add(&mut self, event: &Line<'_>) -> Result<()> {
        let message = message(event);
        self.bytes += size_of::<v1::Event>() + event.key.map_or(0, <[u8]>::len) + event.value.len();
        self.events.push(message);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Who calls; the guard in front of every service says so.
fn caller<T>(request: &Request<T>) -> Result<Principal, Status> {
    let caller = request.extensions().get::<Principal>().cloned();
    caller.ok_or_else(|| status(Error::internal("nobody checked who calls")))
}

fn status(error: Error) -> Status {
    Problem::from(error).into_status()
}

fn answered(event: Event) -> v1::Event {
    let position = event.position;
    v1::Event {
        position: Some(place(position.partition, position.offset)),
        origin: event.origin.map(|Origin { partition, offset }| place(partition, offset)),
        timestamp_micros: position.time.micros(),
        key: event.key.map(|key| String::from_utf8_lossy(&key).into_owned()),
        value: event.value,
    }
}

pub(crate) fn message(event: &Line<'_>) -> v1::Event {
    v1::Event {
        position: Some(place(event.partition, event.offset)),
        origin: event.origin.map(|Origin { partition, offset }| place(partition, offset)),
        timestamp_micros: event.time.micros(),
        key: event.key.map(|key| String::from_utf8_lossy(key).into_owned()),
        value: Bytes::copy_from_slice(event.value),
    }
}

fn place(partition: Partition, offset: Offset) -> v1::Position {
    v1::Position { partition: partition.0, offset: offset.0 }
}
