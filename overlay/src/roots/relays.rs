//! Roots that relay for this node, as the data path sees them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::Counters;
use crate::sync;
use crate::wire::{RelayToken, Relayed};

/// Addresses from which relayed frames are accepted, with their tokens. Control writes it, and the data path
/// reads it through a [`RelayReader`].
///
/// A frame's token keeps attackers that do not see the root's packets from sending frames in the root's name.
/// It proves nothing else: the content of the frame is checked like any datagram.
#[derive(Debug, Default)]
pub struct Relays {
    list: RwLock<Arc<[(SocketAddr, RelayToken)]>>,
    /// Number that changes after each change of the list.
    generation: AtomicU64,
    counters: Arc<Counters>,
}

impl Relays {
    /// Creates an empty list; `counters` counts refused frames.
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self { counters, ..Self::default() }
    }

    /// Replaces the list.
    pub(crate) fn publish(&self, list: Vec<(SocketAddr, RelayToken)>) {
        let mut known = sync::write(&self.list);
        // Readers drop what they remember with each new number, so an equal list must not make one.
        if known[..] != list[..] {
            *known = list.into();
            // Last, so that a reader who sees the new number also sees the new list.
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    fn token_of(&self, root: &SocketAddr) -> Option<RelayToken> {
        sync::read(&self.list).iter().find(|(known, _)| known == root).map(|(_, token)| *token)
    }
}

/// Parser of relayed frames. It remembers the last root, so that it takes a lock only when the source of
/// frames changes.
#[derive(Debug, Default)]
pub struct RelayReader {
    /// Generation of the list at the last read, an address, and its token in the list.
    last: Option<(u64, SocketAddr, Option<RelayToken>)>,
}

impl RelayReader {
    /// Returns the header of a frame and the datagram behind it, if it comes from a root that relays for this
    /// node and has the right token; others are counted. The header belongs into
    /// [`RecvMeta::relay`](crate::RecvMeta::relay).
    pub fn open<'a>(
        &mut self,
        relays: &Relays,
        root: SocketAddr,
        frame: &'a [u8],
    ) -> Option<(Relayed, &'a [u8])> {
        let opened = self.try_open(relays, root, frame);
        if opened.is_none() {
            relays.counters.relayed_unknown.increment();
        }
        opened
    }

    fn try_open<'a>(
        &mut self,
        relays: &Relays,
        root: SocketAddr,
        frame: &'a [u8],
    ) -> Option<(Relayed, &'a [u8])> {
        let (header, datagram) = Relayed::parse(frame).ok()?;
        // Read before the list. A change in between gives a newer token with an older number, and then the
        // list is read once more.
        let generation = relays.generation.load(Ordering::Acquire);
        let known = self.last.filter(|(at, address, _)| (*at, *address) == (generation, root));
        let token = match known {
            Some((_, _, token)) => token,
            None => {
                let token = relays.token_of(&root);
                // Unknown sources are remembered too, so that a flood of forged frames takes the lock only
                // once.
                self.last = Some((generation, root, token));
                token
            }
        };
        (token == Some(header.token)).then_some((header, datagram))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Channel;

    #[test]
    fn only_frames_of_a_root_with_its_token_are_opened() {
        let (relays, mut reader) = (Relays::default(), RelayReader::default());
        let root: SocketAddr = "192.0.2.1:7420".parse().unwrap();
        let other: SocketAddr = "192.0.2.2:7420".parse().unwrap();
        let token = RelayToken::from_be_bytes([1, 2, 3]);
        let header = Relayed { token, channel: Channel(7) };
        let frame = [&header.to_bytes()[..], b"inside"].concat();
        assert_eq!(reader.open(&relays, root, &frame), None);
        relays.publish(vec![(root, token)]);
        assert_eq!(reader.open(&relays, root, &frame), Some((header, &b"inside"[..])));
        assert_eq!(reader.open(&relays, other, &frame), None);
        assert_eq!(reader.open(&relays, root, &frame[..11]), None, "cut off");
        let mut forged = frame.clone();
        forged[3] ^= 1;
        assert_eq!(reader.open(&relays, root, &forged), None);
        relays.publish(vec![(root, RelayToken::from_be_bytes([4, 5, 6]))]);
        assert_eq!(reader.open(&relays, root, &frame), None, "the root has given another token since");
        relays.publish(Vec::new());
        assert_eq!(reader.open(&relays, root, &frame), None);
        assert_eq!(
            relays.counters.snapshot().iter().find(|(name, _)| *name == "relayed_unknown").unwrap().1,
            6
        );
    }
}
