//! The load over HTTP/1.1: connections of our own, each with one request at a time, so that their
//! number is what was asked for and a request costs little.

use std::pin::Pin;
use std::time::Duration;

use broker::StreamName;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{Connection, SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::answer::Outcome;
use super::measure::Load;
use crate::cli::client::{Client, bearer};
use crate::cli::streams;
use crate::failure::{Exit, Failure, OrFail};

/// An answer that takes longer is counted as none.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// Before a connection is made again that was lost.
pub(super) const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// What is said of a batch whose connection was lost.
pub(super) const NO_ANSWER: &str = "no answer";

/// Where requests go, and what they say.
pub(super) struct Target {
    host: String,
    port: u16,
    uri: Uri,
    headers: HeaderMap,
}

/// One connection, which makes progress only while a request waits for its answer.
pub(super) struct Link {
    sender: SendRequest<Full<Bytes>>,
    connection: Pin<Box<Connection<TokioIo<TcpStream>, Full<Bytes>>>>,
}

/// Records as a body, one a line.
pub(super) fn encode(records: &[Bytes]) -> Bytes {
    let lines = records.iter().flat_map(|record| [&record[..], b"\n"]);
    lines.collect::<Vec<_>>().concat().into()
}

impl Target {
    /// The records of a stream.
    pub(super) fn new(client: &Client, stream: &StreamName, minimal: bool) -> Result<Self, Failure> {
        let wrong = |error: String| Failure::new(Exit::Usage, error).with_field("server");
        let base = client.base();
        let host = base.host_str().ok_or_else(|| wrong("the server's URL has no host".to_owned()))?;
        let port = base.port_or_known_default().unwrap_or(80);
        let path = format!("{}/{}/records", base.path().trim_end_matches('/'), streams::path(stream));
        let uri = path.parse().map_err(|error: http::uri::InvalidUri| wrong(error.to_string()))?;
        let authority = HeaderValue::from_str(&format!("{host}:{port}"));
        let authority = authority.map_err(|error| wrong(error.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(HOST, authority);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        if let Some(token) = client.token() {
            headers.insert(AUTHORIZATION, bearer(token)?);
        }
        if minimal {
            headers.insert(HeaderName::from_static("prefer"), HeaderValue::from_static("return=minimal"));
        }
        Ok(Self { host: host.trim_matches(['[', ']']).to_owned(), port, uri, headers })
    }

    /// Opens a connection.
    pub(super) async fn connect(&self) -> Result<Link, Failure> {
        let doing = || format!("connect to {}:{}", self.host, self.port);
        let unavailable = |error: String| Failure::new(Exit::Unavailable, error);
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| unavailable(error.to_string())).or_fail(doing())?;
        stream.set_nodelay(true).or_fail(doing())?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| unavailable(error.to_string()))?;
        Ok(Link { sender, connection: Box::pin(connection) })
    }

    /// Sends batch after batch over one connection until there are no more. A connection that is lost
    /// is made again.
    pub(super) async fn run(&self, link: Link, load: &Load) {
        let mut link = Some(link);
        while let Some(turn) = load.schedule.next() {
            turn.wait().await;
            let (batch, from) = (load.corpus.batch(&turn), turn.from());
            let answered = timeout(ANSWER_TIME_MAX, self.post(&mut link, batch.body.clone())).await;
            if let Ok(Some((status, body))) = answered {
                let outcome = Outcome::of_http(status, &body, batch.records);
                load.tally.borrow_mut().answered(batch, from, outcome);
                continue;
            }
            load.tally.borrow_mut().lost(batch, NO_ANSWER);
            link = None;
            sleep(RECONNECT_PAUSE).await;
        }
    }

    async fn post(&self, link: &mut Option<Link>, body: Bytes) -> Option<(StatusCode, Bytes)> {
        if link.as_ref().is_none_or(|link| link.sender.is_closed()) {
            *link = self.connect().await.ok();
        }
        let mut request = Request::post(self.uri.clone()).body(Full::new(body)).ok()?;
        request.headers_mut().clone_from(&self.headers);
        link.as_mut()?.send(request).await
    }
}

impl Link {
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Option<(StatusCode, Bytes)> {
        let Link { sender, connection } = self;
        let answer = async {
            sender.ready().await.ok()?;
            let response = sender.send_request(request).await.ok()?;
            let status = response.status();
            Some((status, response.into_body().collect().await.ok()?.to_bytes()))
        };
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            // It ends before the answer is taken where the server closes behind it.
            _ = connection => {}
        }
        answer.await
    }
}
