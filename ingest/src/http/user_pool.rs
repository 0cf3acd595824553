//! A pool of our own users, for clients of the identity service that it stands in for: they sign in here and get
//! tokens that other doors take. One path takes every action, which a header names; an answer is JSON.
//!
//! Who signs in presents a password. Who acts on others, in the actions whose names begin with `Admin`, is an
//! administrator: by a bearer, or by a signature with an API key.

mod admin;
mod asked;
mod messages;
mod refused;
mod sign_in;
mod sign_up;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{OriginalUri, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use broker::access::{Caller, Denial, Peer, User};
use broker::catalog::Row;
use broker::{Error, Principal, Result, StreamName};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::OpenApi;
use utoipa::openapi::OpenApi as Api;

use self::refused::{Refused, Told};
use super::Refusal;
use crate::Ingest;
use crate::auth::pool::{KEYS_KEPT, Pool};
use crate::auth::sigv4::{self, Signed};
use crate::body::BodyLimit;

const TARGET: &str = "x-amz-target";
/// What stands before the name of an action.
const SERVICE: &str = "AWSCognitoIdentityProviderService.";
/// The media type of requests and answers.
const JSON: &str = "application/x-amz-json-1.1";
/// Other media types of requests that are read.
const READ_AS_JSON: [&str; 3] = [JSON, "application/x-amz-json-1.0", "application/json"];
const BODY: BodyLimit = BodyLimit { name: "user_pool_request_bytes_max", bytes_max: 64 << 10 };
/// How often a change is tried again that another one came before.
const TRIES_MAX: usize = 5;

/// How the surface is set up.
#[derive(Clone, Debug)]
pub struct UserPoolSettings {
    /// Whether everybody may sign up.
    pub sign_up: bool,
    /// The dataset of the stream in which codes and invitations are told.
    pub messages: String,
}

/// The door of the pool.
pub struct UserPool {
    ingest: Arc<Ingest>,
    pool: Arc<Pool>,
    settings: UserPoolSettings,
    messages: StreamName,
}

/// A request to do something.
struct Action {
    name: String,
    body: Bytes,
    peer: Peer,
    /// Who makes it, as far as the guard knows.
    caller: Result<Principal, Denial>,
    signed: Option<Result<Principal, Denial>>,
}

#[derive(OpenApi)]
#[openapi(paths(act, keys, discovery))]
struct Documented;

impl UserPool {
    /// What it answers: everything below where it is served. It refuses by itself, in the words that its clients
    /// know.
    pub const PATHS: [&str; 2] = ["", "/"];

    /// Makes its stream and its first key where they are missing.
    pub async fn new(ingest: Arc<Ingest>, pool: Arc<Pool>, settings: UserPoolSettings) -> Result<Arc<Self>> {
        let messages = messages::stream(&settings.messages)?;
        let door = Self { ingest, pool, settings, messages };
        door.make_stream().await?;
        door.pool.ready().await?;
        Ok(Arc::new(door))
    }

    /// The HTTP door below `prefix`, for a [`Guard`](crate::auth::Guard) that leaves refusing to it.
    pub fn router(self: &Arc<Self>, prefix: &str) -> Router {
        let paths = ["/{pool}/.well-known/jwks.json", "/{pool}/.well-known/openid-configuration"];
        let [keys_at, discovery_at] = paths.map(|path| format!("{prefix}{path}"));
        let router = Router::new()
            .route(&format!("{prefix}/"), post(act))
            .route(&keys_at, get(keys))
            .route(&discovery_at, get(discovery));
        let router = if prefix.is_empty() { router } else { router.route(prefix, post(act)) };
        router.with_state(self.clone())
    }

    /// What it is.
    pub fn openapi() -> Api {
        Documented::openapi()
    }

    async fn answer(&self, action: Action) -> Result<Value, Refused> {
        let Action { name, body, peer, .. } = &action;
        match name.as_str() {
            "InitiateAuth" => self.initiate_auth(asked::read(body)?, *peer).await,
            "RespondToAuthChallenge" => self.respond(asked::read(body)?, *peer).await,
            "SignUp" => self.sign_up(asked::read(body)?, *peer).await,
            "ConfirmSignUp" => self.confirm_sign_up(asked::read(body)?, *peer).await,
            "ResendConfirmationCode" => self.resend_code(asked::read(body)?, *peer).await,
            "RevokeToken" => self.revoke(asked::read(body)?, *peer).await,
            "AdminCreateUser" => self.create_user(&action.administrator()?, asked::read(body)?).await,
            "AdminSetUserPassword" => self.set_password(&action.administrator()?, asked::read(body)?).await,
            _ => Err(Refused::new("UnknownOperationException", format!("there is no action {name:?} here"))),
        }
    }

    /// Refuses a path of another pool.
    fn check_path(&self, id: &str) -> Result<()> {
        if id == self.pool.id() {
            return Ok(());
        }
        Err(Error::not_found(format!("there is no pool {id}")).with_field("pool"))
    }

    fn check_client(&self, id: &str) -> Result<(), Refused> {
        if self.pool.has_client(id) {
            return Ok(());
        }
        Err(Refused::new("ResourceNotFoundException", format!("User pool client {id} does not exist.")))
    }

    /// Clients here have no secret, so that none can be proven.
    fn check_no_secret(id: &str, hash: Option<&str>) -> Result<(), Refused> {
        let message = format!("Client {id} is configured without secret but SECRET_HASH was received");
        hash.map_or(Ok(()), |_| Err(Refused::new("NotAuthorizedException", message)))
    }

    /// Changes a user as `change` says, which is told again what it is now where another change came before.
    async fn change<T>(
        &self,
        by: &str,
        name: &str,
        change: impl Fn(&User) -> Result<(User, T), Refused>,
    ) -> Result<(Arc<Row<User>>, T), Refused> {
        let mut tries = 1;
        loop {
            let before = self.ingest.user(name)?;
            let (user, told) = change(&before.value)?;
            let mut writes = self.ingest.catalog.writes(by);
            writes.set(name, before.version, &user)?;
            match self.ingest.catalog.write(writes).await {
                Ok(()) => return Ok((self.ingest.user(name)?, told)),
                Err(error) if error.kind() == broker::Kind::Conflict && tries < TRIES_MAX => tries += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Action {
    /// Reads a request whole, and looks at its signature, if it has one.
    async fn read(
        ingest: &Ingest,
        (peer, caller): (Peer, Result<Principal, Denial>),
        uri: &http::Uri,
        request: Request,
    ) -> Result<Self, Refused> {
        let (head, body) = request.into_parts();
        let name = name_of(&head.headers)?;
        let media_type = super::media_type(&head.headers)?;
        if media_type.as_deref().is_some_and(|media_type| !READ_AS_JSON.contains(&media_type)) {
            return Err(Refusal::unsupported("content-type", &format!("a request is {JSON}")).into());
        }
        let (body, _charge): (Bytes, _) = ingest.read_body(&head.headers, Body::new(body), BODY).await?;
        let signed = sigv4::is_presented(&head.headers).then(|| {
            let (method, headers, covered) = (&head.method, &head.headers, &[TARGET][..]);
            let signed = Signed { method, uri, headers, body: &body, covered };
            ingest.credentials.holder_of_signature(signed, peer)
        });
        Ok(Self { name, body, peer, caller, signed })
    }

    /// Whoever makes it, who has to be an administrator.
    fn administrator(&self) -> Result<Principal, Refused> {
        let caller = self.signed.clone().unwrap_or_else(|| self.caller.clone());
        let caller = caller.map_err(Refused::stranger)?;
        caller
            .require_administrator()
            .map_err(|error| Refused::new("AccessDeniedException", error.message()))?;
        Ok(caller)
    }
}

/// The name of the action that a header asks for.
fn name_of(headers: &HeaderMap) -> Result<String, Refused> {
    let target = headers.get(TARGET).and_then(|value| value.to_str().ok());
    let name = target.and_then(|target| target.strip_prefix(SERVICE));
    let expected = format!("x-amz-target: {SERVICE}ACTION is expected");
    name.map(str::to_owned).ok_or_else(|| Refused::new("UnknownOperationException", expected))
}

fn as_answer(status: StatusCode, body: &impl Serialize) -> Response {
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[utoipa::path(
    post,
    path = "/",
    tag = "user pool",
    operation_id = "userPoolAction",
    security((), ("bearer" = [])),
    summary = "Signs users in and up, and makes them",
    params(("x-amz-target" = String, Header, description = "`AWSCognitoIdentityProviderService.` and the action")),
    // As clients of the service send it, it is application/x-amz-json-1.1, which few tools write.
    request_body(content = Object, content_type = "application/json"),
    responses(
        (status = 200, description = "It is done", body = Object, content_type = "application/x-amz-json-1.1"),
        (status = "4XX", description = "It is refused", body = Told<'_>, content_type = "application/x-amz-json-1.1"),
        (status = "5XX", description = "It cannot be done now", body = Told<'_>, content_type = "application/x-amz-json-1.1"),
    ),
)]
async fn act(
    State(door): State<Arc<UserPool>>,
    Extension(Caller(caller)): Extension<Caller>,
    peer: Option<Extension<Peer>>,
    OriginalUri(uri): OriginalUri,
    request: Request,
) -> Response {
    let peer = peer.map(|Extension(peer)| peer).unwrap_or_default();
    let action = Action::read(&door.ingest, (peer, caller), &uri, request).await;
    let answer = match action {
        Ok(action) => door.answer(action).await,
        Err(refused) => Err(refused),
    };
    match answer {
        Ok(answer) => as_answer(StatusCode::OK, &answer),
        Err(refused) => refused.into_response(),
    }
}

#[utoipa::path(
    get,
    path = "/{pool}/.well-known/jwks.json",
    tag = "user pool",
    operation_id = "userPoolKeys",
    security(()),
    summary = "The public keys that tokens are signed with (RFC 7517)",
    params(("pool" = String, Path, description = "The pool's id")),
    responses(
        (status = 200, description = "The keys", body = Object),
        (status = "4XX", description = "There is no such pool", body = proto::problem::ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = proto::problem::ProblemBody),
    ),
)]
async fn keys(State(door): State<Arc<UserPool>>, Path(pool): Path<String>) -> Result<Response, Refusal> {
    door.check_path(&pool)?;
    Ok(public(&door.pool.published()))
}

#[utoipa::path(
    get,
    path = "/{pool}/.well-known/openid-configuration",
    tag = "user pool",
    operation_id = "userPoolDiscovery",
    security(()),
    summary = "Where the pool's keys are (OpenID Connect Discovery 1.0)",
    params(("pool" = String, Path, description = "The pool's id")),
    responses(
        (status = 200, description = "The document", body = Object),
        (status = "4XX", description = "There is no such pool", body = proto::problem::ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = proto::problem::ProblemBody),
    ),
)]
async fn discovery(State(door): State<Arc<UserPool>>, Path(pool): Path<String>) -> Result<Response, Refusal> {
    door.check_path(&pool)?;
    let issuer = door.pool.issuer();
    Ok(public(&json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["token"],
        "subject_types_supported": ["public"],
    })))
}

/// An answer that may be kept as long as a key is published before it signs.
fn public(body: &Value) -> Response {
    let mut response = Json(body).into_response();
    let kept = format!("public, max-age={}", KEYS_KEPT.as_secs());
    if let Ok(kept) = HeaderValue::from_str(&kept) {
        response.headers_mut().insert(CACHE_CONTROL, kept);
    }
    response
}
