//! Splits in object storage, and their local copies.
//!
//! An object is written once, only if it is absent, and never changed, so a local copy is as good as
//! the object once its checksums match. Copies may be deleted at any time.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use broker::{Error, Kind, Result, ResultExt};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use tokio::io::AsyncWriteExt;
use tokio::sync::OnceCell;
use tracing::warn;

use super::names::{Folder, INDEX, SplitName};
use super::{blocking, lock};
use crate::split::{Footer, Split, TRAILER_BYTES};
use crate::store;

/// How much of an object's end is read to find its footer.
const FOOTER_BYTES: u64 = 16 << 10;
/// How many objects are asked for at the same time.
const REQUESTS_MAX: usize = 16;

/// Splits by name.
pub(crate) type Known = BTreeMap<SplitName, Arc<Footer>>;

/// Publishes, lists, opens and removes splits.
pub(crate) struct SplitStore {
    objects: Arc<dyn ObjectStore>,
    cache: PathBuf,
    cache_bytes_max: u64,
    opened: Mutex<HashMap<Location, Opened>>,
    /// Counts uses and names of temporary files.
    ticks: AtomicU64,
}

#[derive(Clone, Default)]
struct Opened {
    split: Arc<OnceCell<(Arc<Split>, u64)>>,
    used: u64,
}

/// What became of a put.
pub(crate) enum Published {
    /// It is there.
    Ours,
    /// Another split begins at the same offset.
    Theirs(Footer),
}

impl SplitStore {
    pub(crate) fn new(objects: Arc<dyn ObjectStore>, cache: PathBuf, cache_bytes_max: u64) -> Self {
        let cache = cache.join("splits");
        Self { objects, cache, cache_bytes_max, opened: Mutex::default(), ticks: AtomicU64::new(0) }
    }

    /// Where the splits are.
    pub(super) fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.objects)
    }

    /// The footers of every split in a folder, in no order; those that are `known` are not read
    /// again. One that goes away meanwhile is left out.
    pub(crate) async fn list(&self, folder: &Folder, known: &Known) -> Result<Known> {
        let listed = self.objects.list(Some(&folder.location));
        let listed: Vec<_> = listed.try_collect().await.or_error(Kind::Unavailable, "list splits")?;
        let named = listed.into_iter().filter_map(|object| Some((folder.read(&object.location)?, object)));
        let footers = named.map(|(name, object)| async move {
            if let Some(footer) = known.get(&name) {
                return Ok(Some((name, Arc::clone(footer))));
            }
            match self.footer(&object.location, object.size).await {
                Ok(footer) => Ok(Some((name, Arc::new(footer)))),
                Err(error) if error.kind() == Kind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        });
        let footers = stream::iter(footers).buffer_unordered(REQUESTS_MAX);
        let footers: Vec<_> = footers.try_collect().await?;
        Ok(footers.into_iter().flatten().collect())
    }

    async fn footer(&self, location: &Location, size: u64) -> Result<Footer> {
        let start = size.saturating_sub(FOOTER_BYTES);
        let tail = self.read(location, start..size).await?;
        if let Some(footer) = Footer::read(location.as_ref(), &tail)? {
            return Ok(footer);
        }
        let whole = self.read(location, 0..size).await?;
        let footer = Footer::read(location.as_ref(), &whole)?;
        footer.ok_or_else(|| Error::corrupt(format!("split {location}: the object is too short")))
    }

    async fn read(&self, location: &Location, range: std::ops::Range<u64>) -> Result<Bytes> {
        if range.end < TRAILER_BYTES as u64 {
            return Err(Error::corrupt(format!("split {location}: the object is too short")));
        }
        let read = self.objects.get_range(location, range).await;
        read.map_err(|error| store::error("read the footer of", location, error))
    }

    /// Writes an object if it is absent, and keeps a local copy.
    pub(crate) async fn publish(&self, location: &Location, object: Bytes) -> Result<Published> {
        let put = self.objects.put_opts(location, object.clone().into(), PutMode::Create.into()).await;
        match put {
            Ok(_) => {
                if let Err(error) = self.keep(location, object).await {
                    warn!(%location, %error, "the split is not cached");
                }
                Ok(Published::Ours)
            }
            Err(object_store::Error::AlreadyExists { .. }) => {
                let found =
                    self.objects.head(location).await.or_error(Kind::Unavailable, "look up a split")?;
                let footer = self.footer(location, found.size).await;
                // Gone in a moment: it is there to be read, or is not in the way, at the next try.
                let footer = footer.map_err(|error| match error.kind() {
                    Kind::NotFound => Error::unavailable(error.to_string()),
                    _ => error,
                });
                Ok(Published::Theirs(footer?))
            }
            Err(error) => Err(Error::new(Kind::Unavailable, "publish a split").with_source(error)),
        }
    }

    async fn keep(&self, location: &Location, object: Bytes) -> Result<()> {
        let (path, temporary) = (self.path(location), self.temporary(location));
        blocking(move || {
            let failed = "write a split to the cache";
            make_folder(&path)?;
            std::fs::write(&temporary, &object).or_error(Kind::Unavailable, failed)?;
            std::fs::rename(&temporary, &path).or_error(Kind::Unavailable, failed)
        })
        .await
    }

    /// Opens a split, from its local copy if there is one that is whole. `NotFound` if it was removed
    /// since it was listed; `Corrupt`, naming it, if the object is damaged.
    pub(crate) async fn open(&self, location: &Location) -> Result<Arc<Split>> {
        let used = self.ticks.fetch_add(1, Ordering::Relaxed);
        let cell = {
            let mut opened = lock(&self.opened);
            let entry = opened.entry(location.clone()).or_default();
            entry.used = used;
            Arc::clone(&entry.split)
        };
        if let Some((split, _)) = cell.get() {
            return Ok(Arc::clone(split));
        }
        let loaded = cell.get_or_try_init(|| self.load(location)).await;
        if loaded.as_ref().is_err_and(|error| error.kind() == Kind::NotFound) {
            lock(&self.opened).remove(location);
        }
        let (split, _) = loaded?;
        self.evict(location);
        Ok(Arc::clone(split))
    }

    async fn load(&self, location: &Location) -> Result<(Arc<Split>, u64)> {
        let path = self.path(location);
        if tokio::fs::try_exists(&path).await.unwrap_or(false) {
            match open_file(path.clone()).await {
                Ok(opened) => return Ok(opened),
                Err(error) => warn!(%location, %error, "the cached split is fetched again"),
            }
        }
        self.fetch(location, &path).await?;
        let opened = open_file(path.clone()).await;
        if opened.is_err() {
            tokio::fs::remove_file(&path).await.or_error(Kind::Unavailable, "remove a damaged split")?;
        }
        opened.map_err(|error| error.context(format_args!("split {location}")))
    }

    async fn fetch(&self, location: &Location, path: &Path) -> Result<()> {
        let failed = "write a split to the cache";
        let object = self.objects.get(location).await;
        let object = object.map_err(|error| store::error("fetch", location, error))?;
        let folder = path.to_owned();
        blocking(move || make_folder(&folder)).await?;
        let temporary = self.temporary(location);
        let mut file = tokio::fs::File::create(&temporary).await.or_error(Kind::Unavailable, failed)?;
        let mut parts = object.into_stream();
        while let Some(part) = parts.try_next().await.or_error(Kind::Unavailable, "fetch a split")? {
            file.write_all(&part).await.or_error(Kind::Unavailable, failed)?;
        }
        file.flush().await.or_error(Kind::Unavailable, failed)?;
        tokio::fs::rename(&temporary, path).await.or_error(Kind::Unavailable, failed)
    }

    /// Removes an object, unless it is gone already, and its local copy. Who reads it keeps it until
    /// he is done.
    pub(crate) async fn remove(&self, location: &Location) -> Result<()> {
        match self.objects.delete(location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(store::error("remove", location, error)),
        }
        self.forget(location).await;
        Ok(())
    }

    /// Removes a local copy.
    pub(crate) async fn forget(&self, location: &Location) {
        lock(&self.opened).remove(location);
        match tokio::fs::remove_file(self.path(location)).await {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                warn!(%location, %error, "the cached split is not removed");
            }
            _ => {}
        }
    }

    /// Every object there is, of any stream.
    pub(crate) fn every(&self) -> BoxStream<'static, Result<Location>> {
        let listed = self.objects.list(Some(&Location::from(INDEX)));
        let listed = listed.map(|listed| listed.or_error(Kind::Unavailable, "list all splits"));
        listed.map_ok(|object| object.location).boxed()
    }

    /// Every local copy. Files of unfinished copies that an earlier process left are removed.
    pub(crate) async fn copies(&self) -> Result<Vec<Location>> {
        let root = self.cache.clone();
        blocking(move || {
            let (mut copies, mut folders) = (Vec::new(), vec![root.clone()]);
            while let Some(folder) = folders.pop() {
                // Whoever cleans the cache up may take folders away at any time.
                let Ok(entries) = std::fs::read_dir(&folder) else { continue };
                for path in entries.flatten().map(|entry| entry.path()) {
                    let relative = path.strip_prefix(&root).ok().and_then(Path::to_str);
                    if path.is_dir() {
                        folders.push(path);
                    } else if is_left_behind(&path) {
                        std::fs::remove_file(&path)
                            .or_error(Kind::Unavailable, "clean the split cache up")?;
                    } else if let Some(relative) = relative {
                        copies.push(Location::from(relative));
                    }
                }
            }
            Ok(copies)
        })
        .await
    }

    /// Closes the splits that were not used for longest, while the copies take too much room. Who
    /// still reads one keeps it until he is done.
    fn evict(&self, newest: &Location) {
        let mut opened = lock(&self.opened);
        let size = |entry: &Opened| entry.split.get().map_or(0, |(_, bytes)| *bytes);
        let mut held: u64 = opened.values().map(size).sum();
        while held > self.cache_bytes_max {
            let candidates = opened.iter().filter(|(location, entry)| *location != newest && size(entry) > 0);
            let oldest = candidates.min_by_key(|(_, entry)| entry.used);
            let Some((location, bytes)) = oldest.map(|(location, entry)| (location.clone(), size(entry)))
            else {
                return;
            };
            opened.remove(&location);
            held -= bytes;
            if let Err(error) = std::fs::remove_file(self.path(&location)) {
                warn!(%location, %error, "the cached split is not removed");
            }
        }
    }

    fn path(&self, location: &Location) -> PathBuf {
        self.cache.join(location.as_ref())
    }

    /// A name beside the local copy's that nobody else uses.
    fn temporary(&self, location: &Location) -> PathBuf {
        let tick = self.ticks.fetch_add(1, Ordering::Relaxed);
        self.path(location).with_extension(format!("{}-{tick}.tmp", std::process::id()))
    }
}

/// Whether a file is an unfinished copy of another process. A copy of that name by this one would be
/// finished under it.
fn is_left_behind(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.ends_with(".tmp") && !name.contains(&format!(".{}-", std::process::id()))
}

fn make_folder(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).or_error(Kind::Unavailable, "make the split cache's folder")
}

async fn open_file(path: PathBuf) -> Result<(Arc<Split>, u64)> {
    blocking(move || {
        let bytes = std::fs::metadata(&path).or_error(Kind::Unavailable, "read a cached split")?.len();
        Ok((Arc::new(Split::open(&path)?), bytes))
    })
    .await
}
