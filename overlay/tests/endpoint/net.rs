//! A small network of endpoints in virtual time: latency, loss, MTU, partitions, and a recording of every
//! datagram.
//!
//! Each node has one UDP socket unless a test gives it more. A datagram to the multicast group [`GROUP`]
//! reaches every node, its sender included, as multicast loops back.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::{
    Attention, Endpoint, EndpointConfig, EntropySource, Event, Identity, Limits, Lookup, NetworkConfig,
    NetworkId, NetworkIndex, Peer, Place, RecvMeta, RelayReader, SocketIndex, SocketInfo, TcpPunch,
    WantedStream,
};
use peersock_testnet::{Queue, TestRoot};

use crate::nat::NatBox;

pub(crate) const GROUP: &str = "239.255.77.77:7777";
pub(crate) const UNIX_TIME: Duration = Duration::from_secs(1_800_000_000);

/// State that a driver would hold of one node.
pub(crate) struct Node {
    pub(crate) endpoint: Endpoint,
    pub(crate) socket: SocketAddr,
    pub(crate) index: SocketIndex,
    /// Box in front of it, if its address is private.
    pub(crate) nat: Option<usize>,
    pub(crate) up: bool,
    /// Streams that it wants, all of which it has.
    pub(crate) streams: Vec<WantedStream>,
    /// True if streams to guests are opened.
    pub(crate) opens_streams: bool,
    /// Open extra sockets, and the maximum that its system allows.
    pub(crate) extra: Vec<SocketIndex>,
    pub(crate) most_extra: usize,
    /// Open TCP connections: the other node, and the round of this node in which it was opened, if any.
    pub(crate) tcp: Vec<(SocketIndex, usize, u32)>,
    /// Rounds in which it should connect, with the time.
    pub(crate) punched: Vec<(Instant, TcpPunch)>,
    /// Connections that it was told to close.
    pub(crate) closed: Vec<SocketIndex>,
    pub(crate) events: Vec<(Instant, Event)>,
    /// Inner packets received, with their sender and the time.
    pub(crate) inbox: Vec<(Instant, Arc<Peer>, Vec<u8>)>,
    relay: RelayReader,
    /// Packets that wait for their peer or its session.
    waiting: Vec<(NetworkIndex, IpAddr, Vec<u8>)>,
}

/// Root with its address.
pub(crate) struct RootNode {
    pub(crate) root: TestRoot,
    pub(crate) socket: SocketAddr,
    pub(crate) up: bool,
}

/// Datagram as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// Filter that decides the fate of a datagram: false drops it.
type Filter = Box<dyn FnMut(&Sent) -> bool>;

pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    pub(crate) latency: Duration,
    /// Largest UDP payload that passes.
    pub(crate) mtu: usize,
    pub(crate) filter: Filter,
    /// Limits of the nodes that are added from now on.
    pub(crate) limits: Limits,
    pub(crate) entropy: Option<EntropySource>,
    /// True if they search for each other by many ports.
    pub(crate) birthday: bool,
    /// True if they connect to each other by TCP.
    pub(crate) tcp_punch: bool,
    /// Number of bytes quoted in the ICMP errors of machines whose node is down; `None` for no errors.
    pub(crate) refuses: Option<usize>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) roots: Vec<RootNode>,
    pub(crate) nats: Vec<NatBox>,
    in_flight: Queue<Instant, Sent>,
}

impl Net {
    pub(crate) fn new() -> Self {
        Self {
            now: instant(),
            nodes: Vec::new(),
            latency: Duration::from_millis(1),
            mtu: 1472,
            filter: Box::new(|_| true),
            limits: Limits::default(),
            entropy: None,
            birthday: true,
            tcp_punch: false,
            refuses: None,
            sent: Vec::new(),
            roots: Vec::new(),
            nats: Vec::new(),
            in_flight: Queue::default(),
        }
    }

    /// Creates two nodes on one LAN.
    pub(crate) fn pair() -> Self {
        let mut net = Self::new();
        net.add(1);
        net.add(2);
        net
    }

    /// Creates two nodes on one LAN in the open network, which have found each other.
    pub(crate) fn acquainted_pair() -> Self {
        let mut net = Self::pair();
        for node in 0..2 {
            net.join(node, &open_network());
        }
        net.run(Duration::from_secs(4));
        net
    }

    /// Creates two nodes with a session that node 0 initiated.
    pub(crate) fn connected_pair() -> Self {
        let mut net = Self::acquainted_pair();
        net.send(0, 1, b"hello");
        net.run(Duration::from_secs(3));
        assert_eq!(net.received(1), [b"hello".to_vec()]);
        net.nodes[1].inbox.clear();
        net
    }

    /// Starts the node with this identity at its usual address; returns its index.
    pub(crate) fn add(&mut self, identity: u8) -> usize {
        let node = self.node(identity, 100, UNIX_TIME);
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Starts a node with this seed for its identity at a separate address. It sends no beacons, but hears
    /// other nodes' beacons; `send` may come from it but not go to it. Returns its index.
    pub(crate) fn add_stranger(&mut self, seed: [u8; 32], socket: SocketAddr) -> usize {
        let mut config = EndpointConfig::new(Arc::new(Identity::from_seed(&seed)));
        config.limits = self.limits;
        let mut node = self.start(config, seed, UNIX_TIME);
        node.socket = socket;
        let silent = SocketInfo { beacon_targets: Vec::new(), ..lan_socket() };
        node.endpoint.set_sockets(self.now, vec![silent]);
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Starts the node with this identity in the private network behind a NAT box, where it hears no beacons.
    /// Returns its index.
    pub(crate) fn add_behind(&mut self, nat: usize, identity: u8) -> usize {
        let mut node = self.node(identity, 100, UNIX_TIME);
        node.socket = SocketAddr::from(([10, nat as u8, 0, identity], 4000));
        node.nat = Some(nat);
        let silent = SocketInfo { beacon_targets: Vec::new(), ..lan_socket() };
        node.endpoint.set_sockets(self.now, vec![silent]);
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Kills a node behind a box and starts it again there with the same identity.
    pub(crate) fn restart_behind(&mut self, node: usize, unix_time: Duration) {
        let Node { socket, nat, .. } = self.nodes[node];
        let mut new = self.node(identity_of(&self.nodes[node]), 101, unix_time);
        (new.socket, new.nat) = (socket, nat);
        let silent = SocketInfo { beacon_targets: Vec::new(), ..lan_socket() };
        new.endpoint.set_sockets(self.now, vec![silent]);
        self.nodes[node] = new;
    }

    /// Starts another node with the identity of a running one, on this port; returns its index.
    pub(crate) fn add_copy(&mut self, identity: u8, port: u16) -> usize {
        let mut node = self.node(identity, port as u8, UNIX_TIME);
        node.socket.set_port(port);
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Kills a node without a word and starts it again with the same identity on this port.
    pub(crate) fn restart(&mut self, node: usize, port: u16, unix_time: Duration) {
        let mut new = self.node(identity_of(&self.nodes[node]), port as u8, unix_time);
        new.socket.set_port(port);
        self.nodes[node] = new;
    }

    fn node(&self, identity: u8, seed: u8, unix_time: Duration) -> Node {
        let mut config = EndpointConfig::new(Arc::new(Identity::from_seed(&[identity; 32])));
        config.limits = self.limits;
        config.entropy = self.entropy.clone();
        config.birthday = self.birthday;
        config.tcp_punch = self.tcp_punch;
        let mut key = [seed; 32];
        key[0] = identity;
        let mut node = self.start(config, key, unix_time);
        node.socket = SocketAddr::from(([192, 0, 2, identity], 4000));
        node
    }

    fn start(&self, config: EndpointConfig, seed: [u8; 32], unix_time: Duration) -> Node {
        let mut endpoint = Endpoint::new(config, seed, self.now, unix_time);
        endpoint.set_sockets(self.now, vec![lan_socket()]);
        Node {
            endpoint,
            socket: SocketAddr::from(([0, 0, 0, 0], 0)),
            index: SocketIndex(0),
            nat: None,
            up: true,
            streams: Vec::new(),
            opens_streams: true,
            extra: Vec::new(),
            most_extra: usize::MAX,
            tcp: Vec::new(),
            punched: Vec::new(),
            closed: Vec::new(),
            events: Vec::new(),
            inbox: Vec::new(),
            relay: RelayReader::default(),
            waiting: Vec::new(),
        }
    }

    pub(crate) fn join(&mut self, node: usize, network: &NetworkConfig) -> NetworkIndex {
        let index = self.nodes[node].endpoint.join(self.now, network.clone()).expect("a good network");
        self.pump();
        index
    }

    /// Sends an inner packet from one node to another in the first network that `from` joined.
    pub(crate) fn send(&mut self, from: usize, to: usize, text: &[u8]) {
        let network = self.nodes[from].endpoint.networks()[0].index;
        let address = self.address(from, network, to);
        self.send_to(from, network, address, text);
    }

    pub(crate) fn send_to(&mut self, from: usize, network: NetworkIndex, address: IpAddr, text: &[u8]) {
        let packet = [&[0x60], text].concat();
        self.nodes[from].waiting.push((network, address, packet));
        self.flush(from);
        self.pump();
    }

    /// Answers a packet of a peer with a session as a stack does, without a program.
    pub(crate) fn reply(&mut self, from: usize, peer: &Arc<Peer>, text: &[u8]) {
        let sender = peer.sender().expect("a session").unasked();
        let packet = [&[0x60], text].concat();
        let mut datagram = vec![0; packet.len() + sender.overhead()];
        sender.seal(&packet, &mut datagram).expect("room");
        if sender.session.note_sent(self.now) {
            self.nodes[from].endpoint.session_attention(self.now, &sender.session, Attention::Sent);
        }
        self.transmit(from, &sender.path.place, datagram);
        self.pump();
    }

    /// Returns the self-certifying address of node `of` in `network`, which is a handle of node `at`.
    pub(crate) fn address(&self, at: usize, network: NetworkIndex, of: usize) -> IpAddr {
        let networks = self.nodes[at].endpoint.networks();
        let network = networks.iter().find(|n| n.index == network).expect("a joined network");
        network.id.address_of(&Identity::from_seed(&[identity_of(&self.nodes[of]); 32]).node_id()).into()
    }

    pub(crate) fn peer(&mut self, at: usize, of: usize) -> Arc<Peer> {
        let network = self.nodes[at].endpoint.networks()[0].index;
        let address = self.address(at, network, of);
        match self.nodes[at].endpoint.lookup(self.now, network, address) {
            Lookup::Peer(peer) => peer,
            other => panic!("no such peer: {other:?}"),
        }
    }

    /// Returns the contents of the inner packets that a node received.
    pub(crate) fn received(&self, node: usize) -> Vec<Vec<u8>> {
        self.nodes[node].inbox.iter().map(|(_, _, packet)| packet[1..].to_vec()).collect()
    }

    pub(crate) fn count(&self, node: usize, wanted: fn(&Event) -> bool) -> usize {
        self.nodes[node].events.iter().filter(|(_, event)| wanted(event)).count()
    }

    pub(crate) fn counter(&self, node: usize, name: &str) -> u64 {
        let snapshot = self.nodes[node].endpoint.counters().snapshot();
        snapshot.into_iter().find(|(n, _)| *n == name).unwrap_or_else(|| panic!("no counter {name}")).1
    }

    /// Lets virtual time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(end, |_| false);
    }

    /// Lets time pass until the condition holds; panics if it does not within `limit`. Returns the time that
    /// passed.
    pub(crate) fn wait(&mut self, limit: Duration, condition: impl FnMut(&mut Net) -> bool) -> Duration {
        let begin = self.now;
        assert!(self.run_until(begin + limit, condition), "not within {limit:?}");
        self.now - begin
    }

    fn run_until(&mut self, end: Instant, mut condition: impl FnMut(&mut Net) -> bool) -> bool {
        for _ in 0..1_000_000 {
            self.pump();
            if condition(self) {
                return true;
            }
            let timeouts = self.nodes.iter().filter(|n| n.up).filter_map(|n| n.endpoint.poll_timeout());
            let of_roots = self.roots.iter().filter(|r| r.up).filter_map(|r| r.root.next_timeout());
            let next = timeouts.chain(of_roots).chain(self.in_flight.next_at()).min();
            let Some(next) = next.filter(|&next| next <= end) else {
                self.now = end;
                return false;
            };
            self.now = self.now.max(next);
            while let Some((_, datagram)) = self.in_flight.pop_due(self.now) {
                self.arrive(&datagram);
            }
            for index in 0..self.roots.len() {
                let RootNode { root, socket, up } = &mut self.roots[index];
                if *up && root.next_timeout().is_some_and(|at| at <= self.now) {
                    let (from, at) = (*socket, self.now);
                    for (to, bytes) in root.handle_timeout(at) {
                        self.inject(Sent { at, from, to, bytes });
                    }
                }
            }
            for node in self.nodes.iter_mut().filter(|node| node.up) {
                if node.endpoint.poll_timeout().is_some_and(|at| at <= self.now) {
                    node.endpoint.handle_timeout(self.now);
                }
            }
        }
        panic!("the network never rests");
    }

    /// Drains every node: events, packets that waited for them, and datagrams onto the wire.
    pub(crate) fn pump(&mut self) {
        let mut buf = Vec::new();
        crate::tcp::keep(&mut self.nodes, self.now);
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            let mut ready = false;
            crate::streams::keep(node, self.now);
            crate::extra_sockets::keep(node, self.now);
            while let Some(event) = node.endpoint.poll_event() {
                ready |= matches!(event, Event::PeerAdded(_) | Event::SessionReady(_));
                node.events.push((self.now, event));
            }
            if ready {
                self.flush(index);
            }
            while let Some(transmit) = self.nodes[index].endpoint.poll_transmit(self.now, &mut buf) {
                assert_eq!(transmit.len, buf.len());
                self.transmit(index, &transmit.place, buf.clone());
            }
        }
    }

    pub(crate) fn transmit(&mut self, from: usize, place: &Place, bytes: Vec<u8>) {
        let (node, to) = (&self.nodes[from], place.remote());
        let inner = crate::extra_sockets::address(node, place.socket());
        if !node.up {
            return;
        }
        let is_inside = |nat: usize| to.ip() == IpAddr::from([10, nat as u8, 0, identity_of_ip(to.ip())]);
        let from = match node.nat.filter(|nat| !is_inside(*nat)) {
            Some(nat) => self.nats[nat].outbound(inner, to),
            None => inner,
        };
        self.inject(Sent { at: self.now, from, to, bytes });
    }

    /// Puts a datagram onto the wire, with any source.
    pub(crate) fn inject(&mut self, datagram: Sent) {
        let datagram = crate::streams::enter(&self.roots, datagram);
        self.sent.push(datagram.clone());
        if datagram.bytes.len() <= self.mtu && (self.filter)(&datagram) {
            self.in_flight.push(self.now + self.latency, datagram);
        }
    }

    fn arrive(&mut self, datagram: &Sent) {
        if let Some((index, meta)) = crate::tcp::arrive(&self.nodes, datagram) {
            return self.deliver(index, meta, &datagram.bytes);
        }
        if let Some((index, meta)) = crate::streams::leave(&self.nodes, datagram) {
            return self.deliver(index, meta, &datagram.bytes);
        }
        if let Some(nat) = self.nats.iter_mut().find(|nat| nat.external == datagram.to.ip()) {
            let Some(to) = nat.inbound(datagram.from, datagram.to.port()) else { return };
            return self.arrive(&Sent { to, ..datagram.clone() });
        }
        if let Some((index, meta)) = crate::extra_sockets::arrive(&self.nodes, datagram) {
            return self.deliver(index, meta, &datagram.bytes);
        }
        let group: SocketAddr = GROUP.parse().expect("an address");
        let heard = self.nodes.iter().any(|node| node.up && node.socket == datagram.to);
        if let Some(quoted) = self.refuses.filter(|_| !heard && datagram.to != group) {
            let quoted = &datagram.bytes[..datagram.bytes.len().min(quoted)];
            for node in self.nodes.iter_mut().filter(|node| node.up && node.socket == datagram.from) {
                node.endpoint.handle_refusal(self.now, datagram.to, quoted);
            }
        }
        let root = self.roots.iter_mut().find(|root| root.up && root.socket == datagram.to);
        if let Some(RootNode { root, socket, .. }) = root {
            let (from, now) = (*socket, self.now);
            for (to, bytes) in root.handle(now, datagram.from, &datagram.bytes) {
                self.inject(Sent { at: now, from, to, bytes });
            }
        }
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            if node.up && (datagram.to == group || datagram.to == node.socket) {
                let multicast = datagram.to == group;
                let meta = RecvMeta { remote: datagram.from, socket: node.index, multicast, relay: None };
                self.deliver(index, meta, &datagram.bytes);
            }
        }
    }

    /// Handles a datagram as a driver does.
    pub(crate) fn deliver(&mut self, index: usize, meta: RecvMeta, bytes: &[u8]) {
        let node = &mut self.nodes[index];
        let (meta, bytes) = if bytes.first() == Some(&0xD9) && meta.relay.is_none() {
            let opened = node.relay.open(node.endpoint.relays(), meta.remote, bytes);
            let Some((header, inside)) = opened else { return };
            (RecvMeta { relay: Some(header), ..meta }, inside)
        } else {
            (meta, bytes)
        };
        let inner = peersock_testnet::receive(&mut node.endpoint, self.now, meta, bytes);
        node.inbox.extend(inner.map(|(session, packet)| (self.now, session.peer().clone(), packet)));
    }

    /// Sends the packets that wait at a node, as far as possible.
    fn flush(&mut self, index: usize) {
        for (network, address, packet) in std::mem::take(&mut self.nodes[index].waiting) {
            let node = &mut self.nodes[index];
            let peer = match node.endpoint.lookup(self.now, network, address) {
                Lookup::Peer(peer) => peer,
                Lookup::Unknown => {
                    node.waiting.push((network, address, packet));
                    continue;
                }
                other => panic!("cannot send to {address}: {other:?}"),
            };
            match peersock_testnet::send(&mut node.endpoint, self.now, &peer, &packet) {
                Some((place, datagram)) => self.transmit(index, &place, datagram),
                None => node.waiting.push((network, address, packet)),
            }
        }
    }
}

fn identity_of(node: &Node) -> u8 {
    identity_of_ip(node.socket.ip())
}

fn identity_of_ip(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(_) => unreachable!("test nodes have IPv4 addresses"),
    }
}

pub(crate) fn lan_socket() -> SocketInfo {
    SocketInfo {
        index: SocketIndex(0),
        ipv4: true,
        loopback: false,
        max_datagram: 65_507,
        beacon_targets: vec![GROUP.parse().expect("an address")],
    }
}

pub(crate) fn open_network() -> NetworkConfig {
    NetworkConfig::AdHoc { id: NetworkId::ad_hoc(1..=65_535).expect("a range"), psk: None }
}

#[expect(clippy::disallowed_methods, reason = "std offers no other way to make an Instant")]
pub(crate) fn instant() -> Instant {
    Instant::now()
}
