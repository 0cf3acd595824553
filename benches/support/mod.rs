//! What the drivers share: flights, the pairing of two candidates, what a result looks like, and the
//! raw candidates that more than one driver measures against.
#![allow(dead_code, reason = "each driver uses its own part")]

pub(crate) mod bare_door;
pub(crate) mod client;
pub(crate) mod figures;
pub(crate) mod flights;
pub(crate) mod grpc;
pub(crate) mod local;
pub(crate) mod options;
pub(crate) mod own_door;
pub(crate) mod pair;
pub(crate) mod process;
pub(crate) mod questions;
pub(crate) mod raw_index;
pub(crate) mod raw_kafka;
pub(crate) mod raw_log;
pub(crate) mod raw_stages;
pub(crate) mod raw_table;
pub(crate) mod searchable;
pub(crate) mod server;
pub(crate) mod wrk;

use std::path::{Path, PathBuf};

/// The folder of results and of the data that is made for a run, within the build's own.
pub(crate) fn folder() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the folder lies in the target's");
    target.join("benches")
}

/// A new folder on the disk that results lie on, which goes away with its handle.
pub(crate) fn scratch() -> tempfile::TempDir {
    let parent = folder().join("scratch");
    std::fs::create_dir_all(&parent).expect("make the folder of scratch data");
    tempfile::tempdir_in(parent).expect("make a scratch folder")
}
