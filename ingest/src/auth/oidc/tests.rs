use std::collections::BTreeMap;
use std::sync::Mutex as StdMutex;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker::time::ManualClock;
use jsonwebtoken::{EncodingKey, encode};
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use p256::pkcs8::EncodePrivateKey as _;
use rsa::pkcs1::EncodeRsaPrivateKey as _;
use rsa::traits::PublicKeyParts as _;
use rstest::rstest;
use serde_json::json;

use super::*;

const ISSUER: &str = "https://login.example.org/realms/r";
const KEYS: &str = "https://login.example.org/keys";
/// 2026-03-01T12:00:00Z.
const NOW: i64 = 1_772_366_400;

/// An issuer's documents, as they are fetched.
#[derive(Clone, Default)]
struct Published(Arc<StdMutex<State>>);

#[derive(Default)]
struct State {
    documents: BTreeMap<String, Value>,
    fetched: Vec<String>,
}

impl Published {
    fn new(keys: &[&Key]) -> Self {
        let published = Self::default();
        let discovery = format!("{ISSUER}/.well-known/openid-configuration");
        published.publish(&discovery, json!({"issuer": ISSUER, "jwks_uri": KEYS}));
        published.publish_keys(keys);
        published
    }

    fn publish(&self, url: &str, document: Value) {
        self.0.lock().unwrap().documents.insert(url.to_owned(), document);
    }

    fn publish_keys(&self, keys: &[&Key]) {
        // One of a kind that nobody knows does not spoil the others.
        let keys: Vec<Value> =
            keys.iter().map(|key| key.public.clone()).chain([json!({"kty": "new", "kid": "x"})]).collect();
        self.publish(KEYS, json!({"keys": keys}));
    }

    fn fail(&self) {
        self.0.lock().unwrap().documents.clear();
    }

    fn fetches(&self) -> usize {
        self.0.lock().unwrap().fetched.iter().filter(|url| *url == KEYS).count()
    }
}

#[async_trait]
impl Fetch for Published {
    async fn get(&self, url: &str) -> Result<Bytes> {
        let mut state = self.0.lock().unwrap();
        state.fetched.push(url.to_owned());
        let document = state.documents.get(url);
        let document = document.ok_or_else(|| broker::Error::unavailable("there is nothing"))?;
        Ok(document.to_string().into())
    }
}

struct Key {
    id: &'static str,
    algorithm: Algorithm,
    private: EncodingKey,
    public: Value,
}

fn ec(id: &'static str) -> Key {
    let secret = p256::SecretKey::random(&mut p256::elliptic_curve::rand_core::OsRng);
    let point = secret.public_key().to_encoded_point(false);
    let (x, y) = (URL_SAFE_NO_PAD.encode(point.x().unwrap()), URL_SAFE_NO_PAD.encode(point.y().unwrap()));
    let private = EncodingKey::from_ec_der(secret.to_pkcs8_der().unwrap().as_bytes());
    let public =
        json!({"kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "alg": "ES256", "x": x, "y": y});
    Key { id, algorithm: Algorithm::ES256, private, public }
}

fn rsa(id: &'static str) -> Key {
    let secret = rsa::RsaPrivateKey::new(&mut p256::elliptic_curve::rand_core::OsRng, 2_048).unwrap();
    let encode = |number: &rsa::BigUint| URL_SAFE_NO_PAD.encode(number.to_bytes_be());
    let public = json!({"kty": "RSA", "kid": id, "n": encode(secret.n()), "e": encode(secret.e())});
    let private = EncodingKey::from_rsa_der(secret.to_pkcs1_der().unwrap().as_bytes());
    Key { id, algorithm: Algorithm::RS256, private, public }
}

/// A good token's claims with these instead.
fn claims(other: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": "headwater", "sub": "0b1c", "exp": NOW + 300, "nbf": NOW, "iat": NOW,
        "preferred_username": "ann",
    });
    for (name, value) in other.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn sign(key: &Key, claims: &Value) -> String {
    let header = Header { kid: Some(key.id.to_owned()), ..Header::new(key.algorithm) };
    encode(&header, claims, &key.private).unwrap()
}

struct Bench {
    issuer: Arc<Issuer>,
    clock: Arc<ManualClock>,
    published: Published,
}

impl Bench {
    fn new(keys: &[&Key]) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_micros(NOW * 1_000_000).unwrap()));
        let settings = OidcSettings {
            issuer: ISSUER.to_owned(),
            audience: "headwater".to_owned(),
            jwks_url: None,
            name_claim: "preferred_username".to_owned(),
            administrator_role: Some("operator".to_owned()),
            leeway: Duration::from_secs(60),
        };
        let published = Published::new(keys);
        let issuer = Issuer::new(settings, Box::new(published.clone()), clock.clone());
        Self { issuer, clock, published }
    }

    async fn who(&self, token: &str) -> Result<Principal, Denial> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| UNKNOWN)?;
        self.issuer.holder(token.as_bytes(), &header).await
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

#[tokio::test]
async fn tokens_of_each_kind_of_key_stand_for_whom_they_name() {
    for key in [ec("e"), rsa("r")] {
        let bench = Bench::new(&[&key]);
        let ann = bench.who(&sign(&key, &claims(json!({})))).await.unwrap();
        assert_eq!((ann.name(), ann.is_administrator()), ("oidc:ann", false));
        let several =
            claims(json!({"aud": ["account", "headwater"], "preferred_username": null, "exp": 1.9e9}));
        assert_eq!(bench.who(&sign(&key, &several)).await.unwrap().name(), "oidc:0b1c");
        assert_eq!(bench.published.fetches(), 1);
    }
}

#[rstest]
#[case::of_the_realm(json!({"realm_access": {"roles": ["operator"]}}), true)]
#[case::of_the_audience(json!({"resource_access": {"headwater": {"roles": ["x", "operator"]}}}), true)]
#[case::of_another_audience(json!({"resource_access": {"other": {"roles": ["operator"]}}}), false)]
#[case::another(json!({"realm_access": {"roles": ["operators"]}}), false)]
#[case::no_list(json!({"realm_access": "operator"}), false)]
#[tokio::test]
async fn a_role_makes_an_administrator(#[case] roles: Value, #[case] is_administrator: bool) {
    let key = ec("e");
    let bench = Bench::new(&[&key]);
    let who = bench.who(&sign(&key, &claims(roles))).await.unwrap();
    assert_eq!(who.is_administrator(), is_administrator);
}

#[rstest]
#[case::expired(json!({"exp": NOW - 60}), "expired")]
#[case::not_yet(json!({"nbf": NOW + 61}), "not valid yet")]
#[case::issuer(json!({"iss": "https://login.example.org/realms/other"}), "another issuer")]
#[case::audience(json!({"aud": "account"}), "another audience")]
#[case::no_audience(json!({"aud": []}), "another audience")]
#[case::audience_of_no_text(json!({"aud": 7}), "not known")]
#[case::end_of_no_number(json!({"exp": "never"}), "not known")]
#[case::no_end(json!({"exp": null}), "not known")]
#[case::path_in_the_name(json!({"preferred_username": "a/b"}), "cannot be used")]
#[case::empty_name(json!({"preferred_username": ""}), "cannot be used")]
#[tokio::test]
async fn other_tokens_are_refused(#[case] other: Value, #[case] why: &str) {
    let key = ec("e");
    let bench = Bench::new(&[&key]);
    let denial = bench.who(&sign(&key, &claims(other))).await.unwrap_err();
    assert!(format!("{denial:?}").contains(why), "{denial:?}");
}

#[tokio::test]
async fn the_leeway_holds_on_both_sides() {
    let key = ec("e");
    let bench = Bench::new(&[&key]);
    bench.who(&sign(&key, &claims(json!({"exp": NOW - 59, "nbf": NOW + 60})))).await.unwrap();
}

#[tokio::test]
async fn signatures_that_are_not_the_issuers_are_refused() {
    let (key, stranger, other) = (ec("e"), ec("e"), rsa("r"));
    let bench = Bench::new(&[&key, &other]);
    let good = sign(&key, &claims(json!({})));
    let parts: Vec<&str> = good.split('.').collect();
    let header = |header: Value| URL_SAFE_NO_PAD.encode(header.to_string());
    // The public key as the secret of a symmetric signature.
    let public = other.public["n"].as_str().unwrap().as_bytes();
    let confused = encode(
        &Header { kid: Some("r".to_owned()), ..Header::new(Algorithm::HS256) },
        &claims(json!({})),
        &EncodingKey::from_secret(public),
    );
    for token in [
        sign(&stranger, &claims(json!({}))),
        sign(&Key { id: "unknown", ..ec("e") }, &claims(json!({}))),
        sign(&Key { id: "r", ..ec("e") }, &claims(json!({}))),
        confused.unwrap(),
        format!("{}.{}.", header(json!({"alg": "none"})), parts[1]),
        format!("{}.{}.{}", header(json!({"alg": "RS256", "kid": "e"})), parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], "A".repeat(86)),
        sign(&key, &claims(json!({"padding": "x".repeat(TOKEN_BYTES_MAX)}))),
    ] {
        assert_eq!(bench.who(&token).await, Err(UNKNOWN), "{token:.80}");
    }
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it_and_not_too_often() {
    let (old, new) = (ec("old"), ec("new"));
    let bench = Bench::new(&[&old]);
    bench.who(&sign(&old, &claims(json!({})))).await.unwrap();
    bench.published.publish_keys(&[&new]);
    let token = sign(&new, &claims(json!({})));
    assert_eq!(bench.who(&token).await, Err(UNKNOWN));
    bench.pass(10);
    bench.who(&token).await.unwrap();
    assert_eq!(bench.published.fetches(), 2);
    assert_eq!(bench.who(&sign(&old, &claims(json!({})))).await, Err(UNKNOWN));
    for _ in 0..5 {
        bench.who(&sign(&ec("flood"), &claims(json!({})))).await.unwrap_err();
    }
    assert_eq!(bench.published.fetches(), 2);
}

#[tokio::test]
async fn known_keys_outlast_an_issuer_that_is_away_for_a_day() {
    let key = ec("e");
    let bench = Bench::new(&[&key]);
    let token = sign(&key, &claims(json!({"exp": NOW + 1_000_000})));
    bench.who(&token).await.unwrap();
    bench.published.fail();
    bench.pass(24 * 3_600 - 1);
    bench.who(&token).await.unwrap();
    bench.pass(1);
    assert!(matches!(bench.who(&token).await, Err(Denial::Unavailable(_))));
    bench.pass(10);
    bench.published.publish(
        &format!("{ISSUER}/.well-known/openid-configuration"),
        json!({"issuer": ISSUER, "jwks_uri": KEYS}),
    );
    bench.published.publish_keys(&[&key]);
    bench.who(&token).await.unwrap();
}

#[tokio::test]
async fn a_discovery_document_of_somebody_else_is_not_believed() {
    let key = ec("e");
    let bench = Bench::new(&[&key]);
    let discovery = format!("{ISSUER}/.well-known/openid-configuration");
    bench.published.publish(&discovery, json!({"issuer": "https://evil.example.org", "jwks_uri": KEYS}));
    assert!(matches!(bench.who(&sign(&key, &claims(json!({})))).await, Err(Denial::Unavailable(_))));
}
