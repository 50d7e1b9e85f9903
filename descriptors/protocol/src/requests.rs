//! What an application asks of its node, over a SOCK_SEQPACKET connection to
//! [`Name::Requests`](crate::Name::Requests): one packet a request, one packet its reply.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::filling::Filling;
use crate::headers::Header;
use crate::name::{Details, Opened, SocketId};
use crate::proof::{NameKey, Token};

/// The version of requests and replies. A node answers requests of its own version only.
pub const VERSION: u8 = 12;

/// The longest request and the longest reply, bytes.
pub const MAX_MESSAGE: usize = 32 << 10;

/// A request as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// [`VERSION`].
    pub version: u8,
    /// Why the node should obey.
    pub token: Token,
    /// What it should do.
    pub request: Request,
}

/// Which socket a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Which {
    /// One that the application opened.
    Opened(Opened),
    /// A connection that it accepted.
    Accepted(SocketId),
}

/// What a node can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The node should prove with this number that it knows the token, see [`proof`](crate::proof()). Whoever
    /// asks tells no token yet.
    Prove(u128),
    /// There is such a socket: for those that receive without being bound.
    ///
    /// With this, and the other requests by which a node comes to know a datagram socket (`Bind`,
    /// `Associate`, `Reach`, `Fits`), a descriptor of it comes along, by which the node knows whether
    /// somebody else has taken its name.
    Open(Opened),
    /// bind(2).
    Bind(Opened, SocketAddr),
    /// listen(2), after the application's end listens itself. A descriptor of it comes along, by which the
    /// node knows who listens.
    Listen(Opened, u32),
    /// connect(2) of a stream.
    ///
    /// The reply alone decides how the application's descriptor comes to the node. [`Reply::Done`] to who
    /// waits says that the connection stands: the descriptor is connected, and one byte is written to it.
    /// `Done` to who does not wait, and EINPROGRESS to who does, say that the attempt goes on: the descriptor
    /// comes [filled](Request::Filled). So it does after [`Reply::Error`] to who does not wait: the attempt
    /// has failed already, and the node closes its end once it has the descriptor. [`Reply::Stands`], and
    /// every other error, leave the descriptor to somebody else, or as it is.
    Connect {
        /// The socket.
        socket: Opened,
        /// Where to.
        remote: SocketAddr,
        /// Whether the reply waits for the connection. Otherwise it says that the attempt has begun.
        wait: bool,
        /// How long it may wait: SO_SNDTIMEO.
        timeout: Option<Duration>,
    },
    /// connect(2) once more, of a stream whose descriptor is connected to the node: it begins nothing.
    ///
    /// [`Reply::Stands`] if no call has said yet that the connection stands, EISCONN afterwards. EALREADY if the
    /// attempt goes on, to who waits once the time is over. ENOTCONN if there is neither any more.
    ConnectAgain {
        /// The socket.
        socket: Opened,
        /// True if the reply waits for what comes of the attempt.
        wait: bool,
        /// The longest that it may wait: SO_SNDTIMEO.
        timeout: Option<Duration>,
    },
    /// A signal handler ran while the reply to [`Connect`](Request::Connect) or
    /// [`ConnectAgain`](Request::ConnectAgain) was waited for on this connection. If it was not sent yet it
    /// is now, EINPROGRESS or EALREADY. There is no other reply.
    StopWaiting,
    /// The socket's other end has been connected and filled with these pieces until it took no more, so that
    /// it is not writable while the attempt goes on. A descriptor of it comes along. There is no reply.
    Filled(Opened, Filling),
    /// The key of the names of the node's ends of datagram sockets.
    NameKey,
    /// connect(2) of a datagram socket; `None` dissolves the association.
    Associate(Opened, Option<SocketAddr>),
    /// The socket wants to send to this address, with extension headers if there are any: there must be a
    /// socket of the name [`Name::Remote`](crate::Name::Remote).
    Reach(Opened, SocketAddr, Option<Details>, Vec<Header>),
    /// Whether a datagram of so many bytes goes there, where it must not be cut.
    Fits {
        /// The socket.
        socket: Opened,
        /// Where to.
        remote: SocketAddr,
        /// What else the datagram asks for.
        details: Option<Details>,
        /// Its extension headers.
        headers: Vec<Header>,
        /// Bytes of its payload.
        length: u32,
    },
    /// getsockname(2) and getpeername(2).
    Addresses(Which),
    /// setsockopt(2).
    SetOption(Which, i32, i32, Vec<u8>),
    /// setsockopt(2) of what cannot fail. There is no reply.
    TellOption(Which, i32, i32, Vec<u8>),
    /// getsockopt(2), with the length of the caller's buffer.
    Option(Which, i32, i32, u32),
    /// SO_ERROR.
    TakeError(Which),
    /// What the kernel's ECONNRESET or EPIPE on a connection means: an `errno` other than these two, which is
    /// told then, or 0.
    Ending(Which),
    /// MSG_ERRQUEUE.
    TakeReport(Which),
    /// The socket is about to be closed by somebody who wants to wait. The next request of this connection is
    /// [`Linger`](Request::Linger).
    Hold(Which),
    /// close(2) with SO_LINGER, after the descriptor was closed: the reply comes when everything is
    /// acknowledged, the time is over, or others turn out to have the socket open.
    Linger(Which, Duration),
    /// The addresses that are the overlay's.
    Routes,
    /// The addresses of a member.
    Resolve(String),
    /// The name of the member that has an address.
    NameOf(IpAddr),
    /// The networks, as interfaces.
    Interfaces,
    /// What comes to a socket of the kernel's, a descriptor of which comes along, is for this socket as well:
    /// it is bound to the same port of the machine's own network, and if this one listens it listens, too.
    Alongside(Opened),
    /// Closed sockets that are bound to this port are to be forgotten now, so that it is free on the
    /// machine's network.
    Vacate(u16),
    /// SIOCOUTQ: how many bytes that were written to a connection are not acknowledged. ENOTCONN if they
    /// never will be.
    Unacknowledged(Which),
    /// Whether peers could reach a listener at this port: otherwise EACCES.
    MayListen(u16),
    /// A descriptor of the socket was closed, maybe the last one. The kernel tells the node of listeners only
    /// later.
    Closed(Opened),
    /// The descriptor that comes along, of a new socket, is to stand for this stream socket from now on. The
    /// node binds it to a file that nobody else can reach, and removes the file: who knows an abstract name
    /// can connect to it and fill the backlog of whoever listens.
    MakePrivate(Opened),
    /// Whether the network with this ID was joined with a secret.
    HasSecret(u64),
    /// A call has met this `errno` after it had received something: the next one is to tell it.
    KeepError(Which, i32),
    /// This socket's attempt to connect is to fail: shutdown(2). ENOTCONN if there is none.
    AbortConnecting(Opened),
    /// A socket, whose descriptor comes along, is no more: a listener that is shut down, a stream whose
    /// attempt to connect has failed, or a datagram socket that was shut down for reading.
    End {
        /// The socket.
        socket: Opened,
        /// The socket that is bound to its address and port from then on; a datagram socket has one.
        successor: Option<Opened>,
    },
    /// The descriptor that goes along is one end of a new connection of whoever sends this; the node answers
    /// nothing. So a child in another network namespace, where the node's name is not known, gets a
    /// connection by one of its parent's.
    Adopt,
}

impl Request {
    /// Whether its reply is short, and holds nothing that lies on the heap.
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

/// A node's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::Prove`].
    Proof(u128),
    /// To [`Request::NameKey`].
    NameKey(NameKey),
    /// It is done.
    Done,
    /// It failed with this `errno`.
    Failed(i32),
    /// To [`Request::Connect`] and [`Request::ConnectAgain`]: the connection stands, and the node has the
    /// descriptor's other end.
    Stands,
    /// To [`Request::Addresses`]: the own and the other end's address.
    Addresses(SocketAddr, Option<SocketAddr>),
    /// To [`Request::Option`]: its value.
    Option(Vec<u8>),
    /// To [`Request::TakeError`] and [`Request::Ending`]: an `errno`, or 0. To [`Request::Connect`]: what the
    /// attempt has failed by, which SO_ERROR tells.
    Error(i32),
    /// To [`Request::Unacknowledged`]: bytes.
    Count(u32),
    /// To [`Request::TakeReport`].
    Report(Option<Report>),
    /// To [`Request::Routes`].
    Routes(Vec<Route>),
    /// To [`Request::Resolve`].
    Resolved(Vec<IpAddr>),
    /// To [`Request::NameOf`].
    Name(Option<String>),
    /// To [`Request::Interfaces`].
    Interfaces(Vec<Interface>),
    /// To [`Request::HasSecret`]; `None` if the network was not joined.
    HasSecret(Option<bool>),
}

/// What a datagram has run into, as Linux's `sock_extended_err` tells it (ip(7), IP_RECVERR).
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
    /// `ee_info`: the MTU where a datagram was too big.
    pub info: u32,
    /// SO_EE_OFFENDER.
    pub offender: Option<IpAddr>,
    /// Where the datagram was to go.
    pub destination: SocketAddr,
    /// What is known of its payload.
    pub quoted: Vec<u8>,
}

/// A prefix of addresses that are reached through the overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// An address in it.
    pub address: IpAddr,
    /// The length of the prefix, bits.
    pub prefix: u8,
}

impl Route {
    /// Whether `ip` has the prefix.
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
    /// As [`interface_index`](crate::interface_index) has it.
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
