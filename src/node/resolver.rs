//! Host names of members' endpoints: resolved when a network is joined, and again while there is no session.
//!
//! Each joined network with such names has a thread, because the system's resolver blocks. The cores only see
//! addresses: the thread passes them the whole list of a member's endpoints, including literal addresses of
//! the file.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Weak;
use std::thread;
use std::time::{Duration, Instant};

use peersock_overlay::{Event, NodeId, is_endpoint};
use peersock_stack::Batch;

use super::{Inner, Node};
use crate::config::{HostEndpoint, MemberHosts};
use peersock_datapath::{Heard, JoinedNetwork};

/// Minimum and maximum of the backoff after a failed resolution.
const MIN_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Minimum and maximum of the interval after a successful resolution that has led to no session.
const MIN_INTERVAL: Duration = Duration::from_secs(5);
const MAX_INTERVAL: Duration = Duration::from_secs(300);

/// Resolver of a host name.
pub(super) type Resolve = dyn Fn(&HostEndpoint) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// Resolves by the system: the hosts file, DNS, and whatever else it is configured for.
pub(super) fn ask_system(endpoint: &HostEndpoint) -> io::Result<Vec<SocketAddr>> {
    Ok((endpoint.host(), endpoint.port()).to_socket_addrs()?.collect())
}

/// Keeps the endpoints of a network's members up to date until the network is left or the node ends.
pub(super) fn start(node: &Node, network: &JoinedNetwork, members: Vec<MemberHosts>, resolve: Box<Resolve>) {
    if members.is_empty() {
        return;
    }
    let events = node.inner.driver.datapath.subscribe();
    let now = Instant::now();
    let mut resolver = Resolver {
        node: node.downgrade(),
        network: network.clone(),
        members: members.into_iter().map(|hosts| Member { hosts, turn: Turn::new(now) }).collect(),
        resolve,
    };
    let started = thread::Builder::new().name("peersock-names".into()).spawn(move || {
        while !events.is_over() && resolver.run() {
            let next = resolver.members.iter().map(|member| member.turn.due).min();
            let wait = next.map_or(MAX_BACKOFF, |next| next.saturating_duration_since(Instant::now()));
            match events.next_or_change(wait) {
                Heard::Event(event) => resolver.note(&event),
                Heard::NetworkChange => resolver.network_changed(),
                Heard::RootChange | Heard::Nothing => {}
            }
        }
    });
    if let Err(error) = started {
        tracing::warn!(%error, "host names of endpoints are not resolved");
    }
}

struct Resolver {
    node: Weak<Inner>,
    network: JoinedNetwork,
    members: Vec<Member>,
    resolve: Box<Resolve>,
}

struct Member {
    hosts: MemberHosts,
    turn: Turn,
}

impl Resolver {
    /// Resolves due names. Returns false once the network is left or the node has ended.
    fn run(&mut self) -> bool {
        for member in &mut self.members {
            if member.turn.due > Instant::now() {
                continue;
            }
            // No reference to the node is held while the system's resolver blocks.
            let Some(connected) = connected(&self.node, &self.network, &member.hosts.node) else {
                return false;
            };
            if connected {
                member.turn.connected(Instant::now());
                continue;
            }
            let (endpoints, resolved) = look_up(&member.hosts, &self.resolve, &member.turn, &self.network);
            member.turn.looked_up(Instant::now(), resolved);
            let Some(node) = self.node.upgrade() else { return false };
            // The system's resolver also returns IPv4 hosts as addresses in the NAT64's prefix.
            let mut endpoints: Vec<_> =
                endpoints.into_iter().map(|at| node.driver.sockets.nat64.inner(at)).collect();
            endpoints.dedup();
            let (datapath, now) = (&node.driver.datapath, Instant::now());
            datapath.set_endpoints(now, &self.network, &member.hosts.node, &endpoints, &mut Batch::default());
        }
        true
    }

    fn network_changed(&mut self) {
        for member in &mut self.members {
            member.turn.network_changed(Instant::now());
        }
    }

    fn note(&mut self, event: &Event) {
        let (Event::PeerSilent(peer) | Event::PeerUnreachable(peer) | Event::SessionLost(peer)) = event
        else {
            return;
        };
        for member in self.members.iter_mut().filter(|member| member.hosts.node == *peer.id()) {
            member.turn.wanted(Instant::now());
        }
    }
}

/// Returns whether a session with a member exists; `None` if the node has ended or the network was left.
fn connected(node: &Weak<Inner>, network: &JoinedNetwork, member: &NodeId) -> Option<bool> {
    let node = node.upgrade()?;
    let datapath = &node.driver.datapath;
    datapath.networks().iter().find(|joined| joined.index == network.index)?;
    let peers = datapath.peers();
    let found = peers.iter().find(|info| info.peer.network() == network.index && info.peer.id() == member);
    Some(found.is_some_and(|info| info.established.is_some()))
}

/// Returns all endpoints of a member that are known now, and whether each of its names was resolved.
fn look_up(
    member: &MemberHosts,
    resolve: &Resolve,
    turn: &Turn,
    network: &JoinedNetwork,
) -> (Vec<SocketAddr>, bool) {
    let mut endpoints = member.addresses.clone();
    let mut resolved = true;
    for host in &member.hosts {
        match resolve(host) {
            Ok(found) if !found.is_empty() => {
                tracing::debug!(endpoint = %host, addresses = found.len(), "a host name was resolved");
                endpoints.extend(found.into_iter().map(crate::driver::canonical).filter(is_endpoint));
            }
            answer => {
                resolved = false;
                let error = answer.err().unwrap_or_else(|| io::ErrorKind::NotFound.into());
                tracing::debug!(endpoint = %host, %error, "a host name was not resolved");
                // One warning per outage, not per attempt.
                if turn.failures == 0 {
                    tracing::warn!(
                        network = %network.id,
                        endpoint = %host,
                        "the host name of a member's endpoint is not resolved; trying again"
                    );
                }
            }
        }
    }
    (endpoints, resolved)
}

/// Schedule of the look-ups of one member's names.
#[derive(Debug)]
pub(super) struct Turn {
    due: Instant,
    last: Option<Instant>,
    /// Number of look-ups in a row that failed.
    failures: u32,
    /// Number of look-ups in a row that succeeded and did not lead to a session.
    in_vain: u32,
}

impl Turn {
    pub(super) fn new(now: Instant) -> Turn {
        Turn { due: now, last: None, failures: 0, in_vain: 0 }
    }

    /// Returns the time of the next look-up.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Notes the result of a look-up. Returns true if it was the first since all names were resolved.
    pub(super) fn looked_up(&mut self, now: Instant, resolved: bool) -> bool {
        let is_first = self.failures == 0;
        self.last = Some(now);
        let wait = match resolved {
            true => {
                (self.failures, self.in_vain) = (0, self.in_vain.saturating_add(1));
                MAX_INTERVAL.min(MIN_INTERVAL * 2u32.pow((self.in_vain - 1).min(16)))
            }
            false => {
                self.failures = self.failures.saturating_add(1);
                MAX_BACKOFF.min(MIN_BACKOFF * 2u32.pow((self.failures - 1).min(16)))
            }
        };
        self.due = now + wait;
        is_first
    }

    /// Notes a session: the next look-up waits until the session is lost, which is an event.
    pub(super) fn connected(&mut self, now: Instant) {
        (self.failures, self.in_vain) = (0, 0);
        self.due = now + MAX_INTERVAL;
    }

    /// Makes the names due soon after a network change.
    pub(super) fn network_changed(&mut self, now: Instant) {
        // The obstacle may be gone, and names may resolve differently in another network.
        (self.in_vain, self.failures) = (0, self.failures.min(1));
        self.due = self.due.min(self.last.map_or(now, |last| now.max(last + MIN_BACKOFF)));
    }

    /// Makes the names due soon for a wanted member that does not answer.
    pub(super) fn wanted(&mut self, now: Instant) {
        self.in_vain = 0;
        // Failed look-ups keep their own pauses.
        if self.failures == 0 {
            self.due = self.due.min(self.last.map_or(now, |last| now.max(last + MIN_INTERVAL)));
        }
    }
}

#[cfg(all(test, feature = "static-networks"))]
mod tests {
    use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::sync;
    use crate::{IdentitySource, Interfaces, Network, Seed};

    /// Limits the duration of a hang.
    const HANG_TIMEOUT: Duration = Duration::from_secs(120);

    #[test]
    fn failures_are_repeated_soon_and_answers_less_and_less_often() {
        let now = Instant::now();
        let mut turn = Turn::new(now);
        let mut waits = |resolved: bool, count: usize| -> Vec<_> {
            let wait = |_| {
                turn.looked_up(now, resolved);
                (turn.due - now).as_millis()
            };
            (0..count).map(wait).collect()
        };
        assert_eq!(waits(false, 9), [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]);
        assert_eq!(waits(true, 8), [5000, 10000, 20000, 40000, 80000, 160_000, 300_000, 300_000]);
        assert_eq!(waits(false, 1), [500]);
        assert_eq!(waits(false, 40).last(), Some(&60000));
    }

    #[test]
    fn a_member_that_is_wanted_and_not_there_is_looked_up_at_once_but_not_all_the_time() {
        let now = Instant::now();
        let mut turn = Turn::new(now);
        for _ in 0..10 {
            turn.looked_up(now, true);
        }
        turn.wanted(now + Duration::from_secs(1));
        assert_eq!(turn.due, now + MIN_INTERVAL);
        let later = now + Duration::from_secs(20);
        turn.connected(now);
        turn.wanted(later);
        assert_eq!(turn.due, later);
    }

    #[test]
    fn a_change_of_the_network_ends_the_wait_and_makes_the_next_ones_short() {
        let now = Instant::now();
        let mut turn = Turn::new(now);
        for resolved in [false, true] {
            for _ in 0..20 {
                turn.looked_up(now, resolved);
            }
            let later = now + Duration::from_secs(20);
            turn.network_changed(now);
            assert_eq!(turn.due, now + MIN_BACKOFF, "it was asked just now");
            turn.network_changed(later);
            assert_eq!(turn.due, now + MIN_BACKOFF);
            for _ in 0..20 {
                turn.looked_up(now, resolved);
            }
            turn.network_changed(later);
            assert_eq!(turn.due, later);
            assert!(!turn.looked_up(later, false) || resolved, "what was said is not said again");
            assert!(turn.due <= later + 2 * MIN_BACKOFF);
        }
    }

    /// The names are wrong at first, then no node is at the address, then it is right; finally the member
    /// moves.
    #[test]
    fn a_member_is_found_by_a_name_that_becomes_right_after_a_while_and_again_where_it_moves_to() {
        let (alpha, beta) = (Seed([1; 32]), Seed([2; 32]));
        let text = format!(
            "network = \"fe000000000000a1\"\n[[member]]\nkey = \"{}\"\n[[member]]\nkey = \"{}\"\n",
            alpha.public_identity(),
            beta.public_identity()
        );
        let network = Network::parse_toml(&text).expect("it is valid");
        let node = |seed| {
            let builder =
                Node::builder().identity(IdentitySource::Seed(seed)).interfaces(Interfaces::Loopback);
            builder.discovery(false).start().expect("loopback sockets")
        };
        let (alpha, beta) = (node(alpha), node(beta));
        let port_of = |node: &Node| {
            let endpoints = node.status().endpoints;
            endpoints.iter().find(|at| at.is_ipv4()).expect("an IPv4 socket").port()
        };
        let port = Arc::new(AtomicU16::new(port_of(&beta)));
        let dead = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let (dead_port, asked) =
            (dead.local_addr().expect("its address").port(), Arc::new(AtomicUsize::new(0)));
        let said = Arc::new(Mutex::new(Vec::new()));

        let home = alpha.join(network.clone()).expect("alpha is a member");
        let target = beta.join(network.clone()).expect("beta is a member").address();
        let (count, names, right) = (Arc::clone(&asked), Arc::clone(&said), Arc::clone(&port));
        let resolve = move |host: &HostEndpoint| {
            sync::lock(&names).push(host.to_string());
            let port = match count.fetch_add(1, Ordering::SeqCst) {
                0 => return Err(io::ErrorKind::NotFound.into()),
                1 => return Ok(Vec::new()),
                2 => dead_port,
                _ => right.load(Ordering::SeqCst),
            };
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
        };
        let hosts = vec!["beta.example:7420".parse().expect("an endpoint")];
        let joined = alpha.inner.driver.datapath.networks()[0].clone();
        start(
            &alpha,
            &joined,
            vec![MemberHosts { node: beta.id(), addresses: vec![], hosts }],
            Box::new(resolve),
        );
        home.wait_peer(target.into(), HANG_TIMEOUT).expect("it is found by the fourth answer");
        assert!(asked.load(Ordering::SeqCst) >= 4);
        assert_eq!(sync::lock(&said)[0], "beta.example:7420");

        // The new node opens its socket before the old one closes its socket, so that they have two ports.
        let moved = node(Seed([2; 32]));
        assert_ne!(port_of(&moved), port_of(&beta));
        port.store(port_of(&moved), Ordering::SeqCst);
        beta.shutdown(Duration::ZERO);
        moved.join(network).expect("it has beta's identity");
        let session =
            || home.peers().iter().any(|peer| peer.path.is_some_and(|at| at.port() == port_of(&moved)));
        let since = Instant::now();
        while !session() {
            assert!(since.elapsed() < HANG_TIMEOUT, "it is not found where it is now");
            let _ = home.wait_peer(target.into(), Duration::from_millis(100));
            thread::sleep(Duration::from_millis(10));
        }
    }
}
