//! Addresses of this node: those its driver knows, and those roots have seen.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::candidate::is_global;
use super::{Candidate, CandidateKind, Contact, Mapping, Nat, SeenByTcp, seen};
use crate::id::{NodeId, PublicIdentity};
use crate::wire::{RootVoucher, Voucher};

/// Maximum number of mapped ports per IP address that are told to others, which leaves room for other
/// addresses.
const MAX_SEEN_PER_HOST: usize = 2;

/// Everything this node can tell about its own addresses.
#[derive(Debug, Default)]
pub(crate) struct OwnContact {
    given: Contact,
    seen: Vec<Seen>,
    seen_by_tcp: Vec<SeenByTcp>,
    contact: Contact,
}

/// Sighting of this node by a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) root: PublicIdentity,
    /// Address to which this node sends to reach the root.
    pub(crate) at: SocketAddr,
    pub(crate) voucher: Voucher,
    /// True if this node uses the root only because another root has named it.
    pub(crate) is_guest: bool,
}

impl OwnContact {
    /// Sets the driver's contact. Returns true if that changes anything.
    pub(crate) fn set_given(&mut self, given: Contact) -> bool {
        self.given = given;
        self.compose()
    }

    /// Sets the roots' sightings. Returns true if that changes anything but times.
    pub(crate) fn set_seen(&mut self, mut seen: Vec<Seen>) -> bool {
        // A root reached by a stream sees no UDP address.
        seen.retain(|one| one.voucher.address.port() != 0);
        // Predicted ports follow the newest mapping, so that one comes first.
        seen.sort_by_key(|one| std::cmp::Reverse(one.voucher.time));
        self.seen = seen;
        self.compose()
    }

    /// Sets the roots' sightings of this node's ends of streams.
    pub(crate) fn set_seen_by_tcp(&mut self, seen: Vec<SeenByTcp>) {
        self.seen_by_tcp = seen;
    }

    /// Returns the driver's contact.
    pub(super) fn given(&self) -> &Contact {
        &self.given
    }

    pub(super) fn seen_by_tcp(&self) -> &[SeenByTcp] {
        &self.seen_by_tcp
    }

    /// Returns the combined contact.
    pub(crate) fn contact(&self) -> &Contact {
        &self.contact
    }

    /// Returns the roots' vouchers, the newest first, at most `most`, for a node behind the root at `relay`.
    pub(crate) fn vouchers(&self, most: usize, relay: Option<SocketAddr>) -> Vec<RootVoucher> {
        let ip = |one: &Seen| one.voucher.address.ip().to_canonical();
        let relaying = self.seen.iter().find(|one| Some(one.at) == relay).map(|one| one.root);
        let by_relaying = |one: &Seen| relaying == Some(one.root);
        // The receiver uses the relaying root too, so other roots' vouchers for the same IP address would add
        // nothing.
        let is_needed = |one: &&Seen| {
            by_relaying(one) || !self.seen.iter().any(|first| by_relaying(first) && ip(first) == ip(one))
        };
        let needed = self.seen.iter().filter(is_needed);
        let (v4, v6): (Vec<_>, Vec<_>) = needed.partition(|one| one.voucher.address.is_ipv4());
        // The families alternate, because the receiver may have only one of them.
        let turns = 0..self.seen.len();
        turns
            .flat_map(|turn| [v4.get(turn), v6.get(turn)])
            .flatten()
            .take(most)
            .map(|one| RootVoucher::new(&one.root.node_id(), one.voucher))
            .collect()
    }

    fn compose(&mut self) -> bool {
        let mut seen: Vec<Candidate> = Vec::new();
        let believed = seen::believed(&self.seen);
        for address in believed.iter().map(|one| one.voucher.address) {
            let of_host = seen.iter().filter(|other| other.address.ip() == address.ip()).count();
            let is_new = seen.iter().all(|other| other.address != address);
            // Each root sees another port of a symmetric NAT, and older ports say little.
            if is_new && of_host < MAX_SEEN_PER_HOST {
                seen.push(Candidate { kind: CandidateKind::Mapped, address });
            }
        }
        let given = self.given.candidates().iter().copied();
        let (forwarded, others): (Vec<_>, Vec<_>) =
            given.partition(|candidate| candidate.kind == CandidateKind::Forwarded);
        let [of_ipv4, mapping_ipv6] = [true, false].map(|is_ipv4| self.mapping(&believed, is_ipv4));
        // For nodes with both families the IPv4 mapping says more, because IPv4 has NAT boxes.
        let mapping = if of_ipv4 == Mapping::Unknown { mapping_ipv6 } else { of_ipv4 };
        let nat = Nat { mapping, mapping_ipv6, ..self.given.nat };
        // Best ones first, because a contact has a limited number of candidates: a forwarded port is open to
        // all.
        let contact = Contact::new(nat, forwarded.into_iter().chain(seen).chain(others));
        // Peers are told only of a change, because telling costs a message to each relayed peer.
        let is_new = contact != self.contact;
        self.contact = contact;
        is_new
    }

    /// Returns the NAT box's mapping of one family: as the driver has measured it, or as roots have seen it.
    fn mapping(&self, believed: &[&Seen], is_ipv4: bool) -> Mapping {
        let Nat { mapping, mapping_ipv6, .. } = self.given.nat;
        let given = if is_ipv4 { mapping } else { mapping_ipv6 };
        if given != Mapping::Unknown {
            return given;
        }
        let is_own = |address: &SocketAddr| {
            let mut given = self.given.candidates().iter();
            given.any(|known| known.kind == CandidateKind::Interface && known.address == *address)
        };
        // A root on the local network sees this node's own address there, whatever NAT is in front of others.
        let tells = |one: &&Seen| is_global(&one.at.ip()) || !is_own(&one.voucher.address);
        seen::mapping(&believed.iter().copied().filter(tells).collect::<Vec<_>>(), is_ipv4, is_own)
    }
}

/// Root that this node uses, as a witness of other nodes' addresses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Witness {
    pub(crate) root: PublicIdentity,
    /// The root's last reported clock, in seconds since the Unix epoch, and the time when this node received
    /// it.
    pub(crate) clock: Option<(u64, Instant)>,
    /// True if this node uses the root only because another root has named it.
    pub(crate) is_guest: bool,
}

/// IP addresses at which roots have seen a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Vouched {
    /// Addresses seen by roots that this node was given.
    pub(crate) by_own: Vec<IpAddr>,
    /// Addresses seen only by roots that other roots have named.
    pub(crate) by_guests: Vec<IpAddr>,
}

/// Returns the IP addresses at which roots of this node have seen `node`, from the vouchers that it shows.
/// Vouchers for TCP addresses count only if `for_tcp` is set.
pub(crate) fn vouched(
    node: &NodeId,
    shown: &[RootVoucher],
    roots: &[Witness],
    for_tcp: bool,
    now: Instant,
) -> Vouched {
    let mut vouched = Vouched::default();
    for RootVoucher { root, voucher } in shown {
        let Some(witness) = roots.iter().find(|one| RootVoucher::name_of(&one.root.node_id()) == *root)
        else {
            continue;
        };
        let Some((time, heard)) = witness.clock else { continue };
        // The root's clock decides about a voucher's age, because this node's clock may be wrong.
        let time = time.saturating_add(now.saturating_duration_since(heard).as_secs());
        let is_signed =
            || voucher.verify(&witness.root, node) || for_tcp && voucher.verify_tcp(&witness.root, node);
        if voucher.time.abs_diff(time) <= VOUCHER_AGE && is_signed() {
            let list = if witness.is_guest { &mut vouched.by_guests } else { &mut vouched.by_own };
            // Only the IP address counts, because a NAT box may use another port for each destination.
            list.push(voucher.address.ip().to_canonical());
        }
    }
    vouched
}

/// Maximum age of a voucher in seconds.
// Another node may have the address later.
const VOUCHER_AGE: u64 = 3600;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::id::Identity;
    use crate::testing::instant;

    const TIME: u64 = 1_800_000_000;

    #[test]
    fn a_voucher_counts_if_a_root_of_ours_has_given_it_to_that_node_lately() {
        let [root, other, node] = [1, 2, 3].map(|seed| Identity::from_seed(&[seed; 32]));
        let heard = instant();
        let known = Witness { root: *root.public(), clock: Some((TIME, heard)), is_guest: false };
        let there: SocketAddr = "203.0.113.9:5000".parse().unwrap();
        let show = |signer: &Identity, name: &Identity, of: &Identity, time| {
            RootVoucher::new(&name.node_id(), Voucher::sign(signer, &of.node_id(), time, there))
        };
        let find = |shown, witness| vouched(&node.node_id(), &[shown], &[witness], false, heard);
        let count = |shown| find(shown, known).by_own.len();
        assert_eq!(count(show(&root, &root, &node, TIME)), 1);
        assert_eq!(count(show(&root, &root, &node, TIME - 3600)), 1);
        assert_eq!(count(show(&root, &root, &node, TIME - 3601)), 0, "somebody else may be there");
        assert_eq!(count(show(&root, &root, &node, TIME + 3601)), 0, "a stock for later");
        assert_eq!(count(show(&root, &root, &other, TIME)), 0, "another node's");
        assert_eq!(count(show(&other, &root, &node, TIME)), 0, "another one has signed it");
        assert_eq!(count(show(&other, &other, &node, TIME)), 0, "no root of ours");
        let mut moved = show(&root, &root, &node, TIME);
        moved.voucher.address = "203.0.113.10:5000".parse().unwrap();
        assert_eq!(count(moved), 0, "an address that it does not say");
        let good = show(&root, &root, &node, TIME);
        assert_eq!(
            find(good, Witness { clock: None, ..known }),
            Vouched::default(),
            "nothing to compare with"
        );
        let by_guest = find(good, Witness { is_guest: true, ..known });
        assert_eq!(by_guest, Vouched { by_own: vec![], by_guests: vec![there.ip()] });
        // The root's clock continues while the root is not heard.
        let count_later = |seconds| {
            let now = heard + Duration::from_secs(seconds);
            vouched(&node.node_id(), &[good], &[known], false, now).by_own.len()
        };
        assert_eq!([3600, 3601].map(count_later), [1, 0]);
    }

    #[test]
    fn what_roots_see_stands_behind_forwarded_ports_and_leaves_room_for_others() {
        let root = Identity::from_seed(&[1; 32]);
        let seen = |port, time| Seen {
            root: *root.public(),
            at: ([198, 51, 100, port as u8], 7420).into(),
            voucher: Voucher::sign(&root, &root.node_id(), time, ([203, 0, 113, 9], port).into()),
            is_guest: false,
        };
        let given =
            [(CandidateKind::Interface, "10.0.0.1:4000"), (CandidateKind::Forwarded, "203.0.113.9:9")];
        let given = given.map(|(kind, text)| Candidate { kind, address: text.parse().unwrap() });
        let mut own = OwnContact::default();
        assert!(own.set_given(Contact::new(Nat::default(), given)));
        assert!(own.set_seen(vec![seen(5, 1), seen(6, 3), seen(7, 2), seen(0, 4)]));
        assert!(!own.set_seen(vec![seen(7, 2), seen(5, 1), seen(6, 3)]), "nothing new");
        let ports: Vec<_> = own.contact().candidates().iter().map(|one| one.address.port()).collect();
        assert_eq!(ports, [9, 6, 7, 4000], "the newest of three mappings first");
        assert_eq!(own.contact().nat.mapping, Mapping::AddressDependent);
        assert_eq!(own.vouchers(2, None).len(), 2);
    }

    #[test]
    fn vouchers_of_both_families_are_shown_in_turns_the_newest_first() {
        let root = Identity::from_seed(&[1; 32]);
        let seen = |address: &str, time| Seen {
            root: *root.public(),
            at: "198.51.100.1:7420".parse().unwrap(),
            voucher: Voucher::sign(&root, &root.node_id(), time, address.parse().unwrap()),
            is_guest: false,
        };
        let mut own = OwnContact::default();
        let of_ipv6 = (1..=6).map(|time| seen("[2001:db8::9]:5000", 10 + time));
        own.set_seen(of_ipv6.chain([seen("203.0.113.9:1", 1), seen("203.0.113.9:2", 2)]).collect());
        let times =
            |most| own.vouchers(most, None).iter().map(|shown| shown.voucher.time).collect::<Vec<_>>();
        assert_eq!(times(4), [2, 16, 1, 15]);
        assert_eq!(times(9), [2, 16, 1, 15, 14, 13, 12, 11]);
    }

    #[test]
    fn only_a_root_beyond_the_local_network_can_tell_that_there_is_no_nat() {
        let root = Identity::from_seed(&[1; 32]);
        let here: SocketAddr = "192.168.1.9:4000".parse().unwrap();
        let seen = |by: &str, at: SocketAddr| Seen {
            root: *root.public(),
            at: by.parse().unwrap(),
            voucher: Voucher::sign(&root, &root.node_id(), 1, at),
            is_guest: false,
        };
        let mapping = |own: SocketAddr, seen: Vec<Seen>| {
            let mut contact = OwnContact::default();
            let given = Candidate { kind: CandidateKind::Interface, address: own };
            contact.set_given(Contact::new(Nat::default(), [given]));
            contact.set_seen(seen);
            contact.contact().nat.mapping
        };
        let near = seen("192.168.1.1:7420", here);
        assert_eq!(mapping(here, vec![near.clone()]), Mapping::Unknown);
        let outside: SocketAddr = "203.0.113.9:5000".parse().unwrap();
        let far = seen("198.51.100.1:7420", outside);
        assert_eq!(mapping(here, vec![near, far]), Mapping::Unknown, "one root sees it behind a NAT");
        assert_eq!(mapping(outside, vec![seen("198.51.100.1:7420", outside)]), Mapping::NoNat);
    }

    #[test]
    fn a_root_that_was_only_named_cannot_say_behind_which_address_this_node_is() {
        let root = Identity::from_seed(&[1; 32]);
        let seen = |host, port, is_guest| Seen {
            root: *root.public(),
            at: ([198, 51, 100, host], 7420).into(),
            voucher: Voucher::sign(&root, &root.node_id(), 1, ([203, 0, 113, host], port).into()),
            is_guest,
        };
        let mut own = OwnContact::default();
        own.set_seen(vec![seen(9, 1, false), seen(9, 2, true), seen(8, 3, true)]);
        let hosts: Vec<_> = own.contact().candidates().iter().map(|one| one.address.to_string()).collect();
        assert_eq!(hosts, ["203.0.113.9:1", "203.0.113.9:2"], "another port of the same address it may say");
        assert_eq!(own.vouchers(4, None).len(), 3, "who uses it himself may believe it");
        own.set_seen(vec![seen(8, 3, true)]);
        assert_eq!(own.contact().public().count(), 1, "nobody else has seen it");
    }

    /// Returns the contact after roots at these hosts have seen this node at these addresses. It has an
    /// interface at 10.0.0.1:4000.
    fn seen_by(said: &[(u8, &str)]) -> OwnContact {
        let seen = said.iter().zip(1..).map(|((host, address), seed)| {
            let root = Identity::from_seed(&[seed; 32]);
            Seen {
                root: *root.public(),
                at: ([198, 51, 100, *host], 7420).into(),
                voucher: Voucher::sign(&root, &root.node_id(), 1, address.parse().unwrap()),
                is_guest: false,
            }
        });
        let mut own = OwnContact::default();
        let address = "10.0.0.1:4000".parse().unwrap();
        let given = [Candidate { kind: CandidateKind::Interface, address }];
        own.set_given(Contact::new(Nat::default(), given));
        own.set_seen(seen.collect());
        own
    }

    #[test]
    fn a_node_behind_a_root_gets_its_word_and_others_only_on_other_ip_addresses() {
        let (here, next) = ("203.0.113.9:5000", "203.0.113.9:5001");
        let (other, ipv6) = ("203.0.113.10:5000", "[2001:db8::9]:5000");
        let own = seen_by(&[(1, here), (2, next), (3, other), (4, ipv6)]);
        let shown = |relay: Option<u8>| -> Vec<String> {
            let relay = relay.map(|host| SocketAddr::from(([198, 51, 100, host], 7420)));
            let shown = own.vouchers(4, relay).into_iter();
            shown.map(|one| one.voucher.address.to_string()).collect()
        };
        // The families alternate.
        assert_eq!(shown(Some(1)), [here, ipv6, other]);
        assert_eq!(shown(Some(2)), [next, ipv6, other]);
        assert_eq!(shown(Some(4)), [here, ipv6, next, other]);
        assert_eq!(shown(None).len(), 4, "nobody knows which of them the other node uses");
        assert_eq!(shown(Some(9)).len(), 4, "no root of this node's relays");
    }

    #[test]
    fn what_one_root_says_alone_decides_nothing_that_others_contradict() {
        const OWN: &str = "10.0.0.1:4000";
        const THERE: &str = "203.0.113.9:5000";
        const LIES: [&str; 3] = [OWN, "203.0.113.9:6000", "192.0.2.66:5000"];
        let mapping = |said: &[(u8, &str)]| seen_by(said).contact().nat.mapping;
        for lie in LIES {
            for place in 0..3 {
                let mut said = vec![(1, THERE), (2, THERE)];
                said.insert(place, (9, lie));
                assert_eq!(mapping(&said), Mapping::EndpointIndependent, "{said:?}");
                // Any number of roots on one host is one voice.
                said.push((9, "203.0.113.9:6001"));
                assert_eq!(mapping(&said), Mapping::EndpointIndependent, "{said:?}");
            }
        }
        for lie in [THERE, "192.0.2.66:5000"] {
            assert_eq!(mapping(&[(9, lie), (1, OWN), (2, OWN)]), Mapping::NoNat, "{lie}");
        }
        // If two contradict each other, either may be lying.
        for lie in [OWN, "192.0.2.66:5000"] {
            assert_eq!(mapping(&[(1, THERE), (9, lie)]), Mapping::Unknown, "{lie}");
        }
        // Three different views cannot be one root's lie.
        let anew = [(1, "203.0.113.9:1"), (2, "203.0.113.9:2"), (3, "203.0.113.9:3")];
        assert_eq!(mapping(&anew), Mapping::AddressDependent);
        assert_eq!(mapping(&[(1, OWN)]), Mapping::NoNat, "nobody contradicts it");
    }

    #[test]
    fn one_root_alone_puts_this_node_behind_no_address_where_several_see_it_elsewhere() {
        let hosts = |said: &[(u8, &str)]| -> Vec<_> {
            let own = seen_by(said);
            own.contact().public().map(|ip| ip.to_string()).collect()
        };
        let (there, lie) = ("203.0.113.9:5000", "192.0.2.66:5000");
        assert_eq!(hosts(&[(9, lie), (1, there), (2, "203.0.113.9:5001")]), ["203.0.113.9", "203.0.113.9"]);
        assert_eq!(hosts(&[(9, lie), (1, there)]).len(), 2, "either may be true, and both are tried");
        let of_ipv6 = [(9, "[2001:db8::9]:5000"), (1, there), (2, there)];
        assert_eq!(hosts(&of_ipv6), ["2001:db8::9", "203.0.113.9"], "another family");
    }
}
