//! From what was found out to a contact: pure functions.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use peersock_nat::{self as nat, DeltaKind};
use peersock_overlay::{Candidate, CandidateKind, Contact, Filtering, Mapping, Nat};

/// As what an outsider has seen one of the node's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    /// The position of the socket.
    pub(super) socket: usize,
    /// The outsider.
    pub(super) by: SocketAddr,
    /// Where it saw the socket.
    pub(super) at: SocketAddr,
}

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The node's endpoints on its interfaces.
    pub(super) own: Vec<SocketAddr>,
    /// Endpoints that routers forward to the node.
    pub(super) forwarded: Vec<SocketAddr>,
    pub(super) seen: Vec<Seen>,
    /// Endpoints that TURN servers relay to the node.
    pub(super) relayed: Vec<SocketAddr>,
    /// What a probe has found out about the NAT on the way to most others.
    pub(super) probed: Option<nat::Nat>,
}

impl Known {
    /// The contact; the candidates of most worth first.
    pub(super) fn contact(&self) -> Contact {
        let of_kind = |kind| move |address| Candidate { kind, address };
        let forwarded = self.forwarded.iter().copied().map(of_kind(CandidateKind::Forwarded));
        let mapped = agreed(&self.seen).into_iter().map(of_kind(CandidateKind::Mapped));
        let (near, far): (Vec<_>, Vec<_>) = self.own.iter().copied().partition(|own| is_private(own.ip()));
        let own = far.into_iter().chain(near).map(of_kind(CandidateKind::Interface));
        let relayed = self.relayed.iter().copied().map(of_kind(CandidateKind::Relayed));
        // They come last and must not be what there is no room for.
        let most = Contact::MAX_CANDIDATES.saturating_sub(self.relayed.len());
        Contact::new(self.nat(), forwarded.chain(mapped).chain(own).take(most).chain(relayed))
    }

    /// How the NAT behaves. What the node's own sockets have seen counts more than the probe, which has its
    /// own.
    pub(super) fn nat(&self) -> Nat {
        let probed = self.probed.as_ref();
        let translated = probed.and_then(|nat| nat.translated);
        let mapping = match mapping(&self.seen, &self.own) {
            Mapping::Unknown if translated == Some(false) => Mapping::NoNat,
            Mapping::Unknown => match probed.and_then(|nat| nat.mapping) {
                None => Mapping::Unknown,
                Some(nat::Mapping::EndpointIndependent) => Mapping::EndpointIndependent,
                Some(nat::Mapping::AddressDependent) => Mapping::AddressDependent,
                Some(nat::Mapping::AddressAndPortDependent) => Mapping::AddressAndPortDependent,
            },
            seen => seen,
        };
        let filtering = match probed.and_then(|nat| nat.filtering) {
            None => Filtering::Unknown,
            Some(nat::Filtering::EndpointIndependent) => Filtering::EndpointIndependent,
            Some(nat::Filtering::AddressDependent) => Filtering::AddressDependent,
            Some(nat::Filtering::AddressAndPortDependent) => Filtering::AddressAndPortDependent,
        };
        let delta = probed.and_then(|nat| nat.delta).filter(|delta| delta.kind == DeltaKind::Independent);
        Nat { mapping, filtering, port_delta: delta.map_or(0, |delta| delta.value) }
    }
}

/// How the mapped endpoints of one socket follow from who looks at it. It takes two hosts to tell a NAT that
/// maps each destination anew.
fn mapping(seen: &[Seen], own: &[SocketAddr]) -> Mapping {
    let is_own = |seen: &Seen| own.iter().any(|own| own.ip() == seen.at.ip());
    let of_ipv4: Vec<_> = seen.iter().filter(|seen| seen.at.is_ipv4()).collect();
    if !of_ipv4.is_empty() && of_ipv4.iter().all(|seen| is_own(seen)) {
        return Mapping::NoNat;
    }
    let mut by_socket: BTreeMap<usize, Vec<&Seen>> = BTreeMap::new();
    for seen in of_ipv4 {
        by_socket.entry(seen.socket).or_default().push(seen);
    }
    let of_one = |all: &Vec<&Seen>| {
        let first = all.first()?;
        let others: Vec<_> = all.iter().filter(|seen| seen.by.ip() != first.by.ip()).collect();
        match others.is_empty() {
            true => None,
            false => Some(others.iter().all(|seen| seen.at == first.at)),
        }
    };
    let verdicts: Vec<bool> = by_socket.values().filter_map(of_one).collect();
    match verdicts.first() {
        None => Mapping::Unknown,
        Some(_) if verdicts.iter().all(|is_same| *is_same) => Mapping::EndpointIndependent,
        Some(_) => Mapping::AddressAndPortDependent,
    }
}

/// Endpoints that several hosts agree about; where none do, what each socket was seen at last, one for each
/// address. One host alone is believed, as one STUN server is: peers prove an address before they use it.
fn agreed(seen: &[Seen]) -> Vec<SocketAddr> {
    let mut votes: BTreeMap<SocketAddr, Vec<IpAddr>> = BTreeMap::new();
    for Seen { by, at, .. } in seen {
        let hosts = votes.entry(*at).or_default();
        if !hosts.contains(&by.ip()) {
            hosts.push(by.ip());
        }
    }
    let certain: Vec<_> = votes.iter().filter(|(_, by)| by.len() > 1).map(|(at, _)| *at).collect();
    let mut found = certain.clone();
    for Seen { at, .. } in seen.iter().rev() {
        let is_settled = |known: &SocketAddr| known.is_ipv4() == at.is_ipv4() && certain.contains(known);
        let is_known = |known: &SocketAddr| known.ip() == at.ip() || is_settled(known);
        if !found.iter().any(is_known) {
            found.push(*at);
        }
    }
    found
}

/// Whether an address means something on one network only.
pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            // RFC 6598: NATs of providers.
            let is_shared = a == 100 && b & 0xc0 == 64;
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use peersock_nat::{Observations, Sample};

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an endpoint")
    }

    fn seen(by: &str, endpoint: &str) -> Seen {
        Seen { socket: 0, by: at(by), at: at(endpoint) }
    }

    fn shown(contact: &Contact) -> Vec<String> {
        contact.candidates().iter().map(|one| format!("{:?} {}", one.kind, one.address)).collect()
    }

    #[test]
    fn what_reaches_furthest_comes_first() {
        let known = Known {
            own: vec![at("192.168.1.2:7420"), at("[2001:db8::2]:7421")],
            forwarded: vec![at("203.0.113.9:40000")],
            seen: vec![seen("192.0.2.1:1", "203.0.113.9:7420"), seen("192.0.2.2:1", "203.0.113.9:7420")],
            relayed: vec![at("192.0.2.9:50000")],
            probed: None,
        };
        let expected = [
            "Forwarded 203.0.113.9:40000",
            "Mapped 203.0.113.9:7420",
            "Interface [2001:db8::2]:7421",
            "Interface 192.168.1.2:7420",
            "Relayed 192.0.2.9:50000",
        ];
        assert_eq!(shown(&known.contact()), expected);
        assert_eq!(known.nat().mapping, Mapping::EndpointIndependent);
    }

    #[test]
    fn one_liar_among_several_is_outvoted_and_alone_he_is_believed() {
        let truth = "203.0.113.9:7420";
        let mut known = Known { own: vec![at("192.168.1.2:7420")], ..Known::default() };
        known.seen = vec![
            seen("192.0.2.1:1", truth),
            seen("192.0.2.2:1", "198.51.100.66:53"),
            seen("192.0.2.3:1", truth),
        ];
        assert_eq!(shown(&known.contact()), [format!("Mapped {truth}"), "Interface 192.168.1.2:7420".into()]);
        // Two ports of one host are one voice.
        known.seen = vec![seen("192.0.2.2:1", "198.51.100.66:53"), seen("192.0.2.2:2", "198.51.100.66:53")];
        assert_eq!(shown(&known.contact())[0], "Mapped 198.51.100.66:53");
        assert_eq!(known.nat().mapping, Mapping::Unknown);
    }

    #[test]
    fn a_nat_that_maps_each_destination_anew_is_told_by_two_hosts() {
        let mut known = Known { own: vec![at("192.168.1.2:7420")], ..Known::default() };
        known.seen = vec![seen("192.0.2.1:1", "203.0.113.9:5000"), seen("192.0.2.2:1", "203.0.113.9:5007")];
        assert_eq!(known.nat().mapping, Mapping::AddressAndPortDependent);
        // The newest mapping is where the next one follows from.
        assert_eq!(shown(&known.contact())[0], "Mapped 203.0.113.9:5007");
    }

    #[test]
    fn without_a_nat_others_see_what_the_node_sees() {
        let mut known = Known { own: vec![at("198.51.100.2:7420")], ..Known::default() };
        known.seen = vec![seen("192.0.2.1:1", "198.51.100.2:7420")];
        assert_eq!(known.nat().mapping, Mapping::NoNat);
        assert_eq!(known.contact().candidates().len(), 1);
    }

    #[test]
    fn a_probe_tells_what_the_sockets_cannot() {
        let local = at("192.168.1.2:4000");
        let sample = |server: &str, mapped: &str| Sample {
            local,
            server: at(server),
            mapped: at(mapped),
            rtt: Duration::from_millis(20),
        };
        let mut observed = Observations::none(local.ip());
        observed.asked = 2;
        observed.main = vec![
            sample("192.0.2.1:3478", "203.0.113.5:4000"),
            sample("198.51.100.1:3478", "203.0.113.5:4000"),
        ];
        observed.from_other_port = Some(false);
        observed.from_other_address = Some(false);
        let mut known = Known { probed: Some(observed.decide()), ..Known::default() };
        let nat = Nat {
            mapping: Mapping::EndpointIndependent,
            filtering: Filtering::AddressAndPortDependent,
            port_delta: 0,
        };
        assert_eq!(known.nat(), nat);
        known.own = vec![at("192.168.1.2:7420")];
        known.seen = vec![seen("192.0.2.1:1", "203.0.113.9:5000"), seen("192.0.2.2:1", "203.0.113.9:5007")];
        assert_eq!(known.nat().mapping, Mapping::AddressAndPortDependent, "its own sockets count more");
    }
}
