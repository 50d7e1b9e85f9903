//! One connection and the application's descriptor for it: bytes from the one to the other, in both
//! directions.

mod inward;
mod outward;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use peersock::attach::{Connection, EventFlags, Place};
use peersock_fd::{Errno, SocketId, events_of};
use peersock_primitives::wait::Interest;
use peersock_stack::{Delivery, Flow, Ready};
use rustix::event::PollFlags;
use rustix::net::sockopt;

use super::addresses::errno;
use super::application_fd;
use super::connection_errors::{Ending, When};
use super::options::Options;
use super::outbox::Outbox;
use super::wakers::{self, Readiness};
use crate::listening::HOLDS_PLACE;
use crate::process;

/// How often a stream goes on at once before others have their turn.
const ROUNDS: usize = 4;

/// A connection that broke waits for the application to accept it by a call of the library's. After so long,
/// and once more at the end, it is looked whether it has done so by another call.
const FIRST_ACCEPT_LOOK: Duration = Duration::from_secs(2);
const LAST_ACCEPT_LOOK: Duration = Duration::from_secs(60);

/// What the kernel shall tell of an application's descriptor. Of room only where it is waited for: it would
/// tell whenever the application reads.
pub(super) const EVENTS: EventFlags =
    EventFlags::IN.union(EventFlags::PRI).union(EventFlags::RDHUP).union(EventFlags::ET);

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A socket connected.
    Opened(SocketId),
    /// A listener accepted it.
    Accepted { id: SocketId, listener: SocketId },
}

impl Origin {
    /// The socket.
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
    /// A process that has the application's descriptor, most likely.
    process: i32,
    waker: Waker,
    entry: Arc<wakers::Entry>,
    /// As far as we know, the descriptor has something to read, and room.
    readable: bool,
    writable: bool,
    /// The kernel tells of room; and it has told of some that was known.
    watches_room: bool,
    is_told_of_known_room: bool,
    /// The application sends no more.
    ended: bool,
    /// What the application had written when the node began to end is taken to the last byte, and no more.
    draining: bool,
    /// The application has closed its descriptor.
    hung_up: bool,
    /// It had not read all that was in it.
    left_unread: bool,
    /// Nothing more comes from the application, or goes to it.
    outward: Way,
    inward: Way,
    /// What was read from the application and did not fit.
    left: Vec<u8>,
    broken: Option<Break>,
    /// The peer has ended its direction, and the application is told so then at the latest.
    end_until: Option<Instant>,
    holds_end: bool,
    /// Nothing was passed to the application so far.
    is_untouched: bool,
    /// It counts among its listener's connections that wait, until then at the latest.
    place: Option<(Place, Instant)>,
    /// It was connected without being waited for, and no call has said so yet.
    is_untold: bool,
    /// It broke, and then it is looked again whether the application has accepted it; and whether for the last
    /// time.
    accept_look: Option<(Instant, bool)>,
}

/// One direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Its end has been passed on.
    Ended,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It waits for news.
    Waits,
    /// It waits until what was sent is acknowledged, of which there is no news.
    WaitsForDelivery,
    /// It broke, and waits until then for the application to accept it.
    WaitsForAccept(Instant),
    /// It could go on, but others shall have their turn.
    HasMore,
    /// The node drains, and all that the application has written is on its way.
    Taken,
    /// It is over.
    Ended,
}

/// How far a direction came.
enum Progress {
    /// As far as it goes for now.
    Blocked,
    /// There may be more.
    More,
    /// The connection is broken, and nothing more comes from it.
    Broken,
}

/// What has ended a connection before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Break {
    error: Errno,
    /// The application had its descriptor open then.
    was_open: bool,
    /// A call has failed by it.
    is_noticed: bool,
}

impl Stream {
    pub(super) fn new(
        connection: Connection,
        origin: Origin,
        options: Options,
        unix: Outbox,
        process: i32,
        (waker, entry): (Waker, Arc<wakers::Entry>),
    ) -> Self {
        Self {
            connection,
            origin,
            options,
            unix,
            process,
            waker,
            entry,
            readable: true,
            writable: true,
            watches_room: false,
            is_told_of_known_room: false,
            ended: false,
            draining: false,
            hung_up: false,
            left_unread: false,
            outward: Way::Open,
            inward: Way::Open,
            left: Vec::new(),
            broken: None,
            end_until: None,
            holds_end: false,
            is_untouched: true,
            place: None,
            is_untold: false,
            accept_look: None,
        }
    }

    /// Has it count among its listener's connections that wait, until the application accepts it.
    pub(super) fn in_place(mut self, place: Option<Place>) -> Self {
        self.place = place.map(|place| (place, Instant::now() + HOLDS_PLACE));
        self
    }

    /// Returns true if it counts among those.
    pub(super) fn has_place(&self) -> bool {
        self.place.is_some()
    }

    /// Looks whether the application has accepted it. By a call that nobody sees it has, if it has read what
    /// was passed to it, or written something.
    fn look_at_place(&mut self) {
        if let Some((_, until)) = &self.place {
            let has_read = || !self.is_untouched && process::unread_by_peer(self.unix.as_fd()) == 0;
            if !self.unix.awaits_accept() || self.hung_up || has_read() || Instant::now() >= *until {
                self.place = None;
            }
        }
    }

    /// No call has waited for it to be connected.
    pub(super) fn set_untold(&mut self) {
        self.is_untold = true;
    }

    /// The application has written that before its descriptor was looked at.
    pub(super) fn set_written(&mut self, data: Vec<u8>) {
        self.left = data;
    }

    /// Whether no call has said yet that it is connected: once.
    pub(super) fn take_untold(&mut self) -> bool {
        std::mem::take(&mut self.is_untold)
    }

    /// What has it looked at.
    pub(super) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// What the kernel shall tell of from now on, if that is not what it was.
    pub(super) fn changed_events(&mut self) -> Option<(BorrowedFd<'_>, EventFlags)> {
        let is_waiting = !self.writable && self.inward == Way::Open;
        if is_waiting == self.watches_room || (!is_waiting && !self.is_told_of_known_room) {
            return None;
        }
        self.watches_room = is_waiting;
        self.is_told_of_known_room = false;
        Some((self.unix.as_fd(), if is_waiting { EVENTS | EventFlags::OUT } else { EVENTS }))
    }

    /// The node begins to end: what the application has written by now still counts. It is taken in the next
    /// [`pump`](Self::pump); before that nothing is said to be delivered.
    pub(super) fn begin_drain(&mut self) {
        self.unix.begin_drain();
    }

    /// Its end of the application's descriptor; the connection is closed.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.unix.into_fd()
    }

    /// Moves what there is, up to a bound. With `drain`, what the application has not written by now does not
    /// count. The connection is among the `unsent` afterwards if little was written to it, which is still to
    /// be sent.
    pub(super) fn pump(
        &mut self,
        readiness: Readiness,
        buf: &mut [u8],
        unsent: &mut Vec<Arc<Flow>>,
        drain: bool,
    ) -> Outcome {
        self.entry.begin();
        if drain {
            self.draining = true;
            self.begin_drain();
        }
        // News of what was written before the drain may not have been taken yet.
        self.readable |= readiness.readable || drain;
        self.is_told_of_known_room |= readiness.writable && self.writable;
        self.writable |= readiness.writable;
        self.ended |= readiness.ended;
        self.hung_up |= readiness.hung_up;
        if readiness.urgent {
            self.unix.note_urgent();
        }
        self.look_at_place();
        let mut last = (Progress::More, Progress::More);
        for _ in 0..ROUNDS {
            self.look_for_errors();
            // What has arrived before the connection broke is still delivered.
            let outward = if self.broken.is_some() { self.discard(buf) } else { self.pump_out(buf, unsent) };
            let inward = if self.hung_up { Progress::Blocked } else { self.pump_in() };
            last = (outward, inward);
            if !matches!(last, (Progress::More, _) | (_, Progress::More)) {
                break;
            }
        }
        match last {
            (Progress::Broken, _) | (_, Progress::Broken) => self.end_broken(),
            _ if self.broken.is_some() && (self.hung_up || self.inward == Way::Ended) => Outcome::Ended,
            (Progress::More, _) | (_, Progress::More) => Outcome::HasMore,
            // Nothing but the reset tells the peer, and it does not wait for what was written.
            _ if self.hung_up && self.options.resets_on_close() => {
                if !self.left_unread() {
                    self.connection.flow().set_all_read();
                }
                Outcome::Ended
            }
            _ if self.hung_up && self.outward == Way::Ended => {
                // It had ended its own direction before it closed the descriptor.
                self.reset_if_unread();
                Outcome::Ended
            }
            // What it has written waits for a peer who may be waiting for it to read.
            _ if self.hung_up && self.has_unread() => {
                self.connection.flow().set_reset_on_close(true);
                Outcome::Ended
            }
            // What the application has not read makes the end a reset, which must not overtake what it has
            // written.
            _ if drain && self.is_taken() => {
                let is_under_way = self.connection.flow().delivery() == Delivery::Pending;
                match is_under_way && !self.is_closed() && self.has_unread_by_application() {
                    true => Outcome::WaitsForDelivery,
                    false => Outcome::Taken,
                }
            }
            _ if self.holds_end => Outcome::WaitsForDelivery,
            _ => {
                if self.inward == Way::Ended {
                    // Only a reset can come, which the application has to know of when it writes next.
                    self.connection.waiters().register(Interest::Read, &self.waker);
                    if self.connection.flow().readiness().contains(Ready::ERROR) {
                        return Outcome::HasMore;
                    }
                }
                Outcome::Waits
            }
        }
    }

    /// What becomes of it when it broke: it ends, but for one that the application has not accepted yet. It has
    /// no descriptor by which it could be told of a reset, until the library writes to the one it accepts. Who
    /// accepts by a system call of his own writes nothing.
    fn end_broken(&mut self) -> Outcome {
        if self.draining || !self.unix.awaits_accept() {
            return Outcome::Ended;
        }
        let now = Instant::now();
        let (look, is_last) = *self.accept_look.get_or_insert((now + FIRST_ACCEPT_LOOK, false));
        if now < look {
            return Outcome::WaitsForAccept(look);
        }
        if is_last || application_fd::poison(self.unix.as_fd(), self.process) {
            return Outcome::Ended;
        }
        let last = now + LAST_ACCEPT_LOOK;
        self.accept_look = Some((last, true));
        Outcome::WaitsForAccept(last)
    }

    /// Whether it is a connection of this listener's that nobody has accepted. Who has accepted it by a system
    /// call of his own may be using it once something has come.
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

    /// A call of the application's has failed, or will, by what has ended the connection, if something has.
    pub(super) fn note_noticed(&mut self) {
        if let Some(broken) = &mut self.broken {
            broken.is_noticed = true;
        }
    }

    /// Has the application told how the stream has ended, when its descriptor is closed next. Gives what it
    /// cannot be told that way, if the connection broke.
    pub(super) fn finish(&mut self, drain: bool) -> Option<Ending> {
        let Some(mut broken) = self.ending() else {
            let is_closed = self.is_closed();
            if is_closed {
                self.reset_if_unread();
            }
            // One who still has it open while the node ends has to see that the connection does, too, unless
            // its peer has said all.
            if !drain || is_closed || self.is_complete() {
                self.unix.end_in_order();
            } else if self.has_unread_by_application() {
                self.connection.flow().set_reset_on_close(true);
            }
            return None;
        };
        let remote = self.connection.peer_addr().ok().map(tracing::field::display);
        tracing::debug!(remote, error = %broken.error, lost = broken.lost, "a connection broke");
        if self.hung_up {
            return Some(broken);
        }
        let is_told = if self.inward == Way::Open || broken.lost.is_some() {
            application_fd::poison(self.unix.as_fd(), self.process)
        } else {
            // Who has seen the end in order, and lost nothing, gets no other.
            self.unix.end_in_order();
            false
        };
        broken.is_untold = !(is_told && broken.error == Errno::CONNRESET);
        Some(broken)
    }

    /// What is to be remembered of a connection that broke.
    pub(super) fn ending(&self) -> Option<Ending> {
        let Break { error, was_open, is_noticed } = self.broken?;
        let not_taken = self.not_taken() as u64;
        let lost = match self.connection.flow().delivery() {
            Delivery::Lost(loss) => Some(not_taken + loss.unacked),
            _ => (not_taken > 0).then_some(not_taken),
        };
        let when = if was_open { When::Open } else { When::Closed };
        let is_own_attempt = matches!(self.origin, Origin::Opened(_));
        Some(Ending { error, lost, when, is_own_attempt, is_noticed, is_untold: lost.is_some() })
    }

    /// Has the application see the end of what its peer has sent as what it is, though the node ends, if both
    /// have said all.
    pub(super) fn keep_end(&mut self) {
        if self.is_complete() {
            self.unix.release();
        }
    }

    /// Whether the application was given the peer's end in order, and the peer has all of the application's.
    fn is_complete(&self) -> bool {
        self.inward == Way::Ended
            && self.broken.is_none()
            && self.not_taken() == 0
            && self.connection.flow().unacked() == 0
    }

    /// What has ended the connection, though the application may still have something to read.
    pub(super) fn broken(&self) -> Option<Errno> {
        self.broken.map(|broken| broken.error)
    }

    /// Bytes that the application has written, before the node began to end, and the connection has not got.
    pub(super) fn not_taken(&self) -> usize {
        self.left.len() + self.unix.not_taken()
    }

    /// Whether the application's descriptor holds something that it has not read.
    fn has_unread_by_application(&self) -> bool {
        process::unread_by_peer(self.unix.as_fd()) > 0
    }

    /// Whether all that the application has written is on its way, as far as it was looked at.
    pub(super) fn is_taken(&self) -> bool {
        self.outward == Way::Ended || self.broken.is_some() || (!self.readable && self.left.is_empty())
    }

    /// Whether the peer has all that the application had written when the drain began. News of it may not
    /// have been taken before that.
    pub(super) fn is_delivered(&self) -> bool {
        let flow = self.connection.flow();
        self.draining
            && self.is_taken()
            && (flow.unacked() == 0 || matches!(flow.delivery(), Delivery::Lost(_)))
    }

    /// A process that has the application's descriptor, most likely.
    pub(super) fn process(&self) -> i32 {
        self.process
    }

    /// Whether the application has closed its descriptor, and not only ended its direction.
    pub(super) fn is_closed(&self) -> bool {
        let has_hung_up = |events: PollFlags| events.contains(PollFlags::HUP);
        self.hung_up || events_of(self.unix.as_fd(), PollFlags::empty()).is_ok_and(has_hung_up)
    }

    /// Whether something has come that the application, which has closed its descriptor, will not read: as
    /// TCP does, the connection is reset then (RFC 1122 4.2.2.13). Asks to be told of what comes later.
    fn has_unread(&mut self) -> bool {
        if self.inward == Way::Ended {
            return false;
        }
        self.connection.waiters().register(Interest::Read, &self.waker);
        self.connection.flow().readable() > 0 || self.left_unread()
    }

    /// Has the connection end with a reset if the application, which has closed its descriptor, has not read
    /// all that was in it. A node that ends may not have had news of that.
    pub(super) fn reset_if_unread(&mut self) {
        if self.left_unread() {
            self.connection.flow().set_reset_on_close(true);
        }
    }

    /// Whether the application has closed its descriptor and not read all that was in it.
    fn left_unread(&mut self) -> bool {
        self.left_unread |= sockopt::socket_error(&self.unix) == Ok(Err(Errno::CONNRESET));
        self.left_unread
    }

    /// Asks to be told when a direction of the connection goes on.
    fn blocked(&mut self, interest: Interest, error: io::Error) -> Progress {
        if error.kind() != io::ErrorKind::WouldBlock {
            return self.break_by(&error);
        }
        self.connection.waiters().register(interest, &self.waker);
        // Another thread may have had news of it before that, which nobody is told of again.
        match self.connection.is_ready(interest) {
            Ok(()) => Progress::More,
            Err(_) => Progress::Blocked,
        }
    }

    fn break_by(&mut self, error: &io::Error) -> Progress {
        self.note_break(Errno::from_io_error(error).unwrap_or(Errno::IO));
        // What has come before can still be read.
        if self.inward == Way::Open && !self.hung_up { Progress::More } else { Progress::Broken }
    }
}
