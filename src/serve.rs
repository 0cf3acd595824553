//! One port for HTTP/1.1, HTTP/2 and gRPC, with every limit of a connection set.

mod patience;

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::response::Response;
use broker::access::Peer;
use futures::FutureExt as _;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Method, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use indexer::Handover;
use ingest::auth::{Guarded, seal};
use ingest::http::shown_path;
use proto::problem::{Kind, Problem, render};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::config::Limits;
use crate::supervise::Connections;
use patience::{HeadTimer, Patience, watch};

/// Requests that one HTTP/2 connection may have open at once.
const STREAMS_MAX: u32 = 256;
/// What a client may send on one HTTP/2 request before it is read.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// What a client may send on one HTTP/2 connection before it is read.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// The largest HTTP/2 frame that is taken: a batch then comes in one or two of them.
const FRAME_BYTES_MAX: u32 = 64 << 10;
/// How often an idle HTTP/2 client is asked whether it is still there.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
/// How long it may take to answer that.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to wait after the system refused a connection, as when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The longest request id that is taken over from a client.
const REQUEST_ID_BYTES_MAX: usize = 100;
const REQUEST_ID: &str = "x-request-id";

/// Accepts connections until `stop`, then lets those that are open finish their requests.
pub(crate) async fn listen(
    listener: TcpListener,
    doors: Guarded,
    limits: Limits,
    (connections, stop): (Connections, CancellationToken),
) {
    let front = Arc::new(Front { doors, header_bytes_max: limits.header_bytes_max.bytes() });
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let peer = Peer(address.ip());
                connections.spawn(serve((stream, peer), front.clone(), limits.clone(), stop.clone()));
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What comes before all doors of a port.
struct Front {
    doors: Guarded,
    header_bytes_max: usize,
}

impl Front {
    /// The answer to a request. Each gets an id, a body where it is a refusal, a 431 where the headers are too
    /// large and a 500 where the handler panicked.
    async fn answer(&self, request: Request) -> Response {
        let (id, is_head) = (request_id(&request), request.method() == Method::HEAD);
        let told = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| (request.method().clone(), shown_path(request.uri().path()).into_owned()));
        let answer = match self.measure(&request) {
            None => AssertUnwindSafe(self.doors.answer(request)).catch_unwind().await,
            Some(refused) => Ok(refused),
        };
        let mut answer = seal(render(answer.unwrap_or_else(|_| on_panic()), &id)).await;
        if let Some((method, path)) = told {
            debug!(request_id = id, %method, path, status = answer.status().as_u16(), "answered");
        }
        if let Ok(id) = HeaderValue::from_str(&id) {
            answer.headers_mut().insert(REQUEST_ID, id);
        }
        if is_head { without_body(answer) } else { answer }
    }

    /// Refuses headers above the limit, with the field. Those that are larger still never come here: hyper refuses
    /// them itself, without a body.
    fn measure(&self, request: &Request) -> Option<Response> {
        // As HTTP/1 writes them: `name: value` and a line's end.
        let lines = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
        let (bytes, bytes_max) = (lines.sum::<usize>() + length(request.uri()), self.header_bytes_max);
        if bytes <= bytes_max {
            return None;
        }
        let message =
            format!("path and headers have at most {bytes_max} bytes (header_bytes_max), not {bytes}");
        let field = Some("headers".to_owned());
        let mut response: Response = Problem { kind: Kind::TooLarge, message, field }.into_response();
        *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Some(response)
    }
}

/// What HEAD is answered with: routers leave bodies out by themselves, but that of a refusal is written later.
fn without_body(answer: Response) -> Response {
    let (mut parts, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        parts.headers.entry(CONTENT_LENGTH).or_insert(length.into());
    }
    Response::from_parts(parts, Body::empty())
}

/// How long an address is as text.
fn length(uri: &Uri) -> usize {
    let scheme = uri.scheme_str().map_or(0, |scheme| scheme.len() + 3);
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    scheme + authority + uri.path_and_query().map_or(0, |path| path.as_str().len())
}

fn on_panic() -> Response {
    let message = "the request ran into a bug".to_owned();
    Problem { kind: Kind::Internal, message, field: None }.into_response()
}

/// The client's own id where it is short and plain, else a new one.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_plain = |id: &&str| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|c| c.is_ascii_graphic())
    };
    given.filter(is_plain).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

fn serve(
    (stream, peer): (TcpStream, Peer),
    front: Arc<Front>,
    limits: Limits,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let handover = Handover::default();
    let left = handover.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let front = front.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        request.extensions_mut().insert(left.clone());
        async move { Ok::<_, Infallible>(front.answer(request).await) }
    });
    async move {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "set nodelay");
        }
        // hyper's timer begins with the first byte only.
        let mut byte = [0];
        let first = tokio::time::timeout(limits.header_time_max.0, stream.peek(&mut byte));
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            first = first => if !matches!(first, Ok(Ok(1))) { return },
        }
        let patience = Patience { idle: limits.idle_time_max.0, headers: limits.header_time_max.0 };
        let (stream, timer) = watch(stream, patience);
        let builder = builder(&limits, timer);
        // In a box, so that nothing of it stays with a websocket, which may be there for long.
        let mut connection = Box::pin(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.as_mut().await
            }
        };
        drop(connection);
        match (ended, handover.take()) {
            (Err(error), _) => debug!(error = %error, "connection ended"),
            (Ok(()), Some(work)) => work.await,
            (Ok(()), None) => {}
        }
    }
}

fn builder(limits: &Limits, timer: HeadTimer) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // Room for headers above the limit, so that they can be refused with a reason.
    let header_bytes = limits.header_bytes_max.bytes().saturating_mul(2).max(16 << 10);
    builder
        .http1()
        .timer(timer)
        // The timer knows better.
        .header_read_timeout(limits.header_time_max.0)
        .max_buf_size(header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
    builder
}
