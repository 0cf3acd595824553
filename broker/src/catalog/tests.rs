//! Rows of the catalog: what is taken, what loses, and what is there after a restart.

use super::*;
use crate::access::{ADMINISTRATOR, Grant, Permission, Principal, User};
use crate::log::sled::{SledLog, SledOptions};
use crate::time::{SystemClock, Timestamp};

struct Scene {
    folder: tempfile::TempDir,
    log: Arc<dyn Log>,
    catalog: Arc<Catalog>,
}

impl Scene {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log: Arc<dyn Log> =
            SledLog::open(SledOptions::at(folder.path()), Arc::new(SystemClock)).await.unwrap();
        let catalog = Catalog::open(log.clone(), Arc::new(SystemClock)).await.unwrap();
        Self { folder, log, catalog }
    }

    /// Another process that folds the same topic.
    async fn another(&self) -> Arc<Catalog> {
        Catalog::open(self.log.clone(), Arc::new(SystemClock)).await.unwrap()
    }

    async fn restarted(self) -> Self {
        let Self { folder, log, catalog } = self;
        drop(catalog);
        log.close().await.unwrap();
        drop(log);
        let log: Arc<dyn Log> =
            SledLog::open(SledOptions::at(folder.path()), Arc::new(SystemClock)).await.unwrap();
        let catalog = Catalog::open(log.clone(), Arc::new(SystemClock)).await.unwrap();
        Self { folder, log, catalog }
    }
}

fn user(name: &str) -> User {
    User::new(name, Timestamp::from_micros(0).unwrap())
}

async fn set_user(catalog: &Catalog, name: &str) {
    let mut writes = catalog.writes(ADMINISTRATOR);
    writes.set(name, catalog.version::<User>(name), &user(name)).unwrap();
    catalog.write(writes).await.unwrap();
}

async fn grant(catalog: &Catalog, dataset: &str, principal: &str, permissions: &[Permission]) {
    let grant = Grant {
        dataset: dataset.to_owned(),
        principal: principal.to_owned(),
        is_owner: false,
        permissions: permissions.iter().copied().collect(),
    };
    let id = Grant::id_of(dataset, principal);
    let mut writes = catalog.writes(ADMINISTRATOR);
    writes.set(id.as_str(), catalog.version::<Grant>(&id), &grant).unwrap();
    catalog.write(writes).await.unwrap();
}

#[tokio::test]
async fn rows_and_their_versions_are_there_after_a_restart() {
    let scene = Scene::open().await;
    set_user(&scene.catalog, "ann").await;
    set_user(&scene.catalog, "ann").await;
    set_user(&scene.catalog, "bob").await;
    let mut writes = scene.catalog.writes("ann");
    writes.remove::<User>("bob", 1);
    scene.catalog.write(writes).await.unwrap();
    let scene = scene.restarted().await;
    let ann = scene.catalog.row::<User>("ann").unwrap();
    assert_eq!((&ann.value, ann.version, ann.updated_by.as_str()), (&user("ann"), 2, ADMINISTRATOR));
    assert!(scene.catalog.row::<User>("bob").is_none());
    // It goes on where it was, so that who saw it earlier loses.
    assert_eq!(scene.catalog.version::<User>("bob"), 2);
}

#[tokio::test]
async fn of_two_writers_that_saw_the_same_one_loses() {
    let scene = Scene::open().await;
    let other = scene.another().await;
    let (mut ours, mut theirs) = (scene.catalog.writes("ann"), other.writes("bob"));
    ours.set("carl", 0, &user("carl")).unwrap();
    theirs.set("carl", 0, &user("carl")).unwrap();
    let (ours, theirs) = tokio::join!(scene.catalog.write(ours), other.write(theirs));
    assert_ne!(ours.is_ok(), theirs.is_ok());
    assert_eq!(ours.and(theirs).unwrap_err().kind(), Kind::Conflict);
    scene.catalog.refresh().await.unwrap();
    other.refresh().await.unwrap();
    let by = |catalog: &Catalog| catalog.row::<User>("carl").unwrap().updated_by.clone();
    assert_eq!(by(&scene.catalog), by(&other));
}

#[tokio::test]
async fn changes_of_several_rows_are_taken_whole_or_not_at_all() {
    let scene = Scene::open().await;
    set_user(&scene.catalog, "ann").await;
    let mut writes = scene.catalog.writes(ADMINISTRATOR);
    writes.set("bob", 0, &user("bob")).unwrap();
    writes.remove::<User>("ann", 7);
    assert_eq!(scene.catalog.write(writes).await.unwrap_err().kind(), Kind::Conflict);
    assert!(scene.catalog.row::<User>("ann").is_some());
    assert!(scene.catalog.row::<User>("bob").is_none());
}

#[tokio::test]
async fn rows_are_listed_by_id_from_anywhere() {
    let scene = Scene::open().await;
    for name in ["a1", "b2", "b1", "b3", "c1"] {
        set_user(&scene.catalog, name).await;
    }
    let list = |prefix: &str, after: Option<&str>, limit: usize| -> Vec<String> {
        let is_wanted = |row: &Row<User>| row.id != "b2";
        let rows = scene.catalog.rows_where::<User>(prefix, after, limit, is_wanted);
        rows.iter().map(|row| row.id.clone()).collect()
    };
    assert_eq!(list("", None, 9), ["a1", "b1", "b3", "c1"]);
    assert_eq!(list("b", None, 9), ["b1", "b3"]);
    assert_eq!(list("b", Some("b1"), 9), ["b3"]);
    assert_eq!(list("b", Some("a1"), 1), ["b1"]);
    assert_eq!(list("", Some("c1"), 9), Vec::<String>::new());
}

#[tokio::test]
async fn a_principal_may_do_what_it_was_granted_and_no_more() {
    let scene = Scene::open().await;
    let catalog = &scene.catalog;
    let ann = Principal::of(&user("ann"));
    assert!(!catalog.may_see(&ann, "flights"));
    grant(catalog, "flights", "ann", &[Permission::Read]).await;
    assert!(catalog.may(&ann, "flights", Permission::Read));
    for more in [Permission::Write, Permission::Update, Permission::Admin] {
        assert_eq!(catalog.require(&ann, "flights", more).unwrap_err().kind(), Kind::Forbidden);
    }
    assert!(!catalog.may_see(&ann, "trains"));
    grant(catalog, "*", "ann", &[Permission::Write]).await;
    assert!(catalog.may(&ann, "trains", Permission::Write));
    assert!(!catalog.may(&ann, "trains", Permission::Read));
    // Of nothing that is granted, nothing is left.
    grant(catalog, "*", "ann", &[]).await;
    assert!(!catalog.may_see(&ann, "trains"));
    assert!(catalog.may(&Principal::administrator(), "trains", Permission::Admin));
}

#[tokio::test]
async fn a_change_that_another_overtook_is_still_known_as_taken() {
    let scene = Scene::open().await;
    let other = scene.another().await;
    for round in 0..20 {
        let name = format!("user-{round}");
        let mut first = scene.catalog.writes("ann");
        first.set(name.as_str(), 0, &user(&name)).unwrap();
        // The other one changes what was just written, before its writer has read back to it.
        let overtake = async {
            while other.version::<User>(&name) == 0 {
                other.refresh().await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut second = other.writes("bob");
            second.set(name.as_str(), 1, &user(&name)).unwrap();
            other.write(second).await.unwrap();
        };
        let (first, ()) = tokio::join!(scene.catalog.write(first), overtake);
        first.unwrap();
    }
}
