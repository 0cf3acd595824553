//! How often a credential may be wrong: some times in a row, then once each few seconds, by address and
//! by principal.
//!
//! Each of them has a slot, found by a hash that nobody outside can foresee. Two that share one wait for
//! each other; in return a flood takes no memory. A slot holds the instant at which all that failed
//! would have been allowed, had it come evenly (the generic cell rate algorithm, ITU-T I.371).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use broker::Timestamp;

const SLOTS: usize = 1 << 16;
/// How many may fail in a row.
const IN_A_ROW_MAX: i64 = 20;
/// How long it takes until one more may.
const PAUSE: Duration = Duration::from_secs(3);

const PAUSE_MICROS: i64 = PAUSE.as_micros() as i64;

/// Who fails.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject<'a> {
    /// Whoever asks from an address; IPv6 addresses of one network of 64 bits count as one.
    Address(IpAddr),
    /// Whoever says to be this principal.
    Principal(&'a str),
}

/// What failed lately.
pub(crate) struct Attempts {
    seed: RandomState,
    slots: Box<[AtomicI64]>,
}

impl Default for Attempts {
    fn default() -> Self {
        let slots = (0..SLOTS).map(|_| AtomicI64::new(0)).collect();
        Self { seed: RandomState::new(), slots }
    }
}

impl Attempts {
    /// How long a subject has to wait until it may try again; none where it may now.
    pub(crate) fn wait(&self, subject: Subject<'_>, now: Timestamp) -> Option<Duration> {
        let due = self.slot(subject).load(Ordering::Relaxed);
        let wait = due - now.micros() - (IN_A_ROW_MAX - 1) * PAUSE_MICROS;
        u64::try_from(wait).ok().filter(|micros| *micros > 0).map(Duration::from_micros)
    }

    /// Counts one that failed, or may.
    pub(crate) fn count(&self, subject: Subject<'_>, now: Timestamp) {
        let latest = now.micros() + IN_A_ROW_MAX * PAUSE_MICROS;
        let count = |due: i64| Some((due.max(now.micros()) + PAUSE_MICROS).min(latest));
        self.update(subject, count);
    }

    /// Takes back one that did not fail.
    pub(crate) fn take_back(&self, subject: Subject<'_>) {
        self.update(subject, |due| Some(due - PAUSE_MICROS));
    }

    fn update(&self, subject: Subject<'_>, change: impl Fn(i64) -> Option<i64>) {
        // It always answers something, so that this cannot fail.
        self.slot(subject).fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).ok();
    }

    fn slot(&self, subject: Subject<'_>) -> &AtomicI64 {
        let hash = match subject {
            Subject::Address(address) => self.seed.hash_one(network(address)),
            Subject::Principal(name) => self.seed.hash_one(name),
        };
        let index = usize::try_from(hash % SLOTS as u64).unwrap_or_default();
        &self.slots[index]
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000).unwrap()
    }

    fn address(text: &str) -> Subject<'static> {
        Subject::Address(text.parse().unwrap())
    }

    #[test]
    fn some_may_fail_in_a_row_then_one_in_three_seconds() {
        let attempts = Attempts::default();
        let ann = Subject::Principal("ann");
        for _ in 0..IN_A_ROW_MAX {
            assert_eq!(attempts.wait(ann, at(0)), None);
            attempts.count(ann, at(0));
        }
        assert_eq!(attempts.wait(ann, at(0)), Some(PAUSE));
        assert_eq!(attempts.wait(ann, at(2)), Some(Duration::from_secs(1)));
        assert_eq!(attempts.wait(ann, at(3)), None);
        attempts.count(ann, at(3));
        assert_eq!(attempts.wait(ann, at(3)), Some(PAUSE));
        assert_eq!(attempts.wait(ann, at(1_000)), None);
        assert_eq!(attempts.wait(Subject::Principal("ben"), at(0)), None);
    }

    #[test]
    fn a_flood_does_not_lengthen_the_wait() {
        let attempts = Attempts::default();
        for _ in 0..10_000 {
            attempts.count(address("192.0.2.1"), at(0));
        }
        assert_eq!(attempts.wait(address("192.0.2.1"), at(0)), Some(PAUSE));
        assert_eq!(attempts.wait(address("192.0.2.2"), at(0)), None);
    }

    #[test]
    fn one_that_is_right_does_not_count() {
        let attempts = Attempts::default();
        let ann = Subject::Principal("ann");
        for _ in 0..10 * IN_A_ROW_MAX {
            attempts.count(ann, at(0));
            attempts.take_back(ann);
        }
        assert_eq!(attempts.wait(ann, at(0)), None);
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let attempts = Attempts::default();
        for _ in 0..IN_A_ROW_MAX {
            attempts.count(address("2001:db8::1"), at(0));
            attempts.count(address("::ffff:192.0.2.1"), at(0));
        }
        assert!(attempts.wait(address("2001:db8::ffff:2"), at(0)).is_some());
        assert!(attempts.wait(address("192.0.2.1"), at(0)).is_some());
        assert_eq!(attempts.wait(address("2001:db8:0:1::1"), at(0)), None);
    }
}
