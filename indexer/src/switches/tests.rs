//! Both sinks are switched on and off while records come and workers are torn away.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::access::ADMINISTRATOR;
use broker::catalog::{Edit, Sinks};
use broker::{Group, Log, Partition, Selection, Worker};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rstest::rstest;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::archive::{Archive, ArchiveSettings, objects, read_object};
use crate::index::{Indexer, Limits};
use crate::query::Asked;
use crate::testing::Bench;

const PARTITIONS: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// The offsets of each partition.
type Offsets = BTreeMap<u32, Vec<u64>>;

struct Scene {
    bench: Bench,
    workers: JoinSet<()>,
    ends: [u64; PARTITIONS as usize],
}

fn limits() -> Limits {
    Limits { split_events_max: 7, ..Limits::default() }
}

impl Scene {
    async fn new() -> Self {
        let mut scene = Self { bench: Bench::new(limits()).await, workers: JoinSet::new(), ends: [0; 3] };
        scene.tear_away_workers();
        scene
    }

    /// Ends the workers wherever they are, and starts others.
    fn tear_away_workers(&mut self) {
        self.workers = JoinSet::new();
        let (log, catalog, clock) =
            (self.bench.log.clone(), self.bench.catalog.clone(), self.bench.clock.clone());
        let following = catalog.clone();
        self.workers.spawn(async move { following.follow(CancellationToken::new()).await.unwrap() });
        for (group, kind) in [(Group::ARCHIVE, SinkKind::Archive), (Group::INDEX, SinkKind::Index)] {
            let (log, catalog, clock) = (log.clone(), catalog.clone(), clock.clone());
            let (indexer, objects) = (self.bench.indexer.clone(), self.bench.objects.clone());
            self.workers.spawn(async move {
                loop {
                    let settings = ArchiveSettings { object_bytes_max: 1_000, ..Default::default() };
                    let sink: Box<dyn broker::Sink> = match kind {
                        SinkKind::Index => indexer.sink(),
                        SinkKind::Archive => {
                            Box::new(Archive::new(objects.clone(), catalog.clone(), clock.clone(), settings))
                        }
                    };
                    let selected = (Selection::Stage(Stage::Processed), group.clone());
                    let worker = Worker::open(log.as_ref(), selected, sink, clock.clone()).await.unwrap();
                    let error = worker.run(CancellationToken::new()).await.unwrap_err();
                    assert_eq!(error.kind(), broker::Kind::Fenced, "{error}");
                }
            });
        }
    }

    async fn append(&mut self, partition: u32, count: u64) {
        let end = &mut self.ends[partition as usize];
        let record = |offset| {
            let value = format!("{{\"p\":{partition},\"o\":{offset}}}");
            self.bench.record(i64::try_from(offset).unwrap(), None, &value)
        };
        let records: Vec<_> = (*end..*end + count).map(record).collect();
        *end += count;
        self.bench.append(Stage::Processed, partition, &records).await;
    }

    fn stream(&self) -> Arc<Stream> {
        self.bench.catalog.get(self.bench.stream.name()).unwrap()
    }

    /// Switches a sink, unless its last switching is not settled.
    async fn switch(&self, kind: SinkKind, is_on: bool, backfill: bool) -> bool {
        let mut sinks: Sinks = self.stream().definition.sinks.clone();
        match kind {
            SinkKind::Archive => sinks.archive = is_on,
            SinkKind::Index => sinks.index = is_on,
        }
        let edit = Edit { sinks: Some(sinks), backfill, ..Edit::default() };
        let changed = self.bench.catalog.change(self.bench.stream.name(), edit, ADMINISTRATOR).await;
        changed.is_ok_and(|stream| stream.definition.sinks.has(kind) == is_on)
    }

    async fn until(&self, what: &str, is_so: impl AsyncFn(&Self) -> bool) {
        let waited = async {
            while !is_so(self).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("not in time: {what}"));
    }

    async fn until_settled(&self, kind: SinkKind) {
        self.until("settled", async |scene| {
            matches!(scene.stream().sink_state(kind), SinkState::On | SinkState::Off)
        })
        .await;
    }

    /// Waits until the workers are through everything, with a clock on which nothing waits for more.
    async fn until_through(&self) {
        for kind in SinkKind::ALL {
            self.until_settled(kind).await;
        }
        let topic = self.bench.stream.topic(Stage::Processed);
        for group in [Group::ARCHIVE, Group::INDEX] {
            self.until("through", async |scene| {
                scene.bench.clock.advance(Duration::from_secs(400));
                let committed = scene.bench.log.committed(&group, &topic).await.unwrap();
                (0..PARTITIONS).all(|number| {
                    let place = Place::new(topic.clone(), Partition(number));
                    committed.get(&place).unwrap_or_default().0 >= scene.ends[number as usize]
                })
            })
            .await;
        }
    }

    async fn archived(&self) -> Offsets {
        let mut found = Offsets::new();
        let store = self.bench.objects.as_ref();
        for object in objects(store, &self.stream()).await.unwrap() {
            let events = read_object(store, &object.path).await.unwrap();
            let offsets = events.iter().map(|event| event.offset.0);
            found.entry(object.partition.0).or_default().extend(offsets);
        }
        found
    }

    async fn indexed(&self, indexer: &Arc<Indexer>) -> Offsets {
        let mut found = Offsets::new();
        let page = self.bench.page(indexer, &Asked::default(), 10_000).await.unwrap();
        for event in page.events {
            let value: serde_json::Value = serde_json::from_slice(&event.value).unwrap();
            let number = |name: &str| value[name].as_u64().unwrap();
            found.entry(u32::try_from(number("p")).unwrap()).or_default().push(number("o"));
        }
        found.values_mut().for_each(|offsets| offsets.sort_unstable());
        found
    }

    /// What the catalog says was let in.
    fn admitted(&self, kind: SinkKind) -> Offsets {
        let stream = self.stream();
        let let_in = |number: u32| {
            let ranges = stream.admitted(kind, Partition(number));
            let end = self.ends[number as usize];
            let offsets = ranges.into_iter().flat_map(|range| range.start.0..range.end.0.min(end));
            (number, offsets.collect::<Vec<_>>())
        };
        (0..PARTITIONS).map(let_in).filter(|(_, offsets)| !offsets.is_empty()).collect()
    }
}

fn of(offsets: impl IntoIterator<Item = u64>) -> Offsets {
    [(0, offsets.into_iter().collect())].into_iter().collect()
}

impl Scene {
    async fn found(&self, kind: SinkKind) -> Offsets {
        if kind == SinkKind::Archive {
            return self.archived().await;
        }
        let indexed = self.indexed(&self.bench.indexer).await;
        assert_eq!(self.indexed(&self.bench.another("another")).await, indexed, "from splits and the log");
        indexed
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_holds_what_came_from_its_switching_on_to_its_switching_off(
    #[values(SinkKind::Archive, SinkKind::Index)] kind: SinkKind,
) {
    let mut scene = Scene::new().await;
    scene.append(0, 5).await;
    assert!(scene.switch(kind, false, false).await);
    assert!(!scene.switch(kind, true, false).await || scene.stream().sink_state(kind) == SinkState::Starting);
    scene.until_through().await;
    let is_off = scene.stream().sink_state(kind) == SinkState::Off;
    if is_off {
        assert_eq!(scene.found(kind).await, of(0..5));
        scene.append(0, 3).await;
        scene.until_through().await;
        assert!(scene.switch(kind, true, false).await);
    }
    let from = scene.ends[0];
    scene.append(0, 4).await;
    scene.until_through().await;
    assert_eq!(scene.stream().sink_state(kind), SinkState::On);
    assert_eq!(scene.found(kind).await, of((0..5).chain(from..from + 4)));

    assert!(scene.switch(kind, false, false).await);
    scene.until_settled(kind).await;
    let end = scene.ends[0];
    scene.append(0, 2).await;
    scene.until_through().await;
    assert_eq!(scene.found(kind).await, of((0..5).chain(from..end)));
    // Nothing comes any more that would tell the worker to go back.
    assert!(scene.switch(kind, true, true).await);
    assert_eq!(scene.stream().sink_state(kind), SinkState::Starting);
    scene.until_through().await;
    assert_eq!(scene.found(kind).await, of((0..5).chain(from..end + 2)));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_first_sink_takes_what_is_in_the_log_if_asked(
    #[values(SinkKind::Archive, SinkKind::Index)] kind: SinkKind,
    #[values(false, true)] backfill: bool,
) {
    let mut scene = Scene::new().await;
    let name = scene.bench.stream.name().clone();
    scene.bench.catalog.delete(&name, ADMINISTRATOR).await.unwrap();
    let sinks = r#"{"archive":false,"index":false}"#;
    let draft = format!(r#"{{"dataset":"flights","version":"1","partitions":3,"sinks":{sinks}}}"#);
    scene.bench.catalog.create(serde_json::from_str(&draft).unwrap(), ADMINISTRATOR).await.unwrap();
    scene.append(0, 20).await;
    scene.until_through().await;
    assert_eq!(scene.archived().await, Offsets::new());
    scene.tear_away_workers();
    assert!(scene.switch(kind, true, backfill).await);
    scene.until_settled(kind).await;
    assert_eq!(scene.stream().sink_state(kind), SinkState::On);
    scene.append(0, 1).await;
    scene.until_through().await;
    assert_eq!(scene.found(kind).await, of(if backfill { 0..21 } else { 20..21 }));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_whenever_sinks_are_switched_and_workers_die(
    #[values(1, 2, 3, 4)] seed: u64,
) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut scene = Scene::new().await;
    let mut on = SinkKind::ALL.map(|kind| (kind, Some([0_u64; 3])));
    let mut must: BTreeMap<SinkKind, Vec<(u32, u64)>> = BTreeMap::new();
    let mut switched = 0;
    for _ in 0..250 {
        match random.random_range(0..8) {
            0..4 => scene.append(random.random_range(0..PARTITIONS), random.random_range(1..9)).await,
            4 => scene.tear_away_workers(),
            5 => tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await,
            6 => {
                scene.bench.clock.advance(Duration::from_secs(random.random_range(0..400)));
            }
            _ => {
                let (kind, from) = &mut on[random.random_range(0..2)];
                let (ends, backfill) = (scene.ends, random.random_bool(0.3));
                if !scene.switch(*kind, from.is_none(), backfill).await {
                    continue;
                }
                switched += 1;
                *from = match from.take() {
                    None => {
                        let stream = scene.stream();
                        let span = stream.definition.spans.of(*kind).last().unwrap();
                        let begun: Vec<u64> = span.from.iter().map(|offset| offset.0).collect();
                        assert!(backfill || begun == ends);
                        Some([begun[0], begun[1], begun[2]])
                    }
                    Some(begun) => {
                        must.entry(*kind).or_default().extend(each(begun, ends));
                        None
                    }
                };
            }
        }
    }
    scene.until_through().await;
    assert!(switched > 8, "{switched}");
    for (kind, from) in on {
        let must = must.entry(kind).or_default();
        must.extend(from.into_iter().flat_map(|from| each(from, scene.ends)));
        let found = scene.found(kind).await;
        assert_eq!(found, scene.admitted(kind), "{kind:?}");
        let missing: Vec<_> = must.iter().filter(|(place, offset)| !found[place].contains(offset)).collect();
        assert!(missing.is_empty(), "{kind:?} lacks {missing:?}");
    }
}

fn each(from: [u64; 3], to: [u64; 3]) -> impl Iterator<Item = (u32, u64)> {
    (0..PARTITIONS).flat_map(move |number| {
        let index = number as usize;
        (from[index]..to[index]).map(move |offset| (number, offset))
    })
}
