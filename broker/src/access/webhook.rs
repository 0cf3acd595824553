//! Webhook tokens: who presents one may do one thing with one dataset, without being anybody.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Peer;
use crate::catalog::Row;
use crate::time::Timestamp;

/// What a webhook token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// Get the dataset's events.
    Read,
    /// Post events.
    Write,
}

impl Operation {
    /// The word in requests and answers.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Read => "read",
            Operation::Write => "write",
        }
    }

    /// The operation of that word; none if there is none.
    pub fn of(name: &str) -> Option<Self> {
        [Operation::Read, Operation::Write].into_iter().find(|operation| operation.name() == name)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A webhook token. It is not kept, only what tells whether a presented one is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookToken {
    /// Its public name, which tells nothing of the token.
    pub id: String,
    /// The dataset id.
    pub dataset: String,
    /// What it is for, and nothing else.
    pub operation: Operation,
    /// SHA-256 of the token, in hexadecimal. A token has 122 random bits, so that a slow hash would add
    /// nothing.
    pub sha256: String,
    /// The principal that made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is not taken.
    pub expires_at: Timestamp,
    /// Whether nobody has deleted it.
    pub is_active: bool,
}

impl WebhookToken {
    /// The row's id. Neither part holds a slash.
    pub fn row_id(dataset: &str, id: &str) -> String {
        format!("{dataset}/{id}")
    }
}

/// Knows webhook tokens.
pub trait Webhooks: Send + Sync {
    /// The row of a token that lets whoever presents it do something with a dataset.
    fn authorize(
        &self,
        token: &str,
        asked: (&str, Operation),
        peer: Peer,
    ) -> std::result::Result<Arc<Row<WebhookToken>>, Reason>;
}

/// Knows no webhook token.
pub struct NoWebhooks;

impl Webhooks for NoWebhooks {
    fn authorize(
        &self,
        _: &str,
        (dataset, _): (&str, Operation),
        _: Peer,
    ) -> std::result::Result<Arc<Row<WebhookToken>>, Reason> {
        Err(Reason::NotAssociated { dataset: dataset.to_owned() })
    }
}

/// Why a webhook token is not taken; as text, the words for whoever presented it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is not known, was deleted, or is one of another dataset.
    NotAssociated {
        /// The dataset that was asked for.
        dataset: String,
    },
    /// It is for something else.
    NoAccess {
        /// The dataset that it is one of.
        dataset: String,
        /// What was asked for.
        operation: Operation,
    },
    /// It was good once.
    Expired,
    /// Too much was wrong before: so long this one is not looked for.
    TooMany(Duration),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NotAssociated { dataset } => {
                write!(f, "Provided token is not associated to dataset-id: {dataset}")
            }
            Reason::NoAccess { dataset, operation } => {
                write!(f, "Provided token does not have access to perform {operation} on {dataset}")
            }
            Reason::Expired => f.write_str("Provided token is expired"),
            Reason::TooMany(_) => f.write_str("Too Many Requests"),
        }
    }
}
