//! The log on sled.
