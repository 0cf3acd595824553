//! Where a password or an API key is exchanged for an access token: the token endpoint of OAuth 2.0
//! (RFC 6749, grants `password` and `client_credentials`), which also takes user name and password as JSON.
//!
//! Errors are those of RFC 6749, section 5.2.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use broker::access::{Denial, Peer};
use broker::{Error, Kind};
use http::header::{CACHE_CONTROL, CONNECTION, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::api::{TokenRefusal, TokenRequest};
use super::{Refusal, json, media_type};
use crate::Ingest;
use crate::auth::{DenialExt as _, Login};
use crate::body::BodyLimit;

/// Where it is, and where clients of Keycloak and of the token service look for it; a realm's name is
/// taken as it comes.
pub(super) const PATHS: [&str; 4] = [
    "/api/v1/token",
    "/token-service/token",
    "/realms/{realm}/protocol/openid-connect/token",
    "/auth/realms/{realm}/protocol/openid-connect/token",
];

const BODY: BodyLimit = BodyLimit { name: "token_request_bytes_max", bytes_max: 16 << 10 };

/// An access token.
#[derive(Serialize, ToSchema)]
struct Token<'a> {
    access_token: &'a str,
    token_type: &'a str,
    /// In seconds.
    expires_in: u64,
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Password { name: String, password: String },
    Client { id: String, secret: String },
}

/// Why there is none.
struct Refused {
    status: StatusCode,
    error: &'static str,
    description: String,
    denial: Option<Denial>,
}

#[utoipa::path(
    post,
    path = "/api/v1/token",
    tag = "access",
    operation_id = "issueToken",
    security(()),
    summary = "Exchanges a password or an API key for an access token",
    request_body(content((TokenRequest = "application/x-www-form-urlencoded"), (TokenRequest = "application/json"))),
    responses(
        (status = 200, description = "An access token", body = inline(Token<'_>)),
        (status = "4XX", description = "There is none (RFC 6749, section 5.2)", body = TokenRefusal),
        (status = "5XX", description = "It cannot be done now", body = TokenRefusal),
    ),
)]
pub(super) async fn issue(
    State(ingest): State<Arc<Ingest>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let peer = peer.map(|Extension(peer)| peer).unwrap_or_default();
    let mut response = match exchange(&ingest, peer, &headers, body).await {
        Ok(response) => response,
        Err(refused) => refused.into_response(),
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn exchange(ingest: &Ingest, peer: Peer, headers: &HeaderMap, body: Body) -> Result<Response, Refused> {
    let issued = match read(ingest, headers, body).await? {
        Asked::Password { name, password } => {
            ingest.credentials.log_in(&name, password, peer).await.map_err(invalid_grant)
        }
        Asked::Client { id, secret } => {
            ingest.credentials.exchange(&id, &secret, peer).map_err(invalid_client)
        }
    }?;
    let (access_token, expires_in) = (issued.access_token.as_str(), issued.life.as_secs());
    Ok(json(StatusCode::OK, &Token { access_token, token_type: "Bearer", expires_in })?)
}

async fn read(ingest: &Ingest, headers: &HeaderMap, body: Body) -> Result<Asked, Refused> {
    let media_type = media_type(headers).map_err(|_| invalid("content-type: it cannot be read"))?;
    let (body, _charge) = ingest.read_body(headers, body, BODY).await?;
    match media_type.as_deref() {
        Some("application/json") => parse_json(&body),
        Some("application/x-www-form-urlencoded") => parse_form(headers, &body),
        _ => Err(invalid("content-type: a request is application/x-www-form-urlencoded or application/json")),
    }
}

fn parse_json(body: &[u8]) -> Result<Asked, Refused> {
    #[derive(Deserialize)]
    struct Draft {
        username: String,
        password: String,
    }
    // What serde says of a wrong value may hold it.
    let draft: Draft = serde_json::from_slice(body)
        .map_err(|_| invalid("the body is no JSON object with username and password, both of them texts"))?;
    Ok(Asked::Password { name: draft.username, password: draft.password })
}

fn parse_form(headers: &HeaderMap, body: &[u8]) -> Result<Asked, Refused> {
    let mut form = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(body).into_owned() {
        if form.contains_key(&name) {
            return Err(invalid(format!("{name}: the parameter stands twice")));
        }
        form.insert(name, value);
    }
    let mut take = |name: &str| form.remove(name).filter(|value| !value.is_empty());
    let missing = |name: &str| invalid(format!("{name}: the parameter is missing"));
    match take("grant_type").ok_or_else(|| missing("grant_type"))?.as_str() {
        "password" => {
            let name = take("username").ok_or_else(|| missing("username"))?;
            let password = take("password").ok_or_else(|| missing("password"))?;
            Ok(Asked::Password { name, password })
        }
        "client_credentials" => {
            if let Some((id, secret)) = basic(headers) {
                return Ok(Asked::Client { id, secret });
            }
            let id = take("client_id").ok_or_else(|| missing("client_id"))?;
            let secret = take("client_secret").ok_or_else(|| missing("client_secret"))?;
            Ok(Asked::Client { id, secret })
        }
        _ => {
            let description = "the grant types are password and client_credentials".to_owned();
            let (status, error) = (StatusCode::BAD_REQUEST, "unsupported_grant_type");
            Err(Refused { status, error, description, denial: None })
        }
    }
}

/// Id and secret from `Authorization: Basic …`, each encoded as in a form (RFC 6749, section 2.3.1).
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let text = String::from_utf8(crate::auth::basic(headers)?).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decode = |text: &str| {
        let (decoded, _) = form_urlencoded::parse(text.as_bytes()).into_owned().next()?;
        Some(decoded)
    };
    Some((decode(id)?, decode(secret)?))
}

fn invalid(description: impl Into<String>) -> Refused {
    let (status, error) = (StatusCode::BAD_REQUEST, "invalid_request");
    Refused { status, error, description: description.into(), denial: None }
}

fn invalid_grant(login: Login) -> Refused {
    Refused::of(login, StatusCode::BAD_REQUEST, "invalid_grant")
}

fn invalid_client(login: Login) -> Refused {
    Refused::of(login, StatusCode::UNAUTHORIZED, "invalid_client")
}

impl Refused {
    fn of(login: Login, status: StatusCode, error: &'static str) -> Self {
        let denial = match login {
            Login::Failed(failed) => return failed.into(),
            Login::Denied(denial) => denial,
        };
        let description = denial.problem().message;
        match denial {
            Denial::TooMany(_) => {
                let (status, error) = (StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable");
                Self { status, error, description, denial: Some(denial) }
            }
            _ => Self { status, error, description, denial: None },
        }
    }
}

impl From<Error> for Refused {
    fn from(failed: Error) -> Self {
        Refusal::from(failed).into()
    }
}

impl From<Refusal> for Refused {
    fn from(Refusal { problem, status }: Refusal) -> Self {
        let error = match problem.kind {
            Kind::Invalid | Kind::TooLarge => "invalid_request",
            kind if kind.is_transient() => "temporarily_unavailable",
            _ => "server_error",
        };
        Self { status, error, description: problem.message, denial: None }
    }
}

impl Refused {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Answer<'a> {
            error: &'a str,
            error_description: &'a str,
        }
        let answer = Answer { error: self.error, error_description: &self.description };
        let Ok(mut response) = json(self.status, &answer) else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        if let Some(denial) = self.denial {
            denial.finish(response.headers_mut());
        }
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let soon = HeaderValue::from_static("1");
                response.headers_mut().entry(RETRY_AFTER).or_insert(soon);
            }
            StatusCode::REQUEST_TIMEOUT => {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let basic = HeaderValue::from_static("Basic realm=\"headwater\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, basic);
        }
        response
    }
}
