//! getsockopt(2).

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use libc::{IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_RAW, IPPROTO_TCP, IPPROTO_UDP, SOL_SOCKET};
use peersock::attach::Connection;
use peersock_fd::{Errno, HeaderKind, PacketInfo, interface_index};

use super::tcp_info::tcp_info;
use super::value::{index, number};
use super::{BUFFER, Options, Side, interface_name};
use peersock_fd::option_table::{self as table, Access, Row};

/// The largest segment that every path carries (RFC 9293 3.7.1).
const LEAST_SEGMENT: u16 = 536;

/// Returns the value of an option, with the current state of `connection` if there is one.
pub(super) fn get(options: &Options, connection: Option<&Connection>, row: &Row) -> Result<Vec<u8>, Errno> {
    match row.access {
        Access::Kept(initial) => {
            return Ok(number(*options.kept.get(&(row.level, row.number)).unwrap_or(&initial)));
        }
        Access::Fixed(value) => return Ok(number(value)),
        Access::Ignored => return Ok(number(0)),
        _ => {}
    }
    Ok(match (row.level, row.number) {
        (SOL_SOCKET, name) => socket(options, connection, name)?,
        (IPPROTO_TCP, name) => tcp(options, connection, name)?,
        (IPPROTO_UDP, _) => number(options.segment.map_or(0, NonZeroU16::get)),
        (IPPROTO_IP, libc::IP_HDRINCL) => number(options.header_included),
        (IPPROTO_IP, name) => ip(&options.v4, name)?,
        (IPPROTO_IPV6, libc::IPV6_V6ONLY) => number(options.v6_only),
        (IPPROTO_IPV6, libc::IPV6_PKTINFO) => packet_info(options.sticky),
        (IPPROTO_IPV6, table::IPV6_RECVHOPOPTS) => number(options.wanted_headers.hop_by_hop),
        (IPPROTO_IPV6, table::IPV6_RECVRTHDR) => number(options.wanted_headers.routing),
        (IPPROTO_IPV6, table::IPV6_RECVDSTOPTS) => number(options.wanted_headers.destination),
        (IPPROTO_RAW, table::ICMP_FILTER) => {
            let blocked = (0..32u8).filter(|kind| !options.icmp_filter.passes(*kind));
            blocked.fold(0u32, |mask, kind| mask | 1 << kind).to_ne_bytes().to_vec()
        }
        (IPPROTO_IPV6 | IPPROTO_RAW, table::IPV6_CHECKSUM) => number(options.checksum.map_or(-1, i32::from)),
        (IPPROTO_ICMPV6, _) => {
            let mut words = [0u32; 8];
            for kind in (0..=255u8).filter(|kind| !options.icmp_filter.passes(*kind)) {
                words[usize::from(kind >> 5)] |= 1 << (kind & 31);
            }
            words.into_iter().flat_map(u32::to_ne_bytes).collect()
        }
        (_, name) => match HeaderKind::of_option(name) {
            Some(kind) => options.headers.get(kind),
            None => ipv6(&options.v6, name)?,
        },
    })
}

fn socket(options: &Options, connection: Option<&Connection>, name: i32) -> Result<Vec<u8>, Errno> {
    // For a connection, its queues may have grown.
    let info = || connection.and_then(|connection| connection.info().ok());
    Ok(match name {
        libc::SO_REUSEADDR => number(options.reuse_address),
        libc::SO_REUSEPORT => number(options.reuse_port),
        libc::SO_KEEPALIVE => number(options.keepalive.on),
        libc::SO_BROADCAST => number(options.broadcast),
        libc::SO_LINGER => [number(options.linger.is_some()), number(options.linger.unwrap_or(0))].concat(),
        libc::SO_RCVBUF => {
            let present = || info().map_or(BUFFER, |info| info.receive_buffer as usize);
            number(options.receive_buffer.unwrap_or_else(present) as i64)
        }
        libc::SO_SNDBUF => {
            let present = || info().map_or(BUFFER, |info| info.send_buffer as usize);
            number(options.send_buffer.unwrap_or_else(present) as i64)
        }
        table::SO_BINDTOIFINDEX => number(options.device.map_or(0, index)),
        libc::SO_BINDTODEVICE => options.device.map_or(Vec::new(), |device| {
            let mut name = interface_name(device).into_bytes();
            name.push(0);
            name
        }),
        _ => return Err(Errno::NOPROTOOPT),
    })
}

fn tcp(options: &Options, connection: Option<&Connection>, name: i32) -> Result<Vec<u8>, Errno> {
    Ok(match name {
        libc::TCP_NODELAY => number(options.nodelay),
        libc::TCP_CORK => number(options.cork),
        libc::TCP_QUICKACK => number(options.quick_ack),
        libc::TCP_MAXSEG => {
            let present = connection.and_then(|connection| connection.flow().max_segment_size());
            number(present.map_or(options.max_segment.unwrap_or(LEAST_SEGMENT).into(), |size| size as i64))
        }
        libc::TCP_KEEPIDLE => number(options.keepalive.idle.as_secs() as i64),
        libc::TCP_KEEPINTVL => number(options.keepalive.interval.as_secs() as i64),
        libc::TCP_KEEPCNT => number(options.keepalive.probes),
        libc::TCP_DEFER_ACCEPT => number(options.defer_accept.map_or(0, |time| time.as_secs() as i64)),
        libc::TCP_USER_TIMEOUT => {
            number(options.user_timeout.map_or(0, |timeout| timeout.as_millis() as i64))
        }
        libc::TCP_INFO => tcp_info(connection),
        libc::TCP_CONGESTION => {
            // As Linux: TCP_CA_NAME_MAX bytes.
            let mut value = options.congestion.name().as_bytes().to_vec();
            value.resize(16, 0);
            value
        }
        _ => return Err(Errno::NOPROTOOPT),
    })
}

fn ip(side: &Side, name: i32) -> Result<Vec<u8>, Errno> {
    Ok(match name {
        libc::IP_TTL => number(side.hops),
        libc::IP_TOS => number(side.class),
        libc::IP_MTU_DISCOVER => number(side.discover),
        libc::IP_MULTICAST_TTL => number(side.multicast_hops),
        libc::IP_MULTICAST_LOOP => number(side.multicast_loop),
        libc::IP_MULTICAST_IF => number(side.multicast_interface.map_or(0, index)),
        table::IP_MULTICAST_ALL => number(0),
        libc::IP_PKTINFO => number(side.wants_info),
        libc::IP_RECVTTL => number(side.wants_hops),
        libc::IP_RECVTOS => number(side.wants_class),
        libc::IP_RECVERR => number(side.wants_errors),
        _ => return Err(Errno::NOPROTOOPT),
    })
}

fn ipv6(side: &Side, name: i32) -> Result<Vec<u8>, Errno> {
    Ok(match name {
        libc::IPV6_UNICAST_HOPS => number(side.hops),
        libc::IPV6_MULTICAST_HOPS => number(side.multicast_hops),
        libc::IPV6_MULTICAST_LOOP => number(side.multicast_loop),
        libc::IPV6_MULTICAST_IF => number(side.multicast_interface.map_or(0, index)),
        table::IPV6_MULTICAST_ALL => number(0),
        libc::IPV6_TCLASS => number(side.class),
        libc::IPV6_RECVPKTINFO => number(side.wants_info),
        libc::IPV6_RECVHOPLIMIT => number(side.wants_hops),
        libc::IPV6_RECVTCLASS => number(side.wants_class),
        libc::IPV6_RECVERR => number(side.wants_errors),
        table::IPV6_RECVPATHMTU => number(side.wants_path_mtu),
        libc::IPV6_MTU_DISCOVER => number(side.discover),
        libc::IPV6_DONTFRAG => number(side.dont_fragment),
        table::IPV6_USE_MIN_MTU => number(side.use_min_mtu),
        _ => return Err(Errno::NOPROTOOPT),
    })
}

/// Returns true if the option concerns the path to the peer.
pub(super) fn is_of_path(row: &Row) -> bool {
    matches!(
        (row.level, row.number),
        (IPPROTO_IP, libc::IP_MTU) | (IPPROTO_IPV6, libc::IPV6_MTU | table::IPV6_PATHMTU)
    )
}

/// Encodes an `in6_pktinfo`; zeros without `info`.
fn packet_info(info: Option<PacketInfo>) -> Vec<u8> {
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
