//! TURN allocations: sockets of the driver whose addresses are on a server (RFC 8656).
//!
//! Each has a way to the server of its own, a UDP socket ([`udp`]) or a stream ([`stream`]), and a thread
//! ([`keeper`]) that reads it, keeps the allocation and makes it anew when it has ended. Who sends wraps the
//! datagrams on its own thread, as with other sockets, and never waits: what a UDP socket has no room for is
//! lost, and so is what has waited too long for a stream. What comes from peers goes to the data path.

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

/// The largest datagram to or from a peer: with all headers and what the way over the server adds it fits
/// into an Ethernet frame. The server may cut its packets to peers into fragments, so larger ones are not
/// tried.
const MAX_DATAGRAM: usize = 1400;

/// The most bytes handed to the kernel in one call.
const MAX_BATCH: usize = 60_000;

/// Datagrams that are handed to a stream in one go.
const STREAM_SEGMENTS: usize = 32;

/// How long the node's end waits for the answers to requests for an allocation that are under way, for the
/// server would keep what it grants for minutes, and count it against the user; and for streams to take what
/// was sent.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// The allocations of one node.
pub(crate) struct TurnSockets {
    open: RwLock<BTreeMap<SocketIndex, Arc<Allocation>>>,
    states: RwLock<Vec<TurnState>>,
    bells: Mutex<Vec<Arc<Bell>>>,
    /// How many allocations are asked for now, and may be granted at any moment, or have a stream that may
    /// hold what was sent last.
    opening: Mutex<usize>,
    opened: Condvar,
    /// Told when a relayed address has come or gone.
    changed: OnceLock<Box<dyn Fn() + Send + Sync>>,
    is_stopped: AtomicBool,
    process: Process,
}

/// How one allocation is, or the try to get it.
#[derive(Debug, Clone)]
struct TurnState {
    /// The server, without the password.
    server: String,
    /// Whether the address is IPv4.
    is_ipv4: bool,
    /// The relayed address.
    relayed: Option<SocketAddr>,
    /// Why there is none.
    error: Option<String>,
}

/// An allocation, from the first request on.
struct Allocation {
    client: Mutex<Client>,
    link: Link,
    bell: Arc<Bell>,
}

/// What carries messages to the server.
enum Link {
    Udp(UdpLink),
    Stream(Sender),
}

/// An allocation is asked for, or what was sent may still wait in its stream, until this is dropped.
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

    /// Asks these servers for allocations, an IPv4 and an IPv6 one each, from now on. To be called once.
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

    /// Has `told` told when a relayed address has come or gone. The first call counts.
    pub(crate) fn on_change(&self, told: Box<dyn Fn() + Send + Sync>) {
        let _ = self.changed.set(told);
    }

    /// Has the allocations made anew for which the machine has another address now.
    pub(crate) fn interfaces_changed(&self) {
        for bell in sync::lock(&self.bells).iter() {
            bell.note_interfaces();
        }
    }

    /// Has all allocations made anew: the server's clock went on while the machine was suspended, so
    /// permissions and channels may be gone of which this side thinks that they last.
    pub(super) fn was_suspended(&self) {
        for bell in sync::lock(&self.bells).iter() {
            bell.note_suspended();
        }
    }

    /// Gives the allocations back and ends the threads. Waits for a second at most, and only if a server was
    /// asked for an allocation and has not answered yet.
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
            drop(sync::wait_timeout_while(&self.opened, opening, STOP_PATIENCE, |opening| *opening > 0));
        }
    }

    /// An allocation is going to be asked for: who stops the node waits for the result.
    fn begin_opening(self: &Arc<Self>) -> Opening {
        *sync::lock(&self.opening) += 1;
        Opening { turn: Arc::clone(self) }
    }

    /// Notes what is known while an allocation is asked for in vain, until there is a better reason. False if
    /// there is one.
    fn note(&self, position: usize, error: &str) -> bool {
        let mut states = sync::write(&self.states);
        let state = states.get_mut(position).filter(|one| one.relayed.is_none() && one.error.is_none());
        state.map(|state| state.error = Some(error.to_owned())).is_some()
    }

    /// Describes all allocations for the status.
    pub(crate) fn statuses(&self) -> Vec<TurnStatus> {
        let status = |TurnState { server, is_ipv4, relayed, error }| {
            let family = if is_ipv4 { "ipv4" } else { "ipv6" };
            TurnStatus { server, family, relayed, error }
        };
        self.states().into_iter().map(status).collect()
    }

    /// How all allocations are.
    fn states(&self) -> Vec<TurnState> {
        sync::read(&self.states).clone()
    }

    /// The relayed addresses.
    pub(crate) fn relayed(&self) -> Vec<SocketAddr> {
        sync::read(&self.states).iter().filter_map(|state| state.relayed).collect()
    }

    /// Whether each server has answered or failed once.
    pub(crate) fn is_settled(&self) -> bool {
        let states = sync::read(&self.states);
        states
            .iter()
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

    /// How many datagrams may be handed over in one go.
    pub(super) fn max_segments(&self, socket: SocketIndex) -> usize {
        sync::read(&self.open).get(&socket).map_or(1, |allocation| allocation.link.max_segments())
    }

    /// Sends datagrams to a peer, by way of the server; never waits.
    pub(super) fn send(&self, transmit: &Transmit<'_>) {
        let allocation = sync::read(&self.open).get(&transmit.socket).cloned();
        // A forked child must not use the session keys that its parent goes on with.
        if let Some(allocation) = allocation.filter(|_| !self.process.is_forked()) {
            allocation.send(transmit);
        }
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::SeqCst)
    }

    /// Notes what has become of an allocation.
    fn set(&self, position: usize, open: Option<(Arc<Allocation>, SocketAddr)>, error: Option<String>) {
        let relayed = open.as_ref().map(|(_, relayed)| *relayed);
        {
            let mut allocations = sync::write(&self.open);
            match open {
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
            // The request may have to be repeated, sooner than the thread wants to wake.
            self.bell.wake();
        }
    }

    /// Returns whether a datagram waits for a permission.
    fn send_by_udp(&self, link: &UdpLink, transmit: &Transmit<'_>, size: usize) -> bool {
        let most = (MAX_BATCH / (size + MAX_OVERHEAD)).clamp(1, link.max_segments());
        let (mut batch, mut is_held) = (Vec::new(), false);
        for datagrams in transmit.contents.chunks(size * most) {
            batch.clear();
            let mut wrapped_size = None;
            let mut client = sync::lock(&self.client);
            // The lock makes all of one batch go the same way, so that all but the last have one length.
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
                // Only a stream that has just ended refuses: then the datagram is lost.
                let _ = sender.send(wrapped);
            }
        }
        is_held
    }

    /// Gives it back to the server, without waiting for an answer. Nothing more is sent over it.
    fn give_back(&self) {
        let last = {
            let mut client = sync::lock(&self.client);
            client.close();
            client.poll_transmit()
        };
        match (&self.link, last) {
            (Link::Udp(link), Some(last)) => link.transmit(&last, last.len()),
            // Behind what was sent to peers, or the server would drop that.
            (Link::Stream(sender), Some(last)) => _ = sender.send(last),
            (_, None) => {}
        }
    }

    /// Sends what the client itself has to say.
    fn flush(&self) {
        loop {
            let Some(datagram) = sync::lock(&self.client).poll_transmit() else { return };
            match &self.link {
                Link::Udp(link) => link.transmit(&datagram, datagram.len()),
                // Nobody repeats it.
                Link::Stream(sender) => _ = sender.send_urgent(datagram),
            }
        }
    }
}

impl Link {
    /// How many datagrams may be handed over in one go.
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
