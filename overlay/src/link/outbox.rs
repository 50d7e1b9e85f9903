//! Queue of datagrams that wait for the driver.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::reach::Place;
use crate::session::Session;
use crate::wire::{Control, DATA_OVERHEAD, ProbeSize};

/// One datagram for the driver to send; its bytes are in the buffer given to
/// [`Endpoint::poll_transmit`](crate::Endpoint::poll_transmit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmit {
    /// Destination; its address may be a multicast group or a broadcast address.
    pub place: Place,
    /// Length in bytes, the same as the buffer's. Includes the header for a relaying root.
    pub len: usize,
}

#[derive(Debug)]
enum Payload {
    Ready(Vec<u8>),
    /// Probe that is padded and sealed only when sent, so that waiting probes occupy no memory.
    Probe {
        session: Arc<Session>,
        id: u32,
        size: usize,
    },
}

/// Bounded queue of outgoing datagrams. A driver drains it after every call, so it fills only when one call
/// produces very much. Datagrams over the limit are dropped, as a network would.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<(Place, Payload)>,
}

/// Maximum number of queued datagrams; the largest ready one is a beacon of under 300 bytes.
const CAPACITY: usize = 4096;

impl Outbox {
    /// Queues finished bytes. Returns false if there is no room.
    pub(crate) fn push(&mut self, place: Place, datagram: Vec<u8>) -> bool {
        self.push_payload(place, Payload::Ready(datagram))
    }

    /// Queues a probe in a datagram of `size` bytes, without the place's overhead. Returns false if there is
    /// no room.
    pub(crate) fn push_probe(&mut self, place: Place, session: Arc<Session>, id: u32, size: usize) -> bool {
        self.push_payload(place, Payload::Probe { session, id, size })
    }

    fn push_payload(&mut self, place: Place, payload: Payload) -> bool {
        let room = self.queue.len() < CAPACITY;
        if room {
            self.queue.push_back((place, payload));
        }
        room
    }

    /// Writes the next datagram into `buf`. Probes whose session has expired meanwhile are skipped.
    pub(crate) fn pop(&mut self, buf: &mut Vec<u8>) -> Option<Transmit> {
        loop {
            let (place, payload) = self.queue.pop_front()?;
            buf.clear();
            buf.extend(place.relay().iter().flat_map(|header| header.to_bytes()));
            let front = buf.len();
            match payload {
                Payload::Ready(datagram) => buf.extend_from_slice(&datagram),
                // Sealed as late as possible: probes are large, and most of a queue may be probes.
                Payload::Probe { session, id, size } => {
                    let len = ProbeSize::new(size.saturating_sub(DATA_OVERHEAD)).unwrap_or(ProbeSize::MIN);
                    let mut message = Vec::new();
                    Control::Probe { id, len }.emit(&mut message);
                    buf.resize(front + message.len() + DATA_OVERHEAD, 0);
                    if session.seal(&message, &mut buf[front..]).is_err() {
                        continue;
                    }
                }
            }
            return Some(Transmit { place, len: buf.len() });
        }
    }
}
