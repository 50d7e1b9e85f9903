//! The thread of one allocation: gets it, reads its socket, and gets it again.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use peersock_nat::turn::{Client, Event, Failure, TurnServer};
use peersock_overlay::{RecvMeta, is_endpoint};
use peersock_stack::Batch;
use quinn_udp::{UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags};
use socket2::{Domain, Protocol, Socket, Type};

use super::bell::Bell;
use super::{Allocation, Opening, STOP_PATIENCE, TurnSockets, index_of};
use crate::datapath::Ingress;
use crate::driver::Driver;
use crate::driver::interfaces::canonical;
use crate::driver::poll;
use crate::driver::udp::RECEIVE_BATCH;
use crate::sync;

/// An IPv6 allocation is asked for so much later than the IPv4 one, which most peers need: a server may grant
/// one for each user.
const LATER: Duration = Duration::from_secs(2);

/// The wait before a server is tried again, from the first to the longest.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];

/// The longest wait after the machine's address has changed: the next allocation is likely to be had.
const MOVED: Duration = Duration::from_secs(10);

/// Who refuses for want of room is asked again after so long.
const FULL: Duration = Duration::from_secs(60);

/// Who knows no user of that name, or no addresses of that family, is asked again after so long.
const HOPELESS: Duration = Duration::from_secs(600);

/// An allocation that has lasted for so long was a good one: the next wait is the first again.
const LASTED: Duration = Duration::from_secs(60);

/// So many servers in a row may name another one.
const MAX_HOPS: u32 = 3;

/// The thread looks so often whether the node is still there.
const LOOK: Duration = Duration::from_secs(30);

/// Bytes of one GRO batch at most.
const BUFFER: usize = 65536;

/// Asked of the kernel for the receive buffer, bytes.
const RECEIVE_BUFFER: usize = 2 << 20;

/// Receive calls before timers have their turn.
const MAX_CALLS: usize = 8;

pub(super) struct Keeper {
    driver: Weak<Driver>,
    turn: Arc<TurnSockets>,
    server: TurnServer,
    is_ipv4: bool,
    position: usize,
    bell: Arc<Bell>,
}

/// Why an allocation has ended, or could not be had.
enum Ended {
    Failed(Failure),
    /// The machine has another address on the way to the server.
    Moved,
    /// The machine was suspended.
    Suspended,
    /// Something of this machine's own.
    Local(String),
    /// The node has stopped.
    Stopped,
}

impl Keeper {
    pub(super) fn new(
        driver: &Arc<Driver>,
        turn: &Arc<TurnSockets>,
        server: TurnServer,
        is_ipv4: bool,
        position: usize,
        bell: Arc<Bell>,
    ) -> Self {
        Self { driver: Arc::downgrade(driver), turn: Arc::clone(turn), server, is_ipv4, position, bell }
    }

    pub(super) fn start(self) -> io::Result<()> {
        thread::Builder::new().name("peersock-turn".into()).spawn(move || self.run())?;
        Ok(())
    }

    fn run(self) {
        if !self.is_ipv4 {
            self.sleep(LATER, LATER);
        }
        let (mut wait, mut tries, mut hops) = (AGAIN[0], 0, 0);
        let mut elsewhere = None;
        while self.is_wanted() {
            let begun = Instant::now();
            let ended = self.allocate(elsewhere.take(), tries);
            tries += 1;
            if begun.elapsed() >= LASTED {
                (wait, hops) = (AGAIN[0], 0);
            }
            let mut least = AGAIN[0];
            let (error, pause) = match ended {
                Ended::Stopped => return,
                Ended::Moved => {
                    // Interfaces that come and go must not have the server asked without pause.
                    least = wait.min(MOVED);
                    ("the machine's address has changed".to_owned(), least)
                }
                Ended::Suspended => ("the machine was suspended".to_owned(), Duration::ZERO),
                Ended::Local(error) => (error, wait),
                Ended::Failed(Failure::Elsewhere(server)) if hops < MAX_HOPS => {
                    hops += 1;
                    elsewhere = Some(server);
                    (Failure::Elsewhere(server).to_string(), Duration::ZERO)
                }
                Ended::Failed(why) => {
                    let pause = match why {
                        Failure::Unauthorized | Failure::NoFamily => HOPELESS,
                        Failure::Refused(486 | 508, _) => FULL.max(wait),
                        _ => wait,
                    };
                    (why.to_string(), pause)
                }
            };
            tracing::debug!(server = %self.server, %error, "no TURN allocation");
            self.publish(None, Some(error));
            if !pause.is_zero() {
                self.sleep(least, pause);
                wait = (wait * 2).min(AGAIN[1]);
                hops = 0;
            }
        }
    }

    /// Asks for an allocation and serves it until it ends.
    fn allocate(&self, elsewhere: Option<SocketAddr>, tries: usize) -> Ended {
        // What follows looks at the network as it is now.
        self.bell.take_suspended();
        self.bell.take_interfaces();
        let Some(driver) = self.driver.upgrade() else { return Ended::Stopped };
        let (devices, nat64) = (driver.sockets.devices(), driver.sockets.nat64.prefix());
        drop(driver);
        let opened = choose(&devices, tries).and_then(|device| {
            let server = self.address(elsewhere, tries)?;
            let reached_at = nat64.map_or(server, |prefix| prefix.synthesize(server));
            let (io, state) = open(reached_at, device.as_deref())?;
            let mut seed = [0; 32];
            getrandom::fill(&mut seed)?;
            let client = Client::new(&self.server, self.is_ipv4, seed, Instant::now()).at(server);
            let client = Mutex::new(client);
            Ok(Allocation { client, io, state, server: reached_at, device, bell: Arc::clone(&self.bell) })
        });
        match opened {
            Ok(allocation) => {
                let (allocation, mut opening) = (Arc::new(allocation), Some(self.turn.begin_opening()));
                let ended = self.serve(&allocation, &mut opening);
                // The server would keep it for minutes, and count it against the user.
                allocation.give_back();
                ended
            }
            Err(error) => Ended::Local(format!("{}: {error}", self.server.target())),
        }
    }

    /// Where the server is: one address of its name after the other.
    fn address(&self, elsewhere: Option<SocketAddr>, tries: usize) -> io::Result<SocketAddr> {
        if let Some(server) = elsewhere {
            // A server must not aim this node at its own machine.
            let is_good = is_endpoint(&server) && !server.ip().is_loopback() && !server.ip().is_multicast();
            return is_good
                .then_some(server)
                .ok_or_else(|| io::Error::other("the server names no other one"));
        }
        let target = self.server.target();
        let all: Vec<_> = (target.host.as_str(), target.port).to_socket_addrs()?.collect();
        let address = all.get(tries % all.len().max(1)).copied();
        address.ok_or_else(|| io::Error::other("the name has no address"))
    }

    /// Asks for it, and then reads what comes. `opening` is taken once it is known to who stops the node.
    fn serve(&self, allocation: &Arc<Allocation>, opening: &mut Option<Opening>) -> Ended {
        if !self.is_wanted() {
            return Ended::Stopped;
        }
        let mut buffers = vec![vec![0; BUFFER]; RECEIVE_BATCH];
        let mut ingress = Ingress::default();
        let local = allocation.io.local_addr().ok().map(|local| local.ip());
        let mut stop_at = None;
        loop {
            allocation.flush();
            loop {
                // Publishing takes other locks.
                let event = sync::lock(&allocation.client).poll_event();
                match event {
                    None => break,
                    Some(Event::Allocated(relayed)) => {
                        tracing::debug!(server = %self.server, %relayed, "a TURN server relays to this node");
                        self.publish(Some((Arc::clone(allocation), relayed)), None);
                        if !self.turn.is_stopped() {
                            *opening = None;
                        }
                    }
                    Some(Event::Ended(why)) => return Ended::Failed(why),
                }
            }
            let now = Instant::now();
            let (next, is_granted) = {
                let client = sync::lock(&allocation.client);
                (client.poll_timeout(now), client.relayed().is_some())
            };
            let mut until = next.map_or(now + LOOK, |next| next.min(now + LOOK));
            if !self.is_wanted() {
                // What the server is about to grant can be given back only after its answer.
                let stop_at = *stop_at.get_or_insert(now + STOP_PATIENCE);
                if opening.is_none() || is_granted || stop_at <= now {
                    return Ended::Stopped;
                }
                until = until.min(stop_at);
            }
            let mut fds =
                [PollFd::new(&allocation.io, PollFlags::IN), PollFd::new(&*self.bell, PollFlags::IN)];
            poll::readable(&mut fds, Some(until.saturating_duration_since(now)));
            if !fds[1].revents().is_empty() {
                self.bell.clear();
            }
            if self.is_wanted() {
                if self.bell.take_suspended() {
                    return Ended::Suspended;
                }
                // Only then: the question costs system calls, and senders wake this thread often.
                if self.bell.take_interfaces()
                    && source_towards(allocation.server, allocation.device.as_deref()).ok() != local
                {
                    return Ended::Moved;
                }
            }
            for _ in 0..MAX_CALLS {
                if !self.receive(allocation, &mut buffers, &mut ingress) {
                    break;
                }
            }
            sync::lock(&allocation.client).handle_timeout(Instant::now());
        }
    }

    /// One receive call; what peers have sent goes to the data path. False if there was nothing to read.
    fn receive(&self, allocation: &Allocation, buffers: &mut [Vec<u8>], ingress: &mut Ingress) -> bool {
        let mut meta = [quinn_udp::RecvMeta::default(); RECEIVE_BATCH];
        let received = {
            let mut buffers = buffers.iter_mut();
            let mut slices: [IoSliceMut<'_>; RECEIVE_BATCH] =
                std::array::from_fn(|_| IoSliceMut::new(buffers.next().map_or(&mut [], |buffer| buffer)));
            // Errors are of earlier datagrams (ICMP): who does not answer is silent.
            match allocation.state.recv(UdpSockRef::from(&allocation.io), &mut slices, &mut meta) {
                Ok(received) => received,
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        };
        let Some(driver) = self.driver.upgrade() else { return false };
        let now = driver.now();
        for (meta, buffer) in meta.iter().zip(buffers.iter()).take(received) {
            // The kernel delivers what comes from the server alone, once the socket is connected.
            if canonical(meta.addr) != canonical(allocation.server) {
                continue;
            }
            for datagram in buffer[..meta.len].chunks(meta.stride.max(1)) {
                let from_peer = sync::lock(&allocation.client).handle(Instant::now(), datagram);
                // The data path may send, which takes the client's lock.
                let Some(from_peer) = from_peer.filter(|one| is_endpoint(&one.peer)) else { continue };
                let socket = index_of(self.position);
                let origin = RecvMeta { remote: from_peer.peer, socket, multicast: false, relay: None };
                let data = from_peer.data;
                driver.datapath.receive(now, ingress, origin, data, data.len(), false);
            }
        }
        driver.datapath.finish_receive(now, ingress);
        true
    }

    /// Tells those who send, the overlay, and who finds out where this node is.
    fn publish(&self, open: Option<(Arc<Allocation>, SocketAddr)>, error: Option<String>) {
        let change = || {
            let before = self.turn.infos();
            self.turn.set(self.position, open, error);
            before != self.turn.infos()
        };
        match self.driver.upgrade() {
            Some(driver) => {
                if driver.change_sockets(driver.now(), &mut Batch::default(), change) {
                    driver.kick();
                }
            }
            None => _ = change(),
        }
        if let Some(told) = self.turn.changed.get() {
            told();
        }
    }

    fn is_wanted(&self) -> bool {
        !self.turn.is_stopped() && self.driver.strong_count() > 0
    }

    /// Sleeps, until the node is gone. News of the network shortens it to `least`: what was in the way may be
    /// gone.
    fn sleep(&self, least: Duration, most: Duration) {
        let begun = Instant::now();
        while self.is_wanted() {
            let time = if self.bell.has_news() { least.min(most) } else { most };
            let left = time.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return;
            }
            let mut fds = [PollFd::new(&*self.bell, PollFlags::IN)];
            poll::readable(&mut fds, Some(left.min(LOOK)));
            if !fds[0].revents().is_empty() {
                self.bell.clear();
            }
        }
    }
}

/// The interface to leave by, one after the other; `None` stands for any.
pub(super) fn choose(devices: &[Option<String>], tries: usize) -> io::Result<Option<String>> {
    let device = devices.get(tries % devices.len().max(1)).cloned();
    // A socket that is bound to none would leave by an interface that the user has forbidden.
    device.ok_or_else(|| io::Error::other("no network interface that may be used is up"))
}

/// A UDP socket for the way to the server.
fn socket(server: SocketAddr, device: Option<&str>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM, Some(Protocol::UDP))?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    Ok(socket)
}

/// A socket that talks to the server alone.
fn open(server: SocketAddr, device: Option<&str>) -> io::Result<(UdpSocket, UdpSocketState)> {
    let socket = socket(server, device)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.connect(&server.into())?;
    let io: UdpSocket = socket.into();
    let state = UdpSocketState::new(UdpSockRef::from(&io))?;
    Ok((io, state))
}

/// The machine's own address on the way there, by that interface.
pub(super) fn source_towards(server: SocketAddr, device: Option<&str>) -> io::Result<std::net::IpAddr> {
    let socket = socket(server, device)?;
    socket.connect(&server.into())?;
    let io: UdpSocket = socket.into();
    Ok(io.local_addr()?.ip())
}
