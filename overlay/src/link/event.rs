//! What the driver is told.

use std::sync::Arc;

use crate::network::Prefix;
use crate::session::Peer;

/// What the driver should know; see [`Endpoint::poll_event`](crate::Endpoint::poll_event).
///
/// ```
/// use peersock_overlay::Event;
///
/// fn log(event: &Event) -> String {
///     format!("{:?}: {event:?}", event.peer().id())
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The peer was learned of: packets for it can be queued, and
    /// [`Endpoint::want_session`](crate::Endpoint::want_session) be called.
    PeerAdded(Arc<Peer>),
    /// The peer was forgotten: its network was left, its place was needed, or it was gone for
    /// [`Limits::forget_after`](crate::Limits::forget_after). The same node may come back as another
    /// [`Peer`].
    PeerRemoved(Arc<Peer>),
    /// There is a usable session where there was none, or the peer has restarted and this one is with its
    /// successor.
    SessionReady(Arc<Peer>),
    /// The last usable session is gone: it expired unused, the peer closed it, or the peer restarted.
    SessionLost(Arc<Peer>),
    /// The peer is reached elsewhere than before, or the size of the path's datagrams has changed.
    PathChanged(Arc<Peer>),
    /// The path has stopped carrying datagrams of its size: what was sent lately is lost, and is best sent
    /// again at once. Comes after the [`Event::PathChanged`] that tells the new size.
    PathShrunk(Arc<Peer>),
    /// The path carries short packets, but none of 198 bytes, the least size of a path's datagrams and that
    /// of an initiation: tried for 8 s. What waits to be sent cannot be, and the session cannot be renewed.
    PathTooSmall(Arc<Peer>),
    /// Initiations to where the peer may be have gone unanswered for 5 s. They are repeated for a while.
    PeerSilent(Arc<Peer>),
    /// A session was wanted for 5 s, and it is known that there is none to be had now: nobody says where the
    /// peer is, or its machine says that nobody listens there. It is still looked for a while.
    PeerUnreachable(Arc<Peer>),
    /// The program that was this peer is gone, and with it everything that was agreed with it inside the
    /// network: connections with it are to end. Its successor, if there is one, has a session by
    /// [`Event::SessionReady`], which comes later. A session that expires, is replaced, or whose path is
    /// broken is no reason for this.
    PeerGone(Arc<Peer>, Gone),
    /// An authentic packet of the peer has shown that packets pass, after a time in which perhaps they did
    /// not: it was silent for 500 ms or more though data was sent to it, its path or an address of this node
    /// has changed, or a handshake was repeated. What was sent before may be lost, and need not wait for a
    /// timer to be sent again.
    PathConfirmed(Arc<Peer>),
    /// The peer has other addresses than before; those listed here are not its any more. What was agreed with
    /// it under one of them is to end. See [`Endpoint::set_addresses`](crate::Endpoint::set_addresses).
    AddressesChanged(Arc<Peer>, Arc<[Prefix]>),
}

/// How it became known that a peer's program is gone.
///
/// ```
/// use peersock_overlay::{Event, Gone};
///
/// fn has_successor(event: &Event) -> bool {
///     matches!(event, Event::PeerGone(_, Gone::Restarted))
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gone {
    /// Another instance of the node has completed a handshake.
    Restarted,
    /// It has said so: it left the network, or the node was shut down.
    Left,
    /// Its machine has gone on saying that nobody listens at its port, and nothing was heard from itself.
    /// Alone among these it may be an error.
    Refused,
}

impl Event {
    /// The peer that it is about.
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
            | Self::PathConfirmed(peer) => peer,
        }
    }
}
