//! Gets documents of other services by HTTP.

use std::time::Duration;

use async_trait::async_trait;
use broker::{Error, Kind, Result, ResultExt as _};
use bytes::{Bytes, BytesMut};
use ingest::auth::oidc::Fetch;

use crate::failure::{Exit, Failure};

/// How long one may take.
const TIME_MAX: Duration = Duration::from_secs(5);
/// The largest document.
const BYTES_MAX: usize = 1 << 20;

/// A client that takes its time and its memory within bounds.
pub(super) struct HttpFetch(reqwest::Client);

impl HttpFetch {
    pub(super) fn new() -> Result<Self, Failure> {
        let client = reqwest::Client::builder().timeout(TIME_MAX).build();
        let failed = |error| Failure::new(Exit::Failure, format!("make an HTTP client: {error}"));
        Ok(Self(client.map_err(failed)?))
    }
}

#[async_trait]
impl Fetch for HttpFetch {
    async fn get(&self, url: &str) -> Result<Bytes> {
        let failed = || format!("get {url}");
        let answer = self.0.get(url).send().await.and_then(reqwest::Response::error_for_status);
        let mut answer = answer.or_error(Kind::Unavailable, &failed())?;
        let mut body = BytesMut::new();
        while let Some(piece) = answer.chunk().await.or_error(Kind::Unavailable, &failed())? {
            if body.len() + piece.len() > BYTES_MAX {
                return Err(Error::unavailable(format!("{url} has more than {BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }
}
