//! Path of an arriving packet to its socket.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use smoltcp::wire::IpProtocol;

use crate::host::clock::Time;
use crate::host::interface::Interface;
use crate::host::stack::Shared;
use crate::icmp::Problem;
use crate::ip::{IpError, IpHeader, MAX_HEADERS, is_unicast};
use crate::socket::backlog::Admission;
use crate::socket::flow_table::FlowKey;
use crate::socket::raw;
use crate::socket::udp;
use crate::tcp::{Connection, Segment, Settings, Share, TcpError, TcpHeader, initial_sequence};
use crate::{Batch, Flow, InterfaceId, Listener, Stack, icmp};

impl Stack {
    /// Processes one IP packet, or a super-segment made by a [`Coalescer`](crate::Coalescer), and lists the
    /// touched sockets in `batch`.
    ///
    /// Feed everything that has arrived, then handle the batch, so that one acknowledgement answers all of
    /// it. Any bytes may be given; invalid packets and packets for other nodes are dropped and counted. The
    /// packet's headers may be overwritten (IPv6 extension headers).
    ///
    /// The caller must have checked that the sender owns the source address.
    pub fn receive(&self, now: Instant, interface: InterfaceId, packet: &mut [u8], batch: &mut Batch) {
        let counters = &self.shared.counters;
        counters.ip_received.increment();
        // The batch remembers the interface, so that packets in a burst take no lock.
        let Some(found) = self.shared.interfaces.find_again(interface, batch.interface.take()) else {
            return counters.ip_not_local.increment();
        };
        self.receive_on(found.interface(), now, packet, batch);
        batch.interface = Some(found);
    }

    fn receive_on(&self, interface: &Arc<Interface>, now: Instant, packet: &mut [u8], batch: &mut Batch) {
        let counters = &self.shared.counters;
        let ip = match IpHeader::parse(packet, interface.checksums) {
            Ok(ip) => ip,
            Err(IpError::Malformed) => return counters.ip_malformed.increment(),
            Err(IpError::Checksum) => return counters.ip_checksum_errors.increment(),
        };
        // Hosts do not forward (RFC 1122 3.3.1), and a packet for another address gets no answer.
        if !self.is_for_us(interface, ip.destination) {
            return counters.ip_not_local.increment();
        }
        // Such a source is forged, and an answer could reach many nodes (RFC 1122 3.2.1.3).
        if !ip.source_is_unicast() {
            return counters.ip_bad_source.increment();
        }
        let time = self.shared.clock.time(now);
        // Bytes behind the packet are padding, which no layer may read.
        let packet = &mut packet[..ip.total_len];
        if ip.plain {
            // Offset of the protocol number in the IPv4 or IPv6 header.
            let named_at = if ip.source.is_ipv4() { 9 } else { 6 };
            self.deliver(time, interface, packet, (&ip, named_at), batch);
        } else {
            self.receive_extended(time, interface, packet, &ip, batch);
        }
    }

    /// Returns true if `destination` is a local address, or a group that a socket has joined.
    fn is_for_us(&self, interface: &Interface, destination: IpAddr) -> bool {
        if destination.is_multicast() {
            self.shared.memberships.contains(interface.id, destination)
        } else {
            interface.is_local(destination)
        }
    }

    /// Passes a whole packet to its upper layer, named by the byte at `named_at`.
    pub(crate) fn deliver(
        &self,
        time: Time,
        interface: &Arc<Interface>,
        packet: &mut [u8],
        (ip, named_at): (&IpHeader, usize),
        batch: &mut Batch,
    ) {
        // Raw sockets come first, because a protocol that only they accept must not cause an error.
        let taken = raw::receive(&self.shared, interface, packet, ip, batch);
        match ip.protocol {
            // A connection has exactly two ends, so TCP is never multicast (RFC 9293 3.9.2.3).
            IpProtocol::Tcp if !is_unicast(ip.destination) => self.shared.counters.tcp_malformed.increment(),
            IpProtocol::Tcp => self.receive_tcp(time, interface, packet, ip, batch),
            IpProtocol::Udp => udp::receive(&self.shared, time, interface, packet, ip, batch),
            protocol if icmp::is_for(ip.source, protocol) => {
                icmp::receive(&self.shared, time, interface, ip, packet, batch);
            }
            _ if taken => {}
            _ => {
                self.shared.counters.ip_unknown_protocol.increment();
                let problem = Problem::ProtocolUnreachable { named_at };
                icmp::report(&self.shared, time, interface, packet, problem, batch);
            }
        }
    }

    fn receive_tcp(
        &self,
        time: Time,
        interface: &Arc<Interface>,
        packet: &mut [u8],
        ip: &IpHeader,
        batch: &mut Batch,
    ) {
        let shared = &self.shared;
        let tcp = match TcpHeader::parse(packet, ip, interface.checksums) {
            Ok(tcp) => tcp,
            Err(TcpError::Malformed) => return shared.counters.tcp_malformed.increment(),
            Err(TcpError::Checksum) => return shared.counters.ip_checksum_errors.increment(),
        };
        let ports = [tcp.destination_port, tcp.source_port];
        let key = FlowKey::from_parts(interface.id, [ip.destination, ip.source], ports);
        if let Some(flow) = shared.flows.find(&key)
            && flow.receive(time, packet, (ip, &tcp), batch)
        {
            return batch.touch_flow(&shared.rounds, flow);
        }
        // No flow has taken the segment, or an old flow in TIME-WAIT has made room for it.
        let local = SocketAddr::new(ip.destination, tcp.destination_port);
        let remote = SocketAddr::new(ip.source, tcp.source_port);
        if tcp.opens() {
            // Only the listener's port must be allowed, because the other port is ephemeral.
            if !interface.allows(local.port()) {
                return shared.counters.port_not_allowed.increment();
            }
            if let Some(flow) = self.accept(time, interface, (local, remote), packet, ip, batch) {
                if let Some(flow) = flow {
                    batch.touch_flow(&shared.rounds, flow);
                }
                return;
            }
        }
        if let Some(accepted) = self.accept_cookie(time, interface, (local, remote), &tcp) {
            if let Some(flow) = accepted
                && flow.receive(time, packet, (ip, &tcp), batch)
            {
                batch.touch_flow(&shared.rounds, flow);
            }
            return;
        }
        if self.may_come_again(time, interface.id, (local, remote), &tcp) {
            return shared.counters.tcp_backlog_overflows.increment();
        }
        // RFC 9293 3.10.7.2: a listener ignores a segment that neither opens nor acknowledges.
        if tcp.ack.is_none() && shared.listeners.find(interface.id, local).is_some() {
            return;
        }
        shared.counters.tcp_no_socket.increment();
        batch
            .reply(interface.id, ip.source, MAX_HEADERS, |buf| tcp.write_reset(ip, interface.checksums, buf));
    }

    /// Returns the listener for a connection between these addresses.
    fn listener(&self, interface: InterfaceId, addresses: (SocketAddr, SocketAddr)) -> Option<Arc<Listener>> {
        let Shared { listeners, listener_key, .. } = &*self.shared;
        listeners.find_spread(interface, addresses.0, || listener_key.digest(addresses))
    }

    /// Processes a SYN for `local`. Returns `None` if there is no listener, `Some(None)` if no flow was made.
    fn accept(
        &self,
        time: Time,
        interface: &Arc<Interface>,
        (local, remote): (SocketAddr, SocketAddr),
        packet: &[u8],
        ip: &IpHeader,
        batch: &mut Batch,
    ) -> Option<Option<Arc<Flow>>> {
        let shared = &self.shared;
        let listener = self.listener(interface.id, (local, remote))?;
        // Checked before the backlog, so that a peer at its limit takes no place.
        let Some(share) = self.share_for_another(interface, remote) else {
            shared.counters.tcp_flow_limit.increment();
            return Some(None);
        };
        let segment = Segment::read(packet, ip.header_len)?;
        let admission = listener.begin_handshake(time, remote.ip());
        match admission {
            Admission::Place | Admission::Held => {}
            Admission::Cookie => {
                let settings = Flow::settings(shared, interface, &listener.options(), &share);
                self.answer_with_cookie(time, interface, (local, remote), (&segment, &settings), batch);
                return Some(None);
            }
            Admission::Full => {
                shared.counters.tcp_backlog_overflows.increment();
                return Some(None);
            }
        }
        let settings = Flow::settings(shared, interface, &listener.options(), &share);
        let isn = initial_sequence(&shared.sequence_key, time, local, remote);
        let addresses = (local, remote);
        let connection = Connection::accept(settings, time, addresses, isn, &segment);
        let made = (connection, &share, admission == Admission::Held);
        Some(self.add_accepted(time, interface, addresses, made, &listener))
    }

    /// Returns the account for a connection that a peer opens, unless the limit of flows, in total or per
    /// peer, is reached.
    fn share_for_another(&self, interface: &Interface, remote: SocketAddr) -> Option<Arc<Share>> {
        let Shared { flows, config, .. } = &*self.shared;
        let share = self.shared.share(interface.id, remote.ip());
        (flows.len() < config.max_flows && share.flows() < config.max_flows_per_peer).then_some(share)
    }

    /// Adds a connection and returns it if it has a place in its listener's backlog. A held connection waits
    /// for a place.
    fn add_accepted(
        &self,
        time: Time,
        interface: &Arc<Interface>,
        addresses: (SocketAddr, SocketAddr),
        (connection, share, is_held): (Connection, &Arc<Share>, bool),
        listener: &Arc<Listener>,
    ) -> Option<Arc<Flow>> {
        let shared = &self.shared;
        let options = listener.options();
        let flow =
            Flow::new(shared, interface.clone(), addresses, connection, &options, time, Some(listener));
        // Before the flow can be found, because a repeated SYN would otherwise start the handshake.
        if is_held {
            flow.hold();
        }
        let inserted = shared.flows.insert(&flow, share);
        match (inserted, is_held) {
            (true, true) => {
                flow.arm_now(time);
                listener.hold(&flow, time);
            }
            // Another thread may have added the same connection meanwhile.
            (false, false) => listener.forget_handshake(time),
            _ => {}
        }
        (inserted && !is_held).then_some(flow)
    }

    /// Answers a SYN with a cookie, because handshakes fill the listener's backlog; no other state is kept.
    fn answer_with_cookie(
        &self,
        time: Time,
        interface: &Interface,
        (local, remote): (SocketAddr, SocketAddr),
        (syn, settings): (&Segment<'_>, &Settings),
        batch: &mut Batch,
    ) {
        let shared = &self.shared;
        shared.counters.tcp_cookies_sent.increment();
        // An absent MSS counts as 0, which selects the smallest size.
        let mss = syn.options.mss.unwrap_or(0);
        let isn = shared.cookies.make(time, (local, remote), syn.seq, mss);
        batch.reply(interface.id, remote.ip(), MAX_HEADERS, |buf| {
            Connection::write_cookie((local, remote), isn, syn.seq, (settings, interface.checksums), buf)
        });
    }

    /// Processes an acknowledgement for no connection, which may bring a cookie back. Returns `Some(None)` if
    /// there is no place for the connection yet; the peer will retransmit.
    fn accept_cookie(
        &self,
        time: Time,
        interface: &Arc<Interface>,
        (local, remote): (SocketAddr, SocketAddr),
        tcp: &TcpHeader,
    ) -> Option<Option<Arc<Flow>>> {
        let shared = &self.shared;
        let ack = tcp.ack.filter(|_| !tcp.syn && !tcp.rst)?;
        let listener = self.listener(interface.id, (local, remote))?;
        if !listener.has_given_cookies(time) {
            return None;
        }
        let (isn, irs) = (ack.wrapping_sub(1), tcp.seq.wrapping_sub(1));
        let mss = shared.cookies.check(time, (local, remote), irs, isn)?;
        let share = self.share_for_another(interface, remote);
        let Some(share) = share.filter(|_| listener.take_cookie(time)) else {
            shared.counters.tcp_backlog_overflows.increment();
            return Some(None);
        };
        shared.counters.tcp_cookies_accepted.increment();
        let settings = Flow::settings(shared, interface, &listener.options(), &share);
        let connection = Connection::from_cookie(settings, time, (local, remote), (isn, irs), mss);
        Some(self.add_accepted(time, interface, (local, remote), (connection, &share, false), &listener))
    }

    /// Returns true if a segment for no connection may continue a stream whose cookie has found no place.
    /// Even the stream's beginning is unknown here. Without a reset the peer retransmits the beginning, which
    /// brings the cookie.
    fn may_come_again(
        &self,
        time: Time,
        interface: InterfaceId,
        addresses: (SocketAddr, SocketAddr),
        tcp: &TcpHeader,
    ) -> bool {
        let carries = tcp.payload > 0 || tcp.fin;
        let continues = carries && tcp.ack.is_some() && !tcp.syn && !tcp.rst;
        let listener = || self.listener(interface, addresses);
        continues && listener().is_some_and(|listener| listener.has_refused_cookies(time))
    }
}
