//! Lets clients read why they are refused.
//!
//! Over HTTP/1 a server that answers before it has read the body and then closes the connection
//! makes most clients fail while they send, with "broken pipe" in place of the answer. So what is
//! left of a refused body is read and thrown away, within bounds, before the answer is given. A
//! client that asked first (`Expect: 100-continue`) sends no body and waits for none to be read.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::unfold;
use http::header::EXPECT;
use http::{StatusCode, Version};
use http_body_util::BodyExt as _;
use tokio::sync::Mutex;

/// Bytes of a refused body that are thrown away at most.
const DISCARD_BYTES_MAX: usize = 64 << 20;
/// How long they may take to arrive.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(5);

/// Passes the request on, and reads what is left of its body if it is refused.
pub(crate) async fn linger(request: Request, next: Next) -> Response {
    if request.version() >= Version::HTTP_2 || request.headers().contains_key(EXPECT) {
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
