//! TURN allocations: sockets of the driver whose addresses are on a server (RFC 8656).
//!
//! Each has a UDP socket that talks to the server alone, and a thread ([`keeper`]) that reads it, keeps the
//! allocation and makes it anew when it has ended. Who sends wraps the datagrams on its own thread, as with
//! other sockets, and never waits. What comes from peers goes to the data path.

mod keeper;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Instant;

use peersock_nat::turn::{Client, MAX_OVERHEAD, Sent, TurnServer};
use peersock_overlay::{SocketIndex, SocketInfo};
use quinn_udp::{UdpSockRef, UdpSocketState};

use super::Driver;
use super::poll::Wakeup;
use crate::datapath::Transmit;
use crate::sync;
use crate::sys::Process;
use keeper::Keeper;

/// The largest datagram to or from a peer: with all headers and what the way over the server adds it fits
/// into an Ethernet frame. The server may cut its packets to peers into fragments, so larger ones are not
/// tried.
const MAX_DATAGRAM: usize = 1400;

/// The most bytes handed to the kernel in one call.
const MAX_BATCH: usize = 60_000;

/// The allocations of one node.
pub(crate) struct TurnSockets {
    open: RwLock<BTreeMap<SocketIndex, Arc<Allocation>>>,
    states: RwLock<Vec<TurnState>>,
    wakeups: Mutex<Vec<Arc<Wakeup>>>,
    /// Told when a relayed address has come or gone.
    changed: OnceLock<Box<dyn Fn() + Send + Sync>>,
    is_stopped: AtomicBool,
    process: Process,
}

/// How one allocation is, or the try to get it.
#[derive(Debug, Clone)]
pub(crate) struct TurnState {
    /// The server, without the password.
    pub(crate) server: String,
    /// Whether the address is IPv4.
    pub(crate) is_ipv4: bool,
    /// The relayed address.
    pub(crate) relayed: Option<SocketAddr>,
    /// Why there is none.
    pub(crate) error: Option<String>,
}

/// An allocation, from the first request on.
struct Allocation {
    client: Mutex<Client>,
    io: UdpSocket,
    state: UdpSocketState,
    server: SocketAddr,
    wakeup: Arc<Wakeup>,
}

impl TurnSockets {
    pub(super) fn new() -> Self {
        Self {
            open: RwLock::default(),
            states: RwLock::default(),
            wakeups: Mutex::default(),
            changed: OnceLock::new(),
            is_stopped: AtomicBool::new(false),
            process: Process::current(),
        }
    }

    /// Asks these servers for allocations, an IPv4 and an IPv6 one each, from now on. To be called once.
    pub(super) fn start(self: &Arc<Self>, driver: &Arc<Driver>, servers: &[TurnServer]) -> io::Result<()> {
        for (server, is_ipv4) in servers.iter().flat_map(|server| [(server, true), (server, false)]) {
            let wakeup = Arc::new(Wakeup::new()?);
            let position = {
                let mut states = sync::write(&self.states);
                let server = server.to_string();
                states.push(TurnState { server, is_ipv4, relayed: None, error: None });
                states.len() - 1
            };
            sync::lock(&self.wakeups).push(Arc::clone(&wakeup));
            Keeper::new(driver, self, server.clone(), is_ipv4, position, wakeup).start()?;
        }
        Ok(())
    }

    /// Has `told` told when a relayed address has come or gone. The first call counts.
    pub(crate) fn on_change(&self, told: Box<dyn Fn() + Send + Sync>) {
        let _ = self.changed.set(told);
    }

    /// Has the allocations made anew for which the machine has another address now.
    pub(crate) fn interfaces_changed(&self) {
        for wakeup in sync::lock(&self.wakeups).iter() {
            wakeup.wake();
        }
    }

    /// Gives the allocations back and ends the threads, without waiting for answers.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        for (_, allocation) in std::mem::take(&mut *sync::write(&self.open)) {
            let last = {
                let mut client = sync::lock(&allocation.client);
                client.close();
                client.poll_transmit()
            };
            if let Some(last) = last.filter(|_| !self.process.is_forked()) {
                allocation.transmit(&last, last.len());
            }
        }
        self.interfaces_changed();
    }

    /// How all allocations are.
    pub(crate) fn states(&self) -> Vec<TurnState> {
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
        sync::read(&self.open).get(&socket).map_or(1, |allocation| allocation.state.max_gso_segments())
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

impl Allocation {
    fn send(&self, transmit: &Transmit<'_>) {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let most = (MAX_BATCH / (size + MAX_OVERHEAD)).clamp(1, self.state.max_gso_segments());
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
            self.transmit(&batch, wrapped_size.unwrap_or(0));
        }
        if is_held {
            self.flush();
            // The request may have to be repeated, sooner than the thread wants to wake.
            self.wakeup.wake();
        }
    }

    /// Sends what the client itself has to say.
    fn flush(&self) {
        loop {
            let Some(datagram) = sync::lock(&self.client).poll_transmit() else { return };
            self.transmit(&datagram, datagram.len());
        }
    }

    /// Sends to the server. What the socket has no room for is lost.
    fn transmit(&self, contents: &[u8], segment_size: usize) {
        if contents.is_empty() {
            return;
        }
        let transmit = quinn_udp::Transmit {
            destination: self.server,
            ecn: None,
            contents,
            segment_size: (segment_size < contents.len()).then_some(segment_size),
            src_ip: None,
        };
        if let Err(error) = self.state.try_send(UdpSockRef::from(&self.io), &transmit) {
            tracing::trace!(%error, "datagram to the TURN server not sent");
        }
    }
}

fn index_of(position: usize) -> SocketIndex {
    SocketIndex::turn(position as u16)
}
