//! Answers of STUN servers, TURN servers and routers, which anyone on the path can forge.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use arbitrary::Arbitrary;
use peersock_nat::portmap::fuzzing as portmap;
use peersock_nat::stun::{Answer, TransactionId, request_id};
use peersock_nat::turn::{Client, Event, MAX_OVERHEAD, Sent};

use crate::input::{Damage, damaged, instant, one, pick, sequence};

#[derive(Debug, Arbitrary)]
struct Answered {
    id: u128,
    addresses: [(IpAddr, u16); 3],
    damages: Vec<Damage>,
}

/// Checks answers of STUN servers. Each parsed answer parses again from its written form.
pub fn stun(data: &[u8]) {
    read_again(data);
    let _ = request_id(data);
    let Some(Answered { id, addresses, damages }) = one::<Answered>(data) else { return };
    let [mapped, origin, other] = addresses.map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port));
    let answer = Answer {
        id: TransactionId::new(id),
        mapped,
        origin: Some(origin),
        other: Some(other),
        second_port: None,
    };
    assert_eq!(Answer::parse(&answer.emit()), Some(answer));
    read_again(&damaged(&answer.emit(), &damages));
}

fn read_again(datagram: &[u8]) {
    if let Some(answer) = Answer::parse(datagram) {
        assert_eq!(Answer::parse(&answer.emit()), Some(answer));
    }
}

#[derive(Debug, Arbitrary)]
enum Operation {
    /// A datagram for one of the peers.
    Send {
        peer: u8,
        port: u8,
        length: u8,
    },
    /// The server grants a request, or sends a similar answer.
    Grant {
        which: u8,
        lifetime: u32,
        mapped: u8,
        damages: Vec<Damage>,
    },
    Refuse {
        which: u8,
        code: u16,
        damages: Vec<Damage>,
    },
    /// A peer's datagram without a channel.
    Data {
        peer: u8,
        port: u8,
        data: [u8; 3],
        damages: Vec<Damage>,
    },
    Channel {
        number: u16,
        length: u16,
        data: [u8; 6],
    },
    Raw(Vec<u8>),
    Pass {
        milliseconds: u32,
    },
    Close,
}

/// Maximum number of operations.
const MAX_OPERATIONS: usize = 200;

/// Number of requests that the server may still answer.
const MAX_REQUESTS: usize = 64;

/// Maximum number of client messages at once: a request for each permission and channel, the datagrams that
/// wait for permissions, and a little more.
const MAX_SENT: usize = 64 + 256 + 2 * 64 + 8;

/// Checks a client of a TURN server. Whatever the server sends, the client comes to rest, accepts datagrams
/// only from peers it has sent to, and does nothing after its end.
pub fn turn(data: &[u8]) {
    let mut now = instant();
    let server = "turn:alice:sesame@192.0.2.1".parse().expect("a server");
    let mut client = Client::new(&server, true, [7; 32], now);
    let mut requests: Vec<Vec<u8>> = Vec::new();
    let mut known = BTreeSet::new();
    let mut has_ended = false;
    for operation in sequence::<Operation>(data, MAX_OPERATIONS) {
        let from_server = match operation {
            Operation::Send { peer, port, length } => {
                let peer = peer_at(peer, port);
                let (contents, mut out) = (vec![port; length.into()], Vec::new());
                let sent = client.send(now, peer, &contents, &mut out);
                assert_eq!(sent == Sent::Written, !out.is_empty());
                assert!(out.len() <= contents.len() + MAX_OVERHEAD);
                assert!(sent == Sent::Dropped || client.relayed().is_some());
                if sent != Sent::Dropped {
                    known.insert(peer.ip());
                }
                None
            }
            Operation::Grant { which, lifetime, mapped, damages } => {
                let request = pick(&requests, which);
                request.map(|request| damaged(&granted(request, lifetime, mapped), &damages))
            }
            Operation::Refuse { which, code, damages } => {
                let request = pick(&requests, which);
                request.map(|request| damaged(&refused(request, code), &damages))
            }
            Operation::Data { peer, port, data, damages } => {
                let value = xored(peer_at(peer, port));
                let message = message(0x0017, &[0; 16], &[(0x0012, &value), (0x0013, &data)]);
                Some(damaged(&message, &damages))
            }
            Operation::Channel { number, length, data } => {
                // Use the channels that are bound first most often.
                let number = if number % 2 == 0 { 0x4000 + number % 16 } else { number };
                Some([&number.to_be_bytes()[..], &(length % 8).to_be_bytes(), &data].concat())
            }
            Operation::Raw(datagram) => Some(datagram),
            Operation::Pass { milliseconds } => {
                now += Duration::from_millis(milliseconds.into());
                client.handle_timeout(now);
                assert!(client.poll_timeout(now).is_none_or(|next| next > now), "it comes to rest");
                None
            }
            Operation::Close => {
                client.close();
                has_ended = true;
                None
            }
        };
        if let Some(received) = from_server.as_ref().and_then(|datagram| client.handle(now, datagram)) {
            assert!(known.contains(&received.peer.ip()), "no node has sent to {}", received.peer);
        }
        let sent: Vec<_> = std::iter::from_fn(|| client.poll_transmit()).collect();
        assert!(sent.len() <= MAX_SENT, "{} datagrams", sent.len());
        requests.extend(sent);
        requests.drain(..requests.len().saturating_sub(MAX_REQUESTS));
        while let Some(event) = client.poll_event() {
            has_ended |= matches!(event, Event::Ended(_));
        }
        assert!(!has_ended || (client.relayed().is_none() && client.poll_timeout(now).is_none()));
    }
}

fn peer_at(peer: u8, port: u8) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(198, 51, 100, peer).into(), 7000 + u16::from(port % 16))
}

/// Makes the answer that grants a request.
fn granted(request: &[u8], lifetime: u32, mapped: u8) -> Vec<u8> {
    let (method, id) = request_of(request);
    let relayed = xored(SocketAddr::from(([203, 0, 113, 9], 50_000)));
    let mapped = xored(SocketAddr::from(([198, 51, 100, 7], 4000 + u16::from(mapped % 4))));
    let lifetime = lifetime.to_be_bytes();
    let attributes: &[(u16, &[u8])] = match method {
        0x0001 => &[(0x0020, &mapped)],
        0x0003 => &[(0x0016, &relayed), (0x000d, &lifetime), (0x0020, &mapped)],
        0x0004 => &[(0x000d, &lifetime)],
        _ => &[],
    };
    message(method | 0x0100, &id, attributes)
}

fn refused(request: &[u8], code: u16) -> Vec<u8> {
    let (method, id) = request_of(request);
    // Use the codes that change the client's course most often.
    let usual = [300, 400, 401, 403, 437, 438, 440, 486, 508];
    let code = usual.get(usize::from(code % 16)).copied().unwrap_or(300 + code % 400);
    let reason = [0, 0, (code / 100) as u8, (code % 100) as u8, b'n', b'o'];
    let elsewhere = [0, 1, 0x0d, 0x96, 192, 0, 2, 77];
    message(
        method | 0x0110,
        &id,
        &[(0x0009, &reason), (0x0014, b"realm"), (0x0015, &code.to_be_bytes()), (0x8023, &elsewhere)],
    )
}

/// Returns the method of a request, and the transaction ID that answers repeat.
fn request_of(request: &[u8]) -> (u16, [u8; 16]) {
    let method = request.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    let id = request.get(4..20).and_then(|id| id.try_into().ok());
    // Channel frames and indications are sent, too, but no answer matches them.
    (method & 0x3eef, id.unwrap_or_default())
}

/// Makes a message with these attributes (RFC 8489, sections 5 and 14). The magic cookie replaces the first
/// four bytes of the ID.
fn message(kind: u16, id: &[u8; 16], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut id = *id;
    id[..4].copy_from_slice(&COOKIE);
    let mut body = Vec::new();
    for (kind, value) in attributes {
        body.extend_from_slice(&kind.to_be_bytes());
        body.extend_from_slice(&(value.len() as u16).to_be_bytes());
        body.extend_from_slice(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    [&kind.to_be_bytes()[..], &(body.len() as u16).to_be_bytes(), &id, &body].concat()
}

/// Encodes an IPv4 address (RFC 8489, 14.2).
fn xored(address: SocketAddr) -> [u8; 8] {
    let IpAddr::V4(ip) = address.ip() else { unreachable!("all are IPv4") };
    let mut value = [0, 1, 0, 0, 0, 0, 0, 0];
    value[2..4].copy_from_slice(&address.port().to_be_bytes());
    value[4..].copy_from_slice(&ip.octets());
    value[2] ^= COOKIE[0];
    value[3] ^= COOKIE[1];
    value[4..].iter_mut().zip(COOKIE).for_each(|(byte, cookie)| *byte ^= cookie);
    value
}

/// Magic cookie of STUN.
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

#[derive(Debug, Arbitrary)]
struct Router {
    nonce: [u8; 12],
    port: u16,
    external: u16,
    outside: Ipv4Addr,
    lifetime: u32,
    damages: Vec<Damage>,
}

/// Checks router answers of PCP, NAT-PMP and UPnP. A mapping must match its answer and its requester, and
/// calls go to the device that has described itself.
pub fn port_mapping(data: &[u8]) {
    let _ = (portmap::pcp(data, [7; 12], 7420), portmap::nat_pmp(data, 7420));
    let _ = portmap::nat_pmp_address(data);
    if let Some((_, path)) = portmap::ssdp(data) {
        plain(&path);
    }
    let answer = portmap::http(data);
    if answer.as_ref().is_some_and(|(is_complete, ..)| *is_complete) {
        assert_eq!(portmap::http(&[data, b"more"].concat()), answer, "it ends where it says");
    }
    let body = answer.map(|(_, _, body)| body);
    for xml in body.as_deref().into_iter().chain(str::from_utf8(data).ok()) {
        let at = SocketAddr::from(([192, 168, 1, 1], 5000));
        if let Some((control, path)) = portmap::description(xml, at, "/dir/root.xml") {
            assert_eq!(control.ip(), at.ip());
            plain(&path);
        }
        for name in ["NewExternalIPAddress", "errorCode"] {
            let _ = portmap::soap(xml, name);
        }
    }
    if let Some(router) = one::<Router>(data) {
        mapped(&router);
    }
}

/// Checks that a path cannot inject another line into a request.
fn plain(path: &str) {
    assert!(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()), "{path:?}");
}

fn mapped(router: &Router) {
    let Router { nonce, port, external, outside, lifetime, damages } = router;
    let lasts = Duration::from_secs((*lifetime).into());
    let ports = [port.to_be_bytes(), external.to_be_bytes()].concat();
    let address = outside.to_ipv6_mapped().octets();
    let head = [&[2, 129, 0, 0][..], &lifetime.to_be_bytes(), &[0; 16]].concat();
    let pcp = [&head[..], nonce, &[17, 0, 0, 0], &ports, &address].concat();
    let there = SocketAddr::new((*outside).into(), *external);
    assert_eq!(portmap::pcp(&pcp, *nonce, *port), Some(Ok((there, lasts))));
    assert_eq!(portmap::pcp(&pcp, *nonce, !port), None, "another port's");
    let pmp = [&[0, 129, 0, 0, 0, 0, 0, 9][..], &ports, &lifetime.to_be_bytes()].concat();
    assert_eq!(portmap::nat_pmp(&pmp, *port), Some(Ok((*external, lasts))));
    assert_eq!(portmap::nat_pmp(&pmp, !port), None, "another port's");
    let _ = portmap::pcp(&damaged(&pcp, damages), *nonce, *port);
    let _ = portmap::nat_pmp(&damaged(&pmp, damages), *port);
    let _ = portmap::nat_pmp_address(&damaged(&pmp, damages));
}
