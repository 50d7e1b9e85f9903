//! The plan of a node's packets that opens a path through the NATs of both sides.
//!
//! A NAT admits a packet from an address to which its own side has sent. So both sides send to each other's
//! addresses at about the same time, and to all of them, because it is unknown which will work. First both
//! *open*: one packet to each address at once, and again each second until the common start, which makes
//! mappings and permissions. From the start on they send densely, then each second. A clock that is wrong by
//! seconds costs that much time and no more, because permissions last at least 30 s.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Candidate, CandidateKind, Contact};

/// One packet to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shot {
    /// Delay from the making of the plan.
    pub after: Duration,
    /// Destination of the packet.
    pub to: SocketAddr,
}

/// Reason why nothing is sent to an address that a node has named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotTried {
    /// This node knows no own address in that family, or not yet.
    OtherFamily,
    /// The address is private, and nothing shows that both nodes are on one LAN.
    OtherLan,
    /// The address is this node's own.
    Own,
    /// Three other addresses of the same host are tried.
    TooMany,
    /// No root vouches for the address, and the budget for such addresses is used up.
    Unvouched,
    /// There was a direct path before its turn.
    NotNeeded,
    /// The NATs of both nodes give each destination another port, so that neither can be found by sending to
    /// many ports.
    BothUnpredictable,
    /// The other node takes no part in a search by many ports, or not at present.
    Refused,
    /// The sockets for a search by many ports could not be opened.
    NoSockets,
    /// This node has begun the maximum number of searches by many ports.
    TooOften,
    /// The TCP port belongs to services, and no node uses it.
    Service,
}

impl fmt::Display for NotTried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::OtherFamily => "this node knows no own address of that family",
            Self::OtherLan => "private address of another network",
            Self::Own => "this node's own address",
            Self::TooMany => "too many addresses of one host",
            Self::Unvouched => "no root vouches for it, and the allowance is used up",
            Self::NotNeeded => "there was a direct path before",
            Self::BothUnpredictable => "the NATs of both nodes give each destination another port",
            Self::Refused => "the other node takes no part in it",
            Self::NoSockets => "no further sockets could be opened",
            Self::TooOften => "this node has begun as many such searches as it may",
            Self::Service => "a port of services",
        })
    }
}

/// Packets of one side, in the order of time. The plan ends as soon as a place is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolePunch {
    targets: Vec<Candidate>,
    predicted: Vec<SocketAddr>,
    left_out: Vec<(Candidate, NotTried)>,
    shots: Vec<Shot>,
}

impl HolePunch {
    /// Maximum number of addresses that a plan aims at.
    pub const MAX_TARGETS: usize = 24;

    /// Maximum number of packets to one address, which bounds the traffic to a third party named in a
    /// contact.
    pub const MAX_SHOTS_EACH: usize = 27;

    /// Maximum number of addresses of one host (for IPv6, one /64) that a contact may name: an interface's, a
    /// mapped and a forwarded one. Further ones get no packets, and neither do guesses over
    /// [`Self::PREDICTED`].
    pub const MAX_PER_HOST: usize = 3;

    /// Number of ports guessed for a NAT whose next port can be predicted.
    pub const PREDICTED: usize = 8;

    /// Times of the dense packets after the common start, in milliseconds.
    const DENSE: [u64; 5] = [0, 100, 200, 400, 800];

    /// Duration of the plan after the common start.
    const PLAN_DURATION: Duration = Duration::from_secs(12);

    /// Creates the plan of the side with the contact `own` towards `peer`, with the common start in
    /// `start_in`, at most ten seconds.
    pub fn new(own: &Contact, peer: &Contact, start_in: Duration) -> Self {
        // At most ten opening packets per address, on which `MAX_SHOTS_EACH` depends.
        let start = start_in.min(Duration::from_secs(10));
        let (targets, left_out) = targets(own, peer);
        let known: Vec<_> = targets.iter().map(|candidate| candidate.address).collect();
        let predicted = predicted(peer, &known);
        let mut shots = Vec::new();
        let second = Duration::from_secs(1);
        let opening = (0..).map(|i| second * i).take_while(|at| *at < start);
        for after in opening {
            shots.extend(known.iter().map(|to| Shot { after, to: *to }));
        }
        let dense = Self::DENSE.iter().map(|ms| Duration::from_millis(*ms));
        let sparse = (1..).map(|i| second * i).take_while(|at| *at <= Self::PLAN_DURATION);
        for after in dense.map(|at| start + at) {
            // A guess concerns the mapping that the peer makes by its first dense packet. Before it a guess
            // would only use ports up, and after it would be wrong.
            shots.extend(known.iter().chain(&predicted).map(|to| Shot { after, to: *to }));
        }
        for after in sparse.map(|at| start + at) {
            shots.extend(known.iter().map(|to| Shot { after, to: *to }));
        }
        Self { targets, predicted, left_out, shots }
    }

    /// Returns the packets, in the order of time.
    pub fn shots(&self) -> &[Shot] {
        &self.shots
    }

    /// Returns the peer's candidates that get packets.
    pub fn targets(&self) -> &[Candidate] {
        &self.targets
    }

    /// Returns the ports that the peer's NAT may use next, which get packets as well.
    pub fn predicted(&self) -> &[SocketAddr] {
        &self.predicted
    }

    /// Returns the peer's candidates that get no packets.
    pub fn left_out(&self) -> &[(Candidate, NotTried)] {
        &self.left_out
    }
}

/// Splits the addresses that `peer` has named into those worth a packet and the others.
fn targets(own: &Contact, peer: &Contact) -> (Vec<Candidate>, Vec<(Candidate, NotTried)>) {
    let (mut targets, mut left_out): (Vec<Candidate>, Vec<_>) = (Vec::new(), Vec::new());
    for candidate in peer.candidates() {
        let to = candidate.address;
        // Loopback addresses count only between nodes of one machine, because a member could otherwise aim at
        // its services.
        let is_near = shares_lan(own, peer) && (is_local(own) || !to.ip().is_loopback());
        let is_own = own.candidates().iter().any(|own| own.address == to);
        let of_host = targets.iter().filter(|other| host(&other.address.ip()) == host(&to.ip())).count();
        let why = match () {
            () if !own.has_family(to.is_ipv4()) => NotTried::OtherFamily,
            // The same private address belongs to another host in this node's network.
            () if !candidate.is_global() && !is_near => NotTried::OtherLan,
            () if is_own => NotTried::Own,
            // A peer could name many ports of one victim, and so aim all packets at it.
            () if of_host >= HolePunch::MAX_PER_HOST => NotTried::TooMany,
            () => {
                targets.push(*candidate);
                continue;
            }
        };
        left_out.push((*candidate, why));
    }
    (targets, left_out)
}

/// Returns the ports that the NAT of `peer` may use next, if predictable. The newest mapping of a host, which
/// is furthest along, comes first.
fn predicted(peer: &Contact, known: &[SocketAddr]) -> Vec<SocketAddr> {
    let delta = i32::from(peer.nat.port_delta);
    let mut guessed: Vec<SocketAddr> = Vec::new();
    if delta != 0 {
        let varies = |at: &SocketAddr| peer.mapping(at.is_ipv4()).varies();
        let mapped = peer.candidates().iter().filter(|candidate| candidate.kind == CandidateKind::Mapped);
        let mut bases: Vec<SocketAddr> = mapped
            .map(|candidate| candidate.address)
            .filter(|address| known.contains(address) && varies(address))
            .collect();
        // From the newest port on, in the direction in which the NAT counts.
        bases.sort_by_key(|at| (host(&at.ip()), -i32::from(at.port()) * delta.signum()));
        for base in bases {
            for i in 1..=HolePunch::PREDICTED as i32 {
                // Beyond the range the NAT begins again at a place that is not known.
                let port = u16::try_from(i32::from(base.port()) + i * delta).unwrap_or(0);
                let to = SocketAddr::new(base.ip(), port);
                let of_host = guessed.iter().filter(|other| host(&other.ip()) == host(&to.ip())).count();
                let is_new = !known.contains(&to) && !guessed.contains(&to);
                if port != 0 && is_new && of_host < HolePunch::PREDICTED {
                    guessed.push(to);
                }
            }
        }
    }
    // Never negative, because a contact has at most 16 candidates.
    guessed.truncate(HolePunch::MAX_TARGETS - known.len());
    guessed
}

/// Returns the part of an address that identifies one host: an IPv4 address, or 64 bits of an IPv6 one.
fn host(ip: &IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        // One host can have any number of addresses in its /64 (RFC 8981).
        IpAddr::V6(ip) => ip.to_bits() & !u128::from(u64::MAX),
    }
}

/// Returns true if both may be on one LAN, where private addresses mean the same to both: they are seen at
/// one public address, or neither knows one.
fn shares_lan(own: &Contact, peer: &Contact) -> bool {
    let (ours, theirs): (Vec<_>, Vec<_>) = (own.public().collect(), peer.public().collect());
    ours.iter().any(|ip| theirs.contains(ip)) || (ours.is_empty() && theirs.is_empty())
}

/// Returns true if `own` is on its machine's loopback interface.
fn is_local(own: &Contact) -> bool {
    // An address on a TURN server proves nothing about this machine.
    let mut its = own.candidates().iter().filter(|candidate| candidate.kind != CandidateKind::Relayed);
    its.any(|candidate| candidate.address.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contact::tests::{any_contact, contact};
    use crate::contact::{Mapping, Nat};

    fn aims(own: &Contact, peer: &Contact) -> Vec<String> {
        let plan = HolePunch::new(own, peer, Duration::ZERO);
        let mut all: Vec<_> = plan.shots().iter().map(|shot| shot.to.to_string()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    #[test]
    fn both_open_at_once_and_are_dense_at_the_start() {
        let (a, b) = (contact(&["198.51.100.7:4000"]), contact(&["203.0.113.9:5000"]));
        let plan = HolePunch::new(&a, &b, Duration::from_millis(2500));
        let times: Vec<_> = plan.shots().iter().map(|shot| shot.after.as_millis()).collect();
        assert_eq!(times[..9], [0, 1000, 2000, 2500, 2600, 2700, 2900, 3300, 3500]);
        assert_eq!(times.last(), Some(&14_500));
        let other = HolePunch::new(&b, &a, Duration::from_millis(2500));
        let others: Vec<_> = other.shots().iter().map(|shot| shot.after.as_millis()).collect();
        assert_eq!(times, others);
    }

    #[test]
    fn private_addresses_are_for_one_lan() {
        let here = contact(&["198.51.100.7:4000", "192.168.1.2:4000"]);
        let near = contact(&["198.51.100.7:4001", "192.168.1.3:4000"]);
        let far = contact(&["203.0.113.9:5000", "192.168.1.3:4000"]);
        assert_eq!(aims(&here, &near), ["192.168.1.3:4000", "198.51.100.7:4001"]);
        assert_eq!(aims(&here, &far), ["203.0.113.9:5000"]);
        let (no_public, neither) = (contact(&["192.168.1.2:4000"]), contact(&["192.168.1.3:4000"]));
        assert_eq!(aims(&no_public, &neither), ["192.168.1.3:4000"]);
    }

    #[test]
    fn nobody_aims_a_node_at_its_own_machine() {
        let here = contact(&["192.168.1.2:4000"]);
        assert_eq!(aims(&here, &contact(&["127.0.0.1:53"])), [""; 0]);
        let local = contact(&["127.0.0.1:4000"]);
        assert_eq!(aims(&local, &contact(&["127.0.0.1:4001", "127.0.0.1:4000"])), ["127.0.0.1:4001"]);
        // A TURN server's claim to relay there does not change that.
        let [address, relayed] = ["192.168.1.2:4000", "127.0.0.1:9"].map(|text| text.parse().expect("one"));
        let its = [(CandidateKind::Interface, address), (CandidateKind::Relayed, relayed)];
        let aimed = Contact::new(Nat::default(), its.map(|(kind, address)| Candidate { kind, address }));
        assert_eq!(aims(&aimed, &contact(&["127.0.0.1:53"])), [""; 0]);
    }

    #[test]
    fn a_family_that_a_node_has_not_is_left_out() {
        let (v4, both) = (contact(&["198.51.100.7:4000"]), contact(&["[2001:db8::1]:5", "203.0.113.9:5"]));
        assert_eq!(aims(&v4, &both), ["203.0.113.9:5"]);
    }

    #[test]
    fn the_next_ports_of_a_predictable_nat_are_tried_from_the_start_on() {
        let own = contact(&["198.51.100.7:4000"]);
        let nat = Nat { mapping: Mapping::AddressAndPortDependent, port_delta: -2, ..Nat::default() };
        let address = "203.0.113.9:10".parse().expect("an address");
        let peer = Contact::new(nat, [Candidate { kind: CandidateKind::Mapped, address }]);
        let plan = HolePunch::new(&own, &peer, Duration::from_secs(1));
        let ports = |at| -> Vec<u16> {
            let shots = plan.shots().iter().filter(|shot| shot.after == Duration::from_secs(at));
            shots.map(|shot| shot.to.port()).collect()
        };
        assert_eq!(ports(0), [10]);
        assert_eq!(ports(1), [10, 8, 6, 4, 2]);
    }

    #[test]
    fn the_next_ports_follow_the_newest_mapping_first() {
        let own = contact(&["198.51.100.7:4000"]);
        for (delta, expected) in [(2, 1042..=1056), (-2, 984..=998)] {
            let at = |port| SocketAddr::from(([203, 0, 113, 9], port));
            let nat = Nat { mapping: Mapping::AddressAndPortDependent, port_delta: delta, ..Nat::default() };
            let mapped =
                [1002, 1000, 1040].map(|port| Candidate { kind: CandidateKind::Mapped, address: at(port) });
            let plan = HolePunch::new(&own, &Contact::new(nat, mapped), Duration::ZERO);
            let ports: Vec<_> = plan.predicted().iter().map(SocketAddr::port).collect();
            assert_eq!(ports.len(), HolePunch::PREDICTED);
            assert!(ports.iter().all(|port| expected.contains(port)), "{ports:?}");
        }
    }

    #[test]
    fn a_contact_full_of_one_hosts_ports_aims_little_at_it() {
        let own = contact(&["198.51.100.7:4000"]);
        let all: Vec<_> = (1..=16).map(|port| format!("203.0.113.9:{port}")).collect();
        let mut peer = contact(&all.iter().map(String::as_str).collect::<Vec<_>>());
        peer.nat = Nat { mapping: Mapping::AddressDependent, port_delta: 100, ..Nat::default() };
        let plan = HolePunch::new(&own, &peer, Duration::from_secs(10));
        assert_eq!(plan.shots().len(), 3 * HolePunch::MAX_SHOTS_EACH + 8 * 5);
        let of_one_network: Vec<_> = (1..=16).map(|host| format!("[2001:db8::{host:x}]:9")).collect();
        let peer = contact(&of_one_network.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(aims(&contact(&["[2001:db8:1::1]:9"]), &peer).len(), 3);
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_the_bounds(a in any_contact(), b in any_contact(), ms in 0..20_000_u64) {
            let plan = HolePunch::new(&a, &b, Duration::from_millis(ms));
            prop_assert!(plan.shots().is_sorted_by_key(|shot| shot.after));
            let mut targets: Vec<_> = plan.shots().iter().map(|shot| shot.to).collect();
            targets.sort_unstable();
            let each = targets.chunk_by(|x, y| x == y).map(<[SocketAddr]>::len);
            prop_assert!(each.clone().max().unwrap_or(0) <= HolePunch::MAX_SHOTS_EACH);
            prop_assert!(each.count() <= HolePunch::MAX_TARGETS);
            for to in targets {
                let target = Candidate { kind: CandidateKind::Mapped, address: to };
                prop_assert!(target.is_valid());
            }
        }
    }
}
