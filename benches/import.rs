//! A file of flights through `headwater import` into a new server with every role: how soon that is
//! ready, what it holds before anything has come, and the most that it holds until all is found.
//! `cargo bench --bench import -- [--quick] [--flights FILE]`

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::client::until_found;
use support::figures::{Results, Row};
use support::flights::{self, DATE_FORMAT, OF_A_BATCH};
use support::local::runtime;
use support::options::Options;
use support::process::{self, OwnMemory};
use support::server::{HEADWATER, Server, TOKEN};

const ROLES: &str = "ingest,router,sinks,query";
const PARTITIONS: u32 = 4;
const MEBI: f64 = 1_048_576.0;
/// After a start, until what it holds is looked at.
const REST: Duration = Duration::from_secs(1);

fn main() {
    let options = Options::read();
    let results = Results::of("import", &options);
    let folder = support::scratch();
    let file = File::of(&options, folder.path());
    let runtime = runtime();
    let rounds = if options.is_quick { 1 } else { 3 };
    let seen: Vec<Seen> = (0..rounds).map(|_| runtime.block_on(import(&file))).collect();
    let show = |name: &str, goal: &str, named: (&str, &str), value: fn(&Seen) -> f64| {
        let values: Vec<f64> = seen.iter().map(value).collect();
        results.alone(Row { name, against: "", goal, cpu_goal: "" }, named, &values, file.count);
    };
    let empty = "start on an empty folder";
    show(empty, "≤ 200 ms", ("ready", "ms"), |seen| seen.ready.as_secs_f64() * 1e3);
    show(empty, "≤ 60 MiB", ("memory, idle", "MiB"), |seen| seen.idle_bytes as f64 / MEBI);
    let name = file.name();
    show(&name, "", ("rate", "events/s"), |seen| seen.rate);
    show(&name, "", ("rate until all are found", "events/s"), |seen| seen.rate_found);
    show(&name, "≤ 400 MiB", ("memory, peak", "MiB"), |seen| seen.peak_bytes as f64 / MEBI);
    let found = "memory, peak until all are found";
    show(&name, "", (found, "MiB"), |seen| seen.peak_found_bytes as f64 / MEBI);
    show(&name, "", ("memory, peak of its own", "MiB"), |seen| seen.own_bytes as f64 / MEBI);
}

/// What is imported.
struct File {
    path: PathBuf,
    /// How its dates are written; none where they are instants already.
    format: Option<&'static str>,
    count: u64,
}

impl File {
    /// The file that the command line names, or one of flights that the generator makes.
    fn of(options: &Options, folder: &Path) -> Self {
        if let Some(path) = options.flights.clone() {
            let format = (!flights::is_parquet(&path)).then_some(DATE_FORMAT);
            let count = flights::flights(options, usize::MAX).count() as u64;
            return Self { path, format, count };
        }
        let packs = flights::packs(options, options.events(3_000_000, 200_000));
        let lines: Vec<u8> = packs.iter().flat_map(|pack| flights::ndjson(pack)).collect();
        let path = folder.join("flights.ndjson");
        std::fs::write(&path, lines).expect("write the flights");
        Self { path, format: Some(DATE_FORMAT), count: (packs.len() * OF_A_BATCH) as u64 }
    }

    fn name(&self) -> String {
        let kind = if self.format.is_some() { "NDJSON" } else { "real ones, Parquet" };
        format!("import of flights, {kind}")
    }
}

/// What was seen of one import.
struct Seen {
    ready: Duration,
    idle_bytes: u64,
    /// Events a second until the last was acknowledged.
    rate: f64,
    /// The same until the last was found by a query.
    rate_found: f64,
    /// The most until the last was acknowledged.
    peak_bytes: u64,
    /// The same until it was found, by a query that opens every split.
    peak_found_bytes: u64,
    /// Without the pages of mapped splits.
    own_bytes: u64,
}

async fn import(file: &File) -> Seen {
    let folder = support::scratch();
    let server = Server::headwater(&folder.path().join("data"), ROLES, &[]);
    let ready = server.ready_after;
    tokio::time::sleep(REST).await;
    let idle_bytes = process::memory_now_bytes(server.id());
    server.define_with("flights", PARTITIONS, file.format).await;
    let own = OwnMemory::watch(server.id());
    let began = Instant::now();
    let mut command = Command::new(HEADWATER);
    command.arg("import").arg(&file.path).args(["--stream", "flights/1", "--restart"]);
    let status = command.env("HEADWATER_SERVER", &server.base).env("HEADWATER_TOKEN", TOKEN).status();
    assert!(status.expect("start the import").success(), "the import failed");
    let rate = file.count as f64 / began.elapsed().as_secs_f64();
    let peak_bytes = process::memory_peak_bytes(server.id());
    until_found(&server, "flights", file.count).await;
    let rate_found = file.count as f64 / began.elapsed().as_secs_f64();
    let peak_found_bytes = process::memory_peak_bytes(server.id());
    Seen { ready, idle_bytes, rate, rate_found, peak_bytes, peak_found_bytes, own_bytes: own.most() }
}
