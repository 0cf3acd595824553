//! `GET /event-data-subscription?dataset_id=`: the events of a dataset as they are processed, over a
//! websocket as the subscription service has it that this surface stands in for, or as Server-Sent Events
//! where the request accepts `text/event-stream`.

mod session;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use broker::access::webhook::{Operation, Reason};
use broker::access::{Caller, Denial, Peer, retry_after};
use broker::{Error, Kind, Permission, Result, StreamName};
use bytes::Bytes;
use futures::Stream;
use http::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName,
    HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tracing::{debug, error};

use super::contract::{Message, said};
use super::handover::Handover;
use crate::follow::subscription::{End, News, Since, Subscriber, Subscription, Wanted, version};
use crate::follow::{Content, Form, entries, websocket};
use crate::index::Indexer;
use crate::line::put_on_one_line;

pub(super) const PATH: &str = "/event-data-subscription";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
/// How often a quiet stream of events shows that it is still there.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// How long a client waits before it comes again, in milliseconds.
const RETRY_MILLIS: u32 = 1_000;

/// Why nobody is subscribed.
#[derive(Debug)]
enum Refusal {
    Said(StatusCode, String),
    /// 429 with the seconds to wait.
    TooMany(u64),
    /// It is another protocol's turn.
    Upgrade,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match (error.kind(), error.field()) {
            (Kind::Busy, _) => Refusal::TooMany(1),
            (Kind::Invalid, Some(field)) => {
                Refusal::Said(StatusCode::BAD_REQUEST, format!("{field}: {error}"))
            }
            _ => {
                error!(%error, "a subscription could not begin");
                let message = "Error occured during connect".to_owned();
                Refusal::Said(StatusCode::INTERNAL_SERVER_ERROR, message)
            }
        }
    }
}

impl Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Said(status, message) => said(status, &Message { message }),
            Refusal::TooMany(seconds) => {
                let mut response = said_text(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests");
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
                response
            }
            Refusal::Upgrade => {
                let message = "this is a websocket (version 13), or text/event-stream where that is accepted";
                let mut response = said_text(StatusCode::UPGRADE_REQUIRED, message);
                let headers = response.headers_mut();
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                headers.insert(ALLOW, HeaderValue::from_static("GET"));
                response
            }
        }
    }
}

fn said_text(status: StatusCode, message: &str) -> Response {
    said(status, &Message { message: message.to_owned() })
}

/// The parameters of a request. Of one that stands twice the last counts.
#[derive(Default)]
struct Parameters {
    dataset: Option<String>,
    webhook_token: Option<String>,
    from: Option<String>,
    format: Option<String>,
}

impl Parameters {
    fn read(query: &str) -> Self {
        let mut parameters = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let field = match &*name {
                "dataset_id" => &mut parameters.dataset,
                "webhook_token" => &mut parameters.webhook_token,
                "from" => &mut parameters.from,
                "format" => &mut parameters.format,
                _ => continue,
            };
            *field = Some(value.into_owned()).filter(|value| !value.is_empty());
        }
        parameters
    }

    fn content(&self) -> Result<Content> {
        match self.format.as_deref() {
            None | Some("value") => Ok(Content::Value),
            Some("line") => Ok(Content::Line),
            Some(_) => Err(Error::invalid("format", "a format is value or line")),
        }
    }
}

#[utoipa::path(
    get,
    path = "/event-data-subscription",
    tag = "event streams",
    operation_id = "subscribe",
    security(("bearer" = []), ("subscription" = [])),
    summary = "Subscribes to a dataset's events",
    params(
        ("dataset_id" = String, Query, description = "The dataset id", pattern = "^[a-z0-9][a-z0-9_-]{0,69}$"),
        ("webhook_token" = Option<String>, Query, description = "In the place of a bearer"),
        ("from" = Option<String>, Query, description = "`now`, a date, an instant, or positions"),
        ("format" = Option<String>, Query, description = "`value` or `line`", pattern = "^(value|line)$"),
        ("Accept" = Option<String>, Header, description = "`text/event-stream` for Server-Sent Events"),
        ("Last-Event-ID" = Option<String>, Header, description = "Where to go on"),
    ),
    responses(
        (status = 200, description = "Server-Sent Events", content_type = "text/event-stream", body = String),
        (status = 101, description = "A websocket"),
        (status = "4XX", description = "The request is refused", body = Message),
        (status = "5XX", description = "It cannot be done now", body = Message),
    ),
)]
pub(super) async fn subscribe(
    State(indexer): State<Arc<Indexer>>,
    Extension(Caller(caller)): Extension<Caller>,
    request: Request,
) -> Response {
    let parameters = Parameters::read(request.uri().query().unwrap_or_default());
    let peer = request.extensions().get::<Peer>().copied().unwrap_or_default();
    let mut response = match subscriber(&indexer, caller, &parameters, peer) {
        Err(refusal) => refusal.into_response(),
        Ok((subscriber, dataset)) => {
            let asked = Asked { indexer, subscriber, dataset, parameters };
            asked.answer(request).await.unwrap_or_else(Refusal::into_response)
        }
    };
    response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// Who subscribes to what. Where there are both a bearer and a webhook token the bearer decides.
fn subscriber(
    indexer: &Indexer,
    caller: Result<broker::Principal, Denial>,
    parameters: &Parameters,
    peer: Peer,
) -> Result<(Subscriber, String), Refusal> {
    let bad_request = || Refusal::Said(StatusCode::BAD_REQUEST, "Bad request".to_owned());
    let dataset = parameters.dataset.clone().ok_or_else(bad_request)?;
    let subscriber = match (caller, &parameters.webhook_token) {
        (Ok(principal), _) => {
            if !indexer.catalog.may(&principal, &dataset, Permission::Read) {
                return Err(Refusal::Said(StatusCode::FORBIDDEN, "Forbidden".to_owned()));
            }
            Subscriber::Principal(principal)
        }
        (Err(Denial::Missing | Denial::Unsupported), Some(token)) => {
            let asked = (&*dataset, Operation::Read);
            let found = indexer.webhooks.authorize(token, asked, peer);
            let token = found.map_err(|reason| match reason {
                Reason::TooMany(wait) => Refusal::TooMany(retry_after(wait)),
                reason => Refusal::Said(StatusCode::FORBIDDEN, reason.to_string()),
            })?;
            Subscriber::Webhook(token.id.clone())
        }
        (Err(Denial::Missing | Denial::Unsupported), None) => return Err(bad_request()),
        (Err(Denial::TooMany(wait)), _) => return Err(Refusal::TooMany(retry_after(wait))),
        (Err(Denial::Unavailable(_)), _) => {
            let message = "Error occured during connect".to_owned();
            return Err(Refusal::Said(StatusCode::INTERNAL_SERVER_ERROR, message));
        }
        (Err(Denial::Expired(_) | Denial::Wrong(_)), _) => {
            return Err(Refusal::Said(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()));
        }
    };
    // What can be no dataset would be waited for in vain.
    StreamName::new(&dataset, "1").map_err(|_| bad_request())?;
    Ok((subscriber, dataset))
}

/// A request of somebody who may read.
struct Asked {
    indexer: Arc<Indexer>,
    subscriber: Subscriber,
    dataset: String,
    parameters: Parameters,
}

impl Asked {
    async fn answer(self, request: Request) -> Result<Response, Refusal> {
        // Whatever protocol it is going to be.
        self.parameters.content()?;
        Since::parse(self.parameters.from.as_deref().unwrap_or_default())?;
        let headers = request.headers();
        if headers.get_all(ACCEPT).iter().any(|accept| names(accept, "text/event-stream")) {
            let last = headers.get(LAST_EVENT_ID).and_then(|last| last.to_str().ok()).map(str::to_owned);
            return self.stream(last).await;
        }
        self.upgrade(request).await
    }

    async fn open(self, since: Option<&str>, form: fn(Content) -> Form) -> Result<(Subscription, Content)> {
        let content = self.parameters.content()?;
        let since = Since::parse(since.or(self.parameters.from.as_deref()).unwrap_or_default())?;
        let wanted = Wanted { dataset: self.dataset, since, form: form(content) };
        Ok((Subscription::open(&self.indexer, self.subscriber, wanted).await?, content))
    }

    async fn upgrade(self, mut request: Request) -> Result<Response, Refusal> {
        let handover = request.extensions().get::<Handover>().cloned();
        let key = if request.version() == Version::HTTP_11 { handshake(request.headers()) } else { None };
        let (Some(accept), Some(handover)) = (key, handover) else { return Err(Refusal::Upgrade) };
        let (subscription, content) = self.open(None, Form::Frames).await?;
        let upgraded = hyper::upgrade::on(&mut request);
        handover.leave(async move {
            match upgraded.await {
                Ok(upgraded) => session::run(TokioIo::new(upgraded), subscription, content).await,
                Err(error) => debug!(%error, "a client went away before it was subscribed"),
            }
        });
        let headers = [
            (UPGRADE, HeaderValue::from_static("websocket")),
            (CONNECTION, HeaderValue::from_static("upgrade")),
            (SEC_WEBSOCKET_ACCEPT, accept),
        ];
        Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
    }

    async fn stream(self, last: Option<String>) -> Result<Response, Refusal> {
        let (subscription, _) = self.open(last.as_deref(), Form::Entries).await?;
        let headers = [
            (CONTENT_TYPE, EVENT_STREAM),
            (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            // Proxies would hold events back until there are many.
            (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
        ];
        Ok((headers, Body::from_stream(written(subscription))).into_response())
    }
}

/// The answer to the handshake of a websocket; none if it is none.
fn handshake(headers: &HeaderMap) -> Option<HeaderValue> {
    let says = |name, word| headers.get_all(name).iter().any(|value| names(value, word));
    if !says(UPGRADE, "websocket") || !says(CONNECTION, "upgrade") || !says(SEC_WEBSOCKET_VERSION, "13") {
        return None;
    }
    let accept = websocket::accept(headers.get(SEC_WEBSOCKET_KEY)?.as_bytes())?;
    HeaderValue::from_str(&accept).ok()
}

/// Whether a header lists a word, in any case and whatever its parameters.
fn names(header: &HeaderValue, word: &str) -> bool {
    let list = header.to_str().unwrap_or_default().split(',');
    let words = list.filter_map(|item| item.split(';').next());
    words.map(str::trim).any(|item| item.eq_ignore_ascii_case(word))
}

/// A subscription as Server-Sent Events. The id of each is where to go on after it, in all partitions.
fn written(mut subscription: Subscription) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    async_stream::stream! {
        yield Ok(format!("retry: {RETRY_MILLIS}\nid: {}\n\n", subscription.at()).into());
        loop {
            let next = tokio::time::timeout(COMMENT_EVERY, subscription.next()).await;
            match next {
                Err(_) => yield Ok(Bytes::from_static(b":\n\n")),
                Ok(Ok(news)) => {
                    let mut at = subscription.at().clone();
                    let mut out = Vec::with_capacity(news.chunk.frames.len() * 2);
                    put_missed(&news, &mut out);
                    for (offset, event) in entries(news.chunk.frames) {
                        at.set(&news.place, offset.next());
                        out.extend_from_slice(format!("id: {at}\ndata: ").as_bytes());
                        put_on_one_line(event.strip_suffix(b"\n").unwrap_or(&event), &mut out);
                        out.extend_from_slice(b"\n\n");
                    }
                    yield Ok(out.into());
                }
                Ok(Err(end)) => {
                    let (_, reason) = closing(end);
                    yield Ok(format!("event: end\ndata: {{\"reason\":\"{reason}\"}}\n\n").into());
                    return;
                }
            }
        }
    }
}

fn put_missed(news: &News, out: &mut Vec<u8>) {
    if let Some(missed) = missed(news) {
        out.extend_from_slice(format!("event: missed\ndata: {missed}\n\n").as_bytes());
    }
}

/// What a subscriber has missed, in JSON.
fn missed(news: &News) -> Option<String> {
    let missed = news.chunk.missed.as_ref()?;
    let (version, partition) = (version(&news.place), news.place.partition);
    let (from, to) = (missed.start, missed.end);
    let missed = format!(r#""missed":{{"from":{from},"to":{to}}}"#);
    Some(format!(r#"{{"version":"{version}","partition":{partition},{missed}}}"#))
}

/// How a subscription is closed, and what is said of it.
fn closing(end: End) -> (websocket::Code, &'static str) {
    match end {
        End::Shutdown => (websocket::Code::GoingAway, "the server stops"),
        End::Forbidden => (websocket::Code::Policy, "Forbidden"),
        End::Failed(error) => {
            error!(%error, "a subscription failed");
            (websocket::Code::Failure, "the stream cannot be read")
        }
    }
}
