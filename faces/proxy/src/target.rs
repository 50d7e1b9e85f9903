//! The target of a client: a host and a port.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use peersock_primitives::is_deceptive;

/// Longest name of a host in bytes (RFC 1035, 2.3.4).
const MAX_NAME_BYTES: usize = 255;

/// A host: an address, or a name of a member or of the DNS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address. An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) becomes the IPv4 address.
    Ip(IpAddr),
    /// A name that is no address.
    Name(String),
}

impl Host {
    /// Parses an address, in brackets or not, or a name; `None` for other texts.
    pub fn parse(text: &str) -> Option<Host> {
        if let Some(inner) = text.strip_prefix('[') {
            let address: Ipv6Addr = inner.strip_suffix(']')?.parse().ok()?;
            return Some(Host::Ip(IpAddr::from(address).to_canonical()));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Host::Ip(address.to_canonical()));
        }
        let is_plain =
            |c: char| !is_deceptive(c) && !c.is_whitespace() && !"[]:/\\@%?#\"<>^`{|}*,".contains(c);
        let is_name = !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.chars().all(is_plain);
        is_name.then(|| Host::Name(text.to_owned()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Host::Ip(IpAddr::V4(address)) => address.fmt(f),
            Host::Name(name) => f.write_str(name),
        }
    }
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl Target {
    /// Returns the addresses that the system knows for the host.
    pub(crate) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.host {
            Host::Ip(address) => Ok(vec![SocketAddr::new(*address, self.port)]),
            Host::Name(name) => peersock_primitives::resolve(name, self.port).await,
        }
    }

    /// Parses `[IPV6]:PORT`, `IPV4:PORT` and `NAME:PORT`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Target> {
        let (host, port) = text.rsplit_once(':')?;
        // Without brackets the end of an IPv6 address cannot be distinguished from the port.
        if host.contains(':') && !host.starts_with('[') {
            return None;
        }
        Some(Target { host: Host::parse(host)?, port: parse_port(port)? })
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Target {
        Target { host: Host::Ip(address.ip().to_canonical()), port: address.port() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Parses a port number: digits only.
pub(crate) fn parse_port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_understood_or_refused() {
        for text in ["[fd00::1]:80", "192.0.2.1:65535", "alpha:0", "a-b.example:443", "münchen:1"] {
            assert_eq!(Target::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(Target::parse("[::ffff:192.0.2.1]:1").unwrap().to_string(), "192.0.2.1:1");
        for text in [
            "",
            ":",
            ":80",
            "alpha",
            "alpha:",
            "alpha:+1",
            "alpha:65536",
            "fd00::1:80",
            "[fd00::1]",
            "[x]:1",
            "[fd00::1:80",
            "a b:1",
            "a\0:1",
            "a/b:1",
            "u@a:1",
            "[192.0.2.1]:80",
            "*:80",
            "fe80::1%lo:1",
            "a\u{202e}b:1",
            "a\u{200b}b:1",
            "a\u{feff}b:1",
            "a\u{e0041}b:1",
        ] {
            assert_eq!(Target::parse(text), None, "{text}");
        }
        assert_eq!(Host::parse(&"x".repeat(256)), None);
    }
}
