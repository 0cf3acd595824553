//! An encoder that compresses one step of lines while the next one is gathered.
//!
//! One step at most is on its way: steps keep their order, memory its bound, and whoever gathers
//! faster than is compressed waits.

use broker::{Error, Result};
use tokio::sync::oneshot::{self, Receiver};

use super::object::Encoder;

/// An encoder at work beside the one who feeds it.
pub(super) struct Codec {
    /// Where the encoder comes back once it has taken the last step.
    back: Receiver<Result<Turn>>,
    /// What had come out when it came back last.
    held_bytes: usize,
}

/// An encoder with the step that it takes or has taken.
struct Turn {
    encoder: Encoder,
    lines: Vec<u8>,
}

impl Codec {
    pub(super) fn new(encoder: Encoder) -> Self {
        let (done, back) = oneshot::channel();
        let held_bytes = encoder.held_bytes();
        let turn = Turn { encoder, lines: Vec::new() };
        done.send(Ok(turn)).map_or_else(drop, drop);
        Self { back, held_bytes }
    }

    /// Hands on a step, once the one before it is compressed, and leaves an empty buffer behind. What
    /// went wrong with the one before it is told here, and again from then on. Blocks, in a runtime.
    pub(super) fn feed(&mut self, lines: &mut Vec<u8>) -> Result<()> {
        let (done, back) = oneshot::channel();
        let mut turn = taken_back(std::mem::replace(&mut self.back, back))?;
        self.held_bytes = turn.encoder.held_bytes();
        turn.lines.clear();
        std::mem::swap(lines, &mut turn.lines);
        let take = move || {
            let taken = turn.encoder.write(&turn.lines).map(|()| turn);
            // Nobody waits for an object that was given up.
            done.send(taken).map_or_else(drop, drop);
        };
        drop(tokio::task::spawn_blocking(take));
        Ok(())
    }

    /// The encoder, once it has taken every step. Blocks.
    pub(super) fn finish(self) -> Result<Encoder> {
        taken_back(self.back).map(|turn| turn.encoder)
    }

    /// About how many bytes have come out so far.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }
}

fn taken_back(back: Receiver<Result<Turn>>) -> Result<Turn> {
    back.blocking_recv().map_err(|_| Error::internal("the codec of an object is lost"))?
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
    fn an_encoder_that_is_lost_is_an_error_from_then_on() {
        let mut codec = Codec::new(Encoder::new(Compression::None).unwrap());
        codec.back = oneshot::channel().1;
        codec.feed(&mut b"a\n".to_vec()).unwrap_err();
        codec.feed(&mut b"a\n".to_vec()).unwrap_err();
        codec.finish().err().expect("there is no encoder");
    }
}
