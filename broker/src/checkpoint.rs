//! How far something has come: the next offset wanted, per partition.

use std::collections::BTreeMap;
use std::fmt;

use crate::topic::{Offset, Partition, Topic};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The topic.
    pub topic: Topic,
    /// Its partition.
    pub partition: Partition,
}

impl Place {
    /// A partition of a topic.
    pub fn new(topic: Topic, partition: Partition) -> Self {
        Self { topic, partition }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// The next offset wanted, per partition. A partition that is not named was never begun.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint(BTreeMap<Place, Offset>);

impl Checkpoint {
    /// Nothing was begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next offset wanted from a partition.
    pub fn get(&self, place: &Place) -> Option<Offset> {
        self.0.get(place).copied()
    }

    /// Sets the next offset wanted from a partition.
    pub fn set(&mut self, place: Place, next: Offset) {
        self.0.insert(place, next);
    }

    /// Forgets a partition.
    pub fn remove(&mut self, place: &Place) {
        self.0.remove(place);
    }

    /// Takes over every entry of `other`.
    pub fn merge(&mut self, other: &Checkpoint) {
        for (place, next) in &other.0 {
            self.0.insert(place.clone(), *next);
        }
    }

    /// What `self` says otherwise than `base`.
    #[must_use]
    pub fn changes_since(&self, base: &Checkpoint) -> Checkpoint {
        let changed = self.0.iter().filter(|(place, next)| base.get(place) != Some(**next));
        Checkpoint(changed.map(|(place, next)| (place.clone(), *next)).collect())
    }

    /// Whether no partition is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every partition with its next offset, ordered.
    pub fn iter(&self) -> impl Iterator<Item = (&Place, Offset)> {
        self.0.iter().map(|(place, next)| (place, *next))
    }
}

impl FromIterator<(Place, Offset)> for Checkpoint {
    fn from_iter<I: IntoIterator<Item = (Place, Offset)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}
