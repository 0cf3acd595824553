//! What processes have used, as the kernel counts it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How often somebody looks at what changes.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What this process has used on all its threads.
pub(crate) fn own_cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(used.tv_sec).expect("a process uses no negative time");
    Duration::new(seconds, u32::try_from(used.tv_nsec).expect("nanoseconds are below a second"))
}

/// What another process has used, in steps of a hundredth of a second.
pub(crate) fn cpu(id: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("read the server's statistics");
    // The name in brackets may hold spaces; 14th and 15th of all fields are user and kernel time.
    let fields = stat.rsplit_once(") ").expect("a name stands in brackets").1.split(' ');
    let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
    Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).expect("few ticks")
}

/// The most memory that another process held since [`forget_peak`], or ever.
pub(crate) fn memory_peak_bytes(id: u32) -> u64 {
    memory_bytes(id, "VmHWM:")
}

/// Lets the most memory that another process held be counted from now on.
pub(crate) fn forget_peak(id: u32) {
    std::fs::write(format!("/proc/{id}/clear_refs"), "5").expect("reset the peak of memory");
}

/// The memory that another process holds now.
pub(crate) fn memory_now_bytes(id: u32) -> u64 {
    memory_bytes(id, "VmRSS:")
}

fn memory_bytes(id: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("read the server's status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number of kB") << 10
}

/// Looks a hundred times a second at the memory of its own that a process holds: without the pages of
/// files that it has mapped, which the system takes back when it needs them.
pub(crate) struct OwnMemory {
    is_over: Arc<AtomicBool>,
    watch: JoinHandle<u64>,
}

impl OwnMemory {
    pub(crate) fn watch(id: u32) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let asked = is_over.clone();
        let watch = std::thread::Builder::new().name("memory".to_owned()).spawn(move || {
            let mut most = 0;
            while !asked.load(Ordering::Relaxed) {
                most = most.max(memory_bytes(id, "RssAnon:"));
                std::thread::sleep(LOOK_EVERY);
            }
            most
        });
        Self { is_over, watch: watch.expect("start a thread") }
    }

    /// The most that was seen, in bytes.
    pub(crate) fn most(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        self.watch.join().expect("the process is there")
    }
}

/// What the files of a folder take on the disk.
pub(crate) fn disk_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let of_entry = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        // A file that went away meanwhile takes nothing.
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(of_entry).sum()
}

/// Processors of this machine.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
