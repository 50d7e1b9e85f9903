//! IP addresses.

use std::fmt;
use std::net::{self, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use nix::net::if_::{if_indextoname, if_nametoindex};

use crate::AddressError;

/// Largest flow label (RFC 6437).
const MAX_FLOW: u32 = 0xF_FFFF;

/// An IP address, with the zone of an IPv6 address.
///
/// The default holds no address and has an empty text: it means every local address to listeners, and this
/// machine to dialers. An IPv4-mapped IPv6 address is converted to IPv4.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct IpAddr {
    ip: Option<net::IpAddr>,
    zone: String,
    flowinfo: u32,
}

impl IpAddr {
    /// Returns the same address in a zone, which is an interface's name or index; an empty zone is none.
    ///
    /// # Errors
    /// The address is not IPv6, or the zone contains `%` or NUL.
    pub fn with_zone(mut self, zone: impl Into<String>) -> Result<IpAddr, AddressError> {
        self.zone = zone.into();
        if !self.zone.is_empty() && !self.is_ipv6() {
            return Err(AddressError::new("a zone goes with an IPv6 address", self));
        }
        if self.zone.contains(['%', '\0']) {
            return Err(AddressError::new("no IP address", self));
        }
        Ok(self)
    }

    /// Returns the same address with a flow label, from 0 to 0xFFFFF.
    ///
    /// # Errors
    /// The label is out of range, or it is not 0 and the address is not IPv6.
    pub fn with_flowinfo(mut self, flowinfo: u32) -> Result<IpAddr, AddressError> {
        if flowinfo > MAX_FLOW || (flowinfo != 0 && !self.is_ipv6()) {
            return Err(AddressError::new(format!("flow label {flowinfo:#x} does not fit"), self));
        }
        self.flowinfo = flowinfo;
        Ok(self)
    }

    /// Returns the address without its zone; `None` if it is unspecified.
    pub fn ip(&self) -> Option<net::IpAddr> {
        self.ip
    }

    /// Returns the interface that an IPv6 address belongs to, by name or index; empty if there is none.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// Returns the flow label of an IPv6 address.
    pub fn flowinfo(&self) -> u32 {
        self.flowinfo
    }

    /// Returns true if the address is IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.ip.is_some_and(|ip| ip.is_ipv6())
    }

    /// Returns the index of the zone's interface; 0 without a zone.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn scope_id(&self) -> Result<u32, AddressError> {
        if self.zone.is_empty() {
            return Ok(0);
        }
        if self.zone.bytes().all(|digit| digit.is_ascii_digit()) {
            let index = self.zone.parse();
            return index.map_err(|_| AddressError::new("there is no such interface", self));
        }
        let none = |_| AddressError::new(format!("there is no interface {}", self.zone), self);
        if_nametoindex(self.zone.as_str()).map_err(none)
    }

    /// Returns the standard library's address with this port, `[::]` if the address is unspecified. The flow
    /// label is in network byte order, because kernel sockets expect that.
    ///
    /// # Errors
    /// The zone names no existing interface.
    pub(crate) fn to_socket_addr(&self, port: u16) -> Result<SocketAddr, AddressError> {
        Ok(match self.ip {
            None => (Ipv6Addr::UNSPECIFIED, port).into(),
            Some(net::IpAddr::V4(ip)) => (ip, port).into(),
            Some(net::IpAddr::V6(ip)) => {
                SocketAddrV6::new(ip, port, self.flowinfo.to_be(), self.scope_id()?).into()
            }
        })
    }
}

impl From<net::IpAddr> for IpAddr {
    fn from(ip: net::IpAddr) -> IpAddr {
        IpAddr { ip: Some(ip.to_canonical()), zone: String::new(), flowinfo: 0 }
    }
}

impl From<Ipv4Addr> for IpAddr {
    fn from(ip: Ipv4Addr) -> IpAddr {
        net::IpAddr::V4(ip).into()
    }
}

impl From<Ipv6Addr> for IpAddr {
    fn from(ip: Ipv6Addr) -> IpAddr {
        net::IpAddr::V6(ip).into()
    }
}

impl From<SocketAddr> for IpAddr {
    /// Converts a socket's address; the zone becomes the interface's name, if it has one.
    fn from(address: SocketAddr) -> IpAddr {
        let mut found = IpAddr::from(address.ip());
        if let (SocketAddr::V6(address), true) = (address, found.is_ipv6()) {
            found.flowinfo = u32::from_be(address.flowinfo()) & MAX_FLOW;
            found.zone = zone_of(address.scope_id());
        }
        found
    }
}

fn zone_of(scope: u32) -> String {
    if scope == 0 {
        return String::new();
    }
    let name = if_indextoname(scope).ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| scope.to_string())
}

impl fmt::Display for IpAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            None => Ok(()),
            Some(ip) if self.zone.is_empty() => ip.fmt(f),
            Some(ip) => write!(f, "{ip}%{}", self.zone),
        }
    }
}

impl FromStr for IpAddr {
    type Err = AddressError;

    /// Parses an address, with or without `%zone`; an empty text is the unspecified address. Rejects
    /// abbreviations such as `127.1`.
    fn from_str(text: &str) -> Result<IpAddr, AddressError> {
        if text.is_empty() {
            return Ok(IpAddr::default());
        }
        let none = || AddressError::new("no IP address", text);
        let Some((ip, zone)) = text.split_once('%') else {
            return text.parse::<net::IpAddr>().map(IpAddr::from).map_err(|_| none());
        };
        // An address with a zone stays IPv6, even if it is IPv4-mapped.
        let ip = match ip.parse() {
            Ok(ip) if zone.is_empty() => return Err(AddressError::new("a zone has a name", ip)),
            Ok(ip) => ip,
            Err(_) => return Err(none()),
        };
        IpAddr { ip: Some(ip), ..IpAddr::default() }.with_zone(zone)
    }
}
