//! One connection and the application's descriptor for it: moves bytes between them in both directions.

mod to_application;
mod to_peer;

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock::attach::{Connection, EventFlags, Place};
use peersock_fd::{Errno, SocketId, events_of};
use peersock_primitives::wait::Interest;
use peersock_stack::{Delivery, Flow, Ready, State};
use rustix::event::PollFlags;
use rustix::net::sockopt;

use super::addresses::errno;
use super::connection_errors::{Ending, When};
use super::options::Options;
use super::outbox::Outbox;
use super::wakers::{self, Readiness};
use crate::application_fd::{self, Holder};
use crate::closings::Watch;
use crate::process;
use crate::resets::Resets;
use crate::usage::Moved;

/// Number of consecutive rounds of a stream before other streams have their turn.
const ROUNDS_PER_TURN: usize = 4;

/// Times after which a broken connection is checked for acceptance by a direct call, once and then for the
/// last time. Until then it waits for the application to accept it through the library.
const FIRST_ACCEPT_CHECK: Duration = Duration::from_secs(2);
const LAST_ACCEPT_CHECK: Duration = Duration::from_secs(60);

/// Time for which an application can ask for the delivery of what it has written, after both directions have
/// ended. Later it gets an error, and the peer is left to the connection, which gives up by itself once no
/// program has it open.
const MAX_DELIVERY_TIME: Duration = Duration::from_secs(60);

/// Time for which a connection still counts as waiting after the application has accepted it unnoticed,
/// without reading or writing.
pub(crate) const PLACE_TIMEOUT: Duration = Duration::from_secs(10);

/// Events for which an application's descriptor is watched. Room is watched only while it is needed, because
/// it would be reported whenever the application reads.
pub(super) const EVENTS: EventFlags =
    EventFlags::IN.union(EventFlags::PRI).union(EventFlags::RDHUP).union(EventFlags::ET);

/// Origin of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A socket connected.
    Opened(SocketId),
    /// A listener accepted it.
    Accepted { id: SocketId, listener: SocketId },
}

impl Origin {
    /// Returns the socket's ID.
    pub(super) fn id(self) -> SocketId {
        match self {
            Origin::Opened(id) | Origin::Accepted { id, .. } => id,
        }
    }
}

/// A connection with an application.
pub(super) struct Stream {
    pub(super) connection: Connection,
    pub(super) origin: Origin,
    pub(super) options: Options,
    /// Connected to the application's descriptor.
    unix: Outbox,
    /// The processes that may have the application's descriptor.
    holder: Holder,
    waker: Waker,
    entry: Arc<wakers::Entry>,
    /// Set while the descriptor may have data to read, or room.
    readable: bool,
    writable: bool,
    /// Set while room is watched; and set if room was reported that was already known.
    watches_room: bool,
    is_told_of_known_room: bool,
    /// Set once the application sends no more.
    ended: bool,
    /// Set during a drain: exactly the bytes written before its start are taken.
    draining: bool,
    /// Set once the application has closed its descriptor. It may also have shut down both directions, or its
    /// own after the peer's end, which looks the same unless the closing is watched.
    hung_up: bool,
    closing: Closing,
    /// Once the application has shut down both directions, and its closing is watched: number of bytes that
    /// had come for it and were not passed on.
    shut_down_with: Option<usize>,
    /// Deadline of the wait for the last acknowledgement, once both directions have ended.
    delivering_until: Option<Instant>,
    /// Set if the application closed the descriptor with unread data.
    left_unread: bool,
    /// States of the directions from the application and to the application.
    to_peer: Way,
    to_application: Way,
    /// Data read from the application that did not fit.
    left: Vec<u8>,
    /// Bytes moved since they were counted last.
    moved: Moved,
    broken: Option<Break>,
    /// Deadline for passing on the peer's end, once the peer has ended its direction.
    end_until: Option<Instant>,
    holds_end: bool,
    /// True until something is passed to the application.
    is_untouched: bool,
    /// Place among the waiting connections of the listener, and its expiry.
    place: Option<(Place, Instant)>,
    /// Set if the socket was connected without a waiting client, and no call has reported it yet.
    is_untold: bool,
    /// Set once it broke and a byte that shows this may be among what the application has written.
    was_shown: bool,
    /// Set once it broke: time of the next check for acceptance, and whether that is the last.
    accept_look: Option<(Instant, bool)>,
}

/// Knowledge of the closing of the application's descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// It is taken from the hang-up.
    Unwatched,
    /// The kernel will report it. Until then a hang-up is the end of both directions.
    Watched(Watch),
    /// It was reported, and takes place.
    Reported,
    Done,
}

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Its end has been passed on.
    Ended,
}

/// Result of pumping a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Waiting for events.
    Waits,
    /// Waiting for the acknowledgement of sent data, which causes no event.
    WaitsForDelivery,
    /// Waiting for events, and for this time.
    WaitsUntil(Instant),
    /// Interrupted with work left, because other streams have their turn.
    HasMore,
    /// Drained: everything the application has written is on its way.
    Taken,
    /// Ended.
    Ended,
}

/// Progress of a direction.
enum Progress {
    /// Nothing more is possible for now.
    Blocked,
    /// There may be more.
    More,
    /// The connection is broken, and nothing more can be read from it.
    Broken,
}

/// Premature end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Break {
    error: Errno,
    /// True if the application had its descriptor open then.
    was_open: bool,
    /// True if a call has failed because of it.
    is_noticed: bool,
}

impl Stream {
    pub(super) fn new(
        connection: Connection,
        origin: Origin,
        options: Options,
        unix: Outbox,
        holder: Holder,
        (waker, entry): (Waker, Arc<wakers::Entry>),
    ) -> Self {
        Self {
            connection,
            origin,
            options,
            unix,
            holder,
            waker,
            entry,
            readable: true,
            writable: true,
            watches_room: false,
            is_told_of_known_room: false,
            ended: false,
            draining: false,
            hung_up: false,
            closing: Closing::Unwatched,
            shut_down_with: None,
            delivering_until: None,
            left_unread: false,
            to_peer: Way::Open,
            to_application: Way::Open,
            left: Vec::new(),
            moved: Moved::default(),
            broken: None,
            end_until: None,
            holds_end: false,
            is_untouched: true,
            place: None,
            is_untold: false,
            was_shown: false,
            accept_look: None,
        }
    }

    /// Gives it a place among its listener's waiting connections until the application accepts it.
    pub(super) fn in_place(mut self, place: Option<Place>) -> Self {
        self.place = place.map(|place| (place, Instant::now() + PLACE_TIMEOUT));
        self
    }

    /// Returns true if it has such a place.
    pub(super) fn has_place(&self) -> bool {
        self.place.is_some()
    }

    /// Gives up the place once the application has accepted the connection. If no call was seen, the
    /// application has accepted it once it has read what was passed to it, or has written something.
    fn look_at_place(&mut self) {
        if let Some((_, until)) = &self.place {
            let has_read = || !self.is_untouched && process::unread_by_peer(self.unix.as_fd()) == 0;
            if !self.unix.awaits_accept() || self.hung_up || has_read() || Instant::now() >= *until {
                self.place = None;
            }
        }
    }

    /// Notes that no client waited for the connection.
    pub(super) fn set_untold(&mut self) {
        self.is_untold = true;
    }

    /// Adds data that the application wrote before its descriptor was handled here.
    pub(super) fn set_written(&mut self, data: Vec<u8>) {
        self.left = data;
    }

    /// Returns true, once, if no call has reported yet that it is connected.
    pub(super) fn take_untold(&mut self) -> bool {
        std::mem::take(&mut self.is_untold)
    }

    /// Returns the waker that queues it.
    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Returns the events to watch from now on, if they have changed.
    pub(super) fn changed_events(&mut self) -> Option<(BorrowedFd<'_>, EventFlags)> {
        let is_waiting = !self.writable && self.to_application == Way::Open;
        if is_waiting == self.watches_room || (!is_waiting && !self.is_told_of_known_room) {
            return None;
        }
        self.watches_room = is_waiting;
        self.is_told_of_known_room = false;
        Some((self.unix.as_fd(), if is_waiting { EVENTS | EventFlags::OUT } else { EVENTS }))
    }

    /// Begins the node's end: only what the application has written by now still counts. The next
    /// [`pump`](Self::pump) takes it; before that nothing counts as delivered.
    pub(super) fn begin_drain(&mut self) {
        self.unix.begin_drain();
    }

    /// Returns its end of the application's descriptor.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.unix.as_fd()
    }

    /// Returns its end of the application's descriptor, and closes the connection.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.unix.into_fd()
    }

    /// Adds the bytes moved since the last call.
    pub(super) fn count_moved(&mut self, all: &mut Moved) {
        let Moved { sent, received } = std::mem::take(&mut self.moved);
        all.sent += sent;
        all.received += received;
    }

    /// Moves pending data, up to a bound. With `drain`, data the application has not written by now does not
    /// count. If little was written to the connection, the connection is added to `unsent` for sending later.
    pub(super) fn pump(
        &mut self,
        readiness: Readiness,
        buf: &mut [u8],
        unsent: &mut Vec<Arc<Flow>>,
        drain: bool,
        resets: &Resets,
    ) -> Outcome {
        self.entry.begin();
        if drain {
            self.draining = true;
            self.begin_drain();
        }
        // Read also without an event, because events of data written before the drain may be pending.
        self.readable |= readiness.readable || drain;
        self.is_told_of_known_room |= readiness.writable && self.writable;
        self.writable |= readiness.writable;
        self.ended |= readiness.ended;
        self.look_at_closing(readiness.hung_up);
        if readiness.urgent {
            self.unix.note_urgent();
        }
        self.look_at_place();
        let mut last = (Progress::More, Progress::More);
        for _ in 0..ROUNDS_PER_TURN {
            self.look_for_errors();
            self.look_for_late_data();
            // Data that arrived before the connection broke is still delivered.
            let to_peer = if self.broken.is_some() { self.discard(buf) } else { self.pump_out(buf, unsent) };
            let to_application = if self.hung_up { Progress::Blocked } else { self.pump_in() };
            last = (to_peer, to_application);
            if !matches!(last, (Progress::More, _) | (_, Progress::More)) {
                break;
            }
        }
        match last {
            (Progress::Broken, _) | (_, Progress::Broken) => self.end_broken(resets),
            _ if self.broken.is_some() && (self.hung_up || self.to_application == Way::Ended) => {
                Outcome::Ended
            }
            (Progress::More, _) | (_, Progress::More) => Outcome::HasMore,
            // The peer gets nothing but the reset, which does not wait for written data.
            _ if self.hung_up && self.options.resets_on_close() => {
                if !self.left_unread() {
                    self.connection.flow().set_all_read();
                }
                Outcome::Ended
            }
            _ if self.hung_up && self.to_peer == Way::Ended => {
                // The application had shut down its direction before it closed the descriptor.
                self.reset_if_unread();
                self.await_delivery()
            }
            // Its written data waits for a peer that may be waiting for it to read.
            _ if self.hung_up && self.has_unread() => {
                self.connection.flow().set_reset_on_close(true);
                Outcome::Ended
            }
            // Unread data makes the end a reset, which must not overtake what the application has written.
            _ if drain && self.is_taken() => {
                let is_under_way = self.connection.flow().delivery() == Delivery::Pending;
                match is_under_way && !self.is_closed() && self.has_unread_by_application() {
                    true => Outcome::WaitsForDelivery,
                    false => Outcome::Taken,
                }
            }
            _ if self.holds_end || self.closing == Closing::Reported => Outcome::WaitsForDelivery,
            _ => {
                if self.to_application == Way::Ended {
                    // A reset may arrive, which the application must see at its next write, or late data.
                    self.connection.waiters().register(Interest::Read, &self.waker);
                    if self.connection.flow().readiness().contains(Ready::ERROR) || self.has_late_data() {
                        return Outcome::HasMore;
                    }
                }
                Outcome::Waits
            }
        }
    }

    /// Watches the closing of the application's descriptor.
    pub(super) fn note_watched(&mut self, watch: Watch) {
        if !self.hung_up {
            self.closing = Closing::Watched(watch);
        }
    }

    /// Returns the watch of its closing.
    pub(super) fn watch(&self) -> Option<Watch> {
        if let Closing::Watched(watch) = self.closing { Some(watch) } else { None }
    }

    /// Notes that the watched descriptor was closed. Returns false if it was not watched.
    pub(super) fn note_closed(&mut self) -> bool {
        let is_watched = self.watch().is_some();
        if is_watched {
            self.closing = Closing::Reported;
        }
        is_watched
    }

    /// Notes that the kernel has lost reports: from now on a hang-up is taken for the closing.
    pub(super) fn forget_watch(&mut self) {
        if self.watch().is_some() {
            (self.closing, self.hung_up) = (Closing::Unwatched, self.has_hung_up());
        }
    }

    /// Returns true if a descriptor is the application's.
    pub(super) fn is_of(&self, fd: BorrowedFd<'_>) -> bool {
        application_fd::names(self.unix.as_fd()).is_some_and(|names| application_fd::is_other(&names, fd))
    }

    /// Takes a hang-up for the closing of the descriptor, unless that is watched.
    fn look_at_closing(&mut self, has_hung_up: bool) {
        match self.closing {
            Closing::Unwatched => self.hung_up |= has_hung_up,
            Closing::Watched(_) if has_hung_up && self.shut_down_with.is_none() => self.note_shut_down(),
            Closing::Watched(_) => {}
            // The report comes before the kernel discards unread data, and tells this end of it.
            Closing::Reported if self.has_unread_by_application() || !self.has_hung_up() => {}
            Closing::Reported => (self.closing, self.hung_up, self.ended) = (Closing::Done, true, true),
            Closing::Done => {}
        }
    }

    fn note_shut_down(&mut self) {
        self.to_application = Way::Ended;
        self.shut_down_with = Some(self.connection.flow().readable());
        if self.to_peer == Way::Ended {
            // An error means that the connection has ended.
            let _ = self.connection.shutdown(Shutdown::Read);
        }
    }

    /// Resets the connection if data comes after the end of both directions, as Linux does. Once this end is
    /// on its way, the connection does that itself.
    fn look_for_late_data(&mut self) {
        if self.broken.is_none() && self.has_late_data() {
            self.connection.flow().set_reset_on_close(true);
            self.note_break(Errno::CONNRESET);
        }
    }

    fn has_late_data(&self) -> bool {
        let is_more = |unread| self.connection.flow().readable() > unread;
        self.to_peer == Way::Open && self.shut_down_with.is_some_and(is_more)
    }

    /// Waits until the peer, which has ended its direction, has acknowledged the written data and the end.
    /// Until then the application, which may have shut down its direction only, can ask for the delivery
    /// (SIOCOUTQ, SO_ERROR).
    fn await_delivery(&mut self) -> Outcome {
        let may_be_open = self.to_application == Way::Ended && !self.connection.flow().is_reset_on_close();
        if !may_be_open || self.draining || self.left_unread || self.closing == Closing::Done {
            return Outcome::Ended;
        }
        let now = Instant::now();
        let until = *self.delivering_until.get_or_insert_with(|| {
            // The end follows the data. An error means that the connection has broken, as seen below.
            let _ = self.connection.shutdown(Shutdown::Write);
            now + MAX_DELIVERY_TIME
        });
        // Both the last acknowledgement and a reset wake it. Registered first, because either may come now.
        self.connection.waiters().register(Interest::Read, &self.waker);
        match self.connection.flow().delivery() {
            Delivery::Lost(loss) => {
                self.look_for_errors();
                self.note_break(errno(loss.error));
                Outcome::HasMore
            }
            // A reset may come until the end is acknowledged.
            Delivery::Pending if now < until => Outcome::WaitsUntil(until),
            // The connection goes on to deliver. An application that still asks must not take that for done.
            Delivery::Pending => {
                self.note_break(Errno::TIMEDOUT);
                Outcome::Ended
            }
            _ => Outcome::Ended,
        }
    }

    /// Returns the deadline of the wait for the last acknowledgement, if there was one.
    pub(super) fn delivering_until(&self) -> Option<Instant> {
        self.delivering_until
    }

    /// Handles the end of a broken stream. A connection that the application has not accepted yet waits.
    /// Until the library writes to an accepted descriptor, the server has no process to which it could report
    /// a reset. An application that accepts by a direct system call writes nothing.
    fn end_broken(&mut self, resets: &Resets) -> Outcome {
        if self.draining || !self.unix.awaits_accept() {
            return Outcome::Ended;
        }
        let now = Instant::now();
        let (look, is_last) = *self.accept_look.get_or_insert((now + FIRST_ACCEPT_CHECK, false));
        if now < look {
            return Outcome::WaitsUntil(look);
        }
        self.was_shown = true;
        if is_last || resets.show_early(self.unix.as_fd(), self.holder, self.origin.id()) {
            return Outcome::Ended;
        }
        let last = now + LAST_ACCEPT_CHECK;
        self.accept_look = Some((last, true));
        Outcome::WaitsUntil(last)
    }

    /// Returns true if it is an unaccepted connection of this listener. If the application accepts by a
    /// direct system call, it may already use the connection once data has arrived.
    pub(super) fn is_unaccepted(&self, of: SocketId) -> bool {
        let is_its = matches!(self.origin, Origin::Accepted { listener, .. } if listener == of);
        is_its && self.is_untouched && self.unix.awaits_accept()
    }

    fn look_for_errors(&mut self) {
        if self.broken.is_none()
            && self.connection.flow().readiness().contains(Ready::ERROR)
            && let Some(error) = self.connection.flow().take_error()
        {
            self.note_break(errno(error));
        }
    }

    fn note_break(&mut self, error: Errno) {
        if self.broken.is_none() {
            self.broken = Some(Break { error, was_open: !self.is_closed(), is_noticed: false });
        }
    }

    /// Notes that a call of the application has failed, or will fail, because the connection has ended, if it
    /// has.
    pub(super) fn note_noticed(&mut self) {
        if let Some(broken) = &mut self.broken {
            broken.is_noticed = true;
        }
    }

    /// Makes the application see how the stream has ended when its descriptor is closed next. Returns the
    /// part that cannot be reported that way, if the connection broke.
    pub(super) fn finish(&mut self, drain: bool, resets: &Resets) -> Option<Ending> {
        let Some(mut broken) = self.ending() else {
            // Asked in this order, because the kernel tells of the closing before it discards unread data. An
            // application that has ended both directions reads on, unless its node ends.
            let is_unread = drain && self.has_unread_by_application() || self.left_unread();
            let is_closed = self.is_closed();
            // A node ends with its programs, and what they have not read is lost with them.
            if is_closed && self.options.resets_on_close() || is_unread && (is_closed || drain) {
                self.connection.flow().set_reset_on_close(true);
            }
            // An application that still has it open while the node ends must see the connection break, unless
            // the peer has sent everything.
            if !drain || is_closed || self.is_complete() {
                self.unix.end_in_order();
            }
            return None;
        };
        let remote = self.connection.peer_addr().ok().map(tracing::field::display);
        tracing::debug!(remote, error = %broken.error, lost = broken.lost, "a connection broke");
        if self.hung_up {
            return Some(broken);
        }
        let is_told =
            if self.to_application == Way::Open || self.shut_down_with.is_some() || broken.lost.is_some() {
                resets.show(self.unix.as_fd(), self.holder, self.origin.id())
            } else {
                // An application that has seen an orderly end, and lost nothing, gets no other.
                self.unix.end_in_order();
                false
            };
        broken.is_untold = !(is_told && broken.error == Errno::CONNRESET);
        Some(broken)
    }

    /// Returns the record of a broken connection.
    pub(super) fn ending(&self) -> Option<Ending> {
        let Break { error, was_open, is_noticed } = self.broken?;
        let not_taken = self.not_taken().saturating_sub(usize::from(self.was_shown)) as u64;
        let lost = match self.connection.flow().delivery() {
            Delivery::Lost(loss) => Some(not_taken + loss.unacked),
            _ => (not_taken > 0).then_some(not_taken),
        };
        let when = if was_open { When::Open } else { When::Closed };
        let is_own_attempt = matches!(self.origin, Origin::Opened(_));
        let is_untold = lost.is_some() || error == Errno::TIMEDOUT;
        Some(Ending { error, lost, when, is_own_attempt, is_noticed, is_untold })
    }

    /// Preserves the orderly end of the peer's data for the application although the node ends, if both sides
    /// are complete.
    pub(super) fn keep_end(&mut self) {
        if self.is_complete() {
            self.unix.release();
        }
    }

    /// Returns true if the application has received the peer's orderly end, and the peer has all of the
    /// application's data.
    fn is_complete(&self) -> bool {
        self.to_application == Way::Ended
            && self.broken.is_none()
            && self.not_taken() == 0
            && self.connection.flow().unacked() == 0
    }

    /// Returns the error that has ended the connection; the application may still have data to read.
    pub(super) fn broken(&self) -> Option<Errno> {
        self.broken.map(|broken| broken.error)
    }

    /// Returns the peer's address, as getpeername(2) does; `None` once both directions have ended.
    pub(super) fn peer_addr(&self) -> Option<SocketAddr> {
        let has_ended = matches!(self.connection.flow().state(), State::Closed | State::TimeWait);
        self.connection.peer_addr().ok().filter(|_| !has_ended)
    }

    /// Returns the number of bytes that the application wrote before the node's end began, and that the
    /// connection has not taken.
    pub(super) fn not_taken(&self) -> usize {
        self.left.len() + self.unix.not_taken()
    }

    /// Returns true if the application has ended its direction, and the peer has not acknowledged that.
    pub(super) fn has_end_unacknowledged(&self) -> bool {
        match self.to_peer {
            Way::Ended => {
                let state = self.connection.flow().state();
                matches!(state, State::FinWait1 | State::Closing | State::LastAck)
            }
            // The event may still be pending.
            Way::Open => {
                self.ended
                    || events_of(self.unix.as_fd(), PollFlags::RDHUP)
                        .is_ok_and(|events| events.contains(PollFlags::RDHUP))
            }
        }
    }

    /// Returns true if the application's descriptor holds unread data.
    fn has_unread_by_application(&self) -> bool {
        process::unread_by_peer(self.unix.as_fd()) > 0
    }

    /// Returns true if everything the application has written is on its way, as far as known.
    pub(super) fn is_taken(&self) -> bool {
        self.to_peer == Way::Ended || self.broken.is_some() || (!self.readable && self.left.is_empty())
    }

    /// Returns true if the peer has everything the application had written when the drain began. Before that,
    /// events of that data may be pending.
    pub(super) fn is_delivered(&self) -> bool {
        let flow = self.connection.flow();
        self.draining
            && self.is_taken()
            && (flow.unacked() == 0 || matches!(flow.delivery(), Delivery::Lost(_)))
    }

    /// Returns the process that most likely has the application's descriptor.
    pub(super) fn process(&self) -> i32 {
        self.holder.process
    }

    /// Returns true if the application has closed its descriptor, as opposed to shutting down its direction.
    pub(super) fn is_closed(&self) -> bool {
        self.hung_up || (self.closing == Closing::Unwatched && self.has_hung_up())
    }

    /// Returns true if the application has closed its descriptor or shut down both directions.
    pub(super) fn has_hung_up(&self) -> bool {
        let has_hung_up = |events: PollFlags| events.contains(PollFlags::HUP);
        self.hung_up || events_of(self.unix.as_fd(), PollFlags::empty()).is_ok_and(has_hung_up)
    }

    /// Returns true if data has arrived that the application, which has closed its descriptor, will not read.
    /// As in TCP, the connection is then reset (RFC 1122 4.2.2.13). Registers for data that arrives later.
    fn has_unread(&mut self) -> bool {
        self.connection.waiters().register(Interest::Read, &self.waker);
        // An application that has got the peer's end may leave data unread; its answer is still sent.
        let has_end = self.to_application == Way::Ended && self.shut_down_with.is_none();
        self.connection.flow().readable() > 0 || !has_end && self.left_unread()
    }

    /// Makes the connection end with a reset if the application has closed its descriptor with unread data. A
    /// node that is ending may not have received that event.
    pub(super) fn reset_if_unread(&mut self) {
        if self.left_unread() {
            self.connection.flow().set_reset_on_close(true);
        }
    }

    /// Returns true if the application has closed its descriptor with unread data.
    fn left_unread(&mut self) -> bool {
        self.left_unread |= sockopt::socket_error(&self.unix) == Ok(Err(Errno::CONNRESET));
        self.left_unread
    }

    /// Waits for progress of a direction of the connection, unless the error is another one.
    fn blocked(&mut self, interest: Interest, error: io::Error) -> Progress {
        if error.kind() != io::ErrorKind::WouldBlock {
            return self.break_by(&error);
        }
        self.wait_for(interest)
    }

    /// Registers for the connection's next event of a kind, unless it has come.
    fn wait_for(&self, interest: Interest) -> Progress {
        self.connection.waiters().register(interest, &self.waker);
        // Another thread may have consumed the event before, and it is not repeated.
        match self.connection.is_ready(interest) {
            Ok(()) => Progress::More,
            Err(_) => Progress::Blocked,
        }
    }

    fn break_by(&mut self, error: &io::Error) -> Progress {
        self.note_break(Errno::from_io_error(error).unwrap_or(Errno::IO));
        // Data that arrived before can still be read.
        if self.to_application == Way::Open && !self.hung_up { Progress::More } else { Progress::Broken }
    }
}
