//! One TCP connection, with its socket calls and its packets.

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
/// Any thread may call it. Its lock is held for the time of a copy between the caller's memory and the
/// queues. Call [`egress`](Self::egress) until it returns `None` in two cases: after any call that can
/// produce output (every call with a `now`), and after a [`Batch`](crate::Batch) has listed the flow. The
/// last call also sets the flow's timer.
///
/// A flow lives on without its owner: once [closed](Self::close), it ends the connection in order and then
/// frees itself. Dropping the `Arc` closes nothing.
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
    /// True if its addresses are IPv4.
    v4: bool,
    /// Position in the flow table's list for the same peer. The table's lock guards it.
    position: AtomicU32,
    this: Weak<Flow>,
    inner: Mutex<Inner>,
    /// Value of [`Ready`] as of the last change.
    ready: AtomicU8,
    /// Time at which all output was fetched, microseconds; 0 after any other event.
    quiet: AtomicI64,
    mark: Mark,
    context: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// Limits of the path, given to [`Flow::egress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Egress {
    /// Maximum TCP payload of a wire packet, bytes: the path MTU less 40 (IPv4) or 60 (IPv6) bytes. It may
    /// change at any time.
    pub segment: usize,
    /// Maximum number of wire packets in a super-segment, at least 1: the driver's batch size.
    pub max_segments: usize,
    /// Maximum unacknowledged bytes; a change takes effect with the next acknowledgement.
    pub in_flight_cap: usize,
    /// True if the wire packets need checksums.
    pub checksums: bool,
}

/// State that the flow's lock guards.
struct Inner {
    /// Protocol machine, until the connection has ended and everything is read.
    connection: Option<Box<Connection>>,
    /// State of TIME-WAIT, which replaces the connection; only unread data then keeps the connection
    /// allocated.
    time_wait: Option<Box<TimeWait>>,
    /// True while packets find this flow. Otherwise the state is CLOSED.
    linked: bool,
    /// Pending error, reported once, after the data that came before it.
    error: Option<Error>,
    /// ICMP's last error about the path since the peer was last heard.
    soft: Option<Error>,
    connected: bool,
    /// True once the peer's FIN has come.
    ended: bool,
    read_shut: bool,
    /// True if arrived data was discarded because reading was shut down.
    discarded: bool,
    write_shut: bool,
    /// True if the application has confirmed that it has read everything taken out of the queue.
    said_read: bool,
    /// True once the application has closed the flow.
    orphaned: bool,
    /// True from a write into a full queue until a quarter is free.
    was_full: bool,
    reset_on_close: bool,
    cold: Option<Box<Cold>>,
    /// Time of the last usable segment, as a sign of life. Once the application has closed the flow, segments
    /// in FIN-WAIT-2 no longer count.
    heard: Time,
    /// Latest time given to the flow. It never goes back.
    latest: Time,
    /// Time since which something waits for an acknowledgement, or since the application has closed the flow.
    /// Initially the handshake waits.
    waiting: Option<Time>,
    /// True while the flow waits for a place of its listener's backlog and does nothing.
    is_held: bool,
    /// True if the peer has opened the connection.
    is_accepted: bool,
    /// Listener that gets the flow after the handshake.
    listener: Option<Weak<Listener>>,
    alarm: Alarm,
}

/// Entries of the flow in the timer wheel: the earliest, and the one that was the earliest before.
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
            is_accepted: listener.is_some(),
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

    /// Returns the settings of a new connection with these options, whose peer has the account `share`.
    pub(crate) fn settings(
        shared: &Shared,
        interface: &Interface,
        options: &TcpOptions,
        share: &Arc<Share>,
    ) -> Settings {
        // At most what a scaled window can express (RFC 7323 2.3).
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
            // Between peersock nodes timestamps cost more than they bring, because SACK and D-SACK give the
            // same information.
            timestamps: interface.checksums,
            ecn: options.ecn,
            memory: share.clone(),
        }
    }

    pub(crate) fn key(&self) -> &FlowKey {
        &self.key
    }

    /// Returns the local and remote addresses and ports.
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

    /// Locks the flow and returns its time, which is monotonic: threads read the clock before they get the
    /// lock.
    fn lock_at(&self, now: Instant) -> (MutexGuard<'_, Inner>, Time) {
        let mut inner = self.lock();
        let time = inner.pass(self.shared.clock.time(now));
        (inner, time)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        let inner = self.lock_to_fetch();
        // The holder of the lock may create new output.
        self.quiet.store(0, Ordering::Relaxed);
        inner
    }

    /// Locks the flow for fetching output only.
    fn lock_to_fetch(&self) -> MutexGuard<'_, Inner> {
        sync::lock(&self.inner)
    }
}

impl Inner {
    /// Returns the time since which the peer has been silent although something has been `waiting`; see
    /// [`Connection::silent_since`].
    fn silent_since(&self, waiting: Time) -> Option<Time> {
        let since = self.connection.as_ref().map_or(Some(self.heard), |one| one.silent_since());
        since.map(|since| since.max(waiting).max(self.heard))
    }

    /// Returns the time since which the peer has acknowledged nothing of what is `waiting`, although it
    /// could. For unsent data, this is the time of its silence.
    fn stalled_since(&self, waiting: Time) -> Option<Time> {
        let stalled = self.connection.as_ref().and_then(|connection| connection.stalled_since());
        stalled.map(|since| since.max(waiting)).or_else(|| self.silent_since(waiting))
    }

    /// Returns the time of the peer's last acknowledgement, or of the application's close.
    fn progress(&self, waiting: Time) -> Time {
        self.connection.as_ref().map_or(waiting, |connection| connection.progress().max(waiting))
    }

    /// Advances the flow's time to `time`, and returns it.
    fn pass(&mut self, time: Time) -> Time {
        // A thread may have read the clock before another one that came first; a due acknowledgement would
        // then wait again.
        self.latest = self.latest.max(time);
        self.latest
    }

    fn state(&self) -> State {
        match (&self.connection, &self.time_wait) {
            // Off the table the flow gets no segments, whatever state its connection was in.
            _ if !self.linked => State::Closed,
            (_, Some(_)) => State::TimeWait,
            (Some(connection), None) => connection.state(),
            (None, None) => State::Closed,
        }
    }

    /// Returns the listener that has not got the flow yet.
    fn listener(&self) -> Option<Arc<Listener>> {
        self.listener.as_ref()?.upgrade()
    }

    /// Returns true while the listener must wait for data (TCP_DEFER_ACCEPT).
    fn is_deferred(&self, time: Time) -> bool {
        self.deferred().is_some_and(|until| time < until) && self.readable() == 0 && !self.ended
    }

    /// Returns the bytes that can be read.
    fn readable(&self) -> usize {
        self.connection.as_ref().map_or(0, |connection| connection.readable())
    }

    /// Returns the unread bytes up to and including the last urgent one.
    fn urgent_left(&self) -> u64 {
        self.connection.as_ref().map_or(0, |connection| connection.urgent_left())
    }

    /// Discards arrived data, because reading was shut down.
    fn discard(&mut self) {
        self.discarded |= self.readable() > 0;
        if let Some(cold) = &mut self.cold {
            cold.held = 0;
        }
        if let Some(connection) = &mut self.connection {
            connection.discard();
        }
    }

    /// Returns true if the application has read everything that came.
    fn is_read(&self) -> bool {
        self.said_read && self.readable() == 0 && !self.discarded
    }

    /// Returns true if a close resets the connection. One with unread data must tell the peer that its data
    /// was lost (RFC 2525 2.17).
    fn is_reset_on_close(&self) -> bool {
        self.readable() > 0 || self.discarded || self.reset_on_close
    }

    /// Returns the connection while it is alive.
    fn live(&mut self) -> Option<&mut Connection> {
        if self.linked && self.time_wait.is_none() { self.connection.as_deref_mut() } else { None }
    }

    /// Applies the keep-alives and the user timeout of [`Cold`] to the connection.
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
            // The next call of either kind returns the error at once.
            ready |= Ready::ERROR | Ready::READABLE | Ready::WRITABLE;
        }
        if self.has_reports() {
            ready |= Ready::ERROR;
        }
        if self.ended || self.read_shut || !self.linked {
            // Readable too, because a read returns the end at once (poll(2): POLLIN with POLLRDHUP).
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
                // A quarter, so that the application is not woken for every few bytes.
                self.was_full &= free < size / 4;
                if free > 0 && !self.was_full {
                    ready |= Ready::WRITABLE;
                }
            }
            // A write would fail at once, so it does not block.
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
