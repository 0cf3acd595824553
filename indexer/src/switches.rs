//! Sinks that were switched on or off, which their worker has not settled everywhere yet.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use broker::catalog::{SinkKind, SinkState, Stream, Streams, Unsettled};
use broker::{Catalog, Checkpoint, Offset, Place, Result, Settled, Stage};
use object_store::ObjectStore;
use tokio::sync::watch;

use crate::store;

/// The switched sinks of one kind.
pub(crate) struct Switches {
    kind: SinkKind,
    catalog: Arc<Catalog>,
    objects: Arc<dyn ObjectStore>,
    changes: watch::Receiver<Arc<Streams>>,
    places: Vec<Place>,
}

impl Switches {
    /// `objects` is where the sink writes to.
    pub(crate) fn new(catalog: &Arc<Catalog>, kind: SinkKind, objects: Arc<dyn ObjectStore>) -> Self {
        let mut changes = catalog.watch();
        changes.mark_changed();
        Self { kind, catalog: Arc::clone(catalog), objects, changes, places: Vec::new() }
    }

    /// The partitions in which something is to be settled.
    pub(crate) fn places(&mut self) -> Vec<Place> {
        if self.changes.has_changed().unwrap_or(false) {
            let streams = Arc::clone(&self.changes.borrow_and_update());
            let living = streams.iter().filter(|stream| !stream.definition.deleted);
            self.places = living.flat_map(|stream| places(stream, self.kind)).collect();
        }
        self.places.clone()
    }

    /// Begins what is to be begun, if the object store can be written to, and ends what `end` says has
    /// ended. It is given the partition, the span's number with where it is to end, and the next offset that
    /// would be written; it answers where the span ended, if everything before that is in the sink's output.
    pub(crate) async fn settle(
        &self,
        at: &Checkpoint,
        mut end: impl FnMut(&Place, (u32, Offset), Offset) -> Option<Offset>,
    ) -> Result<Settled> {
        // What was settled a moment ago must not be settled again.
        self.catalog.refresh().await?;
        let mut is_writable = false;
        let mut settled = Settled::default();
        for (place, position) in at.iter() {
            let Some(stream) = stream(&self.catalog, place) else { continue };
            let (span, ended) = match stream.unsettled(self.kind, place.partition) {
                None => continue,
                Some(Unsettled::Begin { span, from }) => {
                    if !is_writable {
                        store::check_writable(&*self.objects).await?;
                        is_writable = true;
                    }
                    settled.rewind.set(place.clone(), from.min(position));
                    (span, None)
                }
                Some(Unsettled::End { span, to }) => match end(place, (span, to), position) {
                    None => continue,
                    ended => (span, ended),
                },
            };
            tracing::info!(%place, sink = self.kind.name(), ?ended, "settled a switched sink");
            let (sink, end) = ((self.kind, span), (place.partition, ended));
            settled.appends.push(self.catalog.settlement_of_span(&stream, sink, end)?);
        }
        Ok(settled)
    }
}

/// The stream whose processed topic this is, as the catalog knows it; none once it is deleted.
pub(crate) fn stream(catalog: &Catalog, place: &Place) -> Option<Arc<Stream>> {
    let stream = catalog.get(place.topic.stream()?).ok()?;
    (stream.topic(Stage::Processed) == place.topic).then_some(stream)
}

fn places(stream: &Stream, kind: SinkKind) -> Vec<Place> {
    if matches!(stream.sink_state(kind), SinkState::On | SinkState::Off) {
        return Vec::new();
    }
    let unsettled = stream.partitions().filter(|partition| stream.unsettled(kind, *partition).is_some());
    unsettled.map(|partition| Place::new(stream.topic(Stage::Processed), partition)).collect()
}
