//! Header of the PROXY protocol, version 2, with the member in values of the range for applications.

use std::net::{IpAddr, SocketAddr};

use peersock::PeerIdentity;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, command PROXY.
const PROXY: u8 = 0x21;

/// TCP over IPv4 and IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Types of the values.
const MEMBER: u8 = 0xe0;
const NODE: u8 = 0xe1;
const TAGS: u8 = 0xe2;
const NETWORK: u8 = 0xe3;
const GATEWAY: u8 = 0xe4;

/// Returns the header for a connection of a member from `peer` to `local`.
pub(crate) fn header(peer: SocketAddr, local: SocketAddr, identity: &PeerIdentity) -> Vec<u8> {
    let mut rest = Vec::new();
    let family = match (peer.ip(), local.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            rest.extend_from_slice(&[from.octets(), to.octets()].concat());
            TCP4
        }
        (from, to) => {
            for ip in [from, to] {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                rest.extend_from_slice(&ip.octets());
            }
            TCP6
        }
    };
    rest.extend_from_slice(&peer.port().to_be_bytes());
    rest.extend_from_slice(&local.port().to_be_bytes());
    let values = [
        (MEMBER, Some(super::name(identity))),
        (NODE, Some(identity.node.to_string())),
        (TAGS, Some(identity.tags.join(",")).filter(|tags| !tags.is_empty())),
        (NETWORK, Some(identity.network.to_string())),
        (GATEWAY, identity.gateway.then(|| "1".to_owned())),
    ];
    for (kind, value) in values {
        let Some(value) = value else { continue };
        rest.push(kind);
        rest.extend_from_slice(&length(value.len()));
        rest.extend_from_slice(value.as_bytes());
    }
    [&SIGNATURE[..], &[PROXY, family], &length(rest.len()), &rest].concat()
}

fn length(length: usize) -> [u8; 2] {
    u16::try_from(length).expect("an identity has 1,024 bytes at most").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_the_addresses_and_the_member() {
        let json = format!(
            r#"{{"network":"ff00500050000000","node":"{0}","machine":"{0}","gateway":true,"name":"beta","label":"web","tags":["a","b"],"claims":""}}"#,
            peersock::NodeId::from_bytes([7; 32])
        );
        let identity = PeerIdentity::from_json(json.as_bytes()).expect("an identity");
        let (from, to) = ("10.7.0.2:1000".parse().unwrap(), "10.7.0.1:80".parse().unwrap());
        let header = header(from, to, &identity);
        assert_eq!(header[..16], [&SIGNATURE[..], &[0x21, 0x11], &header[14..16]].concat());
        assert_eq!(usize::from(u16::from_be_bytes([header[14], header[15]])), header.len() - 16);
        assert_eq!(header[16..28], [10, 7, 0, 2, 10, 7, 0, 1, 3, 232, 0, 80]);
        let (mut rest, mut values) = (&header[28..], Vec::new());
        while let [kind, high, low, more @ ..] = rest {
            let (value, more) = more.split_at(usize::from(u16::from_be_bytes([*high, *low])));
            values.push((*kind, String::from_utf8_lossy(value).into_owned()));
            rest = more;
        }
        let node = identity.node.to_string();
        let wanted = [
            (MEMBER, "web.beta"),
            (NODE, &node),
            (TAGS, "a,b"),
            (NETWORK, "ff00500050000000"),
            (GATEWAY, "1"),
        ];
        assert_eq!(values, wanted.map(|(kind, value)| (kind, value.to_owned())));
    }
}
