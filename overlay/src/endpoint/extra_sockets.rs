//! UDP sockets wanted in addition to the driver's regular ones, and the handling of their changes.

use std::time::{Duration, Instant};

use super::Endpoint;
use crate::contact::WantedSocket;
use crate::link::{Context, Link, NodeKey, Timer};
use crate::reach::SocketInfo;

/// Interval of checks for sockets that no path uses.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

impl Endpoint {
    /// Returns the extra UDP sockets that the driver should have, if they have changed since the last call.
    /// The driver opens new ones, closes the others, and reports the open ones with
    /// [`Self::set_extra_sockets`]. Poll this after every `&mut self` call. Extra sockets exist only during a
    /// search by many ports (256 at most), and one for each path found that way.
    pub fn poll_extra_sockets(&mut self) -> Option<Vec<WantedSocket>> {
        let wanted = self.core.birthday.poll_wanted()?;
        let is_closed = |known: &mut SocketInfo| {
            known.index.is_extra() && wanted.iter().all(|one| one.index != known.index)
        };
        let closed: Vec<_> = self.core.sockets.extract_if(.., is_closed).map(|known| known.index).collect();
        // Sockets of a failed search are not places of any node.
        for node in self.nodes.keys() {
            for socket in &closed {
                self.nodes[node].reach.forget_socket(*socket);
            }
        }
        Some(wanted)
    }

    /// Sets the extra sockets that are open now, replacing those set before. A driver that could not open all
    /// of the wanted sockets, or none, reports that as well. The endpoint waits at most two seconds for a
    /// report.
    pub fn set_extra_sockets(&mut self, now: Instant, open: Vec<SocketInfo>) {
        self.core.sockets.retain(|known| !known.index.is_extra());
        self.core.sockets.extend(open.into_iter().filter(|socket| socket.index.is_extra()));
        if let Some(node) = self.core.birthday.node() {
            self.step_birthday(now, node, Link::on_extra_sockets);
        }
        if self.core.birthday.is_wanting() {
            self.core.timers.set_earlier(Timer::Sockets, now + CHECK_INTERVAL);
        }
    }

    /// Performs the due step of the search for a direct path by many ports.
    pub(super) fn on_birthday_timer(&mut self, now: Instant, node: NodeKey) {
        self.step_birthday(now, node, Link::step_birthday);
    }

    fn step_birthday(&mut self, now: Instant, node: NodeKey, step: impl Fn(&mut Link, &mut Context<'_>)) {
        match self.carrier(node) {
            Some(key) => _ = self.link(now, key, step),
            // Without a session there is no peer to search with.
            None => _ = self.core.birthday.abandon(node),
        }
    }

    /// Closes the extra sockets that no path has used for a while.
    pub(super) fn close_unused_sockets(&mut self, now: Instant) {
        let places = self.nodes.keys().into_iter().filter_map(|node| self.nodes[node].reach.place());
        let used: Vec<_> = places.map(|place| place.socket()).filter(|socket| socket.is_extra()).collect();
        self.core.birthday.close_unused(&used, now);
        if self.core.birthday.is_wanting() {
            self.core.timers.set(Timer::Sockets, now + CHECK_INTERVAL);
        }
    }
}
