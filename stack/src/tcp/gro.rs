//! Joins consecutive TCP segments of one flow into one large packet, without copying payload.
//!
//! The caller decrypts the next packet so that its *header* covers the last bytes of the pending packet.
//! Those bytes are saved before and put back afterwards, so the new payload continues the pending payload. A
//! packet that does not continue the pending packet becomes pending itself. Its header is set aside until the
//! caller has handled the packet before.

use std::fmt;
use std::ops::Range;

use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket};

use crate::ip::{IpHeader, MAX_PACKET};

/// Bytes of the largest headers of joinable packets: IPv6 and TCP with all its options.
const HEADERS: usize = 40 + 60;

/// Room for a full pending packet and one more behind it.
const CAPACITY: usize = 2 * MAX_PACKET;

/// Generic receive offload: fewer, larger packets for [`Stack::receive`](crate::Stack::receive).
///
/// Segments join if they follow one another on one flow and differ only in length, acknowledgement, window
/// and PSH. Addresses, ports, traffic class, hop limit and TCP options must be equal, and ACK and PSH the
/// only flags. The newest acknowledgement and window win. Pure acknowledgements never join, so duplicates can
/// be counted. Checksums are not maintained: use it on interfaces that do not verify them.
///
/// ```
/// let mut coalescer = peersock_stack::Coalescer::new();
/// let datagram = [0x45; 28];
/// let slot = coalescer.slot(datagram.len());
/// slot.copy_from_slice(&datagram); // in earnest: decrypt into it
/// assert!(coalescer.commit(1, datagram.len()).is_none());
/// assert_eq!(coalescer.flush().unwrap().packet, datagram);
/// assert!(coalescer.flush().is_none());
/// ```
pub struct Coalescer {
    buffer: Vec<u8>,
    pending: Option<Pending>,
    /// Bytes under the slot (the end of the pending packet) or under a flushed packet (the pending packet's
    /// header), and their position.
    aside: Aside,
}

/// A packet that a [`Coalescer`] releases, for [`Stack::receive`](crate::Stack::receive).
#[derive(Debug)]
pub struct Flushed<'a> {
    /// Key given to [`Coalescer::commit`].
    pub key: u64,
    /// The IP packet.
    pub packet: &'a mut [u8],
    /// Sizes of the joined segments, if segments have joined.
    pub joined: Option<Joined>,
}

/// Description of the segments joined in a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// Bytes of the IP and TCP headers.
    pub header_len: usize,
    /// Bytes of the first segment's payload.
    pub segment: usize,
    /// True if all segments but the last carried this number of bytes, and the last no more. Cutting such a
    /// packet again gives the segments that were sent.
    pub is_even: bool,
}

struct Pending {
    key: u64,
    start: usize,
    end: usize,
    /// Conditions for the next segment; `None` if no segment can join.
    join: Option<Join>,
}

/// Conditions that a packet must meet to join.
struct Join {
    /// Headers of the first packet. The ones in the buffer may lie under the slot.
    header: [u8; HEADERS],
    ip_len: usize,
    header_len: usize,
    next_seq: u32,
    merged: usize,
    /// Bytes of the first segment's payload, and the state of [`Joined::is_even`].
    first: usize,
    is_even: bool,
    /// True after a segment shorter than the first. A further segment would make an even cut impossible.
    has_shorter: bool,
    newest: Newest,
}

/// Header fields of the newest segment.
#[derive(Clone, Copy)]
struct Newest {
    ack: [u8; 4],
    window: [u8; 2],
    push: bool,
}

/// A TCP segment that may join: it has data, and ACK and PSH are its only flags.
struct Segment {
    ip_len: usize,
    header_len: usize,
    seq: u32,
    payload: usize,
    newest: Newest,
}

struct Aside {
    bytes: [u8; HEADERS],
    at: usize,
    len: usize,
}

impl Default for Coalescer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Coalescer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pending = self.pending.as_ref().map(|pending| pending.end - pending.start);
        f.debug_struct("Coalescer").field("pending", &pending).finish()
    }
}

impl Coalescer {
    /// Returns an empty coalescer with its buffer of 128 KiB.
    pub fn new() -> Self {
        let aside = Aside { bytes: [0; HEADERS], at: 0, len: 0 };
        Self { buffer: vec![0; CAPACITY], pending: None, aside }
    }

    /// Returns room for the next packet, with arbitrary content. A slot that is not committed is forgotten.
    ///
    /// # Panics
    /// If `len` is over [`MAX_PACKET`].
    pub fn slot(&mut self, len: usize) -> &mut [u8] {
        assert!(len <= MAX_PACKET, "no IP packet is that long");
        // A slot that was not committed still covers bytes of the pending packet.
        self.put_back();
        let at = self.slot_start(len);
        let covered = self.pending.as_ref().map_or(0, |pending| pending.end - at);
        self.set_aside(at, covered);
        &mut self.buffer[at..at + len]
    }

    /// Declares that the last slot holds a packet of `len` bytes from the source `key`; packets of different
    /// keys never join. Returns the packet that was pending if the new one does not join it.
    ///
    /// # Panics
    /// If `len` is longer than the slot's buffer.
    pub fn commit(&mut self, key: u64, len: usize) -> Option<Flushed<'_>> {
        self.commit_as(key, len, false)
    }

    /// Does the same as [`commit`](Self::commit), but joins only what can be cut again into the same
    /// segments.
    ///
    /// # Panics
    /// If `len` is longer than the slot's buffer.
    pub fn commit_even(&mut self, key: u64, len: usize) -> Option<Flushed<'_>> {
        self.commit_as(key, len, true)
    }

    fn commit_as(&mut self, key: u64, len: usize, even: bool) -> Option<Flushed<'_>> {
        let at = self.aside.at;
        if let Some(pending) = &mut self.pending
            && pending.key == key
            && pending.try_join(&self.buffer[at..at + len], even)
        {
            // The packet's header has covered the end of the pending payload.
            self.put_back();
            return None;
        }
        let next = Pending { key, start: at, end: at + len, join: Join::start(&self.buffer[at..at + len]) };
        let Some(before) = self.pending.replace(next) else {
            self.aside.len = 0;
            return None;
        };
        // The old packet needs its last bytes back now; the new packet will need its header afterwards.
        let covered = self.aside.len;
        self.buffer[at..at + covered].swap_with_slice(&mut self.aside.bytes[..covered]);
        Some(before.finish(&mut self.buffer))
    }

    /// Returns the pending packet.
    pub fn flush(&mut self) -> Option<Flushed<'_>> {
        self.put_back();
        let pending = self.pending.take()?;
        Some(pending.finish(&mut self.buffer))
    }

    /// Returns the start of the next slot: before the end of the pending packet by the length of its headers.
    fn slot_start(&mut self, len: usize) -> usize {
        let Some(pending) = &mut self.pending else { return 0 };
        // The next packet's header lands on the end of the pending payload, so that its payload continues it
        // without a copy.
        let overlap = pending.join.as_ref().map_or(0, |join| join.header_len);
        // No room is left behind the pending packet: move it to the front, the only copy of payload.
        if pending.end - overlap + len > self.buffer.len() {
            self.buffer.copy_within(pending.start..pending.end, 0);
            pending.end -= pending.start;
            pending.start = 0;
        }
        pending.end - overlap
    }

    fn set_aside(&mut self, at: usize, len: usize) {
        self.aside.bytes[..len].copy_from_slice(&self.buffer[at..at + len]);
        self.aside.at = at;
        self.aside.len = len;
    }

    fn put_back(&mut self) {
        let Aside { bytes, at, len } = &mut self.aside;
        self.buffer[*at..*at + *len].copy_from_slice(&bytes[..*len]);
        *len = 0;
    }
}

impl Pending {
    /// Joins `packet` if it continues the pending packet; its header will be overwritten.
    fn try_join(&mut self, packet: &[u8], even: bool) -> bool {
        let Some(join) = &mut self.join else { return false };
        let Some(segment) = Segment::parse(packet) else { return false };
        // The length field of an IP header has 16 bits.
        let fits = self.end - self.start + segment.payload <= MAX_PACKET;
        if !fits || segment.seq != join.next_seq || !join.same_stream(packet, &segment) {
            return false;
        }
        // A host that segments the packet again cuts equal pieces, of which only the last may be shorter.
        let stays_even = join.is_even && !join.has_shorter && segment.payload <= join.first;
        if even && !stays_even {
            return false;
        }
        join.is_even = stays_even;
        join.has_shorter |= segment.payload < join.first;
        join.next_seq = segment.seq.wrapping_add(segment.payload as u32);
        // PSH of any joined segment counts, because the application should get that data at once.
        join.newest = Newest { push: join.newest.push || segment.newest.push, ..segment.newest };
        join.merged += 1;
        self.end += segment.payload;
        true
    }

    /// Updates the header for the joined segments.
    fn finish(self, buffer: &mut [u8]) -> Flushed<'_> {
        let packet = &mut buffer[self.start..self.end];
        let mut joined = None;
        if let Some(join) = self.join.filter(|join| join.merged > 0) {
            let Join { header_len, first: segment, is_even, .. } = join;
            joined = Some(Joined { header_len, segment, is_even });
            let total = packet.len();
            match join.ip_len {
                20 => Ipv4Packet::new_unchecked(&mut *packet).set_total_len(total as u16),
                _ => Ipv6Packet::new_unchecked(&mut *packet).set_payload_len((total - 40) as u16),
            }
            let tcp = &mut packet[join.ip_len..];
            tcp[8..12].copy_from_slice(&join.newest.ack);
            tcp[14..16].copy_from_slice(&join.newest.window);
            TcpPacket::new_unchecked(tcp).set_psh(join.newest.push);
        }
        Flushed { key: self.key, packet, joined }
    }
}

impl Join {
    fn start(packet: &[u8]) -> Option<Self> {
        let segment = Segment::parse(packet)?;
        let mut header = [0; HEADERS];
        header[..segment.header_len].copy_from_slice(&packet[..segment.header_len]);
        Some(Self {
            header,
            ip_len: segment.ip_len,
            header_len: segment.header_len,
            next_seq: segment.seq.wrapping_add(segment.payload as u32),
            merged: 0,
            first: segment.payload,
            is_even: true,
            has_shorter: false,
            newest: segment.newest,
        })
    }

    /// Returns true if version, traffic class, flow label, hop limit, addresses, ports and TCP options are
    /// equal. IPv4's length, identification and checksum may differ.
    fn same_stream(&self, packet: &[u8], segment: &Segment) -> bool {
        // The ranges below exist in both packets only if their headers have the same length.
        if (segment.ip_len, segment.header_len) != (self.ip_len, self.header_len) {
            return false;
        }
        let ports = self.ip_len..self.ip_len + 4;
        let equal = |range: Range<usize>| self.header[range.clone()] == packet[range];
        // The data offset, and the options before the data.
        let options = self.ip_len + 20..self.header_len;
        if !equal(self.ip_len + 12..self.ip_len + 13) || !equal(options) {
            return false;
        }
        match self.ip_len {
            // All but the lengths, the identification and the checksum, which differ between packets of one
            // stream.
            20 => equal(0..2) && equal(6..10) && equal(12..20) && equal(ports),
            _ => equal(0..4) && equal(6..40) && equal(ports),
        }
    }
}

impl Segment {
    fn parse(packet: &[u8]) -> Option<Self> {
        let ip = IpHeader::parse(packet, false).ok()?;
        let plain = ip.plain && ip.protocol == IpProtocol::Tcp && ip.total_len == packet.len();
        // IP options and extension headers concern one packet, and a joined packet could carry only one of
        // them.
        if !plain || !matches!((packet[0] >> 4, ip.header_len), (4, 20) | (6, 40)) {
            return None;
        }
        let bytes = packet.get(ip.header_len..)?;
        let tcp = TcpPacket::new_checked(bytes).ok()?;
        let (ack, push) = (0x10, 0x08);
        let header_len = ip.header_len + usize::from(tcp.header_len());
        // Other flags, and acknowledgements without data, are events by themselves: three equal ones mean a
        // loss.
        if bytes[13] & !push != ack || tcp.payload().is_empty() {
            return None;
        }
        Some(Self {
            ip_len: ip.header_len,
            header_len,
            seq: tcp.seq_number().0 as u32,
            payload: tcp.payload().len(),
            newest: Newest {
                ack: [bytes[8], bytes[9], bytes[10], bytes[11]],
                window: [bytes[14], bytes[15]],
                push: tcp.psh(),
            },
        })
    }
}
