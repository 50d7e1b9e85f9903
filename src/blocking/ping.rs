//! ICMP echo.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use peersock_stack::EchoRequest;

use crate::node::{self, Node};
use crate::socket;
use peersock_primitives::wait::Interest;

/// Sender of ICMP echo requests to one member, which waits for the replies.
///
/// ```no_run
/// use std::time::Duration;
///
/// use peersock::blocking::Ping;
///
/// let ping = Ping::open("fd12:3456:789a::1".parse().expect("an address"))?;
/// let pong = ping.ping(1, b"hello", Duration::from_secs(1))?;
/// println!("{:?}", pong.round_trip);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Ping {
    socket: socket::Ping,
    target: IpAddr,
}

/// Echo reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pong {
    /// Time from the request to the reply.
    pub round_trip: Duration,
    /// Number of payload bytes in the reply.
    pub len: usize,
    /// Remaining hop limit (time to live).
    pub hop_limit: u8,
}

/// Hop limit of the requests, as of all packets that a node sends.
const HOP_LIMIT: u8 = 64;

impl Ping {
    /// Opens a ping socket for `target` on the process's node.
    ///
    /// # Errors
    /// Returns `NetworkUnreachable` if no joined network has such an address, and the errors of
    /// [`node()`](crate::node()).
    pub fn open(target: IpAddr) -> io::Result<Ping> {
        Ping::open_on(&node::node()?, target)
    }

    /// Opens a socket like [`Ping::open`], on `node`.
    /// Errors: see [`Ping::open`].
    pub fn open_on(node: &Node, target: IpAddr) -> io::Result<Ping> {
        Ok(Ping { socket: socket::Ping::open(node, target)?, target })
    }

    /// Sends one request and waits for its reply; skips replies to earlier requests.
    ///
    /// # Errors
    /// Returns `TimedOut` after `timeout`, EMSGSIZE if `payload` is too long for a packet, and the errors of
    /// ICMP messages.
    pub fn ping(&self, sequence: u16, payload: &[u8], timeout: Duration) -> io::Result<Pong> {
        let started = Instant::now();
        self.socket.send(&EchoRequest {
            destination: self.target,
            sequence,
            payload,
            hop_limit: HOP_LIMIT,
        })?;
        let mut buf = vec![0; payload.len()];
        let deadline = Some(started + timeout);
        loop {
            let reply =
                socket::block_on(&self.socket.node, self.socket.waiters(), Interest::Read, deadline, || {
                    self.socket.recv(&mut buf)
                })?;
            if reply.sequence != sequence {
                continue;
            }
            if let Some(error) = reply.error {
                return Err(error.into());
            }
            // Another member could guess the numbers.
            if reply.source != self.target && !self.target.is_multicast() {
                continue;
            }
            let round_trip = started.elapsed();
            return Ok(Pong { round_trip, len: reply.len, hop_limit: reply.hop_limit });
        }
    }
}

impl fmt::Debug for Ping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ping").field("target", &self.target).finish()
    }
}
