//! Keeps and moves records: topics, the log on sled and on Kafka, the catalog, transforms, and the
//! one worker loop that every sink is driven by.
//!
//! This crate names no HTTP server, no search index and no object store.

pub mod access;
pub mod audit;
pub mod batch;
pub mod catalog;
pub mod checkpoint;
pub mod dead_letter;
pub mod error;
pub mod extract;
pub mod log;
pub mod memory;
pub mod metadata;
mod packed;
pub mod partition;
pub mod record;
pub mod router;
pub mod sink;
pub mod time;
pub mod topic;
pub mod transform;
pub mod varint;
pub mod worker;

pub use access::{Permission, Principal};
pub use batch::{Batch, BatchBuilder};
pub use catalog::Catalog;
pub use checkpoint::{Checkpoint, Place};
pub use dead_letter::DeadLetter;
pub use error::{Error, Kind, Result, ResultExt};
pub use extract::{Extracted, Extractor};
pub use log::{Append, Appended, Chunk, Entry, Group, Log, Parcel, Position, Reader, Run, Selection};
pub use partition::partition_of;
pub use record::{Origin, Record};
pub use router::Router;
pub use sink::{Flushed, Rejection, Settled, Sink};
pub use time::{Clock, Timestamp};
pub use topic::{Confidentiality, Offset, Partition, Stage, StreamName, Topic, TopicConfig};
pub use transform::{Outcome, Transform};
pub use worker::Worker;
