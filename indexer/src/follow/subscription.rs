//! A subscription: the events of all streams of a dataset that one can subscribe to, as they are processed.
//! Streams that are switched on, made or deleted meanwhile come and go with the catalog.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use broker::access::webhook::WebhookToken;
use broker::access::{Principal, User};
use broker::catalog::{Stream, Streams};
use broker::{
    Catalog, Error, Log, Offset, Partition, Permission, Place, Position, Result, Stage, StreamName, Timestamp,
};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream, SelectAll};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Follower, Form};
use crate::follow::tail::Rendered;
use crate::index::Indexer;
use crate::query::{Bounds, permit};

/// Who subscribes.
#[derive(Clone, Debug)]
pub(crate) enum Subscriber {
    /// Somebody with a permission to read.
    Principal(Principal),
    /// Whoever presented the webhook token of this row.
    Webhook(String),
}

/// Where a subscription begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// With what comes from now on.
    Now,
    /// With the first event that arrived then or later.
    Time(Timestamp),
    /// Where an earlier one had come to.
    Places(Places),
}

/// How far a subscription has come: of each partition of each version the offset of the next event. As
/// text `1/0:120,1/1:88`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places(BTreeMap<(String, Partition), Offset>);

/// Something that comes of a subscription.
#[derive(Debug)]
pub(crate) struct News {
    pub(crate) place: Place,
    pub(crate) chunk: Rendered,
}

/// Why there is no more.
#[derive(Debug)]
pub(crate) enum End {
    /// The process stops.
    Shutdown,
    /// Who subscribed may not any more.
    Forbidden,
    /// A stream cannot be read.
    Failed(Error),
}

/// What is subscribed to.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) dataset: String,
    pub(crate) since: Since,
    pub(crate) form: Form,
}

/// One who is sent what comes.
pub(crate) struct Subscription {
    indexer: Arc<Indexer>,
    subscriber: Subscriber,
    wanted: Wanted,
    changes: watch::Receiver<Arc<Streams>>,
    /// Whether the catalog has changed since the streams were chosen.
    is_stale: bool,
    followed: BTreeMap<StreamName, Followed>,
    at: Places,
    /// What is to be looked at before it goes on.
    broken: Option<Broken>,
    coming: SelectAll<BoxStream<'static, Result<News, Broken>>>,
    _permit: OwnedSemaphorePermit,
}

/// A partition that cannot be read any more.
#[derive(Debug)]
struct Broken {
    stream: StreamName,
    time: Time,
    error: Error,
}

/// A stream whose tails are followed until this is dropped.
struct Followed {
    time: Time,
    _until: DropGuard,
}

/// Which life of a stream it is, and since when one can subscribe to it.
type Time = (u64, Timestamp);

fn time_of(stream: &Stream) -> Time {
    (stream.definition.incarnation, stream.subscribable_switched().at)
}

impl Since {
    /// Reads `now`, a date, an instant or places. An error is one of `from`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "now" => Ok(Since::Now),
            text if text.contains('/') => Places::parse(text).map(Since::Places),
            text => Ok(Since::Time(Bounds::parse(Some(text), None)?.from)),
        }
    }
}

impl Places {
    fn parse(text: &str) -> Result<Self> {
        let read = |place: &str| {
            let (version, place) = place.split_once('/')?;
            let (partition, offset) = place.split_once(':')?;
            let place = (version.to_owned(), Partition(partition.parse().ok()?));
            Some((place, Offset(offset.parse().ok()?)))
        };
        let places: Option<_> = text.split(',').map(read).collect();
        let wrong = || Error::invalid("from", format!("{text:?} is no position such as 1/0:120,1/1:88"));
        places.map(Self).ok_or_else(wrong)
    }

    /// Takes a place in.
    pub(crate) fn set(&mut self, place: &Place, next: Offset) {
        self.0.insert((version(place).to_owned(), place.partition), next);
    }

    fn retain(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.0.retain(|(version, _), _| is_kept(version));
    }

    fn get(&self, place: &Place) -> Option<Offset> {
        self.0.get(&(version(place).to_owned(), place.partition)).copied()
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, ((version, partition), offset)) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{version}/{partition}:{offset}")?;
        }
        Ok(())
    }
}

/// The version of the stream that a partition is of.
pub(crate) fn version(place: &Place) -> &str {
    place.topic.stream().map_or("", |stream| stream.version())
}

impl Subscriber {
    /// Whether it still may.
    pub(crate) fn may_read(&self, catalog: &Catalog, dataset: &str, now: Timestamp) -> bool {
        match self {
            Subscriber::Principal(principal) => {
                let user = catalog.row::<User>(principal.name());
                let is_disabled = user.is_some_and(|user| user.value.is_disabled);
                !is_disabled && catalog.may(principal, dataset, Permission::Read)
            }
            Subscriber::Webhook(row) => catalog
                .row::<WebhookToken>(row)
                .is_some_and(|token| token.value.is_active && token.value.expires_at > now),
        }
    }
}

impl Subscription {
    /// Begins one. What is acked from now on comes, and what the subscriber asked for from before.
    pub(crate) async fn open(indexer: &Arc<Indexer>, subscriber: Subscriber, wanted: Wanted) -> Result<Self> {
        let permit = permit(&indexer.subscribers_open, "subscribers")?;
        indexer.catalog.refresh().await?;
        let mut subscription = Self {
            indexer: indexer.clone(),
            subscriber,
            wanted,
            changes: indexer.catalog.watch(),
            is_stale: true,
            followed: BTreeMap::new(),
            at: Places::default(),
            broken: None,
            coming: SelectAll::new(),
            _permit: permit,
        };
        let streams = subscription.changes.borrow_and_update().clone();
        for stream in subscription.open_in(&streams) {
            let since = subscription.wanted.since.clone();
            subscription.follow(&stream, &since).await?;
        }
        Ok(subscription)
    }

    /// How far it has come in every partition that is followed.
    pub(crate) fn at(&self) -> &Places {
        &self.at
    }

    /// What comes next. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<News, End> {
        loop {
            self.check()?;
            if self.broken.is_some() {
                self.outlive().await?;
            }
            if self.is_stale {
                self.choose().await.map_err(End::Failed)?;
            }
            let news = tokio::select! {
                biased;
                () = self.indexer.shutdown.cancelled() => return Err(End::Shutdown),
                changed = self.changes.changed() => {
                    changed.map_err(|_| End::Shutdown)?;
                    self.is_stale = true;
                    continue;
                }
                Some(news) = self.coming.next(), if !self.coming.is_empty() => news,
            };
            match news {
                Ok(news) => {
                    self.at.set(&news.place, news.chunk.offsets.end);
                    return Ok(news);
                }
                Err(broken) => self.broken = Some(broken),
            }
        }
    }

    /// Whether the subscriber still may read.
    pub(crate) fn check(&self) -> Result<(), End> {
        let (indexer, dataset) = (&self.indexer, &self.wanted.dataset);
        let may = self.subscriber.may_read(&indexer.catalog, dataset, indexer.clock.now());
        if may { Ok(()) } else { Err(End::Forbidden) }
    }

    /// Follows what can be subscribed to now, and lets go of the rest.
    async fn choose(&mut self) -> Result<()> {
        let streams = self.changes.borrow_and_update().clone();
        let open = self.open_in(&streams);
        // One that was switched off and on again was off, even if that is seen only now.
        let is_same = |name: &StreamName, followed: &Followed| {
            let stream = open.iter().find(|stream| stream.name() == name);
            stream.is_some_and(|stream| time_of(stream) == followed.time)
        };
        self.followed.retain(|name, followed| is_same(name, followed));
        self.at.retain(|version| self.followed.keys().any(|name| name.version() == version));
        for stream in open {
            if !self.followed.contains_key(stream.name()) {
                // What arrived since it was switched on: that was seen here a moment later.
                let since = Since::Time(stream.subscribable_switched().at);
                self.follow(&stream, &since).await?;
            }
        }
        self.is_stale = false;
        Ok(())
    }

    /// Goes on where the stream was deleted, which the log may know before the catalog.
    async fn outlive(&mut self) -> Result<(), End> {
        self.indexer.catalog.refresh().await.map_err(End::Failed)?;
        self.choose().await.map_err(End::Failed)?;
        let Some(Broken { stream, time, error }) = self.broken.take() else { return Ok(()) };
        let is_there = self.followed.get(&stream).is_some_and(|followed| followed.time == time);
        if is_there { Err(End::Failed(error)) } else { Ok(()) }
    }

    /// The dataset's streams that can be subscribed to.
    fn open_in(&self, streams: &Streams) -> Vec<Arc<Stream>> {
        let of_dataset = streams.of_dataset(&self.wanted.dataset);
        let is_open =
            |stream: &&Arc<Stream>| !stream.definition.deleted && stream.definition.subscribable.enabled;
        of_dataset.filter(is_open).cloned().collect()
    }

    async fn follow(&mut self, stream: &Stream, since: &Since) -> Result<()> {
        let life = stream.definition.incarnation;
        let (mut followers, mut starts) = (Vec::new(), Vec::new());
        for partition in stream.partitions() {
            let place = Place::new(stream.topic(Stage::Processed), partition);
            let end = self.indexer.log.bounds(&place).await?.end;
            let offset = start(self.indexer.log.as_ref(), stream, &place, since).await?;
            let (log, from) = (&self.indexer.log, Position { place: place.clone(), offset });
            followers.push(self.indexer.tails.follow(log, (life, self.wanted.form), from, end));
            starts.push((place, offset));
        }
        // Nothing waits from here on, so that whoever gives up before has changed nothing.
        starts.iter().for_each(|(place, offset)| self.at.set(place, *offset));
        let until = CancellationToken::new();
        for follower in followers {
            let (name, time) = (stream.name().clone(), time_of(stream));
            let broken = move |error| Broken { stream: name.clone(), time, error };
            let news = news_of(follower).map(move |news| news.map_err(&broken));
            self.coming.push(news.take_until(until.clone().cancelled_owned()).boxed());
        }
        self.followed
            .insert(stream.name().clone(), Followed { time: time_of(stream), _until: until.drop_guard() });
        Ok(())
    }
}

async fn start(log: &dyn Log, stream: &Stream, place: &Place, since: &Since) -> Result<Offset> {
    let bounds: Range<Offset> = log.bounds(place).await?;
    match since {
        Since::Now => Ok(bounds.end),
        Since::Time(time) => log.offset_at(place, *time).await,
        Since::Places(places) => match places.get(place) {
            Some(offset) if offset <= bounds.end => Ok(offset),
            // Of a stream of this name that there was before: all of this one is new.
            Some(_) => Ok(bounds.start),
            None => log.offset_at(place, stream.subscribable_switched().at).await,
        },
    }
}

/// What comes of one partition; an error is the last.
fn news_of(follower: Follower) -> impl futures::Stream<Item = Result<News>> + Send {
    stream::unfold(Some(follower), |follower| async {
        let mut follower = follower?;
        Some(match follower.next().await {
            Ok(chunk) => (Ok(News { place: follower.place().clone(), chunk }), Some(follower)),
            Err(error) => (Err(error), None),
        })
    })
}
