//! Events, by callback and by a descriptor.

use std::os::fd::{IntoRawFd as _, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use libc::{c_char, c_void};
use peersock::Event;
use peersock_attach::ProgramEvents;
use peersock_primitives::sync;

use crate::boundary::{answer, guarded_or, posix_with_text};
use crate::node::PEERSOCK_ID_SIZE;
use crate::registry::{Running, find, peersock_node};
use crate::result::peersock_result;
use crate::text;

/// A member of a network was found.
pub const PEERSOCK_PEER_FOUND: u32 = 1;
/// An encrypted session with the peer exists: packets flow.
pub const PEERSOCK_PEER_REACHABLE: u32 = 2;
/// The path has changed: the peer's address or the packet size, or a root or TURN server has started or
/// stopped relaying.
pub const PEERSOCK_PATH_CHANGED: u32 = 3;
/// The session has ended: the peer left, or was silent for minutes.
pub const PEERSOCK_PEER_LOST: u32 = 4;
/// The peer does not answer. The node keeps trying while sockets have data to send.
pub const PEERSOCK_PEER_UNREACHABLE: u32 = 5;
/// The node was stopped. This is the last event of a callback; a descriptor is at its end instead.
pub const PEERSOCK_NODE_STOPPED: u32 = 6;

/// Event of a node. Later versions may add kinds, and members at the end; ignore unknown kinds.
#[repr(C)]
pub struct peersock_event {
    /// Size of the event in this library, in bytes. It tells a program with a newer header which members
    /// exist.
    pub size: u32,
    /// Kind of the event: `PEERSOCK_PEER_FOUND` and so on.
    pub kind: u32,
    /// Node ID of the peer; empty for events of the node.
    pub peer: [c_char; PEERSOCK_ID_SIZE],
    /// 1 if a root relays now, otherwise 0, for `PEERSOCK_PEER_REACHABLE` and `PEERSOCK_PATH_CHANGED`.
    pub relayed: u8,
    /// 1 if a TURN server relays now, otherwise 0, for the same events. Covers this node's server, and the
    /// peer's if the peer has announced it.
    pub turn: u8,
    /// Zeros, reserved for later versions.
    pub reserved: [u8; 21],
}

/// Callback for events. It runs on a library thread that shares the descriptors of the process, for one event
/// after the other. It may call every function of the library except `peersock_stop()` of the same node.
/// `event` is valid during the call.
pub type peersock_event_callback =
    Option<unsafe extern "C" fn(event: *const peersock_event, context: *mut c_void)>;

/// Calls `callback` for the events of the node from now on, instead of an earlier callback; NULL removes the
/// callback. When this function returns, an earlier callback no longer runs, unless that callback is the
/// caller.
///
/// A callback that is more than 1024 events behind misses the oldest.
///
/// A shared node reports the events of the members of this program's networks.
///
/// # Safety
/// `callback` may be called with `context` from another thread until this function is called again, or the
/// node is stopped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn peersock_on_event(
    node: peersock_node,
    callback: peersock_event_callback,
    context: *mut c_void,
) -> peersock_result {
    answer(|| {
        let node = find(node)?;
        node.replace_callback(None);
        let Some(callback) = callback else { return Ok(()) };
        let events = Arc::new(node.node.events()?);
        // Another thread may have set one meanwhile.
        node.replace_callback(Some(Callback::start(events, Target { callback, context })?));
        Ok(())
    })
}

/// Opens a descriptor that becomes readable (poll(2), epoll(7)) when an event occurs. One read(2) of
/// `sizeof(peersock_event)` bytes returns one event; a smaller read drops the rest of it. The descriptor is
/// non-blocking and closed on exec, and the caller closes it. A read of zero bytes means that the node was
/// stopped. Returns -1 and `errno` on failure.
#[unsafe(no_mangle)]
pub extern "C" fn peersock_event_fd(node: peersock_node) -> RawFd {
    posix_with_text(|| {
        let encode = |event: &Event| bytes(&describe(event)).to_vec();
        Ok(find(node)?.node.event_socket(encode)?.into_raw_fd())
    })
}

/// A callback in use.
pub(crate) struct Callback {
    events: Arc<ProgramEvents>,
    /// Set once it was removed: it gets no more events, not even that the node was stopped.
    is_out: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct Target {
    callback: unsafe extern "C" fn(*const peersock_event, *mut c_void),
    context: *mut c_void,
}

// SAFETY: the caller who passes the context declares that it may be used on another thread.
unsafe impl Send for Target {}

impl Callback {
    fn start(events: Arc<ProgramEvents>, target: Target) -> std::io::Result<Callback> {
        let is_out = Arc::new(AtomicBool::new(false));
        let theirs = (Arc::clone(&events), Arc::clone(&is_out));
        // A thread of the process starts it, so it sees the process's descriptors.
        let thread = thread::Builder::new().name("peersock-events".into());
        let thread = thread.spawn(move || serve(&theirs.0, &theirs.1, &target))?;
        Ok(Callback { events, is_out, thread })
    }

    /// Waits until it has ended, unless the caller is the callback itself.
    fn join(self) {
        self.events.end();
        if self.thread.thread().id() != thread::current().id() {
            // Its panics are caught.
            let _ = self.thread.join();
        }
    }
}

impl Running {
    /// Replaces the callback. The old one is not running when this returns, unless the old one is the caller.
    pub(crate) fn replace_callback(&self, new: Option<Callback>) {
        if let Some(old) = self.swap_callback(new) {
            old.is_out.store(true, Ordering::SeqCst);
            old.join();
        }
    }

    /// Lets the callback receive the event that the node was stopped.
    pub(crate) fn finish_callback(&self) {
        if let Some(callback) = self.swap_callback(None) {
            callback.join();
        }
    }

    fn swap_callback(&self, new: Option<Callback>) -> Option<Callback> {
        let mut place = sync::lock(&self.callback);
        std::mem::replace(&mut *place, new)
    }
}

fn serve(events: &ProgramEvents, is_out: &AtomicBool, target: &Target) {
    while !events.is_over() {
        let event = events.next_timeout(Duration::from_secs(3600));
        if let Some(event) = event.filter(|_| !is_out.load(Ordering::SeqCst)) {
            target.call(&describe(&event));
        }
    }
    if !is_out.load(Ordering::SeqCst) {
        target.call(&about(PEERSOCK_NODE_STOPPED, ""));
    }
}

impl Target {
    fn call(&self, event: &peersock_event) {
        // SAFETY: the caller who passed the callback declares that it may be called with this context.
        guarded_or((), || unsafe { (self.callback)(event, self.context) });
    }
}

fn describe(event: &Event) -> peersock_event {
    let (relayed, turn) = match event {
        Event::PeerReachable { relayed, turn, .. } | Event::PathChanged { relayed, turn, .. } => {
            (*relayed, *turn)
        }
        _ => (false, false),
    };
    let (kind, id) = match event {
        Event::PeerFound { id } => (PEERSOCK_PEER_FOUND, id),
        Event::PeerReachable { id, .. } => (PEERSOCK_PEER_REACHABLE, id),
        Event::PathChanged { id, .. } => (PEERSOCK_PATH_CHANGED, id),
        Event::PeerLost { id } => (PEERSOCK_PEER_LOST, id),
        Event::PeerUnreachable { id } => (PEERSOCK_PEER_UNREACHABLE, id),
        _ => return about(0, ""),
    };
    peersock_event { relayed: relayed.into(), turn: turn.into(), ..about(kind, &id.to_string()) }
}

fn about(kind: u32, peer: &str) -> peersock_event {
    peersock_event {
        size: EVENT as u32,
        kind,
        peer: text::fixed(peer),
        relayed: 0,
        turn: 0,
        reserved: [0; 21],
    }
}

/// Size of an event, bytes.
const EVENT: usize = size_of::<peersock_event>();

/// Returns an event's bytes for read(2).
fn bytes(event: &peersock_event) -> &[u8] {
    const { assert!(EVENT == 8 + PEERSOCK_ID_SIZE + 23) };
    // SAFETY: the slice is as long as the event, which has no padding, as was just checked.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(event).cast(), size_of::<peersock_event>()) }
}
