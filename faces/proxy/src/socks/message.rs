//! Messages of SOCKS 5 (RFC 1928) and of its user names and passwords (RFC 1929), as a server reads and
//! writes them.
//!
//! Each is parsed without I/O from the bytes received so far: `None` means that it is incomplete. No message
//! is longer than 513 bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::target::{Host, Target};

const VERSION: u8 = 5;
/// The version of the subnegotiation of RFC 1929.
const LOGIN_VERSION: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Faults in a client's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SocksError {
    /// The message has another version.
    #[error("SOCKS version {0} is not supported")]
    Version(u8),
    /// The message has another version of the subnegotiation of RFC 1929.
    #[error("version {0} of the user name negotiation is not supported")]
    LoginVersion(u8),
    /// The address has an unknown type.
    #[error("the address type {0} is not known")]
    AddressType(u8),
    /// The name cannot be a host name.
    #[error("the host name is invalid")]
    Name,
    /// The datagram ends too early.
    #[error("the datagram is cut off")]
    Short,
}

/// The first message: the authentication methods that the client supports.
///
/// ```
/// use peersock_proxy::socks::Greeting;
///
/// let greeting = Greeting::parse(&[5, 2, 0, 2, 5])?.expect("complete");
/// assert_eq!((greeting.methods, greeting.length), (&[0, 2][..], 4));
/// assert!(Greeting::parse(&[5, 2, 0])?.is_none());
/// # Ok::<(), peersock_proxy::socks::SocksError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Greeting<'a> {
    /// The methods, in the client's order.
    pub methods: &'a [u8],
    /// Length of the message in bytes.
    pub length: usize,
}

impl<'a> Greeting<'a> {
    /// Parses the message; `None` if it is incomplete.
    ///
    /// # Errors
    /// If it has another version.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<Greeting<'a>>, SocksError> {
        check_version(bytes)?;
        let Some(count) = bytes.get(1).copied().map(usize::from) else { return Ok(None) };
        Ok(bytes.get(2..2 + count).map(|methods| Greeting { methods, length: 2 + count }))
    }
}

/// A user name and a password (RFC 1929, 2).
///
/// ```
/// use peersock_proxy::socks::Login;
///
/// let login = Login::parse(b"\x01\x04anna\x02pw")?.expect("complete");
/// assert_eq!((login.user, login.password), (&b"anna"[..], &b"pw"[..]));
/// # Ok::<(), peersock_proxy::socks::SocksError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Login<'a> {
    /// The user's name; may be empty.
    pub user: &'a [u8],
    /// The password; may be empty.
    pub password: &'a [u8],
    /// Length of the message in bytes.
    pub length: usize,
}

impl<'a> Login<'a> {
    /// Parses the message; `None` if it is incomplete.
    ///
    /// # Errors
    /// If it has another version.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<Login<'a>>, SocksError> {
        match bytes.first() {
            None => return Ok(None),
            Some(&LOGIN_VERSION) => {}
            Some(&version) => return Err(SocksError::LoginVersion(version)),
        }
        let part = |at: usize| {
            let length = usize::from(*bytes.get(at)?);
            bytes.get(at + 1..at + 1 + length)
        };
        let Some(user) = part(1) else { return Ok(None) };
        let Some(password) = part(2 + user.len()) else { return Ok(None) };
        Ok(Some(Login { user, password, length: 3 + user.len() + password.len() }))
    }
}

impl std::fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login([redacted])")
    }
}

/// A client's request (RFC 1928, 4).
///
/// ```
/// use peersock_proxy::socks::{Command, Request};
///
/// let request = Request::parse(b"\x05\x01\x00\x03\x05alpha\x00\x50")?.expect("complete");
/// assert_eq!(request.command, Command::Connect);
/// assert_eq!(request.target.to_string(), "alpha:80");
/// # Ok::<(), peersock_proxy::socks::SocksError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The command.
    pub command: Command,
    /// The host and port.
    pub target: Target,
    /// Length of the message in bytes.
    pub length: usize,
}

/// A command of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// CONNECT: a connection to the target.
    Connect,
    /// BIND: a connection from the target.
    Bind,
    /// UDP ASSOCIATE: datagrams to any target.
    Associate,
    /// A command that is not in RFC 1928.
    Unknown(u8),
}

impl Request {
    /// Parses the message; `None` if it is incomplete.
    ///
    /// # Errors
    /// If it has another version, or an invalid address.
    pub fn parse(bytes: &[u8]) -> Result<Option<Request>, SocksError> {
        check_version(bytes)?;
        let Some(command) = bytes.get(1) else { return Ok(None) };
        let command = match command {
            1 => Command::Connect,
            2 => Command::Bind,
            3 => Command::Associate,
            other => Command::Unknown(*other),
        };
        let Some(address) = bytes.get(3..) else { return Ok(None) };
        let parsed = parse_target(address)?;
        Ok(parsed.map(|(target, length)| Request { command, target, length: 3 + length }))
    }
}

/// Header of a datagram between the client and the server (RFC 1928, 7).
///
/// ```
/// use peersock_proxy::socks::DatagramHeader;
///
/// let datagram = b"\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x35question";
/// let header = DatagramHeader::parse(datagram)?;
/// assert_eq!((header.target.to_string().as_str(), header.fragment), ("192.0.2.1:53", 0));
/// assert_eq!(&datagram[header.length..], b"question");
/// # Ok::<(), peersock_proxy::socks::SocksError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatagramHeader {
    /// The number of the fragment; 0 if the datagram is not fragmented.
    pub fragment: u8,
    /// The destination of the datagram.
    pub target: Target,
    /// Length of the header in bytes: the datagram follows it.
    pub length: usize,
}

impl DatagramHeader {
    /// Parses the header of a datagram.
    ///
    /// # Errors
    /// If it is cut off, or has an invalid address.
    pub fn parse(datagram: &[u8]) -> Result<DatagramHeader, SocksError> {
        let (Some(fragment), Some(address)) = (datagram.get(2), datagram.get(3..)) else {
            return Err(SocksError::Short);
        };
        let (target, length) = parse_target(address)?.ok_or(SocksError::Short)?;
        Ok(DatagramHeader { fragment: *fragment, target, length: 3 + length })
    }

    /// Encodes the header of a datagram from `source`.
    pub fn emit(source: SocketAddr) -> Vec<u8> {
        let mut header = vec![0, 0, 0];
        emit_address(&mut header, source);
        header
    }
}

/// The reply to a client's request (RFC 1928, 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Succeeded = 0,
    Failure = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    Refused = 5,
    TtlExpired = 6,
    CommandNotSupported = 7,
    AddressTypeNotSupported = 8,
}

impl Reply {
    /// Encodes the message, with the address that belongs to it.
    pub(crate) fn emit(self, bound: SocketAddr) -> Vec<u8> {
        let mut message = vec![VERSION, self as u8, 0];
        emit_address(&mut message, bound);
        message
    }

    /// Encodes the message for a failed request.
    pub(crate) fn emit_refusal(self) -> Vec<u8> {
        self.emit((Ipv4Addr::UNSPECIFIED, 0).into())
    }
}

fn check_version(bytes: &[u8]) -> Result<(), SocksError> {
    match bytes.first() {
        Some(&version) if version != VERSION => Err(SocksError::Version(version)),
        _ => Ok(()),
    }
}

/// Parses a type, an address and a port. Also returns their length.
fn parse_target(bytes: &[u8]) -> Result<Option<(Target, usize)>, SocksError> {
    let Some(&kind) = bytes.first() else { return Ok(None) };
    let rest = &bytes[1..];
    let (host, length) = match kind {
        IPV4 => {
            let Some(octets) = rest.first_chunk::<4>() else { return Ok(None) };
            (Host::Ip(Ipv4Addr::from(*octets).into()), 4)
        }
        IPV6 => {
            let Some(octets) = rest.first_chunk::<16>() else { return Ok(None) };
            (Host::Ip(IpAddr::from(Ipv6Addr::from(*octets)).to_canonical()), 16)
        }
        NAME => {
            let Some(&length) = rest.first() else { return Ok(None) };
            let length = usize::from(length);
            let Some(name) = rest.get(1..1 + length) else { return Ok(None) };
            let name = str::from_utf8(name).map_err(|_| SocksError::Name)?;
            // Some clients send addresses as names.
            (Host::parse(name).ok_or(SocksError::Name)?, 1 + length)
        }
        kind => return Err(SocksError::AddressType(kind)),
    };
    let Some(port) = rest.get(length..length + 2) else { return Ok(None) };
    let port = u16::from_be_bytes([port[0], port[1]]);
    Ok(Some((Target { host, port }, 1 + length + 2)))
}

fn emit_address(message: &mut Vec<u8>, address: SocketAddr) {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            message.push(IPV4);
            message.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            message.push(IPV6);
            message.extend_from_slice(&ip.octets());
        }
    }
    message.extend_from_slice(&address.port().to_be_bytes());
}

#[cfg(test)]
mod tests;
