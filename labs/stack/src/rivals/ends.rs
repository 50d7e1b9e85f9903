//! Senders, their paths to the kernel receiver, and their traffic.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use peersock_stack::CongestionControl;
use peersock_stack_lab::kernel::{Bridge, Namespace, Node, Options, Socket, kernel_address};
use peersock_stack_lab::link::{Link, Loss, Queue};
use peersock_stack_lab::{HEADERS, SEGMENT, Time};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

/// A sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sender {
    Peersock,
    Cubic,
    Bbr,
}

impl Sender {
    pub(crate) const ALL: [Sender; 3] = [Sender::Peersock, Sender::Cubic, Sender::Bbr];
    /// Senders of the kernel.
    pub(crate) const RIVALS: [Sender; 2] = [Sender::Bbr, Sender::Cubic];

    /// Returns the name in figures, which for kernel senders is also the name in Linux.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Sender::Peersock => "peersock",
            Sender::Cubic => "cubic",
            Sender::Bbr => "bbr",
        }
    }
}

/// A link with a drop-tail buffer of one bandwidth-delay product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Wire {
    pub(crate) name: &'static str,
    /// Bandwidth, bit/s.
    pub(crate) rate: f64,
    pub(crate) rtt: Time,
}

impl Wire {
    /// Returns the bandwidth-delay product, bytes of the wire.
    pub(crate) fn bdp(&self) -> u64 {
        (self.rate / 8.0 * self.rtt as f64 / 1e9) as u64
    }

    /// Returns the options of a path over this link, which loses data with the probability `percent`.
    pub(crate) fn options(&self, percent: f64, seed: u64, congestion: CongestionControl) -> Options {
        let outward =
            Link { queue: Queue::DropTail(self.bdp()), loss: random_loss(percent), ..Link::new(self.rate) };
        Options {
            outward,
            inward: Link::new(self.rate),
            delay: self.rtt / 2,
            mtu: SEGMENT + HEADERS,
            seed,
            congestion,
            ..Options::default()
        }
    }
}

pub(crate) fn random_loss(percent: f64) -> Loss {
    if percent == 0.0 { Loss::None } else { Loss::Random(percent / 100.0) }
}

/// A private link from a sender to the kernel receiver.
pub(crate) struct Path {
    near: Namespace,
    far: Far,
}

enum Far {
    Node(Node),
    Kernel(Bridge, Namespace, Sender),
}

impl Path {
    pub(crate) fn new(sender: Sender, options: &Options) -> io::Result<Self> {
        let near = kernel_end()?;
        let far = if sender == Sender::Peersock {
            Far::Node(Node::start(&near, options)?)
        } else {
            let far = kernel_end()?;
            Far::Kernel(Bridge::start(&far, &near, options)?, far, sender)
        };
        Ok(Self { near, far })
    }

    pub(crate) fn listen(&self) -> io::Result<TcpListener> {
        listen(&self.near)
    }

    pub(crate) fn connect(&self, remote: SocketAddr) -> io::Result<Outgoing> {
        match &self.far {
            Far::Node(node) => node.connect(remote).map(Outgoing::Ours),
            Far::Kernel(_, far, sender) => connect_from(far, *sender, remote),
        }
    }

    /// Returns the share of packets that were late.
    pub(crate) fn late(&self) -> f64 {
        match &self.far {
            Far::Node(node) => node.punctuality().late_share(),
            Far::Kernel(bridge, ..) => bridge.punctuality().late_share(),
        }
    }
}

/// Creates a namespace whose kernel sends or receives.
pub(crate) fn kernel_end() -> io::Result<Namespace> {
    let namespace = Namespace::new()?;
    // Otherwise the kernel would start a connection with metrics of earlier connections to the same host.
    namespace.set("ipv4/tcp_no_metrics_save", "1")?;
    Ok(namespace)
}

pub(crate) fn listen(near: &Namespace) -> io::Result<TcpListener> {
    near.run(|| TcpListener::bind(SocketAddr::new(kernel_address(false), 0)))
}

/// Connects from the kernel, with this congestion control from the beginning.
pub(crate) fn connect_from(far: &Namespace, sender: Sender, remote: SocketAddr) -> io::Result<Outgoing> {
    let socket =
        far.run(|| Ok(socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?))?;
    let name = sender.name();
    sockopt::set_tcp_congestion(&socket, name)
        .map_err(|e| io::Error::other(format!("the kernel has no congestion control {name}: {e}")))?;
    // Nagle's algorithm would delay the last partial segment.
    sockopt::set_tcp_nodelay(&socket, true)?;
    connect(&socket, &remote)?;
    Ok(Outgoing::Kernel(socket.into()))
}

/// Sending end of a connection.
pub(crate) enum Outgoing {
    Ours(Socket),
    Kernel(TcpStream),
}

impl Outgoing {
    /// Writes as much as fits until `end`.
    fn fill(&self, end: Instant) -> io::Result<()> {
        // A blocking write could outlast the end of the measurement.
        if let Self::Kernel(stream) = self {
            stream.set_nonblocking(true)?;
        }
        let data = vec![1; 64 << 10];
        while Instant::now() < end {
            let written = match self {
                Self::Ours(socket) => socket.try_write(&data),
                Self::Kernel(stream) => (&*stream).write(&data),
            };
            match written {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(1)),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes `data` and the end.
    pub(crate) fn send(&self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Ours(socket) => {
                (&*socket).write_all(data)?;
                socket.shutdown_write()
            }
            Self::Kernel(stream) => {
                (&*stream).write_all(data)?;
                stream.shutdown(std::net::Shutdown::Write)
            }
        }
    }
}

/// Times of an endless flow: sending and counting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) start: Instant,
    pub(crate) count_from: Instant,
    pub(crate) end: Instant,
}

/// Connects and sends; returns the bytes that the listener's end reads in the counted time.
pub(crate) fn flow_without_end(
    listener: &TcpListener,
    span: Span,
    connect: impl FnOnce(SocketAddr) -> io::Result<Outgoing> + Send,
) -> io::Result<u64> {
    let remote = listener.local_addr()?;
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            thread::sleep(span.start.saturating_duration_since(Instant::now()));
            connect(remote)?.fill(span.end)
        });
        let mut receiver = match accept(listener, span.end) {
            Ok(receiver) => receiver,
            // The sender's error explains the missing connection.
            Err(e) => return sender.join().expect("nothing in it panics").and(Err(e)),
        };
        // A short timeout, so that the loop notices the end of the measurement.
        receiver.set_read_timeout(Some(Duration::from_millis(20)))?;
        let mut buf = vec![0; 256 << 10];
        let mut bytes = 0;
        while Instant::now() < span.end {
            match receiver.read(&mut buf) {
                Ok(len) if Instant::now() >= span.count_from => bytes += len as u64,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
        sender.join().expect("nothing in it panics")?;
        Ok(bytes)
    })
}

/// Waits for a connection until `end`, because none comes if connecting fails.
pub(crate) fn accept(listener: &TcpListener, end: Instant) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                thread::sleep(Duration::from_micros(200));
            }
            Err(e) => return Err(e),
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
        }
    }
}
