//! Messages that the adversary sends as a member.

use std::net::SocketAddr;

use arbitrary::Arbitrary;
use peersock_overlay::wire::{Control, ProbeSize};

use super::net::{Datagram, Net};
use super::node::identity;

/// Apparent source of the adversary's datagram.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(super) enum Source {
    /// The endpoint where the adversary receives answers.
    Home,
    /// An address of a third party, which never receives anything.
    Forged(u8),
    /// The address of a node.
    Node(u8),
}

/// A message. Sealed ones use the adversary's newest session with the node, if there is one.
#[derive(Debug, Arbitrary)]
pub(super) enum Act {
    Hello {
        reply_wanted: bool,
    },
    /// A hello in the name of a node.
    HelloOf {
        node: u8,
        reply_wanted: bool,
    },
    Beacon {
        multicast: bool,
    },
    Initiate,
    InitiateStale,
    /// The response to the node's last initiation.
    Respond,
    ForgeResponse,
    Instance {
        which: bool,
    },
    Keepalive {
        len: u8,
    },
    Probe {
        id: u32,
        len: u16,
    },
    ProbeAck {
        id: u8,
    },
    Challenge {
        data: [u8; 8],
        here: bool,
    },
    Answer {
        data: [u8; 8],
    },
    Params {
        receive_buffer: u32,
    },
    Elsewhere {
        instance: u64,
        port: u8,
    },
    Close,
    /// Any bytes that are not an IP packet.
    Plaintext {
        bytes: Vec<u8>,
    },
    Packet,
}

/// Runs the act. Setting an instance sends nothing, and only changes the adversary's next messages.
pub(super) fn run(net: &mut Net, target: usize, from: Source, act: Act) {
    let now = net.now;
    let nodes = net.nodes.len();
    let adversary = &mut net.members[target];
    let mut multicast = false;
    let bytes = match act {
        Act::Hello { reply_wanted } => Some(adversary.hello(reply_wanted)),
        Act::HelloOf { node, reply_wanted } => {
            Some(adversary.hello_of(*identity(usize::from(node) % nodes).public(), reply_wanted))
        }
        Act::Beacon { multicast: group } => {
            multicast = group;
            Some(adversary.beacon())
        }
        Act::Initiate => Some(adversary.initiate(now)),
        Act::InitiateStale => Some(adversary.initiate_stale(now)),
        Act::Respond => adversary.respond(now),
        Act::ForgeResponse => adversary.forge_response(now),
        Act::Instance { which } => {
            adversary.set_instance(which.into());
            None
        }
        Act::Keepalive { len } => adversary.seal(&vec![0; len.into()]),
        Act::Probe { id, len } => {
            let len = ProbeSize::new(7 + usize::from(len) % 1400).unwrap_or(ProbeSize::MIN);
            seal(net, target, &Control::Probe { id, len })
        }
        Act::ProbeAck { id } => seal(net, target, &Control::ProbeAck { id: id.into(), size: 35 }),
        Act::Challenge { data, here } => seal(net, target, &Control::Challenge { data, here }),
        Act::Answer { data } => seal(net, target, &Control::Answer { data }),
        Act::Params { receive_buffer } => seal(net, target, &Control::Params { receive_buffer, instance: 0 }),
        Act::Elsewhere { instance, port } => {
            seal(net, target, &Control::Elsewhere { instance, remote: Net::adversary(port) })
        }
        Act::Close => seal(net, target, &Control::Close { reason: 0 }),
        Act::Plaintext { mut bytes } => {
            if let Some(first) = bytes.first_mut() {
                *first %= 16;
            }
            adversary.seal(&bytes)
        }
        Act::Packet => adversary.seal(&[0x60; 40]),
    };
    let to = net.nodes[target].address;
    if let Some(bytes) = bytes {
        net.arrive(&Datagram { from: address(net, from), to, multicast, bytes });
    }
}

fn seal(net: &mut Net, target: usize, control: &Control) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    control.emit(&mut message);
    net.members[target].seal(&message)
}

fn address(net: &Net, source: Source) -> SocketAddr {
    match source {
        Source::Home => Net::home(),
        Source::Forged(port) => Net::adversary(port),
        Source::Node(node) => net.nodes[usize::from(node) % net.nodes.len()].address,
    }
}
