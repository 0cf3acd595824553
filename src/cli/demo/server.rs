//! A server of the demo's own: this program once more, as `serve`, on a free port.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use http::Method;
use reqwest::Url;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::super::client::Client;
use crate::config::{Secret, surroundings, token};
use crate::failure::{Exit, Failure, OrFail};

/// Until the server is ready.
const START_TIME_MAX: Duration = Duration::from_secs(60);
/// Until the server has stopped.
const STOP_TIME_MAX: Duration = Duration::from_secs(40);
/// Between two looks at something that takes its time.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// What is shown of the server's own log when it does not start.
const LOG_LINES_SHOWN_MAX: usize = 12;

/// A running server; it is killed if it is dropped before it was stopped.
pub(super) struct Server {
    process: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Starts a server on `data` that flushes its objects after a second.
    pub(super) fn start(data: &Path) -> Result<Self, Failure> {
        let address = free_address()?;
        let log = data.join("demo-server.log");
        let output = File::create(&log).or_fail(format!("write {}", log.display()))?;
        let errors = output.try_clone().or_fail(format!("write {}", log.display()))?;
        let process = Command::new(surroundings::own_executable()?)
            .arg("serve")
            .arg("--data")
            .arg(data)
            .args(["--listen", &address.to_string()])
            .args(["--log", "sled", "--roles", "ingest,router,sinks,query"])
            .arg("--objects")
            .arg(data.join("objects"))
            .args(["--set", "archive.object_age_seconds=1"])
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .or_fail("start the server")?;
        Ok(Self { process, address, log })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it is ready and returns a client with its token.
    pub(super) async fn ready(&mut self, data: &Path, given: Option<Secret>) -> Result<Client, Failure> {
        let base = Url::parse(&format!("http://{}", self.address))
            .map_err(|error| Failure::new(Exit::Failure, error.to_string()))?;
        let anonymous = Client::with(base.clone(), None)?;
        let deadline = Instant::now() + START_TIME_MAX;
        loop {
            let answer = anonymous.request(Method::GET, "readyz").send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                break;
            }
            let ended = self.process.try_wait().or_fail("look at the server")?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(self.did_not_start());
            }
            sleep(LOOK_INTERVAL).await;
        }
        let token = match given {
            Some(token) => Some(token),
            None => token::read(data)?,
        };
        Client::with(base, token)
    }

    /// Asks it to stop, as an operator would, and waits until it has.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            kill_process(id, Signal::TERM)
                .map_err(|error| Failure::new(Exit::Failure, format!("stop the server: {error}")))?;
        }
        let ended = timeout(STOP_TIME_MAX, self.process.wait()).await;
        let late = || Failure::new(Exit::Failure, "the server did not stop in time");
        let status = ended.map_err(|_| late())?.or_fail("wait for the server")?;
        if status.success() {
            return Ok(());
        }
        let message = format!("the server stopped with {status}; see {}", self.log.display());
        Err(Failure::new(Exit::Failure, message))
    }

    fn did_not_start(&self) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN_MAX)..];
        Failure::new(Exit::Unavailable, format!("the server did not start:\n{}", shown.join("\n")))
    }
}

/// A port that nobody listens on at the moment.
fn free_address() -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).or_fail("find a free port")?;
    listener.local_addr().or_fail("find a free port")
}
