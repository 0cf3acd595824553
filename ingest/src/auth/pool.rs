//! Tokens of a pool of users, as OpenID Connect and the service have them that the pool stands in for: an id token
//! that says who signed in, an access token, and a refresh token that gets new ones of both.
//!
//! Id tokens are credentials at every door. They are taken as long as the user and its generation are what they were
//! and the sign-in was not revoked. Access tokens are for nothing here, and are taken nowhere.

mod carried;
mod keys;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker::access::{Denial, User};
use broker::catalog::Row;
use broker::{Catalog, Clock, Error, Kind, Principal, Result, ResultExt as _, Timestamp};
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use self::carried::Carrier;
pub(crate) use self::carried::{Carried, Use};
use self::keys::{KeyRing, Lives};
use super::tokens::mark;

/// How long those who check tokens may keep the keys.
pub(crate) const KEYS_KEPT: Duration = keys::PUBLISHED_AHEAD;
/// The attributes whose values are truth values in a token.
const FLAGS: [&str; 2] = ["email_verified", "phone_number_verified"];
const UNKNOWN: Denial = Denial::Wrong("this token is not known");

/// Whose tokens a pool makes, and for how long.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// The pool's id.
    pub id: String,
    /// Where the pool is found: what stands before its id in `iss`.
    pub url: String,
    /// The ids of the clients that users sign in with.
    pub clients: BTreeSet<String>,
    /// How long id and access tokens are taken.
    pub token_life: Duration,
    /// How long a refresh token is taken.
    pub refresh_life: Duration,
    /// How long a key signs.
    pub key_life: Duration,
}

/// A pool of users.
pub struct Pool {
    settings: PoolSettings,
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    keys: KeyRing,
    carrier: Carrier,
}

/// What a user gets that signs in.
pub(crate) struct Tokens {
    pub(crate) id: String,
    pub(crate) access: String,
    pub(crate) life: Duration,
}

/// A sign-in, which all tokens that come of it have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignIn {
    pub(crate) client: String,
    /// Names the sign-in; what is revoked is all that came of it.
    pub(crate) origin: String,
    /// When it was, in seconds since 1970.
    pub(crate) at: i64,
}

/// What an id token says, of what is asked here.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    #[serde(default)]
    aud: String,
    token_use: String,
    /// In seconds since 1970.
    exp: i64,
    #[serde(default, rename = "cognito:username")]
    name: String,
    origin_jti: String,
    user: String,
}

impl Pool {
    /// A pool whose secrets hang on `token`, which every process shares.
    pub fn new(
        settings: PoolSettings,
        token: String,
        catalog: Arc<Catalog>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let lives = Lives { key: settings.key_life, token: settings.token_life };
        let keys = KeyRing::new(token.clone(), catalog.clone(), lives);
        Arc::new(Self { settings, catalog, clock, keys, carrier: Carrier::new(token) })
    }

    /// The pool's id.
    pub(crate) fn id(&self) -> &str {
        &self.settings.id
    }

    /// Whether users sign in with a client of that id.
    pub(crate) fn has_client(&self, id: &str) -> bool {
        self.settings.clients.contains(id)
    }

    /// What `iss` is in its tokens; its keys are found below it.
    pub(crate) fn issuer(&self) -> String {
        format!("{}/{}", self.settings.url, self.settings.id)
    }

    /// Makes the first key, where there is none.
    pub(crate) async fn ready(&self) -> Result<()> {
        self.keys.signing(self.clock.now()).await.map(drop)
    }

    /// The public keys, as RFC 7517 has them.
    pub(crate) fn published(&self) -> Value {
        let keys = self.keys.published(self.clock.now()).into_iter().map(|key| {
            json!({
                "kty": "RSA", "use": "sig", "alg": "RS256",
                "kid": key.id, "n": key.value.modulus, "e": key.value.exponent,
            })
        });
        json!({ "keys": keys.collect::<Vec<_>>() })
    }

    /// A sign-in that happens now.
    pub(crate) fn sign_in(&self, client: &str) -> SignIn {
        let at = seconds(self.clock.now());
        SignIn { client: client.to_owned(), origin: Uuid::new_v4().to_string(), at }
    }

    /// An id token and an access token for a user.
    pub(crate) async fn issue(&self, user: &Row<User>, sign_in: &SignIn) -> Result<Tokens> {
        let now = self.clock.now();
        let signer = self.keys.signing(now).await?;
        let life = self.settings.token_life;
        let common = self.common(&user.value, sign_in, (seconds(now), seconds(now + life)));
        let (id, access) = (id_claims(&user.value, sign_in, &common), access_claims(user, sign_in, common));
        let header = json!({"kid": signer.id, "alg": "RS256"}).to_string();
        let sign = move || -> Result<(String, String)> {
            let sign = |claims: Map<String, Value>| {
                signer.sign(header.as_bytes(), Value::Object(claims).to_string().as_bytes())
            };
            Ok((sign(id)?, sign(access)?))
        };
        let (id, access) = spawn_blocking(sign).await.or_error(Kind::Internal, "sign tokens")??;
        Ok(Tokens { id, access, life })
    }

    /// What both tokens say.
    fn common(&self, user: &User, sign_in: &SignIn, (iat, exp): (i64, i64)) -> Map<String, Value> {
        let common = json!({
            "iss": self.issuer(),
            "sub": subject(user),
            "origin_jti": sign_in.origin,
            "auth_time": sign_in.at,
            "iat": iat,
            "exp": exp,
            "user": mark(user),
        });
        match common {
            Value::Object(common) => common,
            _ => Map::new(),
        }
    }

    /// Whether a token of this header was signed with one of the pool's keys, if it was at all.
    pub(super) fn is_of(&self, header: &Header) -> bool {
        header.alg == Algorithm::RS256 && header.kid.as_ref().is_some_and(|id| self.key_for(id).is_some())
    }

    fn key_for(&self, id: &str) -> Option<jsonwebtoken::DecodingKey> {
        self.keys.checking(id, self.clock.now())
    }

    /// Whose id token this is.
    pub(super) fn holder(&self, token: &[u8], header: &Header) -> Result<Principal, Denial> {
        let key = header.kid.as_ref().and_then(|id| self.key_for(id)).ok_or(UNKNOWN)?;
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_required_spec_claims(&["iss", "exp"]);
        validation.validate_exp = false;
        validation.validate_aud = false;
        let decoded = jsonwebtoken::decode::<Claims>(token, &key, &validation);
        let claims = decoded.map_err(|_| UNKNOWN)?.claims;
        if claims.token_use != "id" {
            return Err(Denial::Wrong("this is an access token: an id token is expected"));
        }
        if claims.iss != self.issuer() {
            return Err(Denial::Wrong("this token is of another pool"));
        }
        if !self.has_client(&claims.aud) {
            return Err(Denial::Wrong("this token is for another client"));
        }
        if claims.exp <= seconds(self.clock.now()) {
            return Err(Denial::Expired("this token has expired"));
        }
        let user = self.user(&claims.name, &claims.user, &claims.origin_jti);
        user.map(|user| Principal::of(&user.value))
    }

    /// The user that a token names, if it is still the one that it was.
    fn user(&self, name: &str, known: &str, origin: &str) -> Result<Arc<Row<User>>, Denial> {
        let is_same = |user: &User| {
            !user.is_disabled && mark(user) == known && !user.membership.revoked.contains_key(origin)
        };
        let user = self.catalog.row::<User>(name).filter(|user| is_same(&user.value));
        user.ok_or(Denial::Expired("this token is not taken any more"))
    }

    /// What a user presents later to get new tokens.
    pub(crate) fn refresh_token(&self, user: &User, sign_in: &SignIn) -> Result<String> {
        self.carry(Use::Refresh, (user, sign_in), self.settings.refresh_life)
    }

    /// What a user presents with a new password, within `life`.
    pub(crate) fn session(&self, user: &User, sign_in: &SignIn, life: Duration) -> Result<String> {
        self.carry(Use::Session, (user, sign_in), life)
    }

    fn carry(&self, what: Use, (user, sign_in): (&User, &SignIn), life: Duration) -> Result<String> {
        let ends = seconds(self.clock.now() + life);
        let (name, user) = (user.name.clone(), mark(user));
        self.carrier.write(&Carried { what, pool: self.issuer(), name, user, sign_in: sign_in.clone(), ends })
    }

    /// What a text says that [`refresh_token`](Self::refresh_token) or [`session`](Self::session) made, if it is
    /// for that and for this client, also where it is over.
    pub(crate) fn carried(&self, text: &str, what: Use, client: &str) -> Option<Carried> {
        let carried = self.carrier.read(text)?;
        let is_this =
            carried.what == what && carried.pool == self.issuer() && carried.sign_in.client == client;
        is_this.then_some(carried)
    }

    /// The user of what was carried, if it is not over.
    pub(crate) fn bearer_of(&self, carried: &Carried) -> Result<Arc<Row<User>>, Denial> {
        if carried.ends <= seconds(self.clock.now()) {
            return Err(Denial::Expired("this token has expired"));
        }
        self.user(&carried.name, &carried.user, &carried.sign_in.origin)
    }

    /// Whether a text looks like an id token or an access token.
    pub(crate) fn is_signed_token(&self, text: &str) -> bool {
        jsonwebtoken::decode_header(text).is_ok_and(|header| self.is_of(&header))
    }

    /// What is kept of a code that was sent to a user.
    pub(crate) fn code_hmac(&self, user: &User, code: &str) -> Result<String> {
        let message = format!("{} {}", subject(user), code);
        self.carrier.hmac(message.as_bytes()).ok_or_else(|| Error::internal("keep a code: there is no key"))
    }
}

fn id_claims(user: &User, sign_in: &SignIn, common: &Map<String, Value>) -> Map<String, Value> {
    let mut claims = Map::new();
    for (name, value) in &user.membership.attributes {
        let is_flag = FLAGS.contains(&name.as_str());
        claims.insert(name.clone(), if is_flag { json!(value == "true") } else { json!(value) });
    }
    claims.extend(common.clone());
    claims.insert("token_use".to_owned(), json!("id"));
    claims.insert("aud".to_owned(), json!(sign_in.client));
    claims.insert("cognito:username".to_owned(), json!(user.name));
    claims.insert("jti".to_owned(), json!(Uuid::new_v4()));
    claims
}

fn access_claims(user: &Row<User>, sign_in: &SignIn, common: Map<String, Value>) -> Map<String, Value> {
    let mut claims = common;
    claims.insert("token_use".to_owned(), json!("access"));
    claims.insert("client_id".to_owned(), json!(sign_in.client));
    claims.insert("username".to_owned(), json!(user.value.name));
    claims.insert("scope".to_owned(), json!("aws.cognito.signin.user.admin"));
    claims.insert("jti".to_owned(), json!(Uuid::new_v4()));
    claims
}

/// What a user is called in tokens: an id that nobody else has or will have, also if another user gets its name.
pub(crate) fn subject(user: &User) -> String {
    let digest = Sha256::digest(format!("{}/{}", user.created_at.micros(), user.name));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// Random bytes as text that a URL can hold.
pub(crate) fn random_text<const N: usize>() -> String {
    URL_SAFE_NO_PAD.encode(std::array::from_fn::<u8, N, _>(|_| rand::random()))
}

fn seconds(time: Timestamp) -> i64 {
    time.micros().div_euclid(1_000_000)
}
