//! Thread of one allocation: requests it, by UDP or a stream, serves it, and requests it again.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use peersock_nat::nat64::Nat64Prefix;
use peersock_nat::turn::{Event, Failure, TurnServer, TurnTransport};
use peersock_overlay::{RecvMeta, is_endpoint};
use peersock_stack::Batch;

use super::bell::Bell;
use super::{Allocation, STOP_TIMEOUT, TurnSockets, index_of};
use crate::driver::Driver;
use crate::sync;
use crate::sys::poll::{self, PollFd, PollFlags};
use peersock_datapath::Ingress;

/// Delay of the IPv6 allocation after the IPv4 one, which most peers need, because a server may grant only
/// one per user.
const IPV6_DELAY: Duration = Duration::from_secs(2);

/// Minimum and maximum backoff before a server is tried again.
const BACKOFF_BOUNDS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];

/// Maximum backoff after a change of the machine's address, because the next request will probably succeed.
const MAX_BACKOFF_AFTER_MOVE: Duration = Duration::from_secs(10);

/// Retry interval after a refusal for lack of capacity.
const FULL: Duration = Duration::from_secs(60);

/// Retry interval after a refusal of the user name, or of the address family.
const REFUSED_RETRY_INTERVAL: Duration = Duration::from_secs(600);

/// Lifetime of an allocation that resets the backoff.
const BACKOFF_RESET_AGE: Duration = Duration::from_secs(60);

/// Limit of consecutive redirections to alternate servers.
const MAX_HOPS: u32 = 3;

/// Interval of the check that the node still exists.
const NODE_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Interface to the server, and the NAT64 prefix for IPv4, if any.
pub(super) type Way = (Option<String>, Option<Nat64Prefix>);

pub(super) struct Keeper {
    driver: Weak<Driver>,
    pub(super) turn: Arc<TurnSockets>,
    pub(super) server: TurnServer,
    pub(super) is_ipv4: bool,
    pub(super) position: usize,
    pub(super) bell: Arc<Bell>,
}

/// Reason why an allocation has ended, or was not granted.
pub(super) enum Ended {
    Failed(Failure),
    /// The machine has another address on the path to the server.
    Moved,
    /// The machine was suspended.
    Suspended,
    /// Local error.
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
            self.sleep(IPV6_DELAY, IPV6_DELAY);
        }
        let (mut wait, mut tries, mut hops) = (BACKOFF_BOUNDS[0], 0, 0);
        let mut elsewhere = None;
        while self.is_wanted() {
            let begun = Instant::now();
            let family = if self.is_ipv4 { "IPv4" } else { "IPv6" };
            tracing::debug!(server = %self.server, family, "a TURN server is asked for an address");
            let ended = self.allocate(elsewhere.take(), tries);
            tries += 1;
            if begun.elapsed() >= BACKOFF_RESET_AGE {
                (wait, hops) = (BACKOFF_BOUNDS[0], 0);
            }
            let mut least = BACKOFF_BOUNDS[0];
            let (error, pause) = match ended {
                Ended::Stopped => return,
                Ended::Moved => {
                    // Flapping interfaces must not cause a request each time.
                    least = wait.min(MAX_BACKOFF_AFTER_MOVE);
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
                        Failure::Unauthorized | Failure::NoFamily => REFUSED_RETRY_INTERVAL,
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
                wait = (wait * 2).min(BACKOFF_BOUNDS[1]);
                hops = 0;
            }
        }
    }

    /// Requests an allocation and serves it until it ends.
    fn allocate(&self, elsewhere: Option<SocketAddr>, tries: usize) -> Ended {
        // Pending changes are dropped, because the following steps see the current network.
        self.bell.take_suspended();
        self.bell.take_interfaces();
        let Some(driver) = self.driver.upgrade() else { return Ended::Stopped };
        let (devices, nat64) = (driver.sockets.devices(), driver.sockets.nat64.prefix());
        // The node must be able to end while this thread waits for the server.
        drop(driver);
        match choose(&devices, tries) {
            Ok(device) if self.server.transport() == TurnTransport::Udp => {
                self.allocate_by_udp((device, nat64), elsewhere, round(&devices, tries))
            }
            Ok(device) => self.allocate_by_stream((device, nat64), elsewhere),
            Err(error) => Ended::Local(format!("{}: {error}", self.server.target())),
        }
    }

    /// Publishes the client's events. Returns true if a new allocation was granted.
    pub(super) fn take_events(&self, allocation: &Arc<Allocation>) -> Result<bool, Ended> {
        let mut is_new = false;
        loop {
            // The lock is released first, because publishing takes other locks.
            let event = sync::lock(&allocation.client).poll_event();
            match event {
                None => return Ok(is_new),
                Some(Event::Allocated(relayed)) => {
                    tracing::debug!(server = %self.server, %relayed, "a TURN server relays to this node");
                    self.publish(Some((Arc::clone(allocation), relayed)), None);
                    is_new = true;
                }
                Some(Event::Ended(why)) => return Err(Ended::Failed(why)),
            }
        }
    }

    /// Returns the time of the next work without an event. `is_opening` is true while `stop` waits for this
    /// allocation.
    pub(super) fn next_look(
        &self,
        allocation: &Allocation,
        is_opening: bool,
        stop_at: &mut Option<Instant>,
    ) -> Result<Instant, Ended> {
        let now = Instant::now();
        let (next, is_granted) = {
            let client = sync::lock(&allocation.client);
            (client.poll_timeout(now), client.relayed().is_some())
        };
        let until = next.map_or(now + NODE_CHECK_INTERVAL, |next| next.min(now + NODE_CHECK_INTERVAL));
        if self.is_wanted() {
            return Ok(until);
        }
        // An allocation that the server is about to grant can only be released after its answer.
        let stop_at = *stop_at.get_or_insert(now + STOP_TIMEOUT);
        match is_opening && !is_granted && now < stop_at {
            true => Ok(until.min(stop_at)),
            false => Err(Ended::Stopped),
        }
    }

    /// Takes the network changes, and returns the reason if they end the allocation.
    pub(super) fn heed_news(&self, has_moved: impl Fn() -> bool) -> Option<Ended> {
        if !self.is_wanted() {
            return None;
        }
        if self.bell.take_suspended() {
            return Some(Ended::Suspended);
        }
        // The address is checked only after a change, because that costs system calls and senders wake this
        // thread often.
        (self.bell.take_interfaces() && has_moved()).then_some(Ended::Moved)
    }

    /// Passes datagrams of the server to the client, and data of peers to the data path. Returns false if the
    /// node is gone.
    pub(super) fn deliver<'a>(
        &self,
        allocation: &Allocation,
        datagrams: impl Iterator<Item = &'a [u8]>,
        ingress: &mut Ingress,
    ) -> bool {
        let Some(driver) = self.driver.upgrade() else { return false };
        let now = driver.now();
        for datagram in datagrams {
            let from_peer = sync::lock(&allocation.client).handle(Instant::now(), datagram);
            // The client's lock is released here, because the data path may send, which takes it.
            let Some(from_peer) = from_peer.filter(|one| is_endpoint(&one.peer)) else { continue };
            let socket = index_of(self.position);
            let origin = RecvMeta { remote: from_peer.peer, socket, multicast: false, relay: None };
            driver.datapath.receive(now, ingress, origin, from_peer.data, from_peer.data.len(), false);
        }
        driver.datapath.finish_receive(now, ingress);
        true
    }

    /// Publishes the state of the allocation to senders, the overlay and the contact search.
    fn publish(&self, open: Option<(Arc<Allocation>, SocketAddr)>, error: Option<String>) {
        let change = || {
            let before = self.turn.infos();
            self.turn.set(self.position, open, error);
            // Only a real change costs the overlay a new list.
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

    pub(super) fn is_wanted(&self) -> bool {
        !self.turn.is_stopped() && self.driver.strong_count() > 0
    }

    /// Sleeps until the node is gone. A network change shortens the sleep to `least`.
    fn sleep(&self, least: Duration, most: Duration) {
        let begun = Instant::now();
        while self.is_wanted() {
            // A network change may have removed the obstacle.
            let time = if self.bell.has_news() { least.min(most) } else { most };
            let left = time.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return;
            }
            let mut fds = [PollFd::new(&*self.bell, PollFlags::IN)];
            poll::readable(&mut fds, Some(left.min(NODE_CHECK_INTERVAL)));
            if !fds[0].revents().is_empty() {
                self.bell.clear();
            }
        }
    }
}

/// Chooses the interface, in turns; `None` means any.
pub(super) fn choose(devices: &[Option<String>], tries: usize) -> io::Result<Option<String>> {
    let device = devices.get(tries % devices.len().max(1)).cloned();
    // An unbound socket would leave by an interface that the user has forbidden.
    device.ok_or_else(|| io::Error::other("no network interface that may be used is up"))
}

/// Returns the index of the server's address, which changes after all interfaces were tried.
pub(super) fn round(devices: &[Option<String>], tries: usize) -> usize {
    tries / devices.len().max(1)
}
