//! A stack on a TUN device, driven by a thread.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peersock_primitives::sync::lock;
use peersock_stack::{
    Batch, Cidr, Config, CongestionControl, Egress, Flow, InterfaceConfig, InterfaceId, MAX_PACKET, Stack,
    TcpOptions,
};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::road::Road;
use super::socket::{Acceptor, Socket};
use super::tun::Tun;
use super::{Namespace, Punctuality, Side, address};
use crate::host::{ENDLESS, tcp_options};
use crate::link::Link;
use crate::{Random, Time};

/// Settings of a [`Node`] and of the link to it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Link from the kernel to the stack.
    pub inward: Link,
    /// Link from the stack to the kernel.
    pub outward: Link,
    /// Delay of each direction.
    pub delay: Time,
    /// Number of the link's subnet among 256, so that a namespace can have several links: the third byte of
    /// its IPv4 addresses, and the number of the device.
    pub subnet: u8,
    /// MTU of the device, bytes.
    pub mtu: usize,
    /// Seed of all randomness.
    pub seed: u64,
    /// Settings of the stack.
    pub config: Config,
    /// Congestion control of all its connections.
    pub congestion: CongestionControl,
    /// True if the connections use ECN (RFC 3168).
    pub ecn: bool,
}

impl Default for Options {
    /// Returns a link without impairments and practically without delay.
    fn default() -> Self {
        Self {
            inward: Link::new(1e12),
            outward: Link::new(1e12),
            delay: 0,
            subnet: 0,
            mtu: 1500,
            seed: 1,
            config: Config::default(),
            congestion: CongestionControl::default(),
            ecn: false,
        }
    }
}

/// A stack whose packets go through a TUN device, with checksums. Its connections end with it.
pub struct Node {
    shared: Arc<Shared>,
    driver: Option<JoinHandle<()>>,
}

/// State shared by the driver and the sockets.
pub(super) struct Shared {
    pub(super) stack: Stack,
    pub(super) net: InterfaceId,
    options: TcpOptions,
    subnet: u8,
    mtu: usize,
    origin: Instant,
    tun: Tun,
    /// Event descriptor that wakes the driver after new timers or packets.
    wake: OwnedFd,
    stop: AtomicBool,
    outward: Mutex<Outward>,
    punctuality: Arc<Punctuality>,
    /// Number of the driver's rounds, so that sockets can wait for one; [`Driver::GONE`] at the end.
    rounds: Mutex<u64>,
    round_done: Condvar,
}

struct Outward {
    road: Road,
    /// Length of the largest packet so far, bytes.
    largest: usize,
    buf: Vec<u8>,
}

/// Maximum number of packets that one round takes from the device.
pub(super) const PER_ROUND: usize = 64;
/// Duration of a wait that counts as a hang.
const HANG_TIMEOUT: Duration = Duration::from_secs(30);

impl Node {
    /// Creates a TUN device in the namespace, gives the kernel its addresses there, and starts a stack behind
    /// it.
    /// Fails if creating the device fails, for example because it exists already.
    pub fn start(namespace: &Namespace, options: &Options) -> io::Result<Node> {
        let tun = device(namespace, options, Side::Kernel)?;
        let mut random = Random::new(options.seed);
        let origin = Instant::now();
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&random.number().to_le_bytes());
        let stack = Stack::new(options.config.clone(), seed, origin);
        // The prefix covers all subnets, because the kernel may forward.
        let cidr = |ipv6, prefix| {
            Cidr::new(address(options.subnet, Side::Stack, ipv6), prefix).expect("a prefix length")
        };
        let mut interface = InterfaceConfig::new("tun", [cidr(false, 16), cidr(true, 48)]);
        // The kernel behind the device verifies checksums.
        interface.checksums = true;
        let net = stack.add_interface(interface);
        let punctuality = Arc::<Punctuality>::default();
        let mut road = |link: &Link| Road::new(link, options.delay, &mut random, punctuality.clone());
        let (inward, outward) = (road(&options.inward), road(&options.outward));
        let shared = Arc::new(Shared {
            stack,
            net,
            options: tcp_options(options.congestion, options.ecn),
            subnet: options.subnet,
            mtu: options.mtu,
            origin,
            tun,
            wake: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            stop: AtomicBool::new(false),
            outward: Mutex::new(Outward { road: outward, largest: 0, buf: vec![0; MAX_PACKET] }),
            punctuality,
            rounds: Mutex::new(0),
            round_done: Condvar::new(),
        });
        let driver = Driver { shared: shared.clone(), inward, batch: Batch::new() };
        let driver = thread::Builder::new().name("driver".to_owned()).spawn(|| driver.run())?;
        Ok(Node { shared, driver: Some(driver) })
    }

    /// Connects to `remote` and waits for success.
    /// Fails with the error that ended the attempt.
    pub fn connect(&self, remote: SocketAddr) -> io::Result<Socket> {
        let shared = &self.shared;
        let options = shared.options.clone();
        let flow = shared.stack.tcp_connect(Instant::now(), shared.net, None, remote, options)?;
        let socket = Socket::new(shared.clone(), flow);
        socket.wait_connected()?;
        Ok(socket)
    }

    /// Listens on a free port of its address of a family.
    /// Fails if no port is free.
    pub fn listen(&self, ipv6: bool) -> io::Result<Acceptor> {
        let shared = &self.shared;
        let any = SocketAddr::new(address(shared.subnet, Side::Stack, ipv6), 0);
        let options = shared.options.clone();
        let listener = shared.stack.tcp_listen(Instant::now(), Some(shared.net), any, 128, options)?;
        Ok(Acceptor::new(shared.clone(), listener))
    }

    /// Returns the length of the largest packet that a connection of the stack has sent, bytes.
    pub fn largest_packet(&self) -> usize {
        lock(&self.shared.outward).largest
    }

    /// Returns the timing record of the link.
    pub fn punctuality(&self) -> &Punctuality {
        &self.shared.punctuality
    }

    /// Returns a counter of the stack.
    pub fn counter(&self, name: &str) -> u64 {
        let all = self.shared.stack.counters().snapshot();
        all.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.wake();
        // A second panic while one unwinds would abort the program and hide the first.
        if let Some(driver) = self.driver.take()
            && driver.join().is_err()
            && !thread::panicking()
        {
            panic!("the driver has panicked");
        }
    }
}

impl Shared {
    /// Sends the output of `flow`. The lock keeps a flow's packets in order.
    pub(super) fn pump(&self, flow: &Flow) {
        let mut outward = lock(&self.outward);
        let headers = if flow.local().is_ipv4() { 40 } else { 60 };
        let limits = Egress {
            segment: self.mtu - headers,
            max_segments: 44,
            in_flight_cap: usize::MAX,
            checksums: true,
        };
        let now = Instant::now();
        let Outward { road, largest, buf } = &mut *outward;
        let mut count = 0;
        while let Some(mut packets) = flow.egress(now, &limits, buf) {
            count += packets.packets();
            assert!(count < ENDLESS, "{flow:?} sends without end: {count} packets at once");
            while let Some(packet) = packets.next(buf) {
                assert!(packet.len() <= self.mtu, "a packet of {} bytes", packet.len());
                *largest = packet.len().max(*largest);
                road.push(self.time(now), packet);
            }
        }
        // Packets without a delay go out at once instead of with the driver's next turn.
        road.deliver(self.time(now), |packet| self.tun.send(packet));
    }

    /// Makes the driver check its timers.
    pub(super) fn wake(&self) {
        // The write can fail only if the counter is full, and then the driver is woken anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Repeats `attempt` after each round of the driver until it succeeds.
    /// Errors: `TimedOut` after half a minute, which no test should take.
    pub(super) fn wait<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> io::Result<T> {
        let deadline = Instant::now() + HANG_TIMEOUT;
        loop {
            // The count is read before the attempt, so that a round in between is not missed.
            let seen = *lock(&self.rounds);
            if let Some(result) = attempt() {
                return Ok(result);
            }
            let mut rounds = lock(&self.rounds);
            if *rounds == Driver::GONE {
                return Err(io::Error::other("the driver has ended"));
            }
            while *rounds == seen {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing happens any more"));
                }
                let waited = self.round_done.wait_timeout(rounds, left);
                rounds = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn time(&self, now: Instant) -> Time {
        now.saturating_duration_since(self.origin).as_nanos() as Time
    }
}

struct Driver {
    shared: Arc<Shared>,
    inward: Road,
    batch: Batch,
}

impl Driver {
    const GONE: u64 = u64::MAX;

    fn run(mut self) {
        let mut buf = vec![0; MAX_PACKET];
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.sleep();
            let now = Instant::now();
            for _ in 0..PER_ROUND {
                match self.shared.tun.receive(&mut buf) {
                    Ok(Some(len)) => self.inward.push(self.shared.time(now), &buf[..len]),
                    _ => break,
                }
            }
            self.round(now);
        }
    }

    /// Waits for a packet, a timer or a wake-up.
    fn sleep(&self) {
        let shared = &*self.shared;
        let now = Instant::now();
        let under_way = [self.inward.next(), lock(&shared.outward).road.next()];
        let arrival = under_way.into_iter().flatten().min();
        let arrival = arrival.map(|at| Duration::from_nanos(at.saturating_sub(shared.time(now))));
        let timer = shared.stack.poll_timeout().map(|due| due.saturating_duration_since(now));
        let sleep = arrival.into_iter().chain(timer).min();
        wait_readable([shared.tun.as_fd(), shared.wake.as_fd()], sleep);
        let _ = rustix::io::read(&shared.wake, &mut [0u8; 8]);
    }

    fn round(&mut self, now: Instant) {
        let Self { shared, inward, batch } = self;
        let time = shared.time(now);
        inward.deliver(time, |packet| shared.stack.receive(now, shared.net, packet, batch));
        if shared.stack.poll_timeout().is_some_and(|due| due <= now) {
            shared.stack.handle_timeout(now, batch);
        }
        // The lock must be free again for `pump`.
        {
            let mut outward = lock(&shared.outward);
            for reply in batch.replies() {
                outward.road.push(time, reply.packet);
            }
            outward.road.deliver(time, |packet| shared.tun.send(packet));
        }
        for flow in &batch.flows {
            shared.pump(flow);
        }
        batch.clear();
        *lock(&shared.rounds) += 1;
        shared.round_done.notify_all();
    }
}

impl Drop for Driver {
    /// Releases the waiters, because a driver that has panicked makes no more rounds.
    fn drop(&mut self) {
        *lock(&self.shared.rounds) = Self::GONE;
        self.shared.round_done.notify_all();
    }
}

/// Creates a TUN device in the namespace, with one address of each family.
pub(super) fn device(namespace: &Namespace, options: &Options, side: Side) -> io::Result<Tun> {
    let Options { subnet, mtu, .. } = options;
    let name = format!("tun{subnet}");
    let tun = namespace.run(|| Tun::open(&name))?;
    namespace.ip(&format!("link set {name} mtu {mtu} addrgenmode none"))?;
    namespace.ip(&format!("addr add {}/24 dev {name}", address(*subnet, side, false)))?;
    // Duplicate address detection would delay the use of the address.
    namespace.ip(&format!("addr add {}/64 dev {name} nodad", address(*subnet, side, true)))?;
    // The kernel must not lose packets before the device, because only links may lose packets.
    namespace.ip(&format!("link set {name} txqueuelen 10000 up"))?;
    Ok(tun)
}

/// Waits until a descriptor is readable, at most for `most`.
pub(super) fn wait_readable<const N: usize>(fds: [BorrowedFd<'_>; N], most: Option<Duration>) {
    let most =
        most.map(|time| Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) });
    let mut fds = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    // An interrupted wait is only shorter.
    let _ = poll(&mut fds, most.as_ref());
}
