//! What routers answer, as it is read: for the fuzz targets, and of no use outside otherwise.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::exchange::Reading;
use super::upnp::{description, discovery, http};
use super::{Transport, natpmp, pcp};

/// What an answer grants, or why it does not.
pub type Granted<T> = Result<T, String>;

/// PCP: an answer to the request of a mapping; `None` if it answers something else.
pub fn pcp(data: &[u8], nonce: [u8; 12], port: u16) -> Option<Granted<(SocketAddr, Duration)>> {
    granted(pcp::read_mapping(data, nonce, port)).map(|read| read.map(|one| (one.external, one.lifetime)))
}

/// NAT-PMP: an answer to the request of a UDP mapping: the external port and the lifetime.
pub fn nat_pmp(data: &[u8], port: u16) -> Option<Granted<(u16, Duration)>> {
    granted(natpmp::read_mapping(data, Transport::Udp, port))
}

/// NAT-PMP: an answer to the question for the router's outer address.
pub fn nat_pmp_address(data: &[u8]) -> Option<Granted<Ipv4Addr>> {
    granted(natpmp::read_address(data))
}

/// UPnP: where an answer of SSDP says that the description is: the address and the path.
pub fn ssdp(data: &[u8]) -> Option<(SocketAddr, String)> {
    discovery::location(data).map(|url| (url.at, url.path))
}

/// UPnP: an HTTP answer, as far as it has come: whether it is complete; its status and body.
pub fn http(data: &[u8]) -> (bool, Option<(u16, String)>) {
    (http::is_complete(data), http::parse(data))
}

/// UPnP: where calls go, by a description that was got from there.
pub fn description(xml: &str, at: SocketAddr, path: &str) -> Option<(SocketAddr, String)> {
    let base = http::Url { at, path: path.to_owned() };
    description::port_service(xml, &base).map(|service| (service.control, service.path))
}

/// UPnP: the text of the first element of that name in an answer of SOAP.
pub fn soap(xml: &str, name: &str) -> Option<String> {
    description::text_of(xml, name)
}

fn granted<T>(reading: Reading<T>) -> Option<Granted<T>> {
    match reading {
        Reading::Foreign => None,
        Reading::Answer(answer) => Some(answer.map_err(|error| error.to_string())),
    }
}
