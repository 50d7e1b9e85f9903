//! How a node can be reached: its addresses and what its NAT does.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// How a NAT chooses the external port of a socket (RFC 4787, 4.1).
///
/// ```
/// assert_eq!(peersock_dht::Mapping::default(), peersock_dht::Mapping::Unknown);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mapping {
    /// Not known.
    #[default]
    Unknown,
    /// There is no NAT.
    NoNat,
    /// The same one whatever the destination.
    EndpointIndependent,
    /// Another one for each destination address.
    AddressDependent,
    /// Another one for each destination address and port.
    AddressAndPortDependent,
}

/// Whose packets a NAT or firewall lets in (RFC 4787, 5).
///
/// ```
/// assert_eq!(peersock_dht::Filtering::default(), peersock_dht::Filtering::Unknown);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Filtering {
    /// Not known.
    #[default]
    Unknown,
    /// Everybody's.
    EndpointIndependent,
    /// Those from addresses to which something was sent.
    AddressDependent,
    /// Those from addresses and ports to which something was sent.
    AddressAndPortDependent,
}

/// What is known of the NAT in front of a node.
///
/// ```
/// use peersock_dht::{Filtering, Mapping, Nat};
///
/// let nat = Nat { mapping: Mapping::EndpointIndependent, filtering: Filtering::AddressDependent, port_delta: 0 };
/// assert_ne!(nat, Nat::default());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Nat {
    /// How it maps.
    pub mapping: Mapping,
    /// How it filters.
    pub filtering: Filtering,
    /// By how much the external port of the next mapping differs from the last one's; 0 if that is not known.
    pub port_delta: i16,
}

/// Where an address is known from.
///
/// ```
/// assert_ne!(peersock_dht::CandidateKind::Interface, peersock_dht::CandidateKind::Mapped);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CandidateKind {
    /// It is of one of the node's own interfaces.
    Interface,
    /// Another node, or a STUN server, sees the node there.
    Mapped,
    /// A router forwards it to the node: by UPnP, NAT-PMP, PCP, or a setting.
    Forwarded,
}

/// An address at which a node may be.
///
/// ```
/// use peersock_dht::{Candidate, CandidateKind};
///
/// let there = Candidate { kind: CandidateKind::Mapped, address: "198.51.100.7:4000".parse()? };
/// assert!(there.is_valid());
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Where it is known from.
    pub kind: CandidateKind,
    /// The address and UDP port. IPv6 scopes and flow labels are not told to others.
    pub address: SocketAddr,
}

impl Candidate {
    /// Whether a packet to it can be meant for one node: the port is not 0, the address neither unspecified,
    /// multicast, broadcast, nor link-local.
    pub fn is_valid(&self) -> bool {
        let ip = self.address.ip().to_canonical();
        let is_link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        self.address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_link_local
    }
}

/// How a node can be reached.
///
/// ```
/// use peersock_dht::{Candidate, CandidateKind, Contact, Nat};
///
/// let address = "198.51.100.7:4000".parse()?;
/// let contact = Contact::new(Nat::default(), [Candidate { kind: CandidateKind::Mapped, address }]);
/// assert_eq!(contact.candidates().len(), 1);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contact {
    /// What is in front of it.
    pub nat: Nat,
    candidates: Vec<Candidate>,
}

impl Contact {
    /// How many candidates there can be.
    pub const MAX_CANDIDATES: usize = 16;

    /// Takes candidates in the order of their worth. Those that are not valid, or come twice, are left out,
    /// and so is what is more than [`Self::MAX_CANDIDATES`].
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

    /// The candidates, the best first.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Appends its bytes.
    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.push(match self.nat.mapping {
            Mapping::Unknown => 0,
            Mapping::NoNat => 1,
            Mapping::EndpointIndependent => 2,
            Mapping::AddressDependent => 3,
            Mapping::AddressAndPortDependent => 4,
        });
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
            });
            let ip = match candidate.address.ip() {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            out.extend(ip.octets());
            out.extend(candidate.address.port().to_be_bytes());
        }
    }

    /// Reads what [`Self::emit`] wrote, from the front, and returns what follows it. Kinds that later
    /// versions may have are skipped.
    pub(crate) fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, mut rest) = bytes.split_first_chunk::<5>()?;
        let nat = Nat {
            mapping: match head[0] {
                1 => Mapping::NoNat,
                2 => Mapping::EndpointIndependent,
                3 => Mapping::AddressDependent,
                4 => Mapping::AddressAndPortDependent,
                _ => Mapping::Unknown,
            },
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

/// IPv4 as such, IPv6 without what means something on one machine only.
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
        let nat = (0..5_usize, 0..4_usize, any::<i16>()).prop_map(|(mapping, filtering, port_delta)| Nat {
            mapping: [
                Mapping::Unknown,
                Mapping::NoNat,
                Mapping::EndpointIndependent,
                Mapping::AddressDependent,
                Mapping::AddressAndPortDependent,
            ][mapping],
            filtering: [
                Filtering::Unknown,
                Filtering::EndpointIndependent,
                Filtering::AddressDependent,
                Filtering::AddressAndPortDependent,
            ][filtering],
            port_delta,
        });
        let kind = prop::sample::select(vec![
            CandidateKind::Interface,
            CandidateKind::Mapped,
            CandidateKind::Forwarded,
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
        bytes[..2].fill(77);
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
