//! `headwater.v1.Streams`.

use std::sync::Arc;

use broker::{DeadLetter, Error, Permission, catalog};
use proto::v1::streams_server;
use proto::v1::{
    CreateStreamRequest, DeleteStreamRequest, DeleteStreamResponse, GetStreamRequest, ListDeadLettersRequest,
    ListDeadLettersResponse, ListStreamsRequest, ListStreamsResponse, Position, ReplayDeadLettersRequest,
    ReplayDeadLettersResponse, Stream, UpdateStreamRequest,
};
use tonic::{Request, Response, Status};

use super::{caller, status, stream_name};
use crate::Ingest;
use crate::dead_letters::LIMIT_DEFAULT;
use crate::definition::{DEFINITION_BYTES_MAX, Shown, parse};

/// The service `headwater.v1.Streams`.
pub struct StreamsDoor {
    ingest: Arc<Ingest>,
}

impl StreamsDoor {
    pub(crate) fn new(ingest: Arc<Ingest>) -> Self {
        Self { ingest }
    }

    /// A stream whose dead letters the caller may see and replay.
    fn stream<T>(
        &self,
        request: &Request<T>,
        (dataset, version): (&str, &str),
    ) -> Result<Arc<catalog::Stream>, Status> {
        let (caller, name) = (caller(request)?, stream_name(dataset, version)?);
        self.ingest.stream(&caller, &name, Permission::Update).map_err(status)
    }
}

#[tonic::async_trait]
impl streams_server::Streams for StreamsDoor {
    async fn create(&self, request: Request<CreateStreamRequest>) -> Result<Response<Stream>, Status> {
        let caller = caller(&request)?;
        let json = request.into_inner().definition_json;
        let draft: catalog::Draft = parse(checked("definition_json", &json)?).map_err(status)?;
        let name = draft.name().map_err(status)?;
        self.ingest.catalog.require(&caller, name.dataset(), Permission::Update).map_err(status)?;
        let stream = self.ingest.catalog.create(draft, caller.name()).await.map_err(status)?;
        Ok(Response::new(shown(&stream)?))
    }

    async fn get(&self, request: Request<GetStreamRequest>) -> Result<Response<Stream>, Status> {
        let caller = caller(&request)?;
        let GetStreamRequest { dataset, version } = request.into_inner();
        let name = stream_name(&dataset, &version)?;
        let stream = self.ingest.visible_stream(&caller, &name).map_err(status)?;
        Ok(Response::new(shown(&stream)?))
    }

    async fn list(
        &self,
        request: Request<ListStreamsRequest>,
    ) -> Result<Response<ListStreamsResponse>, Status> {
        let streams = self.ingest.visible_streams(&caller(&request)?);
        let streams = streams.iter().map(|stream| shown(stream)).collect::<Result<_, _>>()?;
        Ok(Response::new(ListStreamsResponse { streams }))
    }

    async fn update(&self, request: Request<UpdateStreamRequest>) -> Result<Response<Stream>, Status> {
        let caller = caller(&request)?;
        let UpdateStreamRequest { dataset, version, change_json } = request.into_inner();
        let name = stream_name(&dataset, &version)?;
        self.ingest.stream(&caller, &name, Permission::Update).map_err(status)?;
        let edit = parse(checked("change_json", &change_json)?).map_err(status)?;
        let stream = self.ingest.catalog.change(&name, edit, caller.name()).await.map_err(status)?;
        Ok(Response::new(shown(&stream)?))
    }

    async fn delete(
        &self,
        request: Request<DeleteStreamRequest>,
    ) -> Result<Response<DeleteStreamResponse>, Status> {
        let caller = caller(&request)?;
        let DeleteStreamRequest { dataset, version } = request.into_inner();
        let name = stream_name(&dataset, &version)?;
        self.ingest.stream(&caller, &name, Permission::Update).map_err(status)?;
        self.ingest.catalog.delete(&name, caller.name()).await.map_err(status)?;
        Ok(Response::new(DeleteStreamResponse {}))
    }

    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        let ListDeadLettersRequest { dataset, version, .. } = request.get_ref();
        let stream = self.stream(&request, (dataset, version))?;
        let ListDeadLettersRequest { limit, cursor, .. } = request.into_inner();
        let limit = if limit == 0 { LIMIT_DEFAULT } else { limit as usize };
        let cursor = (!cursor.is_empty()).then_some(cursor.as_str());
        let page = self.ingest.dead_letters(&stream, limit, cursor).await.map_err(status)?;
        let dead_letters = page.letters.into_iter().map(letter).collect();
        Ok(Response::new(ListDeadLettersResponse { dead_letters, cursor: page.cursor.unwrap_or_default() }))
    }

    async fn replay_dead_letters(
        &self,
        request: Request<ReplayDeadLettersRequest>,
    ) -> Result<Response<ReplayDeadLettersResponse>, Status> {
        let ReplayDeadLettersRequest { dataset, version } = request.get_ref();
        let stream = self.stream(&request, (dataset, version))?;
        let replayed = self.ingest.replay_dead_letters(&stream).await.map_err(status)?;
        Ok(Response::new(ReplayDeadLettersResponse { replayed }))
    }
}

/// A definition of at most the size that is taken over HTTP.
fn checked<'j>(field: &str, json: &'j str) -> Result<&'j [u8], Status> {
    if json.len() > DEFINITION_BYTES_MAX {
        let message = format!("a definition has at most {DEFINITION_BYTES_MAX} bytes");
        return Err(status(Error::new(broker::Kind::TooLarge, message).with_field(field)));
    }
    Ok(json.as_bytes())
}

fn shown(stream: &catalog::Stream) -> Result<Stream, Status> {
    let definition = &stream.definition;
    let definition_json = serde_json::to_string(&Shown::of(stream))
        .map_err(|error| status(Error::internal("encode the stream").with_source(error)))?;
    Ok(Stream {
        dataset: definition.dataset.clone(),
        version: definition.version.clone(),
        confidentiality: definition.confidentiality.name().to_owned(),
        partitions: definition.partitions,
        definition_json,
        config_version: definition.config_version,
    })
}

fn letter(letter: DeadLetter) -> proto::v1::DeadLetter {
    proto::v1::DeadLetter {
        origin: Some(Position { partition: letter.origin.partition.0, offset: letter.origin.offset.0 }),
        reason: letter.reason,
        transform_version: letter.transform_version,
        timestamp_micros: letter.time.micros(),
        value: letter.value,
    }
}
