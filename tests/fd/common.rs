//! Two nodes that know each other, and applications of theirs.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use peersock::{FdServer, IdentitySource, Interfaces, Joined, Network, Node};
use peersock_fd::{Client, Errno, Family, Kind, Socket, SocketFlags};

/// A node that serves sockets.
pub(crate) struct Served {
    pub(crate) network: Joined,
    pub(crate) client: Arc<Client>,
    pub(crate) server: FdServer,
    _node: Node,
}

impl Served {
    pub(crate) fn new(id: &str) -> Served {
        let node = Node::builder()
            .identity(IdentitySource::Ephemeral)
            .interfaces(Interfaces::Loopback)
            .discovery_port(port());
        let node = node.start().expect("a node on loopback");
        let network = node.join(Network::ad_hoc(id.parse().expect("an ID"))).expect("a new network");
        let server = FdServer::start(&node).expect("descriptors");
        let client = Client::new(server.tag(), server.token());
        Served { network, client, server, _node: node }
    }

    /// Two that are in one network with all ports.
    pub(crate) fn pair() -> (Served, Served) {
        let pair = (Served::new(NETWORK), Served::new(NETWORK));
        let wait = std::time::Duration::from_secs(20);
        pair.0.network.wait_peer(pair.1.ip(), wait).expect("they find each other");
        pair
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.network.address().into()
    }

    pub(crate) fn socket(&self, flags: SocketFlags) -> OwnedFd {
        peersock_fd::open(&self.client, Family::V6, Kind::Stream, flags).expect("a socket")
    }

    /// A socket that listens on a port of the system's choice, and its address.
    pub(crate) fn listen(&self, flags: SocketFlags) -> (OwnedFd, SocketAddr) {
        let fd = self.socket(flags);
        let socket = overlay(&fd);
        socket.bind(SocketAddr::new(self.ip(), 0)).expect("a free port");
        socket.listen(16).expect("it listens");
        let local = socket.local_addr().expect("it is bound");
        (fd, local)
    }

    /// A connection from here to there, as files.
    pub(crate) fn connect(&self, other: &Served) -> (File, File) {
        let (listener, address) = other.listen(SocketFlags::empty());
        let client = self.socket(SocketFlags::empty());
        overlay(&client).connect(Some(address)).expect("somebody listens");
        let (server, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
        (client.into(), server.into())
    }
}

const NETWORK: &str = "ff0001ffff000000";

/// A discovery port of this process's own: tests that run at the same time do not meet.
fn port() -> u16 {
    use std::sync::LazyLock;
    static PORT: LazyLock<u16> = LazyLock::new(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.local_addr().expect("it is bound").port()
    });
    *PORT
}

pub(crate) fn overlay(fd: &impl AsFd) -> Socket<'_> {
    Socket::of(fd.as_fd()).expect("an overlay socket")
}

/// What poll(2) says now, waiting up to ten seconds for something of `wanted`.
pub(crate) fn poll(fd: &impl AsFd, wanted: rustix::event::PollFlags) -> rustix::event::PollFlags {
    poll_for(fd, wanted, 10)
}

pub(crate) fn poll_for(
    fd: &impl AsFd,
    wanted: rustix::event::PollFlags,
    seconds: i64,
) -> rustix::event::PollFlags {
    use rustix::event::{PollFd, Timespec};
    let mut fds = [PollFd::new(fd, wanted)];
    let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&timeout)).expect("poll");
    fds[0].revents()
}

pub(crate) fn errno<T>(result: Result<T, Errno>) -> Errno {
    match result {
        Ok(_) => panic!("it should have failed"),
        Err(error) => error,
    }
}
