//! Tables on a real log.

use std::future::Future;

use broker::catalog::{Draft, Edit, TtlFrom};
use broker::{Offset, Record};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::upkeep::Round;
use super::*;
use crate::Limits;
use crate::testing::{Bench, beside};

const SECOND: Duration = Duration::from_secs(1);

fn table(name: &str) -> Table {
    let (key, fields, transform, ttl_seconds) = Default::default();
    Table { name: name.to_owned(), key, fields, transform, ttl_seconds, ttl_from: TtlFrom::Arrival }
}

async fn bench(tables: Vec<Table>) -> Bench {
    let mut bench = Bench::new(Limits::default()).await;
    let edit = Edit { tables: Some(tables), ..Edit::default() };
    bench.stream = bench.catalog.change(bench.stream.name(), edit, "root").await.unwrap();
    bench
}

/// Runs the workers of tables beside `body`.
async fn running<T>(tables: &Arc<Tables>, body: impl Future<Output = T>) -> T {
    beside(|stop| Arc::clone(tables).run(stop), body).await
}

/// Waits until a table is through everything that was processed.
async fn through(bench: &Bench, tables: &Arc<Tables>, name: &str) -> OpenTable {
    let table = tables.open(&tables.find(name).unwrap()).await.unwrap();
    for partition in 0..3 {
        let place = bench.place(Stage::Processed, partition);
        let end = bench.log.bounds(&place).await.unwrap().end;
        let mut changes = table.tree.watch();
        while table.tree.lane(partition).next < end {
            changes.changed().await.unwrap();
        }
    }
    table
}

fn value(tables: &Tables, table: &OpenTable, key: &str) -> Option<String> {
    let row = tables.get(table, key.as_bytes()).unwrap()?;
    Some(String::from_utf8(row.value.unwrap().into()).unwrap())
}

#[tokio::test]
async fn the_last_record_of_a_key_is_its_row() {
    let keyed =
        Table { key: Some("/id".to_owned()), fields: Some(vec!["b".into(), "a".into()]), ..table("kept") };
    let made =
        Table { transform: Some(".n = .a; if .gone == true { null } else { . }".into()), ..table("made") };
    let bench = bench(vec![table("whole"), keyed, made]).await;
    let tables = &bench.indexer.tables;
    let records = [
        (Some("x"), r#"{"id":"one","a":1}"#),
        (Some("y"), r#"{"id":"two","a":2,"b":[1.50]}"#),
        (Some("x"), r#"{"id":"one","a":3}"#),
        (None, r#"{"id":"three","\u0061":4}"#),
        (Some("y"), r#"{"id":"two","gone":true}"#),
        (Some("z"), "null"),
    ];
    let records: Vec<Record> =
        (0..).zip(records).map(|(at, (key, value))| bench.record(at, key, value)).collect();
    bench.append(Stage::Processed, 0, &records).await;
    running(tables, async {
        let whole = through(&bench, tables, "whole").await;
        assert_eq!(value(tables, &whole, "x").unwrap(), r#"{"id":"one","a":3}"#);
        assert_eq!(value(tables, &whole, "z"), None);
        let row = tables.get(&whole, b"x").unwrap().unwrap();
        assert_eq!((row.partition(), row.offset(), row.expires), (0, Offset(2), None));
        let through_to: Vec<u64> = whole.complete_through().iter().map(|through| through.offset).collect();
        assert_eq!(through_to, [6, 0, 0]);
        let kept = through(&bench, tables, "kept").await;
        assert_eq!(value(tables, &kept, "two").unwrap(), "{}");
        assert_eq!(value(tables, &kept, "three").unwrap(), r#"{"a":4}"#);
        assert_eq!(value(tables, &kept, "x"), None);
        let made = through(&bench, tables, "made").await;
        assert_eq!(value(tables, &made, "x").unwrap(), r#"{"a":3,"id":"one","n":3}"#);
        assert_eq!(value(tables, &made, "y"), None);
    })
    .await;
}

#[tokio::test]
async fn a_row_that_ended_is_not_found_and_is_taken_away() {
    let brief = Table { ttl_seconds: Some(60), ..table("brief") };
    let bench = bench(vec![brief]).await;
    let tables = &bench.indexer.tables;
    running(tables, async {
        for at in 0..3 {
            bench.append(Stage::Processed, 0, &[bench.record(at, Some("bus"), r#"{"n":1}"#)]).await;
            bench.append(Stage::Processed, 1, &[bench.record(at, Some(&format!("bus {at}")), "{}")]).await;
            bench.clock.advance(20 * SECOND);
        }
        // It was written last 20 s ago.
        let brief = through(&bench, tables, "brief").await;
        assert!(value(tables, &brief, "bus").is_some());
        assert_eq!(value(tables, &brief, "bus 0"), None);
        let listed = tables.list(&brief, (b"bus".to_vec(), None), 10).await.unwrap();
        assert_eq!(listed.rows.len(), 3);
        bench.clock.advance(40 * SECOND);
        assert_eq!(value(tables, &brief, "bus"), None);
        assert!(tables.list(&brief, (Vec::new(), None), 10).await.unwrap().rows.is_empty());
        while brief.tree.entries() > 2 {
            bench.clock.advance(SECOND);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        bench.append(Stage::Processed, 0, &[bench.record(9, Some("bus"), r#"{"n":2}"#)]).await;
        let brief = through(&bench, tables, "brief").await;
        assert_eq!(value(tables, &brief, "bus").unwrap(), r#"{"n":2}"#);
    })
    .await;
}

#[tokio::test]
async fn long_rows_are_whole_and_leave_nothing() {
    let bench = bench(vec![table("long")]).await;
    let tables = &bench.indexer.tables;
    let of = |bytes: usize| format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes));
    running(tables, async {
        for (at, bytes) in (0..).zip([10, 4 << 10, 300 << 10, 5 << 10, 20 << 10, 401 << 10, 1]) {
            let text = of(bytes);
            bench.append(Stage::Processed, 2, &[bench.record(at, Some("k"), &text)]).await;
            let long = through(&bench, tables, "long").await;
            let expected = if bytes > row::ROW_BYTES_MAX { of(20 << 10) } else { text };
            assert!(value(tables, &long, "k").unwrap() == expected, "{bytes}");
        }
        // The row, and how far the log is.
        assert_eq!(through(&bench, tables, "long").await.tree.entries(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_table_that_is_defined_later_has_what_came_before() {
    let bench = bench(vec![table("first")]).await;
    let tables = &bench.indexer.tables;
    bench.append(Stage::Processed, 1, &[bench.record(0, Some("k"), "{}")]).await;
    running(tables, async {
        through(&bench, tables, "first").await;
        let second = Table { transform: Some(".a = 1; .".into()), ..table("second") };
        let edit = Edit { tables: Some(vec![second.clone()]), ..Edit::default() };
        bench.catalog.change(bench.stream.name(), edit, "root").await.unwrap();
        assert_eq!(tables.find("first").err().unwrap().kind(), Kind::NotFound);
        let open = through(&bench, tables, "second").await;
        assert_eq!(value(tables, &open, "k").unwrap(), r#"{"a":1}"#);
        // One that is defined otherwise begins anew.
        let edit = Edit { tables: Some(vec![Table { ttl_seconds: Some(60), ..second }]), ..Edit::default() };
        bench.catalog.change(bench.stream.name(), edit, "root").await.unwrap();
        let open = through(&bench, tables, "second").await;
        assert!(tables.get(&open, b"k").unwrap().unwrap().expires.is_some());
    })
    .await;
}

#[tokio::test]
async fn pages_of_rows_follow_one_another() {
    let bench = bench(vec![table("rows")]).await;
    let tables = &bench.indexer.tables;
    let keys: Vec<String> =
        (0..25).map(|n| format!("{}/{n:02}", if n % 5 == 0 { "b" } else { "a" })).collect();
    for (at, key) in (0..).zip(&keys) {
        bench.append(Stage::Processed, at as u32 % 3, &[bench.record(at, Some(key), "{}")]).await;
    }
    running(tables, async {
        let open = through(&bench, tables, "rows").await;
        for (prefix, limit) in [("", 1), ("", 7), ("a/", 3), ("b", 5), ("a/1", 100), ("c", 1)] {
            let mut expected: Vec<&String> = keys.iter().filter(|key| key.starts_with(prefix)).collect();
            expected.sort();
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let listed = tables.list(&open, (prefix.into(), after), limit).await.unwrap();
                assert!(listed.rows.len() <= limit);
                found.extend(listed.rows.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()));
                after = listed.after;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{prefix:?} by {limit}");
        }
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_a_record_finds_it() {
    let bench = bench(vec![table("rows")]).await;
    let tables = &bench.indexer.tables;
    running(tables, async {
        let open = tables.open(&tables.find("rows").unwrap()).await.unwrap();
        let appended = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            bench.append(Stage::Processed, 1, &[bench.record(7, Some("k"), "{}")]).await
        };
        let waited = tables.wait(&open, (broker::Partition(1), Offset(7)));
        let (_, waited) = tokio::join!(appended, waited);
        waited.unwrap();
        assert!(value(tables, &open, "k").is_some());
        let refused = tables.wait(&open, (broker::Partition(3), Offset(0))).await.unwrap_err();
        assert_eq!((refused.kind(), refused.field()), (Kind::Invalid, Some("min_position")));
    })
    .await;
}

/// The rows of a table, by key.
async fn rows(tables: &Tables, table: &OpenTable) -> BTreeMap<String, Row> {
    let (mut rows, mut after) = (BTreeMap::new(), None);
    loop {
        let listed = tables.list(table, (Vec::new(), after), 1_000).await.unwrap();
        rows.extend(listed.rows.into_iter().map(|(key, row)| (String::from_utf8(key).unwrap(), row)));
        after = listed.after;
        if after.is_none() {
            return rows;
        }
    }
}

/// All objects of snapshots, by name: of each its parts and what lists them, the oldest first.
fn snapshots(bench: &Bench) -> Vec<PathBuf> {
    fn walk(folder: &std::path::Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(&bench.directory.path().join("objects/tables"), &mut found);
    found.sort();
    found
}

/// Whose snapshots those of a table are.
fn owner(bench: &Bench, table: Table) -> String {
    snapshot::name(&bench.stream, &id(&bench.stream, &Spec::Defined(table)).unwrap())
}

/// What retention has taken from the log is in the snapshot, and the log has what came after it.
#[tokio::test]
async fn a_table_is_made_from_its_snapshot_and_the_log_after_it() {
    let bench = bench(vec![table("rows"), Table { ttl_seconds: Some(60), ..table("brief") }]).await;
    let (tables, mut round) = (&bench.indexer.tables, Round::default());
    let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(9_000));
    let record = |n: i64| match n {
        7 => bench.record(n, Some("k0007"), &long),
        8 => bench.record(n, Some("k0005"), "null"),
        n => bench.record(n, Some(&format!("k{n:04}")), &format!(r#"{{"n":{n}}}"#)),
    };
    let begun: Vec<Record> = (0..2_500).map(record).collect();
    bench.append(Stage::Processed, 0, &begun).await;
    let behind = bench.another("behind");
    running(&behind.tables, async { through(&bench, &behind.tables, "rows").await }).await;
    drop(behind);
    running(tables, async {
        through(&bench, tables, "brief").await;
        through(&bench, tables, "rows").await;
        tables.write_snapshots(&mut round).await.unwrap();
        assert_eq!(snapshots(&bench).len(), 0, "there is not much yet");
        bench.clock.advance(3_600 * SECOND);
        tables.write_snapshots(&mut round).await.unwrap();
        let written = snapshots(&bench);
        assert_eq!(written.len(), 3, "one has no rows, and so no part");
        bench.clock.advance(3_600 * SECOND);
        tables.write_snapshots(&mut round).await.unwrap();
        assert_eq!(snapshots(&bench), written, "nothing has come");
        let contents = tables.snapshots.latest(&owner(&bench, table("rows"))).await.unwrap().unwrap();
        assert_eq!((contents.rows, contents.lanes()[&0].next), (2_499, Offset(2_500)));
        let brief = Table { ttl_seconds: Some(60), ..table("brief") };
        let contents = tables.snapshots.latest(&owner(&bench, brief)).await.unwrap();
        assert_eq!(contents.unwrap().rows, 0, "all have ended");

        bench.clock.advance(8 * 24 * 3_600 * SECOND);
        let later = [bench.record(2_500, Some("k0001"), "{}"), bench.record(2_501, Some("new"), "{}")];
        bench.append(Stage::Processed, 0, &later[..1]).await;
        bench.append(Stage::Processed, 0, &later[1..]).await;
        bench.log.trim().await.unwrap();
        let start = bench.log.bounds(&bench.place(Stage::Processed, 0)).await.unwrap().start;
        assert_eq!(start, Offset(2_500), "the log has no more of it");
        let expected = rows(tables, &through(&bench, tables, "rows").await).await;
        assert_eq!(expected.len(), 2_499);
        for cache in ["behind", "new"] {
            let other = bench.another(cache);
            let found = running(&other.tables, async {
                let open = through(&bench, &other.tables, "rows").await;
                assert_eq!(open.complete_through()[0].offset, 2_502);
                rows(&other.tables, &open).await
            });
            assert!(found.await == expected, "{cache}");
        }
    })
    .await;
}

/// What is damaged is passed over, and what belongs to no table goes.
#[tokio::test]
async fn a_snapshot_is_taken_whole_or_not_at_all() {
    let bench = bench(vec![table("rows")]).await;
    let (tables, mut round) = (&bench.indexer.tables, Round::default());
    running(tables, async {
        for n in 0..4 {
            bench.append(Stage::Processed, 0, &[bench.record(n, Some(&format!("k{n}")), "{}")]).await;
            through(&bench, tables, "rows").await;
            tables.write_snapshots(&mut round).await.unwrap();
            bench.clock.advance(3_600 * SECOND);
        }
    })
    .await;
    let written = snapshots(&bench);
    assert_eq!(written.len(), 4, "older ones are removed");
    let owner = owner(&bench, table("rows"));
    let load = async |name: String| {
        let tree = tables.store.tree(&name, None).unwrap();
        assert!(tables.snapshots.load(&owner, &tree).await.unwrap());
        tree.lane(0).next.0
    };
    assert_eq!(load("whole".to_owned()).await, 4);
    let last = written.iter().max_by_key(|path| path.file_stem().unwrap().to_owned()).unwrap().clone();
    let last = last.with_extension("");
    for (kind, path) in [("part", last.join("000000")), ("list", last.with_extension("list"))] {
        let whole = std::fs::read(&path).unwrap();
        for (n, byte) in whole.iter().enumerate() {
            let mut damaged = whole.clone();
            damaged[n] = byte ^ 0x10;
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(load(format!("{kind} {n}")).await, 3, "byte {n} of the {kind}");
        }
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(load(format!("{kind} cut")).await, 3);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(load(format!("{kind} gone")).await, 3);
        std::fs::write(&path, &whole).unwrap();
    }
    assert_eq!(load("whole again".to_owned()).await, 4);

    // What was never finished goes too, later.
    let unfinished = last.with_file_name("00000000000000000-unfinished");
    std::fs::create_dir(&unfinished).unwrap();
    std::fs::write(unfinished.join("000000"), "x").unwrap();
    tables.write_snapshots(&mut Round::default()).await.unwrap();
    assert_eq!(snapshots(&bench).len(), 5, "somebody may be at it");
    let much_later = 100 * 365 * 24 * 3_600 * SECOND;
    let wanted = BTreeSet::from([owner.clone()]);
    tables.snapshots.clear(&wanted, bench.clock.now() + much_later).await.unwrap();
    assert_eq!(snapshots(&bench), written);

    // Once nothing of the stream is to lie in the object store.
    let sinks = broker::catalog::Sinks { archive: false, index: false };
    let edit = Edit { sinks: Some(sinks), ..Edit::default() };
    bench.catalog.change(bench.stream.name(), edit, "root").await.unwrap();
    tables.write_snapshots(&mut round).await.unwrap();
    assert_eq!(snapshots(&bench), written, "another process may not know that yet");
    bench.clock.advance(much_later);
    tables.write_snapshots(&mut round).await.unwrap();
    assert_eq!(snapshots(&bench).len(), 0);
}

/// Whatever is written, in whatever order workers are torn away, the store removed and tables read anew, from
/// snapshots or not: the rows are those of the log.
#[tokio::test]
async fn tables_are_what_the_log_says() {
    for seed in 0..8 {
        let mut random = StdRng::seed_from_u64(seed);
        let bench = bench(vec![Table { key: Some("/k".to_owned()), ..table("rows") }]).await;
        let mut written: Vec<(i64, u32, Offset, String, String)> = Vec::new();
        let mut clocks = [0i64; 3];
        for round in 0..6 {
            let cache = if random.random_ratio(1, 3) { format!("new-{round}") } else { "kept".to_owned() };
            let indexer = bench.another(&cache);
            let tables = &indexer.tables;
            running(tables, async {
                for _ in 0..random.random_range(0..40) {
                    let (partition, key) =
                        (random.random_range(0..3), format!("k{}", random.random_range(0..12)));
                    bench.clock.advance(Duration::from_millis(random.random_range(0..3)));
                    let pad = "x".repeat(if random.random_ratio(1, 10) { 9_000 } else { 5 });
                    let value = format!(r#"{{"k":"{key}","n":{},"pad":"{pad}"}}"#, written.len());
                    let record = bench.record(written.len() as i64, None, &value);
                    let clock = &mut clocks[partition as usize];
                    *clock = (*clock).max(record.arrival.micros());
                    let clock = *clock;
                    let offset = bench.append(Stage::Processed, partition, &[record]).await;
                    written.push((clock, partition, offset, key, value));
                    if random.random_ratio(1, 4) {
                        tokio::time::sleep(Duration::from_millis(random.random_range(0..4))).await;
                    }
                }
                if random.random() {
                    through(&bench, tables, "rows").await;
                }
                if random.random_ratio(1, 3) {
                    let table = Table { key: Some("/k".to_owned()), ..table("rows") };
                    let id = id(&bench.stream, &Spec::Defined(table.clone())).unwrap();
                    let tree = tables.store.tree(&id, None).unwrap();
                    tables.snapshots.write(&owner(&bench, table), tree, bench.clock.now()).await.unwrap();
                }
            })
            .await;
        }
        written.sort();
        let model: BTreeMap<&str, &str> =
            written.iter().map(|(_, _, _, key, value)| (&**key, &**value)).collect();
        for cache in ["kept", "last"] {
            let indexer = bench.another(cache);
            let tables = &indexer.tables;
            let rows = running(tables, async {
                let open = through(&bench, tables, "rows").await;
                tables.list(&open, (Vec::new(), None), 1_000).await.unwrap().rows
            })
            .await;
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            let rows: BTreeMap<String, String> =
                rows.into_iter().map(|(key, row)| (text(key), text(row.value.unwrap().into()))).collect();
            let rows: BTreeMap<&str, &str> = rows.iter().map(|(key, row)| (&**key, &**row)).collect();
            assert_eq!(rows, model, "seed {seed}, {cache}");
        }
    }
}

/// Aliases and profiles in two streams of three partitions, as the collector writes them.
struct People {
    bench: Bench,
    aliases: Arc<Stream>,
    profiles: Arc<Stream>,
}

impl People {
    async fn new() -> Self {
        let bench = Bench::new(Limits::default()).await;
        let make = async |dataset: &str| {
            let draft = Draft {
                dataset: dataset.to_owned(),
                version: "1".to_owned(),
                partitions: Some(3),
                ..Draft::default()
            };
            bench.catalog.create(draft, "root").await.unwrap()
        };
        let (aliases, profiles) = (make(ALIASES).await, make(PROFILES).await);
        Self { bench, aliases, profiles }
    }

    async fn append(&self, stream: &Stream, (key, value): (&str, String)) {
        self.bench.clock.advance(Duration::from_millis(1));
        let record = self.bench.record(0, Some(key), &value);
        let partition = broker::partition_of(key.as_bytes(), 3);
        let place = broker::Place::new(stream.topic(Stage::Processed), partition);
        let batch = broker::Batch::of([&record]).unwrap();
        self.bench.log.append(vec![broker::Append { place, batch }]).await.unwrap();
    }

    async fn alias(&self, old: &str, new: &str) {
        let value = format!(r#"{{"newUserId":"{new}","originalUserId":"{old}","timestampUTC":0}}"#);
        self.append(&self.aliases, (old, value)).await;
    }

    async fn tell(&self, user: &str, attributes: &str) {
        let value = format!(r#"{{"userId":"{user}","attributes":{attributes},"timestampUTC":0}}"#);
        self.append(&self.profiles, (user, value)).await;
    }

    /// The profile of a user once everything is through: the id, the other ids and the attributes, as one text.
    async fn profile(&self, tables: &Tables, user: &str) -> Option<String> {
        for (stream, spec) in [(&self.aliases, Spec::Aliases), (&self.profiles, Spec::Attributes)] {
            let table = tables.open_spec(Arc::clone(stream), spec).await.unwrap();
            for partition in stream.partitions() {
                let place = broker::Place::new(stream.topic(Stage::Processed), partition);
                let end = self.bench.log.bounds(&place).await.unwrap().end;
                let mut changes = table.tree.watch();
                while table.tree.lane(partition.0).next < end {
                    changes.changed().await.unwrap();
                }
            }
        }
        let profile = tables.profile(user).await.unwrap().0?;
        let others: Vec<&str> =
            profile.ids.iter().filter(|id| **id != profile.id).map(String::as_str).collect();
        let attributes: Vec<String> = profile
            .attributes
            .iter()
            .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value)))
            .collect();
        Some(format!("{} [{}] {}", profile.id, others.join(" "), attributes.join(" ")))
    }
}

#[tokio::test]
async fn a_profile_is_what_was_said_last_under_any_id() {
    let people = People::new().await;
    let tables = &people.bench.indexer.tables;
    running(tables, async {
        let profile = async |user: &str| people.profile(tables, user).await;
        assert_eq!(profile("nobody").await, None);
        people.tell("anna", r#"{"plan":"free","city":"Oslo"}"#).await;
        people.tell("a", r#"{"plan":"pro"}"#).await;
        people.tell("anna", r#"{"city":null,"n":1.50}"#).await;
        people.tell("b", "null").await;
        assert_eq!(profile("a").await.unwrap(), r#"a [] plan="pro""#);
        assert_eq!(profile("b").await.unwrap(), "b [] ");
        // A chain, and two that become one.
        people.alias("a", "b").await;
        people.alias("b", "anna").await;
        people.alias("c", "anna").await;
        people.alias("anna", "anna").await;
        let whole = r#"anna [a b c] city=null n=1.50 plan="pro""#;
        for id in ["a", "b", "c", "anna"] {
            assert_eq!(profile(id).await.unwrap(), whole, "{id}");
        }
        // Of two aliases of one id the later counts.
        people.alias("b", "berta").await;
        assert_eq!(profile("a").await.unwrap(), r#"berta [a b] plan="pro""#);
        assert_eq!(profile("c").await.unwrap(), r#"anna [c] city=null n=1.50 plan="free""#);
        // A circle: whom the last of them became.
        people.alias("berta", "a").await;
        for id in ["a", "b", "berta"] {
            assert_eq!(profile(id).await.unwrap(), r#"a [b berta] plan="pro""#, "{id}");
        }
        people.alias("d", "b").await;
        assert_eq!(profile("d").await.unwrap(), r#"a [b berta d] plan="pro""#);
    })
    .await;
}

/// Whatever is said in whatever order, and wherever tables are made anew: profiles are what a plain reading of both
/// streams comes to.
#[tokio::test]
async fn profiles_are_what_the_log_says() {
    const IDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    for seed in 0..6 {
        let mut random = StdRng::seed_from_u64(seed);
        let people = People::new().await;
        let (mut aliases, mut told) = (Vec::new(), Vec::new());
        for number in 0..40 {
            let (one, other) = (IDS[random.random_range(0..6)], IDS[random.random_range(0..6)]);
            if random.random_ratio(1, 3) {
                people.alias(one, other).await;
                aliases.push((one, other));
            } else {
                people
                    .tell(one, &format!(r#"{{"{}":{number}}}"#, ["x", "y"][random.random_range(0..2)]))
                    .await;
                told.push(one);
            }
        }
        let first = &people.bench.indexer.tables;
        let found = running(first, async {
            let mut found = Vec::new();
            for id in IDS {
                found.push(people.profile(first, id).await);
            }
            found
        })
        .await;
        // Whoever became whom last, and all who are connected by that, are one.
        let became: BTreeMap<&str, &str> =
            aliases.iter().filter(|(old, new)| old != new).map(|(old, new)| (*old, *new)).collect();
        let group = |id: &str| {
            let mut group = BTreeSet::from([id.to_owned()]);
            loop {
                let more: Vec<String> = became
                    .iter()
                    .filter(|(old, new)| group.contains(**old) != group.contains(**new))
                    .flat_map(|(old, new)| [(*old).to_owned(), (*new).to_owned()])
                    .collect();
                if more.is_empty() {
                    return group;
                }
                group.extend(more);
            }
        };
        for (id, profile) in IDS.iter().zip(&found) {
            let group = group(id);
            let is_known = group.len() > 1 || told.contains(id);
            assert_eq!(profile.is_some(), is_known, "seed {seed}: {id}");
            let Some(profile) = profile else { continue };
            let (last, rest) = profile.split_once(" [").unwrap();
            let (others, _) = rest.split_once(']').unwrap();
            let ids: BTreeSet<String> = others.split_whitespace().chain([last]).map(str::to_owned).collect();
            assert_eq!(ids, group, "seed {seed}: {id}");
        }
        let another = people.bench.another("another");
        let again = running(&another.tables, async {
            let mut found = Vec::new();
            for id in IDS {
                found.push(people.profile(&another.tables, id).await);
            }
            found
        })
        .await;
        assert_eq!(again, found, "seed {seed}");
    }
}
