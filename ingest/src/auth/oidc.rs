//! OpenID Connect: bearer tokens of another issuer, checked against the keys that it publishes.
//!
//! Its keys are fetched when the first token comes, again each hour, and where a token names a key that is
//! not known: an issuer that rotates its keys needs nothing done here. While it cannot be reached the keys
//! that are known stay good for a day.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use broker::access::{Denial, ISSUED_PREFIX, check_issued_name};
use broker::{Clock, Principal, Result, Timestamp};
use bytes::Bytes;
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tracing::{info, warn};

/// How long keys are taken without being fetched again.
const FRESH: Duration = Duration::from_secs(3_600);
/// How long keys are taken while the issuer cannot be reached.
const STALE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// How often keys are fetched at most, whatever tokens come.
const FETCH_PAUSE: Duration = Duration::from_secs(10);
/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// What a token may be signed with. Nothing symmetric: the key would be public.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

const UNKNOWN: Denial = Denial::Wrong("this token is not known");

/// Which tokens are taken, and who they stand for.
#[derive(Clone, Debug)]
pub struct OidcSettings {
    /// What `iss` has to be, to the letter; its keys are found below it.
    pub issuer: String,
    /// What has to stand in `aud`.
    pub audience: String,
    /// Where the keys are; what the issuer's discovery document says where it is not given.
    pub jwks_url: Option<String>,
    /// The claim that holds the principal's name.
    pub name_claim: String,
    /// The role, of the realm or of the audience, that makes an administrator.
    pub administrator_role: Option<String>,
    /// How far the issuer's clock may be from ours.
    pub leeway: Duration,
}

/// Gets documents from the issuer.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// The body of a successful answer.
    async fn get(&self, url: &str) -> Result<Bytes>;
}

/// An issuer whose tokens are taken.
pub struct Issuer {
    settings: OidcSettings,
    fetch: Box<dyn Fetch>,
    clock: Arc<dyn Clock>,
    keys: RwLock<Arc<Keys>>,
    /// Held while keys are fetched; when that was tried last.
    tried: Mutex<Option<Timestamp>>,
}

/// The keys that the issuer published.
#[derive(Default)]
struct Keys {
    keys: Vec<Jwk>,
    fetched: Option<Timestamp>,
}

/// What a token says, of what is asked here.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    /// In seconds since 1970, perhaps with a fraction.
    exp: f64,
    nbf: Option<f64>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(BTreeSet<String>),
}

impl Audience {
    fn has(&self, audience: &str) -> bool {
        match self {
            Audience::One(one) => one == audience,
            Audience::Several(several) => several.contains(audience),
        }
    }
}

impl Issuer {
    /// An issuer of which nothing is fetched yet.
    pub fn new(settings: OidcSettings, fetch: Box<dyn Fetch>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (keys, tried) = (RwLock::default(), Mutex::new(None));
        Arc::new(Self { settings, fetch, clock, keys, tried })
    }

    /// Whose token this is.
    pub(super) async fn holder(&self, token: &[u8], header: &Header) -> Result<Principal, Denial> {
        if token.len() > TOKEN_BYTES_MAX || !ALGORITHMS.contains(&header.alg) {
            return Err(UNKNOWN);
        }
        let keys = self.keys_for(header).await?;
        let is_signed = |key: &&Jwk| self.claims_of(token, header, key).is_some();
        let key = keys.candidates(header).find(is_signed).ok_or(UNKNOWN)?;
        let claims = self.claims_of(token, header, key).ok_or(UNKNOWN)?;
        self.check(&claims)?;
        self.principal(&claims)
    }

    /// What the token says, if this key signed it.
    fn claims_of(&self, token: &[u8], header: &Header, key: &Jwk) -> Option<Claims> {
        let mut validation = Validation::new(header.alg);
        validation.set_required_spec_claims(&["iss", "aud", "exp"]);
        validation.validate_exp = false;
        validation.validate_aud = false;
        let key = DecodingKey::from_jwk(key).ok()?;
        Some(jsonwebtoken::decode::<Claims>(token, &key, &validation).ok()?.claims)
    }

    fn check(&self, claims: &Claims) -> Result<(), Denial> {
        if claims.iss != self.settings.issuer {
            return Err(Denial::Wrong("this token is of another issuer"));
        }
        if !claims.aud.has(&self.settings.audience) {
            return Err(Denial::Wrong("this token is for another audience"));
        }
        let now = self.clock.now().micros() as f64 / 1e6;
        let leeway = self.settings.leeway.as_secs_f64();
        if claims.exp + leeway <= now {
            return Err(Denial::Expired("this token has expired"));
        }
        if claims.nbf.is_some_and(|from| from - leeway > now) {
            return Err(Denial::Expired("this token is not valid yet"));
        }
        Ok(())
    }

    fn principal(&self, claims: &Claims) -> Result<Principal, Denial> {
        let text = |claim: &str| claims.more.get(claim).and_then(Value::as_str);
        let name = text(&self.settings.name_claim).or_else(|| text("sub"));
        let name = format!("{ISSUED_PREFIX}{}", name.unwrap_or_default());
        check_issued_name(&name).map_err(|_| Denial::Wrong("the name in this token cannot be used"))?;
        let role = self.settings.administrator_role.as_deref();
        Ok(Principal::issued(&name, role.is_some_and(|role| self.roles(claims).any(|known| known == role))))
    }

    /// The roles that Keycloak puts into its tokens.
    fn roles<'a>(&'a self, claims: &'a Claims) -> impl Iterator<Item = &'a str> {
        let realm = claims.more.get("realm_access");
        let resource = claims.more.get("resource_access");
        let resource = resource.and_then(|access| access.get(&self.settings.audience));
        let lists =
            [realm, resource].into_iter().flatten().filter_map(|access| access.get("roles")?.as_array());
        lists.flatten().filter_map(Value::as_str)
    }

    /// Keys among which the one should be that a token names.
    async fn keys_for(&self, header: &Header) -> Result<Arc<Keys>, Denial> {
        let known = self.known();
        let age = known.fetched.map(|fetched| self.clock.now().since(fetched));
        let is_fresh = age.is_some_and(|age| age < FRESH);
        if is_fresh && known.candidates(header).next().is_some() {
            return Ok(known);
        }
        self.fetch_keys(&known).await;
        let known = self.known();
        let age = known.fetched.map(|fetched| self.clock.now().since(fetched));
        if age.is_none_or(|age| age >= STALE_MAX) {
            return Err(Denial::Unavailable("the keys of the tokens' issuer cannot be fetched"));
        }
        Ok(known)
    }

    fn known(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches keys instead of those that were seen, unless somebody did meanwhile or tried a moment ago.
    async fn fetch_keys(&self, seen: &Arc<Keys>) {
        let mut tried = self.tried.lock().await;
        let now = self.clock.now();
        let is_done = !Arc::ptr_eq(seen, &self.known());
        if is_done || tried.is_some_and(|tried| now.since(tried) < FETCH_PAUSE) {
            return;
        }
        *tried = Some(now);
        match self.fetched().await {
            Ok(keys) => {
                info!(issuer = self.settings.issuer, keys = keys.len(), "fetched the issuer's keys");
                let keys = Arc::new(Keys { keys, fetched: Some(now) });
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
            }
            Err(error) => warn!(issuer = self.settings.issuer, %error, "cannot fetch the issuer's keys"),
        }
    }

    async fn fetched(&self) -> Result<Vec<Jwk>> {
        #[derive(Deserialize)]
        struct Discovered {
            issuer: String,
            jwks_uri: String,
        }
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let url = match &self.settings.jwks_url {
            Some(url) => url.clone(),
            None => {
                let issuer = self.settings.issuer.trim_end_matches('/');
                let url = format!("{issuer}/.well-known/openid-configuration");
                let found: Discovered = read(&self.fetch.get(&url).await?, &url)?;
                if found.issuer != self.settings.issuer {
                    let message = format!("{url} is of the issuer {}", found.issuer);
                    return Err(broker::Error::unavailable(message));
                }
                found.jwks_uri
            }
        };
        let Set { keys } = read(&self.fetch.get(&url).await?, &url)?;
        // A key of a kind that is not known here does not spoil the others.
        let known = keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        Ok(JwkSet { keys: known.collect() }.keys)
    }
}

fn read<T: for<'de> Deserialize<'de>>(body: &[u8], url: &str) -> Result<T> {
    serde_json::from_slice(body)
        .map_err(|error| broker::Error::unavailable(format!("read {url}")).with_source(error))
}

impl Keys {
    /// The keys that may have signed a token: those that it names, or all where it names none.
    fn candidates<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a Jwk> {
        self.keys.iter().filter(move |key| {
            let common = &key.common;
            let is_named = header.kid.is_none() || common.key_id == header.kid;
            let is_for_signing = !matches!(common.public_key_use, Some(PublicKeyUse::Encryption))
                && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
            let is_of_algorithm = common
                .key_algorithm
                .is_none_or(|algorithm| algorithm.to_string() == format!("{:?}", header.alg));
            is_named && is_for_signing && is_of_algorithm
        })
    }
}
