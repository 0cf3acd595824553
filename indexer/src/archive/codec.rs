//! An encoder that compresses some steps of lines while the next ones are gathered.
//!
//! At most [`STEPS_WAITING_MAX`] steps wait and as many are on their way: steps keep their order, memory
//! its bound, and whoever gathers faster than is compressed waits. More than one, since waking a thread
//! takes a good part of the time of a step.

use broker::{Error, Result};
use tokio::sync::oneshot::{self, Receiver};

use super::object::Encoder;

/// So many steps wait for an encoder that is at work.
const STEPS_WAITING_MAX: usize = 4;

/// An encoder at work beside the one who feeds it.
pub(super) struct Codec {
    /// Where the encoder comes back once it has taken what it was given.
    back: Receiver<Result<Turn>>,
    waiting: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// What the encoder and its steps held when they left.
    left_bytes: usize,
}

/// An encoder with the steps that it takes or has taken.
struct Turn {
    encoder: Encoder,
    steps: Vec<Vec<u8>>,
}

impl Turn {
    fn take(&mut self) -> Result<()> {
        self.steps.iter().try_for_each(|lines| self.encoder.write(lines))
    }
}

impl Codec {
    pub(super) fn new(encoder: Encoder) -> Self {
        let (done, back) = oneshot::channel();
        let left_bytes = encoder.held_bytes();
        let turn = Turn { encoder, steps: Vec::new() };
        done.send(Ok(turn)).map_or_else(drop, drop);
        Self { back, waiting: Vec::new(), spare: Vec::new(), left_bytes }
    }

    /// Takes a step and leaves an empty buffer behind. What went wrong with an earlier one is told here
    /// or at the end. Blocks while too many wait, in a runtime.
    pub(super) fn feed(&mut self, lines: &mut Vec<u8>) -> Result<()> {
        let empty = self.spare.pop().unwrap_or_default();
        self.waiting.push(std::mem::replace(lines, empty));
        if self.back.is_empty() && self.waiting.len() < STEPS_WAITING_MAX {
            return Ok(());
        }
        let mut turn = self.take_back()?;
        self.spare = std::mem::replace(&mut turn.steps, std::mem::take(&mut self.waiting));
        self.spare.iter_mut().for_each(Vec::clear);
        self.left_bytes = turn.encoder.held_bytes() + held_bytes(&turn.steps);
        let (done, back) = oneshot::channel();
        self.back = back;
        let take = move || {
            let taken = turn.take().map(|()| turn);
            // Nobody waits for an object that was given up.
            done.send(taken).map_or_else(drop, drop);
        };
        drop(tokio::task::spawn_blocking(take));
        Ok(())
    }

    /// The encoder, once it has taken every step. Blocks.
    pub(super) fn finish(mut self) -> Result<Encoder> {
        let mut turn = self.take_back()?;
        turn.steps = self.waiting;
        turn.take()?;
        Ok(turn.encoder)
    }

    /// About how many bytes have come out so far, and wait to go in.
    pub(super) fn held_bytes(&self) -> usize {
        self.left_bytes + held_bytes(&self.waiting) + held_bytes(&self.spare)
    }

    /// Waits for the encoder. Where it is lost, or was taken and not handed on, it is an error.
    fn take_back(&mut self) -> Result<Turn> {
        let back = std::mem::replace(&mut self.back, oneshot::channel().1);
        back.blocking_recv().map_err(|_| Error::internal("the codec of an object is lost"))?
    }
}

fn held_bytes(steps: &[Vec<u8>]) -> usize {
    steps.iter().map(Vec::capacity).sum()
}

#[cfg(test)]
mod tests {
    use super::super::object::{Compression, decode};
    use super::*;

    #[test]
    fn steps_come_out_in_order_as_if_nobody_had_waited() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _in_it = runtime.enter();
        let steps = || (0..40_u8).map(|n| vec![b'a' + n % 26; 100_000 + usize::from(n)]);
        let mut alone = Encoder::new(Compression::Zstd).unwrap();
        let mut codec = Codec::new(Encoder::new(Compression::Zstd).unwrap());
        for step in steps() {
            alone.write(&step).unwrap();
            let mut lines = step;
            codec.feed(&mut lines).unwrap();
            assert!(lines.is_empty());
        }
        let bytes = codec.finish().unwrap().finish().unwrap();
        assert_eq!(bytes, alone.finish().unwrap());
        let lines: Vec<Vec<u8>> =
            decode(Compression::Zstd, bytes).unwrap().map(|line| line.unwrap()).collect();
        assert_eq!(lines, [steps().collect::<Vec<_>>().concat()]);
    }

    #[test]
    fn an_encoder_that_is_lost_is_an_error_before_more_than_its_steps_wait() {
        let mut codec = Codec::new(Encoder::new(Compression::None).unwrap());
        codec.back = oneshot::channel().1;
        let mut fed = (0..STEPS_WAITING_MAX).map(|_| codec.feed(&mut b"a\n".to_vec()));
        assert!(fed.any(|fed| fed.is_err()));
        codec.finish().err().expect("there is no encoder");
    }
}
