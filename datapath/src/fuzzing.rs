//! Parsers for the fuzz targets. No stable interface.

use std::net::IpAddr;

use crate::router_errors;

/// Parses an ICMP error about a packet. Returns the router that reports it, the packet's sender (the receiver
/// of the error), and its target.
pub fn router_error(packet: &[u8]) -> Option<[IpAddr; 3]> {
    router_errors::quoted(packet).map(|quoted| [quoted.router, quoted.sender, quoted.target])
}
