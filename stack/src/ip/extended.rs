//! Packets whose upper layer does not directly follow a plain IP header: IPv4 options, IPv6 extension
//! headers, fragments.

use std::net::IpAddr;
use std::sync::Arc;

use smoltcp::wire::IpProtocol;

use crate::host::clock::Time;
use crate::host::interface::Interface;
use crate::host::stack::Shared;
use crate::icmp::{Problem, report};
use crate::ip::IpHeader;
use crate::ip::extensions::{self, Chain, Refusal};
use crate::ip::options::{self, OptionError};
use crate::ip::reassembly::{Outcome, Piece};
use crate::{Batch, Stack};

impl Stack {
    /// Processes a packet for this node that is not [plain](IpHeader::plain).
    pub(crate) fn receive_extended(
        &self,
        time: Time,
        interface: &Arc<Interface>,
        packet: &mut [u8],
        ip: &IpHeader,
        batch: &mut Batch,
    ) {
        match ip.source {
            IpAddr::V4(_) => self.receive_options(time, interface, packet, ip, batch),
            IpAddr::V6(_) => self.receive_chain(time, interface, packet, ip, batch),
        }
    }

    fn receive_options(
        &self,
        time: Time,
        interface: &Arc<Interface>,
        packet: &mut [u8],
        ip: &IpHeader,
        batch: &mut Batch,
    ) {
        if let Err(error) = options::check(&packet[..ip.header_len]) {
            if let OptionError::Malformed(pointer) = error {
                let problem = Problem::Parameter { code: 0, pointer, to_groups: false };
                report(&self.shared, time, interface, packet, problem, batch);
            }
            return self.shared.counters.ip_options_refused.increment();
        }
        let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
        match fragment {
            true => self.receive_fragment(time, interface, Piece::v4(interface.id, packet), batch),
            false => self.deliver(time, interface, packet, (ip, 9), batch),
        }
    }

    fn receive_chain(
        &self,
        time: Time,
        interface: &Arc<Interface>,
        packet: &mut [u8],
        ip: &IpHeader,
        batch: &mut Batch,
    ) {
        match extensions::walk(packet) {
            // The TCP code expects plain IP headers, so extension headers are removed.
            Chain::Upper { protocol: IpProtocol::Tcp, at, .. } => {
                let (packet, ip) = without_extensions(packet, ip, at);
                self.deliver(time, interface, packet, (&ip, 6), batch);
            }
            Chain::Upper { protocol, at, named_at } => {
                let ip = IpHeader { protocol, header_len: at, ..*ip };
                self.deliver(time, interface, packet, (&ip, named_at), batch);
            }
            Chain::Fragment(fragment) => {
                let addresses = (ip.source, ip.destination);
                let piece = Piece::v6(interface.id, addresses, packet, &fragment);
                self.receive_fragment(time, interface, piece, batch);
            }
            Chain::Refused(refusal) => {
                self.shared.counters.ip_extension_headers.increment();
                if let Refusal::Report { code, pointer, to_groups } = refusal {
                    let problem = Problem::Parameter { code, pointer, to_groups };
                    report(&self.shared, time, interface, packet, problem, batch);
                }
            }
        }
    }

    fn receive_fragment(
        &self,
        time: Time,
        interface: &Arc<Interface>,
        piece: Option<Piece<'_>>,
        batch: &mut Batch,
    ) {
        let Shared { counters, reassembly, .. } = &*self.shared;
        // Expired first, so that late fragments do not complete a packet that was given up.
        self.expire_fragments(time, batch);
        counters.ip_fragments.increment();
        counters.ip_bytes_reassembled.add(piece.as_ref().map_or(0, Piece::len) as u64);
        let piece = piece.map(|piece| piece.owned(|interface, source| self.shared.owner(interface, source)));
        let (outcome, evicted) = piece.map_or((Outcome::Refused, 0), |piece| reassembly.insert(time, &piece));
        counters.ip_reassembly_evictions.add(evicted);
        match outcome {
            Outcome::Waiting => {}
            Outcome::Refused => counters.ip_fragments_refused.increment(),
            Outcome::Complete(mut packet) => {
                counters.ip_reassembled.increment();
                counters.ip_bytes_reassembled.add(packet.len() as u64);
                self.receive_reassembled(time, interface, &mut packet, batch);
            }
        }
    }

    /// Processes a reassembled packet. Checks of its fragments are not repeated.
    fn receive_reassembled(
        &self,
        time: Time,
        interface: &Arc<Interface>,
        packet: &mut [u8],
        batch: &mut Batch,
    ) {
        let Ok(ip) = IpHeader::parse(packet, false) else { return };
        match ip.source {
            IpAddr::V4(_) => self.deliver(time, interface, packet, (&ip, 9), batch),
            // Reassembled packets with another fragment header come from attackers only.
            IpAddr::V6(_) if matches!(extensions::walk(packet), Chain::Fragment(_)) => {
                self.shared.counters.ip_fragments_refused.increment();
            }
            IpAddr::V6(_) => self.receive_chain(time, interface, packet, &ip, batch),
        }
    }

    /// Drops packets whose fragments have not come in time, and reports that to their senders.
    pub(crate) fn expire_fragments(&self, time: Time, batch: &mut Batch) {
        let Shared { counters, reassembly, interfaces, .. } = &*self.shared;
        for expired in reassembly.expire(time, EXPIRED_PER_CALL) {
            counters.ip_reassembly_timeouts.increment();
            // RFC 792, RFC 4443 3.3: only if the first fragment came.
            if let (Some(first), Some(interface)) = (expired.first, interfaces.find(expired.interface)) {
                report(&self.shared, time, &interface, &first, Problem::ReassemblyTimeout, batch);
            }
        }
    }
}

/// Maximum number of packets that one call drops; the next call continues.
const EXPIRED_PER_CALL: usize = 64;

/// Removes the extension headers, which end at `at`, from a TCP packet: the IPv6 header moves up to the upper
/// layer's.
fn without_extensions<'a>(packet: &'a mut [u8], ip: &IpHeader, at: usize) -> (&'a mut [u8], IpHeader) {
    let start = at - 40;
    packet.copy_within(..40, start);
    let packet = &mut packet[start..];
    let total_len = packet.len();
    packet[4..6].copy_from_slice(&((total_len - 40) as u16).to_be_bytes());
    packet[6] = IpProtocol::Tcp.into();
    (packet, IpHeader { protocol: IpProtocol::Tcp, header_len: 40, total_len, plain: true, ..*ip })
}
