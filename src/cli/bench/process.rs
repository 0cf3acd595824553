//! CPU time and memory of a process on this machine, read from `/proc`. Where there is none, there is
//! nothing to tell.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::param::clock_ticks_per_second;
use serde::Serialize;

/// A TCP socket that listens, in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process(u32);

/// What a process has used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    cpu: Duration,
    rss_bytes: u64,
    rss_bytes_peak: u64,
}

/// What a process used for a run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Spent {
    /// Processor time for each record taken; none where none was.
    pub(super) cpu_micros_per_record: Option<f64>,
    /// Processors that were busy, on average.
    pub(super) cpu_cores: f64,
    /// Memory at the end.
    pub(super) rss_bytes: u64,
    /// The most memory since the process began.
    pub(super) rss_bytes_peak: u64,
}

impl Process {
    /// This process.
    pub(super) fn own() -> Self {
        Self(std::process::id())
    }

    /// A process that can be read.
    pub(super) fn of(id: u32) -> io::Result<Self> {
        let process = Self(id);
        process.usage().map(|_| process)
    }

    /// The one that listens on a port of this machine, where it can be told and read.
    pub(super) fn on_port(port: u16) -> Option<Self> {
        let tables =
            ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
        let socket = tables.iter().find_map(|table| listening(table, port))?;
        let is_socket = |link: &Path| link.as_os_str() == format!("socket:[{socket}]").as_str();
        let folders = fs::read_dir("/proc").ok()?.flatten();
        let mut ids = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
        let id = ids.find(|id: &u32| {
            let files = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
            files.filter_map(|file| fs::read_link(file.path()).ok()).any(|link| is_socket(&link))
        })?;
        Self::of(id).ok()
    }

    /// Its number.
    pub(super) fn id(self) -> u32 {
        self.0
    }

    /// What it has used so far. The system counts its time in hundredths of a second.
    pub(super) fn usage(&self) -> io::Result<Usage> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "/proc is not as expected");
        let ticks = cpu_ticks(&stat).ok_or_else(wrong)?;
        let (rss_bytes, rss_bytes_peak) =
            (bytes(&status, "VmRSS:").ok_or_else(wrong)?, bytes(&status, "VmHWM:").ok_or_else(wrong)?);
        let cpu = Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64);
        Ok(Usage { cpu, rss_bytes, rss_bytes_peak })
    }
}

impl Usage {
    /// What was used after another look.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu), ..*self }
    }

    /// The same by time and by record.
    pub(super) fn per_record(&self, elapsed: Duration, records: u64) -> Spent {
        let cpu = self.cpu.as_secs_f64();
        Spent {
            cpu_micros_per_record: (records > 0).then(|| cpu * 1e6 / records as f64),
            cpu_cores: cpu / elapsed.as_secs_f64().max(f64::EPSILON),
            rss_bytes: self.rss_bytes,
            rss_bytes_peak: self.rss_bytes_peak,
        }
    }
}

/// The inode of the socket that listens on a port, in a table of `/proc/net`.
fn listening(table: &str, port: u16) -> Option<&str> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, listens_on) = fields.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(listens_on, 16) == Ok(port) && *fields.get(3)? == LISTEN;
        fields.get(9).copied().filter(|_| is_it)
    })
}

/// User and system time; the fields begin behind the name, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

fn bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_proc_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1B9E 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 11 1 0 20 4 30 10 -1
   1: 0100007F:1B9E 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1 0 100 0 0 10 0\n";
        assert_eq!(listening(table, 7070), Some("12"));
        assert_eq!(listening(table, 7071), None);
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 3 0 0 0 150 50 0 0 20 0 9 0 22 1 2";
        assert_eq!(cpu_ticks(stat), Some(200));
        assert_eq!(bytes("VmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n", "VmRSS:"), Some(1 << 20));
    }

    #[test]
    fn this_process_is_found_by_the_port_it_listens_on() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = Process::on_port(listener.local_addr().unwrap().port()).unwrap();
        assert_eq!(found.id(), std::process::id());
        let usage = found.usage().unwrap();
        assert!(usage.rss_bytes > 0 && usage.rss_bytes_peak >= usage.rss_bytes);
        assert!(Process::of(u32::MAX).is_err());
    }
}
