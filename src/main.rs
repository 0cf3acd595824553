//! Headwater: durable ingest, exactly-once routing, an object archive and date-ranged queries in one
//! program. This file turns arguments into a command and a failure into an exit code.

mod app;
mod cli;
mod config;
mod failure;
mod serve;
mod supervise;

use std::process::ExitCode;

use clap::Parser;

use crate::failure::Exit;

fn main() -> ExitCode {
    let Err(failure) = cli::run(cli::Cli::parse()) else {
        return ExitCode::SUCCESS;
    };
    if failure.exit() != Exit::ReaderGone {
        eprintln!("error: {failure}");
    }
    failure.exit().into()
}
