//! Events for the driver.

use std::sync::Arc;

use crate::membership::{Answer, NetworkKey, Question, Refusal};
use crate::network::Prefix;
use crate::session::Peer;

/// Event that the driver should handle; see [`Endpoint::poll_event`](crate::Endpoint::poll_event).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The peer is known now: packets for it can be queued, and
    /// [`Endpoint::want_session`](crate::Endpoint::want_session) can be called.
    PeerAdded(Arc<Peer>),
    /// The peer was forgotten: its network was left, its slot was needed, or it was gone for
    /// [`Limits::forget_after`](crate::Limits::forget_after). The same node may come back as another
    /// [`Peer`].
    PeerRemoved(Arc<Peer>),
    /// A usable session exists where there was none, or the peer has restarted and this session is with its
    /// successor.
    SessionReady(Arc<Peer>),
    /// The last usable session is gone: it expired unused, the peer closed it, or the peer restarted.
    SessionLost(Arc<Peer>),
    /// The peer is reached elsewhere than before, or the path's datagram size has changed.
    PathChanged(Arc<Peer>),
    /// The path has stopped carrying datagrams of its size: recent packets are lost, and should be sent again
    /// at once. Comes after the [`Event::PathChanged`] with the new size.
    PathShrunk(Arc<Peer>),
    /// The path carries short packets, but for 8 s none of 198 bytes, the smallest datagram size of a path
    /// and the size of an initiation. Queued packets cannot be sent, and the session cannot be renewed.
    PathTooSmall(Arc<Peer>),
    /// Initiations to the peer's possible addresses have gone unanswered for 5 s. The node repeats them for a
    /// while.
    PeerSilent(Arc<Peer>),
    /// A session was wanted for 5 s, and none can be had now: no source knows the peer's address, or its
    /// machine refuses packets at its port. The node goes on looking for it for a while.
    PeerUnreachable(Arc<Peer>),
    /// The peer's program is gone, and with it all state agreed inside the network: end connections with it.
    /// A successor, if any, gets a session with a later [`Event::SessionReady`]. A session that expires, is
    /// replaced, or has a broken path does not cause this event.
    PeerGone(Arc<Peer>, Gone),
    /// An authentic packet of the peer has shown that packets pass, after a time in which they may have been
    /// lost. The peer was silent for 500 ms or more though data was sent to it, its path or an address of
    /// this node has changed, or a handshake was repeated. Earlier packets may be lost; resend them without
    /// waiting for a timer.
    PathConfirmed(Arc<Peer>),
    /// A controller has answered a question of this node about a managed network. If it has renewed this
    /// node's credentials, [`Endpoint::membership`](crate::Endpoint::membership) has them.
    Answered(Arc<Peer>, Box<Answer>),
    /// A node asks this one, which is a controller of the network. The answer goes to
    /// [`Endpoint::answer`](crate::Endpoint::answer) with the number.
    Asked(Arc<Peer>, u32, Box<Question>),
    /// A managed network's key is not known here, and the peer's credentials claim this one. If its stretched
    /// hash is the network's ID, it belongs to
    /// [`Endpoint::set_network_key`](crate::Endpoint::set_network_key).
    KeyClaimed(Arc<Peer>, NetworkKey),
    /// This node has learned from the peer that another key has followed the key of its managed network.
    KeyChanged(Arc<Peer>),
    /// The revocations that this node knows have changed, or were confirmed.
    RevocationsChanged(Arc<Peer>),
    /// This node has learned of newer access rules of the peer's network.
    RulesChanged(Arc<Peer>),
    /// The name or the tags of an admitted peer are others than before.
    IdentityChanged(Arc<Peer>),
    /// The peer has refused this node's credentials.
    RefusedBy(Arc<Peer>, Refusal),
    /// The peer's addresses have changed; the listed ones are no longer its addresses. State agreed under one
    /// of them should end. See [`Endpoint::set_addresses`](crate::Endpoint::set_addresses).
    AddressesChanged(Arc<Peer>, Arc<[Prefix]>),
}

/// Evidence that a peer's program is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gone {
    /// Another instance of the node has completed a handshake.
    Restarted,
    /// The peer said so: it left the network, or the node was shut down.
    Left,
    /// The network admits the peer no longer: it was revoked, or its credentials have ended.
    Expelled,
    /// The peer's machine has kept refusing packets at its port, and the peer itself was not heard. This is
    /// the only evidence that may be wrong.
    Refused,
}

impl Event {
    /// Returns the peer that the event is about.
    pub fn peer(&self) -> &Arc<Peer> {
        match self {
            Self::PeerAdded(peer)
            | Self::PeerRemoved(peer)
            | Self::SessionReady(peer)
            | Self::SessionLost(peer)
            | Self::PathChanged(peer)
            | Self::PathShrunk(peer)
            | Self::PathTooSmall(peer)
            | Self::PeerSilent(peer)
            | Self::PeerUnreachable(peer)
            | Self::PeerGone(peer, _)
            | Self::AddressesChanged(peer, _)
            | Self::Answered(peer, _)
            | Self::Asked(peer, ..)
            | Self::KeyClaimed(peer, _)
            | Self::KeyChanged(peer)
            | Self::RevocationsChanged(peer)
            | Self::RulesChanged(peer)
            | Self::IdentityChanged(peer)
            | Self::RefusedBy(peer, _)
            | Self::PathConfirmed(peer) => peer,
        }
    }
}
