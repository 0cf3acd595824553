//! What users are to be told, in a stream that somebody follows who can reach them: codes, and invitations. It is
//! written to the log before an action answers, and to nothing else: neither archive nor index keeps it.

use std::time::Duration;

use broker::access::{ADMINISTRATOR, User};
use broker::catalog::{Draft, Retention, Sinks};
use broker::{Confidentiality, Kind, Result, StreamName, Timestamp};
use serde::Serialize;

use super::UserPool;
use super::refused::Refused;
use crate::append::NewEvent;
use crate::auth::pool::subject;

/// The version of the stream.
const VERSION: &str = "1";
/// How long it keeps a message: no code and no password in it is taken for longer.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);

/// What a message holds that shall reach a user.
#[derive(Clone, Copy, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Secret<'s> {
    /// A code that shows that it reached the user.
    Confirmation { code: &'s str },
    /// A password to sign in with for the first time.
    Invitation { temporary_password: &'s str },
}

#[derive(Serialize)]
struct Message<'m> {
    #[serde(flatten)]
    secret: Secret<'m>,
    user_pool_id: &'m str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'m str>,
    username: &'m str,
    sub: String,
    attributes: &'m std::collections::BTreeMap<String, String>,
    sent_at: Timestamp,
    expires_at: Timestamp,
}

pub(super) fn stream(dataset: &str) -> Result<StreamName> {
    StreamName::new(dataset, VERSION)
}

impl UserPool {
    pub(super) async fn make_stream(&self) -> Result<()> {
        let catalog = &self.ingest.catalog;
        if catalog.get(&self.messages).is_ok() {
            return Ok(());
        }
        let draft = Draft {
            dataset: self.messages.dataset().to_owned(),
            version: VERSION.to_owned(),
            confidentiality: Confidentiality::Red,
            partitions: Some(1),
            retention: Some(Retention { age_seconds: Some(KEPT.as_secs()), ..Retention::default() }),
            sinks: Sinks { archive: false, index: false },
            key: Some("/username".to_owned()),
            ..Draft::default()
        };
        match catalog.create(draft, ADMINISTRATOR).await {
            // Another process was quicker.
            Err(error) if error.kind() == Kind::Conflict => Ok(()),
            made => {
                made.map(drop).map_err(|error| error.context(format!("make the stream {}", self.messages)))
            }
        }
    }

    /// Writes a message to a user; durable when it returns.
    pub(super) async fn tell(
        &self,
        user: &User,
        client_id: Option<&str>,
        secret: Secret<'_>,
        expires_at: Timestamp,
    ) -> Result<(), Refused> {
        let message = Message {
            secret,
            user_pool_id: self.pool.id(),
            client_id,
            username: &user.name,
            sub: subject(user),
            attributes: &user.membership.attributes,
            sent_at: self.ingest.clock.now(),
            expires_at,
        };
        let failed = |error: broker::Error| {
            tracing::warn!(%error, stream = %self.messages, "a message to a user was not written");
            let again = "it could not be sent: ask for another one";
            Refused::from(broker::Error::unavailable(again))
                .unless_busy("CodeDeliveryFailureException", again)
        };
        let value = serde_json::to_vec(&message).map_err(|_| broker::Error::internal("write a message"))?;
        let stream = self.ingest.catalog.get(&self.messages).map_err(failed)?;
        let event = NewEvent { value: &value, line: None, key: Some(user.name.as_bytes()) };
        let prepared = self.ingest.prepare(&stream, vec![event], true).map_err(failed)?;
        self.ingest.append(prepared).await.map(drop).map_err(failed)
    }
}
