//! An object store that ends in the middle: after some changes every further one fails, as if the
//! process had been killed there. What was changed before stays changed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// A real store behind a number of changes.
#[derive(Debug)]
pub(super) struct EndsAfter {
    store: Arc<dyn ObjectStore>,
    left: Arc<AtomicUsize>,
}

impl EndsAfter {
    pub(super) fn new(store: Arc<dyn ObjectStore>, changes: usize) -> Arc<Self> {
        Arc::new(Self { store, left: Arc::new(AtomicUsize::new(changes)) })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.left.load(Ordering::SeqCst) == 0
    }
}

fn change(left: &AtomicUsize) -> Result<()> {
    let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    taken
        .map(drop)
        .map_err(|_| Error::Generic { store: "EndsAfter", source: "the process was killed".into() })
}

impl fmt::Display for EndsAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndsAfter({})", self.store)
    }
}

#[async_trait]
impl ObjectStore for EndsAfter {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        change(&self.left)?;
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        change(&self.left)?;
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.store.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let left = Arc::clone(&self.left);
        self.store.delete_stream(locations.map(move |path| change(&left).and(path)).boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        change(&self.left)?;
        self.store.copy_opts(from, to, options).await
    }
}
