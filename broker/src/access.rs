//! Who may do what: principals, what they may do with a dataset, and the rows of the catalog that say
//! so.
//!
//! A principal is known by its name. Permissions stand for themselves: none holds another, only the owner
//! of a dataset and an administrator hold them all. Nothing here checks a credential; the doors do, and
//! hand on a [`Principal`].

pub mod nonces;
pub mod pool;
pub mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::pool::{Membership, Standing};
use crate::catalog::{Catalog, Row};
use crate::error::{Error, Kind, Result};
use crate::time::Timestamp;

/// The principal that the configured token stands for.
pub const ADMINISTRATOR: &str = "administrator";
/// What the names of principals begin with whose tokens another issuer made.
pub const ISSUED_PREFIX: &str = "oidc:";
/// The dataset of a grant that holds for all datasets.
pub const EVERY_DATASET: &str = "*";
/// The longest name of a principal, in characters.
pub const NAME_CHARACTERS_MAX: usize = 128;

/// Something that one may do with a dataset and its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Find, follow and export its events.
    Read,
    /// Post events.
    Write,
    /// Define, change and delete its streams and what describes it.
    Update,
    /// Say who may do what with it.
    Admin,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Permission; 4] =
        [Permission::Read, Permission::Write, Permission::Update, Permission::Admin];

    /// The word in requests and answers.
    pub fn name(self) -> &'static str {
        match self {
            Permission::Read => "read",
            Permission::Write => "write",
            Permission::Update => "update",
            Permission::Admin => "admin",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who makes a request, once a door has checked it. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal(Arc<Known>);

#[derive(Debug, PartialEq, Eq)]
struct Known {
    name: String,
    is_administrator: bool,
}

impl Principal {
    /// Whoever presents the configured token.
    pub fn administrator() -> Self {
        Self(Arc::new(Known { name: ADMINISTRATOR.to_owned(), is_administrator: true }))
    }

    /// A user of the catalog.
    pub fn of(user: &User) -> Self {
        Self(Arc::new(Known { name: user.name.clone(), is_administrator: user.is_administrator }))
    }

    /// Whoever another issuer's token names; `name` begins with [`ISSUED_PREFIX`].
    pub fn issued(name: &str, is_administrator: bool) -> Self {
        Self(Arc::new(Known { name: name.to_owned(), is_administrator }))
    }

    /// The name that grants and logs know it by.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it may do everything.
    pub fn is_administrator(&self) -> bool {
        self.0.is_administrator
    }

    /// `Forbidden` unless it may do everything.
    pub fn require_administrator(&self) -> Result<()> {
        if self.is_administrator() {
            return Ok(());
        }
        Err(Error::new(Kind::Forbidden, "this needs an administrator"))
    }
}

/// Why a credential is not taken; the words are for whoever presented it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// None was presented.
    Missing,
    /// One of another kind was presented.
    Unsupported,
    /// It was good once.
    Expired(&'static str),
    /// It is not known.
    Wrong(&'static str),
    /// Too much was wrong before: so long none is looked at.
    TooMany(Duration),
    /// It cannot be looked at now.
    Unavailable(&'static str),
}

/// A wait in whole seconds, not a moment too short: what `Retry-After` says.
pub fn retry_after(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// Who makes a request to a surface that answers denials in its own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(pub Result<Principal, Denial>);

/// The address that a request came from; the server puts it among the request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

impl Default for Peer {
    fn default() -> Self {
        Self(Ipv4Addr::UNSPECIFIED.into())
    }
}

/// Text that is kept and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    /// Hides a text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for whoever checks something against it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A person or a program that may hold credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its name, which is also the row's id.
    pub name: String,
    /// Whether it may do everything.
    #[serde(default)]
    pub is_administrator: bool,
    /// Whether none of its credentials is taken.
    #[serde(default)]
    pub is_disabled: bool,
    /// Argon2id of its password, as a PHC string; without one it cannot log in.
    #[serde(default)]
    pub password: Option<Hidden>,
    /// Rises when access tokens that were issued before shall not be taken any more.
    #[serde(default)]
    pub generation: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// What a pool of users knows of it.
    #[serde(default, skip_serializing_if = "Membership::is_plain")]
    pub membership: Membership,
}

impl User {
    /// A user without a password that may do nothing yet.
    pub fn new(name: impl Into<String>, created_at: Timestamp) -> Self {
        let name = name.into();
        let membership = Membership::default();
        Self {
            name,
            is_administrator: false,
            is_disabled: false,
            password: None,
            generation: 0,
            created_at,
            membership,
        }
    }

    /// The same with another password, of its own choice or for good. Tokens that came of the one before are not
    /// taken any more.
    #[must_use]
    pub fn with_password(&self, password: Hidden) -> Self {
        let membership = Membership {
            standing: Standing::Confirmed,
            password_until: None,
            confirmation: None,
            revoked: BTreeMap::new(),
            ..self.membership.clone()
        };
        let generation = self.generation + 1;
        Self { password: Some(password), generation, membership, ..self.clone() }
    }

    /// Whether its password is enough to sign in.
    pub fn is_confirmed(&self) -> bool {
        self.membership.standing == Standing::Confirmed
    }
}

/// An API key. Its secret is not kept, only what tells whether a presented one is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its public part, which is also the row's id.
    pub id: String,
    /// The user that it stands for.
    pub user: String,
    /// SHA-256 of its secret, in hexadecimal. A secret has 256 random bits, so that a slow hash would
    /// add nothing.
    pub secret_sha256: String,
    /// Whether requests may be signed with its secret, which then is one that every process can find again.
    #[serde(default)]
    pub can_sign: bool,
    /// What it is for, in its owner's words.
    #[serde(default)]
    pub label: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is not taken; never where it is not given.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// What one principal may do with one dataset, or with every one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The dataset id, or [`EVERY_DATASET`].
    pub dataset: String,
    /// The principal's name.
    pub principal: String,
    /// Whether it owns the dataset, and so may do everything with it.
    #[serde(default)]
    pub is_owner: bool,
    /// What it may do.
    #[serde(default)]
    pub permissions: BTreeSet<Permission>,
}

impl Grant {
    /// The row's id. Neither part holds a slash.
    pub fn id_of(dataset: &str, principal: &str) -> String {
        format!("{dataset}/{principal}")
    }

    /// Whether it gives the permission.
    pub fn gives(&self, permission: Permission) -> bool {
        self.is_owner || self.permissions.contains(&permission)
    }
}

impl Catalog {
    /// Whether a principal may do something with a dataset.
    pub fn may(&self, principal: &Principal, dataset: &str, permission: Permission) -> bool {
        let gives = |grant: Arc<Row<Grant>>| grant.value.gives(permission);
        principal.is_administrator() || self.grants_of(principal, dataset).any(gives)
    }

    /// Whether a principal may do anything at all with a dataset.
    pub fn may_see(&self, principal: &Principal, dataset: &str) -> bool {
        let is_some = |grant: Arc<Row<Grant>>| grant.value.is_owner || !grant.value.permissions.is_empty();
        principal.is_administrator() || self.grants_of(principal, dataset).any(is_some)
    }

    /// `Forbidden` unless the principal may do that with the dataset.
    pub fn require(&self, principal: &Principal, dataset: &str, permission: Permission) -> Result<()> {
        if self.may(principal, dataset, permission) {
            return Ok(());
        }
        let message = format!("{} has no permission to {permission} on {dataset}", principal.name());
        Err(Error::new(Kind::Forbidden, message))
    }

    fn grants_of(&self, principal: &Principal, dataset: &str) -> impl Iterator<Item = Arc<Row<Grant>>> {
        let of = |dataset: &str| self.row::<Grant>(&Grant::id_of(dataset, principal.name()));
        [dataset, EVERY_DATASET].into_iter().filter_map(of)
    }
}

/// Checks the name of a user: letters, digits and `._@:-`, at most [`NAME_CHARACTERS_MAX`], not
/// [`ADMINISTRATOR`] and not one of another issuer's. An error is one of `name`.
pub fn check_name(name: &str) -> Result<()> {
    check_characters(name)?;
    if name == ADMINISTRATOR {
        return Err(Error::invalid("name", "this is the name of whoever presents the configured token"));
    }
    if name.starts_with(ISSUED_PREFIX) {
        return Err(Error::invalid("name", "these are the names of principals of another issuer"));
    }
    Ok(())
}

/// Checks the name of a principal of another issuer. An error is one of `name`.
pub fn check_issued_name(name: &str) -> Result<()> {
    check_characters(name)?;
    match name.strip_prefix(ISSUED_PREFIX) {
        Some(rest) if !rest.is_empty() => Ok(()),
        _ => Err(Error::invalid("name", format!("these names are {ISSUED_PREFIX}NAME"))),
    }
}

fn check_characters(name: &str) -> Result<()> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._@:+-".contains(c);
    if name.is_empty() || name.len() > NAME_CHARACTERS_MAX || !name.chars().all(is_allowed) {
        let message =
            format!("a name has 1 to {NAME_CHARACTERS_MAX} characters, of letters, digits and . _ @ : + -");
        return Err(Error::invalid("name", message));
    }
    Ok(())
}
