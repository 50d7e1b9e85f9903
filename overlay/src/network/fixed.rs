//! Static networks: a file lists the members with their addresses, names and endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Exit, NetworkConfig, NetworkConfigError, NetworkSummary, Policy, Prefix, Programs, is_endpoint};
use crate::id::{DiscoveryKey, NetworkId, NodeId, Psk, PublicIdentity};
use crate::membership::{MemberName, ProcessCertificate, Refusal};

/// Network whose members are listed in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticNetwork {
    /// ID of kind [`NetworkKind::Static`](crate::NetworkKind::Static).
    pub id: NetworkId,
    /// Key mixed into every handshake besides the members' own keys.
    pub psk: Option<Psk>,
    /// All members, this node included.
    pub members: Vec<StaticMember>,
    /// Member through which this node reaches the Internet, or this node itself if it leads others there. It
    /// must be allowed by [`StaticMember::exit`]. For networks that a device has
    /// ([`NetworkConfig::with_exit`]).
    pub exit: Option<NodeId>,
    /// Certificate of this node, if it is a program's beside the node of a member.
    pub program: Option<Box<ProcessCertificate>>,
}

/// One member of a [`StaticNetwork`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticMember {
    /// Keys of the member.
    pub identity: PublicIdentity,
    /// Name for people, unique if given.
    pub name: Option<String>,
    /// Addresses besides the self-certifying one, IPv4 or IPv6.
    pub addresses: Vec<IpAddr>,
    /// Addresses on the underlying network, if known beforehand.
    pub endpoints: Vec<SocketAddr>,
    /// Blocks of addresses behind the member, which forwards packets to them. An address or a smaller block
    /// of another member inside them stays that member's.
    pub routes: Vec<Prefix>,
    /// Address families in which it may lead others to the Internet.
    pub exit: Exit,
}

impl StaticNetwork {
    pub(super) fn validate(&self) -> Result<(), NetworkConfigError> {
        let certified = self.id.certified_prefix();
        let mut nodes = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        let mut names = BTreeSet::new();
        let mut routes = BTreeSet::new();
        for member in &self.members {
            let id = member.identity.node_id();
            if !nodes.insert(id) {
                return Err(NetworkConfigError::DuplicateMember(id));
            }
            if let Some(name) = &member.name
                // Host names do not depend on case (RFC 4343).
                && !names.insert(name.to_ascii_lowercase())
            {
                return Err(NetworkConfigError::DuplicateName(name.clone()));
            }
            for &address in &member.addresses {
                if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
                    return Err(NetworkConfigError::UnusableAddress(address));
                }
                // The network's own prefix is self-certifying, so no list can give it away.
                if certified.contains(address) {
                    return Err(NetworkConfigError::CertifiedAddress(address));
                }
                if !addresses.insert(address) {
                    return Err(NetworkConfigError::DuplicateAddress(address));
                }
            }
            for &route in &member.routes {
                if !is_route(&route) {
                    return Err(NetworkConfigError::UnusableRoute(route));
                }
                if certified.contains(route.address()) || route.contains(certified.address()) {
                    // Such a block would take over addresses that follow from node IDs.
                    return Err(NetworkConfigError::CertifiedRoute(route));
                }
                if !routes.insert(route) {
                    return Err(NetworkConfigError::DuplicateRoute(route));
                }
            }
            // The author of a file must not make nodes send to many hosts.
            if let Some(endpoint) = member.endpoints.iter().find(|endpoint| !is_endpoint(endpoint)) {
                return Err(NetworkConfigError::UnusableEndpoint(*endpoint));
            }
        }
        let may_be = |exit: &NodeId| {
            self.members.iter().any(|member| member.identity.node_id() == *exit && member.exit.is_any())
        };
        match self.exit {
            Some(exit) if !may_be(&exit) => Err(NetworkConfigError::NotAnExit(exit)),
            _ => Ok(()),
        }
    }
}

/// Shortest prefix of a route, in bits.
// A larger block would belong to others, and contain the addresses by which members reach each other.
const SHORTEST_IPV4: u8 = 8;
const SHORTEST_IPV6: u8 = 16;

/// Returns true if a block of addresses can lie behind a member ([`StaticMember::routes`]): it consists of
/// single hosts, and is no larger than a site's.
pub fn is_route(route: &Prefix) -> bool {
    let address = route.address();
    let shortest = if address.is_ipv4() { SHORTEST_IPV4 } else { SHORTEST_IPV6 };
    route.length() >= shortest
        && !(address.is_unspecified() || address.is_multicast() || address.is_loopback())
}

#[derive(Debug)]
pub(super) struct Static {
    id: NetworkId,
    psk: Option<Psk>,
    members: BTreeMap<NodeId, StaticMember>,
    /// Addresses of members that differ by now from the file's.
    changed: BTreeMap<NodeId, Vec<IpAddr>>,
    exit: Option<NodeId>,
    programs: Programs,
}

impl Static {
    pub(super) fn new(network: &StaticNetwork) -> Self {
        Self {
            id: network.id,
            psk: network.psk.clone(),
            members: by_node(&network.members),
            changed: BTreeMap::new(),
            exit: network.exit,
            programs: Programs::new(network.id, network.program.as_deref()),
        }
    }
}

impl Policy for Static {
    fn id(&self) -> NetworkId {
        self.id
    }

    fn psk(&self) -> Option<&Psk> {
        self.psk.as_ref()
    }

    fn discovery_key(&self) -> DiscoveryKey {
        let members: Vec<NodeId> = self.members.keys().copied().collect();
        DiscoveryKey::new(self.id, self.psk.as_ref(), Some(&members))
    }

    fn ports(&self) -> RangeInclusive<u16> {
        0..=u16::MAX
    }

    fn admits_anyone(&self) -> bool {
        false
    }

    fn admits(&self, node: &NodeId) -> bool {
        // Not by time, because the endpoint forgets a program when its certificate ends.
        self.members.contains_key(node) || self.programs.get(node).is_some()
    }

    fn members(&self) -> Vec<&StaticMember> {
        self.members.values().collect()
    }

    fn addresses_of(&self, node: &NodeId) -> Vec<IpAddr> {
        let listed = || self.members.get(node).map(|member| &member.addresses);
        // Addresses that changed while the node runs go before those in the file.
        let given = self.changed.get(node).or_else(listed).map_or(&[][..], Vec::as_slice);
        std::iter::once(self.id.address_of(node).into()).chain(given.iter().copied()).collect()
    }

    fn routes_of(&self, node: &NodeId) -> Vec<Prefix> {
        let Some(member) = self.members.get(node) else { return Vec::new() };
        let mut routes = member.routes.clone();
        if self.exit == Some(*node) {
            // A block listed for a member stays with that member, also when the exit's blocks include it.
            let has = |block: &Prefix| self.members.values().any(|member| member.routes.contains(block));
            routes.extend(member.exit.blocks().into_iter().filter(|block| !has(block)));
        }
        routes
    }

    fn set_addresses(&mut self, node: &NodeId, addresses: &[IpAddr]) {
        if self.members.contains_key(node) {
            self.changed.insert(*node, addresses.to_vec());
        }
    }

    /// Returns the prefixes of the network.
    fn prefixes(&self) -> Vec<Prefix> {
        // The file names none for addresses, so all addresses of one block make one prefix: the longest that
        // holds all.
        let mut blocks: BTreeMap<Prefix, Prefix> = BTreeMap::new();
        // Present ones, because what is in no prefix is not the overlay's.
        let listed = self.members.iter().map(|(node, member)| (node, &member.addresses));
        for &address in listed.flat_map(|(node, listed)| self.changed.get(node).unwrap_or(listed)) {
            let prefix = blocks.entry(block(address)).or_insert_with(|| address.into());
            *prefix = prefix.widened_to(address);
        }
        let mut prefixes: Vec<Prefix> =
            std::iter::once(self.id.certified_prefix()).chain(blocks.into_values()).collect();
        // A route behind a member stays a separate prefix.
        for route in self.members.values().flat_map(|member| &member.routes) {
            if !prefixes.contains(route) {
                prefixes.push(*route);
            }
        }
        prefixes
    }

    /// Returns false for every address, because the file lists all members.
    fn may_exist(&self, _: IpAddr) -> bool {
        false
    }

    fn machine_of(&self, node: &NodeId) -> Option<&PublicIdentity> {
        self.programs.get(node).map(ProcessCertificate::machine)
    }

    fn label_of(&self, node: &NodeId) -> Option<&MemberName> {
        self.programs.get(node)?.label()
    }

    fn name_of(&self, node: &NodeId) -> Option<&str> {
        let machine = self.programs.get(node).map(|program| program.machine().node_id());
        self.members.get(&machine.unwrap_or(*node))?.name.as_deref()
    }

    /// Returns the member before its programs, or the programs with a label: `label.member`.
    fn nodes_named(&self, name: &str) -> Vec<NodeId> {
        if let Some(member) = self.member_named(name) {
            let programs = self.programs.of_machine(member);
            return std::iter::once(*member).chain(programs.into_iter().map(|(node, _)| node)).collect();
        }
        let Some((label, member)) = name.split_once('.') else { return Vec::new() };
        let Some(member) = self.member_named(member) else { return Vec::new() };
        let label = label.to_ascii_lowercase();
        let has_label =
            |program: &ProcessCertificate| program.label().map(MemberName::as_str) == Some(label.as_str());
        let programs = self.programs.of_machine(member).into_iter();
        programs.filter(|(_, program)| has_label(program)).map(|(node, _)| node).collect()
    }

    fn keeps(&self, node: &NodeId) -> bool {
        self.members.contains_key(node)
    }

    fn is_described_by(&self, config: &NetworkConfig) -> bool {
        let NetworkConfig::Static(network) = config else { return false };
        // By the list in any order, because two copies of one file may be sorted differently.
        (network.id, &network.psk, network.exit) == (self.id, &self.psk, self.exit)
            && by_node(&network.members) == self.members
    }

    fn programs(&self) -> Option<&Programs> {
        Some(&self.programs)
    }

    fn programs_mut(&mut self) -> Option<&mut Programs> {
        Some(&mut self.programs)
    }

    fn introduce(
        &mut self,
        program: &NodeId,
        certificate: ProcessCertificate,
        is_shown: bool,
        unix_time: Duration,
    ) -> Result<(), Refusal> {
        let members = &self.members;
        // Otherwise a member could give another one its own name, and an end.
        if members.contains_key(program) {
            return Err(Refusal::Holder);
        }
        let is_member = |node: &NodeId| members.contains_key(node);
        self.programs.introduce(program, certificate, is_shown, unix_time, is_member)
    }

    fn summary(&self) -> NetworkSummary {
        NetworkSummary {
            kind: "static",
            secret: self.psk.is_some(),
            closed: true,
            by_file: true,
            ports: self.ports(),
            prefixes: self.prefixes(),
        }
    }
}

impl Static {
    fn member_named(&self, name: &str) -> Option<&NodeId> {
        let is_so = |member: &StaticMember| {
            member.name.as_deref().is_some_and(|known| known.eq_ignore_ascii_case(name))
        };
        self.members.iter().find(|(_, member)| is_so(member)).map(|(node, _)| node)
    }
}

fn by_node(members: &[StaticMember]) -> BTreeMap<NodeId, StaticMember> {
    members.iter().map(|member| (member.identity.node_id(), member.clone())).collect()
}

/// Returns the block that an address lies in.
fn block(address: IpAddr) -> Prefix {
    // Addresses of two blocks share no prefix, because too many addresses between them belong to others.
    // IPv4: the largest private block (RFC 1918). IPv6: the block of a site (RFC 4193, 3.1; RFC 6177).
    Prefix::new(address, if address.is_ipv4() { 8 } else { 48 }).expect("at most 32 and 128 bits")
}
