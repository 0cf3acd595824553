//! `/datasets`: documents that describe datasets, versions, editions and distributions, as the metadata API
//! that this one stands in for has them. What is sent is kept and answered as it is; `Id`, `Type` and
//! `_links` are added. Reading needs no credential. A refusal's body is a JSON string.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use broker::access::Caller;
use broker::catalog::Row;
use broker::metadata::{Document, DocumentId, Fields, Level, parse};
use broker::{Error, Kind, Principal};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{HeaderMap, Method, StatusCode};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use tower_http::cors::{Any, CorsLayer};

use super::message::denied;
use super::{Refusal, json, json_of_about};
use crate::Ingest;
use crate::body::BodyLimit;
use crate::metadata::DOCUMENT_BYTES_MAX;

/// Where it is: as it is, and where a gateway put it.
const ROOTS: [&str; 2] = ["", "/metadata"];
const BODY: BodyLimit = BodyLimit { name: "document_bytes_max", bytes_max: 2 * DOCUMENT_BYTES_MAX };

pub(super) fn router() -> Router<Arc<Ingest>> {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::PUT])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE])
        .expose_headers([LOCATION]);
    let mut router = Router::new();
    for root in ROOTS {
        let mut path = format!("{root}/datasets");
        router = router.route(&path, get(list).post(create));
        for (one, below) in [
            ("dataset", "/versions"),
            ("version", "/editions"),
            ("edition", "/distributions"),
            ("distribution", ""),
        ] {
            path = format!("{path}/{{{one}}}");
            router = router.route(&path, get(show).put(replace));
            if !below.is_empty() {
                path.push_str(below);
                router = router.route(&path, get(list).post(create));
            }
        }
    }
    router.layer(cors)
}

/// The names in a path, decoded; none where they are no text.
type Names = Result<RawPathParams, RawPathParamsRejection>;

/// A status with a text.
struct Refused {
    status: StatusCode,
    message: String,
}

impl Refused {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// What a change ran into.
    fn of(error: Error, doing: &str) -> Self {
        let text = match error.field() {
            Some(field) => format!("{field}: {error}"),
            None => error.to_string(),
        };
        match error.kind() {
            Kind::Forbidden => Self::new(StatusCode::FORBIDDEN, "Forbidden"),
            Kind::NotFound => Self::new(StatusCode::NOT_FOUND, text),
            Kind::Conflict => Self::new(StatusCode::CONFLICT, format!("Resource Conflict: {text}")),
            Kind::Invalid => Self::new(StatusCode::BAD_REQUEST, format!("Error {doing}: {text}")),
            kind => Self::new(kind.status(), Refusal::from(error).problem.message),
        }
    }
}

impl From<Refusal> for Refused {
    fn from(Refusal { problem, status }: Refusal) -> Self {
        Self::new(status, problem.message)
    }
}

/// A document as it is answered.
struct Shown<'a> {
    id: DocumentId,
    row: &'a Row<Document>,
    embedded: Option<&'a [Arc<Row<Document>>]>,
}

#[derive(Serialize)]
struct Links {
    #[serde(rename = "self")]
    own: Link,
}

#[derive(Serialize)]
struct Link {
    href: String,
}

impl<'a> Shown<'a> {
    fn of(row: &'a Row<Document>) -> Option<Self> {
        Some(Self { id: DocumentId::of_row(&row.id)?, row, embedded: None })
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Embedded<'a> {
            versions: Vec<Shown<'a>>,
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("Id", self.id.path())?;
        map.serialize_entry("Type", self.id.level().name())?;
        for (name, value) in self.row.value.fields.iter() {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("_links", &Links { own: Link { href: href(&self.id) } })?;
        if let Some(rows) = self.embedded {
            let versions = rows.iter().filter_map(|row| Shown::of(row)).collect();
            map.serialize_entry("_embedded", &Embedded { versions })?;
        }
        map.end()
    }
}

/// `/datasets/{dataset}/versions/{version}/…`.
fn href(id: &DocumentId) -> String {
    let mut href = String::new();
    let mut level = Some(Level::Dataset);
    for name in id.path().split('/') {
        let Some(here) = level else { break };
        href.push('/');
        href.push_str(here.plural());
        href.push('/');
        href.push_str(name);
        level = here.below();
    }
    href
}

async fn list(State(ingest): State<Arc<Ingest>>, path: Names) -> Response {
    let rows = match parent(&ingest, &path) {
        Named::Root => ingest.catalog.datasets(),
        Named::Document(id) if ingest.catalog.document(&id).is_some() => ingest.catalog.documents_below(&id),
        Named::Document(_) | Named::Nothing(_) => Vec::new(),
    };
    let bytes = rows.iter().map(|row| row.value.fields.bytes() + 128).sum();
    let shown: Vec<Shown<'_>> = rows.iter().filter_map(|row| Shown::of(row)).collect();
    answered(json_of_about(bytes, StatusCode::OK, &shown).map_err(|error| Refused::of(error, "reading")))
}

async fn show(State(ingest): State<Arc<Ingest>>, path: Names, RawQuery(query): RawQuery) -> Response {
    answered(shown(&ingest, &path, query.as_deref().unwrap_or_default()))
}

fn shown(ingest: &Ingest, path: &Names, query: &str) -> Result<Response, Refused> {
    let id = named(ingest, path)?;
    let row = ingest.document(&id).map_err(|error| Refused::of(error, "reading"))?;
    let is_embedding =
        form_urlencoded::parse(query.as_bytes()).any(|pair| pair == ("embed".into(), "versions".into()));
    let below = (is_embedding && id.level() == Level::Dataset).then(|| ingest.catalog.documents_below(&id));
    let shown = Shown { id, row: &row, embedded: below.as_deref() };
    json_of_about(row.value.fields.bytes() + 128, StatusCode::OK, &shown)
        .map_err(|error| Refused::of(error, "reading"))
}

async fn create(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Caller>,
    path: Names,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let caller = match caller.0 {
        Ok(caller) => caller,
        Err(denial) => return denied(denial),
    };
    answered(created(&ingest, &caller, &path, (&headers, body)).await)
}

async fn created(
    ingest: &Ingest,
    caller: &Principal,
    path: &Names,
    body: (&HeaderMap, Body),
) -> Result<Response, Refused> {
    let parent = parent(ingest, path);
    let level = match &parent {
        Named::Root => Level::Dataset,
        Named::Document(id) => id.level().below().unwrap_or(Level::Distribution),
        Named::Nothing(level) => level.below().unwrap_or(Level::Distribution),
    };
    let doing = format!("creating {}", level.name().to_ascii_lowercase());
    let fields = read(ingest, body, &doing).await?;
    let id = match parent {
        Named::Root => ingest.create_dataset(caller, fields).await,
        Named::Document(parent) => ingest.create_below(caller, &parent, fields).await,
        Named::Nothing(level) => Err(Error::new(
            Kind::Invalid,
            format!("the {} does not exist", level.name().to_ascii_lowercase()),
        )),
    };
    let id = id.map_err(|error| Refused::of(error, &doing))?;
    let mut response = json(StatusCode::OK, &id.path()).map_err(|error| Refused::of(error, &doing))?;
    if let Ok(location) = HeaderValue::try_from(href(&id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

async fn replace(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Caller>,
    path: Names,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let caller = match caller.0 {
        Ok(caller) => caller,
        Err(denial) => return denied(denial),
    };
    answered(replaced(&ingest, &caller, &path, (&headers, body)).await)
}

async fn replaced(
    ingest: &Ingest,
    caller: &Principal,
    path: &Names,
    body: (&HeaderMap, Body),
) -> Result<Response, Refused> {
    let id = named(ingest, path)?;
    let doing = format!("updating {}", id.level().name().to_ascii_lowercase());
    let fields = read(ingest, body, &doing).await?;
    ingest.replace_document(caller, &id, fields).await.map_err(|error| Refused::of(error, &doing))?;
    json(StatusCode::OK, &id.path()).map_err(|error| Refused::of(error, &doing))
}

async fn read(ingest: &Ingest, (headers, body): (&HeaderMap, Body), doing: &str) -> Result<Fields, Refused> {
    let (body, _charge) = ingest.read_body(headers, body, BODY).await?;
    parse(&body).map_err(|error| Refused::of(error, doing))
}

/// What a path names.
enum Named {
    Root,
    Document(DocumentId),
    /// `latest` where there is none yet, or a name that is no text.
    Nothing(Level),
}

/// What the names of a path stand for, outermost first; `latest` stands for what was made last.
fn parent(ingest: &Ingest, path: &Names) -> Named {
    let Ok(path) = path else { return Named::Nothing(Level::Dataset) };
    let mut id: Option<DocumentId> = None;
    for (_, name) in path {
        let level = id.as_ref().map_or(Some(Level::Dataset), |id| id.level().below());
        let name = Some(name).filter(|name| !name.contains('/'));
        let found = name.and_then(|name| match &id {
            None => Some(DocumentId::dataset(name)),
            Some(parent) => ingest.named_below(parent, name),
        });
        match found {
            Some(found) => id = Some(found),
            None => return Named::Nothing(level.unwrap_or(Level::Distribution)),
        }
    }
    id.map_or(Named::Root, Named::Document)
}

fn named(ingest: &Ingest, path: &Names) -> Result<DocumentId, Refused> {
    let level = match parent(ingest, path) {
        Named::Document(id) => return Ok(id),
        Named::Nothing(level) => level,
        Named::Root => Level::Dataset,
    };
    Err(Refused::new(StatusCode::NOT_FOUND, format!("{} not found.", level.name())))
}

fn answered(answer: Result<Response, Refused>) -> Response {
    answer.unwrap_or_else(|Refused { status, message }| {
        let response = json(status, &message).map_err(Refusal::from);
        response.unwrap_or_else(|refusal| refusal.into_response())
    })
}
