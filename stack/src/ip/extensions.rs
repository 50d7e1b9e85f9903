//! IPv6 extension headers (RFC 8200 section 4).

use smoltcp::wire::IpProtocol;

/// Maximum number of extension headers in a packet. RFC 8200 has a place for six.
const MAX_HEADERS: usize = 8;
/// Maximum number of options in a packet, including padding (RFC 8504 5.3 permits a limit).
const MAX_OPTIONS: usize = 64;

/// Length of the IPv6 header, bytes.
const FIXED: usize = 40;
/// Length of the fragment header, bytes.
pub(crate) const FRAGMENT_HEADER: usize = 8;

/// Codes of a parameter problem (RFC 4443 3.4).
const ERRONEOUS_FIELD: u8 = 0;
const UNKNOWN_NEXT_HEADER: u8 = 1;
const UNKNOWN_OPTION: u8 = 2;
/// Code of an incomplete header chain (RFC 7112 section 5).
const INCOMPLETE_CHAIN: u8 = 3;

/// Result of following a packet's extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chain {
    /// The upper layer's header starts at `at`; the byte at `named_at` names its protocol.
    Upper { protocol: IpProtocol, at: usize, named_at: usize },
    /// A fragment of a larger packet.
    Fragment(Fragment),
    /// The packet must be dropped.
    Refused(Refusal),
}

/// Content of a fragment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// Position of the fragment header, which is the length of the headers that every fragment has.
    pub(crate) at: usize,
    /// Position of the byte that names the fragment header.
    pub(crate) named_at: usize,
    /// Type of the header after the fragment header.
    pub(crate) next: u8,
    /// Offset of this fragment in the packet's fragmentable part, bytes.
    pub(crate) offset: usize,
    pub(crate) more: bool,
    pub(crate) ident: u32,
}

/// Reason to drop a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A length does not fit.
    Malformed,
    /// The packet has unknown headers, or too many, and must be dropped without a report.
    Silent,
    /// No upper layer follows the headers (RFC 8200 4.7).
    Empty,
    /// A parameter problem must be reported; with `to_groups` even for multicast.
    Report { code: u8, pointer: usize, to_groups: bool },
}

impl Refusal {
    pub(crate) fn report(code: u8, pointer: usize) -> Self {
        Self::Report { code, pointer, to_groups: false }
    }

    /// Returns a report of an invalid field at `pointer`.
    pub(crate) fn field(pointer: usize) -> Self {
        Self::report(ERRONEOUS_FIELD, pointer)
    }
}

/// Returns true if `protocol` is not an upper layer's.
pub(crate) fn is_extension(protocol: IpProtocol) -> bool {
    use IpProtocol::{HopByHop, Ipv6Frag, Ipv6NoNxt, Ipv6Opts, Ipv6Route};
    matches!(protocol, HopByHop | Ipv6Frag | Ipv6NoNxt | Ipv6Opts | Ipv6Route)
}

/// Follows the headers of a whole IPv6 packet to the upper layer or to the first fragment header.
pub(crate) fn walk(packet: &[u8]) -> Chain {
    Walk { packet, options: 0 }.run().unwrap_or_else(Chain::Refused)
}

struct Walk<'a> {
    packet: &'a [u8],
    options: usize,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<Chain, Refusal> {
        let (mut at, mut named_at) = (FIXED, 6);
        for _ in 0..=MAX_HEADERS {
            let protocol = IpProtocol::from(self.packet[named_at]);
            let len = match protocol {
                // RFC 8200 4.1: only directly behind the IPv6 header.
                IpProtocol::HopByHop if at > FIXED => {
                    return Err(Refusal::report(UNKNOWN_NEXT_HEADER, named_at));
                }
                IpProtocol::HopByHop | IpProtocol::Ipv6Opts => self.options(at)?,
                IpProtocol::Ipv6Route => self.routing(at)?,
                IpProtocol::Ipv6Frag => {
                    let fragment = self.fragment(at, named_at)?;
                    // RFC 6946: an atomic fragment is a whole packet.
                    if fragment.offset > 0 || fragment.more {
                        return Ok(Chain::Fragment(fragment));
                    }
                    FRAGMENT_HEADER
                }
                IpProtocol::Ipv6NoNxt => return Err(Refusal::Empty),
                // Any other number, known or not, is an upper layer, which raw sockets may have.
                _ => return Ok(Chain::Upper { protocol, at, named_at }),
            };
            (at, named_at) = (at + len, at);
        }
        Err(Refusal::Silent)
    }

    /// Returns the extension header at `at`, whose length is in its second byte.
    fn header(&self, at: usize) -> Result<&[u8], Refusal> {
        extension(self.packet, at).ok_or(Refusal::Malformed)
    }

    /// Checks hop-by-hop and destination options (RFC 8200 4.2). Padding is the only option that a host must
    /// know.
    fn options(&mut self, start: usize) -> Result<usize, Refusal> {
        let end = start + self.header(start)?.len();
        let mut at = start + 2;
        while at < end {
            self.options += 1;
            // RFC 8504 5.3: many options in one packet are an attack on the receiver's time.
            if self.options > MAX_OPTIONS {
                return Err(Refusal::Silent);
            }
            let kind = self.packet[at];
            // Pad1 is a single byte without a length (RFC 8200 4.2).
            if kind == 0 {
                at += 1;
                continue;
            }
            let len = self.packet[..end].get(at + 1).ok_or(Refusal::Malformed)?;
            let next = at + 2 + usize::from(*len);
            if next > end {
                return Err(Refusal::field(at + 1));
            }
            // RFC 8200 4.2: the two highest bits of an unknown option say whether to skip, drop or report it.
            match (kind, kind >> 6) {
                (1, _) | (_, 0) => {}
                (_, 1) => return Err(Refusal::Silent),
                (_, action) => {
                    let to_groups = action == 2;
                    return Err(Refusal::Report { code: UNKNOWN_OPTION, pointer: at, to_groups });
                }
            }
            at = next;
        }
        Ok(end - start)
    }

    /// Checks a routing header (RFC 8200 4.4, RFC 5095).
    fn routing(&self, at: usize) -> Result<usize, Refusal> {
        let header = self.header(at)?;
        // All types are unknown, so only one without segments left may be skipped.
        let segments_left = header[3];
        if segments_left == 0 { Ok(header.len()) } else { Err(Refusal::field(at + 2)) }
    }

    fn fragment(&self, at: usize, named_at: usize) -> Result<Fragment, Refusal> {
        let fragment = Fragment::parse(self.packet, at, named_at).ok_or(Refusal::Malformed)?;
        let len = self.packet.len() - at - FRAGMENT_HEADER;
        // RFC 8200 4.5: all but the last fragment are multiples of eight bytes, and the whole must fit a
        // packet.
        if fragment.more && !len.is_multiple_of(8) {
            return Err(Refusal::field(4));
        }
        if at - FIXED + fragment.offset + len > usize::from(u16::MAX) {
            return Err(Refusal::field(at + 2));
        }
        // RFC 7112 section 5: the first fragment must contain all headers, including the upper layer's.
        let first = fragment.offset == 0 && fragment.more;
        if first && !self.is_complete(at) {
            return Err(Refusal::report(INCOMPLETE_CHAIN, 0));
        }
        Ok(fragment)
    }

    /// Returns true if the headers after the fragment header at `at` and the upper layer's header are
    /// complete.
    fn is_complete(&self, at: usize) -> bool {
        let Some(upper) = skip(self.packet, at + FRAGMENT_HEADER, self.packet[at].into()) else {
            return false;
        };
        let least = match upper.protocol {
            IpProtocol::Tcp => 20,
            IpProtocol::Udp => 8,
            IpProtocol::Icmpv6 => 4,
            _ => 0,
        };
        // RFC 7112 section 5: filters must see ports and types in the first fragment.
        upper.at + least <= self.packet.len()
    }
}

impl Fragment {
    /// Reads the fragment header at `at`.
    fn parse(packet: &[u8], at: usize, named_at: usize) -> Option<Self> {
        let header: &[u8; FRAGMENT_HEADER] = packet.get(at..)?.first_chunk()?;
        let field = u16::from_be_bytes([header[2], header[3]]);
        Some(Self {
            at,
            named_at,
            next: header[0],
            offset: usize::from(field & !7),
            more: field & 1 == 1,
            ident: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        })
    }
}

/// Returns the extension header at `at` by the length in its second byte, which all but the fragment header
/// have.
pub(crate) fn extension(packet: &[u8], at: usize) -> Option<&[u8]> {
    // RFC 8200 4.3: the length counts units of eight bytes and not the first one.
    let len = 8 * (1 + usize::from(*packet.get(at + 1)?));
    packet.get(at..at + len)
}

/// Returns the end of the unfragmentable part of an IPv6 packet (RFC 8200 4.5), and the position of the byte
/// that names the next header. The part ends behind the routing header, or the hop-by-hop options.
pub(crate) fn unfragmentable(packet: &[u8]) -> (usize, usize) {
    let (mut at, mut named_at) = (FIXED, 6);
    let mut end = (at, named_at);
    for _ in 0..MAX_HEADERS {
        let protocol = IpProtocol::from(packet[named_at]);
        if !matches!(protocol, IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts) {
            break;
        }
        let Some(header) = extension(packet, at) else { break };
        (at, named_at) = (at + header.len(), at);
        // RFC 8200 4.5: destination options are in every fragment only if a routing header follows.
        if protocol != IpProtocol::Ipv6Opts {
            end = (at, named_at);
        }
    }
    end
}

/// Upper layer of a packet, as far as it is visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Upper {
    pub(crate) protocol: IpProtocol,
    pub(crate) at: usize,
    /// Offset of the bytes at `at` in the upper layer's packet.
    pub(crate) offset: usize,
}

/// Finds the upper layer of an IPv4 or IPv6 packet that may be truncated, without checking the headers before
/// it.
pub(crate) fn upper(packet: &[u8]) -> Option<Upper> {
    match packet.first()? >> 4 {
        4 => {
            let header: &[u8; 20] = packet.first_chunk()?;
            let at = usize::from(header[0] & 15) * 4;
            let offset = usize::from(u16::from_be_bytes([header[6], header[7]]) & 0x1fff) * 8;
            (at >= 20).then_some(Upper { protocol: header[9].into(), at, offset })
        }
        6 => skip(packet, FIXED, (*packet.get(6)?).into()),
        _ => None,
    }
}

/// Returns the position of an IPv6 packet's fragment header. The packet may be truncated. `None` if it has
/// none.
pub(crate) fn fragment_header(packet: &[u8]) -> Option<usize> {
    let (mut at, mut protocol) = (FIXED, IpProtocol::from(*packet.get(6)?));
    for _ in 0..=MAX_HEADERS {
        match protocol {
            IpProtocol::Ipv6Frag => return Some(at),
            IpProtocol::HopByHop | IpProtocol::Ipv6Opts | IpProtocol::Ipv6Route => {}
            _ => return None,
        }
        let header = extension(packet, at)?;
        (protocol, at) = (header[0].into(), at + header.len());
    }
    None
}

/// Skips the extension headers from `at` on, the first of type `protocol`. Returns `None` if they do not end.
fn skip(packet: &[u8], mut at: usize, mut protocol: IpProtocol) -> Option<Upper> {
    for _ in 0..=MAX_HEADERS {
        let len = match protocol {
            IpProtocol::Ipv6Frag => {
                let fragment = Fragment::parse(packet, at, 0)?;
                if fragment.offset > 0 {
                    let (at, offset) = (at + FRAGMENT_HEADER, fragment.offset);
                    return Some(Upper { protocol: fragment.next.into(), at, offset });
                }
                FRAGMENT_HEADER
            }
            IpProtocol::HopByHop | IpProtocol::Ipv6Opts | IpProtocol::Ipv6Route => {
                extension(packet, at)?.len()
            }
            _ => return Some(Upper { protocol, at, offset: 0 }),
        };
        protocol = (*packet.get(at)?).into();
        at += len;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an IPv6 packet whose first extension header is a `next`.
    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 64];
        packet.resize(FIXED, 0);
        packet.extend(payload);
        packet
    }

    fn walked(next: u8, payload: &[u8]) -> Chain {
        walk(&packet(next, payload))
    }

    fn refused(next: u8, payload: &[u8]) -> Refusal {
        match walked(next, payload) {
            Chain::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    const UDP: [u8; 8] = [0, 1, 0, 2, 0, 8, 0, 0];
    /// PadN option that fills a header.
    const PAD: [u8; 6] = [1, 4, 0, 0, 0, 0];

    #[test]
    fn headers_that_say_nothing_are_passed_over() {
        let hop_by_hop = [[60, 0].as_slice(), &PAD].concat();
        let options = [[43, 0].as_slice(), &PAD].concat();
        let routing = [44, 0, 0, 0, 0, 0, 0, 0];
        let atomic = [17, 0, 0, 0, 1, 2, 3, 4];
        let chain = [&hop_by_hop, &options, &routing[..], &atomic, &UDP].concat();
        let upper = Chain::Upper { protocol: IpProtocol::Udp, at: 40 + 32, named_at: 40 + 24 };
        assert_eq!(walked(0, &chain), upper);
        assert_eq!(
            super::upper(&packet(0, &chain)),
            Some(Upper { protocol: IpProtocol::Udp, at: 72, offset: 0 })
        );
    }

    #[test]
    fn hop_by_hop_options_come_first_or_not_at_all() {
        let options = [[0, 0].as_slice(), &PAD, &[17, 0], &PAD, &UDP].concat();
        assert_eq!(refused(60, &options), Refusal::report(1, 40));
    }

    #[test]
    fn a_route_that_is_left_is_a_problem_and_one_that_is_done_is_none() {
        let route = |left| [[17, 2, 0, left].as_slice(), &[0; 20], &UDP].concat();
        assert_eq!(refused(43, &route(1)), Refusal::report(0, 42));
        assert!(matches!(walked(43, &route(0)), Chain::Upper { at: 64, .. }));
    }

    #[test]
    fn the_type_of_an_unknown_option_says_what_becomes_of_the_packet() {
        let with = |kind: u8| [[17, 0, kind, 4].as_slice(), &[0; 4], &UDP].concat();
        assert!(matches!(walked(60, &with(0x1e)), Chain::Upper { .. }));
        assert_eq!(refused(60, &with(0x5e)), Refusal::Silent);
        let report = |to_groups| Refusal::Report { code: 2, pointer: 42, to_groups };
        assert_eq!(refused(60, &with(0x9e)), report(true));
        assert_eq!(refused(60, &with(0xde)), report(false));
    }

    #[test]
    fn chains_and_options_are_bounded() {
        let header = [[60, 0].as_slice(), &PAD].concat();
        let chain =
            |count: usize| [header.repeat(count - 1), [[17, 0].as_slice(), &PAD].concat(), UDP.to_vec()];
        assert!(matches!(walked(60, &chain(8).concat()), Chain::Upper { .. }));
        assert_eq!(refused(60, &chain(9).concat()), Refusal::Silent);
        let padded =
            |words: u8| [[17, words].as_slice(), &vec![0; 6 + 8 * usize::from(words)], &UDP].concat();
        assert!(matches!(walked(60, &padded(7)), Chain::Upper { .. }));
        assert_eq!(refused(60, &padded(8)), Refusal::Silent);
    }

    #[test]
    fn fragments_are_checked() {
        let fragment = |field: u16, data: &[u8]| {
            let [high, low] = field.to_be_bytes();
            [[17, 0, high, low, 0, 0, 0, 9].as_slice(), data].concat()
        };
        let Chain::Fragment(first) = walked(44, &fragment(1, &UDP)) else { panic!() };
        assert_eq!((first.offset, first.more, first.ident, first.next), (0, true, 9, 17));
        let Chain::Fragment(last) = walked(44, &fragment(16, b"x")) else { panic!() };
        assert_eq!((last.offset, last.more), (16, false));
        assert_eq!(refused(44, &fragment(1, &[0; 9])), Refusal::report(0, 4), "no multiple of eight");
        assert_eq!(refused(44, &fragment(0xfff8, &[0; 8])), Refusal::report(0, 42), "beyond 65,535");
        assert_eq!(refused(44, &fragment(1, &[])), Refusal::report(3, 0), "no UDP header");
    }

    #[test]
    fn any_cut_is_refused_or_short() {
        let hop_by_hop = [[60, 0].as_slice(), &PAD].concat();
        let options = [[44, 0].as_slice(), &PAD].concat();
        let fragment = [17, 0, 0, 1, 1, 2, 3, 4];
        let whole = [&hop_by_hop, &options, &fragment[..], &UDP].concat();
        for len in 0..whole.len() {
            assert!(matches!(walked(0, &whole[..len]), Chain::Refused(_)), "{len}");
        }
        assert!(matches!(walked(59, &[]), Chain::Refused(Refusal::Empty)));
    }
}
