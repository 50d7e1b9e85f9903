//! The roots of a node: their host names are resolved when the node starts, and again while a root is not
//! reached.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use peersock_overlay::{NodeId, RootConfig, RootState, is_endpoint};
use peersock_stack::Batch;
use peersock_streams::{ProxySettings, Target, Transport};

use super::Inner;
use super::resolver::{Resolve, Turn};
use crate::config::{HostEndpoint, RootAddress, RootTransport};
use crate::datapath::{Heard, Subscription};
use crate::driver::StreamConfig;
use crate::sync;

/// A root that UDP has had no answer from for so long is reached by a stream, if it takes any.
const STREAM_AFTER: Duration = Duration::from_secs(1);

/// How often it is looked whether the roots are reached.
const LOOK: Duration = Duration::from_secs(5);

/// What keeps the names of a list of roots resolved, until it is ended or the node ends.
pub(super) struct Used {
    is_current: Arc<Mutex<bool>>,
    events: Option<Arc<Subscription>>,
}

impl Used {
    /// From here on nothing is published any more: the node goes on with what it has, until another list takes
    /// its place.
    pub(super) fn end(self) {
        *sync::lock(&self.is_current) = false;
        if let Some(events) = &self.events {
            events.end();
        }
    }
}

/// Has the node use these roots, in place of those before: by UDP, and by streams where that has no answer.
pub(super) fn start(node: &Arc<Inner>, roots: &[RootAddress], resolve: Box<Resolve>) -> Used {
    let now = Instant::now();
    start_streams(node, roots);
    let roots: Vec<_> = roots.iter().map(|root| Root::new(root, now)).collect();
    let has_hosts = roots.iter().any(|root| !root.hosts.is_empty());
    let is_current = Arc::new(Mutex::new(true));
    let mut names = Names { node: Arc::downgrade(node), is_current: Arc::clone(&is_current), roots, resolve };
    names.publish();
    if !has_hosts {
        return Used { is_current, events: None };
    }
    let events = node.driver.datapath.subscribe();
    let used = Used { is_current, events: Some(Arc::clone(&events)) };
    let started = thread::Builder::new().name("peersock-roots".into()).spawn(move || names.run(&events));
    if let Err(error) = started {
        tracing::warn!(%error, "host names of roots are not resolved");
    }
    used
}

/// Has the node open streams to the roots that name ways for them.
fn start_streams(node: &Arc<Inner>, roots: &[RootAddress]) {
    let mut targets: BTreeMap<NodeId, Vec<Target>> = BTreeMap::new();
    for root in roots {
        for endpoint in root.endpoints() {
            let transport = match endpoint.transport {
                RootTransport::Udp => continue,
                RootTransport::Tcp => Transport::Tcp,
                RootTransport::Tls => Transport::Tls,
                RootTransport::WebSocket => Transport::WebSocket,
            };
            let target = Target::new(transport, endpoint.host(), endpoint.port());
            let known = targets.entry(root.identity().node_id()).or_default();
            known.push(target.with_key(*root.identity().ed25519()));
        }
    }
    if targets.is_empty() {
        return;
    }
    let driver = &node.driver;
    let proxy = ProxySettings::from_environment().map_err(|error| error.to_string());
    if let Err(error) = driver.start_streams(StreamConfig { targets, proxy }) {
        tracing::warn!(%error, "roots are reached by UDP only");
    }
}

struct Names {
    node: Weak<Inner>,
    is_current: Arc<Mutex<bool>>,
    roots: Vec<Root>,
    resolve: Box<Resolve>,
}

struct Root {
    config: RootConfig,
    node: NodeId,
    /// Its endpoints that are addresses.
    addresses: Vec<SocketAddr>,
    hosts: Vec<HostEndpoint>,
    turn: Turn,
    is_reached: bool,
}

impl Root {
    fn new(root: &RootAddress, now: Instant) -> Root {
        let udp = || root.endpoints().iter().filter(|endpoint| endpoint.transport == RootTransport::Udp);
        let addresses: Vec<_> = udp().filter_map(|endpoint| endpoint.address()).collect();
        let mut config = RootConfig::new(*root.identity(), addresses.clone());
        config.access = root.token().unwrap_or_default().to_vec();
        config.stream_after = match (udp().count(), root.endpoints().len()) {
            (0, _) => Some(Duration::ZERO),
            (udp, all) => (udp < all).then_some(STREAM_AFTER),
        };
        Root {
            config,
            node: root.identity().node_id(),
            addresses,
            hosts: udp().filter_map(|endpoint| endpoint.host_endpoint().cloned()).collect(),
            turn: Turn::new(now),
            is_reached: false,
        }
    }

    /// Looks its names up. What was found before stays where a name is not resolved now.
    fn look_up(&mut self, resolve: &Resolve) {
        let (mut endpoints, mut resolved) = (self.addresses.clone(), true);
        for host in &self.hosts {
            match resolve(host) {
                Ok(found) if !found.is_empty() => {
                    endpoints.extend(found.into_iter().map(crate::driver::canonical).filter(is_endpoint));
                }
                _ => {
                    resolved = false;
                    tracing::debug!(endpoint = %host, "the host name of a root was not resolved");
                }
            }
        }
        if self.turn.looked_up(Instant::now(), resolved) && !resolved {
            tracing::warn!("the host name of a root is not resolved; trying again (-vv names it)");
        }
        if resolved || self.config.endpoints.is_empty() {
            self.config.endpoints = endpoints;
        }
    }
}

impl Names {
    /// Looks names up when it is time, until the node ends.
    fn run(&mut self, events: &Subscription) {
        while !events.is_over() {
            let Some(reached) = self.reached() else { return };
            let mut changed = false;
            for root in self.roots.iter_mut().filter(|root| !root.hosts.is_empty()) {
                let was_reached = std::mem::replace(&mut root.is_reached, reached.contains(&root.node));
                if root.is_reached {
                    root.turn.connected(Instant::now());
                } else if was_reached {
                    root.turn.wanted(Instant::now());
                }
                if root.turn.due() <= Instant::now() {
                    // The node is not held while the system's resolver blocks.
                    root.look_up(&self.resolve);
                    changed = true;
                }
            }
            if changed {
                self.publish();
            }
            let named = self.roots.iter().filter(|root| !root.hosts.is_empty());
            let next = named.map(|root| root.turn.due().saturating_duration_since(Instant::now())).min();
            let end = Instant::now() + next.unwrap_or(LOOK).clamp(SHORTEST, LOOK);
            // Events wake this thread when the node ends; those of peers do not matter.
            while !events.is_over() && Instant::now() < end {
                let heard = events.next_or_change(end.saturating_duration_since(Instant::now()));
                if matches!(heard, Heard::NetworkChange) {
                    self.roots.iter_mut().for_each(|root| root.turn.network_changed(Instant::now()));
                    break;
                }
            }
        }
    }

    /// The roots that there is a session with; `None` if the node has ended.
    fn reached(&self) -> Option<Vec<NodeId>> {
        let roots = self.node.upgrade()?.driver.datapath.roots(Instant::now());
        let is_reached = |state| !matches!(state, RootState::Connecting | RootState::Unreachable);
        Some(roots.into_iter().filter(|root| is_reached(root.state)).map(|root| root.node).collect())
    }

    fn publish(&self) {
        let Some(node) = self.node.upgrade() else { return };
        // A later list must not be replaced by this one: it is published under the same lock.
        let is_current = sync::lock(&self.is_current);
        if node.is_down() || !*is_current {
            return;
        }
        let configs = self.roots.iter().map(|root| root.config.clone()).collect();
        node.driver.datapath.set_roots(Instant::now(), configs, &mut Batch::default());
        node.driver.kick();
        node.keep_contact();
    }
}

/// Between two looks there is at least so much time.
const SHORTEST: Duration = Duration::from_millis(100);
