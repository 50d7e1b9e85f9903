//! In-place fragmentation of one large IP packet (RFC 791 3.2, RFC 8200 4.5).

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use smoltcp::wire::{IpProtocol, Ipv4Packet};

use crate::ip::extensions::{self, FRAGMENT_HEADER};
use crate::ip::{IpHeader, options};
use crate::{Error, InterfaceId, Stack};
use peersock_primitives::Key;

/// Length of the longest IPv4 header. IPv6's with a fragment header, without other extension headers, is
/// shorter.
const MAX_HEADER: usize = 60;

/// Lengths of the IPv4 header without options, and of the IPv6 header, bytes (RFC 791 3.1, RFC 8200 3).
const IPV4: usize = 20;
const IPV6: usize = 40;

/// Bit of an IPv4 option's type that copies the option into every fragment (RFC 791 3.1).
const COPIED: u8 = 0x80;

/// An IP packet to be sent in pieces of at most the path MTU, or whole if it fits.
///
/// A packet that is already a fragment is split into smaller fragments of the same packet. They keep its
/// identification, their offsets count from its own, and the last keeps its more-fragments bit (RFC 791 3.2).
/// So one reassembly undoes both. RFC 8200 4.5 permits only sources to fragment IPv6 packets. The packets
/// either come from this node, or pass through it over a link with an MTU below IPv6's 1280 bytes, which must
/// fragment them (section 5).
///
/// [`next`](Self::next) writes each header over the tail of the piece before. The caller must have consumed
/// (sealed, sent or copied) that piece by then. Made by [`Stack::fragments`].
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
    is_ipv4: bool,
    /// Header of the next fragment, without `between`.
    header: [u8; MAX_HEADER],
    /// Extension headers of every fragment between the IPv6 header and the fragment header. For nearly all
    /// packets it is empty, without an allocation.
    between: Box<[u8]>,
    /// Bytes of the next fragment's headers, including `between` and the fragment header.
    header_len: usize,
    /// Bytes of the headers before the whole packet's data.
    data_at: usize,
    /// Data bytes of every fragment but the last, a multiple of eight.
    data: usize,
    /// Data bytes of the fragments before.
    offset: usize,
    /// Offset of the whole packet, which may itself be a fragment.
    base: usize,
    /// True if more fragments follow the whole packet.
    more: bool,
    /// Bytes of the second fragment's data that the first fragment's data covers, because it moved behind the
    /// fragment header.
    covered: [u8; FRAGMENT_HEADER],
    checksums: bool,
}

impl Fragments {
    /// Returns the next packet, contiguous in `buf`, at whose front the whole packet was.
    ///
    /// # Panics
    /// If `buf` is shorter than the packet.
    pub fn next<'a>(&mut self, buf: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let packet = match &mut self.progress {
            Progress::Done => return None,
            Progress::Whole => 0..self.len,
            Progress::Cut(cut) => {
                let packet = cut.next(&mut buf[..self.len]);
                if cut.data_at + cut.offset < self.len {
                    return Some(&mut buf[packet]);
                }
                packet
            }
        };
        self.progress = Progress::Done;
        Some(&mut buf[packet])
    }

    /// Returns the total number of packets.
    pub fn packets(&self) -> usize {
        match &self.progress {
            Progress::Cut(cut) => (self.len - cut.data_at).div_ceil(cut.data),
            Progress::Whole | Progress::Done => 1,
        }
    }

    /// Prepares the fragments; `ident` returns the identification for a packet without one.
    fn cut(
        packet: &[u8],
        ip: &IpHeader,
        mtu: usize,
        ident: impl FnOnce() -> u32,
        checksums: bool,
    ) -> Result<Self, Error> {
        let mut cut = if ip.source.is_ipv4() {
            Cut::v4(packet, ip.header_len, ident)?
        } else {
            Cut::v6(packet, ident)?
        };
        cut.checksums = checksums;
        // Offsets count in units of eight bytes (RFC 791 3.2).
        cut.data = mtu.saturating_sub(cut.header_len) & !7;
        if cut.data == 0 {
            return Err(Error::MessageSize);
        }
        // Offsets end at 65,535, so no genuine packet has such a fragment.
        if cut.base + packet.len() - cut.data_at > usize::from(u16::MAX) {
            return Err(Error::InvalidInput);
        }
        Ok(Self { len: packet.len(), progress: Progress::Cut(cut) })
    }
}

impl Cut {
    fn v4(packet: &[u8], header_len: usize, ident: impl FnOnce() -> u32) -> Result<Self, Error> {
        let view = Ipv4Packet::new_unchecked(packet);
        // RFC 791 2.3: the sender wants an error and no fragments.
        if view.dont_frag() {
            return Err(Error::MessageSize);
        }
        let mut header = [0; MAX_HEADER];
        header[..header_len].copy_from_slice(&packet[..header_len]);
        let (base, more) = (usize::from(view.frag_offset()), view.more_frags());
        // The stack's sockets leave the identification at zero. An identification set by another host must
        // stay, because the packet's other fragments have it.
        if view.ident() == 0 && base == 0 && !more {
            header[4..6].copy_from_slice(&(ident() as u16).to_be_bytes());
        }
        Ok(Self { is_ipv4: true, header, base, more, ..Self::empty(header_len, header_len) })
    }

    fn v6(packet: &[u8], ident: impl FnOnce() -> u32) -> Result<Self, Error> {
        let mut header = [0; MAX_HEADER];
        header[..IPV6].copy_from_slice(&packet[..IPV6]);
        // A second fragment header in front of the first is refused by kernels.
        if let Some(at) = extensions::fragment_header(packet) {
            let fragment = packet.get(at..at + FRAGMENT_HEADER).ok_or(Error::InvalidInput)?;
            header[IPV6..][..FRAGMENT_HEADER].copy_from_slice(fragment);
            let field = u16::from_be_bytes([fragment[2], fragment[3]]);
            let (base, more) = (usize::from(field & !7), field & 1 == 1);
            let (between, len) = (packet[IPV6..at].into(), at + FRAGMENT_HEADER);
            return Ok(Self { header, between, base, more, ..Self::empty(len, len) });
        }
        let (end, named_at) = extensions::unfragmentable(packet);
        header[IPV6] = packet[named_at];
        header[IPV6 + 4..][..4].copy_from_slice(&ident().to_be_bytes());
        let mut between: Box<[u8]> = packet[IPV6..end].into();
        let name = if named_at < IPV6 { &mut header[named_at] } else { &mut between[named_at - IPV6] };
        // The last header of the unfragmentable part names the fragment header, which names what that header
        // named.
        *name = IpProtocol::Ipv6Frag.into();
        Ok(Self { header, between, ..Self::empty(end + FRAGMENT_HEADER, end) })
    }

    fn empty(header_len: usize, data_at: usize) -> Self {
        Self {
            is_ipv4: false,
            header: [0; MAX_HEADER],
            between: Box::default(),
            header_len,
            data_at,
            data: 0,
            offset: 0,
            base: 0,
            more: false,
            covered: [0; FRAGMENT_HEADER],
            checksums: false,
        }
    }

    /// Writes the next fragment into the buffer of the whole packet; returns its place.
    fn next(&mut self, buf: &mut [u8]) -> std::ops::Range<usize> {
        let left = buf.len() - self.data_at - self.offset;
        let data = left.min(self.data);
        let data_at = self.data_at + self.offset;
        let grown = self.header_len.saturating_sub(self.data_at);
        let start = if grown > 0 && self.offset == 0 {
            // The first fragment borrows room from the second, which is long enough, because the whole packet
            // was over the MTU.
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
        let more = self.more || left > data;
        self.write_header(&mut buf[packet.clone()], more);
        if self.is_ipv4 && self.offset == 0 {
            // RFC 791 3.1: only options with the copied flag are in all fragments.
            self.keep_copied_options();
        }
        self.offset += data;
        packet
    }

    fn write_header(&self, packet: &mut [u8], more: bool) {
        let total = packet.len();
        let offset = (self.base + self.offset) as u16;
        if self.is_ipv4 {
            packet[..self.header_len].copy_from_slice(&self.header[..self.header_len]);
            let mut view = Ipv4Packet::new_unchecked(packet);
            view.set_total_len(total as u16);
            view.set_more_frags(more);
            view.set_frag_offset(offset);
            if self.checksums {
                view.fill_checksum();
            }
        } else {
            let fragment_at = IPV6 + self.between.len();
            packet[..IPV6].copy_from_slice(&self.header[..IPV6]);
            packet[4..6].copy_from_slice(&((total - IPV6) as u16).to_be_bytes());
            packet[IPV6..fragment_at].copy_from_slice(&self.between);
            let header = &mut packet[fragment_at..self.header_len];
            header.copy_from_slice(&self.header[IPV6..][..FRAGMENT_HEADER]);
            header[2..4].copy_from_slice(&(offset | u16::from(more)).to_be_bytes());
        }
    }

    /// Removes the options that belong into the first fragment only (RFC 791 3.1).
    fn keep_copied_options(&mut self) {
        let (whole, whole_len) = (self.header, self.header_len);
        let mut len = IPV4;
        for option in options::each(&whole[..whole_len]).filter(|option| option[0] & COPIED != 0) {
            self.header[len..len + option.len()].copy_from_slice(option);
            len += option.len();
        }
        self.header_len = len.next_multiple_of(4);
        // Padding by the end of the options list.
        self.header[len..self.header_len].fill(0);
        self.header[0] = 0x40 | (self.header_len / 4) as u8;
    }
}

impl Stack {
    /// Prepares the fragmentation of the IP packet at the front of a buffer for a path with an MTU of `mtu`
    /// bytes. A smaller reported [path MTU](Self::path_mtu) takes precedence. Use it for every packet that is
    /// not a flow's: packets of sockets and the batch's [replies](crate::Batch::replies). A packet that fits
    /// comes out unchanged.
    ///
    /// # Errors
    /// [`Error::MessageSize`] if the packet does not fit and must not be fragmented: IPv4's don't-fragment
    /// flag is set, or the MTU has no room for its headers and eight bytes. [`Error::InvalidInput`] if it is
    /// no IP packet.
    pub fn fragments(&self, interface: InterfaceId, packet: &[u8], mtu: usize) -> Result<Fragments, Error> {
        if packet.len() <= mtu && !self.shared.path_mtus.any() {
            return Ok(Fragments { len: packet.len(), progress: Progress::Whole });
        }
        let ip = IpHeader::parse(packet, false).map_err(|_| Error::InvalidInput)?;
        let packet = &packet[..ip.total_len];
        // Packets that must not be fragmented were checked against the reported MTU when they were made.
        let forbidden = ip.source.is_ipv4() && packet[6] & 0x40 != 0;
        let reported = self.path_mtu(interface, ip.destination).filter(|_| !forbidden);
        let mtu = reported.map_or(mtu, |reported| reported.min(mtu));
        if packet.len() <= mtu {
            return Ok(Fragments { len: packet.len(), progress: Progress::Whole });
        }
        let checksums = self.shared.interfaces.find(interface).is_some_and(|one| one.checksums);
        let fragments = Fragments::cut(packet, &ip, mtu, || self.shared.idents.next(&ip), checksums)?;
        self.shared.counters.ip_fragments_sent.add(fragments.packets() as u64);
        Ok(fragments)
    }
}

/// Number of counters.
const COUNTERS: usize = 256;

/// Identifications by the double-hash algorithm, as for ports (RFC 7739 5.3). They count up per destination
/// from an unpredictable value, and reveal little about other destinations.
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

    /// Returns the identification of the next packet with these addresses.
    pub(crate) fn next(&self, ip: &IpHeader) -> u32 {
        let pair: (IpAddr, IpAddr) = (ip.source, ip.destination);
        let offset = self.offsets.digest(pair) as u32;
        // RFC 7739 5.3: one counter for all destinations would show each of them how much goes to the others.
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
            let mut fragments = Fragments::cut(&whole, &ip, mtu, || 0x1234_5678, true).unwrap();
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

    /// Returns the fragments of a packet, or the packet itself if it fits.
    fn split(packet: &[u8], mtu: usize, ident: u32) -> Vec<Vec<u8>> {
        if packet.len() <= mtu {
            return vec![packet.to_vec()];
        }
        let ip = IpHeader::parse(packet, true).unwrap();
        let mut fragments = Fragments::cut(packet, &ip, mtu, || ident, true).unwrap();
        let (announced, mut buf, mut pieces) = (fragments.packets(), packet.to_vec(), Vec::new());
        while let Some(piece) = fragments.next(&mut buf) {
            pieces.push(piece.to_vec());
        }
        assert_eq!(pieces.len(), announced);
        assert!(pieces.iter().all(|piece| piece.len() <= mtu));
        pieces
    }

    fn reassembled<'a>(ipv6: bool, pieces: impl IntoIterator<Item = &'a Vec<u8>>) -> Option<Vec<u8>> {
        let reassembly = Reassembly::new(&Config::default());
        let mut result = None;
        for piece in pieces {
            let ip = IpHeader::parse(piece, true).unwrap();
            assert_eq!((ip.total_len, result.is_none()), (piece.len(), true));
            let piece = match walk_if(ipv6, piece) {
                Some(Chain::Fragment(header)) => {
                    Piece::v6(NET, (ip.source, ip.destination), piece, &header).unwrap()
                }
                None => Piece::v4(NET, piece).unwrap(),
                other => panic!("{other:?}"),
            };
            if let (Outcome::Complete(packet), _) = reassembly.insert(Time::from_secs(1), &piece) {
                result = Some(packet);
            }
        }
        result
    }

    /// Returns an IPv4 packet with these options.
    fn with_options(options: &[u8], len: usize) -> Vec<u8> {
        let plain = packet(false, len);
        let mut packet = [&plain[..20], options, &plain[20..]].concat();
        packet[0] = 0x40 | (5 + options.len() / 4) as u8;
        let mut view = Ipv4Packet::new_unchecked(&mut packet[..]);
        view.set_total_len((plain.len() + options.len()) as u16);
        view.fill_checksum();
        packet
    }

    /// Returns an IPv6 packet with these extension headers, each given as its type and its length in eight
    /// bytes.
    fn with_extensions(headers: &[(u8, usize)], len: usize) -> Vec<u8> {
        let plain = packet(true, len);
        let (mut packet, mut named_at) = (plain[..40].to_vec(), 6);
        for (kind, eighths) in headers {
            packet[named_at] = *kind;
            named_at = packet.len();
            let filled = 8 * eighths - 4;
            // A routing header without segments left, or padding.
            let start = if *kind == 43 { [0, 0, 0, 0] } else { [0, 0, 1, filled as u8] };
            packet.extend([17, *eighths as u8 - 1, start[2], start[3]]);
            packet.resize(named_at + 8 * eighths, 0);
        }
        packet.extend_from_slice(&plain[40..]);
        let payload = packet.len() - 40;
        packet[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
        packet
    }

    proptest! {
        /// Repeated fragmentation in any order still gives pieces of the same packet.
        #[test]
        fn fragments_that_are_split_again_make_the_packet_again(
            kind in 0usize..6,
            len in 1200usize..9000,
            mtus in proptest::collection::vec(576usize..1500, 1..4),
            ident: u32,
            rotate: usize,
        ) {
            let whole = match kind {
                0 => packet(false, len),
                1 => with_options(&[148, 4, 0, 0, 7, 7, 4, 1, 1, 1, 1, 0], len),
                2 => packet(true, len),
                3 => with_extensions(&[(0, 1)], len),
                4 => with_extensions(&[(0, 2), (60, 1), (43, 3)], len),
                _ => with_extensions(&[(43, 1), (60, 3)], len),
            };
            let ipv6 = kind > 1;
            prop_assume!(whole.len() > mtus[0]);
            let mut pieces = vec![whole.clone()];
            for (round, mtu) in mtus.iter().enumerate() {
                // Another router would choose another identification.
                let ident = ident.wrapping_add(round as u32) | 1;
                pieces = pieces.iter().flat_map(|piece| split(piece, *mtu, ident)).collect();
            }
            let middle = rotate % pieces.len();
            pieces.rotate_left(middle);
            let mut result = reassembled(ipv6, &pieces).expect("all have come");
            if !ipv6 {
                prop_assert_ne!(&result[4..6], &[0, 0]);
                result[4..6].fill(0);
                Ipv4Packet::new_unchecked(&mut result[..]).fill_checksum();
            }
            prop_assert_eq!(result, whole);
        }

        #[test]
        fn whatever_is_split_is_split_without_a_panic(
            packet in proptest::collection::vec(any::<u8>(), 20..400),
            version in 4u8..=6,
            words in 5u8..=15,
            mtu in 0usize..300,
        ) {
            let mut packet = packet;
            packet[0] = version << 4 | if version == 4 { words } else { 0 };
            let length = packet.len() as u16 - if version == 6 { 40.min(packet.len() as u16) } else { 0 };
            let at = if version == 4 { 2 } else { 4 };
            packet[at..at + 2].copy_from_slice(&length.to_be_bytes());
            if let Ok(ip) = IpHeader::parse(&packet, false)
                && ip.total_len > mtu
                && let Ok(mut fragments) = Fragments::cut(&packet[..ip.total_len], &ip, mtu, || 7, true)
            {
                let mut count = 0;
                let announced = fragments.packets();
                while let Some(fragment) = fragments.next(&mut packet) {
                    prop_assert!(fragment.len() <= mtu);
                    count += 1;
                }
                prop_assert_eq!(count, announced);
            }
        }
    }

    /// RFC 791 3.1: some options are in the first fragment only.
    #[test]
    fn later_fragments_have_the_options_that_are_to_be_copied() {
        // Router alert (copied), record route (not), padding, a security option (copied).
        let options = [148, 4, 0, 0, 7, 7, 4, 1, 1, 1, 1, 1, 130, 3, 9, 0];
        let pieces = split(&with_options(&options, 1000), 576, 5);
        assert_eq!(pieces[0][20..36], options);
        assert_eq!(pieces[1][..1], [0x47]);
        assert_eq!(pieces[1][20..28], [148, 4, 0, 0, 130, 3, 9, 0]);
        // First and second fragment have different headers, and both are split again.
        let again: Vec<_> = pieces.iter().flat_map(|piece| split(piece, 300, 6)).collect();
        let headers: Vec<_> = again.iter().map(|piece| piece[0] & 15).collect();
        assert_eq!(headers, [9, 7, 7, 7, 7]);
        // A list with invalid lengths ends there.
        let broken = split(&with_options(&[148, 4, 0, 0, 130, 99, 0, 0], 1000), 576, 5);
        assert_eq!(broken[1][..1], [0x46]);
    }

    #[test]
    fn only_a_packet_without_an_identification_gets_one() {
        let mut packet = packet(false, 1000);
        assert!(split(&packet, 576, 5).iter().all(|piece| piece[4..6] == [0, 5]));
        packet[4..6].copy_from_slice(&[3, 4]);
        Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
        assert!(split(&packet, 576, 5).iter().all(|piece| piece[4..6] == [3, 4]));
        // The identification of a first fragment may be zero, too.
        packet[4..8].copy_from_slice(&[0, 0, 0x20, 0]);
        Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
        assert!(split(&packet, 576, 5).iter().all(|piece| piece[4..6] == [0, 0] && piece[6] & 0x20 != 0));
    }

    /// RFC 6946: a whole packet may have a fragment header.
    #[test]
    fn a_packet_with_a_fragment_header_of_its_own_gets_no_second_one() {
        let plain = packet(true, 2000);
        let mut whole = [&plain[..40], &[17, 0, 0, 0, 1, 2, 3, 4], &plain[40..]].concat();
        whole[6] = 44;
        whole[4..6].copy_from_slice(&2008_u16.to_be_bytes());
        let pieces = split(&whole, 1280, 5);
        assert!(pieces.iter().all(|piece| piece[40] == 17 && piece[44..48] == [1, 2, 3, 4]));
        assert_eq!(reassembled(true, &pieces), Some(plain));
    }

    #[test]
    fn a_fragment_beyond_the_longest_packet_is_not_split() {
        let mut packet = packet(false, 1000);
        packet[6..8].copy_from_slice(&0x1fff_u16.to_be_bytes());
        let ip = IpHeader::parse(&packet, false).unwrap();
        assert_eq!(Fragments::cut(&packet, &ip, 576, || 5, true).err(), Some(Error::InvalidInput));
        packet[6] |= 0x40;
        assert_eq!(Fragments::cut(&packet, &ip, 576, || 5, true).err(), Some(Error::MessageSize));
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
