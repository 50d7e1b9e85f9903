//! The server's loop: what its descriptors and its sockets have to say.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use peersock_fd::{Errno, Name, NodeTag, SocketId, Token, address};
use rustix::event::epoll::{Event, EventFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::aliases::Aliases;
use super::app_end;
use super::connecting::Connecting;
use super::datagram::Datagrams;
use super::ends::End;
use super::lingering::Lingering;
use super::listening::Listening;
use super::ready::{Key, ReadyQueue};
use super::requests::Control;
use super::sockets::Opened;
use super::stream::{Outcome, Stream};
use crate::datapath::Train;
use crate::driver::{Attached, Poller};
use crate::node::Inner;

/// Connections that may wait for the server.
const BACKLOG: i32 = 4096;
/// Bytes that are moved for one stream before others have their turn.
const BUFFER: usize = 256 << 10;

/// The last key that was given. No two servers have the same: events of a descriptor that somebody has inherited from
/// one that is gone are nobody's.
static LAST_KEY: AtomicU64 = AtomicU64::new(0);

/// What the engine thread runs.
pub(super) struct Server {
    tag: NodeTag,
    token: Token,
    ready: Arc<ReadyQueue>,
    state: Mutex<State>,
    drained: Condvar,
}

/// Everything that the server has to do with.
pub(super) struct State {
    pub(super) tag: NodeTag,
    pub(super) token: Token,
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
    /// Given up for a moment when descriptors run out, see [`State::turn_away`].
    spare: Option<OwnedFd>,
    draining: bool,
    /// Room for datagrams that leave together.
    pub(super) train: Train,
    pub(super) lingering: Lingering,
    /// Datagram sockets and where they have sent what was too long for its path.
    pub(super) too_long: Vec<(Key, SocketAddr)>,
    /// Connections that applications have made to the control socket.
    pub(super) contacts: u64,
}

/// What a key stands for.
pub(super) enum Entry {
    ControlListener(OwnedFd),
    DataListener(OwnedFd),
    Control(Control),
    Listening(Listening),
    Connecting(Connecting),
    Stream(Stream),
    Datagrams(Datagrams),
    End(End),
}

/// Why an entry is looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct News {
    /// Its descriptor can be read from.
    pub(super) readable: bool,
    /// Its descriptor can be written to.
    pub(super) writable: bool,
    /// Its descriptor's other end sends no more.
    pub(super) ended: bool,
    /// Its descriptor's other end is closed.
    pub(super) hung_up: bool,
}

impl From<EventFlags> for News {
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
        let mut token = [0; 16];
        random(&mut token)?;
        let token = Token(u128::from_le_bytes(token));
        let (tag, control) = loop {
            let mut tag = [0; 4];
            random(&mut tag)?;
            let tag = NodeTag(u32::from_le_bytes(tag));
            match listener(SocketType::SEQPACKET, &Name::Control(tag)) {
                // Another node has these 32 bits.
                Err(Errno::ADDRINUSE) => {}
                control => break (tag, control?),
            }
        };
        let data = listener(SocketType::STREAM, &Name::Data(tag))?;
        let ready = ReadyQueue::new(node);
        let mut state = State {
            tag,
            token,
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
            draining: false,
            train: Train::default(),
            lingering: Lingering::default(),
            too_long: Vec::new(),
            contacts: 0,
        };
        for (fd, entry) in [(control, Entry::ControlListener as fn(_) -> _), (data, Entry::DataListener)] {
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

    pub(super) fn begin_drain(&self) {
        let mut state = self.lock();
        state.draining = true;
        let streams: Vec<Key> = state.entries.keys().copied().collect();
        let now = Instant::now();
        for key in streams {
            state.set_timer(now, key);
        }
        // Nobody waits for datagrams: those that are here leave now.
        state.send_all_datagrams();
    }

    /// Waits until no stream is left, or until `deadline`: then false.
    pub(super) fn wait_drained(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !state.has_streams() || left == Duration::ZERO {
                return !state.has_streams();
            }
            state = self.drained.wait_timeout(state, left).expect("no panic under this lock").0;
        }
    }

    /// Ends everything.
    pub(super) fn close(&self) {
        let (entries, opened) = {
            let mut state = self.lock();
            for entry in state.entries.values() {
                // A child of this process may have inherited it; then closing it is not enough.
                if let Entry::ControlListener(fd) | Entry::DataListener(fd) = entry {
                    state.poller.remove(fd.as_fd());
                }
            }
            (std::mem::take(&mut state.entries), std::mem::take(&mut state.opened))
        };
        let listening = entries.values().filter_map(|entry| match entry {
            Entry::Listening(listening) => Some(listening.process()),
            _ => None,
        });
        let own = rustix::process::getpid().as_raw_pid();
        let processes: BTreeSet<i32> = listening.chain([own]).collect();
        drop((entries, opened));
        for process in processes {
            app_end::shut(self.tag, process);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
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
        if state.draining && !state.has_streams() {
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

impl State {
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

    /// Closes what waits to be accepted when there are no descriptors left for it: left alone, it would wake us for ever.
    pub(super) fn turn_away(&mut self, listener: &OwnedFd, error: Errno) {
        if !matches!(error, Errno::MFILE | Errno::NFILE) {
            return;
        }
        drop(self.spare.take());
        drop(rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK));
        self.spare = spare();
        tracing::debug!("an application was turned away: there are too many open descriptors");
    }

    fn has_streams(&self) -> bool {
        self.entries.values().any(|entry| matches!(entry, Entry::Stream(_)))
    }

    fn take_ready(&mut self) {
        let mut keys = std::mem::take(&mut self.keys);
        self.ready.take(&mut keys);
        for key in keys.drain(..) {
            self.handle(key, News::default());
        }
        self.keys = keys;
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
        {
            self.timers.remove(&(at, key));
            self.handle(key, News::default());
        }
    }

    /// Looks at one entry. What is dropped here is closed.
    pub(super) fn handle(&mut self, key: Key, news: News) {
        let kept = match self.remove(key) {
            None => return,
            Some(Entry::ControlListener(fd)) => {
                self.accept_control(&fd);
                Some(Entry::ControlListener(fd))
            }
            Some(Entry::DataListener(fd)) => {
                self.accept_data(&fd);
                Some(Entry::DataListener(fd))
            }
            Some(Entry::Control(control)) => self.serve(key, control).map(Entry::Control),
            Some(Entry::Listening(listening)) => {
                self.accept_connections(key, listening, news).map(Entry::Listening)
            }
            Some(Entry::Connecting(connecting)) => self.advance(key, connecting),
            Some(Entry::Stream(mut stream)) => match stream.pump(news, &mut self.buf, self.draining) {
                Outcome::Waits => Some(Entry::Stream(stream)),
                Outcome::HasMore => {
                    self.set_timer(Instant::now(), key);
                    Some(Entry::Stream(stream))
                }
                Outcome::Ended => {
                    self.forget_stream(&stream);
                    None
                }
            },
            Some(Entry::Datagrams(datagrams)) => self.deliver_datagrams(key, datagrams).map(Entry::Datagrams),
            Some(Entry::End(end)) => self.send_datagrams(key, end, news).map(Entry::End),
        };
        if let Some(entry) = kept {
            self.insert(key, entry);
        }
    }
}

/// A descriptor that can be done without.
fn spare() -> Option<OwnedFd> {
    std::fs::File::open("/dev/null").map(OwnedFd::from).ok()
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
