//! Table of the options that the node keeps: the function that sets each, and the one that returns it.
//!
//! `peersock_fd::option_table` has the steps to add an option.
//! Three kinds are not here: options without effect have no functions, groups are in [`super::groups`],
//! and the MTU of a path is the answer to a question.

use std::num::NonZeroU16;

use libc::{IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_RAW, IPPROTO_TCP, IPPROTO_UDP, SOL_SOCKET};
use peersock::attach::Connection;
use peersock_fd::option_table::{self as numbers, Access, Row};
use peersock_fd::{Errno, HeaderKind};

use super::set::{self, Place};
use super::tcp_info::tcp_info;
use super::value::{self, flag, index, integer, number, octet, small, within};
use super::{DEFAULT_HOPS, Options, get};

/// Sets an option to the bytes that a program has passed.
type Set = fn(&mut Options, &Place<'_>, &[u8]) -> Result<(), Errno>;
/// Returns the value for a program, with the current state of its connection if there is one.
type Get = fn(&Options, Option<&Connection>) -> Vec<u8>;

/// One option.
struct Entry {
    level: i32,
    number: i32,
    set: Set,
    get: Get,
}

const fn entry(level: i32, number: i32, set: Set, get: Get) -> Entry {
    Entry { level, number, set, get }
}

/// Sets one option.
pub(super) fn set(options: &mut Options, place: &Place<'_>, row: &Row, value: &[u8]) -> Result<(), Errno> {
    match row.access {
        Access::Kept(_) => {
            let value = if row.level == IPPROTO_IP { small(value)? } else { integer(value)? };
            options.kept.insert((row.level, row.number), value);
            Ok(())
        }
        Access::Ignored => integer(value).map(drop),
        _ => (find(row)?.set)(options, place, value),
    }
}

/// Returns the value of an option, with the current state of `connection` if there is one.
pub(super) fn get(options: &Options, connection: Option<&Connection>, row: &Row) -> Result<Vec<u8>, Errno> {
    Ok(match row.access {
        Access::Kept(initial) => number(*options.kept.get(&(row.level, row.number)).unwrap_or(&initial)),
        Access::Fixed(value) => number(value),
        Access::Ignored => number(0),
        _ => (find(row)?.get)(options, connection),
    })
}

/// Returns an option's functions.
///
/// # Errors
/// ENOPROTOOPT if it has none.
fn find(row: &Row) -> Result<&'static Entry, Errno> {
    let is_meant = |entry: &&Entry| (entry.level, entry.number) == (row.level, row.number);
    TABLE.iter().find(is_meant).ok_or(Errno::NOPROTOOPT)
}

/// Stores a value that could be parsed.
fn store<T>(place: &mut T, value: Result<T, Errno>) -> Result<(), Errno> {
    *place = value?;
    Ok(())
}

/// Parses a truth value, which may be a single byte, as ip(7) allows.
fn small_flag(value: &[u8]) -> Result<bool, Errno> {
    Ok(small(value)? != 0)
}

/// Parses IP_MTU_DISCOVER and IPV6_MTU_DISCOVER.
fn discovery(value: i32) -> Result<i32, Errno> {
    within(value, libc::IP_PMTUDISC_DONT..=libc::IP_PMTUDISC_OMIT)
}

/// Accepts zero, the only possible value.
fn only_zero(value: i32) -> Result<(), Errno> {
    if value == 0 { Ok(()) } else { Err(Errno::NOPROTOOPT) }
}

#[rustfmt::skip]
const TABLE: &[Entry] = &[
    entry(SOL_SOCKET, libc::SO_REUSEADDR, |to, _, value| store(&mut to.reuse_address, flag(value)), |of, _| number(of.reuse_address)),
    entry(SOL_SOCKET, libc::SO_REUSEPORT, |to, _, value| store(&mut to.reuse_port, flag(value)), |of, _| number(of.reuse_port)),
    entry(SOL_SOCKET, libc::SO_KEEPALIVE, |to, _, value| store(&mut to.keepalive.on, flag(value)), |of, _| number(of.keepalive.on)),
    entry(SOL_SOCKET, libc::SO_BROADCAST, |to, _, value| store(&mut to.broadcast, flag(value)), |of, _| number(of.broadcast)),
    entry(SOL_SOCKET, libc::SO_LINGER, |to, _, value| store(&mut to.linger, set::linger(value)), |of, _| get::linger(of.linger)),
    entry(SOL_SOCKET, libc::SO_RCVBUF, |to, _, value| store(&mut to.receive_buffer, set::buffer(value)), get::receive_buffer),
    entry(SOL_SOCKET, libc::SO_SNDBUF, |to, _, value| store(&mut to.send_buffer, set::buffer(value)), get::send_buffer),
    entry(SOL_SOCKET, libc::SO_BINDTODEVICE, |to, at, value| set::device(to, at, at.interfaces.by_name(value)), |of, _| get::device_name(of.device)),
    entry(SOL_SOCKET, numbers::SO_BINDTOIFINDEX, |to, at, value| set::device(to, at, at.interfaces.by_index(integer(value)?)), |of, _| number(of.device.map_or(0, index))),

    entry(IPPROTO_TCP, libc::TCP_NODELAY, |to, _, value| store(&mut to.nodelay, flag(value)), |of, _| number(of.nodelay)),
    entry(IPPROTO_TCP, libc::TCP_CORK, |to, _, value| store(&mut to.cork, flag(value)), |of, _| number(of.cork)),
    entry(IPPROTO_TCP, libc::TCP_QUICKACK, |to, _, value| store(&mut to.quick_ack, flag(value)), |of, _| number(of.quick_ack)),
    entry(IPPROTO_TCP, libc::TCP_MAXSEG, |to, _, value| store(&mut to.max_segment, set::max_segment(value)), get::max_segment),
    entry(IPPROTO_TCP, libc::TCP_KEEPIDLE, |to, _, value| store(&mut to.keepalive.idle, set::seconds(value)), |of, _| number(of.keepalive.idle.as_secs() as i64)),
    entry(IPPROTO_TCP, libc::TCP_KEEPINTVL, |to, _, value| store(&mut to.keepalive.interval, set::seconds(value)), |of, _| number(of.keepalive.interval.as_secs() as i64)),
    entry(IPPROTO_TCP, libc::TCP_KEEPCNT, |to, _, value| store(&mut to.keepalive.probes, within(integer(value)?, 1..=127).map(|count| count as u32)), |of, _| number(of.keepalive.probes)),
    entry(IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, |to, _, value| store(&mut to.defer_accept, set::defer_accept(value)), |of, _| number(of.defer_accept.map_or(0, |time| time.as_secs() as i64))),
    entry(IPPROTO_TCP, libc::TCP_USER_TIMEOUT, |to, _, value| store(&mut to.user_timeout, set::user_timeout(value)), |of, _| number(of.user_timeout.map_or(0, |time| time.as_millis() as i64))),
    entry(IPPROTO_TCP, libc::TCP_CONGESTION, |to, _, value| store(&mut to.congestion, set::congestion(value)), |of, _| get::congestion(of.congestion)),
    entry(IPPROTO_TCP, libc::TCP_INFO, |_, _, _| Err(Errno::NOPROTOOPT), |_, connection| tcp_info(connection)),

    entry(IPPROTO_UDP, libc::UDP_SEGMENT, |to, _, value| store(&mut to.segment, set::segment(value)), |of, _| number(of.segment.map_or(0, NonZeroU16::get))),

    entry(IPPROTO_IP, libc::IP_TTL, |to, _, value| store(&mut to.v4.hops, octet(small(value)?, DEFAULT_HOPS, 1)), |of, _| number(of.v4.hops)),
    entry(IPPROTO_IP, libc::IP_TOS, |to, at, value| store(&mut to.v4.class, Ok(at.class((small(value)? & 0xff) as u8))), |of, _| number(of.v4.class)),
    entry(IPPROTO_IP, libc::IP_MTU_DISCOVER, |to, _, value| store(&mut to.v4.discover, discovery(small(value)?)), |of, _| number(of.v4.discover)),
    entry(IPPROTO_IP, libc::IP_MULTICAST_TTL, |to, _, value| store(&mut to.v4.multicast_hops, octet(small(value)?, 1, 0)), |of, _| number(of.v4.multicast_hops)),
    entry(IPPROTO_IP, libc::IP_MULTICAST_LOOP, |to, _, value| store(&mut to.v4.multicast_loop, small_flag(value)), |of, _| number(of.v4.multicast_loop)),
    entry(IPPROTO_IP, libc::IP_MULTICAST_IF, |to, at, value| store(&mut to.v4.multicast_interface, at.interfaces.find(value::multicast_interface(value)?)), |of, _| number(of.v4.multicast_interface.map_or(0, index))),
    entry(IPPROTO_IP, numbers::IP_MULTICAST_ALL, |_, _, value| only_zero(small(value)?), |_, _| number(0)),
    entry(IPPROTO_IP, libc::IP_PKTINFO, |to, _, value| store(&mut to.v4.wants_info, small_flag(value)), |of, _| number(of.v4.wants_info)),
    entry(IPPROTO_IP, libc::IP_RECVTTL, |to, _, value| store(&mut to.v4.wants_hops, small_flag(value)), |of, _| number(of.v4.wants_hops)),
    entry(IPPROTO_IP, libc::IP_RECVTOS, |to, _, value| store(&mut to.v4.wants_class, small_flag(value)), |of, _| number(of.v4.wants_class)),
    entry(IPPROTO_IP, libc::IP_RECVERR, |to, _, value| store(&mut to.v4.wants_errors, small_flag(value)), |of, _| number(of.v4.wants_errors)),
    entry(IPPROTO_IP, libc::IP_HDRINCL, |to, _, value| store(&mut to.header_included, flag(value)), |of, _| number(of.header_included)),

    entry(IPPROTO_IPV6, libc::IPV6_V6ONLY, set::v6_only, |of, _| number(of.v6_only)),
    entry(IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, |to, _, value| store(&mut to.v6.hops, octet(integer(value)?, DEFAULT_HOPS, 1)), |of, _| number(of.v6.hops)),
    entry(IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, |to, _, value| store(&mut to.v6.multicast_hops, octet(integer(value)?, 1, 0)), |of, _| number(of.v6.multicast_hops)),
    entry(IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, |to, _, value| store(&mut to.v6.multicast_loop, within(integer(value)?, 0..=1).map(|on| on != 0)), |of, _| number(of.v6.multicast_loop)),
    entry(IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, |to, at, value| store(&mut to.v6.multicast_interface, at.interfaces.find(value::multicast_interface_v6(value)?)), |of, _| number(of.v6.multicast_interface.map_or(0, index))),
    entry(IPPROTO_IPV6, numbers::IPV6_MULTICAST_ALL, |_, _, value| only_zero(integer(value)?), |_, _| number(0)),
    entry(IPPROTO_IPV6, libc::IPV6_TCLASS, |to, at, value| store(&mut to.v6.class, Ok(at.class(octet(integer(value)?, 0, 0)?))), |of, _| number(of.v6.class)),
    entry(IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, |to, _, value| store(&mut to.v6.wants_info, flag(value)), |of, _| number(of.v6.wants_info)),
    entry(IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, |to, _, value| store(&mut to.v6.wants_hops, flag(value)), |of, _| number(of.v6.wants_hops)),
    entry(IPPROTO_IPV6, libc::IPV6_RECVTCLASS, |to, _, value| store(&mut to.v6.wants_class, flag(value)), |of, _| number(of.v6.wants_class)),
    entry(IPPROTO_IPV6, libc::IPV6_RECVERR, |to, _, value| store(&mut to.v6.wants_errors, flag(value)), |of, _| number(of.v6.wants_errors)),
    entry(IPPROTO_IPV6, numbers::IPV6_RECVPATHMTU, |to, _, value| store(&mut to.v6.wants_path_mtu, flag(value)), |of, _| number(of.v6.wants_path_mtu)),
    entry(IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, |to, _, value| store(&mut to.v6.discover, discovery(integer(value)?)), |of, _| number(of.v6.discover)),
    entry(IPPROTO_IPV6, libc::IPV6_DONTFRAG, |to, _, value| store(&mut to.v6.dont_fragment, flag(value)), |of, _| number(of.v6.dont_fragment)),
    entry(IPPROTO_IPV6, numbers::IPV6_USE_MIN_MTU, |to, _, value| store(&mut to.v6.use_min_mtu, within(integer(value)?, -1..=1)), |of, _| number(of.v6.use_min_mtu)),
    entry(IPPROTO_IPV6, libc::IPV6_PKTINFO, |to, at, value| store(&mut to.sticky, at.interfaces.packet_info(value)), |of, _| get::packet_info(of.sticky)),
    entry(IPPROTO_IPV6, numbers::IPV6_HOPOPTS, |to, _, value| to.headers.set(HeaderKind::HopByHop, value), |of, _| of.headers.get(HeaderKind::HopByHop)),
    entry(IPPROTO_IPV6, numbers::IPV6_RTHDRDSTOPTS, |to, _, value| to.headers.set(HeaderKind::BeforeRouting, value), |of, _| of.headers.get(HeaderKind::BeforeRouting)),
    entry(IPPROTO_IPV6, numbers::IPV6_RTHDR, |to, _, value| to.headers.set(HeaderKind::Routing, value), |of, _| of.headers.get(HeaderKind::Routing)),
    entry(IPPROTO_IPV6, numbers::IPV6_DSTOPTS, |to, _, value| to.headers.set(HeaderKind::Destination, value), |of, _| of.headers.get(HeaderKind::Destination)),
    entry(IPPROTO_IPV6, numbers::IPV6_RECVHOPOPTS, |to, _, value| store(&mut to.wanted_headers.hop_by_hop, flag(value)), |of, _| number(of.wanted_headers.hop_by_hop)),
    entry(IPPROTO_IPV6, numbers::IPV6_RECVRTHDR, |to, _, value| store(&mut to.wanted_headers.routing, flag(value)), |of, _| number(of.wanted_headers.routing)),
    entry(IPPROTO_IPV6, numbers::IPV6_RECVDSTOPTS, |to, _, value| store(&mut to.wanted_headers.destination, flag(value)), |of, _| number(of.wanted_headers.destination)),

    entry(IPPROTO_IPV6, numbers::IPV6_CHECKSUM, |to, _, value| store(&mut to.checksum, set::checksum(value)), |of, _| number(of.checksum.map_or(-1, i32::from))),
    entry(IPPROTO_RAW, numbers::IPV6_CHECKSUM, |to, _, value| store(&mut to.checksum, set::checksum(value)), |of, _| number(of.checksum.map_or(-1, i32::from))),
    entry(IPPROTO_RAW, numbers::ICMP_FILTER, |to, _, value| store(&mut to.icmp_filter, set::icmp_filter(value)), |of, _| get::icmp_filter(of.icmp_filter)),
    entry(IPPROTO_ICMPV6, numbers::ICMP6_FILTER, |to, _, value| store(&mut to.icmp_filter, set::icmp6_filter(value)), |of, _| get::icmp6_filter(of.icmp_filter)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{groups, is_of_path, is_of_peer};

    /// Returns true if the answer to an option depends on the rest of the node.
    fn is_asked(row: &Row) -> bool {
        is_of_path(row) || is_of_peer(row)
    }

    /// Long enough for the value of any option.
    const ZEROS: [u8; 512] = [0; 512];

    #[test]
    fn each_option_of_the_node_has_its_functions_once() {
        for row in numbers::TABLE {
            let count =
                TABLE.iter().filter(|entry| (entry.level, entry.number) == (row.level, row.number)).count();
            let is_group = groups::request(row, &ZEROS).is_some();
            let expected = match row.access {
                Access::Both => (1, false, false),
                Access::Get if is_asked(row) => (0, false, true),
                Access::Get => (1, false, false),
                Access::Set => (0, true, false),
                // Streams have no effect of an option that other sockets have.
                _ => continue,
            };
            assert_eq!((count, is_group, is_asked(row)), expected, "{}", row.name);
        }
    }

    #[test]
    fn each_entry_belongs_to_an_option() {
        for entry in TABLE {
            let is_known = numbers::TABLE.iter().any(|row| {
                (row.level, row.number) == (entry.level, entry.number)
                    && matches!(row.access, Access::Both | Access::Get)
            });
            assert!(is_known, "{} {}", entry.level, entry.number);
        }
    }

    #[test]
    fn the_value_of_a_new_socket_can_be_set_again() {
        let interfaces = set::Interfaces([].into());
        let place = Place { is_bound: false, is_stream: false, interfaces: &interfaces };
        for row in numbers::TABLE.iter().filter(|row| row.access == Access::Both) {
            let entry = find(row).expect("an entry");
            let mut options = Options::default();
            let value = (entry.get)(&options, None);
            (entry.set)(&mut options, &place, &value).unwrap_or_else(|error| panic!("{}: {error}", row.name));
            // Linux doubles the size of a queue.
            let is_queue = matches!((row.level, row.number), (SOL_SOCKET, libc::SO_RCVBUF | libc::SO_SNDBUF));
            assert!(is_queue || (entry.get)(&options, None) == value, "{}", row.name);
        }
    }
}
