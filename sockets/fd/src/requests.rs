//! Requests of an application to its node, over a SOCK_SEQPACKET connection to
//! [`Name::Requests`](crate::Name::Requests): one packet per request, one packet per reply.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::filling::Filling;
use crate::headers::Header;
use crate::name::{Details, Opened, SocketId};
use crate::proof::{NameKey, Token};

/// Version of requests and replies. A node answers only requests of the same version.
pub const VERSION: u8 = 17;

/// Maximum length of a request and of a reply, bytes.
pub const MAX_MESSAGE: usize = 32 << 10;

/// A request with its envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// [`VERSION`].
    pub version: u8,
    /// The client's authorization.
    pub token: Token,
    /// The request itself.
    pub request: Request,
}

/// Identifier of the socket that a request concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Which {
    /// One that the application opened.
    Opened(Opened),
    /// A connection that it accepted.
    Accepted(SocketId),
}

/// A request to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The node must prove with this number that it knows the token, see [`proof`](crate::proof()). The
    /// client does not reveal the token yet.
    Prove(u128),
    /// Registers a socket that receives without being bound.
    ///
    /// A descriptor of the socket accompanies this and the other requests that may introduce a datagram
    /// socket (`Bind`, `Associate`, `Reach`, `Fits`). It lets the node notice if another program takes the
    /// socket's name.
    Open(Opened),
    /// bind(2).
    Bind(Opened, SocketAddr),
    /// listen(2), after the application's end listens. A descriptor of it comes along, which identifies the
    /// listening process to the node.
    Listen(Opened, u32),
    /// connect(2) of a stream.
    ///
    /// The reply alone determines how the application's descriptor comes to the node.
    /// [`Reply::Established`] to a waiting client means that the client connects the descriptor and writes
    /// the piece in the reply to it. [`Reply::Done`] to a client that does not wait, and EINPROGRESS to one
    /// that does, mean that the attempt goes on: the descriptor comes [filled](Request::Filled). The same
    /// holds for [`Reply::Error`] to a client that does not wait: the attempt has failed already, and the
    /// node closes its end once it has the descriptor. [`Reply::Stands`], and every other error, leave the
    /// descriptor to another client, or as it is.
    Connect {
        /// The socket.
        socket: Opened,
        /// The remote address.
        remote: SocketAddr,
        /// True if the reply waits for the connection. Otherwise it reports that the attempt has begun.
        wait: bool,
        /// Timeout of the wait (SO_SNDTIMEO).
        timeout: Option<Duration>,
    },
    /// A repeated connect(2) of a stream whose descriptor is connected to the node; begins no attempt.
    ///
    /// The reply is [`Reply::Stands`] if no call has reported yet that the connection is established, EISCONN
    /// afterwards. It is EALREADY while the attempt goes on (for a waiting client, once the time is over),
    /// ECONNABORTED if the connection is broken, and ENOTCONN if there is neither.
    ConnectAgain {
        /// The socket.
        socket: Opened,
        /// True if the reply waits for the attempt's outcome.
        wait: bool,
        /// Timeout of the wait (SO_SNDTIMEO).
        timeout: Option<Duration>,
    },
    /// A signal handler ran during the wait for the reply to [`Connect`](Request::Connect) or
    /// [`ConnectAgain`](Request::ConnectAgain) on this connection. If the reply was not sent yet it is sent
    /// now, EINPROGRESS or EALREADY. There is no other reply.
    StopWaiting,
    /// The socket's other end was connected, and filled with these pieces until it was full, so that it is
    /// not writable while the attempt goes on. A descriptor of it comes along. There is no reply.
    Filled(Opened, Filling),
    /// Asks for the key of the names of the node's ends of datagram sockets.
    NameKey,
    /// connect(2) of a datagram socket; `None` dissolves the association.
    Associate(Opened, Option<SocketAddr>),
    /// Asks for a socket named [`Name::Remote`](crate::Name::Remote), because the socket wants to send to
    /// this address, possibly with extension headers.
    Reach(Opened, SocketAddr, Option<Details>, Vec<Header>),
    /// Asks if a datagram fits the path to an address, when it must not be fragmented.
    Fits {
        /// The socket.
        socket: Opened,
        /// The remote address.
        remote: SocketAddr,
        /// Other settings of the datagram.
        details: Option<Details>,
        /// Its extension headers.
        headers: Vec<Header>,
        /// Length of its payload, bytes.
        length: u32,
    },
    /// getsockname(2) and getpeername(2).
    Addresses(Which),
    /// setsockopt(2).
    SetOption(Which, i32, i32, Vec<u8>),
    /// setsockopt(2) that cannot fail. There is no reply.
    TellOption(Which, i32, i32, Vec<u8>),
    /// getsockopt(2), with the length of the caller's buffer.
    Option(Which, i32, i32, u32),
    /// SO_ERROR.
    TakeError(Which),
    /// Asks for the meaning of ECONNRESET or EPIPE from the kernel on a connection: an `errno` other than
    /// these two, which counts as reported then, or 0.
    Ending(Which),
    /// MSG_ERRQUEUE.
    TakeReport(Which),
    /// Announces that a client will close the socket and wait. The next request of this connection is
    /// [`Linger`](Request::Linger).
    Hold(Which),
    /// close(2) with SO_LINGER, after the descriptor was closed. The reply comes when everything is
    /// acknowledged, the time is over, or other processes turn out to have the socket open.
    Linger(Which, Duration),
    /// Asks for the addresses of the overlay.
    Routes,
    /// Asks for the addresses of a member.
    Resolve(String),
    /// Asks for the name of the member that has an address.
    NameOf(IpAddr),
    /// Asks for the networks, as interfaces.
    Interfaces,
    /// Joins a kernel socket, whose descriptor comes along, to this socket, which then gets the kernel
    /// socket's input as well. The kernel socket is bound to the same port of the machine's own network, and
    /// listens if this one does.
    Alongside(Opened),
    /// Asks to forget closed sockets bound to this port now, so that it is free on the machine's network.
    Vacate(u16),
    /// SIOCOUTQ: the unacknowledged bytes of a connection, and its end. ENOTCONN if they never will be
    /// acknowledged.
    Unacknowledged(Which),
    /// Asks why a connection has ended, also if a call has reported that already.
    WhyBroken(Which),
    /// Asks if peers could reach a listener at this port; EACCES if not.
    MayListen(u16),
    /// A descriptor of the socket was closed, maybe the last one. The kernel reports a listener's closing
    /// only later.
    Closed(Opened),
    /// Makes the descriptor that comes along, of a new socket, replace that of this stream socket. The node
    /// binds it to a file that no other process can reach, and removes the file. A known abstract name would
    /// let others connect to it and fill a listener's backlog.
    MakePrivate(Opened),
    /// Asks if the network with this ID was joined with a secret.
    HasSecret(u64),
    /// A call has met this `errno` after it had received data, so the next call must return it.
    KeepError(Which, i32),
    /// Makes this socket's connection attempt fail: shutdown(2). ENOTCONN if there is none. EINPROGRESS if
    /// the descriptor has taken data, or may have: then the attempt goes on, and ends with the descriptor.
    AbortConnecting(Opened),
    /// Ends a socket, whose descriptor comes along. The socket is a listener that is shut down, a stream
    /// whose attempt to connect has failed, or a datagram socket shut down for reading.
    End {
        /// The socket.
        socket: Opened,
        /// The socket that takes over its address and port; required for a datagram socket.
        successor: Option<Opened>,
    },
    /// The descriptor that comes along is one end of a new request connection of the sender. There is no
    /// reply. So a child in another network namespace, where the node's name is not known, gets a connection
    /// through one of its parent's.
    Adopt,
    /// Announces shutdown(2) of a connection's receiving direction. The descriptor that comes along lets the
    /// node notice its closing, which looks like the end of both directions.
    ShutDown(Which),
}

impl Request {
    /// Returns true if its reply is short, and holds no heap data.
    pub(crate) fn has_short_reply(&self) -> bool {
        !matches!(
            self,
            Self::Option(..)
                | Self::TakeReport(_)
                | Self::Routes
                | Self::Resolve(_)
                | Self::NameOf(_)
                | Self::Interfaces
        )
    }
}

/// A node's reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Prove`].
    Proof(u128),
    /// To [`Request::NameKey`].
    NameKey(NameKey),
    /// Success.
    Done,
    /// Failure with this `errno`.
    Failed(i32),
    /// To [`Request::Connect`]: the connection is established, and the node expects the descriptor with this
    /// piece, which it separates from bytes that another thread writes first.
    Established(Filling),
    /// To [`Request::Connect`] and [`Request::ConnectAgain`]: the connection is established, and the node has
    /// the descriptor's other end.
    Stands,
    /// To [`Request::Addresses`]: the local and the peer's address.
    Addresses(SocketAddr, Option<SocketAddr>),
    /// To [`Request::Option`]: its value.
    Option(Vec<u8>),
    /// To [`Request::TakeError`] and [`Request::Ending`]: an `errno`, or 0. To [`Request::Connect`]: the
    /// error of the attempt, which SO_ERROR returns.
    Error(i32),
    /// To [`Request::Unacknowledged`].
    Unacknowledged(Unacknowledged),
    /// To [`Request::WhyBroken`]; `None` if the connection goes on, or has ended in order.
    Broken(Option<Broken>),
    /// To [`Request::TakeReport`].
    Report(Option<Report>),
    /// To [`Request::Routes`].
    Routes(Vec<Route>),
    /// To [`Request::Resolve`].
    Resolved(Vec<IpAddr>),
    /// To [`Request::Resolve`]: the node asks others about the name; ask again a little later.
    Searching {
        /// True if the name ends with a network's, so that no other resolver knows it.
        is_of_network: bool,
    },
    /// To [`Request::Resolve`]: no member has the name, which ends with a network's. No other resolver knows
    /// it.
    Absent,
    /// To [`Request::NameOf`].
    Name(Option<String>),
    /// To [`Request::Interfaces`].
    Interfaces(Vec<Interface>),
    /// To [`Request::HasSecret`]; `None` if the network was not joined.
    HasSecret(Option<bool>),
}

/// Part of a connection that waits for an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unacknowledged {
    /// Number of written bytes.
    pub bytes: u32,
    /// True if the end of this direction (FIN) waits, too.
    pub has_end: bool,
}

/// The end of a connection that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broken {
    /// The cause, an `errno`.
    pub errno: i32,
    /// Number of written bytes that the peer has not acknowledged.
    pub lost: u64,
}

/// Error of a datagram, as in Linux's `sock_extended_err` (ip(7), IP_RECVERR).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `ee_errno`.
    pub errno: i32,
    /// `ee_origin`: 1 this node, 2 another by ICMP, 3 another by ICMPv6.
    pub origin: u8,
    /// `ee_type`: of the ICMP message.
    pub kind: u8,
    /// `ee_code`: of the ICMP message.
    pub code: u8,
    /// `ee_info`: the MTU if a datagram was too big.
    pub info: u32,
    /// SO_EE_OFFENDER.
    pub offender: Option<IpAddr>,
    /// Destination of the datagram.
    pub destination: SocketAddr,
    /// The known part of its payload.
    pub quoted: Vec<u8>,
}

/// A prefix of addresses reached through the overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// An address in it.
    pub address: IpAddr,
    /// The length of the prefix, bits.
    pub prefix: u8,
}

impl Route {
    /// Returns true if `ip` has the prefix.
    ///
    /// ```
    /// let route = peersock_fd::Route { address: "10.7.0.0".parse().unwrap(), prefix: 16 };
    /// assert!(route.contains("10.7.200.1".parse().unwrap()));
    /// assert!(!route.contains("10.8.0.1".parse().unwrap()));
    /// ```
    pub fn contains(&self, ip: IpAddr) -> bool {
        let common = match (self.address, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => return false,
        };
        common >= u32::from(self.prefix)
    }
}

/// A network as if_nameindex(3) and getifaddrs(3) show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its [`interface_index`](crate::interface_index).
    pub index: u32,
    /// `ps` and the network's number.
    pub name: String,
    /// The node's own addresses.
    pub addresses: Vec<Route>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encoding::{decode, encode};

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (decode::<Message>(&bytes), decode::<Reply>(&bytes));
        }
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let request = Request::Resolve("alpha".into());
        let message = Message { version: VERSION, token: Token(7), request };
        assert_eq!(decode(&encode(&message)), Some(message));
    }
}
