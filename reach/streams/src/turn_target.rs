//! TURN servers that are reached by a stream.

use std::net::SocketAddr;

/// A TURN server that is reached over TCP, or over TLS (RFC 8656, 3.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TurnTarget {
    /// A host name or an IP address, without brackets. If there is a proxy, the proxy resolves it.
    pub host: String,
    /// The port, not 0.
    pub port: u16,
    /// An alternate address that the server has named. Certificates are still checked for `host`.
    pub elsewhere: Option<SocketAddr>,
    /// The accepted certificates; `None` for TCP without TLS.
    pub tls: Option<TurnTls>,
}

/// The certificates of a TURN server that are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TurnTls {
    /// Certificates valid for the host's name in the system's store, or in Mozilla's list if the system has
    /// none.
    Names,
    /// Only the certificate with this SHA-256, whatever names and times are in it.
    Fingerprint([u8; 32]),
}

impl TurnTarget {
    /// Makes a server that is reached over TCP.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, elsewhere: None, tls: None }
    }

    /// Switches to TLS.
    pub fn with_tls(self, tls: TurnTls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Replaces the address by another one, which the server has named.
    pub fn at(self, elsewhere: SocketAddr) -> Self {
        Self { elsewhere: Some(elsewhere), ..self }
    }

    /// Returns the host and port to connect to.
    pub(crate) fn place(&self) -> (String, u16) {
        match self.elsewhere {
            Some(address) => (address.ip().to_string(), address.port()),
            None => (self.host.clone(), self.port),
        }
    }
}
