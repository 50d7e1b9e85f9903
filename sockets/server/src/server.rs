//! The server's loop over events of its descriptors and sockets.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

use peersock::attach::{Attached, EventFlags, NodeHandle, Patience, PollEvent};
use peersock_datapath::JoinedNetwork;
use peersock_fd::{Errno, Name, NameKey, NodeTag, Token, address};
use peersock_primitives::sync;
use rustix::net::SocketType;

use crate::Unclosed;
use crate::application_fd;
use crate::context::Context;
use crate::passed_fds;
use crate::resets::Resets;
use crate::state::{DELIVERY_CHECK_INTERVAL, Entry, ServerState};
use crate::stream::Stream;
use crate::undelivered::Outstanding;
use crate::unix::unix;
use crate::usage::Usage;
use crate::wakers::{Key, ReadyQueue};

/// Backlog of the server's listeners.
const BACKLOG: i32 = 4096;

/// Interval of the checks whether peers still acknowledge data. A waiter is woken when nothing is left.
const DRAIN_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Time for a process to exit after its node has ended, before its threads see the end. A thread that writes
/// would get SIGPIPE, which changes how the process ends.
const EXIT_TIME: Duration = Duration::from_secs(1);

/// The server as the engine thread runs it.
pub(crate) struct Server {
    tag: NodeTag,
    token: Token,
    ready: Arc<ReadyQueue>,
    state: Mutex<ServerState>,
    drained: Condvar,
}

impl Server {
    pub(crate) fn new(node: &NodeHandle, launcher: i32, resets: Resets) -> io::Result<Self> {
        let random = |buf: &mut [u8]| getrandom::fill(buf).map_err(io::Error::other);
        let secret = || {
            let mut bytes = [0; 16];
            random(&mut bytes).map(|()| u128::from_le_bytes(bytes))
        };
        let (token, name_key) = (Token(secret()?), NameKey(secret()?));
        let (tag, requests) = loop {
            let mut tag = [0; 4];
            random(&mut tag)?;
            let tag = NodeTag(u32::from_le_bytes(tag));
            match listener(SocketType::SEQPACKET, &Name::Requests(tag)) {
                // Another node has these 32 bits.
                Err(Errno::ADDRINUSE) => {}
                requests => break (tag, requests?),
            }
        };
        let data = listener(SocketType::STREAM, &Name::Data(tag))?;
        let ready = ReadyQueue::new(node);
        let context = Context::new(node, launcher, resets, (tag, token, name_key), Arc::clone(&ready));
        let mut state = ServerState::new(context);
        for (fd, entry) in [(requests, Entry::RequestListener as fn(_) -> _), (data, Entry::DataListener)] {
            let key = state.context.new_key();
            state.context.watch(fd.as_fd(), key, EventFlags::IN)?;
            state.insert(key, entry(Arc::new(fd)));
        }
        state.watch_closings()?;
        Ok(Self { tag, token, ready, state: Mutex::new(state), drained: Condvar::new() })
    }

    pub(crate) fn tag(&self) -> NodeTag {
        self.tag
    }

    pub(crate) fn token(&self) -> Token {
        self.token
    }

    pub(crate) fn contacts(&self) -> u64 {
        self.lock().contacts
    }

    pub(crate) fn note_unseen_calls(&self) {
        self.lock().has_unseen_calls = true;
    }

    pub(crate) fn refusals(&self) -> mpsc::Receiver<String> {
        self.lock().context.refusals.listen()
    }

    pub(crate) fn usage(&self) -> Usage {
        self.lock().usage()
    }

    pub(crate) fn concerns(&self, address: IpAddr) -> bool {
        self.lock().concerns(address)
    }

    pub(crate) fn undelivered(&self) -> Outstanding {
        self.lock().undelivered()
    }

    /// Returns true if anything was lost that no call has reported.
    pub(crate) fn has_losses(&self) -> bool {
        self.lock().endings.has_losses()
    }

    pub(crate) fn begin_drain(&self, unclosed: Unclosed) {
        let mut state = self.lock();
        state.forget_closed();
        state.draining = Some(unclosed);
        state.note_closing();
        for entry in state.entries.values_mut() {
            if let Entry::Stream(stream) = entry {
                stream.begin_drain();
            }
        }
        let streams: Vec<Key> = state.entries.keys().copied().collect();
        let now = Instant::now();
        state.endings.begin_drain(now);
        for key in streams {
            state.context.set_timer(now, key);
        }
        // No one waits for datagrams, so send the pending ones now.
        state.send_all_datagrams();
    }

    /// Waits until no stream has anything left to deliver. Returns false if waiting no longer makes sense
    /// before that.
    pub(crate) fn wait_drained(&self, patience: &mut Patience) -> bool {
        let mut state = self.lock();
        loop {
            if !state.has_undelivered() {
                return true;
            }
            if patience.is_over(Instant::now(), &state.undelivered().remaining()) {
                return !state.has_undelivered();
            }
            // Poll, because no event reports that the peer of an open connection has acknowledged everything.
            let is_asked = state.draining == Some(Unclosed::Finish);
            state = sync::wait_timeout(
                &self.drained,
                state,
                if is_asked { DRAIN_CHECK_INTERVAL } else { DELIVERY_CHECK_INTERVAL },
            );
        }
    }

    /// Resets the connections that applications still have open. Both ends see that: the peer gets a reset,
    /// the application ECONNRESET.
    pub(crate) fn reset_streams(&self, unclosed: &Unclosed) {
        let (streams, processes, launcher) = {
            let mut state = self.lock();
            state.is_ending = true;
            let mut keys = Vec::new();
            for (key, entry) in &state.entries {
                match entry {
                    Entry::Stream(stream) if unclosed.resets(stream.origin.id()) => keys.push(*key),
                    Entry::Connecting(connecting) => connecting.reset(),
                    _ => {}
                }
            }
            let local = |entry: &Entry| match entry {
                Entry::Stream(stream) => Some(stream.connection.flow().local()),
                _ => None,
            };
            let own: HashSet<_> = state.entries.values().filter_map(local).collect();
            let mut streams = Vec::new();
            for key in keys {
                if let Some(Entry::Stream(mut stream)) = state.remove(key) {
                    // A connection that the application has just closed, with everything taken, ends in
                    // order. So does one to another socket of this server, whose application is told that
                    // the node ends.
                    let is_over = stream.is_closed() && stream.is_taken();
                    if is_over {
                        stream.reset_if_unread();
                    } else if !own.contains(&stream.connection.flow().remote()) {
                        stream.connection.flow().set_reset_on_close(true);
                    }
                    let id = state.forget_stream(&stream);
                    if let Some(ending) = stream.ending() {
                        state.note_ending(id, &stream, ending);
                    }
                    stream.keep_end();
                    streams.push(stream);
                }
            }
            let mut processes = state.processes();
            processes.extend(streams.iter().map(Stream::process));
            (streams, processes, state.context.resets.launcher().cloned())
        };
        if streams.is_empty() || launcher.is_some_and(|launcher| launcher.break_all()) {
            return;
        }
        for process in processes {
            application_fd::poison_all(self.tag, process);
        }
    }

    /// Resets the connections, and ends the attempts, whose local address is in none of these networks. Their
    /// applications and peers see it.
    pub(crate) fn abort_outside(&self, networks: &[JoinedNetwork]) {
        let mut state = self.lock();
        let is_outside = |local: IpAddr| !networks.iter().any(|network| network.addresses.contains(&local));
        let mut ended = Vec::new();
        for (key, entry) in &mut state.entries {
            match entry {
                Entry::Stream(stream) if is_outside(stream.connection.flow().local().ip()) => {
                    stream.connection.abort();
                    ended.push(*key);
                }
                Entry::Connecting(attempt) if is_outside(attempt.addresses().0.ip()) => {
                    attempt.abort();
                    ended.push(*key);
                }
                _ => {}
            }
        }
        // Who aborts a connection is not woken by its end.
        ended.into_iter().for_each(|key| state.context.set_timer(Instant::now(), key));
    }

    /// Ends everything. With `searches_all`, also sockets of processes that have asked for nothing.
    pub(crate) fn close(&self, searches_all: bool) {
        self.reset_streams(&Unclosed::Reset);
        let (entries, sockets, processes) = {
            let mut state = self.lock();
            keep(std::mem::take(&mut state.kept));
            let processes = state.processes();
            for entry in state.entries.values() {
                // A child of this process may have inherited it; then closing it is not enough.
                if let Entry::RequestListener(fd) | Entry::DataListener(fd) = entry {
                    state.context.unwatch(fd.as_fd());
                }
            }
            (std::mem::take(&mut state.entries), std::mem::take(&mut state.sockets), processes)
        };
        drop((entries, sockets));
        if searches_all {
            application_fd::shut_everywhere(self.tag);
            return;
        }
        for process in processes {
            application_fd::shut(self.tag, process);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ServerState> {
        sync::lock(&self.state)
    }
}

impl Attached for Server {
    fn run(&self, events: &[PollEvent]) {
        let mut state = self.lock();
        if state.context.resets.launcher().is_some() {
            state
                .context
                .resets
                .take_failed()
                .into_iter()
                .for_each(|socket| state.endings.note_untold(socket));
        }
        for event in events {
            state.handle(event.data.u64(), event.flags.into());
        }
        state.fire_timers(Instant::now());
        state.take_ready();
        state.context.send_unsent();
        state.tell_path_mtus();
        state.check_lingering();
        if state.draining.is_some() && !state.has_undelivered() {
            self.drained.notify_all();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let state = self.lock();
        match self.ready.is_empty() {
            true => state.context.next_timer(),
            false => Some(Instant::now()),
        }
    }
}

/// Keeps descriptors open for a moment in which the process exits, so that its writing threads block
/// meanwhile.
fn keep(kept: Vec<OwnedFd>) {
    if !kept.is_empty() {
        let holder = std::thread::Builder::new().name("peersock-kept".into());
        let hold = move || {
            std::thread::sleep(EXIT_TIME);
            drop(kept);
        };
        // Without a thread they are closed now.
        let _ = holder.spawn(hold);
    }
}

/// Creates a socket that listens on an abstract name.
fn listener(kind: SocketType, name: &Name) -> Result<OwnedFd, Errno> {
    let fd = unix(kind)?;
    passed_fds::refuse(fd.as_fd());
    rustix::net::bind(&fd, &address(name))?;
    rustix::net::listen(&fd, BACKLOG)?;
    Ok(fd)
}
