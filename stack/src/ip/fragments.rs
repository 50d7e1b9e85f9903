//! Cuts one large IP packet into fragments, in place (RFC 791 3.2, RFC 8200 4.5).

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use smoltcp::wire::{IpProtocol, Ipv4Packet};

use crate::ip::IpHeader;
use crate::ip::extensions::{self, FRAGMENT_HEADER};
use crate::{Error, InterfaceId, Stack};
use peersock_primitives::Key;

/// IPv6's header with a fragment header, the longest that a fragment without other extension headers starts
/// with.
const MAX_HEADER: usize = 40 + FRAGMENT_HEADER;

/// An IP packet that is to leave in pieces of at most the path's MTU, or whole if it fits.
///
/// [`next`](Self::next) writes each header over the tail of the piece before, which must have been taken
/// (sealed, sent or copied) by then. Made by [`Stack::fragments`].
///
/// ```
/// use std::time::Instant;
/// use peersock_stack::{Config, InterfaceConfig, MAX_DATAGRAM, Stack, UdpOptions};
///
/// let stack = Stack::new(Config::default(), [7; 32], Instant::now());
/// let net = stack.add_interface(InterfaceConfig::new("net", ["fd00::1/8".parse()?]));
/// let socket = stack.udp_bind(Some(net), "[fd00::1]:0".parse()?, UdpOptions::default())?;
/// let route = socket.route(Some("[fd00::2]:53".parse()?))?;
/// let mut buf = vec![0; MAX_DATAGRAM];
/// let len = socket.send(Instant::now(), &route, &[1; 3000], 1280, &mut buf)?;
/// let mut fragments = stack.fragments(net, &buf[..len], 1280)?;
/// let mut sizes = Vec::new();
/// while let Some(packet) = fragments.next(&mut buf) {
///     sizes.push(packet.len());
/// }
/// assert_eq!(sizes, [1280, 1280, 592]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Fragments {
    /// Bytes of the whole packet.
    len: usize,
    progress: Progress,
}

#[derive(Debug, Clone)]
enum Progress {
    Whole,
    Cut(Cut),
    Done,
}

#[derive(Debug, Clone)]
struct Cut {
    /// What every fragment starts with, less `between`.
    header: [u8; MAX_HEADER],
    /// Extension headers that every fragment has between the IPv6 header and the fragment header. Empty,
    /// without an allocation, for nearly all.
    between: Box<[u8]>,
    header_len: usize,
    /// Bytes of the headers of the whole packet that every fragment has.
    ip_len: usize,
    /// Data bytes of every fragment but the last, a multiple of eight.
    data: usize,
    /// Data bytes of the fragments before.
    offset: usize,
    /// What the first fragment's data, moved behind the fragment header, has covered of the second's.
    covered: [u8; FRAGMENT_HEADER],
    checksums: bool,
}

impl Fragments {
    /// The next packet, contiguous in `buf`, at whose front the whole one was.
    ///
    /// # Panics
    /// If `buf` is shorter than the packet.
    pub fn next<'a>(&mut self, buf: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let packet = match &mut self.progress {
            Progress::Done => return None,
            Progress::Whole => 0..self.len,
            Progress::Cut(cut) => {
                let packet = cut.next(&mut buf[..self.len]);
                if cut.ip_len + cut.offset < self.len {
                    return Some(&mut buf[packet]);
                }
                packet
            }
        };
        self.progress = Progress::Done;
        Some(&mut buf[packet])
    }

    /// How many packets there are in all.
    pub fn packets(&self) -> usize {
        match &self.progress {
            Progress::Cut(cut) => (self.len - cut.ip_len).div_ceil(cut.data),
            Progress::Whole | Progress::Done => 1,
        }
    }

    fn cut(packet: &[u8], ip: &IpHeader, mtu: usize, ident: u32, checksums: bool) -> Result<Self, Error> {
        let fixed = if ip.source.is_ipv4() { 20 } else { 40 };
        let mut header = [0; MAX_HEADER];
        header[..fixed].copy_from_slice(&packet[..fixed]);
        let mut between: Box<[u8]> = Box::default();
        let (ip_len, header_len) = if ip.source.is_ipv4() {
            let forbidden = packet[6] & 0x40 != 0;
            if forbidden || ip.header_len > fixed {
                return Err(Error::MessageSize);
            }
            header[4..6].copy_from_slice(&(ident as u16).to_be_bytes());
            (fixed, fixed)
        } else {
            let (end, named_at) = extensions::unfragmentable(packet);
            header[40] = packet[named_at];
            header[44..].copy_from_slice(&ident.to_be_bytes());
            if named_at < fixed {
                header[named_at] = IpProtocol::Ipv6Frag.into();
            } else {
                between = packet[fixed..end].into();
                between[named_at - fixed] = IpProtocol::Ipv6Frag.into();
            }
            (end, end + FRAGMENT_HEADER)
        };
        let data = mtu.saturating_sub(header_len) & !7;
        if data == 0 {
            return Err(Error::MessageSize);
        }
        let cut = Cut { header, between, header_len, ip_len, data, offset: 0, covered: [0; 8], checksums };
        Ok(Self { len: packet.len(), progress: Progress::Cut(cut) })
    }
}

impl Cut {
    /// Makes the next fragment in the buffer that the whole packet fills; gives its place.
    fn next(&mut self, buf: &mut [u8]) -> std::ops::Range<usize> {
        let left = buf.len() - self.ip_len - self.offset;
        let data = left.min(self.data);
        let data_at = self.ip_len + self.offset;
        let grown = self.header_len - self.ip_len;
        let start = if grown > 0 && self.offset == 0 {
            // The second fragment lends the room. It has as much, since the whole packet was over the MTU.
            self.covered.copy_from_slice(&buf[data_at + data..][..grown]);
            buf.copy_within(data_at..data_at + data, data_at + grown);
            0
        } else {
            if grown > 0 && self.offset == self.data {
                buf[data_at..data_at + grown].copy_from_slice(&self.covered);
            }
            data_at - self.header_len
        };
        let packet = start..start + self.header_len + data;
        let more = left > data;
        self.write_header(&mut buf[packet.clone()], more);
        self.offset += data;
        packet
    }

    fn write_header(&self, packet: &mut [u8], more: bool) {
        let total = packet.len();
        if self.ip_len == 20 {
            packet[..20].copy_from_slice(&self.header[..20]);
            let mut view = Ipv4Packet::new_unchecked(packet);
            view.set_total_len(total as u16);
            view.set_more_frags(more);
            view.set_frag_offset(self.offset as u16);
            if self.checksums {
                view.fill_checksum();
            }
        } else {
            let (fixed, fragment) = self.header.split_at(40);
            packet[..40].copy_from_slice(fixed);
            packet[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
            packet[40..self.ip_len].copy_from_slice(&self.between);
            let header = &mut packet[self.ip_len..self.header_len];
            header.copy_from_slice(fragment);
            header[2..4].copy_from_slice(&(self.offset as u16 | u16::from(more)).to_be_bytes());
        }
    }
}

impl Stack {
    /// Describes how the IP packet at the front of a buffer is to be cut for a path that takes packets of
    /// `mtu` bytes; a smaller [path MTU](Self::path_mtu) that was reported counts. For every packet that is
    /// not a flow's, whether a socket wrote it or it is one of the batch's [replies](crate::Batch::replies).
    /// A packet that fits comes out as it is.
    ///
    /// # Errors
    /// [`Error::MessageSize`] if the packet does not fit and must not be cut: IPv4's don't-fragment flag or
    /// IP options forbid it, or the MTU is under 56 bytes and the extension headers that every fragment has.
    /// [`Error::InvalidInput`] if it is no IP packet.
    pub fn fragments(&self, interface: InterfaceId, packet: &[u8], mtu: usize) -> Result<Fragments, Error> {
        if packet.len() <= mtu && !self.shared.path_mtus.any() {
            return Ok(Fragments { len: packet.len(), progress: Progress::Whole });
        }
        let ip = IpHeader::parse(packet, false).map_err(|_| Error::InvalidInput)?;
        let packet = &packet[..ip.total_len];
        // What must not be cut was judged when it was made.
        let forbidden = ip.source.is_ipv4() && packet[6] & 0x40 != 0;
        let reported = self.path_mtu(interface, ip.destination).filter(|_| !forbidden);
        let mtu = reported.map_or(mtu, |reported| reported.min(mtu));
        if packet.len() <= mtu {
            return Ok(Fragments { len: packet.len(), progress: Progress::Whole });
        }
        let checksums = self.shared.interfaces.find(interface).is_some_and(|one| one.checksums);
        let ident = self.shared.idents.next(&ip);
        let fragments = Fragments::cut(packet, &ip, mtu, ident, checksums)?;
        self.shared.counters.ip_fragments_sent.add(fragments.packets() as u64);
        Ok(fragments)
    }
}

/// How many counters there are.
const COUNTERS: usize = 256;

/// RFC 7739 5.3, as for ports: the identifications of one destination count up, from where nobody can guess,
/// and tell little of those of others.
pub(crate) struct Identifications {
    offsets: Key,
    indexes: Key,
    counters: [AtomicU32; COUNTERS],
}

impl Identifications {
    pub(crate) fn new(seed: &[u8; 32]) -> Self {
        Self {
            offsets: Key::new(seed, "identification offset"),
            indexes: Key::new(seed, "identification index"),
            counters: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// The identification of the next packet with these addresses.
    pub(crate) fn next(&self, ip: &IpHeader) -> u32 {
        let pair: (IpAddr, IpAddr) = (ip.source, ip.destination);
        let offset = self.offsets.digest(pair) as u32;
        let counter = &self.counters[self.indexes.digest(pair) as usize % COUNTERS];
        offset.wrapping_add(counter.fetch_add(1, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Config;
    use crate::host::clock::Time;
    use crate::ip::extensions::{Chain, walk};
    use crate::ip::reassembly::{Outcome, Piece, Reassembly};
    use crate::ip::{Fields, write_fields};

    const NET: InterfaceId = InterfaceId(1);

    fn packet(ipv6: bool, len: usize) -> Vec<u8> {
        let addresses = if ipv6 { ["fd00::1", "fd00::2"] } else { ["10.0.0.1", "10.0.0.2"] };
        let [source, destination] = addresses.map(|address| address.parse().unwrap());
        let fields =
            Fields { protocol: IpProtocol::Udp, hop_limit: 9, traffic_class: 0x42, may_fragment: true };
        let mut packet = vec![0; 40 + len];
        let at = write_fields(&mut packet, (source, destination), &fields, len, true).unwrap();
        packet.truncate(at + len);
        packet[at..].iter_mut().enumerate().for_each(|(at, byte)| *byte = (at ^ at >> 8) as u8);
        packet
    }

    proptest! {
        #[test]
        fn fragments_fit_and_make_the_packet_again(ipv6: bool, len in 30usize..4000, mtu in 80usize..1500) {
            let whole = packet(ipv6, len);
            prop_assume!(whole.len() > mtu);
            let ip = IpHeader::parse(&whole, true).unwrap();
            let mut fragments = Fragments::cut(&whole, &ip, mtu, 0x1234_5678, true).unwrap();
            let reassembly = Reassembly::new(&Config::default());
            let mut buf = whole.clone();
            let (announced, mut count) = (fragments.packets(), 0);
            let mut result = None;
            while let Some(fragment) = fragments.next(&mut buf) {
                count += 1;
                prop_assert!(result.is_none() && fragment.len() <= mtu);
                let ip = IpHeader::parse(fragment, true).unwrap();
                prop_assert_eq!(ip.total_len, fragment.len());
                let piece = match walk_if(ipv6, fragment) {
                    Some(Chain::Fragment(header)) => {
                        Piece::v6(NET, (ip.source, ip.destination), fragment, &header)
                    }
                    _ => Piece::v4(NET, fragment),
                };
                if let (Outcome::Complete(packet), _) = reassembly.insert(Time::from_secs(1), &piece.unwrap()) {
                    result = Some(packet);
                }
            }
            prop_assert_eq!(count, announced);
            let mut result = result.unwrap();
            if !ipv6 {
                result[4..6].fill(0);
                Ipv4Packet::new_unchecked(&mut result[..]).fill_checksum();
            }
            prop_assert_eq!(result, whole);
        }
    }

    fn walk_if(ipv6: bool, packet: &[u8]) -> Option<Chain> {
        ipv6.then(|| walk(packet))
    }

    #[test]
    fn identifications_count_up_for_each_destination() {
        let idents = Identifications::new(&[1; 32]);
        let [a, b] = ["fd00::2", "fd00::3"].map(|to| {
            let mut packet = packet(true, 8);
            packet[24..40].copy_from_slice(&to.parse::<std::net::Ipv6Addr>().unwrap().octets());
            IpHeader::parse(&packet, false).unwrap()
        });
        let first = idents.next(&a);
        assert_ne!(idents.next(&b).abs_diff(first), 1);
        assert_eq!(idents.next(&a), first.wrapping_add(1));
    }
}
