//! Roots that announce themselves on the local networks.
//!
//! Any host there can do so. A root proves its key in the handshake, and the node contacts it only at the
//! source of the announcement. So a stranger can refuse service, and see what every root sees, but cannot
//! replace another root. The node uses two at a time, the first ones heard.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peersock_overlay::{NodeId, PublicIdentity, RootState, is_endpoint};

use super::List;
use crate::config::{RootAddress, RootEndpoint, RootSource, RootTransport};
use crate::driver::{Interfaces, UdpSockets};
use crate::node::Inner;
use crate::sync;

/// Limit of roots used at a time.
const MAX_ROOTS: usize = 2;

/// Limit of addresses of one root: it has several interfaces, and two families.
const MAX_ENDPOINTS: usize = 4;

/// Silence after which an unreachable root may be replaced by another one.
const REPLACEABLE_SILENCE: Duration = Duration::from_secs(30);

/// Capacity of this thread's queue of announcements; further ones are dropped.
const QUEUE: usize = 16;

/// Status text while no root is heard on the local networks.
const NO_ROOT_HEARD: &str = "no root announces itself on the local networks";

/// Interval of the check for silent roots.
const SILENCE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Uses the announced roots from now on, until the node ends.
pub(super) fn start(node: &Arc<Inner>, list: Arc<List>, part: usize) {
    let (sender, receiver) = mpsc::sync_channel(QUEUE);
    let told = node.driver.sockets.on_announcement(Box::new(move |remote, identity| {
        // The thread that reads the sockets must not block.
        let _ = sender.try_send((remote, identity));
    }));
    match told {
        Ok(true) => {}
        Ok(false) => {
            tracing::warn!("no root is found on the local networks: discovery is off");
            list.note(&RootSource::Lan, 0, Some("discovery is off".to_owned()));
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "no root is found on the local networks");
            list.note(&RootSource::Lan, 0, Some(error.to_string()));
            return;
        }
    }
    list.note(&RootSource::Lan, 0, Some(NO_ROOT_HEARD.to_owned()));
    let events = node.driver.datapath.subscribe();
    super::spawn("peersock-lan", move || {
        let (mut heard, mut told) = (Heard::default(), None::<Instant>);
        while !events.is_over() {
            let announced = match receiver.recv_timeout(SILENCE_CHECK_INTERVAL) {
                Ok(announced) => Some(announced),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // Only the end of the subscription matters; its events are discarded so that the queue stays
            // empty.
            while events.try_next().is_some() {}
            let now = Instant::now();
            heard.forget(now, || reached(&list));
            if let Some((remote, identity)) = announced {
                heard.add(now, remote, identity);
            }
            // Rate-limited, because each new list makes the node resolve names and contact roots again.
            if told.is_none_or(|told| now >= told + SILENCE_CHECK_INTERVAL) {
                let roots = heard.roots();
                list.note(&RootSource::Lan, roots.len(), roots.is_empty().then(|| NO_ROOT_HEARD.to_owned()));
                list.set(part, roots);
                told = Some(now);
            }
        }
    });
}

/// Listens for announcements until `until`, or until as many roots as a node uses are heard.
pub(super) fn hear(allowed: &Interfaces, port: u16, until: Instant) -> io::Result<Vec<RootAddress>> {
    let sockets = UdpSockets::bind(allowed.clone(), 0, Some(port))?;
    let heard = Arc::new(Mutex::new(Heard::default()));
    let its = Arc::clone(&heard);
    let listener = move |remote, identity| sync::lock(&its).add(Instant::now(), remote, identity);
    if !sockets.on_announcement(Box::new(listener))? {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "the discovery port cannot be used"));
    }
    sockets.hear_announcements(until, || sync::lock(&heard).0.len() == MAX_ROOTS);
    match sync::lock(&heard).roots() {
        roots if roots.is_empty() => Err(io::Error::new(io::ErrorKind::NotFound, NO_ROOT_HEARD)),
        roots => Ok(roots),
    }
}

/// Returns the roots that have a session.
fn reached(list: &List) -> Vec<NodeId> {
    let Some(node) = list.node.upgrade() else { return Vec::new() };
    let roots = node.driver.datapath.roots(Instant::now());
    let is_reached = |state| !matches!(state, RootState::Connecting | RootState::Unreachable);
    roots.into_iter().filter(|root| is_reached(root.state)).map(|root| root.node).collect()
}

/// Roots that were heard.
#[derive(Debug, Default)]
struct Heard(Vec<Announced>);

#[derive(Debug)]
struct Announced {
    identity: PublicIdentity,
    /// Endpoints with the time of the last announcement. The first ones heard keep their places.
    endpoints: Vec<(SocketAddr, Instant)>,
    last: Instant,
}

impl Heard {
    fn add(&mut self, now: Instant, remote: SocketAddr, identity: PublicIdentity) {
        // A forged source is no address of a root.
        if !is_endpoint(&remote) {
            return;
        }
        let known = match self.0.iter().position(|root| root.identity == identity) {
            Some(known) => known,
            // The first ones stay, so that a flood of announcements displaces no root.
            None if self.0.len() < MAX_ROOTS => {
                self.0.push(Announced { identity, endpoints: Vec::new(), last: now });
                self.0.len() - 1
            }
            None => return,
        };
        let root = &mut self.0[known];
        root.last = now;
        root.endpoints
            .retain(|(at, last)| *at == remote || now.saturating_duration_since(*last) < REPLACEABLE_SILENCE);
        if let Some((_, last)) = root.endpoints.iter_mut().find(|(at, _)| *at == remote) {
            *last = now;
        } else if root.endpoints.len() < MAX_ENDPOINTS {
            root.endpoints.push((remote, now));
        }
    }

    /// Removes silent roots; `reached` returns the roots that have a session.
    fn forget(&mut self, now: Instant, reached: impl FnOnce() -> Vec<NodeId>) {
        let is_silent = |root: &Announced| now.saturating_duration_since(root.last) >= REPLACEABLE_SILENCE;
        if self.0.iter().any(is_silent) {
            let reached = reached();
            self.0.retain(|root| !is_silent(root) || reached.contains(&root.identity.node_id()));
        }
    }

    fn roots(&self) -> Vec<RootAddress> {
        let at = |(remote, _): &(SocketAddr, Instant)| RootEndpoint::at(RootTransport::Udp, *remote);
        let root =
            |heard: &Announced| RootAddress::new(heard.identity, heard.endpoints.iter().map(at).collect());
        self.0.iter().map(root).collect()
    }
}

#[cfg(test)]
mod tests {
    use peersock_overlay::Identity;

    use super::*;

    fn key(seed: u8) -> PublicIdentity {
        *Identity::from_seed(&[seed; 32]).public()
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn strangers_take_neither_all_places_nor_those_of_others() {
        let (mut heard, now) = (Heard::default(), Instant::now());
        heard.add(now, at(1), key(1));
        for seed in 2..200 {
            heard.add(now, at(2), key(seed));
        }
        assert_eq!(heard.roots().len(), MAX_ROOTS);
        assert_eq!(*heard.roots()[0].identity(), key(1));
        // Many addresses claim to be one root.
        for port in 10..100 {
            heard.add(now, at(port), key(1));
        }
        assert_eq!(heard.roots()[0].endpoints().len(), MAX_ENDPOINTS);
        heard.add(now, "224.0.0.1:5".parse().expect("an address"), key(1));
        assert_eq!(heard.roots()[0].endpoints()[0].address(), Some(at(1)));
        // The set of used roots does not change while they are heard.
        let before = heard.roots();
        for port in [1, 10, 11, 12, 13, 14, 15] {
            heard.add(now + REPLACEABLE_SILENCE / 2, at(port), key(1));
        }
        assert_eq!(heard.roots(), before);
        heard.add(now + REPLACEABLE_SILENCE * 3 / 2, at(99), key(1));
        assert_eq!(heard.roots()[0].endpoints()[0].address(), Some(at(99)), "the others are silent");
    }

    #[test]
    fn a_root_that_is_silent_and_not_reached_gives_way() {
        let (mut heard, now) = (Heard::default(), Instant::now());
        heard.add(now, at(1), key(1));
        heard.add(now, at(2), key(2));
        let later = now + REPLACEABLE_SILENCE;
        heard.forget(later - Duration::from_millis(1), || unreachable!("none is silent"));
        heard.forget(later, || vec![key(2).node_id()]);
        heard.add(later, at(3), key(3));
        let keys: Vec<_> = heard.roots().iter().map(|root| *root.identity()).collect();
        assert_eq!(keys, [key(2), key(3)]);
    }
}
