//! Allocations over UDP: a socket connected to the server.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use peersock_nat::turn::{Client, TurnServer};
use peersock_overlay::is_endpoint;
use quinn_udp::{UdpSockRef, UdpSocketState};

use super::keeper::{Ended, Keeper, Way};
use super::{Allocation, Link, Opening};
use crate::driver::interfaces::{canonical, socket_towards, source_towards};
use crate::driver::udp::{RECEIVE_BATCH, as_slices, receive_buffers};
use crate::sync;
use crate::sys::poll::{self, PollFd, PollFlags};
use peersock_datapath::Ingress;

/// Size limit of a GRO batch in bytes.
const BUFFER: usize = 65536;

/// Requested size of the receive buffer in bytes.
const RECEIVE_BUFFER: usize = 2 << 20;

/// Limit of receive calls before timers run.
const MAX_CALLS: usize = 8;

/// UDP socket for one server.
pub(super) struct UdpLink {
    io: UdpSocket,
    state: UdpSocketState,
    server: SocketAddr,
    /// Interface that the socket is bound to; `None` for any.
    device: Option<String>,
}

impl UdpLink {
    /// Opens a socket connected to the server, by an interface.
    fn open(server: SocketAddr, device: Option<String>) -> io::Result<Self> {
        let io = connect(server, device.as_deref())?;
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        Ok(Self { io, state, server, device })
    }

    pub(super) fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Sends to the server. Datagrams that find no buffer space are lost.
    pub(super) fn transmit(&self, contents: &[u8], segment_size: usize) {
        if contents.is_empty() {
            return;
        }
        let transmit = quinn_udp::Transmit {
            destination: self.server,
            ecn: None,
            contents,
            segment_size: (segment_size < contents.len()).then_some(segment_size),
            src_ip: None,
        };
        if let Err(error) = self.state.try_send(UdpSockRef::from(&self.io), &transmit) {
            tracing::trace!(%error, "datagram to the TURN server not sent");
        }
    }

    /// Returns true if the machine has another address on the path to the server.
    fn has_moved(&self) -> bool {
        let local = self.io.local_addr().ok().map(|local| local.ip());
        source_towards(self.server, self.device.as_deref()).ok() != local
    }
}

impl Keeper {
    /// Requests an allocation over UDP and serves it until it ends.
    pub(super) fn allocate_by_udp(
        &self,
        (device, nat64): Way,
        elsewhere: Option<SocketAddr>,
        tries: usize,
    ) -> Ended {
        let opened = address(&self.server, elsewhere, tries).and_then(|server| {
            let reached_at = nat64.map_or(server, |prefix| prefix.synthesize(server));
            let link = UdpLink::open(reached_at, device)?;
            let mut seed = [0; 32];
            getrandom::fill(&mut seed)?;
            let client = Client::new(&self.server, self.is_ipv4, seed, Instant::now()).at(server);
            let (client, link) = (Mutex::new(client), Link::Udp(link));
            Ok(Allocation { client, link, bell: Arc::clone(&self.bell) })
        });
        match opened {
            Ok(allocation) => {
                let (allocation, mut opening) = (Arc::new(allocation), Some(self.turn.begin_opening()));
                let ended = self.serve_by_udp(&allocation, &mut opening);
                // Otherwise the server would keep the allocation for minutes, and count it against the user's
                // quota.
                allocation.give_back();
                ended
            }
            Err(error) => Ended::Local(format!("{}: {error}", self.server.target())),
        }
    }

    /// Requests the allocation, and then reads from the server. Takes `opening` once the allocation is
    /// visible to `stop`.
    fn serve_by_udp(&self, allocation: &Arc<Allocation>, opening: &mut Option<Opening>) -> Ended {
        let Link::Udp(link) = &allocation.link else { return Ended::Stopped };
        if !self.is_wanted() {
            return Ended::Stopped;
        }
        let mut buffers = receive_buffers(BUFFER);
        let mut ingress = Ingress::default();
        let mut stop_at = None;
        loop {
            allocation.flush();
            match self.take_events(allocation) {
                Ok(true) if !self.turn.is_stopped() => *opening = None,
                Ok(_) => {}
                Err(ended) => return ended,
            }
            let until = match self.next_look(allocation, opening.is_some(), &mut stop_at) {
                Ok(until) => until,
                Err(ended) => return ended,
            };
            let mut fds = [PollFd::new(&link.io, PollFlags::IN), PollFd::new(&*self.bell, PollFlags::IN)];
            poll::readable(&mut fds, Some(until.saturating_duration_since(Instant::now())));
            if !fds[1].revents().is_empty() {
                self.bell.clear();
            }
            if let Some(ended) = self.heed_news(|| link.has_moved()) {
                return ended;
            }
            for _ in 0..MAX_CALLS {
                if !self.receive(allocation, link, &mut buffers, &mut ingress) {
                    break;
                }
            }
            sync::lock(&allocation.client).handle_timeout(Instant::now());
        }
    }

    /// Makes one receive call; data from peers goes to the data path. Returns false if nothing was available.
    fn receive(
        &self,
        allocation: &Allocation,
        link: &UdpLink,
        buffers: &mut [Vec<u8>; RECEIVE_BATCH],
        ingress: &mut Ingress,
    ) -> bool {
        let mut meta = [quinn_udp::RecvMeta::default(); RECEIVE_BATCH];
        // Errors belong to earlier datagrams (ICMP), and can be forged, so they do not end the allocation.
        let received = match link.state.recv(UdpSockRef::from(&link.io), &mut as_slices(buffers), &mut meta) {
            Ok(received) => received,
            Err(error) => {
                if error.kind() == io::ErrorKind::ConnectionRefused && self.turn.note(self.position, CLOSED) {
                    tracing::debug!(server = %self.server, "no TURN allocation yet: {CLOSED}");
                }
                return error.kind() != io::ErrorKind::WouldBlock;
            }
        };
        // The kernel delivers only datagrams from the server once the socket is connected; earlier ones may
        // be foreign.
        let is_its = |meta: &quinn_udp::RecvMeta| canonical(meta.addr) == canonical(link.server);
        let read = meta.iter().zip(buffers.iter()).take(received).filter(|(meta, _)| is_its(meta));
        self.deliver(
            allocation,
            read.flat_map(|(meta, buffer)| buffer[..meta.len].chunks(meta.stride.max(1))),
            ingress,
        )
    }
}

/// Status text of a server whose machine rejects datagrams (ICMP).
const CLOSED: &str = "nothing listens at the server's port";

/// Returns the server's address: its name's addresses in turn, or the alternate one that the server has
/// named.
fn address(server: &TurnServer, elsewhere: Option<SocketAddr>, tries: usize) -> io::Result<SocketAddr> {
    if let Some(elsewhere) = elsewhere {
        return is_another(&elsewhere)
            .then_some(elsewhere)
            .ok_or_else(|| io::Error::other("the server names no other one"));
    }
    let target = server.target();
    let all: Vec<_> = (target.host.as_str(), target.port).to_socket_addrs()?.collect();
    let address = all.get(tries % all.len().max(1)).copied();
    address.ok_or_else(|| io::Error::other("the name has no address"))
}

/// Returns true if a server may name that address as an alternate; it must not direct this node to its own
/// machine.
pub(super) fn is_another(server: &SocketAddr) -> bool {
    is_endpoint(server) && !server.ip().is_loopback() && !server.ip().is_multicast()
}

/// Connects a socket to the server.
pub(super) fn connect(server: SocketAddr, device: Option<&str>) -> io::Result<UdpSocket> {
    let socket = socket_towards(server, device)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.connect(&server.into())?;
    Ok(socket.into())
}
