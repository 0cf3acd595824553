//! The records of a file as the bodies of requests.

use bytes::Bytes;

use super::Records;
use crate::failure::{Exit, Failure};

/// A request ends at this many bytes, whatever `--batch` says.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// One request's records, and those that come after.
pub(super) struct Cut {
    /// None behind the last record.
    pub(super) batch: Option<Batch>,
    pub(super) rest: Records,
}

/// One request's records, one a line.
pub(super) struct Batch {
    pub(super) body: Bytes,
    pub(super) count: usize,
}

/// Reads a batch on a thread that may block.
pub(super) async fn off_the_runtime(mut rest: Records, count: u32) -> Result<Cut, Failure> {
    let read = move || {
        let batch = next_batch(&mut rest, count)?;
        Ok(Cut { batch, rest })
    };
    let stopped = |error: tokio::task::JoinError| Failure::new(Exit::Failure, error.to_string());
    tokio::task::spawn_blocking(read).await.map_err(stopped)?
}

fn next_batch(records: &mut Records, count_max: u32) -> Result<Option<Batch>, Failure> {
    let mut body = Vec::new();
    let mut count = 0;
    while count < count_max as usize && body.len() < BATCH_BYTES_MAX {
        let Some(record) = records.next().transpose()? else { break };
        body.extend_from_slice(&record);
        body.push(b'\n');
        count += 1;
    }
    Ok((count > 0).then(|| Batch { body: body.into(), count }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_end_by_count_and_by_bytes() {
        let mut records: Records = Box::new((0..7).map(|_| Ok(b"{\"a\":1}".to_vec())));
        let mut counts = Vec::new();
        while let Some(batch) = next_batch(&mut records, 3).unwrap() {
            assert_eq!(batch.body.len(), batch.count * 8);
            counts.push(batch.count);
        }
        assert_eq!(counts, [3, 3, 1]);

        let long = format!("\"{}\"", "x".repeat(3 << 20));
        let mut records: Records = Box::new((0..4).map(move |_| Ok(long.clone().into_bytes())));
        assert_eq!(next_batch(&mut records, 500).unwrap().unwrap().count, 2);
    }
}
