//! STUN binding requests (RFC 8489), which ask for the address that the root sees.
//!
//! They leave no state. A request at least as long as its answer is answered, so a client that pads it (with
//! PADDING of RFC 5780 or any attribute that may be ignored) can use every root. Shorter ones are answered
//! only if the operator allows it, because their source may be forged.
//!
//! A root can have a second port, which shows whether a NAT maps both ports alike. Answers name it, and a
//! request with CHANGE-REQUEST (RFC 5780, section 7.2) is answered from there, which shows how the NAT
//! filters. A second address, which RFC 5780 needs for the rest, is not supported.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use peersock_overlay::is_endpoint;

use crate::{Root, Source};

/// Size of a header, in bytes.
const HEADER: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const BINDING_ERROR: [u8; 2] = [0x01, 0x11];

const CHANGE_REQUEST: u16 = 0x0003;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// PADDING (RFC 5780, section 7.6). A server that does not know it must refuse the request.
const PADDING: u16 = 0x0026;
/// The second port. The number is not registered; clients that do not know it ignore it.
const SECOND_PORT: u16 = 0xd95e;
/// First of the attributes that may be ignored.
const OPTIONAL: u16 = 0x8000;

/// Value of CHANGE-REQUEST that asks for an answer from the other port of the same address.
const CHANGE_PORT: [u8; 4] = [0, 0, 0, 2];

/// Limit of unknown attributes named in an error.
const MAX_NAMED: usize = 4;

/// Parsed binding request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    transaction: [u8; 12],
    /// Required attributes that this server does not know.
    unknown: Vec<u16>,
    /// True if the answer should come from the other port; `unknown` names the attribute then, too.
    change_port: bool,
}

/// Second UDP port of a root, at the address that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecondPort {
    /// Number of the port.
    pub port: u16,
    /// Source from whose socket an answer leaves, if it should come from this port.
    pub source: Source,
}

/// Returns true if a datagram may be STUN: its first two bits are zero, and the magic cookie is there.
pub fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER && datagram[0] < 4 && datagram[4..8] == MAGIC_COOKIE
}

impl Request {
    /// Parses a request; returns `None` if the datagram is something else, or malformed.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let (header, mut rest) = datagram.split_first_chunk::<HEADER>()?;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let is_whole = len == rest.len() && len.is_multiple_of(4);
        if !is_stun(datagram) || header[..2] != BINDING_REQUEST || !is_whole {
            return None;
        }
        let (mut unknown, mut change_port) = (Vec::new(), false);
        while !rest.is_empty() {
            let (head, value) = rest.split_first_chunk::<4>()?;
            let kind = u16::from_be_bytes([head[0], head[1]]);
            // The length excludes the padding to four bytes (RFC 8489, section 14).
            let len = usize::from(u16::from_be_bytes([head[2], head[3]])).next_multiple_of(4);
            rest = value.get(len..)?;
            change_port |= kind == CHANGE_REQUEST && value[..len] == CHANGE_PORT;
            if kind < OPTIONAL && kind != PADDING && unknown.len() < MAX_NAMED {
                unknown.push(kind);
            }
        }
        Some(Self { transaction: header[8..].try_into().expect("12 of 20 bytes"), unknown, change_port })
    }

    /// Builds the answer to a request from `remote`: 32 bytes for IPv4, 44 for IPv6, up to 40 if the request
    /// has unknown attributes.
    pub fn answer(&self, remote: SocketAddr) -> Vec<u8> {
        self.answer_naming(remote, None)
    }

    /// Builds an answer as [`Self::answer`] does, with a second port if the root has one: eight bytes more.
    fn answer_naming(&self, remote: SocketAddr, second_port: Option<u16>) -> Vec<u8> {
        if self.unknown.is_empty() {
            let mapped = (XOR_MAPPED_ADDRESS, self.xor_mapped(remote));
            let second = second_port.map(|port| (SECOND_PORT, port.to_be_bytes().to_vec()));
            let attributes: Vec<_> = [mapped].into_iter().chain(second).collect();
            return self.message(BINDING_SUCCESS, &attributes);
        }
        // RFC 8489, section 14.8: class 4, number 20, without a reason phrase.
        let kinds = self.unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
        self.message(BINDING_ERROR, &[(ERROR_CODE, vec![0, 0, 4, 20]), (UNKNOWN_ATTRIBUTES, kinds)])
    }

    fn message(&self, kind: [u8; 2], attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend_from_slice(&kind.to_be_bytes());
            body.extend_from_slice(&(value.len() as u16).to_be_bytes());
            body.extend_from_slice(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let len = (body.len() as u16).to_be_bytes();
        [&kind[..], &len, &MAGIC_COOKIE, &self.transaction, &body].concat()
    }

    /// Encodes the address (RFC 8489, section 14.2), hidden from boxes that rewrite whatever looks like an
    /// address.
    fn xor_mapped(&self, remote: SocketAddr) -> Vec<u8> {
        let key = [&MAGIC_COOKIE[..], &self.transaction].concat();
        let port = remote.port() ^ u16::from_be_bytes([MAGIC_COOKIE[0], MAGIC_COOKIE[1]]);
        let (family, address) = match remote.ip().to_canonical() {
            IpAddr::V4(ip) => (1, ip.octets().to_vec()),
            IpAddr::V6(ip) => (2, ip.octets().to_vec()),
        };
        let hidden = address.iter().zip(&key).map(|(byte, key)| byte ^ key);
        [0, family].into_iter().chain(port.to_be_bytes()).chain(hidden).collect()
    }
}

impl Root {
    /// Handles a STUN request to a root with a second port, or to that port, which has none itself. Other
    /// datagrams are dropped.
    pub fn handle_stun(&mut self, now: Instant, source: Source, second: Option<SecondPort>, datagram: &[u8]) {
        // No socket has such a source, so it is forged.
        if !is_endpoint(&source.remote()) {
            return self.counters.bad_source.increment();
        }
        let Some(mut request) = Request::parse(datagram) else {
            return self.counters.stun_dropped.increment();
        };
        let mut from = source;
        if let Some(second) = second
            && request.change_port
        {
            request.unknown.retain(|kind| *kind != CHANGE_REQUEST);
            from = second.source;
        }
        let named = request.answer_naming(source.remote(), second.map(|second| second.port));
        // An answer that would be longer than the request names no port.
        let answer = if datagram.len() >= named.len() { named } else { request.answer(source.remote()) };
        // The source may be forged, so a short request needs the operator's consent and a budget.
        let is_paid = datagram.len() >= answer.len();
        let may = is_paid || self.config.short_stun && self.limits.short_stun.take(source.ip(), now);
        if !may || !self.limits.stun.take(source.ip(), now) {
            return self.counters.stun_dropped.increment();
        }
        self.counters.stun_answered.increment();
        // Without a credit, because the checks above allow some short requests.
        self.outbox.send(&self.counters, from, answer);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Builds the request of RFC 5769, section 2.1, without the last two attributes, which would change the
    /// length in the first line.
    fn request(attributes: &[u8]) -> Vec<u8> {
        let transaction = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];
        let len = (attributes.len() as u16).to_be_bytes();
        [&BINDING_REQUEST[..], &len, &MAGIC_COOKIE, &transaction, attributes].concat()
    }

    #[test]
    fn addresses_are_hidden_as_in_the_test_vectors() {
        // RFC 5769, sections 2.2 and 2.3: XOR-MAPPED-ADDRESS of the responses.
        let request = Request::parse(&request(&[])).expect("a request");
        let v4 = request.answer("192.0.2.1:32853".parse().unwrap());
        assert_eq!(v4[20..], [0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        let v6 = request.answer("[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap());
        let expected = [
            0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79,
            0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9,
        ];
        assert_eq!(v6[20..], expected);
        assert_eq!((v4.len(), v6.len()), (32, 44));
        let mapped = request.answer("[::ffff:192.0.2.1]:32853".parse().unwrap());
        assert_eq!(mapped, v4);
    }

    #[test]
    fn what_must_be_understood_and_is_not_is_named() {
        // CHANGE-REQUEST (RFC 5780) asks for an answer from elsewhere. SOFTWARE and PADDING are accepted.
        let fine = [0x80, 0x22, 0, 1, b'x', 0, 0, 0, 0, 0x26, 0, 4, 0, 0, 0, 0];
        assert_eq!(Request::parse(&request(&fine)).map(|request| request.unknown), Some(vec![]));
        let change = [0, 3, 0, 4, 0, 0, 0, 2];
        let parsed = Request::parse(&request(&change)).expect("a request");
        let answer = parsed.answer("192.0.2.1:4000".parse().unwrap());
        assert_eq!(answer[..2], BINDING_ERROR);
        assert_eq!(answer[20..], [0, 9, 0, 4, 0, 0, 4, 20, 0, 10, 0, 2, 0, 3, 0, 0]);
    }

    #[test]
    fn what_is_no_binding_request_is_not_read() {
        let good = request(&[]);
        assert!(Request::parse(&good).is_some());
        let mut other = good.clone();
        other[0] = 1;
        assert_eq!(Request::parse(&other), None, "a response");
        let mut long = good.clone();
        long.extend([0; 4]);
        assert_eq!(Request::parse(&long), None, "the length does not fit");
        assert_eq!(Request::parse(&good[..19]), None);
        assert_eq!(Request::parse(&request(&[0, 3, 0, 9, 0, 0, 0, 0])), None, "an attribute is cut off");
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe_and_answers_are_short(mut bytes in prop::collection::vec(any::<u8>(), 0..200), fix in any::<bool>()) {
            if fix && bytes.len() >= HEADER {
                bytes.truncate(bytes.len() & !3);
                let len = (bytes.len() - HEADER) as u16;
                bytes[..2].copy_from_slice(&BINDING_REQUEST);
                bytes[2..4].copy_from_slice(&len.to_be_bytes());
                bytes[4..8].copy_from_slice(&MAGIC_COOKIE);
            }
            if let Some(request) = Request::parse(&bytes) {
                let answer = request.answer("[2001:db8::1]:9".parse().unwrap());
                prop_assert!(answer.len() <= 44 && is_stun(&answer) && Request::parse(&answer).is_none());
            }
        }
    }
}
