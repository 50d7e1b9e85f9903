//! Nodes on a network in memory: one thread, no clock, nothing is lost.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peersock::datapath::{Datapath, Ingress, JoinedNetwork, Sink, Transmit};
use peersock_overlay::{
    Endpoint, EndpointConfig, Identity, NetworkConfig, NodeId, RecvMeta, SocketIndex, SocketInfo,
    StaticMember, StaticNetwork,
};
use peersock_stack::{Batch, Config, Stack};

pub(crate) struct Net {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Instant,
    wire: Wire,
}

pub(crate) struct Node {
    pub(crate) datapath: Datapath,
    pub(crate) network: JoinedNetwork,
    ingress: Ingress,
}

/// What is under way: from and to which node, the datagrams, and the size of each.
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
    /// Node 0 knows all the others, and those know node 0 and where it is. `addresses` are what a node has
    /// besides its self-certifying address: in its own description and in that of node 0.
    pub(crate) fn star(nodes: usize, addresses: impl Fn(usize) -> [Vec<IpAddr>; 2]) -> Net {
        let now = Instant::now();
        let wire = Wire::default();
        let member = |node: usize, addresses| StaticMember {
            identity: *identity(node).public(),
            name: None,
            addresses,
            endpoints: if node == 0 { vec![place(0)] } else { Vec::new() },
        };
        let describe = |node: usize| {
            let own = member(node, addresses(node)[0].clone());
            let others: Vec<StaticMember> = match node {
                0 => (1..nodes).map(|other| member(other, addresses(other)[1].clone())).collect(),
                _ => vec![member(0, addresses(0)[0].clone())],
            };
            let members = std::iter::once(own).chain(others).collect();
            NetworkConfig::Static(StaticNetwork { id: ID.parse().expect("an ID"), psk: None, members })
        };
        let nodes = (0..nodes).map(|node| Node::start(node, now, describe(node), wire.clone())).collect();
        Net { nodes, now, wire }
    }

    pub(crate) fn id(&self, node: usize) -> NodeId {
        identity(node).node_id()
    }

    pub(crate) fn address(&self, node: usize) -> IpAddr {
        self.nodes[node].network.addresses[0]
    }

    /// Delivers until nothing is under way.
    pub(crate) fn deliver(&mut self) {
        while self.deliver_one() {}
    }

    /// Delivers what was sent first; false if nothing is under way.
    pub(crate) fn deliver_one(&mut self) -> bool {
        let next = self.wire.lock().expect("one thread").pop_front();
        let Some((from, to, bytes, stride)) = next else { return false };
        let meta = RecvMeta { remote: place(from), socket: SocketIndex(0), multicast: false, relay: None };
        let Node { datapath, ingress, .. } = &mut self.nodes[to];
        datapath.receive(self.now, ingress, meta, &bytes, stride, false);
        datapath.finish_receive(self.now, ingress);
        true
    }

    /// Delivers all that is under way, which goes to one node, before that node answers.
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

    /// How many datagrams are under way.
    pub(crate) fn under_way(&self) -> usize {
        self.wire.lock().expect("one thread").len()
    }

    /// Delivers, and does what is due, until `done` or for `time`.
    pub(crate) fn run(&mut self, time: Duration, mut done: impl FnMut(&mut Net) -> bool) -> bool {
        let end = self.now + time;
        loop {
            self.deliver();
            if done(self) {
                return true;
            }
            // What `done` has sent comes first.
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

    /// How often each node's threads have taken the lock of its control state machine.
    pub(crate) fn control_locked(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.counter("control_locked")).collect()
    }
}

impl Node {
    fn start(node: usize, now: Instant, network: NetworkConfig, wire: Wire) -> Node {
        let mut config = EndpointConfig::new(Arc::new(identity(node)));
        config.limits.handshakes_per_second = 1_000_000;
        config.limits.handshake_burst = 1_000_000;
        let endpoint = Endpoint::new(config, seed(node, 1), now, Duration::from_secs(1_800_000_000));
        let stack = Stack::new(Config::default(), seed(node, 2), now);
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

    pub(crate) fn leave(&self, now: Instant) {
        assert!(self.datapath.leave(now, self.network.id, &mut Batch::default()));
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let counters = self.datapath.counters().snapshot();
        counters.iter().find(|(known, _)| *known == name).expect("a counter").1
    }
}

const ID: &str = "fe00000000000001";

fn identity(node: usize) -> Identity {
    Identity::from_seed(&seed(node, 0))
}

fn seed(node: usize, purpose: u8) -> [u8; 32] {
    let mut seed = [purpose; 32];
    seed[..8].copy_from_slice(&node.to_be_bytes());
    seed
}

/// Where a node is.
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
