//! Listening sockets: a handshake in progress or a connection to accept takes one place of the backlog.

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock};
use std::time::Instant;

use crate::host::batch::Mark;
use crate::host::clock::Time;
use crate::host::stack::Shared;
use crate::ip::canonical;
use crate::socket::backlog::{Admission, Queue};
use crate::socket::demux::Bound;
use crate::sync;
use crate::{Error, Flow, InterfaceId, Ready, Scope, Stack, TcpOptions};

/// A listening TCP socket.
///
/// Several listeners may share a port, see [`TcpOptions::reuse_port`].
///
/// ```
/// use std::time::{Duration, Instant};
/// use peersock_stack::{Config, Error, InterfaceConfig, Stack, TcpOptions};
///
/// let now = Instant::now();
/// let stack = Stack::new(Config::default(), [7; 32], now);
/// let net = stack.add_interface(InterfaceConfig::new("net", ["10.0.0.1/8".parse()?]));
/// let local = "10.0.0.1:80".parse()?;
/// let listener = stack.tcp_listen(now, Some(net), local, 128, TcpOptions::default())?;
/// assert_eq!(listener.accept(now).unwrap_err(), Error::WouldBlock);
/// listener.close(now);
/// assert_eq!(listener.accept(now).unwrap_err(), Error::Closed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Listener {
    shared: Arc<Shared>,
    scope: Scope,
    local: SocketAddr,
    /// Value at the time of the bind; later changes of the options have no effect.
    reuse_port: bool,
    options: RwLock<TcpOptions>,
    queue: Mutex<Queue>,
    mark: Mark,
    context: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Stack {
    /// Listens for connections on `local`. Its address may be unspecified; port 0 means any free port that
    /// the network allows. It listens on all interfaces of the scope that have the address.
    ///
    /// At most `backlog` connections (at least 1) may be in progress or wait to be accepted. SYNs beyond that
    /// are dropped, so that their senders try again, and counted.
    ///
    /// # Errors
    /// [`Error::AddrInUse`] if a listener overlaps and not both have [`TcpOptions::reuse_port`], or if the
    /// port has connections (in TIME-WAIT or not) and neither this nor [`TcpOptions::reuse_address`] is on;
    /// [`Error::PermissionDenied`] if the network does not allow the port, for a wildcard if none does;
    /// [`Error::AddrNotAvailable`], [`Error::NetworkUnreachable`] for a foreign address or unknown interface.
    pub fn tcp_listen(
        &self,
        now: Instant,
        scope: impl Into<Scope>,
        local: SocketAddr,
        backlog: usize,
        options: TcpOptions,
    ) -> Result<Arc<Listener>, Error> {
        let scope = scope.into();
        let listener = self.tcp_bind(scope.clone(), local, options)?;
        if !self.allows_port(&scope, listener.local().port()) {
            listener.close(now);
            return Err(Error::PermissionDenied);
        }
        listener.listen(backlog);
        Ok(listener)
    }

    /// Returns true if peers can reach a listener at `port`: a network of the scope allows it, or the stack
    /// has none yet.
    pub fn allows_port(&self, scope: &Scope, port: u16) -> bool {
        self.shared.interfaces.any_allows(scope, port)
    }

    /// Binds an address and a port as [`tcp_listen`](Self::tcp_listen) does. Connections are refused until
    /// [`Listener::listen`]. A wildcard address may have any port, because it may be the source of a
    /// connection: see [`allows_port`](Self::allows_port).
    /// Fails as [`tcp_listen`](Self::tcp_listen) does.
    pub fn tcp_bind(
        &self,
        scope: impl Into<Scope>,
        local: SocketAddr,
        options: TcpOptions,
    ) -> Result<Arc<Listener>, Error> {
        let shared = &self.shared;
        let (scope, local) = (scope.into(), canonical(local));
        // RFC 1122 4.2.3.10: a group is no address of a TCP connection.
        if local.ip().is_multicast() {
            return Err(Error::AddrNotAvailable);
        }
        let network = self.bind_network(&scope, local.ip())?;
        let allowed = |port| match &network {
            Some(network) => network.allows(port),
            None => self.allows_port(&scope, port),
        };
        // An automatically chosen port is never shared, even with SO_REUSEPORT.
        let listen = |port: u16, asked: bool| {
            let share = asked && options.reuse_port;
            let reuse = share || (asked && options.reuse_address);
            let free = |bound: &[Arc<Listener>]| {
                let stands_in_the_way = |other: &Arc<Listener>| {
                    other.overlaps(&scope, local.ip()) && !(share && other.shares_port())
                };
                let taken = bound.iter().any(stands_in_the_way);
                // Segments for an old connection, in TIME-WAIT or not, must not meet a new program.
                let left = !reuse && shared.flows.uses_port(port);
                if taken || left { Err(Error::AddrInUse) } else { Ok(()) }
            };
            let local = SocketAddr::new(local.ip(), port);
            let options = options.clone();
            let make = || Listener::new(shared, scope.clone(), local, options);
            shared.listeners.insert(port, free, make)
        };
        match local.port() {
            0 => {
                // Peers must be able to reach the listener, so any allowed port will do if no ephemeral one
                // is allowed.
                let mut ephemeral = shared.ephemeral.candidates(local.ip(), None);
                let found = ephemeral.find_map(|port| allowed(port).then(|| listen(port, false).ok())?);
                let found = found.or_else(|| {
                    (1..=u16::MAX).find_map(|port| allowed(port).then(|| listen(port, false).ok())?)
                });
                found.ok_or(Error::AddrInUse)
            }
            port if network.is_some() && !allowed(port) => Err(Error::PermissionDenied),
            port => listen(port, true),
        }
    }
}

impl Listener {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        scope: Scope,
        local: SocketAddr,
        options: TcpOptions,
    ) -> Arc<Self> {
        Arc::new(Self {
            shared: shared.clone(),
            scope,
            local,
            reuse_port: options.reuse_port,
            options: RwLock::new(options),
            queue: Mutex::default(),
            mark: Mark::default(),
            context: OnceLock::new(),
        })
    }

    /// Returns the interface, `None` for all.
    pub fn interface(&self) -> Option<InterfaceId> {
        self.scope.device()
    }

    /// Returns the local address and port; the address may be unspecified.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Takes the connection that has waited longest. It may have ended meanwhile.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if no connection waits, [`Error::Closed`] after [`close`](Self::close),
    /// [`Error::NetworkDown`] after the interface was removed.
    pub fn accept(&self, now: Instant) -> Result<Arc<Flow>, Error> {
        let flow = self.lock().take()?;
        // The accepted connection has left its place, which a held handshake may take.
        self.let_in(self.shared.clock.time(now));
        Ok(flow)
    }

    /// Accepts a connection as [`accept`](Self::accept) does, but the connection keeps its place of the
    /// backlog until [`free_place`](Self::free_place). This serves a caller that passes connections on to
    /// another program.
    /// Fails as [`accept`](Self::accept) does.
    pub fn accept_in_place(&self, _now: Instant) -> Result<Arc<Flow>, Error> {
        self.lock().take_in_place()
    }

    /// Frees the place of one connection taken by [`accept_in_place`](Self::accept_in_place). Returns true if
    /// a waiting handshake takes the place; the stack's next timeout answers it.
    pub fn free_place(&self, now: Instant) -> bool {
        self.lock().free_place();
        self.let_in(self.shared.clock.time(now))
    }

    /// Implements listen(2), also to change the number of places (at least 1) for connections and handshakes.
    /// Connections beyond a smaller number stay.
    pub fn listen(&self, backlog: usize) {
        self.lock().set_backlog(backlog, false);
    }

    /// Does the same for a small exact number: no more than `backlog` peers may believe that they are
    /// connected. So a SYN waits while handshakes hold all places, and the stack's next timeout answers it
    /// when a place is free. If handshakes hold all places for more than a second, a cookie answers it.
    pub fn listen_exactly(&self, backlog: usize) {
        self.lock().set_backlog(backlog, true);
    }

    /// Returns the options that accepted connections inherit.
    pub fn options(&self) -> TcpOptions {
        sync::read(&self.options).clone()
    }

    /// Changes the options of connections whose SYN comes from now on. Options of the bind stay:
    /// [`reuse_address`](TcpOptions::reuse_address), [`reuse_port`](TcpOptions::reuse_port).
    pub fn set_options(&self, options: TcpOptions) {
        *sync::write(&self.options) = options;
    }

    /// Stops listening. Connections that were not accepted are reset by the stack's next timeout.
    pub fn close(&self, now: Instant) {
        self.end(now, Error::Closed);
    }

    /// Closes the listener because its interface is removed.
    pub(crate) fn fail(&self, now: Instant, error: Error) {
        self.end(now, error);
    }

    fn end(&self, now: Instant, error: Error) {
        let (waiting, held) = self.lock().close(error);
        self.shared.listeners.remove(self.local.port(), self);
        // They were never answered, so their peers repeat the SYN and get a refusal then.
        held.iter().for_each(|flow| flow.end_held(self.shared.clock.time(now)));
        for flow in waiting {
            // A reset, because no program will read what the peers have sent.
            flow.set_reset_on_close(true);
            flow.close(now);
            // The reset leaves by the stack's next timeout, because this call has no batch that could list
            // the flow.
            flow.arm_now(self.shared.clock.time(now));
        }
    }

    /// Returns [`Ready::READABLE`] if a connection waits, [`Ready::READ_CLOSED`] after the end.
    pub fn readiness(&self) -> Ready {
        self.lock().readiness()
    }

    /// Returns the driver's own state for this socket.
    pub fn context(&self) -> &OnceLock<Arc<dyn Any + Send + Sync>> {
        &self.context
    }

    /// Returns true if the socket may share its port.
    pub(crate) fn shares_port(&self) -> bool {
        self.reuse_port
    }

    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Takes a place for a new handshake if one is left.
    pub(crate) fn begin_handshake(&self, now: Time, peer: IpAddr) -> Admission {
        self.lock().begin_handshake(now, peer)
    }

    /// Returns true if a cookie may come back. Without recent cookies, guesses are refused.
    pub(crate) fn has_given_cookies(&self, now: Time) -> bool {
        self.lock().has_given_cookies(now)
    }

    /// Takes a place for a connection whose cookie came back; returns `false` if there is none.
    pub(crate) fn take_cookie(&self, now: Time) -> bool {
        self.lock().take_cookie(now)
    }

    /// Returns true if there may be peers whose cookie came back without finding a place, and that believe to
    /// be connected.
    pub(crate) fn has_refused_cookies(&self, now: Time) -> bool {
        self.lock().has_refused_cookies(now)
    }

    /// Adds a handshake that waits for a place.
    pub(crate) fn hold(&self, flow: &Arc<Flow>, now: Time) {
        self.lock().hold(flow);
        // A place may have become free meanwhile.
        self.let_in(now);
    }

    /// Frees the place of a handshake that failed.
    pub(crate) fn forget_handshake(&self, now: Time) {
        self.lock().end_handshake();
        self.let_in(now);
    }

    /// Gives free places to waiting handshakes; returns true if there were any. It locks the flows one by
    /// one, without the queue's lock.
    fn let_in(&self, now: Time) -> bool {
        let mut any = false;
        loop {
            let next = self.lock().next_held(now);
            let Some(held) = next else { return any };
            match held.upgrade().is_some_and(|flow| flow.let_in(now)) {
                true => any = true,
                // This handshake has ended meanwhile, so its place is free again.
                false => self.lock().end_handshake(),
            }
        }
    }

    /// Queues a connection after its handshake; returns `false` if the listener is closed.
    pub(crate) fn enqueue(&self, flow: Arc<Flow>) -> bool {
        self.lock().enqueue(flow)
    }

    /// Returns true if accept may return a connection that was reset before it sent data.
    pub(crate) fn takes_reset(&self) -> bool {
        !self.lock().is_closed() && self.options().defer_accept.is_none()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        sync::lock(&self.queue)
    }
}

impl Bound for Listener {
    /// Returns false for a socket that is only bound, which accepts no connections.
    fn is_open(&self) -> bool {
        self.lock().listens()
    }

    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn local(&self) -> SocketAddr {
        self.local
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("scope", &self.scope)
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}
