//! An observer of the whole wire, which checks that no nonce is ever used twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use peersock_overlay::wire::{Data, MessageType};

use crate::apps::Violation;

/// Observer of every datagram that any node sends.
#[derive(Debug, Default)]
pub struct WireObserver {
    /// Counters seen, by sender, receiver and receiver's index. The key has the receiver because two
    /// receivers may choose the same index.
    sessions: BTreeMap<(Sender, Option<usize>, [u8; 3]), Seen>,
    /// Data packets seen.
    pub data_packets: u64,
    /// Bytes of all datagrams.
    pub bytes: u64,
}

/// One run of a node. The node's sessions end with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender {
    /// Number of the node.
    pub node: usize,
    /// Number of the node's starts so far.
    pub start: u32,
}

#[derive(Debug, Default)]
struct Seen {
    /// Bitmap with one bit per counter.
    counters: Vec<u64>,
    packets: u64,
}

impl WireObserver {
    /// Observes a datagram for a socket that is or was `receiver`'s, if the receiver is known.
    /// Fails if the counter repeats an earlier one of the session, or is too high to be reached.
    pub fn see(
        &mut self,
        sender: Sender,
        (to, receiver): (SocketAddr, Option<usize>),
        payload: &[u8],
    ) -> Result<(), Violation> {
        self.bytes += payload.len() as u64;
        if MessageType::of(payload) != Some(MessageType::Data) {
            return Ok(());
        }
        let node = sender.node;
        let data = Data::parse(payload)
            .map_err(|error| Violation(format!("node {node} sent a broken data packet to {to}: {error}")))?;
        self.data_packets += 1;
        let index = data.receiver.to_be_bytes();
        let seen = self.sessions.entry((sender, receiver, index)).or_default();
        seen.packets += 1;
        // A node may seal some packets and never send them, but not millions.
        if data.counter > seen.packets + MAX_GAP {
            return Err(Violation(format!(
                "node {node} jumped to counter {} on session {index:02x?} after {} packets",
                data.counter, seen.packets
            )));
        }
        let (word, bit) = ((data.counter / 64) as usize, 1 << (data.counter % 64));
        if seen.counters.len() <= word {
            seen.counters.resize(word + 1, 0);
        }
        if seen.counters[word] & bit != 0 {
            return Err(Violation(format!(
                "node {node} used counter {} on session {index:02x?} twice",
                data.counter
            )));
        }
        seen.counters[word] |= bit;
        Ok(())
    }

    /// Returns the number of session directions seen.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

/// Packets of one session that may be sealed without being sent. Tests seal many themselves.
const MAX_GAP: u64 = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_may_come_once_per_session_and_direction() {
        let mut observer = WireObserver::default();
        let sender = |node, start| Sender { node, start };
        let to = |receiver| (SocketAddr::from(([192, 0, 2, 1], 1)), Some(receiver));
        let packet = |index: u8, counter: u8| {
            let mut packet = vec![0; 28];
            (packet[0], packet[3], packet[11]) = (0xd4, index, counter);
            packet
        };
        let all = [
            (sender(0, 0), 7, 1),
            (sender(0, 0), 7, 2),
            (sender(0, 0), 8, 1),
            (sender(1, 0), 7, 1),
            (sender(0, 1), 7, 1),
        ];
        for (sender, receiver, index) in all {
            assert!(observer.see(sender, to(receiver), &packet(index, 0)).is_ok());
            assert!(observer.see(sender, to(receiver), &packet(index, 1)).is_ok());
        }
        assert!(observer.see(sender(0, 0), to(7), &packet(1, 0)).is_err());
    }
}
