//! Probes of members for other programs, by the management socket.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use peersock_datapath::{Device, Offload};
use peersock_overlay::DiscoveryKey;
use peersock_overlay::membership::MemberName;
use peersock_primitives::sync;
use peersock_primitives::wait::{Interest, Waiters};
use peersock_stack::{EchoRequest, Error, IcmpSocket};

use super::echo_packet::{self, EchoKey, Reply};
use super::{Inner, Joined, Node, PeerStatus, addresses_named, search_name};
use crate::management::{Echo, Mark, Probe, ProbeOutcome, ProbeRequest, ProbeTask, Probed, STOPPED};
use crate::socket::{self, Waited};

/// Time for which a probe keeps the node running: it looks that often for the end of its client, and of the
/// node.
const SLICE: Duration = Duration::from_secs(1);

/// Age up to which a sign of a member proves that it is there.
const RECENT: Duration = Duration::from_secs(2);

/// Members that are asked at once, and the pause before the next ones: a large network gets no burst.
const BURST: usize = 32;
const BURST_INTERVAL: Duration = Duration::from_millis(10);

/// Interval of looking at the members that were asked.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Hop limit of the requests, as of all packets that a node sends.
const HOP_LIMIT: u8 = 64;

/// Next sequence number of an echo request.
static SEQUENCE: AtomicU16 = AtomicU16::new(1);

/// Knowledge about a joined network that probes need.
pub(super) struct Known {
    mark: Mark,
    /// Listener at the network's device, if it was joined for one.
    listener: Option<Arc<Listener>>,
}

impl Known {
    pub(super) fn new(key: &DiscoveryKey) -> Known {
        Known { mark: Mark::new(key), listener: None }
    }

    /// Returns a device that passes all packets on, but the replies to probes.
    pub(super) fn listen(&mut self, device: Arc<dyn Device>) -> Arc<dyn Device> {
        let listener = Arc::new(Listener {
            device,
            count: AtomicUsize::new(0),
            echoes: Mutex::default(),
            waiters: Waiters::default(),
        });
        self.listener = Some(Arc::clone(&listener));
        listener
    }
}

/// Does a probe while `is_over` is false.
pub(super) fn answer(
    node: &Weak<Inner>,
    request: &ProbeRequest,
    is_over: &dyn Fn() -> bool,
) -> Result<Probed, &'static str> {
    let task = Task { node, probe: &request.probe, is_over };
    let (address, mut probed) = match &request.task {
        ProbeTask::AskMembers => return task.ask_members(),
        ProbeTask::Find(name) => return task.find(name),
        ProbeTask::Reach(address) => (*address, task.reach(*address)?),
        ProbeTask::Ping(address, echo) => (*address, task.ping(*address, echo)?),
    };
    if let Ok(joined) = task.joined()? {
        probed.peer = joined.peers().into_iter().find(|peer| peer.addresses.contains(&address));
    }
    Ok(probed)
}

struct Task<'a> {
    node: &'a Weak<Inner>,
    probe: &'a Probe,
    is_over: &'a dyn Fn() -> bool,
}

impl Task<'_> {
    /// Returns the network. The result keeps the node running, so it is dropped after each slice.
    fn joined(&self) -> Result<Result<Joined, ProbeOutcome>, &'static str> {
        let node = Node { inner: self.node.upgrade().ok_or(STOPPED)? };
        if node.inner.is_down() {
            return Err(STOPPED);
        }
        let known = sync::lock(&node.inner.joined).get(&self.probe.network).map(|known| known.mark);
        Ok(match (known, node.network(self.probe.network)) {
            (Some(mark), Some(_)) if self.probe.mark.is_some_and(|wanted| wanted != mark) => {
                Err(ProbeOutcome::OtherNetwork)
            }
            (Some(_), Some(joined)) => Ok(joined),
            _ => Err(ProbeOutcome::NotJoined),
        })
    }

    /// Waits for a session with the member.
    fn reach(&self, address: IpAddr) -> Result<Probed, &'static str> {
        let until = Instant::now() + self.probe.timeout;
        loop {
            let joined = match self.joined()? {
                Ok(joined) => joined,
                Err(outcome) => return Ok(outcome.into()),
            };
            let left = until.saturating_duration_since(Instant::now());
            match joined.wait_peer(address, left.min(SLICE)) {
                Ok(()) => return Ok(ProbeOutcome::Answered.into()),
                Err(error) if error.kind() == io::ErrorKind::TimedOut && left > SLICE => {}
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                    return Ok(ProbeOutcome::NoSuchMember.into());
                }
                Err(error) => return Ok(failed(&error)),
            }
            drop(joined);
            if (self.is_over)() {
                return Ok(ProbeOutcome::Silent.into());
            }
        }
    }

    /// Finds the member with a name.
    fn find(&self, name: &MemberName) -> Result<Probed, &'static str> {
        let begin = Instant::now();
        loop {
            let joined = match self.joined()? {
                Ok(joined) => joined,
                Err(outcome) => return Ok(outcome.into()),
            };
            let node = &joined.node().inner;
            let networks: Vec<_> = node.driver.datapath.network(joined.id()).into_iter().collect();
            let local = node.local_names();
            let found = addresses_named(node, name.as_str(), (&networks, &local));
            let has_it = |peer: &PeerStatus| found.iter().any(|address| peer.addresses.contains(address));
            if let Some(peer) = joined.peers().into_iter().find(has_it) {
                return Ok(Probed { peer: Some(peer), ..ProbeOutcome::Answered.into() });
            }
            let is_absent = !search_name(node, name.as_str(), (&networks, &local));
            drop(joined);
            if is_absent {
                return Ok(ProbeOutcome::NoSuchMember.into());
            }
            if begin.elapsed() >= self.probe.timeout || (self.is_over)() {
                return Ok(ProbeOutcome::Silent.into());
            }
        }
    }

    /// Waits for a session with each member, and for a sign of those with an older one.
    fn ask_members(&self) -> Result<Probed, &'static str> {
        let begin = Instant::now();
        let mut next_round = begin;
        loop {
            let joined = match self.joined()? {
                Ok(joined) => joined,
                Err(outcome) => return Ok(outcome.into()),
            };
            let recent_s = (begin.elapsed() + RECENT).as_secs_f64();
            let is_there =
                |peer: &PeerStatus| peer.connected && peer.last_seen_s.is_some_and(|seen| seen <= recent_s);
            let silent = joined.peers().into_iter().filter(|peer| !is_there(peer));
            let silent: Vec<_> = silent.filter_map(|peer| peer.addresses.first().copied()).collect();
            if silent.is_empty() {
                return Ok(ProbeOutcome::Answered.into());
            }
            drop(joined);
            let is_over = || begin.elapsed() >= self.probe.timeout || (self.is_over)();
            if is_over() {
                return Ok(ProbeOutcome::Silent.into());
            }
            if Instant::now() >= next_round {
                for burst in silent.chunks(BURST) {
                    // Each burst anew, so that a long round does not keep the node, nor outlasts its client.
                    let Ok(joined) = self.joined()? else { break };
                    burst.iter().for_each(|address| joined.ask(*address));
                    drop(joined);
                    if is_over() {
                        break;
                    }
                    thread::sleep(BURST_INTERVAL);
                }
                next_round = Instant::now() + SLICE;
            }
            thread::sleep(CHECK_INTERVAL.min(self.probe.timeout.saturating_sub(begin.elapsed())));
        }
    }

    /// Sends an echo request, and waits for its reply.
    fn ping(&self, address: IpAddr, echo: &Echo) -> Result<Probed, &'static str> {
        let joined = match self.joined()? {
            Ok(joined) => joined,
            Err(outcome) => return Ok(outcome.into()),
        };
        let payload: Vec<u8> = (0..echo.size).map(|i| i as u8).collect();
        let (begin, sent) = (Instant::now(), self.send(&joined, address, &payload));
        drop(joined);
        let result =
            sent.and_then(|socket| self.reply(&socket, address, payload, begin + self.probe.timeout));
        match result {
            Ok(reply) => Ok(Probed {
                round_trip_ms: Some(reply.at.saturating_duration_since(begin).as_secs_f64() * 1e3),
                bytes: Some(reply.len),
                hop_limit: Some(reply.hop_limit),
                ..ProbeOutcome::Answered.into()
            }),
            Err(_) if self.is_too_small(address, echo.check)? => Ok(ProbeOutcome::PathTooSmall.into()),
            Err(error) => Ok(failed(&error)),
        }
    }

    /// Returns true if the path to a member carries too little, as far as that is known after `timeout`.
    fn is_too_small(&self, address: IpAddr, timeout: Duration) -> Result<bool, &'static str> {
        let begin = Instant::now();
        let mut begins = true;
        loop {
            let Ok(joined) = self.joined()? else { return Ok(false) };
            let left = timeout.saturating_sub(begin.elapsed());
            match joined.continue_check(address, left.min(SLICE), begins) {
                Err(_) => return Ok(true),
                Ok(false) if left > SLICE && !(self.is_over)() => begins = false,
                Ok(_) => return Ok(false),
            }
        }
    }

    fn send(&self, joined: &Joined, address: IpAddr, payload: &[u8]) -> io::Result<Asked> {
        let inner = &joined.node().inner;
        let datapath = &inner.driver.datapath;
        let listener = sync::lock(&inner.joined).get(&joined.id()).and_then(|known| known.listener.clone());
        match listener {
            None => {
                let socket = datapath.stack().icmp_open(joined.interface(), address.is_ipv6())?;
                inner.add_socket(&socket);
                // A late reply to an earlier probe may have the same identifier.
                let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
                let asked = Asked::Socket { socket: Arc::clone(&socket), sequence };
                let request = EchoRequest { destination: address, sequence, payload, hop_limit: HOP_LIMIT };
                datapath.send_echo(Instant::now(), &socket, &request)?;
                Ok(asked)
            }
            Some(listener) => {
                let source = joined.addresses().into_iter().find(|own| own.is_ipv4() == address.is_ipv4());
                let source = source.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
                let mut key = EchoKey::default();
                // Random, so that no echo of the device's own host has the same.
                getrandom::fill(&mut key).map_err(io::Error::other)?;
                let packet = echo_packet::request((source, address), key, payload, HOP_LIMIT);
                let mut packet = packet.ok_or(Error::MessageSize)?;
                let mut sender = joined.device_sender().ok_or(Error::NetworkDown)?;
                let asked = Asked::Device { key, listener };
                asked.begin();
                sender.send(&mut packet, &Offload::default());
                sender.flush();
                Ok(asked)
            }
        }
    }

    fn reply(
        &self,
        asked: &Asked,
        address: IpAddr,
        mut buf: Vec<u8>,
        until: Instant,
    ) -> io::Result<Received> {
        loop {
            // An error of the kind `BrokenPipe` cannot be seen, because no thread waits for the answer.
            let inner = self.node.upgrade().ok_or(io::ErrorKind::BrokenPipe)?;
            let slice = until.min(Instant::now() + SLICE);
            let received = socket::block_on(&inner, asked.waiters(), Interest::Read, Some(slice), || {
                asked.receive(address, &mut buf)
            });
            match received {
                Err(error) if error.kind() == io::ErrorKind::TimedOut && Instant::now() < until => {}
                received => return received,
            }
            drop(inner);
            if (self.is_over)() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

/// Returns the outcome for an error.
fn failed(error: &io::Error) -> Probed {
    match error.kind() {
        io::ErrorKind::TimedOut => ProbeOutcome::Silent.into(),
        _ => Probed { reason: Some(error.to_string()), ..ProbeOutcome::Failed.into() },
    }
}

/// A reply, with its time.
struct Received {
    at: Instant,
    len: usize,
    hop_limit: u8,
}

/// An echo request that was sent.
enum Asked {
    /// By a socket of the node's stack.
    Socket { socket: Arc<IcmpSocket>, sequence: u16 },
    /// Beside the packets of a device, which has the network instead of the stack.
    Device { listener: Arc<Listener>, key: EchoKey },
}

impl Asked {
    /// Expects the reply from now on.
    fn begin(&self) {
        if let Asked::Device { listener, key } = self {
            sync::lock(&listener.echoes).push(Expected { key: *key, reply: None });
            listener.count.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn waiters(&self) -> &Waiters {
        match self {
            Asked::Socket { socket, .. } => socket.waiters(),
            Asked::Device { listener, .. } => &listener.waiters,
        }
    }

    fn receive(&self, from: IpAddr, buf: &mut [u8]) -> io::Result<Received> {
        match self {
            Asked::Socket { socket, sequence } => loop {
                let reply = socket.recv(buf)?;
                match reply.error {
                    _ if reply.sequence != *sequence => {}
                    Some(error) => return Err(error.into()),
                    // Another member could guess the numbers.
                    None if reply.source != from => {}
                    None => {
                        let at = Instant::now();
                        return Ok(Received { at, len: reply.len, hop_limit: reply.hop_limit });
                    }
                }
            },
            Asked::Device { listener, key } => {
                let echoes = sync::lock(&listener.echoes);
                let reply = echoes.iter().find(|echo| echo.key == *key).and_then(|echo| echo.reply);
                let (at, reply) = reply.filter(|(_, reply)| reply.from == from).ok_or(Error::WouldBlock)?;
                Ok(Received { at, len: reply.len, hop_limit: reply.hop_limit })
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        match self {
            Asked::Socket { socket, .. } => socket.close(),
            Asked::Device { listener, key } => {
                let mut echoes = sync::lock(&listener.echoes);
                if let Some(at) = echoes.iter().position(|echo| echo.key == *key) {
                    echoes.swap_remove(at);
                    listener.count.fetch_sub(1, Ordering::SeqCst);
                }
            }
        }
    }
}

/// Device that takes the replies to probes, and passes all other packets on.
#[derive(Debug)]
struct Listener {
    device: Arc<dyn Device>,
    /// Number of `echoes`, without their lock: usually there are none.
    count: AtomicUsize,
    echoes: Mutex<Vec<Expected>>,
    waiters: Waiters,
}

/// An echo request, and its reply once that has come.
#[derive(Debug)]
struct Expected {
    key: EchoKey,
    reply: Option<(Instant, Reply)>,
}

impl Listener {
    /// Returns true if a packet is the reply to a probe.
    fn takes(&self, packet: &[u8]) -> bool {
        let Some(reply) = echo_packet::reply(packet) else { return false };
        let mut echoes = sync::lock(&self.echoes);
        let Some(echo) = echoes.iter_mut().find(|echo| echo.key == reply.key) else { return false };
        echo.reply.get_or_insert((Instant::now(), reply));
        drop(echoes);
        self.waiters.notify(true, false);
        true
    }
}

impl Device for Listener {
    fn deliver(&self, packet: &[u8], offload: &Offload) {
        if self.count.load(Ordering::Relaxed) == 0 || !self.takes(packet) {
            self.device.deliver(packet, offload);
        }
    }
}
