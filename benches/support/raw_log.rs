//! sled with nothing around it but what every durable log on it needs: batches compressed with lz4 and
//! cut into values of 4 KiB, and one committer that writes what waits as one batch, one flush and one
//! `fdatasync`.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

const VALUE_BYTES_MAX: usize = 4 << 10;
const COMMIT_BYTES_MAX: usize = 1 << 20;
const CACHE_BYTES: u64 = 64 << 20;

/// The log. Dropping it writes what waits and closes it.
pub(crate) struct RawLog {
    shared: Arc<Shared>,
    committer: Option<JoinHandle<()>>,
}

struct Shared {
    db: sled::Db,
    file: File,
    queue: Mutex<Queue>,
    filled: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Vec<u8>, oneshot::Sender<u64>)>,
    is_closed: bool,
}

impl RawLog {
    /// A new log in a folder.
    pub(crate) fn open(folder: &Path) -> Self {
        let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let db = config.open().expect("open sled");
        let file = File::open(folder.join("db")).expect("open sled's file");
        let shared = Shared { db, file, queue: Mutex::default(), filled: Condvar::new() };
        let shared = Arc::new(shared);
        let of_committer = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("raw-committer".to_owned());
        let committer = thread.spawn(move || of_committer.commit()).expect("start the committer");
        Self { shared, committer: Some(committer) }
    }

    /// Compresses a batch and queues it; its number comes when it is durable.
    pub(crate) fn append(&self, batch: &[u8]) -> oneshot::Receiver<u64> {
        let packed = lz4_flex::compress_prepend_size(batch);
        let (answer, answered) = oneshot::channel();
        let mut queue = self.shared.queue.lock().expect("nobody panics with the queue");
        queue.waiting.push_back((packed, answer));
        self.shared.filled.notify_one();
        answered
    }

    /// A batch, by its number from 0.
    pub(crate) fn read(&self, number: u64) -> Option<Vec<u8>> {
        let mut packed = Vec::new();
        for entry in self.shared.db.range(number.to_be_bytes()..(number + 1).to_be_bytes()) {
            packed.extend_from_slice(&entry.expect("read sled").1);
        }
        (!packed.is_empty()).then(|| lz4_flex::decompress_size_prepended(&packed).expect("decompress"))
    }

    /// Every batch in order.
    pub(crate) fn batches(&self) -> impl Iterator<Item = Vec<u8>> {
        (0..).map_while(|number| self.read(number))
    }

    /// Writes batches and waits for the last of them.
    pub(crate) fn load(&self, batches: impl IntoIterator<Item = Vec<u8>>) {
        let answers: Vec<_> = batches.into_iter().map(|batch| self.append(&batch)).collect();
        for answer in answers {
            answer.blocking_recv().expect("the committer answers");
        }
    }
}

impl Shared {
    fn take(&self) -> Vec<(Vec<u8>, oneshot::Sender<u64>)> {
        let queue = self.queue.lock().expect("nobody panics with the queue");
        let is_idle = |queue: &mut Queue| queue.waiting.is_empty() && !queue.is_closed;
        let mut queue = self.filled.wait_while(queue, is_idle).expect("nobody panics with the queue");
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < COMMIT_BYTES_MAX
            && let Some(next) = queue.waiting.pop_front()
        {
            bytes += next.0.len();
            taken.push(next);
        }
        taken
    }

    fn commit(&self) {
        let mut number = 0_u64;
        loop {
            let taken = self.take();
            if taken.is_empty() {
                return;
            }
            let first = number;
            let mut writes = sled::Batch::default();
            for (packed, _) in &taken {
                for (piece, value) in (0_u16..).zip(packed.chunks(VALUE_BYTES_MAX)) {
                    let mut key = [0; 10];
                    key[..8].copy_from_slice(&number.to_be_bytes());
                    key[8..].copy_from_slice(&piece.to_be_bytes());
                    writes.insert(&key, value);
                }
                number += 1;
            }
            self.db.apply_batch(writes).expect("write sled");
            self.db.flush().expect("flush sled");
            self.file.sync_data().expect("sync sled's file");
            for ((_, answer), number) in taken.into_iter().zip(first..) {
                // Whoever asked may be gone.
                answer.send(number).unwrap_or_default();
            }
        }
    }
}

impl Drop for RawLog {
    fn drop(&mut self) {
        self.shared.queue.lock().expect("nobody panics with the queue").is_closed = true;
        self.shared.filled.notify_all();
        let committer = self.committer.take().expect("it is dropped once");
        committer.join().expect("the committer ends well");
    }
}
