//! What the program learns from where it runs, apart from its configuration.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::failure::{Failure, OrFail};

/// The prefix of every variable that is ours.
const PREFIX: &str = "HEADWATER_";
/// Names the configuration file, as `--config` does.
const CONFIG: &str = "HEADWATER_CONFIG";
/// Names the environment, as `--environment` does.
const ENVIRONMENT: &str = "HEADWATER_ENVIRONMENT";
/// Names the server for client commands, as `--server` does.
const SERVER: &str = "HEADWATER_SERVER";

/// The configuration file that the environment names.
pub(super) fn config_file() -> Option<PathBuf> {
    std::env::var_os(CONFIG).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The environment whose part of the configuration file counts.
pub(super) fn environment() -> Option<String> {
    std::env::var_os(ENVIRONMENT)?.into_string().ok().filter(|name| !name.is_empty())
}

/// The server that the environment names.
pub(crate) fn server() -> Option<String> {
    std::env::var_os(SERVER)?.into_string().ok().filter(|url| !url.is_empty())
}

/// Every variable that overrides a key: its name without the prefix, and its value.
pub(super) fn overrides() -> Vec<(String, String)> {
    std::env::vars_os().filter_map(ours).collect()
}

/// Leaves out what is not about the configuration: what scripts and tests are told, and what
/// container platforms set for a service that is called `headwater` (`HEADWATER_PORT_7070_TCP`, …).
fn ours((name, value): (OsString, OsString)) -> Option<(String, String)> {
    let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
    let rest = name.strip_prefix(PREFIX)?;
    let others = ["TEST_", "SERVICE_", "PORT"].iter().any(|prefix| rest.starts_with(prefix));
    let own = [CONFIG, ENVIRONMENT, SERVER, "HEADWATER_VAR", "HEADWATER_IMAGE"].contains(&name.as_str());
    (!others && !own).then(|| (rest.to_owned(), value))
}

/// The path of the running program.
pub(crate) fn own_executable() -> Result<PathBuf, Failure> {
    std::env::current_exe().or_fail("find the running program")
}

/// How the program was called, such as `headwater` or `target/release/headwater`.
pub(crate) fn called_as() -> String {
    std::env::args().next().unwrap_or_else(|| "headwater".to_owned())
}

/// The folder for files that need not stay.
pub(crate) fn temporary_folder() -> PathBuf {
    std::env::temp_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_others_are_left_alone() {
        let pass = |name: &str| ours((name.into(), "x".into())).map(|(rest, _)| rest);
        assert_eq!(pass("HEADWATER_KAFKA__BROKERS").as_deref(), Some("KAFKA__BROKERS"));
        for name in [
            "PATH",
            "HEADWATER_CONFIG",
            "HEADWATER_SERVER",
            "HEADWATER_ENVIRONMENT",
            "HEADWATER_TEST_KAFKA",
            "HEADWATER_VAR",
            "HEADWATER_PORT_7070_TCP_ADDR",
            "HEADWATER_SERVICE_HOST",
        ] {
            assert_eq!(pass(name), None, "{name}");
        }
    }
}
