//! What a node reports.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use peersock_overlay::{NodeId, Peer, Place};

use peersock_datapath::Subscription;

/// Something that happened to a node's peers.
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
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A member of a network was found.
    PeerFound {
        /// Its node ID.
        id: NodeId,
    },
    /// There is an encrypted session with the peer: packets flow.
    PeerReachable {
        /// Its node ID.
        id: NodeId,
        /// Whether a root relays, as far as is known when the event is read.
        relayed: bool,
        /// Whether a TURN server relays: this node's, or the peer's as far as it has said so.
        turn: bool,
    },
    /// The peer now has another address, the path another size, or a root or a TURN server relays that did
    /// not before, or not any more.
    PathChanged {
        /// Its node ID.
        id: NodeId,
        /// Whether a root relays, as far as is known when the event is read.
        relayed: bool,
        /// Whether a TURN server relays: this node's, or the peer's as far as it has said so.
        turn: bool,
    },
    /// The session has ended: the peer left, or has not been heard of for minutes.
    PeerLost {
        /// Its node ID.
        id: NodeId,
    },
    /// The peer does not answer. The node goes on trying while sockets have something to send.
    PeerUnreachable {
        /// Its node ID.
        id: NodeId,
    },
}

/// The events of a node, in order. A reader that falls more than 1024 events behind misses the oldest.
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

    /// The next event, if one is there now.
    pub fn try_next(&self) -> Option<Event> {
        loop {
            if let Some(event) = translate(&self.queue.try_next()?) {
                return Some(event);
            }
        }
    }

    /// Whether the node is shut down and everything was read.
    pub fn is_over(&self) -> bool {
        self.queue.is_over()
    }

    /// Waits for an event up to `timeout`; not at all once the node is shut down.
    pub fn next_timeout(&self, timeout: Duration) -> Option<Event> {
        let deadline = std::time::Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if let Some(event) = translate(&self.queue.next_timeout(left)?) {
                return Some(event);
            }
        }
    }

    /// Waits for the next event, on any executor. It never comes once the node is shut down.
    pub async fn recv(&self) -> Event {
        poll_fn(|cx| self.poll_next(cx.waker()).map_or(Poll::Pending, Poll::Ready)).await
    }

    /// The next event, if one is there now. If there is none, `waker` is woken by the next, and by the end.
    pub fn poll_next(&self, waker: &Waker) -> Option<Event> {
        loop {
            if let Some(event) = translate(&self.queue.poll_next(waker)?) {
                return Some(event);
            }
        }
    }

    /// Ends these events, as the node's end does: threads that wait for them return.
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
            if let Some(event) = self.next_timeout(Duration::from_secs(3600)) {
                return Some(event);
            }
            if self.is_over() {
                return None;
            }
        }
    }
}

/// Changes of a node's roots: one has another [state](crate::RootStatus::state), has come, or is gone.
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

    /// Waits until something has changed since the last call, or since this was made. Several changes may be
    /// told as one. Returns false once the node is shut down, or after [`RootChanges::end`].
    pub fn wait(&self) -> bool {
        self.queue.wait_root_change()
    }

    /// Ends these changes, as the node's end does: threads that wait for them return.
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
