//! Backlog of a listener: handshakes in progress, handshakes that wait for a place, and connections to
//! accept.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::host::clock::{Time, since};
use crate::{Error, Flow, Ready};

/// Time to wait for handshakes that hold all places of a listener which [counts
/// exactly](crate::Listener::listen_exactly). It is the time of the first retransmission of a SYN (RFC 6298
/// 2).
const HANDSHAKES_TAKE: Duration = Duration::from_secs(1);

/// Maximum number of handshakes that wait for a place of such a listener. Each takes the memory of a
/// connection without data, and counts among its peer's connections. One peer may have half of them, so that
/// it cannot keep others out.
const MAX_HELD_HANDSHAKES: usize = 32;
const MAX_HELD_OF_PEER: usize = MAX_HELD_HANDSHAKES / 2;

/// Time after which no cookie can come back.
const COOKIE_LIFETIME: Duration = Duration::from_secs(128);

/// Result for a SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The SYN took a place of the backlog.
    Place,
    /// Other handshakes hold all places, so a cookie answers the SYN.
    Cookie,
    /// Other handshakes hold all places for a moment; the answer waits for a free place.
    Held,
    /// Unaccepted connections hold all places, or too many handshakes wait.
    Full,
}

/// Connections of a listener that have not been accepted.
#[derive(Default)]
pub(crate) struct Queue {
    /// Number of places; 0 while the socket is only bound.
    backlog: usize,
    /// True after [`Listener::listen_exactly`](crate::Listener::listen_exactly).
    is_exact: bool,
    handshakes: usize,
    /// Handshakes that wait for a place, the oldest first. Some may have ended.
    held: VecDeque<(IpAddr, Weak<Flow>)>,
    /// Time since which there have been handshakes. One that is completed renews nothing, because a peer
    /// could complete one now and then to keep the others' cookies away.
    handshaking: Option<Time>,
    established: VecDeque<Arc<Flow>>,
    /// Number of accepted connections that keep their place until it is freed.
    kept: usize,
    closed: Option<Error>,
    /// Times of the last SYN answered with a cookie, and of the last returning cookie without a place.
    cookie: Option<Time>,
    refused: Option<Time>,
}

impl Queue {
    /// Takes out the oldest established connection.
    pub(crate) fn take(&mut self) -> Result<Arc<Flow>, Error> {
        self.established.pop_front().ok_or(self.closed.unwrap_or(Error::WouldBlock))
    }

    /// Returns the number of places that connections hold.
    fn waiting(&self) -> usize {
        self.established.len() + self.kept
    }

    /// Returns true if connections leave a place.
    fn may_take(&self) -> bool {
        self.closed.is_none() && self.waiting() < self.backlog
    }

    /// Returns true if connections and handshakes leave a place.
    fn has_place(&self) -> bool {
        self.closed.is_none() && self.handshakes + self.waiting() < self.backlog
    }

    /// Returns true if another handshake of this peer may wait for a place.
    fn may_hold(&mut self, peer: IpAddr) -> bool {
        // Handshakes that have ended must not count against their peer.
        self.held.retain(|(_, held)| held.strong_count() > 0);
        let of_peer = self.held.iter().filter(|(of, _)| *of == peer).count();
        self.held.len() < MAX_HELD_HANDSHAKES && of_peer < MAX_HELD_OF_PEER
    }

    fn add_handshake(&mut self, now: Time) {
        self.handshakes += 1;
        self.handshaking.get_or_insert(now);
    }

    /// Frees the place of a handshake that failed.
    pub(crate) fn end_handshake(&mut self) {
        self.handshakes = self.handshakes.saturating_sub(1);
        // Only an empty backlog ends the time. A peer could otherwise keep cookies away with one handshake
        // after the other.
        if self.handshakes == 0 {
            self.handshaking = None;
        }
    }

    /// Takes out the oldest established connection and keeps its place until it is freed.
    pub(crate) fn take_in_place(&mut self) -> Result<Arc<Flow>, Error> {
        let flow = self.take()?;
        self.kept += 1;
        Ok(flow)
    }

    pub(crate) fn free_place(&mut self) {
        self.kept = self.kept.saturating_sub(1);
    }

    pub(crate) fn set_backlog(&mut self, backlog: usize, is_exact: bool) {
        (self.backlog, self.is_exact) = (backlog.max(1), is_exact);
    }

    /// Returns true if the socket listens and is not only bound.
    pub(crate) fn listens(&self) -> bool {
        self.backlog > 0
    }

    /// Closes the queue with `error`; returns unaccepted connections and waiting handshakes.
    pub(crate) fn close(&mut self, error: Error) -> (VecDeque<Arc<Flow>>, Vec<Arc<Flow>>) {
        // The first reason stays, because a listener whose network is gone is closed afterwards too.
        self.closed.get_or_insert(error);
        let held = self.held.drain(..).filter_map(|(_, held)| held.upgrade()).collect();
        (std::mem::take(&mut self.established), held)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    pub(crate) fn readiness(&self) -> Ready {
        match self.closed {
            Some(_) => Ready::READABLE | Ready::READ_CLOSED,
            None if self.established.is_empty() => Ready::EMPTY,
            None => Ready::READABLE,
        }
    }

    /// Takes a place for a new handshake if one is left.
    pub(crate) fn begin_handshake(&mut self, now: Time, peer: IpAddr) -> Admission {
        if !self.may_take() {
            return Admission::Full;
        }
        if self.has_place() {
            self.add_handshake(now);
            return Admission::Place;
        }
        // The handshakes may all complete in a moment, or never.
        let is_young = self.handshaking.is_some_and(|began| since(now, began) < HANDSHAKES_TAKE);
        // A dropped SYN would come again only after a second, so a short wait is better.
        if self.is_exact && is_young {
            return if self.may_hold(peer) { Admission::Held } else { Admission::Full };
        }
        self.cookie = Some(now);
        Admission::Cookie
    }

    /// Adds a handshake that waits for a place.
    pub(crate) fn hold(&mut self, flow: &Arc<Flow>) {
        self.held.push_back((flow.remote().ip(), Arc::downgrade(flow)));
    }

    /// Takes a free place for the handshake that has waited longest, which may have ended.
    pub(crate) fn next_held(&mut self, now: Time) -> Option<Weak<Flow>> {
        if !self.has_place() {
            return None;
        }
        let (_, held) = self.held.pop_front()?;
        self.add_handshake(now);
        Some(held)
    }

    /// Queues a connection after its handshake; returns `false` if the listener is closed.
    pub(crate) fn enqueue(&mut self, flow: Arc<Flow>) -> bool {
        // The place passes from the handshake to the connection, so the sum stays the same.
        self.end_handshake();
        if self.closed.is_none() {
            self.established.push_back(flow);
        }
        self.closed.is_none()
    }

    pub(crate) fn has_given_cookies(&self, now: Time) -> bool {
        self.cookie.is_some_and(|given| since(now, given) < COOKIE_LIFETIME)
    }

    /// Takes a place for a connection whose cookie came back; returns `false` if there is none.
    pub(crate) fn take_cookie(&mut self, now: Time) -> bool {
        // Pending handshakes do not block it, because the returned cookie proves the peer's address.
        let free = self.may_take();
        if free {
            self.add_handshake(now);
        } else {
            self.refused = Some(now);
        }
        free
    }

    pub(crate) fn has_refused_cookies(&self, now: Time) -> bool {
        self.refused.is_some_and(|refused| since(now, refused) < COOKIE_LIFETIME)
    }
}
