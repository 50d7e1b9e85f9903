//! Two nodes that know each other, and their applications.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;

use peersock::overlay::Identity;
use peersock::{IdentitySource, Interfaces, Joined, Network, Node, Seed, StartError};
use peersock_fd::{Client, Errno, Family, Kind, Received, RecvFlags, SendFlags, Socket, SocketFlags};
use peersock_socket_server::{FdServer, Launcher};

/// A node that serves sockets.
pub(crate) struct Served {
    pub(crate) network: Joined,
    pub(crate) client: Arc<Client>,
    pub(crate) server: FdServer,
    node: Node,
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
        Served { network, client, server, node }
    }

    /// Returns another program on the same node.
    pub(crate) fn beside(&self) -> Served {
        self.with(FdServer::start(&self.node).expect("one more server"))
    }

    /// Returns another program on the same node, which sees only these networks.
    pub(crate) fn within(&self, networks: &[&Joined]) -> Served {
        let networks: Vec<_> = networks.iter().map(|joined| joined.id()).collect();
        let server = FdServer::start_within(&self.node, &networks, std::process::id(), None);
        self.with(server.expect("one more server"))
    }

    /// Returns another program on the same node, started by `launcher`.
    pub(crate) fn launched_by(&self, launcher: Arc<dyn Launcher>) -> Served {
        let (networks, process) = ([self.network.id()], std::process::id());
        let server = FdServer::start_within(&self.node, &networks, process, Some(launcher));
        self.with(server.expect("one more server"))
    }

    fn with(&self, server: FdServer) -> Served {
        let client = Client::new(server.tag(), server.token());
        Served { network: self.network.clone(), client, server, node: self.node.clone() }
    }

    /// Returns two nodes in one network that allows all ports.
    pub(crate) fn pair() -> (Served, Served) {
        let pair = (Served::new(NETWORK), Served::new(NETWORK));
        let wait = std::time::Duration::from_secs(20);
        pair.0.network.wait_peer(pair.1.ip(), wait).expect("they find each other");
        pair
    }

    /// Returns two nodes in a static network, with IPv4 addresses as well: 10.7.0.1 and 10.7.0.2.
    pub(crate) fn pair_with_ipv4() -> (Served, Served) {
        // Another program may take a port between the search for free ports and their use.
        (0..16).find_map(|_| Self::pair_at_free_ports()).expect("ports that stay free for a moment")
    }

    fn pair_at_free_ports() -> Option<(Served, Served)> {
        let seeds = [[1; 32], [2; 32]];
        // Both at the same time, so that the ports differ.
        let sockets = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port"));
        let ports = sockets.each_ref().map(|socket| socket.local_addr().expect("it is bound").port());
        drop(sockets);
        let members: Vec<String> = (0..2)
            .map(|at| {
                let key = Identity::from_seed(&seeds[at]).public().to_string();
                let (host, port) = (at + 1, ports[at]);
                format!(
                    "[[member]]\nkey = \"{key}\"\naddresses = [\"10.7.0.{host}\"]\nendpoints = [\"127.0.0.1:{port}\"]\n"
                )
            })
            .collect();
        let file = format!("network = \"fe{:014x}\"\n{}", ports[0], members.concat());
        let nodes = [0, 1].map(|at| {
            let builder = Node::builder().identity(IdentitySource::Seed(Seed(seeds[at])));
            match builder.interfaces(Interfaces::Loopback).discovery(false).port(ports[at]).start() {
                Err(StartError::PortTaken { .. }) => None,
                started => Some(started.expect("a node on loopback")),
            }
        });
        let [Some(one), Some(other)] = nodes else { return None };
        let [one, other] = [one, other].map(|node| {
            let network = node.join(Network::parse_toml(&file).expect("a file")).expect("a new network");
            let server = FdServer::start(&node).expect("descriptors");
            let client = Client::new(server.tag(), server.token());
            Served { network, client, server, node }
        });
        one.network.wait_peer(other.v4(), std::time::Duration::from_secs(20)).expect("it is reached");
        Some((one, other))
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// Returns its IPv4 address.
    pub(crate) fn v4(&self) -> IpAddr {
        *self.network.addresses().iter().find(|address| address.is_ipv4()).expect("a static network")
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.network.address().into()
    }

    /// Returns an address of the network whose member never answers.
    pub(crate) fn silent(&self) -> SocketAddr {
        let mut octets = self.network.address().octets();
        octets[15] ^= 1;
        SocketAddr::new(octets.into(), 80)
    }

    pub(crate) fn socket(&self, flags: SocketFlags) -> OwnedFd {
        peersock_fd::open(&self.client, Family::V6, Kind::Stream, flags).expect("a socket")
    }

    /// Opens a datagram socket of any type.
    pub(crate) fn open(&self, kind: Kind) -> OwnedFd {
        self.open_in(Family::V6, kind)
    }

    pub(crate) fn open_in(&self, family: Family, kind: Kind) -> OwnedFd {
        peersock_fd::open(&self.client, family, kind, SocketFlags::empty()).expect("a socket")
    }

    /// Returns a UDP socket bound to an automatically chosen port, and its address.
    pub(crate) fn bound(&self) -> (OwnedFd, SocketAddr) {
        let fd = self.open(Kind::Datagram);
        overlay(&fd).bind(SocketAddr::new(self.ip(), 0)).expect("a free port");
        let local = overlay(&fd).local_addr().expect("it is bound");
        (fd, local)
    }

    /// Returns a socket that listens on an automatically chosen port, and its address.
    pub(crate) fn listen(&self, flags: SocketFlags) -> (OwnedFd, SocketAddr) {
        let fd = private(self.socket(flags));
        let socket = overlay(&fd);
        socket.bind(SocketAddr::new(self.ip(), 0)).expect("a free port");
        socket.listen(16).expect("it listens");
        let local = socket.local_addr().expect("it is bound");
        (fd, local)
    }

    /// Does the same as on a node that finds no folder for a private name.
    pub(crate) fn listen_by_abstract_name(&self) -> (OwnedFd, SocketAddr) {
        let fd = self.socket(SocketFlags::empty());
        let socket = overlay(&fd);
        socket.bind(SocketAddr::new(self.ip(), 0)).expect("a free port");
        socket.listen(16).expect("it listens");
        let local = socket.local_addr().expect("it is bound");
        (fd, local)
    }

    /// Returns both ends, as files, of a connection from this node to the other.
    pub(crate) fn connect(&self, other: &Served) -> (File, File) {
        let (listener, address) = other.listen(SocketFlags::empty());
        let client = self.socket(SocketFlags::empty());
        overlay(&client).connect(Some(address)).expect("somebody listens");
        let (server, _) = overlay(&listener).accept(SocketFlags::empty()).expect("a connection");
        (client.into(), server.into())
    }
}

const NETWORK: &str = "ff0001ffff000000";

/// Returns a discovery port for this test, so that concurrent tests do not meet.
pub(crate) fn port() -> u16 {
    use std::net::UdpSocket;
    // It is held, because the system may otherwise give it to the next socket that wants any. Discovery
    // sockets may share it. It is per thread because each test has a separate thread, and must not meet other
    // tests' nodes.
    thread_local! {
        static HELD_SOCKET: UdpSocket = {
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true).expect("an option");
            socket
        };
    }
    HELD_SOCKET.with(|held| held.local_addr().expect("it is bound").port())
}

/// Makes a stream private, as binding by a program does.
pub(crate) fn private(fd: OwnedFd) -> OwnedFd {
    overlay(&fd).private().expect("a node").expect("a folder for its name")
}

pub(crate) fn overlay(fd: &impl AsFd) -> Socket<'_> {
    Socket::of(fd.as_fd()).expect("an overlay socket")
}

/// Returns the events of poll(2), after waiting up to ten seconds for any of `wanted`.
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
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout))).expect("poll");
    fds[0].revents()
}

/// Sends as sendto(2) does.
pub(crate) fn send_to(fd: &impl AsFd, data: &[u8], remote: SocketAddr) -> Result<usize, Errno> {
    overlay(fd).send_to(&[IoSlice::new(data)], SendFlags::empty(), remote, None)
}

/// Receives as recvfrom(2) does, within ten seconds. Returns the data, and everything reported about it.
pub(crate) fn receive(fd: &impl AsFd) -> (Vec<u8>, Received) {
    assert!(poll(fd, rustix::event::PollFlags::IN).contains(rustix::event::PollFlags::IN), "nothing came");
    try_receive(fd, RecvFlags::DONTWAIT).expect("a datagram")
}

pub(crate) fn try_receive(fd: &impl AsFd, flags: RecvFlags) -> Result<(Vec<u8>, Received), Errno> {
    let mut buf = vec![0; 70_000];
    let received = overlay(fd).recv_from(&mut [IoSliceMut::new(&mut buf)], flags)?;
    buf.truncate(received.length);
    Ok((buf, received))
}

/// Sets an `int` option.
pub(crate) fn set(fd: &impl AsFd, level: i32, name: i32, value: i32) -> Result<(), Errno> {
    set_bytes(fd, level, name, &value.to_ne_bytes())
}

pub(crate) fn set_bytes(fd: &impl AsFd, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
    overlay(fd).set_option(level, name, value)
}

/// Returns an `int` option.
pub(crate) fn get(fd: &impl AsFd, level: i32, name: i32) -> Result<i32, Errno> {
    let bytes = get_bytes(fd, level, name)?;
    Ok(i32::from_ne_bytes(bytes[..4].try_into().expect("four bytes")))
}

pub(crate) fn get_bytes(fd: &impl AsFd, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
    overlay(fd).option(level, name, 4096)
}

/// Returns a Python command that runs a script, or prints a message and returns `None` if Python is not
/// installed.
pub(crate) fn python(test: &str, script: &str) -> Option<Command> {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIP {test}: python3 is not installed");
        return None;
    }
    let mut command = Command::new("python3");
    command.args(["-c", script]);
    Some(command)
}

pub(crate) fn errno<T>(result: Result<T, Errno>) -> Errno {
    match result {
        Ok(_) => panic!("it should have failed"),
        Err(error) => error,
    }
}
