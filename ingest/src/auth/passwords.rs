//! Passwords: argon2id, of which the catalog keeps the hash with its salt and its costs.
//!
//! Hashing takes tens of milliseconds and 19 MiB on purpose, so it runs off the runtime and only few at
//! once.

use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use broker::access::Hidden;
use broker::{Error, Kind, Result, ResultExt as _};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

/// The fewest characters of a password.
const CHARACTERS_MIN: usize = 12;
/// The most characters of a password.
const CHARACTERS_MAX: usize = 256;
const SALT_BYTES: usize = 16;
/// How many are hashed at once, in the whole process.
const AT_ONCE: usize = 2;
/// How long one waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(5);

static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// What is kept of a new password. An error is one of `password`.
pub(crate) async fn hash(password: String) -> Result<Hidden> {
    let characters = password.chars().count();
    if !(CHARACTERS_MIN..=CHARACTERS_MAX).contains(&characters) {
        let message = format!("a password has {CHARACTERS_MIN} to {CHARACTERS_MAX} characters");
        return Err(Error::invalid("password", message));
    }
    in_turn(move || salted(&password).map(Hidden::new)).await?
}

/// Whether this is the password that `kept` is the hash of. It takes as long where there is none.
pub(crate) async fn is_right(password: String, kept: Option<Hidden>) -> Result<bool> {
    if password.chars().count() > CHARACTERS_MAX {
        return Ok(false);
    }
    in_turn(move || match kept {
        Some(kept) => Ok(is_hash_of(&kept, &password)),
        None => salted(&password).map(|_| false),
    })
    .await?
}

/// With argon2's own costs: 19 MiB, two passes.
fn salted(password: &str) -> Result<String> {
    let failed = || Error::new(Kind::Internal, "hash a password");
    let salt = SaltString::encode_b64(&rand::random::<[u8; SALT_BYTES]>()).map_err(|_| failed())?;
    let hash = Argon2::default().hash_password(password.as_bytes(), &salt).map_err(|_| failed())?;
    Ok(hash.to_string())
}

/// With the costs of the hash. The comparison takes the same time whatever differs.
fn is_hash_of(kept: &Hidden, password: &str) -> bool {
    match PasswordHash::new(kept.expose()) {
        Ok(hash) => Argon2::default().verify_password(password.as_bytes(), &hash).is_ok(),
        Err(error) => {
            warn!(%error, "a kept password cannot be read");
            false
        }
    }
}

async fn in_turn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let busy = || Error::new(Kind::Busy, "too many passwords are being checked");
    let turn = timeout(WAIT_MAX, TURNS.acquire()).await.map_err(|_| busy())?;
    let turn = turn.or_error(Kind::Internal, "wait to hash a password")?;
    let done = tokio::task::spawn_blocking(work).await.or_error(Kind::Internal, "hash a password");
    drop(turn);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_known_by_its_hash() {
        let kept = hash("correct horse battery".to_owned()).await.unwrap();
        assert!(kept.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_eq!(format!("{kept:?}"), "***");
        assert!(is_right("correct horse battery".to_owned(), Some(kept.clone())).await.unwrap());
        assert!(!is_right("correct horse batterz".to_owned(), Some(kept.clone())).await.unwrap());
        assert!(!is_right(String::new(), Some(kept)).await.unwrap());
        assert!(!is_right("correct horse battery".to_owned(), None).await.unwrap());
        let damaged = Hidden::new("$argon2id$v=19".to_owned());
        assert!(!is_right("correct horse battery".to_owned(), Some(damaged)).await.unwrap());
    }

    #[tokio::test]
    async fn two_hashes_of_one_password_differ() {
        let password = "correct horse battery";
        assert_ne!(hash(password.to_owned()).await.unwrap(), hash(password.to_owned()).await.unwrap());
    }

    #[tokio::test]
    async fn lengths_have_bounds() {
        for length in [0, 11, 257] {
            let error = hash("ø".repeat(length)).await.unwrap_err();
            assert_eq!((error.kind(), error.field()), (Kind::Invalid, Some("password")));
        }
        let longest = hash("ø".repeat(256)).await.unwrap();
        assert!(is_right("ø".repeat(256), Some(longest.clone())).await.unwrap());
        assert!(!is_right("ø".repeat(257), Some(longest)).await.unwrap());
    }
}
