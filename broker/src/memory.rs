//! The allocator of the process: what a thread holds, and how long pages stay that nobody holds.
//!
//! Stages work in turns, and each turn takes tens of megabytes for a moment: a split that is built, an
//! object that is compressed, blocks that are decoded. Left to itself the allocator keeps freed pages for
//! ten seconds, in each of its arenas, so that a backlog costs several times what is in use at any time.

use tikv_jemalloc_ctl::thread::{ThreadLocal, allocatedp, deallocatedp};
use tikv_jemalloc_ctl::{Access, AsName, background_thread};
use tikv_jemallocator::Jemalloc;

use crate::error::{Error, Result};

/// Freed pages go back to the system within about so many milliseconds, little by little. What is
/// allocated again sooner takes them before that.
const PAGES_KEPT_MILLIS: isize = 1_000;
/// The settings of arenas that are made from now on, and that of the first, which is there already.
const PAGES_KEPT: [&[u8]; 2] = [b"arenas.dirty_decay_ms\0", b"arena.0.dirty_decay_ms\0"];
/// The same for pages that the system may take, but does not before it is short of them.
const PAGES_LENT: [&[u8]; 2] = [b"arenas.muzzy_decay_ms\0", b"arena.0.muzzy_decay_ms\0"];

/// It counts what each thread allocates and frees, so that a bound on one piece of work holds for it
/// alone and not for whatever else the process does at the time.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

thread_local! {
    /// What this thread has allocated, and what it has freed, in bytes.
    static COUNTERS: (ThreadLocal<u64>, ThreadLocal<u64>) = allocatedp::read()
        .and_then(|allocated| Ok((allocated, deallocatedp::read()?)))
        .expect("the allocator is built with its counters");
}

/// Bytes that this thread has allocated and not freed; wraps where it freed what others allocated.
pub(crate) fn held_bytes() -> u64 {
    COUNTERS.with(|(allocated, freed)| allocated.get().wrapping_sub(freed.get()))
}

/// Lets freed pages go back to the system soon, also while the process rests. To be called once, before
/// threads are started: those that are there keep what their arenas have.
pub fn return_pages_soon() -> Result<()> {
    let kept = PAGES_KEPT.iter().map(|name| name.name().write(PAGES_KEPT_MILLIS));
    let lent = PAGES_LENT.iter().map(|name| name.name().write(0_isize));
    let set = kept.chain(lent).collect::<std::result::Result<(), _>>();
    let set = set.and_then(|()| background_thread::write(true));
    set.map_err(|error| Error::internal(format!("set up the allocator: {error}")))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tikv_jemalloc_ctl::{epoch, stats};

    use super::*;

    fn resident_bytes() -> usize {
        epoch::advance().unwrap();
        stats::resident::read().unwrap()
    }

    #[test]
    fn freed_pages_go_back_though_nobody_allocates_more() {
        return_pages_soon().unwrap();
        // In a thread of its own, whose arena is made after this was said or is the first.
        let filled = std::thread::scope(|scope| {
            let work = scope.spawn(|| {
                let pieces: Vec<Vec<u8>> = (0..2_000).map(|_| vec![1; 64 << 10]).collect();
                let filled = resident_bytes();
                drop(pieces);
                filled
            });
            work.join().unwrap()
        });
        let began = Instant::now();
        while resident_bytes() + (96 << 20) > filled {
            assert!(began.elapsed() < Duration::from_secs(30), "{} of {filled} stay", resident_bytes());
            std::thread::yield_now();
        }
    }
}
