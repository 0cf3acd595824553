//! The router on a real log: one worker, a stream with a transform, and what comes of its records.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::access::ADMINISTRATOR;
use crate::batch::Batch;
use crate::catalog::{Draft, Edit};
use crate::dead_letter::DeadLetter;
use crate::log::sled::{SledLog, SledOptions};
use crate::log::{Entry, Group, Log, Position, Run, Selection};
use crate::record::{Origin, Record};
use crate::time::{Clock, SystemClock};
use crate::worker::Worker;

struct Scene {
    _folder: tempfile::TempDir,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    catalog: Arc<Catalog>,
    name: StreamName,
}

impl Scene {
    async fn open(transform: &str) -> Self {
        Self::open_with(Some(transform)).await
    }

    async fn open_with(transform: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let log: Arc<dyn Log> = SledLog::open(SledOptions::at(folder.path()), clock.clone()).await.unwrap();
        let catalog = Catalog::open(log.clone(), clock.clone()).await.unwrap();
        let draft = Draft {
            dataset: "orders".to_owned(),
            version: "1".to_owned(),
            partitions: Some(1),
            timestamp_field: Some("at".to_owned()),
            transform: transform.map(str::to_owned),
            ..Draft::default()
        };
        let name = draft.name().unwrap();
        catalog.create(draft, ADMINISTRATOR).await.unwrap();
        Self { _folder: folder, log, clock, catalog, name }
    }

    fn place(&self, stage: Stage) -> Place {
        Place::new(self.catalog.get(&self.name).unwrap().topic(stage), Partition(0))
    }

    async fn append(&self, events: &[&str]) {
        let records: Vec<Record> =
            events.iter().map(|event| Record::new((*event).to_owned(), self.clock.now())).collect();
        let batch = Batch::of(&records).unwrap();
        self.log.append(vec![Append { place: self.place(Stage::Raw), batch }]).await.unwrap();
    }

    /// How many records each batch of a stage holds that lies whole in the log.
    async fn batches(&self, stage: Stage) -> Vec<u32> {
        let topic = self.place(stage).topic;
        let end = self.log.bounds(&self.place(stage)).await.unwrap().end;
        let group = Group::new("counts");
        let mut reader = self.log.subscribe(Selection::Topic(topic), &group).await.unwrap();
        let (mut counts, mut next) = (Vec::new(), Offset(0));
        while next < end {
            for parcel in reader.next_parcels(1 << 20).await.unwrap() {
                next = parcel.next;
                counts.extend(parcel.runs.iter().filter_map(|run| match run {
                    Run::Batch { batch, .. } => Some(batch.count()),
                    Run::Entries(_) => None,
                }));
            }
        }
        counts
    }

    async fn edit(&self, transform: &str) {
        let edit = Edit { transform: Some(Some(transform.to_owned())), ..Edit::default() };
        self.catalog.change(&self.name, edit, ADMINISTRATOR).await.unwrap();
    }

    /// Runs a worker until the group has passed everything in raw.
    async fn route(&self, group: &Group) {
        let sink = Box::new(Router::new(self.catalog.clone()));
        let share = (Selection::Stage(Stage::Raw), group.clone());
        let worker = Worker::open(self.log.as_ref(), share, sink, self.clock.clone()).await.unwrap();
        let stop = CancellationToken::new();
        let raw = self.place(Stage::Raw);
        let passed = async {
            let end = self.log.bounds(&raw).await.unwrap().end;
            while self.log.committed(group, &raw.topic).await.unwrap().get(&raw) != Some(end) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            stop.cancel();
        };
        let (ran, ()) = tokio::join!(worker.run(stop.clone()), passed);
        ran.unwrap();
        self.catalog.refresh().await.unwrap();
    }

    async fn entries(&self, stage: Stage) -> Vec<Entry> {
        let from = Position { place: self.place(stage), offset: Offset(0) };
        self.log.read(&from, 1 << 20).await.unwrap().entries
    }

    async fn values(&self, stage: Stage) -> Vec<String> {
        let entries = self.entries(stage).await;
        entries.iter().map(|entry| String::from_utf8(entry.record.value.to_vec()).unwrap()).collect()
    }
}

#[tokio::test]
async fn forwards_drops_and_rejects_with_origins() {
    let program = "if .n == 1 { abort \"one\" }\nif .n == 2 { . = null } else { .at = 5 }";
    let scene = Scene::open(program).await;
    scene.append(&[r#"{"n":0}"#, r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#]).await;
    scene.route(&Group::ROUTER).await;

    assert_eq!(scene.values(Stage::Processed).await, [r#"{"at":5,"n":0}"#, r#"{"at":5,"n":3}"#]);
    let processed = scene.entries(Stage::Processed).await;
    let origins: Vec<u64> = processed.iter().map(|entry| entry.record.origin.unwrap().offset.0).collect();
    assert_eq!(origins, [0, 3]);
    assert_eq!(processed[0].record.time.micros(), 5_000_000, "the time is found in what the transform made");

    let dead = scene.entries(Stage::Dead).await;
    assert_eq!(dead.len(), 1);
    let letter = DeadLetter::from_record(dead[0].record.clone()).unwrap();
    assert_eq!((letter.reason.as_str(), letter.transform_version), ("one", 1));
    assert_eq!((letter.origin.offset, &letter.value[..]), (Offset(1), &br#"{"n":1}"#[..]));
}

#[tokio::test]
async fn a_changed_transform_takes_effect_at_an_offset_that_a_replay_keeps() {
    let scene = Scene::open(".v = 1").await;
    scene.append(&[r#"{"n":0}"#, r#"{"n":1}"#]).await;
    scene.route(&Group::ROUTER).await;
    scene.edit(".v = 2").await;
    assert_eq!(scene.catalog.get(&scene.name).unwrap().activation(2, Partition(0)), None);
    scene.append(&[r#"{"n":2}"#]).await;
    scene.route(&Group::ROUTER).await;
    let stream = scene.catalog.get(&scene.name).unwrap();
    assert_eq!(stream.activation(2, Partition(0)), Some(Offset(2)));

    scene.route(&Group::new("replay-of-everything")).await;
    let values = scene.values(Stage::Processed).await;
    assert_eq!(values[..3], [r#"{"n":0,"v":1}"#, r#"{"n":1,"v":1}"#, r#"{"n":2,"v":2}"#]);
    assert_eq!(values[3..], values[..3]);
}

#[tokio::test]
async fn an_idle_partition_takes_a_changed_transform_up_too() {
    let scene = Scene::open(".v = 1").await;
    scene.append(&[r#"{"n":0}"#]).await;
    scene.route(&Group::ROUTER).await;
    scene.edit(".v = 2").await;
    scene.edit(".v = 3").await;
    scene.route(&Group::ROUTER).await;
    scene.append(&[r#"{"n":1}"#]).await;
    scene.route(&Group::ROUTER).await;
    assert_eq!(scene.values(Stage::Processed).await, [r#"{"n":0,"v":1}"#, r#"{"n":1,"v":3}"#]);
    let stream = scene.catalog.get(&scene.name).unwrap();
    assert_eq!(stream.activation(3, Partition(0)), stream.activation(2, Partition(0)));
}

fn numbered(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|n| format!(r#"{{"n":{n},"at":{},"filling":"{:030}"}}"#, n / 7, n % 13)).collect()
}

async fn append_all(scene: &Scene, events: &[String]) {
    scene.append(&events.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

#[tokio::test]
async fn without_a_transform_whole_batches_go_on_and_small_ones_are_put_together() {
    let scene = Scene::open_with(None).await;
    let events = numbered(0..150);
    for range in [0..70, 70..71, 71..75, 75..80, 80..150] {
        append_all(&scene, &events[range]).await;
    }
    scene.route(&Group::ROUTER).await;

    assert_eq!(scene.batches(Stage::Raw).await, [70, 1, 4, 5, 70]);
    assert_eq!(scene.batches(Stage::Processed).await, [70, 10, 70]);
    let raw = scene.entries(Stage::Raw).await;
    let expected = raw.into_iter().map(|entry| {
        let origin = Some(Origin { partition: Partition(0), offset: entry.offset });
        Entry { record: Record { origin, ..entry.record }, ..entry }
    });
    assert_eq!(scene.entries(Stage::Processed).await, expected.collect::<Vec<_>>());
    assert_eq!(scene.values(Stage::Processed).await, events);
}

#[tokio::test]
async fn a_batch_in_which_a_transform_takes_effect_is_cut_there() {
    let scene = Scene::open_with(None).await;
    append_all(&scene, &numbered(0..100)).await;
    scene.edit(".n = -1").await;
    let change = Change::Activate {
        dataset: "orders".to_owned(),
        version: "1".to_owned(),
        incarnation: scene.catalog.get(&scene.name).unwrap().definition.incarnation,
        transform_version: 2,
        partition: Partition(0),
        offset: Offset(60),
    };
    scene.log.append(vec![scene.catalog.settlement(change).unwrap()]).await.unwrap();
    scene.route(&Group::ROUTER).await;
    let values = scene.values(Stage::Processed).await;
    assert_eq!(values[..60], numbered(0..100)[..60]);
    assert!(values[60..].iter().all(|value| value.contains(r#""n":-1"#)), "{}", values[60]);
    let origins = scene.entries(Stage::Processed).await.into_iter().map(|entry| entry.record.origin.unwrap());
    assert!(origins.map(|origin| origin.offset.0).eq(0..100));
}

#[tokio::test]
async fn what_is_transformed_side_by_side_comes_in_order() {
    let scene = Scene::open(".v = 1\nif .n == 7 { null } else { . }").await;
    let raw = scene.place(Stage::Raw);
    let parcel = |partition: u32, count: u32| {
        let records = numbered(0..count).into_iter().map(|event| Record::new(event, scene.clock.now()));
        let entries = (0..).zip(records).map(|(offset, record)| Entry { offset: Offset(offset), record });
        let runs = vec![Run::Entries(entries.collect())];
        Parcel {
            place: Place { partition: Partition(partition), ..raw.clone() },
            runs,
            next: Offset(count.into()),
        }
    };
    // The first ones take the longest.
    let counts = [1_500, 900, 500, 100, 10, 8];
    let parcels: Vec<Parcel> = (0..).zip(counts).map(|(partition, count)| parcel(partition, count)).collect();
    assert!(parcels.iter().map(Parcel::weight).sum::<usize>() > SIDE_BY_SIDE_BYTES_MIN);
    let mut router = Router::new(scene.catalog.clone());
    let rejections = router.write_parcels(parcels).await.unwrap();

    assert!(rejections.is_empty());
    let partitions = router.outputs.iter().map(|append| append.place.partition.0);
    assert!(partitions.eq(0..6));
    for (append, count) in router.outputs.iter().zip(counts) {
        let records: Result<Vec<Record>> = append.batch.records().collect();
        let origins = records.unwrap().into_iter().map(|record| record.origin.unwrap());
        let kept = (0..u64::from(count)).filter(|offset| *offset != 7);
        assert!(origins.map(|origin| origin.offset.0).eq(kept), "all but the one that is dropped, in order");
    }
}
