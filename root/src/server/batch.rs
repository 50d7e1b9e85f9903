//! Transfer from received trains to sent trains.
//!
//! A train whose frames all go to one node leaves unchanged, from the buffer it came in, because its headers
//! were overwritten in place. Other frames are gathered by their destination, so that many small trains or
//! single frames need few calls. The order per destination is kept.
//!
//! Under load more datagrams of a socket go to the same node, and the kernel needs nearly the same time for a
//! train as for one datagram. The rest, one frame for each of many nodes, shares a system call (`messages`).

use std::io::{self, IoSlice};
use std::net::SocketAddr;

use hashbrown::HashTable;
use peersock_primitives::Key;
use quinn_udp::EcnCodepoint;

use super::Gauges;
use super::messages::{MAX_MESSAGES, Message};
use super::udp::Sockets;
use crate::Source;

/// Limit of gathered bytes.
const CAPACITY: usize = 1 << 20;

/// Size limit of one train in bytes: the payload of a UDP datagram over IPv4, without headers.
const MAX_BYTES: usize = 65_000;

/// Frames gathered until the end of the batch.
#[derive(Debug)]
pub(super) struct Gathering {
    /// All frames, in the order of arrival.
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
    trains: Vec<Train>,
    /// Numbers of the trains, by destination.
    by_destination: HashTable<u32>,
    /// Hash key, secret because clients choose their addresses.
    key: Key,
}

/// Adjacent frames of one train.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: usize,
    end: usize,
    /// Number of the train's next piece.
    next: Option<u32>,
}

/// Frames to one destination with the same ECN mark.
#[derive(Debug)]
struct Train {
    to: (u16, SocketAddr),
    ecn: Option<EcnCodepoint>,
    segment: usize,
    count: usize,
    len: usize,
    /// First and last piece, unless the train is empty.
    ends: Option<(u32, u32)>,
}

impl Gathering {
    /// Allocates all memory for frames. `seed` is random.
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        Self {
            bytes: Vec::with_capacity(CAPACITY),
            pieces: Vec::new(),
            trains: Vec::new(),
            by_destination: HashTable::new(),
            key: Key::new(seed, "by_destination"),
        }
    }

    /// Adds frames of one train to the same node: `segment` bytes each, the last one may be shorter.
    pub(super) fn add(
        &mut self,
        sockets: &Sockets,
        gauges: &Gauges,
        to: (u16, SocketAddr),
        frames: &[u8],
        segment: usize,
        ecn: Option<EcnCodepoint>,
    ) {
        if self.bytes.len() + frames.len() > CAPACITY {
            self.flush(sockets, gauges);
        }
        // Frames with another ECN mark may overtake these; the trains of one flow have the same mark.
        let trains = &self.trains;
        let is_there = |number: &u32| {
            let train = &trains[*number as usize];
            train.to == to && train.ecn == ecn
        };
        let hash = self.key.digest(to);
        let found = self.by_destination.find(hash, is_there).copied();
        let has_more = frames.len() > segment;
        if let Some(number) = found {
            let takes = trains[number as usize].takes(frames.len(), segment, sockets.most_segments(to.0));
            if takes {
                return self.append(number, frames, segment);
            }
            // First, so that frames to one destination stay in order.
            self.send_train(sockets, gauges, number);
        }
        // A train that joins no other leaves at once, without a copy.
        if has_more {
            return send(sockets, gauges, to, frames, segment, ecn);
        }
        let number = found.unwrap_or_else(|| {
            let number = self.trains.len() as u32;
            self.trains.push(Train { to, ecn, segment, count: 0, len: 0, ends: None });
            let (trains, key) = (&self.trains, &self.key);
            self.by_destination.insert_unique(hash, number, |other| key.digest(trains[*other as usize].to));
            number
        });
        self.append(number, frames, segment);
    }

    /// Sends all gathered frames.
    pub(super) fn flush(&mut self, sockets: &Sockets, gauges: &Gauges) {
        match self.trains.len() {
            0 => return,
            1 => self.send_train(sockets, gauges, 0),
            count => {
                let numbers: Vec<_> = (0..count as u32).collect();
                self.send_several(sockets, gauges, &numbers);
            }
        }
        self.bytes.clear();
        self.pieces.clear();
        self.trains.clear();
        self.by_destination.clear();
    }

    fn append(&mut self, number: u32, frames: &[u8], segment: usize) {
        let train = &mut self.trains[number as usize];
        if train.count == 0 {
            train.segment = segment;
        }
        train.count += frames.len().div_ceil(segment.max(1));
        train.len += frames.len();
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frames);
        let end = self.bytes.len();
        if let Some((_, last)) = train.ends
            && self.pieces[last as usize].end == start
        {
            self.pieces[last as usize].end = end;
            return;
        }
        let added = self.pieces.len() as u32;
        self.pieces.push(Piece { start, end, next: None });
        if let Some((_, last)) = train.ends {
            self.pieces[last as usize].next = Some(added);
        }
        train.ends = Some((train.ends.map_or(added, |(first, _)| first), added));
    }

    /// Returns the pieces of a train, in order.
    fn pieces(&self, train: &Train) -> impl Iterator<Item = &[u8]> {
        let first = train.ends.map(|(first, _)| first);
        let numbers = std::iter::successors(first, |number| self.pieces[*number as usize].next);
        numbers.map(|number| {
            let Piece { start, end, .. } = self.pieces[number as usize];
            &self.bytes[start..end]
        })
    }

    /// Sends one train at once, and leaves it empty.
    fn send_train(&mut self, sockets: &Sockets, gauges: &Gauges, number: u32) {
        let train = &self.trains[number as usize];
        match train.ends {
            Some((first, last)) if first == last => {
                let Piece { start, end, .. } = self.pieces[first as usize];
                send(sockets, gauges, train.to, &self.bytes[start..end], train.segment, train.ecn);
            }
            Some(_) => self.send_several(sockets, gauges, &[number]),
            None => {}
        }
        let train = &mut self.trains[number as usize];
        (train.count, train.len, train.ends) = (0, 0, None);
    }

    /// Sends trains; trains of one socket need as few calls as possible.
    fn send_several(&self, sockets: &Sockets, gauges: &Gauges, numbers: &[u32]) {
        let trains = numbers.iter().map(|number| &self.trains[*number as usize]);
        let mut trains: Vec<_> = trains.filter(|train| train.count > 0).collect();
        let socket = |train: &&Train| sockets.number(train.to.0);
        trains.sort_by_key(socket);
        for some in
            trains.chunk_by(|a, b| socket(a) == socket(b)).flat_map(|alike| alike.chunks(MAX_MESSAGES))
        {
            self.send_some(sockets, gauges, some);
        }
    }

    /// Sends trains of one socket, at most [`MAX_MESSAGES`].
    fn send_some(&self, sockets: &Sockets, gauges: &Gauges, mut trains: &[&Train]) {
        let Some(first) = trains.first() else { return };
        let socket = sockets.number(first.to.0);
        let slices = trains.iter().flat_map(|train| self.pieces(train)).map(IoSlice::new);
        let slices: Vec<_> = slices.collect();
        let mut rest = &slices[..];
        let messages = trains.iter().map(|train| {
            let (pieces, others) = rest.split_at(self.pieces(train).count());
            rest = others;
            let segment = (train.count > 1).then_some(train.segment as u16);
            Message { to: train.to.1, from: sockets.ip(train.to.0), ecn: train.ecn, segment, pieces }
        });
        let messages: Vec<_> = messages.collect();
        while let Some(first) = trains.first() {
            gauges.traffic.send_calls.increment();
            let taken = match sockets.send_several(socket, &messages[messages.len() - trains.len()..]) {
                Ok(taken) => {
                    // At least 1, so that the loop ends whatever the system returns.
                    let taken = taken.clamp(1, trains.len());
                    let count: usize = trains[..taken].iter().map(|train| train.count).sum();
                    gauges.traffic.sent.add(count as u64);
                    taken
                }
                // Only this train is skipped, because the next one may be shorter and fit.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    gauges.traffic.send_failed.add(first.count as u64);
                    1
                }
                // The error may belong to an earlier datagram to another destination (ICMP), or to trains as
                // such.
                Err(_) => {
                    let frames = self.pieces(first).collect::<Vec<_>>().concat();
                    send(sockets, gauges, first.to, &frames, first.segment, first.ecn);
                    1
                }
            };
            trains = &trains[taken..];
        }
    }
}

impl Train {
    fn takes(&self, len: usize, segment: usize, most: usize) -> bool {
        let frames = len.div_ceil(segment.max(1));
        let is_empty = self.count == 0;
        // A shorter frame ends a train.
        let is_closed = !self.len.is_multiple_of(self.segment.max(1));
        // An empty train was flushed to keep the order before this frame.
        (is_empty && frames == 1)
            || !is_empty
                && !is_closed
                // One shorter frame may end the train.
                && (segment == self.segment || frames == 1 && segment < self.segment)
                && self.count + frames <= most
                && self.len + len <= MAX_BYTES
    }
}

/// Sends a train in as few calls as the socket allows.
fn send(
    sockets: &Sockets,
    gauges: &Gauges,
    (local, remote): (u16, SocketAddr),
    frames: &[u8],
    segment: usize,
    ecn: Option<EcnCodepoint>,
) {
    let segment = segment.max(1);
    let most = sockets.most_segments(local).min(MAX_BYTES / segment).max(1);
    for part in frames.chunks(segment * most) {
        let (count, is_train) = (part.len().div_ceil(segment), part.len() > segment);
        gauges.traffic.send_calls.increment();
        match sockets.send(local, remote, part, is_train.then_some(segment), ecn) {
            Ok(()) => gauges.traffic.sent.add(count as u64),
            Err(error) => {
                gauges.traffic.send_failed.add(count as u64);
                tracing::trace!(%error, to = %remote, "not sent");
            }
        }
    }
}

/// Sends one datagram at once.
pub(super) fn send_one(sockets: &Sockets, gauges: &Gauges, to: (u16, SocketAddr), datagram: &[u8]) {
    send(sockets, gauges, to, datagram, datagram.len(), None);
}

/// Returns the UDP destination of frames, if any.
pub(super) fn udp(to: Source) -> Option<(u16, SocketAddr)> {
    match to {
        Source::Udp { socket, remote } => Some((socket, remote)),
        Source::Stream { .. } => None,
    }
}
