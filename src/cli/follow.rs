//! `headwater follow`: events as they are processed, over gRPC, one line of JSON each.

use broker::{StreamName, Timestamp};
use clap::Args;
use proto::v1;
use proto::v1::events_client::EventsClient;
use serde_json::value::RawValue;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status, Streaming};

use super::Settings;
use super::client::{Client, Event, Position, bearer};
use super::query::print_line;
use crate::failure::{Exit, Failure};

/// The largest event that is taken.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Prints events as they are processed, one line of JSON each, until it is interrupted.
#[derive(Args, Debug)]
pub(crate) struct Follow {
    /// DATASET/VERSION
    stream: StreamName,
    /// Begins with the oldest event that the log holds [default: with the next one]
    #[arg(long)]
    from_start: bool,
    /// Begins with events that arrived at this RFC 3339 instant or later
    #[arg(long, value_name = "TIME", value_parser = instant, conflicts_with = "from_start")]
    since: Option<Timestamp>,
}

impl Follow {
    pub(super) async fn run(self, settings: &Settings) -> Result<(), Failure> {
        let client = Client::new(settings)?;
        let mut events = self.open(&client).await?;
        loop {
            let next = tokio::select! {
                biased;
                _ = tokio::signal::ctrl_c() => return Ok(()),
                next = events.message() => next,
            };
            match next.map_err(refused)? {
                Some(event) => print_line(&readable(event)?)?,
                None => return Err(Failure::new(Exit::Unavailable, "the server ended the stream")),
            }
        }
    }

    async fn open(&self, client: &Client) -> Result<Streaming<v1::Event>, Failure> {
        let endpoint = Endpoint::from_shared(client.base().to_string()).map_err(unreachable)?;
        let channel = endpoint.connect().await.map_err(unreachable)?;
        let mut events = EventsClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let mut request = Request::new(self.request());
        if let Some(token) = client.token() {
            let value = bearer(token)?;
            let text = value.to_str().map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
            let value = text.parse().map_err(|_| Failure::new(Exit::Usage, "a token is printable ASCII"))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(events.follow(request).await.map_err(refused)?.into_inner())
    }

    fn request(&self) -> v1::FollowRequest {
        let start = self.from_start.then_some(0);
        let micros = self.since.map(Timestamp::micros).or(start);
        v1::FollowRequest {
            dataset: self.stream.dataset().to_owned(),
            version: self.stream.version().to_owned(),
            from: micros.map(v1::follow_request::From::ArrivalMicros),
        }
    }
}

/// The event as every other answer shows it.
fn readable(event: v1::Event) -> Result<Event, Failure> {
    let unreadable = |what: &str| Failure::new(Exit::Failure, format!("the server sent an event {what}"));
    let position = event.position.ok_or_else(|| unreadable("without its position"))?;
    let origin = event.origin.unwrap_or(position);
    let timestamp =
        Timestamp::from_micros(event.timestamp_micros).ok_or_else(|| unreadable("without a time"))?;
    let text = String::from_utf8(event.value.into()).map_err(|_| unreadable("that is not text"))?;
    let value = RawValue::from_string(text).map_err(|_| unreadable("that is not JSON"))?;
    Ok(Event {
        partition: position.partition,
        offset: position.offset,
        origin: Position { partition: origin.partition, offset: origin.offset },
        timestamp: timestamp.to_string(),
        key: event.key,
        value,
    })
}

fn refused(status: Status) -> Failure {
    let exit = match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => Exit::Usage,
        Code::NotFound => Exit::NotFound,
        Code::AlreadyExists => Exit::Conflict,
        Code::Unauthenticated | Code::PermissionDenied => Exit::Unauthenticated,
        Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::Cancelled => Exit::Unavailable,
        _ => Exit::Failure,
    };
    Failure::new(exit, status.message())
}

fn unreachable(error: tonic::transport::Error) -> Failure {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Failure::new(Exit::Unavailable, message).context("reach the server")
}

fn instant(text: &str) -> Result<Timestamp, String> {
    let time = chrono::DateTime::parse_from_rfc3339(text);
    let time = time.map_err(|_| "expected an instant such as 2001-01-31T12:00:00Z".to_owned())?;
    Timestamp::from_utc(time.to_utc()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_reads_as_in_every_other_answer() {
        let event = v1::Event {
            position: Some(v1::Position { partition: 1, offset: 9 }),
            origin: Some(v1::Position { partition: 1, offset: 12 }),
            timestamp_micros: 978_307_620_000_000,
            key: Some("DTW".into()),
            value: r#"{"delay": 1.50}"#.into(),
        };
        let expected = r#"{"partition":1,"offset":9,"origin":{"partition":1,"offset":12},"timestamp":"2001-01-01T00:07:00Z","key":"DTW","value":{"delay": 1.50}}"#;
        assert_eq!(serde_json::to_string(&readable(event).unwrap()).unwrap(), expected);
    }
}
