//! Passwords on the command line: typed unseen at a terminal, else the first line of standard input, and
//! never an argument, which other users of the machine could see.

use std::io::{IsTerminal as _, stdin};

use crate::config::Secret;
use crate::failure::{Failure, OrFail};

/// Asks for a password.
pub(super) fn read(prompt: &str) -> Result<Secret, Failure> {
    if stdin().is_terminal() {
        let typed = rpassword::prompt_password(format!("{prompt}: "));
        return typed.map(Secret::new).or_fail("read a password");
    }
    let mut line = String::new();
    stdin().read_line(&mut line).or_fail("read a password")?;
    Ok(Secret::new(line.trim_end_matches(['\r', '\n'])))
}
