//! Following a stream: its processed topic, read past its end. Each partition is in order; between
//! partitions there is none.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use broker::catalog::Stream;
use broker::{
    Error, Kind, Log, Offset, Partition, Permission, Place, Position, Principal, Result, Stage, StreamName,
    Timestamp,
};
use bytes::Bytes;
use futures::stream::{self, SelectAll};
use futures::{Stream as Events, StreamExt};
use proto::v1;
use proto::v1::follow_request::From;

use crate::follow::subscription::Subscriber;
use crate::follow::{Follower, Form, Rendered};
use crate::index::Indexer;
use crate::query::permit;

/// Frames of events as they are processed, until the process stops or the stream is deleted.
pub(super) async fn follow(
    indexer: &Indexer,
    caller: &Principal,
    request: v1::FollowRequest,
) -> Result<impl Events<Item = Result<Bytes>> + Send + use<>> {
    let name = StreamName::new(&request.dataset, &request.version)?;
    indexer.catalog.require(caller, name.dataset(), Permission::Read)?;
    let stream = match indexer.catalog.get(&name) {
        Ok(stream) => stream,
        Err(_) => {
            indexer.catalog.refresh().await?;
            indexer.catalog.get(&name)?
        }
    };
    let permit = permit(&indexer.followers_open, "followers")?;
    let mut partitions = Vec::new();
    for start in starts(indexer.log.as_ref(), &stream, request.from).await? {
        let end = indexer.log.bounds(&start.place).await?.end;
        let life = stream.definition.incarnation;
        partitions
            .push(frames(indexer.tails.follow(&indexer.log, (life, Form::Messages), start, end)).boxed());
    }
    let all: SelectAll<_> = stream::select_all(partitions);
    let forbidden = forbidden(indexer, caller.clone(), name.dataset().to_owned());
    let all = stream::select(all, stream::once(forbidden).map(Err));
    let stop = indexer.shutdown.clone();
    Ok(all.take_until(stop.cancelled_owned()).map(move |frames| {
        let _held = &permit;
        frames
    }))
}

/// Waits until a caller may not read any more.
fn forbidden(
    indexer: &Indexer,
    caller: Principal,
    dataset: String,
) -> impl Future<Output = Error> + Send + use<> {
    let (catalog, clock) = (Arc::clone(&indexer.catalog), Arc::clone(&indexer.clock));
    let (mut changes, reader) = (catalog.watch(), Subscriber::Principal(caller));
    async move {
        while reader.may_read(&catalog, &dataset, clock.now()) {
            if changes.changed().await.is_err() {
                return Error::unavailable("the catalog is not read any more");
            }
        }
        Error::new(Kind::Forbidden, format!("this caller has no permission to read {dataset} any more"))
    }
}

/// What comes of one partition; an error is the last. Who is not sent what retention removed is told so: a
/// stream of events has no other words for it.
fn frames(follower: Follower) -> impl Events<Item = Result<Bytes>> + Send {
    stream::unfold(Some(follower), |follower| async {
        let mut follower = follower?;
        Some(match follower.next().await {
            Ok(Rendered { missed: Some(missed), .. }) => (Err(removed(follower.place(), &missed)), None),
            Ok(chunk) => (Ok(chunk.frames), Some(follower)),
            Err(error) => (Err(error), None),
        })
    })
}

fn removed(place: &Place, missed: &Range<Offset>) -> Error {
    let (partition, from, next) = (place.partition, missed.start, missed.end);
    let message = format!(
        "retention has removed offsets {from} to {next} of partition {partition}, follow from {next}"
    );
    Error::invalid("positions", message)
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
