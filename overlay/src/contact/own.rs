//! Where this node itself can be reached: what its driver knows, and what roots have seen.

use std::net::{IpAddr, SocketAddr};

use super::{Candidate, CandidateKind, Contact, Mapping, Nat};
use crate::id::{NodeId, PublicIdentity};
use crate::wire::{RootVoucher, Voucher};

/// Mapped addresses of one IP address that are told to others; there is to be room for others of that host.
const MAX_SEEN_PER_HOST: usize = 2;

/// What this node can say of itself.
#[derive(Debug, Default)]
pub(crate) struct OwnContact {
    given: Contact,
    seen: Vec<Seen>,
    contact: Contact,
}

/// Where a root has seen this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) root: PublicIdentity,
    /// Where this node sends to reach it.
    pub(crate) at: SocketAddr,
    pub(crate) voucher: Voucher,
}

impl OwnContact {
    /// The driver says where this node is. True if that changes anything.
    pub(crate) fn set_given(&mut self, given: Contact) -> bool {
        self.given = given;
        self.compose()
    }

    /// Roots have seen this node there. True if that changes anything but times.
    pub(crate) fn set_seen(&mut self, mut seen: Vec<Seen>) -> bool {
        // Over a stream a root sees no address that is of use.
        seen.retain(|one| one.voucher.address.port() != 0);
        // The newest mapping is the one that the next ports follow.
        seen.sort_by_key(|one| std::cmp::Reverse(one.voucher.time));
        self.seen = seen;
        self.compose()
    }

    /// All of it.
    pub(crate) fn contact(&self) -> &Contact {
        &self.contact
    }

    /// What roots vouch for, the newest first, at most so many.
    pub(crate) fn vouchers(&self, most: usize) -> Vec<RootVoucher> {
        let shown = |one: &Seen| RootVoucher {
            root: RootVoucher::name_of(&one.root.node_id()),
            voucher: one.voucher,
        };
        self.seen.iter().take(most).map(shown).collect()
    }

    fn compose(&mut self) -> bool {
        let mut seen: Vec<Candidate> = Vec::new();
        for address in self.seen.iter().map(|one| one.voucher.address) {
            let of_host = seen.iter().filter(|other| other.address.ip() == address.ip()).count();
            let is_new = seen.iter().all(|other| other.address != address);
            if is_new && of_host < MAX_SEEN_PER_HOST {
                seen.push(Candidate { kind: CandidateKind::Mapped, address });
            }
        }
        let given = self.given.candidates().iter().copied();
        let (forwarded, others): (Vec<_>, Vec<_>) =
            given.partition(|candidate| candidate.kind == CandidateKind::Forwarded);
        let nat = Nat { mapping: self.mapping(), ..self.given.nat };
        let contact = Contact::new(nat, forwarded.into_iter().chain(seen).chain(others));
        let is_new = contact != self.contact;
        self.contact = contact;
        is_new
    }

    /// How the NAT box maps: as the driver has measured it, or as two roots have seen it.
    fn mapping(&self) -> Mapping {
        if self.given.nat.mapping != Mapping::Unknown {
            return self.given.nat.mapping;
        }
        let own = |address: &SocketAddr| {
            let mut given = self.given.candidates().iter();
            given.any(|known| known.kind == CandidateKind::Interface && known.address == *address)
        };
        let mut mapping = Mapping::Unknown;
        for (at, one) in self.seen.iter().enumerate() {
            if own(&one.voucher.address) {
                return Mapping::NoNat;
            }
            for other in &self.seen[..at] {
                let (here, there) = (one.voucher.address, other.voucher.address);
                if here.is_ipv4() != there.is_ipv4() {
                    continue;
                }
                mapping = match (one.at.ip() == other.at.ip(), here == there) {
                    // Another port of one address: nothing is known of other addresses if it is the same.
                    (true, true) => mapping,
                    (true, false) => return Mapping::AddressAndPortDependent,
                    // It may depend on the port, too; that is not seen from here.
                    (false, false) => return Mapping::AddressDependent,
                    (false, true) => Mapping::EndpointIndependent,
                };
            }
        }
        mapping
    }
}

/// Finds the IP addresses that roots of this node's have seen `node` at, of those that it shows vouchers for.
/// `unix_time` is the wall clock, in seconds.
pub(crate) fn vouched(
    node: &NodeId,
    shown: &[RootVoucher],
    roots: &[PublicIdentity],
    unix_time: u64,
) -> Vec<IpAddr> {
    let is_good = |shown: &&RootVoucher| {
        let is_fresh = shown.voucher.time.abs_diff(unix_time) <= VOUCHER_AGE;
        let root = roots.iter().find(|root| RootVoucher::name_of(&root.node_id()) == shown.root);
        is_fresh && root.is_some_and(|root| shown.voucher.verify(root, node))
    };
    shown.iter().filter(is_good).map(|shown| shown.voucher.address.ip().to_canonical()).collect()
}

/// A voucher is good for so long, in seconds: somebody else may have the address later. Clocks differ, too.
const VOUCHER_AGE: u64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Identity;

    const TIME: u64 = 1_800_000_000;

    #[test]
    fn a_voucher_counts_if_a_root_of_ours_has_given_it_to_that_node_lately() {
        let [root, other, node] = [1, 2, 3].map(|seed| Identity::from_seed(&[seed; 32]));
        let roots = [*root.public()];
        let there = "203.0.113.9:5000".parse().unwrap();
        let show = |signer: &Identity, name: &Identity, of: &Identity, time| RootVoucher {
            root: RootVoucher::name_of(&name.node_id()),
            voucher: Voucher::sign(signer, &of.node_id(), time, there),
        };
        let count = |shown| vouched(&node.node_id(), &[shown], &roots, TIME).len();
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
    }

    #[test]
    fn what_roots_see_stands_behind_forwarded_ports_and_leaves_room_for_others() {
        let root = Identity::from_seed(&[1; 32]);
        let seen = |port, time| Seen {
            root: *root.public(),
            at: ([198, 51, 100, port as u8], 7420).into(),
            voucher: Voucher::sign(&root, &root.node_id(), time, ([203, 0, 113, 9], port).into()),
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
        assert_eq!(own.vouchers(2).len(), 2);
    }
}
