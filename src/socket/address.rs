//! Addresses in the form that users write.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::node::Inner;

/// Conversion to overlay addresses: socket addresses, `(address, port)` pairs, and texts such as
/// `"[fd12:…]:80"` or `"alpha:80"`, where `alpha` is a member's name in a static network.
///
/// Names are never passed to the system's resolver.
///
/// ```
/// fn takes(_: impl peersock::ToSocketAddrs) {}
/// takes("[fd00::1]:80");
/// takes(("alpha", 80));
/// takes(std::net::SocketAddr::from(([10, 7, 0, 1], 80)));
/// ```
pub trait ToSocketAddrs {
    /// Returns the address as written.
    #[doc(hidden)]
    fn spelled(&self) -> Spelled;
}

/// Address as written, before names are looked up.
#[doc(hidden)]
#[derive(Debug, Clone)]
pub enum Spelled {
    Addresses(Vec<SocketAddr>),
    Name(String, u16),
    Invalid(String),
}

impl Spelled {
    fn one(address: impl Into<SocketAddr>) -> Spelled {
        Spelled::Addresses(vec![address.into()])
    }

    fn host(host: &str, port: u16) -> Spelled {
        // A pair may have an IPv6 address with brackets, as URIs do.
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(ip) => Spelled::one((ip, port)),
            Err(_) => Spelled::Name(host.to_owned(), port),
        }
    }

    fn text(text: &str) -> Spelled {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Spelled::one(address);
        }
        match text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u16>())) {
            Some((host, Ok(port))) if !host.is_empty() => Spelled::host(host, port),
            _ => Spelled::Invalid(text.to_owned()),
        }
    }
}

/// Converts the user's text to addresses, at least one.
pub(crate) fn resolve(node: &Inner, address: &impl ToSocketAddrs) -> io::Result<Vec<SocketAddr>> {
    let invalid = |message| io::Error::new(io::ErrorKind::InvalidInput, message);
    let addresses = match address.spelled() {
        Spelled::Addresses(addresses) => addresses,
        Spelled::Name(name, port) => {
            let datapath = &node.driver.datapath;
            let found =
                crate::node::addresses_named(node, &name, (&datapath.networks(), &node.local_names()));
            if found.is_empty() {
                let message = format!("no member of the joined networks is named `{name}`");
                return Err(io::Error::new(io::ErrorKind::NotFound, message));
            }
            found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
        }
        Spelled::Invalid(text) => {
            return Err(invalid(format!(
                "`{text}` is no address with a port, such as [fd00::1]:80 or name:80"
            )));
        }
    };
    if addresses.is_empty() {
        return Err(invalid("no address was given".to_owned()));
    }
    Ok(addresses)
}

macro_rules! spelled_as_address {
    ($($type:ty),* $(,)?) => {$(
        impl ToSocketAddrs for $type {
            fn spelled(&self) -> Spelled {
                Spelled::one(*self)
            }
        }
    )*};
}

spelled_as_address!(SocketAddr, SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

impl ToSocketAddrs for [SocketAddr] {
    fn spelled(&self) -> Spelled {
        Spelled::Addresses(self.to_vec())
    }
}

impl ToSocketAddrs for (&str, u16) {
    fn spelled(&self) -> Spelled {
        Spelled::host(self.0, self.1)
    }
}

impl ToSocketAddrs for (String, u16) {
    fn spelled(&self) -> Spelled {
        Spelled::host(&self.0, self.1)
    }
}

impl ToSocketAddrs for str {
    fn spelled(&self) -> Spelled {
        Spelled::text(self)
    }
}

impl ToSocketAddrs for String {
    fn spelled(&self) -> Spelled {
        Spelled::text(self)
    }
}

impl<T: ToSocketAddrs + ?Sized> ToSocketAddrs for &T {
    fn spelled(&self) -> Spelled {
        (**self).spelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_names_are_told_apart() {
        assert!(
            matches!("[fd00::1]:80".spelled(), Spelled::Addresses(a) if a == ["[fd00::1]:80".parse().unwrap()])
        );
        assert!(
            matches!("10.0.0.1:9".spelled(), Spelled::Addresses(a) if a == ["10.0.0.1:9".parse().unwrap()])
        );
        assert!(
            matches!(("fd00::1", 7).spelled(), Spelled::Addresses(a) if a == ["[fd00::1]:7".parse().unwrap()])
        );
        assert!(matches!("alpha:80".spelled(), Spelled::Name(name, 80) if name == "alpha"));
        for bad in ["", "alpha", ":80", "alpha:", "alpha:http", "[fd00::1]", "10.0.0.1:65536"] {
            assert!(matches!(bad.spelled(), Spelled::Invalid(_)), "{bad}");
        }
    }
}
