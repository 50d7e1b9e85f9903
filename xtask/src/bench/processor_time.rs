//! Processor time of the machine and of its processes, from Linux's `/proc` (proc_stat(5), proc_pid_stat(5)).
//!
//! `/proc/PID/stat` has the time of a process and its dead children. So the sum over a process and its living
//! descendants is the time of the whole tree, provided each parent waits for its children. The kernel takes
//! these times from the scheduler's clock. The times in `/proc/stat` are rough over short intervals, because
//! the kernel samples the running task at each tick.

use std::collections::HashMap;
use std::fs;
use std::io;

/// PF_KTHREAD of Linux's <linux/sched.h>: the process is a kernel thread.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// Processor time used until one moment, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    /// Time of all processors in programs and in the kernel, without interrupts.
    pub(crate) busy: u64,
    /// Time that the host gave to others while this virtual machine wanted to run.
    pub(crate) steal: u64,
    /// Time of this process and its descendants.
    pub(crate) own: u64,
    /// Time of all other visible processes.
    pub(crate) others: u64,
    /// Time of kernel threads.
    pub(crate) kernel: u64,
}

impl Sample {
    /// Reads the times used until now.
    /// Errors: `/proc` cannot be read.
    pub(crate) fn now() -> io::Result<Sample> {
        let (busy, steal) =
            fs::read_to_string("/proc/stat").ok().as_deref().and_then(machine).ok_or_else(|| {
                io::Error::other("/proc/stat has no times of the processors: is /proc mounted?")
            })?;
        let mut processes = HashMap::new();
        for entry in fs::read_dir("/proc")? {
            // A process may end while the list is read.
            let text = entry.ok().and_then(|entry| {
                entry.file_name().to_str()?.parse::<u32>().ok()?;
                fs::read_to_string(entry.path().join("stat")).ok()
            });
            processes.extend(text.as_deref().and_then(process));
        }
        let (own, others, kernel) = sums(&processes, std::process::id());
        Ok(Sample { busy, steal, own, others, kernel })
    }
}

/// Returns the clock ticks that a living process and its dead children have used.
/// Fails if there is no such process.
pub(crate) fn of_process(id: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, process) = process(&text).ok_or_else(|| io::Error::other("/proc/PID/stat has no times"))?;
    Ok(process.ticks)
}

/// One process.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Process {
    parent: u32,
    is_kernel: bool,
    /// Time of the process and its dead children.
    ticks: u64,
}

/// Parses the busy and the stolen time of all processors from `/proc/stat`.
fn machine(text: &str) -> Option<(u64, u64)> {
    let mut fields = text.lines().find_map(|line| line.strip_prefix("cpu "))?.split_whitespace();
    let mut next = || fields.next()?.parse::<u64>().ok();
    let (user, nice, system) = (next()?, next()?, next()?);
    let (_idle, _waiting, _interrupts, _soft_interrupts) = (next()?, next()?, next()?, next()?);
    // The times of this machine's guests are already in user and nice.
    Some((user + nice + system, next()?))
}

/// Parses a process's ID and times from `/proc/PID/stat`.
fn process(text: &str) -> Option<(u32, Process)> {
    let (id, rest) = text.split_once(" (")?;
    // The program's name may contain blanks and parentheses.
    let (_, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok());
    let process = Process {
        parent: fields[1].parse().ok()?,
        is_kernel: fields[6].parse::<u32>().ok()? & KERNEL_THREAD != 0,
        ticks: ticks.sum::<Option<u64>>()?,
    };
    Some((id.parse().ok()?, process))
}

/// Returns the times of the tree at `root`, of other processes, and of kernel threads.
fn sums(processes: &HashMap<u32, Process>, root: u32) -> (u64, u64, u64) {
    let (mut own, mut others, mut kernel) = (0, 0, 0);
    for (&id, process) in processes {
        if process.is_kernel {
            kernel += process.ticks;
        } else if descends(processes, id, root) {
            own += process.ticks;
        } else {
            others += process.ticks;
        }
    }
    (own, others, kernel)
}

fn descends(processes: &HashMap<u32, Process>, mut id: u32, root: u32) -> bool {
    // Bound the walk: the list is no atomic snapshot, and a reused ID could form a cycle.
    for _ in 0..processes.len() {
        if id == root {
            return true;
        }
        match processes.get(&id) {
            Some(process) => id = process.parent,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_busy_and_stolen_time() {
        let text = "cpu  100 20 3 9000 50 6 7 80 11 12\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n";
        assert_eq!(machine(text), Some((123, 80)));
        assert_eq!(machine("cpu0 1 2 3 4 5 6 7 8\n"), None);
        assert_eq!(machine("cpu  1 2 3 4 5 6 7\n"), None, "no steal");
        assert_eq!(machine("cpu  1 2 x 4 5 6 7 8\n"), None);
    }

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let text = "42 (a) S 1 (b) R 7 42 42 0 -1 4194560 1 2 3 4 1000 200 30 4 20 0 1 0 5 6\n";
        assert_eq!(process(text), Some((42, Process { parent: 7, is_kernel: false, ticks: 1234 })));
        let thread = "15 (ksoftirqd/0) S 2 0 0 0 -1 69238848 0 0 0 0 0 9 0 0 20 0 1 0 5 0\n";
        assert_eq!(process(thread), Some((15, Process { parent: 2, is_kernel: true, ticks: 9 })));
        assert_eq!(process("42 (a) S 7 42 42 0 -1 0 1 2 3 4 1000 200 30\n"), None);
        assert_eq!(process(""), None);
    }

    #[test]
    fn a_living_process_has_a_time() {
        let own = std::process::id();
        let before = of_process(own).expect("this process lives");
        assert!(of_process(own).expect("it still does") >= before);
        assert!(of_process(u32::MAX).is_err());
    }

    #[test]
    fn a_tree_is_a_process_with_all_below_it() {
        let process = |parent, ticks| Process { parent, is_kernel: false, ticks };
        let thread = Process { parent: 2, is_kernel: true, ticks: 64 };
        let processes = HashMap::from([
            (1, process(0, 1)),
            (10, process(1, 2)),
            (11, process(10, 4)),
            (12, process(11, 8)),
            (20, process(1, 16)),
            // Two processes that claim to be each other's parents.
            (30, process(31, 32)),
            (31, process(30, 0)),
            (40, thread),
        ]);
        assert_eq!(sums(&processes, 10), (2 + 4 + 8, 1 + 16 + 32, 64));
    }

    #[test]
    fn what_this_process_uses_is_its_own() {
        let first = Sample::now().expect("/proc");
        // Repeat until the process's time has grown, so the test assumes no speed.
        let mut last = first;
        while last.own < first.own + 2 {
            last = Sample::now().expect("/proc");
        }
        assert!(last.busy >= first.busy);
    }
}
