//! What an observer of the whole wire can check: that no nonce is ever used twice.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use peersock_overlay::wire::{Data, MessageType};

use crate::apps::Violation;

/// Watches every datagram that any node sends.
#[derive(Debug, Default)]
pub struct WireObserver {
    /// The counters that were seen, by sender, receiver and receiver's index. Two receivers may choose one
    /// index.
    sessions: BTreeMap<(Sender, Option<usize>, [u8; 3]), Seen>,
    /// Data packets seen.
    pub data_packets: u64,
    /// Bytes of all datagrams.
    pub bytes: u64,
}

/// One start of one node: its sessions end with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sender {
    /// Which node.
    pub node: usize,
    /// How often it had been started.
    pub start: u32,
}

#[derive(Debug, Default)]
struct Seen {
    /// One bit per counter.
    counters: Vec<u64>,
    packets: u64,
}

impl WireObserver {
    /// Sees a datagram leave a node for a socket that is or was `receiver`'s, if that is known.
    ///
    /// # Errors
    /// It has the counter of an earlier one of the same session, or one that cannot have been reached.
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
        // Some packets are sealed and never sent, but not millions.
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

    /// Directions of sessions seen.
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

/// Packets of one session that may be sealed without being sent; tests seal many by themselves.
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
