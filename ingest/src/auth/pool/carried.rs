//! What clients carry that only the pool itself reads: refresh tokens, and sessions in which a password is replaced.
//! JWTs with HMAC-SHA-256, by a key that every process derives from the configured token.

use broker::{Error, Kind, Result, ResultExt as _};
use hmac::{Hmac, Mac as _};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::super::derived::Derived;
use super::SignIn;

/// Makes the key another one than any other.
const PURPOSE: &[u8] = b"headwater user pool 1";

/// What something is carried for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Use {
    /// To get new tokens.
    Refresh,
    /// To replace a password that somebody else has given.
    Session,
}

/// What a client carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Carried {
    pub(crate) what: Use,
    pub(super) pool: String,
    pub(crate) name: String,
    /// Which user of that name, and which generation of its tokens.
    pub(super) user: String,
    #[serde(flatten)]
    pub(crate) sign_in: SignIn,
    /// In seconds since 1970.
    pub(crate) ends: i64,
}

/// Writes and reads what is carried.
pub(super) struct Carrier(Derived);

impl Carrier {
    pub(super) fn new(token: String) -> Self {
        Self(Derived::new(token, PURPOSE))
    }

    pub(super) fn write(&self, carried: &Carried) -> Result<String> {
        let key = self.0.key().ok_or_else(|| Error::internal("write a token: there is no key"))?;
        let key = EncodingKey::from_secret(key);
        let written = jsonwebtoken::encode(&Header::new(Algorithm::HS256), carried, &key);
        written.or_error(Kind::Internal, "write a token")
    }

    /// What a text says; none if it was not written here.
    pub(super) fn read(&self, text: &str) -> Option<Carried> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let key = DecodingKey::from_secret(self.0.key()?);
        Some(jsonwebtoken::decode(text, &key, &validation).ok()?.claims)
    }

    /// HMAC-SHA-256 of a message, in hexadecimal.
    pub(super) fn hmac(&self, message: &[u8]) -> Option<String> {
        let mut hmac = Hmac::<Sha256>::new_from_slice(self.0.key()?).ok()?;
        hmac.update(message);
        Some(format!("{:x}", hmac.finalize().into_bytes()))
    }
}
