//! `/api/v1/users`, `/api/v1/keys`, `/api/v1/grants` and `/api/v1/whoami`: who may do what.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use broker::access::{Grant, Key, Peer, User};
use broker::catalog::{Kept, Row};
use broker::{Error, Kind, Permission, Principal, ResultExt as _, Timestamp};
use http::header::{HeaderValue, LOCATION};
use http::{HeaderMap, StatusCode, Uri};
use proto::problem::ProblemBody;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::streams::read;
use super::{Refusal, json, parameters};
use crate::Ingest;
use crate::access::{NewKey, NewPassword, UserChange};

/// Rows of a page whose size was not given.
const LIMIT_DEFAULT: usize = 100;
/// The most rows of a page.
const LIMIT_MAX: usize = 1_000;

type Caller = Extension<Principal>;
type Id = Result<Path<String>, PathRejection>;
pub(super) type Pair = Result<Path<(String, String)>, PathRejection>;

#[derive(Serialize, ToSchema)]
pub(super) struct UserJson<'a> {
    name: &'a str,
    administrator: bool,
    disabled: bool,
    /// Whether it has one.
    password: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    updated_by: &'a str,
}

impl<'a> UserJson<'a> {
    fn of(row: &'a Row<User>) -> Self {
        let User { name, is_administrator, is_disabled, password, created_at, .. } = &row.value;
        Self {
            name,
            administrator: *is_administrator,
            disabled: *is_disabled,
            password: password.is_some(),
            created_at: *created_at,
            updated_at: row.updated_at,
            updated_by: &row.updated_by,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct KeyJson<'a> {
    id: &'a str,
    /// Only where it was just made.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    user: &'a str,
    label: &'a str,
    /// Whether requests may be signed with it.
    hawk: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    created_by: &'a str,
}

impl<'a> KeyJson<'a> {
    fn of(row: &'a Row<Key>, key: Option<&'a str>) -> Self {
        let Key { id, user, label, can_sign, created_at, expires_at, .. } = &row.value;
        let (hawk, created_at, expires_at) = (*can_sign, *created_at, *expires_at);
        Self { id, key, user, label, hawk, created_at, expires_at, created_by: &row.updated_by }
    }
}

#[derive(Serialize, ToSchema)]
pub(super) struct GrantJson<'a> {
    dataset: &'a str,
    principal: &'a str,
    owner: bool,
    #[schema(value_type = Vec<Permission>)]
    permissions: &'a BTreeSet<Permission>,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    updated_by: &'a str,
}

impl<'a> GrantJson<'a> {
    fn of(row: &'a Row<Grant>) -> Self {
        let Grant { dataset, principal, is_owner, permissions } = &row.value;
        let (updated_at, updated_by) = (row.updated_at, row.updated_by.as_str());
        Self { dataset, principal, owner: *is_owner, permissions, updated_at, updated_by }
    }
}

#[utoipa::path(
    get,
    path = "/api/v1/whoami",
    tag = "access",
    operation_id = "whoami",
    summary = "Says who calls",
    responses(
        (status = 200, description = "Who the credential stands for", body = inline(Known<'_>)),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn whoami(Extension(caller): Caller) -> Result<Response, Refusal> {
    Ok(json(StatusCode::OK, &Known { name: caller.name(), administrator: caller.is_administrator() })?)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserDraft {
    name: String,
    #[serde(default)]
    administrator: bool,
}

#[utoipa::path(
    post,
    path = "/api/v1/users",
    tag = "access",
    operation_id = "createUser",
    summary = "Creates a user",
    request_body = UserDraft,
    responses(
        (status = 201, description = "It is there", body = UserJson<'_>, headers(("Location" = String, description = "Its path"))),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn create_user(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    caller.require_administrator()?;
    let UserDraft { name, administrator } = read(&ingest, &headers, body).await?;
    let row = ingest.create_user(&caller, &name, administrator).await?;
    created(&format!("/api/v1/users/{name}"), &UserJson::of(&row))
}

#[utoipa::path(
    get,
    path = "/api/v1/users",
    tag = "access",
    operation_id = "listUsers",
    summary = "Lists users",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 1,000, 100 where it is not given", minimum = 1, maximum = 1000),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of them", body = inline(Users<'_>)),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn list_users(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Caller,
    uri: Uri,
) -> Result<Response, Refusal> {
    caller.require_administrator()?;
    let page = Page::<User>::read(&ingest, &uri, &[], |_, _| true)?;
    let users = page.rows.iter().map(|row| UserJson::of(row)).collect();
    Ok(json(StatusCode::OK, &Users { users, next: page.next() })?)
}

#[utoipa::path(
    get,
    path = "/api/v1/users/{name}",
    tag = "access",
    operation_id = "showUser",
    summary = "Shows a user",
    params(
        ("name" = String, Path, description = "The user's name"),
    ),
    responses(
        (status = 200, description = "As it is now", body = UserJson<'_>),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn show_user(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Caller,
    path: Id,
) -> Result<Response, Refusal> {
    let name = id(path)?;
    if name != caller.name() {
        caller.require_administrator()?;
    }
    Ok(json(StatusCode::OK, &UserJson::of(&*ingest.user(&name)?))?)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserEdit {
    administrator: Option<bool>,
    disabled: Option<bool>,
}

#[utoipa::path(
    patch,
    path = "/api/v1/users/{name}",
    tag = "access",
    operation_id = "changeUser",
    summary = "Changes a user",
    params(
        ("name" = String, Path, description = "The user's name"),
    ),
    request_body = UserEdit,
    responses(
        (status = 200, description = "As it is now", body = UserJson<'_>),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn change_user(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Caller,
    path: Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    caller.require_administrator()?;
    let name = id(path)?;
    let UserEdit { administrator, disabled } = read(&ingest, &headers, body).await?;
    let change = UserChange { is_administrator: administrator, is_disabled: disabled };
    Ok(json(StatusCode::OK, &UserJson::of(&*ingest.change_user(&caller, &name, change).await?))?)
}

#[utoipa::path(
    put,
    path = "/api/v1/users/{name}/password",
    tag = "access",
    operation_id = "setPassword",
    summary = "Gives a user a password",
    params(
        ("name" = String, Path, description = "The user's name"),
    ),
    request_body = NewPassword,
    responses(
        (status = 204, description = "It is the password from now on"),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn set_password(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Caller,
    path: Id,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let (head, body) = request.into_parts();
    let name = id(path)?;
    let new: NewPassword = read(&ingest, &head.headers, body).await?;
    let peer = head.extensions.get::<Peer>().copied().unwrap_or_default();
    ingest.set_password(&caller, &name, new, peer).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    delete,
    path = "/api/v1/users/{name}",
    tag = "access",
    operation_id = "deleteUser",
    summary = "Deletes a user with its keys and grants",
    params(
        ("name" = String, Path, description = "The user's name"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn delete_user(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Caller,
    path: Id,
) -> Result<StatusCode, Refusal> {
    ingest.delete_user(&caller, &id(path)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyDraft {
    user: Option<String>,
    #[serde(default)]
    label: String,
    expires_in_seconds: Option<u64>,
    #[serde(default)]
    hawk: bool,
}

#[utoipa::path(
    post,
    path = "/api/v1/keys",
    tag = "access",
    operation_id = "createKey",
    summary = "Creates an API key, which is shown this once",
    request_body = KeyDraft,
    responses(
        (status = 201, description = "It is there", body = KeyJson<'_>, headers(("Location" = String, description = "Its path"))),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn create_key(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let KeyDraft { user, label, expires_in_seconds, hawk } = read(&ingest, &headers, body).await?;
    let life = expires_in_seconds.map(Duration::from_secs);
    let new = NewKey { user, label, can_sign: hawk, life };
    let (made, row) = ingest.create_key(&caller, new).await?;
    created(&format!("/api/v1/keys/{}", made.id), &KeyJson::of(&row, Some(&made.key)))
}

#[utoipa::path(
    get,
    path = "/api/v1/keys",
    tag = "access",
    operation_id = "listKeys",
    summary = "Lists API keys",
    params(
        ("user" = Option<String>, Query, description = "Those of one user"),
        ("limit" = Option<u32>, Query, description = "1 to 1,000, 100 where it is not given", minimum = 1, maximum = 1000),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of them", body = inline(Keys<'_>)),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn list_keys(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Caller,
    uri: Uri,
) -> Result<Response, Refusal> {
    let of_user = |key: &Row<Key>, asked: &Asked| {
        let user = asked.get("user");
        let is_seen = caller.is_administrator() || key.value.user == caller.name();
        is_seen && user.is_none_or(|user| key.value.user == *user)
    };
    let page = Page::<Key>::read(&ingest, &uri, &["user"], of_user)?;
    let keys = page.rows.iter().map(|row| KeyJson::of(row, None)).collect();
    Ok(json(StatusCode::OK, &Keys { keys, next: page.next() })?)
}

#[utoipa::path(
    delete,
    path = "/api/v1/keys/{id}",
    tag = "access",
    operation_id = "deleteKey",
    summary = "Deletes an API key",
    params(
        ("id" = String, Path, description = "The part of the key between its two dots"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn delete_key(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Caller,
    path: Id,
) -> Result<StatusCode, Refusal> {
    ingest.delete_key(&caller, &id(path)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantDraft {
    #[serde(default)]
    owner: bool,
    #[serde(default)]
    #[schema(value_type = Vec<Permission>)]
    permissions: BTreeSet<Permission>,
}

#[utoipa::path(
    put,
    path = "/api/v1/grants/{dataset}/{principal}",
    tag = "access",
    operation_id = "setGrant",
    summary = "Says what a principal may do with a dataset",
    params(
        ("dataset" = String, Path, description = "The dataset id, or * for every one"),
        ("principal" = String, Path, description = "A user, or oidc:NAME"),
    ),
    request_body = GrantDraft,
    responses(
        (status = 200, description = "As it is now", body = GrantJson<'_>),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn set_grant(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Caller,
    path: Pair,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let (dataset, user) = pair(path)?;
    let GrantDraft { owner, permissions } = read(&ingest, &headers, body).await?;
    let row = ingest.set_grant(&caller, (&dataset, &user), (owner, permissions)).await?;
    Ok(json(StatusCode::OK, &GrantJson::of(&row))?)
}

/// What everybody has on the datasets that the caller may give grants on, and the caller's own.
#[utoipa::path(
    get,
    path = "/api/v1/grants",
    tag = "access",
    operation_id = "listGrants",
    summary = "Lists grants",
    params(
        ("dataset" = Option<String>, Query, description = "Those on one dataset"),
        ("principal" = Option<String>, Query, description = "Those of one principal"),
        ("limit" = Option<u32>, Query, description = "1 to 1,000, 100 where it is not given", minimum = 1, maximum = 1000),
        ("after" = Option<String>, Query, description = "`next` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of them", body = inline(Grants<'_>)),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn list_grants(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Caller,
    uri: Uri,
) -> Result<Response, Refusal> {
    let is_wanted = |grant: &Row<Grant>, asked: &Asked| {
        let Grant { dataset, principal, .. } = &grant.value;
        let is_seen = principal == caller.name() || ingest.catalog.may(&caller, dataset, Permission::Admin);
        is_seen
            && asked.get("dataset").is_none_or(|asked| asked == dataset)
            && asked.get("principal").is_none_or(|asked| asked == principal)
    };
    let page = Page::<Grant>::read(&ingest, &uri, &["dataset", "principal"], is_wanted)?;
    let grants = page.rows.iter().map(|row| GrantJson::of(row)).collect();
    Ok(json(StatusCode::OK, &Grants { grants, next: page.next() })?)
}

#[utoipa::path(
    delete,
    path = "/api/v1/grants/{dataset}/{principal}",
    tag = "access",
    operation_id = "deleteGrant",
    summary = "Takes away what a principal may do with a dataset",
    params(
        ("dataset" = String, Path, description = "The dataset id, or * for every one"),
        ("principal" = String, Path, description = "A user, or oidc:NAME"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn delete_grant(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Caller,
    path: Pair,
) -> Result<StatusCode, Refusal> {
    let (dataset, user) = pair(path)?;
    ingest.delete_grant(&caller, &dataset, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn id(path: Id) -> Result<String, Error> {
    let Path(id) = path.map_err(|error| Error::invalid("path", error.body_text()))?;
    Ok(id)
}

pub(super) fn pair(path: Pair) -> Result<(String, String), Error> {
    let Path(pair) = path.map_err(|error| Error::invalid("path", error.body_text()))?;
    Ok(pair)
}

pub(super) fn created(location: &str, body: &impl Serialize) -> Result<Response, Refusal> {
    let location = HeaderValue::try_from(location).or_error(Kind::Internal, "write the location")?;
    let mut response = json(StatusCode::CREATED, body)?;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

#[derive(Serialize, ToSchema)]
pub(super) struct Known<'a> {
    name: &'a str,
    administrator: bool,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Users<'a> {
    users: Vec<UserJson<'a>>,
    next: Option<&'a str>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Keys<'a> {
    keys: Vec<KeyJson<'a>>,
    next: Option<&'a str>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Grants<'a> {
    grants: Vec<GrantJson<'a>>,
    next: Option<&'a str>,
}

pub(super) type Asked = std::collections::BTreeMap<String, String>;

/// Some rows by id.
pub(super) struct Page<T> {
    pub(super) rows: Vec<Arc<Row<T>>>,
    is_last: bool,
}

impl<T: Kept> Page<T> {
    /// Reads `limit` and `after` beside the parameters that `is_wanted` knows.
    pub(super) fn read(
        ingest: &Ingest,
        uri: &Uri,
        more: &[&str],
        is_wanted: impl Fn(&Row<T>, &Asked) -> bool,
    ) -> Result<Self, Error> {
        let known: Vec<&str> = more.iter().copied().chain(["limit", "after"]).collect();
        let asked = parameters(uri, &known)?;
        let limit = asked.get("limit").map_or(Ok(LIMIT_DEFAULT), |text| text.parse());
        let limit = limit.ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        let limit =
            limit.ok_or_else(|| Error::invalid("limit", format!("a page has 1 to {LIMIT_MAX} rows")))?;
        let after = asked.get("after").map(String::as_str);
        let mut rows = ingest.catalog.rows_where::<T>("", after, limit + 1, |row| is_wanted(row, &asked));
        let is_last = rows.len() <= limit;
        rows.truncate(limit);
        Ok(Self { rows, is_last })
    }

    /// Where the next page begins, as `after`; none if this is the last one.
    pub(super) fn next(&self) -> Option<&str> {
        self.rows.last().filter(|_| !self.is_last).map(|row| row.id.as_str())
    }
}
