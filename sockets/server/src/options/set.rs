//! setsockopt(2).

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use libc::{IPPROTO_ICMPV6, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_RAW, IPPROTO_TCP, IPPROTO_UDP, SOL_SOCKET};
use peersock_fd::{Errno, HeaderKind, PacketInfo};
use peersock_stack::{IcmpFilter, InterfaceId};

use super::value::{self, InterfaceRef, flag, integer, octet, small, within};
use super::{HOPS, Options, Side, interface_name};
use peersock_datapath::JoinedNetwork;
use peersock_fd::option_table::{self as table, Access, Row};

/// The largest queue that an application may ask for, bytes.
const MOST_BUFFER: i32 = 64 << 20;
/// The smallest queue of a socket, bytes, as in Linux.
const LEAST_BUFFER: usize = 2304;

/// Context in which an option is set.
pub(super) struct Place<'a> {
    /// True if it is too late for options that affect binding.
    pub(super) is_bound: bool,
    /// True for a stream, whose two ECN bits belong to TCP.
    pub(super) is_stream: bool,
    pub(super) interfaces: &'a Interfaces,
}

impl Place<'_> {
    /// Returns the part of a traffic class that a program may choose.
    fn class(&self, wanted: u8) -> u8 {
        if self.is_stream { wanted & !3 } else { wanted }
    }
}

/// The networks, as interfaces.
pub(super) struct Interfaces(pub(super) Arc<[JoinedNetwork]>);

impl Interfaces {
    pub(super) fn find(&self, wanted: InterfaceRef) -> Result<Option<InterfaceId>, Errno> {
        let found = match wanted {
            InterfaceRef::Any => return Ok(None),
            InterfaceRef::Index(index) => {
                self.0.iter().find(|network| value::index(network.interface) == index)
            }
            InterfaceRef::Address(address) => {
                self.0.iter().find(|network| network.addresses.contains(&IpAddr::V4(address)))
            }
        };
        found.map(|network| Some(network.interface)).ok_or(Errno::NODEV)
    }

    /// Parses the source of datagrams, which must be the node's own (RFC 3542 6.2).
    fn packet_info(&self, value: &[u8]) -> Result<Option<PacketInfo>, Errno> {
        let (local, wanted) = value::packet_info(value)?;
        let interface = self.find(wanted)?;
        if local.is_unspecified() && interface.is_none() {
            return Ok(None);
        }
        let suits =
            |network: &&JoinedNetwork| interface.is_none_or(|interface| interface == network.interface);
        let meant = IpAddr::V6(local).to_canonical();
        let is_own = self.0.iter().filter(suits).any(|network| network.addresses.contains(&meant));
        if !local.is_unspecified() && !is_own {
            return Err(Errno::ADDRNOTAVAIL);
        }
        let interface = interface.map_or(0, |interface| interface.0);
        let interface = u16::try_from(interface).map_err(|_| Errno::NODEV)?;
        Ok(Some(PacketInfo { local: local.into(), interface }))
    }

    fn by_index(&self, index: i32) -> Result<Option<InterfaceId>, Errno> {
        match index {
            ..0 => Err(Errno::INVAL),
            0 => Ok(None),
            index => self.find(InterfaceRef::Index(index)),
        }
    }

    fn by_name(&self, name: &[u8]) -> Result<Option<InterfaceId>, Errno> {
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        if name.is_empty() {
            return Ok(None);
        }
        let named = |network: &&JoinedNetwork| interface_name(network.interface).as_bytes() == name;
        self.0.iter().find(named).map(|network| Some(network.interface)).ok_or(Errno::NODEV)
    }
}

/// Sets one option.
pub(super) fn set(options: &mut Options, place: &Place<'_>, row: &Row, value: &[u8]) -> Result<(), Errno> {
    match row.access {
        Access::Kept(_) => {
            let value = if row.level == IPPROTO_IP { small(value)? } else { integer(value)? };
            options.kept.insert((row.level, row.number), value);
            return Ok(());
        }
        Access::Ignored => return integer(value).map(drop),
        _ => {}
    }
    match row.level {
        SOL_SOCKET => set_socket(options, place, row.number, value),
        IPPROTO_TCP => set_tcp(options, row.number, value),
        IPPROTO_UDP => {
            options.segment = NonZeroU16::new(u16::try_from(integer(value)?).map_err(|_| Errno::INVAL)?);
            Ok(())
        }
        IPPROTO_IP if row.number == libc::IP_HDRINCL => {
            options.header_included = flag(value)?;
            Ok(())
        }
        IPPROTO_IP => set_ip(&mut options.v4, place, row.number, value),
        IPPROTO_IPV6 if row.number == libc::IPV6_V6ONLY => {
            if place.is_bound {
                return Err(Errno::INVAL);
            }
            options.v6_only = flag(value)?;
            Ok(())
        }
        IPPROTO_IPV6 if row.number == libc::IPV6_PKTINFO => {
            options.sticky = place.interfaces.packet_info(value)?;
            Ok(())
        }
        IPPROTO_IPV6 if set_headers(options, row.number, value)? => Ok(()),
        IPPROTO_RAW if row.number == table::ICMP_FILTER => {
            let mask = integer(value)? as u32;
            options.icmp_filter = IcmpFilter::default();
            (0..32).filter(|kind| mask >> kind & 1 == 1).for_each(|kind| options.icmp_filter.block(kind));
            Ok(())
        }
        IPPROTO_IPV6 | IPPROTO_RAW if row.number == table::IPV6_CHECKSUM => {
            let offset = integer(value)?;
            options.checksum = match u16::try_from(offset) {
                Ok(offset) if offset % 2 == 0 => Some(offset),
                _ if offset < 0 => None,
                _ => return Err(Errno::INVAL),
            };
            Ok(())
        }
        IPPROTO_ICMPV6 => {
            // Eight words; a set bit blocks.
            let words = value.get(..32).ok_or(Errno::INVAL)?;
            let word = |kind: u8| integer(&words[usize::from(kind >> 5) * 4..]).map(|word| word as u32);
            let mut filter = IcmpFilter::default();
            for kind in 0..=255 {
                if word(kind)? >> (kind & 31) & 1 == 1 {
                    filter.block(kind);
                }
            }
            options.icmp_filter = filter;
            Ok(())
        }
        _ => set_ipv6(&mut options.v6, place, row.number, value),
    }
}

/// Sets an option about extension headers. Returns `false` if it is a different option.
fn set_headers(options: &mut Options, number: i32, value: &[u8]) -> Result<bool, Errno> {
    let wanted = &mut options.wanted_headers;
    match number {
        table::IPV6_RECVHOPOPTS => wanted.hop_by_hop = flag(value)?,
        table::IPV6_RECVRTHDR => wanted.routing = flag(value)?,
        table::IPV6_RECVDSTOPTS => wanted.destination = flag(value)?,
        _ => match HeaderKind::of_option(number) {
            Some(kind) => options.headers.set(kind, value)?,
            None => return Ok(false),
        },
    }
    Ok(true)
}

fn set_socket(options: &mut Options, place: &Place<'_>, number: i32, value: &[u8]) -> Result<(), Errno> {
    match number {
        libc::SO_REUSEADDR => options.reuse_address = flag(value)?,
        libc::SO_REUSEPORT => options.reuse_port = flag(value)?,
        libc::SO_KEEPALIVE => options.keepalive.on = flag(value)?,
        libc::SO_BROADCAST => options.broadcast = flag(value)?,
        libc::SO_LINGER => {
            let (on, seconds) = (integer(value)?, integer(value.get(4..).ok_or(Errno::INVAL)?)?);
            options.linger = (on != 0).then_some(seconds.max(0) as u32);
        }
        libc::SO_RCVBUF => options.receive_buffer = Some(buffer(value)?),
        libc::SO_SNDBUF => options.send_buffer = Some(buffer(value)?),
        libc::SO_BINDTODEVICE | table::SO_BINDTOIFINDEX => {
            let device = match number {
                table::SO_BINDTOIFINDEX => place.interfaces.by_index(integer(value)?)?,
                _ => place.interfaces.by_name(value)?,
            };
            if place.is_bound && device != options.device {
                return Err(Errno::INVAL);
            }
            options.device = device;
        }
        _ => return Err(Errno::NOPROTOOPT),
    }
    Ok(())
}

/// Doubles the requested size, as Linux does to cover its bookkeeping.
fn buffer(value: &[u8]) -> Result<usize, Errno> {
    let asked = integer(value)?.clamp(0, MOST_BUFFER) as usize;
    Ok((2 * asked).max(LEAST_BUFFER))
}

fn set_tcp(options: &mut Options, number: i32, value: &[u8]) -> Result<(), Errno> {
    let seconds = |most| Ok(Duration::from_secs(within(integer(value)?, 1..=most)? as u64));
    match number {
        libc::TCP_NODELAY => options.nodelay = flag(value)?,
        libc::TCP_CORK => options.cork = flag(value)?,
        libc::TCP_QUICKACK => options.quick_ack = flag(value)?,
        libc::TCP_MAXSEG => {
            let size = integer(value)?;
            options.max_segment = if size == 0 { None } else { Some(within(size, 88..=32767)? as u16) };
        }
        libc::TCP_KEEPIDLE => options.keepalive.idle = seconds(32767)?,
        libc::TCP_KEEPINTVL => options.keepalive.interval = seconds(32767)?,
        libc::TCP_KEEPCNT => options.keepalive.probes = within(integer(value)?, 1..=127)? as u32,
        libc::TCP_DEFER_ACCEPT => {
            let seconds = u64::try_from(integer(value)?).unwrap_or(0);
            options.defer_accept = (seconds > 0).then(|| Duration::from_secs(seconds));
        }
        libc::TCP_USER_TIMEOUT => {
            let milliseconds = u64::try_from(integer(value)?).map_err(|_| Errno::INVAL)?;
            options.user_timeout = (milliseconds > 0).then(|| Duration::from_millis(milliseconds));
        }
        libc::TCP_CONGESTION => {
            let name = std::str::from_utf8(value).map_err(|_| Errno::NOENT)?.trim_end_matches('\0');
            options.congestion = name.parse().map_err(|_| Errno::NOENT)?;
        }
        _ => return Err(Errno::NOPROTOOPT),
    }
    Ok(())
}

fn set_ip(side: &mut Side, place: &Place<'_>, number: i32, value: &[u8]) -> Result<(), Errno> {
    match number {
        libc::IP_TTL => side.hops = octet(small(value)?, HOPS, 1)?,
        libc::IP_TOS => side.class = place.class((small(value)? & 0xff) as u8),
        libc::IP_MTU_DISCOVER => {
            side.discover = within(small(value)?, libc::IP_PMTUDISC_DONT..=libc::IP_PMTUDISC_OMIT)?;
        }
        libc::IP_MULTICAST_TTL => side.multicast_hops = octet(small(value)?, 1, 0)?,
        libc::IP_MULTICAST_LOOP => side.multicast_loop = small(value)? != 0,
        libc::IP_MULTICAST_IF => {
            side.multicast_interface = place.interfaces.find(value::multicast_interface(value)?)?;
        }
        table::IP_MULTICAST_ALL if small(value)? == 0 => {}
        libc::IP_PKTINFO => side.wants_info = small(value)? != 0,
        libc::IP_RECVTTL => side.wants_hops = small(value)? != 0,
        libc::IP_RECVTOS => side.wants_class = small(value)? != 0,
        libc::IP_RECVERR => side.wants_errors = small(value)? != 0,
        _ => return Err(Errno::NOPROTOOPT),
    }
    Ok(())
}

fn set_ipv6(side: &mut Side, place: &Place<'_>, number: i32, value: &[u8]) -> Result<(), Errno> {
    match number {
        libc::IPV6_UNICAST_HOPS => side.hops = octet(integer(value)?, HOPS, 1)?,
        libc::IPV6_MULTICAST_HOPS => side.multicast_hops = octet(integer(value)?, 1, 0)?,
        libc::IPV6_MULTICAST_LOOP => side.multicast_loop = within(integer(value)?, 0..=1)? != 0,
        libc::IPV6_MULTICAST_IF => {
            side.multicast_interface = place.interfaces.find(value::multicast_interface_v6(value)?)?;
        }
        table::IPV6_MULTICAST_ALL if integer(value)? == 0 => {}
        libc::IPV6_TCLASS => side.class = place.class(octet(integer(value)?, 0, 0)?),
        libc::IPV6_RECVPKTINFO => side.wants_info = flag(value)?,
        libc::IPV6_RECVHOPLIMIT => side.wants_hops = flag(value)?,
        libc::IPV6_RECVTCLASS => side.wants_class = flag(value)?,
        libc::IPV6_RECVERR => side.wants_errors = flag(value)?,
        table::IPV6_RECVPATHMTU => side.wants_path_mtu = flag(value)?,
        libc::IPV6_MTU_DISCOVER => {
            side.discover = within(integer(value)?, libc::IP_PMTUDISC_DONT..=libc::IP_PMTUDISC_OMIT)?;
        }
        libc::IPV6_DONTFRAG => side.dont_fragment = flag(value)?,
        table::IPV6_USE_MIN_MTU => side.use_min_mtu = within(integer(value)?, -1..=1)?,
        _ => return Err(Errno::NOPROTOOPT),
    }
    Ok(())
}
