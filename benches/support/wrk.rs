//! Load by HTTP from `wrk`, which costs little of the machine that it shares with the server.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::pair::Sample;
use super::process;
use super::server::Server;

/// What is posted, again and again.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) body: &'a [u8],
    /// The events of one body.
    pub(crate) events: u64,
    pub(crate) connections: u32,
    pub(crate) seconds: u64,
}

/// What is read: one of the keys, by chance.
pub(crate) struct Reads<'a> {
    /// What comes before the seven digits of a key.
    pub(crate) path: &'a str,
    pub(crate) keys: usize,
    pub(crate) headers: &'a [(&'a str, &'a str)],
    pub(crate) connections: u32,
    pub(crate) seconds: u64,
}

/// Ends the process with a word where `wrk` is missing.
pub(crate) fn find() {
    if Command::new("wrk").arg("--version").output().is_err() {
        eprintln!("wrk is missing; install it with: apt-get install wrk");
        std::process::exit(1);
    }
}

impl Load<'_> {
    /// A second to warm up, then what is counted.
    pub(crate) fn drive(&self, server: &Server, scratch: &Path) -> Sample {
        self.measure(server, &self.script(scratch))
    }

    fn measure(&self, server: &Server, script: &Path) -> Sample {
        self.wrk(server, script, 1);
        let cpu = process::cpu(server.id());
        let report = self.wrk(server, script, self.seconds);
        let cpu = process::cpu(server.id()).saturating_sub(cpu);
        let memory_bytes = Some(process::memory_peak_bytes(server.id()));
        let (requests, wall) = report.requests;
        Sample { events: requests * self.events, wall, cpu, p99: Some(report.p99), memory_bytes }
    }

    fn script(&self, scratch: &Path) -> std::path::PathBuf {
        let body = scratch.join("body");
        std::fs::write(&body, self.body).expect("write the body");
        let mut script = format!(
            "wrk.method = \"POST\"\nlocal file = io.open({:?}, \"rb\")\n",
            body.display().to_string()
        );
        script.push_str("wrk.body = file:read(\"*a\")\nfile:close()\n");
        finish(&mut script, self.headers);
        let path = scratch.join("post.lua");
        std::fs::write(&path, script).expect("write the script");
        path
    }
}

impl Reads<'_> {
    /// A second to warm up, then what is counted.
    pub(crate) fn drive(&self, server: &Server, scratch: &Path) -> Sample {
        let mut script = format!(
            "math.randomseed(os.time())\n\
             request = function() return wrk.format(\"GET\", string.format(\"%s%07d\", {:?}, math.random(0, {}))) end\n",
            self.path,
            self.keys - 1
        );
        finish(&mut script, self.headers);
        let path = scratch.join("read.lua");
        std::fs::write(&path, script).expect("write the script");
        let load = Load {
            path: "/",
            headers: &[],
            body: &[],
            events: 1,
            connections: self.connections,
            seconds: self.seconds,
        };
        load.measure(server, &path)
    }
}

/// The end of a script: headers, and what is told of a run.
fn finish(script: &mut String, headers: &[(&str, &str)]) {
    for (name, value) in headers {
        writeln!(script, "wrk.headers[{name:?}] = {value:?}").expect("a text takes all");
    }
    // wrk counts what is not 2xx or 3xx; requests that failed must not pass for quick ones.
    script.push_str(
        "done = function(summary, latency, requests)\n\
         local e = summary.errors\n\
         io.write(string.format(\"result %d %d %d %d\\n\", summary.requests, summary.duration, \
         latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))\nend\n",
    );
}

impl Load<'_> {
    fn wrk(&self, server: &Server, script: &Path, seconds: u64) -> Report {
        let mut command = Command::new("wrk");
        command.arg("--threads=1").arg(format!("--connections={}", self.connections));
        command.arg(format!("--duration={seconds}s")).arg("--timeout=10s").arg("--script").arg(script);
        let output = command.arg(format!("{}{}", server.base, self.path)).output().expect("run wrk");
        let text = String::from_utf8_lossy(&output.stdout);
        let result = text.lines().find_map(|line| line.strip_prefix("result "));
        let numbers = result.map(|line| line.split(' ').map(|number| number.parse().unwrap_or(0)));
        let Some(numbers) = numbers.map(Iterator::collect::<Vec<u64>>).filter(|all| all.len() == 4) else {
            panic!("wrk did not end well: {text}{}", String::from_utf8_lossy(&output.stderr));
        };
        assert!(numbers[3] == 0, "{} requests failed: {text}", numbers[3]);
        Report {
            requests: (numbers[0], Duration::from_micros(numbers[1])),
            p99: Duration::from_micros(numbers[2]),
        }
    }
}

struct Report {
    requests: (u64, Duration),
    p99: Duration,
}
