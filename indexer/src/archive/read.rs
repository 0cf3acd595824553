//! Reading the archive back: a stream's objects, and the events in them.

use broker::catalog::Stream;
use broker::record::Origin;
use broker::{Kind, Offset, Partition, Result, ResultExt, Timestamp};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::object;
use super::put::blocking;
use crate::store;

/// An object of the archive, as its name tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedObject {
    /// Its full name in the store.
    pub path: Path,
    /// The processed partition.
    pub partition: Partition,
    /// The offset of its first event.
    pub first: Offset,
    /// Its size in bytes, compressed.
    pub size: u64,
}

/// A line of an object.
#[derive(Debug, Deserialize)]
pub struct ArchivedEvent {
    /// The processed partition.
    pub partition: Partition,
    /// The processed offset.
    pub offset: Offset,
    /// The position of the raw event.
    pub origin: Option<Origin>,
    /// The event's own time.
    pub timestamp: Timestamp,
    /// The event's key.
    pub key: Option<String>,
    /// The event as it was posted, or as its transform left it.
    pub value: Box<RawValue>,
}

/// The objects of this life of a stream, by partition and first offset.
pub async fn objects(objects: &dyn ObjectStore, stream: &Stream) -> Result<Vec<ArchivedObject>> {
    let folder = object::folder(stream);
    let listed = objects.list(Some(&folder)).try_filter_map(async |listed| {
        let named = object::parse_name(stream, &listed.location);
        Ok(named.map(|(partition, first)| ArchivedObject {
            path: listed.location,
            partition,
            first,
            size: listed.size,
        }))
    });
    let mut found: Vec<_> =
        listed.try_collect().await.map_err(|error| store::error("list", &folder, error))?;
    found.sort_by_key(|object| (object.partition, object.first));
    Ok(found)
}

/// The events of an object, in order. `NotFound` if there is none, `Corrupt` if it is damaged.
pub async fn read_object(objects: &dyn ObjectStore, path: &Path) -> Result<Vec<ArchivedEvent>> {
    let (bytes, path) = (fetch(objects, path).await?, path.clone());
    blocking(move || {
        let parse = |line: Vec<u8>| {
            let parsed = serde_json::from_slice(&line).or_error(Kind::Corrupt, "read a line of the object");
            parsed.map_err(|error| error.context(&path))
        };
        object::lines(&path, bytes)?.map(|line| line.and_then(parse)).collect()
    })
    .await
}

/// The number of events in all objects of this life of a stream.
pub async fn count(objects: &dyn ObjectStore, stream: &Stream) -> Result<u64> {
    let mut events = 0;
    for object in self::objects(objects, stream).await? {
        let bytes = fetch(objects, &object.path).await?;
        events += blocking(move || {
            object::lines(&object.path, bytes)?.try_fold(0, |lines, line| line.map(|_| lines + 1))
        })
        .await?;
    }
    Ok(events)
}

async fn fetch(objects: &dyn ObjectStore, path: &Path) -> Result<Bytes> {
    let failed = |error| store::error("read", path, error);
    objects.get(path).await.map_err(failed)?.bytes().await.map_err(failed)
}
