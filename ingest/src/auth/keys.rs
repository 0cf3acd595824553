//! API keys: `hwk.ID.SECRET`, of which the catalog keeps the id and a hash of the secret.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker::access::{Denial, Key, User};
use broker::catalog::Row;
use broker::{Catalog, Timestamp};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// What every key begins with.
pub(super) const PREFIX: &[u8] = b"hwk.";
pub(super) const UNKNOWN: Denial = Denial::Wrong("this API key is not known");
const ID_BYTES: usize = 12;
const SECRET_BYTES: usize = 32;

/// A key as it is shown once, when it is made.
pub(crate) struct Made {
    pub(crate) id: String,
    /// The whole key, as it is presented.
    pub(crate) key: String,
    /// What the catalog keeps of the secret.
    pub(crate) secret_sha256: String,
}

impl Made {
    /// A key that nobody has seen yet.
    pub(crate) fn random() -> Self {
        let id = URL_SAFE_NO_PAD.encode(rand::random::<[u8; ID_BYTES]>());
        let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; SECRET_BYTES]>());
        Self::of(id, &secret)
    }

    /// The key of an id and a secret.
    pub(crate) fn of(id: String, secret: &str) -> Self {
        let key = format!("hwk.{id}.{secret}");
        Self { id, key, secret_sha256: hash(secret.as_bytes()) }
    }
}

/// The id of a presented key, and whose it is. A key that expired says so, to whoever holds it; all else
/// that is wrong looks alike.
pub(super) fn holder(
    catalog: &Catalog,
    presented: &[u8],
    now: Timestamp,
) -> Result<(String, Arc<Row<User>>), Denial> {
    let (id, secret) = split(presented).ok_or(UNKNOWN)?;
    let key = catalog.row::<Key>(id).ok_or(UNKNOWN)?;
    let is_same: bool = hash(secret).as_bytes().ct_eq(key.value.secret_sha256.as_bytes()).into();
    let user = catalog.row::<User>(&key.value.user).filter(|user| is_same && !user.value.is_disabled);
    let user = user.ok_or(UNKNOWN)?;
    if key.value.expires_at.is_some_and(|expires_at| expires_at <= now) {
        return Err(Denial::Expired("this API key has expired"));
    }
    Ok((id.to_owned(), user))
}

fn split(presented: &[u8]) -> Option<(&str, &[u8])> {
    let rest = presented.strip_prefix(PREFIX)?;
    let dot = rest.iter().position(|c| *c == b'.')?;
    Some((std::str::from_utf8(&rest[..dot]).ok()?, &rest[dot + 1..]))
}

/// SHA-256 in hexadecimal.
pub(super) fn hash(secret: &[u8]) -> String {
    format!("{:x}", Sha256::digest(secret))
}
