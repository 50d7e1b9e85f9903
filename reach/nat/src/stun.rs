//! STUN binding requests and their answers (RFC 8489), with the extensions of RFC 5780 for NAT behavior.

use std::net::{IpAddr, SocketAddr};

/// Bytes of a header: type, length, magic cookie, transaction (RFC 8489, 5).
const HEADER: usize = 20;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Types of messages.
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;

/// The mapped address as servers of RFC 3489 send it (RFC 8489, 14.1).
const MAPPED_ADDRESS: u16 = 0x0001;
/// Requests an answer from another address or port of the server (RFC 5780, 7.2).
const CHANGE_REQUEST: u16 = 0x0003;
/// The mapped address, xored (RFC 8489, 14.2).
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// The sender's name, used as padding here (RFC 8489, 14.14).
const SOFTWARE: u16 = 0x8022;
/// The address from which the server answers (RFC 5780, 7.3).
const RESPONSE_ORIGIN: u16 = 0x802b;
/// The server's other address and port (RFC 5780, 7.4).
const OTHER_ADDRESS: u16 = 0x802c;

/// The server's second port at the same address. It is not registered; other programs ignore it, because its
/// number is in the range of those that may be ignored (RFC 8489, 18.3.2).
const SECOND_PORT: u16 = 0xd95e;

/// Bits of CHANGE-REQUEST.
const CHANGE_IP: u8 = 4;
const CHANGE_PORT: u8 = 2;

/// Length of this crate's binding requests in bytes. The longest usual answer has a header (20),
/// XOR-MAPPED-ADDRESS, MAPPED-ADDRESS, RESPONSE-ORIGIN and OTHER-ADDRESS of IPv6 (4 times 24), and a short
/// SOFTWARE. So servers that never send more than they receive, such as roots, can answer.
pub const REQUEST_LEN: usize = 144;

/// The random number that connects an answer with its request: 96 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(u128);

impl TransactionId {
    /// Takes the low 96 bits. They must be unpredictable, because they authenticate the answer.
    pub fn new(random: u128) -> Self {
        Self(random & ((1 << 96) - 1))
    }

    /// Returns the magic cookie and the number: the header contains them, and addresses are xored with them.
    fn key(self) -> [u8; 16] {
        let mut key = self.0.to_be_bytes();
        key[..4].copy_from_slice(&MAGIC_COOKIE);
        key
    }
}

/// The endpoint from which the server should answer (RFC 5780, CHANGE-REQUEST).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnswerFrom {
    /// The endpoint that was asked.
    Same,
    /// The server's other port.
    OtherPort,
    /// The server's other address and other port.
    OtherAddressAndPort,
}

/// Makes a binding request of [`REQUEST_LEN`] bytes.
///
/// ```
/// use peersock_nat::stun::{AnswerFrom, REQUEST_LEN, TransactionId, binding_request, request_id};
///
/// let id = TransactionId::new(7);
/// let request = binding_request(id, AnswerFrom::Same);
/// assert_eq!((request.len(), request_id(&request)), (REQUEST_LEN, Some(id)));
/// ```
pub fn binding_request(id: TransactionId, from: AnswerFrom) -> Vec<u8> {
    let flags = match from {
        AnswerFrom::Same => 0,
        AnswerFrom::OtherPort => CHANGE_PORT,
        AnswerFrom::OtherAddressAndPort => CHANGE_IP | CHANGE_PORT,
    };
    let mut attributes = Vec::new();
    if flags != 0 {
        add(&mut attributes, CHANGE_REQUEST, &[0, 0, 0, flags]);
    }
    let filler = REQUEST_LEN - HEADER - attributes.len() - 4;
    // RFC 5780's PADDING is unsuitable: a server that knows it makes its answer longer, and another one
    // refuses the request. Any server may ignore SOFTWARE, which can have up to 128 characters.
    add(&mut attributes, SOFTWARE, &[b' '; REQUEST_LEN][..filler]);
    message(BINDING_REQUEST, id, &attributes)
}

/// Returns the transaction of a binding request, if the datagram is one. A node receives its own requests if
/// its NAT sends them back (hairpin).
pub fn request_id(datagram: &[u8]) -> Option<TransactionId> {
    Message::parse(datagram).filter(|message| message.kind == BINDING_REQUEST).map(|message| message.id)
}

/// The content of a server's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The transaction of the request.
    pub id: TransactionId,
    /// The endpoint from which the server saw the request come.
    pub mapped: SocketAddr,
    /// The address from which the server claims to have sent the answer (RFC 5780), if any.
    pub origin: Option<SocketAddr>,
    /// The server's other address with its other port. Only servers with RFC 5780 send this.
    pub other: Option<SocketAddr>,
    /// A second port at which the server answers, at the address that was asked. Only roots send this,
    /// because RFC 5780 needs a second address, too.
    pub second_port: Option<u16>,
}

impl Answer {
    /// Parses a datagram; `None` if it is no successful answer to a binding request.
    ///
    /// IPv4-mapped IPv6 addresses become plain IPv4 addresses, because dual-stack sockets report them mapped.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let message = Message::parse(datagram).filter(|message| message.kind == BINDING_SUCCESS)?;
        let plain = |kind| message.attribute(kind).and_then(|value| address(value, [0; 16]));
        let xored = message.attribute(XOR_MAPPED_ADDRESS);
        let xored = xored.and_then(|value| address(value, message.id.key()));
        Some(Self {
            id: message.id,
            mapped: xored.or_else(|| plain(MAPPED_ADDRESS))?,
            origin: plain(RESPONSE_ORIGIN),
            other: plain(OTHER_ADDRESS),
            second_port: message.attribute(SECOND_PORT).and_then(port),
        })
    }

    /// Encodes the answer as a server sends it.
    pub fn emit(&self) -> Vec<u8> {
        let mut attributes = Vec::new();
        add(&mut attributes, XOR_MAPPED_ADDRESS, &address_value(self.mapped, self.id.key()));
        for (kind, address) in [(RESPONSE_ORIGIN, self.origin), (OTHER_ADDRESS, self.other)] {
            if let Some(address) = address {
                add(&mut attributes, kind, &address_value(address, [0; 16]));
            }
        }
        if let Some(port) = self.second_port {
            add(&mut attributes, SECOND_PORT, &port.to_be_bytes());
        }
        message(BINDING_SUCCESS, self.id, &attributes)
    }
}

/// A message whose structure has been checked.
struct Message<'a> {
    kind: u16,
    id: TransactionId,
    /// The attributes, all complete.
    attributes: &'a [u8],
}

impl<'a> Message<'a> {
    /// Parses a message that fills the datagram. Ignores a FINGERPRINT, which distinguishes STUN from other
    /// protocols on a port (RFC 8489, 7), because the transaction does so here.
    fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (header, attributes) = datagram.split_first_chunk::<HEADER>()?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let is_whole = usize::from(word(2)) == attributes.len();
        if !is_whole || header[4..8] != MAGIC_COOKIE {
            return None;
        }
        let mut id = [0; 16];
        id[4..].copy_from_slice(&header[8..]);
        let mut rest = attributes;
        while !rest.is_empty() {
            (_, _, rest) = split_attribute(rest)?;
        }
        Some(Self { kind: word(0), id: TransactionId(u128::from_be_bytes(id)), attributes })
    }

    /// Returns the first attribute of a kind; further ones do not count (RFC 8489, 14).
    fn attribute(&self, kind: u16) -> Option<&'a [u8]> {
        let mut rest = self.attributes;
        loop {
            let (found, value, after) = split_attribute(rest)?;
            if found == kind {
                return Some(value);
            }
            rest = after;
        }
    }
}

/// Returns the kind and value of the first attribute, and the bytes after it; `None` if it is cut off.
fn split_attribute(attributes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (head, rest) = attributes.split_first_chunk::<4>()?;
    let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let after = rest.get(len.next_multiple_of(4)..)?;
    Some((u16::from_be_bytes([head[0], head[1]]), &rest[..len], after))
}

fn message(kind: u16, id: TransactionId, attributes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(attributes.len()).expect("they are a few addresses, or our filler");
    [&kind.to_be_bytes(), &len.to_be_bytes(), &id.key()[..], attributes].concat()
}

fn add(attributes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(value.len()).expect("it is an address, or our filler");
    attributes.extend([kind.to_be_bytes(), len.to_be_bytes()].concat());
    attributes.extend(value);
    attributes.resize(attributes.len().next_multiple_of(4), 0);
}

/// Parses the address in an attribute that was xored with this key; `[0; 16]` for plain ones (RFC 8489, 14.1
/// and 14.2).
fn address(value: &[u8], key: [u8; 16]) -> Option<SocketAddr> {
    let (head, ip) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([head[2] ^ key[0], head[3] ^ key[1]]);
    let plain: Vec<u8> = ip.iter().zip(key).map(|(byte, key)| byte ^ key).collect();
    let ip: IpAddr = match (head[1], ip.len()) {
        (1, 4) => <[u8; 4]>::try_from(plain).ok()?.into(),
        (2, 16) => <[u8; 16]>::try_from(plain).ok()?.into(),
        _ => return None,
    };
    Some(canonical(SocketAddr::new(ip, port)))
}

/// Parses a port that is not 0.
fn port(value: &[u8]) -> Option<u16> {
    value.try_into().ok().map(u16::from_be_bytes).filter(|port| *port != 0)
}

/// Encodes an address as in an attribute; see [`address`].
fn address_value(address: SocketAddr, key: [u8; 16]) -> Vec<u8> {
    let (family, ip) = match address.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let port = address.port().to_be_bytes();
    let hidden = port.iter().zip(key).chain(ip.iter().zip(key)).map(|(byte, key)| byte ^ key);
    [0, family].into_iter().chain(hidden).collect()
}

/// Returns the plain form of the address: no IPv4 inside IPv6, no scope and no flow, so that equal addresses
/// compare equal.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    /// The sample IPv4 response of RFC 5769 (2.2), with a real server's bytes.
    const RESPONSE: &[u8] =
        b"\x01\x01\x00\x3c\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x0b\x74\x65\x73\x74\x20\x76\x65\x63\x74\x6f\x72\x20\
        \x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43\
        \x00\x08\x00\x14\x2b\x91\xf5\x99\xfd\x9e\x90\xc3\x8c\x74\x89\xf9\x2a\xf9\xba\x53\xf0\x6b\xe7\xd7\
        \x80\x28\x00\x04\xc0\x7d\x4c\x96";

    #[test]
    fn the_sample_response_of_rfc_5769_is_read() {
        let answer = Answer::parse(RESPONSE).expect("it is an answer");
        assert_eq!(answer.mapped, "192.0.2.1:32853".parse().expect("an address"));
        assert_eq!(answer.id, TransactionId::new(0xb7e7_a701_bc34_d686_fa87_dfae));
    }

    #[test]
    fn a_request_is_as_long_as_every_usual_answer() {
        let address = "[2001:db8::1]:3478".parse().expect("an address");
        let id = TransactionId::new(5);
        let longest =
            Answer { id, mapped: address, origin: Some(address), other: Some(address), second_port: None };
        for from in [AnswerFrom::Same, AnswerFrom::OtherPort, AnswerFrom::OtherAddressAndPort] {
            let request = binding_request(id, from);
            assert_eq!(request.len(), REQUEST_LEN);
            // Old servers repeat the mapped address, which takes another 24 bytes.
            assert!(longest.emit().len() + 24 <= REQUEST_LEN);
        }
    }

    #[test]
    fn a_mapped_ipv4_address_becomes_a_plain_one() {
        let mapped = "[::ffff:192.0.2.7]:99".parse().expect("an address");
        let answer =
            Answer { id: TransactionId::new(1), mapped, origin: None, other: None, second_port: None };
        let read = Answer::parse(&answer.emit()).expect("it is an answer");
        assert_eq!(read.mapped, "192.0.2.7:99".parse().expect("an address"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..160usize,
        ) {
            let _ = (Answer::parse(&bytes), request_id(&bytes));
            let mut damaged = RESPONSE.to_vec();
            damaged.splice(at.min(damaged.len()).., bytes);
            let _ = Answer::parse(&damaged);
        }

        #[test]
        fn what_is_emitted_is_read(id: u128, ip: [u8; 16], port: u16, v4: bool, other: bool) {
            let ip: IpAddr = if v4 { [ip[0], ip[1], ip[2], ip[3]].into() } else { ip.into() };
            let mapped = canonical(SocketAddr::new(ip, port));
            let other = other.then_some(mapped);
            let second_port = other.map(|other| other.port()).filter(|port| *port != 0);
            let answer = Answer { id: TransactionId::new(id), mapped, origin: other, other, second_port };
            prop_assert_eq!(Answer::parse(&answer.emit()), Some(answer));
        }
    }
}
