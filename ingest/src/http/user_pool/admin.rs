//! What an administrator does with users: makes them with a password that they have to replace, and gives them
//! another one.

use std::time::Duration;

use broker::Principal;
use broker::access::pool::{Membership, Standing};
use broker::access::{Hidden, User};
use broker::catalog::Row;
use serde_json::{Value, json};

use super::UserPool;
use super::asked::{CreateUser, SetPassword, attributes};
use super::messages::Secret;
use super::refused::Refused;
use super::sign_up::{check_username, password_of};
use crate::auth::pool::{random_text, subject};

/// How long a temporary password is taken.
const TEMPORARY_LIFE: Duration = Duration::from_secs(7 * 24 * 3_600);
const TEMPORARY_BYTES: usize = 15;

/// What becomes of the invitation.
enum Inviting {
    Send,
    SendAgain,
    Suppress,
}

impl UserPool {
    pub(super) async fn create_user(&self, by: &Principal, asked: CreateUser) -> Result<Value, Refused> {
        let CreateUser { user_pool_id, username, temporary_password, user_attributes, message_action } =
            asked;
        self.check_pool(&user_pool_id)?;
        check_username(&username)?;
        let inviting = match message_action.as_deref() {
            None => Inviting::Send,
            Some("RESEND") => Inviting::SendAgain,
            Some("SUPPRESS") => Inviting::Suppress,
            Some(_) => return Err(Refused::parameter("MessageAction", "RESEND or SUPPRESS is expected")),
        };
        let attributes = attributes(user_attributes, false)?;
        let temporary = temporary_password.unwrap_or_else(random_text::<TEMPORARY_BYTES>);
        let password = password_of(&temporary).await?;
        let ends = self.ingest.clock.now() + TEMPORARY_LIFE;
        let user = if let Inviting::SendAgain = inviting {
            let given_again = |user: &User| match user.membership.standing {
                Standing::Temporary => Ok((self.given(user, password.clone()), ())),
                _ => {
                    let message = "the user has signed in: it has no temporary password any more";
                    Err(Refused::new("UnsupportedUserStateException", message))
                }
            };
            self.check_known(&username)?;
            self.change(by.name(), &username, given_again).await?.0
        } else {
            let mut user = User::new(username.as_str(), self.ingest.clock.now());
            user.membership.attributes = attributes;
            self.put_new(by.name(), &self.given(&user, password)).await?;
            self.ingest.user(&username)?
        };
        if !matches!(inviting, Inviting::Suppress) {
            let secret = Secret::Invitation { temporary_password: &temporary };
            self.tell(&user.value, None, secret, ends).await?;
        }
        Ok(json!({ "User": shown(&user) }))
    }

    /// A user with a password that somebody else has given it.
    fn given(&self, user: &User, password: Hidden) -> User {
        let user = user.with_password(password);
        let password_until = Some(self.ingest.clock.now() + TEMPORARY_LIFE);
        let membership = Membership { standing: Standing::Temporary, password_until, ..user.membership };
        User { membership, ..user }
    }

    pub(super) async fn set_password(&self, by: &Principal, asked: SetPassword) -> Result<Value, Refused> {
        let SetPassword { user_pool_id, username, password, permanent } = asked;
        self.check_pool(&user_pool_id)?;
        self.check_known(&username)?;
        let password = password_of(&password).await?;
        let changed = |user: &User| {
            let password = password.clone();
            Ok((if permanent { user.with_password(password) } else { self.given(user, password) }, ()))
        };
        self.change(by.name(), &username, changed).await?;
        Ok(json!({}))
    }

    fn check_pool(&self, id: &str) -> Result<(), Refused> {
        if id == self.pool.id() {
            return Ok(());
        }
        Err(Refused::new("ResourceNotFoundException", format!("User pool {id} does not exist.")))
    }

    fn check_known(&self, name: &str) -> Result<(), Refused> {
        let known = self.ingest.user(name).map(drop);
        known.map_err(|_| Refused::new("UserNotFoundException", "User does not exist."))
    }
}

/// A user as an answer shows it.
fn shown(row: &Row<User>) -> Value {
    let user = &row.value;
    let seconds = |time: broker::Timestamp| time.millis() as f64 / 1e3;
    let own = [("sub".to_owned(), subject(user))];
    let others = user.membership.attributes.clone();
    let attributes = own.into_iter().chain(others).map(|(name, value)| json!({"Name": name, "Value": value}));
    json!({
        "Username": user.name,
        "Attributes": attributes.collect::<Vec<_>>(),
        "UserCreateDate": seconds(user.created_at),
        "UserLastModifiedDate": seconds(row.updated_at),
        "Enabled": !user.is_disabled,
        "UserStatus": match user.membership.standing {
            Standing::Confirmed => "CONFIRMED",
            Standing::Unconfirmed => "UNCONFIRMED",
            Standing::Temporary => "FORCE_CHANGE_PASSWORD",
        },
    })
}
