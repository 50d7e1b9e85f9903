//! TCP: one connection, and one listener.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peersock_stack::{
    Batch, CongestionControl, Delivery, Error, Flow, InterfaceId, Listener, Ready, TcpInfo, TcpOptions,
};

use super::{Waited, explain, interface_of, interface_within};
use crate::node::{Inner, Node};
use crate::sync;
use peersock_primitives::wait::{Interest, Waiters};

/// Connections that may wait to be accepted: `std::net`'s number.
const BACKLOG: usize = 128;

/// From this size on, bytes, a write looks for acknowledgements itself.
const LARGE_WRITE: usize = 16 << 10;

/// One TCP connection, without waiting: what would block fails with
/// [`WouldBlock`](io::ErrorKind::WouldBlock), and [`Connection::waiters`] tell when it is worth repeating.
/// Dropping it closes the connection; what was written is still delivered.
/// [`NodeHandle::connect`](crate::attach::NodeHandle::connect) and
/// [`Acceptor::accept`] give one.
///
/// ```
/// use peersock::attach::NodeHandle;
/// use peersock::{IdentitySource, Interfaces, Network, Node};
/// use peersock_stack::TcpOptions;
///
/// let node = Node::builder().identity(IdentitySource::Ephemeral).interfaces(Interfaces::Loopback).start()?;
/// let network = node.join(Network::ad_hoc("ff00500050000000".parse()?))?;
/// let local = (network.address(), 80).into();
/// let handle = NodeHandle::of(&node);
/// let acceptor = handle.reserve(None, local, TcpOptions::default())?;
/// acceptor.listen(16);
/// let connection = handle.connect(None, None, local, TcpOptions::default())?;
/// assert_eq!(connection.flow().remote(), local);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Connection {
    pub(crate) node: Arc<Inner>,
    flow: Arc<Flow>,
    linger: Mutex<Option<Duration>>,
    /// The application has found nothing to read since it last took something.
    waits_for_data: AtomicBool,
    /// A call has failed because there is no connection any more, so the application knows.
    error_known: AtomicBool,
    /// A call has failed because the node is being shut down: what the application had to say is cut off.
    was_cut_off: AtomicBool,
}

impl Connection {
    /// Sends the SYN. The connection stands when [`Connection::check_connected`] says so.
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
        Connection::open(inner, None, None, remote, options)
            .map_err(|error| explain(error, remote.port(), &inner.driver.datapath.networks()))
    }

    /// Sends the SYN, from `local` if given, and over one interface only if given.
    pub(crate) fn open(
        node: &Arc<Inner>,
        interface: Option<InterfaceId>,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        options: TcpOptions,
    ) -> Result<Connection, Error> {
        let now = Instant::now();
        let datapath = &node.driver.datapath;
        let leads_there = datapath.interface_to(now, remote.ip()).ok_or(Error::NetworkUnreachable)?;
        if interface.is_some_and(|interface| interface != leads_there) {
            return Err(Error::NetworkUnreachable);
        }
        let flow = datapath.stack().tcp_connect(now, leads_there, local, remote, options)?;
        let connection = Connection::new(node, flow);
        connection.send();
        Ok(connection)
    }

    /// The stack's connection.
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
        }
    }

    /// Fails once the node is shut down.
    pub(crate) fn check_up(&self) -> io::Result<()> {
        self.node.check_up().inspect_err(|_| self.was_cut_off.store(true, Ordering::Relaxed))
    }

    /// Who waits for it.
    pub fn waiters(&self) -> &Waiters {
        Waited::waiters(&*self.flow)
    }

    /// Checks an attempt to connect: `WouldBlock` until the connection stands or has failed.
    ///
    /// # Errors
    /// What has ended the attempt, once.
    pub fn check_connected(&self) -> io::Result<()> {
        if let Some(error) = self.flow.take_error() {
            return Err(error.into());
        }
        match self.flow.readiness().contains(Ready::CONNECTED) {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Reads what there is; 0 at the end.
    ///
    /// # Errors
    /// `WouldBlock`; what has ended the connection.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.check_up()?;
        if !buf.is_empty() {
            self.check_readable()?;
        }
        let now = Instant::now();
        let n = self.flow.read(now, buf)?;
        self.waits_for_data.store(false, Ordering::Relaxed);
        if self.flow.has_output(now) {
            // The window opened: the sender may be waiting for it.
            self.send();
        }
        Ok(n)
    }

    /// As [`Connection::is_ready`] for reading; where there is nothing, the peer gets what is held for an
    /// answer.
    pub(crate) fn check_readable(&self) -> io::Result<()> {
        self.is_ready(Interest::Read).inspect_err(|_| self.wait_for_data())
    }

    /// The application has come to wait for data; see [`Flow::wait_for_data`]. It says so at each attempt, of
    /// which the first one counts.
    fn wait_for_data(&self) {
        let known = self.waits_for_data.swap(true, Ordering::Relaxed);
        if !known && self.flow.wait_for_data(Instant::now()) {
            self.send();
        }
    }

    /// As [`Connection::read`], of data where it lies; see [`Flow::read_with`].
    ///
    /// # Errors
    /// Those of [`Connection::read`].
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

    /// Writes what there is room for.
    ///
    /// # Errors
    /// `WouldBlock`; what has ended the connection.
    pub fn write(&self, data: &[u8]) -> io::Result<usize> {
        let n = self.write_unsent(data)?;
        self.send_written(n);
        Ok(n)
    }

    /// As [`Connection::write`], with the data in several buffers: what fits leaves in the same packets.
    pub(crate) fn write_vectored(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.check_writable()?;
        let n = self.flow.write_vectored(Instant::now(), buffers)?;
        self.send_written(n);
        Ok(n)
    }

    /// As [`Connection::write`], and leaves the sending to the caller, by [`Datapath::pump_together`] or
    /// [`Datapath::pump`].
    ///
    /// # Errors
    /// Those of [`Connection::write`].
    ///
    /// [`Datapath::pump_together`]: peersock_datapath::Datapath::pump_together
    /// [`Datapath::pump`]: peersock_datapath::Datapath::pump
    pub fn write_unsent(&self, data: &[u8]) -> io::Result<usize> {
        self.check_writable()?;
        Ok(self.flow.write(Instant::now(), data)?)
    }

    fn check_writable(&self) -> io::Result<()> {
        self.check_up()?;
        // Once the buffer was full a good part of it must be free again: refilling it crumb by crumb is slow.
        self.is_ready(Interest::Write)
    }

    /// Sends after `n` bytes were written.
    fn send_written(&self, n: usize) {
        self.send();
        if n >= LARGE_WRITE {
            self.node.driver.poll_once();
        }
    }

    /// Whether a direction can go on, or has ended or failed.
    ///
    /// # Errors
    /// `WouldBlock` if not.
    pub fn is_ready(&self, interest: Interest) -> io::Result<()> {
        let wanted = match interest {
            Interest::Read => Ready::READABLE | Ready::READ_CLOSED | Ready::ERROR,
            Interest::Write => Ready::WRITABLE | Ready::WRITE_CLOSED | Ready::ERROR,
        };
        match self.flow.readiness().intersects(wanted) {
            true => Ok(()),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// shutdown(2).
    ///
    /// # Errors
    /// `NotConnected`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let now = Instant::now();
        if self.was_cut_off.load(Ordering::Relaxed) && how != Shutdown::Read {
            // No end for what was cut off.
            return Err(Error::NetworkDown.into());
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            self.flow.shutdown_write(now)?;
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            self.flow.shutdown_read(now)?;
        }
        self.send();
        // Whoever waits for this socket in another thread sees the end.
        self.waiters().notify(true, true);
        Ok(())
    }

    /// Takes nothing more from the peer; true if it had ended its side, see [`Flow::stop_receiving`].
    pub(crate) fn stop_receiving(&self) -> bool {
        let is_complete = self.flow.stop_receiving(Instant::now());
        self.send();
        // Whoever waits for this socket in another thread sees the end.
        self.waiters().notify(true, true);
        is_complete
    }

    /// The application knows that the connection has failed, although it has not taken the error.
    pub(crate) fn set_error_known(&self) {
        self.error_known.store(true, Ordering::Relaxed);
    }

    /// The own address.
    pub fn local_addr(&self) -> SocketAddr {
        self.flow.local()
    }

    /// The peer's address.
    ///
    /// # Errors
    /// `NotConnected` before the connection stands.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self.flow.readiness().contains(Ready::CONNECTED) {
            true => Ok(self.flow.remote()),
            false => Err(Error::NotConnected.into()),
        }
    }

    pub(crate) fn nodelay(&self) -> bool {
        self.flow.nodelay()
    }

    /// TCP_NODELAY.
    pub fn set_nodelay(&self, on: bool) {
        self.flow.set_nodelay(on);
        if on {
            self.send();
        }
    }

    /// TCP_CONGESTION.
    ///
    /// # Errors
    /// `NotConnected` after its end.
    pub fn congestion_control(&self) -> io::Result<CongestionControl> {
        Ok(self.flow.congestion().ok_or(Error::NotConnected)?)
    }

    /// TCP_CONGESTION.
    ///
    /// # Errors
    /// `NotConnected` after its end.
    pub fn set_congestion_control(&self, congestion: CongestionControl) -> io::Result<()> {
        self.congestion_control()?;
        self.flow.set_congestion(Instant::now(), congestion);
        // The new window may be the larger one, or its pace the faster one.
        self.send();
        Ok(())
    }

    /// TCP_INFO.
    ///
    /// # Errors
    /// `NotConnected` after its end.
    pub fn info(&self) -> io::Result<TcpInfo> {
        Ok(self.flow.info().ok_or(Error::NotConnected)?)
    }

    pub(crate) fn set_keepalive(&self, interval: Option<Duration>) -> io::Result<()> {
        self.flow.set_keepalive(checked(interval)?);
        // The flow's timer follows.
        self.send();
        Ok(())
    }

    /// TCP_USER_TIMEOUT, `None` for the default.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    pub fn set_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.flow.set_user_timeout(checked(timeout)?);
        self.send();
        Ok(())
    }

    pub(crate) fn linger(&self) -> Option<Duration> {
        *sync::lock(&self.linger)
    }

    /// SO_LINGER: how long dropping it waits (blocking the thread) for delivery, after which it resets the
    /// connection. `None`, the default: dropping does not wait.
    pub fn set_linger(&self, linger: Option<Duration>) {
        *sync::lock(&self.linger) = linger;
        self.flow.set_reset_on_close(linger == Some(Duration::ZERO));
    }

    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.flow.take_error().map(io::Error::from)
    }

    /// `WouldBlock` while something that was written, or the end, waits for an acknowledgement.
    pub(crate) fn check_delivered(&self) -> io::Result<()> {
        match self.flow.delivery() {
            Delivery::Done => Ok(()),
            // Whoever has it from here need not be told again.
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
            // With a FIN the peer would take what it has for everything. The node delivers what was written
            // as long as it lingers, and resets what is open then.
            return;
        }
        // An error that was taken before is known to the application.
        let is_lost = matches!(self.flow.delivery(), Delivery::Lost(_));
        let error_taken = !self.flow.readiness().contains(Ready::ERROR);
        let is_known = is_lost && (error_taken || self.error_known.load(Ordering::Relaxed));
        self.flow.close(Instant::now());
        self.send();
        match self.linger() {
            // SO_LINGER with a time: closing waits for the delivery, and resets when the time is over.
            Some(linger) if linger > Duration::ZERO => {
                let deadline = Some(Instant::now() + linger);
                let delivered = || (self.flow.delivery() != Delivery::Pending).then_some(());
                if self.node.driver.wait(self.waiters(), Interest::Write, deadline, delivered).is_none() {
                    self.flow.abort(Instant::now());
                    self.send();
                }
            }
            _ => {}
        }
        if !is_known {
            self.node.add_closing(&self.flow);
        }
    }
}

/// A time that a socket option may have.
fn checked(time: Option<Duration>) -> io::Result<Option<Duration>> {
    match time {
        Some(Duration::ZERO) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "cannot set a timeout of zero"))
        }
        time => Ok(time),
    }
}

/// A place of a listener's backlog, which is free once this is dropped.
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

/// A TCP listener, without waiting. Dropping it stops listening and resets what nobody accepted.
/// [`NodeHandle::reserve`](crate::attach::NodeHandle::reserve) gives one; an example is at [`Connection`].
pub struct Acceptor {
    pub(crate) node: Arc<Inner>,
    listener: Arc<Listener>,
}

impl Acceptor {
    pub(crate) fn bind(node: &Node, local: SocketAddr) -> io::Result<Acceptor> {
        let interface = interface_of(&node.inner, local)?;
        // As std::net on Unix: a restarted server may listen while its old connections are in TIME-WAIT.
        let options = TcpOptions { reuse_address: true, prompt: true, ..TcpOptions::default() };
        let stack = node.inner.driver.datapath.stack();
        let listener = stack
            .tcp_listen(Instant::now(), interface, local, BACKLOG, options)
            .map_err(|error| explain(error, local.port(), &node.inner.driver.datapath.networks()))?;
        node.inner.add_socket(&listener);
        Ok(Acceptor { node: Arc::clone(&node.inner), listener })
    }

    /// Takes an address and a port, on one interface only if given; connections come after
    /// [`Acceptor::listen`].
    pub(crate) fn reserve(
        node: &Arc<Inner>,
        device: Option<InterfaceId>,
        local: SocketAddr,
        options: TcpOptions,
    ) -> Result<Acceptor, Error> {
        let interface = interface_within(node, local.ip(), device)?;
        let listener = node.driver.datapath.stack().tcp_bind(interface, local, options)?;
        node.add_socket(&listener);
        Ok(Acceptor { node: Arc::clone(node), listener })
    }

    /// listen(2), with room for so many connections that nobody has accepted.
    pub fn listen(&self, backlog: usize) {
        self.listener.listen(backlog);
    }

    /// The same, for few, which [`accept_in_place`](Self::accept_in_place) takes: see
    /// [`Listener::listen_exactly`].
    pub fn listen_exactly(&self, backlog: usize) {
        self.listener.listen_exactly(backlog);
    }

    /// Who waits for connections.
    pub fn waiters(&self) -> &Waiters {
        Waited::waiters(&*self.listener)
    }

    /// A connection that has come, and from where.
    ///
    /// # Errors
    /// `WouldBlock`.
    pub fn accept(&self) -> io::Result<(Connection, SocketAddr)> {
        let flow = self.listener.accept(Instant::now())?;
        let remote = flow.remote();
        Ok((Connection::new(&self.node, flow), remote))
    }

    /// A connection that has come, and goes on counting among those that wait until its place is dropped.
    ///
    /// # Errors
    /// `WouldBlock`.
    pub fn accept_in_place(&self) -> io::Result<(Connection, Place)> {
        let flow = self.listener.accept_in_place(Instant::now())?;
        let place = Place { node: Arc::clone(&self.node), listener: Arc::clone(&self.listener) };
        Ok((Connection::new(&self.node, flow), place))
    }

    /// The own address.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.local()
    }

    /// Stops listening, and resets what nobody accepted.
    pub(crate) fn close(&self) {
        let mut batch = Batch::default();
        let now = Instant::now();
        self.listener.close(now);
        self.node.driver.datapath.settle(now, &mut batch);
        self.waiters().notify(true, false);
    }

    /// What connections have that come from now on.
    pub fn set_options(&self, options: TcpOptions) {
        self.listener.set_options(options);
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.close();
    }
}
