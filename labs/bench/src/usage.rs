//! Resources that this process has used.

use std::fs;
use std::ops::Sub;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Usage since the start of the process, or between two times.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Processor time of all threads.
    pub(crate) cpu: Duration,
    /// Pages that the kernel had to provide or map without reading from a disk.
    pub(crate) faults: u64,
    /// Number of times that present threads went to sleep; 0 if not requested.
    pub(crate) switches: u64,
}

impl Usage {
    /// Returns the usage until now.
    pub(crate) fn now() -> Usage {
        let cpu = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
        Usage { cpu, faults: faults().unwrap_or(0), switches: 0 }
    }

    /// Returns the usage until now, with the switches. It reads every thread, which takes long if there are
    /// many.
    pub(crate) fn with_switches() -> Usage {
        Usage { switches: switches(), ..Usage::now() }
    }
}

impl Sub for Usage {
    type Output = Usage;

    /// Returns the usage between two times. Threads that have ended meanwhile are missing.
    fn sub(self, before: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(before.cpu),
            faults: self.faults.saturating_sub(before.faults),
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}

/// Reads the minor faults, the tenth field of proc_pid_stat(5). The second one, in brackets, may have spaces.
fn faults() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(7)?.parse().ok()
}

/// Sums the voluntary context switches from proc_pid_status(5) of each thread.
fn switches() -> u64 {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    // A thread may end meanwhile.
    threads.filter_map(|thread| in_status(&thread.path().join("status"), "voluntary_ctxt_switches:")).sum()
}

/// Returns the number after a key in a file in the format of proc_pid_status(5).
pub(crate) fn in_status(file: &Path, key: &str) -> Option<u64> {
    let status = fs::read_to_string(file).ok()?;
    status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_is_counted() {
        let before = Usage::with_switches();
        let pages = vec![1_u8; 1 << 22];
        std::thread::sleep(Duration::from_millis(1));
        let used = Usage::with_switches() - before;
        assert!(pages.iter().all(|byte| *byte == 1));
        assert!(used.faults > 0 && used.switches > 0 && !used.cpu.is_zero(), "{used:?}");
    }
}
