//! `headwater.v1.Tables`: the rows of keyed tables, as over HTTP.

use std::sync::Arc;

use broker::{Error, Offset, Partition, Principal, Result};
use proto::v1;
use proto::v1::tables_server::TablesServer;
use tonic::{Request, Response, Status};

use super::{caller, place, status};
use crate::index::Indexer;
use crate::table::{OpenTable, Row, check_keys, page_rows};

/// The service.
pub struct Tables {
    pub(super) indexer: Arc<Indexer>,
}

impl Tables {
    pub(crate) fn server(indexer: Arc<Indexer>) -> TablesServer<Self> {
        TablesServer::new(Self { indexer })
    }

    async fn open(
        &self,
        caller: &Principal,
        (table, min_position): (&str, Option<v1::Position>),
    ) -> Result<OpenTable> {
        let min_position = min_position.map(|at| (Partition(at.partition), Offset(at.offset)));
        self.indexer.table_for(caller, table, min_position).await
    }

    async fn read(&self, caller: &Principal, request: v1::GetRowRequest) -> Result<v1::GetRowResponse> {
        let v1::GetRowRequest { table: name, key, min_position } = request;
        let table = self.open(caller, (&name, min_position)).await?;
        let complete_through = through(&table);
        let row = self.indexer.tables.get(&table, &key)?;
        let row = row.ok_or_else(|| Error::not_found(format!("table {name} has no row of this key")))?;
        Ok(v1::GetRowResponse { row: Some(shown(key.into(), row)), complete_through })
    }

    async fn read_all(
        &self,
        caller: &Principal,
        request: v1::BatchGetRowsRequest,
    ) -> Result<v1::ListRowsResponse> {
        check_keys(request.keys.len())?;
        let table = self.open(caller, (&request.table, request.min_position)).await?;
        let (complete_through, mut rows) = (through(&table), Vec::new());
        for key in request.keys {
            rows.extend(self.indexer.tables.get(&table, &key)?.map(|row| shown(key.into(), row)));
        }
        Ok(v1::ListRowsResponse { rows, cursor: bytes::Bytes::new(), complete_through })
    }

    async fn page(&self, caller: &Principal, request: v1::ListRowsRequest) -> Result<v1::ListRowsResponse> {
        let limit = page_rows(usize::try_from(request.limit).ok().filter(|limit| *limit > 0))?;
        let table = self.open(caller, (&request.table, request.min_position)).await?;
        let complete_through = through(&table);
        let after = Some(Vec::from(request.cursor)).filter(|after| !after.is_empty());
        let listed = self.indexer.tables.list(&table, (request.prefix.into(), after), limit).await?;
        let rows = listed.rows.into_iter().map(|(key, row)| shown(key, row)).collect();
        Ok(v1::ListRowsResponse { rows, cursor: listed.after.unwrap_or_default().into(), complete_through })
    }
}

#[tonic::async_trait]
impl v1::tables_server::Tables for Tables {
    async fn get(&self, request: Request<v1::GetRowRequest>) -> Result<Response<v1::GetRowResponse>, Status> {
        self.read(&caller(&request)?, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn batch_get(
        &self,
        request: Request<v1::BatchGetRowsRequest>,
    ) -> Result<Response<v1::ListRowsResponse>, Status> {
        self.read_all(&caller(&request)?, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn list(
        &self,
        request: Request<v1::ListRowsRequest>,
    ) -> Result<Response<v1::ListRowsResponse>, Status> {
        self.page(&caller(&request)?, request.into_inner()).await.map(Response::new).map_err(status)
    }
}

fn through(table: &OpenTable) -> Vec<v1::Position> {
    let through = table.complete_through().into_iter();
    through.map(|at| place(Partition(at.partition), Offset(at.offset))).collect()
}

fn shown(key: Vec<u8>, row: Row) -> v1::Row {
    let position = Some(place(Partition(row.partition()), row.offset()));
    v1::Row {
        key: key.into(),
        value: row.value.unwrap_or_default(),
        updated_micros: row.arrival.micros(),
        timestamp_micros: row.time.micros(),
        expires_micros: row.expires.map(broker::Timestamp::micros),
        position,
    }
}
