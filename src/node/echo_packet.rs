//! ICMP echo packets beside those of a device (RFC 792, RFC 4443).

use std::net::IpAddr;

use peersock_stack::fill_checksums;

/// Largest packet: IPv6 routers do not fragment, and each link carries 1,280 bytes (RFC 8200, 5).
const MAX_PACKET: usize = 1280;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const ECHO_HEADER: usize = 8;

/// Identifier and sequence number of an echo request, which its reply has too.
pub(super) type EchoKey = [u8; 4];

/// Echo reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) from: IpAddr,
    pub(super) key: EchoKey,
    /// Bytes of payload.
    pub(super) len: usize,
    pub(super) hop_limit: u8,
}

/// Returns an echo request; `None` if it is too long, or the addresses are of different families.
pub(super) fn request(
    (source, destination): (IpAddr, IpAddr),
    key: EchoKey,
    payload: &[u8],
    hop_limit: u8,
) -> Option<Vec<u8>> {
    let header = if source.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER };
    let total = header + ECHO_HEADER + payload.len();
    if total > MAX_PACKET {
        return None;
    }
    let mut packet = vec![0; total];
    let kind = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            packet[8..10].copy_from_slice(&[hop_limit, 1]);
            packet[12..16].copy_from_slice(&source.octets());
            packet[16..20].copy_from_slice(&destination.octets());
            8
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&((total - header) as u16).to_be_bytes());
            packet[6..8].copy_from_slice(&[58, hop_limit]);
            packet[8..24].copy_from_slice(&source.octets());
            packet[24..40].copy_from_slice(&destination.octets());
            128
        }
        _ => return None,
    };
    packet[header] = kind;
    packet[header + 4..header + 8].copy_from_slice(&key);
    packet[header + ECHO_HEADER..].copy_from_slice(payload);
    fill_checksums(&mut packet);
    Some(packet)
}

/// Reads an echo reply; returns `None` for any other packet, and for one with options or extension headers.
pub(super) fn reply(packet: &[u8]) -> Option<Reply> {
    let (from, protocol, hop_limit, total, header, kind): (IpAddr, _, _, _, _, _) = match *packet.first()? {
        0x45 => {
            let total = usize::from(u16::from_be_bytes(*packet.get(2..)?.first_chunk()?));
            let from: [u8; 4] = *packet.get(12..)?.first_chunk()?;
            // Neither more fragments nor an offset.
            if u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x3fff != 0 {
                return None;
            }
            (from.into(), (packet[9], 1), packet[8], total, IPV4_HEADER, 0)
        }
        first if first >> 4 == 6 => {
            let total = IPV6_HEADER + usize::from(u16::from_be_bytes(*packet.get(4..)?.first_chunk()?));
            let from: [u8; 16] = *packet.get(8..)?.first_chunk()?;
            (from.into(), (packet[6], 58), packet[7], total, IPV6_HEADER, 129)
        }
        _ => return None,
    };
    let echo = packet.get(header..total).filter(|echo| echo.len() >= ECHO_HEADER)?;
    let is_reply = protocol.0 == protocol.1 && echo[0] == kind && echo[1] == 0;
    let key = *echo.get(4..)?.first_chunk()?;
    is_reply.then_some(Reply { from, key, len: echo.len() - ECHO_HEADER, hop_limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: EchoKey = [1, 2, 3, 4];

    /// Turns a request into its reply.
    fn answered(mut packet: Vec<u8>) -> Vec<u8> {
        let (at, kind) = if packet[0] >> 4 == 4 { (IPV4_HEADER, 0) } else { (IPV6_HEADER, 129) };
        packet[at] = kind;
        packet
    }

    fn addresses() -> [(IpAddr, IpAddr); 2] {
        [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")]
            .map(|(one, other)| (one.parse().unwrap(), other.parse().unwrap()))
    }

    #[test]
    fn a_reply_is_told_from_its_request_and_from_whatever_else_comes() {
        for pair in addresses() {
            let sent = request(pair, KEY, b"hello", 64).unwrap();
            assert_eq!(reply(&sent), None, "a request is no reply");
            let came = answered(sent);
            assert_eq!(reply(&came), Some(Reply { from: pair.0, key: KEY, len: 5, hop_limit: 64 }));
            for cut in 0..came.len() {
                assert_eq!(reply(&came[..cut]), None, "cut to {cut}");
            }
            for (at, byte) in came.iter().enumerate() {
                for other in [0, 0xff, byte ^ 1] {
                    let mut changed = came.clone();
                    changed[at] = other;
                    // Must not panic; a changed packet may still be a reply.
                    let _ = reply(&changed);
                }
            }
        }
    }

    #[test]
    fn what_a_link_may_not_carry_is_not_sent() {
        let [v4, v6] = addresses();
        assert!(request(v6, KEY, &[0; 1232], 64).is_some() && request(v6, KEY, &[0; 1233], 64).is_none());
        assert!(request(v4, KEY, &[0; 1252], 64).is_some() && request(v4, KEY, &[0; 1253], 64).is_none());
        assert!(request((v4.0, v6.1), KEY, b"", 64).is_none());
    }
}
