//! From new events to durable records: what the HTTP and the gRPC door share.
//!
//! [`Ingest::prepare`] is pure and may be slow; the future of [`Ingest::append`] hands the records
//! to the log when it is polled first, so that whoever polls two of them in order writes in order.

mod written;

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use broker::batch::Event;
use broker::catalog::Stream;
use broker::checkpoint::Place;
use broker::{
    Append, Batch, BatchBuilder, Error, Extracted, Kind, Partition, Result, Stage, Timestamp, partition_of,
};

use futures::future::join_all;

use self::written::Slot;
pub(crate) use self::written::{OffsetRange, Outcome, Written};
use crate::Ingest;

/// What a record takes in a batch beside its event, about.
const RECORD_OVERHEAD_BYTES: usize = 12;
/// Records are never spread quite evenly.
const BATCH_SLACK_BYTES: usize = 512;

/// An event as a door has cut it out of a request.
#[derive(Debug)]
pub(crate) struct NewEvent<'b> {
    /// Its bytes, where they lie in the request.
    pub(crate) value: &'b [u8],
    /// Where in the request it stands, for errors: `line 3`; none where its index says it.
    pub(crate) line: Option<usize>,
    /// A key that was sent with it; without one the stream's pointer is followed.
    pub(crate) key: Option<&'b [u8]>,
}

/// A request that was checked, ready to be written.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    appends: Vec<Append>,
    slots: Vec<Slot>,
}

impl Prepared {
    /// Both, to be written in one step; also where their streams differ.
    pub(crate) fn and(mut self, other: Self) -> Self {
        let before = self.appends.len();
        self.appends.extend(other.appends);
        self.slots.extend(other.slots.into_iter().map(|slot| match slot {
            Slot::Placed { append, index, time } => Slot::Placed { append: before + append, index, time },
            refused @ Slot::Refused(_) => refused,
        }));
        self
    }
}

impl Ingest {
    /// Checks events and encodes them partition by partition. With `atomic`, the first that cannot
    /// be taken refuses all.
    pub(crate) fn prepare(
        &self,
        stream: &Stream,
        events: Vec<NewEvent<'_>>,
        atomic: bool,
    ) -> Result<Prepared> {
        if events.len() > self.limits.batch_records_max {
            let most = self.limits.batch_records_max;
            let message = format!("a request has at most {most} records (batch_records_max)");
            return Err(Error::new(Kind::TooLarge, message).with_field("records"));
        }
        let bytes = events.iter().map(|event| event.value.len() + RECORD_OVERHEAD_BYTES).sum();
        let mut sheaf = Sheaf::new(self, stream, bytes);
        let mut slots = Vec::with_capacity(events.len());
        for (index, event) in events.into_iter().enumerate() {
            let line = event.line;
            let value = event.value;
            match self.check(stream, event) {
                Ok(checked) => slots.push(sheaf.push(value, &checked)),
                Err(error) if atomic => return Err(refusal_of_all(index, line, &error)),
                Err(error) => slots.push(Slot::Refused(at_line(line, error))),
            }
        }
        Ok(Prepared { appends: sheaf.finish(stream)?, slots })
    }

    fn check<'b>(&self, stream: &Stream, event: NewEvent<'b>) -> Result<Checked<'b>> {
        let NewEvent { value, key, .. } = event;
        if value.len() > self.limits.record_bytes_max {
            let most = self.limits.record_bytes_max;
            let message =
                format!("an event has at most {most} bytes (record_bytes_max), not {}", value.len());
            return Err(Error::new(Kind::TooLarge, message).with_field("value"));
        }
        let Extracted { time, key: found } = extract(stream, value)?;
        let field = if key.is_some() { "key" } else { stream.definition.key.as_deref().unwrap_or("key") };
        let key = key.map(Cow::Borrowed).or_else(|| Some(bytes_of(found?)));
        if key.as_ref().is_some_and(|key| key.len() > self.limits.key_bytes_max) {
            let most = self.limits.key_bytes_max;
            let message = format!("a key has at most {most} bytes (key_bytes_max)");
            return Err(Error::new(Kind::TooLarge, message).with_field(field));
        }
        Ok(Checked { key, time })
    }

    /// Writes what was prepared; durable when it returns. The records are handed to the log, in
    /// order, before this first waits.
    pub(crate) async fn append(&self, prepared: Prepared) -> Result<Written> {
        let Prepared { appends, slots } = prepared;
        let batch = |append: &Append| (append.place.partition, u64::from(append.batch.count()));
        let batches: Vec<(Partition, u64)> = appends.iter().map(batch).collect();
        let appended = if appends.is_empty() { Vec::new() } else { self.log.append(appends).await? };
        if appended.len() != batches.len() {
            return Err(Error::internal("append records: the log answered for another number of batches"));
        }
        Ok(Written { batches, appended, slots })
    }

    /// Writes what was prepared, each partition by itself, so that it is known which events were written where
    /// not all of them could be. Durable where it says nothing else.
    pub(crate) async fn append_each(&self, prepared: Prepared) -> Result<(), Lost> {
        let Prepared { appends, slots } = prepared;
        let partitions: Vec<_> = appends.iter().map(|append| append.place.partition).collect();
        let appended = join_all(appends.into_iter().map(|append| self.log.append(vec![append]))).await;
        let mut errors: Vec<Option<Error>> = appended.into_iter().map(Result::err).collect();
        let failed = |(index, slot): (usize, &Slot)| match slot {
            Slot::Placed { append, .. } => errors[*append].is_some().then(|| (index, partitions[*append])),
            Slot::Refused(_) => None,
        };
        let events = slots.iter().enumerate().filter_map(failed).collect();
        let is_all = errors.iter().all(Option::is_some);
        match errors.iter_mut().find_map(Option::take) {
            Some(error) => Err(Lost { error, events, is_all }),
            None => Ok(()),
        }
    }
}

/// Events of a request that the log did not take.
#[derive(Debug)]
pub(crate) struct Lost {
    /// Why not, of the first that failed.
    pub(crate) error: Error,
    /// Which, by their index in the request, with their partitions.
    pub(crate) events: Vec<(usize, Partition)>,
    /// Whether nothing was written.
    pub(crate) is_all: bool,
}

/// What was found in an event that can be taken.
struct Checked<'b> {
    /// A piece of the event where it can be one.
    key: Option<Cow<'b, [u8]>>,
    time: Option<Timestamp>,
}

fn bytes_of(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// Finds time and key, and refuses what is JSON but no object, whatever the stream's rules say of it.
fn extract<'e>(stream: &Stream, value: &'e [u8]) -> Result<Extracted<'e>> {
    let extracted = stream.extractor().extract(value);
    let is_syntax_error = extracted.as_ref().is_err_and(|error| error.field() == Some("value"));
    if is_syntax_error || value.trim_ascii_start().starts_with(b"{") {
        return extracted;
    }
    Err(Error::invalid("value", "an event is a JSON object"))
}

/// The records of one request, sorted by partition.
struct Sheaf<'i> {
    ingest: &'i Ingest,
    arrival: Timestamp,
    /// For each partition, which of the batches is its; none yet where it has no record.
    batch_of: Vec<Option<usize>>,
    batches: Vec<(Partition, BatchBuilder)>,
    /// The room that a batch is given first: its part if the records are spread evenly.
    batch_bytes: usize,
    /// The partition of the records without a key, once there was one.
    keyless: Option<Partition>,
}

impl<'i> Sheaf<'i> {
    fn new(ingest: &'i Ingest, stream: &Stream, bytes: usize) -> Self {
        let arrival = ingest.clock.now().floor_to_millis();
        let batch_of = vec![None; stream.definition.partitions as usize];
        let batch_bytes = bytes / batch_of.len().max(1) + BATCH_SLACK_BYTES;
        Self { ingest, arrival, batch_of, batches: Vec::new(), batch_bytes, keyless: None }
    }

    fn push(&mut self, value: &[u8], checked: &Checked<'_>) -> Slot {
        let key = checked.key.as_deref();
        let (arrival, time) = (self.arrival, checked.time.unwrap_or(self.arrival));
        let partition = match key {
            Some(key) => partition_of(key, self.partitions()),
            None => self.keyless(),
        };
        let append = *self.batch_of[partition.0 as usize].get_or_insert_with(|| {
            self.batches.push((partition, BatchBuilder::with_capacity(self.batch_bytes)));
            self.batches.len() - 1
        });
        let batch = &mut self.batches[append].1;
        let index = batch.count() as usize;
        batch.push_event(&Event { key, value, arrival, time });
        Slot::Placed { append, index, time }
    }

    fn keyless(&mut self) -> Partition {
        let partitions = self.partitions();
        let turn = &self.ingest.turn;
        *self.keyless.get_or_insert_with(|| Partition(turn.fetch_add(1, Ordering::Relaxed) % partitions))
    }

    fn partitions(&self) -> u32 {
        self.batch_of.len() as u32
    }

    fn finish(self, stream: &Stream) -> Result<Vec<Append>> {
        let topic = stream.topic(Stage::Raw);
        let append = |(partition, batch): (Partition, BatchBuilder)| {
            let batch: Option<Batch> = batch.finish();
            let batch = batch.ok_or_else(|| Error::internal("append records: a batch is empty"))?;
            Ok(Append { place: Place::new(topic.clone(), partition), batch })
        };
        self.batches.into_iter().map(append).collect()
    }
}

/// The error of a whole request because of one of its records.
fn refusal_of_all(index: usize, line: Option<usize>, error: &Error) -> Error {
    let field = error.field().map(|field| format!("{field}: ")).unwrap_or_default();
    let error = Error::new(error.kind(), format!("{field}{}", error.message()));
    at_line(line, error).with_field(format!("records[{index}]"))
}

fn at_line(line: Option<usize>, error: Error) -> Error {
    match line {
        Some(line) => error.context(format!("line {line}")),
        None => error,
    }
}
