//! Roots as bytes, for texts that people pass on: tickets and invites.
//!
//! ```text
//! 0, 64 bytes of keys, number of endpoints, endpoints, length of the token, token
//! 1, length, text of a domain
//! 2 for roots of the local network
//! 3, 64 bytes of keys, IPv4 address, port: a root with this UDP endpoint alone, in invites
//! 4, 64 bytes of keys, IPv4 address: the same at port 7420
//! ```
//!
//! An endpoint is a byte (4 * transport + form), an address and a port. Forms are 0: IPv4, 1: IPv6, 2: length
//! and host name. Numbers are in network order. Readers of such a text compare what they have read with what
//! they would write, so each root has one form.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use peersock_overlay::PublicIdentity;
use peersock_overlay::membership::MemberName;

use super::{HostEndpoint, RootAddress, RootEndpoint, RootSource, RootTransport};

/// Transports of endpoints, in the order of their numbers.
const TRANSPORTS: [RootTransport; 4] =
    [RootTransport::Udp, RootTransport::Tcp, RootTransport::Tls, RootTransport::WebSocket];

/// Returns a count as a byte. Counts that are too large are found when the new ticket is parsed.
pub fn length(count: usize) -> u8 {
    u8::try_from(count).unwrap_or(u8::MAX - 1)
}

/// Appends a root.
pub fn emit_root(root: &RootSource, bytes: &mut Vec<u8>) {
    let address = match root {
        RootSource::Address(address) => address,
        RootSource::Dns(domain) => {
            bytes.push(1);
            return emit_text(domain.to_string().as_bytes(), bytes);
        }
        _ => return bytes.push(2),
    };
    bytes.push(0);
    bytes.extend_from_slice(&address.identity().to_bytes());
    bytes.push(length(address.endpoints().len()));
    for endpoint in address.endpoints() {
        // A transport that has no number is found when the new ticket is parsed.
        let transport = TRANSPORTS.iter().position(|transport| *transport == endpoint.transport);
        let transport = 4 * transport.map_or(0x3f, |number| number as u8);
        match (endpoint.address(), endpoint.host_endpoint()) {
            (Some(SocketAddr::V4(address)), _) => {
                bytes.push(transport);
                bytes.extend_from_slice(&address.ip().octets());
            }
            (Some(SocketAddr::V6(address)), _) => {
                bytes.push(transport + 1);
                bytes.extend_from_slice(&address.ip().octets());
            }
            (None, host) => {
                bytes.push(transport + 2);
                emit_text(host.map_or("", HostEndpoint::host).as_bytes(), bytes);
            }
        }
        bytes.extend_from_slice(&endpoint.port().to_be_bytes());
    }
    emit_text(address.token().unwrap_or_default(), bytes);
}

/// Port of a root that names no other.
const ROOT_PORT: u16 = 7420;

/// Appends a root of an invite, which people copy by hand: a root with one UDP endpoint at an IPv4 address
/// and without a token has a shorter form.
pub fn emit_short_root(root: &RootSource, bytes: &mut Vec<u8>) {
    let Some((keys, address)) = short_root(root) else { return emit_root(root, bytes) };
    let is_usual = address.port() == ROOT_PORT;
    bytes.push(if is_usual { 4 } else { 3 });
    bytes.extend_from_slice(&keys.to_bytes());
    bytes.extend_from_slice(&address.ip().octets());
    if !is_usual {
        bytes.extend_from_slice(&address.port().to_be_bytes());
    }
}

/// Returns the keys and the endpoint of a root that has the shorter form.
fn short_root(root: &RootSource) -> Option<(&PublicIdentity, SocketAddrV4)> {
    let RootSource::Address(root) = root else { return None };
    let ([endpoint], None) = (root.endpoints(), root.token()) else { return None };
    match (endpoint.transport, endpoint.address()?) {
        (RootTransport::Udp, SocketAddr::V4(address)) => Some((root.identity(), address)),
        _ => None,
    }
}

/// Takes a root of an invite from the front of the bytes; returns `None` if there is none.
pub fn parse_short_root(bytes: &mut &[u8]) -> Option<RootSource> {
    let is_usual = match bytes.first()? {
        3 => false,
        4 => true,
        _ => return parse_root(bytes),
    };
    byte(bytes)?;
    let identity = PublicIdentity::from_bytes(take(bytes)?).ok()?;
    let ip = Ipv4Addr::from(*take::<4>(bytes)?);
    let port = if is_usual { ROOT_PORT } else { port(bytes)? };
    // By its text, which checks that a root can be there.
    let endpoint = SocketAddrV4::new(ip, port).to_string().parse().ok()?;
    Some(RootAddress::new(identity, vec![endpoint]).into())
}

/// Digits of a name in [`emit_name`], from 1 on.
const DIGITS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789-";

/// Number of values of a digit, with 0 for none.
const BASE: u16 = DIGITS.len() as u16 + 1;

/// Value of the last byte of a name if it has no digit. Greater values have the last digit. No first byte of
/// three digits is as large, so a name that is cut off is no other name.
const END: u8 = 215;

/// Appends a name, which ends the bytes: three characters are two bytes, and two are as if a digit 0
/// followed.
pub fn emit_name(name: &MemberName, bytes: &mut Vec<u8>) {
    let value = |byte: &u8| DIGITS.iter().position(|digit| digit == byte).map_or(0, |at| at as u16 + 1);
    let mut rest = name.as_str().as_bytes();
    while let [a, b, left @ ..] = rest {
        let number = (value(a) * BASE + value(b)) * BASE + left.first().map_or(0, value);
        bytes.extend_from_slice(&number.to_be_bytes());
        match left {
            [] => return,
            [_, left @ ..] => rest = left,
        }
    }
    bytes.push(END + rest.first().map_or(0, value) as u8);
}

/// Reads a name that takes all the bytes. Other bytes may be the same name, so the reader compares them with
/// what it would write.
pub fn parse_name(bytes: &[u8]) -> Option<MemberName> {
    let mut name = String::new();
    for two in bytes.chunks(2) {
        let digits = match *two {
            [high, low] => {
                let number = u16::from_be_bytes([high, low]);
                [number / BASE / BASE, number / BASE % BASE, number % BASE]
            }
            _ => [two[0].checked_sub(END)?.into(), 0, 0],
        };
        for digit in digits.into_iter().filter(|digit| *digit > 0) {
            name.push(char::from(*DIGITS.get(usize::from(digit) - 1)?));
        }
    }
    name.parse().ok()
}

fn emit_text(text: &[u8], bytes: &mut Vec<u8>) {
    bytes.push(length(text.len()));
    bytes.extend_from_slice(text);
}

/// Takes a root from the front of the bytes; returns `None` if there is none.
pub fn parse_root(bytes: &mut &[u8]) -> Option<RootSource> {
    match byte(bytes)? {
        0 => {}
        1 => return format!("dns:{}", text(bytes)?).parse().ok(),
        2 => return Some(RootSource::Lan),
        _ => return None,
    }
    let identity = PublicIdentity::from_bytes(take(bytes)?).ok()?;
    let count = byte(bytes).filter(|count| *count > 0)?;
    let endpoints = several(bytes, count, RootAddress::MAX_ENDPOINTS, parse_endpoint)?;
    let root = RootAddress::new(identity, endpoints);
    match length_and_bytes(bytes)? {
        [] => Some(root.into()),
        token => Some(root.with_token(token).ok()?.into()),
    }
}

fn parse_endpoint(bytes: &mut &[u8]) -> Option<RootEndpoint> {
    let form = byte(bytes)?;
    let transport = TRANSPORTS.get(usize::from(form / 4))?;
    let host = match form % 4 {
        0 => Ipv4Addr::from(*take::<4>(bytes)?).to_string(),
        1 => format!("[{}]", Ipv6Addr::from(*take::<16>(bytes)?)),
        2 => text(bytes)?.to_owned(),
        _ => return None,
    };
    // By its text, which checks that a root can be there. A host may not be read as an address.
    let endpoint: RootEndpoint = match transport {
        RootTransport::Udp => format!("{host}:{}", port(bytes)?),
        other => format!("{other}:{host}:{}", port(bytes)?),
    }
    .parse()
    .ok()?;
    (endpoint.transport == *transport).then_some(endpoint)
}

/// Takes `count` things, of which `most` are allowed.
pub fn several<T>(
    bytes: &mut &[u8],
    count: u8,
    most: usize,
    parse: impl Fn(&mut &[u8]) -> Option<T>,
) -> Option<Vec<T>> {
    let count = usize::from(count);
    if count > most { None } else { (0..count).map(|_| parse(bytes)).collect() }
}

/// Takes `N` bytes.
pub fn take<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(taken)
}

/// Takes one byte.
pub fn byte(bytes: &mut &[u8]) -> Option<u8> {
    take::<1>(bytes).map(|[byte]| *byte)
}

/// Takes a port.
pub fn port(bytes: &mut &[u8]) -> Option<u16> {
    take(bytes).map(|port| u16::from_be_bytes(*port))
}

fn length_and_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    // In a statement before, because it moves the beginning of the bytes.
    let length = usize::from(byte(bytes)?);
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn text<'a>(bytes: &mut &'a [u8]) -> Option<&'a str> {
    str::from_utf8(length_and_bytes(bytes)?).ok()
}
