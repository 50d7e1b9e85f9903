//! Choice of the addresses in a root's line, which people copy.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use peersock::overlay::PublicIdentity;
use peersock::{RootAddress, RootEndpoint, RootTransport};

use crate::reach::are_private;

/// Length up to which addresses are added to the line by default, in bytes.
pub(crate) const SHORT_LINE: usize = 200;

/// Addresses of a root's line.
pub(crate) struct Chosen {
    pub(crate) endpoints: Vec<RootEndpoint>,
    /// UDP addresses for which the line has no room.
    pub(crate) left_out: Vec<SocketAddr>,
}

/// Chooses from a root's own addresses: the first of each kind, and more as long as the line stays short.
/// Those that everybody reaches come first, of both families in turn.
pub(crate) fn choose(identity: &PublicIdentity, udp: Vec<SocketAddr>, streams: Vec<SocketAddr>) -> Chosen {
    let (udp, streams) = (by_reach(udp), by_reach(streams));
    let udp_end = |address: &SocketAddr| RootEndpoint::at(RootTransport::Udp, *address);
    let way = |address: &SocketAddr| RootEndpoint::at(RootTransport::WebSocket, *address);
    let mut left_out = udp.clone();
    let mut chosen: Vec<_> = left_out.drain(..udp.len().min(1)).map(|first| udp_end(&first)).collect();
    let kept: Vec<_> = streams.iter().take(1).map(way).collect();
    left_out.retain(|address| {
        let more = [&chosen[..], &[udp_end(address)]].concat();
        let has_room = is_short(identity, &[&more[..], &kept].concat());
        if has_room {
            chosen = more;
        }
        !has_room
    });
    add_while_short(identity, &mut chosen, streams.iter().map(way).collect());
    Chosen { endpoints: chosen, left_out }
}

/// Adds the ways that streams have by default: the first one, and more as long as the line stays short.
pub(crate) fn add_while_short(
    identity: &PublicIdentity,
    endpoints: &mut Vec<RootEndpoint>,
    ways: Vec<RootEndpoint>,
) {
    for (at, way) in ways.into_iter().enumerate() {
        if endpoints.contains(&way) {
            continue;
        }
        endpoints.push(way);
        if at > 0 && !is_short(identity, endpoints) || endpoints.len() > RootAddress::MAX_ENDPOINTS {
            endpoints.pop();
            break;
        }
    }
}

fn is_short(identity: &PublicIdentity, endpoints: &[RootEndpoint]) -> bool {
    endpoints.len() <= RootAddress::MAX_ENDPOINTS
        && RootAddress::new(*identity, endpoints.to_vec()).to_string().len() <= SHORT_LINE
}

/// Orders addresses: those that everybody reaches first, and the families in turn.
fn by_reach(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = BTreeMap::<_, usize>::new();
    let mut keyed: Vec<_> = addresses
        .into_iter()
        .map(|address| {
            let is_private = are_private(&[address]);
            let number = seen.entry((is_private, address.is_ipv4())).or_default();
            *number += 1;
            ((is_private, *number), address)
        })
        .collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, address)| address).collect()
}

/// Returns the addresses of the families in which only machines of the same private network reach the root.
pub(crate) fn private_of_families(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let (ipv4, ipv6): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv4());
    [ipv4, ipv6].into_iter().filter(|family| are_private(family)).flatten().collect()
}

#[cfg(test)]
mod tests {
    use peersock::overlay::Identity;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().expect("an address")).collect()
    }

    fn line(udp: &[&str], streams: &[&str]) -> (String, Vec<SocketAddr>) {
        let identity = *Identity::from_seed(&[7; 32]).public();
        let Chosen { endpoints, left_out } = choose(&identity, addresses(udp), addresses(streams));
        (RootAddress::new(identity, endpoints).to_string(), left_out)
    }

    #[test]
    fn a_line_stays_short_and_has_the_addresses_that_everybody_reaches() {
        let bridges: Vec<_> = (0..12).map(|number| format!("172.{}.0.1:7420", 17 + number)).collect();
        let mut udp: Vec<_> = bridges.iter().map(String::as_str).collect();
        udp.extend(["203.0.113.5:7420", "[2001:db8::5]:7420"]);
        let streams: Vec<_> = udp.iter().map(|text| text.replace(":7420", ":443")).collect();
        let streams: Vec<_> = streams.iter().map(String::as_str).collect();
        let (line, left_out) = line(&udp, &streams);
        assert!(line.len() <= SHORT_LINE, "{line}");
        let (_, places) = line.split_once('@').expect("a key");
        assert!(places.starts_with("203.0.113.5:7420,[2001:db8::5]:7420,172.17.0.1:7420"), "{places}");
        assert!(places.contains("wss:203.0.113.5:443"), "{places}");
        assert!(left_out.contains(&"172.28.0.1:7420".parse().unwrap()), "{left_out:?}");
        assert_eq!(left_out.len() + places.matches(":7420").count(), udp.len());
    }

    #[test]
    fn few_addresses_are_all_named() {
        let (line, left_out) = line(&["192.168.1.5:7420", "[2001:db8::5]:7420"], &["192.168.1.5:443"]);
        assert!(line.ends_with("@[2001:db8::5]:7420,192.168.1.5:7420,wss:192.168.1.5:443"), "{line}");
        assert_eq!(left_out, []);
        assert!(self::line(&[], &[]).1.is_empty());
    }

    #[test]
    fn a_private_family_is_told_beside_a_public_one() {
        let private = |texts: &[&str]| private_of_families(&addresses(texts));
        let both = ["192.168.1.5:7420", "[2001:db8::5]:7420"];
        assert_eq!(private(&both), addresses(&both[..1]));
        assert_eq!(private(&["192.168.1.5:7420", "203.0.113.5:7420"]), []);
        assert_eq!(private(&["127.0.0.1:7420"]), [], "only tests use it");
        let all = ["10.0.0.1:7420", "[fd00::1]:7420"];
        assert_eq!(private(&all), addresses(&all));
    }
}
