//! A stream's definition: what a user sends, what the catalog keeps, and what the rest of the
//! system reads from it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::spans::{Failure, Settled, SinkKind, SinkState, Spans, Stamp, Unsettled, View};
use super::table::Table;
use crate::error::{Error, Result};
use crate::extract::Extractor;
use crate::time::Timestamp;
use crate::topic::{Cleanup, Confidentiality, Offset, Partition, Stage, StreamName, Topic, TopicConfig};
use crate::transform;

/// The most partitions a stream can have.
pub const PARTITIONS_MAX: u32 = 1_024;
/// Partitions of a stream whose definition names no number.
pub const PARTITIONS_DEFAULT: u32 = 4;
/// The longest transform program, in bytes.
pub const PROGRAM_BYTES_MAX: usize = 64 << 10;

/// What a user sends to create a stream.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// The dataset id: `[a-z0-9][a-z0-9_-]{0,69}`.
    pub dataset: String,
    /// The version: `[A-Za-z0-9_-]{1,32}`.
    pub version: String,
    /// Green where it is not given.
    #[serde(default)]
    pub confidentiality: Confidentiality,
    /// 1 to 1,024; 4 where it is not given.
    pub partitions: Option<u32>,
    /// Seven days where it is not given.
    pub retention: Option<Retention>,
    /// The field that holds an event's own time: a name, or a JSON pointer.
    pub timestamp_field: Option<String>,
    /// How that field is written, in strftime's terms; detected where it is not given.
    pub timestamp_format: Option<String>,
    /// Whether an event without that field is refused, which it is where this is not given; else it has the
    /// time of its arrival.
    pub timestamp_required: Option<bool>,
    /// A JSON pointer to the value that is the event's key.
    pub key: Option<String>,
    /// A VRL program; identity where it is not given.
    pub transform: Option<String>,
    /// Both on where it is not given.
    #[serde(default)]
    pub sinks: Sinks,
    /// Its keyed tables; none where they are not given.
    #[serde(default)]
    pub tables: Vec<Table>,
    /// What the event stream API was told; true elsewhere.
    #[serde(skip)]
    pub create_raw: Option<bool>,
    /// Whether events came before anybody made the stream.
    #[serde(skip)]
    pub is_incoming: bool,
}

impl Draft {
    /// The stream's checked name.
    pub fn name(&self) -> Result<StreamName> {
        StreamName::new(&self.dataset, &self.version)
    }
}

/// What a user sends to change a stream. A field that is left out stays as it is; `null` takes it
/// away.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The version that the change was made for; any if it is left out.
    pub config_version: Option<u64>,
    /// New limits on what is kept.
    pub retention: Option<Retention>,
    /// A new field for the event's own time.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub timestamp_field: Option<Option<String>>,
    /// A new format of that field.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub timestamp_format: Option<Option<String>>,
    /// Whether an event without that field is refused.
    pub timestamp_required: Option<bool>,
    /// A new key pointer.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub key: Option<Option<String>>,
    /// A new program; `null` is identity.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub transform: Option<Option<String>>,
    /// Which sinks run.
    pub sinks: Option<Sinks>,
    /// All its tables. One that is another than before is made anew from what the log holds.
    pub tables: Option<Vec<Table>>,
    /// Whether the dataset's events are sent to its subscribers.
    pub subscribable: Option<bool>,
    /// Whether a sink that this switches on also takes what is in the log already, from where it ended
    /// before or from the beginning.
    #[serde(default)]
    pub backfill: bool,
}

/// Tells `null` from a field that is left out.
fn given<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

/// How long records stay in the stream's topics. Objects of the archive are not bound by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Records that arrived longer ago may go; for ever where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// What a partition holds beyond this may go; any size where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_bytes: Option<u64>,
    /// Whether splits of the index go as well once all their records are gone from the processed
    /// topic; they do where a retention is given that does not say so.
    #[serde(default = "yes")]
    pub index: bool,
}

fn yes() -> bool {
    true
}

impl Default for Retention {
    /// Seven days for the topics; what is indexed is found for ever.
    fn default() -> Self {
        Self { age_seconds: Some(7 * 24 * 3_600), partition_bytes: None, index: false }
    }
}

/// Which outputs a stream's processed records go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sinks {
    /// Objects of NDJSON in object storage.
    pub archive: bool,
    /// Splits for date-ranged queries.
    pub index: bool,
}

impl Default for Sinks {
    fn default() -> Self {
        Self { archive: true, index: true }
    }
}

impl Sinks {
    /// Whether a sink runs.
    pub fn has(&self, kind: SinkKind) -> bool {
        match kind {
            SinkKind::Archive => self.archive,
            SinkKind::Index => self.index,
        }
    }
}

/// Whether a stream's events are sent to the subscribers of its dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribable {
    /// Whether they are.
    pub enabled: bool,
    /// Who said so last; none where nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switched: Option<Stamp>,
}

/// A stream as the catalog keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// The dataset id.
    pub dataset: String,
    /// The version.
    pub version: String,
    /// How confidential it is.
    pub confidentiality: Confidentiality,
    /// The number of partitions of each of its topics.
    pub partitions: u32,
    /// How long records stay in the topics.
    pub retention: Retention,
    /// The field that holds an event's own time.
    pub timestamp_field: Option<String>,
    /// How that field is written.
    pub timestamp_format: Option<String>,
    /// Whether an event without it is refused.
    #[serde(default = "yes")]
    pub timestamp_required: bool,
    /// Pointer to the event's key.
    pub key: Option<String>,
    /// Every version of the transform, oldest first, never empty.
    pub transforms: Vec<TransformVersion>,
    /// Which sinks are switched on.
    pub sinks: Sinks,
    /// Its keyed tables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<Table>,
    /// When they were.
    #[serde(default)]
    pub spans: Spans,
    /// Whether its events are sent to subscribers.
    #[serde(default)]
    pub subscribable: Subscribable,
    /// What the event stream API was told. A stream has its raw topic all the same.
    #[serde(default = "yes")]
    pub create_raw: bool,
    /// Whether events came before anybody made the stream. It takes events, and is made from what it has
    /// when somebody makes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_incoming: bool,
    /// Rises by one with every change of this stream.
    pub config_version: u64,
    /// The number of this life of the stream; a stream that is deleted and made again has a larger
    /// one, and so do its objects' names. It is when the life began, in microseconds since 1970, so
    /// that a catalog that was lost and begun anew does not give a number twice.
    pub incarnation: u64,
    /// When this life began.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The principal that changed it last; none in what was written before there were any.
    #[serde(default)]
    pub updated_by: Option<String>,
    /// Whether it was deleted.
    #[serde(default)]
    pub deleted: bool,
}

/// A program with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformVersion {
    /// From 1, rising.
    pub version: u32,
    /// VRL; none is identity.
    pub program: Option<String>,
}

impl Definition {
    /// The first definition of a life of the stream; `before` is the last one of the life before.
    pub(super) fn create(draft: Draft, before: Option<&Definition>, now: Timestamp) -> Result<Self> {
        let config_version = before.map_or(0, |before| before.config_version) + 1;
        let earlier = before.map_or(0, |before| before.incarnation);
        let incarnation = u64::try_from(now.micros()).unwrap_or(0).max(earlier + 1);
        draft.name()?;
        let partitions = draft.partitions.unwrap_or(PARTITIONS_DEFAULT);
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            return Err(Error::invalid(
                "partitions",
                format!("a stream has 1 to {PARTITIONS_MAX} partitions"),
            ));
        }
        let mut definition = Self {
            dataset: draft.dataset,
            version: draft.version,
            confidentiality: draft.confidentiality,
            partitions,
            retention: draft.retention.unwrap_or_default(),
            timestamp_field: draft.timestamp_field,
            timestamp_format: draft.timestamp_format,
            timestamp_required: draft.timestamp_required.unwrap_or(true),
            key: draft.key,
            transforms: vec![TransformVersion { version: 1, program: draft.transform }],
            spans: Spans::default(),
            subscribable: Subscribable::default(),
            create_raw: draft.create_raw.unwrap_or(true),
            is_incoming: draft.is_incoming,
            sinks: draft.sinks,
            tables: draft.tables,
            config_version,
            incarnation,
            created_at: now,
            updated_at: now,
            updated_by: None,
            deleted: false,
        };
        definition.complete_spans();
        definition.check()?;
        Ok(definition)
    }

    /// The definition of a stream that takes over what came before it. The topics are there already.
    pub(super) fn taken_over(&self, draft: Draft, now: Timestamp) -> Result<Self> {
        let conflict = |field: &'static str, is: String| {
            let message =
                format!("events came before the stream was made, and it has {is}; it can be deleted first");
            Err(Error::new(crate::Kind::Conflict, message).with_field(field))
        };
        if draft.partitions.is_some_and(|partitions| partitions != self.partitions) {
            return conflict("partitions", format!("{} partitions", self.partitions));
        }
        if draft.confidentiality != self.confidentiality {
            return conflict(
                "confidentiality",
                format!("the confidentiality {}", self.confidentiality.name()),
            );
        }
        let draft = Draft { partitions: Some(self.partitions), ..draft };
        let made = Self::create(draft, Some(self), now)?;
        let mut transforms = self.transforms.clone();
        let program = made.latest_transform().program.clone();
        if program != self.latest_transform().program {
            transforms.push(TransformVersion { version: self.latest_transform().version + 1, program });
        }
        Ok(Self { transforms, incarnation: self.incarnation, ..made })
    }

    pub(super) fn deleted(&self, now: Timestamp) -> Self {
        let config_version = self.config_version + 1;
        Self { config_version, updated_at: now, deleted: true, ..self.clone() }
    }

    /// A sink that is on and was never switched is on from the beginning.
    fn complete_spans(&mut self) {
        for kind in SinkKind::ALL.into_iter().filter(|kind| self.sinks.has(*kind)) {
            self.spans.begin_whole(kind);
        }
    }

    fn check(&self) -> Result<()> {
        self.extractor()?;
        let program = self.latest_transform().program.as_deref();
        if program.is_some_and(|program| program.len() > PROGRAM_BYTES_MAX) {
            return Err(Error::invalid(
                "transform",
                format!("a program has at most {PROGRAM_BYTES_MAX} bytes"),
            ));
        }
        transform::compile(program)?;
        super::table::check(&self.tables)
    }

    /// The stream's name.
    pub fn name(&self) -> Result<StreamName> {
        StreamName::new(&self.dataset, &self.version)
    }

    /// The transform that was defined last.
    pub fn latest_transform(&self) -> &TransformVersion {
        self.transforms.last().expect("a definition has at least one transform")
    }

    /// What finds an event's time and key.
    pub fn extractor(&self) -> Result<Extractor> {
        let (field, format) = (self.timestamp_field.as_deref(), self.timestamp_format.as_deref());
        let extractor = Extractor::new(field, format, self.key.as_deref())?;
        Ok(if self.timestamp_required { extractor } else { extractor.with_optional_time() })
    }

    /// How the stream's topics are made.
    pub fn topic_config(&self) -> TopicConfig {
        let cleanup = Cleanup::Trim {
            age_max: self.retention.age_seconds.map(Duration::from_secs),
            bytes_max: self.retention.partition_bytes,
        };
        TopicConfig { partitions: self.partitions, cleanup }
    }
}

/// A stream as the rest of the system sees it: its definition, and where each version of its
/// transform took effect.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The definition.
    pub definition: Definition,
    /// The catalog offset of the definition.
    pub defined_at: Offset,
    name: StreamName,
    extractor: Extractor,
    activations: BTreeMap<(Partition, u32), Offset>,
    settled: Settled,
    revision: u64,
    earlier: Vec<u64>,
}

impl Stream {
    pub(super) fn new(
        mut definition: Definition,
        before: Option<&Stream>,
        defined_at: Offset,
    ) -> Result<Self> {
        definition.complete_spans();
        let same_life = before.filter(|stream| stream.definition.incarnation == definition.incarnation);
        let activations = same_life.map(|stream| stream.activations.clone()).unwrap_or_default();
        let mut settled = same_life.map(|stream| stream.settled.clone()).unwrap_or_default();
        settled.retain(&definition.spans);
        let revision = before.map_or(0, |stream| stream.revision) + 1;
        let mut earlier = before.map(|stream| stream.earlier.clone()).unwrap_or_default();
        earlier.extend(before.map(|stream| stream.definition.incarnation));
        earlier.retain(|incarnation| *incarnation != definition.incarnation);
        let name = definition.name()?;
        let extractor = definition.extractor()?;
        Ok(Self { definition, defined_at, name, extractor, activations, settled, revision, earlier })
    }

    /// The definition after a change. `ends` is where the partitions of the processed topic end, wanted
    /// where the change switches a sink.
    pub(super) fn edited(&self, edit: Edit, (ends, stamp): (&[Offset], Stamp)) -> Result<Definition> {
        let current = &self.definition;
        if edit.config_version.is_some_and(|version| version != current.config_version) {
            let message = format!("the stream is at config_version {}", current.config_version);
            return Err(Error::new(crate::Kind::Conflict, message).with_field("config_version"));
        }
        let mut next = current.clone();
        next.config_version += 1;
        next.updated_at = stamp.at;
        next.retention = edit.retention.unwrap_or(next.retention);
        next.sinks = edit.sinks.unwrap_or(next.sinks);
        for kind in SinkKind::ALL.into_iter().filter(|kind| next.sinks.has(*kind) != current.sinks.has(*kind))
        {
            let view = View { spans: &next.spans, ..self.spans() };
            next.spans = view.switched((kind, next.sinks.has(kind)), (ends, edit.backfill), &stamp)?;
        }
        if let Some(enabled) = edit.subscribable.filter(|enabled| *enabled != next.subscribable.enabled) {
            next.subscribable = Subscribable { enabled, switched: Some(stamp) };
        }
        next.timestamp_field = edit.timestamp_field.unwrap_or(next.timestamp_field);
        next.timestamp_required = edit.timestamp_required.unwrap_or(next.timestamp_required);
        next.timestamp_format = edit.timestamp_format.unwrap_or(next.timestamp_format);
        next.key = edit.key.unwrap_or(next.key);
        next.tables = edit.tables.unwrap_or(next.tables);
        if let Some(program) = edit.transform
            && program != next.latest_transform().program
        {
            let version = next.latest_transform().version + 1;
            next.transforms.push(TransformVersion { version, program });
        }
        next.check()?;
        Ok(next)
    }

    pub(crate) fn activate(&mut self, version: u32, partition: Partition, offset: Offset) {
        self.activations.entry((partition, version)).or_insert(offset);
    }

    pub(super) fn settle(&mut self, span: (SinkKind, u32), partition: Partition, ended: Option<Offset>) {
        self.settled.settle(span, partition, ended);
        self.revision += 1;
    }

    /// Answers whether there was something to fail.
    pub(super) fn fail(&mut self, kind: SinkKind, span: u32, failure: Failure) -> bool {
        let is_unsettled = self.unsettled_span(kind) == Some(span);
        if is_unsettled {
            self.settled.fail(kind, span, failure);
        }
        is_unsettled
    }

    /// The span of a sink that its worker has to settle, if it has.
    pub(super) fn unsettled_span(&self, kind: SinkKind) -> Option<u32> {
        self.spans().unsettled_span(kind)
    }

    fn spans(&self) -> View<'_> {
        let Definition { spans, partitions, .. } = &self.definition;
        View { spans, settled: &self.settled, partitions: *partitions }
    }

    /// Rises whenever what is admitted may have changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Who switched a sink last; who made the stream, if nobody has.
    pub fn switched(&self, kind: SinkKind) -> Stamp {
        let last = self.definition.spans.of(kind).last();
        last.and_then(|span| span.switched.clone()).unwrap_or_else(|| self.made())
    }

    /// Who said last whether its events are sent to subscribers; who made the stream, if nobody has.
    pub fn subscribable_switched(&self) -> Stamp {
        self.definition.subscribable.switched.clone().unwrap_or_else(|| self.made())
    }

    fn made(&self) -> Stamp {
        Stamp { by: self.definition.updated_by.clone(), at: self.definition.created_at }
    }

    /// Where a sink is between on and off.
    pub fn sink_state(&self, kind: SinkKind) -> SinkState {
        self.spans().state(kind)
    }

    /// Why a sink's worker can neither take it up nor let go of it, while it cannot.
    pub fn sink_failure(&self, kind: SinkKind) -> Option<&Failure> {
        self.spans().failure(kind)
    }

    /// The processed offsets of a partition that a sink takes, in order; none that it was never on for.
    /// What was switched off counts as on until its worker has said where it ended.
    pub fn admitted(&self, kind: SinkKind, partition: Partition) -> Vec<Range<Offset>> {
        self.spans().admitted(kind, partition)
    }

    /// Whether a sink takes what comes to a partition, or its worker has not said yet where that ended.
    pub fn is_open(&self, kind: SinkKind, partition: Partition) -> bool {
        self.spans().is_open(kind, partition)
    }

    /// What a sink's worker has to settle in a partition.
    pub fn unsettled(&self, kind: SinkKind, partition: Partition) -> Option<Unsettled> {
        self.spans().unsettled(kind, partition)
    }

    /// The stream's name.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    /// How many lives of the stream have ended.
    pub fn ended_lives(&self) -> usize {
        self.earlier.len() + usize::from(self.definition.deleted)
    }

    /// Whether that life of the stream has ended. A number that this catalog does not know is none
    /// of its lives.
    pub fn has_ended(&self, incarnation: u64) -> bool {
        let is_last = incarnation == self.definition.incarnation;
        (is_last && self.definition.deleted) || self.earlier.contains(&incarnation)
    }

    /// What finds an event's time and key.
    pub fn extractor(&self) -> &Extractor {
        &self.extractor
    }

    /// The stream's topic at a stage.
    pub fn topic(&self, stage: Stage) -> Topic {
        self.name.topic(self.definition.confidentiality, stage)
    }

    /// Its partitions.
    pub fn partitions(&self) -> impl Iterator<Item = Partition> + use<> {
        (0..self.definition.partitions).map(Partition)
    }

    /// The raw offset at which a version of the transform took effect in a partition; the first
    /// version does so at 0.
    pub fn activation(&self, version: u32, partition: Partition) -> Option<Offset> {
        if version == 1 { Some(Offset(0)) } else { self.activations.get(&(partition, version)).copied() }
    }

    /// The transform that applies to a raw offset of a partition: the latest that took effect at
    /// or before it.
    pub fn transform_at(&self, partition: Partition, offset: Offset) -> &TransformVersion {
        let applies = |transform: &&TransformVersion| {
            self.activation(transform.version, partition).is_some_and(|from| from <= offset)
        };
        let transforms = &self.definition.transforms;
        transforms.iter().rev().find(applies).unwrap_or(&transforms[0])
    }

    /// Versions of the transform that have not taken effect in a partition yet, oldest first.
    pub fn pending_transforms(&self, partition: Partition) -> impl Iterator<Item = &TransformVersion> {
        self.definition
            .transforms
            .iter()
            .filter(move |transform| self.activation(transform.version, partition).is_none())
    }
}
