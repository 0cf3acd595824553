//! Following a stream: its processed topic, read past its end. Each partition is in order; between
//! partitions there is none.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker::catalog::Stream;
use broker::{Error, Log, Offset, Partition, Place, Position, Result, Stage, StreamName, Timestamp};
use futures::stream::{self, SelectAll};
use futures::{Stream as Events, StreamExt};
use proto::v1;
use proto::v1::follow_request::From;

use super::followed;
use crate::index::Indexer;
use crate::query::permit;

/// How much is read from one partition at once.
const READ_BYTES_MAX: usize = 256 << 10;

/// Events as they are processed, until the process stops or the stream is deleted.
pub(super) async fn follow(
    indexer: Arc<Indexer>,
    request: v1::FollowRequest,
) -> Result<impl Events<Item = Result<v1::Event>> + Send + use<>> {
    let name = StreamName::new(&request.dataset, &request.version)?;
    let stream = match indexer.catalog.get(&name) {
        Ok(stream) => stream,
        Err(_) => {
            indexer.catalog.refresh().await?;
            indexer.catalog.get(&name)?
        }
    };
    let permit = permit(&indexer.streams_open, "followers")?;
    let starts = starts(indexer.log.as_ref(), &stream, request.from).await?;
    let partitions = starts.into_iter().map(|start| read(Arc::clone(&indexer.log), start).boxed());
    let events: SelectAll<_> = stream::select_all(partitions);
    let stop = indexer.shutdown.clone();
    Ok(events.take_until(stop.cancelled_owned()).map(move |event| {
        let _held = &permit;
        event
    }))
}

/// Where each partition is read from.
async fn starts(log: &dyn Log, stream: &Stream, from: Option<From>) -> Result<Vec<Position>> {
    let mut wanted = BTreeMap::new();
    if let Some(From::Positions(positions)) = &from {
        for position in &positions.positions {
            let partition = Partition(position.partition);
            if partition.0 >= stream.definition.partitions {
                let message = format!("the stream has {} partitions", stream.definition.partitions);
                return Err(Error::invalid("positions", message));
            }
            wanted.insert(partition, Offset(position.offset));
        }
    }
    let mut starts = Vec::new();
    for partition in stream.partitions() {
        let place = Place::new(stream.topic(Stage::Processed), partition);
        let offset = match (&from, wanted.get(&partition)) {
            (_, Some(offset)) => *offset,
            (Some(From::ArrivalMicros(micros)), None) => {
                let time = Timestamp::from_micros(*micros).ok_or_else(|| {
                    Error::invalid("arrival_micros", "the time is outside the years 1 to 9999")
                })?;
                log.offset_at(&place, time).await?
            }
            (Some(From::Positions(_)) | None, None) => log.bounds(&place).await?.end,
        };
        starts.push(Position { place, offset });
    }
    Ok(starts)
}

fn read(log: Arc<dyn Log>, start: Position) -> impl Events<Item = Result<v1::Event>> + Send {
    async_stream::try_stream! {
        let Position { place, mut offset } = start;
        loop {
            log.wait_past(&place, offset).await?;
            let chunk = log.read(&Position { place: place.clone(), offset }, READ_BYTES_MAX).await?;
            for entry in &chunk.entries {
                yield followed(place.partition, entry);
            }
            offset = chunk.next.max(offset);
        }
    }
}
