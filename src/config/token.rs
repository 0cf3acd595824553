//! The bearer token in the data folder: made at the first start, readable by its owner only.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::values::Secret;
use crate::failure::{Exit, Failure, OrFail};

/// The fewest characters of a token that others than this machine may try.
pub(crate) const LENGTH_MIN: usize = 8;

/// A token, and whether it was made just now.
pub(crate) struct Found {
    /// The token.
    pub(crate) token: Secret,
    /// Whether this call made it, so that it should be printed once.
    pub(crate) is_new: bool,
}

/// Whether a token fits in a header.
pub(super) fn is_usable(token: &Secret) -> bool {
    let text = token.expose();
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_graphic())
}

/// Reads the token of a data folder; none if there is none yet.
pub(crate) fn read(data: &Path) -> Result<Option<Secret>, Failure> {
    let path = path(data);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).or_fail(format!("read token {}", path.display())),
    };
    let token = Secret::new(text.trim());
    if !is_usable(&token) {
        let message = format!("{} holds no token of printable characters", path.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(Some(token))
}

/// Reads the token of a data folder, or makes one, with mode 600. The folder is made if it is
/// missing. Of two processes that make it at the same time, one wins and both get its token.
pub(crate) fn find_or_make(data: &Path) -> Result<Found, Failure> {
    if let Some(token) = read(data)? {
        return Ok(Found { token, is_new: false });
    }
    let is_new = write(data).or_fail(format!("make token {}", path(data).display()))?;
    let token = read(data)?.ok_or_else(|| Failure::new(Exit::Failure, "the token is gone again"))?;
    Ok(Found { token, is_new })
}

/// Writes a token beside its place and links it there, so that it is never seen in part.
fn write(data: &Path) -> io::Result<bool> {
    fs::create_dir_all(data)?;
    let draft = data.join(format!("token.{}.new", std::process::id()));
    let text = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>());
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path(data));
    fs::remove_file(&draft)?;
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn path(data: &Path) -> PathBuf {
    data.join("token")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn is_made_once_for_its_owner_only_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        assert!(read(&data).unwrap().is_none());
        let made = find_or_make(&data).unwrap();
        assert!(made.is_new);
        assert_eq!(made.token.expose().len(), 32);
        let found = find_or_make(&data).unwrap();
        assert!(!found.is_new);
        assert_eq!(found.token, made.token);
        let mode = fs::metadata(data.join("token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
    }

    #[test]
    fn a_file_without_a_usable_token_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("token"), "two words\n").unwrap();
        assert!(read(folder.path()).is_err());
    }
}
