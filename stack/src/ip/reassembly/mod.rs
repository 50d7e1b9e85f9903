//! Reassembly of fragments (RFC 791 3.2, RFC 8200 4.5).
//!
//! Overlaps indicate an attack, so they cost the whole packet, including fragments that come later (RFC 5722
//! section 4; in IPv4 too, for the reasons in RFC 1858). An exact copy of a fragment is no overlap.
//!
//! Memory is bounded in total and per source, that is, per peer, whatever addresses it sends from. Beyond a
//! limit, the oldest packet of the source that holds most is dropped. So a peer cannot displace others'
//! packets while holding little.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use smoltcp::wire::Ipv4Packet;

use crate::host::clock::{Time, after};
use crate::ip::extensions::Fragment;
use crate::sync;
use crate::{Config, InterfaceId};

/// Maximum wait for the fragments of a packet. In IPv4, RFC 1122 3.3.2 has 60 to 120 s, and systems use 30;
/// in IPv6, RFC 8200 4.5 has 60 s.
const TIMEOUT_V4: Duration = Duration::from_secs(30);
const TIMEOUT_V6: Duration = Duration::from_secs(60);

/// Maximum number of fragments of one packet.
const MAX_FRAGMENTS: usize = 256;
/// Maximum number of incomplete packets of one source.
const MAX_PACKETS_PER_SOURCE: usize = 64;

/// Charges of a packet and of each of its fragments in addition to their bytes.
const PACKET_CHARGE: usize = 256;
const PIECE_CHARGE: usize = 64;

const NEVER: i64 = i64::MAX;

/// Key that the fragments of one packet share. Its order keeps the packets of one source together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PacketId {
    pub(crate) interface: InterfaceId,
    /// Representative address of the sending peer.
    owner: IpAddr,
    source: IpAddr,
    destination: IpAddr,
    ident: u32,
    /// Protocol number in IPv4; 0 in IPv6, where only the first fragment's next header counts.
    protocol: u8,
}

/// A fragment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    id: PacketId,
    /// Bytes of the whole fragment.
    packet: &'a [u8],
    /// Bytes of the headers that the reassembled packet keeps.
    header_len: usize,
    /// Position and new value of the byte that named the fragment header, for IPv6.
    next: Option<(usize, u8)>,
    /// Start of the data in `packet`.
    data_at: usize,
    offset: usize,
    more: bool,
}

/// Result for a fragment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Other fragments are missing.
    Waiting,
    /// All fragments have arrived; the whole packet.
    Complete(Vec<u8>),
    /// The fragment does not fit the others, and none of them is kept.
    Refused,
}

/// A packet that has waited too long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) interface: InterfaceId,
    /// First fragment, if it arrived.
    pub(crate) first: Option<Vec<u8>>,
}

/// All incomplete packets.
pub(crate) struct Reassembly {
    total: usize,
    per_source: usize,
    pending: Mutex<PendingPackets>,
    /// Time at which the first packet expires, microseconds; readable without the lock.
    next: AtomicI64,
}

#[derive(Default)]
struct PendingPackets {
    packets: BTreeMap<PacketId, Waiting>,
    expiries: BTreeSet<(Time, PacketId)>,
    /// Bytes charged to each source.
    sources: BTreeMap<(InterfaceId, IpAddr), usize>,
    charged: usize,
}

/// One incomplete packet.
struct Waiting {
    expires: Time,
    /// Headers of the first fragment, up to its data, and the part that the reassembled packet keeps.
    header: Option<Header>,
    pieces: BTreeMap<usize, Vec<u8>>,
    /// Number of bytes in `pieces`.
    len: usize,
    /// Length of all data, once the last fragment has arrived.
    end: Option<usize>,
    /// Set of the ECN codepoints seen, one bit each.
    ecn: u8,
    /// True after an overlap; all further fragments are refused.
    refused: bool,
    charge: usize,
}

struct Header {
    bytes: Vec<u8>,
    len: usize,
    next: Option<(usize, u8)>,
}

impl<'a> Piece<'a> {
    /// Returns the IPv4 fragment `packet` with its valid header. `None` if it cannot be a fragment.
    pub(crate) fn v4(interface: InterfaceId, packet: &'a [u8]) -> Option<Self> {
        let view = Ipv4Packet::new_checked(packet).ok()?;
        let header_len = usize::from(view.header_len());
        let id = PacketId {
            interface,
            owner: view.src_addr().into(),
            source: view.src_addr().into(),
            destination: view.dst_addr().into(),
            ident: view.ident().into(),
            protocol: view.next_header().into(),
        };
        let offset = usize::from(view.frag_offset());
        let more = view.more_frags();
        let piece = Self { id, packet, header_len, next: None, data_at: header_len, offset, more };
        let len = packet.len() - header_len;
        // The whole would be longer than a packet can be, as in the attack "ping of death".
        let fits = header_len + offset + len <= usize::from(u16::MAX);
        // All fragments but the last end at a multiple of eight (RFC 791 3.2).
        (len > 0 && fits && (!more || len.is_multiple_of(8))).then_some(piece)
    }

    /// Returns the IPv6 fragment `packet`.
    pub(crate) fn v6(
        interface: InterfaceId,
        (source, destination): (IpAddr, IpAddr),
        packet: &'a [u8],
        fragment: &Fragment,
    ) -> Option<Self> {
        let ident = fragment.ident;
        // RFC 8200 4.5 identifies by addresses and identification alone: only the first fragment knows the
        // protocol.
        let id = PacketId { interface, owner: source, source, destination, ident, protocol: 0 };
        let piece = Self {
            id,
            packet,
            header_len: fragment.at,
            next: Some((fragment.named_at, fragment.next)),
            data_at: fragment.at + crate::ip::extensions::FRAGMENT_HEADER,
            offset: fragment.offset,
            more: fragment.more,
        };
        // An empty fragment adds nothing, but would occupy memory.
        (!piece.data().is_empty()).then_some(piece)
    }

    /// Sets the owner to the representative that `owner` returns for the interface and the source address.
    pub(crate) fn owned(mut self, owner: impl FnOnce(InterfaceId, IpAddr) -> IpAddr) -> Self {
        self.id.owner = owner(self.id.interface, self.id.source);
        self
    }

    /// Returns the bytes of the fragment.
    pub(crate) fn len(&self) -> usize {
        self.packet.len()
    }

    fn data(&self) -> &'a [u8] {
        self.packet.get(self.data_at..).unwrap_or_default()
    }

    fn end(&self) -> usize {
        self.offset + self.data().len()
    }

    fn ecn(&self) -> u8 {
        if self.next.is_some() { self.packet[1] >> 4 & 3 } else { self.packet[1] & 3 }
    }
}

impl Reassembly {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            total: config.reassembly_memory,
            per_source: config.reassembly_memory_per_source,
            pending: Mutex::default(),
            next: AtomicI64::new(NEVER),
        }
    }

    /// Adds a fragment, and returns the number of packets dropped for it. The caller has
    /// [removed](Self::expire) expired packets.
    pub(crate) fn insert(&self, time: Time, piece: &Piece<'_>) -> (Outcome, u64) {
        let mut pending = self.lock();
        let outcome = pending.insert(time, piece);
        let evicted = pending.bound(&piece.id, self.total, self.per_source);
        self.publish(&pending);
        (outcome, evicted)
    }

    /// Returns the time at which [`expire`](Self::expire) next has something to do. Takes no lock.
    pub(crate) fn next(&self) -> Option<Time> {
        match self.next.load(Ordering::Acquire) {
            NEVER => None,
            micros => Some(Time::from_micros(micros)),
        }
    }

    /// Removes packets that have waited too long, at most `limit`.
    pub(crate) fn expire(&self, time: Time, limit: usize) -> Vec<Expired> {
        if self.next().is_none_or(|next| next > time) {
            return Vec::new();
        }
        let mut pending = self.lock();
        let mut expired = Vec::new();
        // Bounded, because each may cause an ICMP error.
        while expired.len() < limit {
            let Some(&(_, id)) = pending.expiries.first().filter(|(due, _)| *due <= time) else { break };
            let Some(waiting) = pending.remove(&id) else { break };
            expired.push(Expired { interface: id.interface, first: waiting.first() });
        }
        self.publish(&pending);
        expired
    }

    fn publish(&self, pending: &PendingPackets) {
        let next = pending.expiries.first().map_or(NEVER, |(due, _)| due.total_micros());
        self.next.store(next, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, PendingPackets> {
        sync::lock(&self.pending)
    }
}

impl PendingPackets {
    fn insert(&mut self, time: Time, piece: &Piece<'_>) -> Outcome {
        let id = piece.id;
        let waiting = match self.packets.entry(id) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                let timeout = if id.source.is_ipv4() { TIMEOUT_V4 } else { TIMEOUT_V6 };
                // From the first fragment on, and later ones do not prolong it (RFC 8200 4.5).
                let expires = after(time, timeout);
                self.expiries.insert((expires, id));
                place.insert(Waiting::new(expires))
            }
        };
        let before = waiting.charge;
        let outcome = waiting.insert(piece);
        waiting.charge = waiting.cost();
        self.charged = self.charged - before + waiting.charge;
        let source = self.sources.entry((id.interface, id.owner)).or_default();
        *source = *source - before + waiting.charge;
        if !matches!(outcome, Outcome::Complete(_)) {
            return outcome;
        }
        // A complete packet leaves the table; a refused one stays, so that its later fragments are refused,
        // too.
        self.remove(&id);
        outcome
    }

    /// Drops packets until the limits hold, and returns their number.
    fn bound(&mut self, newest: &PacketId, total: usize, per_source: usize) -> u64 {
        let source = (newest.interface, newest.owner);
        let mut evicted = 0;
        // The limits of the source come first, so that its excess does not push out other sources.
        while self.sources.get(&source).is_some_and(|&charge| charge > per_source)
            || self.of_source(source).count() > MAX_PACKETS_PER_SOURCE
        {
            self.evict_oldest(source);
            evicted += 1;
        }
        while self.charged > total {
            // The source that uses most pays first, so a flood from one source leaves the others alone.
            let heaviest = self.sources.iter().max_by_key(|(_, charge)| **charge);
            let Some((&heaviest, _)) = heaviest else { break };
            self.evict_oldest(heaviest);
            evicted += 1;
        }
        evicted
    }

    fn of_source(&self, source: (InterfaceId, IpAddr)) -> impl Iterator<Item = (&PacketId, &Waiting)> {
        let none = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let (interface, owner) = source;
        let first = PacketId { interface, owner, source: none, destination: none, ident: 0, protocol: 0 };
        self.packets.range(first..).take_while(move |(id, _)| (id.interface, id.owner) == source)
    }

    fn evict_oldest(&mut self, source: (InterfaceId, IpAddr)) {
        let oldest = self.of_source(source).min_by_key(|(_, waiting)| waiting.expires);
        if let Some(id) = oldest.map(|(id, _)| *id) {
            self.remove(&id);
        }
    }

    fn remove(&mut self, id: &PacketId) -> Option<Waiting> {
        let waiting = self.packets.remove(id)?;
        self.expiries.remove(&(waiting.expires, *id));
        self.charged -= waiting.charge;
        let key = (id.interface, id.owner);
        if let Some(charge) = self.sources.get_mut(&key) {
            *charge -= waiting.charge;
            // Sources come and go, so empty accounts must not stay.
            if *charge == 0 {
                self.sources.remove(&key);
            }
        }
        Some(waiting)
    }
}

impl Waiting {
    fn new(expires: Time) -> Self {
        Self {
            expires,
            header: None,
            pieces: BTreeMap::new(),
            len: 0,
            end: None,
            ecn: 0,
            refused: false,
            charge: 0,
        }
    }

    fn insert(&mut self, piece: &Piece<'_>) -> Outcome {
        if self.refused {
            return Outcome::Refused;
        }
        if self.is_copy(piece) {
            return Outcome::Waiting;
        }
        // RFC 5722: overlapping fragments are an attack on filters, and the whole packet must be dropped.
        if self.conflicts(piece) || self.pieces.len() == MAX_FRAGMENTS {
            // The pieces are freed at once, but the packet's entry stays until it expires.
            *self = Self { refused: true, charge: self.charge, ..Self::new(self.expires) };
            return Outcome::Refused;
        }
        if !piece.more {
            self.end = Some(piece.end());
        }
        // RFC 8200 4.5: the packet gets the headers of its first fragment.
        if piece.offset == 0 {
            let bytes = piece.packet[..piece.data_at].to_vec();
            self.header = Some(Header { bytes, len: piece.header_len, next: piece.next });
        }
        self.ecn |= 1 << piece.ecn();
        self.len += piece.data().len();
        self.pieces.insert(piece.offset, piece.data().to_vec());
        if self.end == Some(self.len) {
            return self.join().map_or(Outcome::Refused, Outcome::Complete);
        }
        Outcome::Waiting
    }

    /// Returns true if an exact copy of the fragment has arrived before.
    fn is_copy(&self, piece: &Piece<'_>) -> bool {
        let last = self.end == Some(piece.end());
        self.pieces.get(&piece.offset).is_some_and(|data| data == piece.data()) && last != piece.more
    }

    /// Returns true if the fragment overlaps another, or contradicts the known end of the data.
    fn conflicts(&self, piece: &Piece<'_>) -> bool {
        let end = piece.end();
        let before = self.pieces.range(..=piece.offset).next_back();
        let behind = self.pieces.range(piece.offset..).next();
        let overlaps = before.is_some_and(|(at, data)| at + data.len() > piece.offset)
            || behind.is_some_and(|(&at, _)| at < end);
        let furthest = self.pieces.last_key_value().map_or(0, |(at, data)| at + data.len());
        let disagrees = match self.end {
            Some(known) => !piece.more || end >= known,
            None => !piece.more && furthest > end,
        };
        overlaps || disagrees
    }

    /// Returns the whole packet. `None` if it is invalid, or if its fragments are marked both as "congested"
    /// and as "not capable" (RFC 3168 5.3).
    fn join(&self) -> Option<Vec<u8>> {
        let header = self.header.as_ref()?;
        // RFC 3168 5.3: congestion on one fragment marks the whole packet.
        let (not_capable, congested) = (self.ecn & 1 != 0, self.ecn & 1 << 3 != 0);
        if not_capable && congested {
            return None;
        }
        let mut packet = Vec::with_capacity(header.len + self.len);
        packet.extend_from_slice(&header.bytes[..header.len]);
        self.pieces.values().for_each(|data| packet.extend_from_slice(data));
        let total = packet.len();
        match header.next {
            None => {
                packet[2..4].copy_from_slice(&u16::try_from(total).ok()?.to_be_bytes());
                packet[6..8].fill(0);
                packet[1] |= if congested { 3 } else { 0 };
                Ipv4Packet::new_unchecked(&mut packet[..]).fill_checksum();
            }
            Some((named_at, next)) => {
                packet[4..6].copy_from_slice(&u16::try_from(total - 40).ok()?.to_be_bytes());
                packet[named_at] = next;
                packet[1] |= if congested { 3 << 4 } else { 0 };
            }
        }
        Some(packet)
    }

    /// Returns the first fragment as it arrived.
    fn first(&self) -> Option<Vec<u8>> {
        Some([self.header.as_ref()?.bytes.as_slice(), self.pieces.get(&0)?].concat())
    }

    fn cost(&self) -> usize {
        let header = self.header.as_ref().map_or(0, |header| header.bytes.len());
        PACKET_CHARGE + header + self.len + self.pieces.len() * PIECE_CHARGE
    }
}

#[cfg(test)]
mod tests;
