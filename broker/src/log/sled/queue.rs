//! What waits for the committer, in order. Its bytes are bounded by the budget that every write
//! holds a part of; the queue itself only keeps the order.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::block::Prepared;
use super::lock;
use super::share::Share;
use crate::checkpoint::Place;
use crate::error::Result;
use crate::log::{Appended, Group, Selection};
use crate::topic::{Offset, Topic, TopicConfig};

/// Where an answer goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T>>;

/// One append of a write, cut into blocks.
pub(super) struct Output {
    pub(super) place: Place,
    pub(super) blocks: Vec<Prepared>,
}

/// The outputs of a write: at hand, or still being compressed elsewhere.
pub(super) enum Outputs {
    Ready(Vec<Output>),
    Coming(oneshot::Receiver<Result<Vec<Output>>>),
}

/// Progress of a group in one partition.
pub(super) struct Progress {
    pub(super) place: Place,
    /// The topic that the offset counts in; a topic made again under the name has another id.
    pub(super) topic: Option<u32>,
    pub(super) next: Offset,
}

/// Records progress for a reader, if it still has its share.
pub(super) struct Fence {
    pub(super) share: Arc<Share>,
    pub(super) progress: Vec<Progress>,
}

/// Appends and progress that are written all or nothing.
pub(super) struct Write {
    pub(super) fence: Option<Fence>,
    pub(super) outputs: Outputs,
    pub(super) weight: usize,
    pub(super) answer: Answer<Vec<Appended>>,
    /// Gives its part of the budget back when the write is done with.
    pub(super) permit: OwnedSemaphorePermit,
}

/// What the committer does one at a time.
pub(super) enum Control {
    Create(Topic, TopicConfig, Answer<()>),
    Delete(Topic, Answer<()>),
    Subscribe(Selection, Group, Answer<Arc<Share>>),
    KeepHouse(Answer<()>),
}

impl Control {
    /// Whether nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Control::Create(_, _, answer) => answer.is_closed(),
            Control::Delete(_, answer) | Control::KeepHouse(answer) => answer.is_closed(),
            Control::Subscribe(_, _, answer) => answer.is_closed(),
        }
    }
}

/// One thing to do.
pub(super) enum Request {
    Write(Box<Write>),
    Control(Control),
}

/// What was waiting.
pub(super) enum Taken {
    Writes(Vec<Write>),
    Control(Control),
    /// Nothing came for as long as was waited.
    Nothing,
    /// The queue was closed and is empty.
    Closed,
}

/// The queue in front of the committer.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Default)]
struct Waiting {
    requests: VecDeque<Request>,
    is_closed: bool,
}

impl Queue {
    /// Adds a request; drops it, and with it the sender of its answer, if the queue is closed.
    pub(super) fn push(&self, request: Request) {
        let mut waiting = lock(&self.waiting);
        if !waiting.is_closed {
            waiting.requests.push_back(request);
            self.filled.notify_one();
        }
    }

    /// Takes one control request, or the writes that wait, up to about `bytes_max`; waits for
    /// `patience` if there is nothing.
    pub(super) fn take(&self, bytes_max: usize, patience: Duration) -> Taken {
        let is_idle = |waiting: &mut Waiting| waiting.requests.is_empty() && !waiting.is_closed;
        let waited = self.filled.wait_timeout_while(lock(&self.waiting), patience, is_idle);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let mut writes = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max {
            match waiting.requests.pop_front() {
                Some(Request::Write(write)) => {
                    bytes += write.weight;
                    writes.push(*write);
                }
                Some(Request::Control(control)) if writes.is_empty() => return Taken::Control(control),
                Some(control) => {
                    waiting.requests.push_front(control);
                    break;
                }
                None => break,
            }
        }
        match (writes.is_empty(), waiting.is_closed) {
            (false, _) => Taken::Writes(writes),
            (true, false) => Taken::Nothing,
            (true, true) => Taken::Closed,
        }
    }

    /// Takes no more requests; those that wait are still done.
    pub(super) fn close(&self) {
        lock(&self.waiting).is_closed = true;
        self.filled.notify_all();
    }

    /// Takes no more requests and drops those that wait.
    pub(super) fn abandon(&self) {
        self.close();
        let dropped = std::mem::take(&mut lock(&self.waiting).requests);
        drop(dropped);
    }
}
