//! STUN binding requests and their answers (RFC 8489), with what RFC 5780 adds to find out how a NAT behaves.

use std::net::SocketAddr;

use stun_types::attribute::{AttributeType, MappedSocketAddr, RawAttribute, XorMappedAddress};
use stun_types::message::{
    BINDING, Message, MessageClass, MessageType, MessageWrite as _, MessageWriteExt as _, MessageWriteVec,
    TransactionId as WireId,
};

use crate::quiet;

/// RFC 5780 (7.2): asks that the answer comes from another address or port of the server.
const CHANGE_REQUEST: AttributeType = AttributeType::new(0x0003);
/// RFC 8489 (14.1): the mapped address as servers of RFC 3489 send it.
const MAPPED_ADDRESS: AttributeType = AttributeType::new(0x0001);
/// RFC 8489 (14.14): the sender's name. We use it as filler.
const SOFTWARE: AttributeType = AttributeType::new(0x8022);
/// RFC 5780 (7.3).
const RESPONSE_ORIGIN: AttributeType = AttributeType::new(0x802b);
/// RFC 5780 (7.4): the server's other address and port.
const OTHER_ADDRESS: AttributeType = AttributeType::new(0x802c);

/// Bits of CHANGE-REQUEST.
const CHANGE_IP: u8 = 4;
const CHANGE_PORT: u8 = 2;

/// Length of our binding requests in bytes. The longest usual answer has a header (20), XOR-MAPPED-ADDRESS,
/// MAPPED-ADDRESS, RESPONSE-ORIGIN and OTHER-ADDRESS of IPv6 (4 times 24), and a short SOFTWARE.
/// So servers that never send more than they got, as roots, can answer.
pub const REQUEST_LEN: usize = 144;

/// The random number that connects an answer with its request: 96 bits.
///
/// ```
/// use peersock_nat::stun::TransactionId;
///
/// assert_eq!(TransactionId::new(u128::MAX), TransactionId::new(u128::MAX >> 32));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionId(u128);

impl TransactionId {
    /// Takes the low 96 bits. They must be unpredictable, because they are what shows that an answer is one.
    pub fn new(random: u128) -> Self {
        Self(random & ((1 << 96) - 1))
    }
}

/// From where the server is asked to answer (RFC 5780, CHANGE-REQUEST).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnswerFrom {
    /// From where it was asked.
    Same,
    /// From its other port.
    OtherPort,
    /// From its other address and its other port.
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
    // `builder_request` would take an ID from the operating system; ours come from the caller.
    let kind = MessageType::from_class_method(MessageClass::Request, BINDING);
    let mut message = Message::builder(kind, WireId::from(id.0), MessageWriteVec::new());
    let flags = match from {
        AnswerFrom::Same => 0,
        AnswerFrom::OtherPort => CHANGE_PORT,
        AnswerFrom::OtherAddressAndPort => CHANGE_IP | CHANGE_PORT,
    };
    if flags != 0 {
        add(&mut message, CHANGE_REQUEST, &[0, 0, 0, flags]);
    }
    let filler = REQUEST_LEN - message.len() - 4;
    // RFC 5780's PADDING does not serve: a server that knows it makes its answer longer, one that does not
    // know it refuses the request. Any server may ignore SOFTWARE, which can have up to 128 characters.
    add(&mut message, SOFTWARE, &[b' '; REQUEST_LEN][..filler]);
    message.finish()
}

/// The transaction of a binding request, if the datagram is one. A node hears its own requests if its NAT
/// sends them back (hairpin).
pub fn request_id(datagram: &[u8]) -> Option<TransactionId> {
    let message = quiet::message(datagram)?;
    let is_request = message.has_class(MessageClass::Request) && message.has_method(BINDING);
    is_request.then(|| TransactionId(message.transaction_id().into()))
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The request that it answers.
    pub id: TransactionId,
    /// From where the server saw the request come.
    pub mapped: SocketAddr,
    /// The address from which the server says it sent the answer (RFC 5780), if it says so.
    pub origin: Option<SocketAddr>,
    /// The server's other address with its other port. Only servers that know RFC 5780 say this.
    pub other: Option<SocketAddr>,
}

impl Answer {
    /// Reads a datagram; `None` if it is no successful answer to a binding request.
    ///
    /// IPv4 addresses inside IPv6 ones become plain ones, as sockets for both families see them mapped.
    ///
    /// ```
    /// use peersock_nat::stun::{Answer, TransactionId};
    ///
    /// let id = TransactionId::new(1);
    /// let answer = Answer { id, mapped: "192.0.2.1:7000".parse()?, origin: None, other: None };
    /// assert_eq!(Answer::parse(&answer.emit()), Some(answer));
    /// assert_eq!(Answer::parse(b"hello"), None);
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let message = quiet::message(datagram)?;
        if !message.has_class(MessageClass::Success) || !message.has_method(BINDING) {
            return None;
        }
        let id = message.transaction_id();
        let address = |kind| {
            let raw = message.raw_attribute(kind)?;
            MappedSocketAddr::from_raw(&raw).ok().map(|mapped| canonical(mapped.addr()))
        };
        let xored = message.attribute::<XorMappedAddress>().ok().map(|mapped| canonical(mapped.addr(id)));
        Some(Self {
            id: TransactionId(id.into()),
            mapped: xored.or_else(|| address(MAPPED_ADDRESS))?,
            origin: address(RESPONSE_ORIGIN),
            other: address(OTHER_ADDRESS),
        })
    }

    /// Writes the answer as a server sends it.
    pub fn emit(&self) -> Vec<u8> {
        let kind = MessageType::from_class_method(MessageClass::Success, BINDING);
        let id = WireId::from(self.id.0);
        let mut message = Message::builder(kind, id, MessageWriteVec::new());
        message.add_attribute(&XorMappedAddress::new(self.mapped, id)).expect("it is the first of its kind");
        for (kind, address) in [(RESPONSE_ORIGIN, self.origin), (OTHER_ADDRESS, self.other)] {
            if let Some(address) = address {
                let mapped = MappedSocketAddr::new(address);
                message.add_attribute(&mapped.to_raw(kind)).expect("it is the first of its kind");
            }
        }
        message.finish()
    }
}

fn add(message: &mut MessageWriteVec, kind: AttributeType, value: &[u8]) {
    message.add_attribute(&RawAttribute::new(kind, value)).expect("it is the first of its kind");
}

/// The address as a plain one: no IPv4 inside IPv6, no scope and no flow, so that equal ones compare equal.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    /// RFC 5769 (2.2), its sample IPv4 response: a server's own bytes.
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
        let longest = Answer { id, mapped: address, origin: Some(address), other: Some(address) };
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
        let answer = Answer { id: TransactionId::new(1), mapped, origin: None, other: None };
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
            let answer = Answer { id: TransactionId::new(id), mapped, origin: other, other };
            prop_assert_eq!(Answer::parse(&answer.emit()), Some(answer));
        }
    }
}
