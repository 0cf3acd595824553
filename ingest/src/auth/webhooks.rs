//! Webhook tokens: random UUIDs, of which the catalog keeps a hash. The first half of the hash is the
//! token's public id, which finds the row.

use std::sync::Arc;

use broker::access::webhook::{Operation, Reason, WebhookToken, Webhooks};
use broker::access::{Denial, Peer};
use broker::catalog::Row;
use broker::{Catalog, Kind, Result, ResultExt as _};
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use subtle::ConstantTimeEq as _;
use uuid::Builder;

use super::attempts::Subject;
use super::{Credentials, keys};

/// Of the 64 of the hash. They cannot be taken for a token, which has dashes.
const ID_CHARACTERS: usize = 32;
const UNKNOWN: Denial = Denial::Wrong("this webhook token is not known");

/// A token as it is shown once, when it is made.
pub(crate) struct Made {
    pub(crate) token: String,
    /// What it is called from then on.
    pub(crate) id: String,
    /// What the catalog keeps of it.
    pub(crate) sha256: String,
}

impl Made {
    /// A token that nobody has seen yet, of the system's randomness.
    pub(crate) fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        OsRng.try_fill_bytes(&mut bytes).or_error(Kind::Unavailable, "read the system's randomness")?;
        let token = Builder::from_random_bytes(bytes).into_uuid().to_string();
        let sha256 = keys::hash(token.as_bytes());
        Ok(Self { token, id: sha256[..ID_CHARACTERS].to_owned(), sha256 })
    }
}

/// The dataset's token that is presented; none if it is not known, or was deleted.
pub(crate) fn find(catalog: &Catalog, dataset: &str, presented: &str) -> Option<Arc<Row<WebhookToken>>> {
    let sha256 = keys::hash(presented.as_bytes());
    let row = catalog.row::<WebhookToken>(&WebhookToken::row_id(dataset, &sha256[..ID_CHARACTERS]))?;
    let is_same: bool = sha256.as_bytes().ct_eq(row.value.sha256.as_bytes()).into();
    (is_same && row.value.is_active).then_some(row)
}

impl Webhooks for Credentials {
    /// A token that is not known counts as a wrong credential of its address; as none can be guessed, a
    /// right one is taken however much was wrong before.
    fn authorize(
        &self,
        token: &str,
        (dataset, operation): (&str, Operation),
        peer: Peer,
    ) -> Result<Arc<Row<WebhookToken>>, Reason> {
        let (now, from) = (self.clock.now(), Subject::Address(peer.0));
        let Some(token) = find(&self.catalog, dataset, token) else {
            let wait = self.attempts.wait(from, now);
            return Err(match self.failed(UNKNOWN, "webhook token", (from, wait)) {
                Denial::TooMany(wait) => Reason::TooMany(wait),
                _ => Reason::NotAssociated { dataset: dataset.to_owned() },
            });
        };
        if token.value.operation != operation {
            return Err(Reason::NoAccess { dataset: dataset.to_owned(), operation });
        }
        if token.value.expires_at <= now {
            return Err(Reason::Expired);
        }
        Ok(token)
    }
}
