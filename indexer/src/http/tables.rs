//! `/api/v1/tables`: rows of keyed tables, by key, by several keys or in the order of keys.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker::catalog::Table;
use broker::{Error, Kind, Offset, Partition, Permission, Principal, Result, ResultExt as _, Timestamp};
use http::Uri;
use proto::problem::ProblemBody;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Refusal;
use super::events::{answer, json, parameters};
use crate::index::Indexer;
use crate::table::{OpenTable, Row, Through, check_keys, page_rows};

/// What a row takes in an answer, beside its value.
const ROW_BYTES: usize = 256;

type NamePath = std::result::Result<Path<String>, PathRejection>;
type KeyPath = std::result::Result<Path<(String, String)>, PathRejection>;

#[derive(Serialize, ToSchema)]
#[schema(as = Tables)]
pub(super) struct TablesJson {
    tables: Vec<TableJson>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TableOfStream)]
struct TableJson {
    name: String,
    dataset: String,
    version: String,
    definition: Table,
}

/// A row. A key that is not UTF-8 shows what of it is.
#[derive(Serialize, ToSchema)]
#[schema(as = TableRow)]
pub(super) struct RowJson<'r> {
    #[schema(value_type = String)]
    key: Cow<'r, str>,
    #[schema(value_type = Object)]
    value: &'r RawValue,
    /// When its record arrived.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// The event's own time.
    #[schema(value_type = String, format = DateTime)]
    timestamp: Timestamp,
    /// When the row ends, if it does.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// The raw record that it was made of.
    position: Position,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RecordPosition)]
struct Position {
    partition: u32,
    offset: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TableRowAnswer)]
pub(super) struct RowAnswer<'r> {
    #[serde(flatten)]
    row: RowJson<'r>,
    complete_through: Vec<Through>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = TableRows)]
pub(super) struct RowsJson<'r> {
    rows: Vec<RowJson<'r>>,
    cursor: Option<String>,
    complete_through: Vec<Through>,
}

#[utoipa::path(
    get,
    path = "/api/v1/tables",
    tag = "tables",
    operation_id = "listTables",
    summary = "Lists the keyed tables that you may read",
    responses(
        (status = 200, description = "The tables by name", body = TablesJson),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn all(
    State(indexer): State<Arc<Indexer>>,
    Extension(caller): Extension<Principal>,
) -> Result<Response, Refusal> {
    let mut tables = Vec::new();
    for stream in indexer.catalog.list() {
        let dataset = stream.name().dataset();
        let may = indexer.catalog.require(&caller, dataset, Permission::Read).is_ok();
        for table in stream.definition.tables.iter().filter(|_| may) {
            let (dataset, version) = (dataset.to_owned(), stream.name().version().to_owned());
            let (name, definition) = (table.name.clone(), table.clone());
            tables.push(TableJson { name, dataset, version, definition });
        }
    }
    tables.sort_by(|one, other| one.name.cmp(&other.name));
    let bytes = tables.len() * ROW_BYTES;
    Ok(answer("application/json", json(bytes, &TablesJson { tables })?.into()))
}

#[utoipa::path(
    get,
    path = "/api/v1/tables/{name}/{key}",
    tag = "tables",
    operation_id = "readTable",
    summary = "Reads the row of a key",
    params(
        ("name" = String, Path, description = "The table's name", pattern = "^[a-z0-9][a-z0-9_-]{0,69}$"),
        ("key" = String, Path, description = "The key"),
        ("min_position" = Option<String>, Query, description = "A raw record, `partition:offset`, that is waited for", pattern = "^[0-9]{1,4}:[0-9]{1,19}$"),
    ),
    responses(
        (status = 200, description = "The row", body = RowAnswer),
        (status = "4XX", description = "The request is refused, or there is no such row", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn row(
    State(indexer): State<Arc<Indexer>>,
    Extension(caller): Extension<Principal>,
    path: KeyPath,
    uri: Uri,
) -> Result<Response, Refusal> {
    let Path((name, key)) = path.map_err(|error| Error::invalid("path", error.body_text()))?;
    let mut parameters = parameters(&uri, &["min_position"])?;
    let table = open(&indexer, (&caller, &name), &mut parameters).await?;
    let complete_through = table.complete_through();
    let row = indexer.tables.get(&table, key.as_bytes())?;
    let row = row.ok_or_else(|| Error::not_found(format!("table {name} has no row of this key")))?;
    let bytes = ROW_BYTES + row.value.as_ref().map_or(0, bytes::Bytes::len);
    let row = shown(key.as_bytes(), &row)?;
    Ok(answer("application/json", json(bytes, &RowAnswer { row, complete_through })?.into()))
}

#[utoipa::path(
    get,
    path = "/api/v1/tables/{name}",
    tag = "tables",
    operation_id = "listTable",
    summary = "Reads the rows of several keys, or rows in the order of their keys",
    params(
        ("name" = String, Path, description = "The table's name", pattern = "^[a-z0-9][a-z0-9_-]{0,69}$"),
        ("keys" = Option<String>, Query, description = "Up to 100 keys with commas between them; a comma in a key is `%2C`"),
        ("prefix" = Option<String>, Query, description = "What the keys begin with"),
        ("limit" = Option<u32>, Query, description = "The most rows", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "The cursor of the page before"),
        ("min_position" = Option<String>, Query, description = "A raw record, `partition:offset`, that is waited for", pattern = "^[0-9]{1,4}:[0-9]{1,19}$"),
    ),
    responses(
        (status = 200, description = "The rows that are there", body = RowsJson),
        (status = "4XX", description = "The request is refused", body = ProblemBody),
        (status = "5XX", description = "It cannot be done now", body = ProblemBody),
    ),
)]
pub(super) async fn rows(
    State(indexer): State<Arc<Indexer>>,
    Extension(caller): Extension<Principal>,
    path: NamePath,
    uri: Uri,
) -> Result<Response, Refusal> {
    let Path(name) = path.map_err(|error| Error::invalid("path", error.body_text()))?;
    let mut parameters = parameters(&uri, &["keys", "prefix", "limit", "cursor", "min_position"])?;
    let table = open(&indexer, (&caller, &name), &mut parameters).await?;
    let complete_through = table.complete_through();
    let (found, after) = if parameters.contains_key("keys") {
        if let Some(other) = parameters.keys().find(|name| *name != "keys") {
            return Err(Error::invalid(other, "rows of named keys have no order").into());
        }
        let mut found = Vec::new();
        for key in keys(&uri)? {
            found.extend(indexer.tables.get(&table, &key)?.map(|row| (key, row)));
        }
        (found, None)
    } else {
        let limit = limit(parameters.remove("limit"))?;
        let after = parameters.remove("cursor").map(|text| cursor(&text)).transpose()?;
        let prefix = parameters.remove("prefix").unwrap_or_default().into_bytes();
        let listed = indexer.tables.list(&table, (prefix, after), limit).await?;
        (listed.rows, listed.after)
    };
    let sizes = found.iter().map(|(_, row)| ROW_BYTES + row.value.as_ref().map_or(0, bytes::Bytes::len));
    let bytes = sizes.sum();
    let rows = found.iter().map(|(key, row)| shown(key, row)).collect::<Result<_>>()?;
    let cursor = after.map(|after| URL_SAFE_NO_PAD.encode(after));
    Ok(answer("application/json", json(bytes, &RowsJson { rows, cursor, complete_through })?.into()))
}

/// The table, if the caller may read it, once it has what is to be waited for.
async fn open(
    indexer: &Indexer,
    (caller, name): (&Principal, &str),
    parameters: &mut BTreeMap<String, String>,
) -> Result<OpenTable> {
    let min_position = parameters.remove("min_position").map(|text| position(&text)).transpose()?;
    indexer.table_for(caller, name, min_position).await
}

fn position(text: &str) -> Result<(Partition, Offset)> {
    let read = || {
        let (partition, offset) = text.split_once(':')?;
        Some((Partition(partition.parse().ok()?), Offset(offset.parse().ok()?)))
    };
    read().ok_or_else(|| Error::invalid("min_position", "a position is partition:offset"))
}

fn limit(text: Option<String>) -> Result<usize> {
    let limit =
        text.map(|text| text.parse().map_err(|_| Error::invalid("limit", "the limit is a whole number")));
    page_rows(limit.transpose()?)
}

fn cursor(text: &str) -> Result<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::invalid("cursor", "this is no cursor of a page"))
}

/// The keys that are asked for. Commas part them as they stand in the query, before it is decoded.
fn keys(uri: &Uri) -> Result<Vec<Vec<u8>>> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let raw = pairs.filter_map(|pair| pair.strip_prefix("keys=")).next().unwrap_or_default();
    let decode = |text: &str| {
        let pair = format!("k={text}");
        let decoded = form_urlencoded::parse(pair.as_bytes()).next();
        decoded.map_or(Vec::new(), |(_, key)| key.into_owned().into_bytes())
    };
    let keys: Vec<Vec<u8>> = raw.split(',').map(decode).collect();
    check_keys(keys.len())?;
    Ok(keys)
}

fn shown<'r>(key: &'r [u8], row: &'r Row) -> Result<RowJson<'r>> {
    let position = Position { partition: row.partition(), offset: row.offset().0 };
    let value = row.value.as_deref().unwrap_or_default();
    Ok(RowJson {
        key: String::from_utf8_lossy(key),
        value: serde_json::from_slice(value).or_error(Kind::Corrupt, "read a row")?,
        updated_at: row.arrival,
        timestamp: row.time,
        expires_at: row.expires,
        position,
    })
}
