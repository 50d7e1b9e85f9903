//! Text of a root: its keys, and its endpoints.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use peersock_overlay::{ParseIdentityError, PublicIdentity, is_endpoint};
use thiserror::Error;

use super::{Feature, HostEndpoint, ParseEndpointError};

/// Root, as its operator gives it to others: `KEY@ENDPOINT[,ENDPOINT..]`. `KEY` is the root's public
/// identity. Each endpoint is an address or host name with a port, after `tcp:`, `tls:` or `wss:` unless it
/// is for UDP. Texts of several roots are separated by white space.
///
/// ```
/// use peersock::RootAddress;
/// use peersock::overlay::Identity;
///
/// let key = Identity::from_seed(&[7; 32]).public().to_string();
/// let text = format!("{key}@192.0.2.1:7420,[2001:db8::1]:7420,wss:root.example.org:443");
/// let root: RootAddress = text.parse()?;
/// assert_eq!((root.endpoints().len(), root.to_string()), (3, text.clone()));
///
/// let two = format!("{text}\n{key}@192.0.2.2:7420");
/// assert_eq!(RootAddress::parse_list(&two)?.len(), 2);
/// # Ok::<(), peersock::ParseRootError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RootAddress {
    identity: PublicIdentity,
    endpoints: Vec<RootEndpoint>,
    token: Option<Token>,
    is_listed: bool,
}

/// Access token of a root.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Token(Vec<u8>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Debug output may end up in logs.
        f.write_str("[redacted]")
    }
}

/// Endpoint of a root.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RootEndpoint {
    /// Transport of the datagrams.
    pub transport: RootTransport,
    at: At,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum At {
    Address(SocketAddr),
    Host(HostEndpoint),
}

/// Transport of datagrams between a node and a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RootTransport {
    /// UDP, the usual one.
    Udp,
    /// TCP, with a length before each datagram.
    Tcp,
    /// TCP inside TLS.
    Tls,
    /// Messages of a WebSocket inside TLS (RFC 6455), which pass proxies that allow only HTTPS.
    WebSocket,
}

/// Reason why a text is no root.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParseRootError {
    /// The `@` is missing.
    #[error("a root is written KEY@HOST:PORT, as `peersock root` prints it; this has no @")]
    NoKey,
    /// The part before the `@` is no public identity.
    #[error("the key of the root is wrong: {0}")]
    Key(#[from] ParseIdentityError),
    /// An endpoint is neither an address nor a host name with a port.
    #[error("`{0}` is no endpoint of a root: write HOST:PORT for UDP, or put tcp:, tls: or wss: before it")]
    Endpoint(String),
    /// The part after the endpoints is no access token of 1 to 255 bytes.
    #[error("after its endpoints a root has ?token=TEXT or nothing, with a text of 1 to 255 bytes")]
    Token,
    /// The part after `dns:` is no domain.
    #[error("`{0}` is not a domain with a list of roots: write dns:DOMAIN, or dns:DOMAIN@NAMESERVER")]
    Domain(String),
}

impl RootAddress {
    /// Limit of endpoints of one root; further ones are an error.
    pub const MAX_ENDPOINTS: usize = 16;

    /// Limit of bytes of an access token.
    pub const MAX_TOKEN: usize = 255;

    /// Returns a root with these keys and endpoints.
    pub fn new(identity: PublicIdentity, endpoints: Vec<RootEndpoint>) -> Self {
        Self { identity, endpoints, token: None, is_listed: false }
    }

    /// Returns the same root with an access token, which it demands at registration.
    ///
    /// # Errors
    /// Returns [`ParseRootError::Token`] unless it has 1 to 255 bytes.
    pub fn with_token(self, token: impl Into<Vec<u8>>) -> Result<Self, ParseRootError> {
        let token = token.into();
        match token.len() {
            1..=Self::MAX_TOKEN => Ok(Self { token: Some(Token(token)), ..self }),
            _ => Err(ParseRootError::Token),
        }
    }

    /// Returns the root with the token of another entry of it, unless it has one. Both have one key, so the
    /// token reaches that root alone.
    pub(crate) fn with_token_of(self, former: &RootAddress) -> Self {
        let token = self.token.clone().or_else(|| former.token.clone());
        Self { token, ..self }
    }

    /// Marks the root as named by a list, which an untrusted party may have written.
    pub(crate) fn listed(self) -> Self {
        Self { is_listed: true, ..self }
    }

    pub(crate) fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// Returns the access token. It is a secret: neither [`Display`](fmt::Display) nor [`Debug`](fmt::Debug)
    /// writes it.
    pub fn token(&self) -> Option<&[u8]> {
        self.token.as_ref().map(|token| token.0.as_slice())
    }

    /// Returns the root's public keys. Only the holder of their secret half is this root.
    pub fn identity(&self) -> &PublicIdentity {
        &self.identity
    }

    /// Returns the root's endpoints.
    pub fn endpoints(&self) -> &[RootEndpoint] {
        &self.endpoints
    }

    /// Reads the texts of several roots, with white space between them.
    ///
    /// # Errors
    /// Returns the [`ParseRootError`] of the first wrong text.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, ParseRootError> {
        text.split_whitespace().map(str::parse).collect()
    }
}

impl fmt::Display for RootAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the token, which is a secret.
        write!(f, "{}@", self.identity)?;
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{endpoint}")?;
        }
        Ok(())
    }
}

impl FromStr for RootAddress {
    type Err = ParseRootError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, endpoints) = text.split_once('@').ok_or(ParseRootError::NoKey)?;
        let identity = key.parse()?;
        let (endpoints, token) = match endpoints.split_once('?') {
            Some((endpoints, rest)) => (endpoints, Some(parse_token(rest)?)),
            None => (endpoints, None),
        };
        let endpoints: Vec<RootEndpoint> = endpoints.split(',').map(str::parse).collect::<Result<_, _>>()?;
        if endpoints.len() > Self::MAX_ENDPOINTS {
            return Err(ParseRootError::Endpoint(endpoints[Self::MAX_ENDPOINTS].to_string()));
        }
        let root = Self::new(identity, endpoints);
        match token {
            Some(token) => root.with_token(token),
            None => Ok(root),
        }
    }
}

fn parse_token(text: &str) -> Result<Vec<u8>, ParseRootError> {
    let mut rest = text.strip_prefix("token=").ok_or(ParseRootError::Token)?.bytes();
    let mut token = Vec::new();
    while let Some(byte) = rest.next() {
        token.push(match byte {
            // Percent-encoding allows white space, which separates texts of roots.
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = digit().zip(digit()).ok_or(ParseRootError::Token)?;
                (high << 4 | low) as u8
            }
            byte => byte,
        });
    }
    Ok(token)
}

impl RootEndpoint {
    /// Returns an endpoint with an address and a transport.
    pub fn at(transport: RootTransport, address: SocketAddr) -> Self {
        Self { transport, at: At::Address(address) }
    }

    /// Returns an endpoint with a host name and a transport.
    pub fn named(transport: RootTransport, host: HostEndpoint) -> Self {
        Self { transport, at: At::Host(host) }
    }

    /// Returns the address, unless it is a host name.
    pub fn address(&self) -> Option<SocketAddr> {
        match self.at {
            At::Address(address) => Some(address),
            At::Host(_) => None,
        }
    }

    /// Returns the host name with its port, unless it is an address.
    pub fn host_endpoint(&self) -> Option<&HostEndpoint> {
        match &self.at {
            At::Address(_) => None,
            At::Host(host) => Some(host),
        }
    }

    /// Returns the host name, or the IP address as text.
    pub fn host(&self) -> String {
        match &self.at {
            At::Address(address) => address.ip().to_string(),
            At::Host(host) => host.host().to_owned(),
        }
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        match &self.at {
            At::Address(address) => address.port(),
            At::Host(host) => host.port(),
        }
    }
}

impl fmt::Display for RootEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.transport != RootTransport::Udp {
            write!(f, "{}:", self.transport)?;
        }
        match &self.at {
            At::Address(address) => address.fmt(f),
            At::Host(host) => host.fmt(f),
        }
    }
}

impl FromStr for RootEndpoint {
    type Err = ParseRootError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseRootError::Endpoint(text.to_owned());
        let schemes = [RootTransport::Tcp, RootTransport::Tls, RootTransport::WebSocket];
        let scheme = schemes.into_iter().find_map(|transport| {
            let rest = text.strip_prefix(transport.name())?.strip_prefix(':')?;
            // A host may be named `tcp`, so only two colons make it a scheme.
            rest.contains(':').then_some((transport, rest))
        });
        let (transport, place) = scheme.unwrap_or((RootTransport::Udp, text));
        if let Ok(address) = place.parse::<SocketAddr>() {
            return if is_endpoint(&address) { Ok(Self::at(transport, address)) } else { Err(wrong()) };
        }
        let host: HostEndpoint = place.parse().map_err(|_: ParseEndpointError| wrong())?;
        Ok(Self::named(transport, host))
    }
}

impl RootTransport {
    /// Returns the name that precedes an endpoint.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::WebSocket => "wss",
        }
    }

    /// Returns the feature of the crate that this transport needs.
    pub(super) fn feature(self) -> Option<Feature> {
        match self {
            Self::Udp => None,
            Self::Tcp => Some(Feature::Streams),
            Self::Tls | Self::WebSocket => Some(Feature::Tls),
        }
    }
}

impl fmt::Display for RootTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use peersock_overlay::Identity;

    use super::*;

    fn key() -> String {
        Identity::from_seed(&[7; 32]).public().to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        for endpoints in
            ["192.0.2.1:7420", "[2001:db8::1]:7420,tcp:192.0.2.1:80", "tcp:7420", "wss:a.b:443,x:1"]
        {
            let text = format!("{}@{endpoints}", key());
            let root: RootAddress = text.parse().expect("a root");
            assert_eq!(root.to_string(), text);
        }
        let host: RootEndpoint = "tcp:7420".parse().expect("a host that is called tcp");
        assert_eq!((host.transport, host.host(), host.port()), (RootTransport::Udp, "tcp".into(), 7420));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let parse = |text: &str| text.parse::<RootAddress>().expect_err("an error");
        assert_eq!(parse("192.0.2.1:7420"), ParseRootError::NoKey);
        assert!(matches!(parse("short@192.0.2.1:7420"), ParseRootError::Key(_)));
        for endpoint in ["", "192.0.2.1", "192.0.2.1:0", "224.0.0.1:7420", "a b:1", "quic:x:1", "tls:x"] {
            let wrong = format!("{}@{endpoint}", key());
            assert_eq!(parse(&wrong), ParseRootError::Endpoint(endpoint.to_owned()), "{endpoint}");
        }
        let many = vec!["192.0.2.1:1"; 17].join(",");
        assert!(matches!(parse(&format!("{}@{many}", key())), ParseRootError::Endpoint(_)));
    }

    #[test]
    fn a_token_is_read_and_shown_to_nobody() {
        let text = format!("{}@192.0.2.1:7420?token=a%20b%25%FF=?c", key());
        let root: RootAddress = text.parse().expect("a root");
        assert_eq!(root.token(), Some(&b"a b%\xff=?c"[..]));
        let shown = format!("{root} {root:?}");
        assert!(!shown.contains("token=") && !shown.contains("97"), "{shown}");
        let long = format!("token={}", "x".repeat(256));
        for wrong in ["", "token=", "token=%4", "token=%zz", "tokn=x", &long] {
            let text = format!("{}@192.0.2.1:7420?{wrong}", key());
            assert_eq!(text.parse::<RootAddress>(), Err(ParseRootError::Token), "{wrong}");
        }
    }

    #[test]
    fn a_list_may_be_empty() {
        assert_eq!(RootAddress::parse_list(" \n "), Ok(Vec::new()));
    }
}
