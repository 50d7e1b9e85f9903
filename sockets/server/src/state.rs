//! Entities of a server, found by the keys of kernel events, timers and wakers.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peersock_fd::Errno;
use rustix::net::SocketFlags;

use crate::Unclosed;
use crate::connecting::Connecting;
use crate::connection_errors::Endings;
use crate::context::Context;
use crate::datagram::Datagrams;
use crate::ended_peers::EndedPeers;
use crate::listening::Listening;
use crate::log_limit::LogLimit;
use crate::requester::{Requester, Strangers};
use crate::so_linger::Lingering;
use crate::socket_table::Sockets;
use crate::stream::{Outcome, Stream};
use crate::undelivered::Delivering;
use crate::wakers::{Key, Readiness};

/// Maximum number of connections whose data waits in one turn to be sent together: as many as fit into one
/// call.
const MAX_UNSENT_CONNECTIONS: usize = 64;

/// Interval of the checks whether everything is delivered, before open connections are reset.
pub(crate) const DELIVERY_CHECK_INTERVAL: Duration = Duration::from_millis(2);

/// The complete state of a server.
pub(crate) struct ServerState {
    pub(crate) context: Context,
    pub(crate) entries: HashMap<Key, Entry>,
    pub(crate) sockets: Sockets,
    /// Buffer for the keys of a turn, kept from one to the next.
    keys: Vec<Key>,
    /// Released for a moment when descriptors run out, see [`ServerState::without_spare`].
    spare: Option<OwnedFd>,
    turned_away: LogLimit,
    pub(crate) delivering: Delivering,
    pub(crate) endings: Endings,
    pub(crate) ended_peers: EndedPeers,
    pub(crate) lingering: Lingering,
    pub(crate) strangers: Strangers,
    pub(crate) draining: Option<Unclosed>,
    /// The node's ends of descriptors that an exiting process has open; their connections have ended.
    pub(crate) kept: Vec<OwnedFd>,
    /// Set while the node shuts down: requests fail with ENETDOWN.
    pub(crate) is_ending: bool,
    /// Number of connections that applications have made to the request socket.
    pub(crate) contacts: u64,
    /// True if the library does not see reads and writes on the launcher's sockets, see
    /// [`FdServer::note_unseen_calls`](crate::FdServer::note_unseen_calls).
    pub(crate) has_unseen_calls: bool,
}

/// Entity behind a key.
#[expect(clippy::large_enum_variant, reason = "most entries of a busy server are streams")]
pub(crate) enum Entry {
    RequestListener(Arc<OwnedFd>),
    DataListener(Arc<OwnedFd>),
    /// Events of closed sockets.
    Closings,
    Requester(Requester),
    Listening(Listening),
    Connecting(Connecting),
    Stream(Stream),
    Datagrams(Datagrams),
}

impl ServerState {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            entries: HashMap::new(),
            sockets: Sockets::default(),
            keys: Vec::new(),
            spare: spare(),
            turned_away: LogLimit::default(),
            delivering: Delivering::default(),
            endings: Endings::default(),
            ended_peers: EndedPeers::default(),
            lingering: Lingering::default(),
            strangers: Strangers::default(),
            draining: None,
            kept: Vec::new(),
            is_ending: false,
            contacts: 0,
            has_unseen_calls: false,
        }
    }

    pub(crate) fn insert(&mut self, key: Key, entry: Entry) {
        self.entries.insert(key, entry);
    }

    pub(crate) fn entry(&self, key: Key) -> Option<&Entry> {
        self.entries.get(&key)
    }

    pub(crate) fn entry_mut(&mut self, key: Key) -> Option<&mut Entry> {
        self.entries.get_mut(&key)
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Entry> {
        self.entries.remove(&key)
    }

    /// Accepts and closes a waiting connection when there are no descriptors left for it. Otherwise it would
    /// wake the server forever.
    pub(crate) fn turn_away(&mut self, listener: &OwnedFd, error: Errno) {
        if !matches!(error, Errno::MFILE | Errno::NFILE) {
            return;
        }
        self.without_spare(|| {
            drop(rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK));
        });
        if self.turned_away.count(Instant::now()).is_some() {
            tracing::warn!(
                "programs were turned away: the node has as many descriptors open as its limit allows; raise the \
                 limit (`ulimit -n`), or close connections"
            );
        }
    }

    /// Does something that needs a descriptor when there may be none left.
    pub(crate) fn without_spare(&mut self, work: impl FnOnce()) {
        drop(self.spare.take());
        work();
        self.spare = spare();
    }

    /// Returns true if a stream has undelivered data. During a drain, streams that end in order exist until
    /// everything is delivered.
    pub(crate) fn has_undelivered(&self) -> bool {
        self.entries.values().any(|entry| match entry {
            Entry::Stream(stream) => !(is_reset_if_open(&self.draining, stream) && stream.is_delivered()),
            Entry::Connecting(connecting) => connecting.is_standing(),
            _ => false,
        })
    }

    /// Returns the processes known to have sockets of this node: the launcher, and those that have made
    /// requests.
    pub(crate) fn processes(&self) -> BTreeSet<i32> {
        let known = self.entries.values().filter_map(|entry| match entry {
            Entry::Listening(listening) => Some(listening.process()),
            Entry::Requester(requester) => Some(requester.owner().pid),
            _ => None,
        });
        known.chain([self.context.launcher()]).filter(|process| *process > 0).collect()
    }

    pub(crate) fn take_ready(&mut self) {
        let mut keys = std::mem::take(&mut self.keys);
        self.context.take_ready(&mut keys);
        for key in keys.drain(..) {
            self.handle(key, Readiness::default());
        }
        self.keys = keys;
    }

    pub(crate) fn fire_timers(&mut self, now: Instant) {
        while let Some(key) = self.context.take_timer(now) {
            self.handle(key, Readiness::default());
        }
    }

    /// Handles one entry. Entries removed here are closed.
    pub(crate) fn handle(&mut self, key: Key, readiness: Readiness) {
        if readiness.hung_up
            && let Some(Entry::Stream(stream)) = self.entries.get(&key)
            && stream.watch().is_some()
        {
            // If this is its closing, the report has come before.
            self.forget_closed();
        }
        match self.entries.get_mut(&key) {
            None => {
                if let Some(owner) = self.context.ends.owner(key) {
                    self.send_datagrams(owner, key, readiness);
                }
            }
            Some(Entry::RequestListener(listener)) => {
                let listener = Arc::clone(listener);
                self.accept_requester(&listener);
            }
            // What would begin now could take a byte that shows the end for data.
            Some(Entry::DataListener(_) | Entry::Listening(_) | Entry::Connecting(_)) if self.is_ending => {}
            Some(Entry::DataListener(listener)) => {
                let listener = Arc::clone(listener);
                self.accept_data(&listener);
            }
            Some(Entry::Closings) => {
                self.forget_closed();
            }
            Some(Entry::Requester(_)) => self.serve(key),
            Some(Entry::Listening(_)) => self.accept_connections(key, readiness),
            Some(Entry::Connecting(_)) => self.advance(key),
            Some(Entry::Stream(stream)) => {
                let Context { buf, unsent, resets, moved, .. } = &mut self.context;
                let outcome = stream.pump(readiness, buf, unsent, self.draining.is_some(), resets);
                stream.count_moved(moved);
                // One stream with much data must not delay others, and a reset must not overtake written
                // data.
                if outcome != Outcome::Waits || unsent.len() >= MAX_UNSENT_CONNECTIONS {
                    self.context.send_unsent();
                }
                if let Some((fd, events)) = stream.changed_events() {
                    self.context.rewatch(fd, key, events);
                }
                // An open stream must not look as if the application had sent everything.
                let stays = || is_reset_if_open(&self.draining, stream) && !stream.has_hung_up();
                match outcome {
                    Outcome::Waits => {}
                    Outcome::Taken if stays() => {}
                    Outcome::WaitsForDelivery => {
                        self.context.set_timer(Instant::now() + DELIVERY_CHECK_INTERVAL, key)
                    }
                    Outcome::WaitsUntil(until) => self.context.set_timer(until, key),
                    Outcome::HasMore => self.context.set_timer(Instant::now(), key),
                    Outcome::Taken | Outcome::Ended => self.end_stream(key),
                }
            }
            Some(Entry::Datagrams(_)) => self.deliver_datagrams(key),
        }
    }
}

/// Returns true if the node is ending, and resets this connection if the application still has it open then.
pub(crate) fn is_reset_if_open(draining: &Option<Unclosed>, stream: &Stream) -> bool {
    draining.as_ref().is_some_and(|unclosed| unclosed.resets(stream.origin.id()))
}

/// Opens the spare descriptor.
fn spare() -> Option<OwnedFd> {
    crate::process::placeholder().ok()
}
