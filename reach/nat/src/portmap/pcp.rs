//! PCP (RFC 6887): the ANNOUNCE and MAP requests.
//!
//! ```text
//! request   2 op(1) 0(2) lifetime(4) client address(16)                 24 bytes
//! answer    2 128+op 0 result(1) lifetime(4) epoch(4) 0(12)              24 bytes
//! MAP       nonce(12) protocol(1) 0(3) internal(2) external(2) external address(16)
//! ```

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::exchange::{Reading, exchange};
use super::{Ask, Gateway, Handle, MapError, PortMapping, Protocol};

const VERSION: u8 = 2;
const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;
const ANSWER: u8 = 128;
const HEADER: usize = 24;
const MAP_LEN: usize = 60;

/// Names of the result codes (RFC 6887, 7.4).
const RESULTS: [&str; 14] = [
    "success",
    "unsupported version",
    "not authorized",
    "malformed request",
    "unsupported operation",
    "unsupported option",
    "malformed option",
    "network failure",
    "no resources",
    "unsupported protocol",
    "quota exceeded",
    "cannot provide external address",
    "address mismatch: there is another NAT before the router",
    "excessive remote peers",
];

/// The content of a MAP answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) external: SocketAddr,
    pub(super) lifetime: Duration,
}

/// Checks that the router supports PCP.
pub(super) fn announce(gateway: &Gateway, until: Instant) -> Result<(), MapError> {
    let request = header(ANNOUNCE, 0, gateway.local);
    exchange(Protocol::Pcp, gateway, &request, until, |data| read(data, ANNOUNCE, |_, _| Some(())))
}

/// Makes the nonce that ties a mapping to its client.
pub(super) fn new_nonce() -> Result<[u8; 12], MapError> {
    let mut nonce = [0; 12];
    let silent = |error| MapError::Silent { protocol: Protocol::Pcp, source: std::io::Error::other(error) };
    getrandom::fill(&mut nonce).map_err(silent)?;
    Ok(nonce)
}

pub(super) fn map(
    gateway: &Gateway,
    ask: &Ask,
    nonce: [u8; 12],
    until: Instant,
) -> Result<PortMapping, MapError> {
    let request = request(ask, nonce, ask.lifetime);
    let read = |data: &[u8]| read_mapping(data, nonce, ask.local.port());
    let mapped = exchange(Protocol::Pcp, gateway, &request, until, read)?;
    ask.granted(Protocol::Pcp, mapped.external, mapped.lifetime, Handle::Pcp(nonce))
}

/// Ends a mapping by a lifetime of zero (RFC 6887, 15).
pub(super) fn remove(
    gateway: &Gateway,
    mapping: &PortMapping,
    nonce: [u8; 12],
    until: Instant,
) -> Result<(), MapError> {
    let ask = Ask { transport: mapping.transport, local: mapping.local, wanted: 0, lifetime: 0 };
    let read = |data: &[u8]| read_mapping(data, nonce, mapping.local.port());
    exchange(Protocol::Pcp, gateway, &request(&ask, nonce, 0), until, read).map(drop)
}

fn header(operation: u8, lifetime: u32, client: IpAddr) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = VERSION;
    header[1] = operation;
    header[4..8].copy_from_slice(&lifetime.to_be_bytes());
    header[8..].copy_from_slice(&wide(client));
    header
}

fn request(ask: &Ask, nonce: [u8; 12], lifetime: u32) -> [u8; MAP_LEN] {
    let mut request = [0; MAP_LEN];
    request[..HEADER].copy_from_slice(&header(MAP, lifetime, ask.local.ip()));
    request[24..36].copy_from_slice(&nonce);
    request[36] = ask.transport.number();
    request[40..42].copy_from_slice(&ask.local.port().to_be_bytes());
    request[42..44].copy_from_slice(&ask.wanted.to_be_bytes());
    // RFC 6887 (11.1): any address of that family.
    let any: IpAddr = if ask.local.is_ipv4() { [0, 0, 0, 0].into() } else { Ipv6Addr::UNSPECIFIED.into() };
    request[44..].copy_from_slice(&wide(any));
    request
}

pub(super) fn read_mapping(data: &[u8], nonce: [u8; 12], port: u16) -> Reading<Mapped> {
    if data.len() >= MAP_LEN && (data[24..36] != nonce || data[40..42] != port.to_be_bytes()) {
        return Reading::Foreign;
    }
    read(data, MAP, |lifetime, body| {
        let external = u16::from_be_bytes(body.get(18..20)?.try_into().ok()?);
        let address: [u8; 16] = body.get(20..36)?.try_into().ok()?;
        let address = Ipv6Addr::from(address).to_canonical();
        Some(Mapped {
            external: SocketAddr::new(address, external),
            lifetime: Duration::from_secs(lifetime.into()),
        })
    })
}

/// Parses the header; `body` takes the lifetime and the bytes after the header.
fn read<T>(data: &[u8], operation: u8, body: impl Fn(u32, &[u8]) -> Option<T>) -> Reading<T> {
    let protocol = Protocol::Pcp;
    let [version, answered, ..] = data else { return Reading::Foreign };
    if *version == 0 && *answered >= ANSWER {
        // RFC 6886 (3.5): a router that supports only NAT-PMP answers so.
        return Reading::Answer(Err(MapError::Refused { protocol, reason: RESULTS[1].into() }));
    }
    if *answered != ANSWER + operation || data.len() < HEADER {
        return Reading::Foreign;
    }
    let code = data[3];
    if code != 0 || *version != VERSION {
        let reason =
            RESULTS.get(usize::from(code)).map_or_else(|| format!("result {code}"), |text| (*text).into());
        return Reading::Answer(Err(MapError::Refused { protocol, reason }));
    }
    let lifetime = u32::from_be_bytes(data[4..8].try_into().expect("there are 4 bytes"));
    let nonsense = MapError::Nonsense { protocol, reason: "it is too short" };
    Reading::Answer(body(lifetime, &data[HEADER..]).ok_or(nonsense))
}

/// Encodes IPv4 addresses inside IPv6 ones (RFC 6887, 5).
fn wide(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Transport;
    use super::*;

    const NONCE: [u8; 12] = [7; 12];

    fn ask() -> Ask {
        let local = "192.168.1.2:4660".parse().expect("an endpoint");
        Ask { transport: Transport::Udp, local, wanted: 0x5678, lifetime: 600 }
    }

    fn answer(result: u8) -> Vec<u8> {
        let mut answer = request(&ask(), NONCE, 300).to_vec();
        answer[1] |= ANSWER;
        answer[3] = result;
        answer[8..24].fill(0);
        answer[44..].copy_from_slice(&wide([203, 0, 113, 9].into()));
        answer
    }

    #[test]
    fn a_request_has_the_form_of_the_rfc() {
        let request = request(&ask(), NONCE, 600);
        assert_eq!(request[..8], [2, 1, 0, 0, 0, 0, 2, 0x58]);
        assert_eq!(request[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 168, 1, 2]);
        assert_eq!(request[36..44], [17, 0, 0, 0, 0x12, 0x34, 0x56, 0x78]);
        assert_eq!(request[44..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]);
    }

    #[test]
    fn a_mapping_is_read() {
        let Reading::Answer(Ok(mapped)) = read_mapping(&answer(0), NONCE, 4660) else { panic!("it is one") };
        let external = "203.0.113.9:22136".parse().expect("an endpoint");
        assert_eq!(mapped, Mapped { external, lifetime: Duration::from_secs(300) });
        assert!(matches!(read_mapping(&answer(0), [8; 12], 4660), Reading::Foreign));
        assert!(matches!(read_mapping(&answer(0), NONCE, 4661), Reading::Foreign));
    }

    #[test]
    fn refusals_have_their_reason() {
        for (code, reason) in [(2, "not authorized"), (13, "excessive remote peers"), (99, "result 99")] {
            let Reading::Answer(Err(error)) = read_mapping(&answer(code), NONCE, 4660) else {
                panic!("it is one")
            };
            assert_eq!(error.to_string(), format!("the router refuses by PCP: {reason}"));
        }
    }

    #[test]
    fn a_router_that_has_only_nat_pmp_is_recognised() {
        let data = [0, 128, 0, 1, 0, 0, 0, 9];
        assert!(matches!(read_mapping(&data, NONCE, 1), Reading::Answer(Err(MapError::Refused { .. }))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(data in proptest::collection::vec(any::<u8>(), 0..80), at in 0..60usize) {
            let _ = read_mapping(&data, NONCE, 1);
            let mut damaged = answer(0);
            damaged.splice(at.., data);
            let _ = read_mapping(&damaged, NONCE, 4660);
        }
    }
}
