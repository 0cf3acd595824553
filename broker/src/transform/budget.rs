//! What a program may take for one record: steps, and memory as the allocator counts it.

use std::ops::ControlFlow;

use crate::memory::held_bytes;

/// Expressions that a program may evaluate for one record.
pub(super) const STEPS_MAX: u32 = 1_000_000;
/// How much more than before the thread may hold after a step of the program. One step can at most
/// double what the steps before it made, functions that repeat their argument aside.
pub(super) const MEMORY_BYTES_MAX: u64 = 128 << 20;

/// Counts the steps and the memory of one run, so that it ends.
pub(super) struct Budget {
    steps: u32,
    held_before: u64,
    exceeded: Option<String>,
}

impl Budget {
    /// The whole budget, from now on.
    pub(super) fn new() -> Self {
        Self { steps: 0, held_before: held_bytes(), exceeded: None }
    }

    /// Counts a step. Breaks once the budget is used up.
    pub(super) fn step(&mut self) -> ControlFlow<()> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            self.exceeded = Some(format!("the program took more than {STEPS_MAX} steps"));
            return ControlFlow::Break(());
        }
        // Negative where the program has freed more than it took.
        let grown = held_bytes().wrapping_sub(self.held_before).cast_signed();
        if grown > MEMORY_BYTES_MAX.cast_signed() {
            self.exceeded = Some(format!("the program took more than {MEMORY_BYTES_MAX} bytes of memory"));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Why the run was ended.
    pub(super) fn exceeded(self) -> String {
        self.exceeded.unwrap_or_else(|| "the program was interrupted".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_for_the_thread_that_takes_it() {
        let mut budget = Budget::new();
        let kept = vec![1_u8; 1 << 20];
        assert!(held_bytes().wrapping_sub(budget.held_before) >= 1 << 20);
        assert!(budget.step().is_continue());
        let other = std::thread::scope(|scope| {
            let work = scope.spawn(|| vec![1_u8; MEMORY_BYTES_MAX as usize + 1]);
            work.join().unwrap()
        });
        assert!(budget.step().is_continue());
        let own = other.clone();
        assert!(budget.step().is_break());
        assert!(budget.exceeded().contains("bytes"));
        drop((kept, other, own));
    }
}
