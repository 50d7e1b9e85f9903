//! Resources that an idle process uses, and limits of the process.

use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::report::Report;
use crate::usage::{Usage, in_status};

/// Raises the descriptor limit as far as the system allows, because a connection may take two.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const WANTED: Option<u64> = Some(65_536);
    // If it is not allowed, opening fails later.
    if setrlimit(Resource::Nofile, Rlimit { current: WANTED, maximum: WANTED }).is_err() {
        let limit = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}

/// Time after which a started node is idle. By then it has sent its first beacons, knows its path MTU, and
/// has answered the nodes that found it.
const START_TIME: Duration = Duration::from_secs(5);

/// Does nothing, and returns the cost of that.
pub(super) fn idle(time: Duration) -> io::Result<Report> {
    thread::sleep(START_TIME);
    let (start, before) = (Instant::now(), Usage::now());
    thread::sleep(time);
    let cpu = (Usage::now() - before).cpu.as_secs_f64();
    let cpu_percent = cpu / start.elapsed().as_secs_f64() * 100.0;
    let (rss_kib, anonymous_kib) = (kib("VmRSS:")?, kib("RssAnon:")?);
    Ok(Report::Idle { rss_kib, anonymous_kib, cpu_percent })
}

/// Reads a value of this process's memory from the kernel.
pub(super) fn kib(key: &str) -> io::Result<u64> {
    let value = in_status(Path::new("/proc/self/status"), key);
    value.ok_or_else(|| io::Error::other(format!("the kernel does not say {key}")))
}
