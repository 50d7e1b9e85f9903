//! The same calls on overlay sockets and on kernel sockets.

use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use peersock_fd::{Client, Errno, Family, Kind, RecvFlags, SendFlags, Shutdown, SocketFlags};
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::common::overlay;

/// The owner of the sockets that a program uses.
#[derive(Clone)]
pub(crate) enum World {
    Overlays(Arc<Client>),
    Kernels,
}

impl World {
    pub(crate) fn open(&self, kind: Kind, flags: SocketFlags) -> OwnedFd {
        match self {
            World::Overlays(client) => peersock_fd::open(client, Family::V6, kind, flags).expect("a socket"),
            World::Kernels => {
                let kind = if kind == Kind::Stream { SocketType::STREAM } else { SocketType::DGRAM };
                rustix::net::socket_with(AddressFamily::INET6, kind, flags, None).expect("a socket")
            }
        }
    }

    pub(crate) fn connect(&self, fd: &OwnedFd, remote: SocketAddr) -> Result<(), Errno> {
        match self {
            World::Overlays(_) => overlay(fd).connect(Some(remote)),
            World::Kernels => rustix::net::connect(fd, &remote),
        }
    }

    pub(crate) fn take_error(&self, fd: &OwnedFd) -> Result<(), Errno> {
        match self {
            World::Overlays(_) => overlay(fd).take_error().expect("an answer").map_or(Ok(()), Err),
            World::Kernels => sockopt::socket_error(fd).expect("an answer"),
        }
    }

    pub(crate) fn shut_writing(&self, fd: &OwnedFd) -> Result<(), Errno> {
        match self {
            World::Overlays(_) => overlay(fd).shutdown(Shutdown::Write),
            World::Kernels => rustix::net::shutdown(fd, Shutdown::Write),
        }
    }

    pub(crate) fn names(&self, fd: &OwnedFd) -> (SocketAddr, SocketAddr) {
        match self {
            World::Overlays(_) => {
                (overlay(fd).local_addr().expect("it is bound"), overlay(fd).peer_addr().expect("connected"))
            }
            World::Kernels => {
                let name = rustix::net::getsockname(fd).expect("it is bound");
                let peer = rustix::net::getpeername(fd).expect("a stream").expect("connected");
                (name.try_into().expect("of this family"), peer.try_into().expect("of this family"))
            }
        }
    }

    /// Binds a socket to a free port of this address, and returns the address with the port.
    pub(crate) fn bind(&self, fd: &OwnedFd, ip: Ipv6Addr) -> Result<SocketAddr, Errno> {
        let any = SocketAddr::new(ip.into(), 0);
        match self {
            World::Overlays(_) => {
                overlay(fd).bind(any)?;
                overlay(fd).local_addr()
            }
            World::Kernels => {
                rustix::net::bind(fd, &any)?;
                Ok(rustix::net::getsockname(fd)?.try_into().expect("of this family"))
            }
        }
    }

    pub(crate) fn listen(&self, fd: &OwnedFd) -> Result<(), Errno> {
        match self {
            World::Overlays(_) => overlay(fd).listen(4),
            World::Kernels => rustix::net::listen(fd, 4),
        }
    }

    pub(crate) fn accept(&self, fd: &OwnedFd) -> Result<OwnedFd, Errno> {
        match self {
            World::Overlays(_) => overlay(fd).accept(SocketFlags::empty()).map(|(fd, _)| fd),
            World::Kernels => rustix::net::accept(fd),
        }
    }

    pub(crate) fn send_to(&self, fd: &OwnedFd, data: &[u8], to: Option<SocketAddr>) -> Result<usize, Errno> {
        let data = [std::io::IoSlice::new(data)];
        match (self, to) {
            (World::Overlays(_), Some(to)) => overlay(fd).send_to(&data, SendFlags::empty(), to, None),
            (World::Overlays(_), None) => overlay(fd).send(&data, SendFlags::empty(), None),
            (World::Kernels, Some(to)) => rustix::net::sendto(fd, &data[0], SendFlags::empty(), &to),
            (World::Kernels, None) => rustix::net::send(fd, &data[0], SendFlags::empty()),
        }
    }

    pub(crate) fn receive_from(
        &self,
        fd: &OwnedFd,
        buf: &mut [u8],
    ) -> Result<(usize, Option<SocketAddr>), Errno> {
        match self {
            World::Overlays(_) => {
                let received =
                    overlay(fd).recv_from(&mut [std::io::IoSliceMut::new(buf)], RecvFlags::empty())?;
                Ok((received.length, received.remote))
            }
            World::Kernels => {
                let (length, _, from) = rustix::net::recvfrom(fd, buf, RecvFlags::empty())?;
                Ok((length, from.map(|from| from.try_into().expect("of this family"))))
            }
        }
    }
}
