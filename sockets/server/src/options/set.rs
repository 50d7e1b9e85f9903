//! setsockopt(2): the context of a call, and the parsers of values that are no plain numbers.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use peersock_datapath::JoinedNetwork;
use peersock_fd::{Errno, PacketInfo};
use peersock_stack::{CongestionControl, IcmpFilter, InterfaceId};

use super::value::{self, InterfaceRef, flag, integer, within};
use super::{Options, interface_name};

/// The largest queue that an application may ask for, bytes.
const MAX_BUFFER_BYTES: i32 = 64 << 20;
/// The smallest queue of a socket, bytes, as in Linux.
const MIN_BUFFER_BYTES: usize = 2304;

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
    pub(super) fn class(&self, wanted: u8) -> u8 {
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
    pub(super) fn packet_info(&self, value: &[u8]) -> Result<Option<PacketInfo>, Errno> {
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

    pub(super) fn by_index(&self, index: i32) -> Result<Option<InterfaceId>, Errno> {
        match index {
            ..0 => Err(Errno::INVAL),
            0 => Ok(None),
            index => self.find(InterfaceRef::Index(index)),
        }
    }

    pub(super) fn by_name(&self, name: &[u8]) -> Result<Option<InterfaceId>, Errno> {
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        if name.is_empty() {
            return Ok(None);
        }
        let named = |network: &&JoinedNetwork| interface_name(network.interface).as_bytes() == name;
        self.0.iter().find(named).map(|network| Some(network.interface)).ok_or(Errno::NODEV)
    }
}

/// Parses SO_LINGER.
pub(super) fn linger(value: &[u8]) -> Result<Option<u32>, Errno> {
    let (on, seconds) = (integer(value)?, integer(value.get(4..).ok_or(Errno::INVAL)?)?);
    Ok((on != 0).then_some(seconds.max(0) as u32))
}

/// Doubles the requested size, as Linux does to cover its bookkeeping.
pub(super) fn buffer(value: &[u8]) -> Result<Option<usize>, Errno> {
    let asked = integer(value)?.clamp(0, MAX_BUFFER_BYTES) as usize;
    Ok(Some((2 * asked).max(MIN_BUFFER_BYTES)))
}

/// Sets SO_BINDTODEVICE. A bound socket keeps its interface.
pub(super) fn device(
    options: &mut Options,
    place: &Place<'_>,
    device: Result<Option<InterfaceId>, Errno>,
) -> Result<(), Errno> {
    let device = device?;
    if place.is_bound && device != options.device {
        return Err(Errno::INVAL);
    }
    options.device = device;
    Ok(())
}

/// Parses TCP_MAXSEG; 0 lets the path decide.
pub(super) fn max_segment(value: &[u8]) -> Result<Option<u16>, Errno> {
    let size = integer(value)?;
    if size == 0 { Ok(None) } else { Ok(Some(within(size, 88..=32767)? as u16)) }
}

/// Parses TCP_KEEPIDLE and TCP_KEEPINTVL.
pub(super) fn seconds(value: &[u8]) -> Result<Duration, Errno> {
    Ok(Duration::from_secs(within(integer(value)?, 1..=32767)? as u64))
}

/// Parses TCP_DEFER_ACCEPT.
pub(super) fn defer_accept(value: &[u8]) -> Result<Option<Duration>, Errno> {
    let seconds = u64::try_from(integer(value)?).unwrap_or(0);
    Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
}

/// Parses TCP_USER_TIMEOUT.
pub(super) fn user_timeout(value: &[u8]) -> Result<Option<Duration>, Errno> {
    let milliseconds = u64::try_from(integer(value)?).map_err(|_| Errno::INVAL)?;
    Ok((milliseconds > 0).then(|| Duration::from_millis(milliseconds)))
}

/// Parses TCP_CONGESTION.
pub(super) fn congestion(value: &[u8]) -> Result<CongestionControl, Errno> {
    let name = std::str::from_utf8(value).map_err(|_| Errno::NOENT)?.trim_end_matches('\0');
    name.parse().map_err(|_| Errno::NOENT)
}

/// Parses UDP_SEGMENT.
pub(super) fn segment(value: &[u8]) -> Result<Option<NonZeroU16>, Errno> {
    Ok(NonZeroU16::new(u16::try_from(integer(value)?).map_err(|_| Errno::INVAL)?))
}

/// Sets IPV6_V6ONLY, which a bound socket keeps.
pub(super) fn v6_only(options: &mut Options, place: &Place<'_>, value: &[u8]) -> Result<(), Errno> {
    if place.is_bound {
        return Err(Errno::INVAL);
    }
    options.v6_only = flag(value)?;
    Ok(())
}

/// Parses IPV6_CHECKSUM.
pub(super) fn checksum(value: &[u8]) -> Result<Option<u16>, Errno> {
    let offset = integer(value)?;
    match u16::try_from(offset) {
        Ok(offset) if offset % 2 == 0 => Ok(Some(offset)),
        _ if offset < 0 => Ok(None),
        _ => Err(Errno::INVAL),
    }
}

/// Parses ICMP_FILTER, a mask of the first 32 types.
pub(super) fn icmp_filter(value: &[u8]) -> Result<IcmpFilter, Errno> {
    let mask = integer(value)? as u32;
    let mut filter = IcmpFilter::default();
    (0..32).filter(|kind| mask >> kind & 1 == 1).for_each(|kind| filter.block(kind));
    Ok(filter)
}

/// Parses ICMP6_FILTER: eight words, in which a set bit blocks.
pub(super) fn icmp6_filter(value: &[u8]) -> Result<IcmpFilter, Errno> {
    let words = value.get(..32).ok_or(Errno::INVAL)?;
    let word = |kind: u8| integer(&words[usize::from(kind >> 5) * 4..]).map(|word| word as u32);
    let mut filter = IcmpFilter::default();
    for kind in 0..=255 {
        if word(kind)? >> (kind & 31) & 1 == 1 {
            filter.block(kind);
        }
    }
    Ok(filter)
}
