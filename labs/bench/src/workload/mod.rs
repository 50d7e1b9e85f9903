//! The work, written once over any [`Transport`] with blocking byte streams and datagrams.
//!
//! A client's first byte selects the work ([`Command`]). The [`server`] then swallows a stream and answers
//! with its counts, echoes 64-byte messages, or answers at once. Bulk transfers end with a half-close, and
//! both sides must have counted the same number of bytes.
//!
//! | module | what it measures |
//! |---|---|
//! | [`bulk`] | maximum throughput |
//! | [`ping_pong`] | round trips |
//! | [`connections`] | new connections, and the cost of connections held open |
//! | [`messages`] | many connections, each with a little traffic |
//! | [`datagrams`] | UDP |
//! | [`memory`] | an idle process |

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Subcommand;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::report::Report;

mod bulk;
mod connections;
mod datagrams;
pub(crate) mod memory;
mod messages;
mod ping_pong;
mod server;

pub(crate) use bulk::same_count;
pub(crate) use datagrams::DATAGRAM_SIZE;
pub(crate) use server::serve;

/// Workload of a client.
#[derive(Subcommand)]
pub(crate) enum Workload {
    /// Send as fast as possible
    Bulk {
        /// Send for SECONDS
        #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
        secs: f64,
        /// Number of connections at the same time
        #[arg(long, default_value_t = 1)]
        streams: usize,
    },
    /// Exchange 64-byte messages, one at a time
    PingPong {
        /// Run for SECONDS
        #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
        secs: f64,
    },
    /// Connect, exchange one byte and close, one after another
    Connect {
        /// Run for SECONDS; ends after 20,000 connections at the latest, before the ports run out
        #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
        secs: f64,
    },
    /// Connect, send 1 KB, get 1 KB and close, one after another
    Requests {
        /// Run for SECONDS, or 20,000 connections if that is less
        #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
        secs: f64,
    },
    /// Send 10,000 messages of 1 KB a second, over many connections in turn
    Messages {
        /// Number of connections that are open at the same time
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// Run for SECONDS
        #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
        secs: f64,
    },
    /// Send datagrams of 1,200 bytes as fast as possible
    Datagrams {
        /// Run for SECONDS
        #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
        secs: f64,
    },
    /// Connect, exchange one byte, report it and exit
    FirstByte,
    /// Exchange one byte and report it; repeat over a new connection for each line on standard input
    Recover,
    /// Hold many idle connections, and print the cost of each
    Hold {
        /// Number of connections
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
    },
    /// Connect, exchange one byte and close; after that has settled, do nothing and print the cost
    Idle {
        /// Run for SECONDS
        #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
        secs: f64,
    },
}

/// A way to carry byte streams and datagrams.
pub(crate) trait Transport {
    /// A connection.
    type Stream: Stream;
    /// A listening socket.
    type Listener: Listener<Stream = Self::Stream>;
    /// A socket for datagrams.
    type Datagrams: Datagrams;

    /// Opens a connection.
    fn connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<Self::Stream>;

    /// Listens.
    fn listen(&self, address: SocketAddr) -> io::Result<Self::Listener>;

    /// Binds a socket for datagrams.
    fn bind(&self, address: SocketAddr) -> io::Result<Self::Datagrams>;

    /// Listens, and swallows data of any number of connections, on few threads, until `user` has left.
    ///
    /// A node serves a program that waits in tasks differently, so all state of this must go afterwards.
    fn swallow(&self, address: SocketAddr, user: User<Self::Stream>) -> io::Result<()>;
}

/// Connection of the client that wants messages to be swallowed.
pub(crate) struct User<S> {
    stream: S,
}

impl<S: Stream> User<S> {
    /// Accepts connections by `accept` and swallows their data, until the user has left.
    pub(crate) async fn serve<A: AsyncRead + Unpin + Send + 'static>(
        mut self,
        mut accept: impl AsyncFnMut() -> io::Result<A>,
    ) -> io::Result<()> {
        self.stream.write_all(&[Command::MESSAGES])?;
        let mut gone = tokio::task::spawn_blocking(move || self.stream.read(&mut [0]));
        loop {
            tokio::select! {
                _ = &mut gone => return Ok(()),
                stream = accept() => {
                    tokio::spawn(swallow(stream?));
                }
            }
        }
    }
}

/// A listening socket.
pub(crate) trait Listener {
    /// Type of accepted connections.
    type Stream;

    /// Waits for the next connection.
    fn accept(&self) -> io::Result<Self::Stream>;

    /// Returns the listening address.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// Calls on a connection besides reading and writing.
pub(crate) trait Stream: Read + Write + Send + 'static {
    /// Turns Nagle's algorithm off or on.
    fn set_nodelay(&self, on: bool) -> io::Result<()>;

    /// Bounds the time that a read waits.
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;

    /// Sends FIN after what was written.
    fn shutdown_write(&self) -> io::Result<()>;
}

/// A datagram socket. Each call carries one datagram.
pub(crate) trait Datagrams: Send + 'static {
    /// Sends one datagram.
    fn send_to(&self, datagram: &[u8], address: SocketAddr) -> io::Result<()>;

    /// Waits for one datagram, no longer than the timeout. Returns its length and sender.
    fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)>;

    /// Bounds the time that a receive waits.
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;
}

/// The first byte of a connection.
pub(crate) struct Command;

impl Command {
    /// Swallow the stream, then answer [`Received`](crate::report::Received).
    pub(crate) const BULK: u8 = b'B';
    /// Echo 64-byte messages.
    pub(crate) const PING_PONG: u8 = b'P';
    /// Answer this byte, and keep the connection until the other side closes it.
    pub(crate) const HOLD: u8 = b'H';
    /// Answer this byte.
    pub(crate) const BYTE: u8 = b'C';
    /// Read the rest of a request, and answer with the same number of bytes.
    pub(crate) const REQUEST: u8 = b'R';
    /// Answer this byte, and swallow messages as long as this connection is open.
    pub(crate) const MESSAGES: u8 = b'M';
    /// Answer with the message bytes received, and this process's usage until now: a
    /// [`Received`](crate::report::Received).
    pub(crate) const COUNT: u8 = b'N';
    /// The same with context switches.
    pub(crate) const USAGE: u8 = b'U';
}

/// Bytes that a bulk sender writes at once.
pub(crate) const WRITE_SIZE: usize = 128 << 10;
/// Maximum number of bytes that a bulk receiver reads at once.
pub(crate) const READ_SIZE: usize = 256 << 10;
/// Length in bytes of a request, of its answer, and of a message.
pub(crate) const MESSAGE_SIZE: usize = 1 << 10;
/// Length in bytes of a ping-pong message.
pub(crate) const PING_SIZE: usize = 64;
/// Round trips that are not measured, while caches and windows warm up.
pub(crate) const WARM_UP: usize = 50;
/// Limit of a connection test. Each leaves a port in TIME-WAIT, and a host has 28,000 by default.
pub(crate) const MAX_CONNECTIONS: u64 = 20_000;

/// Offset of the message port from the main port.
const MESSAGES_PORT: u16 = 10;

/// Timeout of a connection, and of an immediate answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs one workload against a server and prints the result.
pub(crate) fn run<T: Transport + Sync>(
    transport: &T,
    address: SocketAddr,
    workload: &Workload,
) -> io::Result<()> {
    match *workload {
        Workload::Bulk { secs, streams } => bulk::send(transport, address, secs, streams)?.print(),
        Workload::PingPong { secs } => ping_pong::measure(transport, address, secs)?.print(),
        Workload::Connect { secs } => connections::rate(transport, address, secs, 1)?.print(),
        Workload::Requests { secs } => connections::rate(transport, address, secs, MESSAGE_SIZE)?.print(),
        Workload::Messages { connections, secs } => {
            messages::send(transport, address, connections, secs)?.print()
        }
        Workload::Datagrams { secs } => datagrams::send(transport, address, secs)?.print(),
        Workload::FirstByte => {
            connections::byte_once_up(transport, address)?;
            Report::Byte.print()
        }
        Workload::Recover => connections::recover(transport, address),
        Workload::Hold { connections } => connections::hold(transport, address, connections)?.print(),
        Workload::Idle { secs } => {
            connections::byte_once_up(transport, address)?;
            memory::idle(Duration::from_secs_f64(secs))?.print()
        }
    }
}

/// Makes a single-threaded runtime.
pub(crate) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Reads to the end. An error is an end too, because the client sees that bytes are missing.
async fn swallow(mut stream: impl AsyncRead + Unpin) {
    let mut message = [0; MESSAGE_SIZE];
    while let Ok(count @ 1..) = stream.read(&mut message).await {
        server::MESSAGES.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Returns the address at which messages are swallowed.
fn of_messages(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() + MESSAGES_PORT)
}

/// Returns the unspecified address of the same family, with any port.
pub(crate) fn any_port(like: SocketAddr) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::kernel::Kernel;

    /// Starts a server of every workload on a loopback port.
    fn server() -> SocketAddr {
        let listener = Kernel.listen(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = Listener::local_addr(&listener).expect("bound");
        thread::spawn(move || {
            thread::scope(|scope| {
                while let Ok(stream) = Listener::accept(&listener) {
                    let _ = server::answer(&Kernel, scope, of_messages(address), stream);
                }
            });
        });
        address
    }

    #[test]
    fn bulk_counts_what_both_sides_agree_on() {
        let report = bulk::send(&Kernel, server(), 0.05, 2).expect("transfer");
        assert!(matches!(report, Report::Bulk { bytes, streams: 2, .. } if bytes > 0));
    }

    #[test]
    fn ping_pong_and_connections_are_counted() {
        let address = server();
        let report = ping_pong::measure(&Kernel, address, 0.1).expect("echo");
        assert!(matches!(report, Report::PingPong { samples, .. } if samples > 0));
        for size in [1, MESSAGE_SIZE] {
            let report = connections::rate(&Kernel, address, 0.05, size).expect("a server");
            assert!(matches!(report, Report::Connect { count, failed: 0, .. } if count > 0));
        }
    }

    #[test]
    fn messages_go_over_all_connections() {
        let report = messages::send(&Kernel, server(), 3, 0.05).expect("a server");
        assert!(matches!(report, Report::Messages { cpu_us_each, .. } if cpu_us_each > 0.0));
    }

    #[test]
    fn datagrams_are_counted_where_they_arrive() {
        let socket = Kernel.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        let address = socket.local_addr().expect("bound");
        thread::spawn(move || datagrams::count(&socket));
        let report = datagrams::send(&Kernel, address, 0.05).expect("a result");
        let Report::Datagrams { sent, received, .. } = report else { panic!("of datagrams") };
        assert!((1..=sent).contains(&received), "{received} of {sent}");
    }

    #[test]
    fn a_missing_byte_is_an_error() {
        assert!(same_count(10, 9).is_err());
    }
}
