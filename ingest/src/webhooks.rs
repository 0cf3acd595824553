//! Webhook tokens of datasets: who makes, lists and deletes them.

use std::sync::Arc;
use std::time::Duration;

use broker::access::webhook::{Operation, WebhookToken};
use broker::catalog::Row;
use broker::{Error, Kind, Permission, Principal, Result, StreamName};

use crate::Ingest;
use crate::auth::webhooks::{Made, find};

/// How long a token is taken: 730 days.
const LIFE: Duration = Duration::from_secs(730 * 24 * 3_600);
/// Tokens of a dataset that nobody has deleted.
pub(crate) const TOKENS_MAX: usize = 1_000;

impl Ingest {
    /// Makes a token, and answers what has to be shown once.
    pub(crate) async fn create_webhook_token(
        &self,
        caller: &Principal,
        dataset: &str,
        operation: Operation,
    ) -> Result<(Made, Arc<Row<WebhookToken>>)> {
        self.catalog.require(caller, dataset, Permission::Admin)?;
        StreamName::new(dataset, "1")?;
        if self.active_tokens(dataset).len() >= TOKENS_MAX {
            let message = format!("a dataset has at most {TOKENS_MAX} webhook tokens, delete some");
            return Err(Error::new(Kind::Conflict, message));
        }
        let (made, created_at) = (Made::random()?, self.clock.now());
        let token = WebhookToken {
            id: made.id.clone(),
            dataset: dataset.to_owned(),
            operation,
            sha256: made.sha256.clone(),
            created_by: caller.name().to_owned(),
            created_at,
            expires_at: created_at + LIFE,
            is_active: true,
        };
        let row = self.set(caller, &WebhookToken::row_id(dataset, &made.id), &token).await?;
        Ok((made, row))
    }

    /// The dataset's tokens that nobody has deleted, the oldest first.
    pub(crate) fn webhook_tokens(
        &self,
        caller: &Principal,
        dataset: &str,
    ) -> Result<Vec<Arc<Row<WebhookToken>>>> {
        self.catalog.require(caller, dataset, Permission::Admin)?;
        let mut tokens = self.active_tokens(dataset);
        tokens.sort_by_key(|token| token.value.created_at);
        Ok(tokens)
    }

    /// Deletes a token, named by itself or by its id: from now on it is not taken. Its row stays, so that
    /// nothing else comes to its id. `NotFound` if the dataset has none of that name.
    pub(crate) async fn delete_webhook_token(
        &self,
        caller: &Principal,
        dataset: &str,
        named: &str,
    ) -> Result<()> {
        self.catalog.require(caller, dataset, Permission::Admin)?;
        let by_id = self.catalog.row::<WebhookToken>(&WebhookToken::row_id(dataset, named));
        let found = by_id.filter(|token| token.value.is_active);
        let missing = || Error::not_found(format!("Provided token does not exist for dataset {dataset}"));
        let before = found.or_else(|| find(&self.catalog, dataset, named)).ok_or_else(missing)?;
        let token = WebhookToken { is_active: false, ..before.value.clone() };
        let mut writes = self.catalog.writes(caller.name());
        writes.set(before.id.clone(), before.version, &token)?;
        self.catalog.write(writes).await
    }

    /// Those that nobody has deleted, by id.
    pub(crate) fn active_tokens(&self, dataset: &str) -> Vec<Arc<Row<WebhookToken>>> {
        let prefix = WebhookToken::row_id(dataset, "");
        self.catalog.rows_where::<WebhookToken>(&prefix, None, usize::MAX, |token| token.value.is_active)
    }
}
