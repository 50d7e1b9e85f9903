//! Nodes on a network in memory: one thread, no clock, no loss.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peersock_datapath::{Datapath, Ingress, JoinedNetwork, Sink, Transmit};
use peersock_overlay::{
    Candidate, CandidateKind, Contact, Endpoint, EndpointConfig, Identity, Nat, NetworkConfig, NodeId,
    RecvMeta, RootConfig, SocketIndex, SocketInfo, StaticMember, StaticNetwork,
};
use peersock_stack::{Batch, Config, Stack};
use peersock_testnet::{FakeRoot, Random};

pub(crate) struct Net {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Instant,
    /// Root in place of node [`ROOT`].
    pub(crate) root: FakeRoot,
    /// Number of batches of more than one datagram that went to the root.
    pub(crate) batches_relayed: usize,
    /// True if datagrams sent directly between nodes are dropped.
    apart: bool,
    /// Size of the longest datagram that arrives, bytes.
    pub(crate) longest: usize,
    wire: Wire,
}

const ROOT: usize = 0xff00;

pub(crate) struct Node {
    pub(crate) datapath: Datapath,
    pub(crate) network: JoinedNetwork,
    ingress: Ingress,
}

/// Datagrams in flight: sender, receiver, contents, and the size of each.
type Wire = Arc<Mutex<VecDeque<(usize, usize, Vec<u8>, usize)>>>;

struct Outbox {
    node: usize,
    wire: Wire,
}

impl Sink for Outbox {
    fn send(&self, transmit: &Transmit<'_>) {
        let stride = transmit.segment_size.unwrap_or(transmit.contents.len());
        let [_, _, high, low] = octets(transmit.remote);
        let to = usize::from(u16::from_be_bytes([high, low]));
        let sent = (self.node, to, transmit.contents.to_vec(), stride);
        self.wire.lock().expect("one thread").push_back(sent);
    }

    fn max_segments(&self, _socket: SocketIndex) -> usize {
        64
    }
}

impl Net {
    /// Builds a net in which node 0 knows all others, and those know node 0 and its endpoint. `addresses`
    /// returns a node's addresses besides the self-certifying one: in its own description and in that of node
    /// 0.
    pub(crate) fn star(nodes: usize, addresses: impl Fn(usize) -> [Vec<IpAddr>; 2]) -> Net {
        Net::star_with(&Config::default(), nodes, addresses)
    }

    /// Builds a star with settings of the stacks.
    pub(crate) fn star_with(
        config: &Config,
        nodes: usize,
        addresses: impl Fn(usize) -> [Vec<IpAddr>; 2],
    ) -> Net {
        #[allow(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
        let now = Instant::now();
        let wire = Wire::default();
        let member = |node: usize, addresses| StaticMember {
            identity: *identity(node).public(),
            name: None,
            addresses,
            endpoints: if node == 0 { vec![place(0)] } else { Vec::new() },
            routes: Vec::new(),
            exit: peersock_overlay::Exit::default(),
        };
        let describe = |node: usize| {
            let own = member(node, addresses(node)[0].clone());
            let others: Vec<StaticMember> = match node {
                0 => (1..nodes).map(|other| member(other, addresses(other)[1].clone())).collect(),
                _ => vec![member(0, addresses(0)[0].clone())],
            };
            let members = std::iter::once(own).chain(others).collect();
            NetworkConfig::Static(StaticNetwork {
                id: ID.parse().expect("an ID"),
                psk: None,
                members,
                exit: None,
                program: None,
            })
        };
        let nodes =
            (0..nodes).map(|node| Node::start(node, config, now, describe(node), wire.clone())).collect();
        let root = FakeRoot::new(identity(ROOT), UNIX_TIME, Random::from_seed(1));
        Net { nodes, now, root, batches_relayed: 0, apart: false, longest: usize::MAX, wire }
    }

    /// Builds a net whose nodes can only reach the root, where all are registered.
    pub(crate) fn relayed(nodes: usize) -> Net {
        let mut net = Net::star(nodes, |_| [vec![], vec![]]);
        net.apart = true;
        let root = RootConfig::new(*net.root.identity(), vec![place(ROOT)]);
        for node in 0..nodes {
            let Node { datapath, network, .. } = &net.nodes[node];
            if node > 0 {
                datapath.set_endpoints(net.now, network, &identity(0).node_id(), &[], &mut Batch::default());
            }
            datapath.set_roots(net.now, vec![root.clone()], &mut Batch::default());
        }
        net.run(Duration::from_secs(1), |_| false);
        net
    }

    /// Builds a net of nodes of a managed network that know where all others are.
    pub(crate) fn managed(nodes: usize, describe: impl Fn(usize) -> NetworkConfig) -> Net {
        #[allow(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
        let (now, config, wire) = (Instant::now(), Config::default(), Wire::default());
        let nodes: Vec<Node> =
            (0..nodes).map(|node| Node::start(node, &config, now, describe(node), wire.clone())).collect();
        let root = FakeRoot::new(identity(ROOT), UNIX_TIME, Random::from_seed(1));
        let mut net = Net { nodes, now, root, batches_relayed: 0, apart: false, longest: usize::MAX, wire };
        for from in 0..net.nodes.len() {
            for to in (0..from).rev() {
                net.meet(from, to);
            }
        }
        net
    }

    /// Tells a node where another one is, and lets them meet.
    pub(crate) fn meet(&mut self, from: usize, to: usize) {
        let (now, mut batch) = (self.now, Batch::default());
        for (here, there) in [(from, to), (to, from)] {
            let Node { datapath, network, .. } = &self.nodes[here];
            let contact = |node| Contact::new(Nat::default(), [candidate_of(node)]);
            datapath.set_contact(now, contact(here), &mut batch);
            datapath.meet(now, &network.id, identity(there).public(), &contact(there), now, &mut batch);
        }
        let (address, Node { datapath, network, .. }) = (self.address(to), &self.nodes[from]);
        datapath.want_peer(now, network, address, &mut batch);
        self.run(Duration::from_secs(2), |_| false);
    }

    pub(crate) fn id(&self, node: usize) -> NodeId {
        identity(node).node_id()
    }

    pub(crate) fn address(&self, node: usize) -> IpAddr {
        self.nodes[node].network.addresses[0]
    }

    /// Delivers until no datagram is in flight.
    pub(crate) fn deliver(&mut self) {
        while self.deliver_one() {}
    }

    /// Delivers the oldest datagrams; returns false if none are in flight.
    pub(crate) fn deliver_one(&mut self) -> bool {
        let next = self.wire.lock().expect("one thread").pop_front();
        let Some((from, to, bytes, stride)) = next else { return false };
        if to == ROOT {
            self.root_receives(from, &bytes, stride);
            return true;
        }
        if self.apart && from != ROOT || stride > self.longest {
            return true;
        }
        let meta = RecvMeta { remote: place(from), socket: SocketIndex(0), multicast: false, relay: None };
        let Node { datapath, ingress, .. } = &mut self.nodes[to];
        datapath.receive(self.now, ingress, meta, &bytes, stride, false);
        datapath.finish_receive(self.now, ingress);
        true
    }

    /// Handles a batch at the root, which passes on as one batch the datagrams for one node.
    fn root_receives(&mut self, from: usize, bytes: &[u8], stride: usize) {
        let mut out: Vec<(SocketAddr, Vec<u8>, usize)> = Vec::new();
        self.batches_relayed += usize::from(bytes.len() > stride);
        for datagram in bytes.chunks(stride) {
            for (to, datagram) in self.root.handle(self.now, place(from), datagram) {
                match out.last_mut().filter(|(last, _, _)| *last == to) {
                    Some((_, all, size)) if all.len() % *size == 0 && datagram.len() <= *size => {
                        all.extend_from_slice(&datagram);
                    }
                    _ => out.push((to, datagram.clone(), datagram.len())),
                }
            }
        }
        let mut wire = self.wire.lock().expect("one thread");
        for (to, bytes, stride) in out {
            let [_, _, high, low] = octets(to);
            wire.push_back((ROOT, usize::from(u16::from_be_bytes([high, low])), bytes, stride));
        }
    }

    /// Delivers all datagrams in flight, which go to one node, before that node answers.
    pub(crate) fn deliver_together(&mut self) {
        let under_way = std::mem::take(&mut *self.wire.lock().expect("one thread"));
        let to = under_way.front().expect("something is under way").1;
        let Node { datapath, ingress, .. } = &mut self.nodes[to];
        for (from, _, bytes, stride) in under_way {
            let meta =
                RecvMeta { remote: place(from), socket: SocketIndex(0), multicast: false, relay: None };
            datapath.receive(self.now, ingress, meta, &bytes, stride, false);
        }
        datapath.finish_receive(self.now, ingress);
    }

    /// Returns the number of batches in flight.
    pub(crate) fn under_way(&self) -> usize {
        self.wire.lock().expect("one thread").len()
    }

    /// Delivers, and runs timers, until `done` or for `time`.
    pub(crate) fn run(&mut self, time: Duration, mut done: impl FnMut(&mut Net) -> bool) -> bool {
        let end = self.now + time;
        loop {
            self.deliver();
            if done(self) {
                return true;
            }
            // Datagrams that `done` has sent are delivered first.
            if self.wire.lock().expect("one thread").is_empty() {
                let next = self.nodes.iter().filter_map(|node| node.datapath.poll_timeout()).min();
                match next {
                    Some(at) if at <= end => self.now = self.now.max(at),
                    _ => return false,
                }
                for node in &self.nodes {
                    node.datapath.handle_timeout(self.now, &mut Batch::default());
                }
            }
        }
    }

    /// Returns how often each node's threads have taken the control lock.
    pub(crate) fn control_locked(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.counter("control_locked")).collect()
    }
}

impl Node {
    fn start(node: usize, stack: &Config, now: Instant, network: NetworkConfig, wire: Wire) -> Node {
        let mut config = EndpointConfig::new(Arc::new(identity(node)));
        config.limits.handshakes_per_second = 1_000_000;
        config.limits.handshake_burst = 1_000_000;
        let endpoint = Endpoint::new(config, seed(node, 1), now, UNIX_TIME);
        let stack = Stack::new(stack.clone(), seed(node, 2), now);
        let datapath = Datapath::new(endpoint, stack, Arc::new(Outbox { node, wire }));
        let socket = SocketInfo {
            index: SocketIndex(0),
            ipv4: true,
            loopback: false,
            max_datagram: 1472,
            beacon_targets: Vec::new(),
        };
        let mut batch = Batch::default();
        datapath.set_sockets(now, vec![socket], &mut batch);
        let network = datapath.join(now, network, &mut batch).expect("a good description");
        Node { datapath, network, ingress: Ingress::default() }
    }

    /// Receives a datagram that belongs to no session.
    pub(crate) fn receive_garbage(&mut self, now: Instant, from: usize) {
        let meta = RecvMeta { remote: place(from), socket: SocketIndex(0), multicast: false, relay: None };
        self.datapath.receive(now, &mut self.ingress, meta, &[0xd9; 60], 60, false);
        self.datapath.finish_receive(now, &mut self.ingress);
    }

    pub(crate) fn leave(&self, now: Instant) {
        assert!(self.datapath.leave(now, self.network.id, &mut Batch::default()));
    }

    pub(crate) fn overlay_counter(&self, name: &str) -> u64 {
        let counters = self.datapath.overlay_counters();
        counters.iter().find(|(known, _)| *known == name).expect("a counter").1
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let counters = self.datapath.counters().snapshot();
        counters.iter().find(|(known, _)| *known == name).expect("a counter").1
    }
}

pub(crate) const UNIX_TIME: Duration = Duration::from_secs(1_800_000_000);

const ID: &str = "fe00000000000001";

fn candidate_of(node: usize) -> Candidate {
    Candidate { kind: CandidateKind::Mapped, address: place(node) }
}

pub(crate) fn identity(node: usize) -> Identity {
    Identity::from_seed(&seed(node, 0))
}

fn seed(node: usize, purpose: u8) -> [u8; 32] {
    let mut seed = [purpose; 32];
    seed[..8].copy_from_slice(&node.to_be_bytes());
    seed
}

/// Returns a node's endpoint.
fn place(node: usize) -> SocketAddr {
    let [high, low] = (node as u16).to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 4000))
}

fn octets(place: SocketAddr) -> [u8; 4] {
    match place.ip() {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(_) => unreachable!("all sockets are of IPv4"),
    }
}
