//! The service as it is put on the wire: what tonic generates, but for the body of `Follow`, whose
//! messages were rendered once for all who follow and are sent as they are. Encoding each of them for
//! each follower is most of what following would cost.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use broker::{Error, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use proto::frames;
use proto::v1::events_server::EventsServer;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

use super::{EventStream, Events, status};
use crate::index::lock;

/// `headwater.v1.Events` over HTTP/2.
#[derive(Clone)]
pub struct EventsService {
    inner: EventsServer<Events>,
}

impl EventsService {
    pub(crate) fn new(events: Events) -> Self {
        Self { inner: EventsServer::new(events) }
    }
}

impl NamedService for EventsService {
    const NAME: &'static str = EventsServer::<Events>::NAME;
}

impl Service<http::Request<Body>> for EventsService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.inner, context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answering = self.inner.call(request);
        async move {
            let mut answer = answering.await?;
            let frames = answer.extensions_mut().remove::<Frames>();
            Ok(match frames.and_then(|frames| frames.take()) {
                Some(frames) => answer.map(|_| body(frames)),
                None => answer,
            })
        }
        .boxed()
    }
}

/// The frames of an answer, for the one who comes for them first.
#[derive(Clone)]
pub(super) struct Frames(Arc<Mutex<Option<FrameStream>>>);

type FrameStream = BoxStream<'static, Result<Bytes>>;

impl Frames {
    pub(super) fn new(frames: FrameStream) -> Self {
        Self(Arc::new(Mutex::new(Some(frames))))
    }

    fn take(&self) -> Option<FrameStream> {
        lock(&self.0).take()
    }

    /// The messages in the frames; nothing is taken before the first is asked for.
    pub(super) fn into_messages(self) -> EventStream {
        let frames = stream::once(async move { self.take().unwrap_or_else(|| stream::empty().boxed()) });
        let unreadable = |error| Error::internal("read a frame that was just rendered").with_source(error);
        let messages = move |frames| {
            stream::iter(frames::messages(frames).map(move |message| message.map_err(unreadable)))
        };
        frames.flatten().map_ok(messages).try_flatten().map_err(status).boxed()
    }
}

/// An answer's body: the frames, and how it ended.
fn body(frames: FrameStream) -> Body {
    let data = stream::unfold(Some(frames), |frames| async {
        let mut frames = frames?;
        Some(match frames.next().await {
            Some(Ok(bytes)) => (Frame::data(bytes), Some(frames)),
            Some(Err(error)) => (trailers(&status(error)), None),
            None => (trailers(&Status::ok("")), None),
        })
    });
    Body::new(StreamBody::new(data.map(Ok::<_, Infallible>)))
}

fn trailers(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        trailers.clear();
        trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from(i32::from(status.code())));
    }
    Frame::trailers(trailers)
}
