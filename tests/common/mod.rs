//! Runs the real binary and talks to it as a client would.
#![allow(dead_code, reason = "each test target uses its own part")]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;

/// The token of every server that tests start.
pub(crate) const TOKEN: &str = "token-of-the-tests";
const START_MAX: Duration = Duration::from_secs(60);

/// A server process. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    client: Client,
    base: String,
    data: PathBuf,
}

/// How a server is started.
pub(crate) struct Launch {
    data: PathBuf,
    arguments: Vec<String>,
    settings: Vec<(String, String)>,
    port: Option<u16>,
}

impl Launch {
    /// Local mode in `data`, whose archive and index publish after a second.
    pub(crate) fn local(data: &Path) -> Self {
        let settings = [
            ("HEADWATER_ARCHIVE__OBJECT_AGE_SECONDS", "1"),
            ("HEADWATER_INDEX__SPLIT_AGE_SECONDS", "1"),
            ("HEADWATER_LOG_LEVEL", "warn"),
        ];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Self { data: data.to_owned(), arguments: Vec::new(), settings, port: None }
    }

    /// The same on the real Kafka broker that `scripts/kafka start` runs. A query waits for the router
    /// longer than the group waits for the member of a server that another test has killed.
    pub(crate) fn kafka(data: &Path) -> Self {
        #[allow(clippy::disallowed_methods, reason = "the broker is named by the script that started it")]
        let brokers = std::env::var("HEADWATER_TEST_KAFKA");
        let brokers = brokers.expect("no broker: scripts/kafka start && eval \"$(scripts/kafka env)\"");
        let launch = Self::local(data).with("--log", "kafka").with("--kafka-brokers", &brokers);
        launch.set("HEADWATER_INDEX__QUERY_WAIT_SECONDS", "30")
    }

    /// The same with one more flag and its value.
    pub(crate) fn with(mut self, flag: &str, value: &str) -> Self {
        self.arguments.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// The same with one more setting from the environment.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The same at one port, however often it is started.
    pub(crate) fn at_one_port(self) -> Self {
        Self { port: Some(free_port()), ..self }
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn start(&self) -> Server {
        let port = self.port.unwrap_or_else(free_port);
        let child = Command::new(env!("CARGO_BIN_EXE_headwater"))
            .arg("serve")
            .arg("--data")
            .arg(&self.data)
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(&self.arguments)
            .env("HEADWATER_TOKEN", TOKEN)
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let base = format!("http://127.0.0.1:{port}");
        let client = Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        let mut server = Server { child, client, base, data: self.data.clone() };
        server.wait_until_ready().await;
        server
    }
}

impl Server {
    async fn wait_until_ready(&mut self) {
        let started = Instant::now();
        loop {
            let asked = self.client.get(format!("{}/readyz", self.base)).send().await;
            if asked.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended with {status} before it was ready");
            }
            assert!(started.elapsed() < START_MAX, "the server is not ready after {START_MAX:?}");
            pause().await;
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit status.
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap()
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, and the exit status.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }

    /// The folder of its data.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Where it listens.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// A request with the token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).bearer_auth(TOKEN)
    }

    /// GET that must succeed, as JSON.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let answer = self.request(Method::GET, path).send().await.unwrap();
        let status = answer.status();
        let body = answer.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// GET that must succeed, as one JSON value a line.
    pub(crate) async fn lines(&self, path: &str) -> Vec<Value> {
        let answer = self.request(Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let body = answer.text().await.unwrap();
        body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// POST of JSON: the status and the answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let answer = self.request(Method::POST, path).json(body).send().await.unwrap();
        let status = answer.status();
        (status, answer.json().await.unwrap())
    }

    /// Every line of every archived object of a stream.
    pub(crate) fn archived(&self, dataset: &str) -> Vec<Value> {
        let mut files = Vec::new();
        walk(&self.data.join("objects/processed"), &mut files);
        files.sort();
        let folder = format!("/{dataset}/");
        let of_stream = files.into_iter().filter(|file| file.to_string_lossy().contains(&folder));
        let mut lines = Vec::new();
        for file in of_stream {
            assert!(file.to_string_lossy().ends_with(".ndjson.zst"), "{}", file.display());
            let text = zstd::decode_all(fs::File::open(&file).unwrap()).unwrap();
            let text = String::from_utf8(text).unwrap();
            lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
        lines
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.kill();
        }
    }
}

/// Asks until the answer is right, for a minute at most.
pub(crate) async fn until<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut ask: F) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        pause().await;
    }
}

/// A dataset id that no other run on the same cluster has.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}-{:08x}", rand::random::<u32>())
}

/// A short wait between two questions to another process.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// A port that nobody listens at.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else {
            files.push(path);
        }
    }
}
