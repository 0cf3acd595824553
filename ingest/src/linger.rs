//! Lets clients read why they are refused.
//!
//! Over HTTP/1 a server that answers before it has read the body and then closes the connection
//! makes most clients fail while they send, with "broken pipe" in place of the answer; over HTTP/2
//! it resets the stream after the answer, which some clients, curl among them, report in its place.
//! So what is left of a refused body is read and thrown away, within bounds, before the answer is
//! given. A client that asked first (`Expect: 100-continue`) sends no body and waits for none to be
//! read. Bodies of gRPC pass as they are: its refusals are answers of success to HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::unfold;
use http::header::{CONTENT_TYPE, EXPECT};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::Mutex;

/// Bytes of a refused body that are thrown away at most.
const DISCARD_BYTES_MAX: usize = 64 << 20;
/// How long they may take to arrive.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);

/// Passes the request on, and reads what is left of its body if it is refused.
pub(crate) async fn linger(request: Request, next: Next) -> Response {
    if request.headers().contains_key(EXPECT) || is_grpc(request.headers()) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let body = Arc::new(Mutex::new(body));
    let response = next.run(Request::from_parts(parts, share(body.clone()))).await;
    let status = response.status();
    let is_refused = status.is_client_error() || status.is_server_error();
    if is_refused && status != StatusCode::REQUEST_TIMEOUT {
        discard(&mut *body.lock().await).await;
    }
    response
}

pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The same body, read by whoever has it.
fn share(body: Arc<Mutex<Body>>) -> Body {
    Body::from_stream(unfold(body, |body| async {
        let frame = loop {
            match body.lock().await.frame().await? {
                Ok(frame) if frame.is_data() => break Ok(frame.into_data().unwrap_or_default()),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        Some((frame, body))
    }))
}

async fn discard(body: &mut Body) {
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
    use axum::middleware::from_fn;
    use axum::routing::post;
    use futures::StreamExt as _;
    use http::Version;
    use rstest::rstest;
    use tower::ServiceExt as _;

    use super::*;

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
        let answer = router.layer(from_fn(linger)).oneshot(request).await.unwrap();
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
