//! `headwater completions`: completions for a shell, on standard output.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, output};
use crate::failure::Failure;

/// Prints completions for a shell.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell that will read them
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "headwater", &mut script);
        output::text(&String::from_utf8_lossy(&script))
    }
}
