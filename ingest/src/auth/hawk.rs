//! Requests that are signed with an API key, so that the key does not travel: Hawk, as the crate `hawk` has
//! it. A signature covers the method, the address and the body as it was sent; it is taken once, within
//! [`SKEW`] of its time.

use std::time::{Duration, UNIX_EPOCH};

use ::hawk::mac::Mac;
use ::hawk::{Header, Key as MacKey, PayloadHasher, RequestBuilder, SHA256};
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use broker::access::nonces::SKEW;
use broker::access::{Denial, Key, Peer, User};
use broker::{Error, Kind, Principal, Result};
use hmac::{Hmac, Mac as _};
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::Authority;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use sha2::Sha256;

use super::Credentials;
use super::attempts::Subject;
use crate::Ingest;
use crate::body::BodyLimit;
use crate::http::Refusal;
use crate::linger::is_grpc;

/// Makes the key that secrets are derived from another one than any other.
pub(super) const PURPOSE: &[u8] = b"headwater signing keys 1";
const SCHEME: &str = "hawk ";
const SERVER_AUTHORIZATION: HeaderName = HeaderName::from_static("server-authorization");
const FORWARDED_PROTO: &str = "x-forwarded-proto";
/// Answers of up to so many bytes are covered by the server's signature, with their length known.
const SEALED_BYTES_MAX: u64 = 1 << 20;
/// The longest nonce.
const NONCE_BYTES_MAX: usize = 128;

const NOT_VALID: Denial = Denial::Wrong("this signature is not valid");
const NO_HASH: Denial = Denial::Wrong("the signature does not cover the body: its hash is missing");
const OTHER_TIME: Denial = Denial::Expired("the signature's time is more than 60 s from ours");
const USED: Denial = Denial::Expired("this signature was used before");

/// What signs the answer to a request.
#[derive(Clone)]
pub(super) struct Seal {
    header: Header,
    secret: String,
    target: Target,
}

/// What a signature says of the request that it is for.
#[derive(Clone)]
struct Target {
    method: String,
    host: String,
    port: u16,
    path: String,
}

/// A signature as it stands in a header.
struct Signature {
    header: Header,
    id: String,
    nonce: String,
    /// In seconds since 1970.
    at: i64,
    hash: Vec<u8>,
}

/// A request whose signature was looked at.
pub(super) struct Checked {
    pub(super) found: Result<Principal, Denial>,
    pub(super) request: Request,
    pub(super) seal: Option<Seal>,
}

/// The signature that a request presents; none where it presents something else.
pub(super) fn presented(headers: &HeaderMap) -> Option<&str> {
    let mut presented = headers.get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (presented.next(), presented.next()) else { return None };
    let text = only.to_str().ok()?.trim();
    let scheme = text.get(..SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| &text[SCHEME.len()..])
}

impl Credentials {
    /// The secret of a key with which requests can be signed. It hangs on the key's id and the configured
    /// token and on nothing that is kept.
    pub(crate) fn signing_secret(&self, id: &str) -> Option<String> {
        let mut secret = Hmac::<Sha256>::new_from_slice(self.signing.key()?).ok()?;
        secret.update(id.as_bytes());
        Some(URL_SAFE_NO_PAD.encode(secret.finalize().into_bytes()))
    }

    /// Whom a key stands for that requests can be signed with, and its secret.
    pub(super) fn signing_holder(&self, id: &str) -> Option<(Principal, String)> {
        let key = self.catalog.row::<Key>(id).filter(|key| key.value.can_sign)?;
        let user = self.catalog.row::<User>(&key.value.user).filter(|user| !user.value.is_disabled)?;
        let is_over = key.value.expires_at.is_some_and(|expires_at| expires_at <= self.clock.now());
        let secret = self.signing_secret(id).filter(|_| !is_over)?;
        Some((Principal::of(&user.value), secret))
    }
}

impl Ingest {
    /// Checks a signed request: its signature first, then, of a right one, the body; and takes its nonce.
    /// An error is the answer to a body that is too large or does not come.
    pub(super) async fn check_signed(&self, request: Request, peer: Peer) -> Result<Checked, Box<Response>> {
        let (head, body) = request.into_parts();
        let (signature, target) = match self.signature(&head) {
            Ok(signed) => signed,
            Err(denial) => return Ok(self.denied(denial, peer, Request::from_parts(head, body))),
        };
        let Some((user, secret)) = self.signer(&signature, &target) else {
            return Ok(self.denied(NOT_VALID, peer, Request::from_parts(head, body)));
        };
        let limit = BodyLimit { name: "body_bytes_max", bytes_max: self.limits.body_bytes_max };
        let read = self.read_body(&head.headers, body, limit).await;
        // Handlers charge what they read of it again.
        let (body, _) = read.map_err(|refusal| Box::new(refusal.into_response()))?;
        let denial = self.check_rest(&signature, &head.headers, &body).await;
        let request = Request::from_parts(head, Body::from(body));
        Ok(match denial {
            Some(denial) => self.denied(denial, peer, request),
            None => {
                let seal = Some(Seal { header: signature.header, secret, target });
                Checked { found: Ok(user), request, seal }
            }
        })
    }

    fn signature(&self, head: &Parts) -> Result<(Signature, Target), Denial> {
        // What is signed is a whole body, and calls of gRPC have none.
        if is_grpc(&head.headers) {
            return Err(Denial::Unsupported);
        }
        let text = presented(&head.headers).ok_or(Denial::Missing)?;
        let signature = Signature::read(text).ok_or(NOT_VALID)?;
        Ok((signature?, Target::of(head).ok_or(NOT_VALID)?))
    }

    /// Whose key a request is signed with. A signature cannot be guessed, and so is looked at however
    /// much was wrong before.
    fn signer(&self, signature: &Signature, target: &Target) -> Option<(Principal, String)> {
        let (holder, secret) = self.credentials.signing_holder(&signature.id)?;
        let request = target.builder().hash(&*signature.hash).request();
        let mac_key = MacKey::new(&secret, SHA256).ok()?;
        // The time is checked by our own clock.
        let is_right = request.validate_header(&signature.header, &mac_key, Duration::MAX);
        is_right.then_some((holder, secret))
    }

    /// Of a signature that is right: its body, its time, and that it was not used before.
    async fn check_rest(&self, signature: &Signature, headers: &HeaderMap, body: &[u8]) -> Option<Denial> {
        let hash = PayloadHasher::hash(media_type(headers), SHA256, body);
        if !hash.is_ok_and(|hash| hash == signature.hash) {
            return Some(NOT_VALID);
        }
        let off = self.clock.now().micros().abs_diff(signature.at.saturating_mul(1_000_000));
        if u128::from(off) > SKEW.as_micros() {
            return Some(OTHER_TIME);
        }
        match self.nonces.take(&signature.id, signature.at, &signature.nonce).await {
            Ok(true) => None,
            Ok(false) => Some(USED),
            Err(error) if error.kind() == Kind::Busy => Some(Denial::TooMany(SKEW)),
            Err(error) => {
                tracing::warn!(%error, "a nonce cannot be checked");
                Some(Denial::Unavailable("signatures cannot be checked now"))
            }
        }
    }

    fn denied(&self, denial: Denial, peer: Peer, request: Request) -> Checked {
        let denial = self.credentials.failed(denial, "signature", (Subject::Address(peer.0), None));
        Checked { found: Err(denial), request, seal: None }
    }
}

impl Signature {
    /// Reads `id="…", ts="…", nonce="…", mac="…", hash="…"`, with `ext`, `app` and `dlg` where they are. None
    /// where it is no signature. The crate's own reader is not used: it panics at times that no clock has.
    fn read(text: &str) -> Option<Result<Self, Denial>> {
        let mut fields = std::collections::BTreeMap::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (name, value) = rest.split_once("=\"")?;
            let (value, after) = value.split_once('"')?;
            if fields.insert(name.trim(), value).is_some() {
                return None;
            }
            rest = after.trim_start().trim_start_matches(',').trim_start();
        }
        let mut take = |name| fields.remove(name);
        let id = take("id")?.to_owned();
        let at: u32 = take("ts")?.parse().ok()?;
        let nonce = take("nonce").filter(|nonce| (1..=NONCE_BYTES_MAX).contains(&nonce.len()))?.to_owned();
        let mac = Mac::from(STANDARD.decode(take("mac")?).ok()?);
        let hash = take("hash").map(|hash| STANDARD.decode(hash));
        let (ext, app, dlg) = (take("ext"), take("app"), take("dlg"));
        // What `app` and `dlg` say is not signed by this crate, so nobody may rely on it.
        if !fields.is_empty() || app.is_some() || dlg.is_some() {
            return None;
        }
        let Some(Ok(hash)) = hash else { return Some(Err(NO_HASH)) };
        let time = UNIX_EPOCH + Duration::from_secs(u64::from(at));
        let header = Header::new(
            Some(id.clone()),
            Some(time),
            Some(nonce.clone()),
            Some(mac),
            ext.map(str::to_owned),
            Some(hash.clone()),
            None,
            None,
        );
        Some(Ok(Self { header: header.ok()?, id, nonce, at: i64::from(at), hash }))
    }
}

impl Target {
    /// The address is the one that the client saw: of a name without a port, the port is that of the
    /// scheme, which a proxy in front says where it is not plain HTTP.
    fn of(head: &Parts) -> Option<Self> {
        let named = head.headers.get(HOST).and_then(|host| host.to_str().ok());
        let authority: Authority = match named {
            Some(host) => host.parse().ok()?,
            None => head.uri.authority()?.clone(),
        };
        let scheme = head.headers.get(FORWARDED_PROTO).and_then(|scheme| scheme.to_str().ok());
        let is_encrypted = scheme.is_some_and(|scheme| scheme.trim().eq_ignore_ascii_case("https"));
        let path = head.uri.path_and_query()?.as_str().to_owned();
        let port = authority.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 });
        let (method, host) = (head.method.as_str().to_owned(), authority.host().to_ascii_lowercase());
        Some(Self { method, host, port, path })
    }

    fn builder(&self) -> RequestBuilder<'_> {
        RequestBuilder::new(&self.method, &self.host, self.port, &self.path)
    }
}

impl Seal {
    /// Signs an answer, with its body where that is whole and small.
    pub(super) async fn put(self, response: Response) -> Response {
        let (mut head, body) = response.into_parts();
        let is_whole = body.size_hint().exact().is_some_and(|bytes| bytes <= SEALED_BYTES_MAX);
        let (body, hash) = if is_whole {
            let Ok(collected) = body.collect().await else {
                return Refusal::from(Error::internal("an answer's body cannot be read")).into_response();
            };
            let bytes = collected.to_bytes();
            let hash = PayloadHasher::hash(media_type(&head.headers), SHA256, &bytes).ok();
            (Body::from(bytes), hash)
        } else {
            (body, None)
        };
        if let Some(header) = self.header(hash.as_deref()) {
            head.headers.insert(SERVER_AUTHORIZATION, header);
        }
        Response::from_parts(head, body)
    }

    fn header(&self, hash: Option<&[u8]>) -> Option<HeaderValue> {
        let request = self.target.builder().request();
        let answer = request.make_response_builder(&self.header).hash(hash).response();
        let header = answer.make_header(&MacKey::new(&self.secret, SHA256).ok()?).ok()?;
        HeaderValue::from_str(&format!("Hawk {header}")).ok()
    }
}

/// As it is hashed: lower case, without parameters.
fn media_type(headers: &HeaderMap) -> String {
    let header = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
