//! Extension headers as ancillary data of sent datagrams (RFC 3542 section 20.1), with the checks of Linux's
//! `ip6_datagram_send_ctl`.

use libc::c_int;
use peersock_fd::{Errno, Family, Header, HeaderKind};

use crate::Result;
use crate::privilege::has_net_raw;

/// Length and type of a type 2 routing header (RFC 6275) with one segment left, the only one that Linux
/// accepts for a single datagram.
const MOBILE: [u8; 2] = [2, 1];

/// Reads one control message of the level IPPROTO_IPV6. Returns `false` if it is about something else. IPv4
/// sockets ignore it.
///
/// # Errors
/// EINVAL for a header longer than the message, for a second hop-by-hop header, and for a routing header of a
/// type other than 2. EPERM for options headers without CAP_NET_RAW.
pub(crate) fn read_header(
    family: Family,
    kind: c_int,
    value: &[u8],
    headers: &mut Vec<Header>,
) -> Result<bool> {
    read_as(family, kind, value, headers, has_net_raw)
}

fn read_as(
    family: Family,
    kind: c_int,
    value: &[u8],
    headers: &mut Vec<Header>,
    is_privileged: impl FnOnce() -> bool,
) -> Result<bool> {
    let Some(kind) = HeaderKind::of_option(kind) else { return Ok(false) };
    if family == Family::V4 {
        return Ok(true);
    }
    let is_second = headers.iter().any(|header| header.kind == kind);
    if is_second && kind == HeaderKind::HopByHop {
        return Err(Errno::INVAL);
    }
    let length = value.get(1).ok_or(Errno::INVAL)?;
    if kind == HeaderKind::Routing && (*length != 2 || value.get(2..4) != Some(&MOBILE[..])) {
        return Err(Errno::INVAL);
    }
    let bytes = value.get(..8 * (1 + usize::from(*length))).ok_or(Errno::INVAL)?;
    if kind != HeaderKind::Routing && !is_privileged() {
        return Err(Errno::PERM);
    }
    // The last of a kind counts.
    headers.retain(|header| header.kind != kind);
    headers.push(Header { kind, bytes: bytes.to_vec() });
    Ok(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAD: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

    fn read(kind: HeaderKind, value: &[u8], headers: &mut Vec<Header>, privileged: bool) -> Result<bool> {
        read_as(Family::V6, kind.option(), value, headers, || privileged)
    }

    #[test]
    fn options_headers_are_for_the_privileged_and_bad_lengths_for_nobody() {
        for kind in [HeaderKind::HopByHop, HeaderKind::BeforeRouting, HeaderKind::Destination] {
            let mut headers = Vec::new();
            assert_eq!(read(kind, &PAD, &mut headers, false), Err(Errno::PERM));
            for value in [&[][..], &[0], &PAD[..7], &[0, 1, 1, 4, 0, 0, 0, 0]] {
                assert_eq!(read(kind, value, &mut headers, false), Err(Errno::INVAL));
            }
            assert!(headers.is_empty());
            // Bytes behind the header are not sent.
            assert_eq!(read(kind, &[PAD, PAD].concat(), &mut headers, true), Ok(true));
            assert_eq!(headers, [Header { kind, bytes: PAD.to_vec() }]);
            let again = read(kind, &[[0, 0], [1, 4], [7; 2], [7; 2]].concat(), &mut headers, true);
            let is_first = kind == HeaderKind::HopByHop;
            assert_eq!(again, if is_first { Err(Errno::INVAL) } else { Ok(true) });
            assert_eq!((headers.len(), headers[0].bytes[4]), (1, if is_first { 0 } else { 7 }));
        }
    }

    #[test]
    fn routes_are_for_everybody_but_of_one_type_only() {
        let route = |kind, left| [&[0, 2, kind, left, 0, 0, 0, 0][..], &[0xfd; 16]].concat();
        let mut headers = Vec::new();
        assert_eq!(read(HeaderKind::Routing, &route(2, 1), &mut headers, false), Ok(true));
        for value in [route(0, 1), route(4, 1), route(2, 0), route(2, 2), route(2, 1)[..23].to_vec()] {
            assert_eq!(read(HeaderKind::Routing, &value, &mut headers, true), Err(Errno::INVAL), "{value:?}");
        }
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn ipv4_has_none_and_other_messages_are_not_looked_at() {
        let mut headers = Vec::new();
        let destination = HeaderKind::Destination.option();
        assert_eq!(read_as(Family::V4, destination, &[], &mut headers, || false), Ok(true));
        assert_eq!(read_as(Family::V6, libc::IPV6_HOPLIMIT, &[], &mut headers, || false), Ok(false));
        assert!(headers.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(value in prop::collection::vec(any::<u8>(), 0..60), at in 0..4usize) {
            let mut headers = Vec::new();
            let taken = read(HeaderKind::ALL[at], &value, &mut headers, true);
            prop_assert_eq!(taken.is_ok(), headers.len() == 1);
            prop_assert!(headers.iter().all(|header| header.bytes.len() == 8 * (1 + usize::from(value[1]))));
        }
    }
}
