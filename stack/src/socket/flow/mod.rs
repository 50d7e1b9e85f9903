//! One TCP connection: what its socket and its packets do to it.

mod api;
mod cold;
mod delivery;
mod departure;
mod errors;
mod info;
mod life;
mod options;
mod relief;
mod time_wait;
mod urgent;

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Instant;

use crate::host::batch::Mark;
use crate::host::clock::Time;
use crate::host::interface::Interface;
use crate::host::stack::Shared;
use crate::host::timers::{NEVER, Tick};
use crate::socket::flow_table::FlowKey;
use crate::sync;
use crate::tcp::{Connection, Marking, Probing, Settings, Share};
use crate::{Error, Listener, Ready, State, TcpOptions};

use self::cold::Cold;
use self::time_wait::TimeWait;

pub use self::api::PIECES;
pub use self::delivery::{Delivery, Loss};
pub use self::departure::Departure;
pub use self::info::TcpInfo;
pub(crate) use self::relief::Orphan;

/// One TCP connection, in any state from its SYN on.
///
/// Any thread may call it. Its one lock is held for as long as a copy between the caller's memory and
/// the queues takes. After a call that can give it something to send (everything with a `now`), and
/// after a [`Batch`](crate::Batch) has listed it, call [`egress`](Self::egress) until that returns
/// `None`; the last call also sets the flow's timer.
///
/// A flow lives on without its owner: once [closed](Self::close), it ends the connection in order and
/// then frees itself. Dropping the `Arc` closes nothing.
///
/// ```
/// use std::time::Instant;
/// use peersock_stack::{Config, Egress, InterfaceConfig, MAX_PACKET, Ready, Stack, State, TcpOptions};
///
/// let now = Instant::now();
/// let stack = Stack::new(Config::default(), [7; 32], now);
/// let net = stack.add_interface(InterfaceConfig::new("net", ["10.0.0.1/8".parse()?]));
/// let flow = stack.tcp_connect(now, net, None, "10.0.0.2:80".parse()?, TcpOptions::default())?;
/// assert_eq!(flow.state(), State::SynSent);
///
/// let mut buf = vec![0; MAX_PACKET];
/// let limits = Egress { segment: 1400, max_segments: 44, in_flight_cap: 1 << 20, checksums: false };
/// let mut packets = flow.egress(now, &limits, &mut buf).expect("a SYN");
/// assert_eq!(packets.next(&mut buf).expect("one packet").len(), 20 + 32);
/// assert!(!flow.readiness().contains(Ready::CONNECTED));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Flow {
    shared: Arc<Shared>,
    interface: Arc<Interface>,
    key: FlowKey,
    /// Its addresses are IPv4's.
    v4: bool,
    /// In the flow table's list of those with the same peer. The table's lock guards it.
    position: AtomicU32,
    this: Weak<Flow>,
    inner: Mutex<Inner>,
    /// [`Ready`] as of the last change.
    ready: AtomicU8,
    /// At which time all output has been fetched, microseconds, until something else happens. 0 for never.
    quiet: AtomicI64,
    mark: Mark,
    context: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// What the path takes, given to [`Flow::egress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Egress {
    /// Most TCP payload bytes of one wire packet: the path MTU less 40 (IPv4) or 60 (IPv6) bytes.
    /// It may change at any time.
    pub segment: usize,
    /// Most wire packets of one super-segment, at least 1: what one batch of the driver takes.
    pub max_segments: usize,
    /// Most unacknowledged bytes; a change takes effect with the next acknowledgement.
    pub in_flight_cap: usize,
    /// Whether the wire packets need checksums.
    pub checksums: bool,
}

/// What the flow's lock guards.
struct Inner {
    /// The protocol machine, until the connection has ended and everything is read.
    connection: Option<Box<Connection>>,
    /// Instead of the connection, at the end; of which there is then at most what can be read.
    time_wait: Option<Box<TimeWait>>,
    /// Whether packets find this flow. Without that the state is CLOSED.
    linked: bool,
    /// Reported once, after the data that came before it.
    error: Option<Error>,
    /// What ICMP has said of the path since something came from the peer.
    soft: Option<Error>,
    connected: bool,
    /// The peer's FIN has come.
    ended: bool,
    read_shut: bool,
    /// Data that came was thrown away, because reading was shut down.
    discarded: bool,
    write_shut: bool,
    /// The application has said that it has read what was taken out of here.
    said_read: bool,
    /// The application has closed it.
    orphaned: bool,
    /// A write found the queue full, and a quarter has not become free since.
    was_full: bool,
    reset_on_close: bool,
    cold: Option<Box<Cold>>,
    /// When the last segment came that the connection could use: it is a sign of life. Of a connection that
    /// the application has closed none counts any more in FIN-WAIT-2.
    heard: Time,
    /// The latest time that was given. It does not go back.
    latest: Time,
    /// Since when something waits for an acknowledgement, or since the application has closed it. At first
    /// that is the handshake.
    waiting: Option<Time>,
    /// It waits for a place of its listener's backlog, and does nothing until then.
    is_held: bool,
    /// Who gets it when the handshake is done.
    listener: Option<Weak<Listener>>,
    alarm: Alarm,
}

/// The timer wheel's entries for a flow: the earliest, and the one that was the earliest before.
struct Alarm {
    first: Tick,
    second: Tick,
}

impl Flow {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        interface: Arc<Interface>,
        (local, remote): (SocketAddr, SocketAddr),
        connection: Connection,
        options: &TcpOptions,
        time: Time,
        listener: Option<&Arc<Listener>>,
    ) -> Arc<Self> {
        let inner = Inner {
            connection: Some(Box::new(connection)),
            time_wait: None,
            linked: true,
            error: None,
            soft: None,
            connected: false,
            ended: false,
            read_shut: false,
            discarded: false,
            said_read: false,
            write_shut: false,
            orphaned: false,
            was_full: false,
            reset_on_close: options.reset_on_close,
            cold: Cold::of(options, time),
            heard: time,
            latest: time,
            waiting: Some(time),
            is_held: false,
            listener: listener.map(Arc::downgrade),
            alarm: Alarm { first: NEVER, second: NEVER },
        };
        Arc::new_cyclic(|this| Self {
            shared: shared.clone(),
            key: FlowKey::new(interface.id, local, remote),
            v4: local.is_ipv4(),
            position: AtomicU32::new(0),
            interface,
            this: this.clone(),
            inner: Mutex::new(inner),
            ready: AtomicU8::new(0),
            quiet: AtomicI64::new(0),
            mark: Mark::default(),
            context: OnceLock::new(),
        })
    }

    /// What a connection of a socket with these options is made with; its peer has the account `share`.
    pub(crate) fn settings(
        shared: &Shared,
        interface: &Interface,
        options: &TcpOptions,
        share: &Arc<Share>,
    ) -> Settings {
        let bounds = |bytes: usize| bytes.clamp(4 << 10, 1 << 30) as u32;
        Settings {
            send_buffer: bounds(options.send_buffer.unwrap_or(shared.config.send_buffer)),
            send_fixed: options.send_buffer.is_some(),
            receive_buffer: bounds(options.receive_buffer.unwrap_or(shared.config.receive_buffer)),
            receive_fixed: options.receive_buffer.is_some(),
            nodelay: options.nodelay,
            prompt: options.prompt,
            keepalive: Probing::new(options::sane(options.keepalive), options.user_timeout),
            max_segment: options.max_segment_size,
            marking: Marking::from(&options.ip),
            congestion: options.congestion,
            // Between nodes of this kind they would cost more than they bring: SACK and D-SACK tell the same.
            timestamps: interface.checksums,
            ecn: options.ecn,
            memory: share.clone(),
        }
    }

    pub(crate) fn key(&self) -> &FlowKey {
        &self.key
    }

    /// The own address and port, and the peer's.
    fn endpoints(&self) -> (SocketAddr, SocketAddr) {
        (self.key.local(self.v4), self.key.remote(self.v4))
    }

    pub(crate) fn position(&self) -> usize {
        self.position.load(Ordering::Relaxed) as usize
    }

    pub(crate) fn set_position(&self, position: usize) {
        self.position.store(position as u32, Ordering::Relaxed);
    }

    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// The flow and its time: a thread may have looked at the clock before another did that came first.
    fn lock_at(&self, now: Instant) -> (MutexGuard<'_, Inner>, Time) {
        let mut inner = self.lock();
        let time = inner.pass(self.shared.clock.time(now));
        (inner, time)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        let inner = self.lock_to_fetch();
        // Whoever has the lock may change something.
        self.quiet.store(0, Ordering::Relaxed);
        inner
    }

    /// The lock of whoever fetches output, and does nothing else.
    fn lock_to_fetch(&self) -> MutexGuard<'_, Inner> {
        sync::lock(&self.inner)
    }
}

impl Inner {
    /// Since when nothing has come from the peer though something has been `waiting` for it; see
    /// [`Connection::silent_since`].
    fn silent_since(&self, waiting: Time) -> Option<Time> {
        let since = self.connection.as_ref().map_or(Some(self.heard), |one| one.silent_since());
        since.map(|since| since.max(waiting).max(self.heard))
    }

    /// Since when the peer has acknowledged nothing of what is `waiting` for it, though it could: for what
    /// has not left yet, since when it has said nothing.
    fn stalled_since(&self, waiting: Time) -> Option<Time> {
        let stalled = self.connection.as_ref().and_then(|connection| connection.stalled_since());
        stalled.map(|since| since.max(waiting)).or_else(|| self.silent_since(waiting))
    }

    /// When the peer has last acknowledged something, or the application has closed it.
    fn progress(&self, waiting: Time) -> Time {
        self.connection.as_ref().map_or(waiting, |connection| connection.progress().max(waiting))
    }

    /// The flow's time when somebody says that it is `time`.
    fn pass(&mut self, time: Time) -> Time {
        self.latest = self.latest.max(time);
        self.latest
    }

    fn state(&self) -> State {
        match (&self.connection, &self.time_wait) {
            _ if !self.linked => State::Closed,
            (_, Some(_)) => State::TimeWait,
            (Some(connection), None) => connection.state(),
            (None, None) => State::Closed,
        }
    }

    /// The listener that does not have it yet.
    fn listener(&self) -> Option<Arc<Listener>> {
        self.listener.as_ref()?.upgrade()
    }

    /// Whether its listener is still to wait for data (TCP_DEFER_ACCEPT).
    fn is_deferred(&self, time: Time) -> bool {
        self.deferred().is_some_and(|until| time < until) && self.readable() == 0 && !self.ended
    }

    /// Bytes that can be read.
    fn readable(&self) -> usize {
        self.connection.as_ref().map_or(0, |connection| connection.readable())
    }

    /// Bytes up to the last urgent one that were not read.
    fn urgent_left(&self) -> u64 {
        self.connection.as_ref().map_or(0, |connection| connection.urgent_left())
    }

    /// Throws away what has come, because reading was shut down.
    fn discard(&mut self) {
        self.discarded |= self.readable() > 0;
        if let Some(connection) = &mut self.connection {
            connection.discard();
        }
    }

    /// Whether the application has read all that came.
    fn is_read(&self) -> bool {
        self.said_read && self.readable() == 0 && !self.discarded
    }

    /// The connection, while the connection is alive.
    fn live(&mut self) -> Option<&mut Connection> {
        if self.linked && self.time_wait.is_none() { self.connection.as_deref_mut() } else { None }
    }

    /// Has the connection ask its peer as the keep-alives and the user timeout of [`Cold`] want it.
    fn apply_probing(&mut self) {
        let cold = self.cold();
        let probing = Probing::new(cold.keepalive, cold.user_timeout);
        if let Some(connection) = self.live() {
            connection.set_keepalive(probing);
        }
    }

    fn readiness(&mut self) -> Ready {
        let mut ready = Ready::EMPTY;
        if self.connected {
            ready |= Ready::CONNECTED;
        }
        if self.error.is_some() {
            ready |= Ready::ERROR | Ready::READABLE | Ready::WRITABLE;
        }
        if self.has_reports() {
            ready |= Ready::ERROR;
        }
        if self.ended || self.read_shut || !self.linked {
            ready |= Ready::READ_CLOSED | Ready::READABLE;
        }
        if self.urgent_left() > 0 && !self.read_shut {
            ready |= Ready::URGENT;
        }
        if self.readable() > 0 {
            ready |= Ready::READABLE;
        }
        match self.state() {
            _ if self.write_shut => ready |= Ready::WRITE_CLOSED,
            State::SynSent | State::SynReceived => {}
            State::Established | State::CloseWait => {
                let (free, size) =
                    self.connection.as_ref().map_or((0, 4), |connection| connection.send_room());
                self.was_full &= free < size / 4;
                if free > 0 && !self.was_full {
                    ready |= Ready::WRITABLE;
                }
            }
            // A write would fail at once.
            _ => ready |= Ready::WRITE_CLOSED | Ready::WRITABLE,
        }
        ready
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = Ready::from_bits(self.ready.load(Ordering::Relaxed));
        f.debug_struct("Flow")
            .field("interface", &self.interface.id)
            .field("local", &self.local())
            .field("remote", &self.remote())
            .field("ready", &ready)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_flow_is_small() {
        assert!(size_of::<Flow>() <= 216, "{} bytes", size_of::<Flow>());
        assert!(size_of::<Connection>() <= 896, "{} bytes", size_of::<Connection>());
    }
}
