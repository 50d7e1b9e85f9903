//! From the trains that came in to the trains that leave.
//!
//! A train whose frames all go to one node leaves as it is, from the buffer it came in: its headers have been
//! written over in place. Other frames are gathered by their destination, so that many small trains, or
//! single frames, become few calls. Per destination the order stays.

use std::net::SocketAddr;

use quinn_udp::EcnCodepoint;

use super::Gauges;
use super::udp::{Sockets, TRAIN};
use crate::Source;

/// Destinations that frames are gathered for at the same time.
const GATHERED: usize = 64;

/// Bytes of one call: what fits into a UDP datagram over IPv4, headers not counted.
const MAX_BYTES: usize = 65_000;

/// Frames that wait for the end of the batch.
#[derive(Debug)]
pub(super) struct Gathering {
    trains: Vec<Train>,
    /// How many of them are in use.
    used: usize,
}

#[derive(Debug)]
struct Train {
    to: (u16, SocketAddr),
    ecn: Option<EcnCodepoint>,
    segment: usize,
    count: usize,
    /// A shorter frame is the last one of a train.
    is_closed: bool,
    bytes: Vec<u8>,
}

impl Gathering {
    /// All memory that it will use.
    pub(super) fn new() -> Self {
        let train = || Train {
            to: (0, SocketAddr::from(([0; 4], 0))),
            ecn: None,
            segment: 0,
            count: 0,
            is_closed: false,
            bytes: Vec::with_capacity(TRAIN),
        };
        Self { trains: std::iter::repeat_with(train).take(GATHERED).collect(), used: 0 }
    }

    /// Frames of one train that go to the same node: `segment` bytes each, the last one perhaps shorter.
    pub(super) fn add(
        &mut self,
        sockets: &Sockets,
        gauges: &Gauges,
        to: (u16, SocketAddr),
        frames: &[u8],
        segment: usize,
        ecn: Option<EcnCodepoint>,
    ) {
        let most = sockets.most_segments(to.0);
        let open = self.trains[..self.used].iter().position(|train| train.to == to && train.ecn == ecn);
        if let Some(open) = open {
            let train = &mut self.trains[open];
            if train.takes(frames.len(), segment, most) {
                return train.append(frames, segment);
            }
            train.flush(sockets, gauges);
            if frames.len() > segment {
                return send(sockets, gauges, to, frames, segment, ecn);
            }
            return train.append(frames, segment);
        }
        // Frames of one kind of ECN mark may be overtaken by those of another; trains of one flow have the
        // same.
        if frames.len() > segment {
            return send(sockets, gauges, to, frames, segment, ecn);
        }
        if self.used == GATHERED {
            self.flush(sockets, gauges);
        }
        let train = &mut self.trains[self.used];
        (train.to, train.ecn) = (to, ecn);
        train.append(frames, segment);
        self.used += 1;
    }

    /// Sends all that waits.
    pub(super) fn flush(&mut self, sockets: &Sockets, gauges: &Gauges) {
        for train in &mut self.trains[..self.used] {
            train.flush(sockets, gauges);
        }
        self.used = 0;
    }
}

impl Train {
    fn takes(&self, len: usize, segment: usize, most: usize) -> bool {
        let frames = len.div_ceil(segment.max(1));
        let is_empty = self.count == 0;
        is_empty
            || !self.is_closed
                // One shorter frame may end the train.
                && (segment == self.segment || frames == 1 && segment < self.segment)
                && self.count + frames <= most
                && self.bytes.len() + len <= MAX_BYTES
    }

    fn append(&mut self, frames: &[u8], segment: usize) {
        if self.count == 0 {
            self.segment = segment;
        }
        self.bytes.extend_from_slice(frames);
        self.count += frames.len().div_ceil(segment.max(1));
        self.is_closed = !self.bytes.len().is_multiple_of(self.segment.max(1));
    }

    fn flush(&mut self, sockets: &Sockets, gauges: &Gauges) {
        if self.count > 0 {
            send(sockets, gauges, self.to, &self.bytes, self.segment, self.ecn);
        }
        self.bytes.clear();
        (self.count, self.is_closed) = (0, false);
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
                tracing::trace!(%error, %remote, "not sent");
            }
        }
    }
}

/// Sends one datagram at once.
pub(super) fn send_one(sockets: &Sockets, gauges: &Gauges, to: (u16, SocketAddr), datagram: &[u8]) {
    send(sockets, gauges, to, datagram, datagram.len(), None);
}

/// Where frames go, if it is a socket.
pub(super) fn udp(to: Source) -> Option<(u16, SocketAddr)> {
    match to {
        Source::Udp { socket, remote } => Some((socket, remote)),
        Source::Stream { .. } => None,
    }
}
