//! The gRPC doors: the same rules as over HTTP, without a text around them.

mod append;
mod streams;
#[cfg(test)]
mod tests;

use broker::{Error, Principal, StreamName};
use proto::problem::Problem;
use tonic::{Request, Status};

pub use append::AppendDoor;
pub use streams::StreamsDoor;

fn status(error: Error) -> Status {
    Problem::from(error).into_status()
}

/// Who calls; the guard in front of every service says so.
fn caller<T>(request: &Request<T>) -> Result<Principal, Status> {
    let caller = request.extensions().get::<Principal>().cloned();
    caller.ok_or_else(|| status(Error::internal("nobody checked who calls")))
}

fn stream_name(dataset: &str, version: &str) -> Result<StreamName, Status> {
    StreamName::new(dataset, version).map_err(status)
}
