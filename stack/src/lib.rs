#![forbid(unsafe_code)]
//! The TCP/IP stack of peersock: IP packets in, IP packets out, time as an argument.
//!
//! It does no I/O, reads no clock, spawns nothing and knows nothing of peers or keys; which addresses belong
//! to one peer it may be told ([`Owners`]). Given the same seed and the same calls at the same times, it does
//! the same.
//!
//! # Driving it
//!
//! One round of a driver:
//!
//! 1. Give each arriving packet to [`Stack::receive`], joined by a [`Coalescer`] if there are many. All of
//!    the round's packets share one [`Batch`].
//! 2. If [`Stack::poll_timeout`] has passed, call [`Stack::handle_timeout`] with the same batch.
//! 3. For each of the batch's [`flows`](Batch::flows), call [`Flow::egress`] until it returns `None`, cut
//!    what it emits with [`SuperSegment::next`], and send that. Send the [`replies`](Batch::replies), cut by
//!    [`Stack::fragments`] as every packet that is not a flow's. Look at the [`readiness`](Flow::readiness)
//!    of everything listed and wake whoever waits for it.
//! 4. Ask [`Stack::poll_timeout`] when to come back.
//!
//! An application's call ([`Flow::write`], [`Flow::read`], [`Flow::close`] …) is followed by `egress` until
//! `None` too: data, acknowledgements and window updates leave only there. Packets to an own address are
//! given back to `receive` by the driver.
//!
//! Everything can be called by any thread at any time. Each flow has one lock, held while bytes are copied to
//! or from its queues; sealing, sending and waiting happen outside. A packet costs a hash look-up and its
//! flow's lock, whatever the number of flows.
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
//! A network may allow only some ports ([`InterfaceConfig::ports`]). Checked is the *service's* port, on both
//! sides: of TCP the one that a connection is opened to, when connecting, when listening and when a SYN
//! arrives. The other end's port is ephemeral and may be any. Of UDP a datagram may be sent if either port is
//! allowed. One that arrives for a port that is not is taken only if it comes from an allowed one and the
//! socket is connected to its sender, or has sent to him, or to a group at his port: he may answer until he
//! was silent for five minutes. The last 2,048 that a socket has sent to are remembered, perhaps twice as
//! many.
//!
//! # Deviations and limits
//!
//! - TIME-WAIT lasts 10 s unless configured otherwise (RFC 9293 has four minutes, Linux 60 s;
//!   [`Config::time_wait`]), and gives way earlier to a new connection that cannot be confused with the old
//!   one, by its timestamp or its number. Another SYN is challenged; the reset that answers the challenge
//!   ends TIME-WAIT (RFC 1337 ignores all resets there).
//! - The retransmission timeout is 200 ms above a round trip at least, as in Linux (RFC 6298 has 1 s).
//! - No TCP Fast Open. Urgent data is read in line only (RFC 6093), and a read that begins before the mark
//!   ends there.
//! - Timestamps (RFC 7323) are offered only on interfaces with checksums, which means towards other stacks.
//!   Without them nothing but the window protects against wrapped sequence numbers.
//! - ECN is off unless a socket asks for it ([`TcpOptions::ecn`]), and then as in RFC 3168: no accurate ECN,
//!   no L4S.
//! - A connection made from a SYN cookie has no window scale, SACK or timestamps, and a segment size out of a
//!   table.
//! - A receiver keeps at most 4096 separate ranges out of order, and a sender splits what it has sent into
//!   16,384 runs at most: SACK blocks that would make more are not noted.
//! - While memory is short ([`Config::tcp_memory`], [`Config::tcp_memory_per_peer`]) nothing is taken in out
//!   of order, and a flow whose application does not read for [`Config::user_timeout`] is reset (Linux keeps
//!   it). At the limit a window that was offered is taken back, as in Linux, if what comes has no room.
//! - The default congestion control is not BBR as published: see [`CongestionControl`].
//! - A node is a host: it forwards nothing, and takes no broadcasts. Packets with IPv4 source routes are
//!   dropped, and so are those with more than eight IPv6 extension headers or 64 options. Super-segments have
//!   no IP options.
//! - Fragments that overlap cost the whole packet, in IPv4 too; a packet has at most 256. What waits for
//!   fragments is bounded in total and for each peer ([`Config::reassembly_memory`]). A packet over the
//!   path's MTU is cut unless its socket forbids it; one with IP options is not.
//! - A connected UDP socket hears of unreachable hosts and networks too, which Linux keeps for those who ask
//!   for IP_RECVERR.
//! - ICMP errors count only from the destination of the packet that they quote, or from this node: nobody
//!   else has seen it. The packet must have the addresses and ports of a socket and, of TCP, a sequence
//!   number that is under way (RFC 5927), also to say that it was too big.
//! - A socket receives what is sent to the groups that it has joined itself. No IGMP or MLD is spoken: the
//!   driver may make memberships known ([`Batch::memberships`]). The node need not, for it sends what goes to
//!   a group to every member of the network that it knows.
//! - Raw sockets see large TCP packets as a [`Coalescer`] has joined them. A header that comes with the
//!   packet must have an own address as its source.
//! - Source addresses are chosen without RFC 6724's rules about deprecated, home and temporary addresses,
//!   which there are none of. IPv4 networks that do not hold the destination all suit it equally.
//! - After a reset, data that had arrived before can still be read (Linux may drop it).

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
pub use host::config::{
    Cidr, Config, InterfaceConfig, InterfaceId, KeepAlive, ParseCidrError, TcpOptions, UdpOptions,
};
pub use host::counters::Counters;
pub use host::error::Error;
pub use host::owners::Owners;
pub use host::stack::Stack;
pub use icmp::{EchoReply, EchoRequest, IcmpSocket, Undelivered};
pub use ip::extension_headers::{ExtensionHeaders, HeaderParts};
pub use ip::fragments::Fragments;
pub use ip::offload::{PartialChecksum, fill_checksums, prepare_checksum};
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
pub use socket::udp::{Received, UdpRoute, UdpSocket};
pub use tcp::congestion::{CongestionControl, UnknownCongestionControl};
pub use tcp::gro::{Coalescer, Flushed, Joined};
pub use tcp::gso::SuperSegment;
