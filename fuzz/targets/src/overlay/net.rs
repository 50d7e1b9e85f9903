//! Endpoints in virtual time, and the datagrams between them, which move only on request.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use peersock_overlay::{Event, JoinError, Lookup, RecvMeta, Session, SocketIndex};
use peersock_testnet::{Adversary, Credit, Random};

use super::node::{self, GROUP, LISTED, Node, identity, network};
use crate::input::instant;

/// Maximum number of datagrams kept under way, and kept of the past. Excess ones are lost.
const MAX_DATAGRAMS: usize = 256;
/// Handles of peers kept per node.
const MAX_KNOWN: usize = 8;
/// Sessions and handshakes of a node: a few for each of two peers in three networks at a time.
const MAX_SESSIONS: usize = 64;
/// Candidates of one peer: eight, and the configured ones.
const MAX_CANDIDATES: usize = 9;

/// A datagram under way, for the node that has this address when it arrives.
#[derive(Debug, Clone)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) multicast: bool,
    pub(crate) bytes: Vec<u8>,
}

/// An inner packet as it was sent. It contains its number in [`Net::packets`].
#[derive(Debug)]
struct Packet {
    from: usize,
    to: usize,
    network: usize,
    bytes: Vec<u8>,
    arrived: bool,
}

pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    pub(crate) in_flight: VecDeque<Datagram>,
    /// The last datagrams that were sent.
    pub(crate) past: VecDeque<Datagram>,
    start: Instant,
    packets: Vec<Packet>,
    /// The adversary as a member, once for each node that it attacks.
    pub(crate) members: Vec<Adversary>,
    /// Each node's account with the addresses that the adversary forges.
    credit: Vec<Credit>,
}

impl Net {
    /// Makes `nodes` nodes, which have not joined any network.
    pub(crate) fn new(nodes: usize) -> Self {
        let start = instant();
        Self {
            now: start,
            nodes: (0..nodes).map(|number| Node::new(number, start)).collect(),
            in_flight: VecDeque::new(),
            past: VecDeque::new(),
            start,
            packets: Vec::new(),
            members: (0..nodes).map(member).collect(),
            credit: vec![Credit::default(); nodes],
        }
    }

    /// Returns the virtual time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Returns one of the addresses that the adversary forges. Datagrams to it are counted and dropped.
    pub(crate) fn adversary(port: u8) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 1], 1000 + u16::from(port) % 4))
    }

    /// Returns the endpoint where the adversary receives.
    pub(crate) fn home() -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 2], 1000))
    }

    /// Makes a node join a network, if the node may.
    pub(crate) fn join(&mut self, number: usize, which: usize) {
        let node = &mut self.nodes[number];
        let twin = node.joined.keys().any(|&other| network(other).id() == network(which).id());
        match node.endpoint.join(self.now, network(which).clone()) {
            Ok(index) => {
                assert!(!twin);
                node.joined.insert(which, index);
            }
            Err(JoinError::AlreadyJoined(_) | JoinError::JoinedOtherwise(_)) => assert!(twin),
            Err(JoinError::NotAMember { .. }) => assert!(number == 2 && which >= LISTED),
            Err(error) => panic!("{error}"),
        }
        self.drain(number);
    }

    /// Puts a datagram of a node under way.
    pub(crate) fn put(&mut self, datagram: Datagram) {
        if self.in_flight.len() < MAX_DATAGRAMS {
            self.in_flight.push_back(datagram);
        }
    }

    /// Delivers a datagram to the node that has its address now.
    pub(crate) fn arrive(&mut self, datagram: &Datagram) {
        let Some(number) = self.nodes.iter().position(|node| node.address == datagram.to) else { return };
        if datagram.from.ip() == Self::adversary(0).ip() {
            self.credit[number].forge(datagram.from, datagram.bytes.len());
        }
        let meta = RecvMeta {
            remote: datagram.from,
            socket: SocketIndex(0),
            multicast: datagram.multicast,
            relay: None,
        };
        self.receive(number, meta, &datagram.bytes);
        self.drain(number);
    }

    /// Handles a datagram like a driver. An inner packet must be one that a node sent.
    fn receive(&mut self, number: usize, meta: RecvMeta, bytes: &[u8]) {
        let endpoint = &mut self.nodes[number].endpoint;
        if let Some((session, packet)) = peersock_testnet::receive(endpoint, self.now, meta, bytes) {
            self.deliver(number, &session, &packet);
        }
    }

    fn deliver(&mut self, number: usize, session: &Session, plaintext: &[u8]) {
        if session.peer().id() == self.members[number].id() {
            return;
        }
        let id: [u8; 4] = plaintext[1..5].try_into().expect("a number behind the first byte");
        let packet = &mut self.packets[u32::from_be_bytes(id) as usize];
        assert!(!packet.arrived, "twice");
        packet.arrived = true;
        assert_eq!(packet.bytes, plaintext);
        assert_eq!(packet.to, number);
        assert_eq!(identity(packet.from).node_id(), *session.peer().id());
        let index = self.nodes[number].joined.get(&packet.network);
        assert_eq!(index, Some(&session.peer().network()), "from another network");
    }

    /// Sends an inner packet, or requests a session if there is none. Returns the packet's number if it left.
    pub(crate) fn send(&mut self, from: usize, to: usize, which: usize, len: usize) -> Option<usize> {
        let (now, id) = (self.now, self.packets.len());
        let node = &mut self.nodes[from];
        let index = *node.joined.get(&which)?;
        let address = network(which).id().address_of(&identity(to).node_id()).into();
        let peer = match node.endpoint.lookup(now, index, address) {
            Lookup::Peer(peer) => peer,
            Lookup::Local => {
                assert_eq!(from, to);
                return None;
            }
            _ => {
                self.drain(from);
                return None;
            }
        };
        assert_eq!(*peer.id(), identity(to).node_id());
        if node.known.len() == MAX_KNOWN {
            node.known.remove(0);
        }
        node.known.push(peer.clone());

        let packet = [&[0x60], &(id as u32).to_be_bytes()[..], &vec![0xa5; len]].concat();
        let sealed = peersock_testnet::send(&mut node.endpoint, now, &peer, &packet);
        let left = sealed.map(|(place, datagram)| {
            self.packets.push(Packet { from, to, network: which, bytes: packet, arrived: false });
            self.transmit(from, place.remote(), datagram);
            id
        });
        self.drain(from);
        left
    }

    /// Advances virtual time and handles the timers due. No datagram arrives.
    pub(crate) fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..100_000 {
            let next = self.nodes.iter().filter_map(|node| node.endpoint.poll_timeout()).min();
            let Some(next) = next.filter(|&next| next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            for number in 0..self.nodes.len() {
                self.nodes[number].endpoint.handle_timeout(self.now);
                self.drain(number);
            }
        }
        panic!("timers that never rest");
    }

    /// Takes a node's events and datagrams, as a driver does after every call.
    fn drain(&mut self, number: usize) {
        let mut buf = Vec::new();
        for _ in 0..1000 {
            let node = &mut self.nodes[number];
            while let Some(event) = node.endpoint.poll_event() {
                let id = event.peer().id();
                let known = (0..3).any(|other| other != number && identity(other).node_id() == *id);
                assert!(known || id == self.members[number].id(), "{event:?} is about no node");
                if let Event::SessionReady(peer) = event {
                    assert!(node.joined.values().any(|&index| index == peer.network()));
                }
            }
            let Some(transmit) = node.endpoint.poll_transmit(self.now, &mut buf) else { return };
            assert_eq!(transmit.len, buf.len());
            self.transmit(number, transmit.place.remote(), buf.clone());
        }
        panic!("node {number} never stops talking");
    }

    fn transmit(&mut self, from: usize, to: SocketAddr, bytes: Vec<u8>) {
        let source = self.nodes[from].address;
        if let Err(overdrawn) = self.credit[from].spend(to, bytes.len()) {
            panic!("{overdrawn}");
        }
        if to == Self::home() {
            self.members[from].hear(&bytes);
            return;
        }
        let group: SocketAddr = GROUP.parse().expect("an address");
        let targets: Vec<_> = match to == group {
            true => self.nodes.iter().map(|node| node.address).filter(|&address| address != source).collect(),
            false => vec![to],
        };
        for target in targets {
            let datagram =
                Datagram { from: source, to: target, multicast: to == group, bytes: bytes.clone() };
            if self.past.len() == MAX_DATAGRAMS {
                self.past.pop_front();
            }
            self.past.push_back(datagram.clone());
            self.put(datagram);
        }
    }

    /// Drains every node and checks the invariants.
    pub(crate) fn check(&mut self) {
        for number in 0..self.nodes.len() {
            self.drain(number);
            let node = &self.nodes[number];
            let sessions = node.endpoint.sessions().len();
            assert!(sessions <= MAX_SESSIONS, "{sessions} sessions");
            let peers = node.endpoint.peers();
            // The other nodes, and the adversary.
            assert!(peers.len() <= node.joined.len() * self.nodes.len());
            for peer in peers {
                if let Some(path) = peer.path {
                    assert!(
                        !self.credit[number].is_victim(&path.remote()),
                        "the path leads to a third party"
                    );
                }
                assert!(peer.candidates.len() <= MAX_CANDIDATES, "{:?}", peer.candidates);
                assert!(node.joined.values().any(|&index| index == peer.peer.network()));
            }
        }
    }

    /// Removes the adversary. Nodes that share a network must then be able to talk within `limit`.
    pub(crate) fn recover(&mut self, limit: Duration) {
        let end = self.now + limit;
        self.in_flight.clear();
        for number in 0..self.nodes.len() {
            self.nodes[number].endpoint.set_sockets(self.now, vec![node::socket()]);
            self.drain(number);
        }
        let mut silent = self.pairs();
        while !silent.is_empty() {
            assert!(self.now < end, "{silent:?} (from, to, network) cannot talk");
            silent.retain(|&(from, to, which)| {
                let packet = self.send(from, to, which, 0);
                self.deliver_all();
                !packet.is_some_and(|packet| self.packets[packet].arrived)
            });
            self.wait(Duration::from_millis(250));
            self.deliver_all();
        }
    }

    fn deliver_all(&mut self) {
        for _ in 0..10_000 {
            let Some(datagram) = self.in_flight.pop_front() else { return };
            self.arrive(&datagram);
        }
        panic!("the nodes never stop talking");
    }

    /// Returns all triples (from, to, network) of nodes that share a network.
    fn pairs(&self) -> Vec<(usize, usize, usize)> {
        let mut pairs = Vec::new();
        for (from, node) in self.nodes.iter().enumerate() {
            for (to, other) in self.nodes.iter().enumerate().filter(|&(to, _)| to != from) {
                let shared = node.joined.keys().filter(|which| other.joined.contains_key(which));
                pairs.extend(shared.map(|&which| (from, to, which)));
            }
        }
        pairs
    }
}

/// Makes the adversary as a member of the first network, against one node.
fn member(target: usize) -> Adversary {
    let (random, clock) = (Random::from_seed(target as u64), Duration::from_secs(1_800_000_000));
    Adversary::new(node::adversary().clone(), network(0), *identity(target).public(), clock, random)
}
