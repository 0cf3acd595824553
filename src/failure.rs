//! How the program ends when something cannot be done: a message for people and an exit code for
//! scripts.

use std::fmt;
use std::io;
use std::process::ExitCode;

use broker::Kind;

/// What the exit code tells a script. `docs/configuration.md` and `--help` list the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Nothing went wrong; only the reader of the output went away.
    ReaderGone,
    /// It could not be done.
    Failure,
    /// The command, the request or the configuration is wrong.
    Usage,
    /// What was asked for does not exist.
    NotFound,
    /// Somebody else was first, or it exists already.
    Conflict,
    /// The server, or something it needs, does not answer.
    Unavailable,
    /// The token is missing or wrong, or does not permit it.
    Unauthenticated,
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn number(self) -> u8 {
        match self {
            Exit::ReaderGone => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Conflict => 4,
            Exit::Unavailable => 5,
            Exit::Unauthenticated => 6,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.number())
    }
}

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Exit {
        match kind {
            Kind::Invalid | Kind::TooLarge => Exit::Usage,
            Kind::Unauthenticated | Kind::Forbidden => Exit::Unauthenticated,
            Kind::NotFound => Exit::NotFound,
            Kind::Conflict => Exit::Conflict,
            Kind::Busy | Kind::Unavailable | Kind::Fenced => Exit::Unavailable,
            Kind::Corrupt | Kind::Internal => Exit::Failure,
        }
    }
}

/// Why the program ends without having done what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    field: Option<String>,
}

impl Failure {
    /// A failure with a message in lower case.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), field: None }
    }

    /// The same failure, naming the field or the key at fault.
    #[must_use]
    pub(crate) fn with_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The same failure, with what was being done in front of its message.
    #[must_use]
    pub(crate) fn context(mut self, doing: impl fmt::Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// The same failure, with what can be done about it behind its message.
    #[must_use]
    pub(crate) fn hint(mut self, advice: &str) -> Self {
        self.message = format!("{}; {advice}", self.message);
        self
    }

    /// What the shell is told.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{field}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl From<broker::Error> for Failure {
    fn from(error: broker::Error) -> Self {
        let failure = Failure::new(error.kind().into(), error.to_string());
        match error.field() {
            Some(field) => failure.with_field(field),
            None => failure,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::BrokenPipe => Exit::ReaderGone,
            io::ErrorKind::NotFound => Exit::NotFound,
            _ => Exit::Failure,
        };
        Failure::new(exit, error.to_string())
    }
}

/// Says what was being done when something failed.
pub(crate) trait OrFail<T> {
    /// Puts "verb object" in front of the message.
    fn or_fail(self, doing: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> OrFail<T> for Result<T, E> {
    fn or_fail(self, doing: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| error.into().context(doing))
    }
}
