//! Keyed compaction.
use std::sync::Arc;

use super::store::Store;
use super::topics::TopicState;
use crate::error::Result;
use crate::time::Timestamp;

pub(super) fn topic(_store: &Store, _state: &Arc<TopicState>, _now: Timestamp) -> Result<()> {
    Ok(())
}
