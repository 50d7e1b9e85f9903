//! Clients of the root, from the root's tests, with a socket.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_overlay::Identity;
use peersock_overlay::wire::Control;
use peersock_root::Config;
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Source;

#[expect(dead_code, reason = "the root's own tests use all of it")]
#[path = "../../../root/src/tests/node.rs"]
mod node;

pub(crate) use node::Node;

/// Timeout of an answer.
const ANSWER_TIMEOUT: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// Returns the configuration of the measured root, without budgets.
pub(crate) fn config() -> Config {
    let mut config = Config::new(Arc::new(Identity::from_seed(&[200; 32])));
    // Budgets would hide the root's capacity.
    config.relay = peersock_root::RelayPolicy::Unlimited;
    (config.limits.handshakes_per_second, config.limits.handshake_burst) = (1_000_000, 1_000_000);
    config
}

/// Socket with GSO and GRO.
pub(crate) struct Socket {
    pub(crate) io: UdpSocket,
    pub(crate) state: UdpSocketState,
}

impl Socket {
    pub(crate) fn bind(address: &str) -> io::Result<Self> {
        let io = UdpSocket::bind(address)?;
        // The state makes it non-blocking.
        let state = UdpSocketState::new(UdpSockRef::from(&io))?;
        let _ = state.set_recv_buffer_size(UdpSockRef::from(&io), 8 << 20);
        Ok(Self { io, state })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.io.local_addr().expect("it is bound")
    }

    /// Sends `train` in datagrams of `segment` bytes; returns false if the socket had no space.
    pub(crate) fn send(
        &self,
        from: Option<SocketAddr>,
        to: SocketAddr,
        train: &[u8],
        segment: usize,
    ) -> bool {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: train,
            segment_size: (train.len() > segment).then_some(segment),
            src_ip: from.map(|from| from.ip()),
        };
        self.state.try_send(UdpSockRef::from(&self.io), &transmit).is_ok()
    }

    /// Receives all available datagrams: returns their number, and the last one in `buffer`.
    pub(crate) fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<(usize, &'a [u8])> {
        let mut metas = [RecvMeta::default()];
        self.state.recv(UdpSockRef::from(&self.io), &mut [IoSliceMut::new(buffer)], &mut metas).ok()?;
        let (len, stride) = (metas[0].len, metas[0].stride.max(1));
        Some((len.div_ceil(stride), &buffer[..len.min(stride)]))
    }

    /// Waits until a datagram is available.
    pub(crate) fn wait(&self, patience: &Timespec) -> bool {
        let mut fds = [PollFd::new(&self.io, PollFlags::IN)];
        poll(&mut fds, Some(patience)).is_ok_and(|ready| ready > 0)
    }
}

/// Network of a [`Node`], and its counters.
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) socket: Socket,
    pub(crate) root: SocketAddr,
    /// Number of datagrams to and from the root.
    pub(crate) packets: u64,
    buffer: Vec<u8>,
}

impl World {
    pub(crate) fn new(address: &str, root: SocketAddr) -> io::Result<Self> {
        let socket = Socket::bind(address)?;
        Ok(Self { now: Instant::now(), socket, root, packets: 0, buffer: vec![0; 1 << 16] })
    }

    /// Sends a datagram that the root answers, and waits for the answer.
    pub(crate) fn send(&mut self, from: Source, datagram: &[u8]) -> Vec<(Source, Vec<u8>)> {
        self.tell(from, datagram);
        if !self.socket.wait(&ANSWER_TIMEOUT) {
            return Vec::new();
        }
        self.packets += 1;
        let answer = self.socket.receive(&mut self.buffer);
        answer.map(|(_, answer)| (from, answer.to_vec())).into_iter().collect()
    }

    /// Sends a datagram that has no answer.
    pub(crate) fn tell(&mut self, from: Source, datagram: &[u8]) {
        self.packets += 1;
        self.socket.send(Some(from.remote()), self.root, datagram, datagram.len());
    }

    /// Makes a session, and uses it.
    pub(crate) fn connect(&mut self, node: &mut Node) {
        self.now = Instant::now();
        let begun = node.begin(self.now);
        let response = self.send(node.source, &begun.datagram).pop().expect("the root answers").1;
        node.finish(&begun, &response);
        let used = node.seal(&[]);
        self.tell(node.source, &used);
    }

    pub(crate) fn register(&mut self, node: &mut Node) {
        node.register(self, 600);
    }

    /// Sends the keepalive that an idle node sends every 25 s.
    pub(crate) fn keep(&mut self, node: &mut Node) {
        let challenge = node.seal_control(Control::Challenge { data: [7; 8], here: false });
        assert_eq!(self.send(node.source, &challenge).len(), 1, "the root answers");
    }
}

/// Returns a registered node with its own socket.
pub(crate) fn registered(seed: u8, root: SocketAddr) -> io::Result<(Node, World)> {
    let mut world = World::new("127.0.0.1:0", root)?;
    let mut node = Node::new(seed, Source::Udp { socket: 0, remote: world.socket.address() });
    world.connect(&mut node);
    world.register(&mut node);
    Ok((node, world))
}

/// Converts to seconds, with their fraction.
pub(crate) fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
