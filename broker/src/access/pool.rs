//! What a pool of users knows of one beside its credentials, and the keys that the pool's tokens are signed with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Whether a user that knows its password may sign in with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It may.
    #[default]
    Confirmed,
    /// It signed up by itself, and has not shown yet the code that was sent to it.
    Unconfirmed,
    /// Its password is one that somebody else has given it, and has to be replaced first.
    Temporary,
}

/// What a pool knows of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Membership {
    /// Whether it may sign in.
    pub standing: Standing,
    /// From when on its temporary password is not taken.
    pub password_until: Option<Timestamp>,
    /// What else is said of it, by the names that OpenID Connect has for it, or `custom:NAME`.
    pub attributes: BTreeMap<String, String>,
    /// The code that it has to show.
    pub confirmation: Option<Confirmation>,
    /// Those of its sign-ins whose tokens are not taken any more, each with when the last of them ends anyway.
    pub revoked: BTreeMap<String, Timestamp>,
}

impl Membership {
    /// Whether there is nothing to be kept.
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// A code that was sent to a user, and how often one was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// HMAC-SHA-256 of the code, in hexadecimal.
    pub code_hmac: String,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// How often another one was presented instead.
    pub tries: u32,
    /// How many codes were sent since `counted_from`.
    pub sent: u32,
    /// From when on they are counted.
    pub counted_from: Timestamp,
}

/// A pair of RSA keys that tokens are signed with. The private one is sealed: who reads the catalog cannot sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// Its name, which tokens carry as `kid` (RFC 7515, section 4.1.4) and which is also the row's id.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The public modulus, as a JSON web key has it (RFC 7518, section 6.3.1).
    pub modulus: String,
    /// The public exponent, in the same form.
    pub exponent: String,
    /// The private key in PKCS #1, sealed with XChaCha20-Poly1305 behind its nonce, in base64.
    pub sealed: String,
}
