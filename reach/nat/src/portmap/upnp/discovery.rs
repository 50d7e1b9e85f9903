//! SSDP (UPnP Device Architecture, 1.3 and annex A for IPv6): search of the local network for a gateway.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::super::Gateway;
use super::description::{self, Service};
use super::http::{Http, Url};
use crate::host::{self, HostAddress, HostInterface};
use crate::interfaces::IpBlock;
use crate::socket::udp;

const GROUP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), PORT);
/// The multicast groups of the link and of the site.
const GROUPS_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xc), Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0xc)];
const PORT: u16 = 1900;
const TARGETS: [&str; 2] = [
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
];
/// Interval of repeated searches, because multicast is lost easily.
const SEARCH_INTERVAL: Duration = Duration::from_millis(600);
/// Limit of the devices that are asked, because each false gateway costs time.
const MAX_DEVICES: usize = 8;

/// Finds the gateway's service for ports, or with an IPv6 address its firewall service.
pub(super) fn find(gateway: &Gateway, http: &Http, until: Instant) -> io::Result<Service> {
    let socket = udp(SocketAddr::new(gateway.local, 0), gateway.interface.as_deref())?;
    // Some routers answer only unicast searches, and some only multicast ones.
    let mut asked = Vec::new();
    match gateway.local {
        IpAddr::V4(local) => {
            SockRef::from(&socket).set_multicast_if_v4(&local)?;
            asked.push(GROUP);
        }
        IpAddr::V6(_) => {
            let index = match (gateway.interface.as_deref(), gateway.router) {
                (Some(name), _) => rustix::net::netdevice::name_to_index(&socket, name)?,
                (None, SocketAddr::V6(router)) => router.scope_id(),
                (None, SocketAddr::V4(_)) => 0,
            };
            SockRef::from(&socket).set_multicast_if_v6(index)?;
            asked.extend(GROUPS_V6.map(|group| SocketAddr::V6(SocketAddrV6::new(group, PORT, 0, index))));
        }
    }
    let mut router = gateway.router;
    router.set_port(PORT);
    asked.push(router);
    socket.set_nonblocking(false)?;
    let link = addresses_beside(gateway.local)?;
    let mut tried: Vec<(SocketAddr, String)> = Vec::new();
    let mut buffer = [0; 2048];
    while Instant::now() < until {
        let mut sent: io::Result<usize> = Err(io::ErrorKind::TimedOut.into());
        for (to, target) in asked.iter().flat_map(|to| TARGETS.map(|target| (to, target))) {
            sent = socket.send_to(search(target, *to).as_bytes(), to).or(sent);
        }
        sent?;
        let next = (Instant::now() + SEARCH_INTERVAL).min(until);
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
            if !is_near(from.ip(), gateway.router.ip(), &link) {
                continue;
            }
            let Some(mut url) = location(&buffer[..len]) else { continue };
            // A device may name only itself, because otherwise any machine of the network could direct our
            // requests anywhere.
            let known = (url.at, url.path.clone());
            if url.at.ip() != from.ip() || tried.contains(&known) || tried.len() >= MAX_DEVICES {
                continue;
            }
            tried.push(known);
            url.at = SocketAddr::new(from.ip(), url.at.port());
            if let (SocketAddr::V6(at), SocketAddr::V6(from)) = (&mut url.at, from) {
                at.set_scope_id(from.scope_id());
            }
            let service = match gateway.local {
                IpAddr::V4(_) => description::port_service,
                IpAddr::V6(_) => description::firewall_service,
            };
            match http.get(url.at, &url.path).map(|xml| service(&xml, &url)) {
                Ok(Some(service)) => return Ok(service),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, device = %url.at, "a gateway without description"),
            }
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Returns the addresses, with prefixes, of the interface that has this address.
fn addresses_beside(local: IpAddr) -> io::Result<Vec<HostAddress>> {
    let mut interfaces = host::interfaces()?.into_iter();
    let is_its = |interface: &HostInterface| interface.addresses.iter().any(|address| address.ip == local);
    Ok(interfaces.find(is_its).map(|interface| interface.addresses).unwrap_or_default())
}

/// Returns true if an answer comes from the router or from the local network. The check is needed because any
/// host can send to the socket's port, and the sender is then asked by HTTP and trusted.
fn is_near(from: IpAddr, router: IpAddr, link: &[HostAddress]) -> bool {
    let is_link_local = matches!(from, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let shares = |address: &HostAddress| {
        IpBlock::new(address.ip, address.prefix).is_some_and(|block| block.contains(from))
    };
    // A prefix of 0 means that the interface reports none; it must not match every address.
    from == router || is_link_local || link.iter().any(|address| address.prefix > 0 && shares(address))
}

fn search(target: &str, to: SocketAddr) -> String {
    let host = SocketAddr::new(to.ip(), to.port());
    format!("M-SEARCH * HTTP/1.1\r\nHOST: {host}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: {target}\r\n\r\n")
}

/// Returns the URL of the device's description.
pub(in crate::portmap) fn location(answer: &[u8]) -> Option<Url> {
    let text = str::from_utf8(answer).ok()?;
    let mut lines = text.lines();
    let is_answer = lines.next()?.starts_with("HTTP/1.1 200");
    let mut values = lines.filter_map(|line| line.split_once(':'));
    let (_, value) = values.find(|(name, _)| name.trim().eq_ignore_ascii_case("location"))?;
    is_answer.then(|| Url::parse(value.trim())).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_description_is_found_in_an_answer() {
        let answer = b"HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\n\
            location:http://192.168.1.1:5000/rootDesc.xml\r\n\r\n";
        let url = location(answer).expect("it is one");
        assert_eq!((url.at.to_string(), url.path), ("192.168.1.1:5000".into(), "/rootDesc.xml".into()));
        assert!(location(b"NOTIFY * HTTP/1.1\r\nLOCATION: http://192.168.1.1:5000/\r\n\r\n").is_none());
        assert!(location(b"HTTP/1.1 200 OK\r\nLOCATION: http://router.example/\r\n\r\n").is_none());
    }

    #[test]
    fn answers_come_from_the_router_or_the_local_network() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let link = [("192.168.1.2", 24), ("2001:db8:1::2", 64), ("10.9.9.9", 0), ("203.0.113.5", 32)];
        let link = link.map(|(own, prefix)| HostAddress { ip: ip(own), prefix });
        for near in ["192.168.1.9", "10.0.0.1", "fe80::9", "2001:db8:1::9"] {
            assert!(is_near(ip(near), ip("10.0.0.1"), &link), "{near}");
        }
        for far in ["198.51.100.9", "192.168.2.9", "10.0.0.2", "203.0.113.66", "2001:db8:2::9", "fd00::1"] {
            assert!(!is_near(ip(far), ip("10.0.0.1"), &link), "{far}");
        }
        assert!(addresses_beside(ip("127.0.0.1")).unwrap().iter().any(|address| address.prefix == 8));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut answer = b"HTTP/1.1 200 OK\r\nLOCATION:".to_vec();
            answer.extend(bytes);
            let _ = location(&answer);
        }
    }
}
