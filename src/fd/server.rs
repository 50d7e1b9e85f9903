//! The server's loop: what its descriptors and its sockets have to say.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak, mpsc};
use std::time::{Duration, Instant};

use crate::sys::poller::{Event, EventFlags, Poller};
use peersock_fd::{Errno, Name, NameKey, NodeTag, SocketId, Token, address};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::Unclosed;
use super::aliases::Aliases;
use super::app_end;
use super::connecting::Connecting;
use super::datagram::Datagrams;
use super::endings::Endings;
use super::ends::End;
use super::lingering::Lingering;
use super::listening::Listening;
use super::outstanding::{Delivering, Outstanding};
use super::ready::{Key, ReadyQueue};
use super::requests::Requester;
use super::sockets::{LEAST_SWEPT, Opened};
use super::stream::{Outcome, Stream};
use crate::driver::Attached;
use crate::node::Inner;
use crate::sync;
use peersock_datapath::GsoBatch;

/// Connections that may wait for the server.
const BACKLOG: i32 = 4096;
/// Bytes that are moved for one stream before others have their turn.
const BUFFER: usize = 256 << 10;

/// How often it is looked whether everything is delivered, before what is open is reset.
const LOOK: Duration = Duration::from_millis(2);

/// The last key that was given. No two servers have the same: events of a descriptor that somebody has
/// inherited from one that is gone are nobody's.
static LAST_KEY: AtomicU64 = AtomicU64::new(0);

/// What the engine thread runs.
pub(super) struct Server {
    tag: NodeTag,
    token: Token,
    ready: Arc<ReadyQueue>,
    state: Mutex<ServerState>,
    drained: Condvar,
}

/// Everything that the server has to do with.
pub(super) struct ServerState {
    pub(super) tag: NodeTag,
    pub(super) token: Token,
    /// Of the names of the ends of datagram sockets.
    pub(super) name_key: NameKey,
    pub(super) node: Weak<Inner>,
    pub(super) ready: Arc<ReadyQueue>,
    poller: Arc<Poller>,
    pub(super) entries: HashMap<Key, Entry>,
    /// How many of them are ends of datagram sockets.
    pub(super) ends: usize,
    /// Counts the uses of those, to tell which was not used for longest.
    pub(super) uses: u64,
    /// The sockets that applications have opened and told of.
    pub(super) opened: HashMap<SocketId, Opened>,
    /// The connections that listeners have accepted.
    pub(super) accepted: HashMap<SocketId, Key>,
    timers: BTreeSet<(Instant, Key)>,
    /// IPv4 addresses of members that have none.
    pub(super) aliases: Aliases,
    /// Room for what is on its way from one end to the other.
    pub(super) buf: Vec<u8>,
    /// Room for what a turn has to look at, kept from one to the next.
    keys: Vec<Key>,
    /// Given up for a moment when descriptors run out, see [`ServerState::turn_away`].
    spare: Option<OwnedFd>,
    pub(super) delivering: Delivering,
    pub(super) endings: Endings,
    pub(super) draining: Option<Unclosed>,
    /// The node is about to go: what is asked fails with ENETDOWN.
    pub(super) is_ending: bool,
    /// Room for datagrams that leave together.
    pub(super) gso: GsoBatch,
    pub(super) lingering: Lingering,
    /// Datagram sockets and where they have sent what was too long for its path.
    pub(super) too_long: Vec<(Key, SocketAddr)>,
    /// Those who connected last of those that had to show the token, oldest first.
    pub(super) strangers: VecDeque<Key>,
    /// How many opened sockets make it worth while to look which of them are closed.
    pub(super) sweep_at: usize,
    /// Connections that applications have made to the request socket.
    pub(super) contacts: u64,
    /// Nobody sees who reads and writes the sockets that this process has opened, see
    /// [`FdServer::note_unseen_calls`](super::FdServer::note_unseen_calls).
    pub(super) has_unseen_calls: bool,
    /// Who is told of ports that no network allows, and those that were told.
    pub(super) refusals: Option<mpsc::Sender<String>>,
    pub(super) refused: BTreeSet<u16>,
}

/// What a key stands for.
pub(super) enum Entry {
    RequestListener(OwnedFd),
    DataListener(OwnedFd),
    Requester(Requester),
    Listening(Listening),
    Connecting(Connecting),
    Stream(Stream),
    Datagrams(Datagrams),
    End(End),
}

/// Why an entry is looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Readiness {
    /// Its descriptor can be read from.
    pub(super) readable: bool,
    /// Its descriptor can be written to.
    pub(super) writable: bool,
    /// Its descriptor's other end sends no more.
    pub(super) ended: bool,
    /// Its descriptor's other end is closed.
    pub(super) hung_up: bool,
}

impl From<EventFlags> for Readiness {
    fn from(flags: EventFlags) -> Self {
        let hung_up = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        Self {
            readable: hung_up || flags.intersects(EventFlags::IN | EventFlags::RDHUP),
            ended: hung_up || flags.contains(EventFlags::RDHUP),
            writable: hung_up || flags.contains(EventFlags::OUT),
            hung_up,
        }
    }
}

impl Server {
    pub(super) fn new(node: &Arc<Inner>) -> io::Result<Self> {
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
        let mut state = ServerState {
            tag,
            token,
            name_key,
            node: Arc::downgrade(node),
            ready: Arc::clone(&ready),
            poller: Arc::clone(&node.driver.poller),
            entries: HashMap::new(),
            ends: 0,
            uses: 0,
            opened: HashMap::new(),
            accepted: HashMap::new(),
            timers: BTreeSet::new(),
            aliases: Aliases::default(),
            buf: vec![0; BUFFER],
            keys: Vec::new(),
            spare: spare(),
            delivering: Delivering::default(),
            endings: Endings::default(),
            draining: None,
            is_ending: false,
            gso: GsoBatch::default(),
            lingering: Lingering::default(),
            too_long: Vec::new(),
            strangers: VecDeque::new(),
            sweep_at: LEAST_SWEPT,
            contacts: 0,
            has_unseen_calls: false,
            refusals: None,
            refused: BTreeSet::new(),
        };
        for (fd, entry) in [(requests, Entry::RequestListener as fn(_) -> _), (data, Entry::DataListener)] {
            let key = state.new_key();
            state.watch(fd.as_fd(), key, EventFlags::IN)?;
            state.insert(key, entry(fd));
        }
        Ok(Self { tag, token, ready, state: Mutex::new(state), drained: Condvar::new() })
    }

    pub(super) fn tag(&self) -> NodeTag {
        self.tag
    }

    pub(super) fn token(&self) -> Token {
        self.token
    }

    pub(super) fn contacts(&self) -> u64 {
        self.lock().contacts
    }

    pub(super) fn note_unseen_calls(&self) {
        self.lock().has_unseen_calls = true;
    }

    pub(super) fn refusals(&self) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel();
        self.lock().refusals = Some(sender);
        receiver
    }

    pub(super) fn undelivered(&self) -> Outstanding {
        self.lock().undelivered()
    }

    /// Whether anything was lost that no call has told of.
    pub(super) fn has_losses(&self) -> bool {
        self.lock().endings.has_losses()
    }

    pub(super) fn begin_drain(&self, unclosed: Unclosed) {
        let mut state = self.lock();
        state.draining = Some(unclosed);
        state.note_closing();
        let streams: Vec<Key> = state.entries.keys().copied().collect();
        let now = Instant::now();
        for key in streams {
            state.set_timer(now, key);
        }
        // Nobody waits for datagrams: those that are here leave now.
        state.send_all_datagrams();
    }

    /// Waits until no stream has anything left to deliver, or until `deadline`: then false.
    pub(super) fn wait_drained(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !state.has_undelivered() || left == Duration::ZERO {
                return !state.has_undelivered();
            }
            // Nobody tells when the peer of an open connection has acknowledged everything.
            let step = if state.draining == Some(Unclosed::Reset) { left.min(LOOK) } else { left };
            state = sync::wait_timeout(&self.drained, state, step);
        }
    }

    /// Resets the connections that applications still have open. Both ends see that: the peer gets a reset,
    /// the application ECONNRESET.
    pub(super) fn reset_streams(&self) {
        let (streams, processes) = {
            let mut state = self.lock();
            state.is_ending = true;
            let mut keys = Vec::new();
            for (key, entry) in &state.entries {
                match entry {
                    Entry::Stream(_) => keys.push(*key),
                    Entry::Connecting(connecting) => connecting.reset(),
                    _ => {}
                }
            }
            let mut streams = Vec::new();
            for key in keys {
                if let Some(Entry::Stream(mut stream)) = state.remove(key) {
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
            (streams, processes)
        };
        if streams.is_empty() {
            return;
        }
        for process in processes {
            app_end::poison_all(self.tag, process);
        }
        // What an application has closed just now, and all of which is taken, ends in order.
        for stream in streams.iter().filter(|stream| !(stream.is_closed() && stream.is_taken())) {
            stream.connection.flow().set_reset_on_close(true);
        }
    }

    /// Ends everything.
    pub(super) fn close(&self) {
        self.reset_streams();
        let (entries, opened, processes) = {
            let mut state = self.lock();
            let processes = state.processes();
            for entry in state.entries.values() {
                // A child of this process may have inherited it; then closing it is not enough.
                if let Entry::RequestListener(fd) | Entry::DataListener(fd) = entry {
                    state.poller.remove(fd.as_fd());
                }
            }
            (std::mem::take(&mut state.entries), std::mem::take(&mut state.opened), processes)
        };
        drop((entries, opened));
        for process in processes {
            app_end::shut(self.tag, process);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ServerState> {
        sync::lock(&self.state)
    }
}

impl Attached for Server {
    fn run(&self, events: &[Event]) {
        let mut state = self.lock();
        for event in events {
            state.handle(event.data.u64(), event.flags.into());
        }
        state.fire_timers(Instant::now());
        state.take_ready();
        state.tell_path_mtus();
        state.check_lingering();
        if state.draining.is_some() && !state.has_undelivered() {
            self.drained.notify_all();
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let state = self.lock();
        match self.ready.is_empty() {
            true => state.timers.first().map(|(at, _)| *at),
            false => Some(Instant::now()),
        }
    }
}

impl ServerState {
    pub(super) fn new_key(&self) -> Key {
        LAST_KEY.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn insert(&mut self, key: Key, entry: Entry) {
        self.ends += usize::from(matches!(entry, Entry::End(_)));
        self.entries.insert(key, entry);
    }

    pub(super) fn entry(&self, key: Key) -> Option<&Entry> {
        self.entries.get(&key)
    }

    pub(super) fn entry_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries.get_mut(&key)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Entry> {
        let removed = self.entries.remove(&key);
        self.ends -= usize::from(matches!(removed, Some(Entry::End(_))));
        removed
    }

    /// Has the kernel tell of a descriptor. When it is closed that ends.
    pub(super) fn watch(&self, fd: BorrowedFd<'_>, key: Key, flags: EventFlags) -> io::Result<()> {
        self.poller.add(fd, key, flags)
    }

    /// Has `key` handled no later than `at`.
    pub(super) fn set_timer(&mut self, at: Instant, key: Key) {
        self.timers.insert((at, key));
    }

    /// Closes what waits to be accepted when there are no descriptors left for it: left alone, it would wake
    /// us for ever.
    pub(super) fn turn_away(&mut self, listener: &OwnedFd, error: Errno) {
        if !matches!(error, Errno::MFILE | Errno::NFILE) {
            return;
        }
        drop(self.spare.take());
        drop(rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK));
        self.spare = spare();
        tracing::debug!("an application was turned away: there are too many open descriptors");
    }

    /// Whether a stream has something that is not delivered. While it drains: those that end in order are
    /// there until then.
    fn has_undelivered(&self) -> bool {
        let resets = self.draining == Some(Unclosed::Reset);
        self.entries.values().any(|entry| match entry {
            Entry::Stream(stream) => !(resets && stream.is_delivered()),
            Entry::Connecting(connecting) => connecting.is_standing(),
            _ => false,
        })
    }

    /// The processes that have sockets of this node, as far as is known: this one, and those that have asked
    /// something.
    pub(super) fn processes(&self) -> BTreeSet<i32> {
        let known = self.entries.values().filter_map(|entry| match entry {
            Entry::Listening(listening) => Some(listening.process()),
            Entry::Requester(requester) => Some(requester.process()),
            _ => None,
        });
        known.chain([rustix::process::getpid().as_raw_pid()]).filter(|process| *process > 0).collect()
    }

    fn take_ready(&mut self) {
        let mut keys = std::mem::take(&mut self.keys);
        self.ready.take(&mut keys);
        for key in keys.drain(..) {
            self.handle(key, Readiness::default());
        }
        self.keys = keys;
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
        {
            self.timers.remove(&(at, key));
            self.handle(key, Readiness::default());
        }
    }

    /// Looks at one entry. What is dropped here is closed.
    pub(super) fn handle(&mut self, key: Key, readiness: Readiness) {
        let kept = match self.remove(key) {
            None => return,
            Some(Entry::RequestListener(fd)) => {
                self.accept_requester(&fd);
                Some(Entry::RequestListener(fd))
            }
            Some(Entry::DataListener(fd)) => {
                self.accept_data(&fd);
                Some(Entry::DataListener(fd))
            }
            Some(Entry::Requester(requester)) => self.serve(key, requester).map(Entry::Requester),
            Some(Entry::Listening(listening)) => {
                self.accept_connections(key, listening, readiness).map(Entry::Listening)
            }
            Some(Entry::Connecting(connecting)) => self.advance(key, connecting),
            Some(Entry::Stream(mut stream)) => {
                match stream.pump(readiness, &mut self.buf, self.draining.is_some()) {
                    Outcome::Waits => Some(Entry::Stream(stream)),
                    // It is open: its end must not look as if the application had said all.
                    Outcome::Taken if self.draining == Some(Unclosed::Reset) && !stream.is_closed() => {
                        Some(Entry::Stream(stream))
                    }
                    Outcome::WaitsForDelivery => {
                        self.set_timer(Instant::now() + LOOK, key);
                        Some(Entry::Stream(stream))
                    }
                    Outcome::HasMore => {
                        self.set_timer(Instant::now(), key);
                        Some(Entry::Stream(stream))
                    }
                    Outcome::Taken | Outcome::Ended => {
                        self.end_stream(stream);
                        None
                    }
                }
            }
            Some(Entry::Datagrams(datagrams)) => self.deliver_datagrams(key, datagrams).map(Entry::Datagrams),
            Some(Entry::End(end)) => self.send_datagrams(key, end, readiness).map(Entry::End),
        };
        if let Some(entry) = kept {
            self.insert(key, entry);
        }
    }
}

/// A descriptor that can be done without.
fn spare() -> Option<OwnedFd> {
    crate::sys::process::placeholder().ok()
}

/// A socket of the node's, which nobody inherits and no call waits on.
pub(super) fn unix(kind: SocketType) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
}

/// A socket that listens on an abstract name.
fn listener(kind: SocketType, name: &Name) -> Result<OwnedFd, Errno> {
    let fd = unix(kind)?;
    rustix::net::bind(&fd, &address(name))?;
    rustix::net::listen(&fd, BACKLOG)?;
    Ok(fd)
}
