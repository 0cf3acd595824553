//! Documents that describe datasets, versions, editions and distributions, as the metadata API that this one
//! stands in for has them, in two dialects: as it was first at `/datasets`, and as it is later at
//! `/metadata/datasets` (ADR 0080). What is sent is kept and answered as it is; `Id`, `Type` and `_links` are
//! added. Reading needs no credential.

pub(super) mod documented;
mod refused;

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, RawQuery, Request, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use broker::access::Caller;
use broker::catalog::Row;
use broker::metadata::{Document, DocumentId, Fields, Level, parse};
use broker::{Error, Kind, Permission, Principal, Result};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use tower_http::cors::{Any, CorsLayer};

use self::refused::{About, Refused, denied};
use super::{json, json_of_about};
use crate::Ingest;
use crate::body::BodyLimit;
use crate::metadata::{DOCUMENT_BYTES_MAX, check_described, check_lasting, with_defaults};

/// How a root answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// With ids and texts.
    First,
    /// With documents and objects; what streams depend on is checked, and a dataset begins with a version.
    Later,
}

const ROOTS: [(&str, Dialect); 2] = [("", Dialect::First), ("/metadata", Dialect::Later)];
/// What documents there are, each with the path to those below it.
const BELOW: [(&str, &str); 4] =
    [("dataset", "/versions"), ("version", "/editions"), ("edition", "/distributions"), ("distribution", "")];
const BODY: BodyLimit = BodyLimit { name: "document_bytes_max", bytes_max: 2 * DOCUMENT_BYTES_MAX };

pub(super) fn router() -> Router<Arc<Ingest>> {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH])
        .allow_headers([AUTHORIZATION, CONTENT_TYPE])
        .expose_headers([LOCATION]);
    ROOTS
        .into_iter()
        .map(|(root, dialect)| rooted(root, dialect))
        .fold(Router::new(), Router::merge)
        .layer(cors)
}

fn rooted(root: &str, dialect: Dialect) -> Router<Arc<Ingest>> {
    let mut path = format!("{root}/datasets");
    let mut router = Router::new().route(&path, get(list).post(create));
    for (one, below) in BELOW {
        path = format!("{path}/{{{one}}}");
        let mut methods = get(show).put(replace);
        if one == "dataset" && dialect == Dialect::Later {
            methods = methods.patch(merge);
        }
        router = router.route(&path, methods);
        if !below.is_empty() {
            path.push_str(below);
            router = router.route(&path, get(list).post(create));
        }
    }
    router.layer(Extension(dialect))
}

/// Where a request goes.
struct Place {
    dialect: Dialect,
    /// The names in the path, outermost first; none where they are no text.
    names: Option<Vec<String>>,
}

impl<S: Send + Sync> FromRequestParts<S> for Place {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let dialect = parts.extensions.get().copied().unwrap_or(Dialect::First);
        let names = RawPathParams::from_request_parts(parts, state).await.ok();
        let names = names.map(|names| names.iter().map(|(_, name)| name.to_owned()).collect());
        Ok(Self { dialect, names })
    }
}

impl Place {
    fn about<'a>(&'a self, doing: &'a str) -> About<'a> {
        let dataset = self.names.as_deref().and_then(<[_]>::first);
        About { dialect: self.dialect, doing, dataset: dataset.map_or("", String::as_str) }
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

async fn list(State(ingest): State<Arc<Ingest>>, place: Place) -> Response {
    let rows = match parent(&ingest, &place) {
        Named::Root => ingest.catalog.datasets(),
        Named::Document(id) if ingest.catalog.document(&id).is_some() => ingest.catalog.documents_below(&id),
        Named::Document(_) | Named::Nothing(_) => Vec::new(),
    };
    let bytes = rows.iter().map(|row| row.value.fields.bytes() + 128).sum();
    let shown: Vec<Shown<'_>> = rows.iter().filter_map(|row| Shown::of(row)).collect();
    let answer = json_of_about(bytes, StatusCode::OK, &shown);
    answered(answer.map_err(|error| Refused::of(place.about("reading"), error)))
}

async fn show(State(ingest): State<Arc<Ingest>>, place: Place, RawQuery(query): RawQuery) -> Response {
    answered(shown(&ingest, &place, query.as_deref().unwrap_or_default()))
}

fn shown(ingest: &Ingest, place: &Place, query: &str) -> Result<Response, Refused> {
    let id = named(ingest, place)?;
    let refused = |error| Refused::of(place.about("reading"), error);
    let row = ingest.document(&id).map_err(refused)?;
    let is_embedding =
        form_urlencoded::parse(query.as_bytes()).any(|pair| pair == ("embed".into(), "versions".into()));
    let below = (is_embedding && id.level() == Level::Dataset).then(|| ingest.catalog.documents_below(&id));
    let shown = Shown { id, row: &row, embedded: below.as_deref() };
    json_of_about(row.value.fields.bytes() + 128, StatusCode::OK, &shown).map_err(refused)
}

/// A document as it is now.
fn whole(ingest: &Ingest, id: DocumentId, status: StatusCode) -> Result<Response> {
    let row = ingest.document(&id)?;
    json_of_about(row.value.fields.bytes() + 128, status, &Shown { id, row: &row, embedded: None })
}

/// A request that changes something, from somebody who is known.
struct Change {
    ingest: Arc<Ingest>,
    caller: Principal,
    place: Place,
}

/// What it comes with.
struct Sent {
    headers: HeaderMap,
    body: Body,
}

impl Change {
    fn of(
        ingest: Arc<Ingest>,
        Caller(caller): Caller,
        place: Place,
        request: Request,
    ) -> Result<(Self, Sent), Box<Response>> {
        let caller = caller.map_err(|denial| Box::new(denied(place.dialect, denial)))?;
        let (head, body) = request.into_parts();
        Ok((Self { ingest, caller, place }, Sent { headers: head.headers, body }))
    }

    /// In the later dialect those who may not change the dataset are told so before all else.
    fn authorize(&self) -> Result<(), Refused> {
        let about = self.place.about("reading");
        let catalog = &self.ingest.catalog;
        if about.dialect == Dialect::First || about.dataset.is_empty() {
            return Ok(());
        }
        if catalog.document(&DocumentId::dataset(about.dataset)).is_none() {
            return Err(Refused::no_dataset(about.dataset));
        }
        let may = catalog.require(&self.caller, about.dataset, Permission::Update);
        may.map_err(|error| Refused::of(about, error))
    }

    async fn read(&self, sent: Sent, doing: &str) -> Result<Fields, Refused> {
        let body = self.ingest.read_body(&sent.headers, sent.body, BODY).await;
        let (body, _charge) = body.map_err(|refusal| Refused::body(self.place.dialect, refusal))?;
        parse(&body).map_err(|error| Refused::of(self.place.about(doing), error))
    }
}

async fn create(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Caller>,
    place: Place,
    request: Request,
) -> Response {
    match Change::of(ingest, caller, place, request) {
        Ok((change, sent)) => answered(change.create(sent).await),
        Err(denied) => *denied,
    }
}

impl Change {
    async fn create(self, sent: Sent) -> Result<Response, Refused> {
        self.authorize()?;
        let parent = parent(&self.ingest, &self.place);
        let level = match &parent {
            Named::Root => Level::Dataset,
            Named::Document(id) => id.level().below().unwrap_or(Level::Distribution),
            Named::Nothing(level) => level.below().unwrap_or(Level::Distribution),
        };
        let doing = format!("creating {}", level.name().to_ascii_lowercase());
        let fields = self.read(sent, &doing).await?;
        let refused = |error| Refused::of(self.place.about(&doing), error);
        let id = self.made(parent, fields).await.map_err(refused)?;
        let location = HeaderValue::try_from(href(&id));
        let mut response = match self.place.dialect {
            Dialect::First => json(StatusCode::OK, &id.path()),
            Dialect::Later => whole(&self.ingest, id, StatusCode::CREATED),
        }
        .map_err(refused)?;
        if let Ok(location) = location {
            response.headers_mut().insert(LOCATION, location);
        }
        Ok(response)
    }

    async fn made(&self, parent: Named, fields: Fields) -> Result<DocumentId> {
        match (parent, self.place.dialect) {
            (Named::Root, Dialect::First) => self.ingest.create_dataset(&self.caller, fields, None).await,
            (Named::Root, Dialect::Later) => {
                check_described(Level::Dataset, &fields)?;
                let (fields, version) = with_defaults(fields)?;
                self.ingest.create_dataset(&self.caller, fields, Some(version)).await
            }
            (Named::Document(parent), _) => self.ingest.create_below(&self.caller, &parent, fields).await,
            (Named::Nothing(level), _) => {
                let message = format!("the {} does not exist", level.name().to_ascii_lowercase());
                Err(Error::new(Kind::Invalid, message))
            }
        }
    }
}

async fn replace(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Caller>,
    place: Place,
    request: Request,
) -> Response {
    match Change::of(ingest, caller, place, request) {
        Ok((change, sent)) => answered(change.replace(sent, false).await),
        Err(denied) => *denied,
    }
}

/// Replaces the fields that are sent, and no others.
async fn merge(
    State(ingest): State<Arc<Ingest>>,
    Extension(caller): Extension<Caller>,
    place: Place,
    request: Request,
) -> Response {
    match Change::of(ingest, caller, place, request) {
        Ok((change, sent)) => answered(change.replace(sent, true).await),
        Err(denied) => *denied,
    }
}

impl Change {
    async fn replace(self, sent: Sent, is_partial: bool) -> Result<Response, Refused> {
        self.authorize()?;
        let id = named(&self.ingest, &self.place)?;
        let doing = format!("updating {}", id.level().name().to_ascii_lowercase());
        let fields = self.read(sent, &doing).await?;
        let refused = |error| Refused::of(self.place.about(&doing), error);
        let (ingest, dialect) = (&self.ingest, self.place.dialect);
        let kept = |before: &Fields| {
            let fields = if is_partial { before.clone().merged(fields.clone()) } else { fields.clone() };
            if dialect == Dialect::Later {
                check_described(id.level(), &fields)?;
                check_lasting(before, &fields)?;
            }
            Ok(fields)
        };
        ingest.replace_document(&self.caller, &id, kept).await.map_err(refused)?;
        match dialect {
            Dialect::First => json(StatusCode::OK, &id.path()),
            Dialect::Later => whole(ingest, id.clone(), StatusCode::OK),
        }
        .map_err(refused)
    }
}

/// What a path names.
enum Named {
    Root,
    Document(DocumentId),
    /// `latest` where there is none yet, or a name that is no text.
    Nothing(Level),
}

/// What the names of a path stand for, outermost first; `latest` stands for what was made last.
fn parent(ingest: &Ingest, place: &Place) -> Named {
    let Some(names) = &place.names else { return Named::Nothing(Level::Dataset) };
    let mut id: Option<DocumentId> = None;
    for name in names {
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

fn named(ingest: &Ingest, place: &Place) -> Result<DocumentId, Refused> {
    let level = match parent(ingest, place) {
        Named::Document(id) => return Ok(id),
        Named::Nothing(level) => level,
        Named::Root => Level::Dataset,
    };
    Err(Refused::missing(place.dialect, level.name()))
}

fn answered(answer: Result<Response, Refused>) -> Response {
    answer.unwrap_or_else(Refused::into_response)
}
