//! The HTTP client of a running server: finds server and token, turns an answer's error into a
//! failure with its field, and waits where the server says so.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use reqwest::{RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep};

use super::Settings;
use crate::config::{Secret, surroundings, token};
use crate::failure::{Exit, Failure, OrFail};

/// Until a connection stands.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Between two tries where the server names no time.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that is taken from an answer.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A server and the right to talk to it.
#[derive(Clone, Debug)]
pub(super) struct Client {
    base: Url,
    token: Option<Secret>,
    http: reqwest::Client,
}

impl Client {
    /// The server and the token that flags, environment, file or data folder name. The token of the
    /// data folder is given to a server on this machine only.
    pub(super) fn new(settings: &Settings) -> Result<Self, Failure> {
        let config = settings.load()?.config;
        let base = match settings.server.clone().or_else(surroundings::server) {
            Some(text) => parse_base(&text)?,
            None => parse_base(&format!("http://{}", reachable(config.listen)))?,
        };
        let token = match config.token {
            Some(token) => Some(token),
            None if is_loopback(&base) => token::read(&config.data)?,
            None => None,
        };
        Self::with(base, token)
    }

    /// A client of this server.
    pub(super) fn with(base: Url, token: Option<Secret>) -> Result<Self, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(token) = &token {
            headers.insert(AUTHORIZATION, bearer(token)?);
        }
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_TIME_MAX)
            .no_proxy()
            .build()
            .map_err(failed)?;
        Ok(Self { base, token, http })
    }

    /// The server.
    pub(super) fn base(&self) -> &Url {
        &self.base
    }

    /// Whether the server is on this machine.
    pub(super) fn is_local(&self) -> bool {
        is_loopback(&self.base)
    }

    /// The token.
    pub(super) fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    /// A request to a path below the server's root, such as `api/v1/streams`.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        self.http.request(method, url)
    }

    /// Asks for JSON.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &(impl Serialize + Sync + ?Sized),
    ) -> Result<T, Failure> {
        json(send(self.request(Method::GET, path).query(query)).await?).await
    }

    /// Every row of a list that is answered in pages, from the `field` of each.
    pub(super) async fn all(
        &self,
        path: &str,
        field: &str,
        asked: &[(&str, &str)],
    ) -> Result<Vec<Value>, Failure> {
        let (mut rows, mut after) = (Vec::new(), None::<String>);
        loop {
            let after_pair = after.as_deref().map(|after| ("after", after));
            let query: Vec<_> = asked.iter().copied().chain(after_pair).collect();
            let mut page: Value = self.get(path, &query).await?;
            rows.extend(page[field].as_array_mut().map(std::mem::take).unwrap_or_default());
            after = page["next"].as_str().map(str::to_owned);
            if after.is_none() {
                return Ok(rows);
            }
        }
    }

    /// Sends JSON and takes JSON.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &(impl Serialize + Sync + ?Sized),
    ) -> Result<T, Failure> {
        json(send(self.request(method, path).json(body)).await?).await
    }
}

/// The header value that presents a token.
pub(super) fn bearer(token: &Secret) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        .map_err(|_| Failure::new(Exit::Usage, "a token is printable ASCII").with_field("token"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Sends once; an answer that is no success is a failure.
pub(super) async fn send(request: RequestBuilder) -> Result<Response, Failure> {
    checked(request.send().await.map_err(failed)?).await
}

/// Sends until the server takes it, as long as the server says that it is busy or cannot be
/// reached, and no longer than `patience`. A request that may have been taken is not sent again.
pub(super) async fn send_patiently(
    request: RequestBuilder,
    patience: Duration,
    waiting: impl Fn(&Failure),
) -> Result<Response, Failure> {
    let deadline = Instant::now() + patience;
    loop {
        let again = request.try_clone();
        let (failure, pause) = match request_once(request_or(&request, again)?).await? {
            Try::Done(response) => return Ok(response),
            Try::Later(failure, pause) => (failure, pause),
        };
        if Instant::now() + pause > deadline {
            return Err(failure);
        }
        waiting(&failure);
        sleep(pause).await;
    }
}

fn request_or(request: &RequestBuilder, clone: Option<RequestBuilder>) -> Result<RequestBuilder, Failure> {
    let cannot = || Failure::new(Exit::Failure, format!("cannot send {request:?} again"));
    clone.ok_or_else(cannot)
}

enum Try {
    Done(Response),
    Later(Failure, Duration),
}

async fn request_once(request: RequestBuilder) -> Result<Try, Failure> {
    let response = match request.send().await {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Ok(Try::Later(failed(error), PAUSE)),
        Err(error) => return Err(failed(error)),
    };
    let is_busy = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE];
    if !is_busy.contains(&response.status()) {
        return checked(response).await.map(Try::Done);
    }
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let pause = seconds.map_or(PAUSE, Duration::from_secs).min(PAUSE_MAX);
    match checked(response).await {
        Ok(response) => Ok(Try::Done(response)),
        Err(failure) => Ok(Try::Later(failure, pause)),
    }
}

/// Reads an answer's JSON.
pub(super) async fn json<T: DeserializeOwned>(response: Response) -> Result<T, Failure> {
    let body = response.bytes().await.map_err(failed)?;
    serde_json::from_slice(&body)
        .map_err(|error| Failure::new(Exit::Failure, error.to_string()))
        .or_fail("read the server's answer")
}

async fn checked(response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await.map_err(failed)?;
    Err(refusal(status, &body))
}

/// The error that an answer carries, in the shape of `/api/v1`, or whatever it carries instead.
fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    #[derive(Deserialize)]
    struct Body {
        error: Refusal,
    }
    let exit = match status.as_u16() {
        401 | 403 => Exit::Unauthenticated,
        404 => Exit::NotFound,
        409 | 412 => Exit::Conflict,
        408 | 429 | 502..=504 => Exit::Unavailable,
        400..=499 => Exit::Usage,
        _ => Exit::Failure,
    };
    /// The shape of RFC 6749, of the token endpoint.
    #[derive(Deserialize)]
    struct OfToken {
        error: String,
        error_description: String,
    }
    if let Ok(OfToken { error, error_description }) = serde_json::from_slice(body) {
        let exit = if error == "invalid_grant" { Exit::Unauthenticated } else { exit };
        return Failure::new(exit, error_description);
    }
    match serde_json::from_slice::<Body>(body) {
        Ok(Body { error }) => error.into_failure(exit),
        Err(_) => {
            let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
            Failure::new(exit, format!("the server answered {status}: {}", text.trim()))
        }
    }
}

/// Why a request or a record was refused.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Refusal {
    message: String,
    field: Option<String>,
}

impl Refusal {
    fn into_failure(self, exit: Exit) -> Failure {
        let failure = Failure::new(exit, self.message);
        match self.field {
            Some(field) => failure.with_field(field),
            None => failure,
        }
    }

    /// Field and message.
    pub(super) fn describe(&self) -> String {
        match &self.field {
            Some(field) => format!("{field}: {}", self.message),
            None => self.message.clone(),
        }
    }
}

/// What a request that got no answer means.
pub(super) fn failed(error: reqwest::Error) -> Failure {
    let exit = if error.is_builder() { Exit::Usage } else { Exit::Unavailable };
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Failure::new(exit, message)
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) partition: u32,
    pub(super) offset: u64,
}

/// A processed event, as every answer holds it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Event {
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) origin: Position,
    pub(super) timestamp: String,
    pub(super) key: Option<String>,
    pub(super) value: Box<RawValue>,
}

/// One page of events.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    pub(super) complete_through: broker::Timestamp,
    pub(super) events: Vec<Event>,
    pub(super) cursor: Option<String>,
}

fn parse_base(text: &str) -> Result<Url, Failure> {
    let wrong = |why: String| {
        Failure::new(Exit::Usage, format!("`{text}` is no server's URL: {why}")).with_field("server")
    };
    let url = Url::parse(text).map_err(|error| wrong(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("it does not begin with http:// or https://".to_owned()));
    }
    Ok(url)
}

/// The address to call where the server listens on every address of the machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), listen.port())
    } else {
        listen
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answers_error_becomes_a_failure_with_its_field() {
        let body = br#"{"error":{"kind":"invalid","message":"a version is short","field":"version","request_id":"1"}}"#;
        let failure = refusal(StatusCode::BAD_REQUEST, body);
        assert_eq!(failure.to_string(), "version: a version is short");
        assert_eq!(failure.exit(), Exit::Usage);
        let failure = refusal(StatusCode::NOT_FOUND, b"nothing here");
        assert_eq!(failure.to_string(), "the server answered 404 Not Found: nothing here");
        assert_eq!(failure.exit(), Exit::NotFound);
    }

    #[test]
    fn the_local_token_stays_on_this_machine() {
        for (url, expected) in [
            ("http://127.0.0.1:7070", true),
            ("http://localhost", true),
            ("http://[::1]:7070", true),
            ("http://127.0.0.1.example.org", false),
            ("https://headwater.example.org", false),
        ] {
            assert_eq!(is_loopback(&parse_base(url).unwrap()), expected, "{url}");
        }
        assert!(parse_base("localhost:7070").is_err());
        assert!(parse_base("ftp://localhost").is_err());
    }
}
