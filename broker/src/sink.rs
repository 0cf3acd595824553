//! What a worker writes to: the router, the archive, the index, a table.

use async_trait::async_trait;

use crate::checkpoint::{Checkpoint, Place};
use crate::error::{Kind, Result, ResultExt};
use crate::log::{Append, Chunk, Entry, Parcel};

/// An output that keeps up with the log. One worker drives it:
/// `resume → loop { write → flush → commit }`.
#[async_trait]
pub trait Sink: Send {
    /// Where to read on from, for each partition that `committed` names (offset 0 where the group
    /// never committed): from the sink's own output where it can tell, else as committed. Called
    /// before a partition's first chunk, and again for all of them after an error.
    async fn resume(&mut self, committed: &Checkpoint) -> Result<Checkpoint>;

    /// Stages entries; nothing outside is changed. Returns those that can never succeed.
    async fn write(&mut self, chunks: Vec<Chunk>) -> Result<Vec<Rejection>>;

    /// Like [`Sink::write`], with what was read as it lies in the log. A sink that looks into every
    /// record leaves this as it is: they are decoded off the runtime.
    async fn write_parcels(&mut self, parcels: Vec<Parcel>) -> Result<Vec<Rejection>> {
        let chunks = open(parcels).await?;
        self.write(chunks).await
    }

    /// Makes durable what was staged up to `upto`, or as much of it as the sink wants to now.
    /// Called after every write, and on every tick while nothing arrives. `upto` names the
    /// partitions of which not everything was through yet; in the first call also every other one
    /// that the group has committed.
    async fn flush(&mut self, upto: &Checkpoint) -> Result<Flushed>;

    /// Partitions in which something is to be settled though no record of them may come, such as a sink
    /// of a stream that was switched on or off. Called before every flush: cheap where there are none.
    fn unsettled(&mut self) -> Vec<Place> {
        Vec::new()
    }

    /// Settles what it can of those partitions that this worker holds; `at` is the next offset that would
    /// be written of each. Called before every flush while there are any.
    async fn settle(&mut self, _at: &Checkpoint) -> Result<Settled> {
        Ok(Settled::default())
    }
}

/// Up to this many bytes are decoded at once, larger parcels off the runtime.
const INLINE_BYTES_MAX: usize = 16 << 10;

async fn open(parcels: Vec<Parcel>) -> Result<Vec<Chunk>> {
    let open = |parcels: Vec<Parcel>| parcels.into_iter().map(Parcel::open).collect();
    if parcels.iter().map(Parcel::sealed_bytes).sum::<usize>() <= INLINE_BYTES_MAX {
        return open(parcels);
    }
    let opening = tokio::task::spawn_blocking(move || open(parcels));
    opening.await.or_error(Kind::Internal, "decode records")?
}

/// What a flush came to.
#[derive(Debug, Default)]
pub struct Flushed {
    /// Everything before this is durable in the sink's output, or needs none.
    pub through: Checkpoint,
    /// What must be appended in one step with the progress to `through`.
    pub appends: Vec<Append>,
}

/// What was settled in partitions.
#[derive(Debug, Default)]
pub struct Settled {
    /// Where partitions are read from next, which may be further back. It becomes their progress, and
    /// they are resumed anew.
    pub rewind: Checkpoint,
    /// What must be appended in one step with that.
    pub appends: Vec<Append>,
}

/// An entry that can never succeed.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// Where it was read.
    pub place: Place,
    /// What was read.
    pub entry: Entry,
    /// Why it cannot succeed, for the one who sent it.
    pub reason: String,
    /// The version of the transform that refused it.
    pub transform_version: u32,
}
