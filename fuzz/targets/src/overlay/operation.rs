//! Operations on the nodes and on their network.

use std::net::IpAddr;
use std::time::Duration;

use arbitrary::Arbitrary;
use peersock_overlay::Lookup;

use super::member::{self, Act, Source};
use super::net::{Datagram, Net};
use super::node::{self, network, networks};
use crate::input::{Damage, damaged, pick};

/// An operation. Numbers of nodes, networks and datagrams count modulo their totals.
#[derive(Debug, Arbitrary)]
pub(super) enum Operation {
    Join {
        node: u8,
        network: u8,
    },
    Leave {
        node: u8,
        network: u8,
    },
    /// Sends an inner packet, or requests a session if there is none.
    Send {
        from: u8,
        to: u8,
        network: u8,
        len: u8,
    },
    Lookup {
        node: u8,
        network: u8,
        address: IpAddr,
    },
    /// Uses a handle of a peer that may no longer exist.
    Remembered {
        node: u8,
        which: u8,
        unresponsive: bool,
    },
    Wait {
        millis: u16,
    },
    WaitLong {
        seconds: u8,
    },
    Deliver {
        count: u8,
    },
    DeliverOne {
        which: u8,
    },
    Drop {
        which: u8,
    },
    Duplicate {
        which: u8,
    },
    Damage {
        which: u8,
        damage: Damage,
    },
    /// Replays an old datagram, from its old source or from an address of the adversary.
    Replay {
        which: u8,
        to: u8,
        from: Option<u8>,
        multicast: bool,
        damages: Vec<Damage>,
    },
    Forge {
        to: u8,
        from: u8,
        multicast: bool,
        bytes: Vec<u8>,
    },
    /// Kills a node and restarts it with its clock shifted by `hours`.
    Restart {
        node: u8,
        hours: i8,
    },
    /// Gives a node another address, as a NAT box may.
    Move {
        node: u8,
        port: u8,
    },
    /// Takes a node's socket away, or returns it.
    Sockets {
        node: u8,
        there: bool,
    },
    /// Makes the adversary send a node a message as a member.
    Member {
        target: u8,
        from: Source,
        act: Act,
    },
}

impl Operation {
    pub(super) fn run(self, net: &mut Net) {
        let count = net.nodes.len();
        let node_of = |node: u8| usize::from(node) % count;
        let network_of = |network: u8| usize::from(network) % networks();
        match self {
            Self::Join { node, network } => net.join(node_of(node), network_of(network)),
            Self::Leave { node, network } => leave(net, node_of(node), network_of(network)),
            Self::Send { from, to, network, len } => {
                net.send(node_of(from), node_of(to), network_of(network), len.into());
            }
            Self::Lookup { node, network, address } => {
                let now = net.now;
                let node = &mut net.nodes[node_of(node)];
                if let Some(&index) = node.joined.get(&network_of(network)) {
                    let _ = node.endpoint.lookup(now, index, address);
                }
            }
            Self::Remembered { node, which, unresponsive } => {
                let now = net.now;
                let node = &mut net.nodes[node_of(node)];
                let Some(peer) = pick(&node.known, which) else { return };
                if unresponsive {
                    node.endpoint.peer_unresponsive(now, peer);
                } else {
                    node.endpoint.want_session(now, peer);
                }
            }
            Self::Wait { millis } => net.wait(Duration::from_millis(millis.into())),
            Self::WaitLong { seconds } => net.wait(Duration::from_secs(seconds.into())),
            Self::Deliver { count } => {
                for _ in 0..count.min(32) {
                    let Some(datagram) = net.in_flight.pop_front() else { break };
                    net.arrive(&datagram);
                }
            }
            Self::DeliverOne { which } => {
                if let Some(datagram) = take(net, which) {
                    net.arrive(&datagram);
                }
            }
            Self::Drop { which } => drop(take(net, which)),
            Self::Duplicate { which } => {
                if let Some(datagram) = pick(net.in_flight.make_contiguous(), which).cloned() {
                    net.put(datagram);
                }
            }
            Self::Damage { which, damage } => {
                let len = net.in_flight.len().max(1);
                if let Some(datagram) = net.in_flight.get_mut(usize::from(which) % len) {
                    damage.apply(&mut datagram.bytes);
                }
            }
            Self::Replay { which, to, from, multicast, damages } => {
                let Some(past) = pick(net.past.make_contiguous(), which) else { return };
                let (from, bytes) = (from.map_or(past.from, Net::adversary), damaged(&past.bytes, &damages));
                net.arrive(&Datagram { from, to: net.nodes[node_of(to)].address, multicast, bytes });
            }
            Self::Forge { to, from, multicast, bytes } => {
                let to = net.nodes[node_of(to)].address;
                net.arrive(&Datagram { from: Net::adversary(from), to, multicast, bytes });
            }
            Self::Restart { node, hours } => {
                let time = 1_800_000_000 + i64::from(hours) * 3600 + net.elapsed().as_secs() as i64;
                let (number, now) = (node_of(node), net.now);
                net.nodes[number].restart(number, now, Duration::from_secs(time.unsigned_abs()));
            }
            Self::Move { node, port } => net.nodes[node_of(node)].address.set_port(4000 + u16::from(port)),
            Self::Sockets { node, there } => {
                let sockets = if there { vec![node::socket()] } else { Vec::new() };
                let now = net.now;
                net.nodes[node_of(node)].endpoint.set_sockets(now, sockets);
            }
            Self::Member { target, from, act } => member::run(net, node_of(target), from, act),
        }
    }
}

fn leave(net: &mut Net, number: usize, which: usize) {
    let now = net.now;
    let node = &mut net.nodes[number];
    if let Some(index) = node.joined.remove(&which) {
        node.endpoint.leave(now, index);
        let own = identity_address(number, which);
        assert!(matches!(node.endpoint.lookup(now, index, own), Lookup::NoRoute));
    }
}

/// Returns the self-certifying address of a node in a network.
fn identity_address(number: usize, which: usize) -> IpAddr {
    network(which).id().address_of(&node::identity(number).node_id()).into()
}

fn take(net: &mut Net, which: u8) -> Option<Datagram> {
    let len = net.in_flight.len().max(1);
    net.in_flight.remove(usize::from(which) % len)
}
