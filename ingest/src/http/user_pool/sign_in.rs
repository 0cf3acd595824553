//! Who signs in: with a password, with a refresh token, or with a new password in place of one that somebody else has
//! given. And who takes back what came of a sign-in.

use std::time::Duration;

use broker::Timestamp;
use broker::access::pool::Standing;
use broker::access::{Denial, Peer, User};
use broker::catalog::Row;
use serde_json::{Map, Value, json};

use super::asked::{Attribute, InitiateAuth, Respond, Revoke, attributes, parameter};
use super::refused::Refused;
use super::{UserPool, sign_up};
use crate::auth::pool::{SignIn, Use};

const NEW_PASSWORD: &str = "NEW_PASSWORD_REQUIRED";
/// How long a user has to choose another password.
const SESSION_LIFE: Duration = Duration::from_secs(180);
/// The sign-ins of a user that are remembered as revoked; one more ends them all.
const REVOKED_MAX: usize = 100;

impl UserPool {
    pub(super) async fn initiate_auth(&self, asked: InitiateAuth, peer: Peer) -> Result<Value, Refused> {
        let InitiateAuth { auth_flow, auth_parameters, client_id } = asked;
        self.check_client(&client_id)?;
        Self::check_no_secret(&client_id, auth_parameters.get("SECRET_HASH").map(String::as_str))?;
        match auth_flow.as_str() {
            "USER_PASSWORD_AUTH" => {
                let name = parameter(&auth_parameters, "USERNAME")?;
                let password = parameter(&auth_parameters, "PASSWORD")?;
                self.with_password(&client_id, (name, password), peer).await
            }
            "REFRESH_TOKEN_AUTH" | "REFRESH_TOKEN" => {
                self.refresh(&client_id, parameter(&auth_parameters, "REFRESH_TOKEN")?, peer).await
            }
            _ => Err(Refused::parameter("AuthFlow", "USER_PASSWORD_AUTH or REFRESH_TOKEN_AUTH is expected")),
        }
    }

    async fn with_password(
        &self,
        client: &str,
        (name, password): (&str, &str),
        peer: Peer,
    ) -> Result<Value, Refused> {
        let checked = self.ingest.credentials.check_password(name, password.to_owned(), peer).await;
        let user = checked.map_err(Refused::of_login)?;
        let sign_in = self.pool.sign_in(client);
        match user.value.membership.standing {
            Standing::Confirmed => self.signed_in(&user, &sign_in).await,
            Standing::Unconfirmed => Err(Refused::new("UserNotConfirmedException", "User is not confirmed.")),
            Standing::Temporary => self.challenge(&user.value, &sign_in),
        }
    }

    /// All tokens of a sign-in.
    async fn signed_in(&self, user: &Row<User>, sign_in: &SignIn) -> Result<Value, Refused> {
        let mut answer = self.tokens(user, sign_in).await?;
        answer["AuthenticationResult"]["RefreshToken"] =
            self.pool.refresh_token(&user.value, sign_in)?.into();
        Ok(answer)
    }

    async fn tokens(&self, user: &Row<User>, sign_in: &SignIn) -> Result<Value, Refused> {
        let tokens = self.pool.issue(user, sign_in).await?;
        Ok(json!({
            "AuthenticationResult": {
                "AccessToken": tokens.access,
                "ExpiresIn": tokens.life.as_secs(),
                "IdToken": tokens.id,
                "TokenType": "Bearer",
            },
            "ChallengeParameters": {},
        }))
    }

    /// Asks for another password.
    fn challenge(&self, user: &User, sign_in: &SignIn) -> Result<Value, Refused> {
        let now = self.ingest.clock.now();
        if user.membership.password_until.is_some_and(|until| until <= now) {
            let message = "Temporary password has expired and must be reset by an administrator.";
            return Err(Refused::new("NotAuthorizedException", message));
        }
        let attributes: Map<String, Value> =
            user.membership.attributes.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        Ok(json!({
            "ChallengeName": NEW_PASSWORD,
            "Session": self.pool.session(user, sign_in, SESSION_LIFE)?,
            "ChallengeParameters": {
                "USER_ID_FOR_SRP": user.name,
                "requiredAttributes": "[]",
                "userAttributes": Value::Object(attributes).to_string(),
            },
        }))
    }

    async fn refresh(&self, client: &str, token: &str, peer: Peer) -> Result<Value, Refused> {
        let Some(carried) = self.pool.carried(token, Use::Refresh, client) else {
            return Err(self.wrong("refresh token", peer, "Invalid Refresh Token"));
        };
        let refused = |denial| match denial {
            Denial::Expired("this token has expired") => {
                Refused::new("NotAuthorizedException", "Refresh Token has expired")
            }
            _ => Refused::new("NotAuthorizedException", "Refresh Token has been revoked"),
        };
        let user = self.pool.bearer_of(&carried).map_err(refused)?;
        if !user.value.is_confirmed() {
            return Err(Refused::new("NotAuthorizedException", "Refresh Token has been revoked"));
        }
        self.tokens(&user, &carried.sign_in).await
    }

    /// The refusal of something that nobody was given, which is counted.
    fn wrong(&self, what: &'static str, peer: Peer, message: &str) -> Refused {
        let credentials = &self.ingest.credentials;
        if let Err(denial) = credentials.may_try(peer) {
            return denial.into();
        }
        credentials.count_try(what, peer);
        Refused::new("NotAuthorizedException", message)
    }

    pub(super) async fn respond(&self, asked: Respond, peer: Peer) -> Result<Value, Refused> {
        let Respond { challenge_name, challenge_responses, client_id, session } = asked;
        self.check_client(&client_id)?;
        Self::check_no_secret(&client_id, challenge_responses.get("SECRET_HASH").map(String::as_str))?;
        if challenge_name != NEW_PASSWORD {
            return Err(Refused::parameter("ChallengeName", format!("{NEW_PASSWORD} is expected")));
        }
        let name = parameter(&challenge_responses, "USERNAME")?;
        let password = parameter(&challenge_responses, "NEW_PASSWORD")?;
        let given = challenge_responses.iter().filter_map(Attribute::of_response).collect();
        let attributes = attributes(given, true)?;
        let session = session.ok_or_else(|| Refused::parameter("Session", "this is missing"))?;
        let carried = self.pool.carried(&session, Use::Session, &client_id);
        let Some(carried) = carried.filter(|carried| carried.name == name) else {
            return Err(self.wrong("session", peer, "Invalid session for the user."));
        };
        let is_over = "Invalid session for the user, session is expired.";
        let bearer = || {
            let bearer = self.pool.bearer_of(&carried);
            bearer.map_err(|_| Refused::new("NotAuthorizedException", is_over))
        };
        bearer()?;
        let password = sign_up::password_of(password).await?;
        let change = |_: &User| {
            // It may have been used meanwhile.
            let before = bearer()?;
            let mut user = before.value.with_password(password.clone());
            user.membership.attributes.extend(attributes.clone());
            Ok((user, ()))
        };
        let (user, ()) = self.change(name, name, change).await?;
        self.signed_in(&user, &carried.sign_in).await
    }

    /// Ends a sign-in: nothing that came of it is taken any more. That of one that has ended ends nothing.
    pub(super) async fn revoke(&self, asked: Revoke, peer: Peer) -> Result<Value, Refused> {
        let Revoke { client_id, client_secret, token } = asked;
        self.check_client(&client_id)?;
        Self::check_no_secret(&client_id, client_secret.as_deref())?;
        let Some(carried) = self.pool.carried(&token, Use::Refresh, &client_id) else {
            if self.pool.is_signed_token(&token) {
                return Err(Refused::new("UnsupportedTokenTypeException", "a refresh token is expected"));
            }
            let wrong = self.wrong("refresh token", peer, "");
            return Err(
                wrong.unless_busy("UnauthorizedException", "Token: this is no refresh token of the client")
            );
        };
        if self.pool.bearer_of(&carried).is_err() {
            return Ok(json!({}));
        }
        let (name, now) = (carried.name.as_str(), self.ingest.clock.now());
        let ends = Timestamp::from_millis(carried.ends.saturating_mul(1_000)).unwrap_or(Timestamp::MAX);
        let revoked = |user: &User| {
            let mut user = user.clone();
            let revoked = &mut user.membership.revoked;
            revoked.retain(|_, ends| *ends > now);
            if revoked.len() >= REVOKED_MAX {
                revoked.clear();
                user.generation += 1;
            } else {
                revoked.insert(carried.sign_in.origin.clone(), ends);
            }
            Ok((user, ()))
        };
        self.change(name, name, revoked).await?;
        Ok(json!({}))
    }
}
