//! TURN allocations: sockets of the driver whose addresses are on a server (RFC 8656).
//!
//! Each allocation has a separate link to the server, a UDP socket ([`udp`]) or a stream ([`stream`]), and a
//! thread ([`keeper`]). The thread reads the link, keeps the allocation and requests it again when it has
//! ended. Senders wrap the datagrams on their thread, as with other sockets, and never block. Datagrams that
//! find no space in a UDP socket are lost, and so are those that wait too long for a stream. Data from peers
//! goes to the data path.

mod bell;
mod check;
mod keeper;
mod stream;
#[cfg(test)]
mod tests;
mod udp;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, RwLock};
use std::time::{Duration, Instant};

use peersock_nat::turn::{Client, MAX_OVERHEAD, Sent, TurnServer};
use peersock_overlay::{SocketIndex, SocketInfo};
use peersock_streams::Sender;

use super::Driver;
use crate::TurnStatus;
use crate::sync;
use crate::sys::process::Process;
use bell::Bell;
pub(crate) use check::check_turn;
use keeper::Keeper;
use peersock_datapath::Transmit;
use udp::UdpLink;

/// Size of the largest datagram to or from a peer. With all headers and the overhead of the server it fits
/// into an Ethernet frame. The server may fragment its packets to peers, so larger ones are not probed.
const MAX_DATAGRAM: usize = 1400;

/// Limit of bytes handed to the kernel in one call.
const MAX_BATCH: usize = 60_000;

/// Limit of datagrams handed to a stream at once.
const STREAM_SEGMENTS: usize = 32;

/// Time that the node's end waits for answers to pending allocation requests, and for streams to take the
/// data sent. The server would otherwise keep a granted allocation for minutes, and count it against the
/// user's quota.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Allocations of one node.
pub(crate) struct TurnSockets {
    open: RwLock<BTreeMap<SocketIndex, Arc<Allocation>>>,
    states: RwLock<Vec<TurnState>>,
    bells: Mutex<Vec<Arc<Bell>>>,
    /// Number of allocations that are being requested, and may be granted at any moment, or whose stream may
    /// hold unsent data.
    opening: Mutex<usize>,
    opened: Condvar,
    /// Callback for a relayed address that has come or gone.
    changed: OnceLock<Box<dyn Fn() + Send + Sync>>,
    is_stopped: AtomicBool,
    process: Process,
}

/// State of one allocation, or of the attempt to get it.
#[derive(Debug, Clone)]
struct TurnState {
    /// Server, without the password.
    server: String,
    /// True if the address is IPv4.
    is_ipv4: bool,
    /// Relayed address.
    relayed: Option<SocketAddr>,
    /// Reason why there is none.
    error: Option<String>,
}

/// Allocation, from the first request on.
struct Allocation {
    client: Mutex<Client>,
    link: Link,
    bell: Arc<Bell>,
}

/// Transport of messages to the server.
enum Link {
    Udp(UdpLink),
    Stream(Sender),
}

/// Guard that exists while an allocation is being requested, or its stream may hold unsent data.
struct Opening {
    turn: Arc<TurnSockets>,
}

impl TurnSockets {
    pub(super) fn new() -> Self {
        Self {
            open: RwLock::default(),
            states: RwLock::default(),
            bells: Mutex::default(),
            opening: Mutex::default(),
            opened: Condvar::new(),
            changed: OnceLock::new(),
            is_stopped: AtomicBool::new(false),
            process: Process::current(),
        }
    }

    /// Requests allocations from these servers, an IPv4 and an IPv6 one each, from now on. Call it once.
    pub(super) fn start(self: &Arc<Self>, driver: &Arc<Driver>, servers: &[TurnServer]) -> io::Result<()> {
        for (server, is_ipv4) in servers.iter().flat_map(|server| [(server, true), (server, false)]) {
            let bell = Arc::new(Bell::new()?);
            let position = {
                let mut states = sync::write(&self.states);
                let server = server.to_string();
                states.push(TurnState { server, is_ipv4, relayed: None, error: None });
                states.len() - 1
            };
            sync::lock(&self.bells).push(Arc::clone(&bell));
            Keeper::new(driver, self, server.clone(), is_ipv4, position, bell).start()?;
        }
        Ok(())
    }

    /// Registers a callback for a relayed address that has come or gone. Only the first call has an effect.
    pub(crate) fn on_change(&self, told: Box<dyn Fn() + Send + Sync>) {
        let _ = self.changed.set(told);
    }

    /// Renews the allocations whose local address has changed.
    pub(crate) fn interfaces_changed(&self) {
        for bell in sync::lock(&self.bells).iter() {
            bell.note_interfaces();
        }
    }

    /// Renews all allocations, because the server's clock went on while the machine was suspended. So
    /// permissions and channels that this side considers valid may be gone.
    pub(super) fn was_suspended(&self) {
        for bell in sync::lock(&self.bells).iter() {
            bell.note_suspended();
        }
    }

    /// Releases the allocations and ends the threads. Waits at most a second, and only for servers that have
    /// not answered a request yet.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        for (_, allocation) in std::mem::take(&mut *sync::write(&self.open)) {
            if !self.process.is_forked() {
                allocation.give_back();
            }
        }
        for bell in sync::lock(&self.bells).iter() {
            bell.wake();
        }
        // A forked child does not have the threads.
        if !self.process.is_forked() {
            let opening = sync::lock(&self.opening);
            drop(sync::wait_timeout_while(&self.opened, opening, STOP_TIMEOUT, |opening| *opening > 0));
        }
    }

    /// Notes that an allocation is being requested: `stop` waits for the result.
    fn begin_opening(self: &Arc<Self>) -> Opening {
        *sync::lock(&self.opening) += 1;
        Opening { turn: Arc::clone(self) }
    }

    /// Stores a provisional error while an allocation is being requested. Returns false if a better one is
    /// stored.
    fn note(&self, position: usize, error: &str) -> bool {
        let mut states = sync::write(&self.states);
        let state = states.get_mut(position).filter(|one| one.relayed.is_none() && one.error.is_none());
        state.map(|state| state.error = Some(error.to_owned())).is_some()
    }

    /// Returns the state of all allocations for the status.
    pub(crate) fn statuses(&self) -> Vec<TurnStatus> {
        let status = |TurnState { server, is_ipv4, relayed, error }| {
            let family = if is_ipv4 { "ipv4" } else { "ipv6" };
            TurnStatus { server, family: family.into(), relayed, error }
        };
        self.states().into_iter().map(status).collect()
    }

    /// Returns the state of all allocations.
    fn states(&self) -> Vec<TurnState> {
        sync::read(&self.states).clone()
    }

    /// Returns the relayed addresses.
    pub(crate) fn relayed(&self) -> Vec<SocketAddr> {
        sync::read(&self.states).iter().filter_map(|state| state.relayed).collect()
    }

    /// Returns true if each server has answered or failed once.
    pub(crate) fn is_settled(&self) -> bool {
        let states = sync::read(&self.states);
        states
            .iter()
            // IPv6 is requested later, and many servers do not grant it.
            .filter(|state| state.is_ipv4)
            .all(|state| state.relayed.is_some() || state.error.is_some())
    }

    /// Describes the allocations to the overlay.
    pub(super) fn infos(&self) -> Vec<SocketInfo> {
        let states = self.states();
        let open = sync::read(&self.open);
        let info = |(position, state): (usize, &TurnState)| SocketInfo {
            index: index_of(position),
            ipv4: state.is_ipv4,
            loopback: false,
            max_datagram: MAX_DATAGRAM,
            beacon_targets: Vec::new(),
        };
        states.iter().enumerate().map(info).filter(|info| open.contains_key(&info.index)).collect()
    }

    /// Returns how many datagrams may be handed over at once.
    pub(super) fn max_segments(&self, socket: SocketIndex) -> usize {
        sync::read(&self.open).get(&socket).map_or(1, |allocation| allocation.link.max_segments())
    }

    /// Sends datagrams to a peer, by way of the server; never blocks.
    pub(super) fn send(&self, transmit: &Transmit<'_>) {
        // A copy, so that wrapping and sending run without the lock.
        let allocation = sync::read(&self.open).get(&transmit.socket).cloned();
        // A forked child must not use the session keys that its parent still uses.
        if let Some(allocation) = allocation.filter(|_| !self.process.is_forked()) {
            allocation.send(transmit);
        }
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// Stores the new state of an allocation.
    fn set(&self, position: usize, open: Option<(Arc<Allocation>, SocketAddr)>, error: Option<String>) {
        let relayed = open.as_ref().map(|(_, relayed)| *relayed);
        {
            let mut allocations = sync::write(&self.open);
            match open {
                // After `stop` nothing would release a new allocation.
                Some((allocation, _)) if !self.is_stopped() => {
                    allocations.insert(index_of(position), allocation);
                }
                _ => _ = allocations.remove(&index_of(position)),
            }
        }
        if let Some(state) = sync::write(&self.states).get_mut(position) {
            (state.relayed, state.error) = (relayed, error);
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        *sync::lock(&self.turn.opening) -= 1;
        self.turn.opened.notify_all();
    }
}

impl Allocation {
    fn send(&self, transmit: &Transmit<'_>) {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let is_held = match &self.link {
            Link::Udp(link) => self.send_by_udp(link, transmit, size),
            Link::Stream(sender) => self.send_by_stream(sender, transmit, size),
        };
        if is_held {
            self.flush();
            // The request may need a retransmission earlier than the thread would wake.
            self.bell.wake();
        }
    }

    /// Sends by UDP. Returns true if a datagram waits for a permission.
    fn send_by_udp(&self, link: &UdpLink, transmit: &Transmit<'_>, size: usize) -> bool {
        let most = (MAX_BATCH / (size + MAX_OVERHEAD)).clamp(1, link.max_segments());
        let (mut batch, mut is_held) = (Vec::new(), false);
        for datagrams in transmit.contents.chunks(size * most) {
            batch.clear();
            let mut wrapped_size = None;
            let mut client = sync::lock(&self.client);
            // The lock keeps the encapsulation of a batch the same, so that all datagrams but the last have
            // equal length.
            for datagram in datagrams.chunks(size) {
                let sent = client.send(Instant::now(), transmit.remote, datagram, &mut batch);
                is_held |= sent == Sent::Held;
                wrapped_size.get_or_insert(batch.len());
            }
            drop(client);
            link.transmit(&batch, wrapped_size.unwrap_or(0));
        }
        is_held
    }

    /// Queues the datagrams. The oldest ones are dropped if the stream does not take them in time.
    fn send_by_stream(&self, sender: &Sender, transmit: &Transmit<'_>, size: usize) -> bool {
        let (now, mut is_held) = (Instant::now(), false);
        for datagram in transmit.contents.chunks(size) {
            let mut wrapped = Vec::with_capacity(datagram.len() + MAX_OVERHEAD);
            let sent = sync::lock(&self.client).send(now, transmit.remote, datagram, &mut wrapped);
            is_held |= sent == Sent::Held;
            if sent == Sent::Written {
                // A send only fails if the stream has just ended; then the datagram is lost.
                let _ = sender.send(wrapped);
            }
        }
        is_held
    }

    /// Releases the allocation, without waiting for an answer. No more data may be sent over it.
    fn give_back(&self) {
        let last = {
            let mut client = sync::lock(&self.client);
            client.close();
            client.poll_transmit()
        };
        match (&self.link, last) {
            (Link::Udp(link), Some(last)) => link.transmit(&last, last.len()),
            // Queued behind data to peers, because the server would drop data after the release.
            (Link::Stream(sender), Some(last)) => _ = sender.send(last),
            (_, None) => {}
        }
    }

    /// Sends the client's own messages.
    fn flush(&self) {
        loop {
            let Some(datagram) = sync::lock(&self.client).poll_transmit() else { return };
            match &self.link {
                Link::Udp(link) => link.transmit(&datagram, datagram.len()),
                // Urgent, because on a stream the client does not retransmit.
                Link::Stream(sender) => _ = sender.send_urgent(datagram),
            }
        }
    }
}

impl Link {
    /// Returns how many datagrams may be handed over at once.
    fn max_segments(&self) -> usize {
        match self {
            Self::Udp(link) => link.max_segments(),
            Self::Stream(_) => STREAM_SEGMENTS,
        }
    }
}

fn index_of(position: usize) -> SocketIndex {
    SocketIndex::turn(position as u16)
}
