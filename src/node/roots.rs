//! Roots of a node: their host names are resolved when a list first contains them, and again while a root is
//! unreachable.
//!
//! One thread resolves all names, however often the list changes, because a list's author must not be able to
//! create threads. The thread starts with the first name, and resolves one at a time, because the system's
//! resolver blocks. Names of roots that come first in the list have precedence, so a name that hangs delays
//! them by at most one look-up.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use peersock_overlay::{MAX_ROOTS, NodeId, RootConfig, RootState, is_endpoint};
use peersock_stack::Batch;

use super::Inner;
use super::resolver::{Resolve, Turn};
use crate::config::{HostEndpoint, RootAddress, RootTransport};
use crate::driver::canonical;
use crate::sync;
use peersock_datapath::{Heard, Subscription};

/// Time without an answer by UDP after which a root is reached by a stream, if it accepts streams.
const STREAM_DELAY: Duration = Duration::from_secs(1);

/// Sleep time while no name needs resolution; a change wakes the thread.
const IDLE_SLEEP: Duration = Duration::from_secs(3600);

/// Roots that a node uses, with the thread that resolves their names.
pub(super) struct Used {
    node: Weak<Inner>,
    resolve: Box<Resolve>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    roots: Vec<Root>,
    /// Subscription that wakes the thread; `None` until a name must be resolved.
    events: Option<Arc<Subscription>>,
}

impl Used {
    /// Starts without roots.
    pub(super) fn new(node: &Arc<Inner>, resolve: Box<Resolve>) -> Arc<Used> {
        Arc::new(Used { node: Arc::downgrade(node), resolve, state: Mutex::default() })
    }

    /// Makes the node use these roots instead of earlier ones: by UDP, and by streams if UDP has no answer.
    /// Resolved addresses of names that are in both lists stay.
    pub(super) fn set(self: &Arc<Self>, roots: &[RootAddress]) {
        let Some(node) = self.node.upgrade() else { return };
        // The endpoint uses no further roots, so resolving their names would be useless.
        let mut named = BTreeSet::from([node.identity.node_id()]);
        let by_key: BTreeSet<_> =
            roots.iter().filter(|root| !root.is_listed()).map(|root| root.identity().node_id()).collect();
        let roots = roots.iter().filter(|root| named.insert(root.identity().node_id()));
        let roots: Vec<_> = roots.take(MAX_ROOTS).collect();
        if let Err(error) = node.driver.start_streams(&roots) {
            tracing::warn!(%error, "roots are reached by UDP only");
        }
        let mut state = sync::lock(&self.state);
        let mut before = std::mem::take(&mut state.roots);
        let now = Instant::now();
        let with_state = |root: &&RootAddress| {
            let mut root = Root::new(root, now);
            if let Some(known) = before.iter_mut().find(|known| known.node == root.node) {
                root.keep(known);
            }
            // A root that the user has also named by its key is trusted fully.
            root.config.is_listed = !by_key.contains(&root.node);
            root
        };
        state.roots = roots.iter().map(with_state).collect();
        publish(&node, &state);
        if state.roots.iter().all(|root| root.hosts.is_empty()) {
            return;
        }
        match &state.events {
            Some(events) => events.wake(),
            None => state.events = self.start_thread(&node),
        }
    }

    fn start_thread(self: &Arc<Self>, node: &Inner) -> Option<Arc<Subscription>> {
        let events = node.driver.datapath.subscribe();
        let (used, its) = (Arc::clone(self), Arc::clone(&events));
        let thread = thread::Builder::new().name("peersock-roots".into());
        let started = thread.spawn(move || used.run(&its));
        started.inspect_err(|error| tracing::warn!(%error, "host names of roots are not resolved")).ok()?;
        Some(events)
    }

    /// Resolves names when they are due, until the node ends.
    fn run(&self, events: &Subscription) {
        while !events.is_over() {
            let Some(reached) = self.reached() else { return };
            let next = {
                let mut state = sync::lock(&self.state);
                state.roots.iter_mut().for_each(|root| root.note(reached.contains(&root.node)));
                state.next()
            };
            let wait = match next {
                Some((root, host, due)) if due <= Instant::now() => {
                    // Neither the node nor the list is locked while the system's resolver blocks.
                    let found = (self.resolve)(&host).unwrap_or_default();
                    self.take(&root, &host, found);
                    Duration::ZERO
                }
                Some((.., due)) => due.saturating_duration_since(Instant::now()),
                None => IDLE_SLEEP,
            };
            let end = Instant::now() + wait;
            // Changes of the list, of the network or of a root, and the end of the node wake this thread.
            // Events of peers do not matter.
            loop {
                match events.next_or_change(end.saturating_duration_since(Instant::now())) {
                    Heard::Event(_) => {}
                    Heard::NetworkChange => {
                        self.network_changed();
                        break;
                    }
                    Heard::RootChange | Heard::Nothing => break,
                }
            }
        }
    }

    /// Makes all names due, because they may resolve differently in another network.
    fn network_changed(&self) {
        let mut state = sync::lock(&self.state);
        for host in state.roots.iter_mut().flat_map(|root| &mut root.hosts) {
            host.turn.network_changed(Instant::now());
        }
    }

    /// Returns the roots that have a session; `None` if the node has ended.
    fn reached(&self) -> Option<Vec<NodeId>> {
        let roots = self.node.upgrade()?.driver.datapath.roots(Instant::now());
        let is_reached = |state| !matches!(state, RootState::Connecting | RootState::Unreachable);
        Some(roots.into_iter().filter(|root| is_reached(root.state)).map(|root| root.node).collect())
    }

    /// Stores the addresses of a name, if the root is still used.
    fn take(&self, root: &NodeId, host: &HostEndpoint, found: Vec<SocketAddr>) {
        let Some(node) = self.node.upgrade() else { return };
        // The system's resolver also returns IPv4 hosts as addresses in the NAT64's prefix.
        let found = found.into_iter().map(|at| node.driver.sockets.nat64.inner(canonical(at))).collect();
        let mut state = sync::lock(&self.state);
        let known = state.roots.iter_mut().find(|known| known.node == *root);
        let known = known.and_then(|root| root.hosts.iter_mut().find(|known| known.endpoint == *host));
        if known.is_some_and(|host| host.looked_up(Instant::now(), found)) {
            publish(&node, &state);
        }
    }
}

impl State {
    /// Returns the name to resolve next: the first one in the list that is due, or else the earliest one.
    fn next(&self) -> Option<(NodeId, HostEndpoint, Instant)> {
        let now = Instant::now();
        let names = || self.roots.iter().flat_map(|root| root.hosts.iter().map(move |host| (root, host)));
        let due = names().find(|(_, host)| host.turn.due() <= now);
        let (root, host) = due.or_else(|| names().min_by_key(|(_, host)| host.turn.due()))?;
        Some((root.node, host.endpoint.clone(), host.turn.due()))
    }
}

/// Publishes the roots to the node. The caller holds the state.
fn publish(node: &Arc<Inner>, state: &State) {
    if node.is_down() {
        return;
    }
    // Under the caller's lock, so that an older list cannot replace a newer one.
    let configs = state.roots.iter().map(Root::config).collect();
    node.driver.datapath.set_roots(Instant::now(), configs, &mut Batch::default());
    node.driver.kick();
    node.keep_contact();
}

struct Root {
    /// Configuration whose endpoints are the root's literal addresses.
    config: RootConfig,
    node: NodeId,
    hosts: Vec<Host>,
    is_reached: bool,
}

/// Host name of a root.
struct Host {
    endpoint: HostEndpoint,
    turn: Turn,
    found: Vec<SocketAddr>,
}

impl Root {
    fn new(root: &RootAddress, now: Instant) -> Root {
        let udp = || root.endpoints().iter().filter(|endpoint| endpoint.transport == RootTransport::Udp);
        let addresses = udp().filter_map(|endpoint| endpoint.address()).collect();
        let mut config = RootConfig::new(*root.identity(), addresses);
        config.access = root.token().unwrap_or_default().to_vec();
        config.stream_after = match (udp().count(), root.endpoints().len()) {
            // Without an endpoint for UDP there is nothing to wait for.
            (0, _) => Some(Duration::ZERO),
            (udp, all) => (udp < all).then_some(STREAM_DELAY),
        };
        let host = |endpoint: &HostEndpoint| Host {
            endpoint: endpoint.clone(),
            turn: Turn::new(now),
            found: Vec::new(),
        };
        Root {
            config,
            node: root.identity().node_id(),
            hosts: udp().filter_map(|endpoint| endpoint.host_endpoint()).map(host).collect(),
            is_reached: false,
        }
    }

    /// Takes over the state of the same root in the earlier list.
    fn keep(&mut self, before: &mut Root) {
        self.is_reached = before.is_reached;
        for host in &mut self.hosts {
            if let Some(known) = before.hosts.iter().position(|known| known.endpoint == host.endpoint) {
                *host = before.hosts.swap_remove(known);
            }
        }
    }

    fn config(&self) -> RootConfig {
        let mut config = self.config.clone();
        config.endpoints.extend(self.hosts.iter().flat_map(|host| host.found.iter().copied()));
        config
    }

    /// Notes the state of the session, which decides when names are resolved.
    fn note(&mut self, is_reached: bool) {
        let was_reached = std::mem::replace(&mut self.is_reached, is_reached);
        for host in &mut self.hosts {
            match (is_reached, was_reached) {
                (true, _) => host.turn.connected(Instant::now()),
                (false, true) => host.turn.wanted(Instant::now()),
                (false, false) => {}
            }
        }
    }
}

impl Host {
    /// Notes the result of a look-up. A failed one keeps the earlier addresses. Returns true if the addresses
    /// changed.
    fn looked_up(&mut self, now: Instant, found: Vec<SocketAddr>) -> bool {
        let is_resolved = !found.is_empty();
        if !is_resolved {
            tracing::debug!(endpoint = %self.endpoint, "the host name of a root was not resolved");
        }
        if self.turn.looked_up(now, is_resolved) && !is_resolved {
            tracing::warn!(endpoint = %self.endpoint, "the host name of a root is not resolved; trying again");
        }
        let found = distinct(found);
        let is_new = is_resolved && found != self.found;
        if is_new {
            self.found = found;
        }
        is_new
    }
}

/// Returns the usable addresses without duplicates, in their order.
fn distinct(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut known = BTreeSet::new();
    found.into_iter().filter(|at| is_endpoint(at) && known.insert(*at)).collect()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use peersock_overlay::Identity;

    use super::*;
    use crate::{IdentitySource, Interfaces, Node, RootSource};

    /// Limits the duration of a hang.
    const HANG_TIMEOUT: Duration = Duration::from_secs(60);

    #[test]
    fn changes_of_the_list_make_no_threads() {
        let node = node();
        let (asking, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let is_over = Arc::new(AtomicBool::new(false));
        let resolve = {
            let (asking, most, is_over) = (Arc::clone(&asking), Arc::clone(&most), Arc::clone(&is_over));
            move |_: &HostEndpoint| {
                most.fetch_max(asking.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                while !is_over.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(1));
                }
                asking.fetch_sub(1, Ordering::SeqCst);
                Err(io::ErrorKind::TimedOut.into())
            }
        };
        let used = Used::new(&node.inner, Box::new(resolve));
        for port in 1..20 {
            // The name is new each time, and so is an address of another root.
            let list = [root(1, &format!("hangs-{port}.example:1")), root(2, &format!("127.0.0.1:{port}"))];
            used.set(&list);
            wait_until(|| asking.load(Ordering::SeqCst) > 0);
        }
        assert_eq!(most.load(Ordering::SeqCst), 1, "one thread resolves all names");
        assert_eq!(endpoints(&node, 1), [([127, 0, 0, 1], 19).into()], "nothing waits for the resolver");
        is_over.store(true, Ordering::SeqCst);
    }

    #[test]
    fn what_was_resolved_stays_when_the_list_changes() {
        let node = node();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let resolve = move |host: &HostEndpoint| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(vec![([127, 0, 0, 1], host.port()).into()])
        };
        let used = Used::new(&node.inner, Box::new(resolve));
        let list = |port| [root(1, "127.0.0.1:7,named.example:9"), root(2, &format!("127.0.0.1:{port}"))];
        used.set(&list(5));
        let both: [SocketAddr; 2] = [([127, 0, 0, 1], 7).into(), ([127, 0, 0, 1], 9).into()];
        wait_until(|| endpoints(&node, 0) == both);
        for port in 6..20 {
            used.set(&list(port));
            assert_eq!(endpoints(&node, 0), both);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1, "nothing has changed about the name");
        // A new address of the same root keeps its resolved name; a removed name is forgotten.
        used.set(&[root(1, "127.0.0.1:8,named.example:9")]);
        assert_eq!(endpoints(&node, 0), [([127, 0, 0, 1], 8).into(), ([127, 0, 0, 1], 9).into()]);
        used.set(&[root(1, "127.0.0.1:8,other.example:10")]);
        wait_until(|| endpoints(&node, 0) == [([127, 0, 0, 1], 8).into(), ([127, 0, 0, 1], 10).into()]);
    }

    #[test]
    fn names_of_roots_that_are_not_used_are_not_resolved_and_those_named_first_come_first() {
        let node = node();
        let said = Arc::new(Mutex::new(Vec::new()));
        let names = Arc::clone(&said);
        let resolve = move |host: &HostEndpoint| {
            sync::lock(&names).push(host.host().to_owned());
            Err(io::ErrorKind::NotFound.into())
        };
        let used = Used::new(&node.inner, Box::new(resolve));
        let many = (0..200u16).map(|number| {
            // Each key occurs twice: the first entry of a key counts.
            root((number / 2) as u8 + 1, &format!("name-{number}.example:1"))
        });
        used.set(&many.collect::<Vec<_>>());
        wait_until(|| sync::lock(&said).len() > 2 * MAX_ROOTS);
        let said = sync::lock(&said).clone();
        let expected: Vec<_> = (0..MAX_ROOTS).map(|number| format!("name-{}.example", 2 * number)).collect();
        assert_eq!(said[0], expected[0]);
        assert!(said.iter().all(|name| expected.contains(name)), "{said:?}");
    }

    #[test]
    fn the_thread_ends_with_the_node() {
        let node = node();
        let used = Used::new(&node.inner, Box::new(|_: &HostEndpoint| Ok(Vec::new())));
        used.set(&[root(1, "named.example:1")]);
        let thread = Arc::downgrade(&used);
        drop(used);
        assert!(thread.strong_count() > 0, "the thread has it");
        node.shutdown(Duration::ZERO);
        wait_until(|| thread.strong_count() == 0);
    }

    fn node() -> Node {
        let builder = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback);
        builder.discovery(false).roots(Vec::<RootSource>::new()).start().expect("loopback sockets")
    }

    fn root(seed: u8, endpoints: &str) -> RootAddress {
        let key = *Identity::from_seed(&[seed; 32]).public();
        format!("{key}@{endpoints}").parse().expect("a root")
    }

    /// Returns the node's endpoints of a root, sorted.
    fn endpoints(node: &Node, index: usize) -> Vec<SocketAddr> {
        let mut endpoints = node.inner.driver.datapath.roots(Instant::now())[index].endpoints.clone();
        endpoints.sort();
        endpoints
    }

    fn wait_until(mut condition: impl FnMut() -> bool) {
        let since = Instant::now();
        while !condition() {
            assert!(since.elapsed() < HANG_TIMEOUT, "it has not come");
            thread::sleep(Duration::from_millis(2));
        }
    }
}
