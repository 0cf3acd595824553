//! Servers as processes of their own: the real one, and whatever else is compared with it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::flights::DATE_FORMAT;

/// The token of every server that a driver starts.
pub(crate) const TOKEN: &str = "token-of-the-benches";
/// Flags with which objects and splits are finished soon after the last event, so that a run has an end.
/// [`super::client::until_quiet`] waits for longer.
pub(crate) const PUBLISH_SOON: [&str; 4] =
    ["--set", "archive.object_age_seconds=3", "--set", "index.split_age_seconds=3"];
/// The program that is measured: built by the same command as the driver.
pub(crate) const HEADWATER: &str = env!("CARGO_BIN_EXE_headwater");
const START_MAX: Duration = Duration::from_secs(60);

/// A process that listens. Dropping it ends it.
pub(crate) struct Server {
    child: Child,
    pub(crate) base: String,
    /// From the start of the process until it said that it was ready.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// `headwater serve` in a folder, with these roles and flags.
    pub(crate) fn headwater(data: &Path, roles: &str, flags: &[&str]) -> Self {
        let mut command = Command::new(HEADWATER);
        command.arg("serve").arg("--data").arg(data).args(["--roles", roles]).args(flags);
        command.env("HEADWATER_TOKEN", TOKEN).env("HEADWATER_LOG_LEVEL", "warn");
        Self::start(command, "--listen")
    }

    /// This driver itself, in another part: `name` says which.
    pub(crate) fn another(name: &str, data: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("a program has a path"));
        command.arg(name).arg(data);
        Self::start(command, "--listen")
    }

    /// Starts what takes its address after `flag` and answers at `/readyz`.
    fn start(mut command: Command, flag: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("find a free port");
        let address = free.local_addr().expect("read the port").to_string();
        drop(free);
        command.args([flag, &address]).stdin(Stdio::null());
        let began = Instant::now();
        let child = command.spawn().expect("start the server");
        let base = format!("http://{address}");
        let mut server = Self { child, base, ready_after: Duration::ZERO };
        while !server.is_ready() {
            let ended = server.child.try_wait().expect("look after the server");
            assert!(ended.is_none(), "the server ended before it was ready: {ended:?}");
            assert!(began.elapsed() < START_MAX, "the server is not ready after {START_MAX:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
        server.ready_after = began.elapsed();
        server
    }

    fn is_ready(&self) -> bool {
        let address = self.base.trim_start_matches("http://");
        let Ok(mut stream) = std::net::TcpStream::connect(address) else { return false };
        let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        let mut answer = String::new();
        let asked = std::io::Write::write_all(&mut stream, request.as_bytes());
        let answered = asked.and_then(|()| std::io::Read::read_to_string(&mut stream, &mut answer));
        answered.is_ok() && answer.starts_with("HTTP/1.1 200")
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) fn stop(mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("tell the server to stop");
        let status = self.child.wait().expect("wait for the server");
        assert!(status.success(), "the server ended with {status}");
    }

    /// Defines a stream of flights and returns the path that records are posted to.
    pub(crate) async fn define(&self, dataset: &str, partitions: u32) -> String {
        self.define_with(dataset, partitions, Some(DATE_FORMAT)).await
    }

    /// The same, of flights whose dates are written otherwise; none detects it.
    pub(crate) async fn define_with(&self, dataset: &str, partitions: u32, format: Option<&str>) -> String {
        let definition = json!({
            "dataset": dataset, "version": "1", "partitions": partitions, "key": "/origin",
            "timestamp_field": "date", "timestamp_format": format,
        });
        let request = reqwest::Client::new().post(format!("{}/api/v1/streams", self.base));
        let answer = request.bearer_auth(TOKEN).json(&definition).send().await.expect("define the stream");
        assert!(answer.status().is_success(), "the stream was not made: {answer:?}");
        format!("/api/v1/streams/{dataset}/1/records")
    }

    /// An API key of a user that may write to a dataset.
    pub(crate) async fn key_to_write(&self, dataset: &str) -> String {
        let send = async |method: reqwest::Method, path: &str, body: serde_json::Value| {
            let request = reqwest::Client::new().request(method, format!("{}{path}", self.base));
            let answer = request.bearer_auth(TOKEN).json(&body).send().await.expect("ask the server");
            assert!(answer.status().is_success(), "{path}: {answer:?}");
            answer.json::<serde_json::Value>().await.expect("an answer is JSON")
        };
        send(reqwest::Method::POST, "/api/v1/users", json!({"name": "bench"})).await;
        let grant = format!("/api/v1/grants/{dataset}/bench");
        send(reqwest::Method::PUT, &grant, json!({"permissions": ["write"]})).await;
        let made = send(reqwest::Method::POST, "/api/v1/keys", json!({"user": "bench"})).await;
        made["key"].as_str().expect("a key is shown when it is made").to_owned()
    }

    /// Lets everybody subscribe to a dataset's stream.
    pub(crate) async fn let_subscribe(&self, dataset: &str) {
        let path = format!("{}/api/v1/streams/{dataset}/1", self.base);
        let request = reqwest::Client::new().patch(path).bearer_auth(TOKEN);
        let answer = request.json(&json!({"subscribable": true})).send().await.expect("change the stream");
        assert!(answer.status().is_success(), "the stream was not changed: {answer:?}");
    }

    /// Takes a stream away again, with all that it holds.
    pub(crate) async fn remove(&self, dataset: &str) {
        let path = format!("{}/api/v1/streams/{dataset}/1", self.base);
        let answer = reqwest::Client::new().delete(path).bearer_auth(TOKEN).send().await;
        let answer = answer.expect("remove the stream");
        assert!(answer.status().is_success(), "the stream was not removed: {answer:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().unwrap_or_default();
        self.child.wait().map_or_else(|_| (), drop);
    }
}
