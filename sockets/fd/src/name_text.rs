//! Writing and parsing of the parts of names.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::name::{Details, Family, PacketInfo, SocketId};

/// The digits of RFC 4648 5.
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Numbers of base64 digits of 64 and of 128 bits.
pub(crate) const SEAL_DIGITS: u32 = 11;
const IPV6_DIGITS: u32 = 22;

pub(crate) fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

pub(crate) fn write_address(f: &mut fmt::Formatter<'_>, address: &SocketAddr) -> fmt::Result {
    write_ip(f, address.ip())?;
    write!(f, "{:04x}", address.port())
}

pub(crate) fn write_ip(f: &mut fmt::Formatter<'_>, ip: IpAddr) -> fmt::Result {
    match ip {
        IpAddr::V4(ip) => write!(f, "{:08x}", ip.to_bits()),
        IpAddr::V6(ip) => write!(f, "{:032x}", ip.to_bits()),
    }
}

/// Writes base64 where hexadecimal digits would be too many.
pub(crate) fn write_base64(f: &mut fmt::Formatter<'_>, value: u128, digits: u32) -> fmt::Result {
    (0..digits).rev().try_for_each(|at| {
        let digit = BASE64[(value >> (6 * at)) as usize % BASE64.len()];
        fmt::Write::write_char(f, digit.into())
    })
}

/// Writes a mask of the fields present, and then these fields.
pub(crate) fn write_details(f: &mut fmt::Formatter<'_>, details: &Details) -> fmt::Result {
    let Details { packet_info, hop_limit, traffic_class, path_mtu, digest, segment: _ } = details;
    if let Some(path_mtu) = path_mtu {
        return write!(f, "8{path_mtu:08x}");
    }
    if let Some(digest) = digest {
        f.write_str("9")?;
        return write_base64(f, (*digest).into(), SEAL_DIGITS);
    }
    let present = [packet_info.is_some(), hop_limit.is_some(), traffic_class.is_some()];
    write!(f, "{:x}", (0..3).map(|bit| u8::from(present[bit]) << bit).sum::<u8>())?;
    if let Some(PacketInfo { local, interface }) = packet_info {
        match local {
            IpAddr::V4(_) => write_ip(f, *local)?,
            IpAddr::V6(local) => write_base64(f, local.to_bits(), IPV6_DIGITS)?,
        }
        write!(f, "{interface:04x}")?;
    }
    [hop_limit, traffic_class].into_iter().flatten().try_for_each(|octet| write!(f, "{octet:02x}"))
}

/// The part of a name that is left to parse.
pub(crate) struct Text<'a>(pub(crate) &'a str);

impl<'a> Text<'a> {
    pub(crate) fn take(&mut self, length: usize) -> Option<&'a str> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn rest(&mut self, wanted: &str) -> Option<()> {
        let matches = self.0 == wanted;
        self.0 = "";
        matches.then_some(())
    }

    pub(crate) fn slash(&mut self) -> Option<()> {
        (self.take(1)? == "/").then_some(())
    }

    pub(crate) fn hex(&mut self, digits: usize) -> Option<u128> {
        let digits = self.take(digits)?;
        let plain = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        u128::from_str_radix(digits, 16).ok().filter(|_| plain)
    }

    pub(crate) fn base64(&mut self, digits: u32) -> Option<u128> {
        let value = |byte| BASE64.iter().position(|digit| *digit == byte).map(|value| value as u128);
        let text = self.take(digits as usize)?;
        text.bytes().try_fold(0u128, |sum, byte| sum.checked_mul(1 << 6)?.checked_add(value(byte)?))
    }

    pub(crate) fn family_and_id(&mut self) -> Option<(Family, SocketId)> {
        let family = match self.take(1)? {
            "4" => Family::V4,
            "6" => Family::V6,
            _ => return None,
        };
        self.slash()?;
        let id = SocketId(self.hex(12)? as u64);
        self.slash()?;
        Some((family, id))
    }

    pub(crate) fn ip(&mut self, family: Family) -> Option<IpAddr> {
        Some(match family {
            Family::V4 => Ipv4Addr::from_bits(self.hex(8)? as u32).into(),
            Family::V6 => Ipv6Addr::from_bits(self.hex(32)?).into(),
        })
    }

    pub(crate) fn address(&mut self, family: Family) -> Option<SocketAddr> {
        let ip = self.ip(family)?;
        Some(SocketAddr::new(ip, self.hex(4)? as u16))
    }

    pub(crate) fn details(&mut self, family: Family) -> Option<Details> {
        let present = self.hex(1)?;
        match present {
            0..=7 => {}
            8 => {
                return Some(Details { path_mtu: Some(self.hex(8)? as u32), ..Details::default() });
            }
            9 => {
                let digest = u64::try_from(self.base64(SEAL_DIGITS)?).ok()?;
                return Some(Details { digest: Some(digest), ..Details::default() });
            }
            _ => return None,
        }
        let mut details = Details::default();
        if present & 1 != 0 {
            let local = match family {
                Family::V4 => self.ip(family)?,
                Family::V6 => Ipv6Addr::from_bits(self.base64(IPV6_DIGITS)?).into(),
            };
            details.packet_info = Some(PacketInfo { local, interface: self.hex(4)? as u16 });
        }
        if present & 2 != 0 {
            details.hop_limit = Some(self.hex(2)? as u8);
        }
        if present & 4 != 0 {
            details.traffic_class = Some(self.hex(2)? as u8);
        }
        Some(details)
    }
}
