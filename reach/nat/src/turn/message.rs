//! TURN's methods, attributes and ChannelData frames (RFC 8656, 12.4, 17, 18). This module encodes and parses
//! attributes for which the STUN library has no type.

use std::net::SocketAddr;

use stun_types::attribute::{AttributeType, RawAttribute, XorSocketAddr};
use stun_types::message::{
    Message, MessageClass, MessageType, MessageWrite as _, MessageWriteExt as _, MessageWriteVec, Method,
    TransactionId,
};

use crate::stun::canonical;

pub(super) const ALLOCATE: Method = Method::new(0x003);
pub(super) const REFRESH: Method = Method::new(0x004);
pub(super) const SEND: Method = Method::new(0x006);
pub(super) const DATA: Method = Method::new(0x007);
pub(super) const CREATE_PERMISSION: Method = Method::new(0x008);
pub(super) const CHANNEL_BIND: Method = Method::new(0x009);

const CHANNEL_NUMBER: AttributeType = AttributeType::new(0x000c);
const LIFETIME: AttributeType = AttributeType::new(0x000d);
pub(super) const PEER_ADDRESS: AttributeType = AttributeType::new(0x0012);
const DATA_ATTRIBUTE: AttributeType = AttributeType::new(0x0013);
pub(super) const RELAYED_ADDRESS: AttributeType = AttributeType::new(0x0016);
const REQUESTED_ADDRESS_FAMILY: AttributeType = AttributeType::new(0x0017);
const REQUESTED_TRANSPORT: AttributeType = AttributeType::new(0x0019);

/// Range of channel numbers (RFC 8656, 12).
pub(super) const CHANNELS: std::ops::RangeInclusive<u16> = 0x4000..=0x4fff;

/// Length of a ChannelData header in bytes.
const CHANNEL_HEADER: usize = 4;

pub(super) fn request(method: Method, id: u128) -> MessageWriteVec {
    message(MessageClass::Request, method, id)
}

fn message(class: MessageClass, method: Method, id: u128) -> MessageWriteVec {
    let kind = MessageType::from_class_method(class, method);
    Message::builder(kind, TransactionId::from(id), MessageWriteVec::new())
}

fn add(message: &mut MessageWriteVec, kind: AttributeType, value: &[u8]) {
    message.add_attribute(&RawAttribute::new(kind, value)).expect("no attribute is added twice");
}

pub(super) fn add_transport(message: &mut MessageWriteVec) {
    // UDP is protocol 17.
    add(message, REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
}

pub(super) fn add_ipv6(message: &mut MessageWriteVec) {
    add(message, REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0]);
}

pub(super) fn add_lifetime(message: &mut MessageWriteVec, seconds: u32) {
    add(message, LIFETIME, &seconds.to_be_bytes());
}

pub(super) fn add_channel(message: &mut MessageWriteVec, number: u16) {
    let [high, low] = number.to_be_bytes();
    add(message, CHANNEL_NUMBER, &[high, low, 0, 0]);
}

pub(super) fn add_address(message: &mut MessageWriteVec, kind: AttributeType, address: SocketAddr, id: u128) {
    let xored = XorSocketAddr::new(address, TransactionId::from(id));
    message.add_attribute(&xored.to_raw(kind)).expect("no attribute is added twice");
}

pub(super) fn address(message: &Message<'_>, kind: AttributeType) -> Option<SocketAddr> {
    let raw = message.raw_attribute(kind)?;
    let xored = XorSocketAddr::from_raw(&raw).ok()?;
    Some(canonical(xored.addr(message.transaction_id())))
}

pub(super) fn lifetime(message: &Message<'_>) -> Option<u32> {
    let raw = message.raw_attribute(LIFETIME)?;
    Some(u32::from_be_bytes(raw.value.as_ref().try_into().ok()?))
}

/// Appends a Send indication; appends nothing if the data is too long.
pub(super) fn emit_send(peer: SocketAddr, data: &[u8], id: u128, out: &mut Vec<u8>) {
    if data.len() <= usize::from(u16::MAX) - super::MAX_OVERHEAD {
        let mut message = message(MessageClass::Indication, SEND, id);
        add_address(&mut message, PEER_ADDRESS, peer, id);
        add(&mut message, DATA_ATTRIBUTE, data);
        out.extend(message.finish());
    }
}

/// Returns the peer and its datagram, if the message is a Data indication.
pub(super) fn data_of<'a>(message: &Message<'_>, bytes: &'a [u8]) -> Option<(SocketAddr, &'a [u8])> {
    if !message.has_class(MessageClass::Indication) || !message.has_method(DATA) {
        return None;
    }
    let (offset, raw) = message.raw_attribute_and_offset(DATA_ATTRIBUTE)?;
    let value = bytes.get(offset + 4..)?.get(..raw.value.len())?;
    Some((address(message, PEER_ADDRESS)?, value))
}

/// Appends a ChannelData frame; appends nothing if the data is too long.
pub(super) fn emit_channel(number: u16, data: &[u8], out: &mut Vec<u8>) {
    if let Ok(length) = u16::try_from(data.len()) {
        out.extend(number.to_be_bytes());
        out.extend(length.to_be_bytes());
        out.extend(data);
    }
}

/// Parses a ChannelData frame from a datagram, which may have padding after it.
pub(super) fn channel_of(datagram: &[u8]) -> Option<(u16, &[u8])> {
    let (header, rest) = datagram.split_first_chunk::<CHANNEL_HEADER>()?;
    let number = u16::from_be_bytes([header[0], header[1]]);
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    CHANNELS.contains(&number).then_some((number, rest.get(..length)?))
}
