//! A websocket from its handshake to its end: events out, control frames in.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::debug;

use super::{closing, missed};
use crate::follow::Content;
use crate::follow::subscription::{News, Subscription, version};
use crate::follow::websocket::{self, Code, Frames, Told, Violation};

/// How often a client is asked whether it is still there; one that says nothing until it is asked the
/// next time is not.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How long a client may take nothing of what is sent.
const WRITE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long the end may take.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(5);
/// Room for what a client sends at first.
const READ_BYTES: usize = 256;

/// How a session ends.
enum Ending {
    /// The client is gone.
    Gone,
    /// The client is told.
    Close(Code, String),
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Self {
        debug!(%error, "a subscriber is gone");
        Ending::Gone
    }
}

/// Sends what comes of a subscription until either side ends it.
pub(super) async fn run(io: impl AsyncRead + AsyncWrite, subscription: Subscription, content: Content) {
    let (read, write) = split(io);
    let (read, mut write) = (std::pin::pin!(read), std::pin::pin!(write));
    let Ending::Close(code, reason) = pump((read, write.as_mut()), subscription, content).await else {
        return;
    };
    let frame = websocket::close(code, &reason);
    let closed = timeout(CLOSE_TIME_MAX, async {
        write.write_all(&frame).await?;
        write.shutdown().await
    });
    if let Ok(Err(error)) = closed.await {
        debug!(%error, "a subscriber was gone before it was told");
    }
}

async fn pump(
    (mut read, mut write): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    mut subscription: Subscription,
    content: Content,
) -> Ending {
    let (mut frames, mut buffer) = (Frames::default(), BytesMut::with_capacity(READ_BYTES));
    let mut asking = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    asking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_there = true;
    loop {
        let sent = tokio::select! {
            told = hear(&mut read, &mut frames, &mut buffer) => {
                is_there = true;
                match told {
                    Ok(Told::Pong) => Ok(()),
                    Ok(Told::Ping(payload)) => send(&mut write, &websocket::pong(&payload)).await,
                    Ok(Told::Close) => return Ending::Close(Code::Normal, String::new()),
                    Err(ending) => return ending,
                }
            }
            _ = asking.tick() => {
                if !is_there {
                    debug!("a subscriber does not answer");
                    return Ending::Gone;
                }
                is_there = false;
                send(&mut write, &websocket::ping()).await
            }
            news = subscription.next() => match news {
                Ok(news) => {
                    let sent = tell(&mut write, &news, content).await;
                    // It has taken something, if late.
                    is_there = true;
                    sent
                }
                Err(end) => {
                    let (code, reason) = closing(end);
                    return Ending::Close(code, reason.to_owned());
                }
            },
        };
        if let Err(ending) = sent {
            return ending;
        }
    }
}

/// Sends events. Who is sent bare values and has missed some can be told in no frame, and is closed.
async fn tell(write: &mut (impl AsyncWrite + Unpin), news: &News, content: Content) -> Result<(), Ending> {
    match (missed(news), content) {
        (None, _) => {}
        (Some(missed), Content::Line) => send(write, &websocket::text(&missed)).await?,
        (Some(_), Content::Value) => {
            let range = news.chunk.missed.clone().unwrap_or_default();
            let place = format!("{}/{}", version(&news.place), news.place.partition);
            return Err(Ending::Close(
                Code::Missed,
                format!("missed {place} {}..{}", range.start, range.end),
            ));
        }
    }
    send(write, &news.chunk.frames).await
}

/// Writes all of it. A client that takes nothing for long is as good as gone.
async fn send(write: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> Result<(), Ending> {
    while !bytes.is_empty() {
        let Ok(written) = timeout(WRITE_TIME_MAX, write.write(bytes)).await else {
            debug!("a subscriber takes nothing");
            return Err(Ending::Gone);
        };
        let written = written?;
        if written == 0 {
            return Err(Ending::Gone);
        }
        bytes = &bytes[written..];
    }
    write.flush().await?;
    Ok(())
}

/// What a client says next. Cancel-safe.
async fn hear(
    read: &mut (impl AsyncRead + Unpin),
    frames: &mut Frames,
    buffer: &mut BytesMut,
) -> Result<Told, Ending> {
    loop {
        match frames.next(buffer) {
            Ok(Some(told)) => return Ok(told),
            Ok(None) => {}
            Err(Violation(why)) => return Err(Ending::Close(Code::Protocol, why.to_owned())),
        }
        if read.read_buf(buffer).await? == 0 {
            return Err(Ending::Gone);
        }
    }
}
