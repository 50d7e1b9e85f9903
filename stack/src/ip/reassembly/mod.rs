//! Puts fragments together again (RFC 791 3.2, RFC 8200 4.5).
//!
//! What overlaps is no accident: the whole packet is given up, and so are its fragments that have not come
//! yet (RFC 5722 section 4; for IPv4 too, where RFC 1858 tells why). An exact copy of a fragment is no
//! overlap.
//!
//! Memory is bounded in total and for each source, by which the peer is meant, whatever addresses it sends
//! from. What would exceed it pushes out the oldest packet of the source that holds most, so that nobody can
//! push out others while holding little.

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

/// How long the fragments of a packet wait for one another: RFC 1122 3.3.2 has 60 to 120 s and systems 30;
/// RFC 8200 4.5 has 60 s.
const TIMEOUT_V4: Duration = Duration::from_secs(30);
const TIMEOUT_V6: Duration = Duration::from_secs(60);

/// Most fragments of one packet.
const MOST_PIECES: usize = 256;
/// Most packets of one source that wait for fragments.
const MOST_PER_SOURCE: usize = 64;

/// What a packet and each of its fragments are charged besides their bytes.
const PACKET_CHARGE: usize = 256;
const PIECE_CHARGE: usize = 64;

const NEVER: i64 = i64::MAX;

/// What the fragments of one packet have in common. The order keeps the packets of one source together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PacketId {
    pub(crate) interface: InterfaceId,
    /// What stands for the peer that has sent it.
    owner: IpAddr,
    source: IpAddr,
    destination: IpAddr,
    ident: u32,
    /// Of IPv4 only: IPv6 goes by the first fragment's next header, whatever the others say.
    protocol: u8,
}

/// One fragment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    id: PacketId,
    /// The whole fragment.
    packet: &'a [u8],
    /// Bytes of the headers that come back in the reassembled packet.
    header_len: usize,
    /// For IPv6, where and by which protocol the fragment header is replaced.
    next: Option<(usize, u8)>,
    /// Where the data starts in `packet`.
    data_at: usize,
    offset: usize,
    more: bool,
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Others are missing.
    Waiting,
    /// It was the last one: the whole packet.
    Complete(Vec<u8>),
    /// It does not fit the others, and none of them is kept.
    Refused,
}

/// A packet whose time is over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) interface: InterfaceId,
    /// The first fragment, if that came.
    pub(crate) first: Option<Vec<u8>>,
}

/// All packets that wait for fragments.
pub(crate) struct Reassembly {
    total: usize,
    per_source: usize,
    pending: Mutex<PendingPackets>,
    /// When the first one expires, microseconds; readable without the lock.
    next: AtomicI64,
}

#[derive(Default)]
struct PendingPackets {
    packets: BTreeMap<PacketId, Waiting>,
    expiries: BTreeSet<(Time, PacketId)>,
    /// Bytes that each source is charged.
    sources: BTreeMap<(InterfaceId, IpAddr), usize>,
    charged: usize,
}

/// One packet that waits for fragments.
struct Waiting {
    expires: Time,
    /// The first fragment's headers, up to its data, and what of them comes back.
    header: Option<Header>,
    pieces: BTreeMap<usize, Vec<u8>>,
    /// Bytes in `pieces`.
    len: usize,
    /// Length of all data, once the last fragment has come.
    end: Option<usize>,
    /// The ECN codepoints seen, one bit each.
    ecn: u8,
    /// Fragments overlapped; everything else is refused.
    refused: bool,
    charge: usize,
}

struct Header {
    bytes: Vec<u8>,
    len: usize,
    next: Option<(usize, u8)>,
}

impl<'a> Piece<'a> {
    /// The IPv4 fragment `packet`, whose header was found to be valid. `None` if no such fragment can be.
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
        let fits = header_len + offset + len <= usize::from(u16::MAX);
        (len > 0 && fits && (!more || len.is_multiple_of(8))).then_some(piece)
    }

    /// The IPv6 fragment `packet`.
    pub(crate) fn v6(
        interface: InterfaceId,
        (source, destination): (IpAddr, IpAddr),
        packet: &'a [u8],
        fragment: &Fragment,
    ) -> Option<Self> {
        let ident = fragment.ident;
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
        (!piece.data().is_empty()).then_some(piece)
    }

    /// Of the peer for which `owner` stands with the interface and the source address.
    pub(crate) fn owned(mut self, owner: impl FnOnce(InterfaceId, IpAddr) -> IpAddr) -> Self {
        self.id.owner = owner(self.id.interface, self.id.source);
        self
    }

    /// Bytes of the packet that is the fragment.
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

    /// Takes in a fragment, and says how many packets had to make room for it. What is due by then has been
    /// [taken out](Self::expire).
    pub(crate) fn insert(&self, time: Time, piece: &Piece<'_>) -> (Outcome, u64) {
        let mut pending = self.lock();
        let outcome = pending.insert(time, piece);
        let evicted = pending.bound(&piece.id, self.total, self.per_source);
        self.publish(&pending);
        (outcome, evicted)
    }

    /// When [`expire`](Self::expire) next has something to do. Takes no lock.
    pub(crate) fn next(&self) -> Option<Time> {
        match self.next.load(Ordering::Acquire) {
            NEVER => None,
            micros => Some(Time::from_micros(micros)),
        }
    }

    /// Takes out what waits too long, at most `limit` packets.
    pub(crate) fn expire(&self, time: Time, limit: usize) -> Vec<Expired> {
        if self.next().is_none_or(|next| next > time) {
            return Vec::new();
        }
        let mut pending = self.lock();
        let mut expired = Vec::new();
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
        self.remove(&id);
        outcome
    }

    /// Pushes out packets until the limits are kept, and says how many.
    fn bound(&mut self, newest: &PacketId, total: usize, per_source: usize) -> u64 {
        let source = (newest.interface, newest.owner);
        let mut evicted = 0;
        while self.sources.get(&source).is_some_and(|&charge| charge > per_source)
            || self.of_source(source).count() > MOST_PER_SOURCE
        {
            self.evict_oldest(source);
            evicted += 1;
        }
        while self.charged > total {
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
        if self.conflicts(piece) || self.pieces.len() == MOST_PIECES {
            *self = Self { refused: true, charge: self.charge, ..Self::new(self.expires) };
            return Outcome::Refused;
        }
        if !piece.more {
            self.end = Some(piece.end());
        }
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

    /// Whether the very same fragment is here already.
    fn is_copy(&self, piece: &Piece<'_>) -> bool {
        let last = self.end == Some(piece.end());
        self.pieces.get(&piece.offset).is_some_and(|data| data == piece.data()) && last != piece.more
    }

    /// Whether it overlaps another, or disagrees about where the data ends.
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

    /// The whole packet. `None` if it cannot be one, or was marked both as having met congestion and as not
    /// able to (RFC 3168 5.3).
    fn join(&self) -> Option<Vec<u8>> {
        let header = self.header.as_ref()?;
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

    /// The first fragment as it came.
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
