//! IPv4 peers, roots and servers on a network with only IPv6: by way of its NAT64.
//!
//! The rest of the node uses IPv4 addresses, and this module translates them. A datagram to an IPv4 address
//! of the Internet leaves as an IPv6 datagram to the address that the NAT64 translates; a datagram from such
//! an address appears to come from the IPv4 address. So each endpoint has one address, whichever network this
//! node is on, and a path survives a move from a network with IPv4 to one without.
//!
//! The search for the prefix only runs while the machine has a route for IPv6 and none for IPv4. It has a
//! separate thread, because the system's resolver blocks.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, RwLock, Weak};
use std::thread;
use std::time::Duration;

use peersock_nat::nat64::{Nat64Prefix, discover};

use super::{Driver, interfaces};
use crate::sync;

/// Prefix of the network's NAT64, if known.
#[derive(Debug, Default)]
pub(crate) struct Nat64 {
    /// True if the prefix is known. An atomic, because it is read for each datagram.
    is_known: AtomicBool,
    prefix: RwLock<Option<Nat64Prefix>>,
}

impl Nat64 {
    /// Returns the prefix; `None` if IPv4 is reached as IPv4, or not at all.
    pub(crate) fn prefix(&self) -> Option<Nat64Prefix> {
        if !self.is_known.load(Ordering::Relaxed) {
            return None;
        }
        *sync::read(&self.prefix)
    }

    /// Returns the destination of datagrams to an endpoint.
    pub(crate) fn outer(&self, endpoint: SocketAddr) -> SocketAddr {
        self.prefix().map_or(endpoint, |prefix| prefix.synthesize(endpoint))
    }

    /// Returns the endpoint that datagrams from an address belong to.
    pub(crate) fn inner(&self, endpoint: SocketAddr) -> SocketAddr {
        self.prefix().map_or(endpoint, |prefix| prefix.restore(endpoint))
    }

    /// Sets the prefix; returns true if it has changed.
    pub(super) fn set(&self, prefix: Option<Nat64Prefix>) -> bool {
        let before = std::mem::replace(&mut *sync::write(&self.prefix), prefix);
        self.is_known.store(prefix.is_some(), Ordering::Relaxed);
        before != prefix
    }
}

/// Minimum and maximum backoff after a look-up without an answer.
const BACKOFF_BOUNDS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(300)];

/// Interval of look-ups after an answer, because it may change, and the system does not report its lifetime.
const ANSWERED: Duration = Duration::from_secs(3600);

/// Delay after a change, because several interfaces change at once, and IPv4 often appears a moment after
/// IPv6.
const CHANGE_DELAY: Duration = Duration::from_millis(300);

/// Address families by which the machine reaches the Internet, as far as they matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Routes {
    Ipv4,
    Ipv6Only,
    Neither,
}

/// Search for the prefix.
#[derive(Default)]
pub(super) struct Search {
    /// Driver; `None` until the search starts.
    driver: OnceLock<Weak<Driver>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    is_stopped: bool,
    is_woken: bool,
    /// True while the thread runs, which is as long as IPv4 has no route.
    is_running: bool,
}

impl Search {
    /// Starts the search. Call it once.
    pub(super) fn start(self: &Arc<Self>, driver: &Arc<Driver>) {
        // A node that stays on loopback needs no way to the Internet.
        if !driver.sockets.is_loopback_only() && self.driver.set(Arc::downgrade(driver)).is_ok() {
            self.interfaces_changed();
        }
    }

    /// Ends the thread, without waiting for it, because the system's resolver may block it.
    pub(super) fn stop(&self) {
        sync::lock(&self.state).is_stopped = true;
        self.changed.notify_all();
    }

    /// Searches again, because the machine's interfaces may have changed.
    pub(super) fn interfaces_changed(self: &Arc<Self>) {
        let Some(driver) = self.driver.get().cloned() else { return };
        let mut state = sync::lock(&self.state);
        if state.is_stopped {
            return;
        }
        state.is_woken = true;
        self.changed.notify_all();
        let has_ipv4 =
            || driver.upgrade().is_none_or(|driver| routes(&driver.sockets.devices()) == Routes::Ipv4);
        if state.is_running || has_ipv4() {
            return;
        }
        let search = Arc::clone(self);
        let started = thread::Builder::new().name("peersock-nat64".into()).spawn(move || search.run(&driver));
        match started {
            Ok(_) => state.is_running = true,
            Err(error) => tracing::debug!(%error, "no NAT64 is looked for"),
        }
    }

    fn run(&self, driver: &Weak<Driver>) {
        let mut wait = BACKOFF_BOUNDS[0];
        loop {
            sync::lock(&self.state).is_woken = false;
            let Some(routes) = driver.upgrade().map(|driver| routes(&driver.sockets.devices())) else {
                return;
            };
            let pause = match routes {
                Routes::Ipv4 => {
                    self.tell(driver, None);
                    let mut state = sync::lock(&self.state);
                    // Checked under the lock, so that a change that came meanwhile is not missed.
                    if !state.is_woken {
                        state.is_running = false;
                        return;
                    }
                    Duration::ZERO
                }
                // The route may come later than the address, without a notification.
                Routes::Neither => wait,
                // No reference to the driver is held while the system's resolver blocks.
                Routes::Ipv6Only => match discover() {
                    Ok(found) => {
                        self.found(driver, &found);
                        ANSWERED
                    }
                    // An error proves nothing about the network, so the known prefix stays.
                    Err(error) => {
                        tracing::debug!(%error, "no answer to the question for a NAT64");
                        wait
                    }
                },
            };
            wait = (wait * 2).min(BACKOFF_BOUNDS[1]);
            let state = sync::lock(&self.state);
            let is_idle = |state: &mut State| !state.is_stopped && !state.is_woken;
            let state = sync::wait_timeout_while(&self.changed, state, pause, is_idle);
            if state.is_stopped {
                return;
            }
            if state.is_woken {
                drop(state);
                wait = BACKOFF_BOUNDS[0];
                thread::sleep(CHANGE_DELAY);
            }
        }
    }

    /// Takes the answer: keeps the current prefix if it is still among those found.
    fn found(&self, driver: &Weak<Driver>, found: &[Nat64Prefix]) {
        let known = driver.upgrade().and_then(|driver| driver.sockets.nat64.prefix());
        let kept = known.filter(|known| found.contains(known));
        self.tell(driver, kept.or_else(|| found.first().copied()));
    }

    fn tell(&self, driver: &Weak<Driver>, prefix: Option<Nat64Prefix>) {
        let Some(driver) = driver.upgrade() else { return };
        if !driver.sockets.nat64.set(prefix) {
            return;
        }
        match prefix {
            Some(prefix) => tracing::info!(%prefix, "IPv4 is reached by way of the network's NAT64"),
            None => tracing::info!("the NAT64 is no longer used"),
        }
        driver.nat64_changed();
    }
}

/// Checks the routes of the permitted interfaces; `None` means any.
fn routes(devices: &[Option<String>]) -> Routes {
    let leads = |to: SocketAddr| {
        let mut devices = devices.iter();
        devices.any(|device| interfaces::source_towards(to, device.as_deref()).is_ok())
    };
    // Any address of the Internet would do, because no packet is sent.
    match (leads((SOME_IPV4, 9).into()), leads((SOME_IPV6, 9).into())) {
        (true, _) => Routes::Ipv4,
        (false, true) => Routes::Ipv6Only,
        (false, false) => Routes::Neither,
    }
}

/// Addresses of root nameservers.
pub(super) const SOME_IPV4: Ipv4Addr = Ipv4Addr::new(198, 41, 0, 4);
pub(super) const SOME_IPV6: Ipv6Addr = Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_prefix_addresses_stay_as_they_are() {
        let nat64 = Nat64::default();
        let [v4, v6]: [SocketAddr; 2] =
            ["203.0.113.9:7420", "[64:ff9b::cb00:7109]:7420"].map(|text| text.parse().expect("an endpoint"));
        assert_eq!((nat64.outer(v4), nat64.inner(v6)), (v4, v6));
        let prefix = Nat64Prefix::new("64:ff9b::".parse().expect("an address"), 96);
        assert!(nat64.set(prefix) && !nat64.set(prefix));
        assert_eq!((nat64.outer(v4), nat64.inner(v6)), (v6, v4));
        assert!(nat64.set(None));
        assert_eq!((nat64.outer(v4), nat64.inner(v6)), (v4, v6));
    }
}
