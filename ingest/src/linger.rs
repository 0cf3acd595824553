//! Lets clients read why they are refused.
//!
//! Over HTTP/1 a server that answers before it has read the body and then closes the connection
//! makes most clients fail while they send, with "broken pipe" in place of the answer; over HTTP/2
//! it resets the stream after the answer, which some clients, curl among them, report in its place.
//! So what is left of a refused body is read and thrown away, within bounds, before the answer is
//! given. A client that asked first (`Expect: 100-continue`) sends no body and waits for none to be
//! read. Bodies of gRPC pass as they are: its refusals are answers of success to HTTP.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, EXPECT};
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;

/// Bytes of a refused body that are thrown away at most.
const DISCARD_BYTES_MAX: usize = 64 << 20;
/// How long they may take to arrive.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);

/// Takes the body out of a request and lends it to it, so that what the request's handler leaves can be read.
/// A body that is not to be read, or that there is nothing of, stays where it is.
pub(crate) fn lend(request: Request) -> (Request, Home) {
    let headers = request.headers();
    if request.body().is_end_stream() || headers.contains_key(EXPECT) || is_grpc(headers) {
        return (request, Home(None));
    }
    let place = Place::default();
    let request = request.map(|body| Body::new(Lent { body, home: Arc::clone(&place) }));
    (request, Home(Some(place)))
}

type Place = Arc<Mutex<Option<Body>>>;

/// Where a lent body goes when its reader is through with it; none where none was lent.
pub(crate) struct Home(Option<Place>);

impl Home {
    /// Reads what came back of the body if the request was answered with a refusal.
    pub(crate) async fn linger(self, status: StatusCode) {
        let is_refused = status.is_client_error() || status.is_server_error();
        if !is_refused || status == StatusCode::REQUEST_TIMEOUT {
            return;
        }
        let body = self.0.and_then(|place| place.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(body) = body {
            discard(body).await;
        }
    }
}

/// A body that goes home with what was not read of it.
struct Lent {
    body: Body,
    home: Place,
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            let rest = std::mem::take(&mut self.body);
            *self.home.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
        }
    }
}

pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

async fn discard(mut body: Body) {
    let mut left = DISCARD_BYTES_MAX;
    let rest = async {
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            left = left.saturating_sub(length);
            if left == 0 {
                return;
            }
        }
    };
    // Whoever is slower than this may miss the answer.
    tokio::time::timeout(DISCARD_TIME_MAX, rest).await.ok();
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::middleware::{Next, from_fn};
    use axum::response::Response;
    use axum::routing::post;
    use futures::StreamExt as _;
    use http::Version;
    use rstest::rstest;
    use tower::ServiceExt as _;

    use super::*;

    async fn lingering(request: Request, next: Next) -> Response {
        let (request, home) = lend(request);
        let answer = next.run(request).await;
        home.linger(answer.status()).await;
        answer
    }

    /// How many of ten pieces of a body are read that is refused unread.
    async fn read_of(version: Version, headers: &[(&str, &str)]) -> usize {
        let read = Arc::new(AtomicUsize::new(0));
        let pieces = futures::stream::iter(0..10).map({
            let read = read.clone();
            move |_| {
                read.fetch_add(1, Ordering::SeqCst);
                Ok::<_, std::convert::Infallible>(Bytes::from_static(b" "))
            }
        });
        let router = Router::new().route("/", post(|| async { StatusCode::BAD_REQUEST }));
        let mut request = Request::post("/").version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from_stream(pieces)).unwrap();
        let answer = router.layer(from_fn(lingering)).oneshot(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        read.load(Ordering::SeqCst)
    }

    #[rstest]
    #[case::http_1(Version::HTTP_11, &[], 10)]
    #[case::http_2(Version::HTTP_2, &[], 10)]
    #[case::asked_first(Version::HTTP_11, &[("expect", "100-continue")], 0)]
    #[case::grpc(Version::HTTP_2, &[("content-type", "application/grpc")], 0)]
    #[tokio::test]
    async fn what_is_left_of_a_refused_body_is_read(
        #[case] version: Version,
        #[case] headers: &[(&str, &str)],
        #[case] pieces: usize,
    ) {
        assert_eq!(read_of(version, headers).await, pieces);
    }
}
