//! The work, written once over any [`Transport`] with blocking byte streams and datagrams.
//!
//! A client's first byte says what it wants ([`Command`]); the [`server`] then swallows a stream and says
//! what it counted, echoes 64-byte messages, or answers at once. Bulk transfers end with a half close, and
//! both sides must have counted the same number of bytes.
//!
//! | module | what it measures |
//! |---|---|
//! | [`bulk`] | as much as goes |
//! | [`ping_pong`] | round trips |
//! | [`connections`] | new connections, and what those cost that are held |
//! | [`messages`] | connections of which each sends a little |
//! | [`datagrams`] | UDP |
//! | [`memory`] | a process that does nothing |

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
mod memory;
mod messages;
mod ping_pong;
mod server;

pub(crate) use bulk::same_count;
pub(crate) use datagrams::DATAGRAM_SIZE;
pub(crate) use server::serve;

/// What a client does.
#[derive(Subcommand)]
pub(crate) enum Workload {
    /// Send as fast as possible
    Bulk {
        /// How long to send, seconds
        #[arg(long, default_value_t = 5.0)]
        secs: f64,
        /// Connections at the same time
        #[arg(long, default_value_t = 1)]
        streams: usize,
    },
    /// Exchange 64-byte messages, one at a time
    PingPong {
        /// How long, seconds
        #[arg(long, default_value_t = 3.0)]
        secs: f64,
    },
    /// Connect, exchange one byte and close, one after another
    Connect {
        /// How long, seconds; ends earlier after 20,000 connections, before the ports run out
        #[arg(long, default_value_t = 1.0)]
        secs: f64,
    },
    /// Connect, send 1 KB, get 1 KB and close, one after another
    Requests {
        /// How long, seconds; ends as above
        #[arg(long, default_value_t = 1.0)]
        secs: f64,
    },
    /// Send 10,000 messages of 1 KB a second, over many connections in turn
    Messages {
        /// Connections that are open together
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
        /// How long, seconds
        #[arg(long, default_value_t = 3.0)]
        secs: f64,
    },
    /// Send datagrams of 1,200 bytes, as many as go
    Datagrams {
        /// How long, seconds
        #[arg(long, default_value_t = 3.0)]
        secs: f64,
    },
    /// Connect, exchange one byte, print that, exit
    FirstByte,
    /// Exchange one byte and print that; then do it again over a new connection for each line on standard
    /// input
    Recover,
    /// Hold many connections that do nothing, and print what each costs
    Hold {
        /// How many
        #[arg(long, default_value_t = 10_000)]
        connections: usize,
    },
    /// Connect, exchange one byte, close, let that come to rest, then do nothing and print what that costs
    Idle {
        /// How long, seconds
        #[arg(long, default_value_t = 10.0)]
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

    /// Listens, and swallows what comes over any number of connections, by few threads, until `user` is gone.
    ///
    /// A program that waits in tasks is served in another way by its node: so nothing of this is left.
    fn swallow(&self, address: SocketAddr, user: User<Self::Stream>) -> io::Result<()>;
}

/// Who wants messages to be swallowed.
pub(crate) struct User<S> {
    stream: S,
}

impl<S: Stream> User<S> {
    /// Accepts connections by `accept` and swallows what they bring, until the user is gone.
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
    /// What it accepts.
    type Stream;

    /// Waits for the next connection.
    fn accept(&self) -> io::Result<Self::Stream>;

    /// Where it listens.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// The calls on a connection besides reading and writing.
pub(crate) trait Stream: Read + Write + Send + 'static {
    /// Turns Nagle's algorithm off or on.
    fn set_nodelay(&self, on: bool) -> io::Result<()>;

    /// Bounds how long a read waits.
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;

    /// Sends FIN after what was written.
    fn shutdown_write(&self) -> io::Result<()>;
}

/// A socket for datagrams, whose calls carry one each.
pub(crate) trait Datagrams: Send + 'static {
    /// Sends one.
    fn send_to(&self, datagram: &[u8], address: SocketAddr) -> io::Result<()>;

    /// Waits for one, no longer than the timeout. Gives its length and who sent it.
    fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)>;

    /// Bounds how long that waits.
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
    /// Read the rest of a request, and answer it by as much.
    pub(crate) const REQUEST: u8 = b'R';
    /// Answer this byte, and swallow messages as long as this connection is open.
    pub(crate) const MESSAGES: u8 = b'M';
    /// Answer what has come of messages, and what this process has used until now: a
    /// [`Received`](crate::report::Received).
    pub(crate) const COUNT: u8 = b'N';
    /// The same with context switches.
    pub(crate) const USAGE: u8 = b'U';
}

/// How much a bulk sender writes at once, bytes.
pub(crate) const WRITE_SIZE: usize = 128 << 10;
/// How much a bulk receiver reads at most at once, bytes.
pub(crate) const READ_SIZE: usize = 256 << 10;
/// Length of a request, of its answer, and of a message, bytes.
pub(crate) const MESSAGE_SIZE: usize = 1 << 10;
/// Length of a ping-pong message, bytes.
pub(crate) const PING_SIZE: usize = 64;
/// Round trips that are not measured, while caches and windows warm up.
pub(crate) const WARM_UP: usize = 50;
/// A connection test ends here: each leaves a port in TIME-WAIT, and a host has 28,000 by default.
pub(crate) const MAX_CONNECTIONS: u64 = 20_000;

/// Where messages go: the port so far behind that of everything else.
const MESSAGES_PORT: u16 = 10;

/// How long a connection may take, and the answer to what is answered at once.
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

/// A runtime of one thread.
pub(crate) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Reads to the end, which an error is, too: the client sees that bytes are missing.
async fn swallow(mut stream: impl AsyncRead + Unpin) {
    let mut message = [0; MESSAGE_SIZE];
    while let Ok(count @ 1..) = stream.read(&mut message).await {
        server::MESSAGES.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// The address at which messages are swallowed.
fn of_messages(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port() + MESSAGES_PORT)
}

/// The unspecified address of the same family, any port.
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

    /// A server of every workload on a loopback port.
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
