//! Access tokens: JWTs (RFC 7519) that stand for a user for an hour.
//!
//! They are signed with HMAC-SHA-256 by a key that every process derives from the configured token, so
//! that all processes of a cluster take them and none has to keep another secret. A token is taken only as
//! long as the user, its generation and the API key that it was issued for are what they were.

use std::sync::OnceLock;
use std::time::Duration;

use broker::access::{Denial, Key, User};
use broker::catalog::Row;
use broker::{Catalog, Error, Kind, Principal, Result, ResultExt as _, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use super::derived::Derived;

/// How long a token is taken.
pub(crate) const LIFE: Duration = Duration::from_secs(3_600);
const ISSUER: &str = "headwater";
/// Makes the key another one than anything else that is ever derived from the configured token.
const PURPOSE: &[u8] = b"headwater access tokens 1";
const UNKNOWN: Denial = Denial::Wrong("this token is not known");

/// Signs tokens and knows its own.
pub(super) struct Signer {
    derived: Derived,
    keys: OnceLock<Option<Keys>>,
}

struct Keys {
    signing: EncodingKey,
    checking: DecodingKey,
}

/// What a token says. `user` and `key` are ours, the rest is registered in RFC 7519.
#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    /// In seconds since 1970.
    iat: i64,
    exp: i64,
    /// Which user of that name, and which generation of its tokens.
    user: String,
    /// The id of the API key that it was issued for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl Signer {
    /// A signer that shares its key with every other one of the same token.
    pub(super) fn new(token: String) -> Self {
        Self { derived: Derived::new(token, PURPOSE), keys: OnceLock::new() }
    }

    /// A token for a user, and for as long as this key is there, where it presented one.
    pub(super) fn issue(&self, user: &Row<User>, key: Option<&str>, now: Timestamp) -> Result<String> {
        let keys = self.keys().ok_or_else(|| Error::internal("sign a token: there is no key"))?;
        let iat = now.micros().div_euclid(1_000_000);
        let exp = iat + i64::try_from(LIFE.as_secs()).unwrap_or_default();
        let (iss, sub) = (ISSUER.to_owned(), user.value.name.clone());
        let claims = Claims { iss, sub, iat, exp, user: mark(&user.value), key: key.map(str::to_owned) };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &keys.signing);
        token.or_error(Kind::Internal, "sign a token")
    }

    /// Whose token this is.
    pub(super) fn holder(
        &self,
        catalog: &Catalog,
        presented: &[u8],
        now: Timestamp,
    ) -> std::result::Result<Principal, Denial> {
        let keys = self.keys().ok_or(UNKNOWN)?;
        let claims: Claims =
            jsonwebtoken::decode(presented, &keys.checking, &validation()).map_err(|_| UNKNOWN)?.claims;
        if claims.exp.saturating_mul(1_000_000) <= now.micros() {
            return Err(Denial::Expired("this token has expired"));
        }
        let is_same = |user: &Row<User>| !user.value.is_disabled && mark(&user.value) == claims.user;
        let user = catalog.row::<User>(&claims.sub).filter(|user| is_same(user));
        let user = user.ok_or(Denial::Expired("this token is not taken any more"))?;
        if let Some(id) = &claims.key {
            let is_valid = |key: &Row<Key>| key.value.expires_at.is_none_or(|expires_at| expires_at > now);
            let key = catalog.row::<Key>(id).filter(|key| is_valid(key));
            key.ok_or(Denial::Expired("the API key of this token is not taken any more"))?;
        }
        Ok(Principal::of(&user.value))
    }

    /// An empty token signs nothing.
    fn keys(&self) -> Option<&Keys> {
        let derive = || {
            let key = self.derived.key()?;
            Some(Keys { signing: EncodingKey::from_secret(key), checking: DecodingKey::from_secret(key) })
        };
        self.keys.get_or_init(derive).as_ref()
    }
}

/// The time is checked by our own clock.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_required_spec_claims(&["iss", "exp", "sub"]);
    validation.set_issuer(&[ISSUER]);
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

/// Which user of its name this is, and which generation of its tokens.
pub(super) fn mark(user: &User) -> String {
    format!("{}.{}", user.created_at.micros(), user.generation)
}
