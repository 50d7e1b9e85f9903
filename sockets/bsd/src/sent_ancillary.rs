//! Requests in the control messages of sent messages (RFC 3542, ip(7), ipv6(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::{ptr, slice};

use libc::{c_int, cmsghdr, msghdr};
use peersock_fd::{Details, Errno, Family, Header, PacketInfo, network_of_index};

use crate::Result;
use crate::ancillary::{HEADER, length};
use crate::extension_headers::read_header;

/// The requests of a sent message.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SentAncillary {
    /// `None` if the message requests none of them.
    pub(crate) details: Option<Details>,
    pub(crate) headers: Vec<Header>,
}

/// Reads the requests of a message to a remote address, or to the peer, for a socket of a family.
///
/// # Errors
/// EINVAL for invalid values, and for known but unsupported requests. Levels of another protocol are ignored,
/// as in Linux: IPPROTO_IPV6 on IPv4 sockets, and IPPROTO_IP where the remote address is not mapped.
/// EPERM for options headers without CAP_NET_RAW.
///
/// # Safety
/// The message's control buffer is valid.
pub(crate) unsafe fn read(
    message: &msghdr,
    family: Family,
    remote: Option<SocketAddr>,
) -> Result<SentAncillary> {
    let (mut details, mut headers) = (Details::default(), Vec::new());
    let is_only_v6 = matches!(remote, Some(SocketAddr::V6(v6)) if v6.ip().to_ipv4_mapped().is_none());
    let read = |header: &cmsghdr, value: &[u8]| {
        match header.cmsg_level {
            libc::IPPROTO_IPV6 if family == Family::V4 => return Ok(()),
            libc::IPPROTO_IP if is_only_v6 => return Ok(()),
            _ => {}
        }
        let is_header = header.cmsg_level == libc::IPPROTO_IPV6
            && read_header(family, header.cmsg_type, value, &mut headers)?;
        if is_header { Ok(()) } else { read_one(header, value, &mut details) }
    };
    // SAFETY: the caller's.
    unsafe { each(message, read) }?;
    Ok(SentAncillary { details: (!details.is_empty()).then_some(details), headers })
}

/// Checks the control messages of a message for a stream.
///
/// # Errors
/// EINVAL for requests that kernel streams know and overlay streams do not support; as [`read`] for lengths.
///
/// # Safety
/// The message's control buffer is valid.
pub(crate) unsafe fn check_of_stream(message: &msghdr) -> Result<()> {
    let check = |header: &cmsghdr, _: &[u8]| match (header.cmsg_level, header.cmsg_type) {
        (libc::SOL_SOCKET, libc::SCM_RIGHTS | libc::SCM_CREDENTIALS) => Ok(()),
        (libc::SOL_SOCKET, _) => Err(Errno::INVAL),
        _ => Ok(()),
    };
    // SAFETY: the caller's.
    unsafe { each(message, check) }
}

/// Calls `call` with each control message and its value.
///
/// # Safety
/// The message's control buffer is valid.
unsafe fn each(message: &msghdr, mut call: impl FnMut(&cmsghdr, &[u8]) -> Result<()>) -> Result<()> {
    if message.msg_control.is_null() {
        return Ok(());
    }
    // The lengths are of other types in other C libraries.
    let room = length(message.msg_controllen);
    if room > c_int::MAX as usize {
        return Err(Errno::NOBUFS);
    }
    // SAFETY: the caller says that the control buffer is there.
    let mut left = unsafe { slice::from_raw_parts(message.msg_control.cast::<u8>(), room) };
    while left.len() >= size_of::<cmsghdr>() {
        // SAFETY: there is room for a header, which need not be aligned, and any bytes are one.
        let header = unsafe { ptr::read_unaligned(left.as_ptr().cast::<cmsghdr>()) };
        let whole = length(header.cmsg_len);
        let value = left.get(HEADER..whole).ok_or(Errno::INVAL)?;
        call(&header, value)?;
        left = left.get(whole.next_multiple_of(size_of::<usize>())..).unwrap_or_default();
    }
    Ok(())
}

fn read_one(header: &cmsghdr, value: &[u8], details: &mut Details) -> Result<()> {
    match (header.cmsg_level, header.cmsg_type) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // `in_pktinfo`: index, local address, and the header's destination, which is ignored here.
            let value: &[u8; 12] = value.try_into().map_err(|_| Errno::INVAL)?;
            let index = number(&value[..4])?;
            let local = Ipv4Addr::from(array::<4>(value, 4)?);
            details.packet_info = Some(packet_info(local.into(), index)?);
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            let index = number(value.get(16..20).ok_or(Errno::INVAL)?)?;
            let local = Ipv6Addr::from(array::<16>(value, 0)?);
            details.packet_info = Some(packet_info(local.into(), index)?);
        }
        (libc::IPPROTO_IP, libc::IP_TTL) => match number(value)? {
            hops @ 1..=255 => details.hop_limit = Some(hops as u8),
            _ => return Err(Errno::INVAL),
        },
        (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => details.hop_limit = octet(number(value)?)?,
        (libc::IPPROTO_IP, libc::IP_TOS) => {
            let class = match value {
                [class] => c_int::from(*class),
                value => number(value)?,
            };
            details.traffic_class = Some(u8::try_from(class).map_err(|_| Errno::INVAL)?);
        }
        (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => details.traffic_class = octet(number(value)?)?,
        // `__u16`; 0 means none.
        (libc::IPPROTO_UDP, libc::UDP_SEGMENT) => match value {
            [a, b] => details.segment = NonZeroU16::new(u16::from_ne_bytes([*a, *b])),
            _ => return Err(Errno::INVAL),
        },
        // Descriptors and credentials do not concern the network; Linux ignores them.
        (libc::SOL_SOCKET, libc::SCM_RIGHTS | libc::SCM_CREDENTIALS) => {}
        (libc::SOL_SOCKET | libc::IPPROTO_IP | libc::IPPROTO_IPV6 | libc::IPPROTO_UDP, _) => {
            return Err(Errno::INVAL);
        }
        _ => {}
    }
    Ok(())
}

fn packet_info(local: IpAddr, index: c_int) -> Result<PacketInfo> {
    let index = u32::try_from(index).map_err(|_| Errno::NODEV)?;
    let interface = network_of_index(index).ok_or(Errno::NODEV)?;
    Ok(PacketInfo { local, interface })
}

/// Converts an octet; -1 means the default.
fn octet(value: c_int) -> Result<Option<u8>> {
    if value == -1 { Ok(None) } else { Ok(Some(u8::try_from(value).map_err(|_| Errno::INVAL)?)) }
}

/// Parses an `int`; Linux takes no longer value for one.
fn number(value: &[u8]) -> Result<c_int> {
    Ok(c_int::from_ne_bytes(value.try_into().map_err(|_| Errno::INVAL)?))
}

fn array<const N: usize>(value: &[u8], at: usize) -> Result<[u8; N]> {
    value.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).ok_or(Errno::INVAL)
}
