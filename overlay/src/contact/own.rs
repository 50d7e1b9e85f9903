//! Where this node itself can be reached: what its driver knows, and what roots have seen.

use std::net::SocketAddr;

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

    /// What roots vouch for, one for each address, at most so many.
    pub(crate) fn vouchers(&self, most: usize) -> Vec<RootVoucher> {
        let mut told: Vec<RootVoucher> = Vec::new();
        for Seen { root, voucher, .. } in &self.seen {
            told.push(RootVoucher { root: RootVoucher::name_of(&root.node_id()), voucher: *voucher });
        }
        told.truncate(most);
        told
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
) -> Vec<std::net::IpAddr> {
    let is_good = |shown: &&RootVoucher| {
        let is_fresh = shown.voucher.time.abs_diff(unix_time) <= VOUCHER_AGE;
        let root = roots.iter().find(|root| RootVoucher::name_of(&root.node_id()) == shown.root);
        is_fresh && root.is_some_and(|root| shown.voucher.verify(root, node))
    };
    shown.iter().filter(is_good).map(|shown| shown.voucher.address.ip().to_canonical()).collect()
}

/// A voucher is good for so long, in seconds: somebody else may have the address later. Clocks differ, too.
const VOUCHER_AGE: u64 = 3600;
