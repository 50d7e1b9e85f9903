//! Members of networks as targets: addresses and names, with and without ports.

use std::net::{IpAddr, SocketAddr};

use peersock::Network;
use peersock::overlay::membership::MemberName;
use peersock::state::StateDir;

use super::state::managed_state;
use crate::failure::{Failure, Outcome};

/// Parses an IP address or, in a static network, a member's name.
pub(crate) fn parse_host(network: &Network, text: &str) -> Outcome<IpAddr> {
    // The first address is the one that no other member can be assigned.
    parse_hosts(network, text).map(|addresses| addresses[0])
}

/// Parses a host as [`parse_host`] does; a name yields all addresses of the member, at least one.
fn parse_hosts(network: &Network, text: &str) -> Outcome<Vec<IpAddr>> {
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    match network.addresses_named(text) {
        addresses if !addresses.is_empty() => Ok(addresses),
        _ if has_port(text) => Err(Failure::usage(
            format_args!("`{text}` has a port, and a member's address has none"),
            "leave the port out, and the brackets with it",
        )),
        _ if !network.summary().by_file => Err(Failure::usage(
            format_args!("`{text}` is not an IP address"),
            "give the address that `peersock addr` or `listen` prints there, such as fd12:3456:789a::1; names \
             are for members of static and managed networks",
        )),
        _ => Err(Failure::usage(
            format_args!(
                "`{text}` is neither an IP address nor the name of a member of network {}",
                network.id()
            ),
            "list its members with `peersock network show FILE`",
        )),
    }
}

/// Returns the member of a managed network that a text names, in the form in which its node knows the name:
/// without the network's. `None` for addresses, and in other networks.
pub(crate) fn managed_name(network: &Network, text: &str) -> Option<String> {
    let id = network.id();
    if !id.is_managed() || text.parse::<IpAddr>().is_ok() {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let local = StateDir::membership(&managed_state(), id).ok().flatten().and_then(|record| record.name);
    // A command may be given another name than `join`.
    let given = network.local_name().map(MemberName::as_str);
    let is_of_network =
        |suffix: &&str| [local.as_deref(), given].contains(&Some(*suffix)) || suffix.parse() == Ok(id);
    let name = match lower.rsplit_once('.') {
        Some((name, suffix)) if is_of_network(&suffix) => name,
        _ => lower.as_str(),
    };
    name.split('.').all(|label| label.parse::<MemberName>().is_ok()).then(|| name.to_owned())
}

/// Returns the member of a managed network that a target `NAME:PORT` names, and the port; see
/// [`managed_name`].
pub(crate) fn managed_target(network: &Network, text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some((managed_name(network, host)?, port))
}

/// Returns true if the text is an address or a name with a port.
pub(crate) fn has_port(text: &str) -> bool {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains(':'));
    text.parse::<SocketAddr>().is_ok() || port.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// Parses `[IPV6]:PORT`, `IPV4:PORT` or `NAME:PORT`; returns at least one address.
pub(crate) fn parse_targets(network: &Network, text: &str) -> Outcome<Vec<SocketAddr>> {
    let targets = parse_any_targets(network, text)?;
    match targets[0].port() {
        0 => Err(Failure::usage(
            "no program listens on port 0: `listen 0` picks a free port and prints it",
            "give the port that `peersock listen` printed there",
        )),
        _ => Ok(targets),
    }
}

fn parse_any_targets(network: &Network, text: &str) -> Outcome<Vec<SocketAddr>> {
    if let Ok(target) = text.parse() {
        return Ok(vec![target]);
    }
    let wrong = || {
        Failure::usage(
            format_args!("`{text}` is not an address and port"),
            "write '[IPV6]:PORT' such as '[fd12:3456:789a::1]:7000', IPV4:PORT, or NAME:PORT in a static or \
             managed network",
        )
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    // An IPv6 address needs brackets, because otherwise its end and the port are ambiguous.
    if host.contains(':') && !host.starts_with('[') {
        return Err(wrong());
    }
    let addresses = parse_hosts(network, host)?;
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

#[cfg(test)]
mod tests {
    use peersock::overlay::Identity;

    use super::*;

    fn ad_hoc() -> Network {
        Network::ad_hoc("ff0001ffff000000".parse().unwrap())
    }

    #[test]
    fn targets_are_understood_or_refused_as_usage() {
        let network = ad_hoc();
        for text in ["[fd00::1]:80", "10.0.0.1:80"] {
            assert_eq!(parse_targets(&network, text).unwrap(), [text.parse().unwrap()]);
        }
        for text in [
            "fd00::1:80",
            "fd00::1",
            "[fd00::1]",
            "[fd00::1]:",
            "[fd00::1]:65536",
            "alpha:80",
            ":80",
            "",
            "10.0.0.1:0",
        ] {
            assert_eq!(parse_targets(&network, text).unwrap_err().status(), 2, "{text}");
        }
    }

    #[test]
    fn members_of_a_static_network_have_names() {
        let identity = *Identity::from_seed(&[1; 32]).public();
        let network = Network::parse_toml(&format!(
            "network = \"fe00000000000001\"\n[[member]]\nname = \"alpha\"\nkey = \"{identity}\"\naddresses = [\"10.7.0.1\"]"
        ))
        .unwrap();
        let own = network.id().address_of(&identity.node_id());
        assert_eq!(parse_host(&network, "Alpha").unwrap(), IpAddr::from(own));
        let targets = [SocketAddr::new(own.into(), 80), "10.7.0.1:80".parse().unwrap()];
        assert_eq!(parse_targets(&network, "alpha:80").unwrap(), targets);
        assert_eq!(parse_host(&network, "beta").unwrap_err().status(), 2);
        for text in ["[fd00::1]:80", "10.7.0.1:80", "alpha:80", "beta:80"] {
            let said = parse_host(&network, text).unwrap_err().to_string();
            assert!(said.contains("has a port") && said.contains("leave the port out"), "{said}");
        }
        assert!(parse_targets(&network, "alpha:0").unwrap_err().to_string().contains("port 0"));
    }
}
