#![forbid(unsafe_code)]
//! The TCP/IP stack of peersock: IP packets in, IP packets out, time as an argument.
//!
//! The stack does no I/O, reads no clock, starts no thread and knows nothing of peers or keys. The driver may
//! tell it which addresses belong to one peer ([`Owners`]). The same seed and the same calls at the same
//! times give the same results.
//!
//! # Driving it
//!
//! One round of a driver:
//!
//! 1. Give each arriving packet to [`Stack::receive`], joined by a [`Coalescer`] if there are many. All
//!    packets of the round share one [`Batch`].
//! 2. If [`Stack::poll_timeout`] has passed, call [`Stack::handle_timeout`] with the same batch.
//! 3. For each of the batch's [`flows`](Batch::flows), call [`Flow::egress`] until it returns `None`, cut the
//!    output with [`SuperSegment::next`], and send the pieces. Send the [`replies`](Batch::replies), cut by
//!    [`Stack::fragments`] like every packet that does not come from a flow. Check the
//!    [`readiness`](Flow::readiness) of every listed socket and wake its waiters.
//! 4. Ask [`Stack::poll_timeout`] for the time of the next round.
//!
//! After an application's call ([`Flow::write`], [`Flow::read`], [`Flow::close`] …), call `egress` until
//! `None` too, because data, acknowledgements and window updates leave only there. The driver gives packets
//! to the node's own addresses back to `receive`.
//!
//! Any thread may call everything at any time. Each flow has one lock, held while bytes are copied to or from
//! its queues; sealing, sending and waiting happen outside. A packet costs a hash look-up and its flow's
//! lock, whatever the number of flows.
//!
//! ```
//! use std::time::Instant;
//! use peersock_stack::*;
//!
//! let now = Instant::now();
//! let stack = Stack::new(Config::default(), [7; 32], now);
//! let net = stack.add_interface(InterfaceConfig::new("net", ["10.0.0.1/8".parse()?]));
//! let listener = stack.tcp_listen(now, Some(net), "10.0.0.1:80".parse()?, 16, TcpOptions::default())?;
//! let client = stack.tcp_connect(now, net, None, "10.0.0.1:80".parse()?, TcpOptions::default())?;
//!
//! // The driver's part: this node talks to itself, so what it sends comes back.
//! let limits = Egress { segment: 1400, max_segments: 44, in_flight_cap: 1 << 20, checksums: false };
//! let mut buf = vec![0; MAX_PACKET];
//! let mut batch = Batch::new();
//! let mut flows = vec![client.clone()];
//! while let Some(flow) = flows.pop() {
//!     while let Some(mut packets) = flow.egress(now, &limits, &mut buf) {
//!         while let Some(packet) = packets.next(&mut buf) {
//!             stack.receive(now, net, &mut packet.to_vec(), &mut batch);
//!         }
//!     }
//!     flows.append(&mut batch.flows);
//!     batch.clear();
//! }
//! assert!(client.readiness().contains(Ready::CONNECTED | Ready::WRITABLE));
//! assert_eq!(listener.accept(now)?.remote(), client.local());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Ports
//!
//! A network may restrict ports ([`InterfaceConfig::ports`]). The stack checks the *service's* port on both
//! sides. For TCP, this is the port to which a connection is opened, checked in connect, in listen and for an
//! arriving SYN. The other end's port is ephemeral and unrestricted. A UDP datagram may be sent if either
//! port is allowed. A datagram that arrives for a disallowed port must come from an allowed port. In
//! addition, the socket must be connected to the sender, or have sent to the sender, or to a group at the
//! sender's port. The sender may answer until it has been silent for five minutes. A socket remembers at
//! least its last 2,048 destinations, and at most twice that number.
//!
//! # Deviations and limits
//!
//! - TIME-WAIT lasts 10 s by default ([`Config::time_wait`]; RFC 9293 has four minutes, Linux 60 s). It ends
//!   earlier for a new connection that its timestamp or sequence number distinguishes from the old one.
//!   Another SYN is challenged; the reset that answers the challenge ends TIME-WAIT (RFC 1337 ignores all
//!   resets in TIME-WAIT).
//! - The retransmission timeout is at least a round trip plus 200 ms, as in Linux (RFC 6298 has 1 s).
//! - TCP Fast Open is not supported. Urgent data is read in line only (RFC 6093), and a read that begins
//!   before the mark ends there.
//! - Timestamps (RFC 7323) are offered only on interfaces with checksums, that is, towards other stacks.
//!   Without timestamps, only the window protects against wrapped sequence numbers.
//! - ECN is off unless a socket requests it ([`TcpOptions::ecn`]). It follows RFC 3168, without accurate ECN
//!   or L4S.
//! - A connection made from a SYN cookie has no window scale, SACK or timestamps, and takes its segment size
//!   from a table.
//! - A receiver keeps at most 16,384 separate out-of-order ranges. A sender splits sent data into at most
//!   32,768 runs and ignores SACK blocks that would make more.
//! - While memory is short ([`Config::tcp_memory`], [`Config::tcp_memory_per_peer`]), the stack accepts no
//!   out-of-order data. It resets a flow whose application does not read for [`Config::user_timeout`] (Linux
//!   keeps the flow). At the limit it withdraws an offered window, as Linux does, if arriving data has no
//!   room.
//! - The default congestion control differs from published BBR: see [`CongestionControl`].
//! - A node is a host: it forwards no packets and accepts no broadcasts. It drops packets with IPv4 source
//!   routes, with more than eight IPv6 extension headers, or with more than 64 options. Super-segments have
//!   no IP options.
//! - Overlapping fragments cost the whole packet, in IPv4 too; a packet has at most 256 fragments. Memory for
//!   waiting fragments is bounded in total and per peer ([`Config::reassembly_memory`]). A packet over the
//!   path MTU is fragmented unless its socket forbids it; a packet with IP options is never fragmented.
//! - A connected UDP socket also gets errors about unreachable hosts and networks, which Linux reports only
//!   with IP_RECVERR.
//! - An ICMP error is accepted only from the destination of the quoted packet or from this node, because no
//!   other node has seen the packet. The quoted packet must match the addresses and ports of a socket and,
//!   for TCP, an outstanding sequence number (RFC 5927), even for "packet too big".
//! - A socket receives only datagrams for groups that it has joined itself. The stack speaks neither IGMP nor
//!   MLD; the driver may announce memberships ([`Batch::memberships`]). The peersock node need not, because
//!   it sends group datagrams to every member of the network that it knows.
//! - Raw sockets see large TCP packets as joined by a [`Coalescer`]. A header supplied with a packet must
//!   have one of the node's addresses as its source.
//! - Source address selection omits RFC 6724's rules about deprecated, home and temporary addresses, because
//!   the stack has no such addresses. IPv4 networks that do not contain the destination rank equally.
//! - After a reset, data that arrived before it can still be read (Linux may drop it).

mod group;
mod host;
mod icmp;
mod ip;
mod socket;
mod tcp;
#[cfg(test)]
mod testing;

use peersock_primitives::sync;

pub use group::membership::MembershipChange;
pub use group::report::{membership_report, read_membership_report};
pub use group::source_filter::{GroupChange, SourceChange, SourceFilter};
pub use host::batch::{Batch, Reply};
pub use host::beside::Claim;
pub use host::config::{
    Cidr, Config, InterfaceConfig, InterfaceId, KeepAlive, ParseCidrError, TcpOptions, UdpOptions,
};
pub use host::counters::Counters;
pub use host::error::Error;
pub use host::owners::Owners;
pub use host::stack::Stack;
pub use icmp::{EchoReply, EchoRequest, IcmpSocket, Undelivered, tcp_reset};
pub use ip::extension_headers::{ExtensionHeaders, HeaderParts};
pub use ip::fragments::Fragments;
pub use ip::offload::{PartialChecksum, fill_checksums, prepare_checksum};
pub use ip::packet_ends::{PacketEnds, PacketPart, packet_ends};
pub use ip::port_rules::may_pass;
pub use ip::received_headers::ReceivedHeaders;
pub use ip::traffic_class::{Ecn, TrafficClass};
pub use ip::{MAX_DATAGRAM, MAX_PACKET};
pub use socket::error_queue::{ErrorOrigin, ErrorReport};
pub use socket::flow::{Delivery, Departure, Egress, Flow, Loss, PIECES, TcpInfo};
pub use socket::ip_options::{Fragmentation, IpOptions, SendOptions};
pub use socket::listener::Listener;
pub use socket::raw::{IcmpFilter, RawOptions, RawRoute, RawSocket};
pub use socket::ready::{Ready, State};
pub use socket::scope::{Scope, Visible};
pub use socket::udp::{Received, UdpRoute, UdpSocket};
pub use tcp::congestion::{CongestionControl, UnknownCongestionControl};
pub use tcp::gro::{Coalescer, Flushed, Joined};
pub use tcp::gso::SuperSegment;
