//! The gRPC doors: the same rules as over HTTP, without a text around them.

mod append;
mod streams;
#[cfg(test)]
mod tests;

use broker::{Error, StreamName};
use proto::problem::Problem;
use tonic::Status;

pub use append::AppendDoor;
pub use streams::StreamsDoor;

fn status(error: Error) -> Status {
    Problem::from(error).into_status()
}

fn stream_name(dataset: &str, version: &str) -> Result<StreamName, Status> {
    StreamName::new(dataset, version).map_err(status)
}
