//! Admission by bytes in flight: who finds no room is told so at once and never waits in a buffer.

use std::sync::Arc;

use broker::{Error, Kind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The bytes that requests may hold together.
#[derive(Debug)]
pub(crate) struct Admission(Arc<Semaphore>);

impl Admission {
    /// Room for that many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes_max.min(Semaphore::MAX_PERMITS))))
    }

    /// Room for one request; `Busy` if there is not enough. Dropping the charge gives it back.
    pub(crate) fn charge(&self, bytes: usize) -> Result<Charge> {
        let permit = take(&self.0, bytes)?;
        Ok(Charge { room: self.0.clone(), permit })
    }
}

/// The bytes that one request holds.
#[derive(Debug)]
pub(crate) struct Charge {
    room: Arc<Semaphore>,
    permit: OwnedSemaphorePermit,
}

impl Charge {
    /// Takes more; `Busy` if there is not enough.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<()> {
        self.permit.merge(take(&self.room, bytes)?);
        Ok(())
    }

    /// Grows to `bytes` in all; what is more already stays.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<()> {
        let missing = bytes.saturating_sub(self.permit.num_permits());
        if missing == 0 { Ok(()) } else { self.grow(missing) }
    }
}

fn take(room: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit> {
    let bytes = u32::try_from(bytes).ok();
    let permit = bytes.and_then(|bytes| room.clone().try_acquire_many_owned(bytes).ok());
    permit.ok_or_else(|| Error::new(Kind::Busy, "too many bytes are in flight (in_flight_bytes_max)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_at_once_what_does_not_fit_and_takes_it_once_there_is_room() {
        let admission = Admission::new(100);
        let mut first = admission.charge(60).unwrap();
        assert_eq!(admission.charge(41).unwrap_err().kind(), Kind::Busy);
        first.grow_to(60).unwrap();
        first.grow(40).unwrap();
        assert_eq!(first.grow(1).unwrap_err().kind(), Kind::Busy);
        drop(first);
        assert!(admission.charge(100).is_ok());
    }
}
