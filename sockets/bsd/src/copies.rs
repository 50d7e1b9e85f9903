//! Copies of a socket's descriptor in this process: when one is replaced by another socket, so are the
//! others.
//!
//! The kernel lists them (proc(5), /proc/self/fd). The library asks only once a copy may exist.

use std::fs;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use peersock_fd::Identity;

use crate::kernel::borrow;

static MAY_BE_THERE: AtomicBool = AtomicBool::new(false);

/// Notes that a descriptor has a copy, made by dup(2) and its relatives.
pub fn note() {
    MAY_BE_THERE.store(true, Ordering::Relaxed);
}

/// Returns the other descriptors of this process that refer to the same socket, if any copy was noted.
pub(crate) fn of(fd: RawFd) -> Vec<RawFd> {
    if !MAY_BE_THERE.load(Ordering::Relaxed) {
        return Vec::new();
    }
    let Some(own) = identity(fd) else { return Vec::new() };
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    numbers.filter(|other| *other != fd && identity(*other) == Some(own)).collect()
}

/// Returns the identity of an open file, or `None` if the number is not open.
pub(crate) fn identity(fd: RawFd) -> Option<Identity> {
    peersock_fd::identity(borrow(fd)?).ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn copies_are_found_once_one_is_noted() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let copy = socket.try_clone().unwrap();
        let _other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(of(socket.as_raw_fd()), []);
        note();
        assert_eq!(of(socket.as_raw_fd()), [copy.as_raw_fd()]);
    }
}
