//! Races, crashes and what is left of them, on real folders.

use futures::TryStreamExt;
use futures::future::join_all;
use object_store::ObjectStoreExt;

use super::*;

async fn names(objects: &LocalObjects) -> Vec<String> {
    let listed: Vec<ObjectMeta> = objects.list(None).try_collect().await.unwrap();
    let mut names: Vec<_> = listed.into_iter().map(|object| object.location.to_string()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_puts_that_create_exactly_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    // Two stores on one folder, as two processes have them.
    let stores = [LocalObjects::open(folder.path()).unwrap(), LocalObjects::open(folder.path()).unwrap()];
    for round in 0..10 {
        let path = Path::from(format!("a/b/{round}"));
        let puts = (0..8).map(|n| {
            let payload = PutPayload::from(format!("writer {n}"));
            stores[n % 2].put_opts(&path, payload, PutMode::Create.into())
        });
        let results = join_all(puts).await;
        let winners: Vec<usize> = (0..8).filter(|n| results[*n].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{results:?}");
        let lost = |result: &object_store::Result<PutResult>| {
            matches!(result, Err(object_store::Error::AlreadyExists { .. }))
        };
        assert_eq!(results.iter().filter(|result| lost(result)).count(), 7);
        let bytes = stores[0].get(&path).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes, format!("writer {}", winners[0]));
    }
    assert_eq!(fs::read_dir(folder.path().join(STAGING)).unwrap().count(), 0);
}

#[tokio::test]
async fn a_put_replaces_and_an_upload_in_parts_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let objects = LocalObjects::open(folder.path()).unwrap();
    let path = Path::from("x/y");
    objects.put(&path, "first".into()).await.unwrap();
    objects.put(&path, "second".into()).await.unwrap();
    assert_eq!(objects.get(&path).await.unwrap().bytes().await.unwrap(), "second");
    let mut upload = objects.put_multipart(&path).await.unwrap();
    upload.put_part("one ".into()).await.unwrap();
    upload.put_part("two".into()).await.unwrap();
    upload.complete().await.unwrap();
    assert_eq!(objects.get(&path).await.unwrap().bytes().await.unwrap(), "one two");
    let copied = objects.copy_if_not_exists(&path, &Path::from("x/z")).await;
    assert!(copied.is_ok());
    let copied = objects.copy_if_not_exists(&path, &Path::from("x/z")).await;
    assert!(matches!(copied, Err(object_store::Error::AlreadyExists { .. })));
    assert_eq!(names(&objects).await, ["x/y", "x/z"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn puts_and_deletes_in_one_folder_do_not_hinder_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let objects = LocalObjects::open(folder.path()).unwrap();
    let work = async |name: &str| {
        let path = Path::from(format!("a/b/{name}"));
        for _ in 0..100 {
            objects.put_opts(&path, "1".into(), PutMode::Create.into()).await.unwrap();
            objects.delete(&path).await.unwrap();
        }
    };
    tokio::join!(work("x"), work("y"), work("z"));
    assert!(!folder.path().join("a").exists());
    assert!(folder.path().join(STAGING).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_puts_that_race_with_deletes_each_is_told_what_happened() {
    let folder = tempfile::tempdir().unwrap();
    let objects = LocalObjects::open(folder.path()).unwrap();
    let path = Path::from("a/b/one");
    let work = async || {
        for _ in 0..100 {
            match objects.put_opts(&path, "1".into(), PutMode::Create.into()).await {
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            match objects.delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::join!(work(), work(), work());
    assert_eq!(names(&objects).await, [""; 0]);
}

#[tokio::test]
async fn a_file_where_a_folder_has_to_be_is_an_error_and_not_a_taken_name() {
    let folder = tempfile::tempdir().unwrap();
    let objects = LocalObjects::open(folder.path()).unwrap();
    objects.put(&Path::from("a"), "1".into()).await.unwrap();
    let refused = objects.put_opts(&Path::from("a/b"), "2".into(), PutMode::Create.into()).await;
    assert!(matches!(refused, Err(object_store::Error::Generic { .. })), "{refused:?}");
    assert_eq!(names(&objects).await, ["a"]);
}

#[tokio::test]
async fn what_a_crash_left_is_not_listed_and_goes_after_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let objects = LocalObjects::open(folder.path()).unwrap();
    objects.put(&Path::from("kept"), "1".into()).await.unwrap();
    let (old, new) = (folder.path().join(STAGING).join("1-0#1"), folder.path().join(STAGING).join("1-1#1"));
    for left in [&old, &new] {
        fs::write(left, "half").unwrap();
    }
    let file = File::options().write(true).open(&old).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    file.set_modified(modified - LEFT_BEHIND - Duration::from_secs(1)).unwrap();
    assert_eq!(names(&objects).await, ["kept"]);
    let listed = objects.list_with_delimiter(None).await.unwrap();
    assert!(listed.common_prefixes.is_empty());
    let objects = LocalObjects::open(folder.path()).unwrap();
    assert!(!old.exists());
    assert!(new.exists());
    assert_eq!(names(&objects).await, ["kept"]);
}
