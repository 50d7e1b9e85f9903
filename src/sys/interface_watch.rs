//! Notifications of changes of the machine's interfaces and addresses.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

/// Descriptor that becomes readable when an interface or an address comes or goes (rtnetlink(7)).
#[derive(Debug)]
pub(crate) struct InterfaceWatch {
    socket: OwnedFd,
}

impl InterfaceWatch {
    pub(crate) fn new() -> io::Result<InterfaceWatch> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None, // protocol 0 is NETLINK_ROUTE
        )?;
        let groups = (libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(InterfaceWatch { socket })
    }

    /// Discards the queued messages; they only mean that the list must be read again.
    pub(crate) fn drain(&self) {
        let mut buf = [0u8; 4096];
        // Bounded, because a storm of messages must not keep the engine here.
        for _ in 0..64 {
            match rustix::net::recv(&self.socket, &mut buf[..], RecvFlags::DONTWAIT) {
                Ok(_) => continue,
                Err(_) => break,
            }
        }
    }
}

impl AsFd for InterfaceWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watch_opens_without_privilege() {
        InterfaceWatch::new().expect("rtnetlink").drain();
    }
}
