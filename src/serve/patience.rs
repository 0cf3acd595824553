//! How long an HTTP/1 connection is waited for: long for the next request's first byte, and short for
//! the rest of its headers from then on.
//!
//! hyper has one timer for both. Here the connection tells the timer when bytes have come, and the
//! timer decides which of the two times counts. Bytes of a next request that came with the one before
//! count as none, so such a request may take the longer time.

use std::future::Future;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The times of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until the first byte of the next request.
    pub(super) idle: Duration,
    /// From then until its headers are complete.
    pub(super) headers: Duration,
}

/// A connection that notes when bytes have come.
pub(super) struct Noted {
    stream: TcpStream,
    has_bytes: Arc<AtomicBool>,
}

/// The timer of the same connection.
pub(super) struct HeadTimer {
    patience: Patience,
    has_bytes: Arc<AtomicBool>,
    /// Whether no request was waited for yet: the first one has begun when hyper begins to wait.
    is_new: AtomicBool,
}

/// A connection whose first byte has come, and its timer.
pub(super) fn watch(stream: TcpStream, patience: Patience) -> (Noted, HeadTimer) {
    let has_bytes = Arc::new(AtomicBool::new(false));
    let timer = HeadTimer { patience, has_bytes: Arc::clone(&has_bytes), is_new: AtomicBool::new(true) };
    (Noted { stream, has_bytes }, timer)
}

impl Timer for HeadTimer {
    fn sleep(&self, _duration: Duration) -> Pin<Box<dyn Sleep>> {
        // hyper asks when it begins to wait for a request.
        self.has_bytes.store(self.is_new.swap(false, Ordering::Relaxed), Ordering::Relaxed);
        Box::pin(Waiting {
            sleep: Box::pin(tokio::time::sleep(self.patience.idle)),
            headers: Some(self.patience.headers),
            has_bytes: Arc::clone(&self.has_bytes),
        })
    }

    fn sleep_until(&self, _deadline: Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(Duration::ZERO)
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, _deadline: Instant) {
        *sleep = self.sleep(Duration::ZERO);
    }
}

/// Waits for a request. The connection's task polls this whenever bytes have come that do not complete
/// its headers.
struct Waiting {
    sleep: Pin<Box<tokio::time::Sleep>>,
    /// The time for the headers, until the first byte has come.
    headers: Option<Duration>,
    has_bytes: Arc<AtomicBool>,
}

impl Sleep for Waiting {}

impl Future for Waiting {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.has_bytes.load(Ordering::Relaxed)
            && let Some(headers) = self.headers.take()
        {
            self.sleep.as_mut().reset(tokio::time::Instant::now() + headers);
        }
        self.sleep.as_mut().poll(context)
    }
}

impl AsyncRead for Noted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.has_bytes.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl AsyncWrite for Noted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
