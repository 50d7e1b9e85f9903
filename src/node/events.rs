//! Events that a node reports.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use peersock_overlay::{NodeId, Peer, Place};

use peersock_datapath::Subscription;
use serde::{Deserialize, Serialize};

use super::status::text;

/// Change of a node's peers.
///
/// ```no_run
/// # let node = peersock::node()?;
/// for event in node.events() {
///     if let peersock::Event::PeerReachable { id, relayed, turn } = event {
///         let by = match (relayed, turn) {
///             (true, _) => ", by way of a root",
///             (_, true) => ", by way of a TURN server",
///             _ => "",
///         };
///         println!("{id} is there{by}");
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Event {
    /// A member of a network was found.
    PeerFound {
        /// Node ID of the peer.
        #[serde(with = "text")]
        id: NodeId,
    },
    /// A session with the peer exists: packets flow.
    PeerReachable {
        /// Node ID of the peer.
        #[serde(with = "text")]
        id: NodeId,
        /// True if a root relays, as far as is known when the event is read.
        relayed: bool,
        /// True if a TURN server relays: this node's, or the peer's as far as it has said so.
        turn: bool,
    },
    /// The peer's address or the path's size has changed, or a root or a TURN server started or stopped
    /// relaying.
    PathChanged {
        /// Node ID of the peer.
        #[serde(with = "text")]
        id: NodeId,
        /// True if a root relays, as far as is known when the event is read.
        relayed: bool,
        /// True if a TURN server relays: this node's, or the peer's as far as it has said so.
        turn: bool,
    },
    /// The session has ended: the peer left, or was silent for minutes.
    PeerLost {
        /// Node ID of the peer.
        #[serde(with = "text")]
        id: NodeId,
    },
    /// The peer does not answer. The node keeps trying while sockets have data to send.
    PeerUnreachable {
        /// Node ID of the peer.
        #[serde(with = "text")]
        id: NodeId,
    },
}

/// Events of a node, in order. A reader that falls more than 1024 events behind misses the oldest.
///
/// As an iterator it waits until the node is shut down; see also [`Events::next_timeout`] and
/// [`Events::recv`].
pub struct Events {
    queue: Arc<Subscription>,
}

impl Events {
    pub(super) fn new(queue: Arc<Subscription>) -> Events {
        Events { queue }
    }

    /// Returns the next event, if one is available now.
    pub fn try_next(&self) -> Option<Event> {
        loop {
            if let Some(event) = translate(&self.queue.try_next()?) {
                return Some(event);
            }
        }
    }

    /// Returns true if the node is shut down and all events were read.
    pub fn is_over(&self) -> bool {
        self.queue.is_over()
    }

    /// Waits for an event up to `timeout`; does not wait once the node is shut down.
    pub fn next_timeout(&self, timeout: Duration) -> Option<Event> {
        let deadline = std::time::Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if let Some(event) = translate(&self.queue.next_timeout(left)?) {
                return Some(event);
            }
        }
    }

    /// Waits for the next event, on any executor. Never completes once the node is shut down.
    pub async fn recv(&self) -> Event {
        poll_fn(|cx| self.poll_next(cx.waker()).map_or(Poll::Pending, Poll::Ready)).await
    }

    /// Returns the next event, if one is available now. Otherwise the next event, or the end, wakes `waker`.
    pub fn poll_next(&self, waker: &Waker) -> Option<Event> {
        loop {
            if let Some(event) = translate(&self.queue.poll_next(waker)?) {
                return Some(event);
            }
        }
    }

    /// Ends these events, as the node's end does: waiting threads return.
    pub fn end(&self) {
        self.queue.end();
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            // A long timeout, because the wait needs some and the end of the node wakes it.
            if let Some(event) = self.next_timeout(Duration::from_secs(3600)) {
                return Some(event);
            }
            if self.is_over() {
                return None;
            }
        }
    }
}

/// Changes of a node's roots: a root's [state](crate::RootStatus::state) changed, or a root was added or
/// removed.
///
/// ```no_run
/// # let node = peersock::node()?;
/// let changes = node.root_changes();
/// while changes.wait() {
///     for root in node.roots() {
///         println!("{}: {}", root.id, root.state);
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct RootChanges {
    queue: Arc<Subscription>,
}

impl RootChanges {
    pub(super) fn new(queue: Arc<Subscription>) -> RootChanges {
        RootChanges { queue }
    }

    /// Waits until something has changed since the last call, or since the value was made. Several changes
    /// may be merged into one. Returns false once the node is shut down, or after [`RootChanges::end`].
    pub fn wait(&self) -> bool {
        self.queue.wait_root_change()
    }

    /// Ends these changes, as the node's end does: waiting threads return.
    pub fn end(&self) {
        self.queue.end();
    }
}

impl std::fmt::Debug for RootChanges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootChanges").finish_non_exhaustive()
    }
}

fn translate(event: &peersock_overlay::Event) -> Option<Event> {
    use peersock_overlay::Event as Overlay;
    let id = |peer: &Arc<Peer>| *peer.id();
    let relays = |peer: &Arc<Peer>| {
        let path = peer.path();
        (
            path.is_some_and(|path| matches!(path.place, Place::Relayed { .. })),
            path.is_some_and(|path| path.turn),
        )
    };
    Some(match event {
        Overlay::PeerAdded(peer) => Event::PeerFound { id: id(peer) },
        Overlay::SessionReady(peer) => {
            let (relayed, turn) = relays(peer);
            Event::PeerReachable { id: id(peer), relayed, turn }
        }
        Overlay::PathChanged(peer) => {
            let (relayed, turn) = relays(peer);
            Event::PathChanged { id: id(peer), relayed, turn }
        }
        Overlay::SessionLost(peer) => Event::PeerLost { id: id(peer) },
        Overlay::PeerSilent(peer) | Overlay::PeerUnreachable(peer) => Event::PeerUnreachable { id: id(peer) },
        _ => return None,
    })
}
