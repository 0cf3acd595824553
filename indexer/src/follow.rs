//! Following what is processed: tails that are read once for all who follow, and subscriptions to the
//! streams of a dataset.

mod form;
pub(crate) mod subscription;
mod tail;
#[cfg(test)]
mod tests;
pub(crate) mod websocket;

pub(crate) use form::{Content, Form, entries};
pub(crate) use tail::{Follower, Rendered, Tails};
