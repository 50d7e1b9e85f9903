//! Network namespaces without names: each is gone as soon as nobody holds it, however the program ends.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::tun::Tun;

/// Why there can be no namespace with a TUN device here, `None` if there can.
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

/// A network namespace of our own.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// Makes one, with its loopback interface up.
    ///
    /// # Errors
    /// When the kernel refuses, which it does to all but root.
    pub fn new() -> io::Result<Namespace> {
        // Only a thread can be moved, and it must not be one that somebody else goes on using.
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

    /// Does something on a thread in the namespace. Sockets stay where they were made, whoever uses them
    /// then.
    ///
    /// # Errors
    /// What `work` says.
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
    ///
    /// # Errors
    /// When it fails, with what it says.
    pub fn ip(&self, arguments: &str) -> io::Result<()> {
        let output = self.run(|| Command::new("ip").args(arguments.split(' ')).output())?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("ip {arguments}: {}", text.trim())))
    }

    /// Sets a value under `/proc/sys/net`.
    ///
    /// # Errors
    /// When there is none or it does not take this.
    pub fn set(&self, name: &str, value: &str) -> io::Result<()> {
        self.run(|| fs::write(format!("/proc/sys/net/{name}"), value))
    }

    /// One of the kernel's counters: `protocol` and `name` as in `/proc/net/snmp` or `/proc/net/netstat`.
    ///
    /// # Errors
    /// When there is no such counter.
    pub fn counter(&self, protocol: &str, name: &str) -> io::Result<u64> {
        let files = ["/proc/thread-self/net/snmp", "/proc/thread-self/net/netstat"];
        let text = self.run(|| files.map(fs::read_to_string).into_iter().collect::<io::Result<String>>())?;
        find_counter(&text, protocol, name)
            .ok_or_else(|| io::Error::other(format!("no counter {protocol} {name}")))
    }
}

/// A line of names is followed by one of values.
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
