//! A stack that is deep enough for programs, whose trees are walked by recursion.

/// The stack on which programs are compiled and run.
const STACK_BYTES: usize = 64 << 20;
/// What must be left of a stack so that a program may run on it.
const LEFT_BYTES_MIN: usize = 48 << 20;

/// Calls `work` on a stack with room for the deepest program. Who runs many programs in a row does
/// it inside one such call: then each of them finds the room there already.
pub(crate) fn on_large_stack<T>(work: impl FnOnce() -> T) -> T {
    stacker::maybe_grow(LEFT_BYTES_MIN, STACK_BYTES, work)
}
