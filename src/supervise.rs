//! The only place where tasks are spawned. Every task has a name, a stop token and an owner that
//! waits for it; a worker that fails is reopened, or ends the program where nothing else is right.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use broker::{Error, Kind, Result};
use futures::FutureExt as _;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A worker that ran for this long starts with the first backoff again.
const STEADY_AFTER: Duration = Duration::from_secs(30);

/// Owns tasks that stop together.
pub(crate) struct Supervisor {
    stop: CancellationToken,
    tasks: Mutex<Vec<(&'static str, JoinHandle<()>)>>,
    failure: Arc<Failed>,
}

/// The first error that only an operator can mend, and the token that ends the program for it.
pub(crate) struct Failed {
    first: OnceLock<Error>,
    end: CancellationToken,
}

impl Failed {
    /// Cancels `end` at the first failure.
    pub(crate) fn new(end: CancellationToken) -> Arc<Self> {
        Arc::new(Self { first: OnceLock::new(), end })
    }

    /// The first failure.
    pub(crate) fn first(&self) -> Option<Error> {
        self.first.get().cloned()
    }

    fn set(&self, error: Error) {
        self.first.get_or_init(|| error);
        self.end.cancel();
    }
}

impl Supervisor {
    /// Owns no task yet.
    pub(crate) fn new(failure: Arc<Failed>) -> Self {
        Self { stop: CancellationToken::new(), tasks: Mutex::default(), failure }
    }

    /// Runs a task until it ends. `open` is called again after every error that may pass.
    pub(crate) fn keep<F, Fut>(&self, name: &'static str, open: F)
    where
        F: FnMut(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let task = reopen(name, open, self.stop.clone(), self.failure.clone());
        self.spawn(name, task);
    }

    /// Runs a task once.
    pub(crate) fn start<Fut>(&self, name: &'static str, task: impl FnOnce(CancellationToken) -> Fut)
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.spawn(name, task(self.stop.clone()));
    }

    /// A task that panics ends the program: nobody else does its work, and nobody would notice.
    #[allow(clippy::disallowed_methods, reason = "this is the door that others use")]
    fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let failure = self.failure.clone();
        let handle = tokio::spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                error!(task = name, "stopping after a panic");
                failure.set(Error::internal(format!("{name} panicked")));
            }
        });
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push((name, handle));
    }

    /// Tells every task to stop and waits for them; names those that still run at the deadline.
    pub(crate) async fn finish(&self, deadline: Instant) -> Vec<&'static str> {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let mut running = Vec::new();
        for (name, handle) in tasks {
            if timeout_at(deadline, handle).await.is_err() {
                running.push(name);
            }
        }
        running
    }
}

async fn reopen<F, Fut>(name: &'static str, mut open: F, stop: CancellationToken, failure: Arc<Failed>)
where
    F: FnMut(CancellationToken) -> Fut + Send,
    Fut: Future<Output = Result<()>> + Send,
{
    let mut backoff = BACKOFF_FIRST;
    while !stop.is_cancelled() {
        let opened = Instant::now();
        let Err(error) = open(stop.clone()).await else { return };
        if opened.elapsed() > STEADY_AFTER {
            backoff = BACKOFF_FIRST;
        }
        match error.kind() {
            Kind::Corrupt | Kind::Internal => {
                error!(task = name, %error, "stopping");
                failure.set(error.context(name));
                return;
            }
            Kind::Fenced => info!(task = name, %error, "reopening"),
            _ => {
                let wait = backoff.mul_f64(0.5 + rand::random::<f64>() / 2.0);
                warn!(task = name, %error, wait_ms = wait.as_millis(), "reopening after an error");
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = sleep(wait) => {}
                }
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

/// Spawns the tasks of connections, which come and go.
#[derive(Clone, Default)]
pub(crate) struct Connections {
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl Connections {
    /// Serves one connection, until it ends or is cut.
    pub(crate) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = connection => {}
                () = cut.cancelled() => {}
            }
        });
    }

    /// Waits until every connection has ended, and cuts those that have not at the deadline. Their
    /// requests were not answered, so nothing was promised.
    pub(crate) async fn finish(&self, deadline: Instant) {
        self.tasks.close();
        if timeout_at(deadline, self.tasks.wait()).await.is_err() {
            warn!(connections = self.tasks.len(), "cutting connections that did not end");
            self.cut.cancel();
            self.tasks.wait().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_is_reopened_until_it_ends_or_fails_for_good() {
        let failed = Failed::new(CancellationToken::new());
        let supervisor = Supervisor::new(failed.clone());
        let opened = Arc::new(AtomicU32::new(0));
        let count = opened.clone();
        supervisor.keep("worker", move |_| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            async move {
                match number {
                    0 => Err(Error::unavailable("not yet")),
                    1 => Err(Error::new(Kind::Fenced, "share lost")),
                    _ => Err(Error::corrupt("damaged")),
                }
            }
        });
        failed.end.cancelled().await;
        assert_eq!(opened.load(Ordering::SeqCst), 3);
        assert_eq!(failed.first().unwrap().kind(), Kind::Corrupt);
        assert!(supervisor.finish(Instant::now() + Duration::from_secs(1)).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_ends_the_program() {
        let failed = Failed::new(CancellationToken::new());
        let supervisor = Supervisor::new(failed.clone());
        supervisor.keep("worker", |_| async { panic!("a bug") });
        failed.end.cancelled().await;
        let error = failed.first().unwrap();
        assert_eq!((error.kind(), error.message()), (Kind::Internal, "worker panicked"));
        assert!(supervisor.finish(Instant::now() + Duration::from_secs(1)).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_stop_in_time_is_named() {
        let supervisor = Supervisor::new(Failed::new(CancellationToken::new()));
        supervisor.keep("stubborn", |_| std::future::pending());
        tokio::task::yield_now().await;
        let running = supervisor.finish(Instant::now() + Duration::from_secs(1)).await;
        assert_eq!(running, ["stubborn"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_does_not_end_is_cut() {
        let connections = Connections::default();
        connections.spawn(std::future::ready(()));
        connections.spawn(std::future::pending());
        let deadline = Instant::now() + Duration::from_secs(1);
        connections.finish(deadline).await;
        assert!(Instant::now() >= deadline && connections.tasks.is_empty());
    }
}
