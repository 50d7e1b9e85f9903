//! Other ends of connections that have ended, for programs that ask about a connection later.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use peersock::overlay::PeerDescription;
use peersock_fd::SocketId;

/// Number of ended connections whose other ends are known, of some 200 bytes each, or less where connections
/// with a member share its description.
const MAX_ENDED: usize = 4096;

/// Other ends of the last connections that have ended.
#[derive(Default)]
pub(crate) struct EndedPeers {
    known: HashMap<SocketId, Arc<PeerDescription>>,
    order: VecDeque<SocketId>,
}

impl EndedPeers {
    /// Notes the other end of a connection that has just ended.
    pub(crate) fn note(&mut self, id: SocketId, peer: Arc<PeerDescription>) {
        if self.known.insert(id, peer).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > MAX_ENDED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(crate) fn find(&self, id: SocketId) -> Option<Arc<PeerDescription>> {
        self.known.get(&id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use peersock::{IdentitySource, Interfaces, Network, Node};

    use super::*;

    #[test]
    fn only_the_last_ones_are_kept() {
        let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        let node = node.start().expect("a node");
        let network = Network::ad_hoc("ff0001ffff000000".parse().expect("an ID"));
        let own = node.join(network).expect("a network").address().into();
        let handle = peersock::attach::NodeHandle::of(&node);
        let peer = handle.peer_at(own).expect("its own address");
        let mut ended = EndedPeers::default();
        for number in 0..2 * MAX_ENDED as u64 {
            ended.note(SocketId(number), Arc::clone(&peer));
            // A socket that is noted twice takes one place.
            ended.note(SocketId(number), Arc::clone(&peer));
        }
        let kept = (0..2 * MAX_ENDED as u64).filter(|number| ended.find(SocketId(*number)).is_some());
        assert!(kept.eq(MAX_ENDED as u64..2 * MAX_ENDED as u64));
        assert_eq!((ended.known.len(), ended.order.len()), (MAX_ENDED, MAX_ENDED));
    }
}
