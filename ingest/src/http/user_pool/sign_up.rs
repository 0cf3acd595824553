//! Who signs up by itself, and shows that it was reached: by a code, of which a message tells it.

use std::time::Duration;

use broker::access::pool::{Confirmation, Membership, Standing};
use broker::access::{Hidden, Peer, User, check_name};
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use super::UserPool;
use super::asked::{ConfirmSignUp, ResendCode, SignUp, attributes};
use super::messages::Secret;
use super::refused::Refused;
use crate::auth::passwords;
use crate::auth::pool::subject;

const CODE_DIGITS: usize = 6;
/// How long a code is taken.
const CODE_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// How often another code may be shown instead of the one that was sent.
const CODE_TRIES_MAX: u32 = 5;
/// How long one waits until another code is sent.
const CODE_PAUSE: Duration = Duration::from_secs(60);
/// The codes that are sent to a user in [`CODES_WITHIN`].
const CODES_MAX: u32 = 5;
const CODES_WITHIN: Duration = Duration::from_secs(24 * 3_600);
/// The users that have not shown their code yet.
const UNCONFIRMED_MAX: usize = 10_000;
/// How long one has until somebody else may sign up with its name.
const UNCONFIRMED_LIFE: Duration = Duration::from_secs(7 * 24 * 3_600);

const LIMIT: &str = "LimitExceededException";
const LATER: &str = "Attempt limit exceeded, please try after some time.";

/// What becomes of a code that is shown.
enum Shown {
    Right,
    Wrong,
}

impl UserPool {
    pub(super) async fn sign_up(&self, asked: SignUp, peer: Peer) -> Result<Value, Refused> {
        let SignUp { client_id, secret_hash, username, password, user_attributes } = asked;
        self.check_client(&client_id)?;
        Self::check_no_secret(&client_id, secret_hash.as_deref())?;
        if !self.settings.sign_up {
            let message = "SignUp is not permitted for this user pool";
            return Err(Refused::new("NotAuthorizedException", message));
        }
        check_username(&username)?;
        let attributes = attributes(user_attributes, true)?;
        let credentials = &self.ingest.credentials;
        credentials.may_try(peer)?;
        // Whoever signs up often has to wait, whether it may or not.
        credentials.count_try("sign-up", peer);
        self.check_room()?;
        self.check_free(&username)?;
        let password = password_of(&password).await?;
        let (now, code) = (self.ingest.clock.now(), random_code());
        let mut user = User { password: Some(password), ..User::new(username.as_str(), now) };
        user.membership = Membership { standing: Standing::Unconfirmed, attributes, ..Membership::default() };
        user.membership.confirmation = Some(self.confirmation(&user, &code)?);
        self.put_new(&username, &user).await?;
        let secret = Secret::Confirmation { code: &code };
        self.tell(&user, Some(&client_id), secret, now + CODE_LIFE).await?;
        let mut answer = json!({ "UserConfirmed": false, "UserSub": subject(&user) });
        answer["CodeDeliveryDetails"] = delivery(&user);
        Ok(answer)
    }

    /// Refuses a name that somebody has.
    fn check_free(&self, name: &str) -> Result<(), Refused> {
        let user = self.ingest.catalog.row::<User>(name);
        if user.is_some_and(|user| !self.is_forgotten(&user.value)) {
            return Err(Refused::new("UsernameExistsException", "User already exists"));
        }
        Ok(())
    }

    /// Refuses more users than may be unconfirmed at once.
    fn check_room(&self) -> Result<(), Refused> {
        let is_waiting = |user: &User| user.membership.standing == Standing::Unconfirmed;
        let waiting = self.ingest.catalog.rows_where::<User>("", None, UNCONFIRMED_MAX, |user| {
            is_waiting(&user.value) && !self.is_forgotten(&user.value)
        });
        if waiting.len() >= UNCONFIRMED_MAX {
            let message = format!("{UNCONFIRMED_MAX} users are not confirmed yet");
            return Err(Refused::new(LIMIT, message));
        }
        Ok(())
    }

    /// Whether a user signed up, was not heard of again, and may be forgotten.
    fn is_forgotten(&self, user: &User) -> bool {
        user.membership.standing == Standing::Unconfirmed
            && user.created_at + UNCONFIRMED_LIFE <= self.ingest.clock.now()
    }

    /// Writes a user that was not there.
    pub(super) async fn put_new(&self, by: &str, user: &User) -> Result<(), Refused> {
        self.check_free(&user.name)?;
        let (catalog, name) = (&self.ingest.catalog, user.name.as_str());
        let mut writes = catalog.writes(by);
        writes.set(name, catalog.version::<User>(name), user)?;
        match catalog.write(writes).await {
            Err(error) if error.kind() == broker::Kind::Conflict => {
                Err(Refused::new("UsernameExistsException", "User already exists"))
            }
            written => Ok(written?),
        }
    }

    fn confirmation(&self, user: &User, code: &str) -> Result<Confirmation, Refused> {
        let now = self.ingest.clock.now();
        let code_hmac = self.pool.code_hmac(user, code)?;
        let before = user.membership.confirmation.as_ref();
        let counted = before.filter(|before| now.since(before.counted_from) < CODES_WITHIN);
        let (sent, counted_from) = counted.map_or((0, now), |before| (before.sent, before.counted_from));
        Ok(Confirmation { code_hmac, sent_at: now, tries: 0, sent: sent + 1, counted_from })
    }

    pub(super) async fn resend_code(&self, asked: ResendCode, peer: Peer) -> Result<Value, Refused> {
        let ResendCode { client_id, secret_hash, username } = asked;
        self.check_client(&client_id)?;
        Self::check_no_secret(&client_id, secret_hash.as_deref())?;
        let credentials = &self.ingest.credentials;
        credentials.may_try(peer)?;
        credentials.count_try("confirmation code", peer);
        self.waiting(&username)?;
        let code = random_code();
        let renewed = |user: &User| {
            let now = self.ingest.clock.now();
            if user.membership.standing != Standing::Unconfirmed {
                return Err(Refused::parameter("Username", "User is already confirmed."));
            }
            let confirmation = self.confirmation(user, &code)?;
            let before = user.membership.confirmation.as_ref();
            let is_soon = before.is_some_and(|before| now.since(before.sent_at) < CODE_PAUSE);
            if is_soon || confirmation.sent > CODES_MAX {
                return Err(Refused::new(LIMIT, LATER));
            }
            let mut user = user.clone();
            user.membership.confirmation = Some(confirmation);
            Ok((user, now + CODE_LIFE))
        };
        let (user, ends) = self.change(&username, &username, renewed).await?;
        self.tell(&user.value, Some(&client_id), Secret::Confirmation { code: &code }, ends).await?;
        Ok(json!({ "CodeDeliveryDetails": delivery(&user.value) }))
    }

    /// Refuses who is not waiting for a code.
    fn waiting(&self, name: &str) -> Result<(), Refused> {
        let user = self.ingest.catalog.row::<User>(name).filter(|user| user.value.password.is_some());
        match user.map(|user| user.value.membership.standing) {
            Some(Standing::Unconfirmed) => Ok(()),
            Some(_) => Err(Refused::parameter("Username", "User is already confirmed.")),
            None => Err(Refused::new("UserNotFoundException", "Username/client id combination not found.")),
        }
    }

    pub(super) async fn confirm_sign_up(&self, asked: ConfirmSignUp, peer: Peer) -> Result<Value, Refused> {
        let ConfirmSignUp { client_id, secret_hash, username, confirmation_code } = asked;
        self.check_client(&client_id)?;
        Self::check_no_secret(&client_id, secret_hash.as_deref())?;
        let credentials = &self.ingest.credentials;
        credentials.may_try(peer)?;
        if self.ingest.catalog.row::<User>(&username).is_none() {
            credentials.count_try("confirmation code", peer);
            return Err(Refused::new("UserNotFoundException", "Username/client id combination not found."));
        }
        let shown = |user: &User| self.shown(user, &confirmation_code);
        let (_, shown) = self.change(&username, &username, shown).await?;
        match shown {
            Shown::Right => Ok(json!({})),
            Shown::Wrong => {
                credentials.count_try("confirmation code", peer);
                let message = "Invalid verification code provided, please try again.";
                Err(Refused::new("CodeMismatchException", message))
            }
        }
    }

    /// A user that has shown a code. One that is wrong is counted.
    fn shown(&self, user: &User, code: &str) -> Result<(User, Shown), Refused> {
        let Standing::Unconfirmed = user.membership.standing else {
            let message = "User cannot be confirmed. Current status is CONFIRMED";
            return Err(Refused::new("NotAuthorizedException", message));
        };
        let old =
            || Refused::new("ExpiredCodeException", "Invalid code provided, please request a code again.");
        let sent = user.membership.confirmation.clone().ok_or_else(old)?;
        if self.ingest.clock.now().since(sent.sent_at) >= CODE_LIFE {
            return Err(old());
        }
        if sent.tries >= CODE_TRIES_MAX {
            return Err(Refused::new("TooManyFailedAttemptsException", LATER));
        }
        let (mut user, hmac) = (user.clone(), self.pool.code_hmac(user, code)?);
        let membership = &mut user.membership;
        if !bool::from(hmac.as_bytes().ct_eq(sent.code_hmac.as_bytes())) {
            membership.confirmation = Some(Confirmation { tries: sent.tries + 1, ..sent });
            return Ok((user, Shown::Wrong));
        }
        (membership.standing, membership.confirmation) = (Standing::Confirmed, None);
        if membership.attributes.contains_key("email") {
            membership.attributes.insert("email_verified".to_owned(), "true".to_owned());
        }
        Ok((user, Shown::Right))
    }
}

/// What is kept of a password that somebody chose.
pub(super) async fn password_of(password: &str) -> Result<Hidden, Refused> {
    passwords::hash(password.to_owned()).await.map_err(|error| {
        if error.kind() == broker::Kind::Invalid {
            let message = format!("Password did not conform with policy: {}", error.message());
            return Refused::new("InvalidPasswordException", message);
        }
        error.into()
    })
}

pub(super) fn check_username(name: &str) -> Result<(), Refused> {
    check_name(name).map_err(|error| Refused::parameter("Username", error.message()))
}

/// Where a code goes: by mail, as far as is known here.
fn delivery(user: &User) -> Value {
    let mail = user.membership.attributes.get("email").map(String::as_str).unwrap_or_default();
    let first = |text: &str| text.chars().next().map(String::from).unwrap_or_default();
    let shown = match mail.split_once('@') {
        Some((name, host)) => format!("{}***@{}***", first(name), first(host)),
        None => "***".to_owned(),
    };
    json!({ "AttributeName": "email", "DeliveryMedium": "EMAIL", "Destination": shown })
}

fn random_code() -> String {
    let codes = 10_u32.pow(CODE_DIGITS as u32);
    format!("{:0CODE_DIGITS$}", rand::random_range(0..codes))
}
