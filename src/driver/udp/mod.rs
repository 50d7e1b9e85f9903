//! UDP sockets of the node: data sockets (bound to the node's port) and discovery sockets (bound to the
//! well-known discovery port, shared by every node on the machine).

mod announcements;
mod data;
mod discovery;
mod extra;
mod questions;
mod sending;
mod translation;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Instant;

use peersock_overlay::wire::MessageType;
use peersock_overlay::{RecvMeta, SocketIndex, SocketInfo};
use quinn_udp::{UdpSockRef, UdpSocketState};
use socket2::Socket;

use super::interfaces::{self, HostInterface, Interfaces};
use super::nat64::Nat64;
use crate::sync;
use crate::sys::icmp_errors::{self, Refused};
use crate::sys::process::Process;
use announcements::{Announcements, OnAnnouncement};
use data::{DataSocket, DataSockets};
use discovery::DiscoverySocket;
pub(crate) use extra::ExtraSocket;
use peersock_datapath::{Sink, Transmit};
pub(crate) use questions::OutsideAnswer;
use questions::Questions;
pub(super) use sending::name_of;

/// Size of the largest UDP payload over IPv4: 65535 less the IPv4 and UDP headers.
const MAX_PAYLOAD: usize = 65507;

/// Number of buffers for one receive call; each takes one GRO batch.
pub(crate) const RECEIVE_BATCH: usize = 4;

/// Returns the buffers of a receive call, of `size` bytes each. Untouched pages take no memory.
pub(crate) fn receive_buffers(size: usize) -> [Vec<u8>; RECEIVE_BATCH] {
    std::array::from_fn(|_| vec![0; size])
}

/// Returns the buffers in the form of the receive call.
pub(crate) fn as_slices(buffers: &mut [Vec<u8>; RECEIVE_BATCH]) -> [IoSliceMut<'_>; RECEIVE_BATCH] {
    buffers.each_mut().map(|buffer| IoSliceMut::new(buffer))
}

/// Binds a socket by a direct system call. Under `peersock run` the library intercepts bind(2) of the C
/// library, and would put the sockets of the program's node on the launcher's networks.
fn bind_by_itself(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    Ok(rustix::net::bind(socket, &address)?)
}

/// Prepares a new socket for batches.
///
/// # Errors
/// Returns `Unsupported` if a sandbox refuses the receive call, because the node would receive nothing,
/// without any message; otherwise the system's error.
fn batches(io: &UdpSocket) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(UdpSockRef::from(io))?;
    let mut byte = [0];
    let mut meta = [quinn_udp::RecvMeta::default()];
    // The socket is still empty, so any other result shows that the call is allowed.
    match state.recv(UdpSockRef::from(io), &mut [IoSliceMut::new(&mut byte)], &mut meta) {
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {
            let text = format!("a sandbox refuses the system call recvmmsg, by which nodes receive: {error}");
            Err(io::Error::new(ErrorKind::Unsupported, text))
        }
        _ => Ok(state),
    }
}

/// Sockets of one node.
pub(crate) struct UdpSockets {
    data: DataSockets,
    /// Requested port; 0 lets the system choose.
    port: u16,
    discovery: Vec<DiscoverySocket>,
    /// Extra sockets that the overlay wants temporarily.
    extra: RwLock<BTreeMap<SocketIndex, Arc<ExtraSocket>>>,
    allowed: Interfaces,
    discovery_port: Option<u16>,
    /// Interfaces at the last check.
    interfaces: RwLock<Vec<HostInterface>>,
    /// Translation of IPv4 addresses on a network with only IPv6.
    pub(crate) nat64: Nat64,
    process: Process,
    /// Listener for announcements of roots.
    announcements: OnceLock<Announcements>,
    questions: Questions,
    pub(crate) stats: UdpStats,
}

peersock_primitives::counters! {
    /// System calls and datagrams, both ways.
    pub(crate) struct UdpStats {
        /// System calls that send.
        udp_send_calls,
        /// System calls that send and failed; their datagrams are lost.
        udp_send_errors,
        /// Datagrams sent.
        udp_sent_datagrams,
        /// System calls that receive.
        udp_receive_calls,
        /// Batches received.
        udp_received_batches,
        /// Datagrams received.
        udp_received_datagrams,
        /// Batches that arrived at the discovery port by unicast.
        udp_stray_beacons,
        /// Announcements of roots dropped unread because too many arrived, from one source or in all.
        announcements_limited,
    }
}

impl UdpSockets {
    /// Binds the sockets. `port` 0 lets the system choose; `discovery_port` `None` turns discovery off.
    ///
    /// # Errors
    /// Returns `AddrInUse` if `port` is taken, `NotFound` if no allowed interface exists, and the system's
    /// errors.
    pub(crate) fn bind(
        allowed: Interfaces,
        port: u16,
        discovery_port: Option<u16>,
    ) -> io::Result<UdpSockets> {
        let list = interfaces::list(&allowed)?;
        if list.is_empty() {
            return Err(io::Error::new(ErrorKind::NotFound, interfaces::none_up(&allowed)));
        }
        let data = data::bind(&allowed, &list, port)?;
        let discovery = match discovery_port {
            Some(port) => discovery::bind(port),
            None => Vec::new(),
        };
        let sockets = UdpSockets {
            data,
            port,
            discovery,
            extra: RwLock::default(),
            allowed,
            discovery_port,
            interfaces: RwLock::new(Vec::new()),
            nat64: Nat64::default(),
            process: Process::current(),
            announcements: OnceLock::new(),
            questions: Questions::default(),
            stats: UdpStats::default(),
        };
        sockets.refresh()?;
        Ok(sockets)
    }

    /// Reads the interface list again. Opens sockets on new interfaces if each has separate ones, and joins
    /// the beacons' groups there. Returns true if anything changed.
    pub(crate) fn refresh(&self) -> io::Result<bool> {
        let list = interfaces::list(&self.allowed)?;
        let mut known = sync::write(&self.interfaces);
        // Netlink also reports changes that do not matter here.
        if *known == list {
            return Ok(false);
        }
        for interface in &list {
            tracing::debug!("network interface {interface}");
        }
        self.data.add_missing(&self.allowed, &list, self.port);
        for interface in list.iter().filter(|interface| !known.contains(interface)) {
            for socket in &self.discovery {
                socket.join(interface);
            }
        }
        *known = list;
        Ok(true)
    }

    /// Describes the data sockets to the overlay, with the beacon targets of each.
    pub(crate) fn infos(&self) -> Vec<SocketInfo> {
        let list = sync::read(&self.interfaces);
        let targets = |socket: &DataSocket| {
            self.discovery_port.map(|port| discovery::targets(socket, &list, port)).unwrap_or_default()
        };
        self.data
            .current()
            .map(|(index, socket)| SocketInfo {
                index: SocketIndex(index as u16),
                ipv4: socket.local.is_ipv4(),
                loopback: socket.loopback,
                max_datagram: MAX_PAYLOAD,
                beacon_targets: targets(socket),
            })
            .collect()
    }

    /// Returns the interfaces that a TCP connection of this node may use; `None` means any.
    pub(crate) fn devices(&self) -> Vec<Option<String>> {
        let list = sync::read(&self.interfaces);
        match self.allowed {
            Interfaces::All | Interfaces::Except(_) => vec![None],
            _ => list.iter().map(|interface| Some(interface.name.clone())).collect(),
        }
    }

    /// Returns the local addresses of the data sockets.
    pub(crate) fn local_addrs(&self) -> Vec<SocketAddr> {
        self.data.current().map(|(_, socket)| socket.local).collect()
    }

    /// Returns true if the node is limited to this machine.
    pub(super) fn is_loopback_only(&self) -> bool {
        self.allowed.is_loopback_only()
    }

    /// Returns the port of the data socket that serves an interface in one family, if any.
    pub(crate) fn port_on(&self, interface: &str, is_loopback: bool, is_ipv4: bool) -> Option<u16> {
        let serves = |socket: &&DataSocket| match socket.device_name() {
            Some(device) => device == interface,
            None => !socket.loopback || is_loopback,
        };
        let sockets = self.data.current().map(|(_, socket)| socket);
        let mut of_family = sockets.filter(|socket| socket.local.is_ipv4() == is_ipv4);
        of_family.find(serves).map(|socket| socket.local.port())
    }

    /// Accepts answers to questions from these addresses, instead of earlier ones.
    pub(crate) fn expect_answers(&self, asked: Vec<SocketAddr>) {
        self.questions.open(asked);
    }

    /// Stops accepting answers to questions.
    pub(crate) fn expect_no_answers(&self) {
        self.questions.close();
    }

    /// Sends a question from each data socket with a possible route; returns the number of sockets.
    pub(crate) fn ask(&self, to: SocketAddr, question: &[u8]) -> usize {
        let leads = |socket: &DataSocket| {
            // A loopback socket cannot reach another machine.
            let is_local = socket.loopback || socket.device_name() == Some("lo");
            socket.local.is_ipv4() == to.is_ipv4() && (!is_local || to.ip().is_loopback())
        };
        let leading = self.data.current().filter(|(_, socket)| leads(socket));
        let sent = leading.map(|(index, _)| {
            let socket = SocketIndex(index as u16);
            let transmit = Transmit { socket, remote: to, contents: question, segment_size: None, ecn: 0 };
            self.send_at_once(&transmit);
        });
        sent.count()
    }

    /// Waits for answers, at most until `until`.
    pub(crate) fn answers(&self, until: Instant) -> Vec<OutsideAnswer> {
        self.questions.wait(until)
    }

    /// Returns true if answers to questions are expected.
    pub(super) fn expects_answers(&self) -> bool {
        self.questions.is_open()
    }

    /// Takes a received datagram if it answers a question; returns true then.
    pub(super) fn take_answer(&self, origin: &RecvMeta, datagram: &[u8]) -> bool {
        self.questions.take(usize::from(origin.socket.0), origin.remote, datagram)
    }

    /// Returns the smallest receive buffer of the data sockets as the kernel accounts it, bytes.
    pub(crate) fn receive_buffer(&self) -> usize {
        let size = |socket: &DataSocket| socket.state.recv_buffer_size(UdpSockRef::from(&socket.io)).ok();
        let sizes = self.data.current().filter_map(|(_, socket)| size(socket));
        sizes.min().unwrap_or(212_992)
    }

    /// Returns the number of sockets to poll and receive from. It only grows.
    pub(crate) fn len(&self) -> usize {
        self.discovery.len() + self.data.len()
    }

    /// Returns the `index`th socket, for polling. Discovery sockets come first, because data sockets may be
    /// added.
    pub(crate) fn fd(&self, index: usize) -> BorrowedFd<'_> {
        self.io(index).0.as_fd()
    }

    fn io(&self, index: usize) -> (&UdpSocket, &UdpSocketState) {
        match self.discovery.get(index) {
            Some(socket) => (&socket.io, &socket.state),
            None => {
                let socket = self.data_at(index).expect("positions below `len` have a socket");
                (&socket.io, &socket.state)
            }
        }
    }

    /// Returns the data socket at an index of all sockets, if it is one.
    fn data_at(&self, index: usize) -> Option<&DataSocket> {
        self.data.get(self.data_position(index)?)
    }

    /// Converts an index of all sockets to a position of the data sockets. `None`: it is a discovery socket.
    fn data_position(&self, index: usize) -> Option<usize> {
        index.checked_sub(self.discovery.len())
    }

    /// Receives up to [`RECEIVE_BATCH`] GRO batches from the `index`th socket without waiting.
    pub(crate) fn receive(
        &self,
        index: usize,
        bufs: &mut [IoSliceMut<'_>; RECEIVE_BATCH],
        meta: &mut [quinn_udp::RecvMeta; RECEIVE_BATCH],
    ) -> io::Result<usize> {
        self.stats.udp_receive_calls.increment();
        let (io, state) = self.io(index);
        let received = state.recv(UdpSockRef::from(io), bufs, meta)?;
        self.stats.udp_received_batches.add(received as u64);
        let datagrams = meta.iter().take(received).map(|meta| meta.len.div_ceil(meta.stride.max(1)));
        self.stats.udp_received_datagrams.add(datagrams.sum::<usize>() as u64);
        Ok(received)
    }

    /// Returns the number of datagrams sent and received until now.
    pub(super) fn carried(&self) -> u64 {
        self.stats.udp_sent_datagrams.get() + self.stats.udp_received_datagrams.get()
    }

    /// Takes the oldest error about datagrams of the `index`th socket: `None` if there is none, `Some(None)`
    /// if it is not about the peer.
    pub(super) fn take_error(&self, index: usize) -> Option<Option<Refused>> {
        let position = self.data_position(index)?;
        let mut error = icmp_errors::take(&self.data.get(position)?.io)?;
        if let Some(refused) = &mut error {
            // Behind a NAT64 the overlay knows the IPv4 address.
            refused.remote = self.origin_of_data(position, refused.remote).1;
        }
        Some(error)
    }

    /// Returns the origin of a datagram received on the `index`th socket: its source, the data socket for
    /// answers, and whether it is a beacon. `None`: it came over a forbidden interface, or to the discovery
    /// port by unicast.
    pub(crate) fn origin(&self, index: usize, meta: &quinn_udp::RecvMeta) -> Option<RecvMeta> {
        if let Some(position) = self.data_position(index) {
            let (socket, remote) = self.origin_of_data(position, meta.addr);
            return Some(RecvMeta { remote, socket, multicast: false, relay: None });
        }
        let ipv4 = self.discovery.get(index)?.ipv4;
        let list = sync::read(&self.interfaces);
        // Discovery sockets receive on all interfaces, so forbidden ones are filtered here.
        let interface = list.iter().find(|interface| Some(interface.index) == meta.interface_index)?;
        if !interface.is_for_all(meta.dst_ip) {
            self.stats.udp_stray_beacons.increment();
            return None;
        }
        let answers = |socket: &DataSocket| socket.local.is_ipv4() == ipv4 && socket.reaches(interface);
        let (answer, _) = self.data.current().find(|(_, socket)| answers(socket))?;
        let (remote, socket) = (interfaces::canonical(meta.addr), SocketIndex(answer as u16));
        Some(RecvMeta { remote, socket, multicast: true, relay: None })
    }

    /// Calls `listener` for each root that announces itself on the local networks, with the source of the
    /// announcement. Returns false if discovery is off, so that nothing is received. Only the first listener
    /// is called.
    ///
    /// # Errors
    /// Fails if the system has no randomness.
    pub(crate) fn on_announcement(&self, listener: Box<OnAnnouncement>) -> io::Result<bool> {
        let announcements = Announcements::new(listener)?;
        Ok(!self.discovery.is_empty() && self.announcements.set(announcements).is_ok())
    }

    /// Takes a datagram that came by multicast or broadcast if it is a root's announcement; returns true
    /// then.
    pub(super) fn take_announcement(&self, now: Instant, remote: SocketAddr, datagram: &[u8]) -> bool {
        if MessageType::of(datagram) != Some(MessageType::Announcement) {
            return false;
        }
        // Without a listener it is dropped, because the overlay does not know announcements.
        if let Some(announcements) = self.announcements.get() {
            announcements.take(now, remote, datagram, &self.stats);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn only_what_came_to_everybody_is_a_beacon() {
        let (sockets, port) = with_discovery();
        let target = |ip: IpAddr| SocketAddr::new(ip, port);
        // Both senders differ in their addresses, and the datagrams arrive in the order of sending.
        let (stranger, neighbour) = (client(), client());
        neighbour.set_broadcast(true).unwrap();
        stranger.send_to(&[0xD5; 274], target(Ipv4Addr::LOCALHOST.into())).unwrap();
        neighbour.send_to(&[0xD5; 274], target(Ipv4Addr::new(127, 255, 255, 255).into())).unwrap();
        let index = sockets.discovery.iter().position(|socket| socket.ipv4).unwrap();
        let mut taken = Vec::new();
        while taken.len() < 2 {
            crate::sys::poll::readable(
                &mut [crate::sys::poll::PollFd::from_borrowed_fd(
                    sockets.fd(index),
                    crate::sys::poll::PollFlags::IN,
                )],
                None,
            );
            let mut buffers = receive_buffers(2048);
            let mut meta = [quinn_udp::RecvMeta::default(); RECEIVE_BATCH];
            let received = sockets.receive(index, &mut as_slices(&mut buffers), &mut meta).unwrap();
            let from = |meta: &quinn_udp::RecvMeta| (meta.addr.port(), sockets.origin(index, meta).is_some());
            taken.extend(meta[..received].iter().map(from));
        }
        let ports = [&stranger, &neighbour].map(|socket| socket.local_addr().unwrap().port());
        assert_eq!(taken, [(ports[0], false), (ports[1], true)]);
        assert_eq!(sockets.stats.udp_stray_beacons.get(), 1);
    }

    fn client() -> UdpSocket {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
    }

    /// Binds sockets with a discovery port that no other program uses; returns them with the port.
    fn with_discovery() -> (UdpSockets, u16) {
        loop {
            let port = client().local_addr().unwrap().port();
            let sockets = UdpSockets::bind(Interfaces::Loopback, 0, Some(port)).unwrap();
            if sockets.discovery.iter().any(|socket| socket.ipv4) {
                return (sockets, port);
            }
        }
    }
}
