//! The conformance suite on a real Kafka broker, and what only Kafka promises.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use headwater_broker::log::conformance::{self, Bench, Harness, append, kept, numbered, place, take, to};
use headwater_broker::log::kafka::{KafkaLog, KafkaOptions};
use headwater_broker::topic::{Cleanup, TopicConfig};
use headwater_broker::{
    Append, Batch, Checkpoint, Chunk, Confidentiality, Error, Group, Kind, Log, Offset, Place, Position,
    Reader, Record, Result, Selection, Stage,
};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// The broker that tests run against.
#[allow(clippy::disallowed_methods, reason = "the only way to tell a test where its broker is")]
fn brokers() -> String {
    std::env::var("HEADWATER_TEST_KAFKA").expect(
        "HEADWATER_TEST_KAFKA is not set: begin with `scripts/kafka start` and `eval \"$(scripts/kafka env)\"`",
    )
}

fn options() -> KafkaOptions {
    KafkaOptions::at(brokers())
}

/// A log on the real broker.
#[derive(Default)]
struct Kafka {
    log: Mutex<Option<Arc<dyn Log>>>,
}

#[async_trait]
impl Harness for Kafka {
    fn slot(&self) -> &Mutex<Option<Arc<dyn Log>>> {
        &self.log
    }

    async fn make(&self) -> Result<Arc<dyn Log>> {
        Ok(KafkaLog::open(options()).await?)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_passes_the_suite() {
    conformance::run_all(&Kafka::default()).await.unwrap();
}

fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers());
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_come_to_the_end_past_transaction_markers() {
    let kafka = Kafka::default();
    let bench = Bench::new(&kafka);
    let log = bench.log().await.unwrap();
    let raw = bench.topic(Stage::Raw, 1).await.unwrap();
    let processed = bench.topic(Stage::Processed, 1).await.unwrap();
    let (from, out) = (place(&raw, 0), place(&processed, 0));
    let mut router = log.subscribe(Selection::Topic(raw.clone()), &bench.group("router")).await.unwrap();
    let mut index = log.subscribe(Selection::Topic(processed), &bench.group("index")).await.unwrap();
    for round in 0..3 {
        let records = numbered(&format!("r{round}"), 2).into_iter().map(|value| bench.record(value));
        append(&*log, &from, &records.collect::<Vec<_>>()).await.unwrap();
        let (taken, reached) = take(&mut *router, &raw, 2).await.unwrap();
        let outputs: Vec<Record> = taken.into_iter().map(|(_, entry)| entry.record).collect();
        router.commit(&reached, vec![to(&out, &outputs).unwrap()]).await.unwrap();

        let end = log.bounds(&out).await.unwrap().end;
        assert_eq!(end, Offset((round + 1) * 3), "two records and a marker a transaction");
        let mut reached = Offset(0);
        while reached < end {
            for chunk in index.next(1 << 20).await.unwrap() {
                reached = chunk.next;
            }
        }
        assert_eq!(reached, end);
        let marker = Position { place: out.clone(), offset: Offset(end.0 - 1) };
        let chunk = log.read(&marker, 1).await.unwrap();
        assert_eq!((chunk.entries.len(), chunk.next), (0, end), "a marker is passed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_where_only_a_marker_was_written() {
    let kafka = Kafka::default();
    let bench = Bench::new(&kafka);
    let log = bench.log().await.unwrap();
    let topic = bench.topic(Stage::Processed, 1).await.unwrap();
    let at = place(&topic, 0);
    let waiting = log.wait_past(&at, Offset(0));
    let aborted = tokio::task::spawn_blocking(move || {
        let id = format!("test.{}", topic.name());
        let producer: BaseProducer = client().set("transactional.id", id).create().unwrap();
        producer.init_transactions(Duration::from_secs(10)).unwrap();
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::<(), str>::to(topic.name()).partition(0).payload("aborted")).unwrap();
        producer.flush(Duration::from_secs(10)).unwrap();
        producer.abort_transaction(Duration::from_secs(10)).unwrap();
    });
    waiting.await.unwrap();
    aborted.await.unwrap();
    assert_eq!(log.bounds(&at).await.unwrap(), Offset(0)..Offset(2));
    assert!(conformance::read_all(&*log, &at).await.unwrap().is_empty(), "an aborted record was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_foreign_clients_are_read() {
    let kafka = Kafka::default();
    let bench = Bench::new(&kafka);
    let log = bench.log().await.unwrap();
    let topic = bench.topic(Stage::Raw, 1).await.unwrap();
    let name = topic.name().to_owned();
    let produce = move || {
        let producer: BaseProducer = client().create().unwrap();
        let record =
            BaseRecord::to(&name).partition(0).key("k").payload("foreign").timestamp(978_307_200_123);
        producer.send(record).unwrap();
        producer.flush(Duration::from_secs(10)).unwrap();
    };
    tokio::task::spawn_blocking(produce).await.unwrap();
    let read = conformance::read_all(&*log, &place(&topic, 0)).await.unwrap();
    let wanted = Record::new("foreign", conformance::moment(123).unwrap()).with_key("k");
    assert_eq!(read.into_iter().map(|entry| entry.record).collect::<Vec<_>>(), vec![wanted]);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_partitions_and_take_over_those_of_one_who_leaves() {
    let kafka = Kafka::default();
    let bench = Bench::new(&kafka);
    let log = bench.log().await.unwrap();
    let (topic, group) = (bench.topic(Stage::Raw, 4).await.unwrap(), bench.group("g"));
    let selection = Selection::Topic(topic.clone());
    let other = KafkaLog::open(options()).await.unwrap();
    let mut first = log.subscribe(selection.clone(), &group).await.unwrap();
    let mut second = other.subscribe(selection, &group).await.unwrap();

    let fill = async |round: u32| {
        for partition in 0..4 {
            let record = bench.record(format!("{round}/{partition}"));
            append(&*log, &place(&topic, partition), &[record]).await.unwrap();
        }
    };
    fill(0).await;
    let (mut by_first, mut by_second) = (BTreeSet::new(), BTreeSet::new());
    while by_first.len() + by_second.len() < 4 {
        let (chunks, by) = tokio::select! {
            chunks = first.next(1 << 20) => (chunks.unwrap(), &mut by_first),
            chunks = second.next(1 << 20) => (chunks.unwrap(), &mut by_second),
        };
        by.extend(chunks.into_iter().map(|chunk| chunk.place.partition));
    }
    assert_eq!((by_first.len(), by_second.len()), (2, 2), "{by_first:?} {by_second:?}");

    drop(first);
    fill(1).await;
    let mut read = BTreeSet::new();
    while read.len() < 6 {
        let chunks = second.next(1 << 20).await.unwrap();
        read.extend(chunks.into_iter().flat_map(|chunk| chunk.entries).map(|entry| entry.record.value));
    }
    // What the first one had read but not committed comes again.
    let again = by_first.iter().map(|partition| Bytes::from(format!("0/{partition}")));
    let wanted = (0..4).map(|partition| Bytes::from(format!("1/{partition}"))).chain(again);
    assert_eq!(read, wanted.collect());
    other.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_another_process_makes_show_up() {
    let kafka = Kafka::default();
    let bench = Bench::new(&kafka);
    let other = KafkaLog::open(options()).await.unwrap();
    let group = bench.group("g");
    let mut reader = other.subscribe(Selection::Stage(Stage::Raw), &group).await.unwrap();
    let topic = bench.topic(Stage::Raw, 1).await.unwrap();
    append(&*bench.log().await.unwrap(), &place(&topic, 0), &[bench.record("x")]).await.unwrap();
    let begun = Instant::now();
    take(&mut *reader, &topic, 1).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    other.close().await.unwrap();
}

/// What a process killed in the middle of a transaction leaves behind holds up those who read. One
/// that is started again under its name ends it, and does not wait for the timeouts.
#[tokio::test(flavor = "multi_thread")]
async fn a_named_member_ends_what_it_left_open() {
    let kafka = Kafka::default();
    let bench = Bench::new(&kafka);
    let log = bench.log().await.unwrap();
    let raw = bench.topic(Stage::Raw, 1).await.unwrap();
    let processed = bench.topic(Stage::Processed, 1).await.unwrap();
    let group = bench.group("g");
    let id = format!("headwater.{}.node-1.0", group.name());
    let name = processed.name().to_owned();
    let left_open = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = client().set("transactional.id", id).create().unwrap();
        producer.init_transactions(Duration::from_secs(10)).unwrap();
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::<(), str>::to(&name).partition(0).payload("left open")).unwrap();
        producer.flush(Duration::from_secs(10)).unwrap();
        producer
    });
    let left_open = left_open.await.unwrap();
    let out = place(&processed, 0);
    let bounds = tokio::time::timeout(Duration::from_millis(300), log.bounds(&out)).await;
    assert!(bounds.is_err(), "bounds did not wait for an open transaction");

    let begun = Instant::now();
    let named =
        KafkaLog::open(KafkaOptions { member: Some("node-1".to_owned()), ..options() }).await.unwrap();
    for round in 1..4 {
        let mut reader = named.subscribe(Selection::Topic(raw.clone()), &group).await.unwrap();
        append(&*log, &place(&raw, 0), &[bench.record("in")]).await.unwrap();
        let (_, reached) = take(&mut *reader, &raw, 1).await.unwrap();
        let output = to(&out, &[bench.record(format!("out {round}"))]).unwrap();
        reader.commit(&reached, vec![output]).await.unwrap();
    }
    log.wait_past(&out, Offset(0)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let values = conformance::values(&*log, &out).await.unwrap();
    assert_eq!(values, ["out 1", "out 2", "out 3"].map(Bytes::from));
    named.close().await.unwrap();
    tokio::task::spawn_blocking(move || drop(left_open)).await.unwrap();
}

/// Kafka gives a member that keeps its name the share it had, which has nothing of what is new.
#[tokio::test(flavor = "multi_thread")]
async fn a_named_member_is_given_what_was_made_while_it_was_away() {
    let kafka = Kafka::default();
    let bench = Bench::new(&kafka);
    let log = bench.log().await.unwrap();
    let (group, before) = (bench.group("g"), bench.topic(Stage::Raw, 1).await.unwrap());
    append(&*log, &place(&before, 0), &[bench.record("x")]).await.unwrap();
    let named = KafkaOptions { member: Some(group.name().to_owned()), ..options() };
    let away = KafkaLog::open(named.clone()).await.unwrap();
    let mut reader = away.subscribe(Selection::Stage(Stage::Raw), &group).await.unwrap();
    take(&mut *reader, &before, 1).await.unwrap();
    drop(reader);
    away.close().await.unwrap();

    let topic = bench.topic(Stage::Raw, 1).await.unwrap();
    append(&*log, &place(&topic, 0), &[bench.record("y")]).await.unwrap();
    let back = KafkaLog::open(named).await.unwrap();
    let mut reader = back.subscribe(Selection::Stage(Stage::Raw), &group).await.unwrap();
    let taken = take(&mut *reader, &topic, 1);
    tokio::time::timeout(Duration::from_secs(30), taken).await.unwrap().unwrap();
    back.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_what_is_not_held_is_fenced() {
    let kafka = Kafka::default();
    let bench = Bench::new(&kafka);
    let log = bench.log().await.unwrap();
    let (own, other) = (bench.topic(Stage::Raw, 1).await.unwrap(), bench.topic(Stage::Raw, 1).await.unwrap());
    let mut reader = log.subscribe(Selection::Topic(own), &bench.group("g")).await.unwrap();
    let upto: Checkpoint = [(place(&other, 0), Offset(1))].into_iter().collect();
    assert_eq!(reader.commit(&upto, Vec::new()).await.unwrap_err().kind(), Kind::Fenced);
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_again_changes_what_may_be_removed() {
    let kafka = Kafka::default();
    let bench = Bench::new(&kafka);
    let log = bench.log().await.unwrap();
    let topic = bench.topic(Stage::Raw, 1).await.unwrap();
    let trim = Cleanup::Trim { age_max: Some(Duration::from_secs(3_600)), bytes_max: Some(80 << 20) };
    let admin: AdminClient<DefaultClientContext> = client().create().unwrap();
    for (cleanup, wanted) in [
        (trim, ["delete", "3600000", "83886080", "10485760"]),
        (Cleanup::Compact, ["compact", "-1", "-1", "1073741824"]),
        (Cleanup::Keep, ["delete", "-1", "-1", "1073741824"]),
    ] {
        log.create(&topic, &TopicConfig { partitions: 1, cleanup }).await.unwrap();
        let specifier = ResourceSpecifier::Topic(topic.name());
        let described = admin.describe_configs([&specifier], &AdminOptions::new()).await.unwrap();
        let described = described.into_iter().next().unwrap().unwrap();
        let keys = ["cleanup.policy", "retention.ms", "retention.bytes", "segment.bytes"];
        let set = keys.map(|key| described.get(key).and_then(|entry| entry.value.clone()).unwrap());
        assert_eq!(set, wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_keeps_its_whole_call_out() {
    let kafka = Kafka::default();
    let bench = Bench::new(&kafka);
    let log = bench.log().await.unwrap();
    let at = place(&bench.topic(Stage::Raw, 1).await.unwrap(), 0);
    let records = [bench.record("small"), bench.record(vec![0; 5 << 20])];
    assert_eq!(append(&*log, &at, &records).await.unwrap_err().kind(), Kind::TooLarge);
    assert_eq!(log.bounds(&at).await.unwrap(), Offset(0)..Offset(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_busy_and_then_has_room_again() {
    let kafka = Kafka::default();
    let bench = Bench::new(&kafka);
    let at = place(&bench.topic(Stage::Raw, 1).await.unwrap(), 0);
    let log = KafkaLog::open(KafkaOptions { queue_bytes_max: 10_000, ..options() }).await.unwrap();
    let records = [bench.record(vec![b' '; 9_000])];
    let (first, second) = futures::join!(append(&*log, &at, &records), append(&*log, &at, &records));
    first.unwrap();
    assert_eq!(second.unwrap_err().kind(), Kind::Busy);
    append(&*log, &at, &records).await.unwrap();
    log.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_log_is_unavailable_also_to_those_who_wait() {
    let kafka = Kafka::default();
    let bench = Bench::new(&kafka);
    let at = place(&bench.topic(Stage::Raw, 1).await.unwrap(), 0);
    let log = KafkaLog::open(options()).await.unwrap();
    let selection = Selection::Topic(at.topic.clone());
    let mut reader = log.subscribe(selection, &bench.group("g")).await.unwrap();
    let closing = async {
        tokio::task::yield_now().await;
        log.close().await
    };
    let (waited, next, closed) = futures::join!(log.wait_past(&at, Offset(0)), reader.next(1), closing);
    closed.unwrap();
    assert_eq!(waited.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(next.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(append(&*log, &at, &[bench.record("x")]).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(log.bounds(&at).await.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn opening_says_what_is_wrong() {
    let unknown = [("no.such.property".to_owned(), "secret".to_owned())];
    let unknown = KafkaOptions { properties: unknown.into_iter().collect(), ..options() };
    let error = KafkaLog::open(unknown).await.err().unwrap();
    assert_eq!((error.kind(), error.field()), (Kind::Invalid, Some("kafka.no.such.property")));
    assert!(!format!("{error:?}").contains("secret"));

    let nobody = KafkaOptions { timeout: Duration::from_millis(500), ..KafkaOptions::at("127.0.0.1:1") };
    assert_eq!(KafkaLog::open(nobody).await.err().unwrap().kind(), Kind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_stage_and_confidentiality_is_selected_by_stage() {
    let kafka = Kafka::default();
    let bench = Bench::new(&kafka);
    let log = bench.log().await.unwrap();
    let stream = bench.stream().unwrap();
    let topic = stream.topic(Confidentiality::Red, Stage::Dead);
    log.create(&topic, &kept(1)).await.unwrap();
    let mut reader = log.subscribe(Selection::Stage(Stage::Dead), &bench.group("g")).await.unwrap();
    append(&*log, &place(&topic, 0), &[bench.record("x")]).await.unwrap();
    let (taken, _) = take(&mut *reader, &topic, 1).await.unwrap();
    assert_eq!(taken.len(), 1);
}

/// Copies from raw to processed until `stop`, for some commits, or until it is fenced. Says how many
/// commits were done and whether it was fenced.
async fn route(
    (selection, group): (Selection, Group),
    commits_max: usize,
    stop: &CancellationToken,
) -> Result<(usize, bool)> {
    let log = KafkaLog::open(options()).await?;
    let mut reader = log.subscribe(selection, &group).await?;
    let (mut commits, mut is_fenced) = (0, false);
    while commits < commits_max && !is_fenced {
        let chunks = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            chunks = reader.next(2_000) => chunks,
        };
        let routed = match chunks {
            Ok(chunks) => commit_copies(&mut *reader, chunks).await,
            Err(error) => Err(error),
        };
        match routed {
            Err(error) if error.kind() == Kind::Fenced => is_fenced = true,
            routed => routed.map(|()| commits += 1)?,
        }
    }
    drop(reader);
    log.close().await?;
    Ok((commits, is_fenced))
}

async fn commit_copies(reader: &mut dyn Reader, chunks: Vec<Chunk>) -> Result<()> {
    let mut upto = Checkpoint::new();
    let mut outputs = Vec::new();
    for chunk in chunks {
        let out = Place::new(
            chunk.place.topic.at(Stage::Processed).expect("a raw topic has it"),
            chunk.place.partition,
        );
        let records: Vec<Record> = chunk.entries.into_iter().map(|entry| entry.record).collect();
        outputs.extend(Batch::of(&records).map(|batch| Append { place: out, batch }));
        upto.set(chunk.place, chunk.next);
    }
    reader.commit(&upto, outputs).await
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_there_exactly_once_though_members_come_and_go() {
    const PARTITIONS: u32 = 4;
    const RECORDS_MIN: usize = 300;
    const FENCED_MIN: usize = 2;
    let kafka = Kafka::default();
    let bench = Bench::new(&kafka);
    let log = bench.log().await.unwrap();
    let raw = bench.topic(Stage::Raw, PARTITIONS).await.unwrap();
    let processed = raw.at(Stage::Processed).unwrap();
    log.create(&processed, &kept(PARTITIONS)).await.unwrap();
    let (selection, group) = (Selection::Topic(raw.clone()), bench.group("router"));
    let stop = CancellationToken::new();

    // One stays; the others leave after a few commits each and come again, until some were fenced.
    let (commits, fenced) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let routers = [usize::MAX, 9, 4].map(|commits_max| {
        let (selection, group, stop) = (&selection, &group, &stop);
        let (commits, fenced) = (&commits, &fenced);
        async move {
            while !stop.is_cancelled() {
                let (done, is_fenced) = route((selection.clone(), group.clone()), commits_max, stop).await?;
                commits.fetch_add(done, Ordering::SeqCst);
                fenced.fetch_add(usize::from(is_fenced), Ordering::SeqCst);
            }
            Ok::<(), Error>(())
        }
    });
    let filling = async {
        let mut filled = 0;
        while filled < RECORDS_MIN || fenced.load(Ordering::SeqCst) < FENCED_MIN {
            for partition in 0..PARTITIONS {
                let record = bench.record(format!("{filled}"));
                append(&*log, &place(&raw, partition), &[record]).await?;
            }
            filled += 1;
        }
        for partition in 0..PARTITIONS {
            let at = place(&raw, partition);
            let end = log.bounds(&at).await?.end;
            while log.committed(&group, &raw).await?.get(&at) < Some(end) {
                tokio::task::yield_now().await;
            }
        }
        stop.cancel();
        Ok::<usize, Error>(filled)
    };
    let both = futures::future::try_join(futures::future::try_join_all(routers), filling);
    let (_, filled) = tokio::time::timeout(Duration::from_secs(120), both).await.unwrap().unwrap();
    assert!(commits.load(Ordering::SeqCst) > FENCED_MIN, "nothing was committed");
    let wanted: Vec<Bytes> = (0..filled).map(|index| index.to_string().into()).collect();
    for partition in 0..PARTITIONS {
        let values = conformance::values(&*log, &place(&processed, partition)).await.unwrap();
        assert_eq!(values, wanted, "partition {partition}");
    }
}
