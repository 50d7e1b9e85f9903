//! NAT-PMP (RFC 6886).
//!
//! ```text
//! external address   0  0                                        ->  0 128 result(2) epoch(4) address(4)
//! mapping            0 op 0 0 internal(2) external(2) lifetime(4)  ->  0 128+op result(2) epoch(4)
//!                                                                    internal(2) external(2) lifetime(4)
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::exchange::{Reading, exchange};
use super::{Ask, Gateway, Handle, MapError, PortMapping, Protocol, Transport};

const ANSWER: u8 = 128;

/// Asks for the router's external address.
pub(super) fn external(gateway: &Gateway, until: Instant) -> Result<Ipv4Addr, MapError> {
    exchange(Protocol::NatPmp, gateway, &[0, 0], until, read_address)
}

pub(super) fn map(gateway: &Gateway, ask: &Ask, until: Instant) -> Result<PortMapping, MapError> {
    let request = request(ask.transport, ask.local.port(), ask.wanted, ask.lifetime);
    let read = |data: &[u8]| read_mapping(data, ask.transport, ask.local.port());
    let (port, lifetime) = exchange(Protocol::NatPmp, gateway, &request, until, read)?;
    let external = SocketAddr::new(external(gateway, until)?.into(), port);
    ask.granted(Protocol::NatPmp, external, lifetime, Handle::NatPmp)
}

/// Ends a mapping by a lifetime of zero and no external port (RFC 6886, 3.4).
pub(super) fn remove(gateway: &Gateway, mapping: &PortMapping, until: Instant) -> Result<(), MapError> {
    let port = mapping.local.port();
    let read = |data: &[u8]| read_mapping(data, mapping.transport, port);
    exchange(Protocol::NatPmp, gateway, &request(mapping.transport, port, 0, 0), until, read).map(drop)
}

fn operation(transport: Transport) -> u8 {
    match transport {
        Transport::Udp => 1,
        Transport::Tcp => 2,
    }
}

fn request(transport: Transport, internal: u16, external: u16, lifetime: u32) -> [u8; 12] {
    let mut request = [0; 12];
    request[1] = operation(transport);
    request[4..6].copy_from_slice(&internal.to_be_bytes());
    request[6..8].copy_from_slice(&external.to_be_bytes());
    request[8..].copy_from_slice(&lifetime.to_be_bytes());
    request
}

pub(super) fn read_address(data: &[u8]) -> Reading<Ipv4Addr> {
    read(data, ANSWER, |rest| {
        let address: [u8; 4] = rest.get(..4)?.try_into().ok()?;
        Some(address.into())
    })
}

/// Parses the external port and the lifetime.
pub(super) fn read_mapping(data: &[u8], transport: Transport, port: u16) -> Reading<(u16, Duration)> {
    if data.get(8..10).is_some_and(|internal| internal != port.to_be_bytes()) {
        return Reading::Foreign;
    }
    read(data, ANSWER + operation(transport), |rest| {
        let external = u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?);
        let lifetime = u32::from_be_bytes(rest.get(4..8)?.try_into().ok()?);
        Some((external, Duration::from_secs(lifetime.into())))
    })
}

/// Parses the header; `body` parses the bytes after it.
fn read<T>(data: &[u8], operation: u8, body: impl Fn(&[u8]) -> Option<T>) -> Reading<T> {
    let [version, answered, high, low, rest @ ..] = data else { return Reading::Foreign };
    if *answered != operation {
        return Reading::Foreign;
    }
    let protocol = Protocol::NatPmp;
    // RFC 6886 (3.5).
    let reason = match (version, u16::from_be_bytes([*high, *low])) {
        (0, 0) => {
            let nonsense = MapError::Nonsense { protocol, reason: "it is too short" };
            return Reading::Answer(rest.get(4..).and_then(body).ok_or(nonsense));
        }
        (0, 1) => "unsupported version".into(),
        (0, 2) => "not authorized".into(),
        (0, 3) => "network failure".into(),
        (0, 4) => "out of resources".into(),
        (0, 5) => "unsupported operation".into(),
        (0, code) => format!("result {code}"),
        (version, _) => format!("it speaks version {version}"),
    };
    Reading::Answer(Err(MapError::Refused { protocol, reason }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_has_the_form_of_the_rfc() {
        assert_eq!(
            request(Transport::Udp, 0x1234, 0x5678, 7200),
            [0, 1, 0, 0, 0x12, 0x34, 0x56, 0x78, 0, 0, 0x1c, 0x20]
        );
        assert_eq!(request(Transport::Tcp, 1, 0, 0)[1], 2);
    }

    #[test]
    fn a_mapping_is_read() {
        let data = [0, 129, 0, 0, 0, 0, 0, 9, 0x12, 0x34, 0x56, 0x78, 0, 0, 0x1c, 0x20];
        let Reading::Answer(Ok(read)) = read_mapping(&data, Transport::Udp, 0x1234) else {
            panic!("it is one")
        };
        assert_eq!(read, (0x5678, Duration::from_secs(7200)));
        assert!(matches!(read_mapping(&data, Transport::Tcp, 0x1234), Reading::Foreign));
        assert!(matches!(read_mapping(&data, Transport::Udp, 0x1235), Reading::Foreign));
    }

    #[test]
    fn a_refusal_is_read_with_its_reason() {
        let data = [0, 129, 0, 2, 0, 0, 0, 9, 0x12, 0x34, 0, 0, 0, 0, 0, 0];
        let Reading::Answer(Err(error)) = read_mapping(&data, Transport::Udp, 0x1234) else {
            panic!("it is one")
        };
        assert_eq!(error.to_string(), "the router refuses by NAT-PMP: not authorized");
    }

    #[test]
    fn an_outer_address_is_read() {
        let data = [0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 7];
        let Reading::Answer(Ok(ip)) = read_address(&data) else { panic!("it is one") };
        assert_eq!(ip, Ipv4Addr::new(203, 0, 113, 7));
        assert!(matches!(read_address(&data[..10]), Reading::Answer(Err(MapError::Nonsense { .. }))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(data in proptest::collection::vec(any::<u8>(), 0..40), port: u16) {
            let _ = read_address(&data);
            let _ = read_mapping(&data, Transport::Udp, port);
        }
    }
}
