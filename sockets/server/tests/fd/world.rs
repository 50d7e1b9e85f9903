//! The same calls on overlay sockets and on kernel sockets.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;

use peersock_bsd::EpollSets;
use peersock_fd::{Client, Errno, Family, Kind, RecvFlags, Request, SendFlags, Shutdown, SocketFlags};
use rustix::event::PollFlags;
use rustix::io::retry_on_intr;
use rustix::net::{AddressFamily, Protocol, RawProtocol, SocketType, sockopt};

use crate::common::{overlay, poll};

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
                let (kind, protocol) = match kind {
                    Kind::Stream => (SocketType::STREAM, None),
                    Kind::Raw(protocol) => (SocketType::RAW, RawProtocol::new(protocol.into())),
                    _ => (SocketType::DGRAM, None),
                };
                let protocol = protocol.map(Protocol::from_raw);
                rustix::net::socket_with(AddressFamily::INET6, kind, flags, protocol).expect("a socket")
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

    /// Connects as a program of C does. Where that takes time, waits for the outcome.
    pub(crate) fn connect_and_wait(&self, fd: &OwnedFd, remote: SocketAddr) -> Result<(), Errno> {
        let connected = match self {
            World::Overlays(_) => peersock_bsd::connect_to(&overlay(fd), remote, no_sets),
            World::Kernels => rustix::net::connect(fd, &remote),
        };
        match connected {
            Err(Errno::INTR | Errno::INPROGRESS) => {
                poll(fd, PollFlags::OUT);
                self.take_error(fd)
            }
            connected => connected,
        }
    }

    /// Connects to AF_UNSPEC.
    pub(crate) fn dissolve(&self, fd: &OwnedFd) -> Result<(), Errno> {
        match self {
            World::Overlays(_) if overlay(fd).kind() == Kind::Stream => {
                peersock_bsd::dissolve(&overlay(fd), no_sets)
            }
            World::Overlays(_) => peersock_bsd::receiving(&overlay(fd), no_sets)?.connect(None),
            World::Kernels => rustix::net::connect_unspec(fd),
        }
    }

    /// Binds as a program of C does, so that no other program reaches a stream.
    pub(crate) fn bind_privately(&self, fd: &OwnedFd, ip: Ipv6Addr) -> Result<SocketAddr, Errno> {
        let address = self.bind(fd, ip)?;
        if let World::Overlays(_) = self {
            peersock_bsd::make_private(&overlay(fd), no_sets)?;
        }
        Ok(address)
    }

    /// Shuts down as a program of C does.
    pub(crate) fn shut(&self, fd: &OwnedFd, how: Shutdown) -> Result<(), Errno> {
        let number = match how {
            Shutdown::Read => libc::SHUT_RD,
            Shutdown::Write => libc::SHUT_WR,
            Shutdown::Both => libc::SHUT_RDWR,
        };
        match self {
            World::Overlays(_) => peersock_bsd::shutdown_with(&overlay(fd), number, no_sets).map(drop),
            World::Kernels => rustix::net::shutdown(fd, how),
        }
    }

    /// Shuts down as the Rust library and Python do: a listener does not listen again.
    pub(crate) fn shut_for_good(&self, fd: &OwnedFd) -> Result<(), Errno> {
        match self {
            World::Overlays(_) => overlay(fd).shutdown(Shutdown::Both),
            World::Kernels => rustix::net::shutdown(fd, Shutdown::Both),
        }
    }

    pub(crate) fn local(&self, fd: &OwnedFd) -> Result<SocketAddr, Errno> {
        match self {
            World::Overlays(_) => overlay(fd).local_addr(),
            World::Kernels => Ok(rustix::net::getsockname(fd)?.try_into().expect("of this family")),
        }
    }

    pub(crate) fn peer(&self, fd: &OwnedFd) -> Result<SocketAddr, Errno> {
        match self {
            World::Overlays(_) => overlay(fd).peer_addr(),
            World::Kernels => {
                let peer = rustix::net::getpeername(fd)?.ok_or(Errno::NOTCONN)?;
                Ok(peer.try_into().expect("of this family"))
            }
        }
    }

    /// Receives what a stream has next, once there is something.
    pub(crate) fn receive(&self, fd: &OwnedFd) -> Result<String, Errno> {
        assert!(!poll(fd, PollFlags::IN).is_empty(), "nothing came");
        let mut buf = [0; 100];
        let received = retry_on_intr(|| rustix::io::read(fd, &mut buf));
        let length = match self {
            World::Overlays(_) => received.map_err(|error| overlay(fd).stream_error(error)),
            World::Kernels => received,
        }?;
        Ok(String::from_utf8_lossy(&buf[..length]).into_owned())
    }

    /// Returns an address that never answers, and the sockets to keep for that.
    pub(crate) fn silent(&self, ip: Ipv6Addr) -> Result<(SocketAddr, Vec<OwnedFd>), Errno> {
        // A listener without room.
        let listener = self.open(Kind::Stream, SocketFlags::empty());
        let address = self.bind(&listener, ip)?;
        match self {
            World::Overlays(_) => overlay(&listener).listen(0)?,
            World::Kernels => rustix::net::listen(&listener, 0)?,
        }
        let mut kept = vec![listener];
        for _ in 0..2 {
            let fd = self.open(Kind::Stream, SocketFlags::NONBLOCK);
            let _ = self.connect(&fd, address);
            kept.push(fd);
        }
        poll(&kept[0], PollFlags::IN);
        Ok((address, kept))
    }

    /// Makes a bound socket reachable from the machine's own network. Returns its address there.
    pub(crate) fn put_on_both(&self, fd: &OwnedFd, kind: Kind) -> Result<SocketAddr, Errno> {
        if let World::Kernels = self {
            return self.local(fd);
        }
        let (kernels, address): (OwnedFd, _) = match kind {
            Kind::Stream => {
                let listener = TcpListener::bind("[::1]:0").expect("a free port");
                let address = listener.local_addr().expect("it is bound");
                (listener.into(), address)
            }
            _ => {
                let socket = UdpSocket::bind("[::1]:0").expect("a free port");
                let address = socket.local_addr().expect("it is bound");
                (socket.into(), address)
            }
        };
        let request = Request::Alongside(overlay(fd).opened());
        overlay(fd).client().ask_with(request, Some(kernels.as_fd()))?;
        Ok(address)
    }
}

/// The programs have no epoll sets.
fn no_sets(_: RawFd) -> EpollSets {
    EpollSets::new()
}
