//! Wires the server together.

use crate::config::Config;
use crate::failure::{Exit, Failure};

/// Runs the server until it is told to stop.
pub(crate) fn serve(config: Config) -> Result<(), Failure> {
    let message = format!("this build has no server to listen on {}", config.listen);
    Err(Failure::new(Exit::Unavailable, message))
}
