//! The router from raw to processed on sled: as it is, beside reading sled and appending the same
//! batches again; with a program of five lines, beside that and the bare language on the same events.
//! `cargo bench --bench route -- [--quick]`

mod support;

use broker::{Batch, Clock, Group, Router, Stage};
use support::figures::{Results, Row};
use support::flights;
use support::local::{Local, flights_stream, runtime};
use support::options::Options;
use support::pair::{Sample, alternate};
use support::raw_stages;
use vrl::compiler::runtime::Runtime;
use vrl::compiler::{Program, TargetValue, TimeZone};
use vrl::value::{ObjectMap, Secrets, Value};

const PARTITIONS: u32 = 4;
const AGAINST_IDENTITY: &str = "raw read and the same batches appended";
const AGAINST_PROGRAM: &str = "bare VRL, raw read and append";
/// A condition, a join of texts, arithmetic and a call.
const PROGRAM: &str = r#".late = to_int!(.delay) > 15
if .late == true { .hours = to_int!(.delay) / 60 }
.route = join!([.origin, .destination], "-")
.kilometers = to_float!(.distance) * 1.609344
.origin = downcase!(.origin)"#;

fn main() {
    let options = Options::read();
    let results = Results::of("route", &options);
    let count = options.events(2_000_000, 200_000);
    let packs = flights::packs(&options, count);
    let lines: Vec<Vec<u8>> = packs.iter().map(|pack| flights::ndjson(pack)).collect();
    let now = broker::time::SystemClock.now();
    let batches = flights::batches(&packs, now);
    let rounds = options.rounds();

    let name = "router, identity, sled";
    if options.wants(name) {
        eprintln!("{name}");
        let same = |batch| batch;
        let pairs =
            alternate(rounds, || ours(&batches, None, count), || raw_stages::route(&lines, count, same));
        results.rates(Row { name, against: AGAINST_IDENTITY, goal: "≥ 0.7", cpu_goal: "" }, &pairs);
    }
    let name = "router, five lines of VRL, sled";
    if options.wants(name) {
        eprintln!("{name}");
        let program = BareProgram::compile();
        let run = |batch: Vec<u8>| program.run_all(&batch);
        let pairs = alternate(
            rounds,
            || ours(&batches, Some(PROGRAM), count),
            || raw_stages::route(&lines, count, run),
        );
        results.rates(Row { name, against: AGAINST_PROGRAM, goal: "≥ 0.7", cpu_goal: "" }, &pairs);
    }
}

fn ours(batches: &[Batch], transform: Option<&str>, count: usize) -> Sample {
    let runtime = runtime();
    let draft =
        broker::catalog::Draft { transform: transform.map(str::to_owned), ..flights_stream(PARTITIONS) };
    let local = runtime.block_on(Local::open(draft));
    runtime.block_on(local.load(Stage::Raw, batches));
    let ends = runtime.block_on(local.ends(Stage::Raw));
    let sample = Sample::of(count, || {
        let router = Box::new(Router::new(local.catalog.clone()));
        runtime.block_on(local.work((Stage::Raw, Group::ROUTER), router, &ends));
    });
    runtime.block_on(local.log.close()).expect("close the log");
    sample
}

/// The language with nothing around it.
struct BareProgram {
    program: Program,
    zone: TimeZone,
}

impl BareProgram {
    fn compile() -> Self {
        let whole = format!("{PROGRAM}\n.");
        let compiled = vrl::compiler::compile(&whole, &vrl::stdlib::all());
        let compiled = compiled.unwrap_or_else(|problems| panic!("compile the program: {problems:?}"));
        Self { program: compiled.program, zone: TimeZone::parse("UTC").expect("a zone") }
    }

    fn run_all(&self, lines: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(lines.len() * 2);
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let value: Value = serde_json::from_slice(line).expect("an event is JSON");
            let metadata = Value::Object(ObjectMap::new());
            let mut target = TargetValue { value, metadata, secrets: Secrets::default() };
            let ended = Runtime::default().resolve(&mut target, &self.program, &self.zone);
            serde_json::to_writer(&mut out, &ended.expect("run the program")).expect("write JSON");
            out.push(b'\n');
        }
        out
    }
}
