//! Source and destination address in an inner packet's header.

use std::net::IpAddr;

pub(super) fn source_address(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => address::<4>(packet, 12),
        _ => address::<16>(packet, 8),
    }
}

pub(super) fn destination_address(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => address::<4>(packet, 16),
        _ => address::<16>(packet, 24),
    }
}

fn address<const N: usize>(packet: &[u8], at: usize) -> Option<IpAddr>
where
    IpAddr: From<[u8; N]>,
{
    Some(<[u8; N]>::try_from(packet.get(at..at + N)?).ok()?.into())
}
