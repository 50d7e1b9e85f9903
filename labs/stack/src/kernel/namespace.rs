//! Network namespaces without names: each ends with its last reference, however the program ends.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::tun::Tun;

/// Returns the reason why no namespace with a TUN device is possible here, `None` if it is.
pub fn unavailable() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    let ip = Command::new("ip").arg("-V").stdout(Stdio::null()).status();
    if !ip.is_ok_and(|status| status.success()) {
        return Some("the program ip is missing (apt-get install iproute2)".to_owned());
    }
    let tun = Namespace::new().and_then(|namespace| namespace.run(|| Tun::open("probe")));
    tun.err().map(|e| format!("no TUN device in a network namespace: {e}"))
}

/// A private network namespace.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// Creates a namespace, with its loopback interface up.
    /// Fails if the kernel refuses, as it does to all but root.
    pub fn new() -> io::Result<Namespace> {
        // unshare moves the calling thread for good, so it needs a thread that nothing else uses.
        let make = || {
            // SAFETY: of all flags, only FILES takes descriptors from other threads.
            #[expect(unsafe_code, reason = "a system call that is unsafe with other flags")]
            unsafe {
                rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)?;
            }
            io::Result::Ok(OwnedFd::from(File::open("/proc/thread-self/ns/net")?))
        };
        let namespace = thread::scope(|scope| scope.spawn(make).join().expect("nothing in it panics"));
        let namespace = Namespace(namespace?);
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs `work` on a thread in the namespace. Sockets stay in the namespace in which they were made.
    /// Fails with the error of `work`.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let inside = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Runs `ip` with these arguments.
    /// Fails if the program fails; the error contains its output.
    pub fn ip(&self, arguments: &str) -> io::Result<()> {
        let output = self.run(|| Command::new("ip").args(arguments.split(' ')).output())?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("ip {arguments}: {}", text.trim())))
    }

    /// Sets a value under `/proc/sys/net`.
    /// Fails if the file does not exist or does not accept the value.
    pub fn set(&self, name: &str, value: &str) -> io::Result<()> {
        self.run(|| fs::write(format!("/proc/sys/net/{name}"), value))
    }

    /// Returns a counter of the kernel: `protocol` and `name` as in `/proc/net/snmp` or `/proc/net/netstat`.
    /// Fails if the counter does not exist.
    pub fn counter(&self, protocol: &str, name: &str) -> io::Result<u64> {
        let files = ["/proc/thread-self/net/snmp", "/proc/thread-self/net/netstat"];
        let text = self.run(|| files.map(fs::read_to_string).into_iter().collect::<io::Result<String>>())?;
        find_counter(&text, protocol, name)
            .ok_or_else(|| io::Error::other(format!("no counter {protocol} {name}")))
    }
}

/// Finds a counter. A line of names is followed by one of values.
fn find_counter(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let mut pairs = names.split(' ').zip(values.split(' '));
        if let Some((_, value)) = pairs.find(|(known, _)| *known == name) {
            return value.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_protocol_and_name() {
        let text = "Ip: A B\nIp: 1 2\nTcp: A B\nTcp: 3 4\nTcpExt: A C\nTcpExt: 5 6\n";
        assert_eq!(find_counter(text, "Tcp", "B"), Some(4));
        assert_eq!(find_counter(text, "TcpExt", "C"), Some(6));
        assert_eq!(find_counter(text, "Tcp", "C"), None);
    }
}
