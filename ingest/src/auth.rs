//! Who is there: a credential in front of everything but the paths that are named open.
//!
//! The configured token is the administrator's; any other bearer is an API key of the catalog or an access
//! token that was issued for one or for a password. What a principal may do is decided where the request
//! is understood, by the dataset that it names.

pub(crate) mod attempts;
mod derived;
mod hawk;
pub(crate) mod keys;
pub mod oidc;
pub(crate) mod passwords;
pub mod pool;
pub(crate) mod sigv4;
pub(crate) mod tokens;
pub(crate) mod webhooks;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::access::{Caller, Denial, Peer, User, retry_after};
use broker::catalog::Row;
use broker::{Catalog, Clock, Error, Principal, Result, Timestamp};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use jsonwebtoken::Algorithm;
use proto::problem::{Kind, Problem};
use subtle::ConstantTimeEq as _;
use tower::ServiceExt as _;

use self::attempts::{Attempts, Subject};
use self::derived::Derived;
use self::hawk::{Checked, Seal};
use self::oidc::Issuer;
use self::pool::Pool;
use self::tokens::Signer;
use crate::Ingest;
use crate::linger::{is_grpc, lend};

/// From how many characters on a configured token is not guessed: those that are made have as many.
const UNGUESSABLE_CHARACTERS: usize = 32;

/// Knows who presents what.
pub struct Credentials {
    token: String,
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
    signer: Signer,
    /// Of the secrets that requests are signed with.
    signing: Derived,
    issuer: Option<Arc<Issuer>>,
    pool: Option<Arc<Pool>>,
    attempts: Attempts,
}

/// An access token with its life.
pub(crate) struct Issued {
    pub(crate) access_token: String,
    pub(crate) life: Duration,
}

/// What stands in `Authorization: Basic …`, decoded.
pub(crate) fn basic(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(encoded.trim()).ok())?
}

impl Credentials {
    /// `token` is the administrator's; an empty one opens to nobody.
    pub fn new(token: String, catalog: Arc<Catalog>, clock: Arc<dyn Clock>) -> Self {
        let (signer, attempts) = (Signer::new(token.clone()), Attempts::default());
        let signing = Derived::new(token.clone(), hawk::PURPOSE);
        Self { token, catalog, clock, signer, signing, issuer: None, pool: None, attempts }
    }

    /// The same, and tokens of another issuer are taken, too.
    #[must_use]
    pub fn with_issuer(self, issuer: Arc<Issuer>) -> Self {
        Self { issuer: Some(issuer), ..self }
    }

    /// The same, and id tokens of a pool of our own users are taken, too.
    #[must_use]
    pub fn with_pool(self, pool: Arc<Pool>) -> Self {
        Self { pool: Some(pool), ..self }
    }

    /// Who presents a bearer. One that cannot be guessed is looked at however much was wrong before, so
    /// that a client with a wrong one does not keep out the others behind its address.
    async fn identify(&self, headers: &HeaderMap, peer: Peer) -> Result<Principal, Denial> {
        let mut presented = headers.get_all(AUTHORIZATION).iter();
        let (Some(only), None) = (presented.next(), presented.next()) else { return Err(Denial::Missing) };
        self.holder_of_token(bearer(only.as_bytes())?, peer).await
    }

    /// Whose token this is, presented as a bearer or as it is.
    pub(crate) async fn holder_of_token(&self, token: &[u8], peer: Peer) -> Result<Principal, Denial> {
        let (now, from) = (self.clock.now(), Subject::Address(peer.0));
        let wait = self.attempts.wait(from, now);
        let is_looked_at = wait.is_none() || self.token.len() >= UNGUESSABLE_CHARACTERS;
        if is_looked_at && self.is_token(token) {
            return Ok(Principal::administrator());
        }
        let found = if token.starts_with(keys::PREFIX) {
            keys::holder(&self.catalog, token, now).map(|(_, user)| Principal::of(&user.value))
        } else {
            self.of_token(token, now).await
        };
        found.map_err(|denial| self.failed(denial, "bearer", (from, wait)))
    }

    /// Whose token this is: an access token of ours, an id token of our pool, or one of the other issuer, which
    /// signs with keys of another kind.
    async fn of_token(&self, token: &[u8], now: Timestamp) -> Result<Principal, Denial> {
        let header = jsonwebtoken::decode_header(token);
        match (&self.pool, &self.issuer, header) {
            (Some(pool), _, Ok(header)) if pool.is_of(&header) => pool.holder(token, &header),
            (_, Some(issuer), Ok(header)) if header.alg != Algorithm::HS256 => {
                issuer.holder(token, &header).await
            }
            _ => self.signer.holder(&self.catalog, token, now),
        }
    }

    /// An access token for who knows a user's password, and may sign in with it.
    pub(crate) async fn log_in(&self, name: &str, password: String, peer: Peer) -> Result<Issued, Login> {
        let user = self.check_password(name, password, peer).await?;
        if !user.value.is_confirmed() {
            return Err(Denial::Wrong("the user is not confirmed, or its password has to be replaced").into());
        }
        Ok(self.issue(&user, None)?)
    }

    /// The user of a name, for who knows its password.
    pub(crate) async fn check_password(
        &self,
        name: &str,
        password: String,
        peer: Peer,
    ) -> Result<Arc<Row<User>>, Login> {
        let now = self.clock.now();
        let subjects = [Subject::Address(peer.0), Subject::Principal(name)];
        let waits = subjects.iter().filter_map(|subject| self.attempts.wait(*subject, now));
        if let Some(wait) = waits.max() {
            return Err(self.failed(Denial::TooMany(wait), "password", (subjects[0], None)).into());
        }
        // Counted before it is known to be wrong, so that many at once do not get past the limit.
        subjects.iter().for_each(|subject| self.attempts.count(*subject, now));
        let user = self.catalog.row::<User>(name).filter(|user| !user.value.is_disabled);
        let kept = user.as_ref().and_then(|user| user.value.password.clone());
        let is_right = passwords::is_right(password, kept).await;
        if !matches!(is_right, Ok(false)) {
            subjects.iter().for_each(|subject| self.attempts.take_back(*subject));
        }
        match user.filter(|_| is_right.as_ref().is_ok_and(|is_right| *is_right)) {
            Some(user) => Ok(user),
            None => {
                is_right?;
                count_failure("password");
                Err(Denial::Wrong("the user is not known, or the password is wrong").into())
            }
        }
    }

    /// `TooMany` if too much that came from there was wrong.
    pub(crate) fn may_try(&self, peer: Peer) -> Result<(), Denial> {
        let wait = self.attempts.wait(Subject::Address(peer.0), self.clock.now());
        wait.map_or(Ok(()), |wait| Err(Denial::TooMany(wait)))
    }

    /// Counts what came from there: something was wrong, or costs much.
    pub(crate) fn count_try(&self, what: &'static str, peer: Peer) {
        self.attempts.count(Subject::Address(peer.0), self.clock.now());
        count_failure(what);
    }

    /// Whose API key this is, presented otherwise than as a bearer.
    pub(crate) fn holder_of(&self, key: &[u8], peer: Peer) -> Result<Principal, Denial> {
        let (now, from) = (self.clock.now(), Subject::Address(peer.0));
        let wait = self.attempts.wait(from, now);
        let found = keys::holder(&self.catalog, key, now).map(|(_, user)| Principal::of(&user.value));
        found.map_err(|denial| self.failed(denial, "write key", (from, wait)))
    }

    /// An access token for who presents an API key, named by its id or its user.
    pub(crate) fn exchange(&self, name: &str, key: &str, peer: Peer) -> Result<Issued, Login> {
        let (now, from) = (self.clock.now(), Subject::Address(peer.0));
        let wait = self.attempts.wait(from, now);
        let is_named = |id: &str, user: &str| name == id || name == user || name == format!("hwk.{id}");
        let found = keys::holder(&self.catalog, key.as_bytes(), now).and_then(|(id, user)| {
            if is_named(&id, &user.value.name) { Ok((id, user)) } else { Err(keys::UNKNOWN) }
        });
        let (id, user) = found.map_err(|denial| self.failed(denial, "client secret", (from, wait)))?;
        Ok(self.issue(&user, Some(&id))?)
    }

    fn issue(&self, user: &Row<User>, key: Option<&str>) -> Result<Issued> {
        let access_token = self.signer.issue(user, key, self.clock.now())?;
        Ok(Issued { access_token, life: tokens::LIFE })
    }

    /// Counts a denial where something was wrong.
    fn failed(
        &self,
        denial: Denial,
        what: &'static str,
        (from, wait): (Subject<'_>, Option<Duration>),
    ) -> Denial {
        match denial {
            Denial::Missing | Denial::Unsupported | Denial::Expired(_) | Denial::Unavailable(_) => {
                return denial;
            }
            Denial::Wrong(_) => self.attempts.count(from, self.clock.now()),
            Denial::TooMany(_) => {}
        }
        count_failure(what);
        wait.map_or(denial, Denial::TooMany)
    }

    /// Takes a time that depends on what was presented, not on the token.
    fn is_token(&self, presented: &[u8]) -> bool {
        let token = self.token.as_bytes();
        if token.is_empty() {
            return false;
        }
        let mut is_same = presented.len().ct_eq(&token.len());
        for (byte, known) in presented.iter().zip(token.iter().cycle()) {
            is_same &= byte.ct_eq(known);
        }
        is_same.into()
    }
}

fn bearer(header: &[u8]) -> Result<&[u8], Denial> {
    let header = header.trim_ascii();
    let end = header.iter().position(|c| *c == b' ').unwrap_or(header.len());
    let (scheme, token) = (&header[..end], header[end..].trim_ascii());
    match (token, scheme.eq_ignore_ascii_case(b"bearer")) {
        (b"", _) => Err(Denial::Missing),
        (_, false) => Err(Denial::Unsupported),
        (token, true) => Ok(token),
    }
}

/// Why somebody gets no token.
#[derive(Debug)]
pub(crate) enum Login {
    /// What was presented is not taken.
    Denied(Denial),
    /// It could not be looked at.
    Failed(Error),
}

impl Login {
    /// The same, of a field of a request.
    pub(crate) fn of_field(self, field: &'static str) -> Error {
        match self {
            Login::Failed(error) => error,
            Login::Denied(denial) => {
                let Problem { kind, message, .. } = denial.problem();
                let kind = if kind == Kind::Busy { kind } else { Kind::Forbidden };
                Error::new(kind, message).with_field(field)
            }
        }
    }
}

impl From<Denial> for Login {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl From<Error> for Login {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn count_failure(what: &'static str) {
    metrics::counter!("headwater_auth_failures_total", "credential" => what).increment(1);
}

/// A denial as an answer.
pub(crate) trait DenialExt {
    /// As a refusal; its kind tells a client to wait or to present something.
    fn problem(self) -> Problem;

    /// Sets the headers that go with it.
    fn finish(self, headers: &mut HeaderMap);
}

impl DenialExt for Denial {
    fn problem(self) -> Problem {
        let (kind, message) = match self {
            Denial::Missing | Denial::Unsupported => (
                Kind::Unauthenticated,
                "present a token or an API key as authorization: Bearer TOKEN, or a signature as authorization: Hawk …",
            ),
            Denial::Expired(message) | Denial::Wrong(message) => (Kind::Unauthenticated, message),
            Denial::TooMany(_) => (Kind::Busy, "too many wrong credentials came from there, wait"),
            Denial::Unavailable(message) => (Kind::Unavailable, message),
        };
        Problem { kind, message: message.to_owned(), field: Some("authorization".to_owned()) }
    }

    fn finish(self, headers: &mut HeaderMap) {
        match self {
            Denial::TooMany(wait) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(retry_after(wait)));
            }
            Denial::Unavailable(_) => {}
            _ => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
        }
    }
}

/// Lets nobody in whose credential is not known, but for the paths that are open.
#[derive(Clone)]
pub struct Guard {
    ingest: Arc<Ingest>,
    open: Arc<[String]>,
    left: Arc<[String]>,
}

impl Guard {
    /// Everything is closed to who presents nothing.
    pub fn new(ingest: Arc<Ingest>) -> Self {
        Self { ingest, open: Arc::default(), left: Arc::default() }
    }

    /// The same, but these paths are open to everybody, too. One that ends with `/` opens what lies
    /// below it, any other opens itself alone.
    #[must_use]
    pub fn open(self, paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let open = self.open.iter().cloned().chain(paths.into_iter().map(Into::into)).collect();
        Self { open, ..self }
    }

    /// The same, but handlers at these paths find a [`Caller`] as an extension of the request and refuse
    /// by themselves.
    #[must_use]
    pub fn leave(self, paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let left = self.left.iter().cloned().chain(paths.into_iter().map(Into::into)).collect();
        Self { left, ..self }
    }
}

pub(crate) fn is_among(paths: &[String], path: &str) -> bool {
    paths.iter().any(|known| path == known || (known.ends_with('/') && path.starts_with(known)))
}

/// A guard in front of every route of a router and of its fallbacks, those of unknown paths too, which
/// reads what is left of the bodies that any of them refuses. Handlers find the [`Principal`] as an
/// extension of the request.
///
/// It is no layer of the router: those are put around each route, and copied with it for every request.
#[derive(Clone)]
pub struct Guarded {
    router: Router,
    guard: Guard,
}

impl Guarded {
    /// This router behind this guard.
    pub fn new(router: Router, guard: Guard) -> Self {
        Self { router, guard }
    }

    /// The same as a router, for what takes nothing else.
    pub fn into_router(self) -> Router {
        let answer = move |request| {
            let guarded = self.clone();
            async move { Ok::<_, Infallible>(guarded.answer(request).await) }
        };
        Router::new().fallback_service(tower::service_fn(answer))
    }

    /// The answer to a request.
    pub async fn answer(&self, request: Request) -> Response {
        let (request, home) = lend(request);
        let answer = self.check(request).await;
        home.linger(answer.status()).await;
        answer
    }

    async fn check(&self, request: Request) -> Response {
        let (guard, path) = (&self.guard, request.uri().path());
        if is_among(&guard.open, path) {
            return self.route(request).await;
        }
        let is_left = is_among(&guard.left, path);
        let peer = request.extensions().get::<Peer>().copied().unwrap_or_default();
        let checked = if hawk::presented(request.headers()).is_some() {
            match guard.ingest.check_signed(request, peer).await {
                Ok(checked) => checked,
                Err(refusal) => return *refusal,
            }
        } else {
            let found = guard.ingest.credentials.identify(request.headers(), peer).await;
            Checked { found, request, seal: None }
        };
        let Checked { found, mut request, seal } = checked;
        let mut answer = match found {
            found if is_left => {
                request.extensions_mut().insert(Caller(found));
                self.route(request).await
            }
            Ok(principal) => {
                request.extensions_mut().insert(principal);
                self.route(request).await
            }
            Err(denial) => refused(request.headers(), denial),
        };
        if let Some(seal) = seal {
            answer.extensions_mut().insert(seal);
        }
        answer
    }

    async fn route(&self, request: Request) -> Response {
        self.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    }
}

/// Signs the answer to a signed request. It is the last to touch it, as its body is covered.
pub async fn seal(mut answer: Response) -> Response {
    match answer.extensions_mut().remove::<Seal>() {
        Some(seal) => seal.put(answer).await,
        None => answer,
    }
}

fn refused(headers: &HeaderMap, denial: Denial) -> Response {
    let problem = denial.problem();
    if is_grpc(headers) {
        return problem.into_status().into_http();
    }
    let mut response: Response = problem.into_response();
    denial.finish(response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use http::StatusCode;
    use rstest::rstest;

    use super::*;
    use crate::testing::Doors;

    async fn guard(token: &str) -> Guard {
        Doors::open().await.guard(token)
    }

    async fn ask(path: &str, headers: &[(&str, &str)]) -> Response {
        let router =
            Router::new().route("/known", get(|| async { "in" })).route("/healthz", get(|| async {}));
        let guard = guard("s3cret").await.open(["/healthz", "/grpc.health.v1.Health/"]);
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Guarded::new(router, guard).answer(request.body(Body::empty()).unwrap()).await
    }

    #[rstest]
    #[case::right("/known", &[("authorization", "Bearer s3cret")], StatusCode::OK)]
    #[case::scheme_in_any_case("/known", &[("authorization", "bEARER s3cret")], StatusCode::OK)]
    #[case::unknown_path_with_token("/unknown", &[("authorization", "Bearer s3cret")], StatusCode::NOT_FOUND)]
    #[case::open("/healthz", &[], StatusCode::OK)]
    #[case::below_open("/grpc.health.v1.Health/Check", &[], StatusCode::NOT_FOUND)]
    #[case::beside_open("/healthz/x", &[], StatusCode::UNAUTHORIZED)]
    #[case::missing("/known", &[], StatusCode::UNAUTHORIZED)]
    #[case::unknown_path("/unknown", &[], StatusCode::UNAUTHORIZED)]
    #[case::wrong("/known", &[("authorization", "Bearer s3creT")], StatusCode::UNAUTHORIZED)]
    #[case::shorter("/known", &[("authorization", "Bearer s3cre")], StatusCode::UNAUTHORIZED)]
    #[case::longer("/known", &[("authorization", "Bearer s3crets3cret")], StatusCode::UNAUTHORIZED)]
    #[case::empty("/known", &[("authorization", "Bearer ")], StatusCode::UNAUTHORIZED)]
    #[case::basic("/known", &[("authorization", "Basic s3cret")], StatusCode::UNAUTHORIZED)]
    #[case::twice(
        "/known", &[("authorization", "Bearer s3cret"), ("authorization", "Bearer x")], StatusCode::UNAUTHORIZED
    )]
    #[tokio::test]
    async fn lets_in_who_presents_the_token(
        #[case] path: &str,
        #[case] headers: &[(&str, &str)],
        #[case] status: StatusCode,
    ) {
        let response = ask(path, headers).await;
        assert_eq!(response.status(), status);
        if status == StatusCode::UNAUTHORIZED {
            assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
            let problem = response.extensions().get::<Problem>().unwrap();
            assert_eq!(problem.kind, Kind::Unauthenticated);
        }
    }

    #[tokio::test]
    async fn refuses_grpc_with_its_own_status_in_the_headers() {
        let response =
            ask("/headwater.v1.Ingest/Append", &[("content-type", "application/grpc+proto")]).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "16");
        assert!(response.extensions().get::<Problem>().is_none());
    }

    #[tokio::test]
    async fn an_empty_token_opens_to_nobody() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer "));
        let guard = guard("").await;
        assert_eq!(guard.ingest.credentials.identify(&headers, Peer::default()).await, Err(Denial::Missing));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        let denial = guard.ingest.credentials.identify(&headers, Peer::default()).await.unwrap_err();
        assert!(matches!(denial, Denial::Wrong(_)), "{denial:?}");
    }
}
