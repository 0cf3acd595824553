//! The archive sink into a local folder, beside reading sled, the same codec on the same lines, and a
//! bare put.
//! `cargo bench --bench archive -- [--quick]`

mod support;

use broker::{Batch, Clock, Group, Offset, Stage};
use indexer::archive::{Archive, ArchiveSettings};
use indexer::store::{StoreSettings, open};
use support::figures::{Results, Row};
use support::flights;
use support::local::{Local, flights_stream, runtime};
use support::options::Options;
use support::pair::{Sample, alternate};
use support::raw_stages;

fn main() {
    let options = Options::read();
    let results = Results::of("archive", &options);
    let name = "archive sink, local folder";
    if !options.wants(name) {
        return;
    }
    eprintln!("{name}");
    let count = options.events(2_000_000, 400_000);
    let packs = flights::packs(&options, count);
    let settings = ArchiveSettings::default();
    let now = broker::time::SystemClock.now();
    let mut batches = flights::batches(&packs, now);
    // An event that arrived later closes the last object, which the clock would do otherwise.
    batches.push(flights::batch(&packs[0][..1], now + settings.object_age_max));
    let lines = raw_stages::object_lines(&packs, now);
    let object_bytes = usize::try_from(settings.object_bytes_max).expect("an object fits the memory");
    let pairs = alternate(
        options.rounds(),
        || ours(&batches, &settings, count),
        || raw_stages::archive(&lines, object_bytes, count),
    );
    let against = "raw read, the same codec on the same lines, object_store put";
    results.rates(Row { name, against, goal: "≥ 0.8", cpu_goal: "" }, &pairs);
}

fn ours(batches: &[Batch], settings: &ArchiveSettings, count: usize) -> Sample {
    let runtime = runtime();
    let local = runtime.block_on(Local::open(flights_stream(1)));
    runtime.block_on(local.load(Stage::Processed, batches));
    let url = local.folder.path().join("objects").display().to_string();
    let store = open(&StoreSettings { url, ..StoreSettings::default() }).expect("open the objects");
    let archive = Archive::new(store.clone(), local.catalog.clone(), local.clock.clone(), settings.clone());
    let end = [Offset(count as u64)];
    let sample = Sample::of(count, || {
        runtime.block_on(local.work((Stage::Processed, Group::ARCHIVE), Box::new(archive), &end));
    });
    runtime.block_on(local.log.close()).expect("close the log");
    sample
}
