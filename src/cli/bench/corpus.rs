//! The batches of a run, made before it begins and sent again and again.

use std::path::PathBuf;

use bytes::Bytes;
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::schedule::Turn;
use crate::cli::import::Source;
use crate::failure::{Exit, Failure};

/// What records of a file, and what bodies made of them, take of memory at most.
const SAMPLE_BYTES_MAX: usize = 64 << 20;
/// Batches of records that are made up.
const MADE_UP_BATCHES: usize = 64;
/// The same records in every run.
const SEED: u64 = 20_010_108;
/// Different names in records that are made up; a stream can have them as its key.
const NAMES: u32 = 1_000;

/// One body.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) body: Bytes,
    pub(super) records: u64,
    /// The bytes of the records alone.
    pub(super) bytes: u64,
}

/// All bodies of a run.
#[derive(Debug)]
pub(super) struct Corpus {
    batches: Vec<Batch>,
    /// The last batch of a run that is told a number of records.
    tail: Option<Batch>,
}

impl Corpus {
    /// Batches of so many records, and one of the rest where there is one. Records are taken over and
    /// over until a batch is full.
    pub(super) fn new(
        records: &[Bytes],
        (batch_records, tail_records): (u32, u32),
        encode: impl Fn(&[Bytes]) -> Bytes,
    ) -> Result<Self, Failure> {
        let bytes: usize = records.iter().map(Bytes::len).sum();
        let batch_bytes = bytes / records.len().max(1) * batch_records as usize;
        if batch_bytes > SAMPLE_BYTES_MAX {
            let message = format!("a batch of {batch_bytes} bytes is larger than {SAMPLE_BYTES_MAX}");
            return Err(Failure::new(Exit::Usage, message).with_field("batch"));
        }
        let count = (records.len() / batch_records as usize).max(1);
        let mut all = records.iter().cycle().cloned();
        let mut next = |count: u32| {
            let records: Vec<Bytes> = all.by_ref().take(count as usize).collect();
            let bytes = records.iter().map(|record| record.len() as u64).sum();
            Batch { body: encode(&records), records: count.into(), bytes }
        };
        let mut batches = vec![next(batch_records)];
        let mut size = batches[0].body.len();
        while batches.len() < count && size < SAMPLE_BYTES_MAX {
            let batch = next(batch_records);
            size += batch.body.len();
            batches.push(batch);
        }
        Ok(Self { batches, tail: (tail_records > 0).then(|| next(tail_records)) })
    }

    /// The batch of a turn.
    pub(super) fn batch(&self, turn: &Turn) -> &Batch {
        match &self.tail {
            Some(tail) if turn.is_last => tail,
            _ => &self.batches[(turn.number % self.batches.len() as u64) as usize],
        }
    }
}

/// The records of a file, as many as there is room for.
pub(super) fn read(file: PathBuf) -> Result<Vec<Bytes>, Failure> {
    let shown = file.display().to_string();
    let source = Source::of(file);
    let records = source.records(source.format()?, &ProgressBar::hidden(), 0)?;
    let mut sample = Vec::new();
    let mut size = 0;
    for record in records {
        let record = record?;
        size += record.len();
        sample.push(record.into());
        if size >= SAMPLE_BYTES_MAX {
            break;
        }
    }
    match sample.is_empty() {
        true => Err(Failure::new(Exit::Usage, format!("{shown} has no records"))),
        false => Ok(sample),
    }
}

/// Records of one size. Their text is of random letters, so that it is not all one to a codec.
pub(super) fn make_up(record_bytes: usize, batch_records: u32) -> Vec<Bytes> {
    // A batch that is too large is refused later; there is no need to make it up first.
    let batch_records = (batch_records as usize).min(SAMPLE_BYTES_MAX / record_bytes + 1);
    let batches = (SAMPLE_BYTES_MAX / record_bytes / batch_records).clamp(1, MADE_UP_BATCHES);
    let mut random = StdRng::seed_from_u64(SEED);
    let record = |number: usize| {
        let name = random.random_range(0..NAMES);
        let mut record = format!("{{\"id\":\"{number:08}\",\"name\":\"name-{name:03}\",\"text\":\"");
        let letters =
            (0..record_bytes.saturating_sub(record.len() + 2)).map(|_| random.random_range('a'..='z'));
        record.extend(letters);
        record.push_str("\"}");
        record.into()
    };
    (0..batches * batch_records).map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::super::schedule::{Goal, Schedule};
    use super::*;

    fn joined(records: &[Bytes]) -> Bytes {
        records.concat().into()
    }

    #[test]
    fn records_are_repeated_until_every_batch_is_full() {
        let records = ["a", "b", "c"].map(Bytes::from);
        let corpus = Corpus::new(&records, (2, 1), joined).unwrap();
        let schedule = Schedule::start(Goal::Records(5), 2, None);
        let bodies: Vec<_> =
            std::iter::from_fn(|| schedule.next()).map(|turn| corpus.batch(&turn).clone()).collect();
        let bodies: Vec<_> = bodies.iter().map(|batch| (&batch.body[..], batch.records)).collect();
        assert_eq!(bodies, [(&b"ab"[..], 2), (b"ab", 2), (b"c", 1)]);
        let corpus = Corpus::new(&records, (7, 0), joined).unwrap();
        assert_eq!((&corpus.batches[0].body[..], corpus.batches[0].bytes), (&b"abcabca"[..], 7));
        let large = make_up(1 << 20, 1_000);
        assert!(large.len() < 100);
        assert_eq!(Corpus::new(&large, (1_000, 0), joined).unwrap_err().exit(), Exit::Usage);
    }

    #[test]
    fn records_that_are_made_up_are_json_of_the_size_asked_for() {
        for size in [64, 100, 5_000] {
            let records = make_up(size, 10);
            assert_eq!(records.len(), 640);
            for record in records {
                assert_eq!(record.len(), size);
                serde_json::from_slice::<serde_json::Value>(&record).unwrap();
            }
        }
    }
}
