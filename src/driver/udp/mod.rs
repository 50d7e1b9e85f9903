//! The node's UDP sockets: data sockets (bound to the node's port) and discovery sockets (bound to the
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

/// Largest UDP payload over IPv4: 65535 less the IPv4 and UDP headers.
const MAX_PAYLOAD: usize = 65507;

/// Buffers handed to one receive call; each takes one GRO batch.
pub(crate) const RECEIVE_BATCH: usize = 4;

/// The buffers of a receive call, of so many bytes each. Untouched pages of fresh ones take no memory.
pub(crate) fn receive_buffers(size: usize) -> [Vec<u8>; RECEIVE_BATCH] {
    std::array::from_fn(|_| vec![0; size])
}

/// The buffers as the receive call takes them.
pub(crate) fn as_slices(buffers: &mut [Vec<u8>; RECEIVE_BATCH]) -> [IoSliceMut<'_>; RECEIVE_BATCH] {
    buffers.each_mut().map(|buffer| IoSliceMut::new(buffer))
}

/// Binds a socket by a system call of its own. Under `peersock run` the library takes bind(2) of the C library,
/// and would put the sockets of a node that the program has on the launcher's networks.
fn bind_by_itself(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    Ok(rustix::net::bind(socket, &address)?)
}

/// Prepares a new socket for batches.
///
/// # Errors
/// Of the kind `Unsupported` where a sandbox refuses the call that receives: the node would hear nothing, and
/// nothing would say why. And what the system says.
fn batches(io: &UdpSocket) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(UdpSockRef::from(io))?;
    let mut byte = [0];
    let mut meta = [quinn_udp::RecvMeta::default()];
    match state.recv(UdpSockRef::from(io), &mut [IoSliceMut::new(&mut byte)], &mut meta) {
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {
            let text = format!("a sandbox refuses the system call recvmmsg, by which nodes receive: {error}");
            Err(io::Error::new(ErrorKind::Unsupported, text))
        }
        _ => Ok(state),
    }
}

/// The sockets of one node.
pub(crate) struct UdpSockets {
    data: DataSockets,
    /// As it was asked for; 0 where the system chooses.
    port: u16,
    discovery: Vec<DiscoverySocket>,
    /// Those that the overlay wants besides, for a while.
    extra: RwLock<BTreeMap<SocketIndex, Arc<ExtraSocket>>>,
    allowed: Interfaces,
    discovery_port: Option<u16>,
    /// What the interfaces looked like at the last look.
    interfaces: RwLock<Vec<HostInterface>>,
    /// By which addresses IPv4 is reached where only IPv6 is there.
    pub(crate) nat64: Nat64,
    process: Process,
    /// Who wants to know of roots that announce themselves.
    announcements: OnceLock<Announcements>,
    questions: Questions,
    pub(crate) stats: UdpStats,
}

peersock_primitives::counters! {
    /// System calls and datagrams, both ways.
    pub(crate) struct UdpStats {
        /// Calls that send.
        udp_send_calls,
        /// Calls that send and failed: their datagrams are lost.
        udp_send_errors,
        /// Datagrams sent.
        udp_sent_datagrams,
        /// Calls that receive.
        udp_receive_calls,
        /// Batches received.
        udp_received_batches,
        /// Datagrams received.
        udp_received_datagrams,
        /// Batches that came to the discovery port by unicast.
        udp_stray_beacons,
        /// Announcements of roots that were dropped unread: more came from there, or in all, than are looked
        /// at.
        announcements_limited,
    }
}

impl UdpSockets {
    /// Binds the sockets. `port` 0 lets the system choose; `discovery_port` `None` turns discovery off.
    ///
    /// # Errors
    /// `AddrInUse` when `port` is taken, `NotFound` when no allowed interface exists, and what the system
    /// says.
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

    /// Reads the interface list again, opens sockets on new ones where each has its own, and joins the
    /// beacons' groups there. True if anything changed.
    pub(crate) fn refresh(&self) -> io::Result<bool> {
        let list = interfaces::list(&self.allowed)?;
        let mut known = sync::write(&self.interfaces);
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

    /// Describes the data sockets to the overlay, with the addresses its beacons should go to.
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

    /// The interfaces that a TCP connection of this node may leave by; `None` stands for any.
    pub(crate) fn devices(&self) -> Vec<Option<String>> {
        let list = sync::read(&self.interfaces);
        match self.allowed {
            Interfaces::All | Interfaces::Except(_) => vec![None],
            _ => list.iter().map(|interface| Some(interface.name.clone())).collect(),
        }
    }

    /// The local addresses of the data sockets.
    pub(crate) fn local_addrs(&self) -> Vec<SocketAddr> {
        self.data.current().map(|(_, socket)| socket.local).collect()
    }

    /// Whether the node is limited to this machine.
    pub(super) fn is_loopback_only(&self) -> bool {
        self.allowed.is_loopback_only()
    }

    /// The port of the data socket that serves an interface in one family, if there is one.
    pub(crate) fn port_on(&self, interface: &str, is_loopback: bool, is_ipv4: bool) -> Option<u16> {
        let serves = |socket: &&DataSocket| match socket.device_name() {
            Some(device) => device == interface,
            None => !socket.loopback || is_loopback,
        };
        let sockets = self.data.current().map(|(_, socket)| socket);
        let mut of_family = sockets.filter(|socket| socket.local.is_ipv4() == is_ipv4);
        of_family.find(serves).map(|socket| socket.local.port())
    }

    /// Takes answers to questions from these addresses, instead of those before.
    pub(crate) fn expect_answers(&self, asked: Vec<SocketAddr>) {
        self.questions.open(asked);
    }

    /// Takes no answers to questions any more.
    pub(crate) fn expect_no_answers(&self) {
        self.questions.close();
    }

    /// Sends a question from each data socket that may lead there; says from how many it left.
    pub(crate) fn ask(&self, to: SocketAddr, question: &[u8]) -> usize {
        let leads = |socket: &DataSocket| {
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

    /// Waits for answers, at most until then.
    pub(crate) fn answers(&self, until: Instant) -> Vec<OutsideAnswer> {
        self.questions.wait(until)
    }

    /// Whether answers to questions are waited for.
    pub(super) fn expects_answers(&self) -> bool {
        self.questions.is_open()
    }

    /// Takes a received datagram if it answers a question.
    pub(super) fn take_answer(&self, origin: &RecvMeta, datagram: &[u8]) -> bool {
        self.questions.take(usize::from(origin.socket.0), origin.remote, datagram)
    }

    /// The smallest receive buffer of the data sockets as the kernel accounts it, bytes.
    pub(crate) fn receive_buffer(&self) -> usize {
        let size = |socket: &DataSocket| socket.state.recv_buffer_size(UdpSockRef::from(&socket.io)).ok();
        let sizes = self.data.current().filter_map(|(_, socket)| size(socket));
        sizes.min().unwrap_or(212_992)
    }

    /// How many sockets there are to poll and receive from. It only grows.
    pub(crate) fn len(&self) -> usize {
        self.discovery.len() + self.data.len()
    }

    /// The `index`th socket, for polling. Discovery sockets come first: data sockets may be added.
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

    /// The data socket among all sockets, if it is one.
    fn data_at(&self, index: usize) -> Option<&DataSocket> {
        self.data.get(self.data_position(index)?)
    }

    /// Which of the data sockets the `index`th of all sockets is. `None`: it is a discovery socket.
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

    /// Datagrams sent and received until now.
    pub(super) fn carried(&self) -> u64 {
        self.stats.udp_sent_datagrams.get() + self.stats.udp_received_datagrams.get()
    }

    /// Takes the oldest error about datagrams of the `index`th socket: `None` if there is none, `Some(None)`
    /// if it says nothing of the peer.
    pub(super) fn take_error(&self, index: usize) -> Option<Option<Refused>> {
        let position = self.data_position(index)?;
        let mut error = icmp_errors::take(&self.data.get(position)?.io)?;
        if let Some(refused) = &mut error {
            refused.remote = self.origin_of_data(position, refused.remote).1;
        }
        Some(error)
    }

    /// Says how the overlay should see what came in on the `index`th socket: from whom, the data socket to
    /// answer from, and whether it was a beacon's way in. `None`: it came over an interface that the node may
    /// not use, or to the discovery port by unicast.
    pub(crate) fn origin(&self, index: usize, meta: &quinn_udp::RecvMeta) -> Option<RecvMeta> {
        if let Some(position) = self.data_position(index) {
            let (socket, remote) = self.origin_of_data(position, meta.addr);
            return Some(RecvMeta { remote, socket, multicast: false, relay: None });
        }
        let ipv4 = self.discovery.get(index)?.ipv4;
        let list = sync::read(&self.interfaces);
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

    /// Has `listener` called with the roots that announce themselves on the local networks, and where each
    /// does. False if discovery is off, so that nothing is heard. Only the first listener is told.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(crate) fn on_announcement(&self, listener: Box<OnAnnouncement>) -> io::Result<bool> {
        let announcements = Announcements::new(listener)?;
        Ok(!self.discovery.is_empty() && self.announcements.set(announcements).is_ok())
    }

    /// Takes a datagram that came by multicast or broadcast if it is a root's announcement.
    pub(super) fn take_announcement(&self, now: Instant, remote: SocketAddr, datagram: &[u8]) -> bool {
        if MessageType::of(datagram) != Some(MessageType::Announcement) {
            return false;
        }
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
        // Both are told apart by where they come from, and arrive in the order in which they were sent.
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

    /// Sockets with a discovery port that nobody else has, and that port.
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
