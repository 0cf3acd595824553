//! Putting an object only if its name is free, and adopting what has the name if it is not.
//!
//! An object of up to [`multipart_bytes`](ArchiveSettings::multipart_bytes) is one conditional put.
//! A larger one is uploaded in parts, which no store does conditionally through this interface:
//! it goes to a name of its own under `uploads/`, is copied to its place if that is free, in one
//! step of the store, and its upload is deleted. The upload's name tells its bytes, so that whoever
//! writes to it writes the same. A crash in between leaves it behind; the retry removes it.

use std::sync::Arc;
use std::time::Duration;

use broker::{Error, Kind, Result, ResultExt};
use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, WriteMultipart};

use super::ArchiveSettings;
use super::lane::{Placed, Span};
use super::object::{self, Compression, Identity};
use crate::store;

/// The smallest part that S3 takes, but for the last.
const PART_BYTES_MIN: u64 = 5 << 20;
/// How many parts of one object are uploaded at the same time.
const PARTS_IN_FLIGHT: usize = 2;
/// How often an object is put whose name is taken by a writer that did not finish yet.
const ATTEMPTS_MAX: u32 = 5;
/// How long to wait for such a writer, times the number of attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);

/// The store that objects are put to.
#[derive(Clone)]
pub(super) struct Objects {
    store: Arc<dyn ObjectStore>,
    settings: Arc<ArchiveSettings>,
}

impl Objects {
    pub(super) fn new(store: Arc<dyn ObjectStore>, settings: Arc<ArchiveSettings>) -> Self {
        Self { store, settings }
    }

    /// Makes an object of the span, or adopts the one that has its name.
    pub(super) async fn put(&self, span: Span) -> Result<Placed> {
        let Span { stream, events, is_first } = span;
        let (identity, arrival, last) =
            events.ends().ok_or_else(|| Error::internal("put an object without events"))?;
        let end = last.next();
        let stem = object::stem(&stream, &identity, arrival);
        let finished = blocking(move || events.finish()).await?;
        if is_first && let Some(found) = self.find_otherwise_compressed(&stem).await? {
            let end = self.adopt(&found, &identity).await?;
            return Ok(Placed::Adopted(end, finished));
        }
        let bytes = &finished.bytes;
        let path = object::path(&stem, self.settings.compression);
        for attempt in 1..=ATTEMPTS_MAX {
            match self.put_new(&path, bytes).await {
                Ok(()) => {
                    tracing::debug!(%path, %end, bytes = bytes.len(), "wrote an object");
                    return Ok(Placed::Put(end));
                }
                Err(error) if error.kind() == Kind::Conflict => {}
                Err(error) => return Err(error),
            }
            match self.adopt(&path, &identity).await {
                Ok(end) => return Ok(Placed::Adopted(end, finished)),
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(ATTEMPT_PAUSE * attempt).await;
        }
        Err(Error::unavailable(format!("put {path}: its name is taken, but there is no such object")))
    }

    /// The object under the name that it has with another compression: the setting may have been
    /// changed between a put and its commit.
    async fn find_otherwise_compressed(&self, stem: &str) -> Result<Option<Path>> {
        for compression in Compression::ALL.into_iter().filter(|other| *other != self.settings.compression) {
            let path = object::path(stem, compression);
            match self.store.head(&path).await {
                Ok(_) => return Ok(Some(path)),
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => return Err(store::error("look for", &path, error)),
            }
        }
        Ok(None)
    }

    async fn put_new(&self, path: &Path, bytes: &Bytes) -> Result<()> {
        if bytes.len() as u64 > self.part_bytes() {
            return self.put_new_in_parts(path, bytes).await;
        }
        let options = PutOptions::from(PutMode::Create);
        let put = self.store.put_opts(path, bytes.clone().into(), options).await;
        put.map(drop).map_err(|error| store::error("put", path, error))
    }

    async fn put_new_in_parts(&self, path: &Path, bytes: &Bytes) -> Result<()> {
        let upload = Path::from(format!("uploads/{path}.{:08x}.{}", crc32fast::hash(bytes), bytes.len()));
        let failed = |error| store::error("upload", &upload, error);
        let part_bytes = usize::try_from(self.part_bytes()).unwrap_or(usize::MAX);
        let parts = self.store.put_multipart(&upload).await.map_err(failed)?;
        let mut parts = WriteMultipart::new_with_chunk_size(parts, part_bytes);
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            parts.wait_for_capacity(PARTS_IN_FLIGHT).await.map_err(failed)?;
            parts.put(rest.split_to(part_bytes.min(rest.len())));
        }
        parts.finish().await.map_err(failed)?;
        let copied = self.store.copy_if_not_exists(&upload, path).await;
        match self.store.delete(&upload).await {
            // Somebody who uploaded the same bytes was quicker.
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => tracing::warn!(%upload, %error, "an upload is left behind"),
        }
        copied.map_err(|error| match error {
            // The upload was deleted by somebody who copied the same bytes.
            StoreError::NotFound { .. } => Error::new(Kind::Conflict, format!("copy to {path}")),
            error => store::error("copy to", path, error),
        })
    }

    fn part_bytes(&self) -> u64 {
        self.settings.multipart_bytes.max(PART_BYTES_MIN)
    }

    /// The end of an object that was found. It must begin with the very event that ours begins
    /// with; `Corrupt` if not.
    async fn adopt(&self, path: &Path, expected: &Identity) -> Result<broker::Offset> {
        let failed = |error| store::error("read", path, error);
        let bytes = self.store.get(path).await.map_err(failed)?.bytes().await.map_err(failed)?;
        let of = path.clone();
        let (first, last) = blocking(move || Identity::ends(&of, bytes)).await?;
        if first != *expected {
            let message = format!("the object {path} begins with another event than the log has there");
            return Err(Error::corrupt(message));
        }
        tracing::info!(%path, end = %last.offset.next(), "adopting an object");
        Ok(last.offset.next())
    }
}

/// Runs what would hold up the runtime.
pub(super) async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(run).await.or_error(Kind::Internal, "wait for a blocking step")?
}
