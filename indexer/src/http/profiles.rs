//! `GET /profiles/{userId}`: what is known of a user under all ids, put together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use broker::{Error, Kind, Permission, Principal, Result, ResultExt as _, Timestamp};
use proto::problem::ProblemBody;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::openapi::OpenApi as Api;
use utoipa::{OpenApi, ToSchema};

use super::Refusal;
use super::events::{answer, json};
use crate::index::Indexer;
use crate::table::Through;

/// The streams that a profile is put together from.
const DATASETS: [&str; 2] = ["link_users", "user_profiles"];

/// Where profiles of users are read.
pub struct Profiles;

#[derive(OpenApi)]
#[openapi(paths(profile))]
struct Documented;

/// A user under all ids.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = UserProfile)]
struct ProfileJson {
    /// The id that the others became.
    user_id: String,
    ids: BTreeSet<String>,
    /// Of each attribute what was said last, under whichever id.
    #[schema(value_type = BTreeMap<String, serde_json::Value>)]
    attributes: BTreeMap<String, Box<RawValue>>,
    /// When the last of them arrived.
    #[schema(value_type = Option<String>, format = DateTime)]
    updated_at: Option<Timestamp>,
    complete_through: CompleteThrough,
}

/// How far each stream is in it.
#[derive(Serialize, ToSchema)]
struct CompleteThrough {
    link_users: Vec<Through>,
    user_profiles: Vec<Through>,
}

impl Profiles {
    /// The HTTP door.
    pub fn router(indexer: &Arc<Indexer>) -> Router {
        Router::new().route("/profiles/{userId}", get(profile)).with_state(indexer.clone())
    }

    /// What it is.
    pub fn openapi() -> Api {
        Documented::openapi()
    }
}

#[utoipa::path(
    get,
    path = "/profiles/{userId}",
    tag = "tracking",
    operation_id = "readProfile",
    summary = "What is known of a user, under all ids that became one",
    params(("userId" = String, Path, description = "Any of the user's ids")),
    responses(
        (status = 200, description = "The profile", body = ProfileJson),
        (status = "4XX", description = "The request is refused, or nothing is known of this id", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
async fn profile(
    State(indexer): State<Arc<Indexer>>,
    Extension(caller): Extension<Principal>,
    path: std::result::Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    let Path(user) = path.map_err(|error| Error::invalid("path", error.body_text()))?;
    for dataset in DATASETS {
        indexer.catalog.require(&caller, dataset, Permission::Read)?;
    }
    let (profile, [link_users, user_profiles]) = indexer.tables.profile(&user).await?;
    let profile = profile.ok_or_else(|| Error::not_found("nothing is known of a user of this id"))?;
    let text = |value: bytes::Bytes| {
        let text = String::from_utf8(value.into()).or_error(Kind::Corrupt, "read an attribute")?;
        RawValue::from_string(text).or_error(Kind::Corrupt, "read an attribute")
    };
    let attributes = profile.attributes.into_iter();
    let attributes = attributes.map(|(name, value)| Ok((name, text(value)?))).collect::<Result<_>>()?;
    let shown = ProfileJson {
        user_id: profile.id,
        ids: profile.ids,
        attributes,
        updated_at: profile.updated_at,
        complete_through: CompleteThrough { link_users, user_profiles },
    };
    Ok(answer("application/json", json(0, &shown)?.into()))
}
