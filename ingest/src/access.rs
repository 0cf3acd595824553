//! Users, their API keys, and what they may do: the changes that the doors offer, each checked against
//! who asks for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use broker::access::{EVERY_DATASET, Grant, ISSUED_PREFIX, Key, Peer, User, check_issued_name, check_name};
use broker::catalog::{Kept, Row, Stream};
use broker::{Error, Kind, Permission, Principal, Result, StreamName, Timestamp};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::Ingest;
use crate::auth::keys::Made;
use crate::auth::passwords;

/// The longest label of a key, in characters.
pub(crate) const LABEL_CHARACTERS_MAX: usize = 256;
/// The longest life of a key: ten years.
const LIFE_MAX: Duration = Duration::from_secs(3_650 * 24 * 3_600);
/// More rows than any shelf has.
const ALL: usize = usize::MAX;

/// What changes of a user; what is not given stays.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UserChange {
    pub(crate) is_administrator: Option<bool>,
    pub(crate) is_disabled: Option<bool>,
}

/// A password that a user is to have.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPassword {
    password: String,
    /// What it is now; administrators need not know it.
    current: Option<String>,
}

/// What a key is to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewKey {
    /// Whoever asks, where it is not given.
    pub(crate) user: Option<String>,
    pub(crate) label: String,
    /// Whether requests may be signed with it.
    pub(crate) can_sign: bool,
    /// For ever, where it is not given.
    pub(crate) life: Option<Duration>,
}

impl Ingest {
    /// A stream, for what a principal may do with its dataset. Who may not does not learn whether it is
    /// there.
    pub(crate) fn stream(
        &self,
        caller: &Principal,
        name: &StreamName,
        permission: Permission,
    ) -> Result<Arc<Stream>> {
        self.catalog.require(caller, name.dataset(), permission)?;
        self.catalog.get(name)
    }

    /// A stream, for who may do anything at all with its dataset.
    pub(crate) fn visible_stream(&self, caller: &Principal, name: &StreamName) -> Result<Arc<Stream>> {
        if self.catalog.may_see(caller, name.dataset()) {
            return self.catalog.get(name);
        }
        let message = format!("{} has no permission on {}", caller.name(), name.dataset());
        Err(Error::new(Kind::Forbidden, message))
    }

    /// The streams whose datasets a principal may do anything at all with.
    pub(crate) fn visible_streams(&self, caller: &Principal) -> Vec<Arc<Stream>> {
        let mut streams = self.catalog.list();
        streams.retain(|stream| self.catalog.may_see(caller, stream.name().dataset()));
        streams
    }

    /// Makes a user. `Conflict` if there is one of that name.
    pub(crate) async fn create_user(
        &self,
        caller: &Principal,
        name: &str,
        is_administrator: bool,
    ) -> Result<Arc<Row<User>>> {
        caller.require_administrator()?;
        check_name(name)?;
        if self.catalog.row::<User>(name).is_some() {
            return Err(Error::new(Kind::Conflict, format!("user {name} already exists")).with_field("name"));
        }
        let created_at = self.clock.now();
        let user = User { is_administrator, ..User::new(name, created_at) };
        self.set(caller, name, &user).await
    }

    /// Changes a user.
    pub(crate) async fn change_user(
        &self,
        caller: &Principal,
        name: &str,
        change: UserChange,
    ) -> Result<Arc<Row<User>>> {
        caller.require_administrator()?;
        let before = self.user(name)?;
        let is_disabled = change.is_disabled.unwrap_or(before.value.is_disabled);
        let user = User {
            is_administrator: change.is_administrator.unwrap_or(before.value.is_administrator),
            is_disabled,
            // Who was disabled logs in again.
            generation: before.value.generation + u64::from(is_disabled),
            ..before.value.clone()
        };
        let mut writes = self.catalog.writes(caller.name());
        writes.set(name, before.version, &user)?;
        self.catalog.write(writes).await?;
        self.user(name)
    }

    /// Gives a user a password, which ends the tokens that it got with the one before. Who is no
    /// administrator changes only its own, and says what it was.
    pub(crate) async fn set_password(
        &self,
        caller: &Principal,
        name: &str,
        new: NewPassword,
        peer: Peer,
    ) -> Result<()> {
        if !caller.is_administrator() {
            if name != caller.name() {
                caller.require_administrator()?;
            }
            let current = new.current.ok_or_else(|| Error::invalid("current", "the field is missing"))?;
            self.credentials.log_in(name, current, peer).await.map_err(|login| login.of_field("current"))?;
        }
        let before = self.user(name)?;
        let user = before.value.with_password(passwords::hash(new.password).await?);
        let mut writes = self.catalog.writes(caller.name());
        writes.set(name, before.version, &user)?;
        self.catalog.write(writes).await
    }

    /// Takes a user away, with its keys and with what it may do.
    pub(crate) async fn delete_user(&self, caller: &Principal, name: &str) -> Result<()> {
        caller.require_administrator()?;
        let user = self.user(name)?;
        let mut writes = self.catalog.writes(caller.name());
        writes.remove::<User>(name, user.version);
        for key in self.catalog.rows_where::<Key>("", None, ALL, |key| key.value.user == name) {
            writes.remove::<Key>(&key.id, key.version);
        }
        for grant in self.catalog.rows_where::<Grant>("", None, ALL, |grant| grant.value.principal == name) {
            writes.remove::<Grant>(&grant.id, grant.version);
        }
        self.catalog.write(writes).await
    }

    /// A user; `NotFound` if there is none of that name.
    pub(crate) fn user(&self, name: &str) -> Result<Arc<Row<User>>> {
        let missing = || Error::not_found(format!("user {name} does not exist")).with_field("user");
        self.catalog.row::<User>(name).ok_or_else(missing)
    }

    /// Makes a key, and answers what has to be shown once. Everybody may make some for itself.
    pub(crate) async fn create_key(&self, caller: &Principal, new: NewKey) -> Result<(Made, Arc<Row<Key>>)> {
        let user = new.user.as_deref().unwrap_or(caller.name());
        if user != caller.name() {
            caller.require_administrator()?;
        }
        self.user(user)?;
        if new.label.chars().count() > LABEL_CHARACTERS_MAX {
            let message = format!("a label has at most {LABEL_CHARACTERS_MAX} characters");
            return Err(Error::invalid("label", message));
        }
        let created_at = self.clock.now();
        let expires_at = new.life.map(|life| end_of(life, created_at)).transpose()?;
        let made = if new.can_sign { self.signing_key()? } else { Made::random() };
        let key = Key {
            id: made.id.clone(),
            user: user.to_owned(),
            secret_sha256: made.secret_sha256.clone(),
            can_sign: new.can_sign,
            label: new.label,
            created_at,
            expires_at,
        };
        let row = self.set(caller, &made.id, &key).await?;
        Ok((made, row))
    }

    fn signing_key(&self) -> Result<Made> {
        let id = Made::random().id;
        let secret = self.credentials.signing_secret(&id);
        let secret = secret.ok_or_else(|| Error::internal("make a key to sign with: there is no token"))?;
        Ok(Made::of(id, &secret))
    }

    /// Takes a key away: from now on it is not known any more. Everybody may do so with its own.
    pub(crate) async fn delete_key(&self, caller: &Principal, id: &str) -> Result<()> {
        let key = self.catalog.row::<Key>(id);
        let is_own = key.as_ref().is_some_and(|key| key.value.user == caller.name());
        if !is_own {
            caller.require_administrator()?;
        }
        let key = key.ok_or_else(|| Error::not_found(format!("key {id} does not exist")).with_field("id"))?;
        let mut writes = self.catalog.writes(caller.name());
        writes.remove::<Key>(id, key.version);
        self.catalog.write(writes).await
    }

    /// Says what a user may do with a dataset, instead of what it might before. Only an owner makes
    /// owners.
    pub(crate) async fn set_grant(
        &self,
        caller: &Principal,
        (dataset, user): (&str, &str),
        (is_owner, permissions): (bool, BTreeSet<Permission>),
    ) -> Result<Arc<Row<Grant>>> {
        self.may_grant(caller, dataset)?;
        let before = self.catalog.row::<Grant>(&Grant::id_of(dataset, user));
        if is_owner || before.is_some_and(|before| before.value.is_owner) {
            self.may_make_owners(caller, dataset)?;
        }
        if user.starts_with(ISSUED_PREFIX) {
            check_issued_name(user).map_err(|error| error.with_field("principal"))?;
        } else {
            self.user(user).map_err(|error| error.with_field("principal"))?;
        }
        let (dataset, principal) = (dataset.to_owned(), user.to_owned());
        let id = Grant::id_of(&dataset, &principal);
        let grant = Grant { dataset, principal, is_owner, permissions };
        self.set(caller, &id, &grant).await
    }

    /// Takes away what a user may do with a dataset.
    pub(crate) async fn delete_grant(&self, caller: &Principal, dataset: &str, user: &str) -> Result<()> {
        self.may_grant(caller, dataset)?;
        let id = Grant::id_of(dataset, user);
        let before = self.catalog.row::<Grant>(&id);
        let before = before.ok_or_else(|| Error::not_found(format!("{user} has no grant on {dataset}")))?;
        if before.value.is_owner {
            self.may_make_owners(caller, dataset)?;
        }
        let mut writes = self.catalog.writes(caller.name());
        writes.remove::<Grant>(id, before.version);
        self.catalog.write(writes).await
    }

    fn may_grant(&self, caller: &Principal, dataset: &str) -> Result<()> {
        if dataset == EVERY_DATASET {
            return caller.require_administrator();
        }
        StreamName::new(dataset, "1")?;
        self.catalog.require(caller, dataset, Permission::Admin)
    }

    fn may_make_owners(&self, caller: &Principal, dataset: &str) -> Result<()> {
        let own = self.catalog.row::<Grant>(&Grant::id_of(dataset, caller.name()));
        if own.is_some_and(|own| own.value.is_owner) {
            return Ok(());
        }
        caller.require_administrator()
    }

    /// Sets a row whatever it was before; of two at the same time one gets `Conflict`.
    pub(crate) async fn set<T: Kept>(&self, caller: &Principal, id: &str, value: &T) -> Result<Arc<Row<T>>> {
        let mut writes = self.catalog.writes(caller.name());
        writes.set(id, self.catalog.version::<T>(id), value)?;
        self.catalog.write(writes).await?;
        self.catalog.row::<T>(id).ok_or_else(|| Error::new(Kind::Conflict, format!("{id} is gone again")))
    }
}

fn end_of(life: Duration, from: Timestamp) -> Result<Timestamp> {
    let bounds = Duration::from_secs(1)..=LIFE_MAX;
    let micros = i64::try_from(life.as_micros()).ok().filter(|_| bounds.contains(&life));
    let end = micros.and_then(|micros| Timestamp::from_micros(from.micros() + micros));
    end.ok_or_else(|| {
        let message = format!("a key lives for 1 to {} seconds", LIFE_MAX.as_secs());
        Error::invalid("expires_in_seconds", message)
    })
}
