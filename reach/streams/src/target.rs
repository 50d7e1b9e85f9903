//! Targets of a client's connections.

use std::fmt;
use std::net::IpAddr;

/// The transport that carries the datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// TCP; each datagram follows its length.
    Tcp,
    /// The same inside TLS 1.3.
    Tls,
    /// Messages of a WebSocket inside TLS 1.3.
    WebSocket,
}

impl Transport {
    /// Returns the prefix of a root's endpoint that names this transport.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::WebSocket => "wss",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One way to a root by a stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The transport of the datagrams.
    pub transport: Transport,
    /// A host name or an IP address, without brackets. If there is a proxy, the proxy resolves it.
    pub host: String,
    /// The port, not 0.
    pub port: u16,
    /// The Ed25519 half of the root's identity. A certificate made with it is accepted regardless of its
    /// names. Without a key only certificates valid for `host` are accepted. TCP has no certificates.
    pub key: Option<[u8; 32]>,
}

impl Target {
    /// Makes a target without a key.
    pub fn new(transport: Transport, host: impl Into<String>, port: u16) -> Self {
        Self { transport, host: host.into(), port, key: None }
    }

    /// Adds the key of the root.
    pub fn with_key(self, key: [u8; 32]) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Returns `HOST:PORT`, with brackets around IPv6 addresses.
    pub(crate) fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.transport, self.authority())
    }
}

/// Returns `HOST:PORT`, with brackets around IPv6 addresses.
pub(crate) fn authority(host: &str, port: u16) -> String {
    match host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}
