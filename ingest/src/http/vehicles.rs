//! `POST /post-gps`: positions of vehicles, as a gateway in front of a stream took them. Each request is one record.
//!
//! Clients of the original send their token as it is, without the word `Bearer`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::access::{ADMINISTRATOR, Caller, Denial, Peer};
use broker::catalog::{Draft, Edit, Stream, Table, TtlFrom};
use broker::{Error, Kind, Permission, Principal, Result, StreamName};
use http::StatusCode;
use http::header::AUTHORIZATION;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::openapi::OpenApi as Api;
use utoipa::{OpenApi, ToSchema};

use super::arrived::Arrived;
use super::media_type;
use super::message::{Message as Told, Refused, denied, said};
use crate::Ingest;
use crate::append::NewEvent;

/// The longest partition key, in characters.
const KEY_CHARACTERS_MAX: usize = 256;
/// The version of the stream.
const VERSION: &str = "1";
/// The digits before the point of a latitude; of a longitude, too, unless more are let in.
const DIGITS: usize = 2;
/// The digits before the point of a longitude from 100 degrees on.
const DIGITS_LONG: usize = 3;
/// The digits behind the point.
const DECIMALS: usize = 5;

/// How the surface is set up.
#[derive(Clone, Debug)]
pub struct VehicleSettings {
    /// What clients call the stream.
    pub stream_name: String,
    /// The dataset of the stream.
    pub dataset: String,
    /// The table of the positions.
    pub table: String,
    /// The partitions of the stream, when it is made.
    pub partitions: u32,
    /// How long a position is known, in seconds.
    pub ttl_seconds: u64,
    /// Whether longitudes from 100 degrees on are taken.
    pub long_longitudes: bool,
}

/// The door for positions of vehicles.
pub struct Vehicles {
    ingest: Arc<Ingest>,
    settings: VehicleSettings,
    stream: StreamName,
}

/// The body of a request: what is put into the stream. What else a put may have is passed over.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
#[schema(as = PutPosition)]
struct Put<'b> {
    /// The stream's name.
    #[serde(borrow)]
    #[schema(value_type = String)]
    stream_name: Option<&'b RawValue>,
    /// An object with the texts `latitude` and `longitude`, in base64.
    #[serde(borrow)]
    #[schema(value_type = String)]
    data: Option<&'b RawValue>,
    /// The vehicle's id: 1 to 256 characters.
    #[serde(borrow)]
    #[schema(value_type = String)]
    partition_key: Option<&'b RawValue>,
}

#[derive(OpenApi)]
#[openapi(paths(post_gps))]
struct Documented;

impl Vehicles {
    /// What it answers; it refuses by itself, in the words that its clients know.
    pub const PATHS: [&str; 1] = ["/post-gps"];

    /// Makes its stream with the table where they are missing, and changes them where they are otherwise.
    pub async fn new(ingest: Arc<Ingest>, settings: VehicleSettings) -> Result<Arc<Self>> {
        let stream = StreamName::new(&settings.dataset, VERSION)?;
        let vehicles = Self { ingest, settings, stream };
        vehicles.make_stream().await?;
        Ok(Arc::new(vehicles))
    }

    /// The HTTP door, for a [`Guard`](crate::auth::Guard) that leaves refusing to it.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().route("/post-gps", post(post_gps)).with_state(self.clone())
    }

    /// What it is.
    pub fn openapi() -> Api {
        Documented::openapi()
    }

    fn table(&self) -> Table {
        let VehicleSettings { table, ttl_seconds, .. } = &self.settings;
        Table {
            name: table.clone(),
            key: None,
            fields: Some(["busId", "latitude", "longitude"].map(str::to_owned).into()),
            transform: None,
            ttl_seconds: Some(*ttl_seconds),
            ttl_from: TtlFrom::Arrival,
        }
    }

    /// What becomes of a record that came by another door: one that is no position is a dead letter.
    fn transform(&self) -> String {
        let coordinate = |field: &str, digits: usize| {
            format!(
                "if !is_string(.{field}) || !match(string!(.{field}), r'^-?[0-9]{{1,{digits}}}\\.[0-9]{{{DECIMALS}}}$') \
                 {{ abort \"{field}: {}\" }}\n",
                expected(digits)
            )
        };
        let id = "if !is_string(.busId) || .busId == \"\" { abort \"busId: the vehicle's id is missing\" }\n";
        let (latitude, longitude) = (coordinate("latitude", DIGITS), coordinate("longitude", self.digits()));
        format!("{id}{latitude}{longitude}.")
    }

    /// The digits before the point of a longitude.
    fn digits(&self) -> usize {
        if self.settings.long_longitudes { DIGITS_LONG } else { DIGITS }
    }

    async fn make_stream(&self) -> Result<()> {
        let catalog = &self.ingest.catalog;
        let draft = Draft {
            dataset: self.settings.dataset.clone(),
            version: VERSION.to_owned(),
            partitions: Some(self.settings.partitions),
            key: Some("/busId".to_owned()),
            transform: Some(self.transform()),
            tables: vec![self.table()],
            ..Draft::default()
        };
        let made = match catalog.get(&self.stream) {
            Ok(stream) => self.update(&stream).await,
            Err(_) => catalog.create(draft, ADMINISTRATOR).await.map(drop),
        };
        match made {
            // Another process was quicker.
            Err(error) if error.kind() == Kind::Conflict && catalog.get(&self.stream).is_ok() => Ok(()),
            made => made.map_err(|error| error.context(format!("make the stream {}", self.stream))),
        }
    }

    /// Gives the stream that is there the table and the transform of the settings.
    async fn update(&self, stream: &Stream) -> Result<()> {
        let mut tables = stream.definition.tables.clone();
        match tables.iter_mut().find(|table| table.name == self.settings.table) {
            Some(table) => *table = self.table(),
            None => tables.push(self.table()),
        }
        let transform = self.transform();
        let is_same = stream.definition.latest_transform().program.as_ref() == Some(&transform);
        if is_same && tables == stream.definition.tables {
            return Ok(());
        }
        let edit = Edit { tables: Some(tables), transform: Some(Some(transform)), ..Edit::default() };
        self.ingest.catalog.change(&self.stream, edit, ADMINISTRATOR).await.map(drop)
    }

    /// Who sends it: a bearer, or a token as it is.
    async fn sender(
        &self,
        caller: Result<Principal, Denial>,
        presented: Option<(Vec<u8>, Peer)>,
    ) -> Result<Principal, Denial> {
        match (caller, presented) {
            (Err(Denial::Unsupported | Denial::Missing), Some((token, peer))) => {
                self.ingest.credentials.holder_of_token(&token, peer).await
            }
            (caller, _) => caller,
        }
    }

    /// The record that a body is, with its key.
    fn record(&self, body: &[u8]) -> Result<(Vec<u8>, String)> {
        let put: Put<'_> = serde_json::from_slice(body)
            .map_err(|error| Error::invalid("body", format!("this is no put of a record: {error}")))?;
        if text("StreamName", put.stream_name)? != self.settings.stream_name {
            let message = format!("the stream here is {}", self.settings.stream_name);
            return Err(Error::invalid("StreamName", message));
        }
        let key = text("PartitionKey", put.partition_key)?;
        if !(1..=KEY_CHARACTERS_MAX).contains(&key.chars().count()) {
            let message = format!("a partition key has 1 to {KEY_CHARACTERS_MAX} characters");
            return Err(Error::invalid("PartitionKey", message));
        }
        let data = STANDARD
            .decode(text("Data", put.data)?)
            .map_err(|error| Error::invalid("Data", format!("this is no base64: {error}")))?;
        Ok((self.position(&data, &key)?, key))
    }

    /// The position of a vehicle as a record; whatever else is said of it is kept.
    fn position(&self, data: &[u8], id: &str) -> Result<Vec<u8>> {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_slice(data)
            .map_err(|error| Error::invalid("Data", format!("this is no JSON object in base64: {error}")))?;
        for (field, digits) in [("latitude", DIGITS), ("longitude", self.digits())] {
            let text = text(field, fields.get(field).copied())?;
            if !is_coordinate(&text, digits) {
                return Err(Error::invalid(field, expected(digits)));
            }
        }
        let id = serde_json::value::to_raw_value(id).map_err(|_| Error::internal("write an id"))?;
        let mut record = vec![b'{'];
        let others = fields.iter().filter(|(name, _)| *name != "busId");
        for (name, value) in
            [("busId", &*id)].into_iter().chain(others.map(|(name, value)| (&**name, *value)))
        {
            if record.len() > 1 {
                record.push(b',');
            }
            serde_json::to_writer(&mut record, name).map_err(|_| Error::internal("write a record"))?;
            record.push(b':');
            record.extend(value.get().as_bytes());
        }
        record.push(b'}');
        Ok(record)
    }
}

/// A token that stands in the header as it is, and where it came from.
fn raw_token(request: &Request) -> Option<(Vec<u8>, Peer)> {
    let mut presented = request.headers().get_all(AUTHORIZATION).iter();
    let (Some(only), None) = (presented.next(), presented.next()) else { return None };
    let token = only.as_bytes().trim_ascii();
    let is_token = !token.is_empty() && !token.contains(&b' ');
    is_token.then(|| (token.to_vec(), request.extensions().get::<Peer>().copied().unwrap_or_default()))
}

/// A field that has to be a text.
fn text(field: &'static str, value: Option<&RawValue>) -> Result<String> {
    let value = value.ok_or_else(|| Error::invalid(field, "this is missing"))?;
    serde_json::from_str(value.get()).map_err(|_| Error::invalid(field, "this is a text"))
}

fn expected(digits: usize) -> String {
    format!("a text of up to {digits} digits, a point and {DECIMALS} digits is expected, such as 12.34567")
}

/// Whether a text is a number of degrees with that many digits before the point, and five behind it.
fn is_coordinate(text: &str, digits: usize) -> bool {
    let Some((whole, decimals)) = text.strip_prefix('-').unwrap_or(text).split_once('.') else {
        return false;
    };
    let are_digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    (1..=digits).contains(&whole.len())
        && decimals.len() == DECIMALS
        && are_digits(whole)
        && are_digits(decimals)
}

#[utoipa::path(
    post,
    path = "/post-gps",
    tag = "vehicles",
    operation_id = "postGps",
    summary = "Takes the position of a vehicle",
    security(("bearer" = []), ("rawToken" = [])),
    request_body = Put<'_>,
    responses(
        (status = 200, description = "It is durable", body = Told<'_>),
        (status = "4XX", description = "The request is refused", body = Told<'_>),
        (status = "5XX", description = "It cannot be done now", body = Told<'_>),
    ),
)]
async fn post_gps(
    State(vehicles): State<Arc<Vehicles>>,
    Extension(Caller(caller)): Extension<Caller>,
    request: Request,
) -> Response {
    let presented = raw_token(&request);
    let caller = match vehicles.sender(caller, presented).await {
        Ok(caller) => caller,
        Err(denial) => return denied(denial),
    };
    match append(&vehicles, &caller, request).await {
        Ok(response) => response,
        Err(refused) => refused.into_response(),
    }
}

async fn append(vehicles: &Arc<Vehicles>, caller: &Principal, request: Request) -> Result<Response, Refused> {
    let ingest = &vehicles.ingest;
    ingest.catalog.require(caller, vehicles.stream.dataset(), Permission::Write)?;
    if media_type(request.headers())?.as_deref().is_some_and(|media_type| media_type != "application/json") {
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Media Type"));
    }
    let stream = ingest.catalog.get(&vehicles.stream)?;
    let arrived = Arrived::read(ingest, request).await?;
    let taking = vehicles.clone();
    let prepare = move |ingest: &Ingest, body: &[u8]| {
        let (record, key) = taking.record(body)?;
        let event = NewEvent { value: &record, line: None, key: Some(key.as_bytes()) };
        Ok::<_, Refused>(ingest.prepare(&stream, vec![event], true)?)
    };
    let ready = arrived.prepare(prepare).await?;
    ingest.append(ready.prepared).await?;
    Ok(said(StatusCode::OK, "Success"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_texts_of_one_form() {
        for good in ["1.23456", "-12.34567", "99.99999", "00.00000"] {
            assert!(is_coordinate(good, DIGITS), "{good}");
        }
        let bad =
            ["", "1", "1.2345", "1.234567", "123.45678", ".12345", "+1.23456", "--1.23456", "1.23456\n"];
        for bad in bad.into_iter().chain(["١.23456", "1,23456", "1.2345a", " 1.23456", "1.-2345"]) {
            assert!(!is_coordinate(bad, DIGITS), "{bad:?}");
        }
        assert!(is_coordinate("-123.45678", DIGITS_LONG) && !is_coordinate("1234.56789", DIGITS_LONG));
    }
}
