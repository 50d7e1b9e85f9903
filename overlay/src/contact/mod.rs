//! Addresses of nodes, and the ways by which two of them open a path through their NAT boxes.
//!
//! A [`Contact`] is a node's own description: addresses ([`Candidate`]), and the behaviour of its NAT
//! ([`Nat`]). [`HolePunch`] is the plan of a side that has the other's contact: the times and addresses of
//! its packets.

mod attempt;
mod birthday;
mod candidate;
mod nat;
mod own;
mod own_tcp;
mod punch;
mod punching;
mod seen;
mod tcp;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

pub use attempt::{DirectAttempt, DirectOutcome};
pub use birthday::WantedSocket;
pub(crate) use birthday::{Birthday, Draw, Join, Pace};
pub use candidate::{Candidate, CandidateKind};
pub use nat::{Filtering, Mapping, Nat};
pub(crate) use own::{OwnContact, Seen, Vouched, Witness, vouched};
pub(crate) use own_tcp::SeenByTcp;
pub use punch::{HolePunch, NotTried, Shot};
pub(crate) use punching::{Allowances, Punching, Said, TcpDue};
pub(crate) use tcp::{Opened, ROUND_DURATION, TcpStreams};
pub use tcp::{TcpAction, TcpPunch, TcpTarget};

/// Description of how a node can be reached.
///
/// ```
/// use peersock_overlay::{Candidate, CandidateKind, Contact, Nat};
///
/// let address = "198.51.100.7:4000".parse()?;
/// let contact = Contact::new(Nat::default(), [Candidate { kind: CandidateKind::Mapped, address }]);
/// assert_eq!(contact.candidates().len(), 1);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contact {
    /// NAT in front of the node.
    pub nat: Nat,
    candidates: Vec<Candidate>,
}

impl Contact {
    /// Maximum number of candidates.
    pub const MAX_CANDIDATES: usize = 16;

    /// Creates a contact. `candidates` are in the order of their value. Leaves out invalid and repeated ones,
    /// and those over [`Self::MAX_CANDIDATES`].
    pub fn new(nat: Nat, candidates: impl IntoIterator<Item = Candidate>) -> Self {
        let mut kept: Vec<Candidate> = Vec::new();
        for mut candidate in candidates {
            candidate.address = canonical(candidate.address);
            let is_new = kept.iter().all(|other| other.address != candidate.address);
            if kept.len() < Self::MAX_CANDIDATES && candidate.is_valid() && is_new {
                kept.push(candidate);
            }
        }
        Self { nat, candidates: kept }
    }

    /// Returns the candidates, the best first.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Returns the node's IP addresses that may mean the same host everywhere, the best first. Excludes TURN
    /// servers' addresses, which do not locate the node.
    pub(crate) fn public(&self) -> impl Iterator<Item = IpAddr> {
        let is_its = |candidate: &&Candidate| candidate.kind != CandidateKind::Relayed;
        let global = self.candidates.iter().filter(is_its).filter(|candidate| candidate.is_global());
        global.map(|candidate| candidate.address.ip())
    }

    /// Returns the mapping of one address family. Without a public IPv4 address, [`Nat::mapping`] may
    /// describe IPv6.
    pub(crate) fn mapping(&self, is_ipv4: bool) -> Mapping {
        let has_ipv4 = || self.public().any(|ip| ip.is_ipv4());
        match self.nat.mapping_ipv6 {
            _ if is_ipv4 => self.nat.mapping,
            Mapping::Unknown if !has_ipv4() => self.nat.mapping,
            known => known,
        }
    }

    /// Returns true if the node has any address of that family, without which a packet cannot leave.
    pub(crate) fn has_family(&self, is_ipv4: bool) -> bool {
        // An address on a TURN server does not count, because packets from it leave there.
        let mut its = self.candidates.iter().filter(|candidate| candidate.kind != CandidateKind::Relayed);
        its.any(|candidate| candidate.address.is_ipv4() == is_ipv4)
    }

    /// Returns true if the node itself says that a TURN server relays to it at this address.
    pub(crate) fn is_relayed_at(&self, address: &SocketAddr) -> bool {
        let address = canonical(*address);
        self.candidates.iter().any(|one| one.kind == CandidateKind::Relayed && one.address == address)
    }

    /// Appends its bytes, as they are in `docs/reference/PROTOCOL.md`, section 14.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.push(self.nat.mapping.number() | self.nat.mapping_ipv6.number() << 4);
        out.push(match self.nat.filtering {
            Filtering::Unknown => 0,
            Filtering::EndpointIndependent => 1,
            Filtering::AddressDependent => 2,
            Filtering::AddressAndPortDependent => 3,
        });
        out.extend(self.nat.port_delta.to_be_bytes());
        out.push(self.candidates.len() as u8);
        for candidate in &self.candidates {
            out.push(match candidate.kind {
                CandidateKind::Interface => 0,
                CandidateKind::Mapped => 1,
                CandidateKind::Forwarded => 2,
                CandidateKind::Relayed => 3,
            });
            let ip = match candidate.address.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            out.extend(ip.octets());
            out.extend(candidate.address.port().to_be_bytes());
        }
    }

    /// Parses the bytes of [`Self::emit`] from the front, and returns the contact and the rest. Skips kinds
    /// of later versions. Returns `None` if the bytes are cut off, or have more than
    /// [`Self::MAX_CANDIDATES`].
    pub fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, mut rest) = bytes.split_first_chunk::<5>()?;
        let nat = Nat {
            mapping: Mapping::of_number(head[0] & 0x0f),
            mapping_ipv6: Mapping::of_number(head[0] >> 4),
            filtering: match head[1] {
                1 => Filtering::EndpointIndependent,
                2 => Filtering::AddressDependent,
                3 => Filtering::AddressAndPortDependent,
                _ => Filtering::Unknown,
            },
            port_delta: i16::from_be_bytes([head[2], head[3]]),
        };
        if usize::from(head[4]) > Self::MAX_CANDIDATES {
            return None;
        }
        let mut candidates = Vec::new();
        for _ in 0..head[4] {
            let (candidate, after) = rest.split_first_chunk::<19>()?;
            rest = after;
            let kind = match candidate[0] {
                0 => CandidateKind::Interface,
                1 => CandidateKind::Mapped,
                2 => CandidateKind::Forwarded,
                3 => CandidateKind::Relayed,
                _ => continue,
            };
            let ip: [u8; 16] = candidate[1..17].try_into().ok()?;
            let port = u16::from_be_bytes([candidate[17], candidate[18]]);
            let address = SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port);
            candidates.push(Candidate { kind, address });
        }
        Some((Self::new(nat, candidates), rest))
    }
}

/// Returns the address with IPv4-mapped addresses as IPv4, and without the IPv6 fields that have meaning only
/// locally.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn contact(addresses: &[&str]) -> Contact {
        let candidates = addresses.iter().map(|text| Candidate {
            kind: CandidateKind::Mapped,
            address: text.parse().expect("an address"),
        });
        Contact::new(Nat::default(), candidates)
    }

    pub(crate) fn any_contact() -> impl Strategy<Value = Contact> {
        let filtering = prop::sample::select(vec![
            Filtering::Unknown,
            Filtering::EndpointIndependent,
            Filtering::AddressDependent,
            Filtering::AddressAndPortDependent,
        ]);
        let mapping = || (0..5_u8).prop_map(Mapping::of_number);
        let nat = (mapping(), mapping(), filtering, any::<i16>());
        let nat = nat.prop_map(|(mapping, mapping_ipv6, filtering, port_delta)| Nat {
            mapping,
            mapping_ipv6,
            filtering,
            port_delta,
        });
        let kind = prop::sample::select(vec![
            CandidateKind::Interface,
            CandidateKind::Mapped,
            CandidateKind::Forwarded,
            CandidateKind::Relayed,
        ]);
        let candidate = (kind, any::<IpAddr>(), any::<u16>())
            .prop_map(|(kind, ip, port)| Candidate { kind, address: SocketAddr::new(ip, port) });
        (nat, prop::collection::vec(candidate, 0..20)).prop_map(|(nat, all)| Contact::new(nat, all))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(contact in any_contact(), tail in any::<[u8; 3]>()) {
            let mut bytes = Vec::new();
            contact.emit(&mut bytes);
            bytes.extend(tail);
            prop_assert_eq!(Contact::parse(&bytes), Some((contact, &tail[..])));
        }
    }

    #[test]
    fn each_family_is_mapped_in_its_own_way() {
        use Mapping::{AddressDependent, NoNat, Unknown};
        let (v4, v6) = ("198.51.100.7:5", "[2001:db8::7]:5");
        let mapping = |addresses: &[&str], mapping, mapping_ipv6| {
            let mut there = contact(addresses);
            there.nat = Nat { mapping, mapping_ipv6, ..there.nat };
            [true, false].map(|is_ipv4| there.mapping(is_ipv4))
        };
        assert_eq!(mapping(&[v4, v6], AddressDependent, NoNat), [AddressDependent, NoNat]);
        assert_eq!(mapping(&[v4, v6], AddressDependent, Unknown), [AddressDependent, Unknown]);
        assert_eq!(mapping(&[v6], AddressDependent, Unknown)[1], AddressDependent, "it has no other");
        assert_eq!(mapping(&[v6], AddressDependent, NoNat)[1], NoNat);
    }

    #[test]
    fn addresses_of_nobody_are_left_out() {
        let there = contact(&[
            "198.51.100.7:0",
            "0.0.0.0:5",
            "[::]:5",
            "224.0.0.251:5353",
            "[ff02::fb]:5353",
            "255.255.255.255:9",
            "169.254.169.254:80",
            "[fe80::1]:5",
            "[::ffff:224.0.0.1]:5",
            "198.51.100.7:5",
            "[::ffff:198.51.100.7]:5",
        ]);
        assert_eq!(there, contact(&["198.51.100.7:5"]));
    }

    #[test]
    fn kinds_of_later_versions_are_skipped() {
        let mut bytes = Vec::new();
        contact(&["198.51.100.7:5", "198.51.100.8:5"]).emit(&mut bytes);
        bytes[..2].fill(0xff);
        bytes[5] = 77;
        assert_eq!(Contact::parse(&bytes), Some((contact(&["198.51.100.8:5"]), &[][..])));
    }

    #[test]
    fn too_many_or_too_few_candidates_are_refused() {
        let mut bytes = Vec::new();
        contact(&["198.51.100.7:5"]).emit(&mut bytes);
        bytes[4] = 2;
        assert_eq!(Contact::parse(&bytes), None);
        bytes[4] = 17;
        bytes.resize(1000, 0);
        assert_eq!(Contact::parse(&bytes), None);
    }
}
