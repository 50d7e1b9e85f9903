//! getsockopt(2), and the encoders of values that are no plain numbers.

use std::net::{IpAddr, SocketAddr};

use peersock::attach::Connection;
use peersock_fd::{PacketInfo, interface_index};
use peersock_stack::{CongestionControl, IcmpFilter, InterfaceId, TcpInfo};

use super::value::number;
use super::{DEFAULT_BUFFER_BYTES, Options, interface_name};

/// The largest segment that every path carries (RFC 9293 3.7.1).
const MIN_SEGMENT_BYTES: u16 = 536;

/// Encodes a `struct linger`.
pub(super) fn linger(seconds: Option<u32>) -> Vec<u8> {
    [number(seconds.is_some()), number(seconds.unwrap_or(0))].concat()
}

/// Returns SO_RCVBUF. The queue of a connection may have grown.
pub(super) fn receive_buffer(options: &Options, connection: Option<&Connection>) -> Vec<u8> {
    buffer(options.receive_buffer, connection, |info| info.receive_buffer)
}

/// Returns SO_SNDBUF. The queue of a connection may have grown.
pub(super) fn send_buffer(options: &Options, connection: Option<&Connection>) -> Vec<u8> {
    buffer(options.send_buffer, connection, |info| info.send_buffer)
}

fn buffer(set: Option<usize>, connection: Option<&Connection>, current: fn(TcpInfo) -> u64) -> Vec<u8> {
    let info = || connection.and_then(|connection| connection.info().ok());
    let size = set.unwrap_or_else(|| info().map_or(DEFAULT_BUFFER_BYTES, |info| current(info) as usize));
    number(size as i64)
}

/// Encodes the name of an interface.
pub(super) fn device_name(device: Option<InterfaceId>) -> Vec<u8> {
    device.map_or(Vec::new(), |device| {
        let mut name = interface_name(device).into_bytes();
        name.push(0);
        name
    })
}

/// Returns TCP_MAXSEG: the current size of a connection, or else the one that was set.
pub(super) fn max_segment(options: &Options, connection: Option<&Connection>) -> Vec<u8> {
    let present = connection.and_then(|connection| connection.flow().max_segment_size());
    number(present.map_or(options.max_segment.unwrap_or(MIN_SEGMENT_BYTES).into(), |size| size as i64))
}

/// Encodes an algorithm's name in TCP_CA_NAME_MAX bytes, as Linux.
pub(super) fn congestion(congestion: CongestionControl) -> Vec<u8> {
    let mut value = congestion.name().as_bytes().to_vec();
    value.resize(16, 0);
    value
}

/// Encodes ICMP_FILTER, a mask of the first 32 types.
pub(super) fn icmp_filter(filter: IcmpFilter) -> Vec<u8> {
    let blocked = (0..32u8).filter(|kind| !filter.passes(*kind));
    blocked.fold(0u32, |mask, kind| mask | 1 << kind).to_ne_bytes().to_vec()
}

/// Encodes ICMP6_FILTER: eight words, in which a set bit blocks.
pub(super) fn icmp6_filter(filter: IcmpFilter) -> Vec<u8> {
    let mut words = [0u32; 8];
    for kind in (0..=255u8).filter(|kind| !filter.passes(*kind)) {
        words[usize::from(kind >> 5)] |= 1 << (kind & 31);
    }
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// Encodes an `in6_pktinfo`; zeros without `info`.
pub(super) fn packet_info(info: Option<PacketInfo>) -> Vec<u8> {
    let local = match info.map(|info| info.local) {
        Some(IpAddr::V6(local)) => local.octets(),
        _ => [0; 16],
    };
    [&local[..], &number(info.map_or(0, |info| interface_index(info.interface)))].concat()
}

/// Encodes a `sockaddr_in6`.
pub(super) fn sockaddr_in6(address: SocketAddr) -> Vec<u8> {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let mut bytes = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
    bytes.extend(address.port().to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(ip.octets());
    bytes.extend([0; 4]);
    bytes
}
