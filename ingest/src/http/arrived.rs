//! Bodies of events on their way to records, for surfaces that take all events of a request or none.

use std::sync::Arc;

use axum::extract::Request;
use broker::Error;
use bytes::Bytes;

use super::Refusal;
use super::records::INLINE_BYTES_MAX;
use crate::Ingest;
use crate::admission::Charge;
use crate::append::Prepared;
use crate::body::{BodyLimit, Coding, decode};

/// A body as it was sent.
pub(super) struct Arrived {
    ingest: Arc<Ingest>,
    coding: Coding,
    body: Bytes,
    charge: Charge,
}

/// A body that was checked, and its records.
pub(super) struct Ready {
    pub(super) prepared: Prepared,
    /// Decompressed.
    pub(super) body: Bytes,
    _charge: Charge,
}

impl Arrived {
    pub(super) async fn read(ingest: &Arc<Ingest>, request: Request) -> Result<Self, Refusal> {
        let (head, body) = request.into_parts();
        let coding = Coding::of(&head.headers)?;
        let limit = BodyLimit { name: "body_bytes_max", bytes_max: ingest.limits.body_bytes_max };
        let (body, charge) = ingest.read_body(&head.headers, body, limit).await?;
        Ok(Self { ingest: ingest.clone(), coding, body, charge })
    }

    /// Makes records of it as `prepare` says, which is given the decompressed body; off the runtime's threads
    /// where that may take long.
    pub(super) async fn prepare<E: From<Error> + Send + 'static>(
        self,
        prepare: impl FnOnce(&Ingest, &[u8]) -> Result<Prepared, E> + Send + 'static,
    ) -> Result<Ready, E> {
        let is_small = self.body.len() <= INLINE_BYTES_MAX && self.coding == Coding::Identity;
        if is_small {
            return self.prepare_here(prepare);
        }
        let ready = tokio::task::spawn_blocking(|| self.prepare_here(prepare)).await;
        ready.map_err(|error| Error::internal("check the events").with_source(error))?
    }

    fn prepare_here<E: From<Error>>(
        self,
        prepare: impl FnOnce(&Ingest, &[u8]) -> Result<Prepared, E>,
    ) -> Result<Ready, E> {
        let Self { ingest, coding, body, mut charge } = self;
        let body = decode(body, coding, &ingest.limits, &mut charge)?;
        let prepared = prepare(&ingest, &body)?;
        Ok(Ready { prepared, body, _charge: charge })
    }
}
