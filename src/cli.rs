//! The command line: one file a subcommand. Everything but `serve`, `config`, `completions` and
//! `demo` is a client of a running server.

mod bench;
mod client;
mod completions;
mod config;
mod dead_letters;
mod demo;
mod follow;
mod grants;
mod import;
mod keys;
mod login;
mod output;
mod password;
mod query;
mod serve;
mod streams;
mod users;
mod webhook_tokens;

use std::future::Future;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Loaded, Overrides, load};
use crate::failure::{Failure, OrFail};

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  it could not be done, or only in part
  2  the command, the request or the configuration is wrong
  3  what was asked for does not exist
  4  somebody else was first, or it exists already
  5  the server, or something it needs, does not answer
  6  the token is missing or wrong, or does not permit it";

/// Takes events in durably, routes them exactly once, archives them and finds them by date.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Settings {
    /// The configuration file [default: ./headwater.toml where there is one; env: HEADWATER_CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Settings")]
    config: Option<PathBuf>,
    /// The environment whose part of the file counts, such as `staging` [env: HEADWATER_ENVIRONMENT]
    #[arg(long, global = true, value_name = "NAME", help_heading = "Settings")]
    environment: Option<String>,
    /// The folder that holds everything [default: ./data; env: HEADWATER_DATA]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Settings")]
    data: Option<PathBuf>,
    /// The bearer token [default: the one in DIR/token; env: HEADWATER_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN", help_heading = "Settings")]
    token: Option<String>,
    /// The server that client commands talk to [default: the address of `listen`; env:
    /// HEADWATER_SERVER]
    #[arg(long, global = true, value_name = "URL", help_heading = "Settings")]
    server: Option<String>,
    /// Sets any key of the configuration, such as `limits.record_bytes_max=2MiB`
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = assignment, help_heading = "Settings")]
    set: Vec<(String, String)>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server
    Serve(serve::Serve),
    /// Creates, lists, shows, changes and deletes streams
    #[command(subcommand)]
    Streams(streams::Streams),
    /// Posts the records of a file to a stream, going on where it stopped
    ///
    /// Where the import stands is kept in FILE.headwater-import until it is done: the same command
    /// goes on where it stopped. If it is killed between an answer and that note, one batch is sent
    /// twice.
    Import(import::Import),
    /// Finds events by date, key and words
    Query(query::Query),
    /// Prints events as they are processed
    Follow(follow::Follow),
    /// Lists and replays records that could not be processed
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLetters),
    /// Makes, lists, shows, changes and deletes users
    #[command(subcommand)]
    Users(users::Users),
    /// Makes, lists and deletes API keys
    #[command(subcommand)]
    Keys(keys::Keys),
    /// Makes, lists and deletes webhook tokens
    #[command(subcommand)]
    WebhookTokens(webhook_tokens::WebhookTokens),
    /// Says who may do what with a dataset
    #[command(subcommand)]
    Grants(grants::Grants),
    /// Prints an access token for a user's password
    ///
    /// It is taken for an hour: HEADWATER_TOKEN=$(headwater login NAME) headwater query …
    Login(login::Login),
    /// Loads a running server and measures it
    Bench(Box<bench::Bench>),
    /// Checks and shows the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Prints completions for a shell
    Completions(completions::Completions),
    /// Shows the whole flow on a sample, with a server of its own
    Demo(demo::Demo),
}

/// Does what the arguments say.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let settings = cli.settings;
    match cli.command {
        Command::Serve(command) => command.run(&settings),
        Command::Streams(command) => wait_for(command.run(&settings)),
        Command::Import(command) => wait_for(command.run(&settings)),
        Command::Query(command) => wait_for(command.run(&settings)),
        Command::Follow(command) => wait_for(command.run(&settings)),
        Command::DeadLetters(command) => wait_for(command.run(&settings)),
        Command::Users(command) => wait_for(command.run(&settings)),
        Command::Keys(command) => wait_for(command.run(&settings)),
        Command::WebhookTokens(command) => wait_for(command.run(&settings)),
        Command::Grants(command) => wait_for(command.run(&settings)),
        Command::Login(command) => wait_for(command.run(&settings)),
        Command::Bench(command) => wait_for(command.run(&settings)),
        Command::Config(command) => command.run(&settings),
        Command::Completions(command) => command.run(),
        Command::Demo(command) => wait_for(command.run(&settings)),
    }
}

/// Runs a client command on this thread.
fn wait_for(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.or_fail("start the runtime")?.block_on(Box::pin(command))
}

impl Settings {
    /// What these flags say about the configuration.
    fn overrides(&self) -> Overrides {
        let mut overrides = Overrides::default();
        overrides.file(self.config.as_deref());
        overrides.environment(self.environment.as_deref());
        overrides.set("--data", "data", self.data.as_ref().map(|path| path.display().to_string()));
        overrides.set("--token", "token", self.token.as_ref());
        overrides
    }

    /// What `--set` says about the configuration; later than all other flags.
    fn assign(&self, overrides: &mut Overrides) {
        for (key, value) in &self.set {
            overrides.set("--set", key, Some(value));
        }
    }

    /// The configuration as a client command sees it.
    fn load(&self) -> Result<Loaded, Failure> {
        let mut overrides = self.overrides();
        self.assign(&mut overrides);
        load(&overrides)
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
