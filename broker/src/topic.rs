//! Streams, topics, partitions and offsets: names that were parsed at the door and can be trusted.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{Error, Result};

/// The number of a partition within its topic, from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u32);

/// The number of a record within its partition. Numbers rise; they may have holes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> Offset {
        Offset(self.0 + 1)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How confidential a stream is; part of its topics' names.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Confidentiality {
    /// Public.
    #[default]
    Green,
    /// Restricted.
    Yellow,
    /// Not public.
    Red,
}

impl Confidentiality {
    /// The word that stands in topic names and keys.
    pub fn name(self) -> &'static str {
        match self {
            Confidentiality::Green => "green",
            Confidentiality::Yellow => "yellow",
            Confidentiality::Red => "red",
        }
    }
}

/// Where a record stands on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// As it was posted.
    Raw,
    /// As the stream's transform left it.
    Processed,
    /// It can never succeed; kept with its reason.
    Dead,
}

impl Stage {
    /// Every stage, in the order of travel.
    pub const ALL: [Stage; 3] = [Stage::Raw, Stage::Processed, Stage::Dead];

    /// The word that stands in topic names.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Raw => "raw",
            Stage::Processed => "processed",
            Stage::Dead => "dead",
        }
    }
}

/// A dataset id and a version: what a user defines and posts to. Written `dataset/version`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName {
    dataset: Arc<str>,
    version: Arc<str>,
}

impl StreamName {
    /// Checks both parts: a dataset is `[a-z0-9][a-z0-9_-]{0,69}`, a version
    /// `[A-Za-z0-9_-]{1,32}`. Neither holds a dot, since dots delimit topic names.
    pub fn new(dataset: &str, version: &str) -> Result<Self> {
        let lower = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let first = dataset.as_bytes().first().copied();
        let dataset_is_valid = dataset.len() <= 70
            && first.is_some_and(lower)
            && dataset.bytes().all(|c| lower(c) || c == b'_' || c == b'-');
        if !dataset_is_valid {
            return Err(Error::invalid("dataset", "a dataset id is [a-z0-9][a-z0-9_-]{0,69}"));
        }
        let version_is_valid = (1..=32).contains(&version.len())
            && version.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-');
        if !version_is_valid {
            return Err(Error::invalid("version", "a version is [A-Za-z0-9_-]{1,32}"));
        }
        Ok(Self { dataset: dataset.into(), version: version.into() })
    }

    /// What comes before every name of a dataset, in their order. It is no stream's name itself.
    pub(crate) fn before_all_of(dataset: &str) -> Self {
        Self { dataset: dataset.into(), version: "".into() }
    }

    /// The dataset id.
    pub fn dataset(&self) -> &str {
        &self.dataset
    }

    /// The version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The stream's topic at a stage.
    pub fn topic(&self, confidentiality: Confidentiality, stage: Stage) -> Topic {
        let (dataset, version) = (&self.dataset, &self.version);
        let name = format!("dp.{}.{dataset}.{}.{version}.json", confidentiality.name(), stage.name());
        let of = TopicOf { stream: self.clone(), confidentiality, stage };
        Topic(Arc::new(TopicName { name, of: Some(of) }))
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.dataset, self.version)
    }
}

impl FromStr for StreamName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (dataset, version) = text
            .split_once('/')
            .ok_or_else(|| Error::invalid("stream", "a stream is written DATASET/VERSION"))?;
        Self::new(dataset, version)
    }
}

/// A named, partitioned log. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Topic(Arc<TopicName>);

#[derive(Debug)]
struct TopicName {
    name: String,
    of: Option<TopicOf>,
}

#[derive(Debug)]
struct TopicOf {
    stream: StreamName,
    confidentiality: Confidentiality,
    stage: Stage,
}

impl Topic {
    /// A topic of our own, such as the catalog's; it belongs to no stage.
    pub fn internal(name: &str) -> Self {
        Topic(Arc::new(TopicName { name: name.to_owned(), of: None }))
    }

    /// Reads a name back: `dp.{confidentiality}.{dataset}.{stage}.{version}.json` is a stream's,
    /// anything else is internal.
    pub fn from_name(name: &str) -> Self {
        Self::parse_stream(name).unwrap_or_else(|| Self::internal(name))
    }

    fn parse_stream(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.split('.').collect();
        let ["dp", confidentiality, dataset, stage, version, "json"] = parts[..] else {
            return None;
        };
        let confidentiality = match confidentiality {
            "green" => Confidentiality::Green,
            "yellow" => Confidentiality::Yellow,
            "red" => Confidentiality::Red,
            _ => return None,
        };
        let stage = Stage::ALL.into_iter().find(|known| known.name() == stage)?;
        let stream = StreamName::new(dataset, version).ok()?;
        Some(stream.topic(confidentiality, stage))
    }

    /// The topic's name in the log.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The stage it belongs to; none for internal topics.
    pub fn stage(&self) -> Option<Stage> {
        self.0.of.as_ref().map(|of| of.stage)
    }

    /// The stream it belongs to; none for internal topics.
    pub fn stream(&self) -> Option<&StreamName> {
        self.0.of.as_ref().map(|of| &of.stream)
    }

    /// The same stream's topic at another stage; none for internal topics.
    pub fn at(&self, stage: Stage) -> Option<Topic> {
        let of = self.0.of.as_ref()?;
        Some(of.stream.topic(of.confidentiality, stage))
    }
}

impl PartialEq for Topic {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.name == other.0.name
    }
}

impl Eq for Topic {}

impl PartialOrd for Topic {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Topic {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.name.cmp(&other.0.name)
    }
}

impl std::hash::Hash for Topic {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

/// How a topic is made and what may be removed from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// The number of partitions, 1 to 1,024.
    pub partitions: u32,
    /// What may be removed.
    pub cleanup: Cleanup,
}

/// What may be removed from a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// The oldest records, by age or by size, whichever comes first; never the newest batch.
    Trim {
        /// Records that arrived longer ago may go.
        age_max: Option<Duration>,
        /// What a partition holds beyond these stored bytes may go, oldest first.
        bytes_max: Option<u64>,
    },
    /// Records whose key was written again later.
    Compact,
    /// Nothing.
    Keep,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_read_back() {
        let stream = StreamName::new("renovasjonsbiler-status", "1").unwrap();
        let topic = stream.topic(Confidentiality::Yellow, Stage::Raw);
        assert_eq!(topic.name(), "dp.yellow.renovasjonsbiler-status.raw.1.json");
        let read = Topic::from_name(topic.name());
        assert_eq!(read, topic);
        assert_eq!(read.stage(), Some(Stage::Raw));
        assert_eq!(read.stream(), Some(&stream));
        assert_eq!(Topic::from_name("headwater.catalog").stage(), None);
    }

    #[test]
    fn stream_names_are_checked_part_by_part() {
        let long = "a".repeat(71);
        for (dataset, version, field) in [
            ("", "1", "dataset"),
            ("Flights", "1", "dataset"),
            ("-flights", "1", "dataset"),
            ("fli.ghts", "1", "dataset"),
            (long.as_str(), "1", "dataset"),
            ("flights", "", "version"),
            ("flights", "1.0", "version"),
            ("flights", "../1", "version"),
            ("flights", "123456789012345678901234567890123", "version"),
        ] {
            let error = StreamName::new(dataset, version).unwrap_err();
            assert_eq!(error.field(), Some(field), "{dataset}/{version}");
        }
        assert!(StreamName::new(&long[1..], "V_1-a").is_ok());
    }
}
