//! One connection and the application's descriptor for it: bytes from the one to the other, in both
//! directions.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::sys::poller::EventFlags;
use peersock_fd::{Errno, SendFlags, SocketId};
use peersock_stack::{Delivery, PIECES, Ready};
use rustix::event::{PollFd, PollFlags};
use rustix::net::{SendAncillaryBuffer, sockopt};

use super::app_end;
use super::endings::Ending;
use super::options::Options;
use super::outbox::{Outbox, Taken};
use super::ready;
use super::server::Readiness;
use super::sockets::errno;
use crate::socket::Connection;
use crate::sys::process;
use peersock_primitives::wait::Interest;

/// How often a stream goes on at once before others have their turn.
const ROUNDS: usize = 4;

/// How long the peer's end is held back beyond two round trips, and how long at most. A peer on a busy
/// machine may take a while to refuse what has come.
const END_PATIENCE: Duration = Duration::from_millis(500);
const MOST_END_PATIENCE: Duration = Duration::from_secs(1);

/// What the kernel shall tell of an application's descriptor.
pub(super) const EVENTS: EventFlags =
    EventFlags::IN.union(EventFlags::OUT).union(EventFlags::RDHUP).union(EventFlags::ET);

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A socket connected.
    Opened(SocketId),
    /// A listener accepted it.
    Accepted(SocketId),
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
    entry: Arc<ready::Entry>,
    /// As far as we know, the descriptor has something to read, and room.
    readable: bool,
    writable: bool,
    /// The application sends no more.
    ended: bool,
    /// What the application has written by now is taken to the last byte.
    draining: bool,
    /// The application has closed its descriptor.
    hung_up: bool,
    /// Nothing more comes from the application, or goes to it.
    outward: Way,
    inward: Way,
    /// What was read from the application and did not fit.
    left: Vec<u8>,
    broken: Option<Break>,
    /// The peer has ended its direction, and the application is told so then at the latest.
    end_until: Option<Instant>,
    holds_end: bool,
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
        (waker, entry): (Waker, Arc<ready::Entry>),
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
            ended: false,
            draining: false,
            hung_up: false,
            outward: Way::Open,
            inward: Way::Open,
            left: Vec::new(),
            broken: None,
            end_until: None,
            holds_end: false,
        }
    }

    /// Moves what there is, up to a bound. With `drain`, what the application has not written by now does not
    /// count.
    pub(super) fn pump(&mut self, readiness: Readiness, buf: &mut [u8], drain: bool) -> Outcome {
        self.entry.begin();
        self.draining |= drain;
        // News of what was written before the drain may not have been taken yet.
        self.readable |= readiness.readable || drain;
        self.writable |= readiness.writable;
        self.ended |= readiness.ended;
        self.hung_up |= readiness.hung_up;
        let mut last = (Progress::More, Progress::More);
        for _ in 0..ROUNDS {
            self.look_for_errors();
            // What has arrived before the connection broke is still delivered.
            let outward = if self.broken.is_some() { self.discard(buf) } else { self.pump_out(buf) };
            let inward = if self.hung_up { Progress::Blocked } else { self.pump_in() };
            last = (outward, inward);
            if !matches!(last, (Progress::More, _) | (_, Progress::More)) {
                break;
            }
        }
        match last {
            (Progress::Broken, _) | (_, Progress::Broken) => Outcome::Ended,
            _ if self.broken.is_some() && (self.hung_up || self.inward == Way::Ended) => Outcome::Ended,
            (Progress::More, _) | (_, Progress::More) => Outcome::HasMore,
            // Nothing but the reset tells the peer, and it does not wait for what was written.
            _ if self.hung_up && self.options.resets_on_close() => Outcome::Ended,
            _ if self.hung_up && self.outward == Way::Ended => {
                // It had ended its own direction before it closed the descriptor with something unread.
                if sockopt::socket_error(&self.unix) == Ok(Err(Errno::CONNRESET)) {
                    self.connection.flow().set_reset_on_close(true);
                }
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
            // One who still has it open while the node ends has to see that the connection does, too, unless
            // its peer has said all.
            if !drain || self.is_closed() || self.is_complete() {
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
            app_end::poison(self.unix.as_fd(), self.process)
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
        Some(Ending { error, lost, was_open, is_noticed, is_untold: lost.is_some() })
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

    /// Bytes that the application has written and the connection has not got.
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

    /// From the application to the connection.
    fn pump_out(&mut self, buf: &mut [u8]) -> Progress {
        if self.outward == Way::Ended {
            return Progress::Blocked;
        }
        if !self.left.is_empty() {
            match self.connection.write(&self.left) {
                Ok(written) => drop(self.left.drain(..written)),
                Err(error) => return self.blocked(Interest::Write, error),
            }
        }
        if !self.readable || !self.left.is_empty() {
            return Progress::Blocked;
        }
        if let Err(error) = self.connection.is_ready(Interest::Write) {
            let progress = self.blocked(Interest::Write, error);
            // It may have become writable before we were registered.
            if self.connection.is_ready(Interest::Write).is_err() {
                return progress;
            }
        }
        // When nothing fits it is because the connection has ended: then writing tells why.
        let room = self.connection.flow().writable().clamp(1, buf.len());
        match self.unix.take(&mut buf[..room], self.ended) {
            Taken::End if self.is_closed() => {
                // Closing the connection sends its end, or a reset if something was not read. An end before
                // the reset would be taken for all there is.
                (self.outward, self.hung_up) = (Way::Ended, true);
                Progress::Blocked
            }
            Taken::End => {
                self.outward = Way::Ended;
                match self.connection.shutdown(Shutdown::Write) {
                    Err(error) if error.kind() != io::ErrorKind::NotConnected => self.break_by(&error),
                    _ => Progress::Blocked,
                }
            }
            Taken::Bytes(length, has_more) => match self.connection.write(&buf[..length]) {
                Ok(written) => {
                    self.left.extend_from_slice(&buf[written..length]);
                    // Where that was all, the descriptor tells when there is more.
                    self.readable = has_more || self.ended || self.draining;
                    // The next turn finds out what the rest waits for.
                    if self.readable || !self.left.is_empty() { Progress::More } else { Progress::Blocked }
                }
                Err(error) => {
                    self.left.extend_from_slice(&buf[..length]);
                    self.blocked(Interest::Write, error)
                }
            },
            Taken::Nothing => {
                self.readable = false;
                Progress::Blocked
            }
            Taken::Interrupted => Progress::More,
            // The application has closed it and not read all there was: RFC 2525 2.17.
            Taken::Reset => {
                self.connection.flow().set_reset_on_close(true);
                (self.outward, self.hung_up) = (Way::Ended, true);
                Progress::Blocked
            }
        }
    }

    /// The connection is broken: what the application has written goes nowhere, and it is told so when it
    /// writes more, however long it takes to read what has come.
    fn discard(&mut self, buf: &mut [u8]) -> Progress {
        // First of all: once there is room the application would write into it.
        if self.unix.is_reset_on_close() {
            let _ = rustix::net::shutdown(&self.unix, rustix::net::Shutdown::Read);
        }
        self.unix.discard(buf);
        Progress::Blocked
    }

    /// Whether the application has closed its descriptor, and not only ended its direction.
    pub(super) fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(&self.unix, PollFlags::empty())];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        self.hung_up
            || rustix::event::poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
    }

    /// Whether something has come that the application, which has closed its descriptor, will not read: as
    /// TCP does, the connection is reset then (RFC 1122 4.2.2.13). Asks to be told of what comes later.
    fn has_unread(&self) -> bool {
        if self.inward == Way::Ended {
            return false;
        }
        self.connection.waiters().register(Interest::Read, &self.waker);
        self.connection.flow().readable() > 0
            || sockopt::socket_error(&self.unix) == Ok(Err(Errno::CONNRESET))
    }

    /// From the connection to the application.
    fn pump_in(&mut self) -> Progress {
        if self.inward == Way::Ended || !self.writable {
            return Progress::Blocked;
        }
        let mut shown = 0;
        let mut sent = Ok(0);
        let unix = &self.unix;
        let read = self.connection.read_with(|pieces| {
            shown = pieces.iter().map(|piece| piece.len()).sum();
            let mut slices = [IoSlice::new(&[]); PIECES];
            for (slice, piece) in slices.iter_mut().zip(pieces) {
                *slice = IoSlice::new(piece);
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let slices = &slices[..pieces.len()];
            sent = rustix::net::sendmsg(unix, slices, &mut SendAncillaryBuffer::default(), flags);
            sent.unwrap_or(0)
        });
        match (read, sent) {
            // The error that ended it is known already. After the peer's own end it concerns writing only.
            (Ok(0), Ok(_)) if shown == 0 && self.broken().is_some_and(|error| error != Errno::PIPE) => {
                Progress::Broken
            }
            (Ok(0), Ok(_)) if shown == 0 && self.broken.is_none() && self.holds_back_end() => {
                Progress::Blocked
            }
            (Ok(0), Ok(_)) if shown == 0 => {
                self.inward = Way::Ended;
                // It may have closed it meanwhile.
                let _ = rustix::net::shutdown(&self.unix, rustix::net::Shutdown::Write);
                Progress::Blocked
            }
            (Ok(_), Ok(sent)) => {
                self.writable = sent == shown;
                if self.writable { Progress::More } else { Progress::Blocked }
            }
            (Ok(_), Err(Errno::AGAIN)) => {
                self.writable = false;
                Progress::Blocked
            }
            (Ok(_), Err(Errno::INTR)) => Progress::More,
            // SHUT_RD, or it is closed: what comes is thrown away.
            (Ok(_), Err(_)) => {
                self.inward = Way::Ended;
                let _ = self.connection.shutdown(Shutdown::Read);
                Progress::Blocked
            }
            (Err(error), _) if error.kind() == io::ErrorKind::WouldBlock => {
                let progress = self.blocked(Interest::Read, error);
                match self.connection.is_ready(Interest::Read) {
                    Ok(()) => Progress::More,
                    Err(_) => progress,
                }
            }
            (Err(error), _) => self.break_by(&error),
        }
    }

    /// Whether the peer's end is not told yet: if the peer does not read what is on its way to it, a reset
    /// follows in about a round trip, and after the end nobody would hear of it.
    fn holds_back_end(&mut self) -> bool {
        let flow = self.connection.flow();
        let now = Instant::now();
        let until = *self.end_until.get_or_insert_with(|| {
            let round_trip = flow.info().and_then(|info| info.rtt).unwrap_or_default();
            now + (2 * round_trip + END_PATIENCE).min(MOST_END_PATIENCE)
        });
        // News of what the application has written just now may not have come yet.
        let is_waiting = flow.unacked() > 0 || self.not_taken() > 0;
        self.holds_end = is_waiting && !self.draining && now < until;
        self.holds_end
    }

    /// Asks to be told when a direction of the connection goes on.
    fn blocked(&mut self, interest: Interest, error: io::Error) -> Progress {
        if error.kind() != io::ErrorKind::WouldBlock {
            return self.break_by(&error);
        }
        self.connection.waiters().register(interest, &self.waker);
        Progress::Blocked
    }

    fn break_by(&mut self, error: &io::Error) -> Progress {
        self.note_break(Errno::from_io_error(error).unwrap_or(Errno::IO));
        // What has come before can still be read.
        if self.inward == Way::Open && !self.hung_up { Progress::More } else { Progress::Broken }
    }
}
