//! TOML form of a static network, which [`Network::from_file`](super::Network::from_file) describes.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use peersock_overlay::membership::{MemberName, ParseLabelError};
use peersock_overlay::{
    Exit, NetworkConfig, NetworkId, NetworkIdError, NodeId, Prefix, Psk, PublicIdentity, StaticMember,
    StaticNetwork, is_endpoint, is_route,
};
use serde::Deserialize;
use toml::Spanned;
use zeroize::Zeroizing;

use super::{ConfigError, HostEndpoint, ParseEndpointError, RootSource, passphrase};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    network: Spanned<String>,
    passphrase: Option<Spanned<String>>,
    psk: Option<Spanned<String>>,
    #[serde(default)]
    roots: Vec<Spanned<String>>,
    #[serde(default)]
    member: Vec<Member>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    key: Spanned<String>,
    name: Option<Spanned<String>>,
    #[serde(default)]
    addresses: Vec<Spanned<String>>,
    #[serde(default)]
    endpoints: Vec<Spanned<String>>,
    #[serde(default)]
    routes: Vec<Spanned<String>>,
}

/// Error with its place in the text.
struct Problem {
    span: Range<usize>,
    what: String,
}

/// Endpoint of a member.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Endpoint {
    Address(SocketAddr),
    Host(HostEndpoint),
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Endpoint::Address).or_else(|_| text.parse().map(Endpoint::Host))
    }
}

/// Endpoints of each member that are host names.
type Hosts = BTreeMap<NodeId, Vec<HostEndpoint>>;

/// Secret as the file has it.
enum Secret {
    Passphrase(Zeroizing<String>),
    Psk(Psk),
}

pub(super) fn parse(text: &str) -> Result<(StaticNetwork, Hosts, Vec<RootSource>), ConfigError> {
    let (mut network, secret, hosts, roots) =
        parse_spanned(text).map_err(|problem| ConfigError::Invalid {
            line: 1 + text.as_bytes()[..problem.span.start.min(text.len())]
                .iter()
                .filter(|b| **b == b'\n')
                .count(),
            what: problem.what,
        })?;
    network.psk = match secret {
        Some(Secret::Passphrase(text)) => Some(passphrase::stretch(network.id, &text)?),
        Some(Secret::Psk(key)) => Some(key),
        None => None,
    };
    Ok((network, hosts, roots))
}

/// Returns the network without its secret.
fn parse_spanned(text: &str) -> Result<(StaticNetwork, Option<Secret>, Hosts, Vec<RootSource>), Problem> {
    let file: File = toml::from_str(text).map_err(|error| Problem {
        // Only the message, because the long form quotes the line, which may hold the secret.
        span: error.span().unwrap_or(text.len()..text.len()),
        what: error.message().to_owned(),
    })?;
    let id = network_id(&file.network)?;
    let secret = secret(file.passphrase, file.psk)?;
    let roots = file.roots.iter().map(parse_root).collect::<Result<_, _>>()?;

    let mut members = Vec::with_capacity(file.member.len());
    let mut seen = Seen::default();
    let mut hosts = Hosts::new();
    for (number, member) in (1..).zip(&file.member) {
        seen.member = match &member.name {
            Some(name) => format!("number {number} (`{}`)", name.get_ref()),
            None => format!("number {number}"),
        };
        let (member, its_hosts) = parse_member(id, member, &mut seen)?;
        if !its_hosts.is_empty() {
            hosts.insert(member.identity.node_id(), its_hosts);
        }
        members.push(member);
    }
    if members.is_empty() {
        return Err(problem(&file.network, "the network has no [[member]]"));
    }
    Ok((StaticNetwork { id, psk: None, members, exit: None, program: None }, secret, hosts, roots))
}

fn parse_root(text: &Spanned<String>) -> Result<RootSource, Problem> {
    let root = text.get_ref().parse().map_err(|error| problem(text, error))?;
    match &root {
        // All members have the file, and a token is for those whom the root serves.
        RootSource::Address(address) if address.token().is_some() => {
            Err(problem(text, "a root has its access token not here, but from --root-token-file with --root"))
        }
        _ => Ok(root),
    }
}

fn network_id(text: &Spanned<String>) -> Result<NetworkId, Problem> {
    let id: NetworkId = text.get_ref().parse().map_err(|error| problem(text, error))?;
    match NetworkConfig::by_id(id) {
        Err(NetworkIdError::NeedsFile(_)) => Ok(id),
        _ => Err(problem(text, "the ID of a static network begins with fe (16 hexadecimal digits in all)")),
    }
}

fn secret(
    passphrase: Option<Spanned<String>>,
    psk: Option<Spanned<String>>,
) -> Result<Option<Secret>, Problem> {
    match (passphrase, psk) {
        (Some(_), Some(psk)) => Err(problem(&psk, "give either a passphrase or a psk, not both")),
        (Some(text), None) => {
            if text.get_ref().is_empty() {
                return Err(problem(
                    &text,
                    "the passphrase is empty; leave the line out for a network without one",
                ));
            }
            // Wiped from memory after use.
            Ok(Some(Secret::Passphrase(Zeroizing::new(text.into_inner()))))
        }
        (None, Some(text)) => {
            let span = text.span();
            let digits = Zeroizing::new(text.into_inner());
            let mut key = Zeroizing::new([0; 32]);
            let valid = digits.len() == 64 && HEX.decode_mut(digits.as_bytes(), key.as_mut_slice()).is_ok();
            if !valid {
                return Err(Problem { span, what: "the psk is not 64 hexadecimal digits".into() });
            }
            Ok(Some(Secret::Psk(Psk::new(*key))))
        }
        (None, None) => Ok(None),
    }
}

/// Values that no two members may share, with the member that has each.
#[derive(Default)]
struct Seen {
    /// Name of the member that is being read.
    member: String,
    keys: HashMap<String, String>,
    names: HashMap<String, String>,
    addresses: HashMap<IpAddr, String>,
    endpoints: HashMap<Endpoint, String>,
    routes: HashMap<Prefix, String>,
}

fn parse_member(
    network: NetworkId,
    member: &Member,
    seen: &mut Seen,
) -> Result<(StaticMember, Vec<HostEndpoint>), Problem> {
    let identity: PublicIdentity =
        member.key.get_ref().parse().map_err(|error| problem(&member.key, format!("key: {error}")))?;
    once(&mut seen.keys, identity.to_string(), "key", &member.key, &seen.member)?;

    let name = member.name.as_ref().map(|text| parse_name(text, seen)).transpose()?;
    let mut addresses = Vec::with_capacity(member.addresses.len());
    for text in &member.addresses {
        addresses.push(parse_address(network, text, seen)?);
    }
    let mut endpoints = Vec::with_capacity(member.endpoints.len());
    let mut hosts = Vec::new();
    for text in &member.endpoints {
        match parse_endpoint(text, seen)? {
            Endpoint::Address(address) => endpoints.push(address),
            Endpoint::Host(host) => hosts.push(host),
        }
    }
    let mut routes = Vec::with_capacity(member.routes.len());
    let mut exit = Exit::default();
    for text in &member.routes {
        let route = parse_block(text)?;
        let Some(leads_to) = Exit::of(&route) else {
            routes.push(check_route(network, route, text, seen)?);
            continue;
        };
        // Several members may be exits; each node chooses one of them.
        if exit == exit.and(leads_to) {
            return Err(problem(text, format!("block `{route}` is given twice, in member {}", seen.member)));
        }
        exit = exit.and(leads_to);
    }
    Ok((StaticMember { identity, name, addresses, endpoints, routes, exit }, hosts))
}

fn parse_block(text: &Spanned<String>) -> Result<Prefix, Problem> {
    let given = text.get_ref();
    let parts = given.split_once('/');
    let read = |(address, length): (&str, &str)| Prefix::new(address.parse().ok()?, length.parse().ok()?);
    let Some(route) = parts.and_then(read) else {
        return Err(problem(text, format!("`{given}` is not a block of addresses, such as 192.168.5.0/24")));
    };
    if parts.is_some_and(|(first, _)| first.parse() != Ok(route.address())) {
        return Err(problem(text, format!("`{given}` has bits behind its length; the block is {route}")));
    }
    Ok(route)
}

fn check_route(
    network: NetworkId,
    route: Prefix,
    text: &Spanned<String>,
    seen: &mut Seen,
) -> Result<Prefix, Problem> {
    let given = text.get_ref();
    let certified = network.certified_prefix();
    // Those addresses follow from keys, so no other member may have them.
    if certified.contains(route.address()) || route.contains(certified.address()) {
        return Err(problem(text, format!("`{given}` overlaps the addresses that belong to keys")));
    }
    if !is_route(&route) {
        return Err(problem(
            text,
            format!(
                "`{given}` cannot lie behind a member: a block of hosts has at least 8 bits of IPv4 or 16 of IPv6; 0.0.0.0/0 and ::/0 make an exit"
            ),
        ));
    }
    once(&mut seen.routes, route, "block", text, &seen.member)?;
    Ok(route)
}

fn parse_name(text: &Spanned<String>, seen: &mut Seen) -> Result<String, Problem> {
    let name = match text.get_ref().parse::<MemberName>() {
        Ok(name) => name.to_string(),
        Err(ParseLabelError::Number) => {
            let name = text.get_ref().to_ascii_lowercase();
            return Err(problem(text, format!("`{name}` is a number, which programs take for an address")));
        }
        Err(_) => return Err(problem(text, "a name is 1 to 63 letters, digits and inner hyphens")),
    };
    once(&mut seen.names, name.clone(), "name", text, &seen.member)?;
    Ok(name)
}

fn parse_address(network: NetworkId, text: &Spanned<String>, seen: &mut Seen) -> Result<IpAddr, Problem> {
    let address: IpAddr = text
        .get_ref()
        .parse()
        .map_err(|_| problem(text, format!("`{}` is not an IP address", text.get_ref())))?;
    let unusable = address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || match address {
            IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local() || v4.octets()[0] == 0,
            // An IPv4-mapped address would be a second name of the IPv4 address.
            IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
        };
    if unusable {
        return Err(problem(text, format!("`{address}` cannot be the address of one member")));
    }
    if network.certified_prefix().contains(address) {
        return Err(problem(
            text,
            format!(
                "`{address}` lies among the addresses that belong to keys; each member has its own without being given it"
            ),
        ));
    }
    once(&mut seen.addresses, address, "address", text, &seen.member)?;
    Ok(address)
}

fn parse_endpoint(text: &Spanned<String>, seen: &mut Seen) -> Result<Endpoint, Problem> {
    let endpoint: Endpoint =
        text.get_ref().parse().map_err(|error| problem(text, format!("`{}` is {error}", text.get_ref())))?;
    if let Endpoint::Address(address) = &endpoint
        && !is_endpoint(address)
    {
        return Err(problem(text, format!("`{address}` is not an endpoint that a packet can be sent to")));
    }
    once(&mut seen.endpoints, endpoint.clone(), "endpoint", text, &seen.member)?;
    Ok(endpoint)
}

fn once<T: Hash + Eq>(
    seen: &mut HashMap<T, String>,
    value: T,
    kind: &str,
    at: &Spanned<String>,
    member: &str,
) -> Result<(), Problem> {
    let Some(other) = seen.insert(value, member.to_owned()) else { return Ok(()) };
    let whose =
        if other == member { format!("member {other}") } else { format!("members {other} and {member}") };
    Err(problem(at, format!("{kind} `{}` is given twice, in {whose}", at.get_ref())))
}

fn problem(at: &Spanned<String>, what: impl ToString) -> Problem {
    Problem { span: at.span(), what: what.to_string() }
}
