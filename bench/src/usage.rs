//! What this process has used of the machine.

use std::fs;
use std::ops::Sub;
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Counted since the process began, or between two times.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Processor time of all threads.
    pub(crate) cpu: Duration,
    /// Pages that the kernel had to give or map, none of which was read from a disk.
    pub(crate) faults: u64,
    /// How often threads went to sleep, those that run now; 0 if that was not asked for.
    pub(crate) switches: u64,
}

impl Usage {
    /// Until now.
    pub(crate) fn now() -> Usage {
        let cpu = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
        Usage { cpu, faults: faults().unwrap_or(0), switches: 0 }
    }

    /// Until now, with the switches: all threads are asked, which takes long where there are many.
    pub(crate) fn with_switches() -> Usage {
        Usage { switches: switches(), ..Usage::now() }
    }
}

impl Sub for Usage {
    type Output = Usage;

    /// What was used between two times. Threads that have ended meanwhile are missing.
    fn sub(self, before: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(before.cpu),
            faults: self.faults.saturating_sub(before.faults),
            switches: self.switches.saturating_sub(before.switches),
        }
    }
}

/// Minor faults, the tenth field of proc_pid_stat(5). The second one, in brackets, may have spaces.
fn faults() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(7)?.parse().ok()
}

/// Voluntary context switches, from proc_pid_status(5) of each thread.
fn switches() -> u64 {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    // A thread may end meanwhile.
    threads.filter_map(|thread| in_status(&thread.path().join("status"), "voluntary_ctxt_switches:")).sum()
}

/// The number behind a key in a file as proc_pid_status(5) has it.
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
