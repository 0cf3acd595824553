//! What goes on with a connection once its HTTP has ended.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use crate::index::lock;

/// What is done with a connection.
type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the server puts among the extensions of an HTTP/1.1 request, and looks into when the connection
/// has ended its HTTP: the connection's task then goes on with what a handler left there.
#[derive(Clone, Default)]
pub struct Handover(Arc<Mutex<Option<Work>>>);

impl Handover {
    /// Leaves what is to be done with the connection.
    pub(crate) fn leave(&self, work: impl Future<Output = ()> + Send + 'static) {
        *lock(&self.0) = Some(Box::pin(work));
    }

    /// What was left, for the one who takes it first.
    pub fn take(&self) -> Option<Work> {
        lock(&self.0).take()
    }
}
