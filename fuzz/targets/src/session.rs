//! Data packets of one session.

use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use peersock_overlay::{DATA_OVERHEAD, OpenError, Session, data_index};

use crate::input::{Damage, damaged, pick, sequence};
use crate::overlay::{LISTED, Net};

/// Maximum number of operations in one input, far fewer packets than the replay window holds.
const MAX_OPERATIONS: usize = 200;

#[derive(Debug, Arbitrary)]
enum Operation {
    /// Seals a packet at one end.
    Seal { first: bool, len: u8, fill: u8 },
    /// Opens a packet at its destination, or at its source.
    Open { which: u8, turn: bool, damages: Vec<Damage> },
}

/// A packet and its state.
struct Packet {
    /// True if sealed at the first end, for the second.
    first: bool,
    plaintext: Vec<u8>,
    datagram: Vec<u8>,
    opened: bool,
}

/// Checks that a packet opens once, at the right end, in any order, and never if altered. Every refusal is
/// counted.
pub fn session(data: &[u8]) {
    PAIR.with(|(net, ends)| run(net, ends, data));
}

thread_local! {
    /// Session shared by all inputs, because a handshake costs far more than all the packets of an input.
    /// Each input seals new packets, with numbers that no earlier input had.
    static PAIR: (Net, [Arc<Session>; 2]) = connected();
}

fn run(net: &Net, ends: &[Arc<Session>; 2], data: &[u8]) {
    let before = refused(net);
    let mut refusals = [0, 0];
    let mut packets: Vec<Packet> = Vec::new();
    for operation in sequence::<Operation>(data, MAX_OPERATIONS) {
        match operation {
            Operation::Seal { first, len, fill } => {
                let plaintext = vec![fill; len.into()];
                let mut datagram = vec![0; plaintext.len() + DATA_OVERHEAD];
                let sealed = ends[usize::from(!first)].seal(&plaintext, &mut datagram);
                assert_eq!(sealed, Ok(datagram.len()));
                packets.push(Packet { first, plaintext, datagram, opened: false });
            }
            Operation::Open { which, turn, damages } => {
                let Some(packet) = pick(&packets, which) else { continue };
                let datagram = damaged(&packet.datagram, &damages);
                let end = usize::from(packet.first != turn);
                let result = open(&ends[end], &datagram);
                // Damage that turns a packet into another genuine packet does not count.
                let genuine =
                    packets.iter_mut().find(|one| one.datagram == datagram && usize::from(one.first) == end);
                refusals[end] += u64::from(result.is_err());
                match (result, genuine) {
                    (Ok(plaintext), Some(packet)) => {
                        assert!(!packet.opened, "a replay");
                        assert_eq!(plaintext, packet.plaintext);
                        packet.opened = true;
                    }
                    (Ok(_), None) => panic!("a forgery"),
                    (Err(error), Some(packet)) => {
                        assert_eq!((error, packet.opened), (OpenError::Replayed, true));
                    }
                    (Err(_), None) => {}
                }
            }
        }
    }
    assert_eq!(refused(net), [before[0] + refusals[0], before[1] + refusals[1]]);
}

/// Makes two nodes and a session between them, and returns both ends.
fn connected() -> (Net, [Arc<Session>; 2]) {
    let mut net = Net::new(2);
    (0..2).for_each(|node| net.join(node, LISTED));
    net.recover(Duration::from_secs(5));
    let sender = net.nodes[0].known.last().and_then(|peer| peer.sender()).expect("a session");
    let mut datagram = [0; DATA_OVERHEAD];
    sender.session.seal(&[], &mut datagram).expect("a live session");
    let index = data_index(&datagram).expect("a data packet");
    let other = net.nodes[1].endpoint.sessions().get(index).expect("the other end");
    (net, [sender.session, other])
}

/// Returns the number of data packets that each node has refused so far.
fn refused(net: &Net) -> [u64; 2] {
    [0, 1].map(|node| {
        let counters = net.nodes[node].endpoint.counters();
        let drops = [
            &counters.data_malformed,
            &counters.data_unauthentic,
            &counters.data_replayed,
            &counters.data_expired,
        ];
        drops.into_iter().map(|counter| counter.get()).sum()
    })
}

fn open(session: &Arc<Session>, datagram: &[u8]) -> Result<Vec<u8>, OpenError> {
    let mut plaintext = vec![0; datagram.len()];
    session.open(datagram, &mut plaintext).map(|opened| plaintext[..opened.len()].to_vec())
}
