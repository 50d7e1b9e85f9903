//! Contacts for tests.

use std::net::{IpAddr, SocketAddr};

use peersock_overlay::{Candidate, CandidateKind, Contact, Filtering, Mapping, Nat};
use proptest::prelude::*;

pub(crate) fn contact(addresses: &[&str]) -> Contact {
    let candidates = addresses
        .iter()
        .map(|text| Candidate { kind: CandidateKind::Mapped, address: text.parse().expect("an address") });
    Contact::new(Nat::default(), candidates)
}

pub(crate) fn any_contact() -> impl Strategy<Value = Contact> {
    let candidate = any::<(IpAddr, u16)>().prop_map(|(ip, port)| Candidate {
        kind: CandidateKind::Forwarded,
        address: SocketAddr::new(ip, port),
    });
    let nat = any::<i16>().prop_map(|port_delta| Nat {
        mapping: Mapping::AddressDependent,
        mapping_ipv6: Mapping::NoNat,
        filtering: Filtering::AddressAndPortDependent,
        port_delta,
    });
    (nat, prop::collection::vec(candidate, 0..20)).prop_map(|(nat, all)| Contact::new(nat, all))
}
