//! The data folder: one process at a time, and the name that the process keeps over restarts.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::path::Path;

use crate::failure::{Exit, Failure, OrFail};

/// The data folder, locked while this lives.
pub(super) struct Folder {
    _lock: File,
}

impl Folder {
    /// Makes the folder where it is missing and locks it. A second process is refused.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(path).or_fail(format!("make {}", path.display()))?;
        let lock = path.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
        let file = file.or_fail(format!("open {}", lock.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _lock: file }),
            Err(TryLockError::WouldBlock) => {
                let message = format!("another process uses the data folder {}", path.display());
                Err(Failure::new(Exit::Conflict, message).with_field("data"))
            }
            Err(TryLockError::Error(error)) => Err(error).or_fail(format!("lock {}", lock.display())),
        }
    }
}

/// The name by which a Kafka cluster knows this process again after a restart: kept in the folder,
/// made at the first start.
pub(super) fn member(path: &Path) -> Result<String, Failure> {
    let file = path.join("member");
    let doing = format!("keep the member's name in {}", file.display());
    if let Ok(known) = fs::read_to_string(&file)
        && !known.trim().is_empty()
    {
        return Ok(known.trim().to_owned());
    }
    let name = format!("{:016x}", rand::random::<u64>());
    let draft = path.join("member.new");
    let mut written = File::create(&draft).or_fail(&doing)?;
    writeln!(written, "{name}").or_fail(&doing)?;
    written.sync_all().or_fail(&doing)?;
    fs::rename(&draft, &file).or_fail(&doing)?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_used_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Folder::open(folder.path()).unwrap();
        let second = Folder::open(folder.path()).err().unwrap();
        assert!(second.to_string().contains(&folder.path().display().to_string()), "{second}");
        drop(first);
        assert!(Folder::open(folder.path()).is_ok());
    }

    #[test]
    fn a_member_keeps_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let name = member(folder.path()).unwrap();
        assert_eq!(name.len(), 16);
        assert_eq!(member(folder.path()).unwrap(), name);
    }
}
