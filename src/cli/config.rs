//! `headwater config`: what the server would start with.

use clap::Subcommand;

use super::{Settings, output};
use crate::failure::Failure;

/// Looks at the configuration without starting anything.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Says whether the server would start with it
    Check,
    /// Prints every key that has a value, and where it came from; secrets are hidden
    Show,
}

impl ConfigCommand {
    pub(super) fn run(self, settings: &Settings) -> Result<(), Failure> {
        let loaded = settings.load()?;
        match self {
            ConfigCommand::Check => {
                loaded.config.check()?;
                output::line("the configuration is valid")
            }
            ConfigCommand::Show => output::text(&loaded.show()),
        }
    }
}
