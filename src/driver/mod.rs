//! Threads, clocks and sockets around the data path.
//!
//! Any thread that reads or writes runs its flow itself. The engine thread ([`engine`]) runs the timers and
//! all work without a waiting thread. The [`role`] decides which thread reads the UDP sockets.

mod attached;
mod busy_poll;
mod engine;
mod extra;
mod interfaces;
#[cfg(feature = "dht")]
mod ipv4;
mod nat64;
mod receiver;
mod role;
#[cfg(test)]
#[path = "role/tests.rs"]
mod role_tests;
mod sink;
#[cfg(feature = "streams")]
mod stream_io;
#[cfg_attr(not(feature = "streams"), path = "no_streams.rs")]
mod streams;
#[cfg_attr(not(feature = "streams"), path = "no_tcp.rs")]
mod tcp;
#[cfg_attr(not(feature = "turn"), path = "no_turn.rs")]
mod turn;
mod udp;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use peersock_nat::turn::TurnServer;
use peersock_overlay::{Endpoint, SocketInfo};
use peersock_stack::{Batch, Flow, Stack};

pub use attached::Attached;
pub(crate) use busy_poll::BusyPoll;
use busy_poll::Looking;
pub use interfaces::Interfaces;
pub(crate) use interfaces::canonical;
#[cfg(feature = "dht")]
pub(crate) use ipv4::{first_ipv4, reaches_by_ipv6_only};
pub(crate) use turn::{TurnSockets, check_turn};
pub(crate) use udp::{OutsideAnswer, UdpSockets, UdpStats};

use crate::config::RootAddress;
use crate::sync;
use crate::sys::interface_watch::InterfaceWatch;
use crate::sys::poll::{self, PollFd, PollFlags, Wakeup};
use crate::sys::poller::Poller;
use crate::sys::suspend::Suspension;
use extra::ExtraSockets;
use nat64::Search;
use peersock_datapath::Datapath;
use peersock_primitives::wait::{Interest, Waiters};
use receiver::Receiver;
use role::ReceiveRole;
use sink::DriverSink;
use streams::Streams;
use tcp::PeerStreams;

/// Time that a stopping node waits for the thread that reads the sockets. Bounded, because that thread itself
/// may stop the node in a callback.
const STOP_TIMEOUT: Duration = Duration::from_millis(100);

/// Data path of one node, with the threads and sockets that run it.
pub(crate) struct Driver {
    pub(crate) datapath: Datapath,
    pub(crate) sockets: Arc<UdpSockets>,
    pub(crate) streams: Arc<Streams>,
    pub(crate) turn: Arc<TurnSockets>,
    extra: Arc<ExtraSockets>,
    pub(crate) tcp: Arc<PeerStreams>,
    pub(crate) role: ReceiveRole,
    /// Poller of the engine thread.
    pub(crate) poller: Arc<Poller>,
    alarm: Arc<Alarm>,
    suspension: Suspension,
    nat64: Arc<Search>,
    attached: attached::List,
    /// Callbacks for a change of an interface, an address or the NAT64, and for the end of a suspension.
    interfaces_changed: RwLock<Vec<Box<dyn Fn() + Send + Sync>>>,
    /// Lock held while the list of sockets changes and is passed to the overlay.
    changing_sockets: Mutex<()>,
    stopped: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Driver {
    /// Joins the cores to the sockets and starts the engine thread.
    pub(crate) fn start(
        endpoint: Endpoint,
        stack: Stack,
        sockets: Arc<UdpSockets>,
        busy_poll: BusyPoll,
    ) -> io::Result<Arc<Driver>> {
        let busy_poll = busy_poll.on(std::thread::available_parallelism().map_or(1, usize::from));
        let base = Instant::now();
        let alarm = Arc::new(Alarm::new(base)?);
        let streams = Arc::new(Streams::new());
        let turn = Arc::new(TurnSockets::new());
        let extra = Arc::new(ExtraSockets::new()?);
        let tcp = Arc::new(PeerStreams::default());
        let sink = DriverSink {
            sockets: Arc::clone(&sockets),
            streams: Arc::clone(&streams),
            turn: Arc::clone(&turn),
            extra: Arc::clone(&extra),
            tcp: Arc::clone(&tcp),
            alarm: Arc::clone(&alarm),
        };
        let driver = Arc::new(Driver {
            datapath: Datapath::new(endpoint, stack, Arc::new(sink)),
            sockets,
            streams,
            turn,
            extra,
            tcp,
            role: ReceiveRole::new(base, Wakeup::new()?, Receiver::new(Looking::new(busy_poll))),
            poller: Arc::new(Poller::new()?),
            alarm,
            suspension: Suspension::new(),
            nat64: Arc::default(),
            attached: attached::List::default(),
            interfaces_changed: RwLock::default(),
            changing_sockets: Mutex::default(),
            stopped: AtomicBool::new(false),
            thread: Mutex::new(None),
        });
        driver.extra.attach(&driver);
        driver.tcp.attach(&driver);
        driver.datapath.set_sockets(base, driver.socket_infos(), &mut Batch::default());
        let watch = InterfaceWatch::new()
            .map_err(|error| tracing::debug!(%error, "changes of the network interfaces will not be seen"))
            .ok();
        let engine = Arc::clone(&driver);
        let thread = std::thread::Builder::new()
            .name("peersock".into())
            .spawn(move || engine::run(&engine, watch.as_ref(), Looking::new(busy_poll)))?;
        *driver.lock_thread() = Some(thread);
        driver.nat64.start(&driver);
        Ok(driver)
    }

    /// Ends the engine thread. Waiting threads return. All datagrams received before are answered when this
    /// returns.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.nat64.stop();
        self.extra.stop();
        self.alarm.wakeup.wake();
        self.role.wakeup.wake();
        let thread = self.lock_thread().take();
        // A callback on the engine thread may stop the node, and a thread cannot join itself.
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // The engine does not panic; if it did, the node would be stopped all the same.
            let _ = thread.join();
        }
        self.role.wait_free(STOP_TIMEOUT);
    }

    /// Registers another callback for a possible change of an interface, an address or the NAT64, and for the
    /// end of a suspension. It must not block.
    pub(crate) fn on_interfaces_changed(&self, told: Box<dyn Fn() + Send + Sync>) {
        sync::write(&self.interfaces_changed).push(told);
    }

    /// Allows streams to these roots, and to no others, where the overlay wants them.
    pub(crate) fn start_streams(self: &Arc<Self>, roots: &[&RootAddress]) -> io::Result<()> {
        self.streams.start(self, roots)
    }

    /// Closes the streams to roots and other nodes. Data sent just before still leaves, within half a second
    /// each.
    pub(crate) fn stop_streams(&self) {
        self.tcp.stop();
        self.streams.stop();
    }

    /// Requests allocations from TURN servers. Call it once.
    pub(crate) fn start_turn(self: &Arc<Self>, servers: &[TurnServer]) -> io::Result<()> {
        self.turn.start(self, servers)
    }

    /// Releases the TURN allocations. Waits at most a second for pending requests.
    pub(crate) fn stop_turn(&self) {
        self.turn.stop();
    }

    /// Describes the UDP sockets and the TURN allocations to the overlay.
    fn socket_infos(&self) -> Vec<SocketInfo> {
        self.sockets.infos().into_iter().chain(self.turn.infos()).collect()
    }

    /// Runs a change of the sockets; if it returns true, passes the new list to the overlay.
    fn change_sockets(&self, now: Instant, batch: &mut Batch, change: impl FnOnce() -> bool) -> bool {
        // Otherwise an older list could be passed last.
        let _one_at_a_time = sync::lock(&self.changing_sockets);
        let is_changed = change();
        if is_changed {
            self.datapath.set_sockets(now, self.socket_infos(), batch);
        }
        is_changed
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Sends the pending data of a flow.
    pub(crate) fn pump(&self, flow: &Arc<Flow>) {
        self.datapath.pump(self.now(), flow, &mut Batch::default());
    }

    /// Reads received datagrams after a large write, most likely acknowledgements, on the writer's thread, so
    /// that the engine need not wake for each. Does not wait, and leaves the role alone if other threads want
    /// it.
    pub(crate) fn poll_once(&self) {
        let Some(mut receiver) = self.role.try_hold(0) else { return };
        let mut fds = self.socket_fds();
        poll::readable(&mut fds, Some(Duration::ZERO));
        receiver.receive(self.now(), &self.sockets, &self.datapath, readable(&fds));
        if self.role.release(receiver, true, 0, Instant::now()) {
            self.kick();
        }
    }

    /// Makes the engine thread also run `attached`.
    pub(crate) fn attach(&self, attached: Arc<dyn Attached>) {
        self.attached.add(attached);
        self.kick();
    }

    /// Ends an attachment.
    pub(crate) fn detach(&self, attached: &Arc<dyn Attached>) {
        self.attached.remove(attached);
        self.kick();
    }

    /// Returns the current time, after reporting suspensions to the data path.
    fn now(&self) -> Instant {
        let reading = self.suspension.now();
        // Sessions have aged by the suspension, and must not carry packets as if they were fresh.
        if !reading.suspended.is_zero() {
            self.datapath.note_suspended(reading.suspended);
        }
        if reading.is_news {
            tracing::debug!("the machine was suspended");
            self.was_suspended();
        }
        reading.now
    }

    /// Renews state that servers and routers keep for this node, because their clocks went on.
    fn was_suspended(&self) {
        self.turn.was_suspended();
        self.network_changed();
        self.tell_interfaces_changed();
    }

    fn tell_interfaces_changed(&self) {
        self.nat64.interfaces_changed();
        self.tell_of_change();
    }

    fn tell_of_change(&self) {
        for told in sync::read(&self.interfaces_changed).iter() {
            told();
        }
    }

    /// Restarts connection attempts and timers that depend on the old network.
    fn network_changed(&self) {
        self.streams.network_changed();
        self.turn.interfaces_changed();
        self.datapath.note_network_change();
    }

    /// Reacts to a change of the NAT64: sends that had no route may succeed now, and outsiders see this node
    /// at new addresses.
    fn nat64_changed(&self) {
        let now = self.now();
        self.change_sockets(now, &mut Batch::default(), || true);
        self.network_changed();
        self.tell_of_change();
        self.kick();
    }

    /// Wakes the engine to run a new round.
    pub(crate) fn kick(&self) {
        self.alarm.wakeup.wake();
    }

    /// Waits until `attempt` returns a value, or until `deadline`: then returns `None`.
    ///
    /// `waiters` is notified when `attempt` is worth repeating. The calling thread reads the UDP sockets
    /// meanwhile, if it is the only one that waits.
    pub(crate) fn wait<T>(
        &self,
        waiters: &Waiters,
        interest: Interest,
        deadline: Option<Instant>,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        // Before announcing, because most calls need not wait.
        if let Some(value) = attempt() {
            return Some(value);
        }
        let mut announced = self.role.announce();
        let mut ticket = waiters.enter(interest);
        loop {
            if let Some(value) = attempt() {
                return Some(value);
            }
            let now = Instant::now();
            if self.is_stopped() || deadline.is_some_and(|deadline| deadline <= now) {
                return None;
            }
            // After a while without a wake-up, a thread stops being busy: it leaves the sockets to the
            // engine, and sleeps until a wake-up.
            let idle = now + role::BUSY;
            let patience = Some(deadline.map_or(idle, |deadline| deadline.min(idle)));
            if !announced.is_busy() {
                ticket.sleep(deadline);
                announced.set_busy(true);
            } else if let Some(mut receiver) = self.role.try_hold(1) {
                // This thread sleeps in `poll`, which a notification must end.
                ticket.also_wake(&self.role.waker);
                let value = self.receive_until(&mut receiver, now, patience, &mut attempt);
                announced.set_busy(value.is_some());
                if self.role.release(receiver, value.is_some(), 1, Instant::now()) {
                    self.kick();
                }
                if value.is_some() {
                    return value;
                }
            } else {
                let woken = ticket.sleep(patience);
                announced.set_busy(woken);
            }
        }
    }

    /// Reads the sockets until `attempt` returns a value, `deadline`, or the node stops.
    ///
    /// The clock is read once per round. So the last round may end later than `deadline`, by the time that
    /// the previous round took.
    fn receive_until<T>(
        &self,
        receiver: &mut Receiver,
        mut now: Instant,
        deadline: Option<Instant>,
        attempt: &mut impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let mut fds = self.socket_fds();
        // A snapshot: sockets added meanwhile are polled from the next call on.
        let sockets = fds.len();
        fds.push(PollFd::new(&self.role.wakeup, PollFlags::IN));
        loop {
            // Checked after the role was taken, because the engine may have delivered data meanwhile.
            if let Some(value) = attempt() {
                return Some(value);
            }
            let timeout = deadline.map(|deadline| deadline.saturating_duration_since(now));
            if self.is_stopped() || timeout == Some(Duration::ZERO) {
                return None;
            }
            let busy = receiver.looking.begin(|| self.sockets.carried());
            let looked = poll::readable_busy(&mut fds, busy, timeout);
            receiver.looking.end(looked);
            if fds[sockets].revents() != PollFlags::empty() {
                self.role.wakeup.clear();
            }
            now = self.now();
            receiver.receive(now, &self.sockets, &self.datapath, readable(&fds[..sockets]));
        }
    }

    fn socket_fds(&self) -> Vec<PollFd<'_>> {
        (0..self.sockets.len())
            .map(|index| PollFd::from_borrowed_fd(self.sockets.fd(index), PollFlags::IN))
            .collect()
    }

    fn lock_thread(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        sync::lock(&self.thread)
    }
}

/// Returns the positions of the readable descriptors.
fn readable<'a>(fds: &'a [PollFd<'_>]) -> impl Iterator<Item = usize> + 'a {
    fds.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty()).map(|(index, _)| index)
}

/// Wake-up time of the engine, and the means to wake it earlier.
struct Alarm {
    base: Instant,
    /// Earliest time requested since the engine last looked, in nanoseconds since `base`.
    asked: AtomicU64,
    /// Time until which the engine sleeps; 0 while it is awake.
    asleep_until: AtomicU64,
    wakeup: Wakeup,
}

impl Alarm {
    fn new(base: Instant) -> io::Result<Alarm> {
        Ok(Alarm {
            base,
            asked: AtomicU64::new(u64::MAX),
            asleep_until: AtomicU64::new(0),
            wakeup: Wakeup::new()?,
        })
    }

    fn since_base(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.base).as_nanos() as u64
    }

    /// Converts nanoseconds since `base` to a time.
    fn at(&self, since_base: u64) -> Instant {
        self.base + Duration::from_nanos(since_base)
    }

    /// Makes sure that the engine is awake at `at`.
    fn set(&self, at: Instant) {
        let at = self.since_base(at);
        self.asked.fetch_min(at, Ordering::SeqCst);
        if at < self.asleep_until.load(Ordering::SeqCst) {
            self.wakeup.wake();
        }
    }
}
