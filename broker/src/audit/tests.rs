//! The audit on a real log: what was changed, by whom, once each.

use tokio_util::sync::CancellationToken;

use super::*;
use crate::access::{Grant, Hidden, User};
use crate::catalog::Edit;
use crate::log::sled::{SledLog, SledOptions};
use crate::log::{Group, Log, Position, Selection};
use crate::time::{Clock, SystemClock};
use crate::worker::Worker;

struct Scene {
    _folder: tempfile::TempDir,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    catalog: Arc<Catalog>,
}

impl Scene {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let log: Arc<dyn Log> = SledLog::open(SledOptions::at(folder.path()), clock.clone()).await.unwrap();
        let catalog = Catalog::open(log.clone(), clock.clone()).await.unwrap();
        Self { _folder: folder, log, clock, catalog }
    }

    /// Runs the worker until the audit holds so many events, and answers them.
    async fn events(&self, count: usize) -> Vec<Value> {
        let share = (Selection::Topic(Catalog::topic()), Group::AUDIT);
        let sink = Box::new(Audit::new(self.catalog.clone()));
        let worker = Worker::open(self.log.as_ref(), share, sink, self.clock.clone()).await.unwrap();
        let stop = CancellationToken::new();
        let found = async {
            loop {
                let found = self.found().await;
                if found.len() >= count {
                    break stop.cancel();
                }
                tokio::task::yield_now().await;
            }
        };
        let run = worker.run(stop.clone());
        let both =
            tokio::time::timeout(std::time::Duration::from_secs(30), async { tokio::join!(run, found) });
        both.await.unwrap().0.unwrap();
        self.found().await
    }

    async fn found(&self) -> Vec<Value> {
        let Ok(stream) = self.catalog.get(&StreamName::new(AUDIT_DATASET, "1").unwrap()) else {
            return Vec::new();
        };
        let place = Place::new(stream.topic(Stage::Raw), Partition(0));
        // The topic is made a moment after the stream is defined.
        let read = self.log.read(&Position { place, offset: Offset(0) }, 1 << 20).await;
        let Ok(chunk) = read else { return Vec::new() };
        chunk.entries.iter().map(|entry| serde_json::from_slice(&entry.record.value).unwrap()).collect()
    }

    async fn set_user(&self, name: &str, password: &str) {
        let password = Some(Hidden::new(password.to_owned()));
        let user = User { password, ..User::new(name, self.clock.now()) };
        let mut writes = self.catalog.writes("ann");
        writes.set(name, self.catalog.version::<User>(name), &user).unwrap();
        self.catalog.write(writes).await.unwrap();
    }
}

/// Action, kind, id, version and principal of each event.
fn told(events: &[Value]) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let tell =
        |event: &Value| ["action", "what", "id", "version", "by"].map(|name| text(&event[name])).join(" ");
    events.iter().map(tell).collect()
}

#[tokio::test]
async fn each_change_is_told_once_across_restarts() {
    let scene = Scene::open().await;
    let draft = Draft { dataset: "orders".to_owned(), version: "1".to_owned(), ..Draft::default() };
    let name = draft.name().unwrap();
    scene.catalog.create(draft.clone(), "ann").await.unwrap();
    let first = scene.events(1).await;
    assert_eq!(told(&first[..1]), ["create stream orders/1 1 ann"]);
    assert_eq!((&first[0]["now"]["partitions"], first[0]["now"].get("transforms")), (&Value::from(4), None));

    let edit = Edit { key: Some(Some("/id".to_owned())), ..Edit::default() };
    scene.catalog.change(&name, edit, "bob").await.unwrap();
    scene.catalog.delete(&name, "bob").await.unwrap();
    scene.catalog.create(draft, "ann").await.unwrap();
    let all = told(&scene.events(5).await);
    assert_eq!(
        all,
        [
            "create stream orders/1 1 ann",
            "create stream headwater-audit/1 1 administrator",
            "change stream orders/1 2 bob",
            "delete stream orders/1 3 bob",
            "create stream orders/1 4 ann",
        ]
    );
}

#[tokio::test]
async fn rows_are_told_without_what_is_secret() {
    let scene = Scene::open().await;
    scene.set_user("eve", "a hash of a password").await;
    let grant = Grant {
        dataset: "orders".to_owned(),
        principal: "eve".to_owned(),
        is_owner: true,
        permissions: [crate::Permission::Read].into(),
    };
    let mut writes = scene.catalog.writes("bob");
    writes.remove::<User>("eve", 1);
    writes.set("orders/eve", 0, &grant).unwrap();
    scene.catalog.write(writes).await.unwrap();
    // One that loses is not told.
    let mut late = scene.catalog.writes("bob");
    late.set("orders/eve", 0, &grant).unwrap();
    scene.catalog.write(late).await.unwrap_err();
    scene.set_user("eve", "another").await;

    let events = scene.events(4).await;
    let told: Vec<String> =
        told(&events).into_iter().filter(|event| !event.contains(AUDIT_DATASET)).collect();
    assert_eq!(
        told,
        [
            "create user eve 1 ann",
            "delete user eve 2 bob",
            "create grant orders/eve 1 bob",
            "create user eve 3 ann",
        ]
    );
    assert!(!format!("{events:?}").contains("hash of a password"), "{events:?}");
    assert_eq!(events[2]["now"], serde_json::json!({"is_owner": true, "permissions": ["read"]}));
}
