//! Partitions that no member of a group holds although the group stands still.
//!
//! A member that keeps its name is given its predecessor's share when it joins, without anybody working
//! out shares anew, and it asks for that only when the topics that match change. A topic that was made
//! while the member was away, or deleted and made again, would be read by nobody. So each member looks
//! from time to time, and where nobody holds a partition a visitor joins the group and leaves it, which
//! makes the group work out its shares. The visitor subscribes to a topic that is not the group's, so
//! that it takes nothing from anybody.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Buf;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use tracing::info;

use super::client::Logging;
use super::problem::KafkaResultExt;
use super::topics::Topics;
use crate::checkpoint::Place;
use crate::error::{Error, Result};
use crate::log::Selection;
use crate::topic::{Partition, Topic};

/// How often is looked.
const LOOK_AGAIN: Duration = Duration::from_secs(4);
/// How long the cluster may take to tell the members of a group.
const TELL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a visitor may take to join; the session's timeout of a member that was killed, and more.
const VISIT_MAX: Duration = Duration::from_secs(15);
/// What Kafka calls a group that is not changing.
const STABLE: &str = "Stable";

/// How a visitor joins whose hosts join so.
pub(super) fn visitor(member: &ClientConfig) -> ClientConfig {
    let mut config = member.clone();
    config.remove("group.instance.id");
    // It reads nothing.
    config.set("auto.offset.reset", "latest").set("fetch.message.max.bytes", "1024");
    config
}

/// What nobody held at the last look, and who visits because of it.
#[derive(Default)]
pub(super) struct Unheld {
    looked: Option<Instant>,
    places: BTreeSet<Place>,
    visit: Option<(BaseConsumer<Logging>, Instant)>,
}

impl Unheld {
    /// Looks, if it is time to, and serves a visit. Blocks.
    pub(super) fn serve<C: ConsumerContext>(
        &mut self,
        consumer: &BaseConsumer<C>,
        (topics, selection): (&Topics, &Selection),
        config: &ClientConfig,
        is_own: impl Fn(&Place) -> bool,
    ) -> Result<()> {
        if let Some((visitor, since)) = &self.visit {
            drop(visitor.poll(Duration::ZERO));
            let has_joined = visitor.assignment().is_ok_and(|assignment| assignment.count() > 0);
            if has_joined || since.elapsed() > VISIT_MAX {
                self.visit = None;
            }
            return Ok(());
        }
        if self.looked.get_or_insert_with(Instant::now).elapsed() < LOOK_AGAIN {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let before = std::mem::take(&mut self.places);
        let all = topics.refresh()?;
        let (selected, strange): (Vec<Topic>, Vec<Topic>) =
            all.keys().map(|name| Topic::from_name(name)).partition(|topic| selection.includes(topic));
        let places = selected.iter().flat_map(|topic| {
            (0..all[topic.name()]).map(move |number| Place::new(topic.clone(), Partition(number)))
        });
        let others: BTreeSet<Place> = places.filter(|place| !is_own(place)).collect();
        if others.is_empty() {
            return Ok(());
        }
        let Some(held) = held(consumer, config.get("group.id").unwrap_or_default())? else { return Ok(()) };
        self.places = others.difference(&held).cloned().collect();
        if let (Some(place), Some(topic)) = (self.places.intersection(&before).next(), strange.first()) {
            info!(%place, "nobody in the group holds a partition; its shares are worked out anew");
            let visitor: BaseConsumer<Logging> =
                config.create_with_context(Logging).or_kafka("open a consumer")?;
            visitor.subscribe(&[topic.name()]).or_kafka("visit a group")?;
            self.visit = Some((visitor, Instant::now()));
        }
        Ok(())
    }
}

/// What the members of a group hold; none while the group is changing.
fn held<C: ConsumerContext>(consumer: &BaseConsumer<C>, group: &str) -> Result<Option<BTreeSet<Place>>> {
    let list =
        consumer.fetch_group_list(Some(group), TELL_TIMEOUT).or_kafka("list the members of a group")?;
    let Some(group) = list.groups().iter().find(|found| found.name() == group) else { return Ok(None) };
    if group.state() != STABLE {
        return Ok(None);
    }
    let mut held = BTreeSet::new();
    for member in group.members() {
        let places = member.assignment().map_or(Some(Vec::new()), share);
        held.extend(places.ok_or_else(|| Error::internal("a member's share cannot be read"))?);
    }
    Ok(Some(held))
}

/// Reads a member's share: `ConsumerProtocolAssignment` of Kafka's protocol, that is a version, an
/// array of topics, each a string and an array of partitions, and bytes of the member's own.
fn share(mut bytes: &[u8]) -> Option<Vec<Place>> {
    let mut places = Vec::new();
    if bytes.is_empty() {
        return Some(places);
    }
    let _version = bytes.try_get_i16().ok()?;
    for _ in 0..bytes.try_get_i32().ok()? {
        let length = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
        let topic = Topic::from_name(std::str::from_utf8(bytes.split_off(..length)?).ok()?);
        for _ in 0..bytes.try_get_i32().ok()? {
            let number = u32::try_from(bytes.try_get_i32().ok()?).ok()?;
            places.push(Place::new(topic.clone(), Partition(number)));
        }
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_members_share_is_read() {
        let bytes = b"\0\x03\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x02\0\x02bc\0\0\0\x01\0\0\0\x07\xff\xff\xff\xff";
        let place = |topic, number| Place::new(Topic::from_name(topic), Partition(number));
        assert_eq!(share(bytes), Some(vec![place("a", 0), place("a", 2), place("bc", 7)]));
        assert_eq!(share(b""), Some(Vec::new()));
        for end in 1..bytes.len() - 4 {
            assert_eq!(share(&bytes[..end]), None, "the first {end} bytes");
        }
    }
}
