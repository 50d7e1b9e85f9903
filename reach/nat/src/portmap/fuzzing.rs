//! Parsers of routers' answers, exposed only for the fuzz targets.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::exchange::Reading;
use super::upnp::{description, discovery, http};
use super::{Transport, natpmp, pcp};

/// The content of an answer, or the reason of a refusal.
pub type Granted<T> = Result<T, String>;

/// Parses a PCP answer to a mapping request; `None` if it answers another request.
pub fn pcp(data: &[u8], nonce: [u8; 12], port: u16) -> Option<Granted<(SocketAddr, Duration)>> {
    granted(pcp::read_mapping(data, nonce, port)).map(|read| read.map(|one| (one.external, one.lifetime)))
}

/// Parses a NAT-PMP answer to a UDP mapping request: the external port and the lifetime.
pub fn nat_pmp(data: &[u8], port: u16) -> Option<Granted<(u16, Duration)>> {
    granted(natpmp::read_mapping(data, Transport::Udp, port))
}

/// Parses a NAT-PMP answer that contains the router's external address.
pub fn nat_pmp_address(data: &[u8]) -> Option<Granted<Ipv4Addr>> {
    granted(natpmp::read_address(data))
}

/// Parses the address and path of the description in an SSDP answer of UPnP.
pub fn ssdp(data: &[u8]) -> Option<(SocketAddr, String)> {
    discovery::location(data).map(|url| (url.at, url.path))
}

/// Parses an HTTP answer of UPnP as received so far: true if it is complete; its status and body.
pub fn http(data: &[u8]) -> Option<(bool, u16, String)> {
    http::parse(data)
}

/// Parses the address and path for calls in a UPnP description that was fetched from `at`.
pub fn description(xml: &str, at: SocketAddr, path: &str) -> Option<(SocketAddr, String)> {
    let base = http::Url { at, path: path.to_owned() };
    description::port_service(xml, &base).map(|service| (service.control, service.path))
}

/// Returns the text of the first element of that name in a SOAP answer of UPnP.
pub fn soap(xml: &str, name: &str) -> Option<String> {
    description::text_of(xml, name)
}

fn granted<T>(reading: Reading<T>) -> Option<Granted<T>> {
    match reading {
        Reading::Foreign => None,
        Reading::Answer(answer) => Some(answer.map_err(|error| error.to_string())),
    }
}
