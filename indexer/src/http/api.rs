//! What the query doors are, as OpenAPI: the operations that stand at the handlers.

use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::OpenApi as Api;
use utoipa::{OpenApi, ToSchema};

use super::{contract, events, statistics, subscription, tables};

/// A refusal of the event stream API: a text, or what is wrong with which field.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = QueryRefusal)]
#[allow(dead_code, reason = "it is written by hand, and stands here for its shape")]
pub(super) enum Refused {
    Message {
        message: String,
    },
    /// A text, or `loc`, `msg` and `type` of each field that is wrong.
    Detail {
        detail: Value,
    },
}

/// A place in a topic.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it is written elsewhere, and stands here for its shape")]
pub(super) struct Place {
    partition: u32,
    offset: u64,
}

#[derive(OpenApi)]
#[openapi(paths(
    events::page,
    events::count,
    events::histogram,
    events::export,
    contract::events,
    contract::statistics,
    statistics::events,
    subscription::subscribe,
    tables::all,
    tables::rows,
    tables::row
))]
struct Documented;

/// What the query doors are.
pub fn openapi() -> Api {
    Documented::openapi()
}
