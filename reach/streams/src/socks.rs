//! Messages of SOCKS 5 (RFC 1928), and of its user names and passwords (RFC 1929), for clients and servers.
//!
//! Each message is parsed without I/O from the bytes received so far: `None` means that it is incomplete. No
//! message is longer than 513 bytes. No library is used, because the protocol has only a few messages.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The version in all messages but those of RFC 1929.
pub const VERSION: u8 = 5;

/// The authentication method of clients without a password (RFC 1928, 3).
pub const METHOD_NONE: u8 = 0;
/// The authentication method of RFC 1929.
pub const METHOD_LOGIN: u8 = 2;
/// A server's answer if it accepts none of the offered methods.
pub const METHOD_UNACCEPTABLE: u8 = 0xff;

/// The version of the subnegotiation of RFC 1929.
pub const LOGIN_VERSION: u8 = 1;

const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Faults in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SocksError {
    /// The message has another version.
    #[error("version {0} instead of 5")]
    Version(u8),
    /// The message has another version of the subnegotiation of RFC 1929.
    #[error("version {0} of the user name negotiation instead of 1")]
    LoginVersion(u8),
    /// The address has an unknown type.
    #[error("an address of the unknown kind {0}")]
    AddressType(u8),
    /// The datagram ends too early.
    #[error("the datagram is cut off")]
    Short,
}

/// A client's first message: the authentication methods that it supports.
///
/// ```
/// use peersock_streams::socks::Greeting;
///
/// let greeting = Greeting::parse(&[5, 2, 0, 2, 5])?.expect("complete");
/// assert_eq!((greeting.methods, greeting.length), (&[0, 2][..], 4));
/// assert!(Greeting::parse(&[5, 2, 0])?.is_none());
/// # Ok::<(), peersock_streams::socks::SocksError>(())
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
/// use peersock_streams::socks::Login;
///
/// let message = Login::emit("anna", "pw").expect("both are short");
/// let login = Login::parse(&message)?.expect("complete");
/// assert_eq!((login.user, login.password), (&b"anna"[..], &b"pw"[..]));
/// # Ok::<(), peersock_streams::socks::SocksError>(())
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

    /// Encodes the message. `None` if a part is empty or too long for it.
    pub fn emit(user: &str, password: &str) -> Option<Vec<u8>> {
        let mut message = vec![LOGIN_VERSION];
        emit_text(&mut message, user)?;
        emit_text(&mut message, password)?;
        Some(message)
    }
}

impl std::fmt::Debug for Login<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login([redacted])")
    }
}

/// A host and a port in a message. IPv4-mapped IPv6 addresses become IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address<'a> {
    /// An address and a port.
    Ip(SocketAddr),
    /// A name and a port. Any bytes can be in the message.
    Name(&'a [u8], u16),
}

impl<'a> Address<'a> {
    /// Parses a type, an address and a port. Also returns their length.
    fn parse(bytes: &'a [u8]) -> Result<Option<(Address<'a>, usize)>, SocksError> {
        let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
        let (start, length) = match (kind, rest.first()) {
            (IPV4, _) => (0, 4),
            (IPV6, _) => (0, 16),
            (NAME, Some(length)) => (1, usize::from(*length)),
            (NAME, None) => return Ok(None),
            (kind, _) => return Err(SocksError::AddressType(kind)),
        };
        let Some(&[ref host @ .., high, low]) = rest.get(start..start + length + 2) else { return Ok(None) };
        let port = u16::from_be_bytes([high, low]);
        let ip = match kind {
            IPV4 => host.try_into().ok().map(|octets: [u8; 4]| IpAddr::from(octets)),
            IPV6 => host.try_into().ok().map(|octets: [u8; 16]| IpAddr::from(octets).to_canonical()),
            _ => None,
        };
        let address = ip.map_or(Address::Name(host, port), |ip| Address::Ip((ip, port).into()));
        Ok(Some((address, 1 + start + length + 2)))
    }
}

/// A client's request (RFC 1928, 4).
///
/// ```
/// use peersock_streams::socks::{Address, Command, Request};
///
/// let message = Request::emit_connect("alpha", 80).expect("a name");
/// let request = Request::parse(&message)?.expect("complete");
/// assert_eq!((request.command, request.address), (Command::Connect, Address::Name(b"alpha", 80)));
/// # Ok::<(), peersock_streams::socks::SocksError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// The command.
    pub command: Command,
    /// The host and port.
    pub address: Address<'a>,
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

impl<'a> Request<'a> {
    /// Parses the message; `None` if it is incomplete.
    ///
    /// # Errors
    /// If it has another version, or an address of an unknown type.
    pub fn parse(bytes: &'a [u8]) -> Result<Option<Request<'a>>, SocksError> {
        check_version(bytes)?;
        let (Some(command), Some(address)) = (bytes.get(1), bytes.get(3..)) else { return Ok(None) };
        let command = match command {
            1 => Command::Connect,
            2 => Command::Bind,
            3 => Command::Associate,
            other => Command::Unknown(*other),
        };
        let parsed = Address::parse(address)?;
        Ok(parsed.map(|(address, length)| Request { command, address, length: 3 + length }))
    }

    /// Encodes a CONNECT to an address or a name. `None` if the name is empty or too long for the message.
    pub fn emit_connect(host: &str, port: u16) -> Option<Vec<u8>> {
        let mut message = vec![VERSION, 1, 0];
        match host.parse::<IpAddr>() {
            Ok(ip) => emit_address(&mut message, (ip, port).into()),
            Err(_) => {
                message.push(NAME);
                emit_text(&mut message, host)?;
                message.extend_from_slice(&port.to_be_bytes());
            }
        }
        Some(message)
    }
}

/// The head of a datagram between a client and a server (RFC 1928, 7).
///
/// ```
/// use peersock_streams::socks::{Address, DatagramHeader};
///
/// let datagram = b"\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x35question";
/// let header = DatagramHeader::parse(datagram)?;
/// assert_eq!((header.address, header.fragment), (Address::Ip(([192, 0, 2, 1], 53).into()), 0));
/// assert_eq!(&datagram[header.length..], b"question");
/// # Ok::<(), peersock_streams::socks::SocksError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatagramHeader<'a> {
    /// The number of the fragment; 0 if the datagram is not fragmented.
    pub fragment: u8,
    /// The destination of the datagram.
    pub address: Address<'a>,
    /// Length of the header in bytes: the datagram follows it.
    pub length: usize,
}

impl<'a> DatagramHeader<'a> {
    /// Parses the header of a datagram.
    ///
    /// # Errors
    /// If it is cut off, or has an address of an unknown type.
    pub fn parse(datagram: &'a [u8]) -> Result<DatagramHeader<'a>, SocksError> {
        let [_, _, fragment, address @ ..] = datagram else { return Err(SocksError::Short) };
        let (address, length) = Address::parse(address)?.ok_or(SocksError::Short)?;
        Ok(DatagramHeader { fragment: *fragment, address, length: 3 + length })
    }

    /// Encodes the header of a datagram from `source`.
    pub fn emit(source: SocketAddr) -> Vec<u8> {
        let mut header = vec![0, 0, 0];
        emit_address(&mut header, source);
        header
    }
}

/// The code of a server's reply to a request (RFC 1928, 6), which has 0 to 8.
///
/// ```
/// use peersock_streams::socks::Reply;
///
/// let message = Reply::SUCCEEDED.emit(([192, 0, 2, 1], 80).into());
/// assert_eq!(Reply::parse(&message)?, Some((Reply::SUCCEEDED, 10)));
/// assert!(Reply::parse(&message[..9])?.is_none());
/// # Ok::<(), peersock_streams::socks::SocksError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply(pub u8);

#[expect(missing_docs, reason = "the names are those of the RFC")]
impl Reply {
    pub const SUCCEEDED: Reply = Reply(0);
    pub const FAILURE: Reply = Reply(1);
    pub const NOT_ALLOWED: Reply = Reply(2);
    pub const NETWORK_UNREACHABLE: Reply = Reply(3);
    pub const HOST_UNREACHABLE: Reply = Reply(4);
    pub const REFUSED: Reply = Reply(5);
    pub const TTL_EXPIRED: Reply = Reply(6);
    pub const COMMAND_NOT_SUPPORTED: Reply = Reply(7);
    pub const ADDRESS_TYPE_NOT_SUPPORTED: Reply = Reply(8);
}

impl Reply {
    /// Parses the message, and returns its length in bytes; `None` if it is incomplete. A reply that refuses
    /// may end after its code.
    ///
    /// # Errors
    /// If it has another version, or an address of an unknown type.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, SocksError> {
        check_version(bytes)?;
        match (bytes.get(1).copied().map(Reply), bytes.get(3..)) {
            (Some(Reply::SUCCEEDED), Some(address)) => {
                Ok(Address::parse(address)?.map(|(_, length)| (Reply::SUCCEEDED, 3 + length)))
            }
            (None | Some(Reply::SUCCEEDED), _) => Ok(None),
            (Some(refusal), _) => Ok(Some((refusal, 2))),
        }
    }

    /// Encodes the message, with the address that belongs to it.
    pub fn emit(self, bound: SocketAddr) -> Vec<u8> {
        let mut message = vec![VERSION, self.0, 0];
        emit_address(&mut message, bound);
        message
    }

    /// Encodes the message for a failed request.
    pub fn emit_refusal(self) -> Vec<u8> {
        self.emit((Ipv4Addr::UNSPECIFIED, 0).into())
    }
}

fn check_version(bytes: &[u8]) -> Result<(), SocksError> {
    match bytes.first() {
        Some(&version) if version != VERSION => Err(SocksError::Version(version)),
        _ => Ok(()),
    }
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

/// Encodes a text behind its length. `None` if it is empty or longer than 255 bytes.
fn emit_text(message: &mut Vec<u8>, text: &str) -> Option<()> {
    message.push(u8::try_from(text.len()).ok().filter(|length| *length > 0)?);
    message.extend_from_slice(text.as_bytes());
    Some(())
}

#[cfg(test)]
mod tests;
