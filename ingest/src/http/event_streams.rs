//! `/streams/{dataset}/{version}`: streams, their sinks, whether one can subscribe to them, and posting
//! events, as the event stream API has them that this surface stands in for. Its `s3` is the archive, its
//! `elasticsearch` the index.
//!
//! The order of checks is its too: who calls, what they may do, what the path names, then what was sent.

mod body;
pub(super) mod events;

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use broker::access::{Caller, Denial};
use broker::catalog::{Draft, Edit, SinkKind, SinkState, Sinks, Stamp, Stream};
use broker::metadata::{Document, DocumentId};
use broker::{Confidentiality, Error, Kind, Permission, Principal, StreamName};
use form_urlencoded::parse;
use http::request::Parts;
use http::{StatusCode, Uri};
use proto::fault::{Detail, Fault};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::api::{SinkDraft, StreamDraft, StreamRefusal, SubscribableDraft};
use super::message::{Message, Refused, said};
use super::{Refusal as Problem, json as answer};
use crate::Ingest;
use crate::auth::DenialExt as _;

/// How often a change is tried that another one overtook.
const TRIES: usize = 8;

pub(super) fn router() -> Router<Arc<Ingest>> {
    let stream = post(create).get(show).put(replace).delete(remove);
    Router::new()
        .route("/streams/{dataset}/{version}", stream)
        .route("/streams/{dataset}/{version}/sinks", get(list_sinks).post(create_sink))
        .route("/streams/{dataset}/{version}/sinks/{sink}", get(show_sink).delete(remove_sink))
        .route("/streams/{dataset}/{version}/subscribable", get(show_subscribable).put(set_subscribable))
        .route("/streams/{dataset}/{version}/events", post(events::append))
}

/// Why a request was not done.
enum Refusal {
    Said(Refused),
    /// 422 with what is wrong with each field.
    Faults(Vec<Fault>),
    Denied(Denial),
}

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Refusal::Said(Refused::new(status, message))
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error.kind() {
            Kind::Internal | Kind::Corrupt => {
                tracing::error!(%error, "a request failed");
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "Server error")
            }
            _ => Refusal::Said(error.into()),
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Refusal::Said(problem.into())
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Refusal::Faults(vec![fault])
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let detail = |status, detail: Value| {
            answer(status, &Detail { detail }).unwrap_or_else(|error| Problem::from(error).into_response())
        };
        let denial = match self {
            Refusal::Said(refused) => return refused.into_response(),
            Refusal::Faults(faults) => return detail(StatusCode::UNPROCESSABLE_ENTITY, json!(faults)),
            Refusal::Denied(denial) => denial,
        };
        let mut response = match denial {
            Denial::Missing => detail(StatusCode::FORBIDDEN, "Not authenticated".into()),
            Denial::Unsupported => detail(StatusCode::FORBIDDEN, "Invalid authentication credentials".into()),
            Denial::Expired(_) | Denial::Wrong(_) => said(StatusCode::UNAUTHORIZED, "Invalid access token"),
            Denial::Unavailable(_) => said(StatusCode::SERVICE_UNAVAILABLE, "Server error"),
            Denial::TooMany(_) => said(StatusCode::TOO_MANY_REQUESTS, "Too many invalid access tokens"),
        };
        denial.finish(response.headers_mut());
        response
    }
}

type Answer = Result<Response, Refusal>;

/// What a request is about, and who makes it.
struct Of {
    ingest: Arc<Ingest>,
    caller: Principal,
    dataset: String,
    version: String,
    sink: String,
}

impl FromRequestParts<Arc<Ingest>> for Of {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, ingest: &Arc<Ingest>) -> Result<Self, Refusal> {
        let Extension(Caller(caller)) = Extension::<Caller>::from_request_parts(parts, ingest)
            .await
            .map_err(|_| Error::internal("a request came past the guard"))?;
        let caller = caller.map_err(Refusal::Denied)?;
        let names = RawPathParams::from_request_parts(parts, ingest)
            .await
            .map_err(|error| Error::invalid("path", error.body_text()))?;
        let named = |wanted: &str| {
            let found = names.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let (dataset, version, sink) = (named("dataset"), named("version"), named("sink"));
        Ok(Self { ingest: ingest.clone(), caller, dataset, version, sink })
    }
}

impl Of {
    fn id(&self) -> String {
        format!("{}/{}", self.dataset, self.version)
    }

    fn require(&self, permission: Permission) -> Result<(), Refusal> {
        Ok(self.ingest.catalog.require(&self.caller, &self.dataset, permission)?)
    }

    fn document(&self) -> Option<Document> {
        let id = DocumentId::dataset(self.dataset.clone());
        self.ingest.catalog.document(&id).map(|row| row.value.clone())
    }

    fn has_version_document(&self) -> bool {
        let id = DocumentId::dataset(self.dataset.clone());
        let documents = [Some(id.clone()), id.child(&self.version)];
        let is_there = |id: &DocumentId| self.ingest.catalog.document(id).is_some();
        documents.iter().all(|id| id.as_ref().is_some_and(is_there))
    }

    /// The stream, also one that was deleted; one that nobody has made yet is not there.
    fn known(&self) -> Option<Arc<Stream>> {
        self.found().filter(|stream| stream.definition.deleted || !stream.definition.is_incoming)
    }

    fn found(&self) -> Option<Arc<Stream>> {
        let name = StreamName::new(&self.dataset, &self.version).ok()?;
        self.ingest.catalog.all().get(&name).cloned()
    }

    fn no_version(&self) -> Refusal {
        let Self { dataset, version, .. } = self;
        let message = format!("Version: {version} for dataset '{dataset}' not found");
        Refusal::new(StatusCode::NOT_FOUND, message)
    }

    /// 404 unless documents describe the version, or a stream has its name.
    fn require_version(&self) -> Result<(), Refusal> {
        if self.known().is_some() || self.has_version_document() {
            return Ok(());
        }
        Err(self.no_version())
    }

    /// What a row of the contract asks for that is about a version.
    fn require_both(&self, permission: Permission) -> Result<(), Refusal> {
        self.require(permission)?;
        self.require_version()
    }

    fn no_stream(&self) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, format!("Event stream with id {} does not exist", self.id()))
    }

    fn living(&self) -> Result<Arc<Stream>, Refusal> {
        self.known().filter(|stream| !stream.definition.deleted).ok_or_else(|| self.no_stream())
    }

    /// Changes the stream as `edit` says after a look at it, until nobody else changes it in between.
    async fn change(&self, edit: impl Fn(&Stream) -> Result<Edit, Refusal>) -> Result<Arc<Stream>, Refusal> {
        for _ in 0..TRIES {
            let before = self.living()?;
            let edit = Edit { config_version: Some(before.definition.config_version), ..edit(&before)? };
            match self.ingest.catalog.change(before.name(), edit, self.caller.name()).await {
                Err(error) if error.kind() == Kind::Conflict => {}
                changed => return Ok(changed?),
            }
        }
        let message = format!("Event stream with id {} is changed by many at once", self.id());
        Err(Refusal::new(StatusCode::CONFLICT, message))
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = EventStream)]
struct StreamJson<'a> {
    id: String,
    create_raw: bool,
    updated_by: Option<&'a str>,
    updated_at: String,
    deleted: bool,
    status: &'static str,
    #[serde(rename = "accessRights", skip_serializing_if = "Option::is_none")]
    access_rights: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidentiality: Option<&'static str>,
}

impl<'a> StreamJson<'a> {
    fn of(stream: &'a Stream, status: &'static str) -> Self {
        let definition = &stream.definition;
        Self {
            id: stream.name().to_string(),
            create_raw: definition.create_raw,
            updated_by: definition.updated_by.as_deref(),
            updated_at: time(&definition.updated_at.to_string()),
            deleted: definition.deleted,
            status,
            access_rights: None,
            confidentiality: None,
        }
    }
}

/// A sink, or whether one can subscribe.
#[derive(Serialize, ToSchema)]
#[schema(as = SinkOrSubscribable)]
struct Part {
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    status: &'static str,
    /// Why it is `OPERATION_FAILED`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    updated_by: Option<String>,
    updated_at: String,
}

impl Part {
    fn sink(stream: &Stream, kind: SinkKind) -> Self {
        let status = status_of(stream, kind);
        let reason = stream.sink_failure(kind).map(|failure| failure.reason.clone());
        Self { r#type: Some(type_of(kind)), reason, ..Self::of(None, status, stream.switched(kind)) }
    }

    fn subscribable(stream: &Stream, status: &'static str) -> Self {
        Self::of(Some(stream.definition.subscribable.enabled), status, stream.subscribable_switched())
    }

    fn of(enabled: Option<bool>, status: &'static str, Stamp { by, at }: Stamp) -> Self {
        Self {
            r#type: None,
            enabled,
            status,
            reason: None,
            updated_by: by,
            updated_at: time(&at.to_string()),
        }
    }
}

/// An instant in UTC, with its offset as Python writes it.
fn time(text: &str) -> String {
    format!("{}+00:00", text.trim_end_matches('Z'))
}

const ACTIVE: &str = "ACTIVE";
const INACTIVE: &str = "INACTIVE";
const CREATING: &str = "CREATE_IN_PROGRESS";
const DELETING: &str = "DELETE_IN_PROGRESS";
const FAILED: &str = "OPERATION_FAILED";

/// Workers of a sink that failed try again, until it is what was asked for.
fn status_of(stream: &Stream, kind: SinkKind) -> &'static str {
    match stream.sink_state(kind) {
        _ if stream.sink_failure(kind).is_some() => FAILED,
        SinkState::Off => INACTIVE,
        SinkState::Starting => CREATING,
        SinkState::On => ACTIVE,
        SinkState::Stopping => DELETING,
    }
}

fn type_of(kind: SinkKind) -> &'static str {
    match kind {
        SinkKind::Archive => "s3",
        SinkKind::Index => "elasticsearch",
    }
}

fn kind_of(r#type: &str) -> Result<SinkKind, Refusal> {
    let found = SinkKind::ALL.into_iter().find(|kind| type_of(*kind).eq_ignore_ascii_case(r#type));
    found.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, format!("Invalid sink type: {}", r#type)))
}

fn with(sinks: &Sinks, kind: SinkKind, is_on: bool) -> Edit {
    let mut sinks = sinks.clone();
    match kind {
        SinkKind::Archive => sinks.archive = is_on,
        SinkKind::Index => sinks.index = is_on,
    }
    Edit { sinks: Some(sinks), ..Edit::default() }
}

#[utoipa::path(
    post,
    path = "/streams/{dataset}/{version}",
    tag = "event streams",
    operation_id = "createEventStream",
    summary = "Creates an event stream",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("version" = String, Path, description = "The version"),
    ),
    request_body(content = Option<StreamDraft>, description = "May be left out"),
    responses(
        (status = 201, description = "It is being created", body = StreamJson<'_>),
        (status = "4XX", description = "The request is refused", body = StreamRefusal),
        (status = "5XX", description = "It cannot be done now", body = StreamRefusal),
    ),
)]
async fn create(of: Of, request: Request) -> Answer {
    of.require(Permission::Update)?;
    let Of { ingest, dataset, version, .. } = &of;
    let exists =
        || Refusal::new(StatusCode::CONFLICT, format!("Event stream with id {} already exist", of.id()));
    if of.ingest.implicit_datasets {
        ingest.describe(&of.caller, &StreamName::new(dataset, version)?).await?;
    }
    let Some(document) = of.document() else {
        of.living().map_or(Ok(()), |_| Err(exists()))?;
        let message = format!("Could not find dataset: {dataset}");
        return Err(Refusal::new(StatusCode::NOT_FOUND, message));
    };
    if let Some(source) = document.source_type().filter(|source| source != "event") {
        let wanted = "Dataset source must be of type: 'event'";
        let message = format!("Invalid source type '{source}' for dataset {dataset}. {wanted}");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    of.require_version()?;
    let sent = body::read(ingest, request).await?;
    let create_raw =
        body::field(sent.as_ref(), "create_raw")?.map(|value| body::boolean("create_raw", value));
    let incoming = of.found().filter(|stream| !stream.definition.deleted && stream.definition.is_incoming);
    let incoming = incoming.map(|stream| stream.definition.confidentiality);
    let draft = Draft {
        dataset: dataset.clone(),
        version: version.clone(),
        // What came before the stream lies where it was put.
        confidentiality: incoming.unwrap_or_else(|| document.confidentiality()),
        timestamp_field: Some(document.timestamp_field()),
        timestamp_required: Some(false),
        sinks: Sinks { archive: false, index: false },
        create_raw: create_raw.transpose()?,
        ..Draft::default()
    };
    match ingest.catalog.create(draft, of.caller.name()).await {
        Ok(stream) => Ok(answer(StatusCode::CREATED, &StreamJson::of(&stream, CREATING))?),
        Err(error) if error.kind() == Kind::Conflict => Err(exists()),
        Err(error) => Err(error.into()),
    }
}

#[utoipa::path(
    get,
    path = "/streams/{dataset}/{version}",
    tag = "event streams",
    operation_id = "showEventStream",
    summary = "Shows an event stream",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("version" = String, Path, description = "The version"),
    ),
    responses(
        (status = 200, description = "The event stream, also a deleted one", body = StreamJson<'_>),
        (status = "4XX", description = "The request is refused", body = StreamRefusal),
        (status = "5XX", description = "It cannot be done now", body = StreamRefusal),
    ),
)]
async fn show(of: Of) -> Answer {
    of.require_both(Permission::Update)?;
    let missing = || Refusal::new(StatusCode::NOT_FOUND, format!("Could not find stream: {}", of.id()));
    let stream = of.known().ok_or_else(missing)?;
    let (access_rights, confidentiality) = match stream.definition.confidentiality {
        Confidentiality::Green => ("public", "green"),
        Confidentiality::Yellow => ("restricted", "yellow"),
        Confidentiality::Red => ("non-public", "red"),
    };
    let shown = StreamJson {
        access_rights: Some(access_rights),
        confidentiality: Some(confidentiality),
        ..StreamJson::of(&stream, if stream.definition.deleted { INACTIVE } else { ACTIVE })
    };
    Ok(answer(StatusCode::OK, &shown)?)
}

#[utoipa::path(
    put,
    path = "/streams/{dataset}/{version}",
    tag = "event streams",
    operation_id = "replaceEventStream",
    summary = "Is not there",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("version" = String, Path, description = "The version"),
    ),
    responses(
        (status = 501, description = "There is nothing to replace", body = StreamRefusal),
        (status = "4XX", description = "The request is refused", body = StreamRefusal),
    ),
)]
async fn replace(of: Of) -> Answer {
    of.require_both(Permission::Update)?;
    Ok(answer(StatusCode::NOT_IMPLEMENTED, &json!({"message": null}))?)
}

#[utoipa::path(
    delete,
    path = "/streams/{dataset}/{version}",
    tag = "event streams",
    operation_id = "deleteEventStream",
    summary = "Deletes an event stream",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("version" = String, Path, description = "The version"),
    ),
    responses(
        (status = 200, description = "It is deleted", body = Message<'_>),
        (status = "4XX", description = "The request is refused", body = StreamRefusal),
        (status = "5XX", description = "It cannot be done now", body = StreamRefusal),
    ),
)]
async fn remove(of: Of) -> Answer {
    of.require_both(Permission::Update)?;
    let stream = of.living()?;
    let mut is_used = false;
    let check = |stream: &Stream| {
        let is_off = |kind| stream.sink_state(kind) == SinkState::Off;
        is_used = stream.definition.subscribable.enabled || !SinkKind::ALL.into_iter().all(is_off);
        if is_used { Err(Error::new(Kind::Conflict, "the stream has sinks or subscribers")) } else { Ok(()) }
    };
    let deleted = of.ingest.catalog.delete_if(stream.name(), of.caller.name(), check).await;
    if is_used {
        let message = format!(
            "Event stream with id {} contains sub-resources. Delete all related event-sinks and disable event \
             subscription",
            of.id()
        );
        return Err(Refusal::new(StatusCode::CONFLICT, message));
    }
    match deleted {
        Ok(()) => Ok(said(StatusCode::OK, &format!("Deleted event stream with id {}", of.id()))),
        Err(error) if error.kind() == Kind::NotFound => Err(of.no_stream()),
        Err(error) => Err(error.into()),
    }
}

#[utoipa::path(
    get,
    path = "/streams/{dataset}/{version}/sinks",
    tag = "event streams",
    operation_id = "listSinks",
    summary = "Lists sinks",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("version" = String, Path, description = "The version"),
    ),
    responses(
        (status = 200, description = "Those that are on", body = [Part]),
        (status = "4XX", description = "The request is refused", body = StreamRefusal),
        (status = "5XX", description = "It cannot be done now", body = StreamRefusal),
    ),
)]
async fn list_sinks(of: Of) -> Answer {
    of.require_both(Permission::Update)?;
    let stream = of.known().ok_or_else(|| of.no_stream())?;
    let is_there = |kind: &SinkKind| !stream.definition.deleted && stream.definition.sinks.has(*kind);
    let sinks = SinkKind::ALL.into_iter().filter(is_there);
    let sinks: Vec<_> = sinks.map(|kind| Part::sink(&stream, kind)).collect();
    Ok(answer(StatusCode::OK, &sinks)?)
}

#[utoipa::path(
    post,
    path = "/streams/{dataset}/{version}/sinks",
    tag = "event streams",
    operation_id = "createSink",
    summary = "Switches a sink on",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("version" = String, Path, description = "The version"),
        ("backfill" = Option<bool>, Query, description = "Whether it takes what the log has already"),
    ),
    request_body = SinkDraft,
    responses(
        (status = 201, description = "It is being created", body = Part),
        (status = "4XX", description = "The request is refused", body = StreamRefusal),
        (status = "5XX", description = "It cannot be done now", body = StreamRefusal),
    ),
)]
async fn create_sink(of: Of, request: Request) -> Answer {
    of.require_both(Permission::Update)?;
    let backfill = backfill(request.uri())?;
    let sent = body::read(&of.ingest, request).await?.ok_or_else(|| Fault::missing(&["body"]))?;
    let r#type = body::field(Some(&sent), "type")?.ok_or_else(|| Fault::missing(&["body", "type"]))?;
    let r#type = body::text("type", r#type)?;
    let id = of.id();
    of.living()
        .map_err(|_| Refusal::new(StatusCode::NOT_FOUND, format!("Event stream {id} does not exist")))?;
    let kind = kind_of(&r#type)?;
    let edit = |stream: &Stream| {
        let refused = |message| Err(Refusal::new(StatusCode::CONFLICT, message));
        if stream.definition.sinks.has(kind) {
            return refused(format!("Sink: {} already exists on {id}", type_of(kind)));
        }
        if stream.sink_state(kind) == SinkState::Stopping {
            let doing = "currently is being deleted";
            return refused(format!("Cannot create sink since a sink of type {} {doing}", type_of(kind)));
        }
        Ok(Edit { backfill, ..with(&stream.definition.sinks, kind, true) })
    };
    let stream = of.change(edit).await?;
    Ok(answer(StatusCode::CREATED, &Part::sink(&stream, kind))?)
}

/// Whether a sink shall take what is in the log already: `?backfill=true`.
fn backfill(uri: &Uri) -> Result<bool, Refusal> {
    let mut pairs = parse(uri.query().unwrap_or_default().as_bytes());
    let given = pairs.find(|(name, _)| name == "backfill");
    given.map_or(Ok(false), |(_, value)| body::boolean_at(&["query", "backfill"], &Value::from(&*value)))
}

#[utoipa::path(
    get,
    path = "/streams/{dataset}/{version}/sinks/{sink}",
    tag = "event streams",
    operation_id = "showSink",
    summary = "Shows a sink",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("version" = String, Path, description = "The version"),
        ("sink" = String, Path, description = "`s3` or `elasticsearch`", pattern = "^(s3|elasticsearch)$"),
    ),
    responses(
        (status = 200, description = "The sink", body = Part),
        (status = "4XX", description = "The request is refused", body = StreamRefusal),
        (status = "5XX", description = "It cannot be done now", body = StreamRefusal),
    ),
)]
async fn show_sink(of: Of) -> Answer {
    of.require_both(Permission::Update)?;
    let kind = kind_of(&of.sink)?;
    let stream = of.known().ok_or_else(|| of.no_stream())?;
    if stream.definition.deleted || !stream.definition.sinks.has(kind) {
        return Err(no_sink(&of, kind));
    }
    Ok(answer(StatusCode::OK, &Part::sink(&stream, kind))?)
}

#[utoipa::path(
    delete,
    path = "/streams/{dataset}/{version}/sinks/{sink}",
    tag = "event streams",
    operation_id = "deleteSink",
    summary = "Switches a sink off",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("version" = String, Path, description = "The version"),
        ("sink" = String, Path, description = "`s3` or `elasticsearch`", pattern = "^(s3|elasticsearch)$"),
    ),
    responses(
        (status = 200, description = "It is being deleted", body = Message<'_>),
        (status = "4XX", description = "The request is refused", body = StreamRefusal),
        (status = "5XX", description = "It cannot be done now", body = StreamRefusal),
    ),
)]
async fn remove_sink(of: Of) -> Answer {
    of.require_both(Permission::Update)?;
    of.living()?;
    let kind = kind_of(&of.sink)?;
    let edit = |stream: &Stream| {
        if !stream.definition.sinks.has(kind) {
            return Err(no_sink(&of, kind));
        }
        if status_of(stream, kind) == CREATING {
            let doing = "cannot be disabled since it is being constructed";
            let message = format!("Sink of type {} {doing}", type_of(kind));
            return Err(Refusal::new(StatusCode::CONFLICT, message));
        }
        Ok(with(&stream.definition.sinks, kind, false))
    };
    of.change(edit).await?;
    Ok(said(StatusCode::OK, &format!("Disabled sink of type {} for stream {}", type_of(kind), of.id())))
}

fn no_sink(of: &Of, kind: SinkKind) -> Refusal {
    let message = format!("Sink of type {} does not exist on {}", type_of(kind), of.id());
    Refusal::new(StatusCode::NOT_FOUND, message)
}

#[utoipa::path(
    get,
    path = "/streams/{dataset}/{version}/subscribable",
    tag = "event streams",
    operation_id = "showSubscribable",
    summary = "Says whether one can subscribe",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("version" = String, Path, description = "The version"),
    ),
    responses(
        (status = 200, description = "Whether one can subscribe", body = Part),
        (status = "4XX", description = "The request is refused", body = StreamRefusal),
        (status = "5XX", description = "It cannot be done now", body = StreamRefusal),
    ),
)]
async fn show_subscribable(of: Of) -> Answer {
    let stream = of.living()?;
    let status = if stream.definition.subscribable.enabled { ACTIVE } else { INACTIVE };
    Ok(answer(StatusCode::OK, &Part::subscribable(&stream, status))?)
}

#[utoipa::path(
    put,
    path = "/streams/{dataset}/{version}/subscribable",
    tag = "event streams",
    operation_id = "setSubscribable",
    summary = "Says whether one can subscribe from now on",
    params(
        ("dataset" = String, Path, description = "The dataset id"),
        ("version" = String, Path, description = "The version"),
    ),
    request_body = SubscribableDraft,
    responses(
        (status = 200, description = "What it is becoming", body = Part),
        (status = "4XX", description = "The request is refused", body = StreamRefusal),
        (status = "5XX", description = "It cannot be done now", body = StreamRefusal),
    ),
)]
async fn set_subscribable(of: Of, request: Request) -> Answer {
    of.require(Permission::Update)?;
    let sent = body::read(&of.ingest, request).await?.ok_or_else(|| Fault::missing(&["body"]))?;
    let enabled = body::field(Some(&sent), "enabled")?.ok_or_else(|| Fault::missing(&["body", "enabled"]))?;
    let enabled = body::boolean("enabled", enabled)?;
    let edit = |stream: &Stream| {
        if stream.definition.subscribable.enabled == enabled {
            let is = if enabled { "is already subscribable" } else { "is not currently subscribable" };
            let message = format!("Event stream with id {} {is}", of.id());
            return Err(Refusal::new(StatusCode::CONFLICT, message));
        }
        Ok(Edit { subscribable: Some(enabled), ..Edit::default() })
    };
    let stream = of.change(edit).await?;
    let status = if enabled { CREATING } else { DELETING };
    Ok(answer(StatusCode::OK, &Part::subscribable(&stream, status))?)
}
