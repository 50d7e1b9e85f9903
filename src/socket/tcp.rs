//! TCP: one connection, and one listener.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peersock_overlay::PeerDescription;
use peersock_stack::{
    Batch, CongestionControl, Delivery, Error, Flow, Listener, Ready, Scope, TcpInfo, TcpOptions,
};

use super::{Waited, explain, interface_of};
use crate::node::{Closing, Inner, Node, PeerIdentity};
use crate::sync;
use peersock_primitives::wait::{Interest, Waiters};

/// Limit of connections in the backlog, as in `std::net`.
const BACKLOG: usize = 128;

/// Size in bytes from which a write also reads acknowledgements.
const LARGE_WRITE: usize = 16 << 10;

/// TCP connection without waiting: calls that would block fail with
/// [`WouldBlock`](io::ErrorKind::WouldBlock), and [`Connection::waiters`] is notified when a call is worth
/// repeating. Dropping it closes the connection; written data is still delivered.
/// [`NodeHandle::connect`](crate::attach::NodeHandle::connect) and [`Acceptor::accept`] return one.
pub struct Connection {
    pub(crate) node: Arc<Inner>,
    flow: Arc<Flow>,
    linger: Mutex<Option<Duration>>,
    /// True if the application has found nothing to read since its last successful read.
    waits_for_data: AtomicBool,
    /// True once a call has failed because the connection is gone, so the application knows.
    error_known: AtomicBool,
    /// True once a call has failed because the node is shutting down, so the application's data is truncated.
    was_cut_off: AtomicBool,
    /// Closed connections of the program, if it is one of several that share the node.
    closing: Option<Arc<Closing>>,
}

impl Connection {
    /// Sends the SYN. [`Connection::check_connected`] tells when the connection is established.
    pub(crate) fn start(node: &Node, remote: SocketAddr) -> io::Result<Connection> {
        let inner = &node.inner;
        inner.check_up()?;
        if remote.port() == 0 || remote.ip().is_unspecified() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{remote} cannot be connected to"),
            ));
        }
        let options = TcpOptions { prompt: true, ..TcpOptions::default() };
        Connection::open(inner, &Scope::default(), None, remote, options)
            .map_err(|error| explain(error, remote.port(), &inner.driver.datapath.networks()))
    }

    /// Sends the SYN, from `local` if given, over an interface of the scope.
    pub(crate) fn open(
        node: &Arc<Inner>,
        scope: &Scope,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        options: TcpOptions,
    ) -> Result<Connection, Error> {
        let now = Instant::now();
        let datapath = &node.driver.datapath;
        let leads_there = datapath.interface_to(now, scope, remote.ip());
        let leads_there = leads_there.ok_or(Error::NetworkUnreachable)?;
        let flow = datapath.stack().tcp_connect(now, leads_there, local, remote, options)?;
        let connection = Connection::new(node, flow);
        connection.send();
        Ok(connection)
    }

    /// Returns the stack's connection.
    pub fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    fn new(node: &Arc<Inner>, flow: Arc<Flow>) -> Connection {
        Connection {
            node: Arc::clone(node),
            flow,
            linger: Mutex::new(None),
            waits_for_data: AtomicBool::new(false),
            error_known: AtomicBool::new(false),
            was_cut_off: AtomicBool::new(false),
            closing: None,
        }
    }

    /// Returns the connection, which after its end is one of a program's closed ones.
    pub(crate) fn counted_in(mut self, closing: Option<Arc<Closing>>) -> Connection {
        self.closing = closing;
        self
    }

    /// Fails once the node is shut down.
    pub(crate) fn check_up(&self) -> io::Result<()> {
        self.node.check_up().inspect_err(|_| self.was_cut_off.store(true, Ordering::Relaxed))
    }

    /// Returns the waiters of the connection.
    pub fn waiters(&self) -> &Waiters {
        Waited::waiters(&*self.flow)
    }

    /// Ends the connection, or the attempt, with a reset now.
    pub fn abort(&self) {
        self.flow.abort(Instant::now());
        self.send();
    }

    /// Checks an attempt to connect: returns `WouldBlock` until the connection is established or has failed.
    ///
    /// # Errors
    /// Returns the error that ended the attempt, once.
    pub fn check_connected(&self) -> io::Result<()> {
        if let Some(error) = self.flow.take_error() {
            return Err(error.into());
        }
        match self.flow.readiness().contains(Ready::CONNECTED) {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Reads available data; returns 0 at the end.
    ///
    /// # Errors
    /// Returns `WouldBlock`, or the error that ended the connection.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.check_up()?;
        if !buf.is_empty() {
            self.check_readable()?;
        }
        let now = Instant::now();
        let n = self.flow.read(now, buf)?;
        self.waits_for_data.store(false, Ordering::Relaxed);
        if self.flow.has_output(now) {
            // The window opened, and the sender may be waiting for it.
            self.send();
        }
        Ok(n)
    }

    /// Checks for reading like [`Connection::is_ready`]. Without data, sends the acknowledgement that was
    /// delayed for an answer.
    pub(crate) fn check_readable(&self) -> io::Result<()> {
        self.is_ready(Interest::Read).inspect_err(|_| self.wait_for_data())
    }

    /// Notes that the application waits for data; see [`Flow::wait_for_data`]. Each attempt to read calls it,
    /// but only the first one counts.
    fn wait_for_data(&self) {
        let known = self.waits_for_data.swap(true, Ordering::Relaxed);
        if !known && self.flow.wait_for_data(Instant::now()) {
            self.send();
        }
    }

    /// Reads like [`Connection::read`], but from the data in place; see [`Flow::read_with`].
    /// Fails with the errors of [`Connection::read`].
    pub fn read_with(&self, take: impl FnOnce(&[&[u8]]) -> usize) -> io::Result<usize> {
        self.check_up()?;
        let now = Instant::now();
        let n = self.flow.read_with(now, take)?;
        if self.flow.has_output(now) {
            self.send();
        }
        Ok(n)
    }

    pub(crate) fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.check_up()?;
        if !buf.is_empty() {
            self.check_readable()?;
        }
        Ok(self.flow.peek(Instant::now(), buf)?)
    }

    /// Writes as much as fits into the send queue.
    ///
    /// # Errors
    /// Returns `WouldBlock`, or the error that ended the connection.
    pub fn write(&self, data: &[u8]) -> io::Result<usize> {
        let n = self.write_unsent(data)?;
        self.send_written(n);
        Ok(n)
    }

    /// Writes like [`Connection::write`], from several buffers: data that fits leaves in the same packets.
    pub(crate) fn write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.check_writable()?;
        let n = self.flow.write_vectored(Instant::now(), buffers)?;
        self.send_written(n);
        Ok(n)
    }

    /// Writes like [`Connection::write`], but leaves sending to the caller, by [`Datapath::pump_together`] or
    /// [`Datapath::pump`].
    ///
    /// # Errors
    /// Returns the errors of [`Connection::write`].
    ///
    /// [`Datapath::pump_together`]: peersock_datapath::Datapath::pump_together
    /// [`Datapath::pump`]: peersock_datapath::Datapath::pump
    pub fn write_unsent(&self, data: &[u8]) -> io::Result<usize> {
        self.check_writable()?;
        Ok(self.flow.write(Instant::now(), data)?)
    }

    fn check_writable(&self) -> io::Result<()> {
        self.check_up()?;
        // After the buffer was full, a good part of it must be free again, because refilling it in small
        // pieces is slow.
        self.is_ready(Interest::Write)
    }

    /// Sends after a write of `n` bytes.
    fn send_written(&self, n: usize) {
        self.send();
        if n >= LARGE_WRITE {
            self.node.driver.poll_once();
        }
    }

    /// Checks whether a direction can go on, or has ended or failed.
    ///
    /// # Errors
    /// Returns `WouldBlock` if not.
    pub fn is_ready(&self, interest: Interest) -> io::Result<()> {
        let wanted = match interest {
            Interest::Read => Ready::READABLE | Ready::READ_CLOSED | Ready::ERROR,
            Interest::Write => Ready::WRITABLE | Ready::WRITE_CLOSED | Ready::ERROR,
            Interest::Error => Ready::ERROR,
        };
        match self.flow.readiness().intersects(wanted) {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Shuts down like shutdown(2).
    ///
    /// # Errors
    /// Returns `NotConnected`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let now = Instant::now();
        if self.was_cut_off.load(Ordering::Relaxed) && how != Shutdown::Read {
            // A FIN would make truncated data look complete.
            return Err(Error::NetworkDown.into());
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            self.flow.shutdown_write(now)?;
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            self.flow.shutdown_read(now)?;
        }
        self.send();
        // Another thread that waits for this socket must see the end.
        self.waiters().notify_all();
        Ok(())
    }

    /// Accepts no more data from the peer; returns true if the peer had ended its side, see
    /// [`Flow::stop_receiving`].
    pub(crate) fn stop_receiving(&self) -> bool {
        let is_complete = self.flow.stop_receiving(Instant::now());
        self.send();
        // Another thread that waits for this socket must see the end.
        self.waiters().notify_all();
        is_complete
    }

    /// Notes that the application knows of the failure, although it has not taken the error.
    pub(crate) fn set_error_known(&self) {
        self.error_known.store(true, Ordering::Relaxed);
    }

    /// Returns the local address.
    pub fn local_addr(&self) -> SocketAddr {
        self.flow.local()
    }

    /// Returns the remote address.
    ///
    /// # Errors
    /// Returns `NotConnected` before the connection is established.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self.flow.readiness().contains(Ready::CONNECTED) {
            true => Ok(self.flow.remote()),
            false => Err(Error::NotConnected.into()),
        }
    }

    /// Returns who is at the other end, as of when the connection was established; `None` before that.
    /// [`PeerIdentity`](crate::PeerIdentity) is the form for programs.
    pub fn described(&self) -> Option<Arc<PeerDescription>> {
        self.node.driver.datapath.peer_of(&self.flow)
    }

    pub(crate) fn peer(&self) -> Option<PeerIdentity> {
        self.described().map(|described| PeerIdentity::from(&*described))
    }

    pub(crate) fn nodelay(&self) -> bool {
        self.flow.nodelay()
    }

    /// Sets TCP_NODELAY.
    pub fn set_nodelay(&self, on: bool) {
        self.flow.set_nodelay(on);
        if on {
            self.send();
        }
    }

    /// Returns TCP_CONGESTION.
    ///
    /// # Errors
    /// Returns `NotConnected` after its end.
    pub fn congestion_control(&self) -> io::Result<CongestionControl> {
        Ok(self.flow.congestion().ok_or(Error::NotConnected)?)
    }

    /// Sets TCP_CONGESTION.
    ///
    /// # Errors
    /// Returns `NotConnected` after its end.
    pub fn set_congestion_control(&self, congestion: CongestionControl) -> io::Result<()> {
        self.congestion_control()?;
        self.flow.set_congestion(Instant::now(), congestion);
        // The new window may be larger, or its pace faster.
        self.send();
        Ok(())
    }

    /// Returns TCP_INFO.
    ///
    /// # Errors
    /// Returns `NotConnected` after its end.
    pub fn info(&self) -> io::Result<TcpInfo> {
        Ok(self.flow.info().ok_or(Error::NotConnected)?)
    }

    pub(crate) fn set_keepalive(&self, interval: Option<Duration>) -> io::Result<()> {
        self.flow.set_keepalive(checked(interval)?);
        // This updates the flow's timer.
        self.send();
        Ok(())
    }

    /// Sets TCP_USER_TIMEOUT, `None` for the default.
    ///
    /// # Errors
    /// Returns `InvalidInput` for zero.
    pub fn set_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.flow.set_user_timeout(checked(timeout)?);
        self.send();
        Ok(())
    }

    pub(crate) fn linger(&self) -> Option<Duration> {
        *sync::lock(&self.linger)
    }

    /// Sets SO_LINGER: the time that dropping it waits (blocking the thread) for delivery, after which it
    /// resets the connection. `None`, the default: dropping does not wait.
    pub fn set_linger(&self, linger: Option<Duration>) {
        *sync::lock(&self.linger) = linger;
        self.flow.set_reset_on_close(linger == Some(Duration::ZERO));
    }

    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.flow.take_error().map(io::Error::from)
    }

    /// Returns `WouldBlock` while written data, or the end, waits for an acknowledgement.
    pub(crate) fn check_delivered(&self) -> io::Result<()> {
        match self.flow.delivery() {
            Delivery::Done => Ok(()),
            // The error is taken, because the caller needs it only once.
            Delivery::Lost(loss) => Err(self.flow.take_error().unwrap_or(loss.error).into()),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Fails if the connection has ended before everything was delivered.
    pub(crate) fn check_lost(&self) -> io::Result<()> {
        match self.flow.delivery() {
            Delivery::Lost(loss) => Err(loss.error.into()),
            _ => Ok(()),
        }
    }

    pub(crate) fn unacked(&self) -> u64 {
        self.flow.unacked() as u64
    }

    fn send(&self) {
        self.node.driver.pump(&self.flow);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let has_ended = self.flow.readiness().contains(Ready::WRITE_CLOSED);
        if self.was_cut_off.load(Ordering::Relaxed) && !has_ended {
            // A FIN would make the peer consider its data complete. The node delivers the written data as
            // long as it lingers, and then resets open connections.
            return;
        }
        // The application knows an error that it has taken.
        let is_lost = matches!(self.flow.delivery(), Delivery::Lost(_));
        let error_taken = !self.flow.readiness().contains(Ready::ERROR);
        let is_known = is_lost && (error_taken || self.error_known.load(Ordering::Relaxed));
        self.flow.close(Instant::now());
        self.send();
        match self.linger() {
            // SO_LINGER with a time: closing waits for the delivery, and resets after that time.
            Some(linger) if linger > Duration::ZERO => {
                let deadline = Some(Instant::now() + linger);
                let delivered = || (self.flow.delivery() != Delivery::Pending).then_some(());
                if self.node.driver.wait(self.waiters(), Interest::Write, deadline, delivered).is_none() {
                    self.abort();
                }
            }
            _ => {}
        }
        if !is_known {
            self.node.add_closing(&self.flow);
            self.closing.iter().for_each(|closing| closing.add(&self.flow));
        }
    }
}

/// Checks a time for a socket option.
fn checked(time: Option<Duration>) -> io::Result<Option<Duration>> {
    match time {
        Some(Duration::ZERO) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot set a timeout of zero"))
        }
        time => Ok(time),
    }
}

/// Place in a listener's backlog, which dropping it frees.
pub struct Place {
    node: Arc<Inner>,
    listener: Arc<Listener>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = Instant::now();
        if self.listener.free_place(now) {
            self.node.driver.datapath.settle(now, &mut Batch::default());
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.listener).finish()
    }
}

/// TCP listener without waiting. Dropping it stops listening and resets connections in the backlog.
/// [`NodeHandle::reserve`](crate::attach::NodeHandle::reserve) returns one; an example is at [`Connection`].
pub struct Acceptor {
    pub(crate) node: Arc<Inner>,
    listener: Arc<Listener>,
    /// Closed connections of the program, as in [`Connection`].
    closing: Option<Arc<Closing>>,
}

impl Acceptor {
    pub(crate) fn bind(node: &Node, local: SocketAddr) -> io::Result<Acceptor> {
        let interface = interface_of(&node.inner, local)?;
        // As in std::net on Unix: a restarted server may listen while its old connections are in TIME-WAIT.
        let options = TcpOptions { reuse_address: true, prompt: true, ..TcpOptions::default() };
        let stack = node.inner.driver.datapath.stack();
        let listener = stack
            .tcp_listen(Instant::now(), interface, local, BACKLOG, options)
            .map_err(|error| explain(error, local.port(), &node.inner.driver.datapath.networks()))?;
        node.inner.add_socket(&listener);
        Ok(Acceptor { node: Arc::clone(&node.inner), listener, closing: None })
    }

    /// Takes an address and a port on the interfaces of the scope; connections come after
    /// [`Acceptor::listen`].
    pub(crate) fn reserve(
        node: &Arc<Inner>,
        scope: Scope,
        local: SocketAddr,
        options: TcpOptions,
        closing: Option<Arc<Closing>>,
    ) -> Result<Acceptor, Error> {
        let listener = node.driver.datapath.stack().tcp_bind(scope, local, options)?;
        node.add_socket(&listener);
        Ok(Acceptor { node: Arc::clone(node), listener, closing })
    }

    /// Listens like listen(2), with a backlog of `backlog` connections.
    pub fn listen(&self, backlog: usize) {
        self.listener.listen(backlog);
    }

    /// Listens with a small, exact backlog for [`accept_in_place`](Self::accept_in_place): see
    /// [`Listener::listen_exactly`].
    pub fn listen_exactly(&self, backlog: usize) {
        self.listener.listen_exactly(backlog);
    }

    /// Returns the waiters for connections.
    pub fn waiters(&self) -> &Waiters {
        Waited::waiters(&*self.listener)
    }

    /// Accepts a connection, and returns it with its source.
    ///
    /// # Errors
    /// Returns `WouldBlock`.
    pub fn accept(&self) -> io::Result<(Connection, SocketAddr)> {
        let flow = self.listener.accept(Instant::now())?;
        let remote = flow.remote();
        Ok((self.connection(flow), remote))
    }

    /// Accepts a connection that still counts in the backlog until its place is dropped.
    ///
    /// # Errors
    /// Returns `WouldBlock`.
    pub fn accept_in_place(&self) -> io::Result<(Connection, Place)> {
        let flow = self.listener.accept_in_place(Instant::now())?;
        let place = Place { node: Arc::clone(&self.node), listener: Arc::clone(&self.listener) };
        Ok((self.connection(flow), place))
    }

    fn connection(&self, flow: Arc<Flow>) -> Connection {
        Connection::new(&self.node, flow).counted_in(self.closing.clone())
    }

    /// Returns the local address.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local()
    }

    /// Stops listening, and resets connections in the backlog.
    pub(crate) fn close(&self) {
        let mut batch = Batch::default();
        let now = Instant::now();
        self.listener.close(now);
        self.node.driver.datapath.settle(now, &mut batch);
        self.waiters().notify(true, false);
    }

    /// Sets the options of later connections.
    pub fn set_options(&self, options: TcpOptions) {
        self.listener.set_options(options);
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.close();
    }
}
