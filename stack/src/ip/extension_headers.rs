//! Extension headers of outgoing datagrams (RFC 3542, RFC 8200 section 4).

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::wire::IpProtocol;

use crate::Error;
use crate::ip::{Fields, write_fields};

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// Type 2 of routing headers (RFC 6275 6.4).
const MOBILE: u8 = 2;
/// Type of segment routing headers (RFC 8754 2).
const SEGMENTS: u8 = 4;

/// Extension headers requested for a datagram, each in the layout of RFC 8200. The first byte, which names
/// the next header, is filled in on sending.
///
/// The fields are in the order of transmission.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeaderParts<'a> {
    /// Hop-by-hop options: IPV6_HOPOPTS.
    pub hop_by_hop: Option<&'a [u8]>,
    /// Destination options before the routing header: IPV6_RTHDRDSTOPTS. Omitted without a routing header
    /// (RFC 3542 section 7).
    pub before_routing: Option<&'a [u8]>,
    /// Routing header of type 2 (RFC 6275) or 4 (RFC 8754): IPV6_RTHDR.
    pub routing: Option<&'a [u8]>,
    /// Destination options for the final destination: IPV6_DSTOPTS.
    pub destination: Option<&'a [u8]>,
}

/// Checked and ordered IPv6 extension headers of outgoing datagrams: at most 8,192 bytes. IPv4 sockets omit
/// them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtensionHeaders {
    /// All headers; each but the last names the next.
    bytes: Box<[u8]>,
    /// Type of the first header.
    first: u8,
    /// Position of the last header, which names the upper layer.
    last_at: usize,
    route: Option<Waypoint>,
}

/// First hop of a packet with a routing header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waypoint {
    address: Ipv6Addr,
    /// Position of the final destination in the chain.
    destination_at: usize,
}

impl ExtensionHeaders {
    /// Orders the headers; returns `None` if there are none to send.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] for a header whose length contradicts its second byte, and for a routing
    /// header of another type or with invalid content. Type 2 must have one segment left. In type 4, segments
    /// and type-length-values must fit the header's length. The number of segments left must not exceed the
    /// segments, and the next segment must not be a group.
    pub fn new(parts: &HeaderParts<'_>) -> Result<Option<Self>, Error> {
        let given = [parts.hop_by_hop, parts.before_routing, parts.routing, parts.destination];
        if !given.into_iter().flatten().all(is_whole) {
            return Err(Error::InvalidInput);
        }
        let before_routing = parts.before_routing.filter(|_| parts.routing.is_some());
        let all = [
            (HOP_BY_HOP, parts.hop_by_hop),
            (DESTINATION, before_routing),
            (ROUTING, parts.routing),
            (DESTINATION, parts.destination),
        ];
        let (mut bytes, mut first, mut last_at, mut route) = (Vec::new(), None, 0, None);
        for (protocol, header) in all {
            let Some(header) = header else { continue };
            let at = bytes.len();
            match first {
                None => first = Some(protocol),
                Some(_) => bytes[last_at] = protocol,
            }
            if protocol == ROUTING {
                let address = next_segment(header).ok_or(Error::InvalidInput)?;
                // The first address in the header is the last destination, in either type.
                route = Some(Waypoint { address, destination_at: at + 8 });
            }
            last_at = at;
            bytes.extend_from_slice(header);
        }
        Ok(first.map(|first| Self { bytes: bytes.into(), first, last_at, route }))
    }

    /// Returns the bytes of all headers.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns false, because there is at least one header.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Returns the first hop of a packet with a routing header.
    pub fn first_hop(&self) -> Option<Ipv6Addr> {
        self.route.map(|route| route.address)
    }

    /// Writes the headers to `buf`, which has their length, before a `protocol` for `destination`.
    fn write(&self, protocol: IpProtocol, destination: Ipv6Addr, buf: &mut [u8]) {
        buf.copy_from_slice(&self.bytes);
        buf[self.last_at] = protocol.into();
        if let Some(route) = &self.route {
            buf[route.destination_at..][..16].copy_from_slice(&destination.octets());
        }
    }
}

/// Returns true if a header is as long as its second byte says.
fn is_whole(header: &[u8]) -> bool {
    header.len() >= 8 && header.len() == 8 * (1 + usize::from(header[1]))
}

/// Returns the next segment of a routing header.
fn next_segment(header: &[u8]) -> Option<Ipv6Addr> {
    let (kind, left) = (header[2], usize::from(header[3]));
    let at = match kind {
        MOBILE if header.len() == 24 && left == 1 => 0,
        SEGMENTS if are_segments(header) => left,
        _ => return None,
    };
    let segment: &[u8; 16] = header.get(8 + 16 * at..)?.first_chunk()?;
    Some(Ipv6Addr::from(*segment)).filter(|segment| !segment.is_multicast())
}

/// Returns true for valid segments (RFC 8754 2): the last entry's index, the segments, and type-length-values
/// that fill the header.
fn are_segments(header: &[u8]) -> bool {
    let (left, last) = (header[3], usize::from(header[4]));
    let end = 8 + 16 * (last + 1);
    // The index of the next segment would point outside of the list.
    if usize::from(left) > last || end > header.len() {
        return false;
    }
    let mut rest = &header[end..];
    while let [_, length, behind @ ..] = rest {
        let Some(behind) = behind.get(usize::from(*length)..) else { return false };
        rest = behind;
    }
    rest.is_empty()
}

/// Writes a header as [`write_fields`] does, with extension headers behind it; returns the length of both.
pub(crate) fn write_headers(
    buf: &mut [u8],
    (source, destination): (IpAddr, IpAddr),
    fields: &Fields,
    headers: Option<&ExtensionHeaders>,
    payload_len: usize,
    checksums: bool,
) -> Option<usize> {
    let (Some(headers), IpAddr::V6(last)) = (headers, destination) else {
        return write_fields(buf, (source, destination), fields, payload_len, checksums);
    };
    let outer = Fields { protocol: headers.first.into(), ..*fields };
    // RFC 8200 4.4: the IP header has the next segment; the last destination moves into the routing header.
    let next = headers.first_hop().map_or(destination, IpAddr::V6);
    let len = headers.len();
    let ip_len = write_fields(buf, (source, next), &outer, len + payload_len, checksums)?;
    headers.write(fields.protocol, last, &mut buf[ip_len..ip_len + len]);
    Some(ip_len + len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ip::IpHeader;
    use crate::ip::extensions::{Chain, unfragmentable, walk};
    use crate::ip::received_headers::{HeaderChain, ReceivedHeaders};

    const PAD: [u8; 6] = [1, 4, 0, 0, 0, 0];

    /// Returns an options header of `eighths` times eight bytes.
    fn options(eighths: u8) -> Vec<u8> {
        let rest = 8 * usize::from(eighths) - 4;
        [&[0xff, eighths - 1, 0x1e, rest as u8][..], &vec![eighths; rest]].concat()
    }

    fn segments(left: u8, addresses: &[Ipv6Addr], rest: &[u8]) -> Vec<u8> {
        let len = 8 + 16 * addresses.len() + rest.len();
        let mut header = vec![0xff, (len / 8 - 1) as u8, SEGMENTS, left, addresses.len() as u8 - 1, 0, 0, 0];
        addresses.iter().for_each(|address| header.extend(address.octets()));
        header.extend_from_slice(rest);
        header
    }

    fn v6(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last)
    }

    fn with_routing(routing: &[u8]) -> Result<Option<ExtensionHeaders>, Error> {
        ExtensionHeaders::new(&HeaderParts { routing: Some(routing), ..HeaderParts::default() })
    }

    fn packet(headers: &ExtensionHeaders, payload: usize) -> Vec<u8> {
        let fields = Fields { protocol: IpProtocol::Udp, hop_limit: 9, traffic_class: 0, may_fragment: true };
        let mut buf = vec![0; 40 + headers.len() + payload];
        let addresses = (v6(1).into(), v6(2).into());
        let at = write_headers(&mut buf, addresses, &fields, Some(headers), payload, false).unwrap();
        assert_eq!(at, buf.len() - payload);
        buf
    }

    #[test]
    fn headers_leave_in_their_order_and_say_what_follows() {
        let [hop_by_hop, before_routing, destination] = [1, 2, 3].map(options);
        let routing = segments(1, &[v6(7), v6(8)], &[5, 6, 0, 0, 0, 0, 0, 0]);
        let parts = HeaderParts {
            hop_by_hop: Some(&hop_by_hop),
            before_routing: Some(&before_routing),
            routing: Some(&routing),
            destination: Some(&destination),
        };
        let headers = ExtensionHeaders::new(&parts).unwrap().unwrap();
        assert_eq!(headers.first_hop(), Some(v6(8)));
        let packet = packet(&headers, 8);
        assert_eq!((packet[6], &packet[24..40]), (HOP_BY_HOP, &v6(8).octets()[..]));
        let next = [40, 48, 64, 112].map(|at| packet[at]);
        assert_eq!(next, [DESTINATION, ROUTING, DESTINATION, 17]);
        assert_eq!(packet[49..64], before_routing[1..]);
        assert_eq!(packet[65..72], routing[1..8]);
        // The final destination replaces the first entry, and nothing else changes.
        assert_eq!((&packet[72..88], &packet[88..112]), (&v6(2).octets()[..], &routing[24..]));
        assert_eq!(packet[113..136], destination[1..]);
        assert_eq!(unfragmentable(&packet), (112, 64));
        assert_eq!(ExtensionHeaders::new(&HeaderParts::default()), Ok(None));
        let alone = HeaderParts { before_routing: Some(&before_routing), ..HeaderParts::default() };
        assert_eq!(ExtensionHeaders::new(&alone), Ok(None), "they go with a routing header only");
    }

    #[test]
    fn lengths_and_routes_that_cannot_be_are_refused() {
        let long = [&[0, 1][..], &PAD].concat();
        for header in [&[][..], &[0], &PAD, &long, &[0; 9]] {
            for parts in [
                HeaderParts { hop_by_hop: Some(header), ..HeaderParts::default() },
                HeaderParts { before_routing: Some(header), ..HeaderParts::default() },
                HeaderParts { destination: Some(header), ..HeaderParts::default() },
                HeaderParts { routing: Some(header), ..HeaderParts::default() },
            ] {
                assert_eq!(ExtensionHeaders::new(&parts), Err(Error::InvalidInput), "{parts:?}");
            }
        }
        let two = [v6(7), v6(8)];
        let mut home = segments(1, &[v6(7)], &[]);
        home[2..8].copy_from_slice(&[MOBILE, 1, 0, 0, 0, 0]);
        assert!(with_routing(&home).is_ok());
        let changed = |header: &[u8], at: usize, to: u8| {
            let mut header = header.to_vec();
            header[at] = to;
            with_routing(&header).is_ok()
        };
        for kind in [0, 1, 3, 5, 255] {
            assert!(!changed(&home, 2, kind), "type {kind}");
        }
        assert!(!changed(&home, 3, 0) && !changed(&home, 3, 2));
        let route = segments(1, &two, &[]);
        assert!(changed(&route, 3, 0) && !changed(&route, 3, 2), "segments left");
        assert!(!changed(&route, 4, 2) && !changed(&route, 4, 255), "the last entry");
        assert!(
            !changed(&route, 4, 0),
            "what is left is no type-length-value, and more are left than there are"
        );
        for (rest, is_right) in [([5, 6, 0, 0, 0, 0, 0, 0], true), ([5, 7, 0, 0, 0, 0, 0, 0], false)] {
            assert_eq!(with_routing(&segments(1, &two, &rest)).is_ok(), is_right);
        }
        let group = segments(0, &["ff02::1".parse().unwrap()], &[]);
        assert_eq!(with_routing(&group), Err(Error::InvalidInput));
    }

    fn some_header() -> impl Strategy<Value = Option<Vec<u8>>> {
        prop::option::of((1..=32u8).prop_map(options))
    }

    proptest! {
        #[test]
        fn what_is_written_is_walked_and_listed(
            (hop_by_hop, before_routing, destination) in (some_header(), some_header(), some_header()),
            route in prop::option::of(1..5u16),
        ) {
            let routing = route.map(|count| {
                segments(0, &(1..=count).map(v6).collect::<Vec<_>>(), &[])
            });
            let parts = HeaderParts {
                hop_by_hop: hop_by_hop.as_deref(),
                before_routing: before_routing.as_deref(),
                routing: routing.as_deref(),
                destination: destination.as_deref(),
            };
            let Some(headers) = ExtensionHeaders::new(&parts).unwrap() else { return Ok(()) };
            let packet = packet(&headers, 8);
            let Chain::Upper { protocol, at, named_at } = walk(&packet) else { panic!() };
            prop_assert_eq!((protocol, at), (IpProtocol::Udp, 40 + headers.len()));
            prop_assert_eq!(packet[named_at], 17);
            let ip = IpHeader { protocol, header_len: at, ..IpHeader::parse(&packet, false).unwrap() };
            let listed = HeaderChain::of(&packet, &ip).listed(|| true);
            let received = ReceivedHeaders { listed };
            let sent = [
                (HOP_BY_HOP, parts.hop_by_hop),
                (DESTINATION, parts.before_routing.filter(|_| route.is_some())),
                (ROUTING, parts.routing),
                (DESTINATION, parts.destination),
            ];
            let sent: Vec<_> = sent.into_iter().filter_map(|(kind, header)| Some((kind, header?))).collect();
            let got: Vec<_> = received.iter().collect();
            prop_assert_eq!(got.len(), sent.len());
            for ((kind, header), (sent_kind, sent)) in got.into_iter().zip(sent) {
                prop_assert_eq!((kind, header.len()), (sent_kind, sent.len()));
                prop_assert!(kind == ROUTING || header[1..] == sent[1..]);
            }
        }

        #[test]
        fn any_bytes_are_survived(
            routing in prop::collection::vec(any::<u8>(), 0..80),
            other in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let parts = HeaderParts { routing: Some(&routing), ..HeaderParts::default() };
            if let Ok(Some(headers)) = ExtensionHeaders::new(&parts) {
                packet(&headers, 0);
            }
            let mut routing = routing;
            if let [_, len, kind, ..] = &mut routing[..] {
                (*len, *kind) = (0, SEGMENTS);
                let whole = routing.len() / 8 * 8;
                if whole > 0 {
                    routing[1] = (whole / 8 - 1) as u8;
                    let _ = with_routing(&routing[..whole]);
                }
            }
            let _ = ReceivedHeaders { listed: other }.iter().count();
        }
    }
}
