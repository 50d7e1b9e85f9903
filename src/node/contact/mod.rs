//! Contact of this node, as far as it can find out: its interfaces, ports that routers forward, the addresses
//! at which outsiders see its sockets, and the behaviour of its NAT. The overlay gets the result and tells
//! peers; the DHT gets it, too.
//!
//! All of that blocks, so it runs on a separate thread, off the path of any packet. A node without roots and
//! DHT has no such thread, because no remote peer could learn of the contact. The thread looks when it
//! starts, when the machine's interfaces change, when a port is opened or lost, and periodically.

mod ask;
mod gather;
#[cfg_attr(not(feature = "portmap"), path = "no_ports.rs")]
mod ports;
mod schedule;

use std::net::SocketAddrV4;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use peersock_nat::netcheck::Target;
use peersock_nat::turn::TurnServer;
use peersock_overlay::Contact;
use peersock_stack::Batch;

use super::Inner;
use crate::driver::Interfaces;
use crate::sync;

use ports::Ports;
pub(super) use schedule::Found;
use schedule::{Look, Surroundings};

/// Time that the node's end waits until routers have closed the forwarded ports.
const CLOSING: Duration = Duration::from_secs(1);

/// Settings of the contact search.
pub(super) struct Settings {
    /// Interfaces that the node may use.
    pub(super) allowed: Interfaces,
    /// STUN servers besides the roots.
    pub(super) stun: Vec<Target>,
    /// TURN servers that relay to this node.
    pub(super) turn: Vec<TurnServer>,
    /// True if routers are asked to forward a port.
    pub(super) maps_ports: bool,
    /// True if nodes of the DHT can be asked: then this thread keeps the sockets' mappings alive, because no
    /// root does.
    pub(super) has_dht: bool,
}

/// Callback for each new contact.
pub(super) type Publish = Box<dyn Fn(&Contact) + Send>;

/// Handle of the thread for the rest of the node.
pub(super) struct Keeper {
    shared: Arc<Shared>,
}

/// State shared by the thread and its handle.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    ports: Arc<Ports>,
}

#[derive(Default)]
struct State {
    is_stopped: bool,
    /// True if the thread must look again.
    is_woken: bool,
    /// True if the machine's interfaces may have changed, or it was suspended.
    interfaces_changed: bool,
    /// Nodes of the DHT that can be asked.
    dht_nodes: Vec<SocketAddrV4>,
    found: Found,
}

impl Keeper {
    /// Starts the thread, which passes each new contact to `publish`.
    pub(super) fn start(node: &Arc<Inner>, settings: Settings, publish: Publish) -> std::io::Result<Keeper> {
        let shared = Arc::new(Shared::default());
        let watching = Arc::clone(&shared);
        node.driver
            .on_interfaces_changed(Box::new(move || watching.wake(|state| state.interfaces_changed = true)));
        let telling = Arc::clone(&shared);
        node.driver.turn.on_change(Box::new(move || telling.wake(|_| ())));
        // After the callback is registered, so that it sees the first allocation.
        node.driver.start_turn(&settings.turn)?;
        let (weak, its) = (Arc::downgrade(node), Arc::clone(&shared));
        thread::Builder::new().name("peersock-contact".into()).spawn(move || {
            run(&weak, &its, settings, &*publish);
            // Also reached if the node went without a call of `stop`.
            its.ports.close(CLOSING);
        })?;
        Ok(Keeper { shared })
    }

    /// Sets the DHT nodes that have answered lately.
    #[cfg(feature = "dht")]
    pub(super) fn set_dht_nodes(&self, nodes: Vec<SocketAddrV4>) {
        self.shared.wake(|state| state.dht_nodes = nodes);
    }

    /// Returns the current observations.
    pub(super) fn found(&self) -> Found {
        sync::lock(&self.shared.state).found.clone()
    }

    /// Ends the thread, without waiting for it, and closes the ports that routers forward, which takes at
    /// most a second.
    pub(super) fn stop(&self) {
        self.shared.wake(|state| state.is_stopped = true);
        self.shared.ports.close(CLOSING);
    }
}

impl Shared {
    fn wake(&self, note: impl FnOnce(&mut State)) {
        let mut state = sync::lock(&self.state);
        note(&mut state);
        state.is_woken = true;
        drop(state);
        self.changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        sync::lock(&self.state).is_stopped
    }

    /// Sleeps until `until`, or until a wake-up.
    fn sleep(&self, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let is_idle = |state: &mut State| !state.is_woken;
        let state = sync::lock(&self.state);
        let mut state = sync::wait_timeout_while(&self.changed, state, left, is_idle);
        state.is_woken = false;
    }
}

/// Runs the thread's loop.
fn run(node: &Weak<Inner>, shared: &Arc<Shared>, settings: Settings, publish: &dyn Fn(&Contact)) {
    let telling = Arc::clone(shared);
    let tell = Arc::new(move || telling.wake(|_| ()));
    let mut look = Look::new(settings, Arc::clone(&shared.ports), tell, Instant::now());
    let mut told: Option<Contact> = None;
    let mut published: Option<Contact> = None;
    while !shared.is_stopped() {
        let (interfaces_changed, dht_nodes) = {
            let mut state = sync::lock(&shared.state);
            (std::mem::take(&mut state.interfaces_changed), state.dht_nodes.clone())
        };
        if interfaces_changed {
            // Several changes come at once, and an address becomes usable a moment after it appears.
            thread::sleep(CHANGE_DELAY);
            node.upgrade().inspect(|node| node.driver.turn.interfaces_changed());
            // Needed even if all addresses are the same: the router may be another one, or have forgotten the
            // ports.
            shared.ports.refresh();
        }
        // No reference to the node is held while a step waits for answers.
        let Some(around) = node.upgrade().map(|node| Surroundings::of(&node)) else { return };
        let next = look.step(Instant::now(), &around, &dht_nodes, &|| shared.is_stopped());
        let contact = look.contact(&around);
        let Some(node) = node.upgrade() else { return };
        let datapath = &node.driver.datapath;
        if look.is_settled(&around) && told.as_ref() != Some(&contact) {
            let places = contact.candidates().len();
            tracing::debug!(places, "it is known where this node can be reached");
            datapath.set_contact(Instant::now(), contact.clone(), &mut Batch::default());
            node.driver.kick();
            told = Some(contact);
        }
        // Includes the observations of roots.
        let whole = datapath.contact();
        drop(node);
        {
            let mut state = sync::lock(&shared.state);
            state.found = look.found();
        }
        if told.is_some() && published.as_ref() != Some(&whole) {
            publish(&whole);
            published = Some(whole);
        }
        shared.sleep(next);
    }
}

/// Delay after a change of the machine's interfaces before the thread looks.
const CHANGE_DELAY: Duration = Duration::from_millis(300);
