//! The keys that tokens of a pool are signed with: RSA, in the catalog, where every process finds them. A new one is
//! made when the latest has had its life, is published a while before it signs, and stays published until
//! the last token of it has ended.
//!
//! What is private of them is sealed with a key that hangs on the configured token. With another token, none
//! of them signs any more and a new one is made, but what was signed is still checked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use broker::access::ADMINISTRATOR;
use broker::access::pool::SigningKey;
use broker::catalog::Row;
use broker::{Catalog, Error, Kind, Result, ResultExt as _, Timestamp};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use jsonwebtoken::DecodingKey;
use rsa::pkcs1::{DecodeRsaPrivateKey as _, EncodeRsaPrivateKey as _};
use rsa::pkcs1v15;
use rsa::rand_core::OsRng;
use rsa::sha2::Sha256;
use rsa::signature::{RandomizedSigner as _, SignatureEncoding as _};
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, RsaPrivateKey};
use tokio::task::spawn_blocking;
use tracing::info;

use super::super::derived::Derived;

/// Makes the key that private keys are sealed with another one than any other.
const PURPOSE: &[u8] = b"headwater token keys 1";
/// How long a key is published before it signs, if another one can sign meanwhile. Whoever checks tokens may keep
/// what is published for so long.
pub(crate) const PUBLISHED_AHEAD: Duration = Duration::from_secs(600);
const BITS: usize = 2_048;
const ID_BYTES: usize = 16;
const NONCE_BYTES: usize = 24;
/// More keys than there ever are.
const ALL: usize = usize::MAX;

/// How long keys and what they sign live.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lives {
    pub(super) key: Duration,
    pub(super) token: Duration,
}

/// The keys of a pool.
pub(super) struct KeyRing {
    catalog: Arc<Catalog>,
    sealing: Derived,
    lives: Lives,
    /// Held while one is made.
    making: tokio::sync::Mutex<()>,
    /// Those that were opened, by id; none of one that cannot be.
    opened: Mutex<HashMap<String, Option<Arc<Signer>>>>,
}

/// A key that signs.
pub(super) struct Signer {
    pub(super) id: String,
    key: pkcs1v15::SigningKey<Sha256>,
}

impl Signer {
    /// A token of these parts, which are JSON: RS256 of RFC 7518. The private key is blinded, so that the
    /// time that it takes tells nothing of it.
    pub(super) fn sign(&self, header: &[u8], claims: &[u8]) -> Result<String> {
        let mut token = URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signed = self.key.try_sign_with_rng(&mut OsRng, token.as_bytes());
        let signature = signed.or_error(Kind::Internal, "sign a token")?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.to_bytes(), &mut token);
        Ok(token)
    }
}

impl KeyRing {
    pub(super) fn new(token: String, catalog: Arc<Catalog>, lives: Lives) -> Self {
        let (making, opened) = (tokio::sync::Mutex::new(()), Mutex::default());
        Self { catalog, sealing: Derived::new(token, PURPOSE), lives, making, opened }
    }

    /// Those that tokens may be signed with which have not ended, the oldest first.
    pub(super) fn published(&self, now: Timestamp) -> Vec<Arc<Row<SigningKey>>> {
        let keys = self.all();
        let times: Vec<Timestamp> = keys.iter().map(|key| key.value.created_at).collect();
        let is_over = |index: usize| has_ended(&times[index + 1..], self.lives.token, now);
        keys.into_iter().enumerate().filter(|(index, _)| !is_over(*index)).map(|(_, key)| key).collect()
    }

    /// What checks the signatures of a key; none if it is not published.
    pub(super) fn checking(&self, id: &str, now: Timestamp) -> Option<DecodingKey> {
        // Most of the time it is there or it is not; only then its turn is looked at.
        self.catalog.row::<SigningKey>(id)?;
        let key = self.published(now).into_iter().find(|key| key.id == id)?;
        DecodingKey::from_rsa_components(&key.value.modulus, &key.value.exponent).ok()
    }

    /// The key whose turn it is to sign. A new one is made where that is due.
    pub(super) async fn signing(&self, now: Timestamp) -> Result<Arc<Signer>> {
        if let Some(signer) = self.on_turn(now).filter(|_| !self.is_due(now)) {
            return Ok(signer);
        }
        let made = self.making.lock().await;
        if self.is_due(now) || self.on_turn(now).is_none() {
            self.make(now).await?;
        }
        drop(made);
        self.on_turn(now).ok_or_else(|| Error::internal("sign a token: there is no key"))
    }

    fn all(&self) -> Vec<Arc<Row<SigningKey>>> {
        let mut keys = self.catalog.rows_where::<SigningKey>("", None, ALL, |_| true);
        keys.sort_by(|a, b| (a.value.created_at, &a.id).cmp(&(b.value.created_at, &b.id)));
        keys
    }

    /// Those that can sign, the oldest first.
    fn usable(&self) -> Vec<(Timestamp, Arc<Signer>)> {
        let all = self.all().into_iter();
        all.filter_map(|key| Some((key.value.created_at, self.open(&key.value)?))).collect()
    }

    fn on_turn(&self, now: Timestamp) -> Option<Arc<Signer>> {
        let usable = self.usable();
        let times: Vec<Timestamp> = usable.iter().map(|(time, _)| *time).collect();
        usable.into_iter().nth(turn(&times, now)?).map(|(_, signer)| signer)
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.usable().last().is_none_or(|(created_at, _)| *created_at + self.lives.key <= now)
    }

    fn open(&self, key: &SigningKey) -> Option<Arc<Signer>> {
        if let Some(known) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(&key.id) {
            return known.clone();
        }
        let signer = self.unseal(key).map(|private| {
            let signing = pkcs1v15::SigningKey::<Sha256>::new(private);
            Arc::new(Signer { id: key.id.clone(), key: signing })
        });
        if signer.is_none() {
            info!(key = key.id, "a signing key was sealed with another token");
        }
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.insert(key.id.clone(), signer.clone());
        signer
    }

    fn unseal(&self, key: &SigningKey) -> Option<RsaPrivateKey> {
        let sealed = STANDARD.decode(&key.sealed).ok()?;
        let (nonce, message) = sealed.split_at_checked(NONCE_BYTES)?;
        let payload = Payload { msg: message, aad: key.id.as_bytes() };
        let private = self.cipher()?.decrypt(XNonce::from_slice(nonce), payload).ok()?;
        RsaPrivateKey::from_pkcs1_der(&private).ok()
    }

    fn cipher(&self) -> Option<XChaCha20Poly1305> {
        self.sealing.key().map(|key| XChaCha20Poly1305::new(key.into()))
    }

    /// Makes a key, and takes those away that have ended.
    async fn make(&self, now: Timestamp) -> Result<()> {
        let made = spawn_blocking(|| RsaPrivateKey::new(&mut OsRng, BITS)).await;
        let failed = "make a signing key";
        let private = made.or_error(Kind::Internal, failed)?.or_error(Kind::Internal, failed)?;
        let key = self.sealed(&private, now)?;
        let mut writes = self.catalog.writes(ADMINISTRATOR);
        writes.set(key.id.clone(), 0, &key)?;
        let published: Vec<String> = self.published(now).iter().map(|key| key.id.clone()).collect();
        for old in self.all().iter().filter(|old| !published.contains(&old.id)) {
            writes.remove::<SigningKey>(&old.id, old.version);
        }
        self.catalog.write(writes).await?;
        info!(key = key.id, "made a key that tokens are signed with");
        Ok(())
    }

    fn sealed(&self, private: &RsaPrivateKey, created_at: Timestamp) -> Result<SigningKey> {
        let failed = || Error::internal("seal a signing key");
        let id = URL_SAFE_NO_PAD.encode(rand::random::<[u8; ID_BYTES]>());
        let nonce = rand::random::<[u8; NONCE_BYTES]>();
        let der = private.to_pkcs1_der().map_err(|_| failed())?;
        let payload = Payload { msg: der.as_bytes(), aad: id.as_bytes() };
        let cipher = self.cipher().ok_or_else(failed)?;
        let message = cipher.encrypt(XNonce::from_slice(&nonce), payload).map_err(|_| failed())?;
        let encoded = |number: &BigUint| URL_SAFE_NO_PAD.encode(number.to_bytes_be());
        let (modulus, exponent) = (encoded(private.n()), encoded(private.e()));
        let sealed = STANDARD.encode([&nonce[..], &message].concat());
        Ok(SigningKey { id, created_at, modulus, exponent, sealed })
    }
}

/// Which of these keys signs, given when each was made, in order: the latest that everybody has had the time to
/// see, or else the first.
fn turn(times: &[Timestamp], now: Timestamp) -> Option<usize> {
    let is_seen = |time: &Timestamp| *time + PUBLISHED_AHEAD <= now;
    times.iter().rposition(is_seen).or((!times.is_empty()).then_some(0))
}

/// Whether no token of a key is left, given when those behind it were made.
fn has_ended(later: &[Timestamp], token_life: Duration, now: Timestamp) -> bool {
    later.iter().any(|time| *time + PUBLISHED_AHEAD + token_life <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000).unwrap()
    }

    #[test]
    fn a_key_signs_once_everybody_has_seen_it() {
        assert_eq!(turn(&[], at(0)), None);
        assert_eq!(turn(&[at(0)], at(0)), Some(0), "there is no other");
        assert_eq!(turn(&[at(0), at(100)], at(100)), Some(0));
        assert_eq!(turn(&[at(0), at(1_000)], at(1_599)), Some(0));
        assert_eq!(turn(&[at(0), at(1_000)], at(1_600)), Some(1));
        assert_eq!(turn(&[at(0), at(1_000), at(1_001)], at(1_600)), Some(1));
    }

    #[test]
    fn a_key_stays_until_the_last_token_of_it_has_ended() {
        let life = Duration::from_secs(3_600);
        assert!(!has_ended(&[], life, at(1 << 30)));
        assert!(!has_ended(&[at(0)], life, at(4_199)));
        assert!(has_ended(&[at(0)], life, at(4_200)));
    }
}
