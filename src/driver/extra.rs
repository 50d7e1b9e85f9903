//! Thread that opens and reads extra UDP sockets while the overlay wants some.
//!
//! The thread does not run while none is wanted, which is nearly always.

use std::io;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread;
use std::time::Duration;

use peersock_overlay::{RecvMeta, WantedSocket, is_endpoint};
use peersock_stack::Batch;

use super::Driver;
use super::udp::{ExtraSocket, RECEIVE_BATCH, as_slices, receive_buffers};
use crate::sync;
use crate::sys::poll::{self, PollFd, PollFlags, Wakeup};
use peersock_datapath::Ingress;

/// Size limit of a GRO batch in bytes.
const BUFFER: usize = 65536;

/// Limit of receive calls for one socket before the others get their turn.
const MAX_CALLS: usize = 8;

/// Limit of errors taken at a time.
const MAX_ERRORS: usize = 64;

/// Interval of the check that the node still exists.
const NODE_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Wanted sockets and the thread's state.
pub(super) struct ExtraSockets {
    driver: OnceLock<Weak<Driver>>,
    state: Mutex<State>,
    wakeup: Wakeup,
}

#[derive(Default)]
struct State {
    wanted: Vec<WantedSocket>,
    /// True until the thread has seen the list.
    is_new: bool,
    is_running: bool,
    is_stopped: bool,
}

impl ExtraSockets {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { driver: OnceLock::new(), state: Mutex::default(), wakeup: Wakeup::new()? })
    }

    /// Sets the driver of the sockets. Call it once.
    pub(super) fn attach(&self, driver: &Arc<Driver>) {
        let _ = self.driver.set(Arc::downgrade(driver));
    }

    /// Sets the list of wanted sockets. Runs under the control lock, so it must only store the list.
    pub(super) fn want(self: &Arc<Self>, wanted: Vec<WantedSocket>) {
        let mut state = sync::lock(&self.state);
        (state.wanted, state.is_new) = (wanted, true);
        if state.is_running {
            return self.wakeup.wake();
        }
        if state.wanted.is_empty() || state.is_stopped {
            return;
        }
        let extra = Arc::clone(self);
        let thread = thread::Builder::new().name("peersock-extra".into()).spawn(move || extra.run());
        // Without a thread no socket opens, which the overlay notices by itself.
        state.is_running = thread.inspect_err(|error| tracing::debug!(%error, "no thread")).is_ok();
    }

    /// Ends the thread, which closes the sockets.
    pub(super) fn stop(&self) {
        let mut state = sync::lock(&self.state);
        (state.wanted, state.is_new, state.is_stopped) = (Vec::new(), true, true);
        self.wakeup.wake();
    }

    fn run(&self) {
        let mut buffers = receive_buffers(BUFFER);
        let mut ingress = Ingress::default();
        let mut open = Vec::new();
        loop {
            let Some(driver) = self.driver.get().and_then(Weak::upgrade) else { return };
            let news = {
                let mut state = sync::lock(&self.state);
                let is_new = std::mem::take(&mut state.is_new);
                if !is_new && open.is_empty() {
                    state.is_running = false;
                    return;
                }
                is_new.then(|| state.wanted.clone())
            };
            if let Some(wanted) = news {
                let infos = driver.sockets.set_extra(&wanted);
                open = driver.sockets.extra();
                driver.datapath.set_extra_sockets(driver.now(), infos, &mut Batch::default());
                driver.kick();
                continue;
            }
            // The node must be able to end while this thread polls.
            drop(driver);
            let mut fds: Vec<_> = open.iter().map(|extra| PollFd::new(&**extra, PollFlags::IN)).collect();
            fds.push(PollFd::new(&self.wakeup, PollFlags::IN));
            poll::readable(&mut fds, Some(NODE_CHECK_INTERVAL));
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[open.len()] {
                self.wakeup.clear();
            }
            for (extra, _) in open.iter().zip(ready).filter(|(_, is_ready)| *is_ready) {
                self.read(extra, &mut buffers, &mut ingress);
            }
        }
    }

    /// Passes received datagrams of a socket to the data path, up to a limit.
    fn read(&self, extra: &ExtraSocket, buffers: &mut [Vec<u8>; RECEIVE_BATCH], ingress: &mut Ingress) {
        let Some(driver) = self.driver.get().and_then(Weak::upgrade) else { return };
        for _ in 0..MAX_CALLS {
            let mut meta = [quinn_udp::RecvMeta::default(); RECEIVE_BATCH];
            let Ok(received) = extra.receive(&mut as_slices(buffers), &mut meta) else {
                // ICMP errors about single datagrams do not affect the search, but would wake this thread
                // again and again.
                (0..MAX_ERRORS).take_while(|_| extra.take_error()).for_each(drop);
                return;
            };
            let now = driver.now();
            for (meta, buffer) in meta.iter().zip(buffers.iter()).take(received) {
                let remote = driver.sockets.extra_remote(meta.addr);
                if !is_endpoint(&remote) {
                    continue;
                }
                let origin = RecvMeta { remote, socket: extra.index(), multicast: false, relay: None };
                let marked = meta.ecn == Some(quinn_udp::EcnCodepoint::Ce);
                driver.datapath.receive(now, ingress, origin, &buffer[..meta.len], meta.stride, marked);
            }
            driver.datapath.finish_receive(now, ingress);
            if received < RECEIVE_BATCH {
                return;
            }
        }
    }
}
