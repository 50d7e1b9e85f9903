//! Junction of the two cores: inner IP packets pass between the stack and the overlay's sessions.
//!
//! [`Datapath`] performs no I/O, reads no clock and starts no thread: datagrams come in with the time, and
//! datagrams leave through a [`Sink`]. The node's driver runs it from the application's threads and its
//! engine thread. The simulator runs the same code from one thread in virtual time.
//!
//! # One packet
//! * **Out** (`egress`): a flow's super-segment is cut into packets of the path's size, each sealed straight
//!   into a batch of equal datagrams, and the batch leaves with one call of the sink (UDP GSO).
//! * **In** (`ingress`): each datagram of a received batch (UDP GRO) is opened straight to the end of the
//!   pending data, so that consecutive segments become one large segment before the stack sees them.
//!
//! # Locks, in the order in which they may be taken
//! 1. a flow's send stage ([`SocketState`]), never waited for: a thread that finds it taken leaves a note for
//!    its holder;
//! 2. the control state machine (`Datapath::control`), never on the path of a packet of an established
//!    session: [`Routes`] says which peer has an address, and control's next deadline is kept beside the
//!    lock;
//! 3. the locks inside the cores (one per flow, one per session), each held for one copy or one look-up.
//!
//! # Example
//! A node that joins a network and sends beacons, to a network that loses everything:
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicUsize, Ordering};
//! use std::time::{Duration, Instant};
//!
//! use peersock_datapath::{Datapath, Sink, Transmit};
//! use peersock_overlay::{
//!     Endpoint, EndpointConfig, Identity, NetworkConfig, NetworkId, SocketIndex, SocketInfo,
//! };
//! use peersock_stack::{Batch, Config, Stack};
//!
//! #[derive(Default)]
//! struct Nowhere(AtomicUsize);
//!
//! impl Sink for Nowhere {
//!     fn send(&self, transmit: &Transmit<'_>) {
//!         self.0.fetch_add(transmit.contents.len(), Ordering::Relaxed);
//!     }
//!
//!     fn max_segments(&self, _: SocketIndex) -> usize {
//!         1
//!     }
//! }
//!
//! let (now, mut batch) = (Instant::now(), Batch::default());
//! let identity = Arc::new(Identity::from_seed(&[1; 32]));
//! let unix_time = Duration::from_secs(1_800_000_000);
//! let endpoint = Endpoint::new(EndpointConfig::new(identity), [2; 32], now, unix_time);
//! let sink = Arc::new(Nowhere::default());
//! let datapath = Datapath::new(endpoint, Stack::new(Config::default(), [3; 32], now), sink.clone());
//!
//! let socket = SocketInfo {
//!     index: SocketIndex(0),
//!     ipv4: true,
//!     loopback: false,
//!     max_datagram: 1472,
//!     beacon_targets: vec!["239.255.112.115:7473".parse()?],
//! };
//! datapath.set_sockets(now, vec![socket], &mut batch);
//! let network = NetworkConfig::AdHoc { id: NetworkId::ad_hoc(80..=80)?, psk: None };
//! let joined = datapath.join(now, network, &mut batch)?;
//! assert_eq!(datapath.networks()[0].addresses, joined.addresses);
//! datapath.handle_timeout(now + Duration::from_secs(4), &mut batch);
//! assert!(sink.0.load(Ordering::Relaxed) > 0, "beacons");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

// Names this crate as the tests of its interface do, which share their network of nodes with unit tests.
#[cfg(test)]
extern crate self as peersock_datapath;

mod addresses;
mod clock;
mod control;
mod counters;
mod datagrams;
mod device;
mod ecn;
mod egress;
mod events;
#[doc(hidden)]
pub mod fuzzing;
mod gso;
mod ingress;
mod managed;
mod membership;
mod missing_peers;
mod multicast;
#[cfg(test)]
#[path = "../tests/datapath/net.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod net;
mod networks;
mod nicknames;
mod owners;
mod path_checks;
mod route;
mod router_errors;
mod rules;
mod socket;
mod stage;
#[cfg(test)]
#[path = "stage/tests.rs"]
mod stage_tests;
mod subscription;
#[cfg(test)]
mod testing;
mod unanswered;

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use peersock_overlay::{
    Endpoint, Relays, Routes, SessionTable, SocketIndex, TcpAction, WantedSocket, WantedStream,
};
use peersock_primitives::sync;
use peersock_stack::{Batch, Stack};

pub use counters::DatapathCounters;
pub use device::{Device, Offload, Segments};
pub use gso::GsoBatch;
pub use ingress::Ingress;
pub use missing_peers::Want;
pub use networks::JoinedNetwork;
pub use route::Resolved;
pub use rules::{Effect, EndedAt};
pub use socket::SocketState;
pub use subscription::{Heard, Subscription};
pub use unanswered::Unanswered;

use clock::OverlayClock;
use membership::Repeats;
use missing_peers::Elsewhere;
use multicast::Members;
use networks::Networks;
use path_checks::Doubts;
use route::Waiting;
use subscription::Subscribers;
use unanswered::UnansweredListener;

/// One batch of datagrams to one address, for a [`Sink`].
#[derive(Debug, Clone, Copy)]
pub struct Transmit<'a> {
    /// Driver socket to send from.
    pub socket: SocketIndex,
    /// Destination address.
    pub remote: SocketAddr,
    /// Concatenated datagrams.
    pub contents: &'a [u8],
    /// Size in bytes of each datagram but the last, which may be shorter. `None`: one datagram.
    pub segment_size: Option<usize>,
    /// The ECN code point for the IP headers (RFC 3168), 0 to 3.
    pub ecn: u8,
}

/// Output for datagrams: the driver's UDP sockets, or the simulator's network.
pub trait Sink: Send + Sync {
    /// Sends now, or loses the datagrams: no error is reported.
    fn send(&self, transmit: &Transmit<'_>);

    /// Sends like [`Sink::send`] but never waits for buffer space, because control calls it under its lock.
    /// Datagrams that find no space are lost.
    fn send_at_once(&self, transmit: &Transmit<'_>) {
        self.send(transmit);
    }

    /// Returns the largest number of datagrams that one [`Transmit`] from `socket` may hold, at least 1.
    fn max_segments(&self, socket: SocketIndex) -> usize;

    /// Names the interface that leads to `remote`, for the log.
    fn interface_of(&self, socket: SocketIndex, remote: SocketAddr) -> String {
        let _ = remote;
        format!("socket {}", socket.0)
    }

    /// Requests a call of [`Datapath::handle_timeout`] no later than `at`. A caller that polls
    /// [`Datapath::poll_timeout`] after every call may ignore this.
    fn wake_at(&self, at: Instant) {
        let _ = at;
    }

    /// Lists the roots to which a stream should be open; streams to all other roots should be closed. The
    /// driver then calls [`Datapath::set_stream`] when one opens or ends. A driver without streams may ignore
    /// this.
    fn want_streams(&self, wanted: Vec<WantedStream>) {
        let _ = wanted;
    }

    /// Lists the extra UDP sockets that should be open; all others should be closed. The driver then calls
    /// [`Datapath::set_extra_sockets`] once they are open or could not be opened. Control calls this under
    /// its lock. A driver without extra sockets may ignore this.
    fn want_extra_sockets(&self, wanted: Vec<WantedSocket>) {
        let _ = wanted;
    }

    /// Requests an action on TCP connections to other nodes; [`Datapath::tcp_opened`] and
    /// [`Datapath::tcp_closed`] report the outcome. Control calls this under its lock. A driver that cannot
    /// open TCP connections may ignore this.
    fn act_on_tcp(&self, action: TcpAction) {
        let _ = action;
    }
}

/// The junction of one node's stack, overlay and sockets.
pub struct Datapath {
    endpoint: Mutex<Endpoint>,
    sessions: Arc<SessionTable>,
    routes: Arc<Routes>,
    relays: Arc<Relays>,
    stack: Stack,
    sink: Arc<dyn Sink>,
    clock: OverlayClock,
    networks: Arc<Networks>,
    /// Deadline of control in the overlay's time, kept here because reading it must not take the control
    /// lock.
    control_due: Mutex<Option<Instant>>,
    waiting: Mutex<Waiting>,
    elsewhere: Elsewhere,
    members: Members,
    repeats: Repeats,
    doubts: Doubts,
    subscribers: Subscribers,
    unanswered: UnansweredListener,
    /// True once any network has had rules.
    has_rules: AtomicBool,
    counters: DatapathCounters,
}

impl Datapath {
    /// Joins the cores. `sink` takes the datagrams they send.
    pub fn new(endpoint: Endpoint, stack: Stack, sink: Arc<dyn Sink>) -> Datapath {
        let networks = Arc::<Networks>::default();
        let owners =
            owners::AddressOwners { routes: Arc::clone(endpoint.routes()), networks: networks.clone() };
        // The stack's limits then count members, which may have whole blocks of addresses.
        stack.set_owners(Arc::new(owners));
        Datapath {
            sessions: Arc::clone(endpoint.sessions()),
            routes: Arc::clone(endpoint.routes()),
            relays: Arc::clone(endpoint.relays()),
            control_due: Mutex::new(endpoint.poll_timeout()),
            endpoint: Mutex::new(endpoint),
            stack,
            sink,
            clock: OverlayClock::default(),
            networks,
            waiting: Mutex::default(),
            elsewhere: Elsewhere::default(),
            members: Members::default(),
            repeats: Repeats::default(),
            doubts: Doubts::default(),
            subscribers: Subscribers::default(),
            unanswered: UnansweredListener::default(),
            has_rules: AtomicBool::new(false),
            counters: DatapathCounters::default(),
        }
    }

    /// Returns the stack, to open sockets on. Data that a socket has queued leaves with [`Datapath::pump`].
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// Returns the counters of packets dropped between the cores.
    pub fn counters(&self) -> &DatapathCounters {
        &self.counters
    }

    /// Runs all expired timers, and sends the resulting packets.
    pub fn handle_timeout(&self, now: Instant, batch: &mut Batch) {
        if self.stack.poll_timeout().is_some_and(|at| at <= now) {
            self.stack.handle_timeout(now, batch);
            // Before the batch is settled, because it now holds the flows whose timers fired.
            self.report_silence(now, batch);
        }
        if self.control_due().is_some_and(|at| at <= now) {
            self.with_control(now, batch, |endpoint, now| endpoint.handle_timeout(now));
        }
        self.expire_waiting(now);
        self.repeat_reports(now, batch);
        self.look_at_doubts(now, batch);
        self.settle(now, batch);
    }

    /// Sets the total time that the machine was suspended since the start. All calls take the stack's time,
    /// which stops during a suspension; the overlay's time goes on.
    pub fn note_suspended(&self, total: Duration) {
        self.clock.note_suspended(total);
    }

    /// Converts to the overlay's time, which [`Datapath::peers`] uses in its answers.
    pub fn overlay_time(&self, now: Instant) -> Instant {
        self.clock.overlay(now)
    }

    /// Returns the time at which [`Datapath::handle_timeout`] is due next. Poll this after any other call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.lock_waiting().next_deadline();
        let later = [self.repeats.next_deadline(), self.doubts.next_deadline()];
        let due = [self.control_due(), waiting, self.stack.poll_timeout()];
        due.into_iter().chain(later).flatten().min()
    }

    fn control(&self) -> MutexGuard<'_, Endpoint> {
        self.counters.control_locked.increment();
        sync::lock(&self.endpoint)
    }

    /// Returns the time at which control is due next, in the stack's time.
    fn control_due(&self) -> Option<Instant> {
        sync::lock(&self.control_due).map(|at| self.clock.stack(at))
    }

    fn lock_waiting(&self) -> MutexGuard<'_, Waiting> {
        sync::lock(&self.waiting)
    }
}
