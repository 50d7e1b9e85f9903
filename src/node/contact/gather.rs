//! Pure functions that derive a contact from observations.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use peersock_nat::{self as nat, DeltaKind};
use peersock_overlay::{Candidate, CandidateKind, Contact, Filtering, Mapping, Nat};

/// Address at which an outsider has seen one of the node's sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seen {
    /// Index of the socket.
    pub(super) socket: usize,
    /// Address of the outsider.
    pub(super) by: SocketAddr,
    /// Address at which it saw the socket.
    pub(super) at: SocketAddr,
}

/// Observations so far.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Endpoints of the node on its interfaces.
    pub(super) own: Vec<SocketAddr>,
    /// Endpoints that routers forward to the node.
    pub(super) forwarded: Vec<SocketAddr>,
    pub(super) seen: Vec<Seen>,
    /// Endpoints that TURN servers relay to the node.
    pub(super) relayed: Vec<SocketAddr>,
    /// Result of a probe of the NAT on the path to most others.
    pub(super) probed: Option<nat::Nat>,
    /// Mapped address of that probe's newest flow.
    pub(super) newest: Option<SocketAddr>,
}

impl Known {
    /// Returns the contact, with the best candidates first.
    pub(super) fn contact(&self) -> Contact {
        let of_kind = |kind| move |address| Candidate { kind, address };
        let forwarded = self.forwarded.iter().copied().map(of_kind(CandidateKind::Forwarded));
        let mapped = agreed(&self.seen).into_iter().chain(self.next_follows());
        let mapped = mapped.map(of_kind(CandidateKind::Mapped));
        let (near, far): (Vec<_>, Vec<_>) = self.own.iter().copied().partition(|own| is_private(own.ip()));
        // Public addresses first, because a private one is only useful in the same network.
        let own = far.into_iter().chain(near).map(of_kind(CandidateKind::Interface));
        let relayed = self.relayed.iter().copied().map(of_kind(CandidateKind::Relayed));
        // Relayed candidates come last, but must not be cut off by the limit.
        let most = Contact::MAX_CANDIDATES.saturating_sub(self.relayed.len());
        Contact::new(self.nat(), forwarded.chain(mapped).chain(own).take(most).chain(relayed))
    }

    /// Returns the newest mapping, if the NAT's ports follow each other.
    fn next_follows(&self) -> Option<SocketAddr> {
        // The probe's mappings are newer than the sockets' mappings, so a prediction must start from them.
        let Nat { mapping, port_delta, .. } = self.nat();
        let maps_anew = matches!(mapping, Mapping::AddressDependent | Mapping::AddressAndPortDependent);
        self.newest.filter(|_| maps_anew && port_delta != 0)
    }

    /// Returns the behaviour of the NAT. Observations of the node's sockets count more than the probe, which
    /// uses others.
    pub(super) fn nat(&self) -> Nat {
        let probed = self.probed.as_ref();
        let translated = probed.and_then(|nat| nat.translated);
        let [of_ipv4, mapping_ipv6] = [true, false].map(|is_ipv4| mapping(&self.seen, &self.own, is_ipv4));
        let mapping = match of_ipv4 {
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
        Nat { mapping, mapping_ipv6, filtering, port_delta: delta.map_or(0, |delta| delta.value) }
    }
}

/// Derives the mapping behaviour of one family from the observations. Two hosts are needed to recognize a NAT
/// that maps each destination anew. A single host cannot overrule what others agree on.
fn mapping(seen: &[Seen], own: &[SocketAddr], is_ipv4: bool) -> Mapping {
    let is_own = |at: &SocketAddr| own.iter().any(|own| own.ip() == at.ip());
    let of_family: Vec<_> = seen.iter().filter(|seen| seen.at.is_ipv4() == is_ipv4).copied().collect();
    let views = views(&of_family);
    if !views.is_empty() && views.iter().all(|view| view.prevailing().iter().all(is_own)) {
        return Mapping::NoNat;
    }
    let verdicts: Vec<bool> = views.iter().filter_map(View::is_one_for_all).collect();
    match verdicts.first() {
        None => Mapping::Unknown,
        Some(_) if verdicts.iter().all(|is_same| *is_same) => Mapping::EndpointIndependent,
        Some(_) => Mapping::AddressAndPortDependent,
    }
}

/// Returns the address of each socket, as far as the outsiders' observations allow; one endpoint for each
/// address.
fn agreed(seen: &[Seen]) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = Vec::new();
    for at in views(seen).iter().flat_map(View::prevailing) {
        if !found.contains(&at) {
            found.push(at);
        }
    }
    found
}

/// Limit of believed endpoints per socket if no two hosts agree, because one host could fill the contact.
const MAX_UNCERTAIN: usize = 2;

/// Observations of one socket, the newest last. Several ports of one host count as one voice.
struct View {
    all: Vec<Seen>,
}

fn views(seen: &[Seen]) -> Vec<View> {
    let mut by_socket: BTreeMap<usize, Vec<Seen>> = BTreeMap::new();
    for one in seen {
        by_socket.entry(one.socket).or_default().push(*one);
    }
    by_socket.into_values().map(|all| View { all }).collect()
}

impl View {
    /// Returns the number of hosts with an observation that matches.
    fn hosts(&self, holds: impl Fn(&Seen) -> bool) -> usize {
        self.all.iter().filter(|seen| holds(seen)).map(|seen| seen.by.ip()).collect::<BTreeSet<_>>().len()
    }

    /// Returns the endpoints that several hosts agree on. Otherwise returns the newest one of each IP address
    /// that several agree on, as with a NAT that maps each destination anew. Failing that, believes any host.
    fn prevailing(&self) -> Vec<SocketAddr> {
        let endpoints = self.all.iter().filter(|one| self.hosts(|other| other.at == one.at) > 1);
        let certain: BTreeSet<_> = endpoints.map(|one| one.at).collect();
        if !certain.is_empty() {
            return certain.into_iter().collect();
        }
        let mut newest: Vec<SocketAddr> = Vec::new();
        for one in self.all.iter().rev() {
            if newest.iter().all(|known| known.ip() != one.at.ip()) {
                newest.push(one.at);
            }
        }
        let is_common = |at: &&SocketAddr| self.hosts(|other| other.at.ip() == at.ip()) > 1;
        let common: Vec<_> = newest.iter().filter(is_common).copied().collect();
        if !common.is_empty() {
            return common;
        }
        // Peers verify an address before they use it, so a wrong one costs little.
        newest.truncate(MAX_UNCERTAIN);
        newest
    }

    /// Returns true if all hosts see one endpoint, except for one host that contradicts at least two. `None`
    /// if only a single host has answered.
    fn is_one_for_all(&self) -> Option<bool> {
        let of_all = self.hosts(|_| true);
        let of_most = self.all.iter().map(|one| self.hosts(|other| other.at == one.at)).max()?;
        (of_all > 1).then(|| of_most == of_all || of_most > 1 && of_most + 1 == of_all)
    }
}

/// Returns true if an address has a meaning on one network only.
pub(super) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            // Shared address space for NATs of providers (RFC 6598).
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
            ..Known::default()
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
        // Two ports of one host count as one voice.
        known.seen = vec![seen("192.0.2.2:1", "198.51.100.66:53"), seen("192.0.2.2:2", "198.51.100.66:53")];
        assert_eq!(shown(&known.contact())[0], "Mapped 198.51.100.66:53");
        assert_eq!(known.nat().mapping, Mapping::Unknown);
    }

    #[test]
    fn one_liar_does_not_make_a_contact_of_his_own() {
        let truth = "203.0.113.9:7420";
        let mut known = Known { own: vec![at("192.168.1.2:7420")], ..Known::default() };
        known.seen = vec![seen("192.0.2.1:1", truth), seen("192.0.2.2:1", truth)];
        // The liar reports as many addresses as it has ports.
        let lies = (1..20).map(|i| seen(&format!("192.0.2.66:{i}"), &format!("198.51.100.{i}:53")));
        known.seen.extend(lies.clone());
        assert_eq!(shown(&known.contact()), [format!("Mapped {truth}"), "Interface 192.168.1.2:7420".into()]);
        assert_eq!(known.nat().mapping, Mapping::EndpointIndependent);
        // If no hosts agree, the liar gets two votes.
        known.seen = lies.collect();
        assert_eq!(known.contact().candidates().len(), 3);
        // The liar cannot hide the absence of a NAT.
        known.seen = vec![
            seen("192.0.2.1:1", "192.168.1.2:7420"),
            seen("192.0.2.2:1", "192.168.1.2:7420"),
            seen("192.0.2.66:1", truth),
        ];
        assert_eq!(known.nat().mapping, Mapping::NoNat);
    }

    #[test]
    fn of_a_nat_that_maps_each_destination_anew_the_address_is_agreed_about() {
        let mut known = Known { own: vec![at("192.168.1.2:7420")], ..Known::default() };
        known.seen = vec![
            seen("192.0.2.1:1", "203.0.113.9:5000"),
            seen("192.0.2.2:1", "203.0.113.9:5007"),
            seen("192.0.2.66:1", "198.51.100.66:53"),
        ];
        let expected = ["Mapped 203.0.113.9:5007", "Interface 192.168.1.2:7420"];
        assert_eq!(shown(&known.contact()), expected);
        assert_eq!(known.nat().mapping, Mapping::AddressAndPortDependent);
    }

    #[test]
    fn each_socket_is_seen_for_itself() {
        let mut known = Known { own: vec![at("192.168.1.2:7420")], ..Known::default() };
        let of_v6 = |by: &str, endpoint: &str| Seen { socket: 1, ..seen(by, endpoint) };
        known.seen = vec![
            seen("192.0.2.1:1", "203.0.113.9:7420"),
            seen("192.0.2.2:1", "203.0.113.9:7420"),
            of_v6("[2001:db8::1]:1", "[2001:db8:1::9]:7421"),
        ];
        let expected =
            ["Mapped 203.0.113.9:7420", "Mapped [2001:db8:1::9]:7421", "Interface 192.168.1.2:7420"];
        assert_eq!(shown(&known.contact()), expected);
    }

    #[test]
    fn a_nat_that_maps_each_destination_anew_is_told_by_two_hosts() {
        let mut known = Known { own: vec![at("192.168.1.2:7420")], ..Known::default() };
        known.seen = vec![seen("192.0.2.1:1", "203.0.113.9:5000"), seen("192.0.2.2:1", "203.0.113.9:5007")];
        assert_eq!(known.nat().mapping, Mapping::AddressAndPortDependent);
        // The next mapping follows the newest one.
        assert_eq!(shown(&known.contact())[0], "Mapped 203.0.113.9:5007");
    }

    #[test]
    fn peers_guess_from_the_newest_mapping_where_each_follows_the_last_one() {
        let local = |port| SocketAddr::from(([192, 168, 1, 2], port));
        let sample = |port, mapped: &str| Sample {
            local: local(port),
            server: at("192.0.2.1:3478"),
            mapped: at(mapped),
            rtt: Duration::from_millis(20),
        };
        for (ports, is_named) in [([5010, 5011, 5012], true), ([5010, 9000, 1234], false)] {
            let mut observed = Observations::none(local(1).ip());
            observed.main = vec![sample(4000, "203.0.113.9:5001")];
            observed.fresh = [4001, 4007, 4004]
                .into_iter()
                .zip(ports)
                .map(|(port, mapped)| sample(port, &format!("203.0.113.9:{mapped}")))
                .collect();
            let mut known = Known { newest: Some(observed.fresh[2].mapped), ..Known::default() };
            known.probed = Some(observed.decide());
            known.seen =
                vec![seen("192.0.2.1:1", "203.0.113.9:5000"), seen("192.0.2.2:1", "203.0.113.9:5002")];
            let newest = format!("Mapped 203.0.113.9:{}", ports[2]);
            assert_eq!(shown(&known.contact()).contains(&newest), is_named, "{:?}", known.contact());
        }
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
            ..Nat::default()
        };
        assert_eq!(known.nat(), nat);
        known.own = vec![at("192.168.1.2:7420")];
        known.seen = vec![seen("192.0.2.1:1", "203.0.113.9:5000"), seen("192.0.2.2:1", "203.0.113.9:5007")];
        assert_eq!(known.nat().mapping, Mapping::AddressAndPortDependent, "its own sockets count more");
    }
}
