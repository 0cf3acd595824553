//! Making, changing and removing topics, and knowing which there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;

use super::client::Logging;
use super::options::KafkaOptions;
use super::problem::{self, KafkaResultExt};
use crate::checkpoint::Place;
use crate::error::{Error, Kind, Result, ResultExt};
use crate::topic::{Cleanup, Topic, TopicConfig};

/// How often a change of the topics is looked for while it is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Kafka's bounds and default for the size of a segment, the unit that retention removes.
const SEGMENT_BYTES: (u64, u64) = (1 << 20, 1 << 30);
/// Bounds for the age at which a segment is closed, in milliseconds.
const SEGMENT_MILLIS: (u64, u64) = (60_000, 7 * 24 * 3_600_000);

/// The topics of the cluster.
pub(super) struct Topics {
    admin: AdminClient<Logging>,
    /// Asks for metadata and bounds; it is assigned nothing.
    client: Arc<BaseConsumer<Logging>>,
    /// The partitions of topics seen, so that an append need not ask.
    known: RwLock<HashMap<String, u32>>,
    /// Those that are being deleted here.
    leaving: RwLock<BTreeSet<String>>,
    replication_factor: i32,
    record_bytes_max: usize,
    timeout: Duration,
}

impl Topics {
    /// Connects and learns which topics there are. Blocks.
    pub(super) fn open(options: &KafkaOptions, consumer: &ClientConfig) -> Result<Self> {
        let admin =
            options.client(&[], &[]).create_with_context(Logging).or_kafka("open the admin client")?;
        let client = consumer.create_with_context(Logging).or_kafka("open the metadata client")?;
        let topics = Self {
            admin,
            client: Arc::new(client),
            known: RwLock::default(),
            leaving: RwLock::default(),
            replication_factor: options.replication_factor,
            record_bytes_max: options.record_bytes_max,
            timeout: options.timeout,
        };
        topics.refresh()?;
        Ok(topics)
    }

    /// The client for metadata and bounds.
    pub(super) fn client(&self) -> &BaseConsumer<Logging> {
        &self.client
    }

    /// How long the cluster may take to answer.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Every topic with its partitions, as the cluster says now. Blocks.
    pub(super) fn refresh(&self) -> Result<HashMap<String, u32>> {
        let metadata = self.client.fetch_metadata(None, self.timeout).or_kafka("list topics")?;
        // One whose partitions have no leader yet is not there yet.
        let exists = |topic: &&MetadataTopic| {
            topic.error().is_none() && topic.partitions().iter().all(|partition| partition.leader() >= 0)
        };
        let named = metadata.topics().iter().filter(exists).map(|topic| {
            let partitions = u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX);
            (topic.name().to_owned(), partitions)
        });
        let topics: HashMap<String, u32> = named.collect();
        self.known.write().unwrap_or_else(PoisonError::into_inner).clone_from(&topics);
        Ok(topics)
    }

    /// The partitions of a topic that was seen before.
    pub(super) fn known(&self, topic: &Topic) -> Option<u32> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(topic.name()).copied()
    }

    /// Forgets what is known of a topic.
    pub(super) fn forget(&self, topic: &Topic) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(topic.name());
    }

    /// Says that a topic is being deleted, until the answer is dropped.
    pub(super) fn leave(self: &Arc<Self>, topic: &Topic) -> Leaving {
        self.leaving.write().unwrap_or_else(PoisonError::into_inner).insert(topic.name().to_owned());
        Leaving { topics: Arc::clone(self), topic: topic.clone() }
    }

    /// Whether a topic is being deleted.
    pub(super) fn is_leaving(&self, topic: &Topic) -> bool {
        self.leaving.read().unwrap_or_else(PoisonError::into_inner).contains(topic.name())
    }

    /// `NotFound` unless the place exists; asks the cluster where that is not known.
    pub(super) async fn check(self: &Arc<Self>, place: &Place) -> Result<()> {
        if self.known(&place.topic).is_some_and(|partitions| place.partition.0 < partitions)
            || place.partition.0 < self.partitions(&place.topic).await?
        {
            return Ok(());
        }
        Err(Error::not_found(format!("there is no partition {place}")))
    }

    /// The partitions of a topic, as the cluster says now.
    pub(super) async fn partitions(self: &Arc<Self>, topic: &Topic) -> Result<u32> {
        let topics = Arc::clone(self);
        let all = blocking(move || topics.refresh()).await?;
        all.get(topic.name()).copied().ok_or_else(|| Error::not_found(format!("there is no topic {topic}")))
    }

    /// Makes a topic, or gives the one that exists this config.
    pub(super) async fn create(self: &Arc<Self>, topic: &Topic, config: &TopicConfig) -> Result<()> {
        let entries = self.entries(&config.cleanup);
        let partitions = i32::try_from(config.partitions).unwrap_or(i32::MAX);
        let replication = TopicReplication::Fixed(self.replication_factor);
        let mut new = NewTopic::new(topic.name(), partitions, replication);
        for (key, value) in &entries {
            new = new.set(key, value);
        }
        let made =
            self.admin.create_topics([&new], &self.admin_options()).await.or_kafka("create a topic")?;
        match made.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
                self.change(topic, config, &entries).await
            }
            Some(Err((_, code))) => Err(problem::code_error(code, "create a topic")),
            _ => self.wait_until(topic, Some(config.partitions)).await,
        }
    }

    /// Removes a topic and waits until that is seen.
    pub(super) async fn delete(self: &Arc<Self>, topic: &Topic) -> Result<()> {
        let name = [topic.name()];
        let gone = self.admin.delete_topics(&name, &self.admin_options()).await.or_kafka("delete a topic")?;
        match gone.into_iter().next() {
            Some(Err((_, code))) if problem::kind(code) != Kind::NotFound => {
                Err(problem::code_error(code, "delete a topic"))
            }
            _ => self.wait_until(topic, None).await,
        }
    }

    /// Sets our entries and keeps those that an operator set.
    async fn change(
        self: &Arc<Self>,
        topic: &Topic,
        config: &TopicConfig,
        entries: &BTreeMap<&'static str, String>,
    ) -> Result<()> {
        let partitions = self.partitions(topic).await?;
        if partitions != config.partitions {
            let message = format!("topic {topic} has {partitions} partitions, not {}", config.partitions);
            return Err(Error::new(Kind::Conflict, message).with_field("partitions"));
        }
        let specifier = ResourceSpecifier::Topic(topic.name());
        let options = self.admin_options();
        let described = self.admin.describe_configs([&specifier], &options).await;
        let described = described.or_kafka("read a topic's config")?.into_iter().next();
        let Some(Ok(described)) = described else {
            return Err(Error::unavailable("read a topic's config: the cluster did not say"));
        };
        let mut set: BTreeMap<&str, &str> = BTreeMap::new();
        for entry in &described.entries {
            if matches!(entry.source, rdkafka::admin::ConfigSource::DynamicTopic) {
                set.insert(&entry.name, entry.value.as_deref().unwrap_or_default());
            }
        }
        let before = set.clone();
        set.extend(entries.iter().map(|(key, value)| (*key, value.as_str())));
        if set == before {
            return Ok(());
        }
        let alter = set.iter().fold(AlterConfig::new(specifier), |alter, (key, value)| alter.set(key, value));
        let altered = self.admin.alter_configs([&alter], &options).await.or_kafka("change a topic")?;
        match altered.into_iter().next() {
            Some(Err((_, code))) => Err(problem::code_error(code, "change a topic")),
            _ => Ok(()),
        }
    }

    /// Waits until the cluster says that the topic has these partitions, or that there is none.
    async fn wait_until(self: &Arc<Self>, topic: &Topic, wanted: Option<u32>) -> Result<()> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let topics = Arc::clone(self);
            let all = blocking(move || topics.refresh()).await?;
            if all.get(topic.name()).copied() == wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::unavailable(format!("the change of topic {topic} is not seen yet")));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn admin_options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.timeout)).operation_timeout(Some(self.timeout))
    }

    /// Kafka removes whole segments, so these are an eighth of what may be kept.
    fn entries(&self, cleanup: &Cleanup) -> BTreeMap<&'static str, String> {
        let batch_bytes_max = self.record_bytes_max + super::codec::OVERHEAD_BYTES;
        let mut entries = BTreeMap::from([
            ("max.message.bytes", batch_bytes_max.to_string()),
            ("message.timestamp.type", "CreateTime".to_owned()),
            // Arrival times are ours to judge; by default Kafka refuses those an hour ahead.
            ("message.timestamp.after.max.ms", i64::MAX.to_string()),
        ]);
        let (age_max, bytes_max) = match cleanup {
            Cleanup::Trim { age_max, bytes_max } => (*age_max, *bytes_max),
            Cleanup::Compact | Cleanup::Keep => (None, None),
        };
        let policy = if *cleanup == Cleanup::Compact { "compact" } else { "delete" };
        let millis = age_max.map(|age| u64::try_from(age.as_millis()).unwrap_or(i64::MAX as u64));
        let or_forever = |limit: Option<u64>| limit.map_or("-1".to_owned(), |limit| limit.to_string());
        let segment_bytes = bytes_max.map_or(SEGMENT_BYTES.1, |bytes| bytes / 8);
        let segment_millis = millis.map_or(SEGMENT_MILLIS.1, |millis| millis / 8);
        entries.insert("cleanup.policy", policy.to_owned());
        entries.insert("retention.ms", or_forever(millis));
        entries.insert("retention.bytes", or_forever(bytes_max));
        entries.insert("segment.bytes", segment_bytes.clamp(SEGMENT_BYTES.0, SEGMENT_BYTES.1).to_string());
        entries.insert("segment.ms", segment_millis.clamp(SEGMENT_MILLIS.0, SEGMENT_MILLIS.1).to_string());
        entries
    }

    /// Which of the named topics are gone. Blocks.
    pub(super) fn gone(&self, names: BTreeSet<String>) -> Result<BTreeSet<String>> {
        let all = self.refresh()?;
        Ok(names.into_iter().filter(|name| !all.contains_key(name)).collect())
    }
}

/// See [`Topics::leave`].
pub(super) struct Leaving {
    topics: Arc<Topics>,
    topic: Topic,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.topics.leaving.write().unwrap_or_else(PoisonError::into_inner).remove(self.topic.name());
    }
}

/// Runs a call that blocks where it may.
pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(call).await.or_error(Kind::Internal, "run a blocking call")?
}
