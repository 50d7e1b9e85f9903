//! UDP sockets that are wanted besides those that the driver has anyway, and what follows when they are
//! there.

use std::time::{Duration, Instant};

use super::Endpoint;
use crate::contact::WantedSocket;
use crate::link::{Context, Link, NodeKey, Timer};
use crate::reach::SocketInfo;

/// Sockets that no path uses are looked for so often.
const LOOK: Duration = Duration::from_secs(30);

impl Endpoint {
    /// The extra UDP sockets that the driver is to have, if that has changed since the last call: it opens
    /// those that are new, closes the others, and says by [`Self::set_extra_sockets`] which there are. To be
    /// called after every other call that takes `&mut self`. There are none but while a direct way is looked
    /// for by many ports (256 at most), and one for each path that was found so.
    pub fn poll_extra_sockets(&mut self) -> Option<Vec<WantedSocket>> {
        let wanted = self.core.birthday.poll_wanted()?;
        let is_closed = |known: &mut SocketInfo| {
            known.index.is_extra() && wanted.iter().all(|one| one.index != known.index)
        };
        let closed: Vec<_> = self.core.sockets.extract_if(.., is_closed).map(|known| known.index).collect();
        // Those that were tried and have led to nothing are no place of anybody.
        for node in self.nodes.keys() {
            for socket in &closed {
                self.nodes[node].reach.forget_socket(*socket);
            }
        }
        Some(wanted)
    }

    /// Gives the extra sockets that are open now, in place of those given before. A driver that could open
    /// none of those that are wanted, or not all, says so as well; one that never says anything is not waited
    /// for longer than two seconds.
    pub fn set_extra_sockets(&mut self, now: Instant, open: Vec<SocketInfo>) {
        self.core.sockets.retain(|known| !known.index.is_extra());
        self.core.sockets.extend(open.into_iter().filter(|socket| socket.index.is_extra()));
        if let Some(node) = self.core.birthday.node() {
            self.step_birthday(now, node, Link::on_extra_sockets);
        }
        if self.core.birthday.is_wanting() {
            self.core.timers.set_earlier(Timer::Sockets, now + LOOK);
        }
    }

    /// Does what is due of the search for a direct way to a node by many ports.
    pub(super) fn on_birthday_timer(&mut self, now: Instant, node: NodeKey) {
        self.step_birthday(now, node, Link::step_birthday);
    }

    fn step_birthday(&mut self, now: Instant, node: NodeKey, step: impl Fn(&mut Link, &mut Context<'_>)) {
        match self.carrier(node) {
            Some(key) => _ = self.link(now, key, step),
            // There is nobody left to talk to.
            None => _ = self.core.birthday.abandon(node),
        }
    }

    /// Has those extra sockets closed that no path has led over for a while.
    pub(super) fn close_unused_sockets(&mut self, now: Instant) {
        let places = self.nodes.keys().into_iter().filter_map(|node| self.nodes[node].reach.place());
        let used: Vec<_> = places.map(|place| place.socket()).filter(|socket| socket.is_extra()).collect();
        self.core.birthday.close_unused(&used, now);
        if self.core.birthday.is_wanting() {
            self.core.timers.set(Timer::Sockets, now + LOOK);
        }
    }
}
