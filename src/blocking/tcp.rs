//! `TcpStream` and `TcpListener`.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Mode;
use crate::node::{self, Node};
use crate::socket::{self, Acceptor, Connection, ToSocketAddrs, resolve, tcp_options};
use peersock_primitives::wait::Interest;

/// TCP connection through the overlay, as [`std::net::TcpStream`].
///
/// Any thread may read or write a stream (`Read` and `Write` are also implemented for `&TcpStream`). Dropping
/// the last clone closes the connection; written data is still delivered.
///
/// ```no_run
/// use std::io::{Read, Write};
///
/// use peersock::blocking::TcpStream;
///
/// let mut stream = TcpStream::connect("[fd12:3456:789a::1]:80")?;
/// stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
/// let mut answer = String::new();
/// stream.read_to_string(&mut answer)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpStream {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Connection,
    mode: Mode,
}

impl TcpStream {
    /// Connects through the process's node. Uses the first of several addresses that answers.
    ///
    /// # Errors
    /// Returns `ConnectionRefused`, `TimedOut`, `HostUnreachable` (the peer cannot be found),
    /// `NetworkUnreachable` (no joined network has such an address), `PermissionDenied` (the network does not
    /// allow the port), and the errors of [`node()`](crate::node()).
    pub fn connect(addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        TcpStream::connect_on(&node::node()?, addr)
    }

    /// Connects like [`TcpStream::connect`], through `node`.
    /// Errors: see [`TcpStream::connect`].
    pub fn connect_on(node: &Node, addr: impl ToSocketAddrs) -> io::Result<TcpStream> {
        let mut last = None;
        for addr in resolve(&node.inner, &addr)? {
            match TcpStream::connect_until(node, addr, None) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("resolve gives at least one address"))
    }

    /// Connects through the process's node; fails with `TimedOut` after `timeout`.
    ///
    /// # Errors
    /// See [`TcpStream::connect`]; `InvalidInput` for a timeout of zero.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        TcpStream::connect_timeout_on(&node::node()?, addr, timeout)
    }

    /// Connects like [`TcpStream::connect_timeout`], through `node`.
    /// Errors: see [`TcpStream::connect_timeout`].
    pub fn connect_timeout_on(node: &Node, addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        if timeout == Duration::ZERO {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot set a timeout of zero"));
        }
        TcpStream::connect_until(node, *addr, Some(Instant::now() + timeout))
    }

    fn connect_until(node: &Node, addr: SocketAddr, deadline: Option<Instant>) -> io::Result<TcpStream> {
        let connection = Connection::start(node, addr)?;
        socket::block_on(&connection.node, connection.waiters(), Interest::Write, deadline, || {
            connection.check_connected()
        })?;
        Ok(TcpStream::new(connection))
    }

    fn new(connection: Connection) -> TcpStream {
        TcpStream { shared: Arc::new(Shared { connection, mode: Mode::default() }) }
    }

    /// Returns another handle of the same connection, with the same timeouts and mode.
    /// Never fails at present.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        Ok(TcpStream { shared: Arc::clone(&self.shared) })
    }

    /// Ends sending (the peer reads to the end), receiving, or both. Waiting threads return.
    ///
    /// # Errors
    /// Returns `NotConnected` if the connection is gone; then [`TcpStream::take_error`] has the reason, and
    /// [`TcpStream::wait_delivered`] tells whether something was lost.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let result = self.connection().shutdown(how);
        if result.is_err() {
            // The application knows now, so the loss must not be reported a second time.
            self.connection().set_error_known();
        }
        result
    }

    /// Accepts no more data from the peer, for a program that is about to end. Received data can still be
    /// read. If the peer has ended its side before, that is everything, and the call returns true. Otherwise
    /// the connection is reset at once. So the peer learns that not all its data was accepted, and reads fail
    /// with `ConnectionAborted` after the received data. Every byte that the peer considers delivered can be
    /// read.
    ///
    /// ```
    /// use std::io::{ErrorKind, Read, Write};
    ///
    /// # use peersock::blocking::{TcpListener, TcpStream};
    /// # use peersock::{IdentitySource, Interfaces, Network, Node};
    /// # let node = Node::builder().identity(IdentitySource::Ephemeral);
    /// # let node = node.interfaces(Interfaces::Loopback).start()?;
    /// # let network = node.join(Network::ad_hoc("ff00500050000000".parse()?))?;
    /// # let listener = TcpListener::bind_on(&node, "[::]:80")?;
    /// # let mut client = TcpStream::connect_on(&node, (network.address(), 80))?;
    /// client.write_all(b"so far")?;
    /// client.wait_delivered(None)?;
    /// let (mut server, _) = listener.accept()?;
    /// assert!(!server.stop_receiving(), "the client could have sent more");
    /// let mut arrived = Vec::new();
    /// let error = server.read_to_end(&mut arrived).expect_err("there is no end in order");
    /// assert_eq!((&arrived[..], error.kind()), (&b"so far"[..], ErrorKind::ConnectionAborted));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stop_receiving(&self) -> bool {
        self.connection().stop_receiving()
    }

    /// Copies available data without consuming it; waits as a read does.
    /// Fails with the errors of reading.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.run(Interest::Read, |connection| connection.peek(buf))
    }

    /// Sets whether calls return `WouldBlock` instead of waiting.
    /// Never fails at present.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.shared.mode.set_nonblocking(nonblocking);
        Ok(())
    }

    /// Sets the timeout of reads, which then fail with `WouldBlock`, as `std::net`'s do on Unix.
    ///
    /// # Errors
    /// Returns `InvalidInput` for a timeout of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.shared.mode.set_timeout(Interest::Read, timeout)
    }

    /// Sets the timeout of writes, as [`TcpStream::set_read_timeout`].
    ///
    /// # Errors
    /// Returns `InvalidInput` for a timeout of zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.shared.mode.set_timeout(Interest::Write, timeout)
    }

    /// Returns the timeout of reads.
    /// Never fails at present.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.shared.mode.timeout(Interest::Read))
    }

    /// Returns the timeout of writes.
    /// Never fails at present.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.shared.mode.timeout(Interest::Write))
    }

    /// Waits until the peer has acknowledged everything that was written so far and, after
    /// [`shutdown`](TcpStream::shutdown) of sending, the end too; at most for `timeout`, or for ever.
    ///
    /// Acknowledged data lies in the peer's buffer. If the peer then closes its side in order, its program
    /// has read the data, because closing with unread data resets the connection. So a program that must know
    /// ends sending, reads to the end, and then calls this.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::net::Shutdown;
    /// use std::time::Duration;
    ///
    /// # use peersock::blocking::{TcpListener, TcpStream};
    /// # use peersock::{IdentitySource, Interfaces, Network, Node};
    /// # let node = Node::builder().identity(IdentitySource::Ephemeral);
    /// # let node = node.interfaces(Interfaces::Loopback).start()?;
    /// # let network = node.join(Network::ad_hoc("ff00500050000000".parse()?))?;
    /// # let listener = TcpListener::bind_on(&node, "[::]:80")?;
    /// # let reader = std::thread::spawn(move || listener.accept().unwrap().0.read_to_end(&mut Vec::new()));
    /// let mut stream = TcpStream::connect_on(&node, (network.address(), 80))?;
    /// stream.write_all(b"all of it")?;
    /// stream.shutdown(Shutdown::Write)?;
    /// stream.read_to_end(&mut Vec::new())?;
    /// stream.wait_delivered(Some(Duration::from_secs(30)))?;
    /// # reader.join().unwrap()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns the error that ended the connection before that, on each call: `ConnectionReset`, `BrokenPipe`
    /// (reset after the peer's end), `TimedOut` and others; also `TimedOut` after `timeout`.
    pub fn wait_delivered(&self, timeout: Option<Duration>) -> io::Result<()> {
        let connection = self.connection();
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        socket::block_on(&connection.node, connection.waiters(), Interest::Write, deadline, || {
            connection.check_delivered()
        })
    }

    fn connection(&self) -> &Connection {
        &self.shared.connection
    }

    fn run<T>(
        &self,
        interest: Interest,
        mut operation: impl FnMut(&Connection) -> io::Result<T>,
    ) -> io::Result<T> {
        let Shared { connection, mode } = &*self.shared;
        mode.run(&connection.node, connection.waiters(), interest, || operation(connection))
    }
}

tcp_options!(TcpStream);

impl Read for &TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.run(Interest::Read, |connection| connection.read(buf))
    }
}

impl Read for TcpStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
}

impl Write for &TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.run(Interest::Write, |connection| connection.write(buf))
    }

    // Writes go to the stack's send queue at once, so nothing is buffered here.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for TcpStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream")
            .field("local", &self.connection().local_addr())
            .field("peer", &self.connection().peer_addr().ok())
            .finish()
    }
}

/// TCP listener on the overlay, as [`std::net::TcpListener`]. Its backlog holds up to 128 connections.
///
/// ```no_run
/// use peersock::blocking::TcpListener;
///
/// let listener = TcpListener::bind("[::]:80")?;
/// for stream in listener.incoming() {
///     println!("connection from {}", stream?.peer_addr()?);
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpListener {
    shared: Arc<ListenerShared>,
}

struct ListenerShared {
    acceptor: Acceptor,
    mode: Mode,
}

impl TcpListener {
    /// Listens through the process's node: on one of its addresses, or with `[::]` on all of them, in every
    /// network it joins.
    ///
    /// # Errors
    /// Returns `AddrInUse`, `AddrNotAvailable` (not this node's address), `PermissionDenied` (the network
    /// does not allow the port), and the errors of [`node()`](crate::node()).
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        TcpListener::bind_on(&node::node()?, addr)
    }

    /// Listens like [`TcpListener::bind`], through `node`.
    /// Errors: see [`TcpListener::bind`].
    pub fn bind_on(node: &Node, addr: impl ToSocketAddrs) -> io::Result<TcpListener> {
        let mut last = None;
        for addr in resolve(&node.inner, &addr)? {
            match Acceptor::bind(node, addr) {
                Ok(acceptor) => {
                    let shared = Arc::new(ListenerShared { acceptor, mode: Mode::default() });
                    return Ok(TcpListener { shared });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("resolve gives at least one address"))
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// Returns `WouldBlock` in non-blocking mode, `NetworkDown` when the node is shut down.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let ListenerShared { acceptor, mode } = &*self.shared;
        let (connection, remote) =
            mode.run(&acceptor.node, acceptor.waiters(), Interest::Read, || acceptor.accept())?;
        Ok((TcpStream::new(connection), remote))
    }

    /// Stops listening, for all handles: threads in [`TcpListener::accept`] get an error, and connections in
    /// the backlog are reset. Dropping the last handle does the same.
    ///
    /// ```
    /// # use peersock::blocking::TcpListener;
    /// # use peersock::{IdentitySource, Interfaces, Network, Node};
    /// # let node = Node::builder().identity(IdentitySource::Ephemeral);
    /// # let node = node.interfaces(Interfaces::Loopback).start()?;
    /// # node.join(Network::ad_hoc("ff00500050000000".parse()?))?;
    /// let listener = TcpListener::bind_on(&node, "[::]:80")?;
    /// let waiting = listener.try_clone()?;
    /// let waiting = std::thread::spawn(move || waiting.accept().is_err());
    /// listener.close();
    /// assert!(waiting.join().unwrap());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&self) {
        self.shared.acceptor.close();
    }

    /// Returns an iterator of accepted connections.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// Returns the listening address.
    /// Never fails at present.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.shared.acceptor.local_addr())
    }

    /// Returns another handle of the same listener.
    /// Never fails at present.
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        Ok(TcpListener { shared: Arc::clone(&self.shared) })
    }

    /// Sets whether [`TcpListener::accept`] returns `WouldBlock` instead of waiting.
    /// Never fails at present.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.shared.mode.set_nonblocking(nonblocking);
        Ok(())
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpListener").field("local", &self.shared.acceptor.local_addr()).finish()
    }
}

/// Iterator of the connections of a [`TcpListener`]; never ends.
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}
