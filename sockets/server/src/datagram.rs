//! One datagram socket with the node's ends for it: moves datagrams between the stack and the application's
//! end.
//!
//! Received datagrams wait in the stack's bounded queue until the application's end has room.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock::attach::EventFlags;
use peersock_fd::{AncillaryData, Errno, Family, Header, SendFlags};
use peersock_stack::{Error, ReceivedHeaders};

use crate::addresses::errno;
use crate::ancillary::{DatagramOptions, descriptor, hand_over};
use crate::context::{Context, MAX_DATAGRAM_BYTES};
use crate::datagram_ends::{self, End, Ends, Place};
use crate::options::Options;
use crate::socket_table::Opened;
use crate::transport::{Arrived, Transport};
use crate::wakers::{self, Key};

/// Number of datagrams moved for one socket before other sockets have their turn.
pub(crate) const DATAGRAMS_PER_TURN: usize = 64;

/// Interval of the sweep for sockets the application has closed, where the kernel does not report it. Grows
/// by 1 ms per socket, so the cost is bounded.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum age of the list of name holders when a datagram is about to be sent to a name.
const NAME_LIST_MAX_AGE: Duration = Duration::from_millis(10);

/// Events for which an end is watched.
const EVENTS: EventFlags = EventFlags::IN.union(EventFlags::OUT).union(EventFlags::ET);

/// A datagram socket that receives.
pub(crate) struct Datagrams {
    key: Key,
    pub(crate) socket: peersock_fd::Opened,
    transport: Arc<dyn Transport>,
    waker: Waker,
    entry: Arc<wakers::Entry>,
    ends: Ends,
    /// The address it is connected to, as the application names it.
    peer: Option<SocketAddr>,
    /// A datagram taken from the stack that did not fit into the application's end.
    waiting: Option<(Arrived, Vec<Header>, Vec<u8>)>,
    /// The ancillary data most recently sent in a descriptor.
    last_ancillary: Option<(AncillaryData, OwnedFd)>,
    /// Time of the next sweep, where closings are not reported.
    sweep: Option<Instant>,
}

/// Condition that stops delivery to the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// None: the socket waits for events.
    Waits,
    /// All sockets together have too many ends for one more.
    NeedsRoom,
    /// The application must be told a datagram's error.
    Failed(Errno),
    /// The node has left the network that the socket is bound to.
    NetworkDown,
    /// No process has the socket open.
    Closed,
}

/// Reason why there is no end for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoEnd {
    /// Other sockets have too many ends, or all descriptors.
    Room,
    Failed(Errno),
}

/// Fate of a datagram for the application.
enum Delivery {
    /// Delivered, or lost.
    Done,
    /// The application's end is full.
    Full,
    /// There is no room for another end.
    NeedsRoom,
    /// No process has the socket open.
    Closed,
}

impl Datagrams {
    /// Starts receiving. `others` is the number of other sockets, which spaces the sweeps; `None` disables
    /// them.
    pub(crate) fn new(
        key: Key,
        socket: peersock_fd::Opened,
        transport: Arc<dyn Transport>,
        (context, others): (&mut Context, Option<usize>),
    ) -> Self {
        let (waker, entry) = context.waker(key);
        let sweep = others.map(|others| next_sweep(Instant::now(), others));
        if let Some(sweep) = sweep {
            context.set_timer(sweep, key);
        }
        waker.wake_by_ref();
        let (ends, waiting, last_ancillary) = (Ends::default(), None, None);
        Self { key, socket, transport, waker, entry, ends, peer: None, waiting, last_ancillary, sweep }
    }

    /// Returns the address it is connected to, as the application names it.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Replaces the stack's socket.
    pub(crate) fn set_transport(&mut self, transport: Arc<dyn Transport>) {
        self.transport = transport;
    }

    /// Returns true if a datagram waits for room at the application.
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Connects the socket to another address. Sends what was written to the existing ends, and removes them.
    pub(crate) fn associate(&mut self, peer: Option<SocketAddr>, context: &mut Context, options: &Options) {
        self.peer = peer;
        for end in self.ends.keys() {
            self.send_from(end, context, options);
            self.remove_end(end, context);
        }
    }

    /// Delivers received datagrams to the application, at most `left`. `others` is the number of other
    /// sockets. With `is_room_made`, no end is given up for room any more.
    pub(crate) fn deliver(
        &mut self,
        context: &mut Context,
        opened: &mut Opened,
        others: usize,
        (left, mut is_room_made): (&mut usize, bool),
    ) -> Step {
        self.entry.begin();
        let now = Instant::now();
        if self.sweep.is_some_and(|sweep| sweep <= now) {
            if !context.is_open(opened, SWEEP_INTERVAL) {
                return Step::Closed;
            }
            let next = next_sweep(now, others);
            self.sweep = Some(next);
            context.set_timer(next, self.key);
        }
        let mut buf = std::mem::take(&mut context.arrived);
        let step = loop {
            if *left == 0 {
                context.set_timer(now, self.key);
                break Step::Waits;
            }
            *left -= 1;
            let (arrived, headers, data) = match self.waiting.take() {
                Some(waiting) => waiting,
                None => match self.next(&mut buf, &mut context.headers) {
                    Ok(arrived) => (arrived, opened.options.told_headers(&context.headers), Vec::new()),
                    Err(Error::WouldBlock) => break Step::Waits,
                    Err(Error::NetworkDown) => break Step::NetworkDown,
                    Err(error) => break Step::Failed(errno(error)),
                },
            };
            let bytes = if data.is_empty() { &buf[..arrived.length] } else { &data };
            let step = match self.deliver_one(context, opened, (&arrived, &headers), bytes) {
                Delivery::Closed => break Step::Closed,
                Delivery::Full => Step::Waits,
                Delivery::NeedsRoom if !is_room_made => Step::NeedsRoom,
                Delivery::Done | Delivery::NeedsRoom => {
                    is_room_made = false;
                    continue;
                }
            };
            let data = if data.is_empty() { bytes.to_vec() } else { data };
            self.waiting = Some((arrived, headers, data));
            break step;
        };
        context.arrived = buf;
        step
    }

    /// Returns the next datagram of the stack's queue.
    fn next(&self, buf: &mut [u8], headers: &mut ReceivedHeaders) -> Result<Arrived, Error> {
        // A datagram that arrives after an unsuccessful look wakes.
        match self.transport.receive(buf, headers) {
            Err(Error::WouldBlock) => {}
            received => return received,
        }
        self.transport.register(&self.waker);
        self.transport.receive(buf, headers)
    }

    fn deliver_one(
        &mut self,
        context: &mut Context,
        opened: &Opened,
        (arrived, headers): (&Arrived, &[Header]),
        data: &[u8],
    ) -> Delivery {
        let (socket, family) = (self.socket, self.socket.family);
        let details = opened.options.details(family, arrived);
        let details = details.map(|details| context.shown_details(family, details));
        let remote = context.shown(family, arrived.remote);
        if Family::of(remote.ip()) != family {
            // The aliases are exhausted.
            return Delivery::Done;
        }
        // Only the end that a socket is connected to may send to it.
        let is_peer = self.peer.is_some_and(|peer| same(peer, remote));
        let place = match self.peer.filter(|_| is_peer) {
            Some(peer) => (peer, None),
            // Names have no room for headers.
            None => (remote, details.filter(|_| headers.is_empty())),
        };
        let end = match self.end_at(place, context, opened, false) {
            Ok(end) => end,
            Err(NoEnd::Room) => return Delivery::NeedsRoom,
            Err(NoEnd::Failed(_)) => return Delivery::Done,
        };
        let is_described = !headers.is_empty() || (is_peer && details.is_some());
        if is_described {
            self.describe(AncillaryData { details: details.unwrap_or_default(), headers: headers.to_vec() });
        }
        let Some(end) = self.ends.get(end) else { return Delivery::Done };
        let along = self.last_ancillary.as_ref().filter(|_| is_described).map(|(_, fd)| fd.as_fd());
        let send = || hand_over(&end.fd, data, along);
        let sent = match send() {
            // The application has connected elsewhere and back; the kernel reports that once.
            Err(Errno::CONNRESET) => send(),
            // When this end was made, the application's end was connected to another.
            Err(Errno::NOTCONN) if context.is_taken_over(opened, NAME_LIST_MAX_AGE) => {
                return Delivery::Closed;
            }
            Err(Errno::NOTCONN) if end.connect(context.tag, socket).is_ok() => send(),
            sent => sent,
        };
        match sent {
            Err(Errno::AGAIN) => Delivery::Full,
            // The socket that the end was connected to is closed.
            Err(Errno::CONNREFUSED) => Delivery::Closed,
            Err(Errno::NOTCONN) if !context.is_name_taken(socket) => Delivery::Closed,
            Ok(_) => {
                context.moved.received += data.len() as u64;
                Delivery::Done
            }
            // The application's end is connected to another (EPERM), receives no more (EPIPE), or the system
            // lacks memory.
            _ => Delivery::Done,
        }
    }

    /// Prepares a descriptor with ancillary data, reusing the last one if the data is the same.
    fn describe(&mut self, beside: AncillaryData) {
        if !self.last_ancillary.as_ref().is_some_and(|(last, _)| *last == beside) {
            self.last_ancillary = descriptor(&beside).map(|fd| (beside, fd));
        }
    }

    /// Sets the options of datagrams sent through an end.
    pub(crate) fn set_asked(&mut self, end: Key, asked: DatagramOptions) {
        self.ends.set_asked(end, asked);
    }

    /// Returns the place whose end reports errors.
    pub(crate) fn place_of_errors(&self) -> Place {
        // The kernel reports nothing to an unconnected socket, so a datagram from the unspecified address
        // does.
        (self.peer.unwrap_or((self.socket.family.unspecified(), 0).into()), None)
    }

    /// Signals through an end that an error is pending.
    pub(crate) fn report_error(&mut self, end: Key, context: &mut Context, options: &Options) {
        if self.peer.is_some() {
            // Send first, because reporting discards what the application has written.
            self.send_from(end, context, options);
        }
        let Some(end) = self.ends.get(end) else { return };
        if self.peer.is_some() {
            end.report_error(context.tag, self.socket);
        } else {
            let _ = rustix::net::send(&end.fd, &[], SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        }
    }

    /// Sends the application an empty datagram with details.
    pub(crate) fn tell(&self, end: Key, details: Option<OwnedFd>) -> Result<(), Errno> {
        let end = self.ends.get(end).ok_or(Errno::NOTCONN)?;
        hand_over(&end.fd, &[], details.as_ref().map(|fd| fd.as_fd()))
    }

    /// Sends what the application has written to one of the node's ends.
    pub(crate) fn send_from(&mut self, key: Key, context: &mut Context, options: &Options) {
        let Some(end) = self.ends.get(key) else { return };
        let place = end.place;
        let target = context.target(place.0, Some(self.transport.local()));
        let plain = DatagramOptions::plain(place.1);
        let asked = end.asked.as_deref().unwrap_or(&plain);
        let send_options = context.send_options(options, target.ip(), asked);
        let segment =
            asked.segment().or(options.segment()).map_or(MAX_DATAGRAM_BYTES, |segment| segment.get().into());
        let tag = context.tag;
        let Context { buf, gso, moved, .. } = context;
        let (mut is_too_long, mut has_more) = (false, true);
        for round in 0..DATAGRAMS_PER_TURN {
            match end.receive((tag, self.socket), buf) {
                // A longer one fits in no packet.
                Ok(length) if length.is_none_or(|length| length > MAX_DATAGRAM_BYTES) => {}
                Ok(length) => {
                    let mut left = &buf[..length.unwrap_or(0)];
                    moved.sent += left.len() as u64;
                    // The first leaves at once, because usually it is the only one.
                    let is_together = round > 0 || left.len() > segment;
                    loop {
                        let (datagram, rest) = left.split_at(segment.min(left.len()));
                        let others = is_together.then_some(&mut *gso);
                        if let Err(error) = self.transport.send(target, datagram, &send_options, others) {
                            tracing::trace!(%error, "a datagram was not sent");
                            is_too_long |= error == Error::MessageSize;
                        }
                        left = rest;
                        if left.is_empty() {
                            break;
                        }
                    }
                }
                Err(Errno::CONNRESET | Errno::INTR) => {}
                Err(_) => {
                    has_more = false;
                    break;
                }
            }
        }
        context.send_gso();
        if has_more {
            context.set_timer(Instant::now(), key);
        }
        if is_too_long {
            context.note_too_long(self.key, place.0);
        }
        self.ends.note_use(key, &mut context.ends);
    }

    /// Sends what the application has written to all ends, with `turns` turns each.
    pub(crate) fn send_all(&mut self, turns: usize, context: &mut Context, options: &Options) {
        for end in self.ends.keys() {
            (0..turns).for_each(|_| self.send_from(end, context, options));
        }
    }

    /// Returns the end for a place, made if there is none. With `is_room_made` the total may exceed the limit
    /// for all sockets by one.
    pub(crate) fn end_at(
        &mut self,
        place: Place,
        context: &mut Context,
        opened: &Opened,
        is_room_made: bool,
    ) -> Result<Key, NoEnd> {
        if let Some(key) = self.ends.at(place) {
            self.ends.note_use(key, &mut context.ends);
            return Ok(key);
        }
        if self.ends.len() >= datagram_ends::MAX_ENDS_PER_SOCKET {
            for end in datagram_ends::least_used(self.ends.uses().collect()) {
                self.give_up_end(end, context, &opened.options);
            }
        } else if context.ends.len() >= datagram_ends::MAX_ENDS && !is_room_made {
            return Err(NoEnd::Room);
        }
        let name = context.name_key.remote(self.socket.id, place.0, place.1);
        let end = End::new(context.tag, self.socket, place, name).map_err(|error| match error {
            Errno::MFILE | Errno::NFILE if !is_room_made => NoEnd::Room,
            error => NoEnd::Failed(error),
        })?;
        // It may be connected to a new owner of the name.
        if context.is_taken_over(opened, NAME_LIST_MAX_AGE) {
            return Err(NoEnd::Failed(Errno::CONNREFUSED));
        }
        let key = context.new_key();
        context.watch(end.fd.as_fd(), key, EVENTS).map_err(|_| NoEnd::Failed(Errno::NOMEM))?;
        context.ends.insert(key, self.key);
        self.ends.insert(key, end);
        self.ends.note_use(key, &mut context.ends);
        Ok(key)
    }

    /// Returns the order of each end's last use.
    pub(crate) fn end_uses(&self) -> impl Iterator<Item = (u64, Key)> {
        self.ends.uses()
    }

    /// Closes an end that was not used for long, unless the socket is connected to it.
    pub(crate) fn give_up_end(&mut self, end: Key, context: &mut Context, options: &Options) {
        let is_peers = |end: &End| self.peer.is_some_and(|peer| (peer, None) == end.place);
        if self.ends.get(end).is_some_and(|end| !is_peers(end)) {
            // Send first, so that what the application has just written is not lost.
            self.send_from(end, context, options);
            self.remove_end(end, context);
        }
    }

    /// Closes all ends.
    pub(crate) fn close_ends(&mut self, context: &mut Context) {
        for end in self.ends.keys() {
            self.remove_end(end, context);
        }
    }

    fn remove_end(&mut self, end: Key, context: &mut Context) {
        self.ends.remove(end);
        context.ends.remove(end);
    }
}

fn next_sweep(now: Instant, others: usize) -> Instant {
    now + SWEEP_INTERVAL + Duration::from_millis(others as u64)
}

/// Returns true if two addresses agree in IP and port; scopes are ignored.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip(), one.port()) == (other.ip(), other.port())
}
